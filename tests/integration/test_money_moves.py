"""What others do to money that was paid: whoever moves it, however it is told, it adds up, and the customer reads the truth."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integration.money_stories import MOVES, WORDS, Story, Teller, stage_of_stories

EVERYTHING = WORDS | MOVES
TELLINGS = {
    "each event": ["each event"],
    "in reverse": ["each event in reverse"],
    "side by side": ["everything side by side"],
    "no event": ["we look for what was lost"],
}
TELLINGS_WORDS = [way for ways in TELLINGS.values() for way in ways]
BACK_BY_OTHERS = "cancelled: 0 by us, 999 by others, 0 by the bank; reads 999 succeeded"
ROWS: list[tuple[str, list[str], str]] = [
    (
        "a part, then nothing more",
        ["3 are refunded at Stripe"],
        "broadcasting: 0 by us, 300 by others, 0 by the bank; reads 300 succeeded",
    ),
    (
        "a part twice",
        ["3 are refunded at Stripe", "3 are refunded at Stripe"],
        "broadcasting: 0 by us, 600 by others, 0 by the bank; reads 600 succeeded",
    ),
    ("a part, then the rest", ["3 are refunded at Stripe", "the rest is refunded at Stripe"], BACK_BY_OTHERS),
    ("all of it while it is offered", ["the rest is refunded at Stripe"], BACK_BY_OTHERS),
    ("all of it while accepted", ["a mechanic accepts", "the rest is refunded at Stripe"], BACK_BY_OTHERS),
    (
        "all of it while in progress",
        ["a mechanic starts", "the rest is refunded at Stripe"],
        "in_progress: 0 by us, 999 by others, 0 by the bank; reads 999 succeeded",
    ),
    (
        "all of it after completion",
        ["a mechanic completes", "the rest is refunded at Stripe"],
        "completed: 0 by us, 999 by others, 0 by the bank; reads 999 succeeded",
    ),
    (
        "all of it, slowly",
        ["the rest is refunded at Stripe, slowly"],
        "cancelled: 0 by us, 999 by others, 0 by the bank; reads 999 pending",
    ),
    (
        "all of it, slowly, and it arrives",
        ["the rest is refunded at Stripe, slowly", "the refund arrives"],
        BACK_BY_OTHERS,
    ),
    (
        "all of it, and it fails later",
        ["the rest is refunded at Stripe", "the refund fails"],
        "cancelled: 0 by us, 0 by others, 0 by the bank; reads 999 failed",
    ),
    (
        "all of it fails and is made anew at Stripe",
        ["the rest is refunded at Stripe", "the refund fails", "the rest is refunded at Stripe"],
        BACK_BY_OTHERS,
    ),
    (
        "all of it fails and the operator tries again",
        ["the rest is refunded at Stripe", "the refund fails", "the operator tries again"],
        "cancelled: 999 by us, 0 by others, 0 by the bank; reads 999 succeeded",
    ),
    (
        "a part, then the customer cancels",
        ["3 are refunded at Stripe", "cancels the request"],
        "cancelled: 699 by us, 300 by others, 0 by the bank; reads 999 succeeded",
    ),
    (
        "a part after we have given back all",
        ["cancels the request"],
        "cancelled: 999 by us, 0 by others, 0 by the bank; reads 999 succeeded",
    ),
    (
        "ours fails at the bank",
        ["cancels the request", "the refund fails"],
        "cancelled: 0 by us, 0 by others, 0 by the bank; reads 999 failed",
    ),
    (
        "ours fails at the bank and is made anew at Stripe",
        ["cancels the request", "the refund fails", "the rest is refunded at Stripe"],
        BACK_BY_OTHERS,
    ),
    (
        "ours fails at the bank and the operator tries again",
        ["cancels the request", "the refund fails", "the operator tries again"],
        "cancelled: 999 by us, 0 by others, 0 by the bank; reads 999 succeeded",
    ),
    (
        "ours is slow, and arrives",
        ["our refund is slow", "cancels the request", "the refund arrives"],
        "cancelled: 999 by us, 0 by others, 0 by the bank; reads 999 succeeded",
    ),
    (
        "ours is slow, and fails",
        ["our refund is slow", "cancels the request", "the refund fails"],
        "cancelled: 0 by us, 0 by others, 0 by the bank; reads 999 failed",
    ),
    (
        "no money at Stripe for a while",
        ["Stripe has no money for a refund", "cancels the request"],
        "cancelled: 999 by us, 0 by others, 0 by the bank; reads 999 succeeded",
    ),
    (
        "Stripe breaks before it",
        ["Stripe breaks before a refund", "cancels the request"],
        "cancelled: 999 by us, 0 by others, 0 by the bank; reads 999 succeeded",
    ),
    (
        "Stripe breaks after it",
        ["Stripe breaks after a refund", "cancels the request"],
        "cancelled: 999 by us, 0 by others, 0 by the bank; reads 999 succeeded",
    ),
    (
        "a dispute while it is offered",
        ["the bank disputes"],
        "cancelled: 0 by us, 0 by others, 0 by the bank; reads 999 pending, disputed",
    ),
    (
        "a dispute while accepted, won",
        ["a mechanic accepts", "the bank disputes", "the bank looks at it", "the bank decides for us"],
        "cancelled: 999 by us, 0 by others, 0 by the bank; reads 999 succeeded, disputed",
    ),
    (
        "a dispute while accepted, lost",
        ["a mechanic accepts", "the bank disputes", "the bank decides against us"],
        "cancelled: 0 by us, 0 by others, 999 by the bank; reads 999 succeeded, disputed",
    ),
    (
        "a dispute while in progress, won",
        ["a mechanic starts", "the bank disputes", "the bank decides for us"],
        "in_progress: 0 by us, 0 by others, 0 by the bank; reads nothing, disputed",
    ),
    (
        "a dispute after completion, lost",
        ["a mechanic completes", "the bank disputes", "the bank decides against us"],
        "completed: 0 by us, 0 by others, 999 by the bank; reads nothing, disputed",
    ),
    (
        "a part, then a dispute of the rest, lost",
        ["3 are refunded at Stripe", "the bank disputes the rest", "the bank decides against us"],
        "cancelled: 0 by us, 300 by others, 699 by the bank; reads 999 succeeded, disputed",
    ),
    (
        "a part, then a dispute, won",
        ["3 are refunded at Stripe", "the bank disputes the rest", "the bank decides for us"],
        "cancelled: 699 by us, 300 by others, 0 by the bank; reads 999 succeeded, disputed",
    ),
    (
        "a dispute of a part, won",
        ["the bank disputes 4", "the bank decides for us"],
        "cancelled: 999 by us, 0 by others, 0 by the bank; reads 999 succeeded, disputed",
    ),
    (
        "an inquiry",
        ["the bank asks", "the bank has asked enough"],
        "cancelled: 999 by us, 0 by others, 0 by the bank; reads 999 succeeded, disputed",
    ),
    (
        "the operator refunds what was served",
        ["a mechanic completes", "the operator refunds"],
        "completed: 999 by us, 0 by others, 0 by the bank; reads 999 succeeded",
    ),
    (
        "the operator refunds what is left",
        ["a mechanic completes", "3 are refunded at Stripe", "the operator refunds"],
        "completed: 699 by us, 300 by others, 0 by the bank; reads 999 succeeded",
    ),
    (
        "the operator refunds what is disputed, won",
        ["a mechanic completes", "the bank disputes", "the operator refunds", "the bank decides for us"],
        "completed: 999 by us, 0 by others, 0 by the bank; reads 999 succeeded, disputed",
    ),
    (
        "the operator refunds what is disputed, lost",
        ["a mechanic completes", "the bank disputes", "the operator refunds", "the bank decides against us"],
        "completed: 0 by us, 0 by others, 999 by the bank; reads 999 succeeded, disputed",
    ),
]


def cases() -> Iterator[Any]:
    """Tell each row's moves in every way; in a quick run in two, which differ from row to row."""
    is_deep = settings.get_current_profile_name() == "deep"
    for place, (name, moves, end) in enumerate(ROWS):
        for way, telling in enumerate(TELLINGS):
            if is_deep or (place + way) % 2 == 0:
                yield pytest.param(moves, end, telling, id=f"{name}, told by {telling}")


@pytest.fixture(scope="module")
def stage(
    sqlite_template: Path, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[BlockingPortal, Teller]]:
    with stage_of_stories(sqlite_template, redis_url, tmp_path_factory.mktemp("moves")) as one:
        yield one


async def told(one: Teller, moves: Sequence[str], telling: Sequence[str]) -> str:
    """Play the moves, telling after each in one way; return how it ends, also when everything is told once more."""
    story = await Story.begin(one)
    for word in ("pays", "the payment is looked at", "comes back", *moves):
        await EVERYTHING[word](story)
        for way in telling:
            await WORDS[way](story)
        await story.is_at_rest()
    end = await story.sums()
    await story.everything_side_by_side()
    await story.is_at_rest()
    assert await story.sums() == end
    return end


# Stripe's refusals are counted, as bugs are: an operator has to hear of them.
@pytest.mark.bugs_planted
@pytest.mark.parametrize(("moves", "end", "telling"), list(cases()))
def test_however_it_is_told_the_money_adds_up_and_the_customer_reads_the_truth(
    stage: tuple[BlockingPortal, Teller], moves: Sequence[str], end: str, telling: str
):
    portal, one = stage
    assert portal.call(told, one, moves, TELLINGS[telling]) == end


@st.composite
def histories(draw: st.DrawFn) -> list[str]:
    """Our actions and others', and ways of telling, in any order."""
    words = sorted([*MOVES, "cancels the request", *TELLINGS_WORDS])
    return draw(st.lists(st.sampled_from(words), min_size=1, max_size=10))


@pytest.mark.bugs_planted
def test_in_whatever_order_we_and_others_act_the_money_adds_up(stage: tuple[BlockingPortal, Teller]):
    portal, one = stage

    async def play(words: list[str]) -> None:
        story = await Story.begin(one)
        for word in ("pays", "comes back", "the payment is looked at", *words):
            await EVERYTHING[word](story)
        await story.everything_side_by_side()
        await one.repair()
        await story.is_at_rest()
        await story.sums()

    @settings(max_examples=settings.default.max_examples // 10)
    @given(histories())
    def plays(words: list[str]) -> None:
        portal.call(play, words)

    plays()
