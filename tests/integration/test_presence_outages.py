"""What presence shows when a node, or Redis itself, dies, stands still or forgets: real processes, real signals."""

import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from anyio.abc import Process

from models.timestamps import rfc3339
from tests.integration.presence_nodes import CALM, SHORT, Node, Recorder, World, eventually, world
from tests.services import redis_server

REPO = Path(__file__).resolve().parents[2]

NODE_PROCESS = """
import sys
from dataclasses import replace
import anyio
from infra.database import Database
from tests.integration.presence_nodes import CALM, World

async def main(redis_url, prefix, database_url, *mechanics):
    here = World(redis_url, prefix, Database(database_url), CALM)
    async with here.node() as node:
        for mechanic in mechanics:
            node.presence.joined(mechanic)
        async with node.heartbeats(*mechanics):
            print(node.node_id, flush=True)
            await anyio.sleep_forever()

anyio.run(main, *sys.argv[1:])
"""


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with redis_server() as server:
        yield server.url


@asynccontextmanager
async def node_process(here: World, *mechanics: str) -> AsyncIterator[Process]:
    """Run a node in a process of its own that holds ``mechanics`` and sends their heartbeats; killed at the end."""
    url = here.database.url.set(drivername="sqlite").render_as_string()
    command = [sys.executable, "-c", NODE_PROCESS, here.redis_url, here.prefix, url, *mechanics]
    process = await anyio.open_process(command, cwd=REPO, env={**os.environ, "PYTHONPATH": str(REPO)}, stderr=None)
    async with process:
        try:
            assert process.stdout is not None
            with anyio.fail_after(20):
                await process.stdout.receive()
            yield process
        finally:
            if process.returncode is None:
                process.kill()


async def all_online(node: Node, mechanics: list[str]) -> bool:
    statuses = await node.presence.status_of(mechanics)
    return all(statuses[mechanic].is_online for mechanic in mechanics)


async def none_online(node: Node, mechanics: list[str]) -> bool:
    statuses = await node.presence.status_of(mechanics)
    return not any(statuses[mechanic].is_online for mechanic in mechanics)


# --- nodes ------------------------------------------------------------------------------------------------------------


async def test_the_mechanics_of_a_killed_node_are_offline_when_its_lease_ends(any_redis_url: str, tmp_path: Path):
    async with world(any_redis_url, tmp_path, CALM) as here, here.node() as b:
        mechanics = await here.add_mechanics(20)
        elsewhere, sink = mechanics[0], Recorder()
        async with node_process(here, *mechanics) as process:
            await eventually(lambda: all_online(b, mechanics), "online")
            b.presence.joined(elsewhere)
            await b.presence.watch(mechanics, sink)
            process.kill()
            await eventually(lambda: none_online(b, mechanics[1:]), "offline")
            assert await b.is_online(elsewhere), "held by the living node, too"
            told = [view.mechanic_id for view in sink.views if not view.is_online]
            assert sorted(told) == sorted(mechanics[1:]), "each is told of once"
            last_seen = (await b.status(mechanics[1])).last_seen

            async def is_saved() -> bool:
                at_ms = (await here.in_sql(mechanics[1])).last_seen_at_ms
                return at_ms is not None and rfc3339(at_ms) == last_seen

            await eventually(is_saved, "the node that swept has saved it")


async def test_a_node_that_stood_still_brings_its_mechanics_back(any_redis_url: str, tmp_path: Path):
    async with world(any_redis_url, tmp_path, CALM) as here, here.node() as b:
        mechanics = await here.add_mechanics(20)
        async with node_process(here, *mechanics) as process:
            await eventually(lambda: all_online(b, mechanics), "online")
            process.send_signal(signal.SIGSTOP)
            await eventually(lambda: none_online(b, mechanics), "offline while it stands still")
            process.send_signal(signal.SIGCONT)
            await eventually(lambda: all_online(b, mechanics), "online again")
            assert await b.presence.available_count() == len(mechanics)
            process.kill()
            await eventually(lambda: none_online(b, mechanics), "and nothing is left of it in the end")
            assert await b.presence.available_count() == 0


@pytest.mark.parametrize("comes_back", [True, False])
async def test_a_node_that_stops_in_good_order_keeps_the_grace(any_redis_url: str, tmp_path: Path, comes_back: bool):
    settings = replace(CALM, grace_ms=600)
    async with world(any_redis_url, tmp_path, settings) as here, here.node() as b:
        mechanic, sink = await here.add_mechanic(), Recorder()
        async with here.node() as a:
            a.presence.joined(mechanic)
            await eventually(lambda: a.is_online(mechanic), "online")
            await b.presence.watch([mechanic], sink)
            seen_ms = a.heard_at_ms(mechanic)
        assert (await here.in_sql(mechanic)).last_seen_at_ms == seen_ms
        if comes_back:
            b.presence.joined(mechanic)
            await anyio.sleep((2 * settings.grace_ms + settings.node_lease_ms) / 1000)
            assert sink.words == ["available"]
        else:
            await eventually(lambda: sink.words == ["available", "offline"], "offline after the grace")


# --- Redis ------------------------------------------------------------------------------------------------------------


async def test_after_a_flush_of_redis_everybody_is_back_with_the_next_flush(any_redis_url: str, tmp_path: Path):
    async with world(any_redis_url, tmp_path, CALM) as here, here.node() as a, here.node() as b:
        mechanics = await here.add_mechanics(30)
        sink = Recorder()
        for mechanic in mechanics:
            a.presence.joined(mechanic)
        await eventually(lambda: all_online(b, mechanics), "online")
        await b.presence.watch(mechanics, sink)
        for _ in range(3):
            await a.link.everywhere(lambda redis: redis.flushall())

            async def counted() -> bool:
                return await b.presence.available_count() == len(mechanics)

            await eventually(counted, "available again")
        a.presence.left(mechanics[0])
        await eventually(lambda: "offline" in sink.words, "leaving still shows")
        assert [view.mechanic_id for view in sink.views if not view.is_online] == [mechanics[0]], "nobody flickered"
        for mechanic in mechanics:
            versions = [view.version for view in sink.views if view.mechanic_id == mechanic]
            assert versions == sorted(set(versions)), "versions never go back"


async def test_asking_the_node_that_holds_them_shows_nobody_offline_after_a_flush(any_redis_url: str, tmp_path: Path):
    async with world(any_redis_url, tmp_path, CALM) as here, here.node() as a:
        mechanic = await here.add_mechanic()
        a.presence.joined(mechanic)
        await eventually(lambda: a.is_online(mechanic), "online")
        for _ in range(20):
            await a.link.everywhere(lambda redis: redis.flushall())
            assert await a.is_online(mechanic)


async def test_who_died_together_with_the_memory_of_redis_is_told_offline(any_redis_url: str, tmp_path: Path):
    # Nobody remembers a lease that could lapse: without reading again, watchers would see a ghost for ever.
    async with world(any_redis_url, tmp_path, CALM) as here, here.node() as b:
        mechanic, sink = await here.add_mechanic(), Recorder()
        async with node_process(here, mechanic) as process:
            await eventually(lambda: b.is_online(mechanic), "online")
            await b.presence.watch([mechanic], sink)
            process.kill()
            await process.wait()
            await b.link.everywhere(lambda redis: redis.flushall())
            await eventually(lambda: sink.words == ["available", "offline"], "told offline")


async def test_a_redis_that_was_away_for_longer_than_all_leases_shows_nobody_a_flicker(tmp_path: Path):
    with redis_server() as server:
        async with world(server.url, tmp_path, SHORT) as here, here.node() as a, here.node() as b:
            mechanics = await here.add_mechanics(20)
            gone, stay = mechanics[0], mechanics[1:]
            sink = Recorder()
            for mechanic in mechanics:
                a.presence.joined(mechanic)
            async with a.heartbeats(*stay):
                await eventually(lambda: all_online(b, stay), "online")
                await b.presence.watch(stay, sink)
                # What is written by now is in the file, as after a second of the everyday setting.
                await a.link.everywhere(lambda redis: redis.config_set("appendfsync", "always"))
                await anyio.sleep(0.1)
                await anyio.to_thread.run_sync(server.kill)
                a.presence.left(gone)
                await anyio.sleep((SHORT.node_lease_ms + SHORT.timeout_ms) / 1000)
                # From the main thread, see RedisChild.start.
                server.restart()

                async def answers() -> bool:
                    return await b.presence.available_count() == len(stay)

                await eventually(answers, "back")
                await anyio.sleep((SHORT.node_lease_ms + 3 * SHORT.sweep_interval_ms) / 1000)
                assert await all_online(b, stay)
                assert not await b.is_online(gone), "who left meanwhile is gone"
            assert "offline" not in sink.words[: len(stay)]
            flickers = [view for view in sink.views if not view.is_online and view.mechanic_id != gone]
            assert not flickers


# --- what adds up -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_after_any_churn_redis_holds_exactly_what_the_nodes_hold(any_redis_url: str, tmp_path: Path, seed: int):
    dice = random.Random(seed)
    async with world(any_redis_url, tmp_path, CALM) as here, here.node() as a, here.node() as b, here.node() as c:
        mechanics = await here.add_mechanics(60)
        nodes, sink = [a, b, c], Recorder()
        await c.presence.watch(mechanics, sink)
        sockets: list[tuple[Node, str]] = []
        for step in range(1_500):
            if sockets and dice.random() < 0.48:
                node, mechanic = sockets.pop(dice.randrange(len(sockets)))
                node.presence.left(mechanic)
            else:
                sockets.append((dice.choice(nodes), dice.choice(mechanics)))
                sockets[-1][0].presence.joined(sockets[-1][1])
            if step % 20 == 0:
                await anyio.sleep(0.01)
            if step in (500, 1_000) and seed != 1:
                await a.link.everywhere(lambda redis: redis.flushall())
        expected = {mechanic for _, mechanic in sockets}

        async def settled() -> bool:
            statuses = await a.presence.status_of(mechanics)
            return {one for one, status in statuses.items() if status.is_online} == expected

        await eventually(settled, "online is who has a socket")
        on_nodes = {mechanic: {node.node_id for node, held in sockets if held == mechanic} for mechanic in expected}

        async def adds_up() -> bool:
            holders, available = {}, set()
            for leases in {a.leases_of(mechanic) for mechanic in mechanics}:
                names = leases.key("holders"), leases.key("available")
                counts = await a.link.ask(names[0], lambda redis, name=names[0]: redis.hgetall(name))
                holders |= {name: int(count) for name, count in counts.items()}
                available |= await a.link.ask(names[1], lambda redis, name=names[1]: redis.smembers(name))
            return available == expected and holders == {name: len(nodes) for name, nodes in on_nodes.items()}

        await eventually(adds_up, "the sums are right")

        def is_told() -> bool:
            latest = {view.mechanic_id: view.is_online for view in sink.views}
            return {mechanic for mechanic, online in latest.items() if online} == expected

        await eventually(is_told, "the watcher knows the same")
        for mechanic in mechanics:
            versions = [view.version for view in sink.views if view.mechanic_id == mechanic]
            assert versions == sorted(set(versions))


async def test_a_flush_of_ten_thousand_heartbeats_is_ten_scripts(redis_url: str, tmp_path: Path):
    settings = replace(CALM, flush_interval_ms=60_000, sweep_interval_ms=60_000, node_lease_ms=120_000)
    async with world(redis_url, tmp_path, settings) as here, here.node() as a:
        # Not in SQL: what is counted here is the heartbeats' path alone.
        mechanics = [f"m{number}" for number in range(10_000)]
        for mechanic in mechanics:
            a.presence.joined(mechanic)
        presence, (shard,) = a.presence, a.presence._shards
        await eventually(lambda: not (shard._marked or presence._to_learn or shard._flushing.locked()), "settled")
        for mechanic in mechanics:
            a.presence.heard(mechanic)

        async def scripts() -> int:
            (told,) = await a.link.everywhere(lambda redis: redis.info("commandstats"))
            return told["cmdstat_evalsha"]["calls"]

        before = await scripts()
        started_s = time.perf_counter()
        await shard.flush()
        took_us = (time.perf_counter() - started_s) * 1e6
        assert await scripts() - before == 10
        print(f"{took_us / len(mechanics):.1f} µs per heartbeat, Redis and Python together")
