"""What waits for one loop."""

import anyio
import pytest

from infra.backlog import Backlog


async def test_what_waits_is_taken_by_the_loop_that_is_started_again():
    backlog: Backlog[int] = Backlog(10, on_overflow=lambda dropped: None)
    taken: list[int] = []

    async def loop(*, dies_of: int) -> None:
        while True:
            item = await backlog.take()
            taken.append(item)
            if item == dies_of:
                raise KeyError("a bug")

    for item in (1, 2, 3):
        backlog.put(item)
    with pytest.raises(KeyError):
        await loop(dies_of=1)
    with pytest.raises(KeyError):
        await loop(dies_of=3)
    assert taken == [1, 2, 3]


async def test_one_more_than_fits_drops_all_that_waits_and_says_so():
    dropped: list[list[int]] = []
    backlog: Backlog[int] = Backlog(2, on_overflow=dropped.append)
    for item in (1, 2, 3):
        backlog.put(item)
    assert (dropped, await backlog.take()) == ([[1, 2]], 3)


async def test_whoever_takes_waits_for_the_next():
    backlog: Backlog[int] = Backlog(2, on_overflow=lambda dropped: None)
    taken: list[int] = []

    async def take_two() -> None:
        taken.extend([await backlog.take(), await backlog.take()])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take_two)
        for item in (1, 2):
            await anyio.wait_all_tasks_blocked()
            backlog.put(item)
    assert taken == [1, 2]
