"""Stripe through its SDK: the few calls that we make, with a bound on time and our own two kinds of error."""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

import anyio
import msgspec
import stripe
import structlog
from stripe.params import RefundCreateParams
from stripe.params.checkout import SessionCreateParams, SessionListParams

from dispatch.money.fulfilment import PaidSession
from dispatch.money.ledger import DISPUTE_LOST, Entry
from models.errors import StripeForbids, StripeRefused, StripeUnavailable
from models.outcomes import Refused
from models.settings import StripeSettings

SIGNATURE_TOLERANCE_S = 300
"""How old a signature may be (docs.stripe.com/webhooks/signature)."""
PAGE_LEN = 100
"""As many objects as Stripe lists on one page."""
PAGES_MAX = 100
"""Of one list; a single payment's refunds fit on the first."""
ID_FORM = re.compile(r"[A-Za-z0-9_]{1,255}")
MEMBERS_READ = 8
"""Of an event, inner ones included: so many may be other than they should be."""
KEY_REUSED = "idempotency_error"
"""The code of a refusal that is not about what was asked: other things were asked under the same idempotency key before."""


@dataclass(frozen=True)
class CheckoutSession:
    """A Checkout Session as Stripe has it now; ``url`` is ``None`` unless it is open, ``reference`` is our checkout's id."""

    id: str
    url: str | None
    reference: str | None
    paid: PaidSession
    metadata: Mapping[str, str] = field(default_factory=dict)


StripeId = Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,255}$(?!\n)")]
"""Of an object at Stripe, as far as we keep it."""


class EventSubject(msgspec.Struct, frozen=True):
    """The object that an event is about; not all have ids. ``payment_intent``: of a charge, a refund or a dispute."""

    id: StripeId | None = None
    payment_intent: str | dict[str, Any] | None = None


class EventData(msgspec.Struct, frozen=True):
    object: EventSubject = EventSubject()


class WebhookEvent(msgspec.Struct, frozen=True):
    """What we read of an event (docs.stripe.com/api/events/object); what it tells of is asked for again."""

    id: StripeId
    type: Annotated[str, msgspec.Meta(pattern=r"^[!-~]{0,255}$(?!\n)")] = ""
    created: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None = None
    livemode: bool | None = None
    data: EventData = EventData()

    @property
    def payment_intent_id(self) -> str | None:
        """Of which payment its object is, if it says so."""
        intent_id = _intent_of({"payment_intent": self.data.object.payment_intent})
        return intent_id if intent_id is not None and ID_FORM.fullmatch(intent_id) else None


@dataclass(frozen=True)
class Listed:
    """A refund or a dispute of any payment of the account, as Stripe lists it."""

    id: str
    payment_intent_id: str
    status: str


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
            answer = await self._client.raw_request_async("get", path, expand=["payment_intent.latest_charge"])
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

    async def session_of(self, payment_intent_id: str) -> CheckoutSession | None:
        """Return the Checkout Session that a PaymentIntent was made by; ``None`` if it was made otherwise."""
        async with self._asking("list Checkout Sessions"):
            listed = await self._client.v1.checkout.sessions.list_async(
                {"payment_intent": payment_intent_id, "limit": 1}
            )
            sessions = [_session(one.to_dict()) for one in listed.data]
        return next((one for one in sessions if one.paid.payment_intent_id == payment_intent_id), None)

    async def entries(
        self, payment_intent_id: str, *, checkout_id: str, with_refunds: bool, with_disputes: bool
    ) -> list[Entry]:
        """Return what has moved of a payment: its refunds and disputes, as Stripe has them now.

        ``checkout_id``: what we write on ours. The charge tells whether there are any; ``with_refunds`` and ``with_disputes`` list
        them even if it says that there are none (one that has failed does not count there).
        """
        async with self._asking("retrieve a PaymentIntent"):
            path = f"/v1/payment_intents/{_id_for_a_path(payment_intent_id)}"
            answer = await self._client.raw_request_async("get", path, expand=["latest_charge"])
            intent = answer.data if isinstance(answer.data, dict) else {}
        charge = intent.get("latest_charge")
        if isinstance(charge, str):
            async with self._asking("retrieve a charge"):
                answer = await self._client.raw_request_async("get", f"/v1/charges/{_id_for_a_path(charge)}")
                charge = answer.data
        charge = charge if isinstance(charge, dict) else {}
        entries: list[Entry] = []
        if with_refunds or charge.get("amount_refunded"):
            async for one in self._listed_of(payment_intent_id, "/v1/refunds"):
                entries.append(_refund(one, checkout_id))
            listed_cents = sum(entry.amount_cents for entry in entries if not entry.has_failed)
            if listed_cents < int(charge.get("amount_refunded") or 0):
                raise StripeUnavailable("Stripe's list of refunds does not have yet what the charge says is refunded.")
        if with_disputes or charge.get("disputed"):
            async for one in self._listed_of(payment_intent_id, "/v1/disputes"):
                entries.append(_dispute(one))
        # Stripe lists the newest first.
        return entries[::-1]

    async def moved_since(self, kind: Literal["refunds", "disputes"], since_s: int) -> AsyncIterator[Listed]:
        """Tell the refunds or disputes of the whole account that were made since then (Unix seconds)."""
        async for one in self._listed(f"/v1/{kind}", created={"gte": since_s}):
            if (intent_id := _intent_of(one)) is not None:
                yield Listed(_id_of(one), intent_id, str(one.get("status")))

    async def _listed_of(self, payment_intent_id: str, path: str) -> AsyncIterator[Mapping[str, Any]]:
        async for one in self._listed(path, payment_intent=payment_intent_id):
            # Of another payment it would be money that never moved: whoever answers has not understood the question.
            if _intent_of(one) in (None, payment_intent_id):
                yield one

    async def _listed(self, path: str, **params: Any) -> AsyncIterator[Mapping[str, Any]]:
        after: dict[str, str] = {}
        for _ in range(PAGES_MAX):
            async with self._asking(f"list {path.rpartition('/')[2]}"):
                answer = await self._client.raw_request_async("get", path, limit=PAGE_LEN, **params, **after)
            page = answer.data.get("data", []) if isinstance(answer.data, dict) else []
            for one in page:
                yield one
            if not page or not answer.data.get("has_more"):
                return
            after = {"starting_after": _id_of(page[-1])}
        self._log.error("stripe_list_cut_off", path=path, pages=PAGES_MAX)

    async def refund(self, params: RefundCreateParams, *, checkout_id: str, idempotency_key: str) -> Entry:
        """Create a refund (docs.stripe.com/api/refunds/create); ``checkout_id`` is written on it."""
        async with self._asking("create a refund"):
            created = await self._client.v1.refunds.create_async(params, {"idempotency_key": idempotency_key})
            return _refund(created.to_dict(), checkout_id)

    async def intent_of(self, kind: Literal["refunds", "disputes", "charges"], its_id: str) -> str | None:
        """Return the id of the PaymentIntent that a refund, a dispute or a charge is of."""
        async with self._asking(f"retrieve one of the {kind}"):
            answer = await self._client.raw_request_async("get", f"/v1/{kind}/{_id_for_a_path(its_id)}")
            return _intent_of(answer.data if isinstance(answer.data, dict) else {})

    def verified_event(self, payload: bytes, signature: str) -> WebhookEvent | Refused:
        """Return the event if any of our secrets signed it within the tolerance; else ``bad_signature``.

        docs.stripe.com/webhooks/signature; several secrets are valid side by side while one is being rotated. What is signed and no
        event is ``malformed_json``: it is not the signature that somebody has to look for.
        """
        for secret in self._settings.webhook_secrets:
            try:
                stripe.WebhookSignature.verify_header(payload.decode(), signature, secret, SIGNATURE_TOLERANCE_S)
            except stripe.SignatureVerificationError:
                continue
            except (ValueError, TypeError):
                # No text, no number, or no ASCII, which the SDK cannot compare.
                break
            return event_of(payload) or Refused("malformed_json", "This is signed, and no event that could be kept.")
        return Refused("bad_signature", "The Stripe-Signature header does not match the body, or is too old.")

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
            raise StripeRefused(
                f"Stripe refused to {what}: {said}",
                code=KEY_REUSED if isinstance(error, stripe.IdempotencyError) else error.code,
                # The SDK's errors about a parameter have it; the others do not.
                param=getattr(error, "param", None),
                reason=_for_people(error),
            ) from error
        except (stripe.AuthenticationError, stripe.PermissionError) as error:
            self._log.error("stripe_forbids", what=what, error=_one_line(error))
            raise StripeForbids(f"Stripe's key may not {what}: {_one_line(error)}") from error
        except stripe.StripeError as error:
            self._log.warning("stripe_unavailable", what=what, error=_one_line(error))
            unavailable = StripeUnavailable(f"Stripe could not {what}: {_one_line(error)}")
            unavailable.is_answer = (error.http_status or 0) >= 500
            unavailable.is_replayed = (error.headers or {}).get("idempotent-replayed") == "true"
            raise unavailable from error


def event_of(payload: bytes) -> WebhookEvent | None:
    """Return what can be read of an event: without what is not of the kind that it should be; ``None`` if it has no id.

    Stripe would repeat for days what is refused, and no repetition is easier to read.
    """
    try:
        # Not the SDK's own object, which takes its time to build the whole tree of what we do not read.
        return msgspec.json.decode(payload, type=WebhookEvent)
    except msgspec.ValidationError:
        pass
    except (msgspec.DecodeError, RecursionError):
        return None
    try:
        said = msgspec.json.decode(payload)
    except (msgspec.DecodeError, RecursionError):
        return None
    for _ in range(MEMBERS_READ):
        try:
            return msgspec.convert(said, WebhookEvent)
        except msgspec.ValidationError as error:
            if not _is_left_out(said, str(error).partition(" - at `$.")[2].rstrip("`").split(".")):
                break
    return None


UNSAID: Final = object()


def _is_left_out(said: Any, path: Sequence[str]) -> bool:
    """Take the member at ``path`` away; ``False`` if there is none."""
    *parents, name = path
    for parent in parents:
        said = said[parent]
    return isinstance(said, dict) and said.pop(name, UNSAID) is not UNSAID


def _session(said: Mapping[str, Any]) -> CheckoutSession:
    # Expanded, as we ask for it; an id alone, or nothing before there is a charge, is an answer too.
    intent = said.get("payment_intent")
    intent = {"id": intent} if isinstance(intent, str) else intent or {}
    charge = intent.get("latest_charge")
    charge = charge if isinstance(charge, dict) else {}
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
            has_moved=bool(charge.get("amount_refunded") or charge.get("disputed")),
        ),
        metadata=said.get("metadata") or {},
    )


def _refund(said: Mapping[str, Any], checkout_id: str) -> Entry:
    written = said.get("metadata") or {}
    is_ours = "refund_id" in written and written.get("checkout_id") == checkout_id
    return Entry(
        _id_of(said),
        "refund",
        int(said.get("amount") or 0),
        str(said.get("status")),
        is_ours=is_ours,
        # Only a refund that has failed has one.
        reason=said.get("failure_reason") if said.get("status") == "failed" else None,
    )


def _dispute(said: Mapping[str, Any]) -> Entry:
    status = str(said.get("status"))
    balance_cents = sum(int(one.get("amount") or 0) for one in said.get("balance_transactions") or ())
    if status == "prevented" and balance_cents < 0:
        # Prevented by giving the money to the customer (docs.stripe.com/disputes/prevention): it is gone all the same.
        status = DISPUTE_LOST
    return Entry(
        _id_of(said),
        "dispute",
        int(said.get("amount") or 0),
        status,
        is_refundable=bool(said.get("is_charge_refundable")),
    )


def _intent_of(said: Mapping[str, Any]) -> str | None:
    """Return the id of an object's PaymentIntent, which may be expanded."""
    intent = said.get("payment_intent")
    intent = intent.get("id") if isinstance(intent, dict) else intent
    return intent if isinstance(intent, str) else None


def _one_line(error: stripe.StripeError) -> str:
    """Return what the SDK says, whose sentences about a lost connection are several paragraphs long."""
    return " ".join(str(error).split())


def _for_people(error: stripe.StripeError) -> str | None:
    """Return Stripe's sentence about a refusal. Stripe writes no key in full; that none goes further does not hang on it."""
    said = " ".join((error.user_message or "").split())
    return re.sub(r"\b(?:sk|rk|whsec)_\w+", "…", said) or None


def _id_of(said: Mapping[str, object]) -> str:
    its_id = said.get("id")
    if not isinstance(its_id, str):
        raise StripeUnavailable("Stripe answered with something that has no id.")
    return its_id


def _id_for_a_path(said: str) -> str:
    """Return an id that others have told us, for the path of a request; raises ``StripeRefused`` for what would lead elsewhere."""
    if ID_FORM.fullmatch(said) is None:
        raise StripeRefused("This is no id of an object at Stripe.", code="resource_missing")
    return said
