"""A mechanic's app in a real browser, and customers whose offers come up in it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, expect

from tests.acceptance.browser import Visitor, signed_in
from tests.acceptance.servers import Server, running_servers
from tests.acceptance.town import Town, new_town
from tests.parts import eventually

NARROW = {"width": 360, "height": 740}
"""The narrowest phones."""
ON_A_PHONE: dict[str, Any] = {"viewport": NARROW, "has_touch": True, "is_mobile": True}
OPEN_MAX = 20


@dataclass
class Workshop:
    """A running server, and where its database is."""

    server: Server
    database_url: str


@dataclass
class Bay:
    """New people for each test, with John's app open as often as a test wants."""

    browser: Browser
    server: Server
    town: Town
    requests: list[str] = field(default_factory=list)

    async def offered(self, *, to_john: bool = False) -> str:
        """Let the driver pay for a session; return the request's id."""
        request_id = await self.town.paid(self.server, favorite=self.town.john if to_john else None)
        self.requests.append(request_id)
        return request_id

    async def accepted(self) -> str:
        """Let John have a session, accepted before his app is opened."""
        request_id = await self.offered(to_john=True)
        async with self.town.as_mechanic(self.server, self.town.john) as john:
            (offer,) = (await john.ok("GET", "/api/offers"))["offers"]
            await john.ok("POST", f"/api/offers/{offer['offer_id']}/accept")
        return request_id

    async def status(self, request_id: str) -> str:
        return (await self.town.request(self.server, request_id))["status"]

    async def tells(self, request_id: str, event: str) -> None:
        """Wait until the request's story has this line."""

        async def does() -> bool:
            return event in await self.town.story(request_id)

        await eventually(does, f"the story has: {event}")

    @asynccontextmanager
    async def app(self, *scripts: str, path: str = "/mechanic", **options: Any) -> AsyncIterator[Visitor]:
        """John's app, connected; ``scripts`` run in it before its own."""
        async with signed_in(self.browser, self.server.base_url, self.town.john, "mechanic", **options) as visitor:
            for script in scripts:
                await visitor.page.add_init_script(script)
            await visitor.page.goto(path)
            await expect(visitor.part("connection-state", state="live")).to_be_attached()
            await expect(visitor.part("duty-switch")).to_have_attribute("aria-checked", "true")
            yield visitor


@contextmanager
def running_workshop(folder: Path, **settings: str) -> Iterator[Workshop]:
    with running_servers(folder, **settings) as [server]:
        yield Workshop(server, f"sqlite:///{folder}/pitlane.sqlite3")


@asynccontextmanager
async def open_bay(browser: Browser, workshop: Workshop) -> AsyncIterator[Bay]:
    """Hand out a bay; what it leaves open is cancelled, so that it concerns no later test."""
    await workshop.server.ready()
    async with new_town(workshop.database_url) as town:
        bay = Bay(browser, workshop.server, town)
        yield bay
        async with town.as_driver(bay.server) as driver:
            for request_id in bay.requests:
                await driver.post(f"/api/requests/{request_id}/cancel")


async def no_violations(visitor: Visitor, *, judge_colours: bool = True) -> None:
    """Let axe look at the page once everything that is on its way has arrived."""
    # Colours that are still fading are judged as they are half-way. What is cancelled, as its element goes or changes again, has
    # arrived, too.
    await visitor.page.evaluate("Promise.allSettled(document.getAnimations().map((animation) => animation.finished))")
    # Forced colours are the system's: what the page asked for, which axe reads, is not what is shown.
    options = {"rules": {"color-contrast": {"enabled": judge_colours}}}
    results = await Axe().run(visitor.page, options=options)
    assert results.violations_count == 0, results.generate_report()


async def stop_clock(visitor: Visitor) -> None:
    """Let the page's time stand still; it goes on by ``page.clock.fast_forward``, or altogether after ``page.clock.resume``."""
    await visitor.page.clock.install()
    await visitor.page.clock.pause_at(await visitor.page.evaluate("Date.now() + 1000"))


async def focused(visitor: Visitor) -> str:
    """Return what has the focus: its test id, else its id, else its tag."""
    script = "(({dataset, id, tagName}) => dataset.testid || id || tagName.toLowerCase())(document.activeElement)"
    return await visitor.page.evaluate(script)
