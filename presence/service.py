"""Presence on one node: what sockets say goes to the shard it belongs to; what others ask is answered from all of them.

joined, heard, left ──► shards ──► Redis ──► changes ──► watches ──► sinks
                        learn ──► SQL ──► facts.lua       save ──► last_seen to SQL
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import TypeVar

import anyio
import structlog

from infra.bus import Bus
from infra.clock import RedisClock
from infra.database import Database
from infra.loops import in_halves, keep_on, keep_running, note_failure
from infra.redis_link import RedisLink
from models.errors import DatabaseUnavailable, RedisUnavailable
from models.ids import is_id
from models.settings import PresenceSettings
from models.wire import StatusView
from presence.facts import read_facts, save_last_seen
from presence.leases import Leases, shard_of
from presence.liveness import Facts, MechanicStatus, view
from presence.responses import Responses
from presence.shard import Listeners, Shard
from presence.watch import Sink, Watches

LEARN_LEN_MAX = SAVE_LEN_MAX = 500
LEARN_PAUSE_S = 0.01
"""Who joins alone is learned at once; in a reconnect storm those of this time share a query instead of having one each."""
STOP_TIMEOUT_S = 1.0

T = TypeVar("T")


class Presence:
    """Who is here, for the rest of this node; everything that other nodes know goes through Redis."""

    def __init__(
        self,
        link: RedisLink,
        bus: Bus,
        clock: RedisClock,
        database: Database,
        settings: PresenceSettings,
        node_id: str,
    ) -> None:
        """``node_id`` must be new with every start: a node's leases die with it."""
        self.unnoticed_ms = settings.timeout_ms + settings.grace_ms + settings.sweep_interval_ms
        """How long somebody may be gone without a word and still count as online."""
        self._database = database
        self._shards = [
            Shard(
                Leases(link, settings, node_id, number),
                clock,
                settings,
                Listeners(self._learn_soon, self._save_soon, partial(self._mark_shard_stale, number)),
            )
            for number in range(link.shards)
        ]
        self._watches = Watches(bus, channel_of=self.channel_of, read=self.status_of, show=self._shown)
        self._responses = Responses(database)
        self._log = structlog.get_logger("presence").bind(node_id=node_id)
        bus.on_gap(self._mark_all_stale)

        self._to_learn: dict[str, None] = {}
        self._learn_now = anyio.Event()
        self._to_save: dict[str, int] = {}
        self._save_now = anyio.Event()

    # --- what sockets say ---------------------------------------------------------------------------------------------

    def joined(self, mechanic_id: str) -> None:
        """Note that a socket of theirs opened on this node; several are counted."""
        self._shard(mechanic_id).joined(mechanic_id)

    def heard(self, mechanic_id: str) -> None:
        """Note a heartbeat; renewed with the next flush. One of a socket that has left already counts for nothing."""
        self._shard(mechanic_id).heard(mechanic_id)

    def left(self, mechanic_id: str) -> None:
        """Note that a socket of theirs closed, once for each ``joined``; after the last, their lease here ends with the grace."""
        self._shard(mechanic_id).left(mechanic_id)

    # --- what others ask ----------------------------------------------------------------------------------------------

    async def status_of(self, ids: Iterable[str]) -> dict[str, StatusView]:
        """Return the current status of those of ``ids`` who are mechanics.

        Raises ``RedisUnavailable``, and ``DatabaseUnavailable`` if somebody is asked for whom Redis does not know.
        """
        wanted = [mechanic_id for mechanic_id in dict.fromkeys(ids) if is_id(mechanic_id)]
        statuses = _merged(await self._by_shard(wanted, Shard.read))
        if unknown := [name for name in wanted if name not in statuses]:
            statuses |= await self._learn(unknown)
        return {mechanic_id: self._shown(statuses[mechanic_id]) for mechanic_id in wanted if mechanic_id in statuses}

    def _shown(self, status: MechanicStatus) -> StatusView:
        return view(status, self._responses.of(status.mechanic_id))

    async def available_count(self, session_type: str | None = None) -> int:
        """Return how many mechanics a broadcast would reach now, one of this kind of session. Raises ``RedisUnavailable``."""
        counts = [partial(shard.leases.available_count, session_type) for shard in self._shards]
        return sum(await _side_by_side(counts))

    async def take_facts(self, facts: Iterable[Facts]) -> None:
        """Take over what has just become true in SQL, and announce what changed; idempotent, in any order.

        Raises ``RedisUnavailable``; then it is to be called again.
        """
        await self._store({one.mechanic_id: one for one in facts})

    async def watch(self, ids: Iterable[str], sink: Sink) -> None:
        """Give ``sink`` the current status of each mechanic among ``ids``, then every change. See ``Watches.watch``."""
        await self._watches.watch(filter(is_id, ids), sink)

    def unwatch(self, ids: Iterable[str], sink: Sink) -> None:
        """Stop telling ``sink`` about ``ids``; idempotent."""
        self._watches.unwatch(ids, sink)

    def drop(self, sink: Sink) -> None:
        """Stop telling ``sink`` anything; idempotent."""
        self._watches.drop(sink)

    def channel_of(self, mechanic_id: str) -> str:
        """Return the channel on which a mechanic's changes are announced."""
        return self._shard(mechanic_id).leases.channel(mechanic_id)

    # --- the life of it -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep presence going until cancelled; on the way out nobody flickers who reconnects within the grace."""
        try:
            async with anyio.create_task_group() as tasks:
                for name, step in self._steps():
                    tasks.start_soon(keep_running, f"presence_{name}", partial(keep_on, f"presence_{name}", step))
                tasks.start_soon(self._watches.run)
        finally:
            with anyio.move_on_after(STOP_TIMEOUT_S, shield=True):
                await self._retire()

    def _steps(self) -> Iterator[tuple[str, Callable[[], Awaitable[None]]]]:
        for shard in self._shards:
            yield "flush", shard.flush_in_turn
            yield "tend", shard.tend_in_turn
        yield "responses", self._responses.follow
        yield "learn", self._learn_in_turn
        yield "save", self._save_in_turn

    async def _retire(self) -> None:
        last_seen = self._to_save | _merged(shard.last_heard_ms for shard in self._shards)
        goodbyes: list[Callable[[], Awaitable[None]]] = [shard.retire for shard in self._shards]
        goodbyes.append(partial(self._retire_to_sql, last_seen))
        await _side_by_side(goodbyes)

    async def _retire_to_sql(self, last_seen_ms: dict[str, int]) -> None:
        try:
            await save_last_seen(self._database, last_seen_ms)
        except DatabaseUnavailable as error:
            self._log.warning("last_seen_not_saved", mechanics=len(last_seen_ms), error=str(error))

    def _mark_all_stale(self) -> None:
        """The bus went deaf for a while, so Redis may have been away, or restarted without its last second."""
        for shard in self._shards:
            shard.renew_all()
            self._learn_soon(shard.last_heard_ms)
        self._learn_soon(self._watches.ids)
        self._watches.mark_stale()

    # --- shards -------------------------------------------------------------------------------------------------------

    def _shard(self, mechanic_id: str) -> Shard:
        return self._shards[shard_of(mechanic_id, len(self._shards))]

    async def _by_shard(self, ids: Iterable[str], ask: Callable[[Shard, list[str]], Awaitable[T]]) -> list[T]:
        """Ask each shard for those of ``ids`` that are its own, all at the same time."""
        theirs: dict[Shard, list[str]] = {}
        for mechanic_id in ids:
            theirs.setdefault(self._shard(mechanic_id), []).append(mechanic_id)
        return await _side_by_side([partial(ask, shard, own) for shard, own in theirs.items()])

    def _mark_shard_stale(self, number: int) -> None:
        self._watches.mark_stale(name for name in self._watches.ids if shard_of(name, len(self._shards)) == number)

    async def _give_up(self, what: str, mechanic_id: str, error: Exception) -> None:
        """Leave out one mechanic until they come again: they must not keep everybody else from being learned or saved."""
        note_failure(f"presence_{what}", error, mechanic_id=mechanic_id)

    # --- learn and save: SQL, beside the heartbeats' path -------------------------------------------------------------

    def _learn_soon(self, ids: Iterable[str]) -> None:
        self._to_learn.update(dict.fromkeys(ids))
        if self._to_learn:
            self._learn_now.set()

    async def _learn_in_turn(self) -> None:
        if not self._to_learn:
            await self._learn_now.wait()
        self._learn_now = anyio.Event()
        batch = list(islice(self._to_learn, LEARN_LEN_MAX))
        # Taken out first: whoever is put in meanwhile changed after this reading.
        for mechanic_id in batch:
            del self._to_learn[mechanic_id]

        async def learn(ids: Collection[str]) -> None:
            await self._learn(ids)

        try:
            await in_halves(batch, learn, partial(self._give_up, "learn"))
        except BaseException:
            self._to_learn.update(dict.fromkeys(batch))
            raise
        await anyio.sleep(LEARN_PAUSE_S)

    async def _learn(self, ids: Collection[str]) -> dict[str, MechanicStatus]:
        """Tell Redis what SQL knows of ``ids``; return the status of those who are mechanics."""
        return await self._store({one.mechanic_id: one for one in await read_facts(self._database, ids)})

    async def _store(self, facts: Mapping[str, Facts]) -> dict[str, MechanicStatus]:
        async def store(shard: Shard, theirs: list[str]) -> dict[str, MechanicStatus]:
            return await shard.leases.store_facts(facts[mechanic_id] for mechanic_id in theirs)

        return _merged(await self._by_shard(facts, store))

    def _save_soon(self, last_seen_ms: Mapping[str, int]) -> None:
        self._to_save |= last_seen_ms
        if self._to_save:
            self._save_now.set()

    async def _save_in_turn(self) -> None:
        if not self._to_save:
            await self._save_now.wait()
        self._save_now = anyio.Event()
        batch = dict(islice(self._to_save.items(), SAVE_LEN_MAX))

        async def save(ids: Collection[str]) -> None:
            await save_last_seen(self._database, {mechanic_id: batch[mechanic_id] for mechanic_id in ids})

        await in_halves(list(batch), save, partial(self._give_up, "save"))
        self._to_save = {name: at_ms for name, at_ms in self._to_save.items() if batch.get(name) != at_ms}


def _merged(parts: Iterable[dict[str, T]]) -> dict[str, T]:
    return {key: value for part in parts for key, value in part.items()}


async def _side_by_side(calls: Collection[Callable[[], Awaitable[T]]]) -> list[T]:
    """Make all calls at the same time; return what they answered, or raise one failure when all have ended."""
    if len(calls) == 1:
        return [await call() for call in calls]
    answers: list[T] = []
    failures: list[RedisUnavailable] = []

    async def make(call: Callable[[], Awaitable[T]]) -> None:
        try:
            answers.append(await call())
        except RedisUnavailable as error:
            failures.append(error)

    async with anyio.create_task_group() as tasks:
        for call in calls:
            tasks.start_soon(make, call)
    if failures:
        raise failures[0]
    return answers
