"""A connection before its first request: bytes, and nothing that could cost more."""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, cast

from http_api.edge.connections import Connections, Stage, refused
from http_api.edge.farewell import Farewell
from http_api.edge.limits import HEADERS_MAX, QUIET_LEN
from http_api.edge.refusals import refusal

HEAD_ENDS: Final = (b"\n\r\n", b"\n\n")
"""The second is no HTTP/1.1; the parser is to say so, instead of nobody."""


class Doorstep(asyncio.Protocol):
    """Keeps what arrives until a head is whole, and hands the connection to the protocol that ``make`` returns.

    A silent connection is this object and its transport. ``registry`` is uvicorn's set of all connections.
    """

    __slots__ = ("_connections", "_make", "_received", "_registry", "_transport", "deadline_s")

    def __init__(self, connections: Connections, registry: set[Any], make: Callable[[], asyncio.Protocol]) -> None:
        self._connections = connections
        self._registry = registry
        self._make = make
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self.deadline_s = monotonic() + connections.limits.silence_s

    # --- what the event loop calls ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody has come."""
        # Not checked: uvloop's are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._registry.add(self)
        self._connections.arrived(self, in_all=len(self._registry))

    def data_received(self, data: bytes) -> None:
        """Keep what came, or hand over."""
        if self._transport is None:
            return
        # The end may have come in pieces.
        seen = max(0, len(self._received) - 3)
        self._received += data
        if any(self._received.find(end, seen) >= 0 for end in HEAD_ENDS):
            self._hand_over(self._transport)
        elif len(self._received) > self._connections.limits.head_len_max:
            self._refuse("head_too_large", self._connections.limits.head_len_max, HEADERS_MAX)
        elif len(self._received) > QUIET_LEN:
            self._connections.is_at(self, Stage.HOLDING, len(self._received))

    def connection_lost(self, exc: Exception | None) -> None:
        """They have gone, or had to."""
        self._forget()

    # --- what uvicorn calls -------------------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """The server drains: whoever has asked for nothing is asked to come again."""
        if self._transport is not None:
            self._transport.close()

    # --- what ``Connections`` calls -----------------------------------------------------------------------------------

    def time_out(self, now_s: float) -> None:
        """The head has not come in time."""
        if self._received:
            self._refuse("request_timeout")
        else:
            refused("silent")
            self.cut()

    def cut(self) -> None:
        """End it without a word."""
        if self._transport is not None:
            self._transport.abort()
        self._forget()

    # --- inside -------------------------------------------------------------------------------------------------------

    def _hand_over(self, transport: asyncio.Transport) -> None:
        received, self._received = self._received, b""
        self._transport = None
        self._registry.discard(self)
        protocol = self._make()
        self._connections.became(self, cast(Any, protocol))
        protocol.connection_made(transport)
        transport.set_protocol(protocol)
        protocol.data_received(received)

    def _refuse(self, code: str, *numbers: int) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            refused(code)
            self._received = b""
            self._registry.discard(self)
            Farewell.say(refusal(code, *numbers), self, transport, self._connections, self._registry)

    def _forget(self) -> None:
        self._transport = None
        self._received = b""
        self._registry.discard(self)
        self._connections.left(self)
