"""Pub/sub between nodes over Redis, which notices when it has gone deaf.

Redis' pub/sub is fire and forget, and a client's subscription can die silently (redis-py issues #2089, #2417). So whoever
listens publishes to itself once a second through the server that it listens to; when its own words stop coming back, or
anything else breaks, everything that was heard there is subscribed anew, and those who asked are told of the gap so that
they can send snapshots.

Channels are sharded (redis.io, "Sharded pub/sub"): a message goes to the one server that its channel lives on. There is one *ear*
for each server that anything subscribed lives on: one on a single Redis, as many as there are primaries in a cluster. An ear that
breaks is not mended but replaced, wherever its channels live by then.
"""

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable
from itertools import islice
from pathlib import Path

import anyio
import structlog
from anyio.abc import TaskGroup
from redis.asyncio.client import PubSub
from redis.asyncio.connection import Connection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from infra.loops import Backoff, failing_alone
from infra.redis_link import Home, RedisLink
from infra.slot_map import tag_of
from models.errors import RedisUnavailable

PING_INTERVAL_S = 1.0
DEAF_AFTER_S = 3.0
SUBSCRIBE_TIMEOUT_S = 5.0
PLACE_LEN_MAX = 1_000
"""Channels subscribed between two looks at what else there is to do."""

Handler = Callable[[str], None]
GapHandler = Callable[[], None]


def together(channel: str) -> str:
    """Return the channel on which payloads travel together, in lines; it lives where the other one does."""
    return f"{channel}:together"


class Deaf(Exception):
    """An ear does not hear its own words any more, or its channels live elsewhere by now."""


class Bus:
    """One node's ears and voice in Redis. Handlers of all kinds are synchronous."""

    def __init__(self, link: RedisLink, node_id: str) -> None:
        self._link = link
        self._node_id = node_id
        self._handlers: defaultdict[str, list[Handler]] = defaultdict(list)
        self._confirmed: defaultdict[str, anyio.Event] = defaultdict(anyio.Event)
        self._gap_handlers: list[GapHandler] = []
        self._ears: dict[Home, _Ear] = {}
        self._unplaced: dict[str, None] = {}
        """Channels that somebody wants to hear and no ear listens to."""
        self._lost: set[str] = set()
        """Channels that were heard once and are not, or not yet again."""
        self._has_unplaced = anyio.Event()
        self._backoff = Backoff()
        self._publish = link.script(Path(__file__).parent / "publish.lua")
        self._log = structlog.get_logger("bus")

    def on_gap(self, handler: GapHandler) -> None:
        """Call ``handler`` after every gap, once listening again: messages may have been missed."""
        self._gap_handlers.append(handler)

    async def subscribe(self, *channels: str, handler: Handler) -> None:
        """Return once Redis has confirmed: what is published from now on reaches ``handler``.

        While Redis is away the subscription is kept and takes effect with the next connection; the gap that follows
        is announced. Subscribing the same handler again is harmless.
        """
        for channel in channels:
            handlers = self._handlers[channel]
            if handler not in handlers:
                handlers.append(handler)
            if len(handlers) == 1 and not self._is_placed(channel):
                self._place_soon([channel])
        with anyio.move_on_after(SUBSCRIBE_TIMEOUT_S):
            for channel in channels:
                await self._confirmed[channel].wait()

    async def unsubscribe(self, *channels: str, handler: Handler) -> None:
        """Stop calling ``handler``; idempotent."""
        for channel in channels:
            handlers = self._handlers.get(channel, [])
            if handler in handlers:
                handlers.remove(handler)
            if not handlers and channel in self._handlers:
                del self._handlers[channel]
                self._confirmed.pop(channel, None)
                self._unplaced.pop(channel, None)
                self._lost.discard(channel)
        for ear in tuple(self._ears.values()):
            # Asked for each ear anew: while one is being told, somebody may subscribe what another listens to.
            unheard = [channel for channel in channels if channel not in self._handlers]
            await ear.give_up([channel for channel in unheard if channel in ear.channels])

    async def publish(self, channel: str, *payloads: bytes) -> None:
        """Publish payloads, each of one line, in order: in one message, unless a node of a version listens that knows no lines.

        Whoever wants to hear them listens to the channel and to ``together`` of it. Raises ``RedisUnavailable`` if Redis may not
        have taken them.
        """
        if payloads:
            await self._publish(keys=[channel, together(channel)], args=payloads)

    async def run(self) -> None:
        """Listen until cancelled; after a failure again with exponential backoff (never more than a second)."""
        async with anyio.create_task_group() as tasks:
            has_failed = False
            while True:
                await self._has_unplaced.wait()
                has_failed = has_failed or bool(self._lost)
                if has_failed:
                    await self._backoff.wait()
                try:
                    if has_failed:
                        await self._link.look_again()
                    await self._place(tasks)
                    has_failed = False
                except RedisUnavailable as error:
                    self._log.warning("bus_waits", error=str(error))
                    has_failed = True

    # --- ears ---------------------------------------------------------------------------------------------------------

    def _is_placed(self, channel: str) -> bool:
        return channel in self._unplaced or any(channel in ear.channels for ear in self._ears.values())

    def _place_soon(self, channels: Iterable[str]) -> None:
        self._unplaced.update(dict.fromkeys(channels))
        self._has_unplaced.set()

    async def _place(self, tasks: TaskGroup) -> None:
        """Give a slice of what is unplaced to the ears where it lives, opening those that are missing."""
        batch = list(islice(self._unplaced, PLACE_LEN_MAX))
        by_home: defaultdict[Home, list[str]] = defaultdict(list)
        for channel in batch:
            by_home[await self._link.home_of(channel)].append(channel)
        for home, channels in by_home.items():
            if home not in self._ears:
                own_channel = self._link.key(tag_of(channels[0]), f"ear:{self._node_id}")
                self._ears[home] = _Ear(self, self._link, home, own_channel)
                tasks.start_soon(self._listen, self._ears[home])
            # Somebody may have unsubscribed while we were asking where things live.
            wanted = [channel for channel in channels if channel in self._unplaced]
            for channel in wanted:
                del self._unplaced[channel]
            await self._ears[home].take(wanted, lost=self._lost.intersection(wanted))
        if not self._unplaced:
            self._has_unplaced = anyio.Event()

    async def _listen(self, ear: "_Ear") -> None:
        try:
            await ear.run()
        except* (RedisError, RedisUnavailable, OSError, Deaf) as errors:
            self._log.warning("bus_lost", home=ear.home, error=str(errors.exceptions[0]))
        finally:
            if self._ears.get(ear.home) is ear:
                del self._ears[ear.home]
            lost = [channel for channel in ear.channels if channel in self._handlers]
            self._lost.update(lost)
            for channel in lost:
                # Who waits for it waits no longer than for Redis itself; the gap that follows makes it good.
                self._confirmed.pop(channel, anyio.Event()).set()
            self._place_soon(lost)

    # --- what ears say ------------------------------------------------------------------------------------------------

    def confirm(self, channel: str) -> None:
        """Let whoever waits for ``channel`` know that Redis has confirmed it; for ears."""
        self._lost.discard(channel)
        if not self._lost:
            self._backoff.reset()
        if channel in self._handlers:
            self._confirmed[channel].set()

    def announce_gap(self) -> None:
        """Everything that an ear lost is heard again; for ears. Whoever cannot take it keeps nobody else from it."""
        for handler in self._gap_handlers:
            with failing_alone("bus"):
                handler()

    def hear(self, channel: str, message: str) -> None:
        """Pass on the payloads of one message; for ears. Whoever cannot take one keeps nobody else from it."""
        for payload in message.split("\n"):
            for handler in tuple(self._handlers.get(channel, ())):
                with failing_alone("bus", channel=channel):
                    handler(payload)


class _Ear:
    """One connection that listens to all channels that live on one server. Used once: after a failure comes another."""

    def __init__(self, bus: Bus, link: RedisLink, home: Home, own_channel: str) -> None:
        self.home = home
        self.channels: set[str] = set()
        self._bus = bus
        self._link = link
        self._own_channel = own_channel
        self._waiting: list[str] = []
        """Channels to subscribe once connected."""
        self._regaining: set[str] = set()
        """Channels lost before, and not confirmed again."""
        self._leaving: Counter[str] = Counter()
        """Channels given up, by how often Redis has not confirmed that yet."""
        self._pubsub: PubSub | None = None
        self._failure: Exception | None = None
        self._heard_at_s = 0.0

    async def take(self, channels: Collection[str], *, lost: Collection[str]) -> None:
        """Listen to ``channels``, too; ``lost`` are those that were heard before, so that their return ends a gap."""
        self.channels.update(channels)
        self._regaining.update(lost)
        if self._pubsub is None:
            self._waiting += channels
        else:
            await self._send(self._pubsub.ssubscribe, channels)

    async def give_up(self, channels: Collection[str]) -> None:
        """Stop listening to ``channels``."""
        self.channels.difference_update(channels)
        for channel in channels:
            self._regain(channel)
        if self._pubsub is None:
            self._waiting = [channel for channel in self._waiting if channel in self.channels]
        else:
            await self._leave(self._pubsub, channels)

    async def run(self) -> None:
        """Listen until cancelled or until something breaks: raises what the client raises, ``RedisUnavailable`` or ``Deaf``."""
        client = self._link.listener(self.home)
        try:
            async with _OncePubSub(client.connection_pool) as pubsub:
                await pubsub.ssubscribe(self._own_channel)
                while self._waiting:
                    waiting, self._waiting = self._waiting, []
                    await self._send(pubsub.ssubscribe, waiting)
                    if given_up := [channel for channel in waiting if channel not in self.channels]:
                        # While their subscription was on its way there was nothing yet to take it back with.
                        await self._leave(pubsub, given_up)
                # No await since nobody was waiting: what is taken from now on finds the connection.
                self._pubsub = pubsub
                self._heard_at_s = anyio.current_time()
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._ping_self)
                    await self._listen(pubsub)
        finally:
            self._pubsub = None
            with anyio.CancelScope(shield=True):
                await client.aclose(close_connection_pool=True)

    async def _send(self, command: Callable[..., Awaitable[None]], channels: Iterable[str]) -> None:
        """Send a command about channels: one for each tag, because what stands in one command must live in one slot."""
        by_tag: defaultdict[str, list[str]] = defaultdict(list)
        for channel in channels:
            by_tag[tag_of(channel)].append(channel)
        try:
            for together in by_tag.values():
                await command(*together)
        except (RedisError, OSError) as error:
            # For whoever reads from this connection to find: it has lost something, and everything on it is subscribed anew.
            self._failure = error

    async def _leave(self, pubsub: PubSub, channels: Collection[str]) -> None:
        self._leaving.update(channels)
        await self._send(pubsub.sunsubscribe, channels)

    async def _listen(self, pubsub: PubSub) -> None:
        while anyio.current_time() - self._heard_at_s < DEAF_AFTER_S:
            message = await pubsub.get_message(timeout=PING_INTERVAL_S)
            if self._failure is not None:
                raise self._failure
            if message is None:
                continue
            self._heard_at_s = anyio.current_time()
            channel = message["channel"]
            match message["type"]:
                case "smessage":
                    self._bus.hear(channel, message["data"])
                case "ssubscribe" if channel in self.channels and not self._leaving[channel]:
                    # While it is being left, this is the answer to an earlier wish.
                    self._bus.confirm(channel)
                    self._regain(channel)
                case "sunsubscribe":
                    self._note_left(channel)
                case _:
                    # The answer to a wish that is none any more.
                    pass
        raise Deaf(f"nothing was heard for {DEAF_AFTER_S:g} s")

    def _note_left(self, channel: str) -> None:
        if self._leaving[channel] > 1:
            self._leaving[channel] -= 1
        elif self._leaving.pop(channel, 0) == 0:
            # Not our doing: its slot has moved to another server (redis.io, "Sharded pub/sub").
            raise Deaf(f"{channel} lives elsewhere now")

    def _regain(self, channel: str) -> None:
        """Note that a channel is not lost any more; the last one ends the gap."""
        if channel in self._regaining:
            self._regaining.discard(channel)
            if not self._regaining:
                self._bus.announce_gap()

    async def _ping_self(self) -> None:
        while True:
            await self._link.publish(self._own_channel, "ping")
            await anyio.sleep(PING_INTERVAL_S)


class _OncePubSub(PubSub):
    """The library's pub/sub, but a connection that is lost stays lost: one that came back silently would hide a gap."""

    async def on_connect(self, connection: Connection) -> None:
        """Refuse to go on when this is not the first connection; the library calls it on each."""
        if self.shard_channels:
            raise RedisConnectionError("the connection was lost")
