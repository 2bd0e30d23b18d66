"""Who may have missed a change is brought up to date: in turn, in the end, and at nobody else's cost."""

from collections.abc import Callable

import anyio
import pytest

from http_api.sockets import stale
from http_api.sockets.stale import Stale


class Reader:
    """Something to be brought up to date that notes its turn in ``turns``."""

    def __init__(self, name: str, turns: list[str]) -> None:
        self.name = name
        self.turns = turns
        self.gate = anyio.Event()
        self.gate.set()

    async def refresh_in_turn(self) -> bool:
        self.turns.append(self.name)
        await self.gate.wait()
        self.turns.append(f"{self.name} read")
        return True


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stale, "AGAIN_AFTER_S", 0.01)


async def until(true: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not true():  # noqa: ASYNC110 - waits by the clock
            await anyio.sleep(0.001)


async def test_they_are_brought_up_to_date_in_the_order_in_which_that_was_noticed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stale, "READERS", 1)
    turns: list[str] = []
    marked = Stale()
    for name in ("a", "b", "c"):
        marked.mark(Reader(name, turns))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(marked.run)
        await until(lambda: len(turns) == 6)
        tasks.cancel_scope.cancel()
    assert turns == ["a", "a read", "b", "b read", "c", "c read"]


async def test_one_that_takes_long_keeps_the_others_waiting_for_a_bounded_time_and_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
):
    # Interleaving: both are marked -> the slow one's earlier jobs take long -> the other is marked once more.
    monkeypatch.setattr(stale, "REFRESH_WAIT_S", 0.05)
    turns: list[str] = []
    slow, other, marked = Reader("slow", turns), Reader("other", turns), Stale()
    slow.gate = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(marked.run)
        marked.mark(slow, other)
        await until(lambda: "other read" in turns)
        turns.clear()
        marked.mark(other)
        await until(lambda: "other read" in turns)
        slow.gate.set()
        await until(lambda: "slow read" in turns)
        tasks.cancel_scope.cancel()


async def test_who_was_being_read_when_the_loop_ended_is_read_when_it_starts_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stale, "READERS", 1)
    turns: list[str] = []
    first, second, marked = Reader("first", turns), Reader("second", turns), Stale()
    first.gate = anyio.Event()
    marked.mark(first, second)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(marked.run)
        await until(lambda: turns == ["first"])
        tasks.cancel_scope.cancel()
    first.gate.set()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(marked.run)
        await until(lambda: turns == ["first", "first", "first read", "second", "second read"])
        tasks.cancel_scope.cancel()
