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
    ACCEPTED         ─MechanicReleased──► BROADCASTING    Free, Exclude, OpenOffer
    IN_PROGRESS      ─SessionCompleted──► COMPLETED       Free, PromptFavorite
    before IN_PROGRESS ─RequestCancelled► CANCELLED       CloseOffer, Free, OweRefund

Every other pair of status and event is refused and changes nothing: networks repeat themselves.

The core cannot see other processes; that only one of two racing transitions happens is the database's part
(``request_store``). What follows from a transition is decided here alone.
"""

from dataclasses import dataclass, field, replace
from typing import TypedDict, assert_never

from models.outcomes import NotFound, OfferGone, Refused
from models.words import ExclusionReason, FallbackReason, OfferKind, RequestStatus, WithdrawReason

ACCEPT_LEEWAY_MS = 250
"""How long a broadcast outlives its deadline, for accepts that reached a server in time and are still on their way to SQL."""

OPEN = frozenset(
    {RequestStatus.PRIORITY_OFFERED, RequestStatus.BROADCASTING, RequestStatus.ACCEPTED, RequestStatus.IN_PROGRESS}
)
"""Statuses from which something will still follow by itself or by somebody."""


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
    """How long each kind of offer stays open."""

    priority_ms: int
    broadcast_ms: int


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
    excluded: frozenset[str] = field(default_factory=frozenset)
    given_back_by: frozenset[str] = field(default_factory=frozenset)
    """Of the excluded those who had it."""
    accepted_at_ms: int | None = None
    started_at_ms: int | None = None
    completed_at_ms: int | None = None
    settled_at_ms: int | None = None


# --- events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MechanicAccepted:
    """``received_at_ms`` is when the accept reached a server: before the deadline counts, though it is decided after it.

    ``takes_it``: whether the mechanic takes sessions of this kind, as far as a broadcast goes.
    """

    mechanic_id: str
    offer_id: str
    received_at_ms: int
    takes_it: bool = True


@dataclass(frozen=True)
class MechanicDeclined:
    mechanic_id: str
    offer_id: str
    reason: str | None = None


@dataclass(frozen=True)
class WindowElapsed:
    offer_id: str


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
    mechanic_id: str


@dataclass(frozen=True)
class MechanicReleased:
    mechanic_id: str


Event = (
    MechanicAccepted
    | MechanicDeclined
    | WindowElapsed
    | WaitSkipped
    | RequestCancelled
    | SessionStarted
    | SessionCompleted
    | MechanicReleased
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
    """Give back what was paid; of the free plan, the right to the free session."""

    cause: str


@dataclass(frozen=True)
class PromptFavorite:
    mechanic_id: str


@dataclass(frozen=True)
class Tell:
    """Somebody besides the customer and the assigned mechanic has to hear of the new state."""

    mechanic_id: str


class Details(TypedDict, total=False):
    """What a line of the timeline says besides its event."""

    mechanic_id: str
    reason: str
    amount_cents: int
    cause: str


@dataclass(frozen=True)
class Record:
    """A line of the timeline."""

    event: str
    details: Details = field(default_factory=Details)


Command = OpenOffer | CloseOffer | WithdrawFrom | Exclude | Assign | Free | OweRefund | PromptFavorite | Tell | Record
Transition = tuple[Request, list[Command]]


# --- the core ---------------------------------------------------------------------------------------------------------


def opened(
    request_id: str,
    *,
    paid_cents: int,
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
    )
    paid = Record("paid", {"amount_cents": paid_cents}) if paid_cents else Record("requested")
    if not is_priority:
        broadcasting, commands = _broadcast(request, offer_id, now_ms, windows)
        return broadcasting, [paid, *commands]
    assert preferred_mechanic_id is not None, "a priority request names its favourite"
    window = OpenWindow(offer_id, OfferKind.PRIORITY, preferred_mechanic_id, now_ms, now_ms + windows.priority_ms)
    offered = replace(request, status=RequestStatus.PRIORITY_OFFERED, offer=window, priority_offer_id=offer_id)
    return offered, [paid, OpenOffer(window), Record("offered", {"mechanic_id": preferred_mechanic_id})]


def step(request: Request, event: Event, *, now_ms: int, next_offer_id: str, windows: Windows) -> Transition | Refused:
    """Return the request after ``event`` and the commands it causes, in order; or why nothing happens.

    ``next_offer_id`` names the offer that a widening opens; it is used at most once.
    """
    match event:
        case MechanicAccepted():
            return _accept(request, event, now_ms)
        case MechanicDeclined():
            return _decline(request, event, now_ms, next_offer_id, windows)
        case WindowElapsed():
            return _elapse(request, event, now_ms, next_offer_id, windows)
        case WaitSkipped():
            if request.status is not RequestStatus.PRIORITY_OFFERED:
                return _wrong_state(request, "skip the wait for")
            return _widen(request, FallbackReason.SKIPPED, now_ms, next_offer_id, windows)
        case RequestCancelled():
            return _cancel(request, now_ms)
        case SessionStarted():
            if request.status is not RequestStatus.ACCEPTED:
                return _wrong_state(request, "start")
            if event.mechanic_id != request.assigned_mechanic_id:
                return _not_theirs()
            started = replace(
                request, version=request.version + 1, status=RequestStatus.IN_PROGRESS, started_at_ms=now_ms
            )
            return started, [Record("started")]
        case SessionCompleted():
            if request.status is not RequestStatus.IN_PROGRESS:
                return _wrong_state(request, "complete")
            if event.mechanic_id != request.assigned_mechanic_id:
                return _not_theirs()
            completed = replace(
                request,
                version=request.version + 1,
                status=RequestStatus.COMPLETED,
                completed_at_ms=now_ms,
                settled_at_ms=now_ms,
            )
            return completed, [Free(event.mechanic_id), Record("completed"), PromptFavorite(event.mechanic_id)]
        case MechanicReleased():
            return _release(request, event, now_ms, next_offer_id, windows)
        case _:
            assert_never(event)


def why_gone(request: Request) -> OfferGone:
    """Say why an offer of this request cannot be taken (any more)."""
    match request.status:
        case RequestStatus.CANCELLED:
            return OfferGone(detail="The customer cancelled the request.")
        case RequestStatus.UNFILLED:
            return OfferGone(detail="The offer expired before anyone accepted.")
        case RequestStatus.PRIORITY_OFFERED | RequestStatus.BROADCASTING:
            return OfferGone(detail="This offer has expired.")
        case RequestStatus.ACCEPTED | RequestStatus.IN_PROGRESS | RequestStatus.COMPLETED:
            return OfferGone(detail="Another mechanic was faster.")
        case _:
            assert_never(request.status)


def _accept(request: Request, event: MechanicAccepted, now_ms: int) -> Transition | OfferGone:
    window = request.offer
    if event.mechanic_id in request.excluded:
        return _excluded_before(request, event.mechanic_id)
    if window is None or not _is_about(event, window, request):
        return why_gone(request)
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
    request: Request, event: MechanicDeclined, now_ms: int, next_offer_id: str, windows: Windows
) -> Transition | OfferGone:
    window = request.offer
    if window is None and event.mechanic_id == request.assigned_mechanic_id:
        return OfferGone(detail="You have accepted this request.")
    if window is None or not _is_about(event, window, request):
        return why_gone(request)
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
    widened, commands = _widen(excluded, FallbackReason.DECLINED, now_ms, next_offer_id, windows)
    return widened, [exclude, Record("declined", details), *commands]


def _elapse(
    request: Request, event: WindowElapsed, now_ms: int, next_offer_id: str, windows: Windows
) -> Transition | Refused:
    window = request.offer
    if window is None or window.offer_id != event.offer_id:
        return Refused("wrong_state", "That window has ended already.")
    if now_ms < window.ends_at_ms:
        return Refused("wrong_state", "The window has not ended yet.")
    if window.kind is OfferKind.PRIORITY:
        return _widen(request, FallbackReason.EXPIRED, now_ms, next_offer_id, windows)
    unfilled = replace(
        request, version=request.version + 1, status=RequestStatus.UNFILLED, offer=None, settled_at_ms=now_ms
    )
    return unfilled, [CloseOffer(window.offer_id, WithdrawReason.EXPIRED), Record("unfilled"), OweRefund("unfilled")]


def _cancel(request: Request, now_ms: int) -> Transition | Refused:
    if request.status not in (RequestStatus.PRIORITY_OFFERED, RequestStatus.BROADCASTING, RequestStatus.ACCEPTED):
        return _wrong_state(request, "cancel")
    commands: list[Command] = []
    if request.offer is not None:
        commands.append(CloseOffer(request.offer.offer_id, WithdrawReason.CANCELLED))
    if request.assigned_mechanic_id is not None:
        commands.append(Free(request.assigned_mechanic_id))
    cancelled = replace(
        request, version=request.version + 1, status=RequestStatus.CANCELLED, offer=None, settled_at_ms=now_ms
    )
    return cancelled, [*commands, Record("cancelled"), OweRefund("cancelled")]


def _release(
    request: Request, event: MechanicReleased, now_ms: int, next_offer_id: str, windows: Windows
) -> Transition | Refused:
    if request.status is not RequestStatus.ACCEPTED:
        return _wrong_state(request, "give back")
    if event.mechanic_id != request.assigned_mechanic_id:
        return _not_theirs()
    released = replace(
        request,
        assigned_mechanic_id=None,
        accepted_at_ms=None,
        excluded=request.excluded | {event.mechanic_id},
        given_back_by=request.given_back_by | {event.mechanic_id},
    )
    broadcasting, commands = _broadcast(released, next_offer_id, now_ms, windows)
    return broadcasting, [
        Free(event.mechanic_id),
        Exclude(event.mechanic_id, "released"),
        Record("released", {"mechanic_id": event.mechanic_id}),
        *commands,
        Tell(event.mechanic_id),
    ]


def _widen(request: Request, because: FallbackReason, now_ms: int, next_offer_id: str, windows: Windows) -> Transition:
    """End the priority window and offer the request to everyone."""
    assert request.offer is not None and request.offer.kind is OfferKind.PRIORITY
    close = CloseOffer(request.offer.offer_id, WithdrawReason(because))
    broadcasting, commands = _broadcast(replace(request, fallback=because), next_offer_id, now_ms, windows)
    # That somebody declined is in the timeline already.
    record = [] if because is FallbackReason.DECLINED else [Record(because.value)]
    return broadcasting, [close, *record, *commands]


def _broadcast(request: Request, offer_id: str, now_ms: int, windows: Windows) -> Transition:
    window = OpenWindow(offer_id, OfferKind.BROADCAST, None, now_ms, now_ms + windows.broadcast_ms)
    broadcasting = replace(request, version=request.version + 1, status=RequestStatus.BROADCASTING, offer=window)
    return broadcasting, [OpenOffer(window), Record("broadcast")]


def _excluded_before(request: Request, mechanic_id: str) -> OfferGone:
    if mechanic_id in request.given_back_by:
        return OfferGone(detail="You gave this request back.")
    return OfferGone(detail="You declined this request.")


def _not_theirs() -> Refused:
    return NotFound(detail="There is no such request.")


def _wrong_state(request: Request, verb: str) -> Refused:
    return Refused("wrong_state", f"You cannot {verb} a request that is {request.status.value.replace('_', ' ')}.")
