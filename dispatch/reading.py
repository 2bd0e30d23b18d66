"""What can be seen of requests and offers: by those concerned, and by operators. Changes nothing."""

from dataclasses import dataclass
from typing import Any

from msgspec import Struct
from sqlalchemy import func
from sqlmodel import col, select

from dispatch.outbox import Outbox
from dispatch.request import OPEN
from dispatch.views import offer_views, request_view, request_views
from infra.clock import RedisClock
from infra.database import Database
from models import tables
from models.outcomes import NotFound, Refused
from models.rest import OpsSnapshot, Requests
from models.timestamps import rfc3339
from models.wire import OfferView, RequestView
from models.words import RequestStatus, Role
from presence.service import Presence

OPEN_REQUESTS_MAX = 50
OPEN_OFFERS_MAX = 100


@dataclass(frozen=True)
class MechanicState:
    """A mechanic's own switches: ready to be asked, and in a session."""

    on_duty: bool
    is_busy: bool


class OpenOffer(Struct):
    """An offer open to a mechanic now, and its deadline in ms for counting anew."""

    offer: OfferView
    expires_at_ms: int


class Reading:
    """Reads from SQL, one account at a time; ``snapshots`` reads what many sockets need at once."""

    def __init__(self, *, database: Database, clock: RedisClock, presence: Presence, outbox: Outbox) -> None:
        self._database = database
        self._clock = clock
        self._presence = presence
        self._outbox = outbox

    async def mechanic_state(self, mechanic_id: str) -> MechanicState | None:
        """Return a mechanic's switches, or ``None`` if there is no such mechanic."""
        async with self._database.read() as session:
            mechanic = await session.get(tables.Mechanic, mechanic_id)
        return None if mechanic is None else MechanicState(mechanic.on_duty, mechanic.active_request_id is not None)

    async def offers_for(self, mechanic_id: str) -> list[OpenOffer]:
        """Return the offers open to a mechanic now: their own, and the broadcasts if they are on duty and free."""
        async with self._database.read() as session:
            mechanic = await session.get(tables.Mechanic, mechanic_id)
            if mechanic is None:
                return []
            now_ms = self._clock.now_ms()
            mine = col(tables.Offer.mechanic_id) == mechanic_id
            if mechanic.on_duty and mechanic.active_request_id is None:
                declined = select(tables.Exclusion.request_id).where(tables.Exclusion.mechanic_id == mechanic_id)
                for_all = col(tables.Offer.mechanic_id).is_(None) & col(tables.Offer.request_id).not_in(declined)
                mine |= for_all
            found = await session.exec(
                select(tables.Offer)
                .where(mine, col(tables.Offer.closed_at_ms).is_(None), tables.Offer.expires_at_ms > now_ms)
                .order_by(col(tables.Offer.mechanic_id).is_(None), col(tables.Offer.expires_at_ms))
                .limit(OPEN_OFFERS_MAX)
            )
            offers = list(found)
            views = await offer_views(session, offers, now_ms=now_ms)
        return [OpenOffer(view, offer.expires_at_ms) for view, offer in zip(views, offers, strict=True)]

    async def request_for(self, account_id: str, request_id: str) -> RequestView | Refused:
        """Return a request to its customer or its assigned mechanic; to anyone else there is none."""
        async with self._database.read() as session:
            seen = await request_view(session, request_id, now_ms=self._clock.now_ms())
        if seen is None or account_id not in (seen.customer_id, seen.assigned_mechanic_id):
            return NotFound(detail="There is no such request.")
        return seen.view

    async def requests_of(
        self, account_id: str, role: str, *, status: str | None = None, cursor: str | None = None, limit: int = 20
    ) -> Requests | Refused:
        """Return a page of one's own requests, newest first; ``cursor`` is the page before's ``next_cursor``."""
        owner = (
            tables.SessionRequest.assigned_mechanic_id if role == Role.MECHANIC else tables.SessionRequest.customer_id
        )
        query = select(tables.SessionRequest).where(owner == account_id)
        if status is not None:
            query = query.where(tables.SessionRequest.status == status)
        if cursor is not None:
            query = query.where(col(tables.SessionRequest.id) < cursor)
        async with self._database.read() as session:
            rows = list(await session.exec(query.order_by(col(tables.SessionRequest.id).desc()).limit(limit + 1)))
            page = rows[:limit]
            seen = await request_views(session, page, now_ms=self._clock.now_ms())
        return Requests([one.view for one in seen], page[-1].id if len(rows) > limit else None)

    async def open_requests_of(self, customer_id: str) -> list[RequestView]:
        """Return the customer's requests that are not settled, newest first."""
        return await self._views_where(
            col(tables.SessionRequest.customer_id) == customer_id,
            col(tables.SessionRequest.status).in_([status.value for status in OPEN]),
        )

    async def active_request_of(self, mechanic_id: str) -> RequestView | None:
        """Return the request that the mechanic is serving, or ``None``."""
        active = (RequestStatus.ACCEPTED.value, RequestStatus.IN_PROGRESS.value)
        views = await self._views_where(
            col(tables.SessionRequest.assigned_mechanic_id) == mechanic_id,
            col(tables.SessionRequest.status).in_(active),
        )
        return views[0] if views else None

    async def ops_snapshot(self) -> OpsSnapshot:
        """Return counts and lists for operators."""
        async with self._database.read() as session:
            by_status = await session.exec(
                select(tables.SessionRequest.status, func.count()).group_by(tables.SessionRequest.status)
            )
            counts = {f"requests_{status}": count for status, count in by_status}
            for name, table in (
                ("mechanics", tables.Mechanic),
                ("accounts", tables.Account),
                ("outbox", tables.OutboxMessage),
            ):
                counts[name] = (await session.exec(select(func.count()).select_from(table))).one()
            owed = await session.exec(
                select(tables.Refund).where(tables.Refund.status != "succeeded").order_by(tables.Refund.id).limit(100)
            )
            refunds = [
                {
                    "refund_id": refund.id,
                    "request_id": refund.request_id,
                    "status": refund.status,
                    "amount_cents": refund.amount_cents,
                    "attempts": refund.attempts,
                    "cause": refund.cause,
                }
                for refund in owed
            ]
        counts["mechanics_available"] = await self._presence.available_count()
        open_requests = await self._views_where(
            col(tables.SessionRequest.status).in_([status.value for status in OPEN])
        )
        now_ms = self._clock.now_ms()
        return OpsSnapshot(rfc3339(now_ms), counts, open_requests, refunds, {"outbox_depth": self._outbox.depth})

    async def _views_where(self, *conditions: Any) -> list[RequestView]:
        newest = col(tables.SessionRequest.id).desc()
        async with self._database.read() as session:
            rows = await session.exec(
                select(tables.SessionRequest).where(*conditions).order_by(newest).limit(OPEN_REQUESTS_MAX)
            )
            seen = await request_views(session, list(rows), now_ms=self._clock.now_ms())
        return [one.view for one in seen]
