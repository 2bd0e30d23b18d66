"""Those who use a world: mechanics' apps, customers' pages and operators, as small state machines that call again and again.

They do as people do, and not as they should: act late, twice, all at the same instant, or not at all, and leave without a word.
"""

import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol, TypeVar

import anyio
import msgspec

from models.outcomes import Refused
from models.rest import CheckoutBody, FreeCheckout
from models.wire import RequestView
from tests.simulation.ground import Ground
from tests.simulation.line import Line
from tests.simulation.node import Node, Unreachable

T = TypeVar("T")
AnyNode = Callable[[], Node | None]
"""Returns a node that serves, as a load balancer would; ``None`` if there is none."""


class Watch(Protocol):
    """Who judges what people are told; in a world, ``invariants.Watch``."""

    def told(self, request_id: str, version: int) -> None: ...
    def asked(self, mechanic_id: str, request_id: str, offer_id: str) -> None: ...
    def wished_away(self, mechanic_id: str, request_id: str) -> None: ...


class Caller:
    """What everybody has in common: calls that are tried again."""

    def __init__(self, ground: Ground, any_node: AnyNode) -> None:
        self._ground = ground
        self._any_node = any_node
        self._chance = ground.chance

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

    async def _hesitate(self, left_s: float) -> None:
        """Wait a moment; or until others act, too; or about until the time is up, which is in ``left_s``: where the races are."""
        match self._chance.one_of(["a moment", "together", "late"]):
            case "a moment":
                await anyio.sleep(self._chance.between(0.05, 0.8))
            case "together":
                await self._ground.bell()
            case "late":
                await anyio.sleep(max(0.0, left_s + self._chance.between(-0.1, 0.1)))


class Client(Caller):
    """What apps and pages have in common: a socket that is opened again and again."""

    kind: str

    def __init__(self, ground: Ground, any_node: AnyNode, watch: Watch, account_id: str, name: str) -> None:
        super().__init__(ground, any_node)
        self.account_id = account_id
        self.name = name
        self.line: Line | None = None
        self.is_welcome = False
        self._watch = watch
        self._away_until_s = 0.0

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
            await anyio.sleep(max(self._chance.between(0.02, 0.4), self._away_until_s - self._ground.loop.time()))

    def _hear_if_current(self, message: dict[str, Any]) -> None:
        self._ground.note(self.name, f"hears {message['type']}")
        if message["type"] == "welcome":
            self.is_welcome = True
        self.hear(message)

    def hear(self, message: dict[str, Any]) -> None:
        """Take one message from the server."""
        raise NotImplementedError

    def _vanish(self) -> None:
        """Lose the network for a while, in the middle of whatever it was."""
        self._away_until_s = self._ground.loop.time() + self._chance.between(0.3, 3)
        if self.line is not None:
            self.line.cut()


class MechanicApp(Client):
    """One device of a mechanic. What it shows is what the server has told it, less what has run out."""

    kind = "mechanic"

    def __init__(self, ground: Ground, any_node: AnyNode, watch: Watch, account_id: str, name: str) -> None:
        super().__init__(ground, any_node, watch, account_id, name)
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
                self._ground.start(self._serve, message["request"])
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
        self._watch.told(request["id"], request["version"])
        is_theirs = (request["assigned_mechanic"] or {}).get("id") == self.account_id
        if request["version"] > self.sessions.get(request["id"], (0, ""))[0]:
            self.sessions[request["id"]] = (request["version"], request["status"] if is_theirs else "not theirs")

    def _show(self, offer: dict[str, Any]) -> None:
        offer_id = offer["offer_id"]
        self._watch.asked(self.account_id, offer["request_id"], offer_id)
        self._shown[offer_id] = self._ground.loop.time() + offer["expires_in_ms"] / 1000
        if self.line is not None:
            self.line.say("offer_ack", offer_id=offer_id)
        if offer_id not in self._considered and not self._ground.is_calm:
            self._considered.add(offer_id)
            self._ground.start(self._consider, offer_id, offer["expires_in_ms"] / 1000)

    async def _consider(self, offer_id: str, left_s: float) -> None:
        """Answer in time, late, twice, or never; over the socket or over REST; to a card that may be gone by then."""
        answer = self._chance.one_of(["accept", "accept", "accept", "accept", "decline", "nothing"])
        # At once, as everybody else does; after a while; or close to the deadline: where the races are.
        wait_s = self._chance.one_of([0.0, 0.0, 0.0, self._chance.between(0, left_s), left_s, left_s])
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
            await self._serve(msgspec.to_builtins(outcome))

    async def _serve(self, request: dict[str, Any]) -> None:
        """Begin the session, early or late, and end it; or give it back, or vanish, before or after the start."""
        request_id = request["id"]
        deed = self._chance.one_of(["start", "start", "start", "release", "vanish", "nothing"])
        if deed in ("start", "release"):
            await self._hesitate(_left_s(request["start"]))
        match deed:
            case "start":
                started = await self.ask(lambda node: node.dispatch.start(self.account_id, request_id))
                await self._end(request_id, started)
            case "release":
                await self.ask(lambda node: node.dispatch.release(self.account_id, request_id))
            case "vanish":
                self._vanish()

    async def _end(self, request_id: str, started: RequestView | Refused) -> None:
        """End the session, once or twice, also if the answer to the start was lost; or leave that to the customer, or to time."""
        deed = self._chance.one_of(["complete", "complete", "complete", "vanish", "nothing"])
        if deed == "vanish":
            self._vanish()
        if deed == "complete":
            await self._hesitate(0.5 if isinstance(started, Refused) else _left_s(msgspec.to_builtins(started.ends)))
            for _ in range(2 if self._chance.happens(0.2) else 1):
                await self.ask(lambda node: node.dispatch.complete(self.account_id, request_id))

    async def change_duty(self) -> None:
        """Go off duty for a while."""
        for on_duty in (False, True):
            await anyio.sleep(self._chance.between(0.2, 2))
            await self.ask(lambda node, on_duty=on_duty: node.dispatch.set_on_duty(self.account_id, on_duty))


class CustomerPage(Client):
    """One page of a customer: pays, watches, loses patience or trust, reports. Keeps the newest version that it has seen."""

    kind = "customer"

    def __init__(self, ground: Ground, any_node: AnyNode, watch: Watch, account_id: str, name: str) -> None:
        super().__init__(ground, any_node, watch, account_id, name)
        self.seen: dict[str, tuple[int, str]] = {}
        """Version and status by request."""
        self.favorite_is_busy: dict[str, bool] = {}
        """What it shows beside the offer that only a favourite has, by request."""

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
        self._watch.told(request["id"], request["version"])
        _, status_before = before = self.seen.get(request["id"], (0, ""))
        if request["version"] > before[0]:
            self.seen[request["id"]] = (request["version"], request["status"])
            is_busy = request["offer"] is not None and request["offer"]["preferred_is_busy"]
            has_turned = is_busy and not self.favorite_is_busy.get(request["id"])
            self.favorite_is_busy[request["id"]] = is_busy
            if (has_turned or request["status"] != status_before) and not self._ground.is_calm:
                self._ground.start(self._react, request)

    async def _react(self, request: dict[str, Any]) -> None:
        """Do, or do not, what the page offers in this state: with others at the same instant, late, or twice."""
        request_id, me = request["id"], self.account_id
        assigned_id = (request["assigned_mechanic"] or {}).get("id")
        acts: dict[str, Callable[[Node], Awaitable[Any]]] = {
            "priority_offered": lambda node: node.dispatch.skip_wait(me, request_id),
            "accepted": lambda node: node.dispatch.find_another(me, request_id, assigned_id),
            "in_progress": lambda node: node.dispatch.complete_by_customer(me, request_id),
            "completed": lambda node: node.dispatch.report(me, request_id, "It was too short."),
        }
        act = acts.get(request["status"])
        # While the favourite is free, patience is what ``_lose_patience`` is about.
        is_content = request["status"] == "priority_offered" and not self.favorite_is_busy[request_id]
        if act is None or is_content or self._chance.happens(0.6):
            return
        await self._hesitate(_left_s(request["ends"] or request["start"]))
        if request["status"] == "accepted":
            self._watch.wished_away(assigned_id, request_id)
        for _ in range(2 if self._chance.happens(0.2) else 1):
            await self.ask(act)

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
            if self._chance.happens(0.7):
                await self.ask(lambda node, it=request_id: node.dispatch.skip_wait(self.account_id, it))
            else:
                await self.ask(lambda node, it=request_id: node.dispatch.cancel(self.account_id, it))


class Operator(Caller):
    """Somebody who looks after what is stuck, or seems to be."""

    async def retry_failed(self) -> None:
        """Have what the customers' banks have sent back asked for once more."""
        snapshot = await self.ask(lambda node: node.unfinished_refunds())
        for refund in snapshot:
            if refund.state == "failed":
                await self.ask(lambda node, it=refund.id: node.refunds.retry(it))

    async def intervene(self, request_id: str) -> None:
        """Give back what was paid, or end the request."""
        match self._chance.one_of(["refund", "refund", "completed", "unfilled"]):
            case "refund":
                await self.ask(lambda node: node.dispatch.refund(request_id, "They called us."))
            case "completed":
                await self.ask(lambda node: node.dispatch.settle(request_id, "completed"))
            case "unfilled":
                await self.ask(lambda node: node.dispatch.settle(request_id, "unfilled"))


def _left_s(deadline: dict[str, Any] | None) -> float:
    """Return how long is left of a time limit; something, where there is none."""
    return 0.5 if deadline is None else deadline["expires_in_ms"] / 1000
