"""Browsers that can be woken, and a real push service on loopback, for the tests of push."""

import base64
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import http_ece
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from models import tables
from models.ids import new_id
from models.outcomes import Refused
from models.rest import FreeCheckout, PushKeys, PushSubscribeBody
from models.wire import RequestView
from tests.parts import Node, World, body, serving


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class Browser:
    """A browser that has subscribed: its endpoint at the push service, and the keys that only it has."""

    endpoint: str
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    auth: bytes = field(default_factory=lambda: os.urandom(16))

    @property
    def subscription(self) -> PushSubscribeBody:
        point = self.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return PushSubscribeBody(self.endpoint, PushKeys(base64url(point), base64url(self.auth)))

    def read(self, sealed: bytes) -> dict:
        return json.loads(http_ece.decrypt(sealed, private_key=self.key, auth_secret=self.auth, version="aes128gcm"))


@dataclass
class PushService:
    """What the push service got, by the last part of the endpoint; ``answers`` are used up first, then 201."""

    base: str
    got: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    got_at_s: list[float] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    retry_after: str | None = None
    location: str | None = None
    opens: anyio.Event | None = None
    """Until it is set, nobody is answered; who has left by then has delivered nothing."""
    held: int = 0
    """Who was or is kept waiting so."""

    def browser(self, name: str = "phone") -> Browser:
        return Browser(f"{self.base}/push/{name}")

    async def receive(self, request: Request) -> Response:
        if self.opens is not None and not self.opens.is_set():
            await request.body()
            self.held += 1
            await self.opens.wait()
            if await request.is_disconnected():
                return Response()
        self.got.append((request.path_params["name"], dict(request.headers), await request.body()))
        self.got_at_s.append(anyio.current_time())
        headers = {"Retry-After": self.retry_after, "Location": self.location}
        headers = {name: value for name, value in headers.items() if value is not None}
        return PlainTextResponse("", self.answers.pop(0) if self.answers else 201, headers)


@asynccontextmanager
async def running_push_service() -> AsyncIterator[PushService]:
    listener = socket.create_server(("127.0.0.1", 0))
    service = PushService(f"http://127.0.0.1:{listener.getsockname()[1]}")
    app = Starlette(routes=[Route("/push/{name}", service.receive, methods=["POST"])])
    async with serving(app, listener):
        yield service


async def subscribed(node: Node, account_id: str, browser: Browser) -> bool:
    """Subscribe a browser; return whether it was new."""
    outcome = await node.push.subscribe(account_id, browser.subscription)
    assert not isinstance(outcome, Refused), outcome
    return outcome[1]


async def offered(world: World, node: Node, favorite: str) -> RequestView:
    answer = await node.checkouts.start(await world.customer(), body("free_diagnostic", favorite))
    assert isinstance(answer, FreeCheckout), answer
    return answer.request


async def plant(world: World, account_id: str, subscription: PushSubscribeBody) -> str:
    """Insert a subscription as a version before this one might have taken it; return its id."""
    row = tables.PushSubscription(
        id=new_id(),
        account_id=account_id,
        endpoint=subscription.endpoint,
        place=None,
        p256dh=subscription.keys.p256dh,
        auth=subscription.keys.auth,
        created_at_ms=0,
    )
    async with world.database.write() as session:
        session.add(row)
    return row.id


async def reachable(node: Node, mechanic_id: str) -> str:
    return (await node.presence.status_of([mechanic_id]))[mechanic_id].reachable


async def is_reachable_by(node: Node, mechanic_id: str, how: str) -> bool:
    return await reachable(node, mechanic_id) == how
