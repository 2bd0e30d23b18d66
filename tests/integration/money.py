"""What the tests of money do again and again: start a checkout, look where it stands, sign an event."""

import json
import time
from typing import Any

from embedded.stripe_standin.webhooks import signature_header
from models import tables
from models.rest import CheckoutState, StripeCheckout
from tests.parts import WEBHOOK_SECRET, Node, World, body


async def checkout(node: Node, customer_id: str, *, plan: str = "quick_chat", **options: Any) -> StripeCheckout:
    answer = await node.checkouts.start(customer_id, body(plan, options.pop("favorite", None)), **options)
    assert isinstance(answer, StripeCheckout), answer
    return answer


async def state(node: Node, customer_id: str, checkout_id: str) -> CheckoutState:
    answer = await node.checkouts.state(customer_id, checkout_id)
    assert isinstance(answer, CheckoutState), answer
    return answer


async def session_id_of(world: World, checkout_id: str) -> str:
    row = await world.row(tables.Checkout, checkout_id)
    assert row.stripe_session_id is not None
    return row.stripe_session_id


async def page_for_later(world: World, node: Node, checkout_id: str) -> str:
    """Give a checkout a page on which it can be paid by a method that settles later, as those of an earlier version; return it."""
    row = await world.row(tables.Checkout, checkout_id)
    price = {"currency": row.currency, "unit_amount": row.price_cents, "product_data": {"name": row.plan_id}}
    opened = await node.stripe_api.create_session(
        {
            "mode": "payment",
            "line_items": [{"quantity": 1, "price_data": price}],
            "client_reference_id": row.id,
            "success_url": "http://127.0.0.1:9/",
            "cancel_url": "http://127.0.0.1:9/back",
        },  # type: ignore[arg-type]
        idempotency_key=f"for-later:{row.id}",
    )
    assert opened.url is not None
    await world.update(tables.Checkout, row.id, stripe_session_id=opened.id, url=opened.url)
    return opened.url


async def is_refunded(world: World, checkout_id: str) -> bool:
    return [refund.status for refund in await world.rows(tables.Refund, checkout_id=checkout_id)] == ["succeeded"]


def now_s() -> int:
    return time.time_ns() // 1_000_000_000


def signed(event: dict[str, Any], secret: str = WEBHOOK_SECRET, *, age_s: int = 0) -> tuple[bytes, str]:
    """Return an event's body and signature, as Stripe would have sent them some time ago."""
    payload = json.dumps(event)
    return payload.encode(), signature_header(payload, secret, now_s() - age_s)
