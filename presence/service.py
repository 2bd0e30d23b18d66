"""Presence on one node: gathers what its sockets say, flushes it to Redis, and sweeps up after nodes that died.

    joined, heard, left ──mark──► flush ──► renew.lua, release.lua ──► changes, published from within the scripts
                                  tend  ──► renew_node.lua, sweep.lua (own lapses; the leases of dead nodes)
                                  learn ──► SQL ──► facts.lua          save ──► last_seen to SQL

Marks are kept until Redis has taken them, and what is kept is bounded by the number of mechanics: an outage loses nothing.
Redis may also come back knowing less than before; a node that notices renews everybody it holds at once.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from itertools import islice

import anyio
import structlog

from models.bus import Bus
from models.clock import RedisClock
from models.database import Database
from models.errors import DatabaseUnavailable, RedisUnavailable
from models.ids import is_id
from models.redis_link import RedisLink
from models.settings import PresenceSettings
from models.wire import StatusView
from presence.facts import read_facts, save_last_seen
from presence.leases import Leases, NodeShard
from presence.liveness import Status, is_live, view
from presence.watch import Sink, Watches

LEARN_LEN_MAX = SAVE_LEN_MAX = 500
SLICES_PER_TEND_MAX = 20
"""Of other nodes' leases; in between this node must renew its own."""
STOP_TIMEOUT_S = 1.0
RETRY_FIRST_S = 0.05
RETRY_MAX_S = 1.0


@dataclass(slots=True)
class _Here:
    """A mechanic with sockets on this node."""

    sockets: int
    heard_at_ms: int


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
        self._clock = clock
        self._database = database
        self._settings = settings
        self._leases = Leases(link, settings, node_id)
        self._watches = Watches(bus, channel_of=self._leases.channel, read=self.status_of)
        self._log = structlog.get_logger("presence").bind(node_id=node_id)
        bus.on_gap(self._doubt)

        self._here: dict[str, _Here] = {}
        self._marked: set[str] = set()
        """Here, and heard since the last flush."""
        self._left: dict[str, int] = {}
        """No longer here, not yet released; when last heard."""
        self._flush_now = anyio.Event()
        self._flushing = anyio.Lock()

        self._epoch: tuple[str, ...] | None = None
        self._was_away = False
        self._trust_nodes_from = 0.0
        self._look_again_at: float | None = None

        self._to_learn: dict[str, None] = {}
        self._learn_now = anyio.Event()
        self._to_save: dict[str, int] = {}
        self._save_now = anyio.Event()

    # --- what sockets say ---------------------------------------------------------------------------------------------

    def joined(self, mechanic_id: str) -> None:
        """Note that a socket of theirs opened on this node; several are counted."""
        here = self._here.get(mechanic_id)
        if here is None:
            self._here[mechanic_id] = _Here(1, self._clock.now_ms())
            self._left.pop(mechanic_id, None)
        else:
            here.sockets += 1
            here.heard_at_ms = self._clock.now_ms()
        self._marked.add(mechanic_id)
        self._flush_now.set()

    def heard(self, mechanic_id: str) -> None:
        """Note a heartbeat; renewed with the next flush. One of a socket that has left already counts for nothing."""
        here = self._here.get(mechanic_id)
        if here is not None:
            here.heard_at_ms = self._clock.now_ms()
            self._marked.add(mechanic_id)

    def left(self, mechanic_id: str) -> None:
        """Note that a socket of theirs closed, once for each ``joined``; after the last, their lease here ends with the grace."""
        here = self._here[mechanic_id]
        here.sockets -= 1
        if here.sockets == 0:
            del self._here[mechanic_id]
            self._marked.discard(mechanic_id)
            self._left[mechanic_id] = here.heard_at_ms
            self._flush_now.set()

    # --- what others ask ----------------------------------------------------------------------------------------------

    async def status_of(self, ids: Iterable[str]) -> dict[str, StatusView]:
        """Return the current status of those of ``ids`` who are mechanics.

        Raises ``RedisUnavailable``, and ``DatabaseUnavailable`` if somebody is asked for whom Redis does not know.
        """
        wanted = [mechanic_id for mechanic_id in dict.fromkeys(ids) if is_id(mechanic_id)]
        if not wanted:
            return {}
        statuses = await self._leases.read(wanted, as_of_ms=self._clock.now_ms())
        if missed := [name for name in wanted if self._is_live_here(name) and not _is_online(statuses.get(name))]:
            # They have just joined, or Redis has just lost its memory. Tell it first, or we would answer offline.
            self._marked.update(missed)
            await self._flush()
            statuses |= await self._leases.read(missed, as_of_ms=self._clock.now_ms())
        if unknown := [name for name in wanted if name not in statuses]:
            statuses |= await self._learn(unknown)
        return {mechanic_id: view(statuses[mechanic_id]) for mechanic_id in wanted if mechanic_id in statuses}

    def _is_live_here(self, mechanic_id: str) -> bool:
        here = self._here.get(mechanic_id)
        return here is not None and is_live(here.heard_at_ms + self._settings.timeout_ms, self._clock.now_ms())

    async def available_count(self) -> int:
        """Return how many mechanics a broadcast would reach now. Raises ``RedisUnavailable``."""
        return await self._leases.available_count()

    async def refresh_facts(self, ids: Iterable[str]) -> None:
        """Read the facts of ``ids`` from SQL again and announce what changed; idempotent, in any order.

        Raises ``DatabaseUnavailable`` or ``RedisUnavailable``; then it is to be called again.
        """
        await self._learn(list(dict.fromkeys(ids)))

    async def watch(self, ids: Iterable[str], sink: Sink) -> None:
        """Give ``sink`` the current status of each mechanic among ``ids``, then every change. See ``Watches.watch``."""
        await self._watches.watch(filter(is_id, ids), sink)

    async def unwatch(self, ids: Iterable[str], sink: Sink) -> None:
        """Stop telling ``sink`` about ``ids``; idempotent."""
        self._watches.unwatch(ids, sink)

    async def drop(self, sink: Sink) -> None:
        """Stop telling ``sink`` anything; idempotent."""
        self._watches.drop(sink)

    # --- the life of it -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep presence going until cancelled; on the way out nobody flickers who reconnects within the grace."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._keep_on, "flush", self._flush_in_turn)
                tasks.start_soon(self._keep_on, "tend", self._tend_in_turn)
                tasks.start_soon(self._keep_on, "learn", self._learn_in_turn)
                tasks.start_soon(self._keep_on, "save", self._save_in_turn)
                tasks.start_soon(self._watches.run)
        finally:
            with anyio.move_on_after(STOP_TIMEOUT_S, shield=True):
                await self._retire()

    async def _keep_on(self, what: str, step: Callable[[], Awaitable[None]]) -> None:
        """Repeat ``step`` for ever; wait out a world that is broken, saying so once."""
        delay_s = RETRY_FIRST_S
        while True:
            try:
                await step()
            except (RedisUnavailable, DatabaseUnavailable) as error:
                if delay_s == RETRY_FIRST_S:
                    self._log.warning(f"{what}_waits", error=str(error))
                await anyio.sleep(delay_s)
                delay_s = min(delay_s * 2, RETRY_MAX_S)
                continue
            if delay_s != RETRY_FIRST_S:
                self._log.info(f"{what}_goes_on")
                delay_s = RETRY_FIRST_S

    async def _retire(self) -> None:
        last_seen = self._to_save | self._left | {name: here.heard_at_ms for name, here in self._here.items()}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._retire_from_redis)
            tasks.start_soon(self._retire_to_sql, last_seen)

    async def _retire_from_redis(self) -> None:
        try:
            await self._flush()
            await self._leases.retire_node()
        except RedisUnavailable as error:
            # Then the node's lease runs out by itself.
            self._log.warning("stopped_without_redis", error=str(error))

    async def _retire_to_sql(self, last_seen_ms: dict[str, int]) -> None:
        try:
            await save_last_seen(self._database, last_seen_ms)
        except DatabaseUnavailable as error:
            self._log.warning("last_seen_not_saved", mechanics=len(last_seen_ms), error=str(error))

    # --- flush: what sockets said goes to Redis -----------------------------------------------------------------------

    async def _flush_in_turn(self) -> None:
        with anyio.move_on_after(self._settings.flush_interval_ms / 1000):
            await self._flush_now.wait()
        self._flush_now = anyio.Event()
        await self._flush()

    async def _flush(self) -> None:
        """Renew whoever was heard and release whoever left since the last time, one flush at a time."""
        async with self._flushing:
            marked, self._marked = self._marked, set()
            left, self._left = self._left, {}
            # Those who left are renewed first: they may have come and gone between two flushes.
            heard = {mechanic_id: self._here[mechanic_id].heard_at_ms for mechanic_id in marked & self._here.keys()}
            try:
                async for renewed in self._leases.renew(left | heard):
                    self._learn_soon(renewed.new_ids)
                    if renewed.was_forgotten:
                        self._mark_all()
                # Who is here again by now keeps the lease; who comes from now on is renewed by the next flush.
                await self._leases.release([mechanic_id for mechanic_id in left if mechanic_id not in self._here])
            except BaseException:
                self._marked |= marked & self._here.keys()
                back = {mechanic_id: at_ms for mechanic_id, at_ms in left.items() if mechanic_id not in self._here}
                self._left = back | self._left
                raise

    def _mark_all(self) -> None:
        """Have everybody here renewed at once; by when they were heard, so that nobody gains time by it."""
        self._marked.update(self._here)
        self._flush_now.set()

    async def _doubt(self) -> None:
        """The bus went deaf for a while, so Redis may have been away, or restarted without its last second."""
        self._mark_all()
        self._learn_soon([*self._here, *self._watches.ids])
        self._watches.distrust()

    # --- tend: leases of nodes, and lapses ----------------------------------------------------------------------------

    async def _tend_in_turn(self) -> None:
        try:
            await self._tend()
        except RedisUnavailable:
            self._was_away = True
            raise
        await anyio.sleep(self._settings.sweep_interval_ms / 1000)

    async def _tend(self) -> None:
        standing = await self._leases.renew_node()
        is_first = self._epoch is None
        is_forgotten = not is_first and standing.epoch != self._epoch
        self._epoch = standing.epoch
        now = anyio.current_time()
        patience_s = self._settings.node_lease_ms / 1000
        if is_forgotten or self._was_away or not (standing.held or is_first):
            # Either we were away or Redis was. If it was Redis, the other nodes are about to renew their leases, too.
            self._was_away = False
            self._trust_nodes_from = now + patience_s
            self._mark_all()
            await self._flush()
        if is_forgotten:
            # Whoever is not renewed by then went offline unnoticed: nobody remembers a lease that could lapse.
            self._log.warning("redis_forgot", mechanics=len(self._here))
            self._look_again_at = now + patience_s
        if self._look_again_at is not None and now >= self._look_again_at:
            self._look_again_at = None
            self._watches.distrust()

        for own in self._leases.own():
            await self._sweep(own)
        if now >= self._trust_nodes_from:
            for lapsed in standing.lapsed:
                await self._sweep(lapsed)

    async def _sweep(self, of: NodeShard) -> None:
        for _ in range(SLICES_PER_TEND_MAX):
            swept = await self._leases.sweep(of)
            self._save_soon({name: at_ms for name, at_ms in swept.last_seen_ms.items() if at_ms is not None})
            if not swept.is_more:
                return

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
        try:
            await self._learn(batch)
        except BaseException:
            self._to_learn.update(dict.fromkeys(batch))
            raise

    async def _learn(self, ids: Collection[str]) -> dict[str, Status]:
        """Tell Redis what SQL knows of ``ids``; return the status of those who are mechanics."""
        return await self._leases.store_facts(await read_facts(self._database, ids))

    def _save_soon(self, last_seen_ms: dict[str, int]) -> None:
        self._to_save |= last_seen_ms
        if self._to_save:
            self._save_now.set()

    async def _save_in_turn(self) -> None:
        if not self._to_save:
            await self._save_now.wait()
        self._save_now = anyio.Event()
        batch = dict(islice(self._to_save.items(), SAVE_LEN_MAX))
        await save_last_seen(self._database, batch)
        self._to_save = {name: at_ms for name, at_ms in self._to_save.items() if batch.get(name) != at_ms}


def _is_online(status: Status | None) -> bool:
    return status is not None and status.is_online
