"""What only a Redis Cluster can do: lose a part of itself, and move what it holds to another server."""

from pathlib import Path

import anyio
import anyio.to_thread

from presence.leases import shard_of
from tests.integration.presence_nodes import CALM, Node, Recorder, World, eventually, world
from tests.redis_cluster import Cluster, ClusterServer, redis_cluster


async def one_mechanic_per_shard(here: World, node: Node) -> list[str]:
    """Mechanics such that every shard has one, by shard."""
    by_shard: dict[int, str] = {}
    while len(by_shard) < node.link.shards:
        for mechanic in await here.add_mechanics(20):
            by_shard.setdefault(shard_of(mechanic, node.link.shards), mechanic)
    return [by_shard[shard] for shard in range(node.link.shards)]


async def one_online_per_shard(here: World, node: Node, *, watcher: Node) -> tuple[list[str], Recorder]:
    """Let a mechanic of each shard join ``node``; return them, by shard, and who was told of it on ``watcher``."""
    mechanics, sink = await one_mechanic_per_shard(here, node), Recorder()
    await watcher.presence.watch(mechanics, sink)
    for mechanic in mechanics:
        node.presence.joined(mechanic)
    await eventually(lambda: {view.mechanic_id for view in sink.views if view.is_online} == set(mechanics), "told")
    return mechanics, sink


def holder(cluster: Cluster, node: Node, mechanic: str) -> ClusterServer:
    return cluster.server_of(node.leases_of(mechanic).key("statuses"))


async def test_presence_spreads_over_all_servers_of_a_cluster(tmp_path: Path):
    with redis_cluster() as cluster:
        async with world(cluster.url, tmp_path, CALM) as here, here.node() as a, here.node() as b:
            mechanics, _ = await one_online_per_shard(here, a, watcher=b)
            assert {holder(cluster, a, mechanic) for mechanic in mechanics} == set(cluster.servers)
            for server in cluster.servers:
                with server.client() as client:
                    # Only what is watched here is subscribed, each where it lives: two nodes, and their own ears.
                    theirs = [mechanic for mechanic in mechanics if holder(cluster, a, mechanic) is server]
                    heard = [name for name in client.pubsub_shardchannels() if "status:" in name]
                    assert {name.rpartition(":")[2] for name in heard} == set(theirs)


async def test_a_server_that_dies_holds_up_nobody_who_lives_on_another(tmp_path: Path):
    with redis_cluster() as cluster:
        async with world(cluster.url, tmp_path, CALM) as here, here.node() as a, here.node() as b:
            mechanics, sink = await one_online_per_shard(here, a, watcher=b)
            dead = holder(cluster, a, mechanics[0])
            there = [mechanic for mechanic in mechanics if holder(cluster, a, mechanic) is dead]
            elsewhere = [mechanic for mechanic in mechanics if mechanic not in there]

            dead.kill()
            sink.views.clear()
            for mechanic in elsewhere:
                a.presence.left(mechanic)
            await eventually(
                lambda: {view.mechanic_id for view in sink.views if not view.is_online} == set(elsewhere),
                "the others are told of",
            )
            assert not [view for view in sink.views if view.mechanic_id in there], "nothing is known of these"

            # It comes back knowing nothing: what the nodes hold is true again, and they are heard again.
            for mechanic in there[1:]:
                a.presence.left(mechanic)
            dead.start()
            await anyio.to_thread.run_sync(cluster.await_agreement)
            await eventually(lambda: a.is_online(there[0]), "renewed")
            for mechanic in there[1:]:
                await eventually(lambda mechanic=mechanic: is_offline(b, mechanic), "gone")
            a.presence.left(there[0])
            await eventually(lambda: sink.last is not None and sink.views[-1].mechanic_id == there[0], "heard again")


async def test_a_slot_that_moves_is_followed_by_those_who_listen(tmp_path: Path):
    with redis_cluster() as cluster:
        async with world(cluster.url, tmp_path, CALM) as here, here.node() as a, here.node() as b:
            mechanic, sink = await here.add_mechanic(), Recorder()
            await b.presence.watch([mechanic], sink)
            a.presence.joined(mechanic)
            await eventually(lambda: sink.words == ["offline", "available"], "told online")
            before = holder(cluster, a, mechanic)
            after = next(server for server in cluster.servers if server is not before)
            await anyio.to_thread.run_sync(cluster.move, a.leases_of(mechanic).key("statuses"), after)
            a.presence.left(mechanic)
            await eventually(lambda: sink.words[-1] == "offline", "told offline, from the other server")
            assert holder(cluster, a, mechanic) is after
            versions = [view.version for view in sink.views]
            assert versions == sorted(set(versions))


async def is_offline(node: Node, mechanic: str) -> bool:
    return not await node.is_online(mechanic)
