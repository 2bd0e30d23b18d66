"""A server that answers as a test says: for what ours does seldom, and for what is not ours at all but a proxy's.

async with scripted_server() as server:
    server.rest = lambda call: page(403)                 # what each REST call gets
    server.handshakes = [ours(401, "unauthenticated")]   # what the next handshakes get, in place of a socket
    client = Client(server.base_url)
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.integration.socket_nodes import Server, eventually


def ours(status: int, code: str, **headers: str) -> Response:
    """A problem as our server writes them; ``retry_after`` is the header ``Retry-After``."""
    body = {"type": "about:blank", "title": code, "status": status, "code": code, "detail": f"It says {code}."}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return JSONResponse(body, status, named, media_type="application/problem+json")


def page(status: int, **headers: str) -> Response:
    """The page of a proxy that has not asked our server."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HTMLResponse(f"<h1>{status}</h1>", status, named)


def welcome(**members: Any) -> dict[str, Any]:
    """The first message on a socket, to either kind of client."""
    return {
        "type": "welcome",
        "mechanic_id": "m1",
        "server_time": "2026-11-22T09:30:00.000Z",
        "heartbeat_interval_s": 60.0,
        "on_duty": True,
        "offers": [],
        "request": None,
        "requests": [],
    } | members


def a_request(*, assigned_to: str, version: int = 1) -> dict[str, Any]:
    """A request that this mechanic has."""
    return {"id": "r1", "version": version, "status": "accepted", "assigned_mechanic": {"id": assigned_to, "name": "M"}}


@dataclass
class Call:
    """A call, or a try to open a socket: what it was for, with which token, and when."""

    path: str
    token: str
    at_s: float = field(default_factory=monotonic)


@dataclass
class ScriptedServer:
    base_url: str = ""
    rest: Callable[[Call], Response | Awaitable[Response]] = lambda _: JSONResponse({"requests": [], "offers": []})
    handshakes: list[Response] = field(default_factory=list)
    """Refusals of the next handshakes; the ones after them are welcomed."""
    handshake_takes_s: float = 0.0
    welcome: dict[str, Any] = field(default_factory=welcome)
    acknowledges: bool = True
    """Whether heartbeats are answered."""
    calls: list[Call] = field(default_factory=list)
    tries: list[Call] = field(default_factory=list)
    sockets: list[WebSocket] = field(default_factory=list)
    """All that were welcomed, also those that are closed."""
    received: list[dict[str, Any]] = field(default_factory=list)

    async def acknowledge(self) -> None:
        """Answer a heartbeat on the newest socket."""
        await self.sockets[-1].send_json({"type": "heartbeat_ack", "server_time": self.welcome["server_time"]})

    async def _call(self, request: Request) -> Response:
        call = Call(request.url.path, _token(request.headers))
        self.calls.append(call)
        answer = self.rest(call)
        return answer if isinstance(answer, Response) else await answer

    async def _socket(self, socket: WebSocket) -> None:
        self.tries.append(Call(socket.url.path, _token(socket.headers)))
        if self.handshakes:
            await socket.send_denial_response(self.handshakes.pop(0))
            return
        await anyio.sleep(self.handshake_takes_s)
        await socket.accept()
        await socket.send_json(self.welcome)
        self.sockets.append(socket)
        try:
            while True:
                message = await socket.receive_json()
                self.received.append(message)
                if message["type"] == "heartbeat" and self.acknowledges:
                    await self.acknowledge()
        except WebSocketDisconnect:
            pass


def _token(headers: Any) -> str:
    return str(headers["authorization"]).removeprefix("Bearer ")


@asynccontextmanager
async def scripted_server() -> AsyncIterator[ScriptedServer]:
    scripted = ScriptedServer()
    methods = ["GET", "POST", "PUT", "DELETE"]
    routes = [WebSocketRoute("/ws/{kind}", scripted._socket), Route("/{path:path}", scripted._call, methods=methods)]
    config = uvicorn.Config(
        Starlette(routes=routes),
        host="127.0.0.1",
        port=0,
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    server = Server(config)
    async with anyio.create_task_group() as serving:
        has_ended = anyio.Event()

        async def serve() -> None:
            await server.serve()
            has_ended.set()

        serving.start_soon(serve)
        await eventually(lambda: server.started, "the server listens")
        scripted.base_url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        try:
            yield scripted
        finally:
            # Also where the test has failed: only the server itself closes what it listens on.
            server.should_exit = True
            with anyio.CancelScope(shield=True):
                await has_ended.wait()
