"""What nobody has told us of: paid at Stripe and unknown here, owed here and unknown at Stripe."""

from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import pytest
from sqlalchemy import delete

from dispatch.money.reconciler import Repair
from models import tables
from models.rest import StripeCheckout
from tests.integration.money import checkout, is_refunded, session_id_of
from tests.parts import Node, World, body, eventually, running_node, running_world, side_by_side
from tests.stripe_proxy import Fault, stripe_proxy

on_sqlite = pytest.mark.parametrize("database_kind", ["sqlite"])
"""For what does not race and asks nothing unusual of the database."""


async def repairs(node: Node) -> list[Repair]:
    return [repair async for repair in node.reconciler.repairs()]


async def paid_unnoticed(world: World, node: Node, customer_id: str) -> tuple[StripeCheckout, str]:
    """Pay a checkout whose webhooks never come; return it and its Session's id."""
    opened = await checkout(node, customer_id)
    session_id = await session_id_of(world, opened.checkout_id)
    await world.hold_webhooks(opened.url)
    await world.pay(opened.url)
    return opened, session_id


@pytest.mark.parametrize(
    "forgotten",
    [{}, {"stripe_session_id": None, "url": None}, {"status": "expired"}, {"status": "failed"}],
    ids=["the webhook was lost", "its Session was never stored", "given up as expired", "given up as failed"],
)
async def test_what_stripe_has_as_paid_is_served_once_whatever_we_know_of_it(
    database_url, redis_url, tmp_path, forgotten: dict[str, Any]
):
    async with (
        running_world(database_url, redis_url, tmp_path) as world,
        running_node(world) as a,
        running_node(world) as b,
    ):
        opened, session_id = await paid_unnoticed(world, a, await world.customer())
        await world.update(tables.Checkout, opened.checkout_id, **forgotten)
        done = await side_by_side(*(partial(repairs, node) for node in (a, b, a)))
        assert [one for repaired in done for one in repaired] == [
            Repair("paid_session_not_fulfilled", session_id, "served")
        ]
        (request,) = await world.rows(tables.SessionRequest)
        assert (request.checkout_id, request.price_cents) == (opened.checkout_id, 999)
        assert await repairs(b) == []


@pytest.mark.parametrize(("price_cents", "became"), [(999, "served"), (1999, "owed_back")])
async def test_a_payment_whose_checkout_we_have_forgotten_is_served_or_goes_back(
    database_url, redis_url, tmp_path, price_cents: int, became: str
):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as a:
        customer_id = await world.customer()
        opened, session_id = await paid_unnoticed(world, a, customer_id)
        async with world.database.write() as session:
            await session.exec(delete(tables.Checkout).where(tables.Checkout.id == opened.checkout_id))
        await world.update(tables.Plan, "quick_chat", price_cents=price_cents)
        done = await side_by_side(*[partial(repairs, a)] * 3)
        assert [one for repaired in done for one in repaired] == [
            Repair("paid_session_not_fulfilled", session_id, became)
        ]
        (adopted,) = await world.rows(tables.Checkout)
        assert (adopted.customer_id, adopted.stripe_session_id) == (customer_id, session_id)
        if became == "served":
            assert [row.checkout_id for row in await world.rows(tables.SessionRequest)] == [adopted.id]
        else:
            await eventually(partial(is_refunded, world, adopted.id), "the money is back")


@on_sqlite
async def test_payments_of_others_on_the_same_stripe_account_are_left_alone(database_url, redis_url, tmp_path):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as a:
        price = {"currency": "usd", "unit_amount": 999, "product_data": {"name": "Somebody else's"}}
        of_another_installation = {"checkout_id": "theirs", "customer_id": "theirs", "plan": "quick_chat"}
        for metadata in ({}, of_another_installation):
            theirs = await a.stripe_api.create_session(
                {
                    "mode": "payment",
                    "line_items": [{"quantity": 1, "price_data": price}],
                    "success_url": "http://127.0.0.1:9/",
                    "metadata": metadata,
                },
                idempotency_key=f"theirs-{len(metadata)}",
            )
            await world.pay(theirs.url)
        assert await repairs(a) == []
        assert await world.rows(tables.Checkout) == await world.rows(tables.Refund) == []


@on_sqlite
async def test_everything_on_stripes_list_is_looked_at_page_by_page(
    database_url, redis_url, tmp_path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("dispatch.money.stripe_api.PAGE_LEN", 2)
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as a:
        paid = [(await paid_unnoticed(world, a, await world.customer()))[1] for _ in range(5)]
        assert {one.id for one in await repairs(a)} == set(paid)


async def test_a_refund_that_stripe_does_not_know_is_asked_for_at_once(database_url, redis_url, tmp_path):
    async with running_world(database_url, redis_url, tmp_path) as world:
        customer_id = await world.customer()
        async with running_node(world, without=("refunds",)) as dying:
            request = await world.paid_request(dying, customer_id)
            await dying.dispatch.cancel(customer_id, request.id)
            # It had claimed the refund, or had been refused often, when it died.
            (refund,) = await world.rows(tables.Refund)
            await world.update(tables.Refund, refund.id, next_attempt_at_ms=dying.clock.now_ms() + 300_000)
        async with running_node(world) as a, running_node(world) as b:
            done = await side_by_side(*(partial(repairs, node) for node in (a, b)))
            assert Repair("refund_owed", refund.id, "succeeded") in done[0] + done[1]
            assert await is_refunded(world, refund.checkout_id)
            intent = await world.at_stripe(
                f"payment_intents/{refund.payment_intent_id}", **{"expand[]": "latest_charge"}
            )
            assert intent["latest_charge"]["amount_refunded"] == 999
            assert await repairs(a) == []


@on_sqlite
async def test_a_checkout_that_never_got_a_page_ends_when_it_cannot_get_one_any_more(database_url, redis_url, tmp_path):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as a:
        opened = await checkout(a, await world.customer())
        await world.update(tables.Checkout, opened.checkout_id, stripe_session_id=None, url=None)
        assert await repairs(a) == []
        await world.update(tables.Checkout, opened.checkout_id, expires_at_ms=1)
        assert await repairs(a) == [Repair("checkout_without_page", opened.checkout_id, "expired")]


@on_sqlite
async def test_an_open_checkout_that_stripe_has_ended_is_noticed_after_a_minute(database_url, redis_url, tmp_path):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as a:
        opened = await checkout(a, await world.customer())
        await world.hold_webhooks(opened.url)
        await world.pay(opened.url, "expire")
        assert await repairs(a) == []
        await world.update(tables.Checkout, opened.checkout_id, created_at_ms=1)
        assert await repairs(a) == [Repair("open_checkout_ended", opened.checkout_id, "expired")]


@on_sqlite
async def test_a_session_that_stripe_does_not_know_stands_in_nobodys_way(database_url, redis_url, tmp_path):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as a:
        unknown = await checkout(a, await world.customer())
        await world.update(tables.Checkout, unknown.checkout_id, stripe_session_id="cs_test_gone", created_at_ms=1)
        _, session_id = await paid_unnoticed(world, a, await world.customer())
        assert [one.id for one in await repairs(a)] == [session_id]
        free = await a.checkouts.start(await world.customer(), body("free_diagnostic"))
        assert await repairs(a) == [], free


@on_sqlite
async def test_a_server_that_starts_while_stripe_is_away_tries_again_soon(database_url, redis_url, tmp_path):
    async with running_world(database_url, redis_url, tmp_path) as world, stripe_proxy(world.stripe_url) as proxy:
        through = replace(world.stripe, api_base=f"{proxy.base_url}/stripe")
        async with running_node(world, stripe=through) as a, anyio.create_task_group() as tasks:
            opened, _ = await paid_unnoticed(world, a, await world.customer())
            proxy.plan("list", Fault("reset", times=4))
            tasks.start_soon(a.reconciler.run)

            async def is_served() -> bool:
                return (await world.row(tables.Checkout, opened.checkout_id)).status == "paid"

            await eventually(is_served, "served by a later pass", within_s=20)
            tasks.cancel_scope.cancel()
        assert len(proxy.made("list")) == 1
