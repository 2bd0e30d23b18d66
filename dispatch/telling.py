"""Telling those concerned what has been committed: sockets on every node, the clock, presence, and push.

These are the outbox's handlers. Each reads the state as it is when it is told, so telling late or twice is harmless.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from msgspec import Raw
from sqlmodel import col, select

from dispatch import deliveries
from dispatch.deadlines import Deadlines
from dispatch.notices import (
    FactsChanged,
    FavoriteToPrompt,
    OfferClosed,
    OfferOpened,
    OfferWithdrawnFrom,
    RequestChanged,
)
from dispatch.outbox import Outbox
from dispatch.push import Push
from dispatch.reading.views import offer_views, request_views
from dispatch.request import ends_at_ms
from dispatch.request_store import excluded_from
from infra.bus import Bus
from infra.clock import RedisClock
from infra.database import Database
from infra.redis_link import RedisLink
from models import tables
from models.wire import FavoritePrompt, OfferView, Person, RequestUpdate, encode
from models.words import OfferKind, WithdrawReason
from presence.service import Presence


class Telling:
    """Registers itself with the outbox for every kind of notice that a transition leaves."""

    def __init__(
        self,
        *,
        database: Database,
        link: RedisLink,
        bus: Bus,
        clock: RedisClock,
        presence: Presence,
        deadlines: Deadlines,
        push: Push,
        outbox: Outbox,
    ) -> None:
        self._database = database
        self._bus = bus
        self._clock = clock
        self._presence = presence
        self._deadlines = deadlines
        self._push = push
        self._channel = deliveries.channel(link)
        # The most urgent first: a card that is gone, whoever may take the request, and who waits for it.
        outbox.on(OfferClosed, self._offers_closed)
        outbox.on(OfferWithdrawnFrom, self._offers_withdrawn)
        outbox.on(OfferOpened, self._offers_opened)
        outbox.on(RequestChanged, self._requests_changed)
        outbox.on(FavoriteToPrompt, self._favorite_prompts)
        outbox.on(FactsChanged, self._facts_changed)

    async def _publish(self, found: Iterable[deliveries.Delivery]) -> None:
        await self._bus.publish(self._channel, *map(deliveries.encode, found))

    async def _offers_opened(self, notices: Sequence[OfferOpened]) -> None:
        async with self._database.read() as session:
            ids = [notice.offer_id for notice in notices]
            found = await session.exec(select(tables.Offer).where(col(tables.Offer.id).in_(ids)))
            # Looked at here and not asked in SQL, for the reason that ``request_store.open_windows`` gives.
            offers = [offer for offer in found if offer.closed_at_ms is None]
            views = await offer_views(session, offers, now_ms=self._clock.now_ms())
            excluded = await excluded_from(session, {offer.request_id for offer in offers})
        # On the clock first: a window that nobody hears of must still end.
        await self._deadlines.schedule(*((offer.id, ends_at_ms(offer.kind, offer.expires_at_ms)) for offer in offers))
        shown = list(zip(offers, views, strict=True))
        await self._publish(
            deliveries.OfferTo(view, offer.expires_at_ms, offer.mechanic_id, sorted(excluded[offer.request_id]))
            for offer, view in shown
        )
        await self._push_to_absent([(offer, view) for offer, view in shown if offer.kind is OfferKind.PRIORITY])

    async def _push_to_absent(self, found: list[tuple[tables.Offer, OfferView]]) -> None:
        favorites = {offer.mechanic_id for offer, _ in found if offer.mechanic_id is not None}
        statuses = await self._presence.status_of(favorites) if favorites else {}
        for offer, view in found:
            status = None if offer.mechanic_id is None else statuses.get(offer.mechanic_id)
            if status is not None and status.reachable == "push":
                self._push.send_soon(status.mechanic_id, view, expires_at_ms=offer.expires_at_ms)

    async def _offers_closed(self, notices: Sequence[OfferClosed]) -> None:
        await self._publish(
            deliveries.Withdraw(notice.offer_id, notice.reason, notice.except_connection_id) for notice in notices
        )
        # What time ended is taken off the clock by the node that had claimed it there.
        await self._deadlines.forget(
            *(notice.offer_id for notice in notices if notice.reason is not WithdrawReason.EXPIRED)
        )

    async def _offers_withdrawn(self, notices: Sequence[OfferWithdrawnFrom]) -> None:
        await self._publish(
            deliveries.Withdraw(notice.offer_id, WithdrawReason.DECLINED, only_mechanic_id=notice.mechanic_id)
            for notice in notices
        )

    async def _requests_changed(self, notices: Sequence[RequestChanged]) -> None:
        to_tell: defaultdict[str, set[str]] = defaultdict(set)
        for notice in notices:
            to_tell[notice.request_id].update(notice.tell)
        read_at_ms = self._clock.now_ms()
        async with self._database.read() as session:
            rows = await session.exec(select(tables.SessionRequest).where(col(tables.SessionRequest.id).in_(to_tell)))
            found = await request_views(session, list(rows), now_ms=read_at_ms)
        assert len(found) == len(to_tell), "requests are never deleted"
        updates: list[deliveries.Delivery] = []
        for seen in found:
            frame = Raw(encode(RequestUpdate(seen.view)))
            told = deliveries.Told(seen.view.id, seen.view.version, read_at_ms)
            updates.append(deliveries.FrameToCustomer(seen.customer_id, frame, told))
            if seen.assigned_mechanic_id is not None:
                to_tell[seen.view.id].add(seen.assigned_mechanic_id)
            for mechanic_id in to_tell[seen.view.id]:
                updates.append(deliveries.FrameToMechanic(mechanic_id, frame, told))
        await self._publish(updates)

    async def _facts_changed(self, notices: Sequence[FactsChanged]) -> None:
        ids = {notice.mechanic_id for notice in notices}
        await self._presence.refresh_facts(ids)
        async with self._database.read() as session:
            mechanics = list(await session.exec(select(tables.Mechanic).where(col(tables.Mechanic.id).in_(ids))))
        await self._publish(
            deliveries.StandingChanged(mechanic.id, mechanic.on_duty, mechanic.active_request_id is not None)
            for mechanic in mechanics
        )

    async def _favorite_prompts(self, notices: Sequence[FavoriteToPrompt]) -> None:
        prompts = []
        async with self._database.read() as session:
            for notice in notices:
                row = await session.get_one(tables.SessionRequest, notice.request_id)
                if await session.get(tables.Favorite, (row.customer_id, notice.mechanic_id)) is not None:
                    continue
                mechanic = await session.get_one(tables.Account, notice.mechanic_id)
                prompt = FavoritePrompt(row.id, Person(mechanic.id, mechanic.name))
                prompts.append(deliveries.FrameToCustomer(row.customer_id, Raw(encode(prompt))))
        await self._publish(prompts)
