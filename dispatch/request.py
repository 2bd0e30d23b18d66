"""One session request, from paid to settled. Pure: no I/O, no clock, no randomness.

    (paid) ─────────────────────────────► PRIORITY_OFFERED or BROADCASTING   OpenOffer
    PRIORITY_OFFERED ─MechanicAccepted──► ACCEPTED        CloseOffer, Assign
    PRIORITY_OFFERED ─MechanicDeclined──► BROADCASTING    CloseOffer, Exclude, OpenOffer      because DECLINED
    PRIORITY_OFFERED ─WaitSkipped───────► BROADCASTING    CloseOffer, OpenOffer               because SKIPPED
    PRIORITY_OFFERED ─WindowElapsed─────► BROADCASTING    CloseOffer, OpenOffer               because EXPIRED
    BROADCASTING     ─MechanicAccepted──► ACCEPTED        CloseOffer, Assign
    BROADCASTING     ─MechanicDeclined──► BROADCASTING    Exclude, WithdrawFrom
    BROADCASTING     ─WindowElapsed─────► UNFILLED        CloseOffer, OweRefund
    ACCEPTED         ─SessionStarted────► IN_PROGRESS
    ACCEPTED         ─WindowElapsed─────► ACCEPTED        at half time: the mechanic is reminded
    ACCEPTED         ─WindowElapsed─────► BROADCASTING    Free, Exclude, OpenOffer, Tell      because no_show
    ACCEPTED         ─MechanicReleased──► BROADCASTING    Free, Exclude, OpenOffer, Tell      because released
    ACCEPTED         ─AnotherWanted─────► BROADCASTING    Free, Exclude, OpenOffer, Tell      because find_another
    ACCEPTED or IN_PROGRESS ─LimitMissing► the same       with the time limit that an earlier version has not set
    IN_PROGRESS      ─SessionCompleted──► COMPLETED       Free, PromptFavorite                by mechanic or customer
    IN_PROGRESS      ─WindowElapsed─────► COMPLETED       Free, PromptFavorite                by time
    COMPLETED        ─SessionReported───► COMPLETED       KeepFrom                            once, within seven days
    before IN_PROGRESS ─RequestCancelled► CANCELLED       CloseOffer, Free, OweRefund
    open             ─OperatorSettled───► COMPLETED or UNFILLED   CloseOffer, Free, OweRefund if unfilled
    any              ─OperatorRefunded──► the same, or CANCELLED before IN_PROGRESS   OweRefund
    any              ─PaymentMoved──────► the same, or CANCELLED before IN_PROGRESS   OweRefund, if nobody is paid for it any more

Whoever has to do something has a time limit: the mechanic who has accepted must start (``start window``), a session that has been
started ends. Both are windows like an offer's, on the same clock.

Every other pair of status and event is refused and changes nothing: networks repeat themselves.

The core cannot see other processes; that only one of two racing transitions happens is the database's part
(``request_store``). What follows from a transition is decided here alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypedDict, assert_never

from models.outcomes import NotFound, OfferGone, Refused
from models.words import (
    CompletedBy,
    ExclusionReason,
    FallbackReason,
    Loss,
    OfferKind,
    RequestStatus,
    Settlement,
    WithdrawReason,
)

ACCEPT_LEEWAY_MS = 250
"""How long a broadcast outlives its deadline, for accepts that reached a server in time and are still on their way to SQL."""

OPEN = frozenset(
    {RequestStatus.PRIORITY_OFFERED, RequestStatus.BROADCASTING, RequestStatus.ACCEPTED, RequestStatus.IN_PROGRESS}
)
"""Statuses from which something will still follow by itself or by somebody."""
SERVING = frozenset({RequestStatus.ACCEPTED, RequestStatus.IN_PROGRESS})
"""Statuses in which a mechanic has it and something is still to follow: they must start, or the session goes on."""
BEFORE_START = OPEN - {RequestStatus.IN_PROGRESS}

REPORTABLE_MS = 7 * 24 * 3600 * 1000
"""How long after its end a session can be reported (contract)."""


# --- state ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OpenWindow:
    """An offer that can be taken until ``expires_at_ms``; ``mechanic_id`` ``None``: by anyone not excluded."""

    offer_id: str
    kind: OfferKind
    mechanic_id: str | None
    opened_at_ms: int
    expires_at_ms: int

    @property
    def ends_at_ms(self) -> int:
        """When time ends it, if nobody has before."""
        return ends_at_ms(self.kind, self.expires_at_ms)


def ends_at_ms(kind: str, expires_at_ms: int) -> int:
    """Return when time ends a window whose deadline is ``expires_at_ms``; never before it.

    A priority window ends sharp: an accept that was on its way counts in the broadcast. After a broadcast the money goes back
    and no accept can count any more, so one that was stamped in time, on whichever node, gets a moment to be committed.
    """
    return expires_at_ms + (ACCEPT_LEEWAY_MS if kind == OfferKind.BROADCAST else 0)


@dataclass(frozen=True)
class Windows:
    """How long each kind of window stays open."""

    priority_ms: int
    broadcast_ms: int
    start_ms: int
    """How long whoever has accepted may take to start."""
    grace_ms: int
    """How long a session may outlast the minutes of its plan."""


@dataclass(frozen=True)
class TimeLimit:
    """Until when an accepted request must be started, or a session that has been started goes on; ends as a window does.

    ``rings_at_ms`` is when time has to do something next: at half of a start window, to remind; then, as always, at its end.
    """

    id: str
    expires_at_ms: int
    rings_at_ms: int


@dataclass(frozen=True)
class Request:
    """Where a request stands. ``version`` grows by one with everything that its customer can see."""

    id: str
    version: int
    status: RequestStatus
    preferred_mechanic_id: str | None
    assigned_mechanic_id: str | None
    fallback: FallbackReason | None
    offer: OpenWindow | None
    priority_offer_id: str | None
    session_ms: int
    """The minutes of its plan."""
    excluded: frozenset[str] = field(default_factory=frozenset)
    lost_by: Mapping[str, Loss] = field(default_factory=dict)
    """Of the excluded those who had it, and how they came to lose it."""
    limit: TimeLimit | None = None
    """While it is accepted or in progress; ``None`` then only if a node of an earlier version has done that."""
    is_reported: bool = False
    has_refund: bool = False
    """Whether all that was paid is to go back, or has gone back."""
    accepted_at_ms: int | None = None
    started_at_ms: int | None = None
    completed_at_ms: int | None = None
    settled_at_ms: int | None = None


# --- events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MechanicAccepted:
    """``received_at_ms`` is when the accept reached a server: before the deadline counts, though it is decided after it.

    ``takes_it``: whether the mechanic takes sessions of this kind, as far as a broadcast goes. ``closed``: see ``why_gone``.
    """

    mechanic_id: str
    offer_id: str
    received_at_ms: int
    takes_it: bool = True
    closed: str | None = None


@dataclass(frozen=True)
class MechanicDeclined:
    """``closed``: see ``why_gone``."""

    mechanic_id: str
    offer_id: str
    reason: str | None = None
    closed: str | None = None


@dataclass(frozen=True)
class WindowElapsed:
    """``window_id`` is of an offer, or of a time limit."""

    window_id: str


@dataclass(frozen=True)
class WaitSkipped:
    """The customer no longer wants to wait for the favourite."""


@dataclass(frozen=True)
class RequestCancelled:
    """The customer wants their money back instead."""


@dataclass(frozen=True)
class SessionStarted:
    mechanic_id: str


@dataclass(frozen=True)
class SessionCompleted:
    """``mechanic_id`` ``None``: its customer says so."""

    mechanic_id: str | None


@dataclass(frozen=True)
class MechanicReleased:
    mechanic_id: str


@dataclass(frozen=True)
class AnotherWanted:
    """The customer no longer wants to wait for the mechanic who has accepted.

    ``mechanic_id`` is whom they mean: what they say may arrive twice, or late, when somebody else has the request. ``None``:
    whoever has it, as a client of an earlier version says.
    """

    mechanic_id: str | None = None


@dataclass(frozen=True)
class SessionReported:
    """The customer says that something was wrong with the session."""

    reason: str


@dataclass(frozen=True)
class OperatorRefunded:
    """The operator gives back what was paid."""

    reason: str


@dataclass(frozen=True)
class OperatorSettled:
    """The operator ends what is stuck."""

    as_: Settlement


@dataclass(frozen=True)
class PaymentMoved:
    """Others have moved money of the payment at Stripe: the operator in its dashboard, or the customer's bank.

    ``returned_cents`` and ``failed_cents``: what they have given back, and what of that has come back. ``is_all_returned``: nothing
    is left of the payment. ``dispute``: how one stands that stood otherwise.
    """

    returned_cents: int = 0
    failed_cents: int = 0
    is_all_returned: bool = False
    dispute: Literal["open", "won", "lost"] | None = None


@dataclass(frozen=True)
class LimitMissing:
    """A node of an earlier version has let the request be accepted or started, and set no time limit."""


Event = (
    MechanicAccepted
    | MechanicDeclined
    | WindowElapsed
    | WaitSkipped
    | RequestCancelled
    | SessionStarted
    | SessionCompleted
    | MechanicReleased
    | AnotherWanted
    | SessionReported
    | OperatorRefunded
    | OperatorSettled
    | PaymentMoved
    | LimitMissing
)


# --- commands ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OpenOffer:
    window: OpenWindow


@dataclass(frozen=True)
class CloseOffer:
    offer_id: str
    reason: WithdrawReason


@dataclass(frozen=True)
class WithdrawFrom:
    """The offer stays open for others, but this mechanic's card goes."""

    offer_id: str
    mechanic_id: str


@dataclass(frozen=True)
class Exclude:
    mechanic_id: str
    because: ExclusionReason


@dataclass(frozen=True)
class Assign:
    """Only if the mechanic is in no other session; else the whole transition is off."""

    mechanic_id: str


@dataclass(frozen=True)
class Free:
    mechanic_id: str


@dataclass(frozen=True)
class OweRefund:
    """Give back what was paid; of the free plan, the right to the free session. ``reason`` is for operators."""

    cause: str
    reason: str | None = None


@dataclass(frozen=True)
class PromptFavorite:
    mechanic_id: str


@dataclass(frozen=True)
class Tell:
    """Somebody besides the customer and the assigned mechanic has to hear of the new state."""

    mechanic_id: str


@dataclass(frozen=True)
class KeepFrom:
    """The assigned mechanic does not hear of the new state: what is new in it is not for them."""

    mechanic_id: str


class Details(TypedDict, total=False):
    """What a line of the timeline says besides its event."""

    mechanic_id: str
    reason: str
    amount_cents: int
    cause: str
    by: CompletedBy
    lasted_s: int


@dataclass(frozen=True)
class Record:
    """A line of the timeline."""

    event: str
    details: Details = field(default_factory=Details)


Command = (
    OpenOffer
    | CloseOffer
    | WithdrawFrom
    | Exclude
    | Assign
    | Free
    | OweRefund
    | PromptFavorite
    | Tell
    | KeepFrom
    | Record
)
Transition = tuple[Request, list[Command]]


# --- the core ---------------------------------------------------------------------------------------------------------


def opened(
    request_id: str,
    *,
    paid_cents: int,
    session_ms: int,
    preferred_mechanic_id: str | None,
    is_priority: bool,
    offer_id: str,
    now_ms: int,
    windows: Windows,
) -> Transition:
    """Return a new request and the commands that offer it for the first time."""
    request = Request(
        id=request_id,
        version=1,
        status=RequestStatus.BROADCASTING,
        preferred_mechanic_id=preferred_mechanic_id,
        assigned_mechanic_id=None,
        fallback=None,
        offer=None,
        priority_offer_id=None,
        session_ms=session_ms,
    )
    paid = Record("paid", {"amount_cents": paid_cents}) if paid_cents else Record("requested")
    if not is_priority:
        broadcasting, commands = _broadcast(request, offer_id, now_ms, windows)
        return broadcasting, [paid, *commands]
    assert preferred_mechanic_id is not None, "a priority request names its favourite"
    window = OpenWindow(offer_id, OfferKind.PRIORITY, preferred_mechanic_id, now_ms, now_ms + windows.priority_ms)
    offered = replace(request, status=RequestStatus.PRIORITY_OFFERED, offer=window, priority_offer_id=offer_id)
    return offered, [paid, OpenOffer(window), Record("offered", {"mechanic_id": preferred_mechanic_id})]


def ended_at_once(request_id: str, *, paid_cents: int, session_ms: int, cause: str, now_ms: int) -> Transition:
    """Return a request that is not offered to anybody, as its payment must not be served, and the commands that give that back.

    Its customer sees what they have paid for, why nobody comes, and where the money is.
    """
    request = Request(
        id=request_id,
        version=1,
        status=RequestStatus.CANCELLED,
        preferred_mechanic_id=None,
        assigned_mechanic_id=None,
        fallback=None,
        offer=None,
        priority_offer_id=None,
        session_ms=session_ms,
        settled_at_ms=now_ms,
    )
    paid = Record("paid", {"amount_cents": paid_cents})
    return request, [paid, Record("cancelled", {"cause": cause}), OweRefund(cause)]


def step(request: Request, event: Event, *, now_ms: int, next_id: str, windows: Windows) -> Transition | Refused:
    """Return the request after ``event`` and the commands it causes, in order; or why nothing happens.

    ``next_id`` names the offer or the time limit that it opens; it is used at most once.
    """
    match event:
        case MechanicAccepted():
            return _accept(request, event, now_ms, next_id, windows)
        case MechanicDeclined():
            return _decline(request, event, now_ms, next_id, windows)
        case WindowElapsed():
            return _elapse(request, event, now_ms, next_id, windows)
        case WaitSkipped():
            if request.status is not RequestStatus.PRIORITY_OFFERED:
                return _wrong_state(request, "skip the wait for")
            return _widen(request, FallbackReason.SKIPPED, now_ms, next_id, windows)
        case RequestCancelled():
            return _cancel(request, now_ms)
        case SessionStarted():
            return _start(request, event, now_ms, next_id, windows)
        case SessionCompleted():
            return _complete_by_somebody(request, event, now_ms)
        case MechanicReleased():
            if request.status is not RequestStatus.ACCEPTED:
                return _wrong_state(request, "give back")
            if event.mechanic_id != request.assigned_mechanic_id:
                return _not_theirs()
            return _lose(request, "released", now_ms, next_id, windows)
        case AnotherWanted():
            if request.status is not RequestStatus.ACCEPTED:
                return _wrong_state(request, "find another mechanic for")
            if event.mechanic_id not in (None, request.assigned_mechanic_id):
                return Refused("wrong_state", "Another mechanic than the one you mean has this request by now.")
            return _lose(request, "find_another", now_ms, next_id, windows)
        case SessionReported():
            return _report(request, event, now_ms)
        case OperatorRefunded():
            return _refund(request, event, now_ms)
        case OperatorSettled():
            return _settle(request, event, now_ms)
        case PaymentMoved():
            return _follow_payment(request, event, now_ms)
        case LimitMissing():
            return _set_missing_limit(request, now_ms, next_id, windows)
        case _:
            assert_never(event)


def why_gone(request: Request, closed: str | None) -> OfferGone:
    """Say why an offer of this request cannot be taken (any more).

    ``closed``: why that offer was closed (``WithdrawReason``); ``None``: it is open, or nobody knows.
    """
    match request.status, closed:
        case RequestStatus.CANCELLED, _:
            # By its customer, or an operator.
            return OfferGone(detail="The request was cancelled.")
        case RequestStatus.ACCEPTED | RequestStatus.IN_PROGRESS | RequestStatus.COMPLETED, _:
            return OfferGone(detail="Another mechanic was faster.")
        case RequestStatus.PRIORITY_OFFERED | RequestStatus.BROADCASTING, WithdrawReason.TAKEN:
            # Who has come to lose it since.
            return OfferGone(detail="Another mechanic was faster.")
        case RequestStatus.UNFILLED, WithdrawReason.EXPIRED:
            return OfferGone(detail="The offer expired before anyone accepted.")
        case _, WithdrawReason.EXPIRED:
            return OfferGone(detail="This offer has expired.")
        case _:
            return OfferGone()


def _accept(
    request: Request, event: MechanicAccepted, now_ms: int, next_id: str, windows: Windows
) -> Transition | OfferGone:
    window = request.offer
    if event.mechanic_id in request.excluded:
        return _excluded_before(request, event.mechanic_id)
    if window is None or not _is_about(event, window, request):
        return why_gone(request, event.closed)
    if window.mechanic_id not in (None, event.mechanic_id):
        return OfferGone(detail="This offer is for another mechanic.")
    if window.kind is OfferKind.BROADCAST and event.received_at_ms >= window.expires_at_ms:
        return OfferGone(detail="This offer has expired.")
    # A late tap names the priority offer: that one was for them, whatever they have switched off since.
    if window.kind is OfferKind.BROADCAST and event.offer_id == window.offer_id and not event.takes_it:
        return OfferGone(detail="You have switched off sessions of this kind.")
    accepted = replace(
        request,
        version=request.version + 1,
        status=RequestStatus.ACCEPTED,
        assigned_mechanic_id=event.mechanic_id,
        offer=None,
        accepted_at_ms=now_ms,
        limit=_start_window(next_id, now_ms, windows),
    )
    return accepted, [
        Assign(event.mechanic_id),
        CloseOffer(window.offer_id, WithdrawReason.TAKEN),
        Record("accepted", {"mechanic_id": event.mechanic_id}),
    ]


def _is_about(event: MechanicAccepted | MechanicDeclined, window: OpenWindow, request: Request) -> bool:
    """Tell whether the mechanic means the open window: by its id, or by the priority offer's that went before."""
    # Only the favourite was shown the priority offer; when its window has ended, their tap counts in the broadcast.
    is_late = event.offer_id == request.priority_offer_id and event.mechanic_id == request.preferred_mechanic_id
    return event.offer_id == window.offer_id or is_late


def _decline(
    request: Request, event: MechanicDeclined, now_ms: int, next_id: str, windows: Windows
) -> Transition | OfferGone:
    window = request.offer
    if window is None and event.mechanic_id == request.assigned_mechanic_id:
        return OfferGone(detail="You have accepted this request.")
    if window is None or not _is_about(event, window, request):
        return why_gone(request, event.closed)
    if event.mechanic_id in request.excluded:
        return _excluded_before(request, event.mechanic_id)
    if window.mechanic_id not in (None, event.mechanic_id):
        return OfferGone(detail="This offer is for another mechanic.")
    excluded = replace(request, excluded=request.excluded | {event.mechanic_id})
    exclude = Exclude(event.mechanic_id, "declined")
    if request.status is RequestStatus.BROADCASTING:
        # Nobody but this mechanic has to know, so the version stays: a thousand declines are not a thousand updates.
        return excluded, [exclude, WithdrawFrom(window.offer_id, event.mechanic_id)]
    details: Details = {"mechanic_id": event.mechanic_id}
    if event.reason:
        details["reason"] = event.reason
    # Waiting out the window would help nobody: widen at once.
    widened, commands = _widen(excluded, FallbackReason.DECLINED, now_ms, next_id, windows)
    return widened, [exclude, Record("declined", details), *commands]


def _elapse(
    request: Request, event: WindowElapsed, now_ms: int, next_id: str, windows: Windows
) -> Transition | Refused:
    window, limit = request.offer, request.limit
    if limit is not None and limit.id == event.window_id:
        return _limit_elapsed(request, limit, now_ms, next_id, windows)
    if window is None or window.offer_id != event.window_id:
        return Refused("wrong_state", "That window has ended already.")
    if now_ms < window.ends_at_ms:
        return Refused("wrong_state", "The window has not ended yet.")
    if window.kind is OfferKind.PRIORITY:
        return _widen(request, FallbackReason.EXPIRED, now_ms, next_id, windows)
    unfilled, commands = _end_unserved(request, RequestStatus.UNFILLED, WithdrawReason.EXPIRED, now_ms)
    return unfilled, [*commands, Record("unfilled"), OweRefund("unfilled")]


def _limit_elapsed(
    request: Request, limit: TimeLimit, now_ms: int, next_id: str, windows: Windows
) -> Transition | Refused:
    if now_ms < limit.rings_at_ms:
        return Refused("wrong_state", "The window has not ended yet.")
    if request.status is RequestStatus.IN_PROGRESS:
        return _complete(request, "time", now_ms)
    assert request.assigned_mechanic_id is not None, "whoever must start has accepted"
    if now_ms < limit.expires_at_ms:
        reminded = replace(request, version=request.version + 1, limit=replace(limit, rings_at_ms=limit.expires_at_ms))
        return reminded, [Record("reminded", {"mechanic_id": request.assigned_mechanic_id})]
    return _lose(request, "no_show", now_ms, next_id, windows)


def _start(
    request: Request, event: SessionStarted, now_ms: int, next_id: str, windows: Windows
) -> Transition | Refused:
    """A start that comes after the start window, and before anything has followed from that, is as good as one in time."""
    if request.status is not RequestStatus.ACCEPTED:
        return _wrong_state(request, "start")
    if event.mechanic_id != request.assigned_mechanic_id:
        return _not_theirs()
    started = replace(
        request,
        version=request.version + 1,
        status=RequestStatus.IN_PROGRESS,
        started_at_ms=now_ms,
        limit=_session_limit(next_id, now_ms + request.session_ms + windows.grace_ms),
    )
    return started, [Record("started")]


def _complete_by_somebody(request: Request, event: SessionCompleted, now_ms: int) -> Transition | Refused:
    if request.status is not RequestStatus.IN_PROGRESS:
        return _wrong_state(request, "complete")
    if event.mechanic_id is None:
        return _complete(request, "customer", now_ms)
    if event.mechanic_id != request.assigned_mechanic_id:
        return _not_theirs()
    return _complete(request, "mechanic", now_ms)


def _complete(request: Request, by: CompletedBy, now_ms: int) -> Transition:
    mechanic_id = request.assigned_mechanic_id
    assert mechanic_id is not None, "only what is assigned can be completed"
    completed = replace(
        request,
        version=request.version + 1,
        status=RequestStatus.COMPLETED,
        completed_at_ms=now_ms,
        settled_at_ms=now_ms,
        limit=None,
    )
    lasted_ms = 0 if request.started_at_ms is None else max(0, now_ms - request.started_at_ms)
    # A session of seconds is for an operator to see.
    details: Details = {"by": by, "lasted_s": lasted_ms // 1000}
    return completed, [Free(mechanic_id), Record("completed", details), PromptFavorite(mechanic_id)]


def _end_unserved(
    request: Request, status: RequestStatus, reason: WithdrawReason, now_ms: int
) -> tuple[Request, list[Command]]:
    """Withdraw it from whomever it is offered or assigned to."""
    commands: list[Command] = []
    if request.offer is not None:
        commands.append(CloseOffer(request.offer.offer_id, reason))
    if request.assigned_mechanic_id is not None:
        commands.append(Free(request.assigned_mechanic_id))
    ended = replace(request, version=request.version + 1, status=status, offer=None, limit=None, settled_at_ms=now_ms)
    return ended, commands


def _cancel(request: Request, now_ms: int) -> Transition | Refused:
    if request.status not in BEFORE_START:
        return _wrong_state(request, "cancel")
    cancelled, commands = _end_unserved(request, RequestStatus.CANCELLED, WithdrawReason.CANCELLED, now_ms)
    return cancelled, [*commands, Record("cancelled"), OweRefund("cancelled")]


def _refund(request: Request, event: OperatorRefunded, now_ms: int) -> Transition | Refused:
    if request.has_refund:
        return Refused("already_refunded", "What was paid for this request is on its way back, or is back, already.")
    owe = OweRefund("operator", event.reason)
    if request.status not in BEFORE_START:
        return replace(request, version=request.version + 1), [owe]
    # Nobody is to serve what has been given back.
    cancelled, commands = _end_unserved(request, RequestStatus.CANCELLED, WithdrawReason.CANCELLED, now_ms)
    return cancelled, [*commands, Record("cancelled", {"cause": "operator"}), owe]


DISPUTE_LINES: Mapping[str, str] = {"open": "disputed", "won": "dispute_won", "lost": "dispute_lost"}


def _follow_payment(request: Request, event: PaymentMoved, now_ms: int) -> Transition:
    """Tell what has been moved; nobody is to start what is not paid for any more, or may not be."""
    story: list[Command] = []
    if event.returned_cents:
        story.append(Record("refunded_at_stripe", {"amount_cents": event.returned_cents}))
    if event.failed_cents:
        story.append(Record("refund_failed", {"amount_cents": event.failed_cents}))
    if event.dispute is not None:
        story.append(Record(DISPUTE_LINES[event.dispute]))
    is_unpaid = event.is_all_returned or event.dispute in ("open", "lost")
    if not is_unpaid or request.status not in BEFORE_START:
        return replace(request, version=request.version + 1), story
    cause = "refunded_at_stripe" if event.is_all_returned else "disputed"
    cancelled, commands = _end_unserved(request, RequestStatus.CANCELLED, WithdrawReason.CANCELLED, now_ms)
    return cancelled, [*commands, *story, Record("cancelled", {"cause": cause}), OweRefund(cause)]


def _settle(request: Request, event: OperatorSettled, now_ms: int) -> Transition | Refused:
    if request.status not in OPEN:
        return _wrong_state(request, "settle")
    if event.as_ == "completed":
        if request.assigned_mechanic_id is None:
            return Refused("wrong_state", "Nobody has served this request; it can only be settled as unfilled.")
        return _complete(request, "operator", now_ms)
    unfilled, commands = _end_unserved(request, RequestStatus.UNFILLED, WithdrawReason.CANCELLED, now_ms)
    refund = [] if request.has_refund else [OweRefund("unfilled")]
    return unfilled, [*commands, Record("unfilled", {"cause": "operator"}), *refund]


def _report(request: Request, event: SessionReported, now_ms: int) -> Transition | Refused:
    if request.is_reported:
        return Refused("already_reported", "You have reported this session already.")
    if request.status is not RequestStatus.COMPLETED or request.completed_at_ms is None:
        return _wrong_state(request, "report")
    if now_ms > request.completed_at_ms + REPORTABLE_MS:
        return Refused("wrong_state", "A session can be reported within seven days of its end.")
    assert request.assigned_mechanic_id is not None, "somebody has served what is completed"
    reported = replace(request, version=request.version + 1, is_reported=True)
    return reported, [Record("reported", {"reason": event.reason}), KeepFrom(request.assigned_mechanic_id)]


def _set_missing_limit(request: Request, now_ms: int, next_id: str, windows: Windows) -> Transition | Refused:
    """Whoever knew of no limit when they accepted has the whole start window, and whoever started has at least the grace."""
    if request.limit is not None or request.status not in SERVING:
        return Refused("wrong_state", "It has a time limit, or needs none.")
    limit = _start_window(next_id, now_ms, windows)
    if request.status is RequestStatus.IN_PROGRESS:
        usual_ms = (request.started_at_ms or now_ms) + request.session_ms
        limit = _session_limit(next_id, max(usual_ms, now_ms) + windows.grace_ms)
    return replace(request, version=request.version + 1, limit=limit), []


def _start_window(limit_id: str, now_ms: int, windows: Windows) -> TimeLimit:
    return TimeLimit(limit_id, now_ms + windows.start_ms, now_ms + windows.start_ms // 2)


def _session_limit(limit_id: str, ends_at_ms: int) -> TimeLimit:
    return TimeLimit(limit_id, ends_at_ms, ends_at_ms)


def _lose(request: Request, how: Loss, now_ms: int, next_id: str, windows: Windows) -> Transition:
    """Take an accepted request from its mechanic, who is not asked again, and ask everybody else."""
    mechanic_id = request.assigned_mechanic_id
    assert mechanic_id is not None, "what is accepted is assigned"
    lost = replace(
        request,
        assigned_mechanic_id=None,
        accepted_at_ms=None,
        limit=None,
        excluded=request.excluded | {mechanic_id},
        lost_by={**request.lost_by, mechanic_id: how},
    )
    broadcasting, commands = _broadcast(lost, next_id, now_ms, windows)
    return broadcasting, [
        Free(mechanic_id),
        Exclude(mechanic_id, how),
        Record(how, {"mechanic_id": mechanic_id}),
        *commands,
        Tell(mechanic_id),
    ]


def _widen(request: Request, because: FallbackReason, now_ms: int, next_id: str, windows: Windows) -> Transition:
    """End the priority window and offer the request to everyone."""
    assert request.offer is not None and request.offer.kind is OfferKind.PRIORITY
    close = CloseOffer(request.offer.offer_id, WithdrawReason(because))
    broadcasting, commands = _broadcast(replace(request, fallback=because), next_id, now_ms, windows)
    # That somebody declined is in the timeline already.
    record = [] if because is FallbackReason.DECLINED else [Record(because.value)]
    return broadcasting, [close, *record, *commands]


def _broadcast(request: Request, offer_id: str, now_ms: int, windows: Windows) -> Transition:
    window = OpenWindow(offer_id, OfferKind.BROADCAST, None, now_ms, now_ms + windows.broadcast_ms)
    broadcasting = replace(request, version=request.version + 1, status=RequestStatus.BROADCASTING, offer=window)
    return broadcasting, [OpenOffer(window), Record("broadcast")]


def _excluded_before(request: Request, mechanic_id: str) -> OfferGone:
    match request.lost_by.get(mechanic_id):
        case "released":
            return OfferGone(detail="You gave this request back.")
        case "no_show":
            return OfferGone(detail="You had this request and did not start in time.")
        case "find_another":
            return OfferGone(detail="The customer asked for another mechanic.")
        case _:
            return OfferGone(detail="You declined this request.")


def _not_theirs() -> Refused:
    return NotFound(detail="There is no such request.")


def _wrong_state(request: Request, verb: str) -> Refused:
    return Refused("wrong_state", f"You cannot {verb} a request that is {request.status.value.replace('_', ' ')}.")
