"""What a mechanic chooses to take, as clients meet it, and on nodes side by side: it counts at once, for everybody who asks."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from dispatch.deliveries import StandingChanged
from dispatch.eligibility import Standing
from models.outcomes import OfferGone, Refused
from models.rest import StripeCheckout
from models.session_types import SESSION_TYPES, types_taken
from models.wire import RequestView
from tests.acceptance.clients import socket
from tests.integration.dispatch_nodes import accept, free_request
from tests.integration.rest_house import House, rest_house
from tests.parts import body, eventually, running_node, running_world

# The SDK hands httpx its form body by a parameter that httpx would like to see renamed.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

PATH = "/api/me/preferences"
ALL = {"session_types": ["diagnostic", "text", "video"], "push_broadcasts": False}


@pytest.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with rest_house(tmp_path_factory.mktemp("preferences")) as one:
        yield one


async def choose(house: House, mechanic_id: str, *session_types: str) -> None:
    async with house.as_(mechanic_id, "mechanic") as rest:
        await rest.ok("PUT", PATH, json={"session_types": session_types, "push_broadcasts": False})


# --- the call itself --------------------------------------------------------------------------------------------------


async def test_a_new_mechanic_takes_all_and_what_they_choose_is_kept_in_one_order(house: House):
    async with house.as_(await house.add("mechanic", "chooser"), "mechanic") as rest:
        assert await rest.ok("GET", PATH) == ALL
        chosen = {"session_types": ["video", "diagnostic"], "push_broadcasts": True}
        kept = {"session_types": ["diagnostic", "video"], "push_broadcasts": True}
        for _ in range(2):
            assert await rest.ok("PUT", PATH, json=chosen) == kept
            assert await rest.ok("GET", PATH) == kept
        assert await rest.ok("PUT", PATH, json=ALL) == ALL
        assert await rest.ok("GET", PATH) == ALL


@pytest.mark.parametrize(
    ("changes", "member"),
    [
        ({"session_types": []}, "session_types"),
        ({"session_types": ["text", "text"]}, "session_types"),
        ({"session_types": ["text", "phone"]}, "session_types"),
        ({"session_types": "text"}, "session_types"),
        ({"session_types": None}, "session_types"),
        ({"push_broadcasts": "yes"}, "push_broadcasts"),
        ({"push_broadcasts": None}, "push_broadcasts"),
        ({"on_duty": True}, "on_duty"),
    ],
)
async def test_a_choice_that_makes_no_sense_is_refused_by_the_name_of_its_member(
    house: House, changes: dict[str, Any], member: str
):
    async with house.as_mechanic() as rest:
        answer = await rest.put(PATH, json=ALL | changes)
        assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
        # Of a list, the entry.
        assert [error["field"].partition("[")[0] for error in answer.json()["errors"]] == [member]
        assert await rest.ok("GET", PATH) == ALL


@pytest.mark.parametrize("member", ["session_types", "push_broadcasts"])
async def test_a_choice_names_both_members(house: House, member: str):
    async with house.as_mechanic() as rest:
        answer = await rest.put(PATH, json={name: value for name, value in ALL.items() if name != member})
        assert [error["field"] for error in answer.json()["errors"]] == [member]


async def test_only_mechanics_have_preferences(house: House):
    async with house.as_customer() as customer, house.as_admin() as admin, house.as_nobody() as nobody:
        for method in ("GET", "PUT"):
            assert await customer.problem(method, PATH) == (403, "wrong_role")
            assert await admin.problem(method, PATH) == (403, "wrong_role")
            assert await nobody.problem(method, PATH) == (401, "unauthenticated")
    async with house.as_("01AAAAAAAAAAAAAAAAAAAAAAAA", "mechanic") as gone:
        assert await gone.problem("GET", PATH) == (401, "unauthenticated")
        assert await gone.problem("PUT", PATH, json=ALL) == (401, "unauthenticated")


# --- what follows from it ---------------------------------------------------------------------------------------------


async def test_customers_see_what_a_mechanic_takes_at_once_over_rest_and_on_their_sockets(house: House):
    mechanic_id = await house.add("mechanic", "watched")
    async with socket(house.base_url, "customer", house.customer) as page, house.as_customer() as rest:
        await page.send("watch", mechanic_ids=[mechanic_id])
        before = await page.expect("status", mechanic_id=mechanic_id)
        assert before["session_types"] == ["diagnostic", "text", "video"]
        await choose(house, mechanic_id, "video")
        after = await page.expect("status", session_types=["video"])
        assert after["version"] > before["version"]
        assert (await rest.ok("GET", f"/api/mechanics/{mechanic_id}/status"))["session_types"] == ["video"]


async def test_a_broadcast_is_shown_listed_counted_and_given_to_those_alone_who_take_its_kind(house: House):
    chats, calls = await house.add("mechanic", "chats"), await house.add("mechanic", "calls")
    await choose(house, chats, "text")
    await choose(house, calls, "video", "diagnostic")
    async with (
        socket(house.base_url, "mechanic", chats) as phone,
        socket(house.base_url, "mechanic", calls) as tablet,
        house.as_(chats, "mechanic") as chatting,
        house.as_(calls, "mechanic") as calling,
        house.as_customer() as customer,
    ):
        counts = {"quick_chat": 1, "expert_video": 1, "free_diagnostic": 1, None: 2}
        for plan, count in counts.items():
            await until_available(customer, plan, count)
        for screen, plan in ((phone, "quick_chat"), (tablet, "expert_video")):
            request = await house.paid_request(house.customer, plan)
            offer = await screen.expect("offer")
            assert offer["offer"]["request_id"] == request["id"]
        assert [one["session_type"] for one in (await chatting.ok("GET", "/api/offers"))["offers"]] == ["text"]
        assert [one["session_type"] for one in (await calling.ok("GET", "/api/offers"))["offers"]] == ["video"]

        (offer,) = (await chatting.ok("GET", "/api/offers"))["offers"]
        answer = await calling.post(f"/api/offers/{offer['offer_id']}/accept")
        assert (answer.status_code, answer.json()["code"]) == (409, "offer_gone")
        assert answer.json()["detail"] == "You have switched off sessions of this kind."

        # The other way round: what is open now fits, what was on the screen does not.
        await choose(house, calls, "text")
        gone = await tablet.expect("offer_withdrawn")
        assert gone["reason"] == "declined"
        shown = await tablet.expect("offer")
        assert shown["offer"]["offer_id"] == offer["offer_id"]
        await tablet.send("accept", offer_id=offer["offer_id"])
        await tablet.expect("offer_accepted")
        await phone.expect("offer_withdrawn", reason="taken")


async def until_available(rest: Any, plan: str | None, count: int) -> None:
    """Wait until so many are counted: those of the tests before are gone when their grace is over."""
    query = "" if plan is None else f"?plan={plan}"
    with anyio.fail_after(10):
        while await rest.ok("GET", f"/api/mechanics/availability{query}") != {"available_count": count}:  # noqa: ASYNC110
            await anyio.sleep(0.02)


async def test_those_available_cannot_be_counted_for_a_plan_that_there_is_not(house: House):
    async with house.as_customer() as rest:
        assert await rest.problem("GET", "/api/mechanics/availability?plan=gold") == (422, "unknown_plan")


@pytest.mark.parametrize("routing_type", ["priority_broadcast", "broadcast"])
async def test_a_plan_that_the_preferred_mechanic_does_not_take_cannot_be_bought(house: House, routing_type: str):
    mechanic_id = await house.add("mechanic", f"picky-{routing_type}".replace("_", "-"))
    await choose(house, mechanic_id, "diagnostic", "text")
    async with house.as_customer() as rest:
        wanted = {"routing_type": routing_type, "preferred_mechanic_id": mechanic_id}
        refused = await rest.problem("POST", "/api/checkout", json={"plan": "expert_video", **wanted})
        assert refused == (409, "plan_not_offered")
        await rest.ok("POST", "/api/checkout", status=201, json={"plan": "quick_chat", **wanted})


# --- nodes side by side -----------------------------------------------------------------------------------------------


async def test_a_choice_made_on_one_node_counts_on_all(database_url: str, redis_url: str):
    async with running_world(database_url, redis_url) as world, running_node(world) as a, running_node(world) as b:
        mechanic_id = await world.mechanic()
        await a.preferences.choose(mechanic_id, ["video"], push_broadcasts=True)
        await eventually(lambda: b.heard_of(StandingChanged), "the other node has heard")
        (told,) = b.heard_of(StandingChanged)
        assert (told.mechanic_id, told.types_off, told.version) == (mechanic_id, "diagnostic,text", 2)
        assert (await b.reader.standings([mechanic_id]))[mechanic_id] == Standing(
            True, False, types_off="diagnostic,text"
        )
        status = (await b.presence.status_of([mechanic_id]))[mechanic_id]
        assert status.session_types == ["video"]
        chosen = await b.preferences.of(mechanic_id)
        assert not isinstance(chosen, Refused)
        assert (types_taken(chosen.types_off), chosen.push_broadcasts) == (["video"], True)

        # The same once more is no change: nobody is told anything.
        await b.preferences.choose(mechanic_id, ["video"], push_broadcasts=True)
        await a.preferences.choose(mechanic_id, SESSION_TYPES, push_broadcasts=True)
        await eventually(lambda: len(b.heard_of(StandingChanged)) == 2, "the next change")
        assert [told.types_off for told in b.heard_of(StandingChanged)] == ["diagnostic,text", ""]


async def test_a_broadcast_cannot_be_accepted_by_who_has_switched_off_its_kind(database_url: str, redis_url: str):
    async with running_world(database_url, redis_url) as world, running_node(world) as node:
        _, request = await free_request(world, node)
        assert request.offer is not None
        picky, other = await world.mechanics(2)
        await node.preferences.choose(picky, ["text", "video"], push_broadcasts=False)
        gone = await accept(node, picky, request.offer.id)()
        assert gone == OfferGone(detail="You have switched off sessions of this kind.")
        # Having changed their mind they may, and having it they keep it.
        await node.preferences.choose(picky, SESSION_TYPES, push_broadcasts=False)
        for _ in range(2):
            taken = await accept(node, picky, request.offer.id)()
            assert isinstance(taken, RequestView)
            await node.preferences.choose(picky, ["text"], push_broadcasts=False)
        assert isinstance(await accept(node, other, request.offer.id)(), OfferGone)


async def test_a_favorite_who_switches_a_kind_off_between_checkout_and_payment_is_offered_the_request_and_may_take_it(
    database_url: str, redis_url: str, tmp_path: Path
):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as node:
        customer, favorite = await world.customer(), await world.mechanic()
        checkout = await node.checkouts.start(customer, body("quick_chat", favorite))
        assert isinstance(checkout, StripeCheckout)
        await node.preferences.choose(favorite, ["video"], push_broadcasts=False)
        await world.pay(checkout.url)
        state = await node.checkouts.state(customer, checkout.checkout_id)
        assert not isinstance(state, Refused)
        assert isinstance(state.request_id, str)
        request = await world.request(node, customer, state.request_id)
        assert request.status == "priority_offered"
        (offer,) = (await node.reader.offers([favorite]))[favorite]
        assert offer.offer.request_id == request.id
        taken = await accept(node, favorite, offer.offer.offer_id)()
        assert isinstance(taken, RequestView)
        assert taken.assigned_mechanic is not None
        assert taken.assigned_mechanic.id == favorite
