"""A driver, a favourite and another mechanic beside running servers: what they do, and what SQL and Stripe say of it."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
from sqlalchemy import text
from sqlmodel import SQLModel, col, select

from accounts.accounts import NewAccount
from dispatch import request_store
from dispatch.request import ends_at_ms
from infra.database import Database, within
from models import tables
from models.ids import new_id
from models.settings import Settings
from models.words import OfferKind, Role
from tests.acceptance.clients import ON_LOOPBACK, PATIENCE_S, SECRET_KEY, Rest, pay
from tests.acceptance.servers import Server, add_accounts
from tests.parts import eventually

Row = TypeVar("Row", bound=SQLModel)

LOCKED_MAX_S = 60.0
FALLBACKS = {"declined", "expired", "skipped"}


@dataclass
class Town:
    """New people for each test, so that what earlier ones left open concerns nobody."""

    database: Database
    driver: str
    john: str
    """The favourite."""
    mike: str

    # --- the driver ---------------------------------------------------------------------------------------------------

    def as_driver(self, server: Server) -> Rest:
        return Rest.of(server.base_url, self.driver, "customer")

    async def checkout(self, server: Server, *, favorite: str | None = None) -> dict[str, Any]:
        """Ask for a payment page."""
        routing = {"routing_type": "broadcast"}
        if favorite is not None:
            routing = {"routing_type": "priority_broadcast", "preferred_mechanic_id": favorite}
        async with self.as_driver(server) as driver:
            return await driver.ok("POST", "/api/checkout", json={"plan": "quick_chat", **routing}, status=201)

    async def landed(self, server: Server, checkout_id: str) -> str:
        """Come back from Stripe to any server; return the request's id."""
        async with self.as_driver(server) as driver:
            state = await driver.ok("GET", f"/api/checkout/{checkout_id}")
        assert state["status"] == "paid", state
        return state["request_id"]

    async def paid(self, server: Server, *, favorite: str | None = None) -> str:
        """Ask, pay and come back; return the request's id."""
        checkout = await self.checkout(server, favorite=favorite)
        await pay(checkout["url"])
        return await self.landed(server, checkout["checkout_id"])

    async def request(self, server: Server, request_id: str) -> dict[str, Any]:
        async with self.as_driver(server) as driver:
            return await driver.ok("GET", f"/api/requests/{request_id}")

    async def cancelled(self, server: Server, request_id: str) -> None:
        async with self.as_driver(server) as driver:
            await driver.ok("POST", f"/api/requests/{request_id}/cancel")

    # --- mechanics ----------------------------------------------------------------------------------------------------

    def as_mechanic(self, server: Server, mechanic_id: str) -> Rest:
        return Rest.of(server.base_url, mechanic_id, "mechanic")

    # --- SQL ----------------------------------------------------------------------------------------------------------

    async def rows(self, table: type[Row], **where: object) -> list[Row]:
        """Return the rows with these values, in the order of their ids."""
        query = select(table).where(*(getattr(table, name) == value for name, value in where.items()))
        async with self.database.read() as session:
            return list(await session.exec(query.order_by(*table.__table__.primary_key)))  # type: ignore[attr-defined]

    async def story(self, request_id: str) -> list[str]:
        """Return the request's timeline in words."""
        return [entry.event for entry in await self.rows(tables.TimelineEntry, request_id=request_id)]

    async def offers(self, request_id: str) -> list[tables.Offer]:
        return await self.rows(tables.Offer, request_id=request_id)

    @asynccontextmanager
    async def locked(self, *request_ids: str) -> AsyncIterator[None]:
        """Hold the rows of these requests: who wants to do something with one waits for it; ends of windows come back later."""
        async with self.database.write(within_s=LOCKED_MAX_S) as session:
            await within(session, request_store.LOCK_REQUESTS(ids=list(request_ids)))
            yield

    @asynccontextmanager
    async def ends_locked(self, *request_ids: str) -> AsyncIterator[None]:
        """Hold the open offers of these requests: who ends one waits in the middle of its transaction."""
        is_open = col(tables.Offer.closed_at_ms).is_(None)
        theirs = select(tables.Offer.id).where(col(tables.Offer.request_id).in_(request_ids), is_open)
        async with self.database.write(within_s=LOCKED_MAX_S) as session:
            await session.exec(theirs.order_by(tables.Offer.id).with_for_update())
            yield

    async def waiting(self) -> None:
        """Wait until a transaction waits for a lock."""

        async def is_one() -> bool:
            async with self.database.read() as session:
                found = await session.exec(
                    text(
                        "SELECT count(*) FROM pg_stat_activity"
                        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
                    )  # type: ignore[call-overload]
                )
                return found.scalar_one() > 0

        await eventually(is_one, "a transaction waits for a lock", within_s=LOCKED_MAX_S / 2)

    # --- what must be true --------------------------------------------------------------------------------------------

    async def is_right(self, server: Server, request_id: str) -> None:
        """Check what no death may change: one fallback at most, never early; one mechanic or one refund, at Stripe too."""
        (row,) = await self.rows(tables.SessionRequest, id=request_id)
        story = Counter(await self.story(request_id))
        offers = await self.offers(request_id)
        assert story["broadcast"] == [offer.kind for offer in offers].count("broadcast")
        assert sum(story[event] for event in FALLBACKS) == (row.fallback_reason is not None)
        for offer in offers:
            if offer.close_reason == "expired":
                assert offer.closed_at_ms is not None
                assert offer.closed_at_ms >= ends_at_ms(OfferKind(offer.kind), offer.expires_at_ms), "never early"
        (checkout,) = await self.rows(tables.Checkout, id=row.checkout_id)
        assert [one.id for one in await self.rows(tables.SessionRequest, checkout_id=checkout.id)] == [request_id]
        is_owed = row.status in ("unfilled", "cancelled")
        refunds = await self.rows(tables.Refund, checkout_id=checkout.id)
        assert len(refunds) == story["refund_requested"] == is_owed
        assert story["refunded"] == sum(refund.status == "succeeded" for refund in refunds)
        assert checkout.payment_intent_id is not None
        at_stripe = await refunds_at_stripe(server, checkout.payment_intent_id)
        assert [refund["amount"] for refund in at_stripe] == [refund.amount_cents for refund in refunds]

    async def refunded(self, request_id: str) -> None:
        """Wait until the money is back."""

        async def is_back() -> bool:
            return "refunded" in await self.story(request_id)

        await eventually(is_back, "the money is back", within_s=40)


@asynccontextmanager
async def new_town(database_url: str) -> AsyncIterator[Town]:
    """Add the three to the servers' database."""
    john, mike, driver = (f"{name}-{new_id().lower()}@example.com" for name in ("john", "mike", "driver"))
    ids = await add_accounts(
        database_url,
        NewAccount(Role.CUSTOMER, driver, "John Doe"),
        NewAccount(Role.MECHANIC, john, "John Smith", provider_type="independent"),
        NewAccount(Role.MECHANIC, mike, "Mike's Garage", provider_type="workshop"),
    )
    database = Database(database_url)
    try:
        yield Town(database, *ids)
    finally:
        await database.close()


async def refunds_at_stripe(server: Server, payment_intent_id: str) -> list[dict[str, Any]]:
    """Return what the stand-in has given back of a payment."""
    key = Settings(secret_key=SECRET_KEY, _env_file=None).stripe().secret_key
    async with httpx.AsyncClient(base_url=server.base_url, timeout=PATIENCE_S, **ON_LOOPBACK) as client:
        answer = await client.get(
            "/stripe-standin/v1/refunds",
            params={"payment_intent": payment_intent_id},
            headers={"Authorization": f"Bearer {key}"},
        )
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]
