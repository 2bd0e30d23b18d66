"""Look-ups that come at the same time become one: the first waits for nobody, those that come meanwhile go together."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final, Generic, TypeVar

import anyio

from infra.loops import in_halves
from infra.metrics import ITEMS_FAILED
from models.errors import DatabaseUnavailable, Unavailable

T = TypeVar("T")

BATCH_LEN_MAX: Final = 200


class _Wish(Generic[T]):
    """One key that somebody waits for; several may wait for the same."""

    __slots__ = ("error", "event", "found")

    def __init__(self) -> None:
        self.event = anyio.Event()
        self.found: T | None = None
        self.error: Exception | None = None

    def fulfil(self, found: T | None) -> None:
        self.found = found
        self.event.set()

    def fail(self, error: Exception) -> None:
        self.error = error
        self.event.set()


class Batches(Generic[T]):
    """``get`` for one key, out of a ``read`` for many. One read at a time; nothing is remembered between reads."""

    def __init__(self, read: Callable[[Collection[str]], Awaitable[Mapping[str, T]]]) -> None:
        self._read = read
        self._wishes: dict[str, _Wish[T]] = {}
        self._has_wishes = anyio.Event()

    async def get(self, key: str) -> T | None:
        """Return what a read that starts from now on finds, or ``None``; raises what that read raised."""
        wish = self._wishes.setdefault(key, _Wish())
        self._has_wishes.set()
        await wish.event.wait()
        if wish.error is not None:
            raise wish.error
        return wish.found

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            await self._has_wishes.wait()
            keys = list(self._wishes)[:BATCH_LEN_MAX]
            # Taken before the read starts: who asks from now on must not be given what was read before they asked.
            batch = {key: self._wishes.pop(key) for key in keys}
            if not self._wishes:
                self._has_wishes = anyio.Event()
            await self._fulfil(batch)

    async def _fulfil(self, batch: dict[str, _Wish[T]]) -> None:
        """Read the batch together; of a bug, find the key that meets it, so that nobody else's wish fails with it."""

        async def read(keys: Sequence[str]) -> None:
            found = await self._read(keys)
            for key in keys:
                batch[key].fulfil(found.get(key))

        async def fail(key: str, error: Exception) -> None:
            ITEMS_FAILED.labels("snapshot").inc()
            batch[key].fail(error)

        failure: Exception = DatabaseUnavailable("The read was given up, because this node stops.")
        try:
            await in_halves(list(batch), read, fail)
        except Unavailable as error:
            failure = error
        finally:
            for wish in batch.values():
                if not wish.event.is_set():
                    wish.fail(failure)
