"""Those who use a world: mechanics' apps and customers' pages, as small state machines at the end of a line that may break."""

import json
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import anyio
import msgspec
from starlette.websockets import WebSocket

from http_api.sockets.connection import Connection
from http_api.sockets.frames import NO_STATUS
from http_api.sockets.protocol import EXTENSION
from models.outcomes import Refused
from models.rest import CheckoutBody, FreeCheckout
from tests.simulation.ground import Ground
from tests.simulation.node import Node, Unreachable

T = TypeVar("T")
AnyNode = Callable[[], Node | None]
"""Returns a node that serves, as a load balancer would; ``None`` if there is none."""
Told = Callable[[str, int], None]
"""Called with each request that a client is told of, and its version."""


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

        token, _ = self.node.tokens.issue(account_id, kind, now_s=int(self._ground.redis.now_ms() / 1000))
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


class Client:
    """What apps and pages have in common: a socket that is opened again and again, and calls that are tried again."""

    kind: str

    def __init__(self, ground: Ground, any_node: AnyNode, told: Told, account_id: str, name: str) -> None:
        self.account_id = account_id
        self.name = name
        self.line: Line | None = None
        self.is_welcome = False
        self._ground = ground
        self._any_node = any_node
        self._told = told
        self._chance = ground.chance

    async def live(self) -> None:
        """Stay connected to some node, whichever there is."""
        while True:
            node = self._any_node()
            if node is not None:
                line = Line(self._ground, node, self._hear_if_current)
                self.line = line
                if await line.open(self.kind, self.account_id) and not line.is_cut:
                    self._ground.note(self.name, f"connected to {node.life.name}")
                    await line.lost.wait()
                self.line, self.is_welcome = None, False
            await anyio.sleep(self._chance.between(0.02, 0.4))

    def _hear_if_current(self, message: dict[str, Any]) -> None:
        self._ground.note(self.name, f"hears {message['type']}")
        if message["type"] == "welcome":
            self.is_welcome = True
        self.hear(message)

    def hear(self, message: dict[str, Any]) -> None:
        """Take one message from the server."""
        raise NotImplementedError

    async def ask(self, work: Callable[[Node], Awaitable[T]]) -> T:
        """Make a REST call, at another node when one does not answer, until there is an answer; some answers are lost."""
        while True:
            node = self._any_node()
            if node is not None:
                try:
                    await anyio.sleep(self._chance.delay_s())
                    answer = await node.call(partial(work, node))
                    await anyio.sleep(self._chance.delay_s())
                    if self._ground.is_calm or not self._chance.happens(0.05):
                        return answer
                except Unreachable:
                    pass
            await anyio.sleep(self._chance.between(0.05, 0.5))


class MechanicApp(Client):
    """One device of a mechanic. What it shows is what the server has told it, less what has run out."""

    kind = "mechanic"

    def __init__(self, ground: Ground, any_node: AnyNode, told: Told, account_id: str, name: str) -> None:
        super().__init__(ground, any_node, told, account_id, name)
        self._shown: dict[str, float] = {}
        """Offer id and when the card runs out, in virtual seconds."""
        self.sessions: dict[str, tuple[float, str]] = {}
        """Version and status of the requests that it was told of, by id."""
        self._considered: set[str] = set()
        self._missed: set[str] = set()

    @property
    def shown(self) -> set[str]:
        """The offers whose cards can be seen now."""
        return {offer_id for offer_id, ends_s in self._shown.items() if ends_s > self._ground.loop.time()}

    @property
    def session(self) -> str | None:
        """The request that it believes to be serving."""
        return next(iter(self._serving()), None)

    def _serving(self) -> list[str]:
        return [id_ for id_, (_, status) in self.sessions.items() if status in ("accepted", "in_progress")]

    def hear(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "welcome":
                self._shown = {}
                for offer in message["offers"]:
                    self._show(offer)
                if message["request"] is not None:
                    self._see(message["request"])
                # As the dashboard does: what it believed to be serving and is not named any more is asked for.
                for request_id in self._serving():
                    if request_id != (message["request"] or {}).get("id"):
                        self._ground.start(self._look_up, request_id)
            case "offer":
                offer_id = message["offer"]["offer_id"]
                if offer_id not in self._missed and self._chance.happens(0.1):
                    # It came while the app was asleep: not shown, not acknowledged, so it must come again.
                    self._missed.add(offer_id)
                    return
                self._show(message["offer"])
            case "offer_withdrawn":
                self._shown.pop(message["offer_id"], None)
            case "offer_accepted":
                self._shown.pop(message["offer_id"], None)
                self._see(message["request"])
                self._ground.start(self._serve, message["request"]["id"])
            case "request_update":
                self._see(message["request"])
            case "error" if message["code"] == "offer_gone":
                self._shown.pop(message["ref"], None)

    async def _look_up(self, request_id: str) -> None:
        found = await self.ask(lambda node: node.reader.request_for(self.account_id, request_id))
        if isinstance(found, Refused):
            # It was given back, and nobody is offered again what they gave back.
            self.sessions[request_id] = (math.inf, "not theirs")
        else:
            self._see(msgspec.to_builtins(found))

    def _see(self, request: dict[str, Any]) -> None:
        self._told(request["id"], request["version"])
        is_theirs = (request["assigned_mechanic"] or {}).get("id") == self.account_id
        if request["version"] > self.sessions.get(request["id"], (0, ""))[0]:
            self.sessions[request["id"]] = (request["version"], request["status"] if is_theirs else "not theirs")

    def _show(self, offer: dict[str, Any]) -> None:
        offer_id = offer["offer_id"]
        self._shown[offer_id] = self._ground.loop.time() + offer["expires_in_ms"] / 1000
        if self.line is not None:
            self.line.say("offer_ack", offer_id=offer_id)
        if offer_id not in self._considered and not self._ground.is_calm:
            self._considered.add(offer_id)
            self._ground.start(self._consider, offer_id, offer["expires_in_ms"] / 1000)

    async def _consider(self, offer_id: str, left_s: float) -> None:
        """Answer in time, late, twice, or never; over the socket or over REST; to a card that may be gone by then."""
        answer = self._chance.one_of(["accept", "accept", "accept", "decline", "nothing"])
        # At once, as everybody else does; after a while; or close to the deadline: where the races are.
        wait_s = self._chance.one_of([0.0, 0.0, self._chance.between(0, left_s), left_s, left_s])
        await anyio.sleep(max(0.0, wait_s + (self._chance.between(-0.1, 0.1) if wait_s == left_s else 0.0)))
        if answer == "nothing" or self._ground.is_calm:
            return
        for _ in range(2 if self._chance.happens(0.2) else 1):
            if answer == "accept" and self._chance.happens(0.2):
                await self._accept_over_rest(offer_id)
            elif self.line is not None:
                self.line.say(answer, offer_id=offer_id)
            await anyio.sleep(self._chance.between(0, 0.05))

    async def _accept_over_rest(self, offer_id: str) -> None:
        def accept(node: Node) -> Awaitable[Any]:
            return node.dispatch.accept(self.account_id, offer_id, received_at_ms=node.clock.now_ms())

        outcome = await self.ask(accept)
        if not isinstance(outcome, Refused):
            await self._serve(outcome.id)

    async def _serve(self, request_id: str) -> None:
        """Begin and end the session, or give it back."""
        await anyio.sleep(self._chance.between(0.05, 0.8))
        if self._chance.happens(0.25):
            await self.ask(lambda node: node.dispatch.release(self.account_id, request_id))
            return
        await self.ask(lambda node: node.dispatch.start(self.account_id, request_id))
        await anyio.sleep(self._chance.between(0.05, 0.8))
        await self.ask(lambda node: node.dispatch.complete(self.account_id, request_id))

    async def change_duty(self) -> None:
        """Go off duty for a while."""
        for on_duty in (False, True):
            await anyio.sleep(self._chance.between(0.2, 2))
            await self.ask(lambda node, on_duty=on_duty: node.dispatch.set_on_duty(self.account_id, on_duty))


class CustomerPage(Client):
    """One page of a customer: pays, watches, sometimes loses patience. Keeps the newest version that it has seen."""

    kind = "customer"

    def __init__(self, ground: Ground, any_node: AnyNode, told: Told, account_id: str, name: str) -> None:
        super().__init__(ground, any_node, told, account_id, name)
        self.seen: dict[str, tuple[int, str]] = {}
        """Version and status by request."""

    def hear(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "welcome":
                named = {request["id"] for request in message["requests"]}
                for request in message["requests"]:
                    self._see(request)
                # As the dashboard does: what was open and is not named any more is asked for.
                for request_id in self.seen:
                    if request_id not in named:
                        self._ground.start(self._look_up, request_id)
            case "request_update":
                self._see(message["request"])

    async def _look_up(self, request_id: str) -> None:
        found = await self.ask(lambda node: node.reader.request_for(self.account_id, request_id))
        assert not isinstance(found, Refused)
        self._see(msgspec.to_builtins(found))

    def _see(self, request: dict[str, Any]) -> None:
        self._told(request["id"], request["version"])
        if request["version"] > self.seen.get(request["id"], (0, ""))[0]:
            self.seen[request["id"]] = (request["version"], request["status"])

    async def buy(self, body: CheckoutBody, key: str) -> None:
        """Go from the checkout over Stripe's page to a request."""
        answer = await self.ask(lambda node: node.checkouts.start(self.account_id, body, idempotency_key=key))
        assert not isinstance(answer, Refused), answer
        if isinstance(answer, FreeCheckout):
            return
        await anyio.sleep(self._chance.between(0.01, 0.3))
        self._ground.stripe.pay(answer.url.rsplit("/", 1)[-1])
        self._ground.start(self._come_back, answer.checkout_id)
        if self._chance.happens(0.5):
            await anyio.sleep(self._chance.between(0.05, 3))
            await self._lose_patience()

    async def _come_back(self, checkout_id: str) -> None:
        """Open the page that Stripe leads back to, sooner or later, and follow the checkout there."""
        await anyio.sleep(self._chance.between(0.01, 2))
        while True:
            state = await self.ask(lambda node: node.checkouts.state(self.account_id, checkout_id))
            assert not isinstance(state, Refused)
            if isinstance(state.request_id, str):
                await self._look_up(state.request_id)
                return
            await anyio.sleep(0.5)

    async def _lose_patience(self) -> None:
        for request_id in list(self.seen):
            if self._chance.happens(0.5):
                await self.ask(lambda node, it=request_id: node.dispatch.skip_wait(self.account_id, it))
            else:
                await self.ask(lambda node, it=request_id: node.dispatch.cancel(self.account_id, it))
