"""A real Chromium, signed in as somebody, with a picture of every step."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page, async_playwright, expect

import bootstrap
from http_api.cookies import SESSION as COOKIE
from tests.acceptance.clients import token_for

PICTURES = Path(__file__).parent.parent.parent / "test-results"
PATIENCE_MS = 20_000
# Its own five seconds are short where a page backs off before it connects again, and three browsers share two cores.
expect.set_options(timeout=PATIENCE_MS)
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Start the browser that this machine has."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=bootstrap.find_browser(),
            args=["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"],
        )
        yield browser
        await browser.close()


@asynccontextmanager
async def signed_in(
    browser: Browser, base_url: str, account_id: str, role: str, **options: Any
) -> AsyncIterator["Visitor"]:
    """A page of a browser that has this account's session cookie; its console must stay free of errors."""
    context = await browser.new_context(viewport=options.pop("viewport", DESKTOP), base_url=base_url, **options)
    context.set_default_timeout(PATIENCE_MS)
    cookie = {"name": COOKIE, "value": token_for(account_id, role), "url": base_url, "httpOnly": True}
    await context.add_cookies([cookie])  # type: ignore[list-item]
    page = await context.new_page()
    visitor = Visitor(page)
    page.on("console", lambda message: visitor.errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: visitor.errors.append(str(error)))
    yield visitor
    await context.close()


class Visitor:
    """A page, and what somebody looking at it does."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []

    def part(self, name: str, **data: str) -> Any:
        """Return the locator of a part of the page by its test id and data attributes."""
        conditions = "".join(f'[data-{key.replace("_", "-")}="{value}"]' for key, value in data.items())
        return self.page.locator(f'[data-testid="{name}"]{conditions}')

    async def picture(self, name: str) -> None:
        """Keep what the page looks like now, for whoever wants to look."""
        PICTURES.mkdir(exist_ok=True)
        await self.page.screenshot(path=PICTURES / f"{name}.png", full_page=True, animations="disabled")
