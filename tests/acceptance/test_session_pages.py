"""The customer's page from accept to done: what is true of the mechanic, and a way out of every wait."""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Route, WebSocketRoute, expect
from sqlalchemy import text

from accounts.accounts import NewAccount
from models.ids import new_id
from models.words import Role
from tests.acceptance.bay import NARROW, Bay, Workshop, focused, no_violations, open_bay, running_workshop
from tests.acceptance.browser import DESKTOP, Visitor, signed_in
from tests.acceptance.clients import Rest, pay, socket
from tests.acceptance.servers import add_accounts
from tests.parts import eventually

ROOM_SECRET = "a secret of the rooms, of forty bytes or so"
ROOM = {"JOIN_URL": "http://rooms.example/{request_id}?token={token}", "JOIN_SECRET": ROOM_SECRET}
SOON = {"DISCONNECT_GRACE_S": "0.2", "HEARTBEAT_INTERVAL_S": "0.5", "PRESENCE_TIMEOUT_S": "5"}
"""Whoever has lost the connection is known to have within a moment."""
KEEPS_SAID = """
window.said = [];
const announcer = document.getElementById("announcer");
new MutationObserver(() => announcer.textContent && window.said.push(announcer.textContent)).observe(announcer, {childList: true});
"""
"""What the page has had read out, which it wipes again after a moment."""


LISTS = ("**/api/favorites", "**/api/plans")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with running_workshop(tmp_path_factory.mktemp("workshop"), **ROOM, **SOON) as one:
        yield one


@pytest_asyncio.fixture
async def bay(browser: Browser, workshop: Workshop) -> AsyncIterator[Bay]:
    async with open_bay(browser, workshop) as one:
        yield one


@asynccontextmanager
async def drivers_page(bay: Bay, **options: Any) -> AsyncIterator[Visitor]:
    """The driver's page, connected."""
    async with signed_in(bay.browser, bay.server.base_url, bay.town.driver, "customer", **options) as visitor:
        await visitor.page.goto("/")
        await expect(visitor.part("connection-state", state="live")).to_be_attached()
        yield visitor


async def looks_right(visitor: Visitor, name: str) -> None:
    """Let axe judge what is shown, on a desk and on the narrowest phone, by day and by night, and keep a picture of each."""
    for device, viewport in (("desktop", DESKTOP), ("phone", NARROW)):
        await visitor.page.set_viewport_size(viewport)  # type: ignore[arg-type]
        for scheme in ("light", "dark"):
            await visitor.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            await no_violations(visitor)
            await visitor.picture(f"session-{name}-{device}-{scheme}")
        root = "document.documentElement"
        assert await visitor.page.evaluate(f"{root}.scrollWidth <= {root}.clientWidth"), f"{name} fits a {device}"
    await visitor.page.set_viewport_size(DESKTOP)  # type: ignore[arg-type]
    await visitor.page.emulate_media(color_scheme="light")


async def started(bay: Bay, *, minutes: int | None = None) -> str:
    """Let John have a session under way; ``minutes``: of so many, instead of the plan's."""
    request_id = await bay.accepted()
    if minutes is not None:
        await set_in_sql(bay, request_id, "duration_min = :value", minutes)
    async with bay.town.as_mechanic(bay.server, bay.town.john) as john:
        await john.ok("POST", f"/api/requests/{request_id}/start")
    return request_id


async def completed(bay: Bay) -> str:
    """Let John have completed a session."""
    request_id = await started(bay)
    async with bay.town.as_mechanic(bay.server, bay.town.john) as john:
        await john.ok("POST", f"/api/requests/{request_id}/complete")
    return request_id


async def set_in_sql(bay: Bay, request_id: str, change: str, value: int) -> None:
    """Change a request behind the server's back."""
    async with bay.town.database.write() as session:
        statement = text(f"UPDATE session_requests SET {change} WHERE id = :id")
        await session.exec(statement, params={"value": value, "id": request_id})  # type: ignore[call-overload]


async def opens_story(visitor: Visitor) -> None:
    await visitor.part("tracker").locator("summary").click()


# --- accepted ---------------------------------------------------------------------------------------------------------


async def test_whoever_waits_for_a_start_sees_until_when_and_whether_the_mechanic_is_there(bay: Bay) -> None:
    async with drivers_page(bay) as driver:
        async with socket(bay.server.base_url, "mechanic", bay.town.john):
            await bay.accepted()
            await expect(driver.part("tracker-headline")).to_have_text("John Smith accepted")
            await expect(driver.part("tracker-presence")).to_have_text("John is online")
            await expect(driver.part("tracker-detail")).to_have_text(
                re.compile(r"^John starts within [45]:\d\d\. If not, we ask everyone\.$")
            )
            await looks_right(driver, "accepted")
            await driver.page.evaluate(KEEPS_SAID)
        # The line is lost, and nobody has told the page but its own watch.
        await expect(driver.part("tracker-presence")).to_have_text(
            re.compile(r"^John has lost the connection; if John does not start within [34]:\d\d, we ask everyone\.$")
        )
        await expect(driver.part("tracker-detail")).to_be_hidden()
        await looks_right(driver, "accepted-lost")
        async with socket(bay.server.base_url, "mechanic", bay.town.john):
            await expect(driver.part("tracker-presence")).to_have_text("John is online")
        lost, back = await driver.page.evaluate("window.said.slice(0, 2)")
        assert lost.startswith("John Smith accepted. John has lost the connection; if John does not start within ")
        assert back.startswith("John Smith accepted. John is online. John starts within ")
        assert driver.errors == []


async def test_a_page_that_is_opened_later_knows_at_once_that_the_mechanic_is_gone(bay: Bay) -> None:
    await bay.accepted()
    async with drivers_page(bay) as driver:
        await expect(driver.part("tracker-presence")).to_contain_text("John has lost the connection")


async def test_the_time_to_start_is_counted_down(bay: Bay) -> None:
    await bay.accepted()
    async with drivers_page(bay) as driver:
        detail = driver.part("tracker-presence")
        before = await detail.text_content()
        await expect(detail).not_to_have_text(before)
        await expect(driver.page.locator("request-tracker .ring-text")).to_have_text(re.compile(r"^[34]:\d\d$"))


async def test_join_leads_to_the_room_in_a_tab_of_its_own_for_as_long_as_there_is_one(bay: Bay) -> None:
    async with drivers_page(bay) as driver:
        rooms: list[str] = []

        async def room(route: Route) -> None:
            rooms.append(route.request.url)
            await route.fulfill(body="<title>Room</title>", content_type="text/html")

        await driver.page.context.route("http://rooms.example/**", room)
        request_id = await bay.offered(to_john=True)
        await expect(driver.part("tracker", status="priority_offered")).to_be_visible()
        await expect(driver.part("join")).to_be_hidden()
        async with bay.town.as_mechanic(bay.server, bay.town.john) as john:
            (offer,) = (await john.ok("GET", "/api/offers"))["offers"]
            await john.ok("POST", f"/api/offers/{offer['offer_id']}/accept")
            await expect(driver.part("join")).to_have_attribute("rel", "noopener")
            async with driver.page.context.expect_page() as opening:
                await driver.part("join").click()
            tab = await opening.value
            await expect(tab).to_have_title("Room")
            assert await tab.evaluate("window.opener") is None
            address = urlsplit(rooms[0])
            assert address.path == f"/{request_id}"
            token = jwt.decode(address.query.removeprefix("token="), ROOM_SECRET, algorithms=["HS256"])
            assert (token["sub"], token["role"]) == (bay.town.driver, "customer")
            await john.ok("POST", f"/api/requests/{request_id}/start")
            await expect(driver.part("tracker", status="in_progress")).to_be_visible()
            await expect(driver.part("join")).to_be_visible()
            await john.ok("POST", f"/api/requests/{request_id}/complete")
        await expect(driver.part("tracker", status="completed")).to_be_visible()
        await expect(driver.part("join")).to_be_hidden()


async def test_another_mechanic_is_found_only_after_a_question_and_the_first_one_loses_the_request(bay: Bay) -> None:
    request_id = await bay.accepted()
    async with bay.app() as john, drivers_page(bay) as driver:
        await expect(john.part("active-request")).to_be_visible()
        await driver.part("find-another").focus()
        await driver.page.keyboard.press("Enter")
        await expect(driver.part("confirm-dialog")).to_contain_text("taken from John Smith")
        await expect(driver.part("confirm-no")).to_be_focused()
        await looks_right(driver, "find-another")
        await driver.page.keyboard.press("Escape")
        await expect(driver.part("confirm-dialog")).to_be_hidden()
        await expect(driver.part("find-another")).to_be_focused()
        assert await bay.status(request_id) == "accepted"

        await driver.part("find-another").click()
        async with driver.page.expect_request("**/find-another") as asked:
            await driver.part("confirm-yes").click()
        # Whoever has it when this arrives late is not meant.
        assert (await asked.value).post_data_json == {"mechanic_id": bay.town.john}
        await expect(driver.part("tracker-headline")).to_contain_text("Finding you a mechanic…")
        await expect(driver.part("tracker-detail")).to_contain_text("You asked for another mechanic.")
        # The button has gone; who pressed it reads on at the card.
        await expect(driver.part("tracker")).to_be_focused()
        await expect(john.part("active-request")).to_be_hidden()
        await opens_story(driver)
        await expect(driver.part("timeline")).to_contain_text("You asked for another mechanic")
        await looks_right(driver, "asking-again")

        async with bay.town.as_mechanic(bay.server, bay.town.mike) as mike:
            (offer,) = [
                one for one in (await mike.ok("GET", "/api/offers"))["offers"] if one["request_id"] == request_id
            ]
            await mike.ok("POST", f"/api/offers/{offer['offer_id']}/accept")
        await expect(driver.part("tracker-headline")).to_have_text("Mike's Garage accepted")
        assert driver.errors == []


async def test_a_question_that_the_start_has_overtaken_is_taken_back(bay: Bay) -> None:
    request_id = await bay.accepted()
    async with drivers_page(bay) as driver:
        await driver.part("find-another").click()
        await expect(driver.part("confirm-dialog")).to_be_visible()
        async with bay.town.as_mechanic(bay.server, bay.town.john) as john:
            await john.ok("POST", f"/api/requests/{request_id}/start")
        await expect(driver.part("tracker-headline")).to_have_text("In session with John Smith")
        await expect(driver.part("confirm-dialog")).to_be_hidden()
        # The button that asked has gone as well.
        await expect(driver.part("tracker")).to_be_focused()
        assert await bay.status(request_id) == "in_progress"


async def test_whoever_was_about_to_cancel_reads_and_hears_that_the_start_was_faster(bay: Bay) -> None:
    request_id = await bay.accepted()
    async with drivers_page(bay) as driver:
        await driver.page.evaluate(KEEPS_SAID)
        await driver.part("cancel-request").click()
        await expect(driver.part("confirm-dialog")).to_be_visible()
        async with bay.town.as_mechanic(bay.server, bay.town.john) as john:
            await john.ok("POST", f"/api/requests/{request_id}/start")
        await expect(driver.part("confirm-dialog")).to_be_hidden()
        overtaken = "John Smith has started the session; it can no longer be cancelled."
        await expect(driver.page.locator("#toast")).to_have_text(overtaken)
        (said,) = await driver.page.evaluate("window.said")
        assert said.startswith(f"{overtaken} In session with John Smith.")
        await looks_right(driver, "cancel-overtaken")
        # The next move of this request has nothing to do with the question.
        async with bay.town.as_mechanic(bay.server, bay.town.john) as john:
            await john.ok("POST", f"/api/requests/{request_id}/complete")
        await expect(driver.part("tracker", status="completed")).to_be_visible()
        await expect(driver.page.locator("#toast")).to_have_text(overtaken)
        assert driver.errors == []


async def test_what_is_heard_of_a_broadcast_is_what_is_seen(bay: Bay) -> None:
    request_id = await bay.offered(to_john=True)
    async with drivers_page(bay) as driver:
        await expect(driver.part("tracker", status="priority_offered")).to_be_visible()
        await driver.page.evaluate(KEEPS_SAID)
        # Since the page counted last somebody has come.
        async with socket(bay.server.base_url, "mechanic", bay.town.mike), bay.town.as_driver(bay.server) as rest:

            async def he_counts() -> bool:
                return (await rest.ok("GET", "/api/mechanics/availability"))["available_count"] == 1

            await eventually(he_counts, "Mike, and nobody else, is available")
            await rest.ok("POST", f"/api/requests/{request_id}/skip-wait")
            seen = driver.part("tracker-detail")
            await expect(seen).to_contain_text("Offered to ")
            # Mechanics of other tests may still count for a moment: whatever is seen then is what is heard.
            await driver.page.wait_for_function(
                """(seen) => window.said.at(-1) === `Finding you a mechanic. ${seen.textContent}`""",
                arg=await seen.element_handle(),
            )


async def test_a_wish_that_the_start_has_overtaken_says_so_and_does_not_stay_on_the_card(bay: Bay) -> None:
    request_id = await bay.accepted()
    async with drivers_page(bay) as driver:

        async def starts_first(route: Route) -> None:
            async with bay.town.as_mechanic(bay.server, bay.town.john) as john:
                await john.ok("POST", f"/api/requests/{request_id}/start")
            await route.continue_()

        await driver.page.route("**/find-another", starts_first)
        await driver.part("find-another").click()
        await driver.part("confirm-yes").click()
        await expect(driver.page.locator("#toast")).to_contain_text("in progress")
        await expect(driver.part("tracker-headline")).to_have_text("In session with John Smith")
        await expect(driver.page.locator(".tracker-problem")).to_be_hidden()


async def test_a_wish_that_did_not_get_through_is_forgotten_once_the_request_has_moved_on(bay: Bay) -> None:
    request_id = await bay.accepted()
    async with drivers_page(bay) as driver, bay.town.as_mechanic(bay.server, bay.town.john) as john:
        problem = driver.page.locator(".tracker-problem")
        await cancels_in_vain(driver)
        await john.ok("POST", f"/api/requests/{request_id}/start")
        await expect(driver.part("tracker", status="in_progress")).to_be_visible()
        await expect(problem).to_be_hidden()

        # Only the answer was lost, and the socket was faster to say what became of it.
        async def loses_the_answer(route: Route) -> None:
            await route.fetch()
            await expect(driver.part("tracker", status="completed")).to_be_visible()
            await route.abort()

        await driver.page.route("**/complete", loses_the_answer)
        await driver.part("complete-session").click()
        await driver.part("confirm-yes").click()
        await expect(driver.page.locator("#toast")).to_contain_text("We cannot reach the server.")
        await expect(problem).to_be_hidden()


async def test_what_did_not_get_through_is_no_trouble_any_more_once_the_line_is_back(bay: Bay) -> None:
    await bay.accepted()
    lines: list[WebSocketRoute] = []

    def holds(line: WebSocketRoute) -> None:
        line.connect_to_server()
        lines.append(line)

    async with signed_in(bay.browser, bay.server.base_url, bay.town.driver, "customer") as driver:
        await driver.page.route_web_socket(re.compile("/ws/customer"), holds)
        for path in LISTS:
            await driver.page.route(path, lambda route: route.abort())
        await driver.page.goto("/")
        await expect(driver.part("connection-state", state="live")).to_be_attached()
        troubles = driver.page.get_by_text("We cannot reach the server.")
        await expect(troubles).to_have_count(2)
        await cancels_in_vain(driver)
        for path in LISTS:
            await driver.page.unroute(path)
        await lines[-1].close(code=1012)
        await expect(troubles.filter(visible=True)).to_have_count(0)
        await expect(driver.part("favorites-hint")).to_be_visible()
        await expect(driver.part("plan")).to_have_count(4)
        await expect(driver.part("connection-state", state="live")).to_be_attached()


async def cancels_in_vain(driver: Visitor) -> None:
    """Let the page try to cancel while no request of it gets through."""
    await driver.page.route("**/cancel", lambda route: route.abort())
    await driver.part("cancel-request").click()
    await driver.part("confirm-yes").click()
    await expect(driver.page.locator(".tracker-problem")).to_contain_text("We cannot reach the server.")


# --- in session -------------------------------------------------------------------------------------------------------


async def test_the_customer_ends_a_session_after_a_question_and_the_mechanic_is_free(bay: Bay) -> None:
    request_id = await started(bay, minutes=60)
    async with bay.app() as john, drivers_page(bay) as driver:
        await expect(driver.part("tracker-headline")).to_have_text("In session with John Smith")
        await expect(driver.part("tracker-presence")).to_have_text("John is online")
        # An hour, and fifteen minutes of grace.
        await expect(driver.part("tracker-detail")).to_contain_text(
            re.compile(r"ends by itself in 1:1[45]:\d\d, extra time included\.$")
        )
        await expect(driver.part("cancel-request")).to_be_hidden()
        await looks_right(driver, "in-session")
        await driver.page.set_viewport_size(NARROW)  # type: ignore[arg-type]
        ring = await driver.page.locator("request-tracker countdown-ring").bounding_box()
        left = await driver.page.locator("request-tracker .ring-text").bounding_box()
        assert ring and left and left["width"] < ring["width"] * 0.85, "hours fit inside the ring"
        await driver.page.set_viewport_size(DESKTOP)  # type: ignore[arg-type]
        await driver.part("complete-session").click()
        await expect(driver.part("confirm-dialog")).to_contain_text("The session with John Smith ends now")
        await driver.part("confirm-no").click()
        assert await bay.status(request_id) == "in_progress"
        await driver.part("complete-session").click()
        await driver.part("confirm-yes").click()
        await expect(driver.part("tracker-headline")).to_have_text("Completed with John Smith")
        await expect(driver.part("tracker-detail")).to_contain_text("You completed it.")
        await expect(driver.part("tracker")).to_be_focused()
        await expect(john.part("active-request")).to_be_hidden()
        await opens_story(driver)
        await expect(driver.part("timeline")).to_contain_text("You completed the session after")
        await looks_right(driver, "completed")
        assert driver.errors == []


async def test_a_session_that_the_mechanic_has_ended_says_so(bay: Bay) -> None:
    request_id = await started(bay)
    async with drivers_page(bay) as driver:
        await expect(driver.part("tracker", status="in_progress")).to_be_visible()
        async with bay.town.as_mechanic(bay.server, bay.town.john) as john:
            await john.ok("POST", f"/api/requests/{request_id}/complete")
        await expect(driver.part("tracker-detail")).to_contain_text("John completed it.")


# --- afterwards -------------------------------------------------------------------------------------------------------


async def test_a_problem_is_reported_once_and_stays_reported(bay: Bay) -> None:
    request_id = await started(bay)
    async with drivers_page(bay) as driver:
        await driver.part("complete-session").click()
        await driver.part("confirm-yes").click()
        report = driver.part("tracker").locator('[data-testid="report-problem"]')
        await report.click()
        await expect(driver.part("report-dialog")).to_contain_text("your session with John Smith; John Smith does not")
        await expect(driver.part("report-reason")).to_be_focused()
        await driver.part("report-send").click()
        await expect(driver.part("report-problem-text")).to_have_text(
            "Please write a few words: without them nobody can help."
        )
        await driver.part("report-reason").press_sequentially("x" * 201, delay=0)
        await expect(driver.part("report-reason")).to_have_value("x" * 200)
        await expect(driver.page.locator("#report-left")).to_have_text("0 characters left")
        await driver.part("report-reason").fill("Nobody spoke to me.\nNot once.")
        await looks_right(driver, "report")
        # It is not lost by a slip.
        await driver.page.keyboard.press("Escape")
        await report.click()
        await expect(driver.part("report-reason")).to_have_value("Nobody spoke to me.\nNot once.")

        async def after_the_socket(route: Route) -> None:
            answer = await route.fetch()
            # By now the button is gone to which the focus would go back.
            await expect(driver.part("tracker").locator('[data-testid="reported"]')).to_be_visible()
            await route.fulfill(response=answer)

        await driver.page.route("**/report", after_the_socket)
        await driver.part("report-send").click()
        await expect(driver.part("report-dialog")).to_be_hidden()
        await expect(driver.part("tracker").locator('[data-testid="reported"]')).to_be_visible()
        await expect(report).to_be_hidden()
        await expect(driver.part("tracker")).to_be_focused()
        await looks_right(driver, "reported")
        async with bay.town.as_driver(bay.server) as rest:
            reason = {"reason": "again"}
            assert await rest.problem("POST", f"/api/requests/{request_id}/report", json=reason) == (
                409,
                "already_reported",
            )

        await driver.page.reload()
        line = driver.part("recent-request", request_id=request_id)
        await line.locator("summary").click()
        await expect(line.locator('[data-testid="reported"]')).to_be_visible()
        await expect(line.locator('[data-testid="report-problem"]')).to_be_hidden()
        await expect(line).to_contain_text("You reported a problem")
        await looks_right(driver, "reported-later")
        assert driver.errors == []


async def test_an_earlier_session_is_reported_from_the_list_until_seven_days_have_passed(bay: Bay) -> None:
    old, lately = await completed(bay), await completed(bay)
    await set_in_sql(bay, old, "completed_at_ms = completed_at_ms - :value", 7 * 86_400_000)
    async with drivers_page(bay) as driver:
        for request_id in (old, lately):
            await driver.part("recent-request", request_id=request_id).locator("summary").click()
        report = '[data-testid="report-problem"]'
        await expect(driver.part("recent-request", request_id=old).locator(report)).to_be_hidden()
        line = driver.part("recent-request", request_id=lately)
        await line.locator(report).click()
        await driver.part("report-reason").fill("The picture froze.")

        async def fails(route: Route) -> None:
            await route.abort()

        await driver.page.route("**/report", fails)
        await driver.part("report-send").click()
        await expect(driver.part("report-problem-text")).not_to_be_empty()
        await driver.page.unroute("**/report")
        await driver.part("report-send").click()
        await expect(line.locator('[data-testid="reported"]')).to_be_visible()
        # What was pressed has gone: its line has the focus.
        await expect(line.locator("summary")).to_be_focused()


async def test_a_report_that_another_window_has_made_already_is_not_made_twice(bay: Bay) -> None:
    request_id = await completed(bay)
    async with drivers_page(bay) as driver:
        line = driver.part("recent-request", request_id=request_id)
        await line.locator("summary").click()
        await line.locator('[data-testid="report-problem"]').click()
        await driver.part("report-reason").fill("The picture froze.")

        async def first(route: Route) -> None:
            async with bay.town.as_driver(bay.server) as rest:
                await rest.ok("POST", f"/api/requests/{request_id}/report", json={"reason": "first"})
            await route.continue_()

        await driver.page.route("**/report", first, times=1)
        await driver.part("report-send").click()
        await expect(driver.part("report-problem-text")).to_have_text("You have reported this session already.")
        await driver.part("report-cancel").click()
        await expect(line.locator('[data-testid="reported"]')).to_be_visible()


# --- the favourite is busy --------------------------------------------------------------------------------------------


async def test_whoever_waits_for_a_favourite_hears_that_they_are_busy_and_chooses(bay: Bay, workshop: Workshop) -> None:
    request_id = await bay.offered(to_john=True)
    async with drivers_page(bay) as driver:
        await expect(driver.part("skip-wait")).to_have_text("Skip the wait")
        await expect(driver.part("keep-waiting")).to_be_hidden()
        await john_takes_another(bay, workshop.database_url)
        detail = driver.part("tracker-detail")
        await expect(detail).to_contain_text(
            "John is in a session with somebody else and can answer when it is done. Do you want to wait?"
        )
        await expect(driver.part("skip-wait")).to_have_text("Ask everyone")
        await looks_right(driver, "favourite-busy")
        await driver.part("keep-waiting").focus()
        await driver.page.keyboard.press("Enter")
        await expect(driver.part("keep-waiting")).to_be_hidden()
        await expect(detail).not_to_contain_text("Do you want to wait?")
        await expect(driver.part("tracker")).to_be_focused()
        assert await bay.status(request_id) == "priority_offered"
        await looks_right(driver, "favourite-busy-waiting")
        await driver.part("skip-wait").click()
        await expect(driver.part("tracker", status="broadcasting")).to_be_visible()
        assert driver.errors == []


async def john_takes_another(bay: Bay, database_url: str) -> None:
    """Let John accept somebody else's request."""
    mail = f"jane-{new_id().lower()}@example.com"
    (jane,) = await add_accounts(database_url, NewAccount(Role.CUSTOMER, mail, "Jane Roe"))
    choice = {"plan": "quick_chat", "routing_type": "priority_broadcast", "preferred_mechanic_id": bay.town.john}
    async with Rest.of(bay.server.base_url, jane, "customer") as rest:
        checkout = await rest.ok("POST", "/api/checkout", json=choice, status=201)
        await pay(checkout["url"])
        request_id = (await rest.ok("GET", f"/api/checkout/{checkout['checkout_id']}"))["request_id"]
    async with bay.town.as_mechanic(bay.server, bay.town.john) as john:
        (offer,) = [one for one in (await john.ok("GET", "/api/offers"))["offers"] if one["request_id"] == request_id]
        await john.ok("POST", f"/api/offers/{offer['offer_id']}/accept")


# --- what time does ---------------------------------------------------------------------------------------------------


async def test_a_mechanic_who_does_not_start_loses_the_request_and_the_customer_sees_it(
    browser: Browser, tmp_path: Path
) -> None:
    with running_workshop(tmp_path, **SOON, START_WINDOW_S="2") as workshop:
        async with open_bay(browser, workshop) as bay, drivers_page(bay) as driver:
            await bay.accepted()
            await expect(driver.part("tracker", status="accepted")).to_be_visible()
            await expect(driver.part("join")).to_be_hidden()
            await expect(driver.part("tracker", status="broadcasting")).to_be_visible()
            await expect(driver.part("tracker-detail")).to_contain_text("John did not start in time.")
            await opens_story(driver)
            for line in ("John Smith was reminded to start", "John Smith did not start in time"):
                await expect(driver.part("timeline")).to_contain_text(line)
            await looks_right(driver, "no-show")
            assert driver.errors == []


async def test_a_session_that_nobody_ends_ends_by_itself_and_says_so(browser: Browser, tmp_path: Path) -> None:
    with running_workshop(tmp_path, **SOON, SESSION_GRACE_S="2") as workshop:
        async with open_bay(browser, workshop) as bay, drivers_page(bay) as driver:
            await started(bay, minutes=0)
            await expect(driver.part("tracker", status="in_progress")).to_be_visible()
            await expect(driver.part("tracker-headline")).to_have_text("Completed with John Smith")
            await expect(driver.part("tracker-detail")).to_contain_text("The time was up, so it ended by itself.")
            await opens_story(driver)
            await expect(driver.part("timeline")).to_contain_text("The session ended by itself after 2 s")
            await looks_right(driver, "ended-by-time")
            assert driver.errors == []


# --- booking once more ------------------------------------------------------------------------------------------------


async def test_whoever_books_a_favourite_whom_they_wait_for_is_asked_whether_that_is_meant(bay: Bay) -> None:
    async with bay.town.as_driver(bay.server) as customer:
        await customer.ok("PUT", f"/api/favorites/{bay.town.john}", status=201)
    request_id = await bay.offered(to_john=True)
    async with drivers_page(bay) as driver:
        question = driver.part("once-more-dialog")
        tracker = driver.part("tracker", request_id=request_id)
        await tracker.wait_for()
        await driver.part("book-again").press("Enter")
        await expect(question.get_by_role("heading")).to_have_text("You are already waiting for John")
        await expect(question).to_contain_text("makes another request, which is paid for on its own")
        await looks_right(driver, "once-more")
        assert await fits(driver, width=320)
        assert await focused(driver) == "once-more-open"
        await driver.page.keyboard.press("Escape")
        await expect(question).to_be_hidden()
        await expect(driver.part("availability-modal")).to_be_hidden()
        assert await focused(driver) == "book-again"

        # What it says follows the request; the way to it leads to its card.
        await driver.part("book-again").press("Enter")
        await expect(question.get_by_role("heading")).to_have_text("You are already waiting for John")
        async with bay.town.as_mechanic(bay.server, bay.town.john) as john:
            (offer,) = (await john.ok("GET", "/api/offers"))["offers"]
            await john.ok("POST", f"/api/offers/{offer['offer_id']}/accept")
        await expect(question.get_by_role("heading")).to_have_text("John has already accepted your request")
        await expect(question.locator("[data-settling]")).to_have_count(0)
        await driver.part("once-more-open").press("Enter")
        await expect(question).to_be_hidden()
        await expect(tracker).to_be_focused()
        await expect(tracker).to_be_in_viewport()

        # Whoever means it goes on, and is not asked again on the way to the payment.
        await driver.part("book-again").press("Enter")
        # A button answers only once it has been there for a moment.
        await expect(question.locator("[data-settling]")).to_have_count(0)
        await driver.part("once-more-again").press("Enter")
        await driver.part("choose-priority").click()
        await expect(driver.part("favorite-banner")).to_contain_text("Booking with John Smith")
        await driver.part("checkout").click()
        await driver.page.get_by_role("button", name=re.compile("^Pay ")).wait_for()

        # Back on the page, which remembers the choice and not what was meant: it is asked before anything is paid.
        await driver.page.goto("/")
        await expect(driver.part("favorite-banner")).to_contain_text("Booking with John Smith")
        await tracker.wait_for()
        await driver.part("checkout").click()
        await expect(question.get_by_role("heading")).to_have_text("John has already accepted your request")
        await bay.town.cancelled(bay.server, request_id)
        await expect(question).to_be_hidden()
        await expect(driver.page.locator("#toast")).to_have_text("Your request has been cancelled meanwhile.")
        assert driver.page.url == f"{bay.server.base_url}/"
        await driver.part("checkout").click()
        await driver.page.get_by_role("button", name=re.compile("^Pay ")).wait_for()
        assert driver.errors == []


async def fits(visitor: Visitor, *, width: int) -> bool:
    """Whether nothing has to be scrolled sideways at this width, neither the page nor the dialog that is open."""
    await visitor.page.set_viewport_size({"width": width, "height": 568})
    fit = await visitor.page.evaluate(
        "[document.documentElement, document.querySelector('dialog[open]')].every((one) => one.scrollWidth <= one.clientWidth)"
    )
    await no_violations(visitor)
    await visitor.picture(f"session-once-more-{width}")
    await visitor.page.set_viewport_size(DESKTOP)  # type: ignore[arg-type]
    return fit
