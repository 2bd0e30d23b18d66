"""Rows become what clients see of requests and offers, in a few queries whatever their number."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from msgspec import UNSET
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from dispatch.request import OpenWindow
from dispatch.request_store import open_windows
from models import tables
from models.timestamps import rfc3339, rfc3339_or_none
from models.wire import OfferDeadline, OfferView, Person, RefundState, RequestView, TimelineEntryView

TIMELINE_LEN_MAX = 100


class Entry(NamedTuple):
    """A line of a request's story."""

    at_ms: int
    event: str
    details: Mapping[str, Any]


@dataclass(frozen=True)
class Seen:
    """A view, and whom it may be shown to."""

    view: RequestView
    customer_id: str
    assigned_mechanic_id: str | None

    @property
    def shown_to(self) -> set[str]:
        """Whose request it is: the customer's, and the mechanic's who has it."""
        return (
            {self.customer_id} if self.assigned_mechanic_id is None else {self.customer_id, self.assigned_mechanic_id}
        )


async def request_views(session: AsyncSession, rows: Collection[tables.SessionRequest], *, now_ms: int) -> list[Seen]:
    """Return the view of each row, in order."""
    ids = [row.id for row in rows]
    if not ids:
        return []
    windows = await open_windows(session, ids)
    refunds = await session.exec(select(tables.Refund).where(col(tables.Refund.request_id).in_(ids)))
    refund_of = {refund.request_id: refund for refund in refunds}
    timelines = await _timelines(session, ids)
    names = await _names(session, rows, timelines.values())
    return [
        Seen(
            _view(row, windows.get(row.id), refund_of.get(row.id), timelines[row.id], names, now_ms),
            row.customer_id,
            row.assigned_mechanic_id,
        )
        for row in rows
    ]


async def request_view(session: AsyncSession, request_id: str, *, now_ms: int) -> Seen | None:
    """Return the view of one request, or ``None`` if there is none."""
    row = await session.get(tables.SessionRequest, request_id, populate_existing=True)
    return None if row is None else (await request_views(session, [row], now_ms=now_ms))[0]


async def offer_views(session: AsyncSession, offers: Collection[tables.Offer], *, now_ms: int) -> list[OfferView]:
    """Return each offer as a mechanic sees it, in order."""
    if not offers:
        return []
    found = await session.exec(
        select(tables.SessionRequest, tables.Account.name)
        .join(tables.Account, col(tables.Account.id) == col(tables.SessionRequest.customer_id))
        .where(col(tables.SessionRequest.id).in_({offer.request_id for offer in offers}))
    )
    requests = {request.id: (request, name) for request, name in found}
    views = []
    for offer in offers:
        request, customer_name = requests[offer.request_id]
        views.append(
            OfferView(
                offer_id=offer.id,
                request_id=request.id,
                kind=offer.kind,
                customer_name=customer_name,
                plan=request.plan_id,
                session_type=request.session_type,
                duration_min=request.duration_min,
                expires_at=rfc3339(offer.expires_at_ms),
                expires_in_ms=max(0, offer.expires_at_ms - now_ms),
            )
        )
    return views


def _view(
    row: tables.SessionRequest,
    window: OpenWindow | None,
    refund: tables.Refund | None,
    timeline: list[Entry],
    names: dict[str, str],
    now_ms: int,
) -> RequestView:
    deadline = None
    if window is not None:
        deadline = OfferDeadline(
            id=window.offer_id,
            kind=window.kind,
            expires_at=rfc3339(window.expires_at_ms),
            expires_in_ms=max(0, window.expires_at_ms - now_ms),
        )
    return RequestView(
        id=row.id,
        version=row.version,
        plan=row.plan_id,
        session_type=row.session_type,
        routing_type=row.routing_type,
        status=row.status,
        customer_name=names[row.customer_id],
        preferred_mechanic=_person(row.preferred_mechanic_id, names),
        assigned_mechanic=_person(row.assigned_mechanic_id, names),
        offer=deadline,
        fallback_reason=row.fallback_reason,
        created_at=rfc3339(row.created_at_ms),
        accepted_at=rfc3339_or_none(row.accepted_at_ms),
        completed_at=rfc3339_or_none(row.completed_at_ms),
        refund=None if refund is None else RefundState(status=refund.status, amount_cents=refund.amount_cents),
        timeline=[_line(entry, names) for entry in timeline[-TIMELINE_LEN_MAX:]],
    )


def _line(entry: Entry, names: dict[str, str]) -> TimelineEntryView:
    mechanic_id = entry.details.get("mechanic_id", UNSET)
    return TimelineEntryView(
        at=rfc3339(entry.at_ms),
        event=entry.event,
        mechanic_id=mechanic_id,
        mechanic_name=names.get(mechanic_id, UNSET),
        reason=entry.details.get("reason", UNSET),
        amount_cents=entry.details.get("amount_cents", UNSET),
        cause=entry.details.get("cause", UNSET),
    )


def _person(account_id: str | None, names: dict[str, str]) -> Person | None:
    return None if account_id is None else Person(id=account_id, name=names[account_id])


async def _timelines(session: AsyncSession, request_ids: Collection[str]) -> defaultdict[str, list[Entry]]:
    """Return each request's story. Read as columns: there are many entries, and nobody changes one."""
    table = tables.TimelineEntry
    entries = select(table.request_id, table.at_ms, table.event, table.details)
    timelines: defaultdict[str, list[Entry]] = defaultdict(list)
    for request_id, at_ms, event, details in await session.exec(
        entries.where(col(table.request_id).in_(request_ids)).order_by(col(table.id))
    ):
        timelines[request_id].append(Entry(at_ms, event, details))
    return timelines


async def _names(
    session: AsyncSession, rows: Collection[tables.SessionRequest], timelines: Collection[list[Entry]]
) -> dict[str, str]:
    ids = {row.customer_id for row in rows}
    ids |= {row.preferred_mechanic_id for row in rows if row.preferred_mechanic_id}
    ids |= {row.assigned_mechanic_id for row in rows if row.assigned_mechanic_id}
    ids |= {
        entry.details["mechanic_id"] for entries in timelines for entry in entries if "mechanic_id" in entry.details
    }
    found = await session.exec(select(tables.Account.id, tables.Account.name).where(col(tables.Account.id).in_(ids)))
    return dict(found.all())
