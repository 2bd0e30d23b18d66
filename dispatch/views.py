"""Rows become what clients see of requests and offers. Pure."""

from enum import StrEnum
from typing import Protocol, TypeVar, cast

from msgspec import UNSET
from msgspec.structs import replace

from dispatch.request import OpenWindow
from dispatch.stored import Line, StoredRequest
from models.timestamps import rfc3339, rfc3339_or_none
from models.wire import Deadline, OfferDeadline, OfferView, Person, RefundState, RequestView, TimelineEntryView
from models.words import FallbackReason, OfferKind, RefundStatus, RequestStatus, RoutingType

TIMELINE_LEN_MAX = 100
REASONS_FOR_OPERATORS = frozenset({"declined", "reported", "refund_requested"})
"""Lines of the story whose reasons are for operators alone: what is written in haste can hurt."""

Word = TypeVar("Word", bound=StrEnum)


class Offered(Protocol):
    """What a mechanic is shown of a request."""

    @property
    def id(self) -> str: ...
    @property
    def customer_name(self) -> str: ...
    @property
    def plan_id(self) -> str: ...
    @property
    def session_type(self) -> str: ...
    @property
    def duration_min(self) -> int: ...
    @property
    def note(self) -> str | None: ...
    @property
    def plan_cents(self) -> int: ...
    @property
    def currency(self) -> str: ...


def request_view(row: StoredRequest, *, now_ms: int, for_operators: bool = False) -> RequestView:
    """Return the request as its customer and its mechanic see it, or as operators do.

    Why a mechanic declined or a customer reported is for operators alone: the other side needs to know at most that they did.
    """
    deadline = None
    if row.offer_id is not None and row.offer_expires_at_ms is not None:
        deadline = OfferDeadline(
            id=row.offer_id,
            kind=word(OfferKind, row.offer_kind or ""),
            expires_at=rfc3339(row.offer_expires_at_ms),
            expires_in_ms=max(0, row.offer_expires_at_ms - now_ms),
            preferred_is_busy=row.offer_mechanic_is_busy is True,
        )
    limit = None
    if row.limit_expires_at_ms is not None and row.limit is not None:
        limit = Deadline(rfc3339(row.limit_expires_at_ms), max(0, row.limit_expires_at_ms - now_ms))
    story = sorted(row.story, key=lambda line: line.id)
    return RequestView(
        id=row.id,
        version=row.version,
        plan=row.plan_id,
        session_type=row.session_type,
        routing_type=cast(RoutingType, row.routing_type),
        status=word(RequestStatus, row.status),
        customer_name=row.customer_name,
        preferred_mechanic=_person(row.preferred_mechanic_id, row.preferred_name),
        assigned_mechanic=_person(row.assigned_mechanic_id, row.assigned_name),
        offer=deadline,
        fallback_reason=None if row.fallback_reason is None else word(FallbackReason, row.fallback_reason),
        created_at=rfc3339(row.created_at_ms),
        accepted_at=rfc3339_or_none(row.accepted_at_ms),
        completed_at=rfc3339_or_none(row.completed_at_ms),
        refund=_refund(row),
        disputed=row.dispute is not None,
        timeline=[_line(line, for_operators=for_operators) for line in story[-TIMELINE_LEN_MAX:]],
        note=row.note,
        price_cents=row.plan_cents,
        currency=row.currency,
        favorite_prompt=row.status == RequestStatus.COMPLETED and not row.is_assigned_favorite,
        start=limit if row.status == RequestStatus.ACCEPTED else None,
        ends=limit if row.status == RequestStatus.IN_PROGRESS else None,
    )


def without_reports(view: RequestView) -> RequestView:
    """Return a request as its mechanic sees it: whether the customer has reported the session is not for them."""
    timeline = [line for line in view.timeline if line.event != "reported"]
    return view if len(timeline) == len(view.timeline) else replace(view, timeline=timeline)


def offer_view(row: Offered, window: OpenWindow, *, now_ms: int) -> OfferView:
    """Return an offer of the request as a mechanic sees it."""
    return OfferView(
        offer_id=window.offer_id,
        request_id=row.id,
        kind=window.kind,
        customer_name=row.customer_name,
        plan=row.plan_id,
        session_type=row.session_type,
        duration_min=row.duration_min,
        expires_at=rfc3339(window.expires_at_ms),
        expires_in_ms=max(0, window.expires_at_ms - now_ms),
        note=row.note,
        price_cents=row.plan_cents,
        currency=row.currency,
    )


def names_in(row: StoredRequest) -> dict[str, str]:
    """Return the names of the mechanics that the row speaks of, by their ids."""
    pairs = [(row.preferred_mechanic_id, row.preferred_name), (row.assigned_mechanic_id, row.assigned_name)]
    pairs += [(line.details.get("mechanic_id"), line.mechanic_name) for line in row.story]
    return {mechanic_id: name for mechanic_id, name in pairs if mechanic_id is not None and name is not None}


def _refund(row: StoredRequest) -> RefundState | None:
    """Return what of the payment goes back, or has gone back, in all: whoever has moved it."""
    if row.refund_status is not None and row.refund_cents is not None:
        # Asked for on and on, but who waits for it must not be told that it is on its way.
        status = "failed" if row.refund_status == "pending" and row.refund_is_set_aside else row.refund_status
        return RefundState(cast(RefundStatus, status), row.refund_cents, row.currency)
    if row.given_back_cents:
        return RefundState("pending" if row.on_its_way_cents else "succeeded", row.given_back_cents, row.currency)
    return None


def _line(line: Line, *, for_operators: bool) -> TimelineEntryView:
    shows_reason = for_operators or line.event not in REASONS_FOR_OPERATORS
    return TimelineEntryView(
        at=rfc3339(line.at_ms),
        event=line.event,
        mechanic_id=line.details.get("mechanic_id", UNSET),
        mechanic_name=line.mechanic_name or UNSET,
        reason=line.details.get("reason", UNSET) if shows_reason else UNSET,
        amount_cents=line.details.get("amount_cents", UNSET),
        cause=line.details.get("cause", UNSET),
        by=line.details.get("by", UNSET),
        lasted_s=line.details.get("lasted_s", UNSET),
    )


def _person(account_id: str | None, name: str | None) -> Person | None:
    return None if account_id is None else Person(id=account_id, name=name or "")


def word(words: type[Word], text: str) -> Word:
    """Return the member, or the text if it is a word of a later version: it is shown as it is."""
    try:
        return words(text)
    except ValueError:
        return text  # type: ignore[return-value]
