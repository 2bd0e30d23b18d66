"""An event loop without a clock or a network of its own: time is a number, and passes when nobody has anything to do."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


ROUNDS_MAX = 1_000


class Stalled(Exception):
    """Everybody waits for somebody, and no timer is set: in a real system, this hangs for ever."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs callbacks in the order in which they became ready; jumps to the next timer when there are none."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        self._rounds = 0
        """Without any time passing."""
        # What asyncio takes for its selector: instead of waiting for the network, it lets the time pass.
        self._selector = self
        # Sums of floats differ in the last digits; a microsecond is less than anything that is simulated.
        self._clock_resolution = 1e-6
        self.set_exception_handler(lambda _loop, _context: None)

    def time(self) -> float:
        """Return the virtual time in seconds since the start of the world."""
        return self._now_s

    def select(self, timeout_s: float | None) -> list[Any]:
        """Let the time pass until the next timer; asyncio calls this when nothing is ready (or with zero)."""
        if timeout_s is None:
            raise Stalled("nobody has anything to do, for ever")
        self._rounds = 0 if timeout_s else self._rounds + 1
        if self._rounds > ROUNDS_MAX and self._scheduled:
            # Whoever turns in circles does not stop the time: anyio delivers a cancellation again in every round, for as long as
            # somebody who is shielded from it is not done.
            timeout_s = max(0.0, self._scheduled[0].when() - self._now_s)
        self._now_s += timeout_s
        return []

    def _process_events(self, _event_list: list[Any]) -> None:
        """There are no events but timers."""

    def _write_to_self(self) -> None:
        """There are no other threads that would have to wake us."""


def run(main: Coroutine[Any, Any, T], loop: VirtualLoop) -> T:
    """Run ``main`` to its end on a fresh virtual loop, and close that."""
    try:
        return loop.run_until_complete(main)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
