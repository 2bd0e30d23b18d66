"""A server process is killed between any two steps of checkout, fulfilment and refund; after its restart all ends are right.

One kill for all steps: each step has a customer of its own, whom it leads to its point and keeps there, by a request to Stripe that
a proxy holds, or by a row lock that the test takes on PostgreSQL. Then SIGKILL, a restart, and each looks at its customer's end.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from models import tables
from tests.acceptance.shop import KEY, PATIENCE_S, WANTED, Shop, open_shop
from tests.parts import eventually as within
from tests.parts import side_by_side

eventually = partial(within, within_s=PATIENCE_S)


# --- the steps: each yields when it is prepared, and again when its customer is kept at the point ------------------------


async def asked_for_a_page_that_stripe_has_not_heard_of(shop: Shop) -> AsyncIterator[None]:
    customer_id = await shop.world.customer()
    held = shop.held("create", customer_id)
    yield
    shop.attempt(customer_id, "/api/checkout", json=WANTED, headers=KEY)
    await eventually(lambda: held.is_reached, "asked")
    yield
    held.lose()
    # The customer tries again, with the same key.
    await shop.world.pay((await shop.opened(customer_id))["url"])
    await shop.served_once(customer_id)
    assert len(await shop.world.rows(tables.Checkout, customer_id=customer_id)) == 1


async def asked_for_a_page_that_stripe_has_made(shop: Shop) -> AsyncIterator[None]:
    customer_id = await shop.world.customer()
    held = shop.held("create", customer_id, is_done=True)
    yield
    shop.attempt(customer_id, "/api/checkout", json=WANTED, headers=KEY)
    await eventually(lambda: held.is_reached, "made")
    yield
    held.lose()
    made = next(one for one in shop.proxy.made("create") if customer_id in one.body)
    # On a machine so slow that we had given it up before the kill, it is forgotten, and there is a new one.
    was_kept = await shop.world.rows(tables.Checkout, customer_id=customer_id)
    url = (await shop.opened(customer_id))["url"]
    assert url == made.answer["url"] or not was_kept
    await shop.world.pay(url)
    await shop.served_once(customer_id)


async def stored_an_event_and_asked_stripe(shop: Shop, *, is_done: bool) -> AsyncIterator[None]:
    customer_id, checkout = await shop.about_to_pay()
    held = shop.held("retrieve", checkout.stripe_session_id, is_done=is_done)
    yield
    await shop.world.pay(checkout.url)
    await eventually(lambda: held.is_reached, "stored, and claimed")
    yield
    held.lose()
    await shop.served_once(customer_id)


async def amid_the_transaction_that_serves(shop: Shop) -> AsyncIterator[None]:
    customer_id, checkout = await shop.about_to_pay()
    async with shop.locked(tables.Checkout, checkout.id) as somebody_waits:
        yield
        await shop.world.pay(checkout.url)
        await eventually(somebody_waits, "the transaction has begun")
        yield
    await shop.served_once(customer_id)


async def served_and_not_noted_that_the_event_is_done(shop: Shop) -> AsyncIterator[None]:
    customer_id, checkout = await shop.about_to_pay()
    held = shop.held("retrieve", checkout.stripe_session_id)
    yield
    await shop.world.pay(checkout.url)
    await eventually(lambda: held.is_reached, "stored, and claimed")
    (event,) = await shop.world.rows(tables.StripeEvent, object_id=checkout.stripe_session_id)
    async with shop.locked(tables.StripeEvent, event.id) as somebody_waits:
        held.is_released = True
        await eventually(somebody_waits, "served, and all but noted")
        yield
    await shop.served_once(customer_id)


async def showed_a_newer_page_and_left_the_older_open(shop: Shop) -> AsyncIterator[None]:
    customer_id, older = await shop.about_to_pay()
    held = shop.held("expire", older.stripe_session_id)
    yield
    async with shop.rest(customer_id) as rest:
        newer = await rest.ok("POST", "/api/checkout", json=WANTED, status=201)
    await eventually(lambda: held.is_reached, "Stripe is asked")
    yield
    held.lose()

    async def is_expired() -> bool:
        return (await shop.world.row(tables.Checkout, older.id)).status == "expired"

    await eventually(is_expired, "the older page is expired")
    await shop.world.pay(newer["url"])
    await shop.served_once(customer_id)


async def amid_the_transaction_that_cancels(shop: Shop) -> AsyncIterator[None]:
    customer_id, checkout = await shop.paid()
    async with shop.locked(tables.SessionRequest, checkout.request_id) as somebody_waits:
        yield
        shop.attempt(customer_id, f"/api/requests/{checkout.request_id}/cancel")
        await eventually(somebody_waits, "the transaction has begun")
        yield
    await shop.served_once(customer_id)
    await shop.cancel(customer_id, checkout)
    await shop.refunded_once(customer_id)


async def owed_a_refund_and_asked_stripe(shop: Shop, *, is_done: bool) -> AsyncIterator[None]:
    customer_id, checkout = await shop.paid()
    held = shop.held("refund", checkout.payment_intent_id, is_done=is_done)
    # No webhook tells of it, either.
    await shop.world.hold_webhooks(f"{shop.world.stripe.api_base}/pay/{checkout.stripe_session_id}")
    yield
    await shop.cancel(customer_id, checkout)
    await eventually(lambda: held.is_reached, "asked for")
    yield
    held.lose()
    await shop.refunded_once(customer_id)


async def amid_the_transaction_that_notes_a_refund(shop: Shop) -> AsyncIterator[None]:
    customer_id, checkout = await shop.paid()
    held = shop.held("refund", checkout.payment_intent_id, is_done=True)
    # The answer is to be what it is noted by, and not a webhook that comes before we have the row.
    await shop.world.hold_webhooks(f"{shop.world.stripe.api_base}/pay/{checkout.stripe_session_id}")
    yield
    await shop.cancel(customer_id, checkout)
    await eventually(lambda: held.is_reached, "made")
    (refund,) = await shop.world.rows(tables.Refund, checkout_id=checkout.id)
    async with shop.locked(tables.Refund, refund.id) as somebody_waits:
        held.is_released = True
        await eventually(somebody_waits, "the transaction has begun")
        yield
    await shop.refunded_once(customer_id)


async def told_that_others_gave_it_back_and_asked_stripe(shop: Shop, *, is_done: bool) -> AsyncIterator[None]:
    customer_id, checkout = await shop.paid()
    held = shop.held("retrieve_intent", checkout.payment_intent_id, is_done=is_done)
    yield
    await shop.world.play_money(checkout.url, "refund")
    await eventually(lambda: held.is_reached, "asked how the payment stands")
    yield
    held.lose()
    await shop.returned_by_others(customer_id, checkout)


async def amid_the_transaction_that_writes_the_ledger(shop: Shop) -> AsyncIterator[None]:
    customer_id, checkout = await shop.paid()
    async with shop.locked(tables.SessionRequest, checkout.request_id) as somebody_waits:
        yield
        await shop.world.play_money(checkout.url, "refund")
        await eventually(somebody_waits, "the transaction has begun")
        yield
    await shop.returned_by_others(customer_id, checkout)


async def looked_before_a_refund_is_asked_for(shop: Shop) -> AsyncIterator[None]:
    customer_id, checkout = await shop.paid()
    held = shop.held("retrieve_intent", checkout.payment_intent_id)
    yield
    await shop.cancel(customer_id, checkout)
    await eventually(lambda: held.is_reached, "asked what is left")
    yield
    held.lose()
    await shop.refunded_once(customer_id)


STEPS: dict[str, Callable[[Shop], AsyncGenerator[None]]] = {
    "asked for a page, and Stripe has not heard of it": asked_for_a_page_that_stripe_has_not_heard_of,
    "asked for a page, and Stripe has made it": asked_for_a_page_that_stripe_has_made,
    "stored an event, and Stripe has not heard the question": partial(stored_an_event_and_asked_stripe, is_done=False),
    "stored an event, and Stripe has answered": partial(stored_an_event_and_asked_stripe, is_done=True),
    "amid the transaction that serves": amid_the_transaction_that_serves,
    "served, and not noted that the event is done": served_and_not_noted_that_the_event_is_done,
    "showed a newer page, and the older one is open": showed_a_newer_page_and_left_the_older_open,
    "amid the transaction that cancels": amid_the_transaction_that_cancels,
    "owes a refund, and Stripe has not heard of it": partial(owed_a_refund_and_asked_stripe, is_done=False),
    "owes a refund, and Stripe has made it": partial(owed_a_refund_and_asked_stripe, is_done=True),
    "amid the transaction that notes a refund": amid_the_transaction_that_notes_a_refund,
    "looked what is left before a refund": looked_before_a_refund_is_asked_for,
    "told of a refund by others, and Stripe not asked": partial(
        told_that_others_gave_it_back_and_asked_stripe, is_done=False
    ),
    "told of a refund by others, and Stripe asked": partial(
        told_that_others_gave_it_back_and_asked_stripe, is_done=True
    ),
    "amid the transaction that writes the ledger": amid_the_transaction_that_writes_the_ledger,
}


@pytest.mark.parametrize("database_kind", ["postgresql"])
async def test_after_a_kill_between_any_two_steps_everybody_is_served_once_or_refunded_once(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    async with open_shop(database_url, redis_url, tmp_path) as shop, AsyncExitStack() as stack:
        await shop.start()
        steps = {name: step(shop) for name, step in STEPS.items()}
        for step in steps.values():
            stack.push_async_callback(step.aclose)

        async def go_on(name: str) -> None:
            try:
                await anext(steps[name], None)
            except Exception as error:
                error.add_note(f"the step is {name}")
                raise

        to_next_point = [partial(go_on, name) for name in steps]
        await side_by_side(*to_next_point)
        await side_by_side(*to_next_point)
        shop.kill()
        await shop.start()
        await side_by_side(*to_next_point)
