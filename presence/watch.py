"""Who on this node wants to know of whom: a snapshot once, then every change, and never an older one after a newer.

One loop does all subscribing, reading and unsubscribing, in that order and for many watchers at once: a reconnect storm
costs a few round trips, and a watcher whose socket closes midway takes nothing down with it. A snapshot is read only after
the subscription is confirmed, so that no change falls in between; whenever either may have missed something (a gap on the
bus, a Redis that lost its memory) everything watched is read again.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice

import anyio
import structlog

from infra.bus import Bus
from models.errors import Unavailable
from models.wire import StatusView
from presence.leases import parse
from presence.liveness import view

Sink = Callable[[StatusView], None]
"""Called synchronously; must not raise nor wait."""

BATCH_LEN_MAX = 500
SNAPSHOT_WAIT_S = 5.0
RETRY_FIRST_S = 0.05
RETRY_MAX_S = 1.0
UNSEEN = -1


@dataclass(slots=True)
class _Wish:
    """One call of ``watch`` that waits for its snapshots."""

    left: int
    granted: anyio.Event = field(default_factory=anyio.Event)

    def grant_one(self) -> None:
        self.left -= 1
        if self.left <= 0:
            self.granted.set()


@dataclass(slots=True)
class _Watched:
    """One mechanic: the last version that each sink was given, and who waits for a snapshot."""

    versions: dict[Sink, int] = field(default_factory=dict)
    wishes: dict[Sink, _Wish] = field(default_factory=dict)


class Watches:
    """The table of one node; nothing is given to anybody unless ``run`` is running."""

    def __init__(
        self,
        bus: Bus,
        *,
        channel_of: Callable[[str], str],
        read: Callable[[Iterable[str]], Awaitable[dict[str, StatusView]]],
    ) -> None:
        self._bus = bus
        self._channel_of = channel_of
        self._read = read
        self._watched: dict[str, _Watched] = {}
        self._by_sink: dict[Sink, set[str]] = {}
        self._stale: dict[str, None] = {}
        self._unwatched: dict[str, None] = {}
        self._work = anyio.Event()
        self._log = structlog.get_logger("watch")

    @property
    def ids(self) -> list[str]:
        """Whom anybody here watches."""
        return list(self._watched)

    async def watch(self, ids: Iterable[str], sink: Sink) -> None:
        """Add ``ids`` to what ``sink`` watches; return once it was given their statuses.

        Returns without them after some seconds in which Redis or SQL did not answer; they follow when it does.
        """
        wanted = dict.fromkeys(ids)
        if not wanted:
            return
        wish = _Wish(left=len(wanted))
        self._by_sink.setdefault(sink, set()).update(wanted)
        for mechanic_id in wanted:
            watched = self._watched.setdefault(mechanic_id, _Watched())
            watched.versions.setdefault(sink, UNSEEN)
            if earlier := watched.wishes.get(sink):
                earlier.grant_one()
            watched.wishes[sink] = wish
        self.distrust(wanted)
        with anyio.move_on_after(SNAPSHOT_WAIT_S):
            await wish.granted.wait()

    def unwatch(self, ids: Iterable[str], sink: Sink) -> None:
        """Take ``ids`` from what ``sink`` watches; it is not called about them any more. Idempotent."""
        theirs = self._by_sink.get(sink, set())
        for mechanic_id in theirs.intersection(ids):
            theirs.discard(mechanic_id)
            watched = self._watched[mechanic_id]
            del watched.versions[sink]
            if wish := watched.wishes.pop(sink, None):
                wish.grant_one()
            if not watched.versions:
                del self._watched[mechanic_id]
                self._unwatched[mechanic_id] = None
                self._work.set()
        if not theirs:
            self._by_sink.pop(sink, None)

    def drop(self, sink: Sink) -> None:
        """Forget ``sink``; it is not called any more. Idempotent."""
        self.unwatch(list(self._by_sink.get(sink, ())), sink)

    def distrust(self, ids: Iterable[str] | None = None) -> None:
        """Have the statuses of ``ids`` (``None``: of all watched) read again: a change may have been missed."""
        self._stale.update(dict.fromkeys(self._watched if ids is None else ids))
        self._work.set()

    async def run(self) -> None:
        """Work off what is to be subscribed, read and unsubscribed, until cancelled."""
        delay_s = RETRY_FIRST_S
        while True:
            await self._work.wait()
            self._work = anyio.Event()
            try:
                await self._work_off()
                delay_s = RETRY_FIRST_S
            except Unavailable as error:
                if delay_s == RETRY_FIRST_S:
                    self._log.warning("snapshots_wait", error=str(error))
                await anyio.sleep(delay_s)
                delay_s = min(delay_s * 2, RETRY_MAX_S)
                self._work.set()

    async def _work_off(self) -> None:
        while self._stale or self._unwatched:
            # Somebody may have come back since; then the subscription stays.
            gone = [mechanic_id for mechanic_id in self._unwatched if mechanic_id not in self._watched]
            self._unwatched.clear()
            await self._bus.unsubscribe(*map(self._channel_of, gone), handler=self._hear)

            batch = list(islice(self._stale, BATCH_LEN_MAX))
            for mechanic_id in batch:
                del self._stale[mechanic_id]
            batch = [mechanic_id for mechanic_id in batch if mechanic_id in self._watched]
            if batch:
                try:
                    await self._bus.subscribe(*map(self._channel_of, batch), handler=self._hear)
                    current = await self._read(batch)
                except Unavailable:
                    self._stale.update(dict.fromkeys(batch))
                    raise
                for mechanic_id in batch:
                    self._give(mechanic_id, current.get(mechanic_id))

    def _hear(self, message: str) -> None:
        """Pass on one change; the bus calls this."""
        status = parse(message)
        watched = self._watched.get(status.mechanic_id)
        if watched is None:
            return
        change = view(status)
        for sink, version in list(watched.versions.items()):
            if change.version > version and sink in watched.versions:
                watched.versions[sink] = change.version
                sink(change)

    def _give(self, mechanic_id: str, snapshot: StatusView | None) -> None:
        """Pass on a snapshot: to those who asked for it, and to those for whom it is news. ``None``: no such mechanic."""
        watched = self._watched.get(mechanic_id)
        if watched is None:
            return
        wishes, watched.wishes = watched.wishes, {}
        if snapshot is not None:
            for sink, version in list(watched.versions.items()):
                is_due = snapshot.version > version or (snapshot.version == version and sink in wishes)
                if is_due and sink in watched.versions:
                    watched.versions[sink] = snapshot.version
                    sink(snapshot)
        for wish in wishes.values():
            wish.grant_one()
