"""The life of a request, row by row of its table, and what is refused."""

from dataclasses import replace

import pytest

from dispatch.request import (
    ACCEPT_LEEWAY_MS,
    Assign,
    CloseOffer,
    Event,
    Exclude,
    Free,
    MechanicAccepted,
    MechanicDeclined,
    MechanicReleased,
    OpenOffer,
    OpenWindow,
    OweRefund,
    PromptFavorite,
    Record,
    Request,
    RequestCancelled,
    SessionCompleted,
    SessionStarted,
    Tell,
    Transition,
    WaitSkipped,
    WindowElapsed,
    Windows,
    WithdrawFrom,
    opened,
    step,
)
from models.outcomes import OfferGone, Refused
from models.words import FallbackReason, OfferKind, RequestStatus

NOW_MS = 1_795_000_000_000
WINDOWS = Windows(priority_ms=600_000, broadcast_ms=900_000)
FAVORITE, OTHER, THIRD = "favorite", "other", "third"
PRIORITY_END_MS = NOW_MS + 600_000
BROADCAST_END_MS = PRIORITY_END_MS + 900_000


def new(*, is_priority: bool = True, paid_cents: int = 2999) -> Transition:
    return opened(
        "r",
        paid_cents=paid_cents,
        preferred_mechanic_id=FAVORITE if is_priority else None,
        is_priority=is_priority,
        offer_id="o1",
        now_ms=NOW_MS,
        windows=WINDOWS,
    )


def after(request: Request, event: Event, *, now_ms: int = NOW_MS, offer_id: str = "o2") -> Transition:
    outcome = step(request, event, now_ms=now_ms, next_offer_id=offer_id, windows=WINDOWS)
    assert not isinstance(outcome, Refused), outcome
    return outcome


def refused(request: Request, event: Event, *, now_ms: int = NOW_MS) -> Refused:
    outcome = step(request, event, now_ms=now_ms, next_offer_id="unused", windows=WINDOWS)
    assert isinstance(outcome, Refused), outcome
    return outcome


def took(mechanic_id: str, offer_id: str, at_ms: int = NOW_MS) -> MechanicAccepted:
    return MechanicAccepted(mechanic_id, offer_id, at_ms)


def offered() -> Request:
    return new()[0]


def broadcasting(because: FallbackReason = FallbackReason.EXPIRED) -> Request:
    """Offered as o1 to the favourite first, now to all as o2."""
    match because:
        case FallbackReason.DECLINED:
            return after(offered(), MechanicDeclined(FAVORITE, "o1"))[0]
        case FallbackReason.SKIPPED:
            return after(offered(), WaitSkipped())[0]
        case FallbackReason.EXPIRED:
            return after(offered(), WindowElapsed("o1"), now_ms=PRIORITY_END_MS)[0]


def accepted() -> Request:
    return after(offered(), took(FAVORITE, "o1"))[0]


def in_progress() -> Request:
    return after(accepted(), SessionStarted(FAVORITE))[0]


def completed() -> Request:
    return after(in_progress(), SessionCompleted(FAVORITE))[0]


def unfilled() -> Request:
    request = broadcasting()
    assert request.offer is not None
    return after(request, WindowElapsed("o2"), now_ms=request.offer.ends_at_ms)[0]


def cancelled() -> Request:
    return after(offered(), RequestCancelled())[0]


ALL = [offered, broadcasting, accepted, in_progress, completed, unfilled, cancelled]
SETTLED = [completed, unfilled, cancelled]


# --- row by row -------------------------------------------------------------------------------------------------------


def test_a_paid_request_for_a_favorite_is_offered_to_them_alone_for_the_priority_window():
    request, commands = new()
    window = OpenWindow("o1", OfferKind.PRIORITY, FAVORITE, NOW_MS, PRIORITY_END_MS)
    assert (request.status, request.offer, request.version) == (RequestStatus.PRIORITY_OFFERED, window, 1)
    assert request.priority_offer_id == "o1"
    assert commands == [
        Record("paid", {"amount_cents": 2999}),
        OpenOffer(window),
        Record("offered", {"mechanic_id": FAVORITE}),
    ]


def test_a_request_for_anyone_is_broadcast_at_once_and_that_is_no_fallback():
    request, commands = new(is_priority=False)
    window = OpenWindow("o1", OfferKind.BROADCAST, None, NOW_MS, NOW_MS + 900_000)
    assert (request.status, request.offer, request.fallback) == (RequestStatus.BROADCASTING, window, None)
    assert request.priority_offer_id is None
    assert commands == [Record("paid", {"amount_cents": 2999}), OpenOffer(window), Record("broadcast")]


def test_a_free_request_was_not_paid_and_its_story_says_so():
    assert new(paid_cents=0)[1][0] == Record("requested")


def test_the_favorite_accepts_and_has_the_request():
    request, commands = after(offered(), took(FAVORITE, "o1"), now_ms=NOW_MS + 5)
    assert (request.status, request.assigned_mechanic_id, request.offer) == (RequestStatus.ACCEPTED, FAVORITE, None)
    assert request.accepted_at_ms == NOW_MS + 5
    assert commands == [Assign(FAVORITE), CloseOffer("o1", "taken"), Record("accepted", {"mechanic_id": FAVORITE})]


def test_the_favorite_declines_and_everyone_else_is_asked_at_once():
    request, commands = after(offered(), MechanicDeclined(FAVORITE, "o1", "on holiday"))
    window = OpenWindow("o2", OfferKind.BROADCAST, None, NOW_MS, NOW_MS + 900_000)
    assert (request.status, request.fallback, request.offer) == (
        RequestStatus.BROADCASTING,
        FallbackReason.DECLINED,
        window,
    )
    assert request.excluded == {FAVORITE}
    assert commands == [
        Exclude(FAVORITE, "declined"),
        Record("declined", {"mechanic_id": FAVORITE, "reason": "on holiday"}),
        CloseOffer("o1", "declined"),
        OpenOffer(window),
        Record("broadcast"),
    ]


def test_a_decline_without_a_reason_records_none():
    _, commands = after(offered(), MechanicDeclined(FAVORITE, "o1"))
    assert Record("declined", {"mechanic_id": FAVORITE}) in commands


def test_the_customer_skips_the_wait_and_everyone_is_asked_the_favorite_included():
    request, commands = after(offered(), WaitSkipped())
    assert (request.status, request.fallback, request.excluded) == (
        RequestStatus.BROADCASTING,
        FallbackReason.SKIPPED,
        frozenset(),
    )
    assert request.offer is not None
    assert commands == [
        CloseOffer("o1", "skipped"),
        Record("skipped"),
        OpenOffer(request.offer),
        Record("broadcast"),
    ]


def test_the_priority_window_ends_and_everyone_is_asked_the_favorite_included():
    request, commands = after(offered(), WindowElapsed("o1"), now_ms=PRIORITY_END_MS)
    assert (request.status, request.fallback, request.excluded) == (
        RequestStatus.BROADCASTING,
        FallbackReason.EXPIRED,
        frozenset(),
    )
    assert request.offer == OpenWindow("o2", OfferKind.BROADCAST, None, PRIORITY_END_MS, PRIORITY_END_MS + 900_000)
    assert commands == [
        CloseOffer("o1", "expired"),
        Record("expired"),
        OpenOffer(request.offer),
        Record("broadcast"),
    ]


def test_whoever_accepts_the_broadcast_has_the_request():
    request, commands = after(broadcasting(), took(OTHER, "o2"))
    assert (request.status, request.assigned_mechanic_id) == (RequestStatus.ACCEPTED, OTHER)
    assert commands == [Assign(OTHER), CloseOffer("o2", "taken"), Record("accepted", {"mechanic_id": OTHER})]


def test_a_decline_of_the_broadcast_concerns_nobody_but_who_declined():
    before = broadcasting()
    request, commands = after(before, MechanicDeclined(OTHER, "o2"))
    assert commands == [Exclude(OTHER, "declined"), WithdrawFrom("o2", OTHER)]
    assert request == replace(before, excluded=frozenset({OTHER}))


def test_the_broadcast_ends_unfilled_and_the_money_goes_back():
    request, commands = after(broadcasting(), WindowElapsed("o2"), now_ms=BROADCAST_END_MS + ACCEPT_LEEWAY_MS)
    assert (request.status, request.offer) == (RequestStatus.UNFILLED, None)
    assert request.settled_at_ms == BROADCAST_END_MS + ACCEPT_LEEWAY_MS
    assert commands == [CloseOffer("o2", "expired"), Record("unfilled"), OweRefund("unfilled")]


def test_the_mechanic_starts_the_session():
    request, commands = after(accepted(), SessionStarted(FAVORITE), now_ms=NOW_MS + 7)
    assert (request.status, request.started_at_ms, commands) == (
        RequestStatus.IN_PROGRESS,
        NOW_MS + 7,
        [Record("started")],
    )


def test_the_mechanic_completes_the_session_and_is_free_and_the_customer_is_asked_to_keep_them():
    request, commands = after(in_progress(), SessionCompleted(FAVORITE), now_ms=NOW_MS + 9)
    assert (request.status, request.completed_at_ms, request.settled_at_ms) == (
        RequestStatus.COMPLETED,
        NOW_MS + 9,
        NOW_MS + 9,
    )
    assert commands == [Free(FAVORITE), Record("completed"), PromptFavorite(FAVORITE)]


def test_the_mechanic_gives_the_request_back_and_everyone_else_is_asked():
    request, commands = after(accepted(), MechanicReleased(FAVORITE), offer_id="o3")
    assert (request.status, request.assigned_mechanic_id, request.accepted_at_ms) == (
        RequestStatus.BROADCASTING,
        None,
        None,
    )
    assert request.excluded == {FAVORITE}
    assert request.offer is not None
    assert commands == [
        Free(FAVORITE),
        Exclude(FAVORITE, "released"),
        Record("released", {"mechanic_id": FAVORITE}),
        OpenOffer(request.offer),
        Record("broadcast"),
        Tell(FAVORITE),
    ]


@pytest.mark.parametrize(
    ("before", "first_commands"),
    [
        (offered, [CloseOffer("o1", "cancelled")]),
        (broadcasting, [CloseOffer("o2", "cancelled")]),
        (accepted, [Free(FAVORITE)]),
    ],
)
def test_the_customer_cancels_before_the_session_and_gets_the_money_back(before, first_commands):
    request, commands = after(before(), RequestCancelled(), now_ms=NOW_MS + 3)
    assert (request.status, request.offer, request.settled_at_ms) == (RequestStatus.CANCELLED, None, NOW_MS + 3)
    assert commands == [*first_commands, Record("cancelled"), OweRefund("cancelled")]


def test_a_request_cancelled_after_an_accept_still_says_who_had_it():
    assert after(accepted(), RequestCancelled())[0].assigned_mechanic_id == FAVORITE


# --- who may, and until when ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("because", [FallbackReason.EXPIRED, FallbackReason.SKIPPED])
def test_a_late_accept_of_the_priority_offer_counts_in_the_broadcast(because: FallbackReason):
    request, commands = after(broadcasting(because), took(FAVORITE, "o1"))
    assert (request.status, request.assigned_mechanic_id) == (RequestStatus.ACCEPTED, FAVORITE)
    assert CloseOffer("o2", "taken") in commands


def test_only_the_favorite_can_accept_the_priority_offer_late():
    assert refused(broadcasting(), took(OTHER, "o1")) == OfferGone(detail="This offer has expired.")


def test_a_late_accept_of_the_priority_offer_loses_to_whoever_was_faster():
    taken = after(broadcasting(), took(OTHER, "o2"))[0]
    assert refused(taken, took(FAVORITE, "o1")) == OfferGone(detail="Another mechanic was faster.")


def test_a_broadcast_of_a_kind_that_a_mechanic_has_switched_off_is_not_theirs_to_accept():
    gone = refused(broadcasting(), MechanicAccepted(OTHER, "o2", NOW_MS, takes_it=False))
    assert gone == OfferGone(detail="You have switched off sessions of this kind.")


@pytest.mark.parametrize("before", [offered, broadcasting], ids=["in its window", "late"])
def test_a_priority_offer_is_the_favorites_whatever_they_have_switched_off(before):
    request, _ = after(before(), MechanicAccepted(FAVORITE, "o1", NOW_MS, takes_it=False))
    assert (request.status, request.assigned_mechanic_id) == (RequestStatus.ACCEPTED, FAVORITE)


def test_a_favorite_who_declined_is_not_in_the_broadcast_by_either_offer():
    request = broadcasting(FallbackReason.DECLINED)
    for offer_id in ("o1", "o2"):
        assert refused(request, took(FAVORITE, offer_id)) == OfferGone(detail="You declined this request.")


def test_nobody_but_the_favorite_can_take_or_decline_the_priority_offer():
    for event in (took(OTHER, "o1"), MechanicDeclined(OTHER, "o1")):
        assert refused(offered(), event) == OfferGone(detail="This offer is for another mechanic.")


def test_a_window_never_ends_early():
    assert refused(offered(), WindowElapsed("o1"), now_ms=PRIORITY_END_MS - 1).code == "wrong_state"
    last_ms = BROADCAST_END_MS + ACCEPT_LEEWAY_MS - 1
    assert refused(broadcasting(), WindowElapsed("o2"), now_ms=last_ms).code == "wrong_state"


def test_a_priority_window_ends_at_its_deadline_and_a_broadcast_a_moment_after_it():
    priority, broadcast = offered().offer, broadcasting().offer
    assert priority is not None
    assert broadcast is not None
    assert priority.ends_at_ms == priority.expires_at_ms
    assert broadcast.ends_at_ms == broadcast.expires_at_ms + ACCEPT_LEEWAY_MS


def test_the_end_of_a_window_that_is_no_longer_open_means_nothing():
    assert refused(broadcasting(), WindowElapsed("o1"), now_ms=PRIORITY_END_MS * 2).code == "wrong_state"


def test_the_favorites_accept_counts_after_the_deadline_while_nobody_has_ended_the_window():
    late_ms = PRIORITY_END_MS + 20
    assert after(offered(), took(FAVORITE, "o1", late_ms), now_ms=late_ms)[0].status is RequestStatus.ACCEPTED


def test_an_accept_that_reaches_us_after_the_broadcasts_deadline_is_refused():
    request = broadcasting()
    assert request.offer is not None
    end_ms = request.offer.expires_at_ms
    for mechanic_id, offer_id in ((OTHER, "o2"), (FAVORITE, "o1")):
        assert refused(request, took(mechanic_id, offer_id, end_ms), now_ms=end_ms + 1).code == "offer_gone"


@pytest.mark.parametrize(("mechanic_id", "offer_id"), [(OTHER, "o2"), (FAVORITE, "o2"), (FAVORITE, "o1")])
def test_an_accept_that_reached_us_before_the_broadcasts_deadline_wins_though_the_timer_fires_while_it_is_on_its_way(
    mechanic_id: str, offer_id: str
):
    request = broadcasting()
    assert request.offer is not None
    end_ms = request.offer.expires_at_ms
    for on_its_way_ms in (0, 50, ACCEPT_LEEWAY_MS - 1):
        decided_at_ms = end_ms + on_its_way_ms
        assert refused(request, WindowElapsed("o2"), now_ms=decided_at_ms).code == "wrong_state"
        won, _ = after(request, took(mechanic_id, offer_id, end_ms - 1), now_ms=decided_at_ms)
        assert (won.status, won.assigned_mechanic_id) == (RequestStatus.ACCEPTED, mechanic_id)


def test_an_accept_from_before_the_deadline_that_is_decided_after_the_end_comes_too_late_for_the_money_is_on_its_way_back():
    request = unfilled()
    gone = refused(request, took(OTHER, "o2", BROADCAST_END_MS - 1), now_ms=BROADCAST_END_MS + ACCEPT_LEEWAY_MS)
    assert gone == OfferGone(detail="The offer expired before anyone accepted.")


def test_an_accept_that_reached_us_earlier_than_the_winners_but_is_decided_after_it_has_lost():
    taken, _ = after(broadcasting(), took(OTHER, "o2", BROADCAST_END_MS - 1), now_ms=BROADCAST_END_MS)
    for mechanic_id, offer_id in ((THIRD, "o2"), (FAVORITE, "o2"), (FAVORITE, "o1")):
        early = took(mechanic_id, offer_id, BROADCAST_END_MS - 500)
        assert refused(taken, early, now_ms=BROADCAST_END_MS + 1).detail == "Another mechanic was faster."


def test_whoever_gave_the_request_back_cannot_take_it_again():
    again = after(accepted(), MechanicReleased(FAVORITE), offer_id="o3")[0]
    for offer_id in ("o1", "o3"):
        assert refused(again, took(FAVORITE, offer_id)).code == "offer_gone"
    assert after(again, took(OTHER, "o3"))[0].assigned_mechanic_id == OTHER


def test_an_earlier_broadcasts_offer_cannot_be_taken_in_a_later_one():
    first = after(broadcasting(), took(OTHER, "o2"))[0]
    again = after(first, MechanicReleased(OTHER), offer_id="o3")[0]
    assert refused(again, took(THIRD, "o2")).code == "offer_gone"


def test_the_favorite_may_decline_late_and_is_then_not_asked_in_the_broadcast():
    request, commands = after(broadcasting(), MechanicDeclined(FAVORITE, "o1"))
    assert commands == [Exclude(FAVORITE, "declined"), WithdrawFrom("o2", FAVORITE)]
    assert FAVORITE in request.excluded


def test_the_favorite_means_the_open_offer_by_its_id_or_the_priority_offers_and_by_no_other():
    for event in (took(FAVORITE, "o7"), MechanicDeclined(FAVORITE, "o7")):
        assert refused(broadcasting(), event) == OfferGone(detail="This offer has expired.")


def test_nobody_can_decline_twice_and_nobody_else_by_the_priority_offers_id():
    once = after(broadcasting(), MechanicDeclined(OTHER, "o2"))[0]
    assert refused(once, MechanicDeclined(OTHER, "o2")).code == "offer_gone"
    assert refused(broadcasting(), MechanicDeclined(OTHER, "o1")).code == "offer_gone"


def test_a_reason_why_an_offer_is_gone_is_true():
    again = after(accepted(), MechanicReleased(FAVORITE), offer_id="o3")[0]
    assert refused(again, took(FAVORITE, "o3")).detail == "You gave this request back."
    assert refused(accepted(), MechanicDeclined(FAVORITE, "o1")).detail == "You have accepted this request."
    assert refused(cancelled(), took(FAVORITE, "o1")).detail == "The customer cancelled the request."
    assert refused(unfilled(), took(OTHER, "o2")).detail == "The offer expired before anyone accepted."
    for taken in (accepted, in_progress, completed):
        assert refused(taken(), took(OTHER, "o1")).detail == "Another mechanic was faster."


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "possible"),
    [
        (WaitSkipped(), {offered}),
        (RequestCancelled(), {offered, broadcasting, accepted}),
        (SessionStarted(FAVORITE), {accepted}),
        (SessionCompleted(FAVORITE), {in_progress}),
        (MechanicReleased(FAVORITE), {accepted}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_done_in_a_status_is_refused_with_a_sentence(event: Event, possible):
    for before in ALL:
        outcome = step(before(), event, now_ms=NOW_MS, next_offer_id="o9", windows=WINDOWS)
        if before not in possible:
            assert isinstance(outcome, Refused)
            assert outcome.code == "wrong_state"
            assert outcome.detail.endswith(f"a request that is {before().status.value.replace('_', ' ')}.")
        else:
            assert not isinstance(outcome, Refused)


@pytest.mark.parametrize("settled", SETTLED)
def test_a_settled_request_ignores_everything(settled):
    request = settled()
    for event in (
        took(FAVORITE, "o1"),
        took(OTHER, "o2"),
        MechanicDeclined(FAVORITE, "o1"),
        MechanicDeclined(OTHER, "o2"),
        WindowElapsed("o1"),
        WindowElapsed("o2"),
        WaitSkipped(),
        RequestCancelled(),
        SessionStarted(FAVORITE),
        SessionCompleted(FAVORITE),
        MechanicReleased(FAVORITE),
    ):
        refused(request, event, now_ms=NOW_MS * 2)


@pytest.mark.parametrize("event", [SessionStarted(OTHER), SessionCompleted(OTHER), MechanicReleased(OTHER)])
def test_only_the_assigned_mechanic_starts_completes_or_gives_back(event: Event):
    for before in ALL:
        assert refused(before(), event).code in ("not_found", "wrong_state")


def test_the_version_grows_by_one_with_everything_that_the_customer_can_see():
    story: list[tuple[Event, str]] = [
        (WaitSkipped(), "o2"),
        (took(OTHER, "o2"), ""),
        (MechanicReleased(OTHER), "o3"),
        (took(FAVORITE, "o3"), ""),
        (SessionStarted(FAVORITE), ""),
        (SessionCompleted(FAVORITE), ""),
    ]
    request, versions = offered(), [1]
    for event, offer_id in story:
        request, _ = after(request, event, offer_id=offer_id)
        versions.append(request.version)
    assert versions == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("before", [offered, broadcasting, accepted])
def test_the_end_is_one_version_more_so_that_no_page_takes_it_for_what_it_shows_already(before):
    assert after(before(), RequestCancelled())[0].version == before().version + 1
    assert after(broadcasting(), WindowElapsed("o2"), now_ms=NOW_MS * 2)[0].version == broadcasting().version + 1
