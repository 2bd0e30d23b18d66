"""Stripe on a virtual clock: Sessions, refunds and webhooks, with idempotency keys, and a road on which answers get lost.

``StripeServer`` is Stripe; ``StripeEnd`` is one node's way to it, with the methods of ``dispatch.money.stripe_api.StripeApi``.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from dispatch.money.fulfilment import PaidSession
from dispatch.money.stripe_api import CheckoutSession, StripeRefund, WebhookEvent
from models.errors import StripeRefused, StripeUnavailable
from tests.simulation.chance import Chance
from tests.simulation.life import Life

SIGNATURE = "signed by Stripe"
T = TypeVar("T")


@dataclass
class Session:
    """A Checkout Session."""

    id: str
    reference: str
    amount_cents: int
    currency: str
    metadata: Mapping[str, str]
    status: str = "open"
    """``open`` | ``complete`` | ``expired``; what is complete has been paid."""

    @property
    def is_paid(self) -> bool:
        return self.status == "complete"

    @property
    def intent_id(self) -> str:
        """The PaymentIntent's id."""
        return f"pi_{self.id}"


@dataclass
class RefundAtStripe:
    """A refund; ``pending`` until the bank has taken it."""

    id: str
    intent_id: str
    amount_cents: int
    ours: str
    status: str


class StripeServer:
    """What Stripe knows. ``send_event`` is called for every webhook that it wants to be delivered."""

    def __init__(self, chance: Chance) -> None:
        self.sessions: dict[str, Session] = {}
        self.refunds: dict[str, RefundAtStripe] = {}
        self.send_event: Callable[[bytes], None] = lambda _payload: None
        self.trouble = 0.0
        """How likely a call fails; half of such calls have had their effect."""
        self._chance = chance
        self._answers: dict[str, Any] = {}
        self._events = 0

    def create_session(self, params: Mapping[str, Any], key: str) -> Session:
        price = params["line_items"][0]["price_data"]
        return self._once(
            key,
            lambda: self.sessions.setdefault(
                f"cs_{len(self.sessions)}",
                Session(
                    f"cs_{len(self.sessions)}",
                    params["client_reference_id"],
                    price["unit_amount"],
                    price["currency"],
                    params["metadata"],
                ),
            ),
        )

    def pay(self, session_id: str) -> None:
        """The customer presses the button on Stripe's page; pressing it again does nothing."""
        session = self.sessions[session_id]
        if session.status == "open":
            session.status = "complete"
            self._event("checkout.session.completed", session.id)

    def expire(self, session_id: str) -> Session:
        """Close an open page; a page that is not open is refused."""
        session = self.sessions[session_id]
        if session.status != "open":
            raise StripeRefused("Only open Sessions can be expired.", code=None)
        session.status = "expired"
        self._event("checkout.session.expired", session.id)
        return session

    def refund(self, params: Mapping[str, Any], key: str) -> RefundAtStripe:
        def make() -> RefundAtStripe:
            status = "pending" if self._chance.happens(0.3) else "succeeded"
            made = RefundAtStripe(
                f"re_{len(self.refunds)}",
                params["payment_intent"],
                params["amount"],
                params["metadata"]["refund_id"],
                status,
            )
            self.refunds[made.id] = made
            self._event("refund.created", made.id)
            return made

        return self._once(key, make)

    def settle_refunds(self) -> None:
        """The banks have taken what was on its way."""
        for refund in self.refunds.values():
            if refund.status == "pending":
                refund.status = "succeeded"
                self._event("refund.updated", refund.id)

    def refunds_per_payment(self) -> Counter[str]:
        """Return how often each PaymentIntent was refunded."""
        return Counter(refund.intent_id for refund in self.refunds.values())

    def _once(self, key: str, make: Callable[[], T]) -> T:
        if key not in self._answers:
            self._answers[key] = make()
        return self._answers[key]

    def _event(self, kind: str, object_id: str) -> None:
        self._events += 1
        event = {"id": f"evt_{self._events}", "type": kind, "data": {"object": {"id": object_id}}}
        self.send_event(json.dumps(event).encode())


class StripeEnd:
    """A node's way to Stripe. Raises ``StripeUnavailable`` also where Stripe has done what was asked."""

    is_live = False

    def __init__(self, server: StripeServer, life: Life) -> None:
        self._server = server
        self._life = life

    async def create_session(self, params: Mapping[str, Any], *, idempotency_key: str) -> CheckoutSession:
        return _session(await self._ask("session", lambda: self._server.create_session(params, idempotency_key)))

    async def session(self, session_id: str) -> CheckoutSession:
        return _session(await self._ask("retrieve", lambda: self._server.sessions[session_id]))

    async def expire_session(self, session_id: str) -> CheckoutSession:
        return _session(await self._ask("expire", lambda: self._server.expire(session_id)))

    async def complete_sessions(self, *, since_s: int, after: str | None = None) -> tuple[list[CheckoutSession], bool]:
        assert after is None, "they fit on one page"
        paid = lambda: [session for session in self._server.sessions.values() if session.is_paid]  # noqa: E731
        return [_session(session) for session in await self._ask("list", paid)], False

    async def refund(self, params: Mapping[str, Any], *, idempotency_key: str) -> StripeRefund:
        return _refund(await self._ask("refund", lambda: self._server.refund(params, idempotency_key)))

    async def refund_now(self, refund_id: str) -> StripeRefund:
        return _refund(await self._ask("retrieve refund", lambda: self._server.refunds[refund_id]))

    def verified_event(self, payload: bytes, signature: str) -> WebhookEvent | None:
        return msgspec.json.decode(payload, type=WebhookEvent) if signature == SIGNATURE else None

    async def _ask(self, what: str, act: Callable[[], T]) -> T:
        await self._life.step(f"stripe {what}")
        is_trouble = self._life.chance(self._server.trouble)
        if is_trouble and self._life.chance(0.5):
            raise StripeUnavailable("Stripe did not hear us.")
        answer = act()
        await self._life.step(f"stripe {what} answered")
        if is_trouble:
            raise StripeUnavailable("Stripe's answer was lost.")
        return answer


def _session(session: Session) -> CheckoutSession:
    paid = PaidSession(
        session.status,
        "paid" if session.is_paid else "unpaid",
        "payment",
        session.amount_cents,
        session.currency,
        session.intent_id if session.is_paid else None,
        "succeeded" if session.is_paid else None,
    )
    url = f"https://stripe.example/{session.id}" if session.status == "open" else None
    return CheckoutSession(session.id, url, session.reference, paid, session.metadata)


def _refund(refund: RefundAtStripe) -> StripeRefund:
    return StripeRefund(refund.id, refund.status, refund.ours)
