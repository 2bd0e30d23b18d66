"""The pages about one's own account: name, password, devices, the way back in, and the way out for good."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, expect

from tests.acceptance.bay import no_violations
from tests.acceptance.browser import DESKTOP, PATIENCE_MS, PHONE, Visitor
from tests.integration.rest_house import PASSWORD, House, rest_house
from tests.parts import eventually

NEW_PASSWORD = "seven bright spanners"


@pytest.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with rest_house(tmp_path_factory.mktemp("account-pages")) as one:
        yield one


@asynccontextmanager
async def visitor(
    browser: Browser, house: House, *, is_phone: bool = False, is_dark: bool = False
) -> AsyncIterator[Visitor]:
    """Somebody whom the browser does not know yet."""
    context = await browser.new_context(
        base_url=house.base_url, viewport=PHONE if is_phone else DESKTOP, color_scheme="dark" if is_dark else "light"
    )
    context.set_default_timeout(PATIENCE_MS)
    page = await context.new_page()
    visitor = Visitor(page)
    page.on("pageerror", lambda error: visitor.errors.append(str(error)))
    yield visitor
    await context.close()


async def signs_in(who: Visitor, email: str, password: str = PASSWORD) -> None:
    await who.page.locator("#field-email").fill(email)
    await who.page.locator("#field-password").fill(password)
    await who.page.get_by_role("button", name="Sign in", exact=True).click()


async def test_a_name_a_password_and_devices_are_ones_own_to_change(browser: Browser, house: House) -> None:
    await house.add("customer", "nina", PASSWORD)
    async with house.as_nobody() as elsewhere, visitor(browser, house) as nina:
        login = {"email": "nina@example.com", "password": PASSWORD}
        token = (await elsewhere.ok("POST", "/api/auth/login", json=login))["token"]
        elsewhere.headers["Authorization"] = f"Bearer {token}"
        await nina.page.goto("/account")
        await signs_in(nina, "nina@example.com")
        await expect(nina.page.get_by_text("Signed in as nina@example.com")).to_be_visible()

        devices = nina.part("signed-in-device")
        await expect(devices).to_have_count(2)
        await expect(devices.first).to_contain_text("Chrome on Linux (this one)")
        await devices.last.get_by_role("button").click()
        await expect(devices).to_have_count(1)
        assert (await elsewhere.get("/api/me")).status_code == 401

        await nina.part("name-form").get_by_label("Name").fill("Nina \u202eSimone\u200b")
        await nina.part("name-form").get_by_role("button").click()
        await expect(nina.page.locator("#toast")).to_have_text("Your name is saved.")
        await expect(nina.part("own-account")).to_have_text(re.compile("^Nina Simone"))

        form = nina.part("password-form")
        await form.get_by_label("Current password").fill("not this one")
        await form.get_by_label("New password").fill(NEW_PASSWORD)
        await form.get_by_role("button").click()
        await expect(nina.part("password-problem")).to_have_text("That is not your current password.")
        await form.get_by_label("Current password").fill(PASSWORD)
        await form.get_by_label("New password").fill("password123")
        await form.get_by_role("button").click()
        await expect(nina.part("password-problem")).to_contain_text("commonest passwords")
        await form.get_by_label("New password").fill(NEW_PASSWORD)
        await form.get_by_role("button").click()
        await expect(nina.page.locator("#toast")).to_contain_text("Your password is changed.")
        await expect(form.get_by_label("New password")).to_have_value("")

        await nina.part("sign-out-everywhere").click()
        await expect(nina.part("sign-in-form")).to_be_visible()
        await signs_in(nina, "nina@example.com", NEW_PASSWORD)
        await expect(devices).to_have_count(1)
        assert nina.errors == []


async def test_who_has_forgotten_the_password_gets_back_in_by_mail(browser: Browser, house: House) -> None:
    await house.add("mechanic", "otto", PASSWORD)
    async with visitor(browser, house, is_phone=True) as otto:
        await otto.page.goto("/mechanic")
        await otto.part("forgot-password").click()
        await no_violations(otto)
        await otto.page.get_by_label("Email").fill("Otto@Example.com")
        await otto.page.get_by_role("button", name="Send me a link").click()
        await expect(otto.page.get_by_text("Look into your mail")).to_be_visible()
        await otto.picture("reset-sent")
        link = await eventually(
            lambda: re.search(r"(/reset#[\w%.~-]+)", house.server.log_path.read_text()), "the mail is written"
        )

        await otto.page.goto(link[1])
        await expect(otto.part("reset-form")).to_be_visible()
        assert "#" not in otto.page.url, "neither the history nor a glance at the address has it"
        await otto.page.locator("#field-reset-password").fill(NEW_PASSWORD)
        await otto.page.get_by_role("button", name="Save and sign in").click()
        await expect(otto.page.locator("duty-switch")).to_be_visible()
        # Used, it leads back to asking for another one.
        await otto.page.goto("/")
        await otto.page.goto(link[1])
        await otto.page.locator("#field-reset-password").fill("another fine password")
        await otto.page.get_by_role("button", name="Save and sign in").click()
        await expect(otto.part("forgot-problem")).to_contain_text("has been used or is too old")
        assert otto.errors == []


async def test_an_account_is_deleted_by_who_means_it_and_not_while_a_request_is_open(
    browser: Browser, house: House
) -> None:
    customer_id = await house.add("customer", "gina", PASSWORD)
    request = await house.paid_request(customer_id)
    async with house.as_(customer_id, "customer") as rest, visitor(browser, house) as gina:
        await gina.page.goto("/account")
        await signs_in(gina, "gina@example.com")
        form = gina.part("erase-form")

        async def delete() -> None:
            await form.get_by_label("Current password").fill(PASSWORD)
            await form.get_by_role("button").click()

        await delete()
        await gina.part("confirm-no").click()
        assert (await rest.get("/api/me")).status_code == 200
        await delete()
        await gina.part("confirm-yes").click()
        await expect(gina.part("erase-problem")).to_contain_text("still open")
        await rest.ok("POST", f"/api/requests/{request['id']}/cancel")
        await delete()
        await gina.part("confirm-yes").click()
        await expect(gina.page.get_by_role("heading", name="Your account is deleted")).to_be_visible()
        await gina.picture("account-deleted")
        await gina.page.goto("/account")
        await signs_in(gina, "gina@example.com")
        await expect(gina.part("sign-in-error")).to_contain_text("do not belong together")
        assert gina.errors == []


@pytest.mark.parametrize(("is_phone", "is_dark"), [(False, False), (True, True)])
async def test_the_pages_have_no_accessibility_violations(
    browser: Browser, house: House, is_phone: bool, is_dark: bool
) -> None:
    await house.add("customer", f"axel-{is_phone}".lower(), PASSWORD)
    async with visitor(browser, house, is_phone=is_phone, is_dark=is_dark) as axel:
        await axel.page.goto("/account")
        await signs_in(axel, f"axel-{is_phone}@example.com".lower())
        await expect(axel.part("signed-in-device")).to_have_count(1)
        await no_violations(axel)
        await axel.picture(f"account-{'phone' if is_phone else 'desktop'}")
        width = await axel.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert width <= 0, "nothing is to be scrolled sideways"
        await axel.page.goto("/reset")
        await no_violations(axel)
        await axel.page.goto("/")
        await axel.page.goto("/reset#token")
        await no_violations(axel)
