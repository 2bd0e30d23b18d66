"""Windows that end together, one broadcast for everybody, and accepts: on the wire, as apps and customers see them."""

import json
import math
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Final

import anyio
import anyio.to_thread

from benchmarks.contenders import (
    Contender,
    Ground,
    Node,
    Pitlane,
    end,
    ground,
    listening,
    nodes,
    peer_versions,
    socket_peers,
    start_peer,
)
from benchmarks.cores import Cores
from benchmarks.meters import Usage, middle, percentile
from benchmarks.options import Options
from benchmarks.report import Report, Table, compared, progress
from benchmarks.seeds import People, Store, Wanted, move_windows, prepared, seed_requests, stores
from benchmarks.sockets import Client, Crowd
from dispatch.request import Windows
from infra.clock import wall_clock_ms
from tests.acceptance.clients import Rest

WITHIN_S: Final = 10.0
"""The windows end evenly over this time."""
LEAD_S: Final = 0.5
LEAD_PER_WINDOW_S: Final = 0.001
"""From when everybody is connected to the first end of a window: in between the deadlines are set."""
REQUESTS_PER_CUSTOMER: Final = 100
OTHER_KEYS: Final = 100_000
PATIENCE_PER_WINDOW_S: Final = 0.02
PATIENCE_S: Final = 30.0
WINDOWS: Final = Windows(priority_ms=600_000, broadcast_ms=900_000, start_ms=300_000, grace_ms=900_000)
ACCEPTS_PER_S: Final = 20
PEER_CONNECTIONS_MAX: Final = 5_000


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    windows: int
    fewer_windows: int
    connections: int
    broadcasts: int
    accepts: int
    other_keys: int


@dataclass(frozen=True)
class Lateness:
    """How late the ends of windows were seen, in ms; ``missing``: how many were not seen in time."""

    of: str
    windows: int
    late_ms: list[float]
    """In the order of their ends, as far as that is known."""
    used: Usage | None = None
    """What the server used from the first end until the last was seen."""

    @property
    def missing(self) -> int:
        return self.windows - len(self.late_ms)


@dataclass
class Accepted:
    """What accepts took on one kind of database."""

    store: str
    after_ms: list[float] = field(default_factory=list)
    share_meanwhile: float | None = None
    per_s: float | None = None
    share_together: float | None = None


async def measure(options: Options, cores: Cores, folder: Path) -> Report:
    """Run everything; return the tables."""
    connections = options.pick(options.connections, 10_000, 300)
    size = Size(
        windows=options.pick(options.windows, 10_000, 100),
        fewer_windows=options.pick(None, 500, 0),
        connections=connections,
        broadcasts=options.pick(options.repeats, 5, 2),
        accepts=options.pick(None, 400, 20),
        other_keys=options.pick(None, OTHER_KEYS, 1_000),
    )
    within_s = options.pick(options.duration_s, WITHIN_S, 2.0)
    cores.pin_load(0)
    lateness: list[Lateness] = []
    reached: dict[str, Reached] = {}
    accepted: list[Accepted] = []
    versions: dict[str, str] = {}
    with stores(folder, options.database) as (available, missing):
        for store in available:
            customers = max(size.broadcasts, math.ceil(size.windows / REQUESTS_PER_CUSTOMER))
            template, people = prepared(
                folder / f"{store.name}-import", store, mechanics=max(size.accepts, connections), customers=customers
            )
            versions |= store.versions()
            for count in dict.fromkeys(filter(None, (size.windows, size.fewer_windows))):
                progress(f"{store.name}: {count} windows that end within {within_s:g} s")
                at = folder / f"{store.name}-{count}-windows"
                with ground(at, cores, database_url=store.fresh(template)) as on:
                    lateness.append(await _windows(store, on, people, count, within_s))
            if size.fewer_windows:
                progress(f"{store.name}: {size.fewer_windows} start windows that end within {within_s:g} s")
                with ground(folder / f"{store.name}-starts", cores, database_url=store.fresh(template)) as on:
                    lateness.append(await _windows(store, on, people, size.fewer_windows, within_s, are_accepted=True))
            progress(f"{store.name}: {size.accepts} accepts")
            with ground(folder / f"{store.name}-accepts", cores, database_url=store.fresh(template)) as on:
                accepted.append(await _accepts(store, on, people, size))
            if store is available[0]:
                # A broadcast reaches the sockets in the same way whatever it was written to.
                url = store.fresh(template)
                reached = await _broadcasts(options.peers, folder, cores, url, people, size, versions)
    lateness += await _deadline_peers(options.peers, folder, cores, size, within_s)
    versions |= peer_versions(options.peers)
    skipped = [reason for reason in (missing, options.without_peers) if reason]
    return Report(
        "dispatch",
        [_lateness_table(lateness, within_s, skipped), _broadcast_table(reached, size), _accepts_table(accepted, size)],
        versions,
    )


# --- windows ----------------------------------------------------------------------------------------------------------


class Updates:
    """When each request first reached a status, as its customer's socket heard."""

    def __init__(self, crowd: Crowd, status: str) -> None:
        self._status = status
        self.heard_at_ms: dict[str, float] = {}
        self._crowd = crowd

    def heard(self, kind: str, payload: bytes) -> None:
        """Take a message to a customer."""
        if kind == "request_update":
            request: dict[str, Any] = self._crowd.dialect.members_of(payload)["request"]
            if request["status"] == self._status:
                self.heard_at_ms.setdefault(request["id"], time_ms())

    async def reached(self, count: int, within_s: float) -> None:
        """Wait until as many requests have reached the status, or the time is over."""
        with anyio.move_on_after(within_s):
            while len(self.heard_at_ms) < count:  # noqa: ASYNC110 - bounded, and nothing is measured by it
                await anyio.sleep(0.05)


async def _windows(
    store: Store, on: Ground, people: People, count: int, within_s: float, *, are_accepted: bool = False
) -> Lateness:
    """Let windows end; of offers, or of mechanics who have accepted and do not start."""
    customers = people.customers[: math.ceil(count / REQUESTS_PER_CUSTOMER)]
    wanted = [
        Wanted(
            customer_id=customers[number % len(customers)],
            mechanic_id=people.mechanics[number % len(people.mechanics)],
            opens_in_ms=int(number * within_s * 1000 / count),
        )
        for number in range(count)
    ]
    # Their favourites are offline: only time ends the windows.
    offers = await seed_requests(on.database_url, wanted, WINDOWS, now_ms=wall_clock_ms(), are_accepted=are_accepted)
    with nodes(Pitlane(), on) as [node]:
        await listening([node])
        crowd = Crowd(Pitlane.dialect)
        updates = Updates(crowd, "broadcasting")
        crowd.heard = lambda client, kind, payload: updates.heard(kind, payload)
        await crowd.connect(node.port, customers, "customer")
        lead_s = LEAD_S + count * LEAD_PER_WINDOW_S
        first_end_ms = wall_clock_ms() + int(lead_s * 1000)
        ends_at_ms = {
            request_id: first_end_ms + one.opens_in_ms for request_id, one in zip(offers, wanted, strict=True)
        }
        await move_windows(
            on.database_url,
            on.redis_url,
            {offers[request_id]: at_ms for request_id, at_ms in ends_at_ms.items()},
            are_limits=are_accepted,
        )
        await anyio.sleep((first_end_ms - wall_clock_ms()) / 1000)
        before = Usage.of(node.pid)
        await updates.reached(count, within_s + PATIENCE_S + count * PATIENCE_PER_WINDOW_S)
        used = Usage.of(node.pid) - before
        await crowd.disperse()
    heard_at_ms = updates.heard_at_ms
    late_ms = [heard_at_ms[name] - at_ms for name, at_ms in ends_at_ms.items() if name in heard_at_ms]
    if late_ms and min(late_ms) < 0:
        raise RuntimeError(f"a window ended {-min(late_ms):.1f} ms before its time")
    kind = ", start windows" if are_accepted else ""
    return Lateness(f"Pitlane on {store.name}{kind}, to the customer's socket", count, late_ms, used)


def time_ms() -> float:
    """This machine's clock, which is also Redis' here, ms since the epoch."""
    return time.time_ns() / 1e6


async def _deadline_peers(
    python: Path | None, folder: Path, cores: Cores, size: Size, within_s: float
) -> list[Lateness]:
    if python is None:
        return []
    count = size.windows
    found: list[Lateness] = []
    for title, program, extra in (
        ("keyspace notifications, nothing else in Redis", "keyspace_peer", ["0"]),
        (f"keyspace notifications, {size.other_keys:,} other keys", "keyspace_peer", [str(size.other_keys)]),
        ("arq, delayed jobs", "arq_peer", []),
    ):
        progress(f"{title}: {count} deadlines within {within_s:g} s")
        at = folder / f"{program}-{len(found)}"
        with ground(at, cores, database_url="") as on:
            log = at / "peer.log"
            process = start_peer(python, program, on, log, str(count), str(within_s), *extra, str(PATIENCE_S))
            try:
                cores.pin_server(process.pid)
                bound_s = PATIENCE_S * 3 + within_s + count / 100
                await anyio.to_thread.run_sync(process.wait, bound_s)
            except subprocess.TimeoutExpired:
                progress(f"{title}: did not end")
            finally:
                end(process)
            lines = log.read_text(errors="replace").splitlines()
            if process.returncode != 0 or not lines:
                raise RuntimeError(f"{program} failed: {' '.join(lines[-5:])}")
            found.append(Lateness(title, count, json.loads(lines[-1])))
    return found


# --- one broadcast to everybody ---------------------------------------------------------------------------------------


@dataclass
class Reached:
    """One contender's broadcasts: from the wish until the last socket, and from the first socket to the last, in ms."""

    connections: int
    last_ms: list[float | None] = field(default_factory=list)
    spread_ms: list[float | None] = field(default_factory=list)


async def _broadcasts(
    python: Path | None,
    folder: Path,
    cores: Cores,
    database_url: str,
    people: People,
    size: Size,
    versions: dict[str, str],
) -> dict[str, Reached]:
    found: dict[str, Reached] = {}
    contenders: list[Contender] = [Pitlane(), *socket_peers(python)]
    for contender in contenders:
        is_ours = isinstance(contender, Pitlane)
        count = size.connections if is_ours else min(size.connections, PEER_CONNECTIONS_MAX)
        progress(f"{contender.name}: {size.broadcasts} broadcasts to {count} mechanics")
        with ground(folder / f"broadcast-{contender.name.replace(' ', '-')}", cores, database_url=database_url) as on:
            versions["Redis"] = on.redis.version()
            with nodes(contender, on) as [node]:
                await listening([node])
                crowd = Crowd(contender.dialect)
                clients = await crowd.connect(node.port, people.mechanics[:count])
                reached = found[contender.name] = Reached(count)
                for number in range(size.broadcasts):
                    await _broadcast(is_ours, node, crowd, clients, people.customers[number], reached)
                await crowd.disperse()
    return found


async def _broadcast(
    is_ours: bool, node: Node, crowd: Crowd, clients: Sequence[Client], customer_id: str, reached: Reached
) -> None:
    """Let a request be broadcast and note when it arrived; ours is then cancelled, and the withdrawal waited for."""
    arrived_s: list[float] = []
    withdrawn = 0

    def heard(client: Client, kind: str, payload: bytes) -> None:
        nonlocal withdrawn
        if kind == "offer":
            arrived_s.append(monotonic())
        withdrawn += kind == "offer_withdrawn"

    crowd.heard = heard
    started_s = monotonic()
    if not is_ours:
        clients[0].send(crowd.dialect.say("broadcast", request_id=customer_id))
        await _until(lambda: len(arrived_s) >= len(clients))
    else:
        async with Rest.of(f"http://127.0.0.1:{node.port}", customer_id, "customer") as rest:
            await rest.ok("GET", "/api/me")
            started_s = monotonic()
            body = {"plan": "free_diagnostic", "routing_type": "broadcast"}
            answer = await rest.ok("POST", "/api/checkout", json=body, status=201)
            await _until(lambda: len(arrived_s) >= len(clients))
            await rest.ok("POST", f"/api/requests/{answer['request']['id']}/cancel")
            await _until(lambda: withdrawn >= len(clients))
    first_to_last = sorted(arrived_s[: len(clients)])
    reached.last_ms.append((first_to_last[-1] - started_s) * 1000)
    reached.spread_ms.append((first_to_last[-1] - first_to_last[0]) * 1000)


async def _until(true: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE_S * 2):
        while not true():  # noqa: ASYNC110 - bounded, and finer than what is measured needs
            await anyio.sleep(0.005)


# --- accepts ----------------------------------------------------------------------------------------------------------


async def _accepts(store: Store, on: Ground, people: People, size: Size) -> Accepted:
    """Half of the accepts to a timetable, for how soon the customer knows; the others all together, for how many."""
    customers = people.customers[: math.ceil(size.accepts / REQUESTS_PER_CUSTOMER)]
    wanted = [Wanted(customers[number % len(customers)], people.mechanics[number]) for number in range(size.accepts)]
    offers = await seed_requests(on.database_url, wanted, WINDOWS, now_ms=wall_clock_ms())
    found = Accepted(store.name)
    with nodes(Pitlane(), on) as [node]:
        await listening([node])
        crowd = Crowd(Pitlane.dialect)
        updates = Updates(crowd, "accepted")
        taken = 0

        def heard(client: Client, kind: str, payload: bytes) -> None:
            nonlocal taken
            updates.heard(kind if client.role == "customer" else "", payload)
            taken += kind == "offer_accepted"

        crowd.heard = heard
        await crowd.connect(node.port, customers, "customer")
        joined = await crowd.connect(node.port, [one.mechanic_id for one in wanted])
        by_account = {client.account_id: client for client in joined}
        turns = [(by_account[one.mechanic_id], *pair) for one, pair in zip(wanted, offers.items(), strict=True)]
        half = len(turns) // 2
        sent_at_ms: dict[str, float] = {}
        before = Usage.of(node.pid)
        for client, request_id, offer_id in turns[:half]:
            sent_at_ms[request_id] = time_ms()
            client.send(crowd.dialect.say("accept", offer_id=offer_id))
            await anyio.sleep(1 / ACCEPTS_PER_S)
        found.share_meanwhile = (Usage.of(node.pid) - before).share
        await updates.reached(half, PATIENCE_S)
        if missing := half - len(updates.heard_at_ms):
            raise RuntimeError(f"customers were not told of {missing} accepts")
        found.after_ms = [updates.heard_at_ms[name] - at_ms for name, at_ms in sent_at_ms.items()]

        before = Usage.of(node.pid)
        for client, _, offer_id in turns[half:]:
            client.send(crowd.dialect.say("accept", offer_id=offer_id))
        await _until(lambda: taken >= len(turns))
        used = Usage.of(node.pid) - before
        found.per_s, found.share_together = (len(turns) - half) / used.at_s, used.share
        await crowd.disperse()
    return found


# --- the tables -------------------------------------------------------------------------------------------------------


def _lateness_table(found: list[Lateness], within_s: float, skipped: list[str]) -> Table:
    table = Table(
        f"Deadlines that end within the same {within_s:g} s: how late, in ms",
        [
            "",
            "deadlines",
            "p50",
            "p99",
            "p99 of the middle",
            "latest",
            "not seen",
            "server CPU each",
            "server, % of a core",
        ],
    )
    for one in found:
        figures: list[float | None] = [None, None, None, None]
        if one.late_ms:
            edge = len(one.late_ms) // 10
            in_the_middle = percentile(one.late_ms[edge : len(one.late_ms) - edge], 0.99) if one.used else None
            figures = [percentile(one.late_ms, 0.5), percentile(one.late_ms, 0.99), in_the_middle, max(one.late_ms)]
        used: list[float | None] = [None, None]
        if one.used:
            used = [one.used.cpu_s * 1000 / one.windows, one.used.share * 100]
        table.add(one.of, float(one.windows), *figures, float(one.missing), *used)
    table.notes.append(
        "Pitlane's row is the whole way: the window's end committed in SQL with its timeline, the broadcast opened, and the "
        "customer's `request_update` on the wire. The others only notice that it is time. None of Pitlane's came early."
    )
    table.notes.append(
        "One server on one core; the customers' sockets, Redis and PostgreSQL share another. Where the server's CPU for a window "
        "is more than the time between two of them, windows queue."
    )
    table.notes.append("The middle leaves out the first and the last tenth of the deadlines.")
    table.notes.append("arq runs a thousand jobs side by side instead of its ten, and otherwise as it comes.")
    table.notes += skipped
    return table


def _broadcast_table(found: dict[str, Reached], size: Size) -> Table:
    table = Table(f"One broadcast to all mechanics: medians of {size.broadcasts}", ["", *found])
    table.add("mechanics connected", *(float(each.connections) for each in found.values()))
    for title, of in (("from the wish to the last socket, ms", "last_ms"), ("first socket to last, ms", "spread_ms")):
        mine, *theirs = (middle(getattr(each, of)) for each in found.values())
        table.add(title, mine, *(compared(mine, value) for value in theirs))
    table.notes.append(
        "Pitlane's wish is the POST that books the free plan, committed in SQL before anybody hears of it; a peer's is a message "
        "on a socket, and nothing is kept."
    )
    return table


def _accepts_table(found: list[Accepted], size: Size) -> Table:
    table = Table(
        f"Accepts: {size.accepts - size.accepts // 2} together, and {size.accepts // 2} at {ACCEPTS_PER_S} a second",
        [
            "",
            "together: accepts per second",
            "server, % of a core",
            f"at {ACCEPTS_PER_S} a second: accept → customer's update, p50, ms",
            "p99, ms",
            "server, % of a core",
        ],
    )
    for one in found:
        together, meanwhile = (
            None if share is None else share * 100 for share in (one.share_together, one.share_meanwhile)
        )
        late = percentile(one.after_ms, 0.5), percentile(one.after_ms, 0.99)
        table.add(one.store, one.per_s, together, *late, meanwhile)
    return table
