"""What a mechanic who is here costs, and how soon others know: beside peers that do the same work on the same Redis."""

import itertools
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Final

import anyio

from benchmarks.contenders import (
    Contender,
    Ground,
    Node,
    Pitlane,
    ground,
    listening,
    nodes,
    peer_versions,
    socket_peers,
)
from benchmarks.cores import Cores
from benchmarks.meters import Usage, middle, percentile, rss_len
from benchmarks.options import Options
from benchmarks.report import Report, Table, compared, progress
from benchmarks.seeds import People, Sqlite, prepared
from benchmarks.sockets import Client, Crowd

WARM_UP: Final = 100
"""Sockets that come and go before the memory is read: what is loaded at first use is nobody's share."""
BEATS_PER_S: Final = 1_000
"""The fixed rate; every contender manages it on one core."""
WINDOW: Final = 256
FRAMES_PER_S_MAX: Final = 40
"""Heartbeats per socket and second: Pitlane closes a socket that sends more than fifty frames a second."""
BURST_MAX: Final = 100
"""Heartbeats of one socket without a pause; Pitlane allows two hundred frames in one burst."""
WATCHERS: Final = 10
WATCHED_EACH: Final = 100
TOGGLES_PER_S: Final = 50
JOINS_PER_S: Final = 20
HEARTBEAT_INTERVAL_S: Final = 20.0
PEER_CONNECTIONS_MAX: Final = 5_000
"""Beyond this the peers do not keep up with coming and going in reasonable time."""
PATIENCE_S: Final = 30.0


@dataclass
class Figures:
    """What one contender showed, one sample per repeat."""

    connections: int = 0
    per_mechanic_kb: list[float | None] = field(default_factory=list)
    idle_share: list[float | None] = field(default_factory=list)
    joins_per_s: list[float | None] = field(default_factory=list)
    join_us: list[float | None] = field(default_factory=list)
    beats_per_s: list[float | None] = field(default_factory=list)
    beat_us: list[float | None] = field(default_factory=list)
    beat_beyond_idle_us: list[float | None] = field(default_factory=list)
    redis_us: list[float | None] = field(default_factory=list)
    redis_visits: list[float | None] = field(default_factory=list)
    redis_commands: list[float | None] = field(default_factory=list)
    changes_ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Latencies by what changed, of all repeats together."""
    changes_missed: int = 0
    duty_share: list[float | None] = field(default_factory=list)
    """Of one core, both servers together, while duty changes."""


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    connections: int
    peer_connections: int
    repeats: int
    stretch_s: float
    settle_s: float
    toggles: int
    joins: int


async def measure(options: Options, cores: Cores, folder: Path) -> Report:
    """Run everything; return the table."""
    connections = options.pick(options.connections, 10_000, 300)
    size = Size(
        connections=connections,
        peer_connections=min(connections, PEER_CONNECTIONS_MAX),
        repeats=options.pick(options.repeats, 3, 1),
        stretch_s=options.pick(options.duration_s, 6.0, 0.5),
        settle_s=options.pick(None, 2.0, 0.2),
        toggles=options.pick(None, 300, 30),
        joins=options.pick(None, 150, 15),
    )
    cores.pin_load(0)
    store = Sqlite(folder / "sqlite")
    progress(f"importing {connections} accounts")
    template, people = prepared(
        folder / "import", store, mechanics=connections + WARM_UP + size.joins, customers=WATCHERS
    )
    contenders: list[Contender] = [Pitlane(), *socket_peers(options.peers)]
    figures = {contender.name: Figures() for contender in contenders}
    versions: dict[str, str] = {}
    for repeat, contender in itertools.product(range(size.repeats), contenders):
        found = figures[contender.name]
        count = size.connections if isinstance(contender, Pitlane) else size.peer_connections
        found.connections = count
        where = folder / f"{repeat}-{contender.name.replace(' ', '-')}"
        with ExitStack() as stack:
            on = stack.enter_context(ground(where, cores, database_url=store.fresh(template)))
            versions["Redis"] = on.redis.version()
            about = f"{contender.name}, repeat {repeat + 1} of {size.repeats}"
            progress(f"{about}: one server, {count} mechanics")
            await _one_server(contender, on, people, count, size, found)
        with ExitStack() as stack:
            on = stack.enter_context(ground(where.with_suffix(".two"), cores, database_url=store.fresh(template)))
            progress(f"{about}: two servers, status changes")
            await _two_servers(contender, on, people, count, size, found)
    versions |= peer_versions(options.peers)
    return Report("presence", [_table(figures, size, options.without_peers)], versions)


# --- one server -------------------------------------------------------------------------------------------------------


async def _one_server(contender: Contender, on: Ground, people: People, count: int, size: Size, found: Figures) -> None:
    with nodes(contender, on) as [node]:
        await listening([node])
        crowd = Crowd(contender.dialect)
        warm_up = people.mechanics[-WARM_UP:]
        await crowd.connect(node.port, warm_up)
        await crowd.disperse()
        await anyio.sleep(size.settle_s)

        rss_before, before = rss_len(node.pid), Usage.of(node.pid)
        clients = await crowd.connect(node.port, people.mechanics[:count])
        used = Usage.of(node.pid) - before
        found.joins_per_s.append(count / used.at_s)
        found.join_us.append(used.cpu_s / count * 1e6)

        await anyio.sleep(size.settle_s)
        before = Usage.of(node.pid)
        await anyio.sleep(size.stretch_s / 2)
        found.idle_share.append((Usage.of(node.pid) - before).share)
        found.per_mechanic_kb.append((rss_len(node.pid) - rss_before) / count / 1024)
        await _heartbeats(crowd, clients, node, on, size, found)
        _require_no_loss(crowd, contender)
        await crowd.disperse()


async def _heartbeats(crowd: Crowd, clients: list[Client], node: Node, on: Ground, size: Size, found: Figures) -> None:
    per_s = min(BEATS_PER_S, len(clients) * FRAMES_PER_S_MAX)
    await crowd.beat(clients, per_s=per_s, for_s=min(1.0, size.stretch_s))
    await crowd.all_beats_answered()
    before, redis_before = Usage.of(node.pid), on.redis.usage()
    commands_before, visits_before = on.redis.commands(), on.redis.visits()
    sent = await crowd.beat(clients, per_s=per_s, for_s=size.stretch_s)
    await crowd.all_beats_answered()
    used, redis_used = Usage.of(node.pid) - before, on.redis.usage() - redis_before
    found.beat_us.append(used.cpu_s / sent * 1e6)
    idle_s = (found.idle_share[-1] or 0.0) * used.at_s
    found.beat_beyond_idle_us.append(max(0.0, used.cpu_s - idle_s) / sent * 1e6)
    found.redis_us.append(redis_used.cpu_s / sent * 1e6)
    found.redis_visits.append((on.redis.visits() - visits_before) / sent)
    found.redis_commands.append((on.redis.commands() - commands_before) / sent)
    found.beats_per_s.append(
        await crowd.beat_flat_out(clients, window=WINDOW, for_s=size.stretch_s, each_max=BURST_MAX)
    )
    await crowd.all_beats_answered()


def _require_no_loss(crowd: Crowd, contender: Contender) -> None:
    if crowd.lost:
        raise RuntimeError(f"{contender.name} lost {crowd.lost} sockets: the figures would mean nothing")


# --- two servers ------------------------------------------------------------------------------------------------------


class Watching:
    """When a change was made by a mechanic's socket, and when a customer's socket heard of it."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._made_at_s: dict[tuple[str, str], float] = {}
        self.heard_after_ms: list[float] = []
        crowd.heard = self._heard

    def made(self, mechanic_id: str, availability: str) -> None:
        """Start the clock of one change."""
        self._made_at_s[mechanic_id, availability] = monotonic()

    async def settled(self) -> int:
        """Wait until all changes were heard, within a bound; return how many were not, and forget those."""
        with anyio.move_on_after(PATIENCE_S):
            while self._made_at_s:  # noqa: ASYNC110 - bounded, and coarser than what is measured
                await anyio.sleep(0.02)
        missed = len(self._made_at_s)
        self._made_at_s.clear()
        return missed

    def take(self) -> list[float]:
        """Return the latencies since the last time, in ms."""
        taken, self.heard_after_ms = self.heard_after_ms, []
        return taken

    def _heard(self, client: Client, kind: str, payload: bytes) -> None:
        if kind != "status" or client.role != "customer":
            return
        now_s = monotonic()
        status = self._crowd.dialect.members_of(payload)
        made_at_s = self._made_at_s.pop((status["mechanic_id"], status["availability"]), None)
        if made_at_s is not None:
            self.heard_after_ms.append((now_s - made_at_s) * 1000)


async def _two_servers(
    contender: Contender, on: Ground, people: People, count: int, size: Size, found: Figures
) -> None:
    with nodes(contender, on, 2) as [one, other]:
        await listening([one, other])
        crowd = Crowd(contender.dialect)
        watching = Watching(crowd)
        clients = await crowd.connect(one.port, people.mechanics[: count // 2])
        clients += await crowd.connect(other.port, people.mechanics[count // 2 : count])
        watched = clients[: min(WATCHERS * WATCHED_EACH, count // 2) - size.joins]
        newcomers = people.mechanics[count : count + size.joins]
        customers = await crowd.connect(other.port, people.customers, "customer")
        ids = [*(client.account_id for client in watched), *newcomers]
        for customer, theirs in zip(customers, _dealt(ids, len(customers)), strict=True):
            customer.send(contender.dialect.say("watch", mechanic_ids=theirs))
        await anyio.sleep(size.settle_s)

        async with anyio.create_task_group() as tasks:
            # Everybody's heartbeats go on meanwhile.
            beating = [*clients, *customers]
            tasks.start_soon(lambda: crowd.beat_for_ever(beating, interval_s=HEARTBEAT_INTERVAL_S))
            before = Usage.of(one.pid, other.pid)
            on_duty = dict.fromkeys((client.account_id for client in watched), True)
            for client in itertools.islice(itertools.cycle(watched), size.toggles):
                turned = on_duty[client.account_id] = not on_duty[client.account_id]
                watching.made(client.account_id, "available" if turned else "off_duty")
                client.send(contender.dialect.say("set_availability", on_duty=turned))
                await anyio.sleep(1 / TOGGLES_PER_S)
            found.duty_share.append((Usage.of(one.pid, other.pid) - before).share)
            found.changes_missed += await watching.settled()
            found.changes_ms["duty"] += watching.take()

            for mechanic_id in newcomers:
                watching.made(mechanic_id, "available")
                tasks.start_soon(crowd.connect_one, one.port, mechanic_id)
                await anyio.sleep(1 / JOINS_PER_S)
            found.changes_missed += await watching.settled()
            found.changes_ms["join"] += watching.take()
            tasks.cancel_scope.cancel()
        _require_no_loss(crowd, contender)
        await crowd.disperse()


def _dealt(ids: list[str], hands: int) -> list[list[str]]:
    """Return the ids in as many parts, of at most as many as one socket may watch."""
    return [ids[hand::hands][:WATCHED_EACH] for hand in range(hands)]


# --- the table --------------------------------------------------------------------------------------------------------


def _table(figures: dict[str, Figures], size: Size, without_peers: str) -> Table:
    ours = figures[Pitlane.name]
    table = Table(f"Presence: medians of {size.repeats}, and in brackets a peer's figure by ours", ["", *figures])

    def row(title: str, of: str, factor: float = 1.0) -> None:
        medians = [middle(getattr(each, of)) for each in figures.values()]
        scaled = [None if value is None else value * factor for value in medians]
        table.add(title, scaled[0], *(compared(scaled[0], value) for value in scaled[1:]))

    table.add("mechanics connected", *(float(each.connections) for each in figures.values()))
    row("server memory per idle mechanic, KB", "per_mechanic_kb")
    row("CPU share of the server while all are idle, %", "idle_share", 100)
    row("new connections per second, with authentication and welcome", "joins_per_s")
    row("server CPU per new connection, µs", "join_us")
    row("heartbeats per second, one core", "beats_per_s")
    row(f"server CPU per heartbeat at {BEATS_PER_S:,} a second, µs", "beat_us")
    row("of that, beyond what it uses while all are idle, µs", "beat_beyond_idle_us")
    row("Redis CPU per heartbeat, µs", "redis_us")
    row("round trips to Redis per heartbeat", "redis_visits")
    row("Redis commands per heartbeat, those inside scripts included", "redis_commands")
    for what, title in (("duty", "duty changed"), ("join", "mechanic connects")):
        for share, name in ((0.5, "p50"), (0.99, "p99")):
            values = [
                percentile(samples, share) if (samples := each.changes_ms[what]) else None for each in figures.values()
            ]
            table.add(
                f"{title} on one server → customer's socket on another, {name}, ms",
                values[0],
                *(compared(values[0], value) for value in values[1:]),
            )
    row("both servers while duty changes, % of a core", "duty_share", 100)
    if any(each.changes_missed for each in figures.values()):
        table.add("status changes that never came", *(float(each.changes_missed) for each in figures.values()))
    table.notes.append(
        f"Status changes: {len(ours.changes_ms['duty'])} and {len(ours.changes_ms['join'])} samples, half of the mechanics "
        "on each of two servers, all sending heartbeats every 20 s; Pitlane's duty changes are written to SQL first."
    )
    table.notes.append(
        "Memory is counted after the first hundred sockets have come and gone. The peers' figures are for less work: no account, "
        "duty or offers are read for their welcome, and nothing of theirs lapses by itself."
    )
    table.notes.append("Servers have one core, the load generator and Redis share another.")
    if without_peers:
        table.notes.append(without_peers)
    elif size.peer_connections < size.connections:
        table.notes.append(
            f"Peers hold {size.peer_connections:,} mechanics instead of {size.connections:,}: "
            "with more, a run of theirs takes too long."
        )
    return table
