"""Requests as SQL has them, with everything that is decided by or shown of them: read at once, in one statement."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast, get_args

from msgspec import Struct
from msgspec.structs import replace

from dispatch.request import SERVING, OpenWindow, Request, TimeLimit
from infra.statements import Statement
from models.words import FallbackReason, Loss, OfferKind, RequestStatus

SQL = Path(__file__).parent / "sql"
LOSSES: Final = frozenset(get_args(Loss))


@dataclass(frozen=True)
class Named:
    """A row that is only its id."""

    id: str


@dataclass(frozen=True)
class Window:
    """An offer, or a time limit, and its request."""

    id: str
    request_id: str


class Line(Struct, frozen=True, array_like=True):
    """A line of a request's story; ``mechanic_name`` is of the mechanic whom the details name."""

    id: int
    at_ms: int
    event: str
    details: dict[str, Any]
    mechanic_name: str | None


class StoredRequest(Struct, frozen=True):
    """A row of ``read_requests``. Words are text here: one of a later version must not fail the reading of the others."""

    id: str
    version: int
    checkout_id: str
    customer_id: str
    customer_name: str
    plan_id: str
    session_type: str
    duration_min: int
    paid_cents: int
    routing_type: str
    preferred_mechanic_id: str | None
    preferred_name: str | None
    assigned_mechanic_id: str | None
    assigned_name: str | None
    status: str
    fallback_reason: str | None
    priority_offer_id: str | None
    created_at_ms: int
    accepted_at_ms: int | None
    started_at_ms: int | None
    completed_at_ms: int | None
    settled_at_ms: int | None
    offer_id: str | None
    offer_kind: str | None
    offer_mechanic_id: str | None
    offer_opened_at_ms: int | None
    offer_expires_at_ms: int | None
    offer_mechanic_is_busy: bool | None
    """As its customer has been told; of the favourite, see ``preferred_is_busy``."""
    limit_id: str | None
    limit_of_ms: int | None
    limit_expires_at_ms: int | None
    limit_rings_at_ms: int | None
    plan_cents: int
    """Zero: it was free."""
    currency: str
    note: str | None
    """What the customer wrote about it."""
    payment_intent_id: str | None
    """``None``: nothing was charged."""
    refund_status: str | None
    """Of all that was paid; ``None``: it need not go back."""
    refund_cents: int | None
    refund_is_set_aside: bool | None
    """Whether Stripe has refused it again and again."""
    given_back_cents: int
    """By whomever, as Stripe says; with what is on its way."""
    on_its_way_cents: int
    taken_cents: int
    """By the customer's bank."""
    dispute: str | None
    """How a dispute of the payment stands; ``None``: there never was one."""
    is_assigned_favorite: bool
    """Whether the assigned mechanic is among the customer's favourites."""
    customer_has_push: bool
    """Whether the customer has a browser that can be woken."""
    assigned_has_push: bool
    """Whether the assigned mechanic has."""
    preferred_is_busy: bool
    """Whether the favourite is in a session."""
    excluded: list[str]
    story: list[Line]
    """In no particular order."""

    @property
    def offer(self) -> OpenWindow | None:
        """The open offer; raises ``ValueError`` if its kind is none of ours."""
        if self.offer_id is None or self.offer_kind is None:
            return None
        assert self.offer_opened_at_ms is not None
        assert self.offer_expires_at_ms is not None
        return OpenWindow(
            self.offer_id,
            OfferKind(self.offer_kind),
            self.offer_mechanic_id,
            self.offer_opened_at_ms,
            self.offer_expires_at_ms,
        )

    @property
    def limit(self) -> TimeLimit | None:
        """The time limit of what is going on now."""
        if self.status not in SERVING or self.limit_id is None or self.limit_of_ms is None:
            return None
        # Not that of an acceptance or a session before, which a node of an earlier version has left.
        if self.limit_of_ms != _began_ms(self):
            return None
        assert self.limit_expires_at_ms is not None
        assert self.limit_rings_at_ms is not None
        return TimeLimit(self.limit_id, self.limit_expires_at_ms, self.limit_rings_at_ms)

    @property
    def session_until_ms(self) -> int | None:
        """When the session ends by itself; of one that has not begun, its minutes after it must have. ``None``: there is none."""
        if self.limit is None:
            return None
        return self.limit.expires_at_ms + (self.duration_min * 60_000 if self.status == RequestStatus.ACCEPTED else 0)

    def has_been_told(self, event: str) -> bool:
        """Tell whether the story has a line of this event."""
        return any(line.event == event for line in self.story)

    @property
    def left_cents(self) -> int:
        """What of the payment could still go back."""
        return max(0, self.paid_cents - self.given_back_cents - self.taken_cents)

    @property
    def shown_to(self) -> set[str]:
        """Whose request it is: the customer's, and the mechanic's who has it."""
        return {self.customer_id, self.assigned_mechanic_id or self.customer_id}

    @property
    def lost_by(self) -> dict[str, Loss]:
        """Mechanics who had it and lost it, and how."""
        return {line.details["mechanic_id"]: cast(Loss, line.event) for line in self.story if line.event in LOSSES}

    def busy_as_told(self, offer: OpenWindow | None) -> bool | None:
        """Return what the customer is told of whether the favourite is busy: of a new priority offer what is true now."""
        if offer is None or offer.kind is not OfferKind.PRIORITY:
            return None
        return self.offer_mechanic_is_busy if offer.offer_id == self.offer_id else self.preferred_is_busy

    def as_decided_by(self) -> Request:
        """Return the request as the core sees it; raises ``ValueError`` for words that are none of ours."""
        return Request(
            id=self.id,
            version=self.version,
            status=RequestStatus(self.status),
            preferred_mechanic_id=self.preferred_mechanic_id,
            assigned_mechanic_id=self.assigned_mechanic_id,
            fallback=FallbackReason(self.fallback_reason) if self.fallback_reason else None,
            offer=self.offer,
            priority_offer_id=self.priority_offer_id,
            session_ms=self.duration_min * 60_000,
            excluded=frozenset(self.excluded),
            lost_by=self.lost_by,
            limit=self.limit,
            is_reported=self.has_been_told("reported"),
            has_refund=self.refund_status is not None,
            accepted_at_ms=self.accepted_at_ms,
            started_at_ms=self.started_at_ms,
            completed_at_ms=self.completed_at_ms,
            settled_at_ms=self.settled_at_ms,
        )

    def moved_to(self, request: Request, names: Mapping[str, str]) -> "StoredRequest":
        """Return what is stored once the core's ``request`` is written; ``names`` of mechanics, by id."""
        offer, limit, assigned_id = request.offer, request.limit, request.assigned_mechanic_id
        return replace(
            self,
            version=request.version,
            assigned_mechanic_id=assigned_id,
            assigned_name=None if assigned_id is None else names[assigned_id],
            status=request.status,
            fallback_reason=request.fallback,
            accepted_at_ms=request.accepted_at_ms,
            started_at_ms=request.started_at_ms,
            completed_at_ms=request.completed_at_ms,
            settled_at_ms=request.settled_at_ms,
            offer_id=offer and offer.offer_id,
            offer_kind=offer and offer.kind,
            offer_mechanic_id=offer and offer.mechanic_id,
            offer_opened_at_ms=offer and offer.opened_at_ms,
            offer_expires_at_ms=offer and offer.expires_at_ms,
            offer_mechanic_is_busy=self.busy_as_told(offer),
            limit_id=limit and limit.id,
            limit_of_ms=began_ms_of(request),
            limit_expires_at_ms=limit and limit.expires_at_ms,
            limit_rings_at_ms=limit and limit.rings_at_ms,
            excluded=sorted(request.excluded),
        )


def began_ms_of(request: Request) -> int | None:
    """Return when what the request's time limit is of began; ``None`` without one."""
    return None if request.limit is None else _began_ms(request)


def _began_ms(stands: StoredRequest | Request) -> int | None:
    return stands.accepted_at_ms if stands.status == RequestStatus.ACCEPTED else stands.started_at_ms


REQUESTS_OF_OFFERS = Statement(SQL / "requests_of_offers.sql", Window)
REQUESTS_OF_LIMITS = Statement(SQL / "requests_of_limits.sql", Window)
READ_REQUESTS = Statement(SQL / "read_requests.sql", StoredRequest, json=("excluded", "story"))
