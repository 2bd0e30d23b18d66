"""A crowd of mechanics on several nodes, customers who watch all of them, and the truth to compare with what these see."""

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from math import inf
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

import anyio
from redis.exceptions import RedisError

from accounts.accounts import NewAccount
from embedded.redis_child import RedisChild
from infra.clock import wall_clock_ms
from infra.redis_link import RedisLink
from models.settings import PresenceSettings
from models.words import Role
from tests.acceptance.churn import MARGIN_MS, Ending, Spell, Stay, promises
from tests.acceptance.clients import Rest
from tests.acceptance.lines import Line, Refused
from tests.acceptance.servers import Server, add_accounts, running_servers
from tests.services import redis_server

WATCH_MAX = 100
BACKOFF_S = (0.05, 0.3)
LOOK_S = 0.05
STALL_MS = 200
"""Whatever takes longer than this, while nothing is wrong, is due to the machine."""


@dataclass
class Stalls:
    """When the machine, a node or Redis was too slow for anything to be judged by it; ms."""

    spans: list[tuple[float, float]] = field(default_factory=list)

    def note(self, since_ms: float, until_ms: float) -> None:
        if until_ms - since_ms > STALL_MS:
            self.spans.append((since_ms, until_ms))

    def overlaps(self, since_ms: float, until_ms: float) -> bool:
        return any(since < until_ms and until > since_ms for since, until in self.spans)

    async def look(self, redis_url: str) -> None:
        """Note when this process, or Redis, stood still; until cancelled."""
        link = RedisLink(redis_url, prefix="test")
        try:
            while True:
                before_ms = wall_clock_ms()
                await anyio.sleep(LOOK_S)
                self.note(before_ms + 1000 * LOOK_S, wall_clock_ms())
                before_ms = wall_clock_ms()
                with suppress(RedisError):
                    await link.ping()
                self.note(before_ms, wall_clock_ms())
        finally:
            with anyio.CancelScope(shield=True):
                await link.close()


@dataclass
class Watcher:
    """A customer's socket: what it was told of each of some mechanics, in order."""

    line: Line
    ids: frozenset[str]
    told: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))

    def hear(self, message: dict[str, Any]) -> None:
        if message["type"] == "statuses":
            for status in message["statuses"]:
                self.told[status["mechanic_id"]].append(status)
        elif message["type"] == "status":
            self.told[message["mechanic_id"]].append(message)

    def errors(self, here: set[str]) -> set[str]:
        """Return of whom it believes something wrong, or knows nothing yet."""
        online = {mechanic for mechanic, told in self.told.items() if told[-1]["is_online"]}
        return (online ^ here & self.ids) | self.ids - self.told.keys()


@dataclass
class Crowd:
    """Who is connected where. ``stays`` gathers for each mechanic when which device was surely here."""

    servers: Sequence[Server]
    mechanics: list[str]
    customers: list[str]
    rests: dict[str, Rest]
    """A customer's, by the server's address."""
    settings: PresenceSettings
    dice: Random
    lines: set[Line] = field(default_factory=set)
    watchers: list[Watcher] = field(default_factory=list)
    stays: dict[str, list[tuple[Line, Stay]]] = field(default_factory=lambda: defaultdict(list))
    stalls: Stalls = field(default_factory=Stalls)
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    # --- the truth, and what is seen of it ----------------------------------------------------------------------------

    @property
    def here(self) -> set[str]:
        """Who really has a live socket now."""
        return {line.account_id for line in self.lines if line.is_live}

    async def errors(self, servers: Sequence[Server]) -> set[str]:
        """Return about whom a watcher, or one of the nodes by REST, is wrong; or what else is."""
        here = self.here
        wrong = set().union(*(watcher.errors(here) for watcher in self.watchers if watcher.line.is_live))
        for server in servers:
            wrong |= await self.online_on(server) ^ self.here
            # All are on duty, and none in a session.
            counted = (await self.rests[server.base_url].ok("GET", "/api/mechanics/availability"))["available_count"]
            wrong |= {"available_count"} if counted != len(self.here) else set()
        return wrong

    async def online_on(self, server: Server) -> set[str]:
        """Return who is online as a node answers by REST."""
        online = set()
        for ids in _hundreds(self.mechanics):
            asked = {"ids": ",".join(ids)}
            answer = await self.rests[server.base_url].ok("GET", "/api/mechanics/status", params=asked)
            assert len(answer["statuses"]) == len(ids)
            online |= {status["mechanic_id"] for status in answer["statuses"] if status["is_online"]}
        return online

    async def until_true(
        self, within_s: float, *, on: Sequence[Server] | None = None, of: Callable[[], set[str]] | None = None
    ) -> float:
        """Wait until the truth (``of`` some) is seen on all nodes (or some); return after how many seconds.

        Fails after a bounded time.
        """
        began_s = monotonic()
        while wrong := await self.errors(on or self.servers):
            if of is not None and not wrong & of():
                break
            assert monotonic() - began_s < within_s, (
                f"after {within_s:g} s wrong about {len(wrong)}: {sorted(wrong)[:3]}"
            )
            await anyio.sleep(LOOK_S)
        return monotonic() - began_s

    def assert_versions_only_grew(self) -> None:
        """On every watcher's socket, each mechanic's; and one version means one thing to all of them."""
        meant: dict[tuple[str, int], tuple[bool, str]] = {}
        for watcher in self.watchers:
            for mechanic, told in watcher.told.items():
                versions = [status["version"] for status in told]
                assert versions == sorted(set(versions)), f"versions of {mechanic} went back"
                for status in told:
                    meaning = (status["is_online"], status["availability"])
                    assert meant.setdefault((mechanic, status["version"]), meaning) == meaning

    def promises_to(self, mechanic_id: str) -> list[tuple[float, float]]:
        """Return the times, ms, in which nobody may have seen them offline."""
        for line, stay in self.stays[mechanic_id]:
            if line.closed.is_set() and stay.until_ms == inf:
                # It broke, and not by our doing: since we were last heard, nothing is promised.
                stay.until_ms = line.acknowledged_at_ms
        return promises(stay for _, stay in self.stays[mechanic_id])

    def offline_told(self) -> dict[str, set[float]]:
        """Return for each mechanic the instants, ms, at which a change to offline was told to anybody."""
        instants: dict[str, set[float]] = {}
        for watcher in self.watchers:
            for mechanic, told in watcher.told.items():
                # The first is the snapshot.
                later = {_instant_ms(status["as_of"]) for status in told[1:] if not status["is_online"]}
                instants.setdefault(mechanic, set()).update(later)
        return instants

    # --- what devices do ----------------------------------------------------------------------------------------------

    async def connect(self, mechanic_id: str, node: int) -> tuple[Line, Stay]:
        """Open a device's socket; raises ``Refused``."""
        line = await Line.open(self.servers[node].base_url, "mechanic", mechanic_id, dice=self.dice)
        line.on_answer = self.stalls.note
        self.lines.add(line)
        self.counts["opened"] += 1
        return line, self._stay(line)

    async def live(self, mechanic_id: str, spells: list[Spell]) -> None:
        """Carry out one device's plan; whatever breaks the line otherwise is answered by connecting again, as an app does."""
        line: Line | None = None
        stay = Stay(0)
        for spell in spells:
            if line is not None and await line.thaw():
                self.counts["thawed"] += 1
                before, stay = stay, self._stay(line)
                # From here on it is the same line's new stay that counts, which may end sooner than the old one would have lapsed.
                before.hold_ms = min(before.hold_ms, stay.since_ms - before.until_ms + MARGIN_MS + 1)
            else:
                line, stay = await self._connect_until(mechanic_id, spell.node)
            ends_s = monotonic() + spell.stays_s
            while not await _closes_before(line, ends_s):
                self.counts["cut off"] += 1
                line, stay = await self._connect_until(mechanic_id, spell.node)
            if spell.ending is not None:
                await self._end(line, stay, spell.ending)
            if spell.gap_s is not None:
                await anyio.sleep(spell.gap_s)
            if spell.ending is Ending.FREEZE and spell.gap_s is not None:
                # Its end is news to the node: then the grace is all that is left.
                stay.hold_ms = min(stay.hold_ms, wall_clock_ms() + self.settings.grace_ms - stay.until_ms)
                line.reset()
            if spell.ending is not Ending.DOZE:
                line = None

    async def _connect_until(self, mechanic_id: str, node: int) -> tuple[Line, Stay]:
        while True:
            try:
                return await self.connect(mechanic_id, node)
            except Refused:
                # As behind a load balancer: another node may answer.
                self.counts["refused"] += 1
                node = (node + 1) % len(self.servers)
                await anyio.sleep(self.dice.uniform(*BACKOFF_S))

    async def _end(self, line: Line, stay: Stay, ending: Ending) -> None:
        self.counts[ending.value] += 1
        stay.until_ms = wall_clock_ms()
        # However it ends: no longer than until the time-out after the last heartbeat, which may have been a late one.
        lapses_in_ms = line.heard_at_ms + self.settings.timeout_ms - stay.until_ms
        match ending:
            case Ending.CLOSE:
                stay.hold_ms = min(self.settings.grace_ms, lapses_in_ms)
                await line.close()
            case Ending.RESET:
                stay.hold_ms = min(self.settings.grace_ms, lapses_in_ms)
                line.reset()
            case Ending.FREEZE | Ending.DOZE:
                stay.hold_ms = lapses_in_ms
                line.freeze()

    def _stay(self, line: Line) -> Stay:
        stay = Stay(line.acknowledged_at_ms)
        self.stays[line.account_id].append((line, stay))
        return stay

    # --- who watches --------------------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Have customers on every node watch everybody, a hundred mechanics on each socket."""
        for server in self.servers:
            for customer, ids in zip(self.customers, _hundreds(self.mechanics), strict=True):
                line = await Line.open(server.base_url, "customer", customer, dice=self.dice)
                watcher = Watcher(line, frozenset(ids))
                watcher.line.on_message = watcher.hear
                watcher.line.send("watch", mechanic_ids=ids)
                self.watchers.append(watcher)

    def drop(self) -> None:
        """Break off every socket."""
        for line in (*self.lines, *(watcher.line for watcher in self.watchers)):
            line.reset()


async def _closes_before(line: Line, ends_s: float) -> bool:
    """Wait until a time, by the monotonic clock; ``False`` if the line has closed before."""
    with anyio.move_on_after(ends_s - monotonic()):
        await line.closed.wait()
        return False
    return True


def _instant_ms(text: str) -> float:
    return datetime.fromisoformat(text).timestamp() * 1000


def _hundreds(ids: list[str]) -> list[list[str]]:
    return [ids[start : start + WATCH_MAX] for start in range(0, len(ids), WATCH_MAX)]


@contextmanager
def two_nodes(
    database_url: str, tmp_path: Path, settings: PresenceSettings
) -> Iterator[tuple[list[Server], RedisChild]]:
    """Two real servers on one database and one Redis; of the settings those count that the environment has."""
    environment = {
        "HEARTBEAT_INTERVAL_S": f"{settings.heartbeat_interval_ms / 1000:g}",
        "PRESENCE_TIMEOUT_S": f"{settings.timeout_ms / 1000:g}",
        "DISCONNECT_GRACE_S": f"{settings.grace_ms / 1000:g}",
    }
    with (
        redis_server(tmp_path / "redis") as redis,
        running_servers(tmp_path, 2, DATABASE_URL=database_url, REDIS_URL=redis.url, **environment) as servers,
    ):
        yield servers, redis


@asynccontextmanager
async def gathering(
    servers: Sequence[Server], database_url: str, settings: PresenceSettings, *, mechanics: int, dice: Random
) -> AsyncIterator[Crowd]:
    """Accounts for a crowd on servers that are ready; every socket is broken off at the end."""
    for server in servers:
        await server.ready()
    customers = -(-mechanics // WATCH_MAX)
    new = [NewAccount(Role.MECHANIC, f"m{number}@example.com", f"Mechanic {number}") for number in range(mechanics)]
    new += [NewAccount(Role.CUSTOMER, f"c{number}@example.com", f"Customer {number}") for number in range(customers)]
    ids = await add_accounts(database_url, *new)
    async with AsyncExitStack() as stack:
        rests = {
            server.base_url: await stack.enter_async_context(Rest.of(server.base_url, ids[-1], "customer"))
            for server in servers
        }
        crowd = Crowd(servers, ids[:mechanics], ids[mechanics:], rests, settings, dice)
        stack.callback(crowd.drop)
        yield crowd
