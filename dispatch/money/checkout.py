"""Checkout: what a customer wants to buy, at our own prices, and Stripe's page to pay it on.

Nothing is half-made: a checkout whose page could not be opened is forgotten, and the same idempotency key answers the same again.
"""

import hashlib
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
import structlog
from msgspec.structs import replace
from sqlalchemy import delete, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from stripe.params.checkout import SessionCreateParams

from accounts.revocations import GONE
from dispatch.eligibility import takes
from dispatch.money.bookkeeping import SQL
from dispatch.money.payments import LOCK_BUYER, Payments
from dispatch.money.plans import no_such_plan
from dispatch.money.stripe_api import KEY_REUSED, CheckoutSession, StripeApi
from dispatch.money.superseded import Superseded
from dispatch.stored import READ_REQUESTS
from dispatch.views import request_view
from infra.clock import Clock
from infra.database import Database, within
from infra.statements import Statement
from models import tables
from models.errors import DatabaseUnavailable, StripeRefused, StripeUnavailable
from models.ids import new_id
from models.outcomes import NotFound, Refused, TooMany
from models.rest import CheckoutBody, CheckoutState, FreeCheckout, StripeCheckout
from models.settings import StripeSettings
from models.text import NOTE_LEN_MAX, kept
from models.timestamps import rfc3339

IDEMPOTENCY_TRIES_MAX = 3
OPEN_MAX: Final = 20
"""Payments that a customer may have open (contract): each is a page at Stripe, and of the same choice the older ones are closed."""
PROMPT_METHODS: Final[tuple[Literal["card"], ...]] = ("card",)
"""Whose result is known when the customer leaves the page: cards, with the wallets that carry them. No mechanic can wait for a bank
debit or a voucher that takes days (docs.stripe.com/checkout/fulfillment). This narrows what the account offers
(docs.stripe.com/api/checkout/sessions/create, ``allowed_payment_method_types``)."""


@dataclass(frozen=True)
class OpenCheckout:
    """A row of ``open_checkouts_of``."""

    expires_at_ms: int


OPEN_CHECKOUTS_OF: Final = Statement(SQL / "open_checkouts_of.sql", OpenCheckout)


class Checkouts:
    """Opens payment pages, and says how far they have come."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        stripe_api: StripeApi,
        payments: Payments,
        superseded: Superseded,
        settings: StripeSettings,
        base_url: str,
    ) -> None:
        self._database = database
        self._clock = clock
        self._stripe = stripe_api
        self._payments = payments
        self._superseded = superseded
        self._settings = settings
        self._base_url = base_url
        self._log = structlog.get_logger("checkouts")

    async def start(
        self, customer_id: str, body: CheckoutBody, *, idempotency_key: str | None = None
    ) -> StripeCheckout | FreeCheckout | Refused:
        """Start a checkout; with ``idempotency_key``, repeating it answers the same again.

        Raises ``StripeUnavailable`` within the settings' bound. What is refused, or raised about, leaves nothing half-made.
        """
        note = _kept_note(body.note)
        if isinstance(note, Refused):
            return note
        body = replace(body, note=note)
        fingerprint = _fingerprint(body)
        for _ in range(IDEMPOTENCY_TRIES_MAX):
            existing = await self._existing(customer_id, idempotency_key)
            if existing is not None:
                if existing.idempotency_hash != fingerprint:
                    return Refused("idempotency_key_reused", "This Idempotency-Key was used for a different checkout.")
                return await self._answer(existing)
            asked = await self._unsaved(customer_id, body)
            if isinstance(asked, Refused):
                return asked
            asked.idempotency_key = idempotency_key
            asked.idempotency_hash = fingerprint if idempotency_key else None
            try:
                if asked.price_cents == 0:
                    served = await self._payments.serve_free(asked)
                    if isinstance(served, Refused) and await self._existing(customer_id, idempotency_key):
                        # The same key came twice side by side, and the other one has used the free session.
                        continue
                    return served
                refused = await self._store(asked)
                if refused is not None and await self._existing(customer_id, idempotency_key):
                    # As above: the other one was the last that there was room for.
                    continue
            except IntegrityError:
                # The same key came twice side by side, and the other was faster: answer what it answers.
                continue
            return refused or await self._answer(asked)
        raise DatabaseUnavailable("The same idempotency key kept appearing and vanishing.")

    async def _store(self, checkout: tables.Checkout) -> Refused | None:
        """Store a checkout that is to be paid, unless its customer is gone, or has too many that can be paid."""
        async with self._database.write() as session:
            if not await within(session, LOCK_BUYER(customer_id=checkout.customer_id)):
                return GONE
            now_ms = self._clock.now_ms()
            others = await within(
                session,
                OPEN_CHECKOUTS_OF(
                    customer_id=checkout.customer_id,
                    now_ms=now_ms,
                    since_ms=now_ms - self._settings.session_lifetime_ms,
                    limit=OPEN_MAX,
                ),
            )
            if len(others) >= OPEN_MAX:
                wait_s = max(1, -(-(others[0].expires_at_ms - now_ms) // 1000))
                return TooMany(
                    detail=f"You have {OPEN_MAX} payments open. Finish one of them, or wait {wait_s} s.",
                    retry_after_s=wait_s,
                )
            session.add(checkout)
        return None

    async def state(self, customer_id: str, checkout_id: str) -> CheckoutState | Refused:
        """Return where a checkout stands; an open one is looked up at Stripe, and fulfilled at once if it is paid."""
        checkout = await self._own_checkout(customer_id, checkout_id)
        if checkout is not None and checkout.status == "open" and checkout.stripe_session_id is not None:
            try:
                await self._payments.fulfil(checkout.stripe_session_id)
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

    async def _unsaved(self, customer_id: str, body: CheckoutBody) -> tables.Checkout | Refused:
        """Return the checkout that the body asks for, with our own prices; nothing is stored yet."""
        async with self._database.read() as session:
            if await session.get(tables.Account, customer_id) is None:
                return GONE
            plan = await session.get(tables.Plan, body.plan)
            if plan is None:
                return no_such_plan(body.plan)
            if body.preferred_mechanic_id is None:
                if body.routing_type == "priority_broadcast":
                    return Refused(
                        "preferred_mechanic_required", "routing_type priority_broadcast needs a preferred_mechanic_id."
                    )
            elif (
                mechanic := await session.get(tables.Mechanic, body.preferred_mechanic_id)
            ) is None or mechanic.is_disabled:
                return NotFound("mechanic_not_found", "There is no such mechanic.")
            elif not takes(mechanic.session_types_off, plan.session_type):
                # Asked once, here: who is paid for is offered the request, whatever they switch off until then.
                detail = f"The preferred mechanic does not take {plan.session_type} sessions; choose another plan, or anyone."
                return Refused("plan_not_offered", detail)
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
            note=body.note,
        )

    async def _answer(self, checkout: tables.Checkout) -> StripeCheckout | FreeCheckout | Refused:
        """Return the answer to a stored checkout, asking Stripe for its page if that has not been done."""
        if checkout.price_cents == 0:
            assert checkout.request_id is not None, "a free checkout is stored with its request"
            [stored] = await self._database.query(READ_REQUESTS(ids=[checkout.request_id]))
            return FreeCheckout(checkout.id, "free", request_view(stored, now_ms=self._clock.now_ms()))
        assert checkout.expires_at_ms is not None, "every paid checkout has an end"
        url = checkout.url or await self._open_stripe_page(checkout)
        if isinstance(url, Refused):
            return url
        return StripeCheckout(checkout.id, "stripe", url, rfc3339(checkout.expires_at_ms))

    async def _open_stripe_page(self, checkout: tables.Checkout) -> str | Refused:
        try:
            stripe_session = await self._create_session(checkout)
            if stripe_session.url is None:
                raise StripeUnavailable("Stripe opened a Session without a page to pay on.")
        except (StripeUnavailable, StripeRefused) as error:
            # Nobody has seen its page, so nobody can pay it: forgetting it leaves nothing half-made.
            async with self._database.write() as session:
                await session.exec(
                    delete(tables.Checkout).where(
                        col(tables.Checkout.id) == checkout.id, col(tables.Checkout.stripe_session_id).is_(None)
                    )
                )
            if isinstance(error, StripeRefused) and error.code != KEY_REUSED:
                return Refused(
                    "checkout_refused",
                    f"Stripe does not take this payment; nothing was charged. {error.reason or ''}".rstrip(),
                )
            raise StripeUnavailable(
                "The payment page could not be opened; nothing was charged. Please try again."
            ) from error
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
        self._superseded.note(checkout.customer_id)
        return stripe_session.url

    async def _create_session(self, checkout: tables.Checkout) -> CheckoutSession:
        """Create the page at Stripe; repeating it, also after a crash, creates no other.

        An e-mail address that is good enough for us may not be for Stripe, which can do without one: its page asks for it then.
        """
        params = await self._session_params(checkout)
        key = f"checkout:{checkout.id}"
        try:
            return await self._stripe.create_session(params, idempotency_key=key)
        except StripeRefused as error:
            if error.param != "customer_email":
                raise
        # Under a key of its own: the same key must always mean the same.
        del params["customer_email"]
        return await self._stripe.create_session(params, idempotency_key=f"{key}:without-email")

    async def _session_params(self, checkout: tables.Checkout) -> SessionCreateParams:
        async with self._database.read() as session:
            customer = await session.get_one(tables.Account, checkout.customer_id)
            plan = await session.get_one(tables.Plan, checkout.plan_id)
            mechanic = None
            if checkout.preferred_mechanic_id is not None:
                mechanic = await session.get_one(tables.Mechanic, checkout.preferred_mechanic_id)
        metadata: dict[str, str] = {
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
            "allowed_payment_method_types": list(PROMPT_METHODS),
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


def _kept_note(written: str | None) -> str | Refused | None:
    """Return a note as it is kept; ``None`` if there is none."""
    return kept(written, "note", len_max=NOTE_LEN_MAX, keeps_lines=True) if written else None


def _fingerprint(body: CheckoutBody) -> str:
    """Return what tells a repeated checkout from another one under the same idempotency key.

    Without a note it is the one of the version that knew none: a checkout may be repeated after an upgrade.
    """
    members = msgspec.to_builtins(body)
    if body.note is None:
        del members["note"]
    return hashlib.sha256(msgspec.json.encode(members)).hexdigest()
