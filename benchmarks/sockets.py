"""The load generator: thousands of WebSocket clients in one process, each a bare protocol object without a task."""

import asyncio
import itertools
import socket
from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import Final, cast

import anyio

from benchmarks.dialects import Dialect, client_frame, frames_in
from http_api.sockets.frames import CLOSE, PING, PONG
from tests.acceptance.clients import token_for

CONNECTING_SIDE_BY_SIDE: Final = 128
IP_BIND_ADDRESS_NO_PORT: Final = 24
"""ip(7); Python has no name for it before 3.12."""
CONNECT_TIMEOUT_S: Final = 60.0
CONNECTED_PER_S_MIN: Final = 50
"""A rate below which something else is wrong."""
ANSWER_TIMEOUT_S: Final = 60.0
PORTS_PER_ADDRESS: Final = 20_000
"""Sockets from one loopback address before the next is used: an address has some 28,000 ports."""
SLICE_S: Final = 0.01

Heard = Callable[["Client", str, bytes], None]
"""Called with every message but answers to heartbeats and what the transport itself sends: who got it, its kind, the payload."""


class Client(asyncio.Protocol):
    """One socket of one account. ``welcomed`` is set once the server has said so."""

    __slots__ = ("_crowd", "_rest", "_upgraded", "account_id", "is_welcomed", "on_welcome", "role", "transport")

    def __init__(self, crowd: "Crowd", account_id: str, role: str) -> None:
        self.account_id = account_id
        self.role = role
        self.is_welcomed = False
        self.on_welcome: asyncio.Future[None] | None = None
        self.transport: asyncio.Transport | None = None
        self._crowd = crowd
        self._upgraded = False
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not checked: uvloop's are no subclasses of asyncio's.
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._crowd.handshake(self.account_id, self.role))

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
            self._rest = b""
        if not self._upgraded:
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                self._rest = head
                return
            if b" 101 " not in head[:16]:
                self._fail(f"the socket was refused: {head[:40].decode(errors='replace')}")
                return
            self._upgraded = True
        frames, end = frames_in(data)
        if end < len(data):
            self._rest = data[end:]
        for opcode, payload in frames:
            if opcode == PING:
                self.send(client_frame(PONG, payload))
            elif opcode == CLOSE:
                self._fail(f"the server closed with {int.from_bytes(payload[:2], 'big')}")
            else:
                self._hear(payload)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._crowd.gone(self)
        self._fail("the connection was lost")

    def send(self, frame: bytes) -> None:
        """Write a whole frame; nothing once the connection is gone."""
        if self.transport is not None:
            self.transport.write(frame)

    def close(self) -> None:
        """Go without saying why, as an app does that is swiped away."""
        if self.transport is not None:
            self.transport.abort()

    def _hear(self, payload: bytes) -> None:
        dialect = self._crowd.dialect
        kind = dialect.kind_of(payload)
        reply = dialect.reply_to(kind)
        if reply is not None:
            self.send(reply)
            return
        if kind == "heartbeat_ack":
            self._crowd.beat_answered()
            return
        if kind == "welcome":
            self.is_welcomed = True
            if self.on_welcome is not None and not self.on_welcome.done():
                self.on_welcome.set_result(None)
        self._crowd.heard(self, kind, payload)

    def _fail(self, why: str) -> None:
        if self.on_welcome is not None and not self.on_welcome.done():
            self.on_welcome.set_exception(ConnectionError(why))


class Crowd:
    """All sockets towards one or several servers of one contender."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.clients: list[Client] = []
        self.lost = 0
        """Sockets that went without our wish."""
        self.heard: Heard = lambda client, kind, payload: None
        self._closing = False
        self._sources = itertools.count()
        self._heartbeat = dialect.say("heartbeat")
        self._unanswered = 0
        self._answered = 0
        self._next_to_beat: Iterator[Client] | None = None

    def handshake(self, account_id: str, role: str) -> bytes:
        """Return the upgrade request of one account."""
        return (
            f"GET {self.dialect.path(role)} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            f"Authorization: Bearer {token_for(account_id, role)}\r\n\r\n"
        ).encode()

    async def connect(self, port: int, account_ids: Sequence[str], role: str = "mechanic") -> list[Client]:
        """Connect them all, some at a time; return once each has had its ``welcome``."""
        joined: list[Client] = []
        with anyio.fail_after(CONNECT_TIMEOUT_S + len(account_ids) / CONNECTED_PER_S_MIN):
            waiting = iter(account_ids)
            async with anyio.create_task_group() as tasks:
                for _ in range(CONNECTING_SIDE_BY_SIDE):
                    tasks.start_soon(self._connect_some, port, waiting, role, joined)
        return joined

    async def connect_one(self, port: int, account_id: str, role: str = "mechanic") -> Client:
        """Connect one; return once it has had its ``welcome``."""
        loop = asyncio.get_running_loop()
        client = Client(self, account_id, role)
        client.on_welcome = loop.create_future()
        road = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        road.setblocking(False)
        # Else each bind looks for a free port among all those taken, which costs more than everything else here.
        road.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        road.bind((f"127.0.0.{1 + next(self._sources) // PORTS_PER_ADDRESS % 250}", 0))
        await loop.sock_connect(road, ("127.0.0.1", port))
        await loop.create_connection(lambda: client, sock=road)
        try:
            with anyio.fail_after(CONNECT_TIMEOUT_S):
                await client.on_welcome
        finally:
            client.on_welcome = None
        self.clients.append(client)
        return client

    async def _connect_some(self, port: int, waiting: Iterator[str], role: str, joined: list[Client]) -> None:
        for account_id in waiting:
            joined.append(await self.connect_one(port, account_id, role))

    def gone(self, client: Client) -> None:
        """Note that a socket has gone; the sockets call this."""
        if client.is_welcomed and not self._closing:
            self.lost += 1

    def beat_answered(self) -> None:
        """Note the answer to a heartbeat; the sockets call this."""
        self._answered += 1
        self._unanswered -= 1
        if self._next_to_beat is not None and (client := next(self._next_to_beat, None)) is not None:
            self._beat(client)

    def _beat(self, client: Client) -> None:
        client.send(self._heartbeat)
        self._unanswered += 1

    async def all_beats_answered(self) -> None:
        """Wait for the answers to all heartbeats that are under way; raises ``TimeoutError`` after a bounded time."""
        with anyio.fail_after(ANSWER_TIMEOUT_S):
            while self._unanswered > 0:  # noqa: ASYNC110 - an event per answer would cost more than it measures
                await anyio.sleep(SLICE_S)

    async def beat(self, clients: Sequence[Client], *, per_s: float, for_s: float) -> int:
        """Send heartbeats to a timetable, one client after the other; return how many were sent."""
        started_s = monotonic()
        sent = 0
        around = itertools.cycle(clients)
        while (passed_s := monotonic() - started_s) < for_s:
            for _ in range(int(passed_s * per_s) - sent):
                self._beat(next(around))
                sent += 1
            await anyio.sleep(SLICE_S)
        return sent

    async def beat_for_ever(self, clients: Sequence[Client], *, interval_s: float) -> None:
        """Send everybody's heartbeats, spread evenly over the interval, until cancelled."""
        while clients:
            await self.beat(clients, per_s=len(clients) / interval_s, for_s=interval_s)

    async def beat_flat_out(self, clients: Sequence[Client], *, window: int, for_s: float, each_max: int) -> float:
        """Keep ``window`` heartbeats under way, each answered by the next; return the answers per second.

        Ends sooner when every client has sent ``each_max``: who sends more is taken for a flood.
        """
        self._next_to_beat = itertools.islice(itertools.cycle(clients), len(clients) * each_max)
        before, started_s = self._answered, monotonic()
        try:
            for client in itertools.islice(self._next_to_beat, window):
                self._beat(client)
            while monotonic() - started_s < for_s and self._unanswered > 0:  # noqa: ASYNC110 - as above
                await anyio.sleep(SLICE_S)
            return (self._answered - before) / (monotonic() - started_s)
        finally:
            self._next_to_beat = None

    async def disperse(self) -> None:
        """Close all sockets."""
        self._closing = True
        for client in self.clients:
            client.close()
        # What is aborted is lost a moment later, each in a callback of its own.
        with anyio.move_on_after(CONNECT_TIMEOUT_S):
            while any(client.transport is not None for client in self.clients):  # noqa: ASYNC110 - no event per socket
                await anyio.sleep(SLICE_S)
        self.clients.clear()
        self._closing = False
