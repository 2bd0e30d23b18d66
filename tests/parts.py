"""Nodes composed of their parts without HTTP: as many as a test wants, over one real database and one real Redis.

    async with running_world(database_url, redis_url, tmp_path) as world:
        async with running_node(world) as a, running_node(world) as b:
            request = await world.paid_request(a, await world.customer(), favorite=await world.mechanic())

The Stripe stand-in serves on loopback, is asked through the real SDK, and sends its webhooks to the running nodes in turn.
"""

import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import anyio
import httpx
import msgspec
import uvicorn
from sqlmodel import SQLModel, select
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from accounts.accounts import Accounts, NewAccount
from dispatch import deliveries
from dispatch.assembly import DispatchParts, MoneyParts
from dispatch.deadlines import Deadlines
from dispatch.departures import Departures
from dispatch.elapsing import Elapsing
from dispatch.money.bookkeeping import Bookkeeping
from dispatch.money.checkout import Checkouts
from dispatch.money.payments import Payments
from dispatch.money.reconciler import Reconciler
from dispatch.money.refunds import Refunds
from dispatch.money.stripe_api import StripeApi
from dispatch.outbox import Outbox
from dispatch.preferences import Preferences
from dispatch.push.subscriptions import Subscriptions
from dispatch.push.vapid import Vapid
from dispatch.reading.hours_reader import HoursReader
from dispatch.reading.ops import OpsReader
from dispatch.reading.past_offers import PastOffersReader
from dispatch.reading.reader import Reader
from dispatch.retention import Retention
from dispatch.service import Dispatch
from embedded.stripe_standin.standin import StripeStandin
from infra.bus import Bus, together
from infra.clock import RedisClock
from infra.database import Database
from infra.loops import Loop
from infra.redis_link import RedisLink
from models.ids import new_id
from models.outcomes import Refused
from models.rest import CheckoutBody, StripeCheckout
from models.settings import DispatchSettings, PresenceSettings, StripeSettings
from models.wire import RequestView
from models.words import Role
from presence.service import Presence

PATIENCE_S = 10.0
POLL_S = 0.01
BROWSER_PATIENCE_S = 30.0
"""Stripe's page answers a payment only when its webhook has been answered, or after some seconds."""
SHORT_LIVED = httpx.Limits(keepalive_expiry=1.0)
"""Our servers close connections that were idle for five seconds; one that both think of at the same time would be lost."""
API_KEY = "sk_test_parts"
WEBHOOK_SECRET = "whsec_parts"

PATIENT = DispatchSettings(priority_window_ms=60_000, broadcast_window_ms=60_000)
"""Windows that do not end during a test."""
HURRIED = DispatchSettings(priority_window_ms=300, broadcast_window_ms=500, refund_retry_first_ms=200)
"""Windows that end while a test looks on."""

Found = TypeVar("Found")
Row = TypeVar("Row", bound=SQLModel)


async def eventually(look: Callable[[], Found | Awaitable[Found]], what: str, *, within_s: float = PATIENCE_S) -> Found:
    """Return what ``look`` finds once that is true; fail after a bounded time."""
    give_up_at = time.monotonic() + within_s
    while True:
        found: Any = look()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        assert time.monotonic() < give_up_at, f"not within {within_s:g} s: {what}"
        await anyio.sleep(POLL_S)


async def side_by_side(*calls: Callable[[], Awaitable[Found]]) -> list[Found]:
    """Make all calls at the same time; return what they answered, in order."""
    answers: list[Any] = [None] * len(calls)

    async def make(position: int, call: Callable[[], Awaitable[Found]]) -> None:
        answers[position] = await call()

    async with anyio.create_task_group() as tasks:
        for position, call in enumerate(calls):
            tasks.start_soon(make, position, call)
    return answers


@dataclass
class World:
    """What all nodes of a test share, and those who use it."""

    database_url: str
    redis_url: str
    prefix: str
    database: Database
    stripe: StripeSettings
    browser: httpx.AsyncClient
    nodes: list["Node"] = field(default_factory=list)
    webhooks_refused: int = 0
    """How many of the next webhooks are answered with an error, as by a node that is down."""
    stripe_answers: anyio.Event = field(default_factory=anyio.Event)
    """Set; while a test puts an unset one here, Stripe takes requests and does not answer."""
    webhooks: list[tuple[bytes, str]] = field(default_factory=list)
    """What Stripe has sent: bodies and signatures."""

    @property
    def stripe_url(self) -> str:
        """Scheme, host and port of the Stripe stand-in."""
        return (self.stripe.api_base or "").removesuffix("/stripe")

    # --- people -------------------------------------------------------------------------------------------------------

    async def customer(self) -> str:
        return await self._account(Role.CUSTOMER, "Casey Customer")

    async def mechanic(self, provider_type: str = "independent") -> str:
        return await self._account(Role.MECHANIC, "Morgan Mechanic", provider_type)

    async def mechanics(self, count: int) -> list[str]:
        return [await self.mechanic() for _ in range(count)]

    async def _account(self, role: Role, name: str, provider_type: str | None = None) -> str:
        new = NewAccount(role, f"{new_id()}@example.com", name, provider_type=provider_type)
        account = await Accounts(self.database).add(new, now_ms=1)
        assert not isinstance(account, Refused)
        return account.id

    # --- money --------------------------------------------------------------------------------------------------------

    async def pay(self, url: str, ending: str = "pay") -> httpx.Response:
        """Press a button on Stripe's page."""
        answer = await self.browser.post(url, data={"ending": ending})
        assert answer.status_code in (200, 303), answer.text
        return answer

    async def play_money(self, url: str, action: str, **fields: str) -> None:
        """Let something happen to money that was paid at this address, as ``MoneyPages._play`` describes it."""
        answer = await self.browser.post(f"{url}/money", data={"action": action, **fields})
        assert answer.status_code == 303, answer.text

    async def at_stripe(self, path: str, **query: str) -> dict[str, Any]:
        """Return what Stripe itself has, e.g. ``refunds/re_1``."""
        headers = {"Authorization": f"Bearer {API_KEY}"}
        answer = await self.browser.get(f"{self.stripe.api_base}/v1/{path}", params=query, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def hold_webhooks(self, url: str) -> None:
        """Let Stripe's webhooks about this Session never arrive."""
        answer = await self.browser.post(f"{url}/events", data={"action": "mode", "mode": "held"})
        assert answer.status_code == 303

    async def paid_request(
        self, node: "Node", customer_id: str, *, favorite: str | None = None, plan: str = "quick_chat"
    ) -> RequestView:
        """Go the whole way from the checkout over Stripe's page to a request."""
        checkout = await node.checkouts.start(customer_id, body(plan, favorite))
        assert isinstance(checkout, StripeCheckout), checkout
        await self.pay(checkout.url)
        state = await node.checkouts.state(customer_id, checkout.checkout_id)
        assert not isinstance(state, Refused)
        assert state.status == "paid", state
        assert isinstance(state.request_id, str)
        return await self.request(node, customer_id, state.request_id)

    async def request(self, node: "Node", account_id: str, request_id: str) -> RequestView:
        view = await node.reader.request_for(account_id, request_id)
        assert not isinstance(view, Refused), view
        return view

    # --- what SQL has -------------------------------------------------------------------------------------------------

    async def row(self, table: type[Row], key: object) -> Row:
        async with self.database.read() as session:
            return await session.get_one(table, key)

    async def rows(self, table: type[Row], **where: object) -> list[Row]:
        """Return the rows with these values, in the order of their ids."""
        query = select(table).where(*(getattr(table, name) == value for name, value in where.items()))
        async with self.database.read() as session:
            return list(await session.exec(query.order_by(*table.__table__.primary_key)))  # type: ignore[attr-defined]

    async def update(self, table: type[Row], key: object, **values: object) -> None:
        async with self.database.write() as session:
            row = await session.get_one(table, key)
            for name, value in values.items():
                setattr(row, name, value)


@dataclass
class Node:
    """One node and its parts."""

    id: str
    link: RedisLink
    clock: RedisClock
    bus: Bus
    database: Database
    presence: Presence
    outbox: Outbox
    preferences: Preferences
    push: Subscriptions
    vapid: Vapid
    deadlines: Deadlines
    dispatch: Dispatch
    departures: Departures
    elapsing: Elapsing
    reader: Reader
    hours: HoursReader
    past_offers: PastOffersReader
    ops: OpsReader
    bookkeeping: Bookkeeping
    refunds: Refunds
    payments: Payments
    checkouts: Checkouts
    reconciler: Reconciler
    retention: Retention
    stripe_api: StripeApi
    heard: list[deliveries.Delivery] = field(default_factory=list)
    """What this node would tell its sockets."""
    webhooks_in_hand: int = 0

    async def receive_webhook(self, payload: bytes, signature: str) -> Refused | None:
        self.webhooks_in_hand += 1
        try:
            return await self.payments.receive_webhook(payload, signature)
        finally:
            self.webhooks_in_hand -= 1

    def heard_of(self, kind: type[Found]) -> list[Found]:
        return [delivery for delivery in self.heard if isinstance(delivery, kind)]

    def updates_of(self, request_id: str) -> list[dict[str, Any]]:
        """The request as its customer was told of it, in order."""
        told = [msgspec.json.decode(delivery.frame) for delivery in self.heard_of(deliveries.FrameToCustomer)]
        return [frame["request"] for frame in told if frame.get("request", {}).get("id") == request_id]

    async def take_off_the_clock(self, *offer_ids: str) -> None:
        """Let Redis not know deadlines any more, at once."""
        index = self.link.key("deadlines", "index")
        keys = [self.link.key("deadlines", f"offer:{offer_id}") for offer_id in offer_ids]
        await self.link.ask(index, lambda redis: redis.zrem(index, *offer_ids))
        await self.link.ask(index, lambda redis: redis.delete(*keys))

    async def redis_now_ms(self) -> int:
        ((seconds, micros),) = await self.link.everywhere(lambda redis: redis.time())
        return seconds * 1000 + micros // 1000


def body(plan: str = "quick_chat", favorite: str | None = None) -> CheckoutBody:
    return CheckoutBody(plan, "priority_broadcast" if favorite else "broadcast", favorite)


@asynccontextmanager
async def serving(app: Any, listener: socket.socket) -> AsyncIterator[None]:
    """Serve ``app`` on a listening socket inside the block."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1))

    async def serve() -> None:
        # Cancelled, as by a test that fails, it would leave its sockets with the loop, and the next server would be deaf.
        with anyio.CancelScope(shield=True):
            await server.serve([listener])

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            try:
                await eventually(lambda: server.started, "the server serves")
                yield
            finally:
                server.should_exit = True
    finally:
        listener.close()


@asynccontextmanager
async def running_world(
    database_url: str, redis_url: str, folder: Path | None = None, *, stripe_timeout_s: float = 8.0
) -> AsyncIterator[World]:
    """Hand out everything that nodes share; with a ``folder`` for its database, run the Stripe stand-in too."""
    listener = socket.create_server(("127.0.0.1", 0))
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    database = Database(database_url)
    stripe = StripeSettings(API_KEY, (WEBHOOK_SECRET,), f"{base}/stripe", is_standin=True, timeout_s=stripe_timeout_s)
    try:
        async with httpx.AsyncClient(
            trust_env=False, verify=False, timeout=BROWSER_PATIENCE_S, limits=SHORT_LIVED
        ) as browser:
            prefix = f"test-{secrets.token_hex(6)}"
            world = World(database_url, redis_url, prefix, database, stripe=stripe, browser=browser)
            world.stripe_answers.set()
            if folder is None:
                yield world
            else:
                async with _running_stripe(world, listener, base, folder):
                    yield world
    finally:
        listener.close()
        with anyio.CancelScope(shield=True):
            await database.close()


def stripe_standin(database: Database, base: str, *, webhook_url: str) -> StripeStandin:
    """Return a stand-in that is to be mounted at ``base``/stripe."""
    return StripeStandin(
        database.writer,
        api_key=API_KEY,
        webhook_secret=WEBHOOK_SECRET,
        webhook_url=webhook_url,
        public_url=f"{base}/stripe",
    )


@asynccontextmanager
async def _running_stripe(world: World, listener: socket.socket, base: str, folder: Path) -> AsyncIterator[None]:
    database = Database(f"sqlite:///{folder / 'stripe.sqlite3'}")
    standin = stripe_standin(database, base, webhook_url=f"{base}/webhook")

    async def stripe_when_it_answers(scope: Scope, receive: Receive, send: Send) -> None:
        await world.stripe_answers.wait()
        await standin.app(scope, receive, send)

    async def webhook(request: Request) -> Response:
        payload, signature = await request.body(), request.headers["stripe-signature"]
        if world.webhooks_refused or not world.nodes:
            world.webhooks_refused = max(0, world.webhooks_refused - 1)
            return PlainTextResponse("", 503)
        world.webhooks.append((payload, signature))
        node = world.nodes[len(world.webhooks) % len(world.nodes)]
        refused = await node.receive_webhook(payload, signature)
        return PlainTextResponse("", 200 if refused is None else 400)

    app = Starlette(routes=[Mount("/stripe", app=stripe_when_it_answers), Route("/webhook", webhook, methods=["POST"])])
    try:
        await standin.prepare()
        async with serving(app, listener), anyio.create_task_group() as loops:
            loops.start_soon(standin.run)
            yield
            loops.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await database.close()


@asynccontextmanager
async def running_node(
    world: World,
    settings: DispatchSettings = PATIENT,
    *,
    without: Collection[str] = (),
    stripe: StripeSettings | None = None,
    contact: str = "https://pitlane.example",
) -> AsyncIterator[Node]:
    """Run one more node; ``without`` names parts whose loops stand still, as if this node had just died there."""
    node_id = new_id()
    stripe = stripe or world.stripe
    # The tests' push services are on this machine.
    settings = replace(settings, push_trusted_hosts=settings.push_trusted_hosts or "127.0.0.1")
    database = Database(world.database_url)
    # Dozens of nodes may start side by side on one event loop.
    link = RedisLink(world.redis_url, prefix=world.prefix, timeout_s=8.0)
    clock = RedisClock(link)
    await clock.sync()
    bus = Bus(link, node_id)
    presence = Presence(link, bus, clock, database, PresenceSettings(grace_ms=100), node_id)
    parts = DispatchParts(
        database=database,
        link=link,
        bus=bus,
        clock=clock,
        presence=presence,
        settings=settings,
        secret_key="s" * 32,
        contact=contact,
    )
    stripe_api = StripeApi(stripe)
    money = MoneyParts(
        database=database,
        clock=clock,
        outbox=parts.outbox,
        stripe_api=stripe_api,
        stripe=stripe,
        settings=settings,
        base_url="http://127.0.0.1:1",
    )
    node = Node(
        node_id,
        link,
        clock,
        bus,
        database,
        presence,
        parts.outbox,
        parts.preferences,
        parts.subscriptions,
        parts.vapid,
        parts.deadlines,
        parts.dispatch,
        parts.departures,
        parts.elapsing,
        parts.reader,
        parts.hours,
        parts.past_offers,
        parts.ops,
        money.bookkeeping,
        money.refunds,
        money.payments,
        money.checkouts,
        money.reconciler,
        money.retention,
        stripe_api,
    )
    loops = {"clock": clock.run, "presence": presence.run, **parts.loops, **money.loops}
    # The reconciler's is left to real servers: here it would heal what a test has broken on purpose.
    still = {"reconciler", *without}
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bus.run)
            await bus.subscribe(
                deliveries.channel(link),
                together(deliveries.channel(link)),
                handler=lambda text: node.heard.append(deliveries.decode(text)),
            )
            for name, run in loops.items():
                if name not in still:
                    tasks.start_soon(run_loop, name, run)
            world.nodes.append(node)
            try:
                yield node
            finally:
                world.nodes.remove(node)
            # As a server does that is told to stop; a connection still in use could not be closed.
            await eventually(lambda: not node.webhooks_in_hand, "the webhooks in hand are answered")
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await stripe_api.close()
            await link.close()
            await database.close()


loop_of: ContextVar[str | None] = ContextVar("loop_of", default=None)
"""The loop of a node's that a task belongs to."""


async def run_loop(name: str, run: Loop) -> None:
    """Run a node's loop, as a task of its own; all that it starts is known to be its own."""
    loop_of.set(name)
    await run()


def events(request: RequestView) -> Sequence[str]:
    """The request's story, in words."""
    return [line.event for line in request.timeline]
