"""Pub/sub between nodes over Redis, which notices when it has gone deaf.

Redis' pub/sub is fire and forget, and a client's subscription can die silently (redis-py issues #2089, #2417). So a node
publishes to itself once a second through the same connection that listens; when its own words stop coming back, the
connection is made anew, everything is subscribed again, and those who asked are told of the gap so that they can send
snapshots.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable

import anyio
import structlog
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from models.redis_link import RedisLink

PING_INTERVAL_S = 1.0
DEAF_AFTER_S = 3.0
RECONNECT_FIRST_S = 0.05
RECONNECT_MAX_S = 1.0
SUBSCRIBE_TIMEOUT_S = 5.0

Handler = Callable[[str], None]
GapHandler = Callable[[], Awaitable[None]]


class Bus:
    """One node's ear and voice in Redis. Handlers are synchronous and must not raise."""

    def __init__(self, link: RedisLink, node_id: str) -> None:
        self._link = link
        self._own_channel = link.key("bus", node_id)
        self._handlers: defaultdict[str, list[Handler]] = defaultdict(list)
        self._confirmed: defaultdict[str, anyio.Event] = defaultdict(anyio.Event)
        self._gap_handlers: list[GapHandler] = []
        self._pubsub: PubSub | None = None
        self._heard_at = 0.0
        self._log = structlog.get_logger("bus")

    def on_gap(self, handler: GapHandler) -> None:
        """Call ``handler`` after every gap, once listening again: messages may have been missed."""
        self._gap_handlers.append(handler)

    async def subscribe(self, *channels: str, handler: Handler) -> None:
        """Return once Redis has confirmed: what is published from now on reaches ``handler``.

        While Redis is away the subscription is kept and takes effect with the next connection; the gap that follows
        is announced. Subscribing the same handler again is harmless.
        """
        fresh = []
        for channel in channels:
            handlers = self._handlers[channel]
            if handler not in handlers:
                handlers.append(handler)
            if len(handlers) == 1 and not self._confirmed[channel].is_set():
                fresh.append(channel)
        if fresh and self._pubsub is not None:
            try:
                await self._pubsub.subscribe(*fresh)
            except (RedisError, OSError) as error:
                self._log.warning("subscribe_failed", error=str(error))
                return
        with anyio.move_on_after(SUBSCRIBE_TIMEOUT_S):
            for channel in channels:
                await self._confirmed[channel].wait()

    async def unsubscribe(self, *channels: str, handler: Handler) -> None:
        """Stop calling ``handler``; idempotent."""
        unheard = []
        for channel in channels:
            handlers = self._handlers.get(channel, [])
            if handler in handlers:
                handlers.remove(handler)
            if not handlers and channel in self._handlers:
                del self._handlers[channel]
                self._confirmed.pop(channel, None)
                unheard.append(channel)
        if unheard and self._pubsub is not None:
            try:
                await self._pubsub.unsubscribe(*unheard)
            except (RedisError, OSError) as error:
                # The connection is dying; the next one will not subscribe to these.
                self._log.warning("unsubscribe_failed", error=str(error))

    async def publish(self, channel: str, payload: str | bytes) -> None:
        """Publish; raises ``RedisError`` if Redis did not take it."""
        await self._link.redis.publish(channel, payload)

    async def run(self) -> None:
        """Listen until cancelled, reconnecting with exponential backoff (never more than a second)."""
        delay_s = RECONNECT_FIRST_S
        first = True
        while True:
            try:
                async with self._link.redis.pubsub() as pubsub:
                    await pubsub.subscribe(self._own_channel)
                    asked: set[str] = set()
                    while missing := self._handlers.keys() - asked:
                        await pubsub.subscribe(*missing)
                        asked |= missing
                    # No await since nothing was missing: whoever subscribes from now on finds the connection.
                    self._pubsub = pubsub
                    self._heard_at = anyio.current_time()
                    delay_s = RECONNECT_FIRST_S
                    if not first:
                        await self._announce_gap()
                    first = False
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(self._ping_self)
                        await self._listen(pubsub)
                        tasks.cancel_scope.cancel()
            except* (RedisError, OSError) as errors:
                self._log.warning("bus_lost", error=str(errors.exceptions[0]))
            self._pubsub = None
            for event in self._confirmed.values():
                if not event.is_set():
                    event.set()
            self._confirmed.clear()
            first = False
            await anyio.sleep(delay_s)
            delay_s = min(delay_s * 2, RECONNECT_MAX_S)

    async def _listen(self, pubsub: PubSub) -> None:
        while anyio.current_time() - self._heard_at < DEAF_AFTER_S:
            message = await pubsub.get_message(timeout=PING_INTERVAL_S)
            if message is None:
                continue
            self._heard_at = anyio.current_time()
            channel = message["channel"]
            if message["type"] == "subscribe":
                # One that was given up meanwhile must not look confirmed to the next who asks.
                if channel in self._handlers:
                    self._confirmed[channel].set()
            elif message["type"] == "message":
                for handler in tuple(self._handlers.get(channel, ())):
                    handler(message["data"])
        self._log.warning("bus_deaf", silent_s=DEAF_AFTER_S)

    async def _ping_self(self) -> None:
        while True:
            await self._link.redis.publish(self._own_channel, "ping")
            await anyio.sleep(PING_INTERVAL_S)

    async def _announce_gap(self) -> None:
        for handler in self._gap_handlers:
            await handler()
