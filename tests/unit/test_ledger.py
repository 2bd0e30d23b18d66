"""What a payment's ledger says, whatever order its refunds and disputes are told in."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch.money.ledger import (
    Ask,
    Broken,
    Entry,
    Held,
    Ledger,
    Moved,
    OnItsWay,
    Owed,
    Returned,
    Whereabouts,
    merged,
    moved,
    summed,
    whereabouts,
)

PAID = 999
OURS = Entry("re_1", "refund", PAID, "succeeded", is_ours=True)
THEIRS = Entry("re_2", "refund", 300, "succeeded")
DISPUTE = Entry("dp_1", "dispute", PAID, "needs_response")


def stands(*entries: Entry, known: tuple[Entry, ...] | None = None, owed: Owed = Owed("pending", None)) -> Whereabouts:  # noqa: B008
    now = merged([], entries)
    return whereabouts(owed, summed(PAID, entries), now, now if known is None else merged([], known))


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([], Ledger(PAID)),
        ([OURS], Ledger(PAID, by_us_cents=PAID)),
        ([THEIRS], Ledger(PAID, by_others_cents=300)),
        ([replace(THEIRS, status="pending")], Ledger(PAID, by_others_cents=300, on_its_way_cents=300)),
        ([replace(THEIRS, status="requires_action")], Ledger(PAID, by_others_cents=300, on_its_way_cents=300)),
        ([replace(THEIRS, status="failed")], Ledger(PAID)),
        ([replace(THEIRS, status="canceled")], Ledger(PAID)),
        ([DISPUTE], Ledger(PAID, dispute="open", is_held=True)),
        ([replace(DISPUTE, status="under_review")], Ledger(PAID, dispute="open", is_held=True)),
        ([replace(DISPUTE, status="appeal_under_review")], Ledger(PAID, dispute="open", is_held=True)),
        ([replace(DISPUTE, status="won")], Ledger(PAID, dispute="won")),
        ([replace(DISPUTE, status="prevented")], Ledger(PAID, dispute="won")),
        ([replace(DISPUTE, status="lost")], Ledger(PAID, taken_cents=PAID, dispute="lost")),
        ([replace(DISPUTE, status="warning_needs_response")], Ledger(PAID, dispute="open", is_held=True)),
        (
            [replace(DISPUTE, status="warning_needs_response", is_refundable=True)],
            Ledger(PAID, dispute="open"),
        ),
        ([replace(DISPUTE, status="warning_closed")], Ledger(PAID, dispute="won")),
        (
            [replace(DISPUTE, status="won"), replace(DISPUTE, id="dp_2")],
            Ledger(PAID, dispute="open", is_held=True),
        ),
    ],
    ids=lambda value: "+".join(entry.status for entry in value) or "nothing" if isinstance(value, list) else "",
)
def test_the_sums_follow_from_the_entries(entries: list[Entry], expected: Ledger) -> None:
    assert summed(PAID, entries) == expected


def test_what_is_left_is_never_less_than_nothing() -> None:
    # A bank may take what others have given back already.
    assert summed(PAID, [THEIRS, replace(DISPUTE, status="lost")]).left_cents == 0


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ((), Ask(PAID)),
        ((THEIRS,), Ask(699)),
        ((OURS,), Returned()),
        ((replace(OURS, status="pending"),), OnItsWay()),
        ((DISPUTE,), Held()),
        ((THEIRS, DISPUTE), Held()),
        ((replace(DISPUTE, status="won"),), Ask(PAID)),
        ((replace(DISPUTE, status="lost"),), Returned()),
    ],
)
def test_what_is_owed_is_asked_for_held_or_back(entries: tuple[Entry, ...], expected: Whereabouts) -> None:
    assert stands(*entries) == expected


def test_a_refund_of_ours_that_has_failed_is_an_operators() -> None:
    failed = replace(OURS, status="failed")
    assert stands(failed, known=(OURS,)) == Broken()
    # Also where the answer that told its id was lost.
    assert stands(failed, known=()) == Broken()
    assert stands(failed, owed=Owed("pending", OURS.id)) == Broken()
    assert stands(failed, owed=Owed("succeeded", OURS.id)) == Broken()
    # Asked for again by the operator, it is known.
    assert stands(failed) == Ask(PAID)


def test_what_a_bank_takes_back_from_the_customer_is_given_back_by_us() -> None:
    lost = replace(DISPUTE, status="lost")
    assert stands(replace(DISPUTE, status="won"), known=(lost,), owed=Owed("succeeded", None)) == Ask(PAID)


def test_others_refund_that_has_failed_is_followed_by_ours() -> None:
    assert stands(replace(THEIRS, status="failed"), known=(replace(THEIRS, status="pending"),)) == Ask(PAID)


def test_what_others_have_moved_is_told_and_what_we_have_is_not() -> None:
    nothing = summed(PAID, [])
    assert moved(nothing, summed(PAID, [OURS])) is None
    assert moved(nothing, summed(PAID, [THEIRS])) == Moved(returned_cents=300)
    assert moved(nothing, summed(PAID, [replace(THEIRS, amount_cents=PAID)])) == Moved(PAID, is_all_returned=True)
    assert moved(summed(PAID, [THEIRS]), nothing) == Moved(failed_cents=300)
    assert moved(nothing, summed(PAID, [DISPUTE])) == Moved(dispute="open")


STATUSES = ["pending", "requires_action", "succeeded", "failed", "canceled"]
refunds = st.builds(
    Entry,
    st.sampled_from(["re_1", "re_2", "re_3"]),
    st.just("refund"),
    st.just(333),
    st.sampled_from(STATUSES),
    is_ours=st.booleans(),
)


@given(st.lists(refunds, max_size=8), st.randoms(use_true_random=False))
def test_in_whatever_order_and_however_often_refunds_are_told_of_the_sums_are_the_same(
    told: list[Entry], random: object
) -> None:
    shuffled = [*told, *told]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    in_order, in_disorder = (summed(PAID, merged([], each).values()) for each in (told, shuffled))
    assert in_order.given_back_cents == in_disorder.given_back_cents
    assert in_order.by_us_cents == in_disorder.by_us_cents


@given(st.lists(refunds, max_size=8))
def test_what_an_answer_does_not_speak_of_is_not_forgotten(told: list[Entry]) -> None:
    known = merged([], told)
    assert merged(known.values(), []) == known
