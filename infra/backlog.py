"""Things that wait for one loop: bounded, and still there for the loop that is started again after a bug."""

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import anyio

T = TypeVar("T")


class Backlog(Generic[T]):
    """``put`` never waits, ``take`` is for one loop alone."""

    def __init__(self, len_max: int, *, on_overflow: Callable[[list[T]], None]) -> None:
        """``on_overflow`` is called with everything that waits when one more does not fit: all of it is dropped."""
        self._len_max = len_max
        self._on_overflow = on_overflow
        self._waiting: deque[T] = deque()
        self._has_some = anyio.Event()

    def put(self, item: T) -> None:
        """Add one behind the others."""
        if len(self._waiting) >= self._len_max:
            dropped, self._waiting = list(self._waiting), deque()
            self._on_overflow(dropped)
        self._waiting.append(item)
        self._has_some.set()

    async def take(self) -> T:
        """Return the oldest, as soon as there is one."""
        while not self._waiting:
            self._has_some = anyio.Event()
            await self._has_some.wait()
        return self._waiting.popleft()
