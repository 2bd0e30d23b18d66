"""Requests as SQL has them, with everything that is decided by or shown of them: read at once, in one statement."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from dispatch.request import OpenWindow, Request
from infra.statements import Statement
from models.words import FallbackReason, OfferKind, RequestStatus

SQL = Path(__file__).parent / "sql"


@dataclass(frozen=True)
class Named:
    """A row that is only its id."""

    id: str


@dataclass(frozen=True)
class Window:
    """An offer, and its request."""

    offer_id: str
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
    plan_cents: int
    """Zero: it was free."""
    currency: str
    note: str | None
    """What the customer wrote about it."""
    payment_intent_id: str | None
    """``None``: nothing was charged."""
    refund_status: str | None
    refund_cents: int | None
    is_assigned_favorite: bool
    """Whether the assigned mechanic is among the customer's favourites."""
    customer_has_push: bool
    """Whether the customer has a browser that can be woken."""
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
    def shown_to(self) -> set[str]:
        """Whose request it is: the customer's, and the mechanic's who has it."""
        return {self.customer_id, self.assigned_mechanic_id or self.customer_id}

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
            excluded=frozenset(self.excluded),
            given_back_by=frozenset(line.details["mechanic_id"] for line in self.story if line.event == "released"),
            accepted_at_ms=self.accepted_at_ms,
            started_at_ms=self.started_at_ms,
            completed_at_ms=self.completed_at_ms,
            settled_at_ms=self.settled_at_ms,
        )

    def moved_to(self, request: Request, names: Mapping[str, str]) -> "StoredRequest":
        """Return what is stored once the core's ``request`` is written; ``names`` of mechanics, by id."""
        offer, assigned_id = request.offer, request.assigned_mechanic_id
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
            excluded=sorted(request.excluded),
        )


REQUESTS_OF_OFFERS = Statement(SQL / "requests_of_offers.sql", Window)
READ_REQUESTS = Statement(SQL / "read_requests.sql", StoredRequest, json=("excluded", "story"))
