"""Plans in euros, yen and dinars, all the way: what the page says is what is charged, given back, spent and earned."""

import re
from pathlib import Path

from playwright.async_api import Browser, expect

from infra.database import Database
from models import tables
from tests.acceptance.bay import Bay, open_bay, running_workshop
from tests.acceptance.browser import Visitor, signed_in
from tests.acceptance.town import refunds_at_stripe

PRICES = {
    "quick_chat": (999, "eur", "€9.99"),
    "expert_video": (1_500, "jpy", "¥1,500"),
    "premium_session": (9_990, "kwd", "KWD\N{NO-BREAK SPACE}9.990"),
}
"""Two decimals, none, and three."""


async def test_an_amount_is_the_same_from_the_plan_to_the_refund_and_to_what_a_mechanic_earns(
    browser: Browser, tmp_path: Path
) -> None:
    with running_workshop(tmp_path) as workshop:
        await workshop.server.ready()
        database = Database(workshop.database_url)
        async with database.write() as session:
            for plan_id, (amount, currency, _) in PRICES.items():
                plan = await session.get_one(tables.Plan, plan_id)
                plan.price_cents, plan.currency = amount, currency
        await database.close()
        async with open_bay(browser, workshop) as bay:
            async with bay.town.as_driver(bay.server) as driver:
                await driver.ok("PUT", f"/api/favorites/{bay.town.john}", status=201)
            async with signed_in(browser, bay.server.base_url, bay.town.driver, "customer") as customer:
                await customer.page.goto("/")
                for plan_id in PRICES:
                    await is_paid_and_refunded(bay, customer, plan_id)
                await customer.picture("currencies-refunded")
                # One is served: in the currency that it was paid in, whatever the others were.
                await customer.part("book-again").click()
                await customer.part("choose-priority").click()
                await pays_for(customer, "expert_video")
                async with bay.app() as john:
                    offer = john.part("offer-card", kind="priority")
                    await expect(offer).to_contain_text("¥1,500")
                    await offer.locator('[data-testid="accept"]').click()
                    await john.part("start").click()
                    await john.part("complete").click()
                    await john.part("confirm-yes").click()
                    await expect(customer.part("favorite-card", mechanic_id=bay.town.john)).to_contain_text(
                        "Spent: ¥1,500"
                    )
                    await john.part("tab-days").click()
                    await expect(john.part("work-hours")).to_contain_text("in 1 session · ¥1,500")
                    await expect(john.part("past-offer")).to_contain_text(["¥1,500", "KWD 9.990", "¥1,500", "€9.99"])
                    assert customer.errors + john.errors == []


async def pays_for(customer: Visitor, plan_id: str) -> str:
    """Choose the plan and pay on Stripe's page; return the request's id."""
    price = PRICES[plan_id][2]
    known = await customer.part("tracker").count()
    plan = customer.part("plan", plan_id=plan_id)
    await expect(plan).to_contain_text(price)
    await plan.click()
    await expect(customer.page.locator(".checkout-summary")).to_contain_text(price)
    await customer.part("checkout").click()
    await customer.page.get_by_role("button", name=re.compile("^Pay ")).click()
    await expect(customer.part("tracker")).not_to_have_count(known)
    tracker = customer.part("tracker").first
    await expect(tracker).to_contain_text(price)
    request_id = await tracker.get_attribute("data-request-id")
    assert request_id is not None
    return request_id


async def is_paid_and_refunded(bay: Bay, customer: Visitor, plan_id: str) -> None:
    amount, currency, price = PRICES[plan_id]
    request_id = await pays_for(customer, plan_id)
    seen = await bay.town.request(bay.server, request_id)
    assert (seen["price_cents"], seen["currency"]) == (amount, currency)
    tracker = customer.part("tracker", request_id=request_id)
    await tracker.locator('[data-testid="cancel-request"]').click()
    await customer.part("confirm-yes").click()
    await expect(tracker).to_contain_text(f"{price} refunded in full.")
    (refund,) = await bay.town.rows(tables.Refund, request_id=request_id)
    (at_stripe,) = await refunds_at_stripe(bay.server, refund.payment_intent_id)
    assert (at_stripe["amount"], at_stripe["currency"], at_stripe["status"]) == (amount, currency, "succeeded")
    # In the history, too, once the card is put away.
    await tracker.locator('[data-testid="close-request"]').click()
    line = customer.part("recent-request", request_id=request_id)
    await line.locator("summary").click()
    await expect(line).to_contain_text(f"{price} refunded in full.")
    await expect(line.locator("request-timeline")).to_contain_text(f"{price} refunded")
