"""What time a node believes it is. Redis' own clock is the true one."""

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
