"""Windows that end on time, of offers and of time limits: one Redis key for each, a sorted index, and a timer on every node.

Redis does not promise when, or that, an ``expired`` notification arrives (redis.io, "Keyspace notifications"), so nothing
listens for one. Each node sleeps until the next deadline in the index and claims what is due with one script, by Redis'
clock, under a short lease: one node works on it, and if that node dies another takes over when the lease has ended. What is
due together is ended together: at a rush hour a node's SQL costs grow with the batches, not with the windows. What a window's
end means is decided by the core and committed in SQL; ending it twice does nothing. A time limit may ring before it ends, to
remind: the core says so, and it is looked at again when it rings next.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import anyio
import structlog

from infra.clock import RedisClock
from infra.redis_link import RedisLink
from models.errors import Unavailable
from models.settings import DispatchSettings
from models.timestamps import LAST_MS

HERE = Path(__file__).parent
CLAIM_LEN_MAX = 100
"""Windows that a node ends together; few enough for a claim's lease, and for whoever wants to write in between."""
POLL_MS = 500
"""How long a deadline that another node has set may stay unnoticed; well under the shortest takeover that we promise."""
SCHEDULE_BATCH = 500
CLOSED_LEN_MAX = 10_000
"""Closed windows that the next look at the clock takes off it. Of more, the oldest stay until they ring, which does nothing."""
FORGET_BATCH = 500

Elapsed = Callable[[Sequence[str], int], Awaitable[Mapping[str, int]]]
"""Ends windows as of a time in ms; returns those that are not over, or could not be ended, and in how many ms to look again."""


class Deadlines:
    """The deadlines of all windows of an installation that are open."""

    def __init__(self, link: RedisLink, clock: RedisClock, settings: DispatchSettings) -> None:
        self._link = link
        self._clock = clock
        self._settings = settings
        self._index = link.key("deadlines", "index")
        self._began = link.key("deadlines", "began")
        # Named after offers, which alone had windows once.
        self._own_prefix = link.key("deadlines", "offer:")
        self._schedule = link.script(HERE / "schedule_deadline.lua")
        self._claim = link.script(HERE / "claim_due.lua")
        self._closed: deque[str] = deque(maxlen=CLOSED_LEN_MAX)
        self._next_at_ms: int | None = None
        self._memory: str | None = None
        """When Redis' memory of deadlines began, as of the last claim."""
        self._has_forgotten = anyio.Event()
        self._sooner = anyio.Event()
        self._log = structlog.get_logger("deadlines")

    async def schedule(self, *windows: tuple[str, int]) -> int:
        """Put ``(window id, when it rings, in ms)`` pairs on the clock; return how many were not there. Idempotent."""
        added = 0
        for start in range(0, len(windows), SCHEDULE_BATCH):
            # Redis takes no instant that overflows, and would refuse the whole batch for one.
            batch = [(window_id, min(at_ms, LAST_MS)) for window_id, at_ms in windows[start : start + SCHEDULE_BATCH]]
            keys = [self._index, *(self._own_prefix + window_id for window_id, _ in batch)]
            added += await self._schedule(keys=keys, args=[part for pair in batch for part in pair])
        earliest_ms = min((deadline_ms for _, deadline_ms in windows), default=None)
        if earliest_ms is not None and (self._next_at_ms is None or earliest_ms < self._next_at_ms):
            self._sooner.set()
        return added

    async def restore(self, *windows: tuple[str, int]) -> int:
        """Schedule those of the windows that are not on the clock. Cheaper than ``schedule`` when nearly all of them are."""
        known = await self._link.ask(self._index, lambda redis: redis.zrange(self._index, 0, max(0, len(windows) - 1)))
        missing = {window_id for window_id, _ in windows}.difference(known)
        return await self.schedule(*(window for window in windows if window[0] in missing))

    def forget(self, *window_ids: str) -> None:
        """Take windows off the clock with the next look at it, because they are closed. Idempotent; never waits.

        A visit to Redis for it alone would serve nobody: a closed one that is still there ends once more, which does nothing.
        """
        self._closed.extend(window_ids)

    def suspect(self) -> None:
        """Redis may have been started anew, with an older memory than it had: deadlines that were set since are not in it."""
        self._has_forgotten.set()

    async def forgotten(self) -> None:
        """Return as soon as Redis may have forgotten deadlines; they are to be scheduled again."""
        await self._has_forgotten.wait()
        self._has_forgotten = anyio.Event()

    async def run(self, elapsed: Elapsed) -> None:
        """Call ``elapsed(window_ids, now_ms)`` with windows that have ended, one batch after the other, until cancelled.

        ``now_ms`` is Redis' time of the claim, never before a deadline. When ``elapsed`` raises because the world is broken, the
        claims simply end and the windows are claimed again.
        """
        while True:
            # Nothing is known from here on, so whatever is scheduled before the claim's answer wakes us.
            self._sooner, self._next_at_ms = anyio.Event(), None
            closed = [self._closed.popleft() for _ in range(min(len(self._closed), FORGET_BATCH))]
            try:
                now_ms, next_at_ms, memory, *due = await self._claim(
                    keys=[self._index, self._began],
                    args=[self._own_prefix, self._settings.claim_lease_ms, CLAIM_LEN_MAX, *closed],
                )
            except Unavailable as error:
                self.forget(*closed)
                self._log.warning("deadlines_not_read", error=str(error))
                await anyio.sleep(POLL_MS / 1000)
                continue
            if self._memory not in (None, memory):
                self._has_forgotten.set()
            self._memory = memory
            self._next_at_ms = None if next_at_ms < 0 else next_at_ms
            if due:
                await self._end(due, now_ms, elapsed)
            if len(due) < CLAIM_LEN_MAX and len(self._closed) <= FORGET_BATCH:
                await self._sleep()

    async def _sleep(self) -> None:
        wait_ms = POLL_MS
        if self._next_at_ms is not None:
            # At least a millisecond, or a clock that is a little ahead of Redis' would spin.
            wait_ms = min(max(1, self._next_at_ms - self._clock.now_ms()), POLL_MS)
        with anyio.move_on_after(wait_ms / 1000):
            await self._sooner.wait()

    async def _end(self, window_ids: Sequence[str], now_ms: int, elapsed: Elapsed) -> None:
        try:
            put_off = await elapsed(window_ids, now_ms)
            self.forget(*(window_id for window_id in window_ids if window_id not in put_off))
            if put_off:
                await self._look_again(put_off)
        except Unavailable as error:
            # Their claims end by themselves; then they are claimed again, and found ended if they were.
            self._log.warning("windows_not_ended_yet", windows=len(window_ids), error=str(error))

    async def _look_again(self, put_off_ms: Mapping[str, int]) -> None:
        """Let claims end sooner or later than by themselves; what was taken off the clock meanwhile stays off it."""
        now_ms = self._clock.now_ms()
        scores = {window_id: now_ms + delay_ms for window_id, delay_ms in put_off_ms.items()}
        await self._link.ask(self._index, lambda redis: redis.zadd(self._index, scores, xx=True))
        again_at_ms = min(scores.values())
        self._next_at_ms = min(again_at_ms, self._next_at_ms or again_at_ms)
