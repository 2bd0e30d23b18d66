"""A line between a client and a node, on which what is said takes its time, and that may break."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
from starlette.websockets import WebSocket

from http_api.sockets.connection import Connection
from http_api.sockets.frames import NO_STATUS
from http_api.sockets.protocol import EXTENSION
from tests.simulation.ground import Ground
from tests.simulation.node import Node, Unreachable


class Line:
    """One connection between a client and a node: ordered and delayed, until it is cut; then each end notices when it does."""

    def __init__(self, ground: Ground, node: Node, hear: Callable[[dict[str, Any]], None]) -> None:
        self.is_cut = False
        self.lost = anyio.Event()
        self.node = node
        self._ground = ground
        self._hear = hear
        self._connection: Connection | None = None
        self._down_at_s = self._up_at_s = 0.0

    # --- what the connection calls (``http_api.sockets.protocol.SocketLike``) -------------------------------------------

    def send(self, payload: bytes) -> None:
        self._down(payload)

    def send_framed(self, frame: bytes) -> None:
        self._down(frame[{126: 4, 127: 10}.get(frame[1], 2) :])

    def ping(self) -> None:
        self._up(lambda connection: connection.on_alive())

    def close(self, code: int, reason: str = "") -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.on_close(code)
        self._ground.after(self._ground.chance.delay_s(), self.cut)

    # --- what the client does -----------------------------------------------------------------------------------------

    def say(self, kind: str, **members: Any) -> None:
        """Send one message, if the line holds long enough."""
        text = json.dumps({"type": kind, **members})
        self._up(lambda connection: connection.on_message(text))

    def cut(self) -> None:
        """Break the line: what is on its way is lost; the server notices in its own time."""
        if not self.is_cut:
            self.is_cut = True
            self.lost.set()
            self._ground.after(self._ground.chance.between(0, 1), self._server_notices)

    async def open(self, kind: str, account_id: str) -> bool:
        """Shake hands as a client does; ``False`` if the node refuses or is gone."""
        outcome: list[str] = []

        async def send(message: Any) -> None:
            outcome.append(message["type"])

        async def receive() -> dict[str, Any]:
            return {"type": "websocket.connect"}

        token = self.node.tokens.issue(account_id, kind, now_ms=int(self._ground.redis.now_ms())).token
        scope = {
            "type": "websocket",
            "path": f"/ws/{kind}",
            "query_string": b"",
            "headers": [(b"authorization", f"Bearer {token}".encode())],
            "extensions": {EXTENSION: self._take, "websocket.http.response": {}},
        }
        endpoint = next(route.endpoint for route in self.node.hub.routes if route.path == f"/ws/{kind}")
        try:
            await self.node.call(partial(endpoint, WebSocket(scope, receive, send)))
        except Unreachable:
            return False
        self.node.life.on_death(self._node_died)
        return outcome == ["websocket.accept"]

    # --- inside -------------------------------------------------------------------------------------------------------

    def _take(self, connection: Connection, _limits: Any, _counters: Any) -> None:
        self._connection = connection
        connection.on_open(self)

    def _down(self, payload: bytes) -> None:
        if self.node.life.is_over:
            return
        self._down_at_s = max(self._down_at_s + 1e-5, self._ground.loop.time() + self._ground.chance.delay_s())
        self._ground.loop.call_at(self._down_at_s, self._arrive, json.loads(payload))

    def _arrive(self, message: dict[str, Any]) -> None:
        if not self.is_cut:
            self._hear(message)

    def _up(self, act: Callable[[Connection], None]) -> None:
        if self.node.life.is_over or self.is_cut:
            return
        self._up_at_s = max(self._up_at_s + 1e-5, self._ground.loop.time() + self._ground.chance.delay_s())
        self._ground.loop.call_at(self._up_at_s, self._reach, act)

    def _reach(self, act: Callable[[Connection], None]) -> None:
        if self._connection is not None and not self.is_cut:
            self.node.life.inside(act, self._connection)

    def _server_notices(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self.node.life.inside(connection.on_close, NO_STATUS)

    def _node_died(self) -> None:
        self._ground.after(self._ground.chance.between(0, 0.3), self.cut)
