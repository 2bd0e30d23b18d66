"""A server that tests may kill and start again, with its own Stripe behind a proxy, which live on."""

import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import asyncpg
import httpx
from starlette.applications import Starlette
from starlette.routing import Mount

from infra.database import Database
from models import tables
from models.settings import StripeSettings
from tests.acceptance.clients import Rest
from tests.acceptance.servers import Server, start_server
from tests.parts import API_KEY, SHORT_LIVED, WEBHOOK_SECRET, World, eventually, serving, stripe_standin
from tests.services import free_port
from tests.stripe_proxy import Hold, StripeProxy, stripe_proxy

PATIENCE_S = 30.0
KEY = {"Idempotency-Key": "k"}
WANTED = {"plan": "quick_chat", "routing_type": "broadcast"}


@dataclass
class Shop:
    """A server that can be killed and started again at the same address, and its Stripe behind a proxy, which live on."""

    world: World
    proxy: StripeProxy
    folder: Path
    settings: dict[str, str]
    tasks: anyio.abc.TaskGroup
    server: Server | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.settings['PORT']}"

    async def start(self) -> None:
        self.server = start_server(self.folder, **self.settings)
        await self.server.ready()

    def kill(self) -> None:
        if self.server is not None and self.server.process.poll() is None:
            self.server.kill()

    # --- what customers do --------------------------------------------------------------------------------------------

    def rest(self, customer_id: str) -> Rest:
        return Rest.of(self.base_url, customer_id, "customer")

    async def about_to_pay(self) -> tuple[str, tables.Checkout]:
        """Return a new customer, and the checkout whose page is before them."""
        customer_id = await self.world.customer()
        opened = await self.opened(customer_id)
        return customer_id, await self.world.row(tables.Checkout, opened["checkout_id"])

    async def opened(self, customer_id: str) -> dict[str, Any]:
        async with self.rest(customer_id) as rest:
            return await rest.ok("POST", "/api/checkout", json=WANTED, headers=KEY, status=201)

    async def paid(self) -> tuple[str, tables.Checkout]:
        """Return a new customer who has paid and whose request is open, and their checkout."""
        customer_id, checkout = await self.about_to_pay()
        await self.world.pay(checkout.url)
        async with self.rest(customer_id) as rest:
            assert (await rest.ok("GET", f"/api/checkout/{checkout.id}"))["status"] == "paid"
        return customer_id, await self.world.row(tables.Checkout, checkout.id)

    async def cancel(self, customer_id: str, checkout: tables.Checkout) -> None:
        async with self.rest(customer_id) as rest:
            await rest.ok("POST", f"/api/requests/{checkout.request_id}/cancel")

    def attempt(self, customer_id: str, path: str, **body: Any) -> None:
        """Start a call that the kill will cut off."""

        async def call() -> None:
            async with self.rest(customer_id) as rest:
                with suppress(httpx.TransportError):
                    await rest.post(path, **body)

        self.tasks.start_soon(call)

    # --- where they are kept ------------------------------------------------------------------------------------------

    def held(self, call: str, about: str, *, is_done: bool = False) -> Hold:
        return self.proxy.plan(call, Hold(is_done=is_done), about=about)

    @asynccontextmanager
    async def locked(self, table: type[Any], row_id: str) -> AsyncIterator[Callable[[], Any]]:
        """Lock a row; hand out what tells whether somebody waits for it."""
        connection = await asyncpg.connect(self.world.database_url)
        try:
            async with connection.transaction():
                await connection.execute(f"SELECT 1 FROM {table.__tablename__} WHERE id = $1 FOR UPDATE", row_id)
                # Not pg_stat_activity, which within a transaction stays as it was seen first: without newer connections.
                waiting = (
                    "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
                )
                yield partial(connection.fetchval, waiting)
        finally:
            await connection.close()

    # --- the ends -----------------------------------------------------------------------------------------------------

    async def served_once(self, customer_id: str) -> None:
        async def requests() -> list[tables.SessionRequest]:
            return await self.world.rows(tables.SessionRequest, customer_id=customer_id)

        (request,) = await eventually(requests, "served", within_s=PATIENCE_S)
        assert (request.status, request.price_cents) == ("broadcasting", 999)
        checkout = await self.world.row(tables.Checkout, request.checkout_id)
        assert (checkout.status, checkout.request_id) == ("paid", request.id)
        assert len(await self.world.rows(tables.Offer, request_id=request.id)) == 1
        assert await self.world.rows(tables.Refund, checkout_id=checkout.id) == []

    async def returned_by_others(self, customer_id: str, checkout: tables.Checkout) -> None:
        """Everything was given back at Stripe by others: nobody serves it, and we give nothing back besides."""

        async def is_told() -> dict[str, Any] | None:
            async with self.rest(customer_id) as rest:
                seen = await rest.ok("GET", f"/api/requests/{checkout.request_id}")
            return seen if seen["status"] == "cancelled" else None

        seen = await eventually(is_told, "cancelled", within_s=PATIENCE_S)
        assert seen["refund"] == {"status": "succeeded", "amount_cents": 999, "currency": "usd"}
        assert [line["event"] for line in seen["timeline"]].count("refunded_at_stripe") == 1
        at_stripe = (await self.world.at_stripe("refunds", payment_intent=checkout.payment_intent_id or ""))["data"]
        assert [one["amount"] for one in at_stripe] == [999]

    async def refunded_once(self, customer_id: str) -> None:
        (request,) = await self.world.rows(tables.SessionRequest, customer_id=customer_id)

        async def settled() -> list[tables.Refund]:
            refunds = await self.world.rows(tables.Refund, request_id=request.id)
            return [refund for refund in refunds if refund.status != "pending"]

        (refund,) = await eventually(settled, "refunded", within_s=PATIENCE_S)
        assert (refund.status, refund.amount_cents) == ("succeeded", 999)
        at_stripe = (await self.world.at_stripe("refunds", payment_intent=refund.payment_intent_id))["data"]
        assert [(one["id"], one["amount"]) for one in at_stripe] == [(refund.stripe_refund_id, 999)]
        async with self.rest(customer_id) as rest:
            seen = await rest.ok("GET", f"/api/requests/{request.id}")
        assert (seen["status"], seen["refund"]) == (
            "cancelled",
            {"status": "succeeded", "amount_cents": 999, "currency": "usd"},
        )
        assert [line["event"] for line in seen["timeline"]].count("refunded") == 1


@asynccontextmanager
async def open_shop(database_url: str, redis_url: str, folder: Path) -> AsyncIterator[Shop]:
    """Run Stripe and the proxy inside the block, and a server that is killed at its end."""
    port, listener = free_port(), socket.create_server(("127.0.0.1", 0))
    stripe_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    ours, stripes = Database(database_url), Database(f"sqlite:///{folder / 'stripe.sqlite3'}")
    standin = stripe_standin(stripes, stripe_url, webhook_url=f"http://127.0.0.1:{port}/api/stripe/webhook")
    await standin.prepare()
    stripe = StripeSettings(API_KEY, (WEBHOOK_SECRET,), f"{stripe_url}/stripe", is_standin=False)
    async with (
        httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S, limits=SHORT_LIVED) as browser,
        serving(Starlette(routes=[Mount("/stripe", app=standin.app)]), listener),
        stripe_proxy(stripe_url) as proxy,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(standin.run)
        settings = {
            "PORT": str(port),
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "REDIS_PREFIX": f"killed-{secrets.token_hex(4)}",
            "STRIPE_SECRET_KEY": API_KEY,
            "STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET,
            "STRIPE_API_BASE": f"{proxy.base_url}/stripe",
        }
        world = World(database_url, redis_url, "", ours, stripe=stripe, browser=browser)
        shop = Shop(world, proxy, folder / "server", settings, tasks)
        try:
            yield shop
        finally:
            shop.kill()
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await ours.close()
                await stripes.close()
