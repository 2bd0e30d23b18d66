"""What a Checkout Session means for us. Pure: the Session as Stripe has it now, and what was asked for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Asked:
    """What the customer was asked to pay, and whether our key takes real money (``None`` if it does not say)."""

    price_cents: int
    currency: str
    is_live: bool | None = None


@dataclass(frozen=True)
class PaidSession:
    """The parts of Stripe's Session that decide (docs.stripe.com/api/checkout/sessions/object)."""

    status: str | None
    payment_status: str | None
    mode: str | None
    amount_total_cents: int | None
    currency: str | None
    payment_intent_id: str | None
    intent_status: str | None = None
    is_live: bool | None = None
    """Whether real money was paid (``livemode``)."""
    has_moved: bool = False
    """Whether some of it has been given back already, or the customer's bank asks for it."""

    @property
    def is_paid(self) -> bool:
        """Whether nothing more is to be paid."""
        return self.payment_status in ("paid", "no_payment_required")


@dataclass(frozen=True)
class Serve:
    """Make the request; ``paid_cents`` is what was really paid (zero with a full discount)."""

    paid_cents: int


@dataclass(frozen=True)
class GiveBack:
    """Something other than what was asked has been paid: never dispatched, refunded in full."""

    paid_cents: int


@dataclass(frozen=True)
class Expire:
    """It was never paid, and cannot be any more."""


@dataclass(frozen=True)
class Fail:
    """It was to be paid asynchronously, and that came to nothing."""


@dataclass(frozen=True)
class Wait:
    """Not paid yet; also a complete Session whose asynchronous payment is still on its way."""


@dataclass(frozen=True)
class Ignore:
    """It is of the other mode: play money must not be served, and real money is not ours to touch with a test key."""


Verdict = Serve | GiveBack | Expire | Fail | Wait | Ignore

INTENT_FAILED = frozenset({"requires_payment_method", "canceled"})
"""What becomes of the PaymentIntent of a complete Session when the money does not arrive
(docs.stripe.com/payments/paymentintents/lifecycle)."""


def judge(asked: Asked, session: PaidSession) -> Verdict:
    """Return what follows from the Session."""
    if is_other_mode(asked.is_live, session.is_live):
        return Ignore()
    paid_cents = session.amount_total_cents or 0
    if session.payment_status == "paid":
        # Whatever else the Session says of itself: who paid is served, or gets it back.
        is_as_asked = (session.mode, paid_cents, session.currency) == ("payment", asked.price_cents, asked.currency)
        return Serve(paid_cents) if is_as_asked else GiveBack(paid_cents)
    if session.status == "expired":
        return Expire()
    if session.status != "complete":
        return Wait()
    if session.payment_status == "no_payment_required":
        return Serve(0) if paid_cents == 0 else GiveBack(paid_cents)
    return Fail() if session.intent_status in INTENT_FAILED else Wait()


def is_other_mode(ours: bool | None, theirs: bool | None) -> bool:
    """Tell whether one is live and the other a test; what one side does not say cannot be wrong."""
    return ours is not None and theirs is not None and ours != theirs
