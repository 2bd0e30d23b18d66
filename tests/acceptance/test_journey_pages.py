"""The whole journey as people see it: two real pages in Chromium, and the payment page between."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from accounts.accounts import NewAccount
from infra.clock import wall_clock_ms
from infra.database import Database
from models.tables import Favorite, Mechanic
from models.words import Role
from tests.acceptance.bay import no_violations
from tests.acceptance.browser import PHONE, Visitor, signed_in
from tests.acceptance.clients import socket
from tests.acceptance.servers import Server, add_accounts, running_servers

TWO_HOURS_MS = 2 * 3600 * 1000


@dataclass
class Town:
    """A driver with two favourites, one of whom was last seen two hours ago, and somebody else."""

    server: Server
    driver: str
    john: str
    mike: str
    ana: str


async def town(server: Server, data_dir: Path) -> Town:
    await server.ready()
    url = f"sqlite:///{data_dir}/pitlane.sqlite3"
    driver, john, mike, ana = await add_accounts(
        url,
        NewAccount(Role.CUSTOMER, "driver@example.com", "John Doe"),
        NewAccount(Role.MECHANIC, "john@example.com", "John Smith", provider_type="independent"),
        NewAccount(Role.MECHANIC, "mike@example.com", "Mike's Garage", provider_type="workshop"),
        NewAccount(Role.MECHANIC, "ana@example.com", "Ana Lima", provider_type="independent"),
    )
    database = Database(url)
    async with database.write() as session:
        for position, mechanic_id in enumerate((john, mike)):
            session.add(Favorite(customer_id=driver, mechanic_id=mechanic_id, created_at_ms=position))
        (await session.get_one(Mechanic, mike)).last_seen_at_ms = wall_clock_ms() - TWO_HOURS_MS
    await database.close()
    return Town(server, driver, john, mike, ana)


async def choose_plan_and_pay(customer: Visitor, plan: str, button: str, picture: str) -> None:
    await customer.part("plan", plan_id=plan).click()
    await customer.picture(f"{picture}-plan")
    await customer.part("checkout").click()
    await customer.page.get_by_role("button", name=button).wait_for()
    await customer.picture(f"{picture}-payment")
    await customer.page.get_by_role("button", name=button).click()
    await customer.part("tracker").wait_for()


@pytest.mark.parametrize("device", ["desktop", "phone"])
async def test_an_online_favourite_is_booked_again_accepts_and_completes(
    browser: Browser, tmp_path: Path, device: str
) -> None:
    options = {} if device == "desktop" else {"viewport": PHONE, "has_touch": True, "is_mobile": True}
    with running_servers(tmp_path) as [server]:
        here = await town(server, tmp_path)
        async with (
            signed_in(browser, server.base_url, here.driver, "customer", **options) as customer,
            signed_in(browser, server.base_url, here.john, "mechanic", **options) as mechanic,
        ):
            await customer.page.goto("/")
            card = customer.part("favorite-card", mechanic_id=here.john)
            await expect(card).to_contain_text("John Smith")
            await expect(card).to_contain_text("Independent")
            await expect(customer.page.get_by_role("heading", name="My Favorite Mechanics")).to_be_visible()
            await customer.picture(f"{device}-1-favourites")

            await mechanic.page.goto("/mechanic")
            await expect(card.locator('[data-testid="status"]')).to_contain_text("Available")
            await mechanic.picture(f"{device}-2-mechanic-on-duty")

            await card.locator('[data-testid="book-again"]').click()
            modal = customer.part("availability-modal")
            await expect(modal).to_contain_text("Book with John Smith")
            await expect(modal).to_contain_text("Available Now")
            await expect(customer.part("choose-priority")).to_contain_text("Continue with John Smith")
            await expect(modal).to_contain_text("John will be notified immediately")
            await customer.picture(f"{device}-3-modal")
            await customer.part("choose-priority").click()
            await expect(modal).to_be_hidden()
            await expect(customer.part("session-launcher")).to_be_in_viewport()
            await expect(customer.part("favorite-banner")).to_contain_text("Booking with John Smith (Priority)")
            await customer.part("note").fill("Golf 7\nrattles when cold")
            await choose_plan_and_pay(customer, "expert_video", "Pay $29.99", f"{device}-4")
            await expect(customer.part("tracker", status="priority_offered")).to_be_visible()
            await expect(customer.part("tracker-note")).to_have_text("Golf 7\nrattles when cold")
            # The next booking is about something else.
            await expect(customer.part("note")).to_have_value("")
            # The address is clean again: a reload must not look like another return from paying.
            await customer.page.wait_for_url(lambda url: "checkout=" not in url)
            await customer.picture(f"{device}-5-waiting")

            offer = mechanic.part("offer-card", kind="priority")
            await expect(offer).to_contain_text("John Doe")
            await mechanic.picture(f"{device}-6-offer")
            await offer.locator('[data-testid="accept"]').click()
            await expect(customer.part("tracker", status="accepted")).to_contain_text("John Smith")
            await customer.picture(f"{device}-7-accepted")
            await mechanic.part("start").click()
            await expect(customer.part("tracker", status="in_progress")).to_be_visible()
            await mechanic.picture(f"{device}-8-in-progress")
            await mechanic.part("complete").click()
            await mechanic.picture(f"{device}-8-really-complete")
            await mechanic.part("confirm-yes").click()
            await expect(customer.part("tracker", status="completed")).to_be_visible()
            await expect(card).to_contain_text("Services: 1")
            await expect(card).to_contain_text("Spent: $29.99")
            await customer.picture(f"{device}-9-completed")
            assert customer.errors + mechanic.errors == []


async def test_an_offline_favourites_window_elapses_and_another_mechanic_is_prompted_for_as_favourite(
    browser: Browser, tmp_path: Path
) -> None:
    with running_servers(tmp_path, PRIORITY_WINDOW_S="4") as [server]:
        here = await town(server, tmp_path)
        async with (
            signed_in(browser, server.base_url, here.driver, "customer") as customer,
            signed_in(browser, server.base_url, here.ana, "mechanic") as ana,
        ):
            await ana.page.goto("/mechanic")
            await customer.page.goto("/")
            card = customer.part("favorite-card", mechanic_id=here.mike)
            await expect(card).to_contain_text("Workshop")
            await card.locator('[data-testid="book-again"]').click()
            modal = customer.part("availability-modal")
            await expect(modal).to_contain_text("Currently Offline")
            await expect(modal).to_contain_text("Last seen 2 hours ago")
            await expect(customer.part("choose-priority")).to_contain_text("Notify & Wait for Mike's Garage")
            await expect(customer.part("choose-broadcast")).to_contain_text("Find Available Mechanic Now")
            await customer.picture("offline-1-modal")
            await customer.part("choose-priority").click()
            await choose_plan_and_pay(customer, "quick_chat", "Pay $9.99", "offline-2")
            await expect(customer.part("tracker", status="priority_offered")).to_be_visible()
            await customer.picture("offline-3-waiting")
            await expect(customer.part("tracker", status="broadcasting")).to_be_visible()
            offer = ana.part("offer-card", kind="broadcast")
            await expect(offer).to_be_visible()
            await customer.picture("offline-4-broadcasting")
            await offer.locator('[data-testid="accept"]').click()
            await expect(customer.part("tracker", status="accepted")).to_contain_text("Ana Lima")
            await ana.part("start").click()
            await ana.part("complete").click()
            await ana.part("confirm-yes").click()
            prompt = customer.part("favorite-prompt")
            await expect(prompt).to_contain_text("Ana")
            await customer.picture("offline-5-prompt")
            await customer.part("favorite-add").click()
            await expect(customer.part("favorite-card", mechanic_id=here.ana)).to_be_visible()
            await customer.picture("offline-6-new-favourite")
            assert customer.errors + ana.errors == []


async def test_the_open_modal_follows_the_favourite_who_comes_online(browser: Browser, tmp_path: Path) -> None:
    with running_servers(tmp_path, DISCONNECT_GRACE_S="0.2") as [server]:
        here = await town(server, tmp_path)
        async with signed_in(browser, server.base_url, here.driver, "customer") as customer:
            await customer.page.goto("/")
            await customer.part("favorite-card", mechanic_id=here.john).locator('[data-testid="book-again"]').click()
            modal = customer.part("availability-modal")
            await expect(modal).to_contain_text("Currently Offline")
            async with socket(server.base_url, "mechanic", here.john):
                await expect(modal).to_contain_text("Available Now")
            await expect(modal).to_contain_text("Currently Offline")
            await customer.page.keyboard.press("Escape")
            await expect(modal).to_be_hidden()
            assert customer.errors == []


async def test_the_whole_booking_works_from_the_keyboard(browser: Browser, tmp_path: Path) -> None:
    with running_servers(tmp_path) as [server]:
        here = await town(server, tmp_path)
        async with signed_in(browser, server.base_url, here.driver, "customer") as customer:
            await customer.page.goto("/")
            press = customer.page.keyboard.press
            book = customer.part("favorite-card", mechanic_id=here.john).locator('[data-testid="book-again"]')
            await book.focus()
            await press("Enter")
            await expect(customer.part("choose-priority")).to_be_visible()
            await press("Escape")
            await expect(book).to_be_focused()
            await press("Enter")
            choose = customer.part("choose-priority")
            # Until the dialog is open and knows the status, nothing in it can have the focus.
            await expect(choose).to_be_visible()
            await expect(choose).to_be_enabled()
            await choose.focus()
            await expect(choose).to_be_focused()
            await press("Enter")
            await expect(customer.part("favorite-banner")).to_be_visible()
            await customer.part("plan", plan_id="quick_chat").locator("input").focus()
            await press("Space")
            await press("Enter")
            await customer.page.get_by_role("button", name="Pay $9.99").wait_for()
            await customer.page.get_by_role("button", name="Pay $9.99").focus()
            await press("Enter")
            await expect(customer.part("tracker", status="priority_offered")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_pages_have_no_accessibility_violations(browser: Browser, tmp_path: Path, scheme: str) -> None:
    with running_servers(tmp_path) as [server]:
        here = await town(server, tmp_path)
        async with (
            signed_in(browser, server.base_url, here.driver, "customer", color_scheme=scheme) as customer,
            signed_in(browser, server.base_url, here.john, "mechanic", color_scheme=scheme) as mechanic,
        ):
            await customer.page.goto("/")
            await customer.part("favorite-card", mechanic_id=here.john).wait_for()
            await no_violations(customer)
            await customer.part("favorite-card", mechanic_id=here.john).locator('[data-testid="book-again"]').click()
            await expect(customer.part("choose-priority")).to_be_visible()
            await no_violations(customer)
            await mechanic.page.goto("/mechanic")
            await mechanic.part("duty-switch").wait_for()
            await no_violations(mechanic)
