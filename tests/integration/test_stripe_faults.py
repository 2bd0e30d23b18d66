"""Stripe, or the way to it, fails: at each call, in each way, once or for a while; nothing is lost and nothing done twice.

Each row is driven through a real proxy between our SDK and the stand-in. ``is_done`` rows are the cruel ones: Stripe has done
it, and we have not heard so. The rows of a table wait for time-outs most of the time, so they run at the same time, each in
a world of its own.
"""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from models import tables
from models.errors import StripeUnavailable
from models.settings import StripeSettings
from tests.integration.money import checkout, is_refunded, session_id_of, state
from tests.parts import HURRIED, PATIENT, World, body, eventually, running_node, running_world, side_by_side
from tests.stripe_proxy import Fault, Hold, StripeProxy, stripe_proxy

FAULTS = [
    Fault(500),
    Fault(500, is_done=True),
    Fault(429),
    Fault("reset"),
    Fault("reset", is_done=True),
    Fault("silence"),
    Fault("silence", is_done=True),
]
TIMEOUT_S = 0.8
"""For all attempts together; the SDK waits half a second before its second one."""
LASTING = 1000
CALLS_ONCE_WELL_MAX = 6
PATIENCE_S = 20.0


def copied(template: Path, folder: Path) -> str:
    """Return the URL of a migrated database in a new folder."""
    folder.mkdir()
    shutil.copyfile(template, folder / "pitlane.sqlite3")
    return f"sqlite:///{folder / 'pitlane.sqlite3'}"


@asynccontextmanager
async def faulty_world(
    template: Path, redis_url: str, folder: Path
) -> AsyncIterator[tuple[World, StripeProxy, StripeSettings]]:
    """A world on SQLite (how Stripe fails does not depend on the database), a proxy, and the settings that lead through it."""
    async with (
        running_world(copied(template, folder), redis_url, folder) as world,
        stripe_proxy(world.stripe_url) as proxy,
    ):
        yield world, proxy, replace(world.stripe, api_base=f"{proxy.base_url}/stripe", timeout_s=PATIENCE_S)


async def is_served(world: World, checkout_id: str) -> bool:
    return (await world.row(tables.Checkout, checkout_id)).status == "paid"


async def for_each_fault(row: Callable[[Fault, Path], Awaitable[None]], folder: Path) -> None:
    async def named(position: int, fault: Fault) -> None:
        try:
            await row(fault, folder / str(position))
        except Exception as error:
            error.add_note(f"the row is {fault}")
            raise

    await side_by_side(*(partial(named, position, fault) for position, fault in enumerate(FAULTS)))


async def test_a_checkout_opens_one_page_or_leaves_nothing(sqlite_template, redis_url, tmp_path):
    async def row(fault: Fault, folder: Path) -> None:
        async with (
            faulty_world(sqlite_template, redis_url, folder) as (world, proxy, stripe),
            running_node(world, stripe=replace(stripe, timeout_s=TIMEOUT_S)) as hasty,
            running_node(world, stripe=stripe) as patient,
        ):
            customer_id = await world.customer()
            proxy.plan("create", replace(fault, times=LASTING))
            with pytest.raises(StripeUnavailable, match="nothing was charged"):
                await hasty.checkouts.start(customer_id, body(), idempotency_key="k")
            assert await world.rows(tables.Checkout) == []
            proxy.heal()
            # The same key again: one page, of which the customer hears.
            opened = await checkout(patient, customer_id, idempotency_key="k")
            await world.pay(opened.url)
            await eventually(partial(is_served, world, opened.checkout_id), "served", within_s=PATIENCE_S)
            assert len(await world.rows(tables.SessionRequest)) == 1

    await for_each_fault(row, tmp_path)


async def test_a_fault_that_comes_once_is_overcome_within_the_checkout(sqlite_template, redis_url, tmp_path):
    async def row(fault: Fault, folder: Path) -> None:
        if fault.how in (429, "silence"):
            # The SDK takes "too many requests" for an answer, and silence for the end of its time.
            return
        async with (
            faulty_world(sqlite_template, redis_url, folder) as (world, proxy, stripe),
            running_node(world, stripe=stripe) as a,
        ):
            proxy.plan("create", replace(fault))
            opened = await checkout(a, await world.customer())
            # Done twice under one key, it is done once.
            made = proxy.made("create")
            assert len(made) == (2 if fault.is_done else 1)
            assert {one.idempotency_key for one in made} == {f"checkout:{opened.checkout_id}"}
            assert {one.answer["id"] for one in made} == {await session_id_of(world, opened.checkout_id)}

    await for_each_fault(row, tmp_path)


async def test_a_payment_is_served_once_as_soon_as_stripe_can_be_asked(sqlite_template, redis_url, tmp_path):
    async def row(fault: Fault, folder: Path) -> None:
        async with faulty_world(sqlite_template, redis_url, folder) as (world, proxy, stripe):
            customer_id = await world.customer()
            async with running_node(world, stripe=stripe) as patient:
                opened = await checkout(patient, customer_id)
            proxy.plan("retrieve", replace(fault, times=LASTING))
            async with running_node(world, stripe=replace(stripe, timeout_s=TIMEOUT_S)) as hasty:
                # Stripe's page waits for the webhook, which is answered though nothing can be asked.
                await world.pay(opened.url)
                assert (await state(hasty, customer_id, opened.checkout_id)).status == "open"
                assert await world.rows(tables.SessionRequest) == []
                proxy.heal()
                await eventually(partial(is_served, world, opened.checkout_id), "served", within_s=PATIENCE_S)
                await state(hasty, customer_id, opened.checkout_id)
                assert len(await world.rows(tables.SessionRequest)) == 1

    await for_each_fault(row, tmp_path)


async def test_a_refund_is_made_once_however_often_it_has_to_be_asked_for(sqlite_template, redis_url, tmp_path):
    settings = replace(PATIENT, refund_retry_first_ms=HURRIED.refund_retry_first_ms)

    async def row(fault: Fault, folder: Path) -> None:
        async with faulty_world(sqlite_template, redis_url, folder) as (world, proxy, stripe):
            customer_id = await world.customer()
            async with running_node(world, stripe=stripe) as patient:
                request = await world.paid_request(patient, customer_id)
            (paid,) = await world.rows(tables.Checkout)
            # Its webhook would tell of what was done though we were not answered; that is another test's.
            await world.hold_webhooks(f"{world.stripe.api_base}/pay/{paid.stripe_session_id}")
            proxy.plan("refund", replace(fault, times=LASTING))
            async with running_node(world, settings, stripe=replace(stripe, timeout_s=TIMEOUT_S)) as hasty:
                await hasty.dispatch.cancel(customer_id, request.id)

                async def was_tried_again() -> bool:
                    return (await world.rows(tables.Refund))[0].attempts >= 2

                await eventually(was_tried_again, "a second attempt", within_s=PATIENCE_S)
                assert (await world.request(hasty, customer_id, request.id)).refund.status == "pending"
                asked_before = len(proxy.seen)
                proxy.heal()
                await eventually(partial(is_refunded, world, paid.id), "the money is back", within_s=PATIENCE_S)
            # What is left, which refunds there are, and the refund itself: perhaps once more for an attempt that was under way.
            assert len(proxy.seen) - asked_before <= CALLS_ONCE_WELL_MAX
            # What Stripe has answered with an error of its own may be kept under its key: then the next one is used, but never
            # without looking whether there is a refund by now.
            keys = [f"refund:{paid.id}", f"refund:{paid.id}:2", f"refund:{paid.id}:3"]
            assert {one.idempotency_key for one in proxy.made("refund")} <= set(
                keys[: 1 if isinstance(fault.how, str) else 3]
            )
            assert len({one.answer["id"] for one in proxy.made("refund")}) == 1
            intent = await world.at_stripe(f"payment_intents/{paid.payment_intent_id}", **{"expand[]": "latest_charge"})
            assert intent["latest_charge"]["amount_refunded"] == 999

    await for_each_fault(row, tmp_path)


async def test_what_waits_for_stripe_holds_nobody_else_up(sqlite_template, redis_url, tmp_path):
    async with (
        faulty_world(sqlite_template, redis_url, tmp_path / "one") as (world, proxy, stripe),
        running_node(world, stripe=stripe) as a,
    ):
        waiting, other = await world.customer(), await world.customer()
        first, second = await checkout(a, waiting), await checkout(a, other)
        held = proxy.plan("retrieve", Hold(), about=await session_id_of(world, first.checkout_id))
        await world.pay(first.url)
        await eventually(lambda: held.is_reached, "Stripe is asked about the first")
        await world.pay(second.url)
        await eventually(partial(is_served, world, second.checkout_id), "the second is served by its webhook")
        (request,) = await world.rows(tables.SessionRequest, checkout_id=second.checkout_id)
        held.is_released = True
        paid = await state(a, waiting, first.checkout_id)
        (row,) = [row for row in await world.rows(tables.Checkout) if row.id == first.checkout_id]
        held = proxy.plan("refund", Hold(), about=row.payment_intent_id or "")
        await a.dispatch.cancel(waiting, paid.request_id)
        await eventually(lambda: held.is_reached, "Stripe is asked for the first refund")
        await a.dispatch.cancel(other, request.id)
        await eventually(partial(is_refunded, world, second.checkout_id), "the second is refunded")
        assert not await is_refunded(world, first.checkout_id)
        held.is_released = True
        await eventually(partial(is_refunded, world, first.checkout_id), "the first is refunded")
