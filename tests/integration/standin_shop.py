"""One running Stripe stand-in with what a shop and its customer need; mounted under a prefix as in an installation."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import httpx
import stripe
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from embedded.stripe_standin.standin import StripeStandin
from infra.database import Database

API_KEY = "sk_test_pitlane"
WEBHOOK_SECRET = "whsec_pitlane"
METADATA = {"plan": "expert_video", "preferred_mechanic_id": "m1", "routing_type": "priority_broadcast"}


class Receiver:
    """A webhook address that verifies with the SDK and keeps what it got; ``answers`` are used up first, then 200."""

    def __init__(self) -> None:
        self.events: list[stripe.Event] = []
        self.answers: list[int] = []
        self.on_event: Callable[[], Any] | None = None

    async def receive(self, request: Request) -> Response:
        signature = request.headers["stripe-signature"]
        self.events.append(stripe.Webhook.construct_event(await request.body(), signature, WEBHOOK_SECRET))
        if self.on_event is not None:
            await self.on_event()
        return PlainTextResponse("", self.answers.pop(0) if self.answers else 200)

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]


class Shop:
    """One running stand-in with what a shop and its customer need."""

    def __init__(self, port: int, standin: StripeStandin, receiver: Receiver, database: Database) -> None:
        self.url = f"http://127.0.0.1:{port}/stripe-standin"
        self.standin, self.receiver, self.database = standin, receiver, database
        self.http = stripe.HTTPXClient(allow_sync_methods=False)
        self.stripe = self.client(API_KEY)
        self.sessions, self.refunds = self.stripe.v1.checkout.sessions, self.stripe.v1.refunds
        self.customer = httpx.AsyncClient(trust_env=False)
        self.raw = httpx.AsyncClient(base_url=f"{self.url}/v1/", auth=(API_KEY, ""), trust_env=False)

    async def close(self) -> None:
        await self.customer.aclose()
        await self.raw.aclose()
        await self.http.close_async()

    def client(self, key: str) -> stripe.StripeClient:
        return stripe.StripeClient(key, base_addresses={"api": self.url}, max_network_retries=0, http_client=self.http)

    async def session(self, **changes: Any) -> stripe.checkout.Session:
        return await self.sessions.create_async(session_params(**changes))

    async def end(self, session: stripe.checkout.Session, ending: str, **fields: str) -> httpx.Response:
        return await self.customer.post(f"{self.url}/pay/{session.id}", data={"ending": ending, **fields})

    async def play(self, session: stripe.checkout.Session, action: str, **fields: str) -> httpx.Response:
        """Press a button on the page of the Session's money."""
        return await self.customer.post(f"{self.url}/pay/{session.id}/money", data={"action": action, **fields})

    async def paid(self, **changes: Any) -> stripe.checkout.Session:
        session = await self.session(**changes)
        assert (await self.end(session, "pay")).status_code == 303
        return await self.sessions.retrieve_async(session.id)


def session_params(**changes: Any) -> dict[str, Any]:
    price = {"currency": "usd", "unit_amount": 2999, "product_data": {"name": "Expert Video <30 min>"}}
    wanted = {
        "mode": "payment",
        "line_items": [{"price_data": price, "quantity": 1}],
        "success_url": "http://127.0.0.1:9/done?session={CHECKOUT_SESSION_ID}",
        "cancel_url": "http://127.0.0.1:9/back",
        "client_reference_id": "checkout-1",
        "customer_email": "jo@example.com",
        "metadata": METADATA,
        "payment_intent_data": {"metadata": {"checkout": "checkout-1"}},
    }
    return {name: value for name, value in (wanted | changes).items() if value is not None}


def priced(amount: int, currency: str = "usd") -> list[dict[str, Any]]:
    price = {"currency": currency, "unit_amount": amount, "product_data": {"name": "Thing"}}
    return [{"price_data": price, "quantity": 1}]


@asynccontextmanager
async def running_shop(tmp_path: Path, database_url: str | None = None) -> AsyncIterator[Shop]:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    database = Database(database_url or f"sqlite:///{tmp_path}/standin.db")
    receiver = Receiver()
    standin = StripeStandin(
        database.writer,
        api_key=API_KEY,
        webhook_secret=WEBHOOK_SECRET,
        webhook_url=f"http://127.0.0.1:{port}/webhook",
        public_url=f"http://127.0.0.1:{port}/stripe-standin",
    )
    await standin.prepare()
    app = Starlette(
        routes=[Mount("/stripe-standin", app=standin.app), Route("/webhook", receiver.receive, methods=["POST"])]
    )
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=2))
    shop = Shop(port, standin, receiver, database)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listener])
            await until(lambda: server.started)
            try:
                async with anyio.create_task_group() as nodes:
                    nodes.start_soon(standin.run)
                    yield shop
                    nodes.cancel_scope.cancel()
            finally:
                server.should_exit = True  # cancelled, it would leave its socket registered with the loop
    finally:
        with anyio.CancelScope(shield=True):
            await shop.close()
            await database.close()
        listener.close()


async def until(fact: Callable[[], Any], within_s: float = 10.0) -> None:
    with anyio.fail_after(within_s):
        while not fact():  # noqa: ASYNC110 - most facts here live in other tasks and in the database
            await anyio.sleep(0.01)


def now_s() -> int:
    return int(datetime.now(UTC).timestamp())
