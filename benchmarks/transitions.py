"""Each transition by itself: what one costs, how many a second fill a core, and how late they come at half of that."""

import json
import math
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final

import anyio

from benchmarks.contenders import Ground, Node, Pitlane, ground, listening, nodes
from benchmarks.cores import Cores
from benchmarks.dispatch import WINDOWS, time_ms
from benchmarks.http_load import call_all, post
from benchmarks.meters import Usage, percentile
from benchmarks.options import Options
from benchmarks.report import Report, Table, progress
from benchmarks.seeds import People, Store, Wanted, move_windows, prepared, seed_requests, stores
from benchmarks.sockets import Client, Crowd
from infra.clock import wall_clock_ms
from tests.acceptance.clients import Rest, token_for

ALONE_PER_S: Final = 8.0
"""So few that none meets another."""
AT_ONCE_PER_S: Final = math.inf
REQUESTS_PER_CUSTOMER: Final = 100
LEAD_S: Final = 0.5
PATIENCE_S: Final = 60.0
IDLE_S: Final = 4.0
WINDOWS_PER_OTHER: Final = 5
"""Windows that are due together end together: it takes more of them to fill a core."""
STATEMENTS: Final = re.compile(r"^pitlane_sql_statements_total\{.*\} (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Size:
    """How many transitions a stretch has, at most, and how long the one at half the rate lasts."""

    alone: int
    at_once: int
    half_s: float
    half_max: int

    @property
    def mechanics(self) -> int:
        """Each accepts once."""
        return self.alone + self.at_once + self.half_max

    @property
    def waiting_customers(self) -> int:
        """Those who hear of the longest stretch."""
        return (
            max(self.alone, self.at_once * WINDOWS_PER_OTHER, self.half_max * WINDOWS_PER_OTHER)
            // REQUESTS_PER_CUSTOMER
            + 1
        )


@dataclass(frozen=True)
class Stretch:
    """Some transitions of one kind: how long after its cause each was seen, and what all of them took."""

    after_ms: Sequence[float]
    used: Usage
    statements: float
    visits: float

    @property
    def per_s(self) -> float:
        """How many there were a second."""
        return len(self.after_ms) / self.used.at_s


@dataclass
class Stage:
    """One server, and the sockets of everybody who takes part."""

    on: Ground
    node: Node
    people: People
    crowd: Crowd = field(default_factory=lambda: Crowd(Pitlane.dialect))
    clients: dict[str, Client] = field(default_factory=dict)
    seen_at_ms: dict[str, float] = field(default_factory=dict)
    """When each request was first seen to have moved, or each mechanic heard of their duty."""
    used_up: int = 0
    """Mechanics who have accepted."""
    free_used_up: int = 0
    """Customers who have had their free session."""
    on_duty: set[str] = field(default_factory=set)

    async def open(self, size: Size) -> None:
        """Connect everybody, and let the mechanics go off duty: a broadcast to a thousand sockets is measured elsewhere."""
        self.crowd.heard = self._heard
        await self.crowd.connect(self.node.port, self.people.customers[: size.waiting_customers], "customer")
        joined = await self.crowd.connect(self.node.port, self.people.mechanics)
        self.clients = {client.account_id: client for client in joined}
        await self.go_off_duty()

    async def go_off_duty(self) -> None:
        """Let all mechanics be off duty."""
        frame = self.crowd.dialect.say("set_availability", on_duty=False)
        await self.said({name: (client, frame) for name, client in self.clients.items()}, AT_ONCE_PER_S)
        self.on_duty.clear()

    def _heard(self, client: Client, kind: str, payload: bytes) -> None:
        if kind == "request_update" and client.role == "customer":
            request = self.crowd.dialect.members_of(payload)["request"]
            if request["status"] in ("accepted", "broadcasting"):
                self.seen_at_ms.setdefault(request["id"], time_ms())
        elif kind == "availability":
            self.seen_at_ms.setdefault(client.account_id, time_ms())

    async def offers_to(self, mechanics: Sequence[str]) -> dict[str, str]:
        """Return the priority offers of new requests by the requests' ids, one for each of the mechanics."""
        wanted = [
            Wanted(self.people.customers[number // REQUESTS_PER_CUSTOMER], mechanic_id)
            for number, mechanic_id in enumerate(mechanics)
        ]
        return await seed_requests(self.on.database_url, wanted, WINDOWS, now_ms=wall_clock_ms())

    async def all_seen(self, since_ms: dict[str, float]) -> list[float]:
        """Wait until each was seen; return how long after its cause."""
        with anyio.fail_after(PATIENCE_S):
            while not since_ms.keys() <= self.seen_at_ms.keys():  # noqa: ASYNC110 - bounded, and nothing is measured by it
                await anyio.sleep(0.02)
        after_ms = [self.seen_at_ms[name] - at_ms for name, at_ms in since_ms.items()]
        self.seen_at_ms.clear()
        return after_ms

    async def said(self, messages: dict[str, tuple[Client, bytes]], per_s: float) -> list[float]:
        """Have apps say things to a timetable; return how long after that each was seen."""
        since_ms: dict[str, float] = {}
        started_s = monotonic()
        for number, (name, (client, frame)) in enumerate(messages.items()):
            if (wait_s := started_s + number / per_s - monotonic()) > 0:
                await anyio.sleep(wait_s)
            since_ms[name] = time_ms()
            client.send(frame)
        return await self.all_seen(since_ms)

    async def counted(self, act: Callable[[], Awaitable[Sequence[float]]]) -> Stretch:
        """Do something, and count what it takes."""
        statements, visits = await self._statements(), self.on.redis.visits()
        before = Usage.of(self.node.pid)
        after_ms = await act()
        used = Usage.of(self.node.pid) - before
        return Stretch(after_ms, used, await self._statements() - statements, self.on.redis.visits() - visits)

    async def _statements(self) -> float:
        async with Rest(base_url=f"http://127.0.0.1:{self.node.port}") as rest:
            answer = await rest.get("/metrics")
        return sum(float(value) for value in STATEMENTS.findall(answer.text))


Kind = Callable[[Stage, int, float], Awaitable[Callable[[], Awaitable[Sequence[float]]]]]
"""Prepares so many transitions, so many a second, and returns what makes them happen."""


async def _window_ends(stage: Stage, count: int, per_s: float) -> Callable[[], Awaitable[Sequence[float]]]:
    mechanics = stage.people.mechanics
    offers = await stage.offers_to([mechanics[number % len(mechanics)] for number in range(count)])
    first_ms = wall_clock_ms() + int(LEAD_S * 1000) + count
    ends_at_ms = {name: first_ms + int(number * 1000 / per_s) for number, name in enumerate(offers)}
    await move_windows(stage.on.database_url, stage.on.redis_url, {offers[name]: at for name, at in ends_at_ms.items()})

    async def end() -> Sequence[float]:
        return await stage.all_seen({name: float(at_ms) for name, at_ms in ends_at_ms.items()})

    # What is idle before the first of them is not theirs.
    await anyio.sleep(max(0, first_ms - wall_clock_ms() - 50) / 1000)
    return end


async def _accepts(stage: Stage, count: int, per_s: float) -> Callable[[], Awaitable[Sequence[float]]]:
    mechanics = stage.people.mechanics[stage.used_up : stage.used_up + count]
    stage.used_up += count
    return await _answers("accept", mechanics, stage, per_s)


async def _declines(stage: Stage, count: int, per_s: float) -> Callable[[], Awaitable[Sequence[float]]]:
    return await _answers("decline", stage.people.mechanics[:count], stage, per_s)


async def _answers(
    kind: str, mechanics: Sequence[str], stage: Stage, per_s: float
) -> Callable[[], Awaitable[Sequence[float]]]:
    offers = await stage.offers_to(mechanics)
    say = partial(stage.crowd.dialect.say, kind)
    messages = {
        request_id: (stage.clients[mechanic_id], say(offer_id=offer_id))
        for mechanic_id, (request_id, offer_id) in zip(mechanics, offers.items(), strict=True)
    }
    return partial(stage.said, messages, per_s)


async def _free_sessions(stage: Stage, count: int, per_s: float) -> Callable[[], Awaitable[Sequence[float]]]:
    """Book and fulfil in one transaction; seen when the call is answered."""
    customers = stage.people.customers[stage.free_used_up : stage.free_used_up + count]
    stage.free_used_up += count
    body = json.dumps({"plan": "free_diagnostic", "routing_type": "broadcast"}).encode()
    calls = [post("/api/checkout", body, Authorization=f"Bearer {token_for(one, 'customer')}") for one in customers]

    async def book() -> Sequence[float]:
        answers = await call_all(stage.node.port, calls, per_s=min(per_s, 1e6))
        if set(answers.statuses) != {201}:
            raise RuntimeError(f"not every customer got their free session: {answers.statuses}")
        return answers.after_ms

    return book


async def _duty(stage: Stage, count: int, per_s: float) -> Callable[[], Awaitable[Sequence[float]]]:
    """Everybody changes it; seen when the mechanic's own app is told."""
    frames = [stage.crowd.dialect.say("set_availability", on_duty=on_duty) for on_duty in (True, False)]
    mechanics = stage.people.mechanics[:count]
    messages = {one: (stage.clients[one], frames[one in stage.on_duty]) for one in mechanics}
    stage.on_duty.symmetric_difference_update(mechanics)
    return partial(stage.said, messages, per_s)


KINDS: Final[dict[str, tuple[Kind, int]]] = {
    "duty changed": (_duty, 1),
    "a window ends by itself": (_window_ends, WINDOWS_PER_OTHER),
    "accept": (_accepts, 1),
    "decline": (_declines, 1),
    "free session booked": (_free_sessions, 1),
}
"""And of how many more of a kind the stretches at once and at half the rate are made."""


@dataclass(frozen=True)
class Measured:
    """One kind on one kind of database. ``idle_share`` is what the server uses of a core while nothing happens."""

    alone: Stretch
    at_once: Stretch
    half: Stretch
    idle_share: float

    def cells(self) -> list[float | None]:
        """Return the row."""
        count = len(self.alone.after_ms)
        own_s = self.alone.used.cpu_s - self.idle_share * self.alone.used.at_s
        return [
            own_s * 1000 / count,
            self.alone.statements / count,
            self.alone.visits / count,
            percentile(self.alone.after_ms, 0.5),
            percentile(self.alone.after_ms, 0.99),
            self.at_once.per_s,
            self.at_once.used.share * 100,
            self.half.per_s,
            percentile(self.half.after_ms, 0.5),
            percentile(self.half.after_ms, 0.99),
            self.half.used.share * 100,
        ]


async def measure(options: Options, cores: Cores, folder: Path) -> Report:
    """Measure each kind on each kind of database; return the table."""
    half_s = options.pick(options.duration_s, 5.0, 1.0)
    size = Size(
        alone=options.pick(None, 80, 4),
        at_once=options.pick(None, 300, 10),
        half_s=half_s,
        half_max=options.pick(None, 600, 10),
    )
    cores.pin_load(0)
    table = _table()
    versions: dict[str, str] = {}
    with stores(folder, options.database) as (available, missing):
        for store in available:
            template, people = prepared(
                folder / f"{store.name}-import", store, mechanics=size.mechanics, customers=size.mechanics
            )
            with ground(folder / store.name, cores, database_url=store.fresh(template)) as on:
                versions |= {"Redis": on.redis.version(), **store.versions()}
                for name, measured in (await _measured(store, on, people, size)).items():
                    table.add(f"{store.name}: {name}", *measured.cells())
    if missing:
        table.notes.append(missing)
    return Report("transitions", [table], versions)


async def _measured(store: Store, on: Ground, people: People, size: Size) -> dict[str, Measured]:
    found: dict[str, Measured] = {}
    with nodes(Pitlane(), on) as [node]:
        await listening([node])
        stage = Stage(on, node, people)
        await stage.open(size)
        idle = await stage.counted(_nothing)
        for name, (kind, more) in KINDS.items():
            progress(f"{store.name}: {name}")
            alone = await stage.counted(await kind(stage, size.alone, ALONE_PER_S))
            at_once = await stage.counted(await kind(stage, size.at_once * more, AT_ONCE_PER_S))
            half_per_s = at_once.per_s / 2
            count = max(1, min(int(half_per_s * size.half_s), size.half_max * more))
            half = await stage.counted(await kind(stage, count, half_per_s))
            found[name] = Measured(alone, at_once, half, idle.used.share)
            await stage.go_off_duty()
        await stage.crowd.disperse()
    return found


async def _nothing() -> Sequence[float]:
    await anyio.sleep(IDLE_S)
    return []


def _table() -> Table:
    table = Table(
        f"One transition at {ALONE_PER_S:g} a second, as many as a core bears, and at half of that",
        [
            "",
            "server CPU each, ms",
            "SQL statements each",
            "visits to Redis each",
            "seen after, p50, ms",
            "p99, ms",
            "all at once: per s",
            "server, % of a core",
            "half: per s",
            "seen after, p50, ms",
            "p99, ms",
            "server, % of a core",
        ],
    )
    table.notes += [
        "CPU each is what the server uses beyond being idle with the same sockets open. Statements and visits (a script or a batch "
        "is one) are all that happened meanwhile, those of an idle server included.",
        "Seen: the customer's `request_update`, for duty the mechanic's own `availability`, for a booking the answer to its POST; "
        "counted from a window's deadline, from when the app said it, from when the call was due.",
        "One server on one core; all sockets, Redis and PostgreSQL share another. Where the server is well under 100 % of its core "
        "all at once, they are the limit.",
    ]
    return table
