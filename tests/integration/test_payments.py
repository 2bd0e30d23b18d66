"""From a customer's wish to one paid request, whatever order Stripe tells it in; and back again."""

import json
import time
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import pytest

from dispatch.refunds import retry_delay_ms
from embedded.stripe_standin.webhooks import signature_header
from models import tables
from models.errors import StripeUnavailable
from models.outcomes import Refused
from models.rest import CheckoutBody, CheckoutState, FreeCheckout, StripeCheckout
from models.wire import RequestView
from tests.parts import (
    HURRIED,
    WEBHOOK_SECRET,
    Node,
    World,
    at_once,
    body,
    events,
    eventually,
    running_node,
    running_world,
)

# The SDK hands httpx its form body by a parameter that httpx would like to see renamed.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")


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


async def is_refunded(world: World, checkout_id: str) -> bool:
    return [refund.status for refund in await world.rows(tables.Refund, checkout_id=checkout_id)] == ["succeeded"]


def now_s() -> int:
    return time.time_ns() // 1_000_000_000


# --- checkout ---------------------------------------------------------------------------------------------------------


async def test_stripe_is_told_our_price_and_whom_the_customer_wants(database_url, redis_url, tmp_path):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as a:
        customer_id, favorite = await world.customer(), await world.mechanic("workshop")
        opened = await checkout(a, customer_id, plan="expert_video", favorite=favorite)
        session = await world.at_stripe(f"checkout/sessions/{await session_id_of(world, opened.checkout_id)}")
        assert (session["amount_total"], session["currency"], session["mode"]) == (2999, "usd", "payment")
        assert session["metadata"] == {
            "plan": "expert_video",
            "preferred_mechanic_id": favorite,
            "routing_type": "priority_broadcast",
            "provider_type": "workshop",
            "checkout_id": opened.checkout_id,
            "customer_id": customer_id,
        }
        assert (session["url"], session["client_reference_id"]) == (opened.url, opened.checkout_id)
        assert (await state(a, customer_id, opened.checkout_id)).status == "open"


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        (CheckoutBody("gold", "broadcast"), "unknown_plan"),
        (CheckoutBody("quick_chat", "priority_broadcast"), "preferred_mechanic_required"),
        (CheckoutBody("quick_chat", "priority_broadcast", "nobody"), "mechanic_not_found"),
        (CheckoutBody("free_diagnostic", "broadcast", "nobody"), "mechanic_not_found"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_cannot_be_bought_is_refused_and_leaves_nothing(
    database_url, redis_url, tmp_path, wanted: CheckoutBody, code: str
):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as a:
        refused = await a.checkouts.start(await world.customer(), wanted)
        assert isinstance(refused, Refused)
        assert refused.code == code
        assert await world.rows(tables.Checkout) == []


async def test_a_customer_cannot_be_a_favorite_and_a_checkout_is_nobody_elses(database_url, redis_url, tmp_path):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as a:
        customer_id, stranger = await world.customer(), await world.customer()
        refused = await a.checkouts.start(customer_id, body("quick_chat", stranger))
        assert isinstance(refused, Refused)
        assert refused.code == "mechanic_not_found"
        opened = await checkout(a, customer_id)
        answer = await a.checkouts.state(stranger, opened.checkout_id)
        assert isinstance(answer, Refused)
        assert answer.code == "not_found"


async def test_the_same_idempotency_key_answers_the_same_and_another_body_is_refused(database_url, redis_url, tmp_path):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as a:
        customer_id, other = await world.customer(), await world.customer()
        first = await checkout(a, customer_id, idempotency_key="k")
        assert await checkout(a, customer_id, idempotency_key="k") == first
        reused = await a.checkouts.start(customer_id, body("expert_video"), idempotency_key="k")
        assert isinstance(reused, Refused)
        assert reused.code == "idempotency_key_reused"
        # A key is the customer's own.
        assert (await checkout(a, other, idempotency_key="k")).checkout_id != first.checkout_id
        assert len(await world.rows(tables.Checkout, customer_id=customer_id)) == 1


@pytest.mark.parametrize("plan", ["quick_chat", "free_diagnostic"])
async def test_equal_checkouts_at_once_on_two_nodes_are_one_checkout(database_url, redis_url, tmp_path, plan: str):
    async with (
        running_world(database_url, redis_url, tmp_path) as world,
        running_node(world) as a,
        running_node(world) as b,
    ):
        customer_id = await world.customer()
        calls = [
            partial(node.checkouts.start, customer_id, body(plan), idempotency_key="k") for node in (a, b, a, b, a)
        ]
        answers = await at_once(*calls)
        assert all(isinstance(answer, StripeCheckout | FreeCheckout) for answer in answers), answers
        assert len({answer.checkout_id for answer in answers}) == 1
        (row,) = await world.rows(tables.Checkout)
        if plan == "quick_chat":
            assert {answer.url for answer in answers} == {row.url}


async def test_a_stripe_that_is_down_or_does_not_answer_leaves_nothing_half_made(database_url, redis_url, tmp_path):
    async with running_world(database_url, redis_url, tmp_path, stripe_timeout_s=0.5) as world:
        down = replace(world.stripe, api_base="http://127.0.0.1:9")
        async with running_node(world) as a, running_node(world, stripe=down) as b:
            customer_id = await world.customer()
            world.stripe_answers = anyio.Event()
            for node in (a, b):
                with pytest.raises(StripeUnavailable, match="nothing was charged"):
                    await node.checkouts.start(customer_id, body(), idempotency_key="k")
                assert await world.rows(tables.Checkout) == []
            world.stripe_answers.set()
            assert (await checkout(a, customer_id, idempotency_key="k")).url


async def test_asking_for_a_checkout_while_stripe_does_not_answer_says_what_we_know(database_url, redis_url, tmp_path):
    async with (
        running_world(database_url, redis_url, tmp_path, stripe_timeout_s=0.5) as world,
        running_node(world) as a,
    ):
        customer_id = await world.customer()
        opened = await checkout(a, customer_id)
        world.stripe_answers = anyio.Event()
        assert (await state(a, customer_id, opened.checkout_id)).status == "open"
        world.stripe_answers.set()


async def test_a_page_whose_checkout_was_forgotten_meanwhile_is_never_shown(database_url, redis_url, tmp_path):
    # The first call waits for Stripe; its repetition times out and forgets the checkout; then Stripe answers the first.
    # Whoever paid on that page would have been unknown to us.
    async with running_world(database_url, redis_url, tmp_path) as world:
        hasty = replace(world.stripe, timeout_s=0.3, tries_max=1)
        async with running_node(world) as patient_node, running_node(world, stripe=hasty) as hasty_node:
            customer_id = await world.customer()
            world.stripe_answers = anyio.Event()
            failed: list[StripeUnavailable] = []

            async def first() -> None:
                try:
                    await patient_node.checkouts.start(customer_id, body(), idempotency_key="k")
                except StripeUnavailable as error:
                    failed.append(error)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(first)
                await eventually(lambda: world.rows(tables.Checkout), "the first call is under way")
                with pytest.raises(StripeUnavailable):
                    await hasty_node.checkouts.start(customer_id, body(), idempotency_key="k")
                world.stripe_answers.set()
            assert len(failed) == 1
            assert await world.rows(tables.Checkout) == []


# --- fulfilment -------------------------------------------------------------------------------------------------------


async def test_asking_after_payment_fulfils_at_once_though_no_webhook_ever_comes(database_url, redis_url, tmp_path):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as a:
        customer_id, favorite = await world.customer(), await world.mechanic()
        opened = await checkout(a, customer_id, favorite=favorite)
        await world.hold_webhooks(opened.url)
        await world.pay(opened.url)
        paid = await state(a, customer_id, opened.checkout_id)
        assert paid.status == "paid"
        assert world.webhooks == []
        view = await world.request(a, customer_id, paid.request_id)
        assert (view.status, view.preferred_mechanic.id, view.plan) == ("priority_offered", favorite, "quick_chat")
        assert view.timeline[0]["amount_cents"] == 999


async def test_the_webhook_alone_fulfils_and_again_when_it_was_refused_first(database_url, redis_url, tmp_path):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as a:
        for refused in (0, 2):
            opened = await checkout(a, await world.customer())
            world.webhooks_refused = refused
            await world.pay(opened.url)

            async def is_paid(checkout_id: str = opened.checkout_id) -> bool:
                return (await world.row(tables.Checkout, checkout_id)).status == "paid"

            await eventually(is_paid, "fulfilled by the webhook")


async def test_twenty_fulfilments_at_once_on_two_nodes_make_one_request(database_url, redis_url, tmp_path):
    async with (
        running_world(database_url, redis_url, tmp_path) as world,
        running_node(world) as a,
        running_node(world) as b,
    ):
        customer_id = await world.customer()
        opened = await checkout(a, customer_id)
        await world.hold_webhooks(opened.url)
        await world.pay(opened.url)
        session_id = await session_id_of(world, opened.checkout_id)
        await at_once(*(partial((a, b)[n % 2].payments.fulfil, session_id) for n in range(20)))
        (request,) = await world.rows(tables.SessionRequest)
        assert (request.checkout_id, request.price_cents, request.version) == (opened.checkout_id, 999, 2)
        assert len(await world.rows(tables.Offer)) == 1


async def test_webhooks_that_come_again_and_again_change_nothing(database_url, redis_url, tmp_path):
    async with (
        running_world(database_url, redis_url, tmp_path) as world,
        running_node(world) as a,
        running_node(world) as b,
    ):
        customer_id = await world.customer()
        request = await world.paid_request(a, customer_id)
        await eventually(lambda: len(world.webhooks) >= 2, "both webhooks")
        again = [
            partial(node.payments.receive_webhook, *webhook) for webhook in list(world.webhooks) for node in (a, b) * 3
        ]
        assert await at_once(*again) == [None] * len(again)

        async def are_worked_on() -> bool:
            return all(event.processed_at_ms for event in await world.rows(tables.StripeEvent))

        await eventually(are_worked_on, "all events are worked on")
        assert len(await world.rows(tables.StripeEvent)) == len(world.webhooks)
        assert [row.id for row in await world.rows(tables.SessionRequest)] == [request.id]
        assert (await world.request(a, customer_id, request.id)).version == request.version


async def test_a_webhook_that_nobody_signed_is_refused_and_not_stored(database_url, redis_url, tmp_path):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as a:
        event = {"id": "evt_1", "object": "event", "type": "x", "data": {"object": {"id": "cs_1", "object": "x"}}}
        payload = json.dumps(event)
        right = signature_header(payload, WEBHOOK_SECRET, now_s())
        forgeries = [
            (payload, None),
            (payload, ""),
            (payload, "nonsense"),
            (payload, signature_header(payload, "whsec_other", now_s())),
            (payload, signature_header(payload, WEBHOOK_SECRET, now_s() - 3600)),
            (payload + " ", right),
            ("", right),
        ]
        for body_text, signature in forgeries:
            refused = await a.payments.receive_webhook(body_text.encode(), signature)
            assert isinstance(refused, Refused)
            assert refused.code == "bad_signature"
        assert await world.rows(tables.StripeEvent) == []
        assert await a.payments.receive_webhook(payload.encode(), right) is None


async def test_during_a_rotation_webhooks_signed_with_either_secret_are_taken(database_url, redis_url, tmp_path):
    async with running_world(database_url, redis_url, tmp_path) as world:
        rotating = replace(world.stripe, webhook_secrets=("whsec_new", WEBHOOK_SECRET))
        async with running_node(world, stripe=rotating) as a:
            for number, secret in enumerate(rotating.webhook_secrets):
                event = {"id": f"evt_{number}", "object": "event", "type": "x", "data": {"object": {"object": "x"}}}
                payload = json.dumps(event)
                assert (
                    await a.payments.receive_webhook(payload.encode(), signature_header(payload, secret, now_s()))
                    is None
                )
            assert len(await world.rows(tables.StripeEvent)) == 2


@pytest.mark.parametrize(
    "asked", [{"price_cents": 2999}, {"currency": "eur"}], ids=["another amount", "another currency"]
)
async def test_what_was_not_asked_is_never_dispatched_and_goes_back(
    database_url, redis_url, tmp_path, asked: dict[str, Any]
):
    async with (
        running_world(database_url, redis_url, tmp_path) as world,
        running_node(world) as a,
        running_node(world) as b,
    ):
        customer_id = await world.customer()
        opened = await checkout(a, customer_id)
        await world.update(tables.Checkout, opened.checkout_id, **asked)
        await world.pay(opened.url)
        session_id = await session_id_of(world, opened.checkout_id)
        await at_once(*(partial(node.payments.fulfil, session_id) for node in (a, b, a, b)))
        assert (await state(a, customer_id, opened.checkout_id)).status == "failed"
        assert await world.rows(tables.SessionRequest) == []
        await eventually(lambda: is_refunded(world, opened.checkout_id), "the money is back")
        (refund,) = await world.rows(tables.Refund)
        at_stripe = await world.at_stripe(f"refunds/{refund.stripe_refund_id}")
        assert (refund.amount_cents, refund.request_id, at_stripe["amount"]) == (999, None, 999)


async def test_a_zero_amount_is_served_like_a_paid_one_and_owes_nothing(database_url, redis_url, tmp_path):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as a:
        customer_id = await world.customer()
        opened = await checkout(a, customer_id)
        price = {"currency": "usd", "unit_amount": 0, "product_data": {"name": "With a full discount"}}
        discounted = await a.stripe_api.create_session(
            {
                "mode": "payment",
                "line_items": [{"quantity": 1, "price_data": price}],
                "client_reference_id": opened.checkout_id,
                "success_url": "http://127.0.0.1:9/",
            },
            idempotency_key="discounted",
        )
        await world.update(tables.Checkout, opened.checkout_id, stripe_session_id=discounted.id)
        await world.pay(discounted.url)
        paid = await state(a, customer_id, opened.checkout_id)
        assert paid.status == "paid"
        cancelled = await a.dispatch.cancel(customer_id, paid.request_id)
        assert isinstance(cancelled, RequestView)
        assert (cancelled.status, cancelled.refund) == ("cancelled", None)
        assert await world.rows(tables.Refund) == []


@pytest.mark.parametrize(("outcome", "status"), [("succeed", "paid"), ("fail", "failed")])
async def test_an_asynchronous_payment_keeps_the_checkout_open_until_it_arrives_or_fails(
    database_url, redis_url, tmp_path, outcome: str, status: str
):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as a:
        customer_id = await world.customer()
        opened = await checkout(a, customer_id)
        await world.pay(opened.url, "delayed")
        assert (await state(a, customer_id, opened.checkout_id)).status == "open"
        assert await world.rows(tables.SessionRequest) == []
        await world.browser.post(f"{opened.url}/settle", data={"outcome": outcome})

        async def is_settled() -> bool:
            return (await state(a, customer_id, opened.checkout_id)).status == status

        await eventually(is_settled, f"the checkout is {status}")
        assert len(await world.rows(tables.SessionRequest)) == (status == "paid")


async def test_an_asynchronous_failure_is_noticed_though_no_webhook_ever_comes(database_url, redis_url, tmp_path):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as a:
        customer_id = await world.customer()
        opened = await checkout(a, customer_id)
        await world.hold_webhooks(opened.url)
        await world.pay(opened.url, "delayed")
        await world.browser.post(f"{opened.url}/settle", data={"outcome": "fail"})
        assert (await state(a, customer_id, opened.checkout_id)).status == "failed"


async def test_a_session_that_expired_unpaid_ends_its_checkout(database_url, redis_url, tmp_path):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as a:
        customer_id = await world.customer()
        opened = await checkout(a, customer_id)
        await world.pay(opened.url, "expire")
        assert (await state(a, customer_id, opened.checkout_id)).status == "expired"


async def test_a_payment_is_served_though_we_died_before_we_knew_its_session(database_url, redis_url, tmp_path):
    # The process ends between Stripe's answer and our commit: only the Session's own reference tells whose it is.
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as a:
        customer_id = await world.customer()
        opened = await checkout(a, customer_id)
        await world.update(tables.Checkout, opened.checkout_id, stripe_session_id=None, url=None)
        await world.pay(opened.url)

        async def is_paid() -> bool:
            return (await state(a, customer_id, opened.checkout_id)).status == "paid"

        await eventually(is_paid, "served")
        assert len(await world.rows(tables.SessionRequest)) == 1


# --- the free plan ----------------------------------------------------------------------------------------------------


async def test_of_twenty_free_checkouts_at_once_on_two_nodes_one_is_served(database_url, redis_url, tmp_path):
    async with (
        running_world(database_url, redis_url, tmp_path) as world,
        running_node(world) as a,
        running_node(world) as b,
    ):
        customer_id = await world.customer()
        calls = [partial((a, b)[n % 2].checkouts.start, customer_id, body("free_diagnostic")) for n in range(20)]
        answers = await at_once(*calls)
        (served,) = [answer for answer in answers if isinstance(answer, FreeCheckout)]
        assert [answer.code for answer in answers if isinstance(answer, Refused)] == ["free_session_used"] * 19
        assert [row.id for row in await world.rows(tables.SessionRequest)] == [served.request.id]
        assert events(served.request)[0] == "requested"


async def test_the_free_session_is_given_back_when_nobody_served_it(database_url, redis_url, tmp_path):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world, HURRIED) as a:
        customer_id, mechanic_id = await world.customer(), await world.mechanic()

        async def free() -> FreeCheckout | Refused:
            answer = await a.checkouts.start(customer_id, body("free_diagnostic"))
            assert not isinstance(answer, StripeCheckout)
            return answer

        cancelled = await free()
        assert isinstance(cancelled, FreeCheckout)
        await a.dispatch.cancel(customer_id, cancelled.request.id)

        unfilled = await free()
        assert isinstance(unfilled, FreeCheckout)

        async def is_unfilled() -> bool:
            return (await world.row(tables.SessionRequest, unfilled.request.id)).status == "unfilled"

        await eventually(is_unfilled, "nobody took it")

        served = await free()
        assert isinstance(served, FreeCheckout)
        now_ms = a.clock.now_ms()
        await a.dispatch.accept(mechanic_id, served.request.offer.id, received_at_ms=now_ms)
        await a.dispatch.start(mechanic_id, served.request.id)
        await a.dispatch.complete(mechanic_id, served.request.id)
        used = await free()
        assert isinstance(used, Refused)
        assert used.code == "free_session_used"
        assert await world.rows(tables.Refund) == []


# --- refunds ----------------------------------------------------------------------------------------------------------


async def test_a_refund_is_tried_until_stripe_takes_it_and_then_once(database_url, redis_url, tmp_path):
    settings = replace(HURRIED, priority_window_ms=60_000, broadcast_window_ms=60_000)
    async with running_world(database_url, redis_url, tmp_path) as world:
        customer_id = await world.customer()
        async with running_node(world, without=("refunds",)) as a:
            request = await world.paid_request(a, customer_id)
        (paid,) = await world.rows(tables.Checkout)
        down = replace(world.stripe, api_base="http://127.0.0.1:9", tries_max=1)
        async with running_node(world, settings, stripe=down) as b:
            await b.dispatch.cancel(customer_id, request.id)

            async def tried() -> list[tables.Refund]:
                refunds = await world.rows(tables.Refund, checkout_id=paid.id)
                return [refund for refund in refunds if refund.attempts >= 3]

            (refund,) = await eventually(tried, "three attempts")
            assert refund.status == "pending"
            assert refund.next_attempt_at_ms is not None
            assert refund.next_attempt_at_ms - b.clock.now_ms() <= max(retry_delay_ms(3, settings), 15_000)
            assert (await world.request(b, customer_id, request.id)).refund.status == "pending"
        await world.update(tables.Refund, refund.id, next_attempt_at_ms=0)
        async with running_node(world) as c, running_node(world):
            await eventually(lambda: is_refunded(world, paid.id), "the money is back")
            view = await world.request(c, customer_id, request.id)
            assert events(view).count("refunded") == 1
            query = {"expand[]": "latest_charge"}
            intent = await world.at_stripe(f"payment_intents/{paid.payment_intent_id}", **query)
            assert intent["latest_charge"]["amount_refunded"] == 999


async def test_a_refunds_end_is_noticed_by_a_webhook_that_overtook_the_answer_and_by_asking_again(
    database_url, redis_url, tmp_path
):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as a:
        customer_id = await world.customer()
        request = await world.paid_request(a, customer_id)
        await a.dispatch.cancel(customer_id, request.id)
        (paid,) = await world.rows(tables.Checkout)
        await eventually(lambda: is_refunded(world, paid.id), "the money is back")
        (refund,) = await world.rows(tables.Refund)

        # The webhook came before we had stored what Stripe calls it.
        far_ms = a.clock.now_ms() + 60_000
        await world.update(tables.Refund, refund.id, status="pending", stripe_refund_id=None, next_attempt_at_ms=far_ms)
        await at_once(*[partial(a.refunds.confirm, refund.stripe_refund_id)] * 3)
        assert await is_refunded(world, paid.id)

        # Stripe had said that it is on its way, and its webhook never came.
        await world.update(tables.Refund, refund.id, status="pending", next_attempt_at_ms=0)
        await eventually(lambda: is_refunded(world, paid.id), "asked again")
        (same,) = await world.rows(tables.Refund)
        assert (same.stripe_refund_id, same.next_attempt_at_ms) == (refund.stripe_refund_id, None)
