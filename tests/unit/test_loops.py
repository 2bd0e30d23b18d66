"""Loops that outlive their own bugs, and items that fail alone."""

import anyio
import pytest

from infra import loops
from infra.loops import Backoff, dying_loops, failing_alone, in_halves, keep_on, keep_running
from infra.metrics import REGISTRY
from models.errors import RedisUnavailable
from tests.parts import eventually

pytestmark = pytest.mark.bugs_planted


def deaths(name: str) -> float:
    return REGISTRY.get_sample_value("pitlane_loops_died_total", {"loop": name}) or 0


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "RESTART_FIRST_S", 0.001)
    monkeypatch.setattr(loops, "RESTART_MAX_S", 0.002)


@pytest.mark.usefixtures("hurried")
async def test_a_loop_that_dies_is_started_again_and_counted():
    runs = 0

    async def loop() -> None:
        nonlocal runs
        runs += 1
        if runs < 5:
            raise KeyError("a bug")

    before = deaths("test")
    await keep_running("test", loop)
    assert (runs, deaths("test") - before) == (5, 4)


@pytest.mark.usefixtures("hurried")
async def test_readiness_names_a_loop_once_it_has_died_twice_and_until_it_runs_steadily(monkeypatch):
    monkeypatch.setattr(loops, "STEADY_AFTER_S", 0.05)
    runs, seen = 0, []
    is_steady = anyio.Event()

    async def loop() -> None:
        nonlocal runs
        runs += 1
        seen.append(dying_loops())
        if runs < 4:
            raise KeyError("a bug")
        await is_steady.wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keep_running, "test", loop)
        await eventually(lambda: runs == 4, "it has died three times")
        assert seen == [[], [], ["test"], ["test"]]
        await eventually(lambda: not dying_loops(), "it has run steadily")
        is_steady.set()
    assert loops._dying == {}, "who does not run any more is forgotten"


@pytest.mark.usefixtures("hurried")
async def test_readiness_names_a_loop_that_keeps_dying_although_another_of_its_name_runs_well():
    # Each shard of presence runs the same loops.
    runs, named = 0, []

    async def dies() -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise KeyError("a bug")
        named.extend(dying_loops())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keep_running, "test", anyio.sleep_forever)
        await keep_running("test", dies)
        tasks.cancel_scope.cancel()
    assert named == ["test"]


async def test_a_loop_that_waits_to_be_started_again_is_dying_however_long_it_ran_before(monkeypatch):
    # It runs for a while, dies, and waits for longer than it takes to be called steady: it does not run at all meanwhile.
    monkeypatch.setattr(loops, "RESTART_FIRST_S", 10.0)
    monkeypatch.setattr(loops, "STEADY_AFTER_S", 0.01)
    deaths = loops._Deaths(count=3, started_at_s=0, is_running=False)
    assert not deaths.is_steady(now_s=1_000)
    deaths.is_running = True
    assert deaths.is_steady(now_s=1_000)
    assert not deaths.is_steady(now_s=0.005)


@pytest.mark.usefixtures("hurried")
async def test_a_loop_that_dies_for_days_is_still_started_again():
    # A power of two of so many deaths is more than a float holds.
    runs = 0

    async def loop() -> None:
        nonlocal runs
        runs += 1
        if runs < 1_200:
            raise KeyError("a bug")

    await keep_running("test", loop)
    assert runs == 1_200


async def test_two_loops_of_one_name_are_told_apart_when_one_ends():
    may_end, ended = anyio.Event(), anyio.Event()

    async def first() -> None:
        await may_end.wait()

    async def both() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_running, "test", first)
            tasks.start_soon(keep_running, "test", ended.wait)
            await eventually(lambda: len(loops._dying.get("test", [])) == 2, "both run")
            other = loops._dying["test"][1]
            for deaths in loops._dying["test"]:
                deaths.started_at_s = 0.0
            may_end.set()
            await eventually(lambda: len(loops._dying["test"]) == 1, "one has ended")
            assert loops._dying["test"][0] is other
            ended.set()

    await both()


async def test_a_cancelled_loop_is_not_started_again():
    runs = 0

    async def loop() -> None:
        nonlocal runs
        runs += 1
        await anyio.sleep_forever()

    before = deaths("test")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keep_running, "test", loop)
        while not runs:
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert (runs, deaths("test") - before) == (1, 0)


@pytest.mark.usefixtures("hurried")
async def test_a_group_of_bugs_is_a_bug():
    runs = 0

    async def loop() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            async with anyio.create_task_group():
                raise KeyError("a bug")

    await keep_running("test", loop)
    assert runs == 2


def test_what_fails_alone_is_counted_and_swallowed_but_an_outage_passes():
    before = REGISTRY.get_sample_value("pitlane_items_failed_total", {"work": "test"}) or 0
    with failing_alone("test", id="1"):
        raise KeyError("a bug")
    assert REGISTRY.get_sample_value("pitlane_items_failed_total", {"work": "test"}) == before + 1
    with pytest.raises(RedisUnavailable), failing_alone("test", id="1"):
        raise RedisUnavailable("away")


class Acts:
    """Acts on numbers, and cannot stand some of them."""

    def __init__(self, poison: dict[int, Exception]) -> None:
        self.poison = poison
        self.calls = 0
        self.done: list[int] = []
        self.failed: dict[int, Exception] = {}

    async def act(self, numbers: object) -> None:
        self.calls += 1
        for number in numbers:
            if number in self.poison:
                raise self.poison[number]
        self.done += numbers

    async def note(self, number: int, error: Exception) -> None:
        self.failed[number] = error


async def test_halving_finds_each_of_those_who_are_to_blame_and_keeps_the_order_of_the_others():
    acts = Acts({3: KeyError("three"), 500: ValueError("five hundred")})
    await in_halves(range(1_000), acts.act, acts.note)
    assert acts.done == [number for number in range(1_000) if number not in (3, 500)]
    assert acts.failed == acts.poison
    assert acts.calls <= 2 * 2 * 11


async def test_without_anything_to_do_nothing_is_done():
    acts = Acts({})
    await in_halves([], acts.act, acts.note)
    assert acts.calls == 0


async def test_an_outage_is_raised_unless_it_may_be_that_of_one_alone():
    acts = Acts({0: RedisUnavailable("away")})
    with pytest.raises(RedisUnavailable):
        await in_halves(range(8), acts.act, acts.note)
    assert (acts.calls, acts.failed) == (1, {})
    await in_halves(range(8), acts.act, acts.note, outages_max=4)
    assert (acts.done, acts.failed) == (list(range(1, 8)), acts.poison)


async def test_an_outage_of_all_is_given_up_after_its_bound():
    acts = Acts({number: RedisUnavailable("away") for number in range(300)})
    with pytest.raises(RedisUnavailable):
        await in_halves(range(300), acts.act, acts.note, outages_max=20)
    assert acts.calls == 21


async def test_a_broken_world_is_waited_out_and_a_bug_is_not():
    steps: list[Exception | None] = [RedisUnavailable("away"), RedisUnavailable("away"), None, KeyError("a bug")]

    async def step() -> None:
        if (error := steps.pop(0)) is not None:
            raise error

    with pytest.raises(KeyError):
        await keep_on("test", step)
    assert steps == []


async def test_each_failure_waits_twice_as_long_up_to_a_bound_and_success_begins_anew(monkeypatch: pytest.MonkeyPatch):
    waits_s: list[float] = []

    async def note(delay_s: float) -> None:
        waits_s.append(delay_s)

    monkeypatch.setattr(anyio, "sleep", note)
    backoff = Backoff(1, 4)
    for _ in range(4):
        await backoff.wait()
    backoff.reset()
    assert not backoff.has_waited
    await backoff.wait()
    assert waits_s == [1, 2, 4, 4, 1]
    assert backoff.has_waited
