"""When rows that are due are looked for: when somebody tells, when the next one falls due, and seldom otherwise."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio

from dispatch.due_work import POLL_S, RETRY_S, TOGETHER_S, Claimed, DueWork
from models.errors import DatabaseUnavailable
from tests.parts import eventually

LATE_S = 0.4
"""By a busy machine."""


class Rows:
    """Numbers that may be claimed; notes when they are looked for, and when each is worked on."""

    def __init__(self) -> None:
        self.due: list[int] = []
        self.next_in_ms: int | None = None
        self.looks: list[float] = []
        self.worked: dict[int, float] = {}
        self.on_look: Callable[[], None] = lambda: None

    async def claim(self, count_max: int) -> Sequence[int]:
        self.looks.append(anyio.current_time())
        self.on_look()
        due, self.due = self.due[:count_max], self.due[count_max:]
        return Claimed(due, next_in_ms=self.next_in_ms)

    async def work(self, row: int) -> None:
        self.worked[row] = anyio.current_time()
        if row < 0:
            raise ValueError("a row that cannot be worked on")

    async def failed(self, row: int, error: Exception) -> None:
        assert isinstance(error, ValueError)


@asynccontextmanager
async def running(rows: Rows) -> AsyncIterator[DueWork[int]]:
    """Run a worker that has looked once."""
    worker = DueWork("test", claim=rows.claim, work=rows.work, failed=rows.failed, side_by_side=4)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.run)
        await eventually(lambda: rows.looks, "it has looked")
        yield worker
        tasks.cancel_scope.cancel()


async def test_an_idle_node_looks_seldom_and_at_once_when_somebody_tells():
    rows = Rows()
    async with running(rows) as worker:
        # Longer than it takes until somebody looks who has been told.
        with anyio.move_on_after(1.0):
            await eventually(lambda: len(rows.looks) > 1, "a second look", within_s=POLL_S)
        assert len(rows.looks) == 1
        rows.due, told_at_s = [1], anyio.current_time()
        worker.wake()
        await eventually(lambda: rows.worked, "worked on")
        assert rows.worked[1] - told_at_s < LATE_S


async def test_what_falls_due_is_looked_for_on_time_though_nobody_tells():
    rows = Rows()
    rows.next_in_ms = 600
    async with running(rows):
        await eventually(lambda: len(rows.looks) > 1, "a second look")
        assert 0.6 <= rows.looks[1] - rows.looks[0] < 0.6 + LATE_S


async def test_rows_that_fall_due_one_after_the_other_are_taken_together():
    rows = Rows()
    rows.next_in_ms = 1
    async with running(rows):
        await eventually(lambda: len(rows.looks) > 3, "more looks")
        assert rows.looks[3] - rows.looks[0] >= 3 * TOGETHER_S


async def test_soon_after_a_row_has_failed_it_is_looked_when_it_falls_due_again():
    rows = Rows()
    rows.due = [-1]
    async with running(rows):
        await eventually(lambda: len(rows.looks) > 1, "it is asked")
        assert rows.looks[1] - rows.worked[-1] < RETRY_S + LATE_S


async def test_after_an_outage_it_is_soon_looked_again():
    rows = Rows()

    def away() -> None:
        if len(rows.looks) == 1:
            raise DatabaseUnavailable("away")

    rows.on_look = away
    async with running(rows):
        await eventually(lambda: len(rows.looks) > 1, "a second look")
        assert RETRY_S <= rows.looks[1] - rows.looks[0] < RETRY_S + LATE_S
