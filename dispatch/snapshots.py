"""What a socket needs to know when it opens, and when it may have missed something, read for many accounts at once.

A reconnect storm asks for thousands of snapshots in a second. One by one that is several queries each; together it is a
handful for all of them.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import or_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from dispatch.reading import OPEN_OFFERS_MAX, OPEN_REQUESTS_MAX, MechanicState, OpenOffer
from dispatch.request import OPEN
from dispatch.views import offer_views, request_views
from infra.clock import RedisClock
from infra.database import Database
from models import tables
from models.wire import RequestView

RECENT_MS = 24 * 3600 * 1000
"""How long after its end a request is still told to sockets that may not have heard of it."""
BROADCASTS_MAX = 3 * OPEN_OFFERS_MAX
"""Read once for everybody; more than one mechanic sees, because each may have declined some of them."""


@dataclass(frozen=True)
class MechanicSnapshot:
    """A mechanic's switches, the offers open to them, and the request they are serving, at one instant."""

    state: MechanicState
    offers: list[OpenOffer]
    request: RequestView | None


class Snapshots:
    """Reads snapshots; raises ``DatabaseUnavailable``."""

    def __init__(self, database: Database, clock: RedisClock) -> None:
        self._database = database
        self._clock = clock

    async def of_mechanics(self, ids: Collection[str]) -> dict[str, MechanicSnapshot]:
        """Return the snapshot of each of ``ids`` who is a mechanic; the same as asking ``Dispatch`` one by one."""
        table = tables.Mechanic
        async with self._database.read() as session:
            found = await session.exec(
                select(table.id, table.on_duty, table.active_request_id).where(col(table.id).in_(ids))
            )
            mechanics = list(found)
            now_ms = self._clock.now_ms()
            eligible = {id_ for id_, on_duty, active_request_id in mechanics if on_duty and active_request_id is None}
            own, broadcasts = await self._offers(session, [id_ for id_, _, _ in mechanics], eligible, now_ms)
            declined = await self._declined(session, [offer for offer, _ in broadcasts], eligible)
            active_ids = {request_id for _, _, request_id in mechanics if request_id is not None}
            requests = await self._requests(session, active_ids, now_ms)
        snapshots = {}
        for mechanic_id, on_duty, active_request_id in mechanics:
            offers = own[mechanic_id]
            if mechanic_id in eligible:
                offers += [open_ for offer, open_ in broadcasts if (offer.request_id, mechanic_id) not in declined]
            state = MechanicState(on_duty, active_request_id is not None)
            snapshots[mechanic_id] = MechanicSnapshot(state, offers[:OPEN_OFFERS_MAX], requests.get(active_request_id))
        return snapshots

    async def of_customers(self, ids: Collection[str]) -> dict[str, list[RequestView]]:
        """Return the requests of each of ``ids`` that are not settled, newest first; every id is there."""
        table = tables.SessionRequest
        snapshots: dict[str, list[RequestView]] = {customer_id: [] for customer_id in ids}
        async with self._database.read() as session:
            rows = await session.exec(
                select(table)
                .where(col(table.customer_id).in_(ids), col(table.status).in_([status.value for status in OPEN]))
                .order_by(col(table.id).desc())
            )
            for seen in await request_views(session, list(rows), now_ms=self._clock.now_ms()):
                if len(snapshots[seen.customer_id]) < OPEN_REQUESTS_MAX:
                    snapshots[seen.customer_id].append(seen.view)
        return snapshots

    async def recent_requests_of(self, ids: Collection[str]) -> dict[str, list[RequestView]]:
        """Return what each of ``ids`` may have missed the end of, newest first; who has nothing is not there.

        A customer's requests; a mechanic's sessions, also those that they gave back. Open, or settled within the last day.
        """
        table, excluded = tables.SessionRequest, tables.Exclusion
        concerned: defaultdict[str, list[RequestView]] = defaultdict(list)
        async with self._database.read() as session:
            now_ms = self._clock.now_ms()
            is_recent = or_(
                col(table.status).in_([status.value for status in OPEN]), col(table.settled_at_ms) > now_ms - RECENT_MS
            )
            is_theirs = or_(col(table.customer_id).in_(ids), col(table.assigned_mechanic_id).in_(ids))
            rows = {row.id: row for row in await session.exec(select(table).where(is_theirs, is_recent))}
            released = select(table, excluded.mechanic_id).join(excluded, col(excluded.request_id) == col(table.id))
            given_back = list(
                await session.exec(
                    released.where(col(excluded.mechanic_id).in_(ids), excluded.because == "released", is_recent)
                )
            )
            rows |= {row.id: row for row, _ in given_back}
            former = {(row.id, mechanic_id) for row, mechanic_id in given_back}
            newest_first = [rows[request_id] for request_id in sorted(rows, reverse=True)]
            for seen in await request_views(session, newest_first, now_ms=now_ms):
                for account_id in {seen.customer_id, seen.assigned_mechanic_id}.intersection(ids):
                    concerned[account_id].append(seen.view)
                for account_id in ids:
                    if (seen.view.id, account_id) in former and account_id != seen.assigned_mechanic_id:
                        concerned[account_id].append(seen.view)
        return {account_id: views[:OPEN_REQUESTS_MAX] for account_id, views in concerned.items()}

    async def _offers(
        self, session: AsyncSession, ids: Collection[str], eligible: Collection[str], now_ms: int
    ) -> tuple[defaultdict[str, list[OpenOffer]], list[tuple[tables.Offer, OpenOffer]]]:
        """Return the priority offers of each mechanic, and the broadcasts if anybody may have them; soonest to end first."""
        table = tables.Offer
        is_open = (col(table.closed_at_ms).is_(None), col(table.expires_at_ms) > now_ms)
        by_end = col(table.expires_at_ms)
        own = list(await session.exec(select(table).where(*is_open, col(table.mechanic_id).in_(ids)).order_by(by_end)))
        for_all: Sequence[tables.Offer] = ()
        if eligible:
            query = select(table).where(*is_open, col(table.mechanic_id).is_(None)).order_by(by_end)
            for_all = list(await session.exec(query.limit(BROADCASTS_MAX)))
        both = [*own, *for_all]
        views = await offer_views(session, both, now_ms=now_ms)
        opened = [(offer, OpenOffer(view, offer.expires_at_ms)) for offer, view in zip(both, views, strict=True)]
        by_mechanic: defaultdict[str, list[OpenOffer]] = defaultdict(list)
        for offer, open_ in opened[: len(own)]:
            assert offer.mechanic_id is not None
            by_mechanic[offer.mechanic_id].append(open_)
        return by_mechanic, opened[len(own) :]

    async def _declined(
        self, session: AsyncSession, offers: Collection[tables.Offer], ids: Collection[str]
    ) -> set[tuple[str, str]]:
        """Return which requests will not be offered again to which of ``ids``."""
        if not offers:
            return set()
        table = tables.Exclusion
        found = await session.exec(
            select(table.request_id, table.mechanic_id).where(
                col(table.request_id).in_({offer.request_id for offer in offers}), col(table.mechanic_id).in_(ids)
            )
        )
        return {(request_id, mechanic_id) for request_id, mechanic_id in found}

    async def _requests(
        self, session: AsyncSession, request_ids: Collection[str], now_ms: int
    ) -> dict[str | None, RequestView]:
        if not request_ids:
            return {}
        rows = await session.exec(select(tables.SessionRequest).where(col(tables.SessionRequest.id).in_(request_ids)))
        return {seen.view.id: seen.view for seen in await request_views(session, list(rows), now_ms=now_ms)}
