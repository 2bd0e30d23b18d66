"""Real nodes for the tests of sockets: uvicorn with our protocol, real Redis, real SQLite, real dispatch and presence.

async with town(redis_url, folder) as here:          # in the test body
    async with here.node() as node:
        async with node.mechanic(mechanic_id) as phone: ...
"""

import asyncio
import json
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any, cast

import anyio
import anyio.lowlevel
import uvicorn
from starlette.applications import Starlette
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from accounts.accounts import Accounts, NewAccount
from accounts.revocations import Revocations
from dispatch import deliveries
from dispatch.assembly import DispatchParts
from dispatch.outbox import Outbox
from http_api.auth import Identity, Tickets, Tokens
from http_api.sockets.handshake import Handshakes
from http_api.sockets.hub import Hub
from http_api.sockets.places import RedisPlaces
from http_api.sockets.protocol import uvicorn_options
from infra import migrations
from infra.bus import Bus
from infra.clock import RedisClock
from infra.database import Database
from infra.redis_link import RedisLink
from models.ids import new_id
from models.settings import DispatchSettings, DoorSettings, PresenceSettings, Settings
from models.words import Role
from presence.service import Presence
from tests.unit.connection_stage import client_frame

PATIENCE_S = 10.0
POLL_S = 0.005
SECRET_KEY = "a secret of forty bytes or more for tests"
ORIGIN = "http://127.0.0.1:8000"


async def eventually(true: Callable[[], Any] | Callable[[], Awaitable[Any]], what: str) -> None:
    """Wait until ``true()``; fail after a bounded time."""
    ends_s = monotonic() + PATIENCE_S
    while True:
        answer = true()
        if hasattr(answer, "__await__"):
            answer = await answer
        if answer:
            return
        assert monotonic() < ends_s, f"not within {PATIENCE_S:g} s: {what}"
        await anyio.sleep(POLL_S)


@dataclass
class Client:
    """A client of the library's make; keeps what it reads past."""

    connection: ClientConnection
    received: list[dict[str, Any]] = field(default_factory=list)

    async def send(self, kind: str, **members: Any) -> None:
        await self.connection.send(json.dumps({"type": kind, **members}))

    async def hear(self) -> dict[str, Any]:
        """Return the next message."""
        with anyio.fail_after(PATIENCE_S):
            message = json.loads(await self.connection.recv())
        self.received.append(message)
        return message

    async def expect(self, kind: str) -> dict[str, Any]:
        """Return the next message of this type, reading past others."""
        while True:
            message = await self.hear()
            if message["type"] == kind:
                return message

    async def closed_with(self) -> int:
        """Wait for the server's close, reading on; return its code."""
        with anyio.fail_after(PATIENCE_S):
            try:
                while True:
                    self.received.append(json.loads(await self.connection.recv()))
            except ConnectionClosed as closed:
                assert closed.rcvd is not None, f"cut off without a close frame: {closed}"
                return closed.rcvd.code


class RawClient:
    """A bare TCP connection that has shaken hands: sends any bytes, answers nothing by itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    def send(self, opcode: int, payload: bytes = b"", *, is_final: bool = True) -> None:
        """Write one frame."""
        self.write(client_frame(opcode, payload, is_final=is_final))

    async def frame(self) -> tuple[int, bytes]:
        """Return the next frame's opcode and payload; raises ``IncompleteReadError`` at the end of the stream."""
        with anyio.fail_after(PATIENCE_S):
            first, second = await self.reader.readexactly(2)
            size = second
            if second == 126:
                size = int.from_bytes(await self.reader.readexactly(2), "big")
            elif second == 127:
                size = int.from_bytes(await self.reader.readexactly(8), "big")
            return first & 0x0F, await self.reader.readexactly(size)

    async def next_of(self, opcode: int) -> bytes:
        """Return the payload of the next frame of a kind, reading past others."""
        while True:
            found, payload = await self.frame()
            if found == opcode:
                return payload

    async def close_code(self) -> int:
        """Return the code of the next close frame."""
        return int.from_bytes((await self.next_of(8))[:2], "big")


@dataclass
class Node:
    """One server process' worth of parts, listening on ``port``."""

    port: int
    hub: Hub
    link: RedisLink
    clock: RedisClock
    bus: Bus
    presence: Presence
    tickets: Tickets
    tokens: Tokens
    revocations: Revocations
    outbox: Outbox
    server: uvicorn.Server

    def token(self, account_id: str, role: str = "mechanic", *, lifetime_s: int = 3600) -> str:
        return Tokens([SECRET_KEY], lifetime_s).issue(account_id, role, now_ms=self.clock.now_ms()).token

    def url(self, kind: str, query: str = "") -> str:
        return f"ws://127.0.0.1:{self.port}/ws/{kind}{query}"

    @asynccontextmanager
    async def client(
        self, kind: str, account_id: str, *, lifetime_s: int = 3600, **options: Any
    ) -> AsyncIterator[Client]:
        """A client that has not read anything yet."""
        headers = {"Authorization": f"Bearer {self.token(account_id, kind, lifetime_s=lifetime_s)}"}
        options = {"ping_interval": None, "compression": None, "proxy": None, **options}
        async with connect(self.url(kind), additional_headers=headers, **options) as connection:
            yield Client(connection)

    @asynccontextmanager
    async def mechanic(self, mechanic_id: str, **options: Any) -> AsyncIterator[Client]:
        """A mechanic's client past its welcome, which is ``received[0]``."""
        async with self.client("mechanic", mechanic_id, **options) as client:
            assert (await client.hear())["type"] == "welcome"
            yield client

    @asynccontextmanager
    async def customer(self, account_id: str, **options: Any) -> AsyncIterator[Client]:
        """A customer's client past its welcome, which is ``received[0]``."""
        async with self.client("customer", account_id, **options) as client:
            assert (await client.hear())["type"] == "welcome"
            yield client

    @asynccontextmanager
    async def raw(self, kind: str, account_id: str, *, early: bytes = b"") -> AsyncIterator[RawClient]:
        """A bare connection past the handshake's answer; ``early`` is sent right behind the handshake."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(
            f"GET /ws/{kind} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            f"Authorization: Bearer {self.token(account_id, kind)}\r\n\r\n".encode()
        )
        try:
            await writer.drain()
            if early:
                # Behind the handshake, in a packet of its own: before the answer, after the request was read.
                with anyio.fail_after(PATIENCE_S):
                    # In every round of the loop: the endpoint may have answered by the next poll.
                    while not self.server.server_state.tasks:
                        await anyio.lowlevel.checkpoint()
                writer.write(early)
            with anyio.fail_after(PATIENCE_S):
                head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101"), head
            yield RawClient(reader, writer)
        finally:
            writer.close()

    async def tell(self, delivery: deliveries.Delivery) -> None:
        """Publish as a node's dispatch would."""
        await self.bus.publish(deliveries.channel(self.link), deliveries.encode(delivery))

    async def ticket(self, account_id: str, role: Any = "mechanic") -> str:
        expires_at_s = self.clock.now_ms() // 1000 + 3600
        return await self.tickets.issue(Identity(account_id, role, expires_at_s, "bearer"))


@dataclass
class Town:
    """What all nodes share, and who lives there."""

    redis_url: str
    prefix: str
    database: Database

    async def add(self, role: Role) -> str:
        account = await Accounts(self.database).add(
            NewAccount(role, f"{new_id().lower()}@example.com", "Somebody"), now_ms=1
        )
        return cast(Any, account).id

    async def add_mechanic(self) -> str:
        return await self.add(Role.MECHANIC)

    async def add_customer(self) -> str:
        return await self.add(Role.CUSTOMER)

    @asynccontextmanager
    async def node(self, *, resend_interval_ms: int = 5_000, **doors: Any) -> AsyncIterator[Node]:
        """Run one node inside the block; ``doors`` are members of ``DoorSettings`` to be different."""
        settings: DoorSettings = replace(Settings(secret_key=SECRET_KEY, _env_file=None).doors(), **doors)
        node_id = new_id()
        link = RedisLink(self.redis_url, prefix=self.prefix)
        clock = RedisClock(link)
        await clock.sync()
        bus = Bus(link, node_id)
        presence_settings = PresenceSettings(
            heartbeat_interval_ms=settings.heartbeat_interval_ms,
            timeout_ms=settings.presence_timeout_ms,
            grace_ms=50,
            flush_interval_ms=20,
            sweep_interval_ms=50,
        )
        presence = Presence(link, bus, clock, self.database, presence_settings, node_id)
        dispatching = DispatchParts(
            database=self.database,
            link=link,
            bus=bus,
            clock=clock,
            presence=presence,
            settings=DispatchSettings(),
            secret_key=SECRET_KEY,
            contact=ORIGIN,
        )
        tickets = Tickets(link, settings.ticket_lifetime_s)
        revocations = Revocations(self.database, clock, bus, link)
        await revocations.refresh()
        tokens = Tokens([SECRET_KEY], settings.token_lifetime_s, is_revoked=revocations.covers)
        hub = Hub(
            settings=settings,
            clock=clock,
            bus=bus,
            channel=deliveries.channel(link),
            presence=presence,
            dispatch=dispatching.dispatch,
            reader=dispatching.reader,
            handshakes=Handshakes(clock, tokens, tickets, settings),
            revocations=revocations,
            pages=dispatching.pages,
            places=RedisPlaces(link, node_id, settings.sockets_per_account_max),
            resend_interval_ms=resend_interval_ms,
        )
        server = Server(
            uvicorn.Config(
                Starlette(routes=hub.routes),
                host="127.0.0.1",
                port=0,
                lifespan="off",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=5,
                **uvicorn_options(settings),
            )
        )
        try:
            async with anyio.create_task_group() as under:
                under.start_soon(bus.run)
                under.start_soon(presence.run)
                under.start_soon(revocations.run)
                under.start_soon(dispatching.outbox.run)
                await under.start(hub.run)
                async with anyio.create_task_group() as serving:
                    serving.start_soon(server.serve)
                    await eventually(lambda: server.started, "the server listens")
                    port = server.servers[0].sockets[0].getsockname()[1]
                    yield Node(
                        port,
                        hub,
                        link,
                        clock,
                        bus,
                        presence,
                        tickets,
                        tokens,
                        revocations,
                        dispatching.outbox,
                        server,
                    )
                    server.should_exit = True
                under.cancel_scope.cancel()
        finally:
            await link.close()


class Server(uvicorn.Server):
    """Uvicorn that leaves the test runner's signals alone."""

    @contextmanager
    def capture_signals(self) -> Any:
        yield


@asynccontextmanager
async def town(redis_url: str, folder: Path, *, database_url: str | None = None) -> AsyncIterator[Town]:
    """A migrated database, in ``folder`` if there is none, and a key prefix of its own in the Redis at ``redis_url``."""
    database = Database(database_url or f"sqlite:///{folder / 'pitlane.sqlite3'}")
    try:
        await migrations.upgrade(database)
        yield Town(redis_url, f"test-{os.getpid()}-{secrets.token_hex(4)}", database)
    finally:
        await database.close()
