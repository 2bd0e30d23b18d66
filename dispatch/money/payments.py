"""Payments: from money to one request, whatever order Stripe tells it in.

``fulfil`` is the only way from money to a request. The webhook, the landing page and the reconciler all call it; it asks Stripe
for the Session as it is now and makes at most one request per Checkout Session.
"""

from typing import Literal, assert_never

import structlog
from sqlalchemy import ColumnElement, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from dispatch import request_store
from dispatch.effects import owe_refund
from dispatch.money.fulfilment import Asked, Expire, Fail, GiveBack, Ignore, Serve, Wait, judge
from dispatch.money.refunds import Refunds
from dispatch.money.stripe_api import CheckoutSession, StripeApi
from dispatch.money.stripe_events import StripeEvents
from dispatch.outbox import Message, Outbox
from dispatch.reading.views import request_view
from dispatch.request import Windows, opened
from infra.clock import Clock
from infra.database import Database
from models import tables
from models.ids import new_id
from models.outcomes import Refused
from models.rest import FreeCheckout

CHECKOUT_EVENTS = "checkout.session."
REFUND_EVENTS = frozenset({"refund.created", "refund.updated", "refund.failed"})

Change = Literal["served", "owed_back", "expired", "failed"]
"""What a Session has just become here."""


class Payments:
    """Turns what was paid at Stripe into requests, and what must not be served into refunds."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        outbox: Outbox,
        refunds: Refunds,
        stripe_api: StripeApi,
        windows: Windows,
    ) -> None:
        self._database = database
        self._clock = clock
        self._outbox = outbox
        self._refunds = refunds
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

    async def _checkout_of(self, stripe_session: CheckoutSession) -> tables.Checkout | None:
        async with self._database.read() as session:
            found = await session.exec(
                select(tables.Checkout).where(tables.Checkout.stripe_session_id == stripe_session.id)
            )
            if (checkout := found.first()) is not None:
                return checkout
            # We died between creating the Session and storing its id; its own reference tells whose it is.
            reference = stripe_session.reference
            referred = await session.get(tables.Checkout, reference) if reference else None
        if referred is not None and referred.stripe_session_id is None:
            return referred
        return await self._adopted(stripe_session) if stripe_session.paid.is_paid else None

    async def _adopted(self, stripe_session: CheckoutSession) -> tables.Checkout | None:
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
            async with self._database.read() as session:
                by_session = select(tables.Checkout).where(tables.Checkout.stripe_session_id == stripe_session.id)
                return (await session.exec(by_session)).first()
        self._log.warning("session_adopted", stripe_session_id=stripe_session.id, checkout_id=adopted.id)
        return adopted

    async def serve_free(self, checkout: tables.Checkout) -> FreeCheckout | Refused:
        """Store a checkout that costs nothing together with its request; raises ``IntegrityError`` like any insert."""
        async with self._database.write() as session:
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
            checkout.status = "paid"
            session.add(checkout)
            await session.flush()
            request_id, messages = await self._make_request(session, checkout, paid_cents=0)
            await session.flush()
            seen = await request_view(session, request_id, now_ms=self._clock.now_ms())
        self._outbox.post(messages)
        assert seen is not None, "it was made in this transaction"
        return FreeCheckout(checkout.id, "free", seen.view)

    async def _serve_paid(
        self, checkout: tables.Checkout, stripe_session: CheckoutSession, paid_cents: int
    ) -> Change | None:
        async with self._database.write() as session:
            # Also a checkout that we had given up: whoever paid is served.
            fresh = await self._claim_money(
                session, checkout, stripe_session, "paid", col(tables.Checkout.status) != "paid"
            )
            if fresh is None:
                return None
            request_id, messages = await self._make_request(session, fresh, paid_cents=paid_cents)
        self._log.info("fulfilled", checkout_id=checkout.id, request_id=request_id)
        self._outbox.post(messages)
        return "served"

    async def _give_back(
        self, checkout: tables.Checkout, stripe_session: CheckoutSession, paid_cents: int
    ) -> Change | None:
        if stripe_session.paid.payment_intent_id is None:
            return await self._end_checkout(checkout.id, "failed")
        async with self._database.write() as session:
            fresh = await self._claim_money(session, checkout, stripe_session, "failed")
            if fresh is None:
                return None
            message = await owe_refund(
                session,
                fresh,
                request_id=None,
                cause="paid_other_than_asked",
                amount_cents=paid_cents,
                now_ms=self._clock.now_ms(),
            )
            await self._outbox.add(session, [message])
        self._outbox.post([message])
        return "owed_back"

    async def _claim_money(
        self,
        session: AsyncSession,
        checkout: tables.Checkout,
        stripe_session: CheckoutSession,
        status: str,
        *conditions: ColumnElement[bool],
    ) -> tables.Checkout | None:
        """Give the checkout its end, for the first who comes; return it, or ``None`` to everybody else."""
        first = await session.exec(
            update(tables.Checkout)
            .where(
                col(tables.Checkout.id) == checkout.id, col(tables.Checkout.payment_intent_id).is_(None), *conditions
            )
            .values(
                status=status,
                payment_intent_id=stripe_session.paid.payment_intent_id,
                stripe_session_id=stripe_session.id,
            )
            .returning(col(tables.Checkout.id))
        )
        if first.first() is None:
            return None
        return await session.get_one(tables.Checkout, checkout.id, populate_existing=True)

    async def _make_request(
        self, session: AsyncSession, checkout: tables.Checkout, *, paid_cents: int
    ) -> tuple[str, list[Message]]:
        now_ms = self._clock.now_ms()
        request, commands = opened(
            new_id(),
            paid_cents=paid_cents,
            preferred_mechanic_id=checkout.preferred_mechanic_id,
            is_priority=checkout.routing_type == "priority_broadcast",
            offer_id=new_id(),
            now_ms=now_ms,
            windows=self._windows,
        )
        checkout.request_id = request.id
        messages = await request_store.create(
            session, request, commands, checkout=checkout, paid_cents=paid_cents, now_ms=now_ms
        )
        await self._outbox.add(session, messages)
        return request.id, messages

    async def _end_checkout(self, checkout_id: str, status: Literal["expired", "failed"]) -> Change | None:
        async with self._database.write() as session:
            ended = await session.exec(
                update(tables.Checkout)
                .where(col(tables.Checkout.id) == checkout_id, col(tables.Checkout.status) == "open")
                .values(status=status)
                .returning(col(tables.Checkout.id))
            )
            return status if ended.first() is not None else None

    # --- webhooks -----------------------------------------------------------------------------------------------------

    async def receive_webhook(self, payload: bytes, signature: str | None) -> Refused | None:
        """Store a verified event and return; the work comes afterwards. An event seen before is fine."""
        return await self._events.receive(payload, signature)

    async def _handle_event(self, kind: str, object_id: str) -> None:
        if kind.startswith(CHECKOUT_EVENTS):
            # Events come in any order: not the event but the Session as it is now decides.
            await self.fulfil(object_id)
        elif kind in REFUND_EVENTS:
            await self._refunds.confirm(object_id)
