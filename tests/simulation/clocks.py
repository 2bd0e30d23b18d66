"""What time a node believes it is, and the ids that it makes by it. Redis' own clock is the true one."""

from types import SimpleNamespace

from tests.simulation.life import current_life
from tests.simulation.loop import VirtualLoop

EPOCH_MS = 1_795_340_000_000
"""What a right clock shows when a world begins, in ms since the epoch."""


class NodeClock:
    """Stands in for the ``time`` module: the wall clock of the current node is wrong, its monotonic one fast or slow."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def monotonic_ns(self) -> int:
        return int(self._loop.time() * current_life.get().clock_rate * 1e9)

    def time_ns(self) -> int:
        return EPOCH_MS * 1_000_000 + int((self._loop.time() + current_life.get().wall_clock_error_s) * 1e9)


class NumberedIds:
    """Stands in for ``ULID``: ids that sort by the wall clock of the node that makes them, and are numbered instead of random."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._clock = NodeClock(loop)
        self._count = 0

    def __call__(self, value: bytes | None = None) -> str:
        """Return an id of now, or of the instant in the first bytes of ``value``: its first one if the others are zero."""
        if value is not None and not any(value[6:]):
            return f"{int.from_bytes(value[:6], 'big'):013d}-{0:06d}"
        self._count += 1
        at_ms = self._clock.time_ns() // 1_000_000 if value is None else int.from_bytes(value[:6], "big")
        return f"{at_ms:013d}-{self._count:06d}"

    def from_str(self, text: str) -> SimpleNamespace:
        """Return what an id says of itself; raises ``ValueError`` for one of anybody else's."""
        return SimpleNamespace(milliseconds=int(text.partition("-")[0]))
