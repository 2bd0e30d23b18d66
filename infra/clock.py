"""One clock for all nodes: Redis TIME, followed by the local monotonic clock in between.

Deadlines and leases are judged inside Redis by Redis' own TIME; this clock stamps what the node itself must stamp (an
offer's deadline, the arrival of an accept) on the same scale, so that a node with a wrong wall clock does no harm. Of a
cluster it is the clock of that server which judges deadlines; the others, which judge leases, are to be kept near it by NTP.
"""

import time
from pathlib import Path
from typing import Protocol

import anyio

from infra.redis_link import RedisLink
from models.errors import RedisUnavailable

SAMPLES = 3
ROUND_TRIP_MAX_MS = 200.0
"""Half of it is how wrong a sample may be; less than the leeway that deadlines have."""
RESYNC_S = 5.0
TAG = "deadlines"
"""The hash tag of what this clock is for."""


def wall_clock_ms() -> int:
    """This machine's own idea of now, for commands that run without Redis; never for deadlines or leases."""
    return time.time_ns() // 1_000_000


class Clock(Protocol):
    """What tells the instant; milliseconds since the epoch."""

    def now_ms(self) -> int:
        """Return the current instant; never awaits."""


class WallClock:
    """This machine's own clock, for commands that run where Redis is a child of this very machine, or is not there at all."""

    def now_ms(self) -> int:
        """Return the current instant."""
        return wall_clock_ms()


class RedisClock:
    """Milliseconds since the epoch as Redis sees them; call ``sync`` before the first ``now_ms``."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._time = link.script(Path(__file__).parent / "time.lua")
        self._key = link.key(TAG, "clock")
        # Until Redis has answered once, the wall clock is the best guess; serving starts only after ``sync``.
        self._offset_ms = wall_clock_ms() - time.monotonic_ns() / 1e6
        self._is_synced = False

    def now_ms(self) -> int:
        """Return the current instant; never awaits."""
        return int(time.monotonic_ns() / 1e6 + self._offset_ms)

    async def sync(self) -> None:
        """Measure the offset to Redis; of a few samples the one with the shortest round trip is kept.

        After a longer one than ``ROUND_TRIP_MAX_MS`` nobody knows when Redis read its clock; then the offset before stays good.
        """
        best_round_trip_ms = ROUND_TRIP_MAX_MS if self._is_synced else float("inf")
        for _ in range(SAMPLES):
            before_ms = time.monotonic_ns() / 1e6
            seconds, micros = map(int, await self._time(keys=[self._key]))
            after_ms = time.monotonic_ns() / 1e6
            if after_ms - before_ms < best_round_trip_ms:
                best_round_trip_ms = after_ms - before_ms
                self._offset_ms = seconds * 1000 + micros / 1000 - (before_ms + after_ms) / 2
                self._is_synced = True

    async def run(self) -> None:
        """Follow Redis until cancelled. While Redis is away the last known offset stays good."""
        while True:
            await anyio.sleep(RESYNC_S)
            try:
                await self.sync()
            except RedisUnavailable as error:
                self._link.log.warning("clock_not_synced", error=str(error))
