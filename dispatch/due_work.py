"""Rows that are due, worked on side by side.

A row that waits for Stripe holds up no other, unless all places are taken by such rows. A row that fails costs itself an
attempt, and the others nothing.

Whoever leaves a row wakes the node that it is on. Each look tells when the next row falls due, so that nobody has to look before; a
look now and again finds what no living node tells of.
"""

import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Generic, TypeVar

import anyio
import structlog
from anyio.abc import TaskGroup

from infra.loops import failing_alone, keep_running
from models.errors import Unavailable

POLL_S = 5.0
"""For how long what nobody tells of may stay unnoticed: a dead node has left it, or one of an earlier version."""
TOGETHER_S = 0.1
"""What falls due within it is taken together."""
RETRY_S = 0.5
"""Until the next look: after one that came to nothing because the world is broken, and after a row that has failed, as only the row
tells when it falls due again."""

Row = TypeVar("Row")


class Claimed(list[Row]):
    """Rows that have been claimed. ``next_in_ms``: when the next of those falls due that are not due yet; ``None`` if none does."""

    def __init__(self, rows: Iterable[Row] = (), *, next_in_ms: int | None = None) -> None:
        super().__init__(rows)
        self.next_in_ms = next_in_ms


class DueWork(Generic[Row]):
    """Claims what is due, half of what there is room for at a time, and works on it until cancelled."""

    def __init__(
        self,
        name: str,
        *,
        claim: Callable[[int], Awaitable[Sequence[Row]]],
        work: Callable[[Row], Awaitable[None]],
        failed: Callable[[Row, Exception], Awaitable[None]],
        side_by_side: int,
    ) -> None:
        """``claim`` takes at most as many as it is told; one that can tell when the next row falls due returns ``Claimed``.
        ``failed`` is given whatever ``work`` raises, so that it falls due again.

        When ``failed`` raises, too, a claim's lease has to do instead.
        """
        self._name = name
        self._claim = claim
        self._work = work
        self._failed = failed
        self._room = side_by_side
        self._tasks: TaskGroup | None = None
        self._may_be_more = False
        self._woken = anyio.Event()
        self._look_at_s = 0.0
        """When the next look is, if nobody wakes us before."""
        self._nap: anyio.CancelScope | None = None
        self._log = structlog.get_logger(name)

    def wake(self) -> None:
        """Look for due rows now."""
        self._woken.set()

    def reserve(self) -> bool:
        """Take a place for a row that is about to be there; ``False`` if there is none, or nobody to work on it.

        Whoever has one calls ``start`` or ``give_back``.
        """
        if self._tasks is None or not self._room:
            return False
        self._room -= 1
        return True

    def start(self, row: Row) -> None:
        """Work, in the place that was reserved, on a row that is claimed already."""
        if self._tasks is None:
            # Stopped meanwhile: its claim's lease ends by itself.
            self.give_back()
        else:
            self._tasks.start_soon(self._work_in_turn, row)

    def give_back(self) -> None:
        """Give a place back."""
        self._room += 1
        if self._may_be_more:
            self.wake()

    async def run(self) -> None:
        """Work at once on what ``wake`` tells of, on time on what was seen to fall due, and within ``POLL_S`` on all else."""
        try:
            async with anyio.create_task_group() as self._tasks:
                # Inside the group: what is in hand goes on while the loop is started again.
                await keep_running(self._name, self._claim_on)
        finally:
            self._tasks = None

    async def _claim_on(self) -> None:
        while True:
            # Anew before the look: what it may not have seen any more makes for another.
            self._woken, self._look_at_s = anyio.Event(), math.inf
            rows: Sequence[Row] = ()
            places = (self._room + 1) // 2
            if places:
                # Kept until it is known how many are needed. Only half of them: for what arrives meanwhile there is room, too.
                self._room -= places
                try:
                    rows = await self._claimed(places)
                finally:
                    self._room += places - len(rows)
                for row in rows:
                    self.start(row)
            self._may_be_more = len(rows) == places
            if self._may_be_more and self._room:
                continue
            self._look_within(POLL_S)
            if isinstance(rows, Claimed) and rows.next_in_ms is not None:
                self._look_within(max(rows.next_in_ms / 1000, TOGETHER_S))
            await self._sleep()

    async def _sleep(self) -> None:
        with anyio.CancelScope(deadline=self._look_at_s) as self._nap:
            await self._woken.wait()
        self._nap = None

    def _look_within(self, delay_s: float) -> None:
        self._look_at_s = min(self._look_at_s, anyio.current_time() + delay_s)
        if self._nap is not None:
            self._nap.deadline = self._look_at_s

    async def work_on(self, row: Row) -> None:
        """Work on one row that has been claimed; never raises."""
        try:
            await self._work(row)
        except Exception as error:  # noqa: BLE001 - ``failed`` takes note of it: this is where items fail alone
            with failing_alone(self._name, row=str(row)):
                try:
                    await self._failed(row, error)
                except Unavailable as unavailable:
                    # The lease ends by itself.
                    self._log.warning("failure_not_noted", error=str(unavailable), after=str(error))
            self._look_within(RETRY_S)

    async def _claimed(self, count_max: int) -> Sequence[Row]:
        try:
            return await self._claim(count_max)
        except Unavailable as error:
            self._log.warning("due_work_not_read", error=str(error))
            return Claimed(next_in_ms=round(RETRY_S * 1000))

    async def _work_in_turn(self, row: Row) -> None:
        try:
            await self.work_on(row)
        finally:
            self.give_back()
