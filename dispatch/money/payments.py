"""Payments: from money to one request, whatever order Stripe tells it in.

``fulfil`` is the only way from money to a request. The webhook, the landing page and the reconciler all call it; it asks Stripe
for the Session as it is now and makes at most one request per Checkout Session.
"""

from dataclasses import dataclass
from typing import Literal, assert_never

import structlog
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlmodel import col

from accounts.revocations import GONE
from dispatch import request_store
from dispatch.effects import OWE_REFUND
from dispatch.money.bookkeeping import PAYMENT_OF_INTENT, SQL, Bookkeeping
from dispatch.money.fulfilment import Asked, Expire, Fail, GiveBack, Ignore, Serve, Wait, judge
from dispatch.money.ledger import summed
from dispatch.money.stripe_api import CheckoutSession, StripeApi
from dispatch.money.stripe_events import StripeEvents, UnfinishedEvent
from dispatch.notices import RefundOwed
from dispatch.outbox import Message, Outbox
from dispatch.request import Transition, Windows, ended_at_once, opened
from dispatch.stored import Named, StoredRequest
from dispatch.views import request_view
from infra.clock import Clock
from infra.database import Database, within
from infra.statements import Statement, Transaction
from models import tables
from models.ids import new_id
from models.outcomes import Refused, TooMany
from models.rest import FreeCheckout
from models.words import RoutingType

FREE_BOOKINGS_MAX = 10
FREE_BOOKINGS_MS = 3_600_000
"""So many within this time, of one customer."""
CHECKOUT_EVENTS = "checkout.session."
MONEY_EVENTS = ("charge.", "refund.", "payment_intent.")
DISPUTE_EVENTS = "charge.dispute."
PAID_EVENTS = frozenset({"payment_intent.succeeded", "charge.succeeded"})
"""They say nothing new of a payment that is known here; of another, that its Session has been paid."""

Change = Literal["served", "owed_back", "expired", "failed"]
"""What a Session has just become here."""


@dataclass(frozen=True)
class Wish:
    """Whom a checkout's request is for, and for how long."""

    preferred_mechanic_id: str | None
    routing_type: RoutingType
    duration_min: int
    may_be_second: bool = False
    """Whether the same may have been paid for on another page that was open beside its own."""


@dataclass(frozen=True)
class Customer:
    """A row of ``lock_customer``."""

    id: str
    is_gone: bool


@dataclass(frozen=True)
class FreeBooking:
    """A row of ``free_bookings_of``."""

    created_at_ms: int


@dataclass(frozen=True)
class OurCheckout:
    """What a Session was made for."""

    id: str
    price_cents: int
    currency: str


CHECKOUT_OF_SESSION = Statement(SQL / "checkout_of_session.sql", OurCheckout)
LOCK_BUYER = Statement(SQL / "lock_buyer.sql", Named)
FREE_BOOKINGS_OF = Statement(SQL / "free_bookings_of.sql", FreeBooking)
LOCK_CUSTOMER = Statement(SQL / "lock_customer.sql", Customer)
PAID_TWICE = Statement(SQL / "paid_twice.sql", Named)
CLAIM_PAYMENT = Statement(SQL / "claim_payment.sql", Wish)
END_CHECKOUT = Statement(SQL / "end_checkout.sql", Named)


class Payments:
    """Turns what was paid at Stripe into requests, and what must not be served into refunds."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        outbox: Outbox,
        bookkeeping: Bookkeeping,
        stripe_api: StripeApi,
        windows: Windows,
    ) -> None:
        self._database = database
        self._clock = clock
        self._outbox = outbox
        self._books = bookkeeping
        self._stripe = stripe_api
        self._windows = windows
        self._events = StripeEvents(database, clock, stripe_api, self._handle_event)
        self._log = structlog.get_logger("payments")

    async def run(self) -> None:
        """Work on stored webhooks until cancelled."""
        await self._events.run()

    # --- fulfilment ---------------------------------------------------------------------------------------------------

    async def fulfil(self, stripe_session_id: str) -> Change | None:
        """Make what Stripe says now of a Session true here: served once, refunded once, expired, or nothing yet.

        Returns what this very call changed. Idempotent; may be called any number of times side by side, from any node. Raises
        ``StripeUnavailable``.
        """
        return await self.settle(await self._stripe.session(stripe_session_id))

    async def settle(self, stripe_session: CheckoutSession) -> Change | None:
        """Make a Session, as Stripe has just told it, true here; see ``fulfil``."""
        checkout = await self._checkout_of(stripe_session)
        if checkout is None:
            self._log.warning("session_without_checkout", stripe_session_id=stripe_session.id)
            return None
        verdict = judge(Asked(checkout.price_cents, checkout.currency, self._stripe.is_live), stripe_session.paid)
        match verdict:
            case Serve(paid_cents):
                return await self._serve_paid(checkout, stripe_session, paid_cents)
            case GiveBack(paid_cents):
                self._log.error("paid_other_than_asked", checkout_id=checkout.id, paid_cents=paid_cents)
                return await self._give_back(checkout, stripe_session, paid_cents)
            case Expire():
                return await self._end_checkout(checkout.id, "expired")
            case Fail():
                return await self._end_checkout(checkout.id, "failed")
            case Ignore():
                self._log.error("session_of_the_other_mode", stripe_session_id=stripe_session.id)
                return None
            case Wait():
                return None
            case _:
                assert_never(verdict)

    async def _checkout_of(self, stripe_session: CheckoutSession) -> OurCheckout | None:
        found = await self._database.query(
            CHECKOUT_OF_SESSION(stripe_session_id=stripe_session.id, reference=stripe_session.reference)
        )
        if found:
            return found[0]
        return await self._adopted(stripe_session) if stripe_session.paid.is_paid else None

    async def _adopted(self, stripe_session: CheckoutSession) -> OurCheckout | None:
        """Return a new checkout for a paid Session that says it is ours but has none here any more, or ``None``.

        We forgot it while Stripe did not answer, and somebody has paid nevertheless. A customer that we do not know is
        another installation's: several may share one account at Stripe.
        """
        wish = stripe_session.metadata
        async with self._database.read() as session:
            customer = await session.get(tables.Account, wish.get("customer_id", ""))
            plan = await session.get(tables.Plan, wish.get("plan", ""))
            mechanic = await session.get(tables.Mechanic, wish.get("preferred_mechanic_id", ""))
        if customer is None or plan is None:
            return None
        is_priority = mechanic is not None and wish.get("routing_type") == "priority_broadcast"
        adopted = tables.Checkout(
            id=new_id(),
            customer_id=customer.id,
            plan_id=plan.id,
            price_cents=plan.price_cents,
            currency=plan.currency,
            duration_min=plan.duration_min,
            session_type=plan.session_type,
            routing_type="priority_broadcast" if is_priority else "broadcast",
            preferred_mechanic_id=None if mechanic is None else mechanic.id,
            stripe_session_id=stripe_session.id,
            expires_at_ms=self._clock.now_ms(),
            created_at_ms=self._clock.now_ms(),
        )
        try:
            async with self._database.write() as session:
                session.add(adopted)
        except IntegrityError:
            # Somebody else has adopted it at the same time.
            found = await self._database.query(CHECKOUT_OF_SESSION(stripe_session_id=stripe_session.id, reference=None))
            return found[0] if found else None
        self._log.warning("session_adopted", stripe_session_id=stripe_session.id, checkout_id=adopted.id)
        return OurCheckout(adopted.id, adopted.price_cents, adopted.currency)

    async def serve_free(self, checkout: tables.Checkout) -> FreeCheckout | Refused:
        """Store a checkout that costs nothing together with its request; raises ``IntegrityError`` like any insert.

        Who cancels gets the free session back, and mechanics have been called all the same: so there is a bound.
        """
        async with self._database.write() as session:
            if not await within(session, LOCK_BUYER(customer_id=checkout.customer_id)):
                return GONE
            since_ms = checkout.created_at_ms - FREE_BOOKINGS_MS
            lately = await within(
                session,
                FREE_BOOKINGS_OF(customer_id=checkout.customer_id, since_ms=since_ms, limit=FREE_BOOKINGS_MAX),
            )
            if len(lately) >= FREE_BOOKINGS_MAX:
                wait_s = max(1, -(-(lately[-1].created_at_ms - since_ms) // 1000))
                return TooMany(
                    detail=f"You have booked for nothing {FREE_BOOKINGS_MAX} times lately. Please try again in {wait_s} s.",
                    retry_after_s=wait_s,
                )
            plan = await session.get_one(tables.Plan, checkout.plan_id)
            if plan.first_time_only:
                # One conditional update: of two tabs, one is first.
                first = await session.exec(
                    update(tables.Account)
                    .where(
                        col(tables.Account.id) == checkout.customer_id, col(tables.Account.free_session_used).is_(False)
                    )
                    .values(free_session_used=True)
                    .returning(col(tables.Account.id))
                )
                if first.first() is None:
                    return Refused(
                        "free_session_used", "The free diagnostic is for the first time only, and you have used it."
                    )
            checkout.status, checkout.request_id = "paid", new_id()
            session.add(checkout)
            wish = Wish(checkout.preferred_mechanic_id, checkout.routing_type, checkout.duration_min)
            messages, stored = await within(
                session, self._make_request(checkout.request_id, checkout.id, wish, paid_cents=0)
            )
        self._outbox.post(messages)
        return FreeCheckout(checkout.id, "free", request_view(stored, now_ms=self._clock.now_ms()))

    async def _serve_paid(
        self, checkout: OurCheckout, stripe_session: CheckoutSession, paid_cents: int
    ) -> Change | None:
        request_id = new_id()
        intent_id = stripe_session.paid.payment_intent_id
        why_not = await self._why_not_served(checkout, intent_id) if stripe_session.paid.has_moved else None

        def work() -> Transaction[list[Message] | None]:
            # Also a checkout that we had given up: whoever paid is served.
            claimed = yield from _claim(checkout.id, stripe_session, "paid", unless="paid", request_id=request_id)
            if not claimed:
                return None
            # Of two that are paid in the same moment, on two nodes, one comes after the other; and so do this and an erasure.
            [customer] = yield from LOCK_CUSTOMER(checkout_id=checkout.id)
            cause = "account_erased" if customer.is_gone else why_not
            if claimed[0].may_be_second and (yield from PAID_TWICE(checkout_id=checkout.id)):
                cause = "paid_twice"
            messages, _ = yield from self._make_request(
                request_id, checkout.id, claimed[0], paid_cents=paid_cents, ended_because=cause
            )
            return messages

        messages = await self._database.commit(work())
        if messages is not None:
            self._log.info("fulfilled", checkout_id=checkout.id, request_id=request_id, why_not=why_not)
            self._outbox.post(messages)
        if stripe_session.paid.has_moved and intent_id is not None:
            # Also where it was served before: whoever served it may have died before it came to this.
            await self._books.bring_in_line(intent_id)
        return None if messages is None else "served"

    async def _why_not_served(self, checkout: OurCheckout, intent_id: str | None) -> str | None:
        """Return why nobody is to serve what was paid, though something of it has moved already; ``None``: it is paid for."""
        if intent_id is None:
            return None
        entries = await self._stripe.entries(intent_id, checkout_id=checkout.id, with_refunds=True, with_disputes=False)
        ledger = summed(checkout.price_cents, entries)
        if ledger.dispute in ("open", "lost"):
            return "disputed"
        return "refunded_at_stripe" if ledger.left_cents == 0 else None

    async def _give_back(
        self, checkout: OurCheckout, stripe_session: CheckoutSession, paid_cents: int
    ) -> Change | None:
        intent_id = stripe_session.paid.payment_intent_id
        if intent_id is None:
            return await self._end_checkout(checkout.id, "failed")
        refund_id, now_ms = new_id(), self._clock.now_ms()

        def work() -> Transaction[list[Message] | None]:
            if not (yield from _claim(checkout.id, stripe_session, "failed")):
                return None
            yield from OWE_REFUND(
                id=refund_id,
                checkout_id=checkout.id,
                request_id=None,
                payment_intent_id=intent_id,
                amount_cents=paid_cents,
                currency=stripe_session.paid.currency or checkout.currency,
                cause="paid_other_than_asked",
                status="pending",
                next_attempt_at_ms=now_ms,
                settled_at_ms=None,
                at_ms=now_ms,
            )
            messages = [Message.of(RefundOwed(refund_id))]
            yield from self._outbox.add(messages)
            return messages

        messages = await self._database.commit(work())
        if messages is None:
            return None
        self._outbox.post(messages)
        return "owed_back"

    def _make_request(
        self, request_id: str, checkout_id: str, wish: Wish, *, paid_cents: int, ended_because: str | None = None
    ) -> Transaction[tuple[list[Message], StoredRequest]]:
        """``ended_because``: why it is not offered to anybody, and its payment goes back; ``None``: it is offered."""
        now_ms = self._clock.now_ms()
        request, commands = self._begun(request_id, wish, paid_cents, ended_because, now_ms)
        messages, stored = yield from request_store.create(
            request, commands, checkout_id=checkout_id, paid_cents=paid_cents, now_ms=now_ms
        )
        yield from self._outbox.add(messages)
        return messages, stored

    def _begun(
        self, request_id: str, wish: Wish, paid_cents: int, ended_because: str | None, now_ms: int
    ) -> Transition:
        session_ms = wish.duration_min * 60_000
        if ended_because is not None:
            return ended_at_once(
                request_id, paid_cents=paid_cents, session_ms=session_ms, cause=ended_because, now_ms=now_ms
            )
        return opened(
            request_id,
            paid_cents=paid_cents,
            preferred_mechanic_id=wish.preferred_mechanic_id,
            session_ms=session_ms,
            is_priority=wish.routing_type == "priority_broadcast",
            offer_id=new_id(),
            now_ms=now_ms,
            windows=self._windows,
        )

    async def _end_checkout(self, checkout_id: str, status: Literal["expired", "failed"]) -> Change | None:
        ended = await self._database.commit(END_CHECKOUT(id=checkout_id, status=status))
        return status if ended else None

    # --- webhooks -----------------------------------------------------------------------------------------------------

    async def receive_webhook(self, payload: bytes, signature: str | None) -> Refused | None:
        """Store a verified event and return; the work comes afterwards. An event seen before is fine."""
        return await self._events.receive(payload, signature)

    async def _handle_event(self, event: UnfinishedEvent) -> None:
        # Events come in any order: not the event decides but how everything stands at Stripe now.
        if event.type.startswith(CHECKOUT_EVENTS):
            await self.fulfil(event.object_id or "")
            return
        intent_id = await self._intent_of(event) if event.type.startswith(MONEY_EVENTS) else None
        if intent_id is not None:
            await self._follow(intent_id, event.type)

    async def _intent_of(self, event: UnfinishedEvent) -> str | None:
        if event.type.startswith("payment_intent."):
            return event.object_id
        if event.payment_intent_id is not None or event.object_id is None:
            return event.payment_intent_id
        # Stored by a node of a version that did not keep it, or of a charge that no PaymentIntent has made.
        if event.type.startswith(("refund.", "charge.refund.")):
            return await self._stripe.intent_of("refunds", event.object_id)
        kind: Literal["disputes", "charges"] = "disputes" if event.type.startswith(DISPUTE_EVENTS) else "charges"
        return await self._stripe.intent_of(kind, event.object_id)

    async def _follow(self, intent_id: str, told_by: str) -> None:
        """Bring a payment's ledger in line; one that is unknown here may be of a Session of ours that nobody has told of."""
        if told_by in PAID_EVENTS:
            known = await self._database.query(PAYMENT_OF_INTENT(payment_intent_id=intent_id))
            if known:
                return
        is_disputed = told_by.startswith(DISPUTE_EVENTS)
        if told_by not in PAID_EVENTS and await self._books.bring_in_line(intent_id, is_disputed=is_disputed):
            return
        stripe_session = await self._stripe.session_of(intent_id)
        # Others on the same account at Stripe do not write our words on theirs.
        if stripe_session is not None and "checkout_id" in stripe_session.metadata:
            await self.fulfil(stripe_session.id)
            if told_by not in PAID_EVENTS:
                await self._books.bring_in_line(intent_id, is_disputed=is_disputed)


def _claim(
    checkout_id: str, stripe_session: CheckoutSession, status: str, *, unless: str = "", request_id: str | None = None
) -> Transaction[list[Wish]]:
    """Give the checkout its end; return its wish to the first who comes, and nothing to everybody else."""
    return CLAIM_PAYMENT(
        id=checkout_id,
        status=status,
        unless=unless,
        payment_intent_id=stripe_session.paid.payment_intent_id,
        stripe_session_id=stripe_session.id,
        request_id=request_id,
    )
