"""What sockets and REST show of requests and offers, read for many accounts together.

A reconnect storm asks for thousands of snapshots in a second. One by one that is several queries each; together it is a
handful for all of them. Whoever wants one asks for a batch of one.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

from msgspec import Struct

from dispatch.eligibility import Standing, may_be_asked, may_get_broadcast
from dispatch.request import OpenWindow
from dispatch.showing import Showing
from dispatch.stored import READ_REQUESTS, SQL, Named, StoredRequest
from dispatch.views import offer_view, word
from infra.clock import Clock
from infra.database import Database
from infra.statements import Statement, Transaction
from models.outcomes import NotFound, Refused
from models.rest import Requests
from models.wire import OfferView, RequestView
from models.words import OfferKind, RequestStatus, Role

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


@dataclass(frozen=True)
class _Mechanic:
    """A row of ``read_standings``."""

    id: str
    on_duty: bool
    active_request_id: str | None
    version: int
    types_off: str
    back_at_ms: int | None
    off_after_session: bool

    @property
    def standing(self) -> Standing:
        is_busy = self.active_request_id is not None
        return Standing(self.on_duty, is_busy, self.version, self.types_off, self.back_at_ms, self.off_after_session)


@dataclass(frozen=True)
class _OpenOffer:
    """A row of ``open_offers_of`` and of ``open_broadcasts``; ``id`` is the request's."""

    id: str
    customer_name: str
    plan_id: str
    session_type: str
    duration_min: int
    note: str | None
    plan_cents: int
    currency: str
    offer_id: str
    kind: str
    mechanic_id: str | None
    opened_at_ms: int
    expires_at_ms: int


@dataclass(frozen=True)
class _Pair:
    """A request, and a mechanic who will not be asked for it again."""

    request_id: str
    mechanic_id: str


READ_STANDINGS = Statement(SQL / "read_standings.sql", _Mechanic)
OPEN_OFFERS_OF = Statement(SQL / "open_offers_of.sql", _OpenOffer, leaves_out="offers")
OPEN_BROADCASTS = Statement(SQL / "open_broadcasts.sql", _OpenOffer, leaves_out="offers")
EXCLUSIONS_AMONG = Statement(SQL / "exclusions_among.sql", _Pair)
OPEN_REQUESTS_OF = Statement(SQL / "open_requests_of.sql", Named)
RECENT_REQUESTS_OF = Statement(SQL / "recent_requests_of.sql", Named)
LOST_BY = Statement(SQL / "lost_by.sql", _Pair)
PAGE_OF = {
    Role.CUSTOMER: Statement(SQL / "page_of_customer.sql", Named),
    Role.MECHANIC: Statement(SQL / "page_of_assigned_mechanic.sql", Named),
}


class Reader:
    """Reads from SQL; raises ``DatabaseUnavailable``. Accounts that there are not are missing in the answers."""

    def __init__(self, database: Database, clock: Clock, showing: Showing) -> None:
        self._database = database
        self._clock = clock
        self._showing = showing

    # --- mechanics ----------------------------------------------------------------------------------------------------

    async def standings(self, mechanic_ids: Collection[str]) -> dict[str, Standing]:
        """Return the standing of each mechanic."""
        found = await self._database.query(READ_STANDINGS(ids=list(mechanic_ids)))
        return {mechanic.id: mechanic.standing for mechanic in found}

    async def offers(self, mechanic_ids: Collection[str]) -> dict[str, list[TimedOffer]]:
        """Return the offers open to each mechanic now: their own, and the broadcasts that they may get, soonest to end first."""

        def work() -> Transaction[dict[str, list[TimedOffer]]]:
            mechanics = yield from READ_STANDINGS(ids=list(mechanic_ids))
            return (yield from _offers(mechanics, self._clock.now_ms()))

        return await self._database.query(work())

    async def mechanic_snapshots(self, mechanic_ids: Collection[str]) -> dict[str, MechanicSnapshot]:
        """Return both together, and the request that each mechanic is serving, of those who are."""

        def work() -> Transaction[tuple[list[_Mechanic], dict[str, list[TimedOffer]], dict[str, StoredRequest]]]:
            mechanics = yield from READ_STANDINGS(ids=list(mechanic_ids))
            offers = yield from _offers(mechanics, self._clock.now_ms())
            return mechanics, offers, (yield from _active_requests(mechanics))

        mechanics, offers, serving = await self._database.query(work())
        views = await self._showing.all([(stored.assigned_mechanic_id, stored) for stored in serving.values()])
        requests = dict(zip(serving, views, strict=True))
        return {
            mechanic.id: MechanicSnapshot(mechanic.standing, offers[mechanic.id], requests.get(mechanic.id))
            for mechanic in mechanics
        }

    # --- requests -----------------------------------------------------------------------------------------------------

    async def open_requests(self, customer_ids: Collection[str]) -> dict[str, list[RequestView]]:
        """Return the requests of each customer that are not settled, newest first; every id is there."""

        def work() -> Transaction[list[StoredRequest]]:
            return (yield from _newest_first((yield from OPEN_REQUESTS_OF(customer_ids=list(customer_ids)))))

        found: dict[str, list[RequestView]] = {customer_id: [] for customer_id in customer_ids}
        rows = await self._database.query(work())
        views = await self._showing.all([(row.customer_id, row) for row in rows])
        for row, view in zip(rows, views, strict=True):
            if len(found[row.customer_id]) < REQUESTS_MAX:
                found[row.customer_id].append(view)
        return found

    async def recent_requests(self, account_ids: Collection[str]) -> dict[str, list[RequestView]]:
        """Return what each account may have missed the end of, newest first; who has nothing is not there.

        A customer's requests; a mechanic's sessions, also those that they had and lost. Open, or settled within the last day.
        """
        now_ms = self._clock.now_ms()
        former: defaultdict[str, set[str]] = defaultdict(set)
        """Who had a request and lost it, by the request."""

        def work() -> Transaction[list[StoredRequest]]:
            since_ms = now_ms - RECENT_MS
            theirs = yield from RECENT_REQUESTS_OF(account_ids=list(account_ids), since_ms=since_ms)
            lost = yield from LOST_BY(mechanic_ids=list(account_ids), since_ms=since_ms)
            for pair in lost:
                former[pair.request_id].add(pair.mechanic_id)
            return (yield from _newest_first([*theirs, *map(Named, former)]))

        wanted = frozenset(account_ids)
        concerned: defaultdict[str, list[tuple[str, StoredRequest]]] = defaultdict(list)
        for row in await self._database.query(work()):
            for account_id in wanted & (row.shown_to | former[row.id]):
                concerned[account_id].append((account_id, row))
        shown = {account_id: rows[:REQUESTS_MAX] for account_id, rows in concerned.items()}
        views = iter(await self._showing.all([pair for rows in shown.values() for pair in rows]))
        return {account_id: list(islice(views, len(rows))) for account_id, rows in shown.items()}

    async def request_for(self, account_id: str, request_id: str) -> RequestView | Refused:
        """Return a request to its customer or its assigned mechanic; to anyone else there is none."""
        found = await self._database.query(READ_REQUESTS(ids=[request_id]))
        if not found or account_id not in found[0].shown_to:
            return NotFound(detail="There is no such request.")
        return await self._showing.to(account_id, found[0])

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
        page_of = PAGE_OF[Role.MECHANIC if role == Role.MECHANIC else Role.CUSTOMER]

        def work() -> Transaction[tuple[list[StoredRequest], bool]]:
            found = yield from page_of(account_id=account_id, status=status, before=cursor, limit=limit + 1)
            return (yield from _newest_first(found[:limit])), len(found) > limit

        rows, has_more = await self._database.query(work())
        views = await self._showing.all([(account_id, row) for row in rows])
        return Requests(views, rows[-1].id if has_more else None)


# --- one query or two for all of them ---------------------------------------------------------------------------------


def _newest_first(found: Iterable[Named]) -> Transaction[list[StoredRequest]]:
    """Read requests; nothing is asked for none."""
    ids = sorted({one.id for one in found})
    return list(reversed((yield from READ_REQUESTS(ids=ids)))) if ids else []


def _offers(mechanics: Collection[_Mechanic], now_ms: int) -> Transaction[dict[str, list[TimedOffer]]]:
    """Return the offers open to each of the mechanics, each list soonest to end first, one's own before the broadcasts."""
    own = yield from OPEN_OFFERS_OF(mechanic_ids=[mechanic.id for mechanic in mechanics], now_ms=now_ms)
    broadcasts: list[_OpenOffer] = []
    excluded: list[_Pair] = []
    if asked := [mechanic.id for mechanic in mechanics if may_be_asked(mechanic.standing)]:
        broadcasts = yield from OPEN_BROADCASTS(now_ms=now_ms, limit=BROADCASTS_MAX)
    if broadcasts:
        request_ids = [offer.id for offer in broadcasts]
        excluded = yield from EXCLUSIONS_AMONG(request_ids=request_ids, mechanic_ids=asked)
    not_again = {(pair.request_id, pair.mechanic_id) for pair in excluded}
    timed = {offer.offer_id: _timed(offer, now_ms) for offer in [*own, *broadcasts]}
    found: defaultdict[str | None, list[TimedOffer]] = defaultdict(list)
    for offer in own:
        found[offer.mechanic_id].append(timed[offer.offer_id])

    def broadcasts_for(mechanic: _Mechanic) -> Iterator[TimedOffer]:
        for offer in broadcasts:
            is_excluded = (offer.id, mechanic.id) in not_again
            if may_get_broadcast(mechanic.standing, offer.session_type, is_excluded=is_excluded):
                yield timed[offer.offer_id]

    return {
        mechanic.id: list(islice(chain(found[mechanic.id], broadcasts_for(mechanic)), OFFERS_MAX))
        for mechanic in mechanics
    }


def _timed(offer: _OpenOffer, now_ms: int) -> TimedOffer:
    window = OpenWindow(
        offer.offer_id, word(OfferKind, offer.kind), offer.mechanic_id, offer.opened_at_ms, offer.expires_at_ms
    )
    return TimedOffer(offer_view(offer, window, now_ms=now_ms), offer.expires_at_ms)


def _active_requests(mechanics: Collection[_Mechanic]) -> Transaction[dict[str, StoredRequest]]:
    serving = {one.active_request_id: one.id for one in mechanics if one.active_request_id is not None}
    rows = yield from _newest_first(map(Named, serving))
    return {serving[row.id]: row for row in rows}
