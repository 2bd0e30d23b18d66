"""Windows that end on time: one Redis key per open offer, a sorted index of deadlines, and a timer on every node.

Redis does not promise when, or that, an ``expired`` notification arrives (redis.io, "Keyspace notifications"), so nothing
listens for one. Each node sleeps until the next deadline in the index and claims what is due with one script, by Redis'
clock, under a short lease: one node works on it, and if that node dies another takes over when the lease has ended. What a
window's end means is decided by the core and committed in SQL; ending it twice does nothing.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from models.clock import RedisClock
from models.errors import DatabaseUnavailable
from models.redis_link import RedisLink
from models.settings import DispatchSettings

HERE = Path(__file__).parent
AT_ONCE_MAX = 16
"""Windows that this node ends at the same time; fewer than a claim lease has time for, so that no claim runs out in a queue."""
POLL_MS = 500
"""How long a deadline that another node has set may stay unnoticed; well under the shortest takeover that we promise."""
SCHEDULE_BATCH = 500

Elapsed = Callable[[str, int], Awaitable[None]]


class Deadlines:
    """The deadlines of all open offers of an installation."""

    def __init__(self, link: RedisLink, clock: RedisClock, settings: DispatchSettings) -> None:
        self._link = link
        self._clock = clock
        self._settings = settings
        self._index = link.key("deadlines", "index")
        self._began = link.key("deadlines", "began")
        self._own_prefix = link.key("deadlines", "offer:")
        self._schedule = link.script(HERE / "schedule_deadline.lua")
        self._claim = link.script(HERE / "claim_due.lua")
        self._next_at_ms: int | None = None
        self._memory: str | None = None
        """When Redis' memory of deadlines began, as of the last claim."""
        self._has_forgotten = anyio.Event()
        self._sooner = anyio.Event()
        self._in_hand = 0
        self._has_room = anyio.Event()
        self._log = structlog.get_logger("deadlines")

    async def schedule(self, *offers: tuple[str, int]) -> int:
        """Put ``(offer id, deadline in ms)`` pairs on the clock; return how many were not there. Idempotent."""
        added = 0
        for start in range(0, len(offers), SCHEDULE_BATCH):
            batch = offers[start : start + SCHEDULE_BATCH]
            keys = [self._index, *(self._own_prefix + offer_id for offer_id, _ in batch)]
            added += await self._schedule(keys=keys, args=[part for pair in batch for part in pair])
        earliest_ms = min((deadline_ms for _, deadline_ms in offers), default=None)
        if earliest_ms is not None and (self._next_at_ms is None or earliest_ms < self._next_at_ms):
            self._sooner.set()
        return added

    async def forget(self, *offer_ids: str) -> None:
        """Take offers off the clock, because they are closed. Idempotent."""

        async def remove(redis: Redis) -> None:
            pipeline = redis.pipeline(transaction=False)
            pipeline.zrem(self._index, *offer_ids)
            pipeline.delete(*(self._own_prefix + offer_id for offer_id in offer_ids))
            await pipeline.execute()

        if offer_ids:
            await self._link.ask(self._index, remove)

    async def forgotten(self) -> None:
        """Return as soon as Redis is seen to have forgotten the deadlines; they are to be scheduled again."""
        await self._has_forgotten.wait()
        self._has_forgotten = anyio.Event()

    async def run(self, elapsed: Elapsed) -> None:
        """Call ``elapsed(offer_id, now_ms)`` for each window that has ended, until cancelled.

        ``now_ms`` is Redis' time of the claim, never before the deadline. When ``elapsed`` raises because the world is broken, the
        claim simply ends and the offer is claimed again.
        """
        async with anyio.create_task_group() as tasks:
            while True:
                self._sooner = anyio.Event()
                room = AT_ONCE_MAX - self._in_hand
                try:
                    now_ms, next_at_ms, memory, *due = await self._claim(
                        keys=[self._index, self._began], args=[self._own_prefix, self._settings.claim_lease_ms, room]
                    )
                except (RedisError, OSError) as error:
                    self._log.warning("deadlines_not_read", error=str(error))
                    await anyio.sleep(POLL_MS / 1000)
                    continue
                if self._memory not in (None, memory):
                    self._has_forgotten.set()
                self._memory = memory
                self._in_hand += len(due)
                for offer_id in due:
                    tasks.start_soon(self._end, offer_id, now_ms, elapsed)
                if len(due) == room:
                    # There may be more: as soon as one is done. What is not claimed here, another node may take.
                    self._has_room = anyio.Event()
                    await self._has_room.wait()
                else:
                    self._next_at_ms = None if next_at_ms < 0 else next_at_ms
                    await self._sleep()

    async def _sleep(self) -> None:
        wait_ms = POLL_MS
        if self._next_at_ms is not None:
            # At least a millisecond, or a clock that is a little ahead of Redis' would spin.
            wait_ms = min(max(1, self._next_at_ms - self._clock.now_ms()), POLL_MS)
        with anyio.move_on_after(wait_ms / 1000):
            await self._sooner.wait()

    async def _end(self, offer_id: str, now_ms: int, elapsed: Elapsed) -> None:
        try:
            await elapsed(offer_id, now_ms)
            await self.forget(offer_id)
        except (RedisError, DatabaseUnavailable, OSError) as error:
            # Its claim ends by itself; then it is claimed again, and found ended if it was.
            self._log.warning("window_not_ended_yet", offer_id=offer_id, error=str(error))
        finally:
            self._in_hand -= 1
            self._has_room.set()
