"""In a real browser: what mechanics choose shows to their customers, and a session renews itself, or says why it has ended."""

from pathlib import Path

import pytest
from playwright.async_api import Browser, Route, WebSocket, expect

from accounts.accounts import NewAccount
from infra.database import Database
from models.tables import Favorite
from models.words import Role
from tests.acceptance.browser import Visitor, signed_in
from tests.acceptance.clients import Rest, token_for
from tests.acceptance.servers import Server, add_accounts, running_servers
from tests.parts import eventually

PATIENCE_S = 20.0
BRIEF_S = 5
"""How long a session is good that ends during a test: long enough for a page to be opened with it."""


async def driver_and_favorite(server: Server, data_dir: Path) -> tuple[str, str]:
    await server.ready()
    url = f"sqlite:///{data_dir}/pitlane.sqlite3"
    driver, mike = await add_accounts(
        url,
        NewAccount(Role.CUSTOMER, "driver@example.com", "John Doe"),
        NewAccount(Role.MECHANIC, "mike@example.com", "Mike's Garage", provider_type="workshop"),
    )
    database = Database(url)
    async with database.write() as session:
        session.add(Favorite(customer_id=driver, mechanic_id=mike, created_at_ms=1))
    await database.close()
    return driver, mike


async def test_plans_that_the_favourite_does_not_take_are_marked_and_follow_what_they_choose(
    browser: Browser, tmp_path: Path
) -> None:
    with running_servers(tmp_path) as [server]:
        driver, mike = await driver_and_favorite(server, tmp_path)
        async with (
            Rest.of(server.base_url, mike, "mechanic") as mechanic,
            signed_in(browser, server.base_url, driver, "customer") as customer,
        ):
            await choose(mechanic, "diagnostic", "text")
            await customer.page.goto("/")
            await expect(radio(customer, "expert_video")).to_be_checked()
            await customer.part("book-again").click()
            await customer.part("choose-priority").click()
            await expect(customer.part("plan", plan_id="expert_video")).to_contain_text(
                "Mike's Garage does not take video sessions."
            )
            await expect(radio(customer, "expert_video")).to_be_disabled()
            await expect(radio(customer, "quick_chat")).to_be_checked()
            await customer.picture("plans-not-taken")

            # While it is being looked at: video is taken again, and text no longer.
            await choose(mechanic, "video")
            await expect(radio(customer, "expert_video")).to_be_enabled()
            await expect(radio(customer, "quick_chat")).to_be_disabled()
            await expect(radio(customer, "expert_video")).to_be_checked()
            await customer.part("favorite-clear").click()
            await expect(radio(customer, "quick_chat")).to_be_enabled()
            assert customer.errors == []


async def choose(mechanic: Rest, *session_types: str) -> None:
    body = {"session_types": session_types, "push_broadcasts": False}
    await mechanic.ok("PUT", "/api/me/preferences", json=body)


def radio(customer: Visitor, plan: str):
    return customer.part("plan", plan_id=plan).locator("input")


@pytest.mark.parametrize("role", ["customer", "mechanic"])
async def test_a_page_whose_session_was_renewed_goes_on_when_the_token_of_its_socket_ends(
    browser: Browser, tmp_path: Path, role: str
) -> None:
    with running_servers(tmp_path) as [server]:
        driver, mike = await driver_and_favorite(server, tmp_path)
        account = driver if role == "customer" else mike
        async with signed_in(browser, server.base_url, account, role) as visitor:
            await briefly_signed_in(visitor, server, account, role)
            sockets: list[WebSocket] = []

            def note(socket: WebSocket) -> None:
                sockets.append(socket)

            visitor.page.on("websocket", note)

            async def after_the_socket(route: Route) -> None:
                # So that the socket is opened with the token that is about to end.
                await eventually(lambda: sockets, "the socket is opened", within_s=PATIENCE_S)
                await route.continue_()

            await visitor.page.route("**/api/auth/renew", after_the_socket)
            await visitor.page.goto("/" if role == "customer" else "/mechanic")
            await eventually(lambda: len(sockets) > 1, "the socket is opened anew", within_s=PATIENCE_S)
            assert sockets[0].is_closed()
            await expect(visitor.part("sign-in-form")).to_be_hidden()
            await expect(visitor.part("connection-state", state="live")).to_be_attached()


@pytest.mark.parametrize(("role", "path"), [("customer", "/"), ("mechanic", "/mechanic")])
async def test_whoever_has_to_sign_in_again_is_told_that_their_session_has_expired(
    browser: Browser, tmp_path: Path, role: str, path: str
) -> None:
    with running_servers(tmp_path) as [server]:
        driver, mechanic = await driver_and_favorite(server, tmp_path)
        account_id = driver if role == "customer" else mechanic
        async with signed_in(browser, server.base_url, account_id, role) as visitor:
            await briefly_signed_in(visitor, server, account_id, role)
            # The page was asleep while there was time to renew it.
            await visitor.page.route("**/api/auth/renew", lambda route: route.abort())
            await visitor.page.goto(path)
            await expect(visitor.part("connection-state", state="live")).to_be_attached()
            await expect(visitor.part("sign-in-ended")).to_have_text("Your session has expired. Please sign in again.")
            await expect(visitor.part("sign-in-form")).to_be_visible()
            await visitor.picture(f"session-expired-{role}")


@pytest.mark.parametrize("notices_by", ["the other tab", "its own next call"])
async def test_a_tab_shows_nothing_more_once_another_one_has_signed_in_somebody_else(
    browser: Browser, tmp_path: Path, notices_by: str
) -> None:
    with running_servers(tmp_path) as [server]:
        driver, mike = await driver_and_favorite(server, tmp_path)
        async with signed_in(browser, server.base_url, driver, "customer") as visitor:
            await visitor.page.goto("/")
            await expect(visitor.part("connection-state", state="live")).to_be_attached()
            await expect(visitor.page.locator("#dashboard")).to_be_visible()
            # An hour is less than half of a session's life: it is being renewed, and the answer would bring the old cookie back.
            await visitor.page.wait_for_load_state("networkidle")
            await has_session(visitor, server, mike, "mechanic", lifetime_s=3600)
            if notices_by == "the other tab":
                other = await visitor.page.context.new_page()
                await other.goto("/mechanic")
            else:
                # Nobody has told it: what it asks for is refused, and not answered for the other.
                await visitor.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
            await expect(visitor.part("sign-in-ended")).to_have_text(
                "You have been signed out, in another window or on another device. Please sign in again."
            )
            await expect(visitor.page.locator("#dashboard")).to_be_hidden()
            if notices_by == "the other tab":
                await expect(other.locator('[data-testid="connection-state"][data-state="live"]')).to_be_attached()


async def briefly_signed_in(visitor: Visitor, server: Server, account_id: str, role: str) -> None:
    """Let the browser have a session that ends in some seconds."""
    await has_session(visitor, server, account_id, role, lifetime_s=BRIEF_S)


async def has_session(visitor: Visitor, server: Server, account_id: str, role: str, *, lifetime_s: int) -> None:
    """Let the browser have this session, whosever it had before."""
    token = token_for(account_id, role, lifetime_s=lifetime_s)
    cookie = {"name": "pitlane_session", "value": token, "url": server.base_url, "httpOnly": True}
    await visitor.page.context.add_cookies([cookie])  # type: ignore[list-item]
