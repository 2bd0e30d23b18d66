"""WebSockets under uvicorn, handed over once they are accepted.

uvicorn and Starlette do the handshake, as for any endpoint. The endpoint then calls ``hand_over`` and *returns*: no task, no
queue and no parser object stay behind for an idle socket, only a ``HandedOverSocket`` that feeds a connection object
synchronously. What that object can rely on, and what a socket does with frames that RFC 6455 forbids, is here; what the
messages mean is not.
"""

import asyncio
import logging
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, Protocol, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from http_api.auth import ADMISSION
from http_api.edge.connections import NEVER, Connections, Stage, Visitor, refused
from http_api.edge.farewell import Farewell
from http_api.edge.http import http_protocol
from http_api.edge.limits import REQUEST_COST_LEN, EdgeLimits
from http_api.edge.refusals import refusal
from http_api.sockets import close_codes, frame_rate, frames
from http_api.sockets.frames import BadFrame
from infra import open_files
from models.settings import DoorSettings

EXTENSION = "pitlane.handover"
REFUSED_REQUESTS: Final = logging.getLogger("pitlane.refused_handshakes")
"""Where the library tells of each handshake that it refuses, at length: nowhere. What is refused is counted."""
REFUSED_REQUESTS.disabled = True
CLOSE_TIMEOUT_S = 2.0
"""How long the peer may take to answer our close frame before the connection is simply cut."""


class SocketLike(Protocol):
    """What a connection may do with its socket. After a close all of it does nothing."""

    def send(self, payload: bytes) -> None:
        """Send one text frame with ``payload`` (UTF-8)."""

    def send_framed(self, frame: bytes) -> None:
        """Write a frame made by ``frame_text``, shared between many sockets."""

    def ping(self) -> None:
        """Ask whether anybody is there; the answer arrives as ``on_alive``."""

    def close(self, code: int, reason: str = "") -> None:
        """Start the closing handshake; ``on_close`` has been called when this returns."""


class ConnectionLike(Protocol):
    """What a connection must be able to hear. All synchronous; nothing comes after ``on_close``, which comes once."""

    def on_open(self, socket: SocketLike) -> None: ...
    def on_message(self, text: str) -> None: ...
    def on_alive(self) -> None: ...
    def on_close(self, code: int) -> None: ...


@dataclass(frozen=True)
class SocketLimits:
    """What one socket may cost."""

    frame_len_max: int
    frames_per_s_max: int
    frames_burst_max: int
    send_buffer_len_max: int

    @classmethod
    def of(cls, settings: DoorSettings) -> "SocketLimits":
        """The limits in the doors' section of the settings."""
        return cls(
            settings.frame_len_max,
            settings.frames_per_s_max,
            settings.frames_burst_max,
            settings.send_buffer_len_max,
        )


@dataclass
class SocketCounters:
    """Totals since the start, over all sockets of a node."""

    frames_in: int = 0
    frames_out: int = 0
    slow_consumers_closed: int = 0


def uvicorn_options(settings: DoorSettings, connections: Connections | None = None) -> dict[str, Any]:
    """Return the keyword arguments for ``uvicorn.Config`` that concern connections.

    ``connections``: this server's; made by the settings and the limit of open files as it is now unless given.
    uvicorn's own keep-alive is off, because it takes a timer per socket: the hub pings whoever is silent.
    """
    return {
        "http": http_protocol(connections or Connections(EdgeLimits.of(settings, open_files.current()))),
        "ws": HandoverProtocol,
        "ws_max_size": settings.frame_len_max,
        "ws_per_message_deflate": False,
        "ws_ping_interval": None,
        "ws_ping_timeout": None,
    }


class HandoverProtocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol until the endpoint has accepted; then it gives the transport away and is forgotten.

    For endpoints that hand over or refuse; one that wants to receive messages itself hears nothing.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn.logger = REFUSED_REQUESTS
        self._early = bytearray()
        self._visits: Connections | None = None
        self.deadline_s = NEVER

    def begin(self, visitor: Visitor, visits: Connections) -> None:
        """Speak for the connection of ``visitor``, which has asked for a socket; comes first."""
        self._visits = visits
        self.deadline_s = monotonic() + visits.limits.handshake_s
        visits.became(visitor, self)
        visits.is_at(self, Stage.WORKING, REQUEST_COST_LEN)

    async def run_asgi(self) -> None:
        """Run the endpoint, with ``hand_over`` in its scope."""
        extensions = cast(dict[str, Any], self.scope["extensions"])
        extensions[EXTENSION] = self.hand_over
        extensions[ADMISSION] = self._admit
        try:
            await super().run_asgi()
        finally:
            # They know this object, and it the scope; so its memory would be there until the collector comes.
            extensions.clear()

    async def send(self, message: Any) -> None:
        """Do what the endpoint says; a refusal that is whole completes the handshake."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            # Else uvicorn logs each refused handshake as a mistake of the endpoint's.
            self.handshake_complete = True

    def data_received(self, data: bytes) -> None:
        """Read the handshake; keep what the client sends before it was answered (a good one sends nothing then)."""
        if not self.handshake_initiated:
            try:
                super().data_received(data)
            except ValueError:
                # What the library lets through, and ASGI has no words for.
                self._refuse("malformed_request")
            else:
                if not self.handshake_initiated:
                    # The head is whole, and still no request: the library waits, for nobody knows what.
                    self._refuse("malformed_request")
            return
        self._early += data
        if len(self._early) > self.config.ws_max_size:
            self.transport.pause_reading()

    def hand_over(self, connection: ConnectionLike, limits: SocketLimits, counters: SocketCounters) -> None:
        """Give the accepted socket to ``connection`` for good; it is never opened if the client has gone already."""
        if self.disconnected or self.transport.is_closing():
            return
        assert self.handshake_complete, "accept first"
        transport, self.transport = self.transport, _GivenAway()
        self.stop_keepalive()
        self.connections.discard(self)
        if self._visits is not None:
            self._visits.left(self)
        socket = HandedOverSocket(transport, connection, limits, counters, self.connections)
        transport.set_protocol(socket)
        connection.on_open(socket)
        transport.resume_reading()
        if self._early:
            socket.data_received(bytes(self._early))

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone, or had to."""
        if self._visits is not None:
            self._visits.left(self)
        super().connection_lost(exc)

    def time_out(self, now_s: float) -> None:
        """The handshake takes too long, or its refusal is not read."""
        if self.handshake_complete or self.initial_response is not None or self.transport.is_closing():
            self.cut()
        else:
            self._refuse("unavailable")

    def cut(self) -> None:
        """There is no room: end it without a word."""
        self.transport.abort()
        if self._visits is not None:
            self._visits.left(self)

    def _admit(self, account_id: str) -> None:
        if self._visits is not None:
            self._visits.admit(self, account_id)

    def _refuse(self, code: str) -> None:
        """Answer in place of the endpoint, and tell it, if it runs, that the client has gone."""
        refused(code)
        assert self._visits is not None
        transport, self.transport = self.transport, _GivenAway()
        super().connection_lost(ConnectionAbortedError(code))
        Farewell.say(refusal(code), self, transport, self._visits, self.connections)


class _GivenAway(asyncio.Transport):
    """What uvicorn's protocol holds after the hand-over, so that its tidying up reaches nobody."""

    def is_closing(self) -> bool:
        return True

    def close(self) -> None:
        return None

    def write(self, data: Any) -> None:
        return None


class HandedOverSocket(asyncio.Protocol):
    """An open WebSocket: frames in, calls out; no task, no timer while it is open."""

    __slots__ = (
        "_buffer",
        "_closing",
        "_connection",
        "_counters",
        "_full_at_s",
        "_is_deaf",
        "_limits",
        "_partial",
        "_registry",
        "_transport",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        connection: ConnectionLike,
        limits: SocketLimits,
        counters: SocketCounters,
        registry: set[Any],
    ) -> None:
        """``registry``: uvicorn's set of connections to be told of a shutdown and waited for."""
        self._transport = transport
        self._connection: ConnectionLike | None = connection
        self._limits = limits
        self._counters = counters
        self._registry = registry
        self._buffer = b""
        self._partial: bytearray | None = None
        self._full_at_s = 0.0
        self._is_deaf = False
        self._closing: asyncio.TimerHandle | None = None
        registry.add(self)

    # --- what the connection calls ------------------------------------------------------------------------------------

    def send(self, payload: bytes) -> None:
        """Send one text frame with ``payload`` (UTF-8)."""
        self.send_framed(frames.frame_text(payload))

    def send_framed(self, frame: bytes) -> None:
        """Write ready bytes; a consumer too slow to keep its buffer within the limit is cut off."""
        # The connection may be lost already without our having been told.
        if self._connection is None or self._transport.is_closing():
            return
        self._transport.write(frame)
        self._counters.frames_out += 1
        if self._transport.get_write_buffer_size() > self._limits.send_buffer_len_max:
            self._counters.slow_consumers_closed += 1
            # No closing handshake: its frame would only join the end of the queue that nobody reads.
            self._transport.abort()
            self._report_close(close_codes.GONE)

    def ping(self) -> None:
        """Ask whether anybody is there."""
        self.send_framed(frames.PING_FRAME)

    def close(self, code: int, reason: str = "") -> None:
        """Send a close frame and wait for the peer's, but not for long."""
        if self._connection is None:
            return
        if not self._transport.is_closing():
            self._transport.write(frames.frame_close(code, reason))
            # The TCP connection stays up until the peer has answered: closing it with unread data in flight would reset
            # it, and a reset can overtake the close frame (RFC 6455 §7.1.1).
            self._closing = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, self._transport.abort)
        self._partial = None
        self._report_close(code)

    # --- what uvicorn calls -------------------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """The server drains."""
        self.close(close_codes.RESTARTING, "the server restarts")

    # --- what the event loop calls ------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take in bytes; deliver every complete frame."""
        if self._is_deaf:
            return
        if self._buffer:
            data, self._buffer = self._buffer + data, b""
        start = 0
        try:
            while start < len(data):
                frame = frames.parse(data, start, len_max=self._limits.frame_len_max)
                if frame is None:
                    self._buffer = data[start:]
                    return
                start = frame.end
                self._hear(frame)
        except BadFrame as bad:
            self._fail(bad)

    def connection_lost(self, exc: Exception | None) -> None:
        """The TCP connection is over, however that came about."""
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        self._registry.discard(self)
        self._report_close(close_codes.GONE)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _hear(self, frame: frames.Frame) -> None:
        opcode, is_final, payload, _ = frame
        if self._connection is None:
            # We have closed; what is still on its way is nobody's, but for the peer's own close frame.
            if opcode == frames.CLOSE:
                self._transport.close()
            return
        self._counters.frames_in += 1
        full_at_s = frame_rate.take(
            self._full_at_s,
            monotonic(),
            per_s=self._limits.frames_per_s_max,
            burst=self._limits.frames_burst_max,
        )
        if full_at_s is None:
            raise BadFrame(close_codes.TOO_MANY, "too many frames")
        self._full_at_s = full_at_s
        if opcode == frames.TEXT and is_final and self._partial is None:
            self._connection.on_message(frames.text(payload))
        elif opcode == frames.PONG:
            self._connection.on_alive()
        elif opcode == frames.PING:
            self.send_framed(frames.frame_pong(payload))
            if self._connection is not None:
                self._connection.on_alive()
        elif opcode == frames.CLOSE:
            code = frames.close_code(payload)
            if not self._transport.is_closing():
                self._transport.write(frames.frame_close(code))
                self._transport.close()
            self._report_close(code)
        else:
            self._gather(opcode, is_final, payload)

    def _gather(self, opcode: int, is_final: bool, payload: bytes) -> None:
        """Put a message together that came in several frames (§5.4)."""
        if opcode == frames.BINARY:
            raise BadFrame(close_codes.NOT_TEXT, "messages are JSON in text frames")
        if (opcode == frames.CONTINUATION) is (self._partial is None):
            raise BadFrame(1002, "a frame out of its order")
        self._partial = (self._partial or bytearray()) + payload
        if len(self._partial) > self._limits.frame_len_max:
            raise BadFrame(close_codes.TOO_BIG, f"messages are at most {self._limits.frame_len_max} bytes")
        if is_final:
            whole, self._partial = bytes(self._partial), None
            assert self._connection is not None
            self._connection.on_message(frames.text(whole))
        else:
            assert self._connection is not None
            self._connection.on_alive()

    def _fail(self, bad: BadFrame) -> None:
        """Close because of what the peer sent; there is no telling where its next frame would begin."""
        self.close(bad.code, bad.reason)
        self._is_deaf = True
        # As its close frame can no longer be found, the end of our stream tells the peer that we are done.
        if self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()

    def _report_close(self, code: int) -> None:
        """Tell the connection, once; nobody is told anything afterwards."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.on_close(code)
