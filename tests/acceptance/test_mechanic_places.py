"""Where things are in the mechanic's app: nothing moves for what happens elsewhere, and nothing waits unsaid out of sight."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.acceptance.bay import ON_A_PHONE, Bay, Workshop, no_violations, open_bay, running_workshop
from tests.acceptance.browser import Visitor

PLACES = """
Object.fromEntries([...document.querySelectorAll("duty-switch button, duty-switch input, active-request button, offer-card button")]
    .filter((button) => button.checkVisibility())
    .map((button) => {
        const {left, top} = button.getBoundingClientRect();
        const card = button.closest("[data-offer-id]")?.dataset.offerId ?? "";
        return [`${card} ${button.dataset.testid || button.textContent}`, [Math.round(left), Math.round(top + scrollY)]];
    }))
"""
"""Every button's place on the page, by its name."""
TOLD_MS = 10_000
"""Longer than what happens is told in place of how things stand."""
CUT_OFF = (
    "[...document.querySelectorAll('.strip > span')].filter((line) => line.scrollHeight > line.clientHeight + 1).length"
)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with running_workshop(tmp_path_factory.mktemp("workshop")) as one:
        yield one


@pytest_asyncio.fixture
async def bay(browser: Browser, workshop: Workshop) -> AsyncIterator[Bay]:
    async with open_bay(browser, workshop) as one:
        yield one


def phone(width: int, height: int) -> dict[str, Any]:
    return ON_A_PHONE | {"viewport": {"width": width, "height": height}}


@asynccontextmanager
async def cut_off(bay: Bay, john: Visitor) -> AsyncIterator[None]:
    """Take the network from the app for the length of the block, and wait until it has noticed either."""
    live = john.part("connection-state", state="live")
    with bay.server.standing_still():
        await john.page.context.set_offline(True)
        # The line is asked before it is given up; a server that stands still answers nothing.
        await expect(live).to_have_count(0)
        yield
    await john.page.context.set_offline(False)
    await expect(live).to_have_count(1)


async def settled(john: Visitor) -> None:
    await expect(john.page.locator("[data-settling]")).to_have_count(0)


@pytest.mark.parametrize("percent", [100, 200])
@pytest.mark.parametrize("size", [(360, 740), (320, 568), (1280, 900)])
async def test_a_connection_that_is_lost_and_found_again_moves_no_button(
    bay: Bay, size: tuple[int, int], percent: int
) -> None:
    await bay.offered()
    await bay.offered(to_john=True)
    async with bay.app(**phone(*size)) as john:
        await john.page.evaluate("percent => { document.documentElement.style.fontSize = `${percent}%`; }", percent)
        await expect(john.part("offer-card")).to_have_count(2)
        # What is said of their coming is over.
        await expect(john.page.locator("#situation")).to_be_visible(timeout=TOLD_MS)
        places = await john.page.evaluate(PLACES)
        assert len(places) == 5, places
        async with cut_off(bay, john):
            assert await john.page.evaluate(PLACES) == places
            await expect(john.part("accept").last).to_have_attribute("aria-disabled", "true")
            # To customers they are online until the server has missed them for a while.
            await expect(john.page.locator("#duty-text")).to_have_text("You will soon appear offline.")
            # Said where it is seen, however far the page is scrolled.
            await expect(john.page.locator("#situation")).to_have_text("No connection: no answer can be sent just now.")
            assert percent > 100 or await john.page.evaluate(CUT_OFF) == 0
            await no_violations(john)
        assert await john.page.evaluate(PLACES) == places


@pytest.mark.parametrize("size", [(360, 740), (320, 568)])
async def test_in_a_session_nothing_moves_either_without_a_connection(bay: Bay, size: tuple[int, int]) -> None:
    await bay.accepted()
    async with bay.app(**phone(*size)) as john:
        await john.part("start").click()
        await bay.offered(to_john=True)
        await john.part("offer-card").wait_for()
        places = await john.page.evaluate(PLACES)
        async with cut_off(bay, john):
            assert await john.page.evaluate(PLACES) == places
            # It can be asked for, and is not called done.
            await john.part("off-after-session").click()
            await expect(john.page.locator("#toast")).to_contain_text("nothing has changed")
            await expect(john.part("off-after-session")).not_to_be_checked()
        await john.part("off-after-session").click()
        await expect(john.page.locator("#duty-text")).to_have_text("You go off duty when this session is done.")
        assert await john.page.evaluate(PLACES) == places


async def test_off_duty_nothing_moves_either_without_a_connection(bay: Bay) -> None:
    async with bay.app(**phone(320, 568)) as john:
        await john.part("duty-switch").click()
        await expect(john.part("duty-switch")).to_have_attribute("aria-checked", "false")
        await bay.offered(to_john=True)
        await john.part("offer-card").wait_for()
        places = await john.page.evaluate(PLACES)
        async with cut_off(bay, john):
            assert await john.page.evaluate(PLACES) == places


async def test_an_answer_that_is_under_way_when_the_line_is_lost_is_not_called_impossible(bay: Bay) -> None:
    request_id = await bay.offered(to_john=True)
    async with bay.app(**ON_A_PHONE) as john:
        await settled(john)
        await expect(john.page.locator("#situation")).to_be_visible(timeout=TOLD_MS)
        with bay.server.standing_still():
            await john.part("accept").click()
            await john.page.context.set_offline(True)
            await expect(john.part("connection-state", state="live")).to_have_count(0)
            await expect(john.part("accept")).to_have_text("Accepting…")
            said = "No connection. Your answer goes out again once we get through."
            await expect(john.page.locator("#situation")).to_have_text(said)
            assert await john.page.evaluate(CUT_OFF) == 0
            await expect(john.page.locator("body")).not_to_contain_text("no answer can be")
            await expect(john.part("accept")).to_have_accessible_description("John Doe Quick Chat · 10 min text")
        await john.page.context.set_offline(False)
        await expect(john.part("active-request")).to_be_visible()
        assert await bay.status(request_id) == "accepted"


async def test_offers_out_of_sight_are_one_press_away_also_below_a_session(bay: Bay) -> None:
    await bay.accepted()
    async with bay.app(**ON_A_PHONE) as john:
        await john.part("start").wait_for()
        hint = john.part("new-offers")
        await expect(hint).to_be_hidden()
        places = await john.page.evaluate(PLACES)
        await bay.offered(to_john=True)
        await expect(hint).to_have_text("1 new offer")
        await bay.offered(to_john=True)
        await expect(hint).to_have_text("2 new offers")
        await expect(hint).to_be_in_viewport()
        now = await john.page.evaluate(PLACES)
        assert {name: now[name] for name in places} == places, "the hint moves nothing"
        await no_violations(john)
        await hint.click()
        await expect(john.part("offer-card").first).to_be_focused()
        await expect(john.part("offer-card").first).to_be_in_viewport(ratio=0.9)
        await john.page.evaluate("scrollTo(0, document.body.scrollHeight)")
        await expect(john.part("offer-card").last).to_be_in_viewport(ratio=0.9)
        await john.page.evaluate("scrollTo(0, 0)")
        # Seen, and still out of sight.
        await expect(hint).to_have_text("2 more offers")
        await john.part("tab-settings").click()
        await expect(hint).to_be_hidden()


async def test_an_offer_that_ends_moves_no_other_card(bay: Bay) -> None:
    first, second = await bay.offered(), await bay.offered()
    async with bay.app(**phone(412, 915)) as john:
        accept = john.page.locator(f'[data-request-id="{second}"] [data-testid="accept"]')
        await accept.hover()

        async def place() -> dict[str, float]:
            box = await accept.bounding_box()
            assert box is not None
            return {**box}

        before = await place()
        await bay.town.cancelled(bay.server, first)
        await expect(john.part("offer-note").first).to_have_text("This request was called off.")
        assert await place() == before
        await john.part("connection-state").hover()
        await expect(john.part("offer-card")).to_have_count(1, timeout=TOLD_MS)
