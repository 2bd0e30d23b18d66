"""A TCP proxy on loopback that does to connections what bad networks do, the same again for the same seed.

    async with lossy_proxy(server.base_url, seed=7, weather=STORM) as proxy:
        client = Client(proxy.base_url)       # REST and sockets alike: bytes are passed on as they come
        proxy.weather = CALM                  # for connections made from now on
        proxy.cut_all()                       # those that are open now break off

Each connection draws its fate from the seed and its own number, so what happens to the nth connection does not depend on
the others. To repeat whole requests and frames the proxy looks where they end; what it cannot read it passes on unseen.
"""

import re
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from urllib.parse import urlsplit

import anyio
import anyio.abc

PIECE_LEN_MAX = 16 * 1024
UNIT_LEN_MAX = 256 * 1024
"""A request or a frame that is longer is passed on, and never repeated."""
HEAD_LEN_MAX = 64 * 1024
HELD_MAX_S = 120.0
"""A half-open connection is closed after this time, so that long runs do not run out of sockets."""
COPY_TIMEOUT_S = 10.0
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""``SO_LINGER`` of zero seconds: the kernel sends RST instead of FIN."""
BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, OSError)
BLOCKED = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Way(StrEnum):
    """In which direction bytes travel."""

    UP = "up"
    """From the client to the server."""
    DOWN = "down"


class Fate(StrEnum):
    """What happens to a connection once, at an instant or after a number of bytes."""

    NONE = "none"
    REFUSED = "refused"
    """Closed before anything is passed on."""
    RESET = "reset"
    CLOSED = "closed"
    """Ended in good order (FIN) on both sides, in the middle of whatever was on its way."""
    HALF_OPEN = "half_open"
    """Nothing is passed on any more, neither way, and neither side is told."""
    STALL_UP = "stall_up"
    """The client's bytes wait for a while, then go on."""
    STALL_DOWN = "stall_down"


@dataclass(frozen=True)
class Weather:
    """How bad it is. ``delay_s``: shortest and longest wait of each piece, each way; ``weights``: of the fates to draw from."""

    delay_s: tuple[float, float] = (0.0, 0.0)
    weights: dict[Fate, float] = field(default_factory=lambda: {Fate.NONE: 1.0})
    after_s: tuple[float, float] = (0.1, 8.0)
    """When a fate that waits for an instant strikes."""
    after_bytes: tuple[int, int] = (1, 4_000)
    """How many bytes are let through, one way, before a fate that waits for bytes strikes."""
    stall_s: tuple[float, float] = (0.5, 6.0)
    repeats: float = 0.0
    """How likely a client's whole request, or a whole text frame of either side, is passed on twice."""
    repeatable: str = r"GET |(PUT|DELETE) /api/favorites/|POST /api/(offers|requests)/[^ ]+/"
    """Requests that may be repeated, as a pattern for the start of their first line."""


CALM = Weather()
STORM = Weather(
    delay_s=(0.0, 0.08),
    weights={
        Fate.NONE: 3,
        Fate.REFUSED: 1,
        Fate.RESET: 3,
        Fate.CLOSED: 2,
        Fate.HALF_OPEN: 2,
        Fate.STALL_UP: 1,
        Fate.STALL_DOWN: 1,
    },
    repeats=0.1,
)


@dataclass
class LossyProxy:
    """What the network is like now, and what it has done."""

    base_url: str
    upstream: tuple[str, int]
    seed: int
    weather: Weather
    blocks_sockets: bool = False
    """Whether handshakes of WebSockets are answered with 403, as by a proxy that allows none; what is open stays."""
    met: Counter[str] = field(default_factory=Counter)
    """How often each fate has struck, and how much was repeated."""
    _links: set["_Link"] = field(default_factory=set)
    _connections: int = 0

    def cut_all(self) -> None:
        """Reset every connection that is open now."""
        self.strike_all(Fate.RESET)

    def strike_all(self, fate: Fate) -> None:
        """Let this happen to every connection that is open now."""
        for link in self._links:
            link.strike(fate)

    def next_dice(self) -> Random:
        """Return the dice of the next connection."""
        self._connections += 1
        return Random(f"{self.seed}/{self._connections}")


@asynccontextmanager
async def lossy_proxy(upstream: str, *, seed: int, weather: Weather = CALM, port: int = 0) -> AsyncIterator[LossyProxy]:
    """Run a proxy to ``upstream`` (scheme, host and port; plain HTTP) inside the block, on ``port`` or any free one."""
    to = urlsplit(upstream)
    assert to.hostname is not None and to.port is not None
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port)
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    proxy = LossyProxy(f"http://127.0.0.1:{port}", (to.hostname, to.port), seed, weather)
    async with listener, anyio.create_task_group() as tasks:

        async def serve(client: anyio.abc.SocketStream) -> None:
            async with client:
                await _serve(proxy, client)

        tasks.start_soon(listener.serve, serve)
        yield proxy
        tasks.cancel_scope.cancel()


async def _serve(proxy: LossyProxy, client: anyio.abc.SocketStream) -> None:
    dice, weather = proxy.next_dice(), proxy.weather
    fates = list(Fate)
    fate = dice.choices(fates, [weather.weights.get(one, 0.0) for one in fates])[0]
    if fate is Fate.REFUSED:
        proxy.met[fate] += 1
        _reset_on_close(client)
        return
    with suppress(*BROKEN):
        head = b""
        if proxy.blocks_sockets:
            head = await _first_head(client)
            if re.search(rb"\r\nupgrade: *websocket", head, re.IGNORECASE):
                await client.send(BLOCKED)
                return
        async with await anyio.connect_tcp(*proxy.upstream) as server:
            link = _Link(proxy, weather, dice, fate, client, server)
            proxy._links.add(link)
            try:
                await link.carry(head)
            finally:
                proxy._links.discard(link)


async def _first_head(client: anyio.abc.SocketStream) -> bytes:
    """Read until the first request's head is complete; what has come with it stays with it."""
    head = b""
    while b"\r\n\r\n" not in head and len(head) < HEAD_LEN_MAX:
        head += await client.receive(PIECE_LEN_MAX)
    return head


class _Link:
    """One connection through the proxy, and what becomes of it."""

    def __init__(
        self,
        proxy: LossyProxy,
        weather: Weather,
        dice: Random,
        fate: Fate,
        client: anyio.abc.SocketStream,
        server: anyio.abc.SocketStream,
    ) -> None:
        self._proxy = proxy
        self._weather = weather
        self._dice = dice
        self._fate = fate
        self._ends = {Way.UP: (client, server), Way.DOWN: (server, client)}
        self._units: dict[Way, _Requests | _Frames | None] = {Way.UP: _Requests(), Way.DOWN: None}
        self._answer_head: bytes | None = b""
        """What has come of the first answer's head; ``None`` once it is known whether this is a socket."""
        self._is_struck = False
        self._held: dict[Way, anyio.Event] = {}
        # Drawn now and always, whatever the fate: one fate's draws must not move another's.
        waits_for_bytes = dice.random() < 0.5
        self._after_s = dice.uniform(*weather.after_s)
        # Half of them early, where one request and its answer end.
        self._after_bytes = int(
            weather.after_bytes[0] + dice.random() ** 2 * (weather.after_bytes[1] - weather.after_bytes[0])
        )
        self._counted = dice.choice(list(Way)) if waits_for_bytes else None
        self._stall_s = dice.uniform(*weather.stall_s)
        self._dice_of = {way: Random(dice.random()) for way in Way}

    async def carry(self, head: bytes) -> None:
        """Pass bytes on, both ways, until both sides have ended or the fate ends it; ``head`` has been read already."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            if self._fate is not Fate.NONE and self._counted is None:
                tasks.start_soon(self._wait_and_strike)
            async with anyio.create_task_group() as pumps:
                pumps.start_soon(self._pump, Way.UP, head)
                pumps.start_soon(self._pump, Way.DOWN, b"")
            tasks.cancel_scope.cancel()

    def strike(self, fate: Fate) -> None:
        """Let this happen to the connection now."""
        self._is_struck = True
        self._proxy.met[fate] += 1
        if fate in (Fate.RESET, Fate.CLOSED):
            if fate is Fate.RESET:
                for source, _ in self._ends.values():
                    _reset_on_close(source)
            self._tasks.cancel_scope.cancel()
            return
        ways = {Fate.STALL_UP: [Way.UP], Fate.STALL_DOWN: [Way.DOWN]}.get(fate, list(Way))
        for way in ways:
            self._held.setdefault(way, anyio.Event())
        self._tasks.start_soon(self._let_go, fate)

    async def _wait_and_strike(self) -> None:
        await anyio.sleep(self._after_s)
        self.strike(self._fate)

    async def _let_go(self, fate: Fate) -> None:
        if fate is Fate.HALF_OPEN:
            await anyio.sleep(HELD_MAX_S)
            self._tasks.cancel_scope.cancel()
        else:
            await anyio.sleep(self._stall_s)
            for way in list(self._held):
                self._held.pop(way).set()

    async def _pump(self, way: Way, piece: bytes) -> None:
        source, sink = self._ends[way]
        try:
            while True:
                for part, unit in self._parts(way, piece):
                    await self._send(way, part)
                    if unit is not None and self._dice_of[way].random() < self._weather.repeats:
                        await self._repeat(way, unit)
                piece = await source.receive(PIECE_LEN_MAX)
        except anyio.EndOfStream:
            with suppress(*BROKEN):
                await self._open(way)
                await sink.send_eof()
        except BROKEN:
            # One side has broken off: so does the other.
            self._tasks.cancel_scope.cancel()

    async def _send(self, way: Way, part: bytes) -> None:
        _, sink = self._ends[way]
        shortest_s, longest_s = self._weather.delay_s
        if longest_s > 0:
            await anyio.sleep(self._dice_of[way].uniform(shortest_s, longest_s))
        if way is self._counted and not self._is_struck and self._fate is not Fate.NONE:
            let_through, part = part[: self._after_bytes], part[self._after_bytes :]
            self._after_bytes -= len(let_through)
            await self._open(way)
            await sink.send(let_through)
            if self._after_bytes == 0:
                self.strike(self._fate)
        if part:
            await self._open(way)
            await sink.send(part)

    async def _open(self, way: Way) -> None:
        """Wait while this way is held."""
        while way in self._held:
            await self._held[way].wait()

    def _parts(self, way: Way, piece: bytes) -> Iterator[tuple[bytes, bytes | None]]:
        """Cut a piece where requests and frames end; with the last part of one comes the whole, if it may be repeated."""
        if way is Way.DOWN and self._answer_head is not None:
            self._answer_head += piece
            head, found, _ = self._answer_head.partition(b"\r\n\r\n")
            if not found:
                yield piece, None
                return
            is_socket = head.startswith(b"HTTP/1.1 101")
            self._units = {one: _Frames(one) if is_socket else self._units[one] for one in Way}
            frames_begin_at = len(head) + 4 - (len(self._answer_head) - len(piece))
            self._answer_head = None
            yield piece[:frames_begin_at], None
            piece = piece[frames_begin_at:]
        units = self._units[way]
        if piece:
            yield from [(piece, None)] if units is None else units.cut(piece, self._weather)

    async def _repeat(self, way: Way, unit: bytes) -> None:
        if isinstance(self._units[way], _Frames):
            self._proxy.met[f"repeated frame {way}"] += 1
            await self._send(way, unit)
        else:
            self._proxy.met["repeated request"] += 1
            # On a connection of its own: whether the copy or the original comes first is left to chance.
            self._tasks.start_soon(_ask_and_forget, self._proxy.upstream, unit)


async def _ask_and_forget(upstream: tuple[str, int], request: bytes) -> None:
    with suppress(*BROKEN), anyio.move_on_after(COPY_TIMEOUT_S):
        async with await anyio.connect_tcp(*upstream) as server:
            await server.send(request)
            await server.receive(PIECE_LEN_MAX)


def _reset_on_close(stream: anyio.abc.SocketStream) -> None:
    with suppress(OSError):
        raw = stream.extra(anyio.abc.SocketAttribute.raw_socket)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)


# --- where requests and frames end ------------------------------------------------------------------------------------


class _Requests:
    """Finds the ends of HTTP/1.1 requests of known length (RFC 9112 §6.3); after one of unknown length nothing is looked at."""

    def __init__(self) -> None:
        self._unit = b""
        self._is_lost = False

    def cut(self, piece: bytes, weather: Weather) -> Iterator[tuple[bytes, bytes | None]]:
        while piece:
            size = None if self._is_lost else self._size_with(piece)
            if size is None:
                self._unit += b"" if self._is_lost else piece
                yield piece, None
                return
            missing = size - len(self._unit)
            part, piece = piece[:missing], piece[missing:]
            self._unit += part
            if len(self._unit) < size:
                yield part, None
                continue
            unit, self._unit = self._unit, b""
            is_repeatable = re.match(weather.repeatable, unit[:1_000].decode("latin-1")) is not None
            yield part, unit if is_repeatable and b"\r\nupgrade:" not in unit.lower() else None

    def _size_with(self, piece: bytes) -> int | None:
        """Return the length of the request that has begun, if that can be told by now."""
        head, found, _ = (self._unit + piece).partition(b"\r\n\r\n")
        if not found:
            self._is_lost = len(head) > HEAD_LEN_MAX
            return None
        lengths = re.findall(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
        size = len(head) + 4 + int(lengths[0] if lengths else 0)
        self._is_lost = size > UNIT_LEN_MAX or re.search(rb"\r\ntransfer-encoding:", head, re.IGNORECASE) is not None
        return None if self._is_lost else size


class _Frames:
    """Finds the ends of WebSocket frames (RFC 6455 §5.2)."""

    def __init__(self, way: Way) -> None:
        self._key_len = 4 if way is Way.UP else 0
        self._unit = b""
        self._is_lost = False

    def cut(self, piece: bytes, _weather: Weather) -> Iterator[tuple[bytes, bytes | None]]:
        while piece:
            size = None if self._is_lost else self._size_of(self._unit + piece[:14])
            if size is None:
                self._unit += b"" if self._is_lost else piece
                yield piece, None
                return
            missing = size - len(self._unit)
            part, piece = piece[:missing], piece[missing:]
            self._unit += part
            if len(self._unit) < size:
                yield part, None
                continue
            unit, self._unit = self._unit, b""
            is_whole_text = unit[0] & 0x8F == 0x81
            yield part, unit if is_whole_text else None

    def _size_of(self, start: bytes) -> int | None:
        if len(start) < 2:
            return None
        length, size_len = start[1] & 0x7F, 0
        if length >= 126:
            size_len = 2 if length == 126 else 8
            if len(start) < 2 + size_len:
                return None
            length = int.from_bytes(start[2 : 2 + size_len], "big")
        size = 2 + size_len + self._key_len + length
        self._is_lost = size > UNIT_LEN_MAX
        return None if self._is_lost else size
