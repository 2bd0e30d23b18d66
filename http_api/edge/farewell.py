"""The last that a client hears whose request is refused before the app sees it."""

import asyncio
from time import monotonic
from typing import Any

from http_api.edge.connections import Connections, Stage, Visitor


class Farewell(asyncio.Protocol):
    """Has said the last word, and waits a moment for the client to have read it.

    Closing at once, with bytes of theirs unread, would reset the connection, and a reset can overtake the answer (RFC 9112 §9.6).
    What they go on sending is thrown away.
    """

    __slots__ = ("_connections", "_registry", "_transport", "deadline_s")

    def __init__(self, transport: asyncio.Transport, connections: Connections, registry: set[Any]) -> None:
        self._transport = transport
        self._connections = connections
        self._registry = registry
        self.deadline_s = monotonic() + connections.limits.drain_s
        registry.add(self)

    @classmethod
    def say(
        cls, answer: bytes, visitor: Visitor, transport: asyncio.Transport, connections: Connections, registry: set[Any]
    ) -> None:
        """Send ``answer`` as the last bytes of a connection, which ``visitor`` gives up by this."""
        last = cls(transport, connections, registry)
        connections.became(visitor, last)
        connections.is_at(last, Stage.IDLE, 0)
        transport.set_protocol(last)
        # An earlier owner may have stopped reading, and then nobody would see the client go.
        transport.resume_reading()
        transport.write(answer)
        transport.write_eof()

    def data_received(self, data: bytes) -> None:
        """Nobody listens any more."""

    def connection_lost(self, exc: Exception | None) -> None:
        """They have gone, too."""
        self._forget()

    def shutdown(self) -> None:
        """The server drains."""
        self._transport.close()

    def time_out(self, now_s: float) -> None:
        """They have had their time."""
        self.cut()

    def cut(self) -> None:
        """End it."""
        self._transport.abort()
        self._forget()

    def _forget(self) -> None:
        self._registry.discard(self)
        self._connections.left(self)
