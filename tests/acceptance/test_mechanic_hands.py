"""The mechanic's app under hands that are faster than screens: nothing is answered that was not meant."""

import re
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from models import tables
from tests.acceptance.bay import ON_A_PHONE, OPEN_MAX, Bay, Workshop, focused, open_bay, running_workshop, stop_clock
from tests.acceptance.browser import Visitor
from tests.parts import eventually

SETTLE_MS = 700
UNDO_MS = 5_000
"""Of the page: how long a new button takes no tap, and a decline can be taken back."""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with running_workshop(tmp_path_factory.mktemp("workshop")) as one:
        yield one


@pytest_asyncio.fixture
async def bay(browser: Browser, workshop: Workshop) -> AsyncIterator[Bay]:
    async with open_bay(browser, workshop) as one:
        yield one


async def middle_of(visitor: Visitor, part: str) -> tuple[float, float]:
    box = await visitor.part(part).bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


async def place_of(visitor: Visitor, request_id: str) -> dict[str, float]:
    card = visitor.page.locator(f'[data-request-id="{request_id}"] [data-testid="accept"]')
    box = await card.bounding_box()
    assert box is not None
    return {**box}


async def test_a_second_tap_where_start_was_completes_nothing(bay: Bay) -> None:
    request_id = await bay.accepted()
    async with bay.app(**ON_A_PHONE) as john:
        start = await middle_of(john, "start")
        await expect(john.part("start")).not_to_have_attribute("data-settling", "new")
        # A finger that taps on and on, until Complete has taken its place.
        while not await john.part("complete").is_visible():
            await john.page.touchscreen.tap(*start)
        settling = await john.part("complete").get_attribute("data-settling")
        await john.page.touchscreen.tap(*start)
        assert settling == "new", "it has just appeared"
        await expect(john.part("complete")).to_be_visible()
        await expect(john.part("confirm-dialog")).to_be_hidden()
        assert await bay.status(request_id) == "in_progress"


async def test_a_session_is_completed_only_after_a_question_that_a_double_tap_does_not_answer(bay: Bay) -> None:
    request_id = await bay.accepted()
    async with bay.app() as john:
        await john.part("start").click()
        await john.part("complete").click()
        await expect(john.part("confirm-dialog")).to_be_visible()
        # The keyboard does not get past it either.
        await john.part("confirm-yes").dispatch_event("click")
        assert await bay.status(request_id) == "in_progress"
        await john.part("confirm-no").click()
        await expect(john.part("confirm-dialog")).to_be_hidden()
        assert await bay.status(request_id) == "in_progress"
        await john.part("complete").click()
        await john.part("confirm-yes").click()
        await expect(john.part("active-request")).to_be_hidden()
        assert await bay.status(request_id) == "completed"


async def test_an_offer_that_comes_moves_no_card_under_the_pointer(bay: Bay) -> None:
    first = await bay.offered()
    async with bay.app() as john:
        accept = john.page.locator(f'[data-request-id="{first}"] [data-testid="accept"]')
        await accept.hover()
        before = await place_of(john, first)
        await bay.offered(to_john=True)
        await expect(john.part("new-offers")).to_have_text("1 new offer")
        assert await place_of(john, first) == before
        await expect(john.part("offer-card").last).to_have_attribute("data-kind", "priority")
        # Away from the cards, everything goes where it belongs.
        await john.part("connection-state").hover()
        await expect(john.part("offer-card").first).to_have_attribute("data-kind", "priority")
        await expect(john.part("new-offers")).to_be_hidden()


async def test_what_came_while_a_hand_was_near_is_one_press_away(bay: Bay) -> None:
    first = await bay.offered()
    async with bay.app() as john:
        await john.page.locator(f'[data-request-id="{first}"] [data-testid="accept"]').focus()
        await john.page.keyboard.press("Tab")
        await bay.offered(to_john=True)
        await expect(john.part("offer-card").last).to_have_attribute("data-kind", "priority")
        await john.part("new-offers").focus()
        await john.page.keyboard.press("Enter")
        await expect(john.part("offer-card").first).to_have_attribute("data-kind", "priority")
        await expect(john.part("offer-card").first).to_be_focused()


async def test_a_card_that_has_moved_takes_no_tap_at_once(bay: Bay) -> None:
    first = await bay.offered()
    async with bay.app(**ON_A_PHONE) as john:
        accept = john.page.locator(f'[data-request-id="{first}"] [data-testid="accept"]')
        await expect(accept).not_to_have_attribute("data-settling", "new")
        await john.page.evaluate(
            """void (window.moved = new Promise((resolve) => new MutationObserver(() => {
                const moved = document.querySelector('[data-settling="moved"]');
                if (moved) resolve(getComputedStyle(moved).pointerEvents);
            }).observe(document.body, {subtree: true, attributes: true, attributeFilter: ["data-settling"]})))"""
        )
        await bay.offered(to_john=True)
        assert await john.page.evaluate("window.moved") == "none"
        await accept.click()
        await expect(john.part("active-request")).to_be_visible()


async def test_a_decline_taken_back_within_five_seconds_never_happened(bay: Bay) -> None:
    request_id = await bay.offered(to_john=True)
    async with bay.app() as john:
        await john.part("decline").wait_for()
        await stop_clock(john)
        await john.part("decline").click()
        await john.page.clock.fast_forward(SETTLE_MS)
        await john.part("undo-decline").click()
        await john.page.clock.fast_forward(4 * UNDO_MS)
        await expect(john.part("decline")).to_be_visible()
        assert await bay.status(request_id) == "priority_offered"


async def test_what_takes_a_decline_back_is_where_it_was_said(bay: Bay) -> None:
    await bay.offered(to_john=True)
    async with bay.app(**ON_A_PHONE) as john:
        decline = await john.part("decline").bounding_box()
        assert decline is not None
        await john.part("decline").tap()
        undo = await john.part("undo-decline").bounding_box()
        assert undo is not None
        assert abs(undo["y"] - decline["y"]) < decline["height"]


@pytest.mark.parametrize(("size", "percent"), [((360, 740), 200), ((320, 568), 100)])
async def test_large_letters_and_narrow_phones_cut_nothing_off(bay: Bay, size: tuple[int, int], percent: int) -> None:
    await bay.offered(to_john=True)
    async with bay.app(**ON_A_PHONE | {"viewport": {"width": size[0], "height": size[1]}}) as john:
        await john.page.evaluate("percent => { document.documentElement.style.fontSize = `${percent}%`; }", percent)
        await john.part("accept").wait_for()
        assert await john.page.evaluate("document.documentElement.scrollWidth <= screen.width")
        for words in (john.page.locator("#duty-title"), john.part("offer-card").locator("h3")):
            box = await words.bounding_box()
            assert box is not None
            assert box["width"] > box["height"], "no letter stands alone in its line"


async def test_a_phone_on_its_side_shows_whose_offer_it_is(bay: Bay) -> None:
    await bay.offered(to_john=True)
    async with bay.app(**ON_A_PHONE | {"viewport": {"width": 740, "height": 360}}) as john:
        name = await john.part("offer-card").locator("h3").bounding_box()
        tabs = await john.page.locator("tab-bar").bounding_box()
        assert name is not None and tabs is not None
        assert name["y"] + name["height"] <= tabs["y"]


async def test_a_decline_is_sent_after_five_seconds_with_its_reason(bay: Bay) -> None:
    request_id = await bay.offered(to_john=True)
    async with bay.app() as john:
        await john.part("decline").wait_for()
        await stop_clock(john)
        await john.part("decline").click()
        await john.page.clock.fast_forward(SETTLE_MS)
        await john.page.get_by_role("button", name="Busy right now").click()
        assert await bay.status(request_id) == "priority_offered", "it may still be taken back"
        await john.page.clock.fast_forward(UNDO_MS)
        await expect(john.part("offer-card")).to_have_count(0)
        lines = await bay.town.rows(tables.TimelineEntry, request_id=request_id, event="declined")
        assert [line.details["reason"] for line in lines] == ["Busy right now"]


async def test_a_decline_is_sent_also_when_the_page_is_closed_before_its_time(bay: Bay) -> None:
    request_id = await bay.offered(to_john=True)
    async with bay.app() as john:
        await john.part("decline").click()
        await john.part("undo-decline").wait_for()
        await john.page.close(run_before_unload=True)
        await bay.tells(request_id, "declined")


async def test_accept_says_why_it_cannot_work(bay: Bay) -> None:
    await bay.accepted()
    async with bay.app() as john:
        await john.part("active-request").wait_for()
        second = await bay.offered(to_john=True)
        accept = john.part("accept")
        await expect(accept).to_have_attribute("aria-disabled", "true")
        await expect(accept).to_have_accessible_description(
            re.compile("^John Doe .*You are in a session. Complete it, or give it back, to accept another offer.$")
        )
        await expect(accept).not_to_have_attribute("data-settling", "new")
        await accept.focus()
        await john.page.keyboard.press("Enter")
        await expect(accept).to_be_focused()
        await expect(john.page.locator("#toast")).to_contain_text("You are in a session")
        assert await bay.status(second) == "priority_offered"


async def test_without_a_connection_no_answer_can_be_given_until_it_is_back(bay: Bay) -> None:
    await bay.offered(to_john=True)
    async with bay.app() as john:
        await john.part("accept").wait_for()
        with bay.server.standing_still():
            await john.page.context.set_offline(True)
            # The line is asked before it is given up; a server that stands still answers nothing.
            await expect(john.part("accept")).to_have_attribute("aria-disabled", "true")
            await expect(john.part("offers-reason")).to_contain_text("No connection")
            await expect(john.page.locator("#situation")).to_contain_text("No connection")
        await john.page.context.set_offline(False)
        await expect(john.part("accept")).not_to_have_attribute("aria-disabled", "true")
        await john.part("accept").click()
        await expect(john.part("active-request")).to_be_visible()


async def test_a_question_goes_with_the_session_that_it_asks_about(bay: Bay) -> None:
    request_id = await bay.accepted()
    async with bay.app() as john:
        await expect(john.part("release")).not_to_have_attribute("data-settling", "new")
        await john.part("release").click()
        await expect(john.part("confirm-dialog")).to_contain_text("Give John Doe's session back?")
        await bay.town.cancelled(bay.server, request_id)
        await expect(john.part("confirm-dialog")).to_be_hidden()


async def test_signing_out_amid_a_session_is_asked_about(bay: Bay) -> None:
    await bay.accepted()
    async with bay.app() as john:
        await john.part("active-request").wait_for()
        await john.part("sign-out").click()
        await expect(john.part("confirm-dialog")).to_contain_text("John Doe is waiting for you")
        await expect(john.part("confirm-no")).not_to_have_attribute("data-settling", "new")
        await john.part("confirm-no").click()
        await expect(john.part("active-request")).to_be_visible()


async def test_a_second_tap_that_comes_late_where_accept_was_starts_nothing(bay: Bay) -> None:
    request_id = await bay.offered(to_john=True)
    async with bay.app(**ON_A_PHONE) as john:
        await expect(john.part("accept")).not_to_have_attribute("data-settling", "new")
        await stop_clock(john)
        await john.part("accept").click()
        await john.part("start").wait_for()
        # Longer than any other button takes: whoever taps again after so long has seen nothing happen.
        await john.page.clock.fast_forward(2 * SETTLE_MS)
        await expect(john.part("start")).to_have_attribute("data-settling", "new")
        await john.page.clock.fast_forward(SETTLE_MS)
        await expect(john.part("start")).not_to_have_attribute("data-settling", "new")
        assert await bay.status(request_id) == "accepted"


async def test_from_the_keyboard_alone_the_focus_is_always_somewhere(bay: Bay) -> None:
    declined = await bay.offered(to_john=True)
    await bay.offered()
    async with bay.app() as john:
        press = john.page.keyboard.press
        first, second = john.part("offer-card").nth(0), john.part("offer-card").nth(1)
        await expect(first.locator('[data-testid="decline"]')).not_to_have_attribute("data-settling", "new")
        await first.locator('[data-testid="decline"]').focus()
        await press("Enter")
        await expect(john.part("undo-decline").first).to_be_focused()
        # The second press of a nervous finger takes nothing back.
        await press("Enter")
        await expect(john.part("undo-decline").first).to_be_focused()
        await john.page.evaluate("window.dispatchEvent(new Event('pagehide'))")
        await bay.tells(declined, "declined")
        # Where a hand is near, what has gone stays in its place; the focus has gone on.
        await expect(john.page.locator("offer-card:focus")).to_have_count(1)
        await second.locator('[data-testid="accept"]').focus()
        await press("Enter")
        await expect(john.part("active-request")).to_be_focused()
        await john.part("start").focus()
        await expect(john.part("start")).not_to_have_attribute("data-settling", "new")
        await press("Enter")
        await expect(john.part("active-request")).to_be_focused()
        await expect(john.part("complete")).not_to_have_attribute("data-settling", "new")
        await john.part("complete").focus()
        await press("Enter")
        await expect(john.part("confirm-no")).to_be_focused()
        await expect(john.part("confirm-yes")).not_to_have_attribute("data-settling", "new")
        await john.part("confirm-yes").focus()
        await press("Enter")
        await expect(john.part("active-request")).to_be_hidden()
        assert await focused(john) == "offers-title"
        assert john.errors == []


async def test_twenty_offers_are_scanned_on_the_narrowest_phone(bay: Bay) -> None:
    async with bay.app(**ON_A_PHONE) as john:
        for _ in range(OPEN_MAX - 1):
            await bay.offered()
        await expect(john.part("offer-card")).to_have_count(OPEN_MAX - 1)
        await bay.offered(to_john=True)
        await expect(john.part("offer-card").first).to_have_attribute("data-kind", "priority")
        heights = await john.part("offer-card").evaluate_all("(cards) => cards.map((card) => card.offsetHeight)")
        assert max(heights[1:]) <= 150, heights
        assert heights[0] > max(heights[1:])
        await no_overflow(john)
        await toast_covers_no_button(john)
        await john.picture("mechanic-twenty-offers")


SIDEWAYS = """
[...document.querySelectorAll("header *, tab-bar *")].filter((node) => node.checkVisibility() && !node.closest(".sr-only"))
    .filter((node) => node.getBoundingClientRect().right > innerWidth + 1).map((node) => node.outerHTML)
"""
COVERED = """
(() => {
    const toast = document.querySelector("#toast").getBoundingClientRect();
    const meets = (box) => box.left < toast.right && toast.left < box.right && box.top < toast.bottom && toast.top < box.bottom;
    return [...document.querySelectorAll("header button, tab-bar a")].filter((button) => meets(button.getBoundingClientRect()))
        .map((button) => button.textContent);
})()
"""
TOAST_IN_HEADER = """
document.querySelector("#toast").getBoundingClientRect().bottom <= document.querySelector("header").getBoundingClientRect().bottom
"""


async def no_overflow(john: Visitor) -> None:
    assert await john.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert await john.page.evaluate(SIDEWAYS) == []
    bar = await john.page.locator(".bar").bounding_box()
    assert bar is not None
    assert bar["height"] <= 60, "one line"


async def toast_covers_no_button(john: Visitor) -> None:
    await expect(john.page.locator("#toast")).to_be_visible()
    assert await john.page.evaluate(COVERED) == []
    assert await john.page.evaluate(TOAST_IN_HEADER)


async def test_a_reload_in_a_session_comes_back_to_it(bay: Bay) -> None:
    await bay.accepted()
    async with bay.app() as john:
        await john.part("start").click()
        await expect(john.part("active-request", status="in_progress")).to_be_visible()
        await john.page.reload()
        await expect(john.part("active-request", status="in_progress")).to_be_visible()
        await expect(john.part("complete")).to_be_visible()


async def test_what_is_answered_on_one_device_is_told_on_the_other(bay: Bay) -> None:
    await bay.offered()
    async with bay.app() as phone, bay.app() as tablet:
        await phone.part("accept").click()
        await expect(phone.part("active-request")).to_be_visible()
        await expect(tablet.part("offer-note")).to_have_text("You accepted this on another device.")
        await expect(tablet.part("active-request")).to_be_visible()
        await bay.offered(to_john=True)
        await phone.part("decline").click()
        await expect(phone.part("declined")).to_be_visible()
        await phone.page.evaluate("window.dispatchEvent(new Event('pagehide'))")
        await expect(tablet.part("offer-note").last).to_have_text("You declined this on another device.")
        # Nothing goes while the mouse is over it.
        await phone.part("connection-state").hover()
        await expect(phone.part("offer-card")).to_have_count(0)


async def test_a_wrong_clock_counts_down_right(bay: Bay) -> None:
    await bay.offered(to_john=True)
    three_hours = "const now = Date.now; Date.now = () => now() + 3 * 3600 * 1000;"
    async with bay.app(three_hours) as john:
        left = john.part("offer-card").locator(".ring-text")
        assert (await left.inner_text()).startswith(("10:0", "9:5"))


async def test_an_offer_is_seen_once_its_card_is_on_a_screen_that_is_on(bay: Bay) -> None:
    hidden = """
    Object.defineProperty(document, "visibilityState", {configurable: true, get: () => window.shown ? "visible" : "hidden"});
    """
    async with bay.app(hidden) as john:
        request_id = await bay.offered(to_john=True)
        await bay.tells(request_id, "delivered")
        assert "seen" not in await bay.town.story(request_id)
        await john.page.evaluate("window.shown = true; document.dispatchEvent(new Event('visibilitychange'))")
        await bay.tells(request_id, "seen")

        async def story() -> list[str]:
            return await bay.town.story(request_id)

        await john.page.reload()
        await john.part("offer-card").wait_for()
        await eventually(story, "the story")
        assert (await story()).count("seen") == 1
