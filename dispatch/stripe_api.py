"""Stripe through its SDK: the few calls that we make, with a bound on time and our own two kinds of error."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import stripe
import structlog

from dispatch.fulfilment import PaidSession
from models.errors import StripeRefused, StripeUnavailable
from models.settings import StripeSettings


@dataclass(frozen=True)
class CheckoutSession:
    """A Checkout Session as Stripe has it now; ``url`` is ``None`` unless it is open, ``reference`` is our checkout's id."""

    id: str
    url: str | None
    reference: str | None
    paid: PaidSession


@dataclass(frozen=True)
class StripeRefund:
    """A refund as Stripe has it now; ``ours`` is the id that we wrote on it."""

    id: str
    status: str | None
    ours: str | None


class StripeApi:
    """Raises ``StripeUnavailable`` (ask again later, under the same key) and ``StripeRefused`` (it will not be done)."""

    def __init__(self, settings: StripeSettings) -> None:
        self._settings = settings
        self._log = structlog.get_logger("stripe")
        self._http = stripe.HTTPXClient(timeout=settings.timeout_s)
        self._client = stripe.StripeClient(
            settings.secret_key,
            base_addresses={"api": settings.api_base} if settings.api_base else None,
            max_network_retries=settings.tries_max - 1,
            http_client=self._http,
        )

    async def close(self) -> None:
        """Close the connections to Stripe; idempotent."""
        await self._http.close_async()

    async def create_session(self, params: Mapping[str, Any], *, idempotency_key: str) -> CheckoutSession:
        """Create a Checkout Session (docs.stripe.com/api/checkout/sessions/create)."""
        async with self._asking("create a Checkout Session"):
            options: Any = {"idempotency_key": idempotency_key}
            return _session(await self._client.v1.checkout.sessions.create_async(params, options))  # type: ignore[arg-type]

    async def session(self, session_id: str) -> CheckoutSession:
        """Return a Checkout Session as Stripe has it now, with what became of its PaymentIntent."""
        async with self._asking("retrieve a Checkout Session"):
            expanded: Any = {"expand": ["payment_intent"]}
            return _session(await self._client.v1.checkout.sessions.retrieve_async(session_id, expanded))

    async def refund(self, params: Mapping[str, Any], *, idempotency_key: str) -> StripeRefund:
        """Create a refund (docs.stripe.com/api/refunds/create)."""
        async with self._asking("create a refund"):
            options: Any = {"idempotency_key": idempotency_key}
            return _refund(await self._client.v1.refunds.create_async(params, options))  # type: ignore[arg-type]

    async def refund_now(self, refund_id: str) -> StripeRefund:
        """Return a refund as Stripe has it now."""
        async with self._asking("retrieve a refund"):
            return _refund(await self._client.v1.refunds.retrieve_async(refund_id))

    def verified_event(self, payload: bytes, signature: str) -> Mapping[str, Any] | None:
        """Return the event if any of our secrets signed it within the tolerance of five minutes, else ``None``.

        docs.stripe.com/webhooks/signature; several secrets are valid at once while one is being rotated.
        """
        for secret in self._settings.webhook_secrets:
            try:
                return stripe.Webhook.construct_event(payload, signature, secret).to_dict()
            except stripe.SignatureVerificationError:
                continue
            except ValueError:
                return None
        return None

    @asynccontextmanager
    async def _asking(self, what: str) -> AsyncIterator[None]:
        # The SDK's own time-out is per attempt; this bounds all attempts together.
        try:
            with anyio.fail_after(self._settings.timeout_s):
                yield
        except TimeoutError as error:
            raise StripeUnavailable(f"Stripe did not {what} within {self._settings.timeout_s:g} s.") from error
        except (stripe.InvalidRequestError, stripe.IdempotencyError, stripe.CardError) as error:
            self._log.warning("stripe_refused", what=what, code=error.code, error=str(error))
            raise StripeRefused(f"Stripe refused to {what}: {error.user_message or error}", code=error.code) from error
        except stripe.StripeError as error:
            self._log.warning("stripe_unavailable", what=what, error=str(error))
            raise StripeUnavailable(f"Stripe could not {what}: {error}") from error


def _session(answer: stripe.checkout.Session) -> CheckoutSession:
    said = answer.to_dict()
    # Expanded, as we ask for it; an id alone, or nothing before there is a charge, is an answer too.
    intent = said.get("payment_intent")
    intent = {"id": intent} if isinstance(intent, str) else intent or {}
    return CheckoutSession(
        id=_id_of(said),
        url=said.get("url"),
        reference=said.get("client_reference_id"),
        paid=PaidSession(
            status=said.get("status"),
            payment_status=said.get("payment_status"),
            mode=said.get("mode"),
            amount_total_cents=said.get("amount_total"),
            currency=said.get("currency"),
            payment_intent_id=intent.get("id"),
            intent_status=intent.get("status"),
        ),
    )


def _refund(answer: stripe.Refund) -> StripeRefund:
    said = answer.to_dict()
    return StripeRefund(_id_of(said), said.get("status"), (said.get("metadata") or {}).get("refund_id"))


def _id_of(said: Mapping[str, Any]) -> str:
    if not isinstance(said.get("id"), str):
        raise StripeUnavailable("Stripe answered with something that has no id.")
    return said["id"]
