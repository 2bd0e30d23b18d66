"""Stripe on a virtual clock: Sessions, refunds and webhooks, with idempotency keys, and a road on which answers get lost.

``StripeServer`` is Stripe; ``StripeEnd`` is one node's way to it, with the methods of ``dispatch.money.stripe_api.StripeApi``.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import msgspec

from dispatch.money.fulfilment import PaidSession
from dispatch.money.ledger import Entry
from dispatch.money.stripe_api import CheckoutSession, Listed, WebhookEvent
from models.errors import StripeRefused, StripeUnavailable
from models.outcomes import Refused
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
    """A refund; ``pending`` until the bank has taken it, or sent it back. ``ours``: our id of it; ``None``: somebody else's."""

    id: str
    intent_id: str
    amount_cents: int
    ours: str | None
    status: str

    @property
    def entry(self) -> Entry:
        return Entry(self.id, "refund", self.amount_cents, self.status, is_ours=self.ours is not None)


@dataclass
class DisputeAtStripe:
    """A dispute, open until the bank has decided."""

    id: str
    intent_id: str
    amount_cents: int
    status: str = "needs_response"

    @property
    def entry(self) -> Entry:
        return Entry(self.id, "dispute", self.amount_cents, self.status)


class StripeServer:
    """What Stripe knows. ``send_event`` is called for every webhook that it wants to be delivered."""

    def __init__(self, chance: Chance) -> None:
        self.sessions: dict[str, Session] = {}
        self.refunds: dict[str, RefundAtStripe] = {}
        self.disputes: dict[str, DisputeAtStripe] = {}
        self.is_broke = False
        """Whether there is no money to give back."""
        self.send_event: Callable[[bytes], None] = lambda _payload: None
        self.trouble = 0.0
        """How likely a call fails; half of such calls have had their effect. Some failures are answers, and kept like others."""
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

    def refund(self, params: Mapping[str, Any], key: str) -> Entry:
        """Give money back for whoever has our key; what is answered once is answered under that key for ever, as it was then."""

        def make() -> Entry:
            if self._chance.happens(self.trouble / 2):
                error = StripeUnavailable("Stripe has answered with an error of its own.")
                error.is_answer = True
                raise error
            if self.is_broke:
                raise StripeRefused("Your balance is too low.", code="balance_insufficient")
            return self.give_back(params["payment_intent"], params["amount"], params["metadata"]["refund_id"]).entry

        return self._once(key, make)

    def give_back(self, intent_id: str, amount_cents: int, ours: str | None = None) -> RefundAtStripe:
        """Give money back, if there is as much left and no dispute is open or lost."""
        if any(one.intent_id == intent_id and one.status != "won" for one in self.disputes.values()):
            raise StripeRefused("The charge is disputed.", code="charge_disputed")
        if amount_cents > self.left_cents(intent_id):
            raise StripeRefused("There is not as much left.", code="charge_already_refunded")
        status = "pending" if self._chance.happens(0.3) else "succeeded"
        made = RefundAtStripe(f"re_{len(self.refunds)}", intent_id, amount_cents, ours, status)
        self.refunds[made.id] = made
        self._event("refund.created", made.id, intent_id)
        return made

    def settle_refunds(self, *, failing: float) -> None:
        """The banks have taken what was on its way, or send it back: nothing disputed, which nobody could give back then."""
        disputed = {one.intent_id for one in self.disputes.values()}
        for refund in self.refunds.values():
            if refund.status == "pending":
                has_failed = self._chance.happens(failing) and refund.intent_id not in disputed
                refund.status = "failed" if has_failed else "succeeded"
                self._event("refund.updated", refund.id, refund.intent_id)

    def dispute(self, intent_id: str) -> None:
        """The customer's bank asks for what is left."""
        left_cents = self.left_cents(intent_id)
        if left_cents and not any(one.intent_id == intent_id for one in self.disputes.values()):
            made = DisputeAtStripe(f"dp_{len(self.disputes)}", intent_id, left_cents)
            self.disputes[made.id] = made
            self._event("charge.dispute.created", made.id, intent_id)

    def close_disputes(self) -> None:
        """The banks have decided."""
        for dispute in self.disputes.values():
            if dispute.status == "needs_response":
                dispute.status = self._chance.one_of(["won", "lost"])
                self._event("charge.dispute.closed", dispute.id, dispute.intent_id)

    def paid_cents(self, intent_id: str) -> int:
        return self.sessions[intent_id.removeprefix("pi_")].amount_cents

    def given_back_cents(self, intent_id: str, *, by_us: bool | None = None) -> int:
        """Return what has gone back, or is on its way; ``by_us``: of what we have asked for, or of what others have."""
        return sum(
            one.amount_cents
            for one in self.refunds.values()
            if one.intent_id == intent_id and one.status != "failed" and by_us in (None, one.ours is not None)
        )

    def taken_cents(self, intent_id: str) -> int:
        """Return what the bank has taken."""
        return sum(
            one.amount_cents for one in self.disputes.values() if one.intent_id == intent_id and one.status == "lost"
        )

    def left_cents(self, intent_id: str) -> int:
        """Return what could still go back."""
        return self.paid_cents(intent_id) - self.given_back_cents(intent_id) - self.taken_cents(intent_id)

    def entries(self, intent_id: str) -> list[Entry]:
        """Return everything that has moved of a payment."""
        moves: list[RefundAtStripe | DisputeAtStripe] = [*self.refunds.values(), *self.disputes.values()]
        return [one.entry for one in moves if one.intent_id == intent_id]

    def _once(self, key: str, make: Callable[[], T]) -> T:
        if key not in self._answers:
            try:
                self._answers[key] = make()
            except (StripeRefused, StripeUnavailable) as error:
                self._answers[key] = error
        if isinstance(self._answers[key], Exception):
            raise self._answers[key]
        return self._answers[key]

    def _event(self, kind: str, object_id: str, intent_id: str | None = None) -> None:
        self._events += 1
        about = {"id": object_id, "payment_intent": intent_id}
        event = {"id": f"evt_{self._events}", "type": kind, "data": {"object": about}}
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
        session = _session(await self._ask("retrieve", lambda: self._server.sessions[session_id]))
        intent_id = session.paid.payment_intent_id
        has_moved = intent_id is not None and bool(self._server.entries(intent_id))
        return replace(session, paid=replace(session.paid, has_moved=has_moved))

    async def expire_session(self, session_id: str) -> CheckoutSession:
        return _session(await self._ask("expire", lambda: self._server.expire(session_id)))

    async def complete_sessions(self, *, since_s: int, after: str | None = None) -> tuple[list[CheckoutSession], bool]:
        assert after is None, "they fit on one page"
        paid = lambda: [session for session in self._server.sessions.values() if session.is_paid]  # noqa: E731
        return [_session(session) for session in await self._ask("list", paid)], False

    async def session_of(self, payment_intent_id: str) -> CheckoutSession | None:
        def find() -> Session | None:
            return self._server.sessions.get(payment_intent_id.removeprefix("pi_"))

        found = await self._ask("list", find)
        return None if found is None else _session(found)

    async def entries(
        self, payment_intent_id: str, *, checkout_id: str, with_refunds: bool, with_disputes: bool
    ) -> list[Entry]:
        def look() -> list[Entry]:
            # As the charge tells: of refunds that have failed it says nothing.
            has_refunds = with_refunds or self._server.given_back_cents(payment_intent_id) > 0
            return [
                one
                for one in self._server.entries(payment_intent_id)
                if has_refunds or with_disputes or one.kind == "dispute"
            ]

        return await self._ask("entries", look)

    async def moved_since(self, kind: str, since_s: int) -> AsyncIterator[Listed]:
        moves = self._server.refunds if kind == "refunds" else self._server.disputes
        for one in await self._ask("list moves", lambda: list(moves.values())):
            yield Listed(one.id, one.intent_id, one.status)

    async def refund(self, params: Mapping[str, Any], *, checkout_id: str, idempotency_key: str) -> Entry:
        return await self._ask("refund", lambda: self._server.refund(params, idempotency_key))

    def verified_event(self, payload: bytes, signature: str) -> WebhookEvent | Refused:
        assert signature == SIGNATURE
        return msgspec.json.decode(payload, type=WebhookEvent)

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
