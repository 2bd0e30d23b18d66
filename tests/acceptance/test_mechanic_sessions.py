"""The mechanic's app from accept to done: until when to start, where the session takes place, and how it ended without them."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Route, expect
from sqlalchemy import text

from tests.acceptance.bay import ON_A_PHONE, Bay, Workshop, focused, no_violations, open_bay, running_workshop
from tests.acceptance.browser import Visitor
from tests.acceptance.test_mechanic_alerts import SPIES, asked, asked_for, settled, touch
from tests.acceptance.test_mechanic_app import ALLOWED, LOOKS_AT_SHOWN, Phone, pushed
from tests.acceptance.test_mechanic_places import cut_off

ROOMS = "https://rooms.example"
OFFER_PLACES = """
[...document.querySelectorAll("offer-card button")].filter((button) => button.checkVisibility()).map((button) => {
    const {left, top} = button.getBoundingClientRect();
    return [button.dataset.testid, Math.round(left), Math.round(top)];
})
"""
SHORT_GRACE_S = "6"
START_WINDOW_S = "8"
"""Each long enough for a page to be opened and looked at: the grace once, the start window in either half."""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """Nobody is in a hurry to start, and sessions take place somewhere."""
    join = {
        "JOIN_URL": f"{ROOMS}/{{request_id}}?token={{token}}",
        "JOIN_SECRET": "long enough to sign tokens in tests with",
    }
    with running_workshop(tmp_path_factory.mktemp("workshop"), SESSION_GRACE_S=SHORT_GRACE_S, **join) as one:
        yield one


@pytest.fixture(scope="module")
def hurried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """Whoever has accepted must start soon."""
    with running_workshop(tmp_path_factory.mktemp("hurried"), START_WINDOW_S=START_WINDOW_S) as one:
        yield one


@pytest_asyncio.fixture
async def bay(browser: Browser, workshop: Workshop) -> AsyncIterator[Bay]:
    async with open_bay(browser, workshop) as one:
        yield one


@pytest_asyncio.fixture
async def hasty(browser: Browser, hurried: Workshop) -> AsyncIterator[Bay]:
    async with open_bay(browser, hurried) as one:
        yield one


async def by_driver(bay: Bay, request_id: str, verb: str) -> None:
    async with bay.town.as_driver(bay.server) as driver:
        await driver.ok("POST", f"/api/requests/{request_id}/{verb}")


async def without_minutes(bay: Bay, request_id: str) -> None:
    """Let the session be over as soon as its grace is."""
    async with bay.town.database.write() as session:
        update = text("UPDATE session_requests SET duration_min = 0 WHERE id = :id")
        await session.exec(update, params={"id": request_id})  # type: ignore[call-overload]


async def outcome(john: Visitor) -> str | None:
    await john.part("tab-days").click()
    await john.part("past-offer").first.wait_for()
    return await john.part("past-offer").first.get_attribute("data-outcome")


@asynccontextmanager
async def in_session(bay: Bay, *scripts: str, **options: Any) -> AsyncIterator[tuple[Visitor, str]]:
    """John's app with a session that has begun, and its request's id."""
    request_id = await bay.accepted()
    async with bay.app(*scripts, **options) as john:
        await john.part("start").click()
        await john.part("complete").wait_for()
        yield john, request_id


# --- while there is a session -----------------------------------------------------------------------------------------


async def test_whoever_has_accepted_sees_until_when_to_start_and_then_when_it_ends_by_itself(bay: Bay) -> None:
    await bay.accepted()
    async with bay.app(**ON_A_PHONE) as john:
        left = john.part("session-left")
        await expect(left).to_have_text(re.compile(r"^Start within 4:\d\d, or the request goes to others\.$"))
        first = await left.text_content()
        await expect(left).not_to_have_text(first or "")
        await expect(john.part("start")).to_have_accessible_description(re.compile("^Start within about 4 min"))
        await expect(john.page.locator("#situation")).to_have_text("John Doe waits for you to start")
        await john.part("start").click()
        # The ten minutes of the plan, and the grace.
        await expect(left).to_have_text(re.compile(r"^It ends by itself in (10:0[0-6]|9:5\d), extra time included\.$"))
        await expect(john.page.locator("#active-limit")).to_have_text(
            re.compile(r"^It ends by itself within about (10|9) min, extra time included\.$")
        )
        assert john.errors == []


async def test_a_start_whose_answer_was_lost_leaves_no_trouble_on_the_card_of_the_session(bay: Bay) -> None:
    await bay.accepted()
    async with bay.app() as john:

        async def loses_the_answer(route: Route) -> None:
            await route.fetch()
            # By its socket the page knows already.
            await expect(john.part("active-request", status="in_progress")).to_be_visible()
            await route.abort()

        await john.page.route("**/start", loses_the_answer)
        await john.part("start").click()
        await expect(john.page.locator("#toast")).to_contain_text("We cannot reach the server.")
        await expect(john.page.locator("active-request .tracker-problem")).to_be_hidden()


async def test_the_session_is_joined_in_a_new_tab_by_a_button_that_keeps_its_place(bay: Bay) -> None:
    request_id = await bay.accepted()
    async with bay.app(**ON_A_PHONE) as john:
        await john.page.context.route(
            f"{ROOMS}/**", lambda route: route.fulfill(body="the room", content_type="text/plain")
        )
        await settled(john)
        before = await john.part("join").bounding_box()
        async with john.page.expect_popup() as opening:
            await john.part("join").click()
        room = await opening.value
        assert room.url.startswith(f"{ROOMS}/{request_id}?token=")
        assert await room.evaluate("window.opener") is None
        await room.close()
        await john.part("start").click()
        await john.part("complete").wait_for()
        after = await john.part("join").bounding_box()
        assert before is not None and after is not None
        assert after["x"] == before["x"]
        assert abs(after["y"] - before["y"]) < before["height"]
        await john.part("complete").click()
        await john.part("confirm-yes").click()
        await expect(john.part("join")).to_be_hidden()
        await expect(john.part("session-ending")).to_have_count(0)


async def test_without_a_place_for_sessions_there_is_no_button_for_it(hasty: Bay) -> None:
    async with in_session(hasty) as (john, _):
        await expect(john.part("join")).to_be_hidden()


async def test_an_offer_that_comes_in_a_session_says_that_it_can_be_taken_afterwards(bay: Bay) -> None:
    async with in_session(bay) as (john, request_id):
        await bay.offered(to_john=True)
        await expect(john.part("offer-later")).to_have_text(
            "You can take it when your session is done; its time runs on."
        )
        await expect(john.part("offer-card").locator(".ring-text")).to_have_text(re.compile(r"^(10:00|9:5\d)$"))
        await by_driver(bay, request_id, "complete")
        await expect(john.part("offer-later")).not_to_be_visible()
        await john.part("accept").click()
        await expect(john.part("active-request")).to_have_attribute("data-status", "accepted")


async def test_no_failure_stays_beside_a_button_that_works_again(bay: Bay) -> None:
    await bay.accepted()
    async with bay.app(**ON_A_PHONE) as john:
        await settled(john)
        async with cut_off(bay, john):
            await john.part("start").click()
            await expect(john.part("active-request")).to_contain_text("We cannot reach the server.")
        await expect(john.part("active-request")).not_to_contain_text("We cannot reach the server.")
        await john.part("start").click()
        await expect(john.part("active-request")).to_have_attribute("data-status", "in_progress")


async def test_what_could_not_be_loaded_is_loaded_once_there_is_a_connection_again(bay: Bay) -> None:
    async with bay.app(**ON_A_PHONE) as john:
        async with cut_off(bay, john):
            await john.part("tab-days").click()
            await expect(john.page.locator("past-offers")).to_contain_text("We cannot reach the server.")
        await expect(john.page.locator("past-offers")).to_contain_text("No offers have ended yet.")
        await expect(john.page.locator("work-hours")).not_to_contain_text("We cannot reach the server.")


# --- the reminder -----------------------------------------------------------------------------------------------------


async def test_half_way_to_the_end_of_the_start_window_the_app_calls_until_it_is_touched(hasty: Bay) -> None:
    async with hasty.app(SPIES, **ON_A_PHONE) as john:
        await touch(john)
        request_id = await hasty.accepted()
        await john.part("start").wait_for()
        before = await asked(john, "vibrate")
        card = john.part("active-request")
        await expect(card).to_have_attribute("data-reminded", "")
        await expect(card).to_contain_text("Start now: they wait")
        await expect(john.page.locator("#toast")).to_have_text("Start your session with John Doe now.")
        await expect(john.page).to_have_title("Start John Doe's session - Pitlane for mechanics")
        assert (await asked_for(john, "vibrate"))[len(before) :] == [
            [[150, 100, 150, 100, 150, 300, 150, 100, 150, 100, 150]]
        ]
        await john.part("start").click()
        await hasty.tells(request_id, "started")
        await expect(john.page).to_have_title("Pitlane for mechanics")
        await expect(card).not_to_have_attribute("data-reminded", "")


async def test_being_reminded_moves_no_button(hasty: Bay) -> None:
    await hasty.accepted()
    async with hasty.app(**ON_A_PHONE) as john:
        await settled(john)
        before = await john.part("start").bounding_box()
        await expect(john.part("active-request")).to_have_attribute("data-reminded", "")
        assert await john.part("start").bounding_box() == before


# --- how it ended -----------------------------------------------------------------------------------------------------


async def test_whoever_does_not_start_in_time_is_told_until_they_have_read_it(hasty: Bay) -> None:
    request_id = await hasty.accepted()
    async with hasty.app(**ON_A_PHONE) as john:
        await john.part("start").wait_for()
        await hasty.tells(request_id, "no_show")
        title = john.part("ending-title")
        await expect(title).to_have_text("You did not start in time")
        await expect(john.part("active-request")).to_be_hidden()
        await john.page.reload()
        await expect(title).to_have_text("You did not start in time")
        await john.part("read-ending").click()
        await expect(john.part("session-ending")).to_have_count(0)
        assert await focused(john) == "offers-title"
        assert await outcome(john) == "no_show"
        await expect(john.part("past-offer")).to_contain_text("You did not start in time")
        await john.page.goto("/mechanic")
        await expect(john.part("connection-state", state="live")).to_be_attached()
        await expect(john.part("session-ending")).to_have_count(0)
        assert john.errors == []


async def test_whoever_was_away_when_they_lost_the_session_hears_of_it_when_they_open_the_app(hasty: Bay) -> None:
    request_id = await hasty.accepted()
    async with hasty.app(**ON_A_PHONE) as john:
        await john.part("start").wait_for()
        # A phone has closed the page.
        await john.page.goto("about:blank")
        await hasty.tells(request_id, "no_show")
        await john.page.goto("/mechanic")
        await expect(john.part("ending-title")).to_have_text("You did not start in time")


async def cancels(bay: Bay, request_id: str) -> None:
    await by_driver(bay, request_id, "cancel")


async def finds_another(bay: Bay, request_id: str) -> None:
    await by_driver(bay, request_id, "find-another")


LOST: list[tuple[Callable[[Bay, str], Awaitable[None]], str, str]] = [
    (cancels, "John Doe cancelled", "accepted"),
    (finds_another, "John Doe asked for another mechanic", "find_another"),
]


@pytest.mark.parametrize(("lose", "title", "past"), LOST)
async def test_whoever_loses_the_session_to_the_customers_wish_is_told(
    bay: Bay, lose: Callable[[Bay, str], Awaitable[None]], title: str, past: str
) -> None:
    request_id = await bay.accepted()
    async with bay.app(SPIES, **ON_A_PHONE) as john:
        await touch(john)
        await john.part("start").focus()
        await lose(bay, request_id)
        await expect(john.part("ending-title")).to_have_text(title)
        await expect(john.page.locator("#toast")).to_have_text(f"{title}.")
        assert await focused(john) == "session-ending", "what had the focus is gone"
        assert [400] in [given for [given] in await asked_for(john, "vibrate")]
        assert await outcome(john) == past


async def test_a_session_that_its_customer_ends_is_told_and_no_offer_moves_for_it(bay: Bay) -> None:
    async with in_session(bay) as (john, request_id):
        await bay.offered(to_john=True)
        await bay.offered(to_john=True)
        await expect(john.part("offer-card")).to_have_count(2)
        await expect(john.part("offer-card").first).to_be_in_viewport()
        before = await john.page.evaluate(OFFER_PLACES)
        await by_driver(bay, request_id, "complete")
        await expect(john.part("ending-title")).to_have_text("John Doe ended the session")
        assert await john.page.evaluate(OFFER_PLACES) == before
        await john.part("read-ending").click()
        await expect(john.part("session-ending")).to_have_count(0)
        assert await john.page.evaluate(OFFER_PLACES) != before


async def unread(bay: Bay, john: Visitor, count: int) -> None:
    """Let John have lost so many sessions, all of them unread."""
    for more in range(count):
        request_id = await bay.accepted()
        await john.part("start").wait_for()
        await by_driver(bay, request_id, "cancel")
        await expect(john.part("active-request")).to_be_hidden()
        if more:
            await expect(john.part("more-endings")).to_have_text(f"{more} more to read")
    # Each stays for a while to say where it has gone.
    await expect(john.part("offer-card")).to_have_count(0, timeout=10_000)


async def test_however_many_endings_are_unread_an_offer_that_comes_is_on_the_screen(bay: Bay) -> None:
    async with bay.app(**ON_A_PHONE) as john:
        await unread(bay, john, 3)
        await expect(john.part("session-ending")).to_have_count(1)
        await john.page.evaluate("scrollTo(0, 0)")
        await bay.offered(to_john=True)
        await john.part("accept").wait_for()
        await settled(john)
        tabs = await john.page.locator("tab-bar").bounding_box()
        accept = await john.part("accept").bounding_box()
        assert tabs is not None and accept is not None
        assert accept["y"] + accept["height"] <= tabs["y"]
        await expect(john.part("ending-title")).to_be_in_viewport(ratio=1)
        await no_violations(john)
        await john.page.reload()
        await john.part("accept").click()
        await john.part("start").wait_for()
        # Of the two it is the session that is theirs.
        await expect(john.page.get_by_role("heading", name="Your session", exact=True)).to_have_count(1)
        await john.part("read-ending").click()
        await expect(john.part("more-endings")).to_have_text("1 more to read")
        await john.part("read-ending").click()
        await expect(john.part("more-endings")).to_be_hidden()
        await john.part("read-ending").click()
        await expect(john.part("session-ending")).to_have_count(0)


async def test_a_session_that_ends_by_time_is_told_and_nothing_of_it_is_left_to_complete(bay: Bay) -> None:
    request_id = await bay.accepted()
    await without_minutes(bay, request_id)
    async with bay.app(**ON_A_PHONE) as john:
        await john.part("start").click()
        await john.part("complete").click()
        await expect(john.part("confirm-dialog")).to_be_visible()
        await expect(john.part("ending-title")).to_have_text("Your session with John Doe ended by itself")
        await expect(john.part("confirm-dialog")).to_be_hidden()
        assert await bay.status(request_id) == "completed"


# --- without the page -------------------------------------------------------------------------------------------------


async def view_of(bay: Bay, request_id: str) -> dict[str, Any]:
    async with bay.town.as_mechanic(bay.server, bay.town.john) as john:
        return await john.ok("GET", f"/api/requests/{request_id}")


async def test_a_reminder_replaces_what_was_shown_of_the_session_and_what_becomes_of_it_replaces_the_reminder(
    bay: Bay,
) -> None:
    async with bay.app(**ALLOWED) as john:
        phone = await Phone.of(john)
        tag, request_id = await pushed(bay, phone)
        await phone.touch(tag, "accept")
        assert "start it within 5 min" in (await phone.shows("You have John Doe's session"))["body"]
        view = await view_of(bay, request_id)
        line = {"at": view["created_at"], "event": "reminded", "mechanic_id": bay.town.john}
        start = view["start"] | {"expires_in_ms": 150_000}
        reminded = view | {"start": start, "timeline": [*view["timeline"], line]}
        await phone.push({"type": "request_update", "request": reminded})
        reminder = await phone.shows("Start your session with John Doe: 2:30 left")
        assert (reminder["actions"], reminder["requireInteraction"]) == ([], True)
        assert [one["tag"] for one in await phone.shown()] == [f"request:{request_id}"]
        assert await phone.touch(f"request:{request_id}") == ["open /mechanic"]
        lost = [*reminded["timeline"], line | {"event": "no_show"}, line | {"event": "broadcast"}]
        # It was closed as it was touched.
        await phone.push({"type": "request_update", "request": reminded})
        is_lost = {"status": "broadcasting", "assigned_mechanic": None, "start": None, "timeline": lost}
        await phone.push({"type": "request_update", "request": reminded | is_lost})
        await phone.shows("You did not start in time")
        assert len(await phone.shown()) == 1


async def test_a_touched_reminder_brings_the_app_to_the_session_and_goes_when_it_has_begun(bay: Bay) -> None:
    request_id = await bay.accepted()
    async with bay.app(path="/mechanic#settings", **ALLOWED) as john:
        phone = await Phone.of(john)
        await john.page.evaluate(LOOKS_AT_SHOWN)
        view = await view_of(bay, request_id)
        line = {"at": view["created_at"], "event": "reminded", "mechanic_id": bay.town.john}
        reminded = {"type": "request_update", "request": view | {"timeline": [*view["timeline"], line]}}
        await phone.push(reminded)
        assert await phone.touch(f"request:{request_id}") == ["focus /mechanic"]
        await expect(john.part("active-request")).to_be_focused()
        await phone.push(reminded)
        await john.part("start").click()
        await phone.shows_nothing()


# --- for everybody ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_no_state_of_a_session_has_accessibility_violations(hasty: Bay, scheme: str) -> None:
    await hasty.accepted()
    async with hasty.app(**ON_A_PHONE, color_scheme=scheme) as john:
        await settled(john)
        await no_violations(john)
        await expect(john.part("active-request")).to_have_attribute("data-reminded", "")
        await no_violations(john)
        await john.part("session-ending").wait_for()
        await settled(john)
        await no_violations(john)
        assert await john.page.evaluate("document.documentElement.scrollWidth <= screen.width")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_no_state_of_a_session_that_has_begun_has_accessibility_violations(bay: Bay, scheme: str) -> None:
    async with in_session(bay, **ON_A_PHONE, color_scheme=scheme) as (john, request_id):
        await bay.offered(to_john=True)
        await john.part("offer-later").wait_for()
        await settled(john)
        await no_violations(john)
        await by_driver(bay, request_id, "complete")
        await john.part("session-ending").wait_for()
        await settled(john)
        await no_violations(john)


@pytest.mark.parametrize(("size", "percent"), [((360, 740), 200), ((320, 568), 100)])
async def test_large_letters_and_narrow_phones_cut_nothing_off(bay: Bay, size: tuple[int, int], percent: int) -> None:
    request_id = await bay.accepted()
    async with bay.app(**ON_A_PHONE | {"viewport": {"width": size[0], "height": size[1]}}) as john:
        await john.page.evaluate("percent => { document.documentElement.style.fontSize = `${percent}%`; }", percent)
        await john.part("join").wait_for()
        assert await john.page.evaluate("document.documentElement.scrollWidth <= screen.width")
        if percent == 100:
            await expect(john.part("session-left")).to_be_in_viewport(ratio=1)
        await by_driver(bay, request_id, "find-another")
        await john.part("session-ending").wait_for()
        assert await john.page.evaluate("document.documentElement.scrollWidth <= screen.width")
