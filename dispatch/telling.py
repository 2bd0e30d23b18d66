"""Telling those concerned what has been committed: sockets on every node, the clock, presence, and push.

These are the outbox's handlers. Each reads the state as it is when it is told, so telling late or twice is harmless.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import Raw
from sqlmodel import select

from dispatch import deliveries
from dispatch.deadlines import Deadlines
from dispatch.outbox import Outbox
from dispatch.push import Push
from dispatch.request import OfferKind, ends_at_ms
from dispatch.views import offer_views, request_view
from models import tables
from models.bus import Bus
from models.clock import RedisClock
from models.database import Database
from models.redis_link import RedisLink
from models.wire import FavoritePrompt, Person, RequestUpdate, encode
from presence.service import Presence


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
        outbox.on("offer_opened", self._offer_opened)
        outbox.on("offer_closed", self._offer_closed)
        outbox.on("offer_withdrawn", self._offer_withdrawn)
        outbox.on("request_changed", self._request_changed)
        outbox.on("facts_changed", self._facts_changed)
        outbox.on("favorite_prompt", self._favorite_prompt)

    async def _publish(self, delivery: deliveries.Delivery) -> None:
        await self._bus.publish(self._channel, deliveries.encode(delivery))

    async def _offer_opened(self, payload: Mapping[str, Any]) -> None:
        async with self._database.read() as session:
            offer = await session.get_one(tables.Offer, payload["offer_id"])
            if offer.closed_at_ms is not None:
                return
            view = (await offer_views(session, [offer], now_ms=self._clock.now_ms()))[0]
            excluded = list(
                await session.exec(
                    select(tables.Exclusion.mechanic_id).where(tables.Exclusion.request_id == offer.request_id)
                )
            )
        # On the clock first: a window that nobody hears of must still end.
        await self._deadlines.schedule((offer.id, ends_at_ms(OfferKind(offer.kind), offer.expires_at_ms)))
        await self._publish(deliveries.OfferTo(view, offer.expires_at_ms, offer.mechanic_id, excluded))
        if offer.kind == OfferKind.PRIORITY and offer.mechanic_id is not None:
            status = (await self._presence.status_of([offer.mechanic_id])).get(offer.mechanic_id)
            if status is not None and status.reachable == "push":
                self._push.send_soon(offer.mechanic_id, view, expires_at_ms=offer.expires_at_ms)

    async def _offer_closed(self, payload: Mapping[str, Any]) -> None:
        await self._publish(
            deliveries.Withdraw(payload["offer_id"], payload["reason"], payload["except_connection_id"])
        )
        await self._deadlines.forget(payload["offer_id"])

    async def _offer_withdrawn(self, payload: Mapping[str, Any]) -> None:
        await self._publish(
            deliveries.Withdraw(payload["offer_id"], "declined", only_mechanic_id=payload["mechanic_id"])
        )

    async def _request_changed(self, payload: Mapping[str, Any]) -> None:
        async with self._database.read() as session:
            seen = await request_view(session, payload["request_id"], now_ms=self._clock.now_ms())
        assert seen is not None, "requests are never deleted"
        frame = Raw(encode(RequestUpdate(seen.view)))
        await self._publish(deliveries.ToCustomer(seen.customer_id, frame))
        for mechanic_id in {seen.assigned_mechanic_id, *payload["tell"]} - {None}:
            await self._publish(deliveries.ToMechanic(mechanic_id, frame))

    async def _facts_changed(self, payload: Mapping[str, Any]) -> None:
        mechanic_id = payload["mechanic_id"]
        await self._presence.refresh_facts([mechanic_id])
        async with self._database.read() as session:
            mechanic = await session.get_one(tables.Mechanic, mechanic_id)
        await self._publish(deliveries.Facts(mechanic_id, mechanic.on_duty, mechanic.active_request_id is not None))

    async def _favorite_prompt(self, payload: Mapping[str, Any]) -> None:
        async with self._database.read() as session:
            row = await session.get_one(tables.SessionRequest, payload["request_id"])
            if await session.get(tables.Favorite, (row.customer_id, payload["mechanic_id"])) is not None:
                return
            mechanic = await session.get_one(tables.Account, payload["mechanic_id"])
        prompt = FavoritePrompt(row.id, Person(mechanic.id, mechanic.name))
        await self._publish(deliveries.ToCustomer(row.customer_id, Raw(encode(prompt))))
