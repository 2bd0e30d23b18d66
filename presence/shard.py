"""One shard of presence on one node: what its sockets said is flushed to Redis, and what has lapsed is swept.

    joined, heard, left ──mark──► flush ──► renew.lua, release.lua ──► changes, published from within the scripts
                                  tend  ──► renew_node.lua, sweep.lua (own lapses; the leases of dead nodes)

Marks are kept until Redis has taken them, and what is kept is bounded by the number of mechanics: an outage loses nothing.
Redis may also come back knowing less than before; a node that notices renews everybody it holds at once. Shards know nothing of
each other, so that one server of a cluster that is away holds up nobody who lives on another.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import anyio
import structlog

from infra.clock import RedisClock
from models.errors import RedisUnavailable
from models.settings import PresenceSettings
from presence.leases import Leases
from presence.liveness import MechanicStatus, is_live

SLICES_PER_TEND_MAX = 20
"""Of other nodes' leases; in between this node must renew its own."""


@dataclass(slots=True)
class _Here:
    """A mechanic with sockets on this node."""

    sockets: int
    heard_at_ms: int


@dataclass(frozen=True)
class Listeners:
    """Who is told of what a shard finds out; all synchronous."""

    facts_wanted: Callable[[Iterable[str]], None]
    """Called with mechanics who have just come: the facts that Redis has of them may be old."""
    has_left: Callable[[Mapping[str, int]], None]
    """Called with mechanics who are offline now, each with the instant at which they were last heard."""
    mark_stale: Callable[[], None]
    """Called when changes in this shard may have gone unannounced."""


class Shard:
    """A part of the mechanics on this node. ``flush_in_turn`` and ``tend_in_turn`` are to be called over and over."""

    def __init__(self, leases: Leases, clock: RedisClock, settings: PresenceSettings, listeners: Listeners) -> None:
        self.leases = leases
        self._clock = clock
        self._settings = settings
        self._listeners = listeners
        self._log = structlog.get_logger("presence")

        self._here: dict[str, _Here] = {}
        self._marked: set[str] = set()
        """Here, and heard since the last flush."""
        self._left: dict[str, int] = {}
        """No longer here, not yet released; when last heard."""
        self._flush_now = anyio.Event()
        self._flushing = anyio.Lock()

        self._epoch: str | None = None
        self._was_away = False
        self._trust_nodes_from_s = 0.0
        self._look_again_at_s: float | None = None

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

    @property
    def last_heard_ms(self) -> dict[str, int]:
        """When each of those who are here, or have left and are not yet released, was last heard."""
        return self._left | {mechanic_id: here.heard_at_ms for mechanic_id, here in self._here.items()}

    # --- what others ask ----------------------------------------------------------------------------------------------

    async def read(self, ids: list[str]) -> dict[str, MechanicStatus]:
        """Return the status of those of ``ids`` whom Redis knows; who is here is never missing. Raises ``RedisUnavailable``."""
        statuses = await self.leases.read(ids, as_of_ms=self._clock.now_ms())
        if missed := [name for name in ids if self._is_live_here(name) and not _is_online(statuses.get(name))]:
            # They have just joined, or Redis has just lost its memory. Tell it first, or we would answer offline.
            self._marked.update(missed)
            await self.flush()
            statuses |= await self.leases.read(missed, as_of_ms=self._clock.now_ms())
        return statuses

    def _is_live_here(self, mechanic_id: str) -> bool:
        here = self._here.get(mechanic_id)
        return here is not None and is_live(here.heard_at_ms + self._settings.timeout_ms, self._clock.now_ms())

    # --- flush: what sockets said goes to Redis -----------------------------------------------------------------------

    async def flush_in_turn(self) -> None:
        """Flush after the settings' interval, or as soon as somebody joins or leaves. Raises ``RedisUnavailable``."""
        with anyio.move_on_after(self._settings.flush_interval_ms / 1000):
            await self._flush_now.wait()
        self._flush_now = anyio.Event()
        await self.flush()

    async def flush(self) -> None:
        """Renew whoever was heard and release whoever left since the last time, one flush at a time."""
        async with self._flushing:
            marked, self._marked = self._marked, set()
            left, self._left = self._left, {}
            # Those who left are renewed first: they may have come and gone between two flushes.
            heard = {mechanic_id: self._here[mechanic_id].heard_at_ms for mechanic_id in marked & self._here.keys()}
            try:
                async for renewed in self.leases.renew(left | heard):
                    self._listeners.facts_wanted(renewed.new_ids)
                    if renewed.was_forgotten:
                        self.renew_all()
                # Who is here again by now keeps the lease; who comes from now on is renewed by the next flush.
                await self.leases.release([mechanic_id for mechanic_id in left if mechanic_id not in self._here])
            except BaseException:
                self._marked |= marked & self._here.keys()
                back = {mechanic_id: at_ms for mechanic_id, at_ms in left.items() if mechanic_id not in self._here}
                self._left = back | self._left
                raise

    def renew_all(self) -> None:
        """Renew everybody here with the next flush, which comes at once. Their leases count from when they were heard last."""
        self._marked.update(self._here)
        self._flush_now.set()

    async def retire(self) -> None:
        """Tell Redis that this node stops; nobody flickers who reconnects elsewhere within the grace."""
        try:
            await self.flush()
            await self.leases.retire_node()
        except RedisUnavailable as error:
            # Then the node's lease runs out by itself.
            self._log.warning("stopped_without_redis", error=str(error))

    # --- tend: leases of nodes, and lapses ----------------------------------------------------------------------------

    async def tend_in_turn(self) -> None:
        """Tend once, and wait for the settings' interval. Raises ``RedisUnavailable``."""
        try:
            await self._tend()
        except RedisUnavailable:
            self._was_away = True
            raise
        await anyio.sleep(self._settings.sweep_interval_ms / 1000)

    async def _tend(self) -> None:
        standing = await self.leases.renew_node()
        is_first = self._epoch is None
        is_forgotten = not is_first and standing.epoch != self._epoch
        self._epoch = standing.epoch
        now_s = anyio.current_time()
        patience_s = self._settings.node_lease_ms / 1000
        if is_forgotten:
            # Whoever is not renewed by then went offline unnoticed: nobody remembers a lease that could lapse. Noted before the
            # flush, which may fail: the next round knows the new epoch and sees nothing forgotten any more.
            self._log.warning("redis_forgot", mechanics=len(self._here))
            self._look_again_at_s = now_s + patience_s
        if is_forgotten or self._was_away or not (standing.held or is_first):
            # Either we were away or Redis was. If it was Redis, the other nodes are about to renew their leases, too.
            self._was_away = False
            self._trust_nodes_from_s = now_s + patience_s
            self.renew_all()
            await self.flush()
        if self._look_again_at_s is not None and now_s >= self._look_again_at_s:
            self._look_again_at_s = None
            self._listeners.mark_stale()

        if standing.has_lapses:
            await self._sweep(None)
        if now_s >= self._trust_nodes_from_s:
            for node_id in standing.lapsed_nodes:
                await self._sweep(node_id)

    async def _sweep(self, node_id: str | None) -> None:
        for _ in range(SLICES_PER_TEND_MAX):
            swept = await self.leases.sweep(node_id)
            self._listeners.has_left({name: at_ms for name, at_ms in swept.last_seen_ms.items() if at_ms is not None})
            if not swept.has_more:
                return


def _is_online(status: MechanicStatus | None) -> bool:
    return status is not None and status.is_online
