"""What is due, worked on side by side: one that waits for Stripe holds nobody else up, as long as not all do."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import anyio
import structlog

from models.errors import Unavailable

POLL_S = 0.5

Row = TypeVar("Row")


class DueWork(Generic[Row]):
    """Claims what is due, as much as there is room for, and works on it until cancelled."""

    def __init__(
        self,
        name: str,
        *,
        claim: Callable[[int], Awaitable[Sequence[Row]]],
        work: Callable[[Row], Awaitable[None]],
        at_once: int,
    ) -> None:
        """``claim`` takes at most as many as it is told; ``work`` raises nothing, and whatever fails falls due again."""
        self._claim = claim
        self._work = work
        self._room = at_once
        self._may_be_more = False
        self._woken = anyio.Event()
        self._log = structlog.get_logger(name)

    def wake(self) -> None:
        """Look for due rows now rather than at the next poll."""
        self._woken.set()

    async def run(self) -> None:
        """Work at once on what ``wake`` tells of, and look twice a second for what else is due."""
        async with anyio.create_task_group() as tasks:
            while True:
                self._woken = anyio.Event()
                if self._room:
                    try:
                        claimed = await self._claim(self._room)
                    except Unavailable as error:
                        self._log.warning("due_work_not_read", error=str(error))
                        claimed = []
                    for row in claimed:
                        self._room -= 1
                        tasks.start_soon(self._work_on, row)
                self._may_be_more = self._room == 0
                with anyio.move_on_after(POLL_S):
                    await self._woken.wait()

    async def _work_on(self, row: Row) -> None:
        await self._work(row)
        self._room += 1
        if self._may_be_more:
            self.wake()
