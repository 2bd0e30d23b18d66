"""Stripe through its SDK: the few calls that we make, with a bound on time and our own two kinds of error."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import msgspec
import stripe
import structlog
from stripe.params import RefundCreateParams
from stripe.params.checkout import SessionCreateParams, SessionListParams

from dispatch.money.fulfilment import PaidSession
from models.errors import StripeRefused, StripeUnavailable
from models.settings import StripeSettings

SIGNATURE_TOLERANCE_S = 300
"""How old a signature may be (docs.stripe.com/webhooks/signature)."""
PAGE_LEN = 100
"""As many Sessions as Stripe lists on one page."""


@dataclass(frozen=True)
class CheckoutSession:
    """A Checkout Session as Stripe has it now; ``url`` is ``None`` unless it is open, ``reference`` is our checkout's id."""

    id: str
    url: str | None
    reference: str | None
    paid: PaidSession
    metadata: Mapping[str, str] = field(default_factory=dict)


class EventSubject(msgspec.Struct, frozen=True):
    """The object that an event is about; not all have ids."""

    id: str | None = None


class EventData(msgspec.Struct, frozen=True):
    object: EventSubject = EventSubject()


class WebhookEvent(msgspec.Struct, frozen=True):
    """What we read of an event (docs.stripe.com/api/events/object); what it tells of is asked for again."""

    id: str
    type: str = ""
    created: int | None = None
    livemode: bool | None = None
    data: EventData = EventData()


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

    @property
    def is_live(self) -> bool | None:
        """Whether our key takes real money; ``None`` if it does not say."""
        return self._settings.is_live

    async def close(self) -> None:
        """Close the connections to Stripe; idempotent."""
        await self._http.close_async()

    async def create_session(self, params: SessionCreateParams, *, idempotency_key: str) -> CheckoutSession:
        """Create a Checkout Session (docs.stripe.com/api/checkout/sessions/create)."""
        async with self._asking("create a Checkout Session"):
            created = await self._client.v1.checkout.sessions.create_async(params, {"idempotency_key": idempotency_key})
            return _session(created.to_dict())

    async def session(self, session_id: str) -> CheckoutSession:
        """Return a Checkout Session as Stripe has it now, with what became of its PaymentIntent."""
        async with self._asking("retrieve a Checkout Session"):
            # Each event of a Session asks for it, so as Stripe wrote it: the SDK's objects, of which we read ten members, take as
            # long to build as the answer to arrive.
            path = f"/v1/checkout/sessions/{_id_for_a_path(session_id)}"
            answer = await self._client.raw_request_async("get", path, expand=["payment_intent"])
            if not isinstance(answer.data, dict):
                raise StripeUnavailable("Stripe answered with something that is no object.")
            return _session(answer.data)

    async def expire_session(self, session_id: str) -> CheckoutSession:
        """Let nobody pay on this page any more; Stripe refuses when the Session is not open (any more)."""
        async with self._asking("expire a Checkout Session"):
            expired = await self._client.v1.checkout.sessions.expire_async(_id_for_a_path(session_id))
            return _session(expired.to_dict())

    async def complete_sessions(self, *, since_s: int, after: str | None = None) -> tuple[list[CheckoutSession], bool]:
        """Return some of the Sessions created since then (Unix seconds) that were completed, newest first, and whether more follow.

        ``after`` is the id of the last one of the page before. Of the payment only ``payment_intent_id`` is known.
        """
        params: SessionListParams = {"created": {"gte": since_s}, "status": "complete", "limit": PAGE_LEN}
        if after is not None:
            params["starting_after"] = after
        async with self._asking("list Checkout Sessions"):
            listed = await self._client.v1.checkout.sessions.list_async(params)
            return [_session(one.to_dict()) for one in listed.data], bool(listed.has_more)

    async def refund(self, params: RefundCreateParams, *, idempotency_key: str) -> StripeRefund:
        """Create a refund (docs.stripe.com/api/refunds/create)."""
        async with self._asking("create a refund"):
            return _refund(await self._client.v1.refunds.create_async(params, {"idempotency_key": idempotency_key}))

    async def refund_now(self, refund_id: str) -> StripeRefund:
        """Return a refund as Stripe has it now."""
        async with self._asking("retrieve a refund"):
            return _refund(await self._client.v1.refunds.retrieve_async(_id_for_a_path(refund_id)))

    def verified_event(self, payload: bytes, signature: str) -> WebhookEvent | None:
        """Return the event if any of our secrets signed it within the tolerance, else ``None``.

        docs.stripe.com/webhooks/signature; several secrets are valid side by side while one is being rotated.
        """
        for secret in self._settings.webhook_secrets:
            try:
                stripe.WebhookSignature.verify_header(payload.decode(), signature, secret, SIGNATURE_TOLERANCE_S)
                # Not the SDK's own object, which takes its time to build the whole tree of what we do not read.
                return msgspec.json.decode(payload, type=WebhookEvent)
            except stripe.SignatureVerificationError:
                continue
            except (ValueError, msgspec.DecodeError):
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
            self._log.warning("stripe_refused", what=what, code=error.code, error=_one_line(error))
            said = error.user_message or _one_line(error)
            raise StripeRefused(f"Stripe refused to {what}: {said}", code=error.code) from error
        except stripe.StripeError as error:
            self._log.warning("stripe_unavailable", what=what, error=_one_line(error))
            raise StripeUnavailable(f"Stripe could not {what}: {_one_line(error)}") from error


def _session(said: Mapping[str, Any]) -> CheckoutSession:
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
            is_live=said.get("livemode"),
        ),
        metadata=said.get("metadata") or {},
    )


def _refund(answer: stripe.Refund) -> StripeRefund:
    said = answer.to_dict()
    return StripeRefund(_id_of(said), said.get("status"), (said.get("metadata") or {}).get("refund_id"))


def _one_line(error: stripe.StripeError) -> str:
    """Return what the SDK says, whose sentences about a lost connection are several paragraphs long."""
    return " ".join(str(error).split())


def _id_of(said: Mapping[str, object]) -> str:
    its_id = said.get("id")
    if not isinstance(its_id, str):
        raise StripeUnavailable("Stripe answered with something that has no id.")
    return its_id


def _id_for_a_path(said: str) -> str:
    """Return an id that others have told us, for the path of a request; raises ``StripeRefused`` for what would lead elsewhere."""
    if re.fullmatch(r"[A-Za-z0-9_]{1,255}", said) is None:
        raise StripeRefused("This is no id of an object at Stripe.", code="resource_missing")
    return said
