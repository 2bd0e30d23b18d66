"""The life of a request, row by row of its table, and what is refused."""

from dataclasses import replace

import pytest

from dispatch.request import (
    ACCEPT_LEEWAY_MS,
    AnotherWanted,
    Assign,
    CloseOffer,
    Event,
    Exclude,
    Free,
    KeepFrom,
    LimitMissing,
    MechanicAccepted,
    MechanicDeclined,
    MechanicReleased,
    OpenOffer,
    OpenWindow,
    OperatorRefunded,
    OperatorSettled,
    OweRefund,
    PromptFavorite,
    Record,
    Request,
    RequestCancelled,
    SessionCompleted,
    SessionReported,
    SessionStarted,
    Tell,
    TimeLimit,
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
WINDOWS = Windows(priority_ms=600_000, broadcast_ms=900_000, start_ms=300_000, grace_ms=900_000)
SESSION_MS = 600_000
FAVORITE, OTHER, THIRD = "favorite", "other", "third"
PRIORITY_END_MS = NOW_MS + 600_000
BROADCAST_END_MS = PRIORITY_END_MS + 900_000


def new(*, is_priority: bool = True, paid_cents: int = 2999) -> Transition:
    return opened(
        "r",
        paid_cents=paid_cents,
        session_ms=SESSION_MS,
        preferred_mechanic_id=FAVORITE if is_priority else None,
        is_priority=is_priority,
        offer_id="o1",
        now_ms=NOW_MS,
        windows=WINDOWS,
    )


def after(request: Request, event: Event, *, now_ms: int = NOW_MS, offer_id: str = "o2") -> Transition:
    outcome = step(request, event, now_ms=now_ms, next_id=offer_id, windows=WINDOWS)
    assert not isinstance(outcome, Refused), outcome
    return outcome


def refused(request: Request, event: Event, *, now_ms: int = NOW_MS) -> Refused:
    outcome = step(request, event, now_ms=now_ms, next_id="unused", windows=WINDOWS)
    assert isinstance(outcome, Refused), outcome
    return outcome


def took(mechanic_id: str, offer_id: str, at_ms: int = NOW_MS, closed: str | None = None) -> MechanicAccepted:
    return MechanicAccepted(mechanic_id, offer_id, at_ms, closed=closed)


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
    assert commands == [
        Free(FAVORITE),
        Record("completed", {"by": "mechanic", "lasted_s": 0}),
        PromptFavorite(FAVORITE),
    ]


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


# --- the time limits of a session, and what ends it -------------------------------------------------------------------


START_END_MS = NOW_MS + 300_000
SESSION_END_MS = NOW_MS + SESSION_MS + 900_000


def test_whoever_accepts_has_the_start_window_to_start():
    request, _ = after(offered(), took(FAVORITE, "o1"), offer_id="l1")
    assert request.limit == TimeLimit("l1", START_END_MS, rings_at_ms=NOW_MS + 150_000)


def test_at_half_of_the_start_window_the_mechanic_is_reminded_once():
    before = after(offered(), took(FAVORITE, "o1"), offer_id="l1")[0]
    assert refused(before, WindowElapsed("l1"), now_ms=NOW_MS + 149_999).code == "wrong_state"
    request, commands = after(before, WindowElapsed("l1"), now_ms=NOW_MS + 150_000)
    assert (request.status, request.limit) == (RequestStatus.ACCEPTED, TimeLimit("l1", START_END_MS, START_END_MS))
    assert request.version == before.version + 1
    assert commands == [Record("reminded", {"mechanic_id": FAVORITE})]
    assert refused(request, WindowElapsed("l1"), now_ms=START_END_MS - 1).code == "wrong_state"


@pytest.mark.parametrize("is_reminded", [True, False], ids=["reminded", "nobody could remind them"])
def test_whoever_does_not_start_in_time_loses_the_request_and_everyone_else_is_asked(is_reminded: bool):
    before = after(offered(), took(FAVORITE, "o1"), offer_id="l1")[0]
    if is_reminded:
        before = after(before, WindowElapsed("l1"), now_ms=NOW_MS + 150_000)[0]
    request, commands = after(before, WindowElapsed("l1"), now_ms=START_END_MS, offer_id="o3")
    assert (request.status, request.assigned_mechanic_id, request.accepted_at_ms, request.limit) == (
        RequestStatus.BROADCASTING,
        None,
        None,
        None,
    )
    assert request.excluded == {FAVORITE}
    assert request.offer is not None
    assert commands == [
        Free(FAVORITE),
        Exclude(FAVORITE, "no_show"),
        Record("no_show", {"mechanic_id": FAVORITE}),
        OpenOffer(request.offer),
        Record("broadcast"),
        Tell(FAVORITE),
    ]
    assert refused(request, took(FAVORITE, "o1")).detail == "You had this request and did not start in time."


def test_a_start_after_the_start_window_counts_while_nothing_has_followed_from_that():
    before = after(offered(), took(FAVORITE, "o1"), offer_id="l1")[0]
    started = after(before, SessionStarted(FAVORITE), now_ms=START_END_MS + 20)[0]
    assert started.status is RequestStatus.IN_PROGRESS
    assert refused(started, WindowElapsed("l1"), now_ms=START_END_MS + 21).code == "wrong_state"


def test_the_customer_asks_for_another_mechanic_and_everyone_but_this_one_is_asked():
    request, commands = after(accepted(), AnotherWanted(), offer_id="o3")
    assert (request.status, request.assigned_mechanic_id, request.limit) == (RequestStatus.BROADCASTING, None, None)
    assert request.offer is not None
    assert commands == [
        Free(FAVORITE),
        Exclude(FAVORITE, "find_another"),
        Record("find_another", {"mechanic_id": FAVORITE}),
        OpenOffer(request.offer),
        Record("broadcast"),
        Tell(FAVORITE),
    ]
    assert refused(request, took(FAVORITE, "o3")).detail == "The customer asked for another mechanic."


def test_a_wish_for_another_mechanic_costs_only_the_one_whom_it_means():
    wish = AnotherWanted(FAVORITE)
    assert after(accepted(), wish, offer_id="o3")[0] == after(accepted(), AnotherWanted(), offer_id="o3")[0]
    again = after(after(accepted(), wish, offer_id="o3")[0], took(OTHER, "o3"))[0]
    assert again.assigned_mechanic_id == OTHER
    # Repeated because the answer was lost, or overtaken by a no-show.
    assert refused(again, wish).code == "wrong_state"
    assert refused(again, wish).detail == "Another mechanic than the one you mean has this request by now."
    assert after(again, AnotherWanted(OTHER))[0].excluded == {FAVORITE, OTHER}


@pytest.mark.parametrize(
    "deed",
    [WaitSkipped(), RequestCancelled(), MechanicReleased(FAVORITE), SessionStarted(FAVORITE), SessionCompleted(None)],
    ids=lambda deed: type(deed).__name__,
)
def test_no_other_deed_can_hit_a_second_mechanic_when_it_is_repeated_later(deed):
    before = {WaitSkipped: offered, SessionCompleted: in_progress}.get(type(deed), accepted)()
    request = after(before, deed, offer_id="o3")[0]
    if request.offer is not None:
        request = after(request, took(OTHER, "o3"))[0]
    assert refused(request, deed).code in ("wrong_state", "not_found")


def test_a_session_that_nobody_ends_is_over_when_the_plans_minutes_and_the_grace_have_passed():
    before = after(accepted(), SessionStarted(FAVORITE), offer_id="l2")[0]
    assert before.limit == TimeLimit("l2", SESSION_END_MS, SESSION_END_MS)
    assert refused(before, WindowElapsed("l2"), now_ms=SESSION_END_MS - 1).code == "wrong_state"
    request, commands = after(before, WindowElapsed("l2"), now_ms=SESSION_END_MS)
    assert (request.status, request.completed_at_ms, request.limit) == (
        RequestStatus.COMPLETED,
        SESSION_END_MS,
        None,
    )
    assert commands == [
        Free(FAVORITE),
        Record("completed", {"by": "time", "lasted_s": 1500}),
        PromptFavorite(FAVORITE),
    ]


def test_the_customer_ends_the_session_as_the_mechanic_may():
    _, commands = after(in_progress(), SessionCompleted(None), now_ms=NOW_MS + 4_900)
    assert Record("completed", {"by": "customer", "lasted_s": 4}) in commands


def test_a_session_can_be_reported_once_within_seven_days_of_its_end():
    week_ms = 7 * 24 * 3600 * 1000
    request, commands = after(completed(), SessionReported("nobody came"), now_ms=NOW_MS + week_ms)
    assert (request.status, request.version) == (RequestStatus.COMPLETED, completed().version + 1)
    assert commands == [Record("reported", {"reason": "nobody came"}), KeepFrom(FAVORITE)]
    assert refused(request, SessionReported("again")).code == "already_reported"
    assert refused(completed(), SessionReported("late"), now_ms=NOW_MS + week_ms + 1).code == "wrong_state"


@pytest.mark.parametrize("before", [accepted, in_progress])
def test_what_an_earlier_version_left_without_a_time_limit_gets_one(before):
    left = replace(before(), limit=None)
    late_ms = NOW_MS + 10 * SESSION_END_MS
    request, commands = after(left, LimitMissing(), now_ms=late_ms, offer_id="l9")
    assert commands == []
    assert request.version == left.version + 1
    if before is accepted:
        assert request.limit == TimeLimit("l9", late_ms + 300_000, late_ms + 150_000)
    else:
        assert request.limit == TimeLimit("l9", late_ms + 900_000, late_ms + 900_000)
        soon = after(left, LimitMissing(), now_ms=NOW_MS + 1, offer_id="l9")[0]
        assert soon.limit == TimeLimit("l9", SESSION_END_MS, SESSION_END_MS)
    assert refused(request, LimitMissing()).code == "wrong_state"


# --- operators --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [offered, broadcasting, accepted])
def test_what_an_operator_gives_back_before_the_session_is_cancelled(before):
    request, commands = after(before(), OperatorRefunded("asked by phone"))
    assert (request.status, request.offer, request.limit) == (RequestStatus.CANCELLED, None, None)
    assert commands[-2:] == [Record("cancelled", {"cause": "operator"}), OweRefund("operator", "asked by phone")]


@pytest.mark.parametrize("before", [in_progress, completed, cancelled])
def test_what_an_operator_gives_back_otherwise_stays_where_it_is(before):
    request, commands = after(before(), OperatorRefunded("asked by phone"))
    assert (request.status, commands) == (before().status, [OweRefund("operator", "asked by phone")])
    assert refused(replace(request, has_refund=True), OperatorRefunded("again")).code == "already_refunded"


def test_an_operator_settles_what_is_stuck():
    for before in (offered, broadcasting, accepted, in_progress):
        request, commands = after(before(), OperatorSettled("unfilled"))
        assert (request.status, request.offer, request.limit) == (RequestStatus.UNFILLED, None, None)
        assert commands[-1] == OweRefund("unfilled")
    for before in (accepted, in_progress):
        request, commands = after(before(), OperatorSettled("completed"))
        assert (request.status, commands[0]) == (RequestStatus.COMPLETED, Free(FAVORITE))
    for before in (offered, broadcasting, *SETTLED):
        assert refused(before(), OperatorSettled("completed")).code == "wrong_state"


# --- who may, and until when ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("because", [FallbackReason.EXPIRED, FallbackReason.SKIPPED])
def test_a_late_accept_of_the_priority_offer_counts_in_the_broadcast(because: FallbackReason):
    request, commands = after(broadcasting(because), took(FAVORITE, "o1"))
    assert (request.status, request.assigned_mechanic_id) == (RequestStatus.ACCEPTED, FAVORITE)
    assert CloseOffer("o2", "taken") in commands


def test_only_the_favorite_can_accept_the_priority_offer_late():
    gone = OfferGone(detail="This offer has expired.")
    assert refused(broadcasting(), took(OTHER, "o1", closed="expired")) == gone


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
    early = took(OTHER, "o2", BROADCAST_END_MS - 1, closed="expired")
    gone = refused(request, early, now_ms=BROADCAST_END_MS + ACCEPT_LEEWAY_MS)
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
        assert refused(broadcasting(), event) == OfferGone(detail="This offer is no longer open.")


def test_nobody_can_decline_twice_and_nobody_else_by_the_priority_offers_id():
    once = after(broadcasting(), MechanicDeclined(OTHER, "o2"))[0]
    assert refused(once, MechanicDeclined(OTHER, "o2")).code == "offer_gone"
    assert refused(broadcasting(), MechanicDeclined(OTHER, "o1")).code == "offer_gone"


def test_a_reason_why_an_offer_is_gone_is_true():
    again = after(accepted(), MechanicReleased(FAVORITE), offer_id="o3")[0]
    assert refused(again, took(FAVORITE, "o3")).detail == "You gave this request back."
    assert refused(accepted(), MechanicDeclined(FAVORITE, "o1")).detail == "You have accepted this request."
    assert refused(cancelled(), took(FAVORITE, "o1")).detail == "The request was cancelled."
    expired = took(OTHER, "o2", closed="expired")
    assert refused(unfilled(), expired).detail == "The offer expired before anyone accepted."
    for taken in (accepted, in_progress, completed):
        assert refused(taken(), took(OTHER, "o1")).detail == "Another mechanic was faster."
    # Of an offer that somebody took who has lost the request since; of one of which nobody knows.
    assert refused(again, took(OTHER, "o1", closed="taken")).detail == "Another mechanic was faster."
    assert refused(again, took(OTHER, "o1")).detail == "This offer is no longer open."
    # An operator has ended it, whoever had it.
    settled = after(accepted(), OperatorSettled("unfilled"))[0]
    for mechanic_id in (FAVORITE, OTHER):
        assert refused(settled, took(mechanic_id, "o1", closed="taken")).detail == "This offer is no longer open."


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "possible"),
    [
        (WaitSkipped(), {offered}),
        (RequestCancelled(), {offered, broadcasting, accepted}),
        (SessionStarted(FAVORITE), {accepted}),
        (SessionCompleted(FAVORITE), {in_progress}),
        (MechanicReleased(FAVORITE), {accepted}),
        (AnotherWanted(), {accepted}),
        (SessionCompleted(None), {in_progress}),
        (SessionReported("why"), {completed}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_done_in_a_status_is_refused_with_a_sentence(event: Event, possible):
    for before in ALL:
        outcome = step(before(), event, now_ms=NOW_MS, next_id="o9", windows=WINDOWS)
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
        AnotherWanted(),
        OperatorSettled("unfilled"),
        LimitMissing(),
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
