"""Where Stripe tells us what happened to payments."""

from msgspec import Struct

from http_api.rest.operation import ANYONE, Call, RawBody, operation
from models.outcomes import Refused

EVENT_LEN_MAX = 1024 * 1024
"""Bytes. Stripe's events take a few kilobytes."""


class Received(Struct):
    received: bool


@operation(
    "POST",
    "/api/stripe/webhook",
    roles=ANYONE,
    body=RawBody(EVENT_LEN_MAX),
    answers={200: Received},
    problems=("bad_signature", "unavailable"),
)
async def stripe_webhook(call: Call) -> Received | Refused:
    """Take an event that Stripe has signed (`Stripe-Signature`); 200 once it is safely stored, or was before."""
    refused = await call.services.payments.receive_webhook(call.body, call.headers.get("stripe-signature"))
    return Received(True) if refused is None else refused


OPERATIONS = [stripe_webhook]
