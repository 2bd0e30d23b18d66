"""Presence after the worst, under load and with real processes: a Redis that forgets or dies, nodes that freeze or die.

The bounds are promises of the product, in seconds; what a busy machine adds is granted on top, and what it took is printed.
"""

import random
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path

import anyio
import httpx
import pytest

from embedded.redis_child import RedisChild
from infra.redis_link import RedisLink
from models.settings import PresenceSettings
from tests.acceptance.churn import Spell
from tests.acceptance.clients import PATIENCE_S
from tests.acceptance.crowd import Crowd, gathering, two_nodes
from tests.acceptance.lines import Line
from tests.acceptance.servers import Server
from tests.parts import eventually

pytestmark = pytest.mark.timeout(300)
"""Every single wait is bounded, and on a busy machine some of them are long."""

MECHANICS = 250
LEAVERS = 20
"""Of them, for each of the calamities: who goes at that very moment."""
NODES = ([0], [1], [0, 1])
"""Where the devices of three mechanics are."""
SETTINGS = PresenceSettings(heartbeat_interval_ms=1_000, timeout_ms=60_000, grace_ms=500)
"""A time-out that outlasts a node's lease: sockets of a node that stood still survive it."""
TRUE_AGAIN_S = SETTINGS.heartbeat_interval_ms / 1000 + 2
NO_GHOSTS_S = 10.0
BUSY_MACHINE_S = 20.0


@asynccontextmanager
async def town(
    database_url: str, tmp_path: Path
) -> AsyncIterator[tuple[Crowd, RedisChild, Callable[[int], list[Line]]]]:
    """Two nodes; most mechanics stay on one of them, some on both, and reconnect when cut off; watched by customers.

    The last member returns the sockets of the next who will go, on a node: these do not reconnect.
    """
    with two_nodes(database_url, tmp_path, SETTINGS) as (servers, redis):
        dice = random.Random(1)
        async with gathering(servers, database_url, SETTINGS, mechanics=MECHANICS, dice=dice) as crowd:
            await crowd.watch()
            stay, leave = crowd.mechanics[: -3 * LEAVERS], crowd.mechanics[-3 * LEAVERS :]
            leaving: dict[int, list[Line]] = {0: [], 1: []}
            async with anyio.create_task_group() as apps:
                devices = [(mechanic, node) for number, mechanic in enumerate(stay) for node in NODES[number % 3]]
                for mechanic, node in devices:
                    apps.start_soon(crowd.live, mechanic, [Spell(node, inf, None, None)])
                for number, mechanic in enumerate(leave):
                    line, _ = await crowd.connect(mechanic, number % 2)
                    leaving[number % 2].append(line)

                def next_to_leave(node: int) -> list[Line]:
                    theirs, leaving[node] = leaving[node][: LEAVERS // 2], leaving[node][LEAVERS // 2 :]
                    return theirs

                sockets = len(devices) + len(leave)
                await eventually(lambda: crowd.counts["opened"] == sockets, "all are here", within_s=BUSY_MACHINE_S)
                await crowd.until_true(NO_GHOSTS_S + BUSY_MACHINE_S)
                yield crowd, redis, next_to_leave
                crowd.assert_versions_only_grew()
                apps.cancel_scope.cancel()


async def is_cut_off(server: Server) -> bool:
    """Tell whether a node knows that it cannot reach what it needs."""
    async with httpx.AsyncClient(base_url=server.base_url, timeout=PATIENCE_S) as client:
        return (await client.get("/readyz")).status_code == httpx.codes.SERVICE_UNAVAILABLE


async def truth_comes_back(crowd: Crowd, what: str, *, on: list[Server] | None = None) -> None:
    """Whoever is here is shown so at once, and whoever is not soon after."""
    true_again_s = await crowd.until_true(TRUE_AGAIN_S + BUSY_MACHINE_S, on=on, of=lambda: crowd.here)
    no_ghosts_s = true_again_s + await crowd.until_true(NO_GHOSTS_S + BUSY_MACHINE_S, on=on)
    print(f"{what}: all who are here are shown after {true_again_s:.1f} s, no ghosts after {no_ghosts_s:.1f} s")


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
async def test_after_redis_forgot_died_or_lost_its_file_everybody_is_back_within_a_heartbeat_and_no_ghost_stays(
    database_url: str, tmp_path: Path
) -> None:
    async with town(database_url, tmp_path) as (crowd, redis, next_to_leave):
        link = RedisLink(redis.url, prefix="test")
        for line in (*next_to_leave(0), *next_to_leave(1)):
            line.reset()
        await link.everywhere(lambda redis: redis.flushall())
        await link.close()
        await truth_comes_back(crowd, "after FLUSHALL")

        for what, is_lost in (("a crash of Redis", False), ("a crash of Redis that lost its file", True)):
            redis.kill()
            for server in crowd.servers:
                await eventually(lambda server=server: is_cut_off(server), "the node has noticed")
            for line in (*next_to_leave(0), *next_to_leave(1)):
                line.reset()
            if is_lost:
                shutil.rmtree(redis.folder / "appendonlydir")
            redis.restart()
            await truth_comes_back(crowd, f"after {what}")
        assert crowd.counts["cut off"] == 0, "no socket has suffered"


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
async def test_a_node_that_stood_still_repairs_what_others_made_of_it_and_one_that_was_killed_leaves_no_ghost(
    database_url: str, tmp_path: Path
) -> None:
    async with town(database_url, tmp_path) as (crowd, _, next_to_leave):
        node, other = crowd.servers
        elsewhere = {line.account_id for line in crowd.lines if line.base_url == other.base_url}

        async def shows_only_its_own() -> bool:
            return await crowd.online_on(other) == elsewhere

        node.process.send_signal(signal.SIGSTOP)
        await eventually(
            shows_only_its_own, "nobody knows of the others any more", within_s=NO_GHOSTS_S + BUSY_MACHINE_S
        )
        node.process.send_signal(signal.SIGCONT)
        await truth_comes_back(crowd, "after a node stood still for longer than its lease")
        assert crowd.counts["cut off"] == 0, "every socket has survived it"

        next_to_leave(0)
        node.kill()
        await truth_comes_back(crowd, "after a node was killed", on=[other])
