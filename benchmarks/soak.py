"""As many mechanics as one process takes, connected for minutes, each with the heartbeats of a real app."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Final

import anyio

from benchmarks.contenders import Node, Pitlane, ground, listening, nodes
from benchmarks.cores import Cores
from benchmarks.meters import RedisMeter, Usage, rss_len
from benchmarks.options import Options
from benchmarks.report import Report, Table, progress
from benchmarks.seeds import Sqlite, prepared
from benchmarks.sockets import Crowd
from infra import open_files

HEARTBEAT_INTERVAL_S: Final = 20.0


@dataclass(frozen=True)
class Sample:
    """One interval."""

    server_share: float
    redis_share: float
    redis_commands_per_s: float
    rss_mb: float


async def measure(options: Options, cores: Cores, folder: Path) -> Report:
    """Connect, then look on; return the table."""
    limit = open_files.current().connections_max
    wanted = options.pick(options.connections, 20_000, 300)
    count = min(wanted, limit)
    lasts_s = options.pick(options.duration_s, 300.0, 3.0)
    cores.pin_load(0)
    progress(f"importing {count} accounts")
    database_url, people = prepared(folder / "import", Sqlite(folder / "sqlite"), mechanics=count, customers=0)
    with ground(folder / "run", cores, database_url=database_url) as on, nodes(Pitlane(), on) as [node]:
        await listening([node])
        crowd = Crowd(Pitlane.dialect)
        rss_before = rss_len(node.pid)
        progress(f"connecting {count} mechanics")
        clients = await crowd.connect(node.port, people.mechanics)
        samples: list[Sample] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: crowd.beat_for_ever(clients, interval_s=HEARTBEAT_INTERVAL_S))
            await _look_on(node, on.redis, lasts_s, samples)
            tasks.cancel_scope.cancel()
        if crowd.lost:
            raise RuntimeError(f"{crowd.lost} sockets were lost: the figures would mean nothing")
        per_mechanic_kb = (rss_len(node.pid) - rss_before) / count / 1024
        versions = {"Redis": on.redis.version()}
        await crowd.disperse()
    return Report("presence-soak", [_table(samples, count, wanted, lasts_s, per_mechanic_kb)], versions)


async def _look_on(node: Node, redis: RedisMeter, lasts_s: float, samples: list[Sample]) -> None:
    interval_s = min(10.0, lasts_s / 3)
    for number in range(round(lasts_s / interval_s)):
        before, redis_before, commands_before = Usage.of(node.pid), redis.usage(), redis.commands()
        await anyio.sleep(interval_s)
        used, redis_used = Usage.of(node.pid) - before, redis.usage() - redis_before
        commands_per_s = (redis.commands() - commands_before) / redis_used.at_s
        rss_mb = rss_len(node.pid) / 2**20
        samples.append(Sample(used.share, redis_used.share, commands_per_s, rss_mb))
        progress(
            f"{(number + 1) * interval_s:.0f} of {lasts_s:.0f} s: server {used.share:.1%} of a core and {rss_mb:.0f} MB, "
            f"Redis {redis_used.share:.1%} and {commands_per_s:.0f} commands a second"
        )


def _table(samples: Sequence[Sample], count: int, wanted: int, lasts_s: float, per_mechanic_kb: float) -> Table:
    title = (
        f"{count:,} mechanics on one process for {lasts_s:.0f} s, a heartbeat every {HEARTBEAT_INTERVAL_S:.0f} s each"
    )
    table = Table(title, ["", "mean", "highest"])
    for name, values in (
        ("server's share of a core, %", [sample.server_share * 100 for sample in samples]),
        ("Redis' share of a core, %", [sample.redis_share * 100 for sample in samples]),
        ("Redis commands per second", [sample.redis_commands_per_s for sample in samples]),
        ("server's memory, MB", [sample.rss_mb for sample in samples]),
    ):
        table.add(name, mean(values), max(values))
    table.add("server memory per mechanic at the end, KB", per_mechanic_kb, None)
    table.notes.append("No socket was lost.")
    if count < wanted:
        table.notes.append(f"Not {wanted:,}: the machine allows a process {open_files.current().soft:,} open files.")
    return table
