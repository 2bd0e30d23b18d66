"""Redis for many nodes on one virtual clock: exactly what is used of it, with the semantics of our Lua scripts.

``RedisServer`` is what all nodes share: the scripts of ``dispatch/*.lua`` in Python (``test_models`` holds them to the real
ones on a real Redis), and pub/sub that delays, repeats and reorders, and loses what is said while a connection is down.
``Link``, ``Bus`` and ``Presence`` are one node's ends of it, with the methods that the real code calls.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import anyio
import structlog

from models.errors import RedisUnavailable
from models.wire import StatusView
from presence.liveness import Facts
from tests.simulation.chance import Chance
from tests.simulation.clocks import EPOCH_MS
from tests.simulation.life import Life
from tests.simulation.loop import VirtualLoop

T = TypeVar("T")
NEVER_MS = 2**63
"""When what has no end expires."""


class Store:
    """The data of one Redis: strings that expire, and sorted sets. Every method is one script or command, at ``now_ms``."""

    def __init__(self) -> None:
        self.strings: dict[str, tuple[str, int]] = {}
        self.sorted_sets: dict[str, dict[str, int]] = {}

    def flush(self) -> None:
        """Forget everything."""
        self.strings.clear()
        self.sorted_sets.clear()

    def schedule_deadline(self, now_ms: int, keys: Sequence[str], args: Sequence[Any]) -> int:
        """``dispatch/schedule_deadline.lua``."""
        index = self.sorted_sets.setdefault(keys[0], {})
        added = 0
        for key, offer_id, deadline in zip(keys[1:], args[::2], args[1::2], strict=True):
            if offer_id not in index:
                index[offer_id] = int(deadline)
                added += 1
                self._set(now_ms, key, str(deadline), int(deadline))
        return added

    def claim_due(self, now_ms: int, keys: Sequence[str], args: Sequence[Any]) -> list[Any]:
        """``dispatch/claim_due.lua``."""
        prefix, claim_ms, len_max, *closed = str(args[0]), int(args[1]), int(args[2]), *args[3:]
        index = self.sorted_sets.setdefault(keys[0], {})
        for offer_id in closed:
            index.pop(offer_id, None)
            self.strings.pop(prefix + offer_id, None)
        began, _ = self.strings.setdefault(keys[1], (str(now_ms), NEVER_MS))
        due = [offer_id for score, offer_id in self._in_order(index) if score <= now_ms][: max(0, len_max)]
        claimed = []
        for offer_id in due:
            left_ms = self._pttl(now_ms, prefix + offer_id)
            if left_ms > 0:
                index[offer_id] = now_ms + left_ms
            elif left_ms == 0:
                index[offer_id] = now_ms + 1
            else:
                index[offer_id] = now_ms + claim_ms
                claimed.append(offer_id)
        first = min(index.values(), default=-1)
        return [now_ms, first, began, *claimed]

    def time(self, now_ms: int, _keys: Sequence[str], _args: Sequence[Any]) -> list[int]:
        return [now_ms // 1000, now_ms % 1000 * 1000]

    def members(self, index: str) -> list[str]:
        """ZRANGE 0 -1."""
        return [member for _, member in self._in_order(self.sorted_sets.get(index, {}))]

    def move(self, index: str, scores: dict[str, int]) -> None:
        """ZADD XX."""
        known = self.sorted_sets.get(index, {})
        known.update({member: score for member, score in scores.items() if member in known})

    def _set(self, now_ms: int, key: str, value: str, expires_at_ms: int) -> None:
        # Redis deletes what is to expire at this very millisecond, and lets live until its end what was there before.
        if expires_at_ms > now_ms:
            self.strings[key] = (value, expires_at_ms)
        else:
            self.strings.pop(key, None)

    def _pttl(self, now_ms: int, key: str) -> int:
        found = self.strings.get(key)
        if found is None or now_ms > found[1]:
            self.strings.pop(key, None)
            return -2
        return found[1] - now_ms

    @staticmethod
    def _in_order(index: dict[str, int]) -> list[tuple[int, str]]:
        return sorted((score, member) for member, score in index.items())


class RedisServer:
    """One Redis on the virtual clock, which may be away, and may come back knowing nothing."""

    def __init__(self, loop: VirtualLoop, chance: Chance) -> None:
        self.store = Store()
        self.is_away = False
        self.repeats = 0.0
        """How likely a published message is heard twice."""
        self.reorders = 0.0
        """How likely it is held up, so that later ones overtake it."""
        self._loop = loop
        self._chance = chance
        self._ears: list[Bus] = []

    def now_ms(self) -> float:
        """Redis' clock: the true time of a world, in ms since the epoch."""
        return EPOCH_MS + self._loop.time() * 1000

    def leave(self) -> None:
        """Go away: commands fail, and every subscription is lost."""
        self.is_away = True
        for ear in self._ears:
            ear.lose()

    def come_back(self, *, empty: bool) -> None:
        """Answer again."""
        self.is_away = False
        if empty:
            self.store.flush()

    def listen(self, ear: "Bus") -> None:
        """Let an ear hear what is published from now on."""
        self._ears.append(ear)

    def forget(self, ear: "Bus") -> None:
        """Do not; idempotent."""
        if ear in self._ears:
            self._ears.remove(ear)

    def publish(self, channel: str, message: str) -> None:
        """Let everybody who listens now hear it, each after a delay of their own."""
        for ear in self._ears:
            for _ in range(2 if self._chance.happens(self.repeats) else 1):
                held_up_s = self._chance.between(0, 0.1) if self._chance.happens(self.reorders) else 0.0
                self._loop.call_later(self._chance.delay_s() + held_up_s, ear.hear, channel, message)


class Link:
    """A node's commands to Redis: what ``infra.redis_link.RedisLink`` offers to the real code."""

    def __init__(self, server: RedisServer, life: Life) -> None:
        self.log = structlog.get_logger("redis")
        self._server = server
        self._life = life

    def key(self, tag: str, name: str) -> str:
        return f"sim:{{{tag}}}:{name}"

    def script(self, path: Path) -> Callable[..., Awaitable[Any]]:
        """Return the model of the script at ``path``."""
        run = getattr(self._server.store, path.stem)

        async def call(*, keys: Sequence[str], args: Sequence[Any] = ()) -> Any:
            return await self.do(path.stem, lambda: run(int(self._server.now_ms()), keys, args))

        return call

    async def ask(self, _key: str, command: Callable[["Link"], Awaitable[T]]) -> T:
        """Give ``command`` the one server that there is: ourselves."""
        return await command(self)

    async def do(self, what: str, act: Callable[[], Any]) -> Any:
        """Two steps, there and back; the node may die, and Redis go away, before or after ``act``."""
        await self._life.step(f"redis {what}")
        self._fail_if_away()
        answer = act()
        await self._life.step(f"redis {what} answered")
        self._fail_if_away()
        return answer

    async def publish(self, channel: str, message: bytes) -> None:
        await self.do("publish", lambda: self._server.publish(channel, message.decode()))

    async def zadd(self, index: str, scores: dict[str, int], *, xx: bool) -> None:
        assert xx
        await self.do("zadd", lambda: self._server.store.move(index, scores))

    async def zrange(self, index: str, first: int, last: int) -> list[str]:
        return await self.do("zrange", lambda: self._server.store.members(index)[first : last + 1])

    def _fail_if_away(self) -> None:
        if self._server.is_away:
            raise RedisUnavailable("Redis is away")


class Bus:
    """A node's ear: what ``infra.bus.Bus`` promises. What is missed while it is down is announced as a gap."""

    RECONNECT_S = 0.05

    def __init__(self, server: RedisServer, link: Link, life: Life) -> None:
        self._server = server
        self._link = link
        self._life = life
        self._handlers: dict[str, list[Callable[[str], None]]] = {}
        self._gap_handlers: list[Callable[[], None]] = []
        self._is_up = not server.is_away
        self._lost = anyio.Event()
        if not self._is_up:
            self._lost.set()
        server.listen(self)
        life.on_death(lambda: server.forget(self))

    def on_gap(self, handler: Callable[[], None]) -> None:
        self._gap_handlers.append(handler)

    async def subscribe(self, *channels: str, handler: Callable[[str], None]) -> None:
        await self._life.step("redis subscribe")
        for channel in channels:
            self._handlers.setdefault(channel, []).append(handler)

    async def publish(self, channel: str, *payloads: bytes) -> None:
        if payloads:
            await self._link.publish(channel, b"\n".join(payloads))

    def lose(self, *, unnoticed_s: float = 0.0) -> None:
        """The connection breaks: nothing is heard until that is noticed, it is made anew, and the gap announced."""
        self._is_up = False
        self._life.loop.call_later(unnoticed_s, self._lost.set)

    def hear(self, channel: str, message: str) -> None:
        """Take what was published, unless the connection has broken on the way."""
        if self._is_up and not self._life.is_over:
            for payload in message.split("\n"):
                for handler in self._handlers.get(channel, ()):
                    self._life.inside(handler, payload)

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            await self._lost.wait()
            await anyio.sleep(self.RECONNECT_S)
            try:
                await self._link.do("subscribe again", self._up)
            except RedisUnavailable:
                continue
            for handler in self._gap_handlers:
                handler()

    def _up(self) -> None:
        self._is_up = True
        self._lost = anyio.Event()


class Presence:
    """As much of presence as dispatch and sockets ask for; who is here is for the tests of presence itself."""

    unnoticed_ms = 48_000

    def __init__(self, link: Link) -> None:
        self._link = link

    def joined(self, mechanic_id: str) -> None: ...
    def heard(self, mechanic_id: str) -> None: ...
    def left(self, mechanic_id: str) -> None: ...

    async def take_facts(self, _facts: Iterable[Facts]) -> None:
        await self._ask("facts")

    async def status_of(self, _ids: Collection[str]) -> dict[str, StatusView]:
        await self._ask("status")
        return {}

    async def _ask(self, what: str) -> None:
        await self._link.do(what, lambda: None)
