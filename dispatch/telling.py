"""Telling those concerned what has been committed: sockets on every node, the clock, presence, and push.

These are the outbox's handlers. Each reads the state as it is when it is told, so telling late or twice is harmless.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Raw
from sqlmodel import col, select

from dispatch import deliveries
from dispatch.deadlines import Deadlines
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
from models.words import OfferKind
from presence.service import Presence

Payloads = Sequence[Mapping[str, Any]]


class Telling:
    """Registers itself with the outbox for every kind of message that a transition leaves."""

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
        outbox.on("offer_closed", self._offers_closed)
        outbox.on("offer_withdrawn", self._offers_withdrawn)
        outbox.on("offer_opened", self._offers_opened)
        outbox.on("request_changed", self._requests_changed)
        outbox.on("favorite_prompt", self._favorite_prompts)
        outbox.on("facts_changed", self._facts_changed)

    async def _publish(self, found: Iterable[deliveries.Delivery]) -> None:
        await self._bus.publish(self._channel, *map(deliveries.encode, found))

    async def _offers_opened(self, payloads: Payloads) -> None:
        async with self._database.read() as session:
            ids = [payload["offer_id"] for payload in payloads]
            found = await session.exec(select(tables.Offer).where(col(tables.Offer.id).in_(ids)))
            # Looked at here and not asked in SQL, for the reason that ``request_store.open_windows`` gives.
            offers = [offer for offer in found if offer.closed_at_ms is None]
            views = await offer_views(session, offers, now_ms=self._clock.now_ms())
            excluded = await excluded_from(session, {offer.request_id for offer in offers})
        # On the clock first: a window that nobody hears of must still end.
        await self._deadlines.schedule(
            *((offer.id, ends_at_ms(OfferKind(offer.kind), offer.expires_at_ms)) for offer in offers)
        )
        shown = list(zip(offers, views, strict=True))
        await self._publish(
            deliveries.OfferTo(view, offer.expires_at_ms, offer.mechanic_id, sorted(excluded[offer.request_id]))
            for offer, view in shown
        )
        await self._push_to_absent([(offer, view) for offer, view in shown if offer.kind == OfferKind.PRIORITY])

    async def _push_to_absent(self, found: list[tuple[tables.Offer, OfferView]]) -> None:
        favorites = {offer.mechanic_id for offer, _ in found if offer.mechanic_id is not None}
        statuses = await self._presence.status_of(favorites) if favorites else {}
        for offer, view in found:
            status = None if offer.mechanic_id is None else statuses.get(offer.mechanic_id)
            if status is not None and status.reachable == "push":
                self._push.send_soon(status.mechanic_id, view, expires_at_ms=offer.expires_at_ms)

    async def _offers_closed(self, payloads: Payloads) -> None:
        await self._publish(
            deliveries.Withdraw(payload["offer_id"], payload["reason"], payload["except_connection_id"])
            for payload in payloads
        )
        await self._deadlines.forget(*(payload["offer_id"] for payload in payloads))

    async def _offers_withdrawn(self, payloads: Payloads) -> None:
        await self._publish(
            deliveries.Withdraw(payload["offer_id"], "declined", only_mechanic_id=payload["mechanic_id"])
            for payload in payloads
        )

    async def _requests_changed(self, payloads: Payloads) -> None:
        to_tell: defaultdict[str, set[str | None]] = defaultdict(set)
        for payload in payloads:
            to_tell[payload["request_id"]].update(payload["tell"])
        read_at_ms = self._clock.now_ms()
        async with self._database.read() as session:
            rows = await session.exec(select(tables.SessionRequest).where(col(tables.SessionRequest.id).in_(to_tell)))
            found = await request_views(session, list(rows), now_ms=read_at_ms)
        assert len(found) == len(to_tell), "requests are never deleted"
        updates: list[deliveries.Delivery] = []
        for seen in found:
            frame = Raw(encode(RequestUpdate(seen.view)))
            told = deliveries.Told(seen.view.id, seen.view.version, read_at_ms)
            updates.append(deliveries.ToCustomer(seen.customer_id, frame, told))
            for mechanic_id in {seen.assigned_mechanic_id, *to_tell[seen.view.id]} - {None}:
                updates.append(deliveries.ToMechanic(mechanic_id, frame, told))
        await self._publish(updates)

    async def _facts_changed(self, payloads: Payloads) -> None:
        ids = {payload["mechanic_id"] for payload in payloads}
        await self._presence.refresh_facts(ids)
        async with self._database.read() as session:
            mechanics = list(await session.exec(select(tables.Mechanic).where(col(tables.Mechanic.id).in_(ids))))
        await self._publish(
            deliveries.StandingChanged(mechanic.id, mechanic.on_duty, mechanic.active_request_id is not None)
            for mechanic in mechanics
        )

    async def _favorite_prompts(self, payloads: Payloads) -> None:
        prompts = []
        async with self._database.read() as session:
            for payload in payloads:
                row = await session.get_one(tables.SessionRequest, payload["request_id"])
                if await session.get(tables.Favorite, (row.customer_id, payload["mechanic_id"])) is not None:
                    continue
                mechanic = await session.get_one(tables.Account, payload["mechanic_id"])
                prompt = FavoritePrompt(row.id, Person(mechanic.id, mechanic.name))
                prompts.append(deliveries.ToCustomer(row.customer_id, Raw(encode(prompt))))
        await self._publish(prompts)
