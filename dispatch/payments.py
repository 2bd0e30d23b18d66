"""Checkout and fulfilment: from what a customer wants to one paid request, whatever order Stripe tells it in.

``fulfil`` is the only way from money to a request. The webhook, the landing page and the reconciler all call it; it asks Stripe
for the Session as it is now and makes at most one request per Checkout Session.
"""

import hashlib
from typing import Any

import anyio
import msgspec
import structlog
from sqlalchemy import delete, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from dispatch import request_store
from dispatch.fulfilment import Asked, Expire, Fail, GiveBack, PaidSession, Serve, Wait, judge
from dispatch.outbox import Message, Outbox
from dispatch.refunds import Refunds
from dispatch.request import Windows, opened
from dispatch.stripe_api import CheckoutSession, StripeApi
from dispatch.stripe_events import StripeEvents
from dispatch.views import request_view
from models import tables
from models.clock import RedisClock
from models.database import Database
from models.errors import DatabaseUnavailable, StripeRefused, StripeUnavailable
from models.ids import new_id
from models.outcomes import NotFound, Refused
from models.rest import CheckoutBody, CheckoutState, FreeCheckout, StripeCheckout
from models.settings import StripeSettings
from models.timestamps import rfc3339

RECONCILE_INTERVAL_S = 30
RECONCILE_BATCH = 50
RECONCILE_AGE_MS = 60_000
IDEMPOTENCY_TRIES_MAX = 3

CHECKOUT_EVENTS = "checkout.session."
REFUND_EVENTS = frozenset({"refund.created", "refund.updated", "refund.failed"})


class Payments:
    """Takes money through Stripe Checkout and turns it into requests."""

    def __init__(
        self,
        *,
        database: Database,
        clock: RedisClock,
        outbox: Outbox,
        refunds: Refunds,
        stripe_api: StripeApi,
        settings: StripeSettings,
        windows: Windows,
        base_url: str,
    ) -> None:
        self._database = database
        self._clock = clock
        self._outbox = outbox
        self._refunds = refunds
        self._stripe = stripe_api
        self._settings = settings
        self._windows = windows
        self._base_url = base_url
        self._events = StripeEvents(database, clock, stripe_api, self._handle_event)
        self._log = structlog.get_logger("payments")

    async def run(self) -> None:
        """Work on stored webhooks and look after forgotten checkouts, until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._events.run)
            tasks.start_soon(self._reconcile)

    # --- checkout -----------------------------------------------------------------------------------------------------

    async def checkout(
        self, customer_id: str, body: CheckoutBody, *, idempotency_key: str | None = None
    ) -> StripeCheckout | FreeCheckout | Refused:
        """Start a checkout; with ``idempotency_key``, repeating it answers the same again.

        Raises ``StripeUnavailable`` within the settings' bound; nothing is left half-made.
        """
        fingerprint = hashlib.sha256(msgspec.json.encode(body)).hexdigest()
        for _ in range(IDEMPOTENCY_TRIES_MAX):
            existing = await self._existing(customer_id, idempotency_key)
            if existing is not None:
                if existing.idempotency_hash != fingerprint:
                    return Refused("idempotency_key_reused", "This Idempotency-Key was used for a different checkout.")
                return await self._answer(existing)
            asked = await self._asked(customer_id, body)
            if isinstance(asked, Refused):
                return asked
            asked.idempotency_key = idempotency_key
            asked.idempotency_hash = fingerprint if idempotency_key else None
            try:
                if asked.price_cents == 0:
                    served = await self._serve_free(asked)
                    if isinstance(served, Refused) and await self._existing(customer_id, idempotency_key):
                        # The same key came twice at once, and the other one has used the free session.
                        continue
                    return served
                async with self._database.write() as session:
                    session.add(asked)
            except IntegrityError:
                # The same key came twice at once, and the other was faster: answer what it answers.
                continue
            return await self._answer(asked)
        raise DatabaseUnavailable("The same idempotency key kept appearing and vanishing.")

    async def checkout_state(self, customer_id: str, checkout_id: str) -> CheckoutState | Refused:
        """Return where a checkout stands; an open one is looked up at Stripe, and fulfilled at once if it is paid."""
        checkout = await self._own_checkout(customer_id, checkout_id)
        if checkout is not None and checkout.status == "open" and checkout.stripe_session_id is not None:
            try:
                await self.fulfil(checkout.stripe_session_id)
            except (StripeUnavailable, StripeRefused) as error:
                # What we know is still true; the webhook or the next question will tell more.
                self._log.warning("checkout_not_looked_up", checkout_id=checkout_id, error=str(error))
            checkout = await self._own_checkout(customer_id, checkout_id)
        if checkout is None:
            return NotFound(detail="There is no such checkout.")
        return CheckoutState(checkout.id, checkout.status, checkout.request_id or msgspec.UNSET)

    async def _own_checkout(self, customer_id: str, checkout_id: str) -> tables.Checkout | None:
        async with self._database.read() as session:
            checkout = await session.get(tables.Checkout, checkout_id)
        return checkout if checkout is not None and checkout.customer_id == customer_id else None

    async def _existing(self, customer_id: str, idempotency_key: str | None) -> tables.Checkout | None:
        if idempotency_key is None:
            return None
        async with self._database.read() as session:
            found = await session.exec(
                select(tables.Checkout).where(
                    tables.Checkout.customer_id == customer_id, tables.Checkout.idempotency_key == idempotency_key
                )
            )
            return found.first()

    async def _asked(self, customer_id: str, body: CheckoutBody) -> tables.Checkout | Refused:
        """Return the checkout that the body asks for, with our own prices; nothing is stored yet."""
        async with self._database.read() as session:
            if await session.get(tables.Account, customer_id) is None:
                return Refused("unauthenticated", "This account does not exist any more.")
            plan = await session.get(tables.Plan, body.plan)
            if plan is None:
                return Refused("unknown_plan", f"There is no plan {body.plan!r}; GET /api/plans lists them.")
            if body.preferred_mechanic_id is None:
                if body.routing_type == "priority_broadcast":
                    return Refused(
                        "preferred_mechanic_required", "routing_type priority_broadcast needs a preferred_mechanic_id."
                    )
            elif await session.get(tables.Mechanic, body.preferred_mechanic_id) is None:
                return NotFound("mechanic_not_found", "There is no such mechanic.")
        now_ms = self._clock.now_ms()
        return tables.Checkout(
            id=new_id(),
            customer_id=customer_id,
            plan_id=plan.id,
            price_cents=plan.price_cents,
            currency=plan.currency,
            duration_min=plan.duration_min,
            session_type=plan.session_type,
            routing_type=body.routing_type,
            preferred_mechanic_id=body.preferred_mechanic_id,
            expires_at_ms=now_ms + self._settings.session_lifetime_ms,
            created_at_ms=now_ms,
        )

    async def _answer(self, checkout: tables.Checkout) -> StripeCheckout | FreeCheckout:
        """Return the answer to a stored checkout, asking Stripe for its page if that has not been done."""
        if checkout.price_cents == 0:
            assert checkout.request_id is not None, "a free checkout is stored with its request"
            async with self._database.read() as session:
                seen = await request_view(session, checkout.request_id, now_ms=self._clock.now_ms())
            assert seen is not None, "requests are never deleted"
            return FreeCheckout(checkout.id, "free", seen.view)
        assert checkout.expires_at_ms is not None, "every paid checkout has an end"
        url = checkout.url or await self._open_stripe_page(checkout)
        return StripeCheckout(checkout.id, "stripe", url, rfc3339(checkout.expires_at_ms))

    async def _open_stripe_page(self, checkout: tables.Checkout) -> str:
        try:
            stripe_session = await self._stripe.create_session(
                await self._session_params(checkout), idempotency_key=f"checkout:{checkout.id}"
            )
        except (StripeUnavailable, StripeRefused) as error:
            # Nobody has seen its page, so nobody can pay it: forgetting it leaves nothing half-made.
            async with self._database.write() as session:
                await session.exec(
                    delete(tables.Checkout).where(
                        col(tables.Checkout.id) == checkout.id, col(tables.Checkout.stripe_session_id).is_(None)
                    )
                )
            raise StripeUnavailable(
                "The payment page could not be opened; nothing was charged. Please try again."
            ) from error
        if stripe_session.url is None:
            raise StripeUnavailable("Stripe opened a Session without a page to pay on.")
        async with self._database.write() as session:
            kept = await session.exec(
                update(tables.Checkout)
                .where(col(tables.Checkout.id) == checkout.id)
                .values(stripe_session_id=stripe_session.id, url=stripe_session.url)
                .returning(col(tables.Checkout.id))
            )
            if kept.first() is None:
                # A repetition of this very call failed meanwhile and forgot the checkout: the page must not be seen, for
                # whoever paid on it could not be served.
                raise StripeUnavailable("The payment page could not be opened; nothing was charged. Please try again.")
        return stripe_session.url

    async def _session_params(self, checkout: tables.Checkout) -> dict[str, Any]:
        async with self._database.read() as session:
            customer = await session.get_one(tables.Account, checkout.customer_id)
            plan = await session.get_one(tables.Plan, checkout.plan_id)
            mechanic = None
            if checkout.preferred_mechanic_id is not None:
                mechanic = await session.get_one(tables.Mechanic, checkout.preferred_mechanic_id)
        metadata = {
            "plan": checkout.plan_id,
            "routing_type": checkout.routing_type,
            "checkout_id": checkout.id,
            "customer_id": checkout.customer_id,
        }
        if mechanic is not None:
            metadata |= {"preferred_mechanic_id": mechanic.id, "provider_type": mechanic.provider_type}
        assert checkout.expires_at_ms is not None
        return {
            "mode": "payment",
            "line_items": [
                {
                    "quantity": 1,
                    "price_data": {
                        "currency": checkout.currency,
                        "unit_amount": checkout.price_cents,
                        "product_data": {
                            "name": plan.name,
                            "description": f"{checkout.duration_min} minutes, {checkout.session_type}",
                        },
                    },
                }
            ],
            "client_reference_id": checkout.id,
            "customer_email": customer.email,
            "metadata": metadata,
            "payment_intent_data": {"metadata": metadata},
            "success_url": f"{self._base_url}/?checkout={checkout.id}",
            "cancel_url": f"{self._base_url}/?checkout={checkout.id}&cancelled=1",
            "expires_at": checkout.expires_at_ms // 1000,
        }

    # --- fulfilment ---------------------------------------------------------------------------------------------------

    async def fulfil(self, stripe_session_id: str) -> None:
        """Make what Stripe says now of a Session true here: served once, refunded once, expired, or nothing yet.

        Idempotent; may be called any number of times at once, from any node. Raises ``StripeUnavailable``.
        """
        stripe_session = await self._stripe.session(stripe_session_id)
        checkout = await self._checkout_of(stripe_session)
        if checkout is None:
            self._log.error("session_without_checkout", stripe_session_id=stripe_session_id)
            return
        session = stripe_session.paid
        match judge(Asked(checkout.price_cents, checkout.currency), session):
            case Serve(paid_cents):
                await self._serve_paid(checkout, session, paid_cents)
            case GiveBack(paid_cents):
                self._log.error("paid_other_than_asked", checkout_id=checkout.id, paid_cents=paid_cents)
                await self._give_back(checkout, session, paid_cents)
            case Expire():
                await self._end_checkout(checkout.id, "expired")
            case Fail():
                await self._end_checkout(checkout.id, "failed")
            case Wait():
                pass

    async def _checkout_of(self, stripe_session: CheckoutSession) -> tables.Checkout | None:
        async with self._database.read() as session:
            found = await session.exec(
                select(tables.Checkout).where(tables.Checkout.stripe_session_id == stripe_session.id)
            )
            if (checkout := found.first()) is not None:
                return checkout
            # We died between creating the Session and storing its id; its own reference tells whose it is.
            reference = stripe_session.reference
            return await session.get(tables.Checkout, reference) if reference else None

    async def _serve_free(self, checkout: tables.Checkout) -> FreeCheckout | Refused:
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

    async def _serve_paid(self, checkout: tables.Checkout, paid: PaidSession, paid_cents: int) -> None:
        async with self._database.write() as session:
            first = await session.exec(
                update(tables.Checkout)
                .where(
                    col(tables.Checkout.id) == checkout.id,
                    # Also a checkout that we had given up: whoever paid is served.
                    col(tables.Checkout.status) != "paid",
                    col(tables.Checkout.payment_intent_id).is_(None),
                )
                .values(status="paid", payment_intent_id=paid.payment_intent_id)
                .returning(col(tables.Checkout.id))
            )
            if first.first() is None:
                return
            fresh = await session.get_one(tables.Checkout, checkout.id, populate_existing=True)
            request_id, messages = await self._make_request(session, fresh, paid_cents=paid_cents)
        self._log.info("fulfilled", checkout_id=checkout.id, request_id=request_id)
        self._outbox.post(messages)

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
        self._outbox.add(session, messages)
        return request.id, messages

    async def _give_back(self, checkout: tables.Checkout, paid: PaidSession, paid_cents: int) -> None:
        if paid.payment_intent_id is None:
            await self._end_checkout(checkout.id, "failed")
            return
        async with self._database.write() as session:
            first = await session.exec(
                update(tables.Checkout)
                .where(col(tables.Checkout.id) == checkout.id, col(tables.Checkout.payment_intent_id).is_(None))
                .values(status="failed", payment_intent_id=paid.payment_intent_id)
                .returning(col(tables.Checkout.id))
            )
            if first.first() is None:
                return
            fresh = await session.get_one(tables.Checkout, checkout.id, populate_existing=True)
            message = await request_store.owe_refund(
                session,
                fresh,
                request_id=None,
                cause="paid_other_than_asked",
                amount_cents=paid_cents,
                now_ms=self._clock.now_ms(),
            )
            self._outbox.add(session, [message])
        self._outbox.post([message])

    async def _end_checkout(self, checkout_id: str, status: str) -> None:
        async with self._database.write() as session:
            await session.exec(
                update(tables.Checkout)
                .where(col(tables.Checkout.id) == checkout_id, col(tables.Checkout.status) == "open")
                .values(status=status)
            )

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

    # --- looking after what was forgotten -----------------------------------------------------------------------------

    async def _reconcile(self) -> None:
        """Ask Stripe about checkouts that have been open for a while: a webhook may never have come."""
        looked_at = ""
        while True:
            await anyio.sleep(RECONCILE_INTERVAL_S)
            try:
                async with self._database.read() as session:
                    forgotten = await session.exec(
                        select(tables.Checkout.id, tables.Checkout.stripe_session_id)
                        .where(
                            tables.Checkout.id > looked_at,
                            tables.Checkout.status == "open",
                            col(tables.Checkout.stripe_session_id).is_not(None),
                            tables.Checkout.created_at_ms < self._clock.now_ms() - RECONCILE_AGE_MS,
                        )
                        .order_by(tables.Checkout.id)
                        .limit(RECONCILE_BATCH)
                    )
                    rows = list(forgotten)
                for _, session_id in rows:
                    await self._fulfil_forgotten(session_id)
                # On from there, so that many that stay open do not keep the newer ones from being looked at.
                looked_at = rows[-1][0] if len(rows) == RECONCILE_BATCH else ""
            except (StripeUnavailable, DatabaseUnavailable, OSError) as error:
                self._log.warning("checkouts_not_reconciled", error=str(error))

    async def _fulfil_forgotten(self, session_id: str) -> None:
        try:
            await self.fulfil(session_id)
        except StripeRefused as error:
            # One that Stripe does not know (of another account, say) must not stand in the others' way.
            self._log.error("checkout_not_reconciled", stripe_session_id=session_id, error=str(error))
