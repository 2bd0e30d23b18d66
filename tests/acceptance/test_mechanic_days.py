"""What the mechanic's app knows of each day: breaks, the end of the day, what was offered, and what it came to."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.acceptance.bay import ON_A_PHONE, Bay, Workshop, no_violations, open_bay, running_workshop

SHARE_OF_TITLES = """
Math.min(...[...document.querySelectorAll("past-offer")].map((line) =>
    line.querySelector(".past-what").getBoundingClientRect().width / line.getBoundingClientRect().width))
"""
"""How much of its line the narrowest title has."""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with running_workshop(tmp_path_factory.mktemp("workshop")) as one:
        yield one


@pytest_asyncio.fixture
async def bay(browser: Browser, workshop: Workshop) -> AsyncIterator[Bay]:
    async with open_bay(browser, workshop) as one:
        yield one


async def test_a_break_says_when_it_ends_also_after_a_reload_and_can_be_ended(bay: Bay) -> None:
    async with bay.app(**ON_A_PHONE) as john:
        await john.part("break").locator("summary").click()
        await john.page.get_by_role("button", name="Back in 15 minutes").click()
        await expect(john.page.locator("duty-switch h2")).to_contain_text("On a break")
        await expect(john.page.locator("#duty-text")).to_contain_text("in 15 min. You go back on duty automatically.")
        await no_violations(john)
        await john.page.reload()
        await expect(john.page.locator("duty-switch h2")).to_contain_text("On a break")
        await john.part("duty-switch").click()
        await expect(john.part("duty-switch")).to_have_attribute("aria-checked", "true")
        await expect(john.page.locator("duty-switch h2")).not_to_contain_text("On a break")
        await expect(john.part("break")).to_be_visible()


async def test_off_after_this_one_goes_off_duty_with_the_session(bay: Bay) -> None:
    await bay.accepted()
    async with bay.app() as john:
        await john.part("start").click()
        await expect(john.page.locator("#duty-text")).to_contain_text("Open requests come again")
        await john.part("off-after-session").click()
        await expect(john.page.locator("#duty-text")).to_have_text("You go off duty when this session is done.")
        await expect(john.part("off-after-session")).to_be_checked()
        await john.page.reload()
        await expect(john.part("off-after-session")).to_be_checked()
        await john.part("complete").click()
        await john.part("confirm-yes").click()
        await expect(john.part("duty-switch")).to_have_attribute("aria-checked", "false")


async def test_each_screen_is_shown_from_its_beginning(bay: Bay) -> None:
    async with bay.app(path="/mechanic#settings", **ON_A_PHONE) as john:
        await john.page.get_by_role("button", name="Try it").scroll_into_view_if_needed()
        assert await john.page.evaluate("scrollY") > 0
        await john.part("tab-days").click()
        await john.part("work-hours").wait_for()
        assert await john.page.evaluate("scrollY") == 0


async def test_the_day_shows_what_was_offered_what_became_of_it_and_what_it_earned(bay: Bay) -> None:
    await bay.accepted()
    async with bay.app(**ON_A_PHONE) as john:
        await john.part("start").click()
        await john.part("complete").click()
        await john.part("confirm-yes").click()
        await expect(john.part("active-request")).to_be_hidden()
        cancelled = await bay.offered(to_john=True)
        await john.part("offer-card").wait_for()
        await bay.town.cancelled(bay.server, cancelled)
        await john.part("tab-days").click()
        lines = john.part("past-offer")
        await expect(lines).to_have_count(2)
        await expect(lines.first).to_contain_text("Called off")
        await expect(lines.last).to_contain_text("You accepted")
        await expect(lines.last).to_contain_text("$9.99")
        for width in (360, 320):
            await john.page.set_viewport_size({"width": width, "height": 740})
            assert await john.page.evaluate(SHARE_OF_TITLES) > 0.7
        hours = john.part("work-hours")
        await expect(hours).to_contain_text("This week")
        await expect(hours.get_by_role("row", name="Today")).to_contain_text("$9.99")
        assert await john.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        await no_violations(john)
        assert john.errors == []
