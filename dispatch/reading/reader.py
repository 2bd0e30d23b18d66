"""What sockets and REST show of requests and offers, read for many accounts together.

A reconnect storm asks for thousands of snapshots in a second. One by one that is several queries each; together it is a
handful for all of them. Whoever wants one asks for a batch of one.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain, islice

from msgspec import Struct
from sqlalchemy import or_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from dispatch.eligibility import Standing, may_get_broadcast
from dispatch.reading.views import offer_views, request_view, request_views
from dispatch.request import OPEN
from infra.clock import Clock
from infra.database import Database
from models import tables
from models.outcomes import NotFound, Refused
from models.rest import Requests
from models.wire import OfferView, RequestView
from models.words import RequestStatus, Role

REQUESTS_MAX = 50
"""Of one account, in what its sockets are sent."""
OFFERS_MAX = 100
"""Of one mechanic."""
BROADCASTS_MAX = 3 * OFFERS_MAX
"""Read once for everybody. More than OFFERS_MAX: a mechanic is not shown those they declined."""
RECENT_MS = 24 * 3600 * 1000
"""How long after its end a request is still told to sockets that may not have heard of it."""


class TimedOffer(Struct):
    """An offer as of the reading, and its deadline in ms for counting the time that is left anew."""

    offer: OfferView
    expires_at_ms: int


@dataclass(frozen=True)
class MechanicSnapshot:
    """A mechanic's standing, the offers open to them, and the request they are serving, at one instant."""

    standing: Standing
    offers: list[TimedOffer]
    request: RequestView | None


class Reader:
    """Reads from SQL; raises ``DatabaseUnavailable``. Accounts that there are not are missing in the answers."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    # --- mechanics ----------------------------------------------------------------------------------------------------

    async def standings(self, mechanic_ids: Collection[str]) -> dict[str, Standing]:
        """Return the standing of each mechanic."""
        async with self._database.read() as session:
            return {row.id: row.standing for row in await _mechanics(session, mechanic_ids)}

    async def offers(self, mechanic_ids: Collection[str]) -> dict[str, list[TimedOffer]]:
        """Return the offers open to each mechanic now: their own, and the broadcasts that they may get, soonest to end first."""
        async with self._database.read() as session:
            mechanics = await _mechanics(session, mechanic_ids)
            return await _offers(session, mechanics, self._clock.now_ms())

    async def active_requests(self, mechanic_ids: Collection[str]) -> dict[str, RequestView]:
        """Return the request that each mechanic is serving, of those who are."""
        async with self._database.read() as session:
            mechanics = await _mechanics(session, mechanic_ids)
            return await _active_requests(session, mechanics, self._clock.now_ms())

    async def mechanic_snapshots(self, mechanic_ids: Collection[str]) -> dict[str, MechanicSnapshot]:
        """Return all of the above together."""
        async with self._database.read() as session:
            mechanics = await _mechanics(session, mechanic_ids)
            now_ms = self._clock.now_ms()
            offers = await _offers(session, mechanics, now_ms)
            requests = await _active_requests(session, mechanics, now_ms)
        return {
            mechanic.id: MechanicSnapshot(mechanic.standing, offers[mechanic.id], requests.get(mechanic.id))
            for mechanic in mechanics
        }

    # --- requests -----------------------------------------------------------------------------------------------------

    async def open_requests(self, customer_ids: Collection[str]) -> dict[str, list[RequestView]]:
        """Return the requests of each customer that are not settled, newest first; every id is there."""
        table = tables.SessionRequest
        found: dict[str, list[RequestView]] = {customer_id: [] for customer_id in customer_ids}
        async with self._database.read() as session:
            rows = await session.exec(
                select(table)
                .where(col(table.customer_id).in_(customer_ids), col(table.status).in_(OPEN))
                .order_by(col(table.id).desc())
            )
            for seen in await request_views(session, list(rows), now_ms=self._clock.now_ms()):
                if len(found[seen.customer_id]) < REQUESTS_MAX:
                    found[seen.customer_id].append(seen.view)
        return found

    async def recent_requests(self, account_ids: Collection[str]) -> dict[str, list[RequestView]]:
        """Return what each account may have missed the end of, newest first; who has nothing is not there.

        A customer's requests; a mechanic's sessions, also those that they gave back. Open, or settled within the last day.
        """
        table, excluded = tables.SessionRequest, tables.Exclusion
        wanted = frozenset(account_ids)
        concerned: defaultdict[str, list[RequestView]] = defaultdict(list)
        async with self._database.read() as session:
            now_ms = self._clock.now_ms()
            is_recent = or_(col(table.status).in_(OPEN), col(table.settled_at_ms) > now_ms - RECENT_MS)
            is_theirs = or_(col(table.customer_id).in_(account_ids), col(table.assigned_mechanic_id).in_(account_ids))
            rows = {row.id: row for row in await session.exec(select(table).where(is_theirs, is_recent))}
            former: defaultdict[str, set[str]] = defaultdict(set)
            """Who gave a request back, by the request. Who declined it never had it, and is told nothing."""
            given_back = await session.exec(
                select(table, excluded.mechanic_id)
                .join(excluded, col(excluded.request_id) == col(table.id))
                .where(col(excluded.mechanic_id).in_(account_ids), excluded.because == "released", is_recent)
            )
            for row, mechanic_id in given_back:
                rows[row.id] = row
                former[row.id].add(mechanic_id)
            newest_first = [rows[request_id] for request_id in sorted(rows, reverse=True)]
            for seen in await request_views(session, newest_first, now_ms=now_ms):
                for account_id in seen.shown_to | former[seen.view.id]:
                    if account_id in wanted:
                        concerned[account_id].append(seen.view)
        return {account_id: views[:REQUESTS_MAX] for account_id, views in concerned.items()}

    async def request_for(self, account_id: str, request_id: str) -> RequestView | Refused:
        """Return a request to its customer or its assigned mechanic; to anyone else there is none."""
        async with self._database.read() as session:
            seen = await request_view(session, request_id, now_ms=self._clock.now_ms())
        if seen is None or account_id not in seen.shown_to:
            return NotFound(detail="There is no such request.")
        return seen.view

    async def requests_of(
        self,
        account_id: str,
        role: str,
        *,
        status: RequestStatus | None = None,
        cursor: str | None = None,
        limit: int = 20,
    ) -> Requests:
        """Return a page of one's own requests, newest first; ``cursor`` is the page before's ``next_cursor``."""
        table = tables.SessionRequest
        owner = table.assigned_mechanic_id if role == Role.MECHANIC else table.customer_id
        query = select(table).where(owner == account_id)
        if status is not None:
            query = query.where(table.status == status)
        if cursor is not None:
            query = query.where(col(table.id) < cursor)
        async with self._database.read() as session:
            rows = list(await session.exec(query.order_by(col(table.id).desc()).limit(limit + 1)))
            page = rows[:limit]
            seen = await request_views(session, page, now_ms=self._clock.now_ms())
        return Requests([one.view for one in seen], page[-1].id if len(rows) > limit else None)


# --- one query or two for all of them ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Mechanic:
    id: str
    on_duty: bool
    active_request_id: str | None

    @property
    def standing(self) -> Standing:
        return Standing(self.on_duty, self.active_request_id is not None)


async def _mechanics(session: AsyncSession, ids: Collection[str]) -> list[_Mechanic]:
    table = tables.Mechanic
    found = await session.exec(select(table.id, table.on_duty, table.active_request_id).where(col(table.id).in_(ids)))
    return [_Mechanic(*row) for row in found]


async def _offers(session: AsyncSession, mechanics: Collection[_Mechanic], now_ms: int) -> dict[str, list[TimedOffer]]:
    """Return the offers open to each of the mechanics, each list soonest to end first, one's own before the broadcasts."""
    table = tables.Offer
    is_open = (col(table.closed_at_ms).is_(None), col(table.expires_at_ms) > now_ms)
    by_end = col(table.expires_at_ms)
    ids = [mechanic.id for mechanic in mechanics]
    own = list(await session.exec(select(table).where(*is_open, col(table.mechanic_id).in_(ids)).order_by(by_end)))
    broadcasts: list[tables.Offer] = []
    if asked := [mechanic.id for mechanic in mechanics if may_get_broadcast(mechanic.standing)]:
        for_all = select(table).where(*is_open, col(table.mechanic_id).is_(None)).order_by(by_end)
        broadcasts = list(await session.exec(for_all.limit(BROADCASTS_MAX)))
    excluded = await _exclusions(session, {offer.request_id for offer in broadcasts}, asked)
    both = [*own, *broadcasts]
    views = await offer_views(session, both, now_ms=now_ms)
    timed = {offer.id: TimedOffer(view, offer.expires_at_ms) for offer, view in zip(both, views, strict=True)}
    found: defaultdict[str | None, list[TimedOffer]] = defaultdict(list)
    for offer in own:
        found[offer.mechanic_id].append(timed[offer.id])

    def broadcasts_for(mechanic: _Mechanic) -> Iterator[TimedOffer]:
        for offer in broadcasts:
            if may_get_broadcast(mechanic.standing, is_excluded=(offer.request_id, mechanic.id) in excluded):
                yield timed[offer.id]

    return {
        mechanic.id: list(islice(chain(found[mechanic.id], broadcasts_for(mechanic)), OFFERS_MAX))
        for mechanic in mechanics
    }


async def _exclusions(
    session: AsyncSession, request_ids: Collection[str], mechanic_ids: Collection[str]
) -> set[tuple[str, str]]:
    """Return which of the requests will not be offered again to which of the mechanics."""
    if not request_ids:
        return set()
    table = tables.Exclusion
    is_among = (col(table.request_id).in_(request_ids), col(table.mechanic_id).in_(mechanic_ids))
    return set(await session.exec(select(table.request_id, table.mechanic_id).where(*is_among)))


async def _active_requests(
    session: AsyncSession, mechanics: Collection[_Mechanic], now_ms: int
) -> dict[str, RequestView]:
    serving = {one.active_request_id: one.id for one in mechanics if one.active_request_id is not None}
    if not serving:
        return {}
    rows = await session.exec(select(tables.SessionRequest).where(col(tables.SessionRequest.id).in_(serving)))
    seen = await request_views(session, list(rows), now_ms=now_ms)
    return {serving[one.view.id]: one.view for one in seen}
