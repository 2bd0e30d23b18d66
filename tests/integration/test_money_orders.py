"""Orders and repetitions of what happens to a payment: each ends served once, refunded once, or nothing for what was never paid."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from anyio.from_thread import BlockingPortal
from hypothesis import given, settings
from hypothesis import strategies as st

from models import tables
from models.settings import StripeSettings
from tests.integration.money import checkout, state
from tests.integration.money_stories import WORDS, Teller, stage_of_stories
from tests.parts import eventually, running_node, running_world

SERVED, REFUNDED, NOTHING = "served", "refunded", "nothing"

TABLE: list[tuple[str, str, list[str]]] = [
    ("the plain story", SERVED, ["pays", "each event"]),
    ("the same events come again and again", SERVED, ["pays", "each event", "each event", "each event"]),
    ("two events for one thing", SERVED, ["pays", "each event", "a twin", "a twin"]),
    ("everything side by side on two nodes", SERVED, ["pays", "everything side by side"]),
    ("the customer is faster than the webhook", SERVED, ["pays", "comes back", "each event"]),
    ("no webhook ever comes", SERVED, ["pays", "comes back"]),
    ("no webhook, and nobody comes back", SERVED, ["pays", "we look for what was lost"]),
    ("an event comes before there is anything to tell", SERVED, ["a twin", "pays", "each event"]),
    ("asynchronous, and it arrives", SERVED, ["pays later", "each event", "the money arrives", "each event"]),
    ("asynchronous, told in reverse", SERVED, ["pays later", "the money arrives", "each event in reverse"]),
    ("asynchronous, and still on its way", NOTHING, ["pays later", "each event", "comes back"]),
    ("asynchronous, and it fails", NOTHING, ["pays later", "each event", "the money does not arrive", "each event"]),
    ("a failure told in reverse", NOTHING, ["pays later", "the money does not arrive", "each event in reverse"]),
    (
        "a failure told of what has arrived",
        SERVED,
        ["pays later", "the money arrives", "says the money did not arrive"],
    ),
    ("nobody pays", NOTHING, ["comes back", "the page expires", "each event"]),
    ("somebody says that it was paid", NOTHING, ["a twin", "comes back"]),
    ("expired, said too early, then paid", SERVED, ["says it has expired", "pays", "each event"]),
    ("paid, then said to have expired", SERVED, ["pays", "says it has expired", "each event"]),
    ("given up, then paid", SERVED, ["we give it up", "pays", "each event"]),
    ("given up, then paid, and no webhook", SERVED, ["we give it up", "pays", "we look for what was lost"]),
    ("given up, then it arrives late", SERVED, ["pays later", "we give it up", "the money arrives", "each event"]),
    ("went back, then paid after all", SERVED, ["goes back", "pays", "each event"]),
    ("cancelled, then all events again", REFUNDED, ["pays", "each event", "cancels the request", "each event"]),
    ("cancelled before the webhook comes", REFUNDED, ["pays", "comes back", "cancels the request", "each event"]),
    ("cancelled twice", REFUNDED, ["pays", "each event", "cancels the request", "cancels the request"]),
    ("a zero amount", SERVED, ["a coupon makes it free", "pays", "each event", "everything side by side"]),
    ("a zero amount, and nobody takes it", NOTHING, ["a coupon makes it free", "the page expires", "each event"]),
    ("another amount", REFUNDED, ["we asked for more", "pays", "everything side by side", "comes back"]),
    ("another currency", REFUNDED, ["we asked for euros", "pays", "each event"]),
    (
        "another amount, asynchronously",
        REFUNDED,
        ["we asked for more", "pays later", "the money arrives", "each event"],
    ),
    ("another amount, and nobody pays", NOTHING, ["we asked for more", "the page expires", "each event"]),
    ("a bad signature", NOTHING, ["a forged event"]),
    ("a bad signature, then a good one", SERVED, ["pays", "a forged event", "each event"]),
    ("an old timestamp", NOTHING, ["an event signed long ago"]),
    ("an old timestamp, then a fresh one", SERVED, ["pays", "an event signed long ago", "each event"]),
    ("a rotated secret", SERVED, ["pays", "an event signed with the new secret", "each event"]),
    ("an event of the other mode", NOTHING, ["an event of the other mode"]),
    ("the other mode, then ours", SERVED, ["an event of the other mode", "pays", "each event"]),
]


@pytest.fixture(scope="module")
def stage(
    sqlite_template: Path, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[BlockingPortal, Teller]]:
    with stage_of_stories(sqlite_template, redis_url, tmp_path_factory.mktemp("stories")) as one:
        yield one


@pytest.mark.parametrize(("end", "words"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_each_order_has_its_end(stage: tuple[BlockingPortal, Teller], end: str, words: Sequence[str]):
    portal, one = stage
    assert portal.call(one.play, words) == end


PAYMENTS = [
    ["pays"],
    ["pays later", "the money arrives"],
    ["pays later", "the money does not arrive"],
    ["the page expires"],
    [],
]
NOISE = [word for word in WORDS if word not in {word for payment in PAYMENTS for word in payment}]
FIRST_WORDS = {"a coupon makes it free", "we asked for more", "we asked for euros"}


@st.composite
def stories(draw: st.DrawFn) -> list[str]:
    """A way to pay, shuffled in its order with anything else that may happen at any time, any number of times."""
    words = list(draw(st.sampled_from(PAYMENTS)))
    for word in draw(st.lists(st.sampled_from(sorted(set(NOISE) - FIRST_WORDS)), max_size=6)):
        words.insert(draw(st.integers(0, len(words))), word)
    return [*draw(st.lists(st.sampled_from(sorted(FIRST_WORDS)), max_size=1)), *words]


def possible_ends(words: Sequence[str]) -> set[str]:
    """What the story may end with: only what Stripe has, what was asked and the customer's wish decide; no order of telling."""
    if words[:1] == ["a coupon makes it free"]:
        end = SERVED if {"pays", "pays later"} & set(words) else NOTHING
        after_cancel = NOTHING
    else:
        is_paid = bool({"pays", "the money arrives"} & set(words))
        is_as_asked = not {"we asked for more", "we asked for euros"} & set(words)
        end = NOTHING if not is_paid else SERVED if is_as_asked else REFUNDED
        after_cancel = REFUNDED
    # Whether there was something to cancel by then does depend on the order.
    return {end, after_cancel} if end == SERVED and "cancels the request" in words else {end}


def test_whatever_the_order_the_end_is_right(stage: tuple[BlockingPortal, Teller]):
    portal, one = stage

    @settings(max_examples=settings.default.max_examples // 10)
    @given(stories())
    def play(words: list[str]) -> None:
        assert portal.call(one.play, words) in possible_ends(words)

    play()


@pytest.mark.parametrize("database_kind", ["sqlite"])
async def test_play_money_is_never_served_by_a_server_with_a_live_key(database_url, redis_url, tmp_path):
    class LiveSettings(StripeSettings):
        """Those of the stand-in, whose Sessions are all of test mode, on a server that takes real money."""

        is_live = True

    async with (
        running_world(database_url, redis_url, tmp_path) as world,
        running_node(world, stripe=LiveSettings(**vars(world.stripe))) as live,
    ):
        customer_id = await world.customer()
        opened = await checkout(live, customer_id)
        await world.pay(opened.url)
        await eventually(lambda: len(world.webhooks) == 2, "both webhooks are answered 200")
        assert await world.rows(tables.StripeEvent) == []
        assert (await state(live, customer_id, opened.checkout_id)).status == "open"
        assert [repair async for repair in live.reconciler.repairs()] == []
        assert await world.rows(tables.SessionRequest) == await world.rows(tables.Refund) == []
