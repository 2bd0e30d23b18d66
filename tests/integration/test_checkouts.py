"""What a customer wants to buy: our prices, one page at a time, and nothing half-made."""

import hashlib
import time
from dataclasses import replace
from functools import partial

import anyio
import pytest

from models import tables
from models.errors import StripeUnavailable
from models.ids import new_id
from models.outcomes import Refused, TooMany
from models.rest import CheckoutBody, FreeCheckout, StripeCheckout
from tests.integration.money import checkout, page_for_later, session_id_of, state
from tests.parts import Node, World, body, eventually, running_node, running_world, side_by_side
from tests.stripe_proxy import Fault, Hold, StripeProxy, stripe_proxy


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
        # Nothing that tells only days later whether the money has come.
        assert session["allowed_payment_method_types"] == ["card"]
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


def noted_body(note: str | None) -> CheckoutBody:
    return CheckoutBody("quick_chat", "broadcast", note=note)


async def test_another_note_is_another_checkout_and_none_is_what_it_was_before_there_were_notes(
    database_url, redis_url, tmp_path
):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as a:
        customer_id = await world.customer()
        first = await checkout(a, customer_id, idempotency_key="k")
        row = await world.row(tables.Checkout, first.checkout_id)
        as_yesterday = b'{"plan":"quick_chat","routing_type":"broadcast","preferred_mechanic_id":null}'
        assert row.idempotency_hash == hashlib.sha256(as_yesterday).hexdigest()
        for note in (None, ""):
            same = await a.checkouts.start(customer_id, noted_body(note), idempotency_key="k")
            assert same == first
        noted = await a.checkouts.start(customer_id, noted_body("Golf 7"), idempotency_key="n")
        assert isinstance(noted, StripeCheckout)
        for key, note in (("k", "Golf 7"), ("n", "Golf 8"), ("n", None)):
            reused = await a.checkouts.start(customer_id, noted_body(note), idempotency_key=key)
            assert isinstance(reused, Refused)
            assert reused.code == "idempotency_key_reused"
        # What is kept is compared, not how it was written.
        again = await a.checkouts.start(customer_id, noted_body(" Golf\u200b 7 "), idempotency_key="n")
        assert again == noted


@pytest.mark.parametrize("plan", ["quick_chat", "free_diagnostic"])
async def test_equal_checkouts_side_by_side_on_two_nodes_are_one_checkout(database_url, redis_url, tmp_path, plan: str):
    async with (
        running_world(database_url, redis_url, tmp_path) as world,
        running_node(world) as a,
        running_node(world) as b,
    ):
        customer_id = await world.customer()
        calls = [
            partial(node.checkouts.start, customer_id, body(plan), idempotency_key="k") for node in (a, b, a, b, a)
        ]
        answers = await side_by_side(*calls)
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


# --- what Stripe will not have ----------------------------------------------------------------------------------------


async def test_what_stripe_refuses_for_good_is_refused_with_its_reason_and_leaves_nothing(
    database_url, redis_url, tmp_path
):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as a:
        customer_id = await world.customer()
        await world.update(tables.Plan, "quick_chat", price_cents=10)
        for _ in range(2):
            refused = await a.checkouts.start(customer_id, body(), idempotency_key="k")
            assert isinstance(refused, Refused)
            assert refused.code == "checkout_refused"
            assert "nothing was charged" in refused.detail
            assert "must add up to at least $0.50" in refused.detail
            assert await world.rows(tables.Checkout) == []
        # Nothing stands in the way of the same key once the price is one.
        await world.update(tables.Plan, "quick_chat", price_cents=999)
        assert (await checkout(a, customer_id, idempotency_key="k")).url


async def test_a_reason_of_stripes_is_told_without_the_keys_that_it_may_name(database_url, redis_url, tmp_path):
    async with (
        running_world(database_url, redis_url, tmp_path) as world,
        stripe_proxy(world.stripe_url) as proxy,
        running_node(world, stripe=replace(world.stripe, api_base=f"{proxy.base_url}/stripe")) as a,
    ):
        proxy.plan("create", Fault(400, says="The key sk_live_51Hunter2 may not\ndo this."))
        refused = await a.checkouts.start(await world.customer(), body())
        assert isinstance(refused, Refused)
        assert refused.code == "checkout_refused"
        assert refused.detail.endswith("nothing was charged. The key … may not do this.")


async def test_an_e_mail_address_that_stripe_will_not_have_is_left_out(database_url, redis_url, tmp_path):
    async with (
        running_world(database_url, redis_url, tmp_path) as world,
        stripe_proxy(world.stripe_url) as proxy,
        running_node(world, stripe=replace(world.stripe, api_base=f"{proxy.base_url}/stripe")) as a,
    ):
        customer_id = await world.customer()
        await world.update(tables.Account, customer_id, email=UNKNOWN_TO_STRIPE)
        opened = await checkout(a, customer_id)
        assert keys_of(proxy) == [
            (f"checkout:{opened.checkout_id}", 400),
            (f"checkout:{opened.checkout_id}:without-email", 200),
        ]
        await world.pay(opened.url)
        assert (await state(a, customer_id, opened.checkout_id)).status == "paid"


async def test_a_page_without_an_e_mail_address_is_opened_once_also_over_a_crash(database_url, redis_url, tmp_path):
    # The node dies with Stripe's page in hand; whoever repeats the call is refused and goes the same way again.
    async with running_world(database_url, redis_url, tmp_path) as world, stripe_proxy(world.stripe_url) as proxy:
        stripe = replace(world.stripe, api_base=f"{proxy.base_url}/stripe")
        async with running_node(world, stripe=stripe) as dying, running_node(world, stripe=stripe) as a:
            customer_id = await world.customer()
            await world.update(tables.Account, customer_id, email=UNKNOWN_TO_STRIPE)
            await dies_with_the_page(proxy, dying, customer_id, is_second=True)
            (row,) = await world.rows(tables.Checkout)
            assert row.url is None
            opened = await checkout(a, customer_id, idempotency_key="k")
            assert opened.checkout_id == row.id
            both = [(f"checkout:{row.id}", 400), (f"checkout:{row.id}:without-email", 200)]
            assert keys_of(proxy) == both * 2
            pages = [one.answer["id"] for one in proxy.made("create") if one.status == 200]
            assert set(pages) == {await session_id_of(world, row.id)}


async def test_a_checkout_that_has_become_another_one_since_a_crash_is_tried_again_and_not_refused(
    database_url, redis_url, tmp_path
):
    # Stripe keeps what was asked under a key; the plan has another name by now. That is nothing the customer can help.
    async with running_world(database_url, redis_url, tmp_path) as world, stripe_proxy(world.stripe_url) as proxy:
        stripe = replace(world.stripe, api_base=f"{proxy.base_url}/stripe")
        async with running_node(world, stripe=stripe) as dying, running_node(world, stripe=stripe) as a:
            customer_id = await world.customer()
            await dies_with_the_page(proxy, dying, customer_id)
            await world.update(tables.Plan, "quick_chat", name="Quicker Chat")
            with pytest.raises(StripeUnavailable, match="nothing was charged"):
                await a.checkouts.start(customer_id, body(), idempotency_key="k")
            assert await world.rows(tables.Checkout) == []
            assert (await checkout(a, customer_id, idempotency_key="k")).url


UNKNOWN_TO_STRIPE = "driver@garage..example"
"""Nothing that Stripe takes for an address."""


def keys_of(proxy: StripeProxy) -> list[tuple[str | None, int]]:
    """Under which keys pages were asked for, and with what status Stripe has answered."""
    return [(one.idempotency_key, one.status) for one in proxy.made("create")]


async def dies_with_the_page(proxy: StripeProxy, node: Node, customer_id: str, *, is_second: bool = False) -> None:
    """Start a checkout under the key "k" whose node dies once Stripe has opened its page, at the first asking or the second."""
    if is_second:
        proxy.plan("create", Hold(is_released=True))
    held = proxy.plan("create", Hold(is_done=True))
    async with anyio.create_task_group() as dying:
        dying.start_soon(partial(node.checkouts.start, customer_id, body(), idempotency_key="k"))
        await eventually(lambda: held.is_reached, "Stripe has opened the page")
        dying.cancel_scope.cancel()
    held.lose()


# --- one page at a time -----------------------------------------------------------------------------------------------


async def status_at_stripe(world: World, checkout_id: str) -> str:
    return (await world.at_stripe(f"checkout/sessions/{await session_id_of(world, checkout_id)}"))["status"]


async def test_a_newer_page_for_the_same_choice_expires_the_older_one_and_no_other(database_url, redis_url, tmp_path):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as a:
        customer_id, stranger = await world.customer(), await world.customer()
        favorite, another = await world.mechanics(2)
        others = [
            await checkout(a, customer_id, favorite=another),
            await checkout(a, customer_id, favorite=favorite, plan="expert_video"),
            await checkout(a, customer_id),
            await checkout(a, stranger, favorite=favorite),
        ]
        first = await checkout(a, customer_id, favorite=favorite, idempotency_key="first")
        second = await checkout(a, customer_id, favorite=favorite)
        await eventually(partial(is_expired, world, first.checkout_id), "the older page is expired")
        assert await status_at_stripe(world, first.checkout_id) == "expired"
        assert [await status_at_stripe(world, one.checkout_id) for one in [*others, second]] == ["open"] * 5
        # What was answered once is answered again: it is the customer's own key.
        assert await checkout(a, customer_id, favorite=favorite, idempotency_key="first") == first
        assert await status_at_stripe(world, second.checkout_id) == "open"
        # The other way to want nobody in particular.
        third = await checkout(a, customer_id)
        await eventually(partial(is_expired, world, others[2].checkout_id), "the older broadcast is expired")
        assert await status_at_stripe(world, third.checkout_id) == "open"


async def is_expired(world: World, checkout_id: str) -> bool:
    return (await world.row(tables.Checkout, checkout_id)).status == "expired"


@pytest.mark.parametrize("ending", ["pay", "delayed"])
async def test_an_older_page_that_was_paid_in_this_very_moment_is_served(
    database_url, redis_url, tmp_path, ending: str
):
    # The customer pays in one tab and opens the page anew in another, before Stripe's webhook has come.
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as a:
        customer_id = await world.customer()
        first = await checkout(a, customer_id)
        url = first.url if ending == "pay" else await page_for_later(world, a, first.checkout_id)
        await world.hold_webhooks(url)
        await world.pay(url, ending)
        second = await checkout(a, customer_id)
        if ending == "delayed":
            # The money is on its way: the page cannot be expired, and its checkout stays open until it arrives.
            assert (await state(a, customer_id, first.checkout_id)).status == "open"
            await world.browser.post(f"{url}/settle", data={"outcome": "succeed"})
            assert (await state(a, customer_id, first.checkout_id)).status == "paid"

        async def is_served() -> bool:
            return (await world.row(tables.Checkout, first.checkout_id)).status == "paid"

        await eventually(is_served, "the older one is served")
        assert await status_at_stripe(world, second.checkout_id) == "open"
        assert len(await world.rows(tables.SessionRequest)) == 1


async def test_of_pages_opened_side_by_side_on_two_nodes_one_stays_open(database_url, redis_url, tmp_path):
    async with (
        running_world(database_url, redis_url, tmp_path) as world,
        running_node(world) as a,
        running_node(world) as b,
    ):
        customer_id = await world.customer()
        opened = await side_by_side(*(partial(checkout, node, customer_id) for node in (a, b, a, b)))

        async def open_at_stripe() -> bool:
            statuses = [await status_at_stripe(world, one.checkout_id) for one in opened]
            return sorted(statuses) == ["expired"] * 3 + ["open"]

        await eventually(open_at_stripe, "one page is left")


async def test_a_stripe_that_does_not_expire_does_not_hold_a_checkout_up_and_is_asked_again(
    database_url, redis_url, tmp_path
):
    async with (
        running_world(database_url, redis_url, tmp_path) as world,
        stripe_proxy(world.stripe_url) as proxy,
        running_node(world, stripe=replace(world.stripe, api_base=f"{proxy.base_url}/stripe")) as a,
    ):
        customer_id = await world.customer()
        first = await checkout(a, customer_id)
        held = proxy.plan("expire", Hold())
        second = await checkout(a, customer_id)
        await eventually(lambda: held.is_reached, "Stripe is asked to expire the older page")
        # Whatever becomes of that: the next checkout is opened meanwhile.
        third = await checkout(a, await world.customer())
        assert len({first.url, second.url, third.url}) == 3
        proxy.plan("expire", Fault(500, times=2))
        held.is_released = True
        await eventually(partial(is_expired, world, first.checkout_id), "expired as soon as Stripe does it")


async def test_pages_that_a_dying_node_left_open_are_expired_by_the_reconciler(database_url, redis_url, tmp_path):
    async with running_world(database_url, redis_url, tmp_path) as world:
        customer_id = await world.customer()
        async with running_node(world, without=("superseded",)) as dying:
            older = [await checkout(dying, customer_id) for _ in range(2)]
            newest = await checkout(dying, customer_id)
        async with running_node(world) as a:
            repairs = [repair async for repair in a.reconciler.repairs()]
            assert {(one.found, one.became) for one in repairs} == {("superseded_page_open", "expired")}
            assert [await status_at_stripe(world, one.checkout_id) for one in [*older, newest]] == [
                "expired",
                "expired",
                "open",
            ]
            assert [repair async for repair in a.reconciler.repairs()] == []


# --- how many ---------------------------------------------------------------------------------------------------------


async def open_checkouts(world: World, customer_id: str, count: int) -> None:
    """Store some that can be paid, without asking Stripe for their pages."""
    now_ms = time.time_ns() // 1_000_000
    async with world.database.write() as session:
        session.add_all(
            tables.Checkout(
                id=new_id(),
                customer_id=customer_id,
                plan_id="premium_session",
                price_cents=4999,
                currency="usd",
                duration_min=60,
                session_type="video",
                routing_type="broadcast",
                created_at_ms=now_ms,
                expires_at_ms=now_ms + 1_800_000,
            )
            for _ in range(count)
        )


async def test_of_many_checkouts_side_by_side_on_two_nodes_as_many_are_opened_as_may_be_open(
    database_url, redis_url, tmp_path
):
    async with (
        running_world(database_url, redis_url, tmp_path) as world,
        running_node(world) as a,
        running_node(world) as b,
    ):
        customer_id = await world.customer()
        await open_checkouts(world, customer_id, 17)
        first = await checkout(a, customer_id, idempotency_key="k")
        # Each reads that there is room for two; on PostgreSQL they do so at the same time.
        answers = await side_by_side(*(partial(node.checkouts.start, customer_id, body()) for node in (a, b) * 4))
        refused = [answer for answer in answers if isinstance(answer, TooMany)]
        assert len(refused) == 6
        assert {answer.code for answer in refused} == {"too_many_requests"}
        assert all(1_700 < answer.retry_after_s <= 1_801 for answer in refused)
        assert len(await world.rows(tables.Checkout, customer_id=customer_id)) == 20
        # Repeated, what was opened before is answered all the same; and nobody else is in the way of anybody.
        assert await checkout(b, customer_id, idempotency_key="k") == first
        await checkout(a, await world.customer())


async def test_the_last_checkout_that_may_be_opened_answers_all_who_ask_with_its_key(database_url, redis_url, tmp_path):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as a:
        customer_id = await world.customer()
        await open_checkouts(world, customer_id, 19)
        start = partial(a.checkouts.start, customer_id, body(), idempotency_key="k")
        first, *others = await side_by_side(*[start] * 4)
        assert isinstance(first, StripeCheckout)
        assert others == [first] * 3


@pytest.mark.parametrize("change", [{"status": "expired"}, {"status": "paid"}, {"expires_at_ms": 1}])
async def test_a_checkout_that_nobody_can_pay_any_more_takes_no_room(database_url, redis_url, tmp_path, change):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as a:
        customer_id = await world.customer()
        await open_checkouts(world, customer_id, 20)
        assert isinstance(await a.checkouts.start(customer_id, body()), TooMany)
        one = (await world.rows(tables.Checkout, customer_id=customer_id))[0]
        await world.update(tables.Checkout, one.id, **change)
        await checkout(a, customer_id)


async def test_pages_that_newer_ones_have_replaced_count_until_their_time_is_over(database_url, redis_url, tmp_path):
    """Else whoever opens one after the other has always one alone, and Stripe is asked without end."""
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as a:
        customer_id = await world.customer()
        await open_checkouts(world, customer_id, 17)
        for _ in range(3):
            await checkout(a, customer_id)

        async def replaced() -> bool:
            return len(await world.rows(tables.Checkout, customer_id=customer_id, status="expired")) == 2

        await eventually(replaced, "of the three, the newest alone is open")
        assert isinstance(await a.checkouts.start(customer_id, body()), TooMany)
        for row in await world.rows(tables.Checkout, customer_id=customer_id, status="expired"):
            await world.update(tables.Checkout, row.id, expires_at_ms=1)
        await checkout(a, customer_id)


async def test_whoever_books_for_nothing_and_cancels_again_and_again_has_to_wait(database_url, redis_url, tmp_path):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as a:
        customer_id = await world.customer()
        for _ in range(10):
            booked = await a.checkouts.start(customer_id, body("free_diagnostic"))
            assert isinstance(booked, FreeCheckout)
            await a.dispatch.cancel(customer_id, booked.request.id)
        refused = await a.checkouts.start(customer_id, body("free_diagnostic"))
        assert isinstance(refused, TooMany)
        assert 3_000 < refused.retry_after_s <= 3_600
        assert len(await world.rows(tables.SessionRequest, customer_id=customer_id)) == 10
        # Nothing was used up, and what costs something can still be had.
        assert not (await world.row(tables.Account, customer_id)).free_session_used
        await checkout(a, customer_id)
        first = (await world.rows(tables.Checkout, customer_id=customer_id))[0]
        await world.update(tables.Checkout, first.id, created_at_ms=first.created_at_ms - 3_600_000)
        assert isinstance(await a.checkouts.start(customer_id, body("free_diagnostic")), FreeCheckout)
