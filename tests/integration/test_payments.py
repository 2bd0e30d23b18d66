"""From a customer's wish to one paid request, whatever order Stripe tells it in; and back again."""

import json
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from dispatch.money.refunds import patience
from dispatch.money.stripe_events import FAILURES_MAX
from embedded.stripe_standin.webhooks import signature_header
from models import tables
from models.outcomes import Refused
from models.rest import FreeCheckout, StripeCheckout
from models.wire import RequestView
from tests.integration.money import checkout, is_refunded, now_s, page_for_later, session_id_of, signed, state
from tests.parts import (
    HURRIED,
    PATIENT,
    WEBHOOK_SECRET,
    World,
    body,
    events,
    eventually,
    running_node,
    running_world,
    side_by_side,
)

# The SDK hands httpx its form body by a parameter that httpx would like to see renamed.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")


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
        assert view.timeline[0].amount_cents == 999


async def test_the_webhook_alone_fulfils_and_again_when_it_was_refused_first(database_url, redis_url, tmp_path):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as a:
        for refused in (0, 2):
            opened = await checkout(a, await world.customer())
            world.webhooks_refused = refused
            await world.pay(opened.url)

            async def is_paid(checkout_id: str = opened.checkout_id) -> bool:
                return (await world.row(tables.Checkout, checkout_id)).status == "paid"

            await eventually(is_paid, "fulfilled by the webhook")


async def test_twenty_fulfilments_side_by_side_on_two_nodes_make_one_request(database_url, redis_url, tmp_path):
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
        await side_by_side(*(partial((a, b)[n % 2].payments.fulfil, session_id) for n in range(20)))
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
        assert await side_by_side(*again) == [None] * len(again)

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
            (payload, f"{right},v1=\u00e9".replace(",v1=", ",v0=", 1)),
            (payload, f"t={'9' * 5000},v1=00"),
        ]
        for body_text, signature in forgeries:
            refused = await a.payments.receive_webhook(body_text.encode(), signature)
            assert isinstance(refused, Refused)
            assert refused.code == "bad_signature"
        assert await world.rows(tables.StripeEvent) == []
        assert await a.payments.receive_webhook(payload.encode(), right) is None


async def test_a_signed_event_is_stored_as_far_as_it_can_be_read(database_url, redis_url, tmp_path):
    odd_data = [
        "null",
        "[]",
        "7",
        '"x"',
        '{"object": null}',
        '{"object": [1]}',
        '{"object": {"id": 7, "payment_intent": 8}}',
    ]
    odd = [
        *(f'"data": {data}' for data in odd_data),
        f'"created": {2**64}, "livemode": "no"',
        f'"created": {"9" * 400}',
        '"created": -1',
        '"data": {"object": {"id": "a\\u0000b", "payment_intent": "\\u2028"}}',
        f'"data": {{"object": {{"amount": {"9" * 400}, "payment_intent": {{"id": "\\n", "amount": {2**70}}}}}}}',
        '"type": null',
        '"type": "a\\u0000"',
    ]
    hopeless = [
        "null",
        "[]",
        "7",
        "{}",
        "{",
        '{"id": null}',
        '{"id": ""}',
        '{"id": "\\u0000"}',
        '{"id": 7}',
        '{"x":' * 5_000,
    ]
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as a:
        for number, members in enumerate(odd):
            payload = f'{{"id": "evt_{number}", "object": "event", "type": "customer.created", {members}}}'
            assert await a.payments.receive_webhook(*signed_text(payload)) is None, members
        stored = {row.id: row for row in await world.rows(tables.StripeEvent)}
        assert stored.keys() == {f"evt_{number}" for number in range(len(odd))}
        assert {(row.object_id, row.payment_intent_id) for row in stored.values()} == {(None, None)}
        for payload in hopeless:
            refused = await a.payments.receive_webhook(*signed_text(payload))
            # Whoever looks for the cause at Stripe must not look for it in the secret.
            assert isinstance(refused, Refused)
            assert refused.code == "malformed_json", payload[:20]


def signed_text(payload: str) -> tuple[bytes, str]:
    return payload.encode(), signature_header(payload, WEBHOOK_SECRET, now_s())


@pytest.mark.bugs_planted
async def test_an_event_about_what_stripe_does_not_know_is_given_up_in_the_end(database_url, redis_url, tmp_path):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as a:
        subject = {"id": "cs_test_of_another_account", "object": "checkout.session"}
        event = {"id": "evt_1", "object": "event", "type": "checkout.session.completed", "data": {"object": subject}}
        assert await a.payments.receive_webhook(*signed(event)) is None

        async def was_tried() -> int:
            return (await world.row(tables.StripeEvent, "evt_1")).attempts

        await eventually(was_tried, "a first attempt")
        assert (await world.row(tables.StripeEvent, "evt_1")).processed_at_ms is None
        await eventually(partial(is_given_up, world), "given up after the last attempt")


async def is_given_up(world: World) -> bool:
    """Let the next attempt be the last one, and tell whether it has been."""
    event = await world.row(tables.StripeEvent, "evt_1")
    if event.set_aside_at_ms is None:
        await world.update(tables.StripeEvent, "evt_1", failures=FAILURES_MAX - 1, next_attempt_at_ms=0)
    return event.set_aside_at_ms is not None


async def test_during_a_rotation_webhooks_signed_with_either_secret_are_taken(database_url, redis_url, tmp_path):
    async with running_world(database_url, redis_url, tmp_path) as world:
        rotating = replace(world.stripe, webhook_secrets=("whsec_new", WEBHOOK_SECRET))
        async with running_node(world, stripe=rotating) as a:
            for number, secret in enumerate(rotating.webhook_secrets):
                event = {"id": f"evt_{number}", "object": "event", "type": "x", "data": {"object": {"object": "x"}}}
                assert await a.payments.receive_webhook(*signed(event, secret)) is None
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
        await side_by_side(*(partial(node.payments.fulfil, session_id) for node in (a, b, a, b)))
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
        url = await page_for_later(world, a, opened.checkout_id)
        await world.pay(url, "delayed")
        assert (await state(a, customer_id, opened.checkout_id)).status == "open"
        assert await world.rows(tables.SessionRequest) == []
        await world.browser.post(f"{url}/settle", data={"outcome": outcome})

        async def is_settled() -> bool:
            return (await state(a, customer_id, opened.checkout_id)).status == status

        await eventually(is_settled, f"the checkout is {status}")
        assert len(await world.rows(tables.SessionRequest)) == (status == "paid")


async def test_an_asynchronous_failure_is_noticed_though_no_webhook_ever_comes(database_url, redis_url, tmp_path):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as a:
        customer_id = await world.customer()
        opened = await checkout(a, customer_id)
        url = await page_for_later(world, a, opened.checkout_id)
        await world.hold_webhooks(url)
        await world.pay(url, "delayed")
        await world.browser.post(f"{url}/settle", data={"outcome": "fail"})
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


async def test_of_twenty_free_checkouts_side_by_side_on_two_nodes_one_is_served(database_url, redis_url, tmp_path):
    async with (
        running_world(database_url, redis_url, tmp_path) as world,
        running_node(world) as a,
        running_node(world) as b,
    ):
        customer_id = await world.customer()
        calls = [partial((a, b)[n % 2].checkouts.start, customer_id, body("free_diagnostic")) for n in range(20)]
        answers = await side_by_side(*calls)
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


async def test_the_right_to_the_free_session_goes_back_once_and_only_by_the_request_that_has_used_it(
    database_url, redis_url, tmp_path
):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world, PATIENT) as a:
        customer_id, mechanic_id = await world.customer(), await world.mechanic()

        async def booked(plan: str) -> RequestView:
            answer = await a.checkouts.start(customer_id, body(plan))
            assert isinstance(answer, FreeCheckout), answer
            return answer.request

        async def may_have_another() -> bool:
            return not (await world.row(tables.Account, customer_id)).free_session_used

        cancelled = await booked("free_diagnostic")
        await a.dispatch.cancel(customer_id, cancelled.id)
        assert await may_have_another()
        served = await booked("free_diagnostic")
        assert served.offer is not None
        await a.dispatch.accept(mechanic_id, served.offer.id, received_at_ms=a.clock.now_ms())
        await a.dispatch.start(mechanic_id, served.id)
        await a.dispatch.complete(mechanic_id, served.id)
        # What is free for everybody, always, has used no right.
        await world.update(tables.Plan, "quick_chat", price_cents=0)
        await a.dispatch.cancel(customer_id, (await booked("quick_chat")).id)
        # What came to nothing before has given it back.
        await a.dispatch.refund(cancelled.id, "asked by phone")
        assert not await may_have_another()
        # An operator may be generous to whoever has been served, once.
        await a.dispatch.refund(served.id, "nobody came")
        assert await may_have_another()
        again = await booked("free_diagnostic")
        await a.dispatch.refund(served.id, "nobody came")
        assert not await may_have_another()

        # Rows of a version that did not note it; and one that such a node has ended beside this one.
        for plan, comes_back in (("quick_chat", False), ("free_diagnostic", True)):
            request = again if plan == again.plan else await booked(plan)
            await world.update(tables.SessionRequest, request.id, used_free_session=None)
            await a.dispatch.cancel(customer_id, request.id)
            assert await may_have_another() is comes_back
        ended = await booked("free_diagnostic")
        await a.dispatch.cancel(customer_id, ended.id)
        await world.update(tables.SessionRequest, ended.id, used_free_session=True)
        await booked("free_diagnostic")
        await a.dispatch.refund(ended.id, "asked by phone")
        assert not await may_have_another()


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
            assert refund.next_attempt_at_ms - b.clock.now_ms() <= max(patience(settings).delay_ms(3), 15_000)
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
        await side_by_side(*[partial(a.bookkeeping.bring_in_line, paid.payment_intent_id)] * 3)
        assert await is_refunded(world, paid.id)

        # Stripe had said that it is on its way, and its webhook never came.
        await world.update(tables.Refund, refund.id, status="pending", next_attempt_at_ms=0)
        await eventually(lambda: is_refunded(world, paid.id), "asked again")
        (same,) = await world.rows(tables.Refund)
        assert (same.stripe_refund_id, same.next_attempt_at_ms) == (refund.stripe_refund_id, None)


@pytest.mark.bugs_planted
@pytest.mark.parametrize("database_kind", ["sqlite"])
@pytest.mark.parametrize("fault", ["error", "balance_insufficient"])
async def test_what_stripe_has_answered_for_good_is_asked_for_under_another_key(
    database_url, redis_url, tmp_path, fault: str
):
    # Stripe keeps an answer under its key for a day (docs.stripe.com/api/idempotent_requests): the same key would bring it back.
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world, HURRIED) as a:
        customer_id = await world.customer()
        opened = await checkout(a, customer_id)
        await world.pay(opened.url)
        await world.play_money(opened.url, "fault", fault=fault, times="1")
        found = await state(a, customer_id, opened.checkout_id)
        await a.dispatch.cancel(customer_id, found.request_id)
        await eventually(lambda: is_refunded(world, opened.checkout_id), "the money is back")
        (refund,) = await world.rows(tables.Refund, checkout_id=opened.checkout_id)
        assert refund.key_number == 2
        listed = await world.at_stripe("refunds", payment_intent=refund.payment_intent_id)
        assert [one["amount"] for one in listed["data"]] == [999]


@pytest.mark.bugs_planted
@pytest.mark.parametrize("database_kind", ["sqlite"])
async def test_a_refund_that_stripe_refuses_again_and_again_is_told_as_failed_and_asked_for_on_and_on(
    database_url, redis_url, tmp_path
):
    settings = replace(HURRIED, refund_retry_first_ms=20, refund_retry_max_ms=50, failures_max=3)
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world, settings) as a:
        customer_id = await world.customer()
        opened = await checkout(a, customer_id)
        await world.pay(opened.url)
        await world.play_money(opened.url, "fault", fault="balance_insufficient", times="1000")
        request_id = (await state(a, customer_id, opened.checkout_id)).request_id
        await a.dispatch.cancel(customer_id, request_id)

        async def reads(status: str) -> bool:
            return (await world.request(a, customer_id, request_id)).refund.status == status

        await eventually(lambda: reads("failed"), "the customer is told")
        (owed,) = (await a.ops.snapshot()).refunds_owed
        assert (owed.state, owed.left_cents, "Insufficient funds" in (owed.last_error or "")) == ("failed", 999, True)
        await world.play_money(opened.url, "fault", fault="none")
        await eventually(lambda: reads("succeeded"), "the money is back")
        view = await world.request(a, customer_id, request_id)
        assert [word for word in events(view) if word.startswith("refund")] == [
            "refund_requested",
            "refund_failed",
            "refunded",
        ]


@pytest.mark.parametrize("routing", ["favorite", "anyone"])
async def test_the_same_choice_paid_on_an_older_page_as_well_is_given_back_and_says_why(
    database_url, redis_url, tmp_path, routing: str
):
    # The older page is not expired in time: nobody asks Stripe for it here.
    async with (
        running_world(database_url, redis_url, tmp_path) as world,
        running_node(world, without=("superseded",)) as a,
        running_node(world, without=("superseded",)) as b,
    ):
        customer_id = await world.customer()
        favorite = await world.mechanic() if routing == "favorite" else None
        pages = [await checkout(a, customer_id, favorite=favorite) for _ in range(2)]
        for page in pages:
            await world.hold_webhooks(page.url)
            await world.pay(page.url)
        # In the same moment, on two nodes.
        await side_by_side(
            *(partial(state, node, customer_id, page.checkout_id) for node, page in zip((a, b), pages, strict=True))
        )
        requests = await world.rows(tables.SessionRequest, customer_id=customer_id)
        assert sorted(request.status for request in requests) in (
            ["broadcasting", "cancelled"],
            ["cancelled", "priority_offered"],
        )
        (second,) = [request for request in requests if request.status == "cancelled"]
        await eventually(lambda: is_refunded(world, second.checkout_id), "the money is back")
        view = await world.request(a, customer_id, second.id)
        assert [(line.event, line.cause) for line in view.timeline if line.event == "cancelled"] == [
            ("cancelled", "paid_twice")
        ]
        # Whoever books once more afterwards is served once more.
        third = await world.paid_request(a, customer_id, favorite=favorite)
        assert third.status in ("broadcasting", "priority_offered")


@pytest.mark.parametrize("move", ["refund", "dispute"])
@pytest.mark.parametrize("database_kind", ["sqlite"])
async def test_what_was_given_back_or_disputed_before_we_heard_of_it_is_offered_to_nobody(
    database_url, redis_url, tmp_path, move: str
):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as a:
        customer_id = await world.customer()
        opened = await checkout(a, customer_id)
        await world.hold_webhooks(opened.url)
        await world.pay(opened.url)
        await world.play_money(opened.url, move)
        request_id = (await state(a, customer_id, opened.checkout_id)).request_id
        assert await world.rows(tables.Offer, request_id=request_id) == []
        view = await world.request(a, customer_id, request_id)
        assert view.status == "cancelled"
        assert view.refund is not None
        expected = {"refund": ("succeeded", False), "dispute": ("pending", True)}
        assert (view.refund.status, view.disputed) == expected[move]
        listed = (await a.ops.snapshot()).disputes
        assert [(one.request_id, one.amount_cents, one.status) for one in listed] == (
            [(request_id, 999, "needs_response")] if move == "dispute" else []
        )
        assert await world.rows(tables.SessionRequest, checkout_id=opened.checkout_id) != []
