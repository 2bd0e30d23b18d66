"""Ten thousand hostile connections against one server whose limit of open files starts at 1,024; and somebody who is signed in."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Final

import anyio
import httpx

from benchmarks.contenders import Node, Pitlane, ground, listening, nodes
from benchmarks.cores import Cores
from benchmarks.meters import percentile, rss_len
from benchmarks.options import Options
from benchmarks.report import Report, Table, progress
from benchmarks.seeds import Sqlite, prepared
from tests.acceptance.clients import ON_LOOPBACK, Socket, socket, token_for

SOFT: Final = 1_024
CUSTOMERS: Final = 400
"""Accounts that flood: each may have twenty sockets."""
INTERVAL_S: Final = 0.1
"""Between two calls, and two heartbeats, of whoever is signed in."""
ANSWER_TIMEOUT_S: Final = 30.0
MB: Final = 2**20


@dataclass
class Bystander:
    """What a mechanic who is signed in notices of it."""

    rest_ms: list[float] = field(default_factory=list)
    fresh_ms: list[float] = field(default_factory=list)
    beats_ms: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


@dataclass
class Outcome:
    """One siege."""

    bystander: Bystander
    rss_before: int
    rss_most: int
    rss_after: int
    siege: dict[str, Any]
    log: str


async def measure(options: Options, cores: Cores, folder: Path) -> Report:
    """Let them come, and look at the server and at whoever is signed in; return the table."""
    count = options.pick(options.connections, 10_000, 300)
    lasts_s = options.pick(options.duration_s, 60.0, 3.0)
    cores.pin_load(0)
    database_url, people = prepared(
        folder / "import", Sqlite(folder / "sqlite"), mechanics=1, customers=min(count, CUSTOMERS)
    )
    with (
        ground(folder / "run", cores, database_url=database_url, ulimit=f"-S -n {SOFT}") as on,
        nodes(Pitlane(), on) as [node],
    ):
        await listening([node])
        outcome = await siege(node, people.mechanics[0], people.customers, count, lasts_s)
        versions = {"Redis": on.redis.version()}
    return Report("hostile", [_table(outcome, count, lasts_s)], versions)


async def siege(node: Node, mechanic_id: str, customers: Sequence[str], count: int, lasts_s: float) -> Outcome:
    """Send ``count`` strangers to a running server, for so long; return what it and a bystander had of it."""
    base_url = f"http://127.0.0.1:{node.port}"
    bystander, samples = Bystander(), [0]
    async with socket(base_url, "mechanic", mechanic_id) as phone:
        await _look_on(base_url, mechanic_id, phone, Bystander(), lasts_s=min(2.0, lasts_s))
        before = rss_len(node.pid)
        progress(f"{count} strangers for {lasts_s:g} s")
        command = [sys.executable, "-m", "benchmarks.strangers", str(node.port), str(count), str(lasts_s)]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_sample, node.pid, samples)
            done: list[subprocess.CompletedProcess[bytes]] = []

            async def let_them_come() -> None:
                done.append(await anyio.run_process(command, input="\n".join(customers).encode(), stderr=None))

            async with anyio.create_task_group() as together:
                together.start_soon(let_them_come)
                together.start_soon(_look_on_for, base_url, mechanic_id, phone, bystander, lasts_s)
            tasks.cancel_scope.cancel()
    return Outcome(
        bystander, before, max(samples), rss_len(node.pid), json.loads(done[0].stdout), node.log_path.read_text()
    )


async def _look_on_for(base_url: str, mechanic_id: str, phone: Socket, seen: Bystander, lasts_s: float) -> None:
    await _look_on(base_url, mechanic_id, phone, seen, lasts_s=lasts_s)


async def _look_on(base_url: str, mechanic_id: str, phone: Socket, seen: Bystander, *, lasts_s: float) -> None:
    """Call and beat until the time is over; what fails is noted, too."""
    ends_at_s = monotonic() + lasts_s
    headers = {"Authorization": f"Bearer {token_for(mechanic_id, 'mechanic')}"}
    port = int(base_url.rpartition(":")[2])
    alone = f"GET /api/me HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: {headers['Authorization']}\r\n\r\n"
    async with httpx.AsyncClient(base_url=base_url, headers=headers, timeout=30, **ON_LOOPBACK) as kept:
        while monotonic() < ends_at_s:
            began_s = monotonic()
            await phone.send("heartbeat")
            await phone.expect("heartbeat_ack")
            seen.beats_ms.append((monotonic() - began_s) * 1000)
            began_s = monotonic()
            try:
                assert (await kept.get("/api/me")).status_code == 200
                seen.rest_ms.append((monotonic() - began_s) * 1000)
                began_s = monotonic()
                # Somebody who has just come, on a connection of their own, and proves who they are with their first words.
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(alone.encode())
                with anyio.fail_after(ANSWER_TIMEOUT_S):
                    assert (await reader.read()).startswith(b"HTTP/1.1 200")
                writer.close()
                seen.fresh_ms.append((monotonic() - began_s) * 1000)
            except (httpx.HTTPError, OSError, TimeoutError, AssertionError) as error:
                seen.failed.append(repr(error))
            await anyio.sleep(INTERVAL_S)


async def _sample(pid: int, samples: list[int]) -> None:
    while True:
        samples.append(rss_len(pid))
        await anyio.sleep(0.2)


def _table(outcome: Outcome, count: int, lasts_s: float) -> Table:
    table = Table(
        f"{count:,} hostile connections at a time for {lasts_s:g} s, a soft limit of {SOFT:,} open files",
        ["", "p50", "p99", "most"],
    )
    seen = outcome.bystander
    for name, samples in (
        ("signed in: heartbeat on an open socket, ms", seen.beats_ms),
        ("signed in: GET /api/me, ms", seen.rest_ms),
        ("signed in: the same on a connection of its own, ms", seen.fresh_ms),
    ):
        table.add(name, percentile(samples, 0.5), percentile(samples, 0.99), max(samples))
    table.add("server's memory more than before, MB", None, None, (outcome.rss_most - outcome.rss_before) / MB)
    kinds = ", ".join(f"{name} {opened:,}" for name, opened in sorted(outcome.siege["by_kind"].items()))
    table.notes.append(f"Opened in all: {outcome.siege['opened']:,} ({kinds}).")
    calls = len(seen.rest_ms) + len(seen.failed)
    table.notes.append(
        f"The socket of whoever is signed in stayed open; {len(seen.failed)} of {calls} calls failed. "
        f"The server's log has {len(outcome.log.splitlines())} lines."
    )
    table.notes.append("The strangers, Redis and whoever is signed in share a core; the server has another.")
    return table
