"""Where Stripe tells us what happened to payments."""

from msgspec import Struct

from dispatch.money.payments import Payments
from http_api.rest.operation import ANYONE, Call, Operation, RawBody, operation
from models.outcomes import Refused

EVENT_LEN_MAX = 1024 * 1024
"""Bytes. Stripe's events take a few kilobytes."""


class Received(Struct):
    received: bool


def operations(payments: Payments) -> list[Operation]:
    """Return this module's part of the table."""

    @operation(
        "POST",
        "/api/stripe/webhook",
        roles=ANYONE,
        body=RawBody(EVENT_LEN_MAX),
        answers={200: Received},
        problems=("bad_signature", "malformed_json", "unavailable"),
    )
    async def stripe_webhook(call: Call) -> Received | Refused:
        """Take an event that Stripe has signed (`Stripe-Signature`); 200 once it is safely stored, or was before.

        Members that are not what they should be are left out; only what has no id cannot be stored.
        """
        refused = await payments.receive_webhook(call.body_as(bytes), call.headers.get("stripe-signature"))
        return Received(True) if refused is None else refused

    return [stripe_webhook]
