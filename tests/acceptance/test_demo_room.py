"""The demo as a visitor sees what comes after an accept: the room that both enter, and a mechanic who never comes."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.async_api import Browser, Page, expect

from tests.acceptance.bay import no_violations
from tests.acceptance.browser import Visitor
from tests.acceptance.clients import ON_LOOPBACK, PATIENCE_S, pay
from tests.acceptance.servers import Server, running_servers, start_server
from tests.parts import eventually

NARROW = {"width": 360, "height": 740}
SESSION_S = 60.0
"""Longer than a simulated mechanic needs from the offer to the end of the session."""
SHORT = {"PRIORITY_WINDOW_S": "20", "BROADCAST_WINDOW_S": "10", "START_WINDOW_S": "4"}
TIME_TO_LOOK = {"PRIORITY_WINDOW_S": "60", "BROADCAST_WINDOW_S": "60", "START_WINDOW_S": "60"}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The demo in two processes: who is in a room is known to both."""
    server = start_server(tmp_path_factory.mktemp("demo"), command=("demo",), WORKERS="2", **TIME_TO_LOOK)
    yield server
    assert server.stop() == 0
    assert "rror" not in server.log_path.read_text(), server.log_path.read_text()


@asynccontextmanager
async def entered(server: Server, slug: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client that has come in by one of the demo's links."""
    await server.ready()
    ours = {"Origin": server.base_url}
    async with httpx.AsyncClient(base_url=server.base_url, headers=ours, timeout=PATIENCE_S, **ON_LOOPBACK) as somebody:
        assert (await somebody.get(f"/demo/enter/{slug}")).status_code == 302
        yield somebody


async def booked(customer: httpx.AsyncClient, name: str) -> str:
    """Book the favourite of that name, who is there; return the request's id."""
    favorites = (await customer.get("/api/favorites")).json()["favorites"]
    [mechanic_id] = [one["provider_id"] for one in favorites if one["provider_name"] == name]

    async def is_there() -> bool:
        status = (await customer.get(f"/api/mechanics/{mechanic_id}/status")).json()
        return bool(status["is_online"])

    if name != "Mike's Garage":
        await eventually(is_there, f"{name} is there", within_s=PATIENCE_S)
    wish = {"plan": "quick_chat", "routing_type": "priority_broadcast", "preferred_mechanic_id": mechanic_id}
    checkout = (await customer.post("/api/checkout", json=wish)).json()
    await pay(checkout["url"])
    return (await customer.get(f"/api/checkout/{checkout['checkout_id']}")).json()["request_id"]


async def request_of(customer: httpx.AsyncClient, request_id: str) -> dict[str, Any]:
    return (await customer.get(f"/api/requests/{request_id}")).json()


async def becomes(customer: httpx.AsyncClient, request_id: str, status: str) -> dict[str, Any]:
    async def has_become() -> dict[str, Any] | None:
        request = await request_of(customer, request_id)
        return request if request["status"] == status else None

    return await eventually(has_become, f"the request is {status}", within_s=SESSION_S)  # type: ignore[return-value]


@asynccontextmanager
async def opened(browser: Browser, url: str, **options: Any) -> AsyncIterator[Page]:
    context = await browser.new_context(viewport=NARROW, **options)
    page = await context.new_page()
    await page.goto(url)
    yield page
    await context.close()


# --- the room ---------------------------------------------------------------------------------------------------------


async def test_both_sides_see_the_other_arrive_and_leave_and_the_page_says_that_it_is_a_stand_in(
    demo: Server, browser: Browser
) -> None:
    async with entered(demo, "john-doe") as customer, entered(demo, "mikes-garage") as garage:
        request_id = await booked(customer, "Mike's Garage")
        [offer] = (await garage.get("/api/offers")).json()["offers"]
        taken = (await garage.post(f"/api/offers/{offer['offer_id']}/accept")).json()["request"]
        theirs = await request_of(customer, request_id)
        async with opened(browser, theirs["join_url"]) as left:
            await expect(left.get_by_role("heading")).to_have_text("Session with Mike's Garage")
            await expect(left.get_by_text("You, John Doe")).to_be_visible()
            await expect(left.get_by_text("Mike's Garage has not arrived yet")).to_be_visible()
            await expect(left.get_by_text("A stand-in.")).to_be_visible()
            assert await left.evaluate("document.documentElement.scrollWidth <= innerWidth")
            await no_violations(Visitor(left))
            async with opened(browser, taken["join_url"], color_scheme="dark") as right:
                await expect(right.get_by_text("You, Mike's Garage")).to_be_visible()
                await expect(right.get_by_text("John Doe has arrived")).to_be_visible()
                await expect(left.get_by_text("Mike's Garage has arrived")).to_be_visible()
                await expect(left).to_have_title("Mike's Garage has arrived · Pitlane")
                await no_violations(Visitor(right))
                await expect(right.get_by_text("The session begins when you press Start")).to_be_visible()
                assert (await garage.post(f"/api/requests/{request_id}/start")).status_code == 200
                await expect(left.get_by_text("The session is in progress.")).to_be_visible()
            await expect(left.get_by_text("Mike's Garage has left")).to_be_visible(timeout=15_000)
            assert (await garage.post(f"/api/requests/{request_id}/complete")).status_code == 200
            await expect(left.get_by_text("This session is over.")).to_be_visible()


async def test_a_link_that_is_no_good_opens_nothing_and_says_what_to_do(demo: Server, browser: Browser) -> None:
    async with entered(demo, "john-doe") as customer, entered(demo, "mikes-garage") as garage:
        request_id = await booked(customer, "Mike's Garage")
        [offer] = (await garage.get("/api/offers")).json()["offers"]
        taken = (await garage.post(f"/api/offers/{offer['offer_id']}/accept")).json()["request"]
        link = taken["join_url"]
        token = urlsplit(link).query.removeprefix("token=")
        room = f"/demo/room/{request_id}"
        for wrong, path, wrong_token in (
            ("no token", room, "nonsense"),
            ("changed", room, token[:-4] + "AAAA"),
            ("of another room", f"{room[:-1]}_", token),
        ):
            assert (await customer.get(path, params={"token": wrong_token})).status_code == 403, wrong
            here = await customer.post(f"{path}/here", headers={"Authorization": f"Bearer {wrong_token}"})
            assert here.status_code == 403, wrong
        assert (await customer.get("/demo/files/room.py")).status_code == 404
        async with opened(browser, link[:-4] + "AAAA") as page:
            await expect(page.get_by_text("This link is no longer good.")).to_be_visible()
            await no_violations(Visitor(page))

        # The token outlives what it was made for; this room, which is in the same house, does not let its bearer wait alone.
        assert (await garage.post(f"/api/requests/{request_id}/release")).status_code == 200
        async with opened(browser, link) as page:
            await expect(page.get_by_text("This request is no longer yours.")).to_be_visible()
        assert (await customer.post(f"/api/requests/{request_id}/cancel")).status_code == 200


async def test_without_the_demo_there_is_no_room(tmp_path: Path) -> None:
    with running_servers(tmp_path) as [server]:
        await server.ready()
        async with httpx.AsyncClient(base_url=server.base_url, **ON_LOOPBACK) as visitor:
            for path in ("/demo/room/01ROOM?token=x", "/demo/files/room.js"):
                assert (await visitor.get(path)).status_code == 404


async def test_a_room_that_is_set_takes_the_place_of_the_demos_own(tmp_path: Path) -> None:
    rooms = {"JOIN_URL": "https://rooms.example/{request_id}?token={token}", "JOIN_SECRET": "s" * 32}
    server = start_server(tmp_path, command=("demo",), **SHORT, **rooms)
    try:
        async with entered(server, "john-doe") as customer:
            request = await becomes(customer, await booked(customer, "John Smith"), "in_progress")
            assert request["join_url"].startswith(f"https://rooms.example/{request['id']}?token=")
            assert "Join leads to where PITLANE_JOIN_URL says" in server.log_path.read_text()
    finally:
        server.kill()


# --- the no-show ------------------------------------------------------------------------------------------------------


async def test_who_books_the_mechanic_who_vanishes_is_served_by_another_and_meets_them_in_the_room(
    tmp_path: Path,
) -> None:
    server = start_server(tmp_path, command=("demo",), **SHORT)
    try:
        async with entered(server, "dana-whitfield") as customer:
            request_id = await booked(customer, "Vince Carrow")
            accepted = await becomes(customer, request_id, "accepted")
            assert accepted["assigned_mechanic"]["name"] == "Vince Carrow"
            begun = await becomes(customer, request_id, "in_progress")
            assert begun["assigned_mechanic"]["name"] != "Vince Carrow"
            events = [entry["event"] for entry in begun["timeline"]]
            assert events[events.index("reminded") :] == ["reminded", "no_show", "broadcast", "accepted", "started"]
            said = server.log_path.read_text()
            assert "Vince Carrow has accepted Dana Whitfield's request and vanishes: no connection, no start." in said
            assert "In 4 s the server takes it back and asks everybody else" in said

            # Whoever came instead waits in the room.
            room = urlsplit(begun["join_url"])
            bearer = {"Authorization": f"Bearer {room.query.removeprefix('token=')}"}

            async def is_met() -> bool:
                told = (await customer.post(f"{room.path}/here", headers=bearer)).json()
                return bool(told["is_other_here"]) and told["other"] == begun["assigned_mechanic"]["name"]

            await eventually(is_met, "the mechanic is in the room", within_s=PATIENCE_S)
            await becomes(customer, request_id, "completed")
            await eventually(
                lambda: "Vince Carrow is back" in server.log_path.read_text(),
                "the terminal says so",
                within_s=SESSION_S,
            )
    finally:
        server.kill()
