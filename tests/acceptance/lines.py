"""A lean WebSocket client: hundreds of them in one event loop, with all that a phone and its network do to a socket.

line = await Line.open(base_url, "mechanic", mechanic_id, dice=Random(1))   # past its welcome, and beating
await line.close() · line.reset() · line.freeze() … await line.thaw()
"""

import asyncio
import json
import socket
import struct
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, Self
from urllib.parse import urlsplit

import anyio

from http_api.sockets.frames import CLOSE, PING, PONG, TEXT
from infra.clock import wall_clock_ms
from tests.acceptance.clients import PATIENCE_S, token_for
from tests.unit.connection_stage import client_frame

GOODBYE = client_frame(CLOSE, b"\x03\xe8")
HEARTBEAT = client_frame(TEXT, b'{"type":"heartbeat"}')
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""``SO_LINGER`` of zero seconds: the kernel sends RST instead of FIN."""


class Refused(Exception):
    """There was no welcome: nobody listened, the handshake was answered otherwise, or the line broke before."""


class Line(asyncio.Protocol):
    """One socket of one account. Instants are wall-clock milliseconds, to be compared with what Redis says."""

    def __init__(self, base_url: str, kind: str, account_id: str, dice: Random) -> None:
        self.base_url = base_url
        self.account_id = account_id
        self.close_code: int | None = None
        """``None`` also after a line that broke without a close frame."""
        self.closed = anyio.Event()
        self.is_frozen = False
        self.acknowledged_at_ms = 0
        """When the server was last known to hear us: at the welcome, then at each acknowledged heartbeat."""
        self.on_message: Callable[[dict[str, Any]], None] = lambda _: None
        self.on_answer: Callable[[int, int], None] = lambda _sent_ms, _answered_ms: None
        """Called for each heartbeat that was acknowledged, with the instants of both."""
        self._dice = dice
        self._request = (
            f"GET /ws/{kind} HTTP/1.1\r\nHost: {urlsplit(base_url).netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            f"Authorization: Bearer {token_for(account_id, kind)}\r\n\r\n"
        )
        self._transport: Any = None
        self._buffer = b""
        self._head: bytes | None = None
        self._welcomed_or_closed = anyio.Event()
        self._interval_s = 0.0
        self.heard_at_ms = 0
        """The server has heard us at this instant or later: when something was sent that it has answered."""
        self._next_beat: asyncio.TimerHandle | None = None
        self._unanswered: deque[int | None] = deque()
        """When each was sent; ``None`` for those that a freeze has made pointless to time."""
        self._all_answered = anyio.Event()

    @classmethod
    async def open(cls, base_url: str, kind: str, account_id: str, *, dice: Random) -> Self:
        """Return a line past its welcome; raises ``Refused``."""
        to = urlsplit(base_url)
        assert to.hostname is not None
        line = cls(base_url, kind, account_id, dice)
        try:
            with anyio.fail_after(PATIENCE_S):
                await asyncio.get_running_loop().create_connection(lambda: line, to.hostname, to.port)
                await line._welcomed_or_closed.wait()
        except (OSError, TimeoutError) as error:
            if line._transport is not None:
                line._transport.abort()
            raise Refused(str(error)) from error
        if line.closed.is_set():
            raise Refused(str(line._head))
        return line

    @property
    def is_live(self) -> bool:
        """Whether the server hears from us."""
        return not self.closed.is_set() and not self.is_frozen

    def send(self, kind: str, **members: Any) -> None:
        self._transport.write(client_frame(TEXT, json.dumps({"type": kind, **members}).encode()))

    async def close(self) -> None:
        """Say goodbye, and wait for the server to end the connection."""
        self._transport.write(GOODBYE)
        with anyio.fail_after(PATIENCE_S):
            await self.closed.wait()

    def reset(self) -> None:
        """Break off: the server gets an RST."""
        if not self.closed.is_set():
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._transport.abort()

    def freeze(self) -> None:
        """Neither read nor send any more, as a phone without a network: to the server the line is half-open."""
        self.is_frozen = True
        self._transport.pause_reading()
        self._stop_beating()
        self._unanswered = deque(None for _ in self._unanswered)

    async def thaw(self) -> bool:
        """Go on, and return once the server has answered; ``False``: it has given up on us meanwhile."""
        self.is_frozen = False
        if not self._transport.is_closing():
            self._transport.resume_reading()
            self._all_answered = anyio.Event()
            self._beat()
        async with anyio.create_task_group() as either:

            async def answered() -> None:
                await self._all_answered.wait()
                either.cancel_scope.cancel()

            either.start_soon(answered)
            with anyio.move_on_after(PATIENCE_S):
                await self.closed.wait()
            either.cancel_scope.cancel()
        return not self.closed.is_set()

    # --- what asyncio calls -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self.heard_at_ms = wall_clock_ms()
        self._transport.write(self._request.encode())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._head is None:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return
            self._head, self._buffer = head, rest
            if not head.startswith(b"HTTP/1.1 101"):
                self._transport.abort()
                return
        while (frame := self._next_frame()) is not None:
            self._take(*frame)

    def connection_lost(self, error: Exception | None) -> None:
        self._stop_beating()
        self.closed.set()
        self._welcomed_or_closed.set()

    # --- inside -------------------------------------------------------------------------------------------------------

    def _next_frame(self) -> tuple[int, bytes] | None:
        """Return opcode and payload of the next whole frame: a server's are neither masked nor, here, fragmented."""
        if len(self._buffer) < 2:
            return None
        size, start = self._buffer[1], 2
        if size >= 126:
            start = 4 if size == 126 else 10
            size = int.from_bytes(self._buffer[2:start], "big")
        if len(self._buffer) < start + size:
            return None
        opcode, payload = self._buffer[0] & 0x0F, self._buffer[start : start + size]
        self._buffer = self._buffer[start + size :]
        return opcode, payload

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self._transport.write(client_frame(PONG, payload))
        elif opcode == CLOSE:
            self.close_code = int.from_bytes(payload[:2], "big") or None
            self._transport.write(client_frame(CLOSE, payload[:2]))
        elif opcode == TEXT:
            message = json.loads(payload)
            if message["type"] == "welcome":
                self.acknowledged_at_ms = wall_clock_ms()
                self._interval_s = message["heartbeat_interval_s"]
                self._beat_in(self._dice.random() * self._interval_s)
                self._welcomed_or_closed.set()
            elif message["type"] == "heartbeat_ack":
                self._note_answer()
            self.on_message(message)

    def _beat_in(self, seconds: float) -> None:
        self._next_beat = asyncio.get_running_loop().call_later(seconds, self._beat)

    def _beat(self) -> None:
        self._unanswered.append(wall_clock_ms())
        self._transport.write(HEARTBEAT)
        self._beat_in(self._interval_s)

    def _stop_beating(self) -> None:
        if self._next_beat is not None:
            self._next_beat.cancel()
            self._next_beat = None

    def _note_answer(self) -> None:
        sent_ms, now_ms = self._unanswered.popleft(), wall_clock_ms()
        self.acknowledged_at_ms = now_ms
        if sent_ms is not None:
            self.heard_at_ms = sent_ms
            self.on_answer(sent_ms, now_ms)
        if not self._unanswered:
            self._all_answered.set()
