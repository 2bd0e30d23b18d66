"""One node of a world: the real parts of dispatch and of the socket edge, on simulated SQL, Redis and Stripe."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, Protocol, TypeVar, cast

import anyio
from anyio.abc import TaskGroup

from accounts.revocations import Revocations
from dispatch import deliveries
from dispatch.assembly import DispatchParts, MoneyParts
from dispatch.money.stripe_api import StripeApi
from dispatch.money.unfinished_refunds import UnfinishedRefund, unfinished
from dispatch.service import Dispatch
from http_api.auth import Tickets, Tokens
from http_api.sockets.handshake import Handshakes
from http_api.sockets.hub import Hub
from infra.bus import Bus
from infra.clock import RedisClock
from infra.redis_link import RedisLink
from models.errors import RedisUnavailable, Unavailable
from models.settings import DispatchSettings, DoorSettings, Settings, StripeSettings
from presence.service import Presence
from tests.simulation import redis, stripe
from tests.simulation.ground import Ground
from tests.simulation.life import Life, current_life
from tests.simulation.sql import SimulatedDatabase
from tests.unit.connection_stage import Uncounted

T = TypeVar("T")
SECRET_KEY = "a secret of forty bytes or more for tests"
BASE_URL = "https://pitlane.example"


class Unreachable(Exception):
    """No answer: the node is gone, or says that it cannot just now. What was asked for may have happened."""


@cache
def door_settings() -> DoorSettings:
    """The edge's settings; as in production."""
    return Settings(secret_key=SECRET_KEY, _env_file=None).doors()


class Watch(Protocol):
    """Who looks at what a node does; in a world, ``invariants.Watch``."""

    def accept_arrived(self, mechanic_id: str, offer_id: str, received_at_ms: int) -> None: ...
    def accept_answered(self, mechanic_id: str, offer_id: str, received_at_ms: int, outcome: Any) -> None: ...
    def violated(self, invariant: str, what: str) -> None: ...
    async def ending(self, account_id: str, request_id: str, end: Awaitable[Any]) -> Any: ...


class ObservedDispatch:
    """The real one; the watch looks at what whoever accepts, or ends a session, is answered."""

    def __init__(self, dispatch: Dispatch, watch: Watch) -> None:
        self._dispatch = dispatch
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dispatch, name)

    async def accept(self, mechanic_id: str, offer_id: str, *, received_at_ms: int, **more: Any) -> Any:
        self._watch.accept_arrived(mechanic_id, offer_id, received_at_ms)
        outcome = await self._dispatch.accept(mechanic_id, offer_id, received_at_ms=received_at_ms, **more)
        self._watch.accept_answered(mechanic_id, offer_id, received_at_ms, outcome)
        return outcome

    async def complete(self, mechanic_id: str, request_id: str) -> Any:
        return await self._watch.ending(mechanic_id, request_id, self._dispatch.complete(mechanic_id, request_id))

    async def complete_by_customer(self, customer_id: str, request_id: str) -> Any:
        end = self._dispatch.complete_by_customer(customer_id, request_id)
        return await self._watch.ending(customer_id, request_id, end)


class Node:
    """A server process. Make it, ``run`` it once; it ends only by being killed."""

    def __init__(self, ground: Ground, watch: Watch, name: str, settings: DispatchSettings) -> None:
        self.life = Life(name, ground.loop, ground.chance, ground.note)
        self.life.sql = ground.sql
        self.is_serving = False
        self._watch = watch
        self._tasks: TaskGroup | None = None
        token = current_life.set(self.life)
        try:
            self._compose(ground, settings)
        finally:
            current_life.reset(token)

    def _compose(self, ground: Ground, settings: DispatchSettings) -> None:
        database = SimulatedDatabase()
        link = cast(RedisLink, redis.Link(ground.redis, self.life))
        clock = RedisClock(link)
        self.bus = redis.Bus(ground.redis, cast(redis.Link, link), self.life)
        bus = cast(Bus, self.bus)
        presence = cast(Presence, redis.Presence(cast(redis.Link, link)))
        stripe_api = cast(StripeApi, stripe.StripeEnd(ground.stripe, self.life))
        dispatching = DispatchParts(
            database=database,
            link=link,
            bus=bus,
            clock=clock,
            presence=presence,
            settings=settings,
            secret_key=SECRET_KEY,
            contact=BASE_URL,
        )
        self.reader = dispatching.reader
        self.dispatch = cast(Dispatch, ObservedDispatch(dispatching.dispatch, self._watch))
        money = MoneyParts(
            database=database,
            clock=clock,
            outbox=dispatching.outbox,
            stripe_api=stripe_api,
            stripe=StripeSettings("", (), None, is_standin=True),
            settings=settings,
            base_url=BASE_URL,
        )
        self.payments, self.checkouts, self.refunds = money.payments, money.checkouts, money.refunds
        self._database = database
        doors = door_settings()
        revocations = Revocations(database, clock, self.bus, link)
        self.tokens = Tokens([SECRET_KEY], doors.token_lifetime_s, is_revoked=revocations.covers)
        self.hub = Hub(
            settings=doors,
            clock=clock,
            bus=bus,
            channel=deliveries.channel(link),
            presence=presence,
            dispatch=self.dispatch,
            reader=self.reader,
            handshakes=Handshakes(clock, self.tokens, Tickets(link, doors.ticket_lifetime_s), doors),
            revocations=revocations,
            pages=dispatching.pages,
            places=Uncounted(),
            resend_interval_ms=settings.resend_interval_ms,
        )
        self.clock = clock
        # Nobody is reachable by push here.
        loops = {**dispatching.loops, **money.loops}
        self._loops = [clock.run, self.bus.run, *(run for name, run in loops.items() if name != "push")]

    async def unfinished_refunds(self) -> list[UnfinishedRefund]:
        """Return what is to go back and has not arrived."""
        return [refund async for refund in unfinished(self._database)]

    async def run(self) -> None:
        """Live until killed."""
        current_life.set(self.life)
        try:
            await self.clock.sync()
            async with anyio.create_task_group() as self._tasks:
                self.life.on_death(self._tasks.cancel_scope.cancel)
                for loop in self._loops:
                    self._tasks.start_soon(loop)
                await self._tasks.start(self.hub.run)
                self.is_serving = True
        except RedisUnavailable:
            self.life.end("did not start: Redis is away")
        except asyncio.CancelledError:
            if not self.life.is_over:
                raise
        except Exception as error:  # noqa: BLE001 - whatever it was, it has ended a node
            self._watch.violated("no node ends by itself", f"{self.life.name}: {error!r}")
            self.life.end("ended by itself")
        finally:
            self.is_serving = False

    async def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """Have the node do something for a client, as a REST call would; raises ``Unreachable``."""
        if self.life.is_over or not self.is_serving or self._tasks is None:
            raise Unreachable
        answer: asyncio.Future[T] = self.life.loop.create_future()

        def give_up() -> None:
            if not answer.done():
                answer.set_exception(Unreachable())

        async def do() -> None:
            try:
                done = await work()
            except Unavailable:
                give_up()
            else:
                if not answer.done():
                    answer.set_result(done)

        self.life.on_death(give_up)
        try:
            self.life.inside(self._tasks.start_soon, do)
            return await answer
        finally:
            self.life.no_longer_on_death(give_up)
