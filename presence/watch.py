"""Who on this node wants to know of whom: a snapshot once, then every change, and never an older one after a newer.

    watch, mark_stale ──► _keep_up_in_turn ──subscribe, read──► snapshots ─┐
    bus ────────────────► _hear ──────────────────────────────► changes ───┴─► backlog ──► _tell, in slices ──► sinks

One loop does all subscribing, reading and unsubscribing, in that order and for many watchers together: a reconnect storm
costs a few round trips, and a watcher whose socket closes midway takes nothing down with it. A snapshot is read only after
the subscription is confirmed, so that no change falls in between; whenever either may have missed something (a gap on the
bus, a Redis that lost its memory) everything watched is read again.

Another loop tells, one status after the other. All watchers of a status are given the very same object, so that whoever
turns it into bytes has to do so once.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import anyio
import structlog

from infra.backlog import Backlog
from infra.bus import Bus
from infra.loops import failing_alone, in_halves, keep_on, keep_running
from infra.slices import in_slices
from models.wire import StatusView
from presence.leases import is_whole, parse
from presence.liveness import MechanicStatus

Sink = Callable[[StatusView], None]
"""Called synchronously; must not wait."""

BATCH_LEN_MAX = 500
QUEUE_LEN_MAX = 10_000
"""Statuses waiting to be told; beyond it they are dropped, and everything watched is read again instead."""
SNAPSHOT_WAIT_S = 5.0
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


@dataclass(frozen=True, slots=True)
class _News:
    """A status to be told to those for whom it is new, and also to those who wished for it."""

    status: StatusView
    wishes: Mapping[Sink, _Wish]


class Watches:
    """The table of one node; nothing is given to anybody unless ``run`` is running."""

    def __init__(
        self,
        bus: Bus,
        *,
        channel_of: Callable[[str], str],
        read: Callable[[Iterable[str]], Awaitable[dict[str, StatusView]]],
        show: Callable[[MechanicStatus], StatusView],
    ) -> None:
        self._bus = bus
        self._show = show
        self._channel_of = channel_of
        self._read = read
        self._watched: dict[str, _Watched] = {}
        self._by_sink: dict[Sink, set[str]] = {}
        self._stale: dict[str, None] = {}
        self._unwatched: dict[str, None] = {}
        self._work = anyio.Event()
        self._news: Backlog[_News] = Backlog(QUEUE_LEN_MAX, on_overflow=self._drop_news)
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
        self.mark_stale(wanted)
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

    def mark_stale(self, ids: Iterable[str] | None = None) -> None:
        """Have the statuses of ``ids`` (``None``: of all watched) read again: a change may have been missed."""
        self._stale.update(dict.fromkeys(self._watched if ids is None else ids))
        self._work.set()

    async def run(self) -> None:
        """Keep up with who is watched and with what becomes of them, until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_running, "watches", partial(keep_on, "watches", self._keep_up_in_turn))
            tasks.start_soon(keep_running, "watches_told", self._tell)

    # --- subscribing and reading --------------------------------------------------------------------------------------

    async def _keep_up_in_turn(self) -> None:
        if not self._stale and not self._unwatched:
            self._work = anyio.Event()
            await self._work.wait()
        await self._leave_unwatched()
        await self._read_stale()

    async def _leave_unwatched(self) -> None:
        unwatched, self._unwatched = self._unwatched, {}
        # Somebody may have come back since; then the subscription stays.
        gone = [mechanic_id for mechanic_id in unwatched if mechanic_id not in self._watched]
        try:
            await self._bus.unsubscribe(*map(self._channel_of, gone), handler=self._hear)
        except BaseException:
            self._unwatched |= unwatched
            raise

    async def _read_stale(self) -> None:
        batch = list(islice(self._stale, BATCH_LEN_MAX))
        # Taken out first: whoever is put in meanwhile is stale since this reading.
        for mechanic_id in batch:
            del self._stale[mechanic_id]
        batch = [mechanic_id for mechanic_id in batch if mechanic_id in self._watched]
        try:
            await in_halves(batch, self._read_and_give, self._give_up)
        except BaseException:
            self._stale.update(dict.fromkeys(batch))
            raise

    async def _read_and_give(self, ids: Sequence[str]) -> None:
        await self._bus.subscribe(*map(self._channel_of, ids), handler=self._hear)
        current = await self._read(ids)
        for mechanic_id in ids:
            self._give(mechanic_id, current.get(mechanic_id))

    async def _give_up(self, mechanic_id: str, error: Exception) -> None:
        """Leave the status of one mechanic unread, which is a bug: their changes are told all the same."""
        with failing_alone("watch", mechanic_id=mechanic_id):
            self._give(mechanic_id, None)
            raise error

    def _give(self, mechanic_id: str, snapshot: StatusView | None) -> None:
        """Have a snapshot told. ``None``: there is no such mechanic, and whoever wished for one waits no longer."""
        watched = self._watched.get(mechanic_id)
        if watched is None:
            return
        wishes, watched.wishes = watched.wishes, {}
        if snapshot is None:
            _grant(wishes)
        else:
            self._news.put(_News(snapshot, wishes))

    def _hear(self, message: str) -> None:
        """Have a change told; the bus calls this."""
        mechanic_id, _, _ = message.partition(" ")
        if mechanic_id not in self._watched:
            return
        try:
            status = parse(message)
        except ValueError as error:
            # A node of another version, perhaps. It is read as this node understands it.
            self._log.error("status_not_understood", error=str(error))
            self.mark_stale([mechanic_id])
            return
        if is_whole(message):
            self._news.put(_News(self._show(status), {}))
        else:
            # In a rolling upgrade: what it leaves out is in Redis.
            self.mark_stale([mechanic_id])

    def _drop_news(self, dropped: list[_News]) -> None:
        self._log.error("statuses_dropped", count=len(dropped))
        for news in dropped:
            _grant(news.wishes)
        self.mark_stale()

    # --- telling ------------------------------------------------------------------------------------------------------

    async def _tell(self) -> None:
        while True:
            news = await self._news.take()
            with failing_alone("status", mechanic_id=news.status.mechanic_id):
                await self._tell_one(news)

    async def _tell_one(self, news: _News) -> None:
        status, wishes = news.status, news.wishes
        watched = self._watched.get(status.mechanic_id)
        if watched is not None:
            versions, later_wishes = watched.versions, watched.wishes

            def tell(sink: Sink) -> None:
                version = versions.get(sink)
                if version is None:
                    # They have stopped watching since the first slice.
                    return
                if status.version > version or (status.version == version and sink in wishes):
                    versions[sink] = status.version
                    # Whoever has wished for it since it was read need not be told the same once more.
                    if wish := later_wishes.pop(sink, None):
                        wish.grant_one()
                    sink(status)

            await in_slices("status", list(versions), tell)
        _grant(wishes)


def _grant(wishes: Mapping[Sink, _Wish]) -> None:
    for wish in wishes.values():
        wish.grant_one()
