"""A server process is killed between any two steps of checkout, fulfilment and refund; after its restart all ends are right.

One kill for all steps: each step has a customer of its own, whom it leads to its point and keeps there, by a request to Stripe that
a proxy holds, or by a row lock that the test takes on PostgreSQL. Then SIGKILL, a restart, and each looks at its customer's end.
"""

import secrets
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
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

from embedded.stripe_standin import StripeStandin
from models import tables
from models.database import Database
from models.settings import StripeSettings
from tests.acceptance.clients import Rest
from tests.acceptance.servers import Server, start_server
from tests.parts import API_KEY, WEBHOOK_SECRET, World, at_once, eventually, serving
from tests.services import free_port, fresh_database
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
                waiting = "SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))"
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
        assert (seen["status"], seen["refund"]) == ("cancelled", {"status": "succeeded", "amount_cents": 999})
        assert [line["event"] for line in seen["timeline"]].count("refunded") == 1


@asynccontextmanager
async def open_shop(database_url: str, redis_url: str, folder: Path) -> AsyncIterator[Shop]:
    """Run Stripe and the proxy inside the block, and a server that is killed at its end."""
    port, listener = free_port(), socket.create_server(("127.0.0.1", 0))
    stripe_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    ours, stripes = Database(database_url), Database(f"sqlite:///{folder / 'stripe.sqlite3'}")
    standin = StripeStandin(
        stripes.writer,
        api_key=API_KEY,
        webhook_secret=WEBHOOK_SECRET,
        webhook_url=f"http://127.0.0.1:{port}/api/stripe/webhook",
        public_url=f"{stripe_url}/stripe",
    )
    await standin.prepare()
    stripe = StripeSettings(API_KEY, (WEBHOOK_SECRET,), f"{stripe_url}/stripe", is_standin=False)
    async with (
        httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as browser,
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


# --- the steps: each yields when it is prepared, and again when its customer is kept at the point ------------------------


async def asked_for_a_page_that_stripe_has_not_heard_of(shop: Shop) -> AsyncIterator[None]:
    customer_id = await shop.world.customer()
    held = shop.held("create", customer_id)
    yield
    shop.attempt(customer_id, "/api/checkout", json=WANTED, headers=KEY)
    await eventually(lambda: held.is_reached, "asked")
    yield
    held.lose()
    # The customer tries again, with the same key.
    await shop.world.pay((await shop.opened(customer_id))["url"])
    await shop.served_once(customer_id)
    assert len(await shop.world.rows(tables.Checkout, customer_id=customer_id)) == 1


async def asked_for_a_page_that_stripe_has_made(shop: Shop) -> AsyncIterator[None]:
    customer_id = await shop.world.customer()
    held = shop.held("create", customer_id, is_done=True)
    yield
    shop.attempt(customer_id, "/api/checkout", json=WANTED, headers=KEY)
    await eventually(lambda: held.is_reached, "made")
    yield
    held.lose()
    made = next(one for one in shop.proxy.made("create") if customer_id in one.body)
    assert (await shop.opened(customer_id))["url"] == made.answer["url"]
    await shop.world.pay(made.answer["url"])
    await shop.served_once(customer_id)


async def stored_an_event_and_not_asked_stripe_yet(shop: Shop) -> AsyncIterator[None]:
    customer_id, checkout = await shop.about_to_pay()
    held = shop.held("retrieve", checkout.stripe_session_id)
    yield
    await shop.world.pay(checkout.url)
    await eventually(lambda: held.is_reached, "stored, and claimed")
    yield
    held.lose()
    await shop.served_once(customer_id)


async def heard_from_stripe_and_not_served_yet(shop: Shop) -> AsyncIterator[None]:
    customer_id, checkout = await shop.about_to_pay()
    held = shop.held("retrieve", checkout.stripe_session_id, is_done=True)
    yield
    await shop.world.pay(checkout.url)
    await eventually(lambda: held.is_reached, "Stripe has answered")
    yield
    held.lose()
    await shop.served_once(customer_id)


async def amid_the_transaction_that_serves(shop: Shop) -> AsyncIterator[None]:
    customer_id, checkout = await shop.about_to_pay()
    async with shop.locked(tables.Checkout, checkout.id) as somebody_waits:
        yield
        await shop.world.pay(checkout.url)
        await eventually(somebody_waits, "the transaction has begun")
        yield
    await shop.served_once(customer_id)


async def served_and_not_noted_that_the_event_is_done(shop: Shop) -> AsyncIterator[None]:
    customer_id, checkout = await shop.about_to_pay()
    held = shop.held("retrieve", checkout.stripe_session_id)
    yield
    await shop.world.pay(checkout.url)
    await eventually(lambda: held.is_reached, "stored, and claimed")
    (event,) = await shop.world.rows(tables.StripeEvent, object_id=checkout.stripe_session_id)
    async with shop.locked(tables.StripeEvent, event.id) as somebody_waits:
        held.is_released = True
        await eventually(somebody_waits, "served, and all but noted")
        yield
    await shop.served_once(customer_id)


async def showed_a_newer_page_and_left_the_older_open(shop: Shop) -> AsyncIterator[None]:
    customer_id, older = await shop.about_to_pay()
    held = shop.held("expire", older.stripe_session_id)
    yield
    async with shop.rest(customer_id) as rest:
        newer = await rest.ok("POST", "/api/checkout", json=WANTED, status=201)
    await eventually(lambda: held.is_reached, "Stripe is asked")
    yield
    held.lose()

    async def is_expired() -> bool:
        return (await shop.world.row(tables.Checkout, older.id)).status == "expired"

    await eventually(is_expired, "the older page is expired", within_s=PATIENCE_S)
    await shop.world.pay(newer["url"])
    await shop.served_once(customer_id)


async def amid_the_transaction_that_cancels(shop: Shop) -> AsyncIterator[None]:
    customer_id, checkout = await shop.paid()
    async with shop.locked(tables.SessionRequest, checkout.request_id) as somebody_waits:
        yield
        shop.attempt(customer_id, f"/api/requests/{checkout.request_id}/cancel")
        await eventually(somebody_waits, "the transaction has begun")
        yield
    await shop.served_once(customer_id)
    await shop.cancel(customer_id, checkout)
    await shop.refunded_once(customer_id)


async def owed_a_refund_that_stripe_has_not_heard_of(shop: Shop) -> AsyncIterator[None]:
    customer_id, checkout = await shop.paid()
    held = shop.held("refund", checkout.payment_intent_id)
    yield
    await shop.cancel(customer_id, checkout)
    await eventually(lambda: held.is_reached, "asked for")
    yield
    held.lose()
    await shop.refunded_once(customer_id)


async def owed_a_refund_that_stripe_has_made(shop: Shop) -> AsyncIterator[None]:
    customer_id, checkout = await shop.paid()
    held = shop.held("refund", checkout.payment_intent_id, is_done=True)
    # Nor does a webhook tell of it.
    await shop.world.hold_webhooks(f"{shop.world.stripe.api_base}/pay/{checkout.stripe_session_id}")
    yield
    await shop.cancel(customer_id, checkout)
    await eventually(lambda: held.is_reached, "made")
    yield
    held.lose()
    await shop.refunded_once(customer_id)


async def amid_the_transaction_that_notes_a_refund(shop: Shop) -> AsyncIterator[None]:
    customer_id, checkout = await shop.paid()
    held = shop.held("refund", checkout.payment_intent_id, is_done=True)
    yield
    await shop.cancel(customer_id, checkout)
    await eventually(lambda: held.is_reached, "made")
    (refund,) = await shop.world.rows(tables.Refund, checkout_id=checkout.id)
    async with shop.locked(tables.Refund, refund.id) as somebody_waits:
        held.is_released = True
        await eventually(somebody_waits, "the transaction has begun")
        yield
    await shop.refunded_once(customer_id)


STEPS: list[Callable[[Shop], AsyncGenerator[None]]] = [
    asked_for_a_page_that_stripe_has_not_heard_of,
    asked_for_a_page_that_stripe_has_made,
    stored_an_event_and_not_asked_stripe_yet,
    heard_from_stripe_and_not_served_yet,
    amid_the_transaction_that_serves,
    served_and_not_noted_that_the_event_is_done,
    showed_a_newer_page_and_left_the_older_open,
    amid_the_transaction_that_cancels,
    owed_a_refund_that_stripe_has_not_heard_of,
    owed_a_refund_that_stripe_has_made,
    amid_the_transaction_that_notes_a_refund,
]


async def test_after_a_kill_between_any_two_steps_everybody_is_served_once_or_refunded_once(
    postgres_template: str, redis_url: str, tmp_path: Path
) -> None:
    database_url = fresh_database(postgres_template.rsplit("/", 1)[0], postgres_template)
    async with open_shop(database_url, redis_url, tmp_path) as shop, AsyncExitStack() as stack:
        await shop.start()
        steps = {step.__name__: step(shop) for step in STEPS}
        for step in steps.values():
            stack.push_async_callback(step.aclose)

        async def go_on(name: str) -> None:
            try:
                await anext(steps[name], None)
            except Exception as error:
                error.add_note(f"the step is {name}")
                raise

        to_next_point = [partial(go_on, name) for name in steps]
        await at_once(*to_next_point)
        await at_once(*to_next_point)
        shop.kill()
        await shop.start()
        await at_once(*to_next_point)
