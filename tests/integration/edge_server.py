"""A small app behind the real edge: uvicorn with our protocols, no Redis and no database.

async with edge_server(silence_timeout_ms=300) as server:       # in the test body
    async with server.connection() as one: ...
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from http_api.auth import admit
from http_api.edge.connections import Connections
from http_api.edge.limits import EdgeLimits
from http_api.sockets.protocol import uvicorn_options
from infra.open_files import OpenFiles
from models.settings import DoorSettings, Settings
from tests.integration.socket_nodes import PATIENCE_S, SECRET_KEY, Server, eventually

LARGE_LEN = 8 * 1024 * 1024
UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)


@dataclass
class OneConnection:
    """A bare TCP connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def write(self, data: bytes | str) -> None:
        self.writer.write(data.encode() if isinstance(data, str) else data)

    async def answer(self) -> tuple[int, bytes]:
        """Return the next answer's status and body."""
        with anyio.fail_after(PATIENCE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = 0
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            return int(head.split(b" ", 2)[1]), await self.reader.readexactly(length)

    async def rest(self) -> bytes:
        """Return what still comes until the end; a reset is an end, too."""
        with anyio.fail_after(PATIENCE_S):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    async def last_status(self) -> int:
        """Return the status of the one answer that the connection ends with; 0 if it ends without any."""
        said = await self.rest()
        return int(said.split(b" ", 2)[1]) if said else 0


@dataclass
class EdgeServer:
    """What listens on ``port``, and what its app has seen."""

    port: int
    connections: Connections
    server: uvicorn.Server
    release: Callable[[], None]
    """Lets everybody go on who waits in the app."""
    seen: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def connection(self, **options: Any) -> AsyncIterator[OneConnection]:
        async with self.crowd(1, **options) as (one,):
            yield one

    @asynccontextmanager
    async def crowd(self, count: int, **options: Any) -> AsyncIterator[list[OneConnection]]:
        """Many at once; all are gone at the end."""
        crowd: list[OneConnection] = []
        try:
            for _ in range(count):
                crowd.append(OneConnection(*await asyncio.open_connection("127.0.0.1", self.port, **options)))
            yield crowd
        finally:
            for one in crowd:
                one.writer.transport.abort()
            for one in crowd:
                with suppress(ConnectionError):
                    await one.writer.wait_closed()

    @property
    def in_all(self) -> int:
        """Connections that uvicorn would wait for in a drain."""
        return len(self.server.server_state.connections)


def doors(**members: Any) -> DoorSettings:
    return replace(Settings(secret_key=SECRET_KEY, _env_file=None).doors(), **members)


@asynccontextmanager
async def edge_server(*, soft: int = 1024, **members: Any) -> AsyncIterator[EdgeServer]:
    """Run it inside the block; ``members`` of ``DoorSettings`` to be different, ``soft`` as the limit of open files."""
    seen: list[str] = []
    released = anyio.Event()

    async def echo(request: Request) -> Response:
        if request.headers.get("authorization") == "good":
            admit(request.scope, request.headers.get("account", "somebody"))
        try:
            return PlainTextResponse(await request.body())
        except ClientDisconnect:
            seen.append("left")
            return Response()

    async def large(request: Request) -> Response:
        return Response(bytes(LARGE_LEN))

    async def early(request: Request) -> Response:
        return Response(status_code=401)

    async def wait(request: Request) -> Response:
        seen.append("waits")
        await released.wait()
        return PlainTextResponse("done")

    async def waiting_socket(websocket: WebSocket) -> None:
        seen.append("waits")
        await released.wait()
        await websocket.close()

    async def refusing_socket(websocket: WebSocket) -> None:
        await websocket.send_denial_response(Response("no", status_code=401))

    settings = doors(**members)
    connections = Connections(EdgeLimits.of(settings, OpenFiles(soft, soft)))
    app = Starlette(
        routes=[
            Route("/echo", echo, methods=["GET", "POST"]),
            Route("/large", large),
            Route("/early", early, methods=["POST"]),
            Route("/wait", wait),
            WebSocketRoute("/ws/wait", waiting_socket),
            WebSocketRoute("/ws/no", refusing_socket),
        ]
    )
    server = Server(
        uvicorn.Config(
            app,
            host="127.0.0.1",
            port=0,
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=20,
            **uvicorn_options(settings, connections),
        )
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve)
        await eventually(lambda: server.started, "the server listens")
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield EdgeServer(port, connections, server, released.set, seen)
        finally:
            released.set()
            server.should_exit = True
