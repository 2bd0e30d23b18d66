"""Every operation of the contract's table as REST clients meet it: statuses, codes and shapes."""

import asyncio
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from jsonschema import Draft202012Validator
from sqlalchemy import delete
from sqlmodel import col

from http_api.auth import Identity, Tickets
from infra.database import Database
from infra.redis_link import RedisLink
from models.ids import new_id
from models.tables import Plan
from tests.acceptance.clients import PATIENCE_S, pay, socket
from tests.integration.push_browsers import Browser
from tests.integration.rest_house import House, rest_house

STATUS_MEMBERS = {
    *("mechanic_id", "is_online", "last_seen", "availability", "reachable", "session_types", "as_of", "version"),
    "response",
}
REQUEST_MEMBERS = {
    *("id", "version", "plan", "session_type", "routing_type", "status", "customer_name", "preferred_mechanic"),
    *(
        "assigned_mechanic",
        "offer",
        "fallback_reason",
        "created_at",
        "accepted_at",
        "completed_at",
        "refund",
        "timeline",
        "note",
        "price_cents",
        "currency",
        "favorite_prompt",
        "start",
        "ends",
        "assigned_is_online",
        "join_url",
        "disputed",
    ),
}
OFFER_MEMBERS = {
    *("offer_id", "request_id", "kind", "customer_name", "plan", "session_type", "duration_min", "expires_at"),
    *("expires_in_ms", "note", "price_cents", "currency"),
}
NO_SUCH_ID = "01AAAAAAAAAAAAAAAAAAAAAAAA"


@pytest.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with rest_house(tmp_path_factory.mktemp("operations")) as one:
        yield one


async def offer_of(house: House, mechanic_id: str, request_id: str) -> str:
    """Return the id of the open offer that this mechanic has for the request."""
    async with house.as_(mechanic_id, "mechanic") as rest:
        offers = (await rest.ok("GET", "/api/offers"))["offers"]
    return next(offer["offer_id"] for offer in offers if offer["request_id"] == request_id)


async def accepted(house: House, mechanic_id: str) -> str:
    """Return the id of a fresh request that this mechanic has taken."""
    request_id = (await house.paid_request(house.customer))["id"]
    async with house.as_(mechanic_id, "mechanic") as rest:
        await rest.ok("POST", f"/api/offers/{await offer_of(house, mechanic_id, request_id)}/accept")
    return request_id


# --- mechanics --------------------------------------------------------------------------------------------------------


async def test_a_mechanics_status_tells_offline_from_here(house: House):
    mechanic_id = await house.add("mechanic", "here-and-gone")
    path = f"/api/mechanics/{mechanic_id}/status"
    async with house.as_customer() as rest:
        before = await rest.ok("GET", path)
        assert before.keys() == STATUS_MEMBERS
        assert (before["is_online"], before["last_seen"], before["availability"]) == (False, None, "offline")
        async with socket(house.base_url, "mechanic", mechanic_id):
            here = await rest.ok("GET", path)
        assert (here["is_online"], here["availability"], here["reachable"]) == (True, "available", "socket")
        assert here["version"] > before["version"]
        assert await rest.problem("GET", f"/api/mechanics/{NO_SUCH_ID}/status") == (404, "mechanic_not_found")
        assert await rest.problem("GET", f"/api/mechanics/{house.customer}/status") == (404, "mechanic_not_found")


async def test_several_statuses_come_in_the_order_asked_and_without_those_of_nobody(house: House):
    async with house.as_customer() as rest:
        ids = [house.workshop, NO_SUCH_ID, house.mechanic, house.workshop]
        statuses = (await rest.ok("GET", f"/api/mechanics/status?ids={','.join(ids)}"))["statuses"]
        assert [status["mechanic_id"] for status in statuses] == [house.workshop, house.mechanic]
        assert all(status.keys() == STATUS_MEMBERS for status in statuses)
        assert (await rest.ok("GET", f"/api/mechanics/status?ids={NO_SUCH_ID}"))["statuses"] == []


@pytest.mark.parametrize("query", ["", "?ids=", "?ids=,", "?ids=a,,b", "?ids=a%20b", "?ids=" + ",".join(["a"] * 101)])
async def test_ids_that_are_none_too_many_or_malformed_are_refused(house: House, query: str):
    async with house.as_customer() as rest:
        assert await rest.problem("GET", f"/api/mechanics/status{query}") == (422, "validation_failed")


async def test_the_available_count_is_of_those_whom_a_broadcast_would_reach(house: House):
    mechanic_id = await house.add("mechanic", "counted")
    # Those of the tests before are gone when their grace is over.
    await until_available(house, 0)
    async with socket(house.base_url, "mechanic", mechanic_id) as app:
        await until_available(house, 1)
        await app.send("set_availability", on_duty=False)
        await app.expect("availability", on_duty=False)
        await until_available(house, 0)


async def until_available(house: House, count: int) -> None:
    async with house.as_customer() as rest:
        with anyio.fail_after(10):
            while await rest.ok("GET", "/api/mechanics/availability") != {"available_count": count}:  # noqa: ASYNC110
                await anyio.sleep(0.02)


# --- favourites -------------------------------------------------------------------------------------------------------


async def test_a_favourite_is_new_once_and_gone_after_it_is_removed(house: House):
    path = f"/api/favorites/{house.workshop}"
    async with house.as_(house.other_customer, "customer") as rest:
        favorite = (await rest.ok("PUT", path, status=201))["favorite"]
        assert favorite.pop("status").keys() == STATUS_MEMBERS
        assert favorite == {
            "provider_id": house.workshop,
            "provider_name": "Mike's Garage",
            "provider_type": "workshop",
            "services_count": 0,
            "total_spent_cents": 0,
            "currency": "usd",
            "last_service_at": None,
        }
        assert (await rest.ok("PUT", path))["favorite"]["provider_id"] == house.workshop
        listed = (await rest.ok("GET", "/api/favorites"))["favorites"]
        assert [each["provider_id"] for each in listed] == [house.workshop]
        await rest.ok("DELETE", path, status=204)
        await rest.ok("DELETE", path, status=204)
        assert await rest.ok("GET", "/api/favorites") == {"favorites": []}
        assert await rest.problem("PUT", f"/api/favorites/{NO_SUCH_ID}") == (404, "mechanic_not_found")
        assert await rest.problem("PUT", f"/api/favorites/{house.customer}") == (404, "mechanic_not_found")


async def test_of_many_side_by_side_who_add_a_favourite_one_is_first(house: House):
    async with house.as_(house.other_customer, "customer") as rest:
        answers = await asyncio.gather(*(rest.put(f"/api/favorites/{house.mechanic}") for _ in range(8)))
        assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
        await rest.ok("DELETE", f"/api/favorites/{house.mechanic}", status=204)


# --- buying -----------------------------------------------------------------------------------------------------------


async def test_the_plans_are_the_contracts_and_the_free_one_is_first_time_only(house: House):
    customer_id = await house.add("customer", "first-timer")
    async with house.as_nobody() as anyone, house.as_(customer_id, "customer") as rest:
        plans = (await anyone.ok("GET", "/api/plans"))["plans"]
        assert [(plan["id"], plan["price_cents"], plan["duration_min"], plan["session_type"]) for plan in plans] == [
            ("free_diagnostic", 0, 10, "diagnostic"),
            ("quick_chat", 999, 10, "text"),
            ("expert_video", 2999, 30, "video"),
            ("premium_session", 4999, 60, "video"),
        ]
        assert {plan["currency"] for plan in plans} == {"usd"}
        assert (await rest.ok("GET", "/api/plans"))["plans"] == plans

        body = {"plan": "free_diagnostic", "routing_type": "broadcast"}
        checkout = await rest.ok("POST", "/api/checkout", status=201, json=body)
        assert checkout.keys() == {"checkout_id", "kind", "request"}
        assert (checkout["kind"], checkout["request"].keys()) == ("free", REQUEST_MEMBERS)
        assert (await rest.ok("GET", "/api/me"))["has_used_free_session"] is True
        assert not (await rest.ok("GET", "/api/plans"))["plans"][0]["eligible"]
        assert (await anyone.ok("GET", "/api/plans"))["plans"][0]["eligible"]
        assert await rest.problem("POST", "/api/checkout", json=body) == (409, "free_session_used")
        await rest.ok("POST", f"/api/requests/{checkout['request']['id']}/cancel")


async def test_a_free_checkout_that_is_repeated_shows_its_request_as_it_is_by_now(house: House):
    body = {"plan": "free_diagnostic", "routing_type": "priority_broadcast", "preferred_mechanic_id": house.mechanic}
    key = {"Idempotency-Key": "free-once"}
    async with house.as_(house.other_customer, "customer") as rest, house.as_mechanic() as mechanic:
        checkout = await rest.ok("POST", "/api/checkout", status=201, json=body, headers=key)
        await mechanic.ok("POST", f"/api/offers/{checkout['request']['offer']['id']}/accept")
        again = await rest.ok("POST", "/api/checkout", status=201, json=body, headers=key)
        seen = await rest.ok("GET", f"/api/requests/{checkout['request']['id']}")
        assert again["request"]["status"] == "accepted"
        assert again["request"]["assigned_is_online"] == seen["assigned_is_online"] is not None
        await rest.ok("POST", f"/api/requests/{seen['id']}/cancel")


async def test_a_checkout_leads_to_the_payment_page_and_stays_the_same_under_one_key(house: House):
    body = {"plan": "expert_video", "routing_type": "priority_broadcast", "preferred_mechanic_id": house.mechanic}
    key = {"Idempotency-Key": "k" * 255}
    async with house.as_customer() as rest, house.as_(house.other_customer, "customer") as other:
        checkout = await rest.ok("POST", "/api/checkout", status=201, json=body, headers=key)
        assert checkout.keys() == {"checkout_id", "kind", "url", "expires_at"}
        assert checkout["kind"] == "stripe"
        again = await rest.ok("POST", "/api/checkout", status=201, json=body, headers=key)
        assert again == checkout
        changed = body | {"plan": "quick_chat"}
        problem = await rest.problem("POST", "/api/checkout", json=changed, headers=key)
        assert problem == (409, "idempotency_key_reused")
        # Another customer's key is another key.
        theirs = await other.ok("POST", "/api/checkout", status=201, json=changed, headers=key)
        assert theirs["checkout_id"] != checkout["checkout_id"]

        path = f"/api/checkout/{checkout['checkout_id']}"
        assert await rest.ok("GET", path) == {"checkout_id": checkout["checkout_id"], "status": "open"}
        assert await other.problem("GET", path) == (404, "not_found")
        assert await rest.problem("GET", f"/api/checkout/{NO_SUCH_ID}") == (404, "not_found")


async def test_a_checkout_that_stripe_refuses_is_answered_with_its_reason_and_without_the_advice_to_try_again(
    house: House,
):
    database = Database(house.settings.resolved_database_url)
    plan = Plan(
        id="too_cheap",
        name="Too Cheap",
        price_cents=10,
        currency="usd",
        duration_min=1,
        session_type="text",
        first_time_only=False,
        position=9,
    )
    try:
        async with database.write() as session:
            session.add(plan)
        body = {"plan": "too_cheap", "routing_type": "broadcast"}
        async with house.as_customer() as rest:
            answer = await rest.post("/api/checkout", json=body)
        problem = answer.json()
        assert (answer.status_code, problem["status"], problem["code"]) == (422, 422, "checkout_refused")
        assert "must add up to at least $0.50" in problem["detail"]
        assert "again" not in problem["detail"]
        assert "Retry-After" not in answer.headers
    finally:
        async with database.write() as session:
            await session.exec(delete(Plan).where(col(Plan.id) == "too_cheap"))
        await database.close()


@pytest.mark.parametrize("plan", ["free_diagnostic", "quick_chat"])
async def test_a_note_travels_from_the_checkout_to_the_request_and_to_the_offer_before_it_is_accepted(
    house: House, plan: str
):
    customer_id, mechanic_id = await house.add("customer", f"note-{plan}"), await house.add("mechanic", f"reads-{plan}")
    note = "Golf 7, 2014\nrattles when cold"
    body = {"plan": plan, "routing_type": "broadcast", "note": f"  {note.replace(chr(10), chr(13) + chr(10))}\u200b\n"}
    async with house.as_(customer_id, "customer") as rest, house.as_(mechanic_id, "mechanic") as app:
        checkout = await rest.ok("POST", "/api/checkout", status=201, json=body)
        if plan == "free_diagnostic":
            request = checkout["request"]
        else:
            await pay(checkout["url"])
            state = await rest.ok("GET", f"/api/checkout/{checkout['checkout_id']}")
            request = await rest.ok("GET", f"/api/requests/{state['request_id']}")
        price_cents = 0 if plan == "free_diagnostic" else 999
        expected = {"note": note, "price_cents": price_cents, "currency": "usd"}
        assert request.items() >= expected.items()
        offers = (await app.ok("GET", "/api/offers"))["offers"]
        assert next(one for one in offers if one["request_id"] == request["id"]).items() >= expected.items()
        async with socket(house.base_url, "mechanic", mechanic_id) as phone:
            shown = phone.received[0]["offers"]
            assert next(one for one in shown if one["request_id"] == request["id"]).items() >= expected.items()
        await rest.ok("POST", f"/api/requests/{request['id']}/cancel")


@pytest.mark.parametrize(
    ("note", "message"),
    [
        ("x" * 501, "Takes at most 500 characters."),
        # NFC makes two characters of each.
        ("\u0958" * 251, "Takes at most 500 characters."),
        ("\u200b\u202e", "The note has no character that can be seen; leave it out instead."),
        (" \n", "The note has no character that can be seen; leave it out instead."),
        (7, "Must be str, not int."),
    ],
)
async def test_a_note_that_is_too_long_or_shows_nothing_is_refused_by_its_name(house: House, note: Any, message: str):
    body = {"plan": "quick_chat", "routing_type": "broadcast", "note": note}
    async with house.as_customer() as rest:
        answer = await rest.post("/api/checkout", json=body)
        assert (answer.status_code, answer.json()["errors"]) == (422, [{"field": "note", "message": message}])


async def test_what_people_write_is_counted_as_it_is_kept(house: House):
    # As a Mac's keyboard may send it: a letter and its mark, which are kept as one character.
    decomposed = "e\u0301"
    async with house.as_customer() as rest:
        body = {"plan": "quick_chat", "routing_type": "broadcast", "note": 500 * decomposed}
        await rest.ok("POST", "/api/checkout", status=201, json=body)
    async with house.as_nobody() as rest:
        mail = f"{new_id()}@example.com"
        new = {"email": mail, "password": "four bald tyres", "name": 100 * decomposed}
        signed_in = await rest.ok("POST", "/api/auth/register", status=201, json=new)
        assert signed_in["account"]["name"] == 100 * "\u00e9"
        answer = await rest.post(
            "/api/auth/register", json={"email": f"x{mail}", "password": "four bald tyres", "name": 101 * decomposed}
        )
        assert answer.json()["errors"] == [{"field": "name", "message": "Takes at most 100 characters."}]


@pytest.mark.parametrize("key", ["", "k" * 256, "a b", "caf\u00e9"])
async def test_an_idempotency_key_of_the_wrong_form_is_refused(house: House, key: str):
    body = {"plan": "quick_chat", "routing_type": "broadcast"}
    async with house.as_customer() as rest:
        headers = {"Idempotency-Key": key.encode("latin-1")}
        answer = await rest.post("/api/checkout", json=body, headers=headers)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "Idempotency-Key")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"plan": "gold"}, (422, "unknown_plan")),
        ({"routing_type": "priority_broadcast"}, (422, "preferred_mechanic_required")),
        ({"preferred_mechanic_id": NO_SUCH_ID}, (404, "mechanic_not_found")),
    ],
)
async def test_what_cannot_be_bought_is_refused(house: House, change: dict[str, str], problem: tuple[int, str]):
    async with house.as_customer() as rest:
        body = {"plan": "quick_chat", "routing_type": "broadcast"} | change
        assert await rest.problem("POST", "/api/checkout", json=body) == problem


async def test_a_webhook_is_taken_if_stripe_signed_it_and_as_often_as_it_comes(house: House):
    payload = json.dumps(
        {"id": f"evt_{secrets.token_hex(8)}", "object": "event", "type": "customer.created", "data": {}}
    )
    async with house.as_nobody() as stripe:

        async def send(signature: str, content: str = payload) -> Any:
            headers = {"Stripe-Signature": signature} if signature else {}
            return await stripe.post("/api/stripe/webhook", content=content, headers=headers)

        good = signed(house, payload)
        for _ in range(2):
            answer = await send(good)
            assert (answer.status_code, answer.json()) == (200, {"received": True})
        for bad in ("", "t=1,v1=00", good[:-1], signed(house, payload, at_s=time.time_ns() // 1_000_000_000 - 3600)):
            answer = await send(bad)
            assert (answer.status_code, answer.json()["code"]) == (400, "bad_signature")
        assert (await send(good, payload + " ")).json()["code"] == "bad_signature"
        assert (await send(good, " " * (1024 * 1024 + 1))).json()["code"] == "body_too_large"


def signed(house: House, payload: str, *, at_s: int | None = None) -> str:
    """Return the header with which Stripe signs (https://docs.stripe.com/webhooks#verify-manually)."""
    at_s = time.time_ns() // 1_000_000_000 if at_s is None else at_s
    secret = house.settings.stripe().webhook_secrets[0]
    return f"t={at_s},v1={hmac.new(secret.encode(), f'{at_s}.{payload}'.encode(), hashlib.sha256).hexdigest()}"


# --- requests and offers ----------------------------------------------------------------------------------------------


async def test_a_request_goes_from_offer_to_completed_and_each_action_answers_the_request(house: House):
    request = await house.paid_request(house.customer)
    assert request.keys() == REQUEST_MEMBERS
    assert request["offer"].keys() == {"id", "kind", "expires_at", "expires_in_ms", "preferred_is_busy"}
    path = f"/api/requests/{request['id']}"
    async with house.as_mechanic() as mechanic, house.as_customer() as customer:
        offers = (await mechanic.ok("GET", "/api/offers"))["offers"]
        offer = next(offer for offer in offers if offer["request_id"] == request["id"])
        assert offer.keys() == OFFER_MEMBERS
        assert await mechanic.problem("GET", path) == (404, "not_found")
        assert await mechanic.problem("POST", f"{path}/start") == (404, "not_found")

        answer = await mechanic.ok("POST", f"/api/offers/{offer['offer_id']}/accept")
        assert answer.keys() == {"request"}
        assert answer["request"]["status"] == "accepted"
        assert answer["request"]["assigned_mechanic"] == {"id": house.mechanic, "name": "Mia"}
        again = await mechanic.ok("POST", f"/api/offers/{offer['offer_id']}/accept")
        assert again["request"]["start"].pop("expires_in_ms") <= answer["request"]["start"].pop("expires_in_ms")
        assert again == answer
        assert await mechanic.problem("POST", f"{path}/complete") == (409, "wrong_state")
        assert await customer.problem("POST", f"{path}/skip-wait") == (409, "wrong_state")
        assert (await mechanic.ok("POST", f"{path}/start"))["request"]["status"] == "in_progress"
        assert await customer.problem("POST", f"{path}/cancel") == (409, "wrong_state")
        done = (await mechanic.ok("POST", f"{path}/complete"))["request"]
        assert (done["status"], done["refund"]) == ("completed", None)
        assert done["completed_at"] is not None
        # Reading it answers the request itself, and so does ending it once more, whoever does.
        assert await customer.ok("GET", path) == await mechanic.ok("GET", path) == done
        for either in (customer, mechanic):
            assert await either.ok("POST", f"{path}/complete") == {"request": done}


async def test_a_wish_for_another_mechanic_that_is_repeated_does_not_cost_whoever_has_the_request_by_then(
    house: House,
) -> None:
    second = await house.add("mechanic", "second")
    request_id = await accepted(house, house.mechanic)
    path = f"/api/requests/{request_id}/find-another"
    wish = {"mechanic_id": house.mechanic}
    async with house.as_customer() as customer, house.as_(second, "mechanic") as mechanic:
        assert (await customer.ok("POST", path, json=wish))["request"]["status"] == "broadcasting"
        # That answer was lost; before the customer's app asks again, somebody has accepted.
        await mechanic.ok("POST", f"/api/offers/{await offer_of(house, second, request_id)}/accept")
        assert await customer.problem("POST", path, json=wish) == (409, "wrong_state")
        theirs = await mechanic.ok("GET", f"/api/requests/{request_id}")
        assert (theirs["status"], theirs["assigned_mechanic"]["id"]) == ("accepted", second)
        assert await customer.problem("POST", path, json={"mechanic_id": "?"}) == (422, "validation_failed")
        assert await customer.problem("POST", path, json={"mechanic": second}) == (422, "validation_failed")
        # Whoever says nothing means whoever has it, as before.
        assert (await customer.ok("POST", path))["request"]["status"] == "broadcasting"
        await customer.ok("POST", f"/api/requests/{request_id}/cancel")


async def test_only_its_customer_and_its_mechanic_see_or_touch_a_request(house: House):
    request_id = await accepted(house, house.mechanic)
    path = f"/api/requests/{request_id}"
    async with house.as_(house.other_customer, "customer") as other, house.as_(house.workshop, "mechanic") as workshop:
        for stranger in (other, workshop):
            assert await stranger.problem("GET", path) == (404, "not_found")
        for action in ("skip-wait", "cancel", "find-another"):
            assert await other.problem("POST", f"{path}/{action}") == (404, "not_found")
            assert await workshop.problem("POST", f"{path}/{action}") == (403, "wrong_role")
        for action in ("start", "release"):
            assert await workshop.problem("POST", f"{path}/{action}") == (404, "not_found")
            assert await other.problem("POST", f"{path}/{action}") == (403, "wrong_role")
        for stranger in (other, workshop):
            assert await stranger.problem("POST", f"{path}/complete") == (404, "not_found")
        reason = {"reason": "nobody came"}
        assert await other.problem("POST", f"{path}/report", json=reason) == (404, "not_found")
        for action, sent in (("refund", reason), ("settle", {"as": "completed"})):
            assert await other.problem("POST", f"/api/ops/requests/{request_id}/{action}", json=sent) == (
                403,
                "wrong_role",
            )
    async with house.as_admin() as admin:
        assert await admin.problem("GET", path) == (403, "wrong_role")
    async with house.as_mechanic() as mechanic:
        released = (await mechanic.ok("POST", f"{path}/release"))["request"]
        assert (released["status"], released["assigned_mechanic"]) == ("broadcasting", None)
        assert await mechanic.problem("GET", path) == (404, "not_found")
        # They are not asked again.
        assert request_id not in [each["request_id"] for each in (await mechanic.ok("GET", "/api/offers"))["offers"]]
    async with house.as_customer() as customer:
        cancelled = (await customer.ok("POST", f"{path}/cancel"))["request"]
        assert (cancelled["status"], cancelled["refund"]["amount_cents"]) == ("cancelled", 999)


async def test_an_accept_that_loses_is_told_why_and_a_busy_mechanic_that_they_are(house: House):
    rivals = [await house.add("mechanic", f"rival{number}") for number in range(6)]
    first, second = [(await house.paid_request(house.customer))["id"] for _ in range(2)]
    offer_id, other_offer_id = [await offer_of(house, rivals[0], request_id) for request_id in (first, second)]

    async def accept(mechanic_id: str, offer: str) -> Any:
        async with house.as_(mechanic_id, "mechanic") as rest:
            return await rest.post(f"/api/offers/{offer}/accept")

    answers = await asyncio.gather(*(accept(rival, offer_id) for rival in rivals))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 5
    for answer in answers:
        if answer.status_code == 409:
            assert answer.json()["code"] == "offer_gone"
            assert answer.json()["detail"]
    winner = rivals[[answer.status_code for answer in answers].index(200)]
    busy = await accept(winner, other_offer_id)
    assert (busy.status_code, busy.json()["code"]) == (409, "already_in_session")
    async with house.as_customer() as rest:
        for request_id in (first, second):
            await rest.ok("POST", f"/api/requests/{request_id}/cancel")


async def test_an_offer_to_somebody_else_looks_like_one_that_never_was(house: House):
    routing = {"routing_type": "priority_broadcast", "preferred_mechanic_id": house.workshop}
    request = await house.paid_request(house.customer, **routing)
    stranger = await house.add("mechanic", "stranger")
    async with house.as_(stranger, "mechanic") as rest:
        for offer_id in (request["offer"]["id"], "01NEVERWAS"):
            for answer in ("accept", "decline"):
                assert await rest.problem("POST", f"/api/offers/{offer_id}/{answer}") == (404, "not_found")
        assert (await rest.ok("GET", "/api/offers"))["offers"] == []
    async with house.as_customer() as rest:
        await rest.ok("POST", f"/api/requests/{request['id']}/cancel")


async def test_a_favourite_who_declines_ends_the_wait_and_the_body_may_be_left_out(house: House):
    routing = {"routing_type": "priority_broadcast", "preferred_mechanic_id": house.workshop}
    async with house.as_(house.workshop, "mechanic") as rest, house.as_customer() as customer:
        for body in ({"json": {"reason": "on holiday"}}, {"json": {"reason": None}}, {"json": {}}, {}):
            request = await house.paid_request(house.customer, **routing)
            assert (request["status"], request["offer"]["kind"]) == ("priority_offered", "priority")
            path = f"/api/offers/{request['offer']['id']}/decline"
            long_reason = {"reason": "x" * 201}
            assert await rest.problem("POST", path, json=long_reason) == (422, "validation_failed")
            await rest.ok("POST", path, status=204, **body)
            # Networks repeat themselves.
            await rest.ok("POST", path, status=204, **body)
            request = await customer.ok("GET", f"/api/requests/{request['id']}")
            assert (request["status"], request["fallback_reason"]) == ("broadcasting", "declined")
            await customer.ok("POST", f"/api/requests/{request['id']}/cancel")
            assert await rest.problem("POST", f"/api/offers/{request['offer']['id']}/accept") == (409, "offer_gone")


async def test_a_customer_who_skips_the_wait_has_everyone_asked(house: House):
    routing = {"routing_type": "priority_broadcast", "preferred_mechanic_id": house.workshop}
    request = await house.paid_request(house.customer, **routing)
    async with house.as_customer() as rest:
        skipped = (await rest.ok("POST", f"/api/requests/{request['id']}/skip-wait"))["request"]
        assert (skipped["status"], skipped["fallback_reason"]) == ("broadcasting", "skipped")
        assert skipped["version"] > request["version"]
        assert await rest.problem("POST", f"/api/requests/{request['id']}/skip-wait") == (409, "wrong_state")
        await rest.ok("POST", f"/api/requests/{request['id']}/cancel")


async def test_ones_requests_come_newest_first_page_by_page_and_by_status(house: House):
    customer_id = await house.add("customer", "regular")
    made = [(await house.paid_request(customer_id))["id"] for _ in range(5)]
    async with house.as_(customer_id, "customer") as rest:
        await rest.ok("POST", f"/api/requests/{made[0]}/cancel")
        seen, cursor = [], ""
        for length in (2, 2, 1):
            page = await rest.ok("GET", f"/api/requests?limit=2&cursor={cursor}")
            assert len(page["requests"]) == length
            seen += [request["id"] for request in page["requests"]]
            cursor = page["next_cursor"]
        assert cursor is None
        assert seen == made[::-1]
        cancelled = await rest.ok("GET", "/api/requests?status=cancelled")
        assert ([request["id"] for request in cancelled["requests"]], cancelled["next_cursor"]) == ([made[0]], None)
        for request_id in made[1:]:
            await rest.ok("POST", f"/api/requests/{request_id}/cancel")
    async with house.as_(house.other_customer, "customer") as other:
        assert not set(made) & {request["id"] for request in (await other.ok("GET", "/api/requests"))["requests"]}


# --- push, tickets, operations ----------------------------------------------------------------------------------------


async def test_a_browser_is_remembered_once_and_makes_its_mechanic_reachable(house: House):
    mechanic_id = await house.add("mechanic", "pushed")
    endpoint = "https://push.example/abc"
    keys = Browser(endpoint).subscription.keys
    body = {"endpoint": endpoint, "expirationTime": None, "keys": {"p256dh": keys.p256dh, "auth": keys.auth}}
    async with house.as_(mechanic_id, "mechanic") as rest:
        key = (await rest.ok("GET", "/api/push/key"))["public_key"]
        assert len(key) == 87
        await rest.ok("POST", "/api/push/subscriptions", status=201, json=body)
        await rest.ok("POST", "/api/push/subscriptions", status=200, json=body)
        assert (await until_reachable(house, mechanic_id, "push"))["is_online"] is False
        for _ in range(2):
            await rest.ok("DELETE", "/api/push/subscriptions", status=204, json={"endpoint": endpoint})
        await until_reachable(house, mechanic_id, "none")


@pytest.mark.parametrize("role", ["customer", "mechanic"])
async def test_whoever_books_or_repairs_has_a_list_of_browsers_and_can_try_them_out(house: House, role: str):
    account_id = await house.add(role, f"{role}-devices")
    endpoint = "https://push.example/" + role
    keys = Browser(endpoint).subscription.keys
    body = {"endpoint": endpoint, "keys": {"p256dh": keys.p256dh, "auth": keys.auth}, "label": "Chrome on Android"}
    async with house.as_(account_id, role) as rest, house.as_(house.admin, "admin") as admin:
        assert await rest.problem("POST", "/api/push/test") == (409, "no_subscription")
        made = await rest.ok("POST", "/api/push/subscriptions", status=201, json=body)
        [listed] = (await rest.ok("GET", "/api/push/subscriptions"))["subscriptions"]
        assert listed.keys() == {"id", "created_at", "endpoint_host", "endpoint_hash", "label"}
        assert (listed["id"], listed["endpoint_host"], listed["label"]) == (made["id"], "push.example", body["label"])
        await rest.ok("POST", "/api/push/test", status=202)
        await rest.ok("POST", "/api/push/test", status=202, json={"endpoint": endpoint})
        other = {"endpoint": "https://push.example/unknown"}
        assert await rest.problem("POST", "/api/push/test", json=other) == (409, "no_subscription")
        await rest.ok("POST", "/api/push/test", status=202)
        answer = await rest.request("POST", "/api/push/test")
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many_requests")
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        assert await rest.problem("POST", "/api/push/subscriptions", json=body | {"label": "\u200b"}) == (
            422,
            "validation_failed",
        )
        assert await rest.problem("DELETE", f"/api/push/subscriptions/{NO_SUCH_ID}") == (404, "not_found")
        await rest.ok("DELETE", f"/api/push/subscriptions/{listed['id']}", status=204)
        assert await rest.ok("GET", "/api/push/subscriptions") == {"subscriptions": []}
        assert await admin.problem("GET", "/api/push/key") == (403, "wrong_role")


@pytest.mark.parametrize(
    ("endpoint", "keys", "code"),
    [
        ("http://push.example/abc", {}, "push_endpoint_refused"),
        ("https://127.0.0.1/abc", {}, "push_endpoint_refused"),
        ("https://[::ffff:10.0.0.1]/abc", {}, "push_endpoint_refused"),
        ("https://169.254.169.254/latest", {}, "push_endpoint_refused"),
        ("https://localhost/abc", {}, "push_endpoint_refused"),
        ("https://user@push.example/abc", {}, "push_endpoint_refused"),
        ("https://push.example/abc", {"p256dh": "B" * 87}, "push_keys_refused"),
        ("https://push.example/abc", {"auth": "YQ"}, "push_keys_refused"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_browser_that_cannot_be_woken_is_not_remembered(
    house: House, endpoint: str, keys: dict[str, str], code: str
):
    mechanic_id = await house.add("mechanic", f"refused-{new_id().lower()}")
    theirs = Browser(endpoint).subscription.keys
    body = {"endpoint": endpoint, "keys": {"p256dh": theirs.p256dh, "auth": theirs.auth} | keys}
    async with house.as_(mechanic_id, "mechanic") as rest:
        assert await rest.problem("POST", "/api/push/subscriptions", json=body) == (422, code)


async def until_reachable(house: House, mechanic_id: str, how: str) -> dict[str, Any]:
    async with house.as_customer() as rest:
        with anyio.fail_after(PATIENCE_S):
            while (status := await rest.ok("GET", f"/api/mechanics/{mechanic_id}/status"))["reachable"] != how:  # noqa: ASYNC110
                await anyio.sleep(0.02)
    return status


async def test_a_ticket_carries_who_asked_for_it_once(house: House):
    async with house.as_mechanic() as rest:
        answer = await rest.ok("POST", "/api/ws-ticket")
        assert answer.keys() == {"ticket", "expires_in_s"}
        assert answer["expires_in_s"] > 0
        assert (await rest.ok("POST", "/api/ws-ticket"))["ticket"] != answer["ticket"]


async def test_a_ticket_is_good_once_and_only_for_a_while(redis_url: str):
    link = RedisLink(redis_url, prefix="tickets")
    tickets = Tickets(link, lifetime_s=30)
    who = Identity("01J9ZK", "mechanic", 1_795_000_000, "cookie")
    ticket = await tickets.issue(who)
    redeemed = await asyncio.gather(*(tickets.redeem(ticket) for _ in range(10)))
    assert [one for one in redeemed if one] == [Identity("01J9ZK", "mechanic", 1_795_000_000, "ticket")]
    for wrong in (ticket, "", "x" * 1000, "never issued", "*"):
        assert await tickets.redeem(wrong) is None
    await tickets.issue(who)
    ((key,),) = await link.everywhere(lambda redis: redis.keys("tickets:*"))
    assert 0 < await link.ask(key, lambda redis: redis.ttl(key)) <= 30
    await link.close()


async def test_the_operations_snapshot_is_the_admins(house: House):
    async with house.as_admin() as rest:
        snapshot = await rest.ok("GET", "/api/ops/snapshot")
        assert snapshot.keys() == {
            "at",
            "counts",
            "open_requests",
            "refunds_owed",
            "disputes",
            "reported_requests",
            "set_aside",
            "node",
        }
        assert (snapshot["set_aside"], snapshot["node"]["loops_dying"]) == ([], [])
    async with house.as_customer() as rest:
        assert await rest.problem("GET", "/api/ops/snapshot") == (403, "wrong_role")


# --- what is published is what is answered ----------------------------------------------------------------------------


async def test_answers_and_problems_fit_the_published_document(house: House):
    await house.paid_request(house.customer)
    async with house.as_customer() as customer, house.as_mechanic() as mechanic, house.as_admin() as admin:
        await customer.put(f"/api/favorites/{house.workshop}")
        document = await customer.ok("GET", "/openapi.json")
        calls = [
            (customer, "GET", "/api/me", "/api/me"),
            (customer, "GET", "/api/config", "/api/config"),
            (customer, "GET", "/api/plans", "/api/plans"),
            (customer, "GET", "/api/favorites", "/api/favorites"),
            (customer, "GET", "/api/requests", "/api/requests"),
            (customer, "GET", f"/api/requests/{NO_SUCH_ID}", "/api/requests/{id}"),
            (customer, "GET", f"/api/mechanics/{house.mechanic}/status", "/api/mechanics/{id}/status"),
            (customer, "GET", f"/api/mechanics/{NO_SUCH_ID}/status", "/api/mechanics/{id}/status"),
            (customer, "GET", f"/api/mechanics/status?ids={house.mechanic}", "/api/mechanics/status"),
            (customer, "GET", "/api/mechanics/status", "/api/mechanics/status"),
            (customer, "GET", "/api/offers", "/api/offers"),
            (customer, "POST", "/api/checkout", "/api/checkout"),
            (mechanic, "GET", "/api/offers", "/api/offers"),
            (mechanic, "POST", f"/api/offers/{NO_SUCH_ID}/accept", "/api/offers/{id}/accept"),
            (mechanic, "GET", "/api/push/key", "/api/push/key"),
            (mechanic, "POST", "/api/ws-ticket", "/api/ws-ticket"),
            (admin, "GET", "/api/ops/snapshot", "/api/ops/snapshot"),
            (admin, "GET", "/healthz", "/healthz"),
            (admin, "GET", "/readyz", "/readyz"),
        ]
        for rest, method, path, template in calls:
            answer = await rest.request(method, path)
            published = document["paths"][template][method.lower()]["responses"][str(answer.status_code)]
            media_type = answer.headers["content-type"]
            schema = published["content"][media_type]["schema"] | {"components": document["components"]}
            Draft202012Validator(schema).validate(answer.json())


BODIES = {
    "/api/checkout": {"plan": "quick_chat", "routing_type": "broadcast"},
    "/api/push/subscriptions": {
        "endpoint": "https://push.example/ghost",
        "keys": {"p256dh": "B" * 87, "auth": "a" * 22},
    },
}


async def test_no_operation_breaks_on_a_good_token_of_an_account_that_is_gone(house: House):
    async with house.as_nobody() as anyone:
        document = await anyone.ok("GET", "/openapi.json")
    for template, methods in document["paths"].items():
        path = template.replace("{id}", NO_SUCH_ID).replace("{mechanic_id}", house.mechanic)
        path = path.replace("{checkout_id}", NO_SUCH_ID)
        for method, each in methods.items():
            for role in each.get("x-roles", []):
                async with house.as_(NO_SUCH_ID, role) as rest:
                    content = json.dumps(BODIES[template]) if method == "post" and template in BODIES else None
                    answer = await rest.request(method.upper(), path, content=content)
                    assert answer.status_code < 500, f"{method} {path} as {role}: {answer.text}"
                    assert str(answer.status_code) in each["responses"], f"{method} {path} as {role}: {answer.text}"


async def test_a_favourite_added_and_removed_side_by_side_breaks_nothing(house: House):
    path = f"/api/favorites/{house.mechanic}"
    async with house.as_(house.other_customer, "customer") as rest:
        answers = await asyncio.gather(*(rest.request(("PUT", "DELETE")[n % 2], path) for n in range(40)))
        assert {answer.status_code for answer in answers} <= {200, 201, 204}
        await rest.ok("DELETE", path, status=204)


# --- a mechanic's hours -----------------------------------------------------------------------------------------------


async def test_a_mechanic_reads_their_hours_and_no_more_than_a_quarter_of_a_year_of_them(house: House):
    async with house.as_mechanic() as rest, house.as_customer() as customer:
        days = (await rest.ok("GET", "/api/me/hours"))["days"]
        assert len(days) == 7
        assert [day["day"] for day in days] == sorted(day["day"] for day in days)
        members = {"day", "on_duty_s", "in_session_s", "sessions", "earned_cents", "currency"}
        assert {frozenset(day) for day in days} == {frozenset(members)}
        assert {day["currency"] for day in days} == {"usd"}
        asked = (await rest.ok("GET", "/api/me/hours?from=2026-01-30&to=2026-02-02"))["days"]
        assert [day["day"] for day in asked] == ["2026-01-30", "2026-01-31", "2026-02-01", "2026-02-02"]
        assert len((await rest.ok("GET", "/api/me/hours?from=2026-01-01&to=2026-04-02"))["days"]) == 92
        assert len((await rest.ok("GET", "/api/me/hours?to=0001-01-02"))["days"]) == 2
        assert len((await rest.ok("GET", "/api/me/hours?from=9999-12-30&to=9999-12-31"))["days"]) == 2
        for query, field in (
            ("from=2026-01-01&to=2026-04-03", "from"),
            ("from=2026-02-02&to=2026-02-01", "from"),
            ("from=2026-02-30", "from"),
            ("to=yesterday", "to"),
        ):
            answer = await rest.get(f"/api/me/hours?{query}")
            assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)
        assert await customer.problem("GET", "/api/me/hours") == (403, "wrong_role")


async def test_a_break_is_set_on_a_socket_and_told_to_whoever_connects(house: House):
    mechanic_id = await house.add("mechanic", "lunch")
    async with socket(house.base_url, "mechanic", mechanic_id) as app:
        for back_in_s in (59, 14_401):
            await app.send("set_availability", on_duty=False, back_in_s=back_in_s)
            await app.expect("error", code="invalid_availability")
        await app.send("set_availability", on_duty=True, off_after_session=True)
        await app.expect("error", code="not_in_session")
        await app.send("set_availability", on_duty=False, back_in_s=1_800)
        told = await app.expect("availability", on_duty=False)
        assert 1_795_000 < told["back_in_ms"] <= 1_800_000
        assert "off_after_session" not in told
    async with socket(house.base_url, "mechanic", mechanic_id) as app:
        assert (app.received[0]["on_duty"], app.received[0]["back_at"]) == (False, told["back_at"])
        # An app of yesterday knows no breaks: what it sends ends one.
        await app.send("set_availability", on_duty=True)
        assert await app.expect("availability") == {
            "type": "availability",
            "on_duty": True,
            "availability": "available",
        }


async def test_a_mechanic_reads_what_they_were_offered_page_by_page(house: House):
    mechanic_id = await house.add("mechanic", "looks-back")
    routing = {"routing_type": "priority_broadcast", "preferred_mechanic_id": mechanic_id}
    async with house.as_(mechanic_id, "mechanic") as rest, house.as_customer() as customer:
        assert await rest.ok("GET", "/api/offers/past") == {"offers": [], "next_cursor": None}
        offered = []
        for outcome in ("declined", "cancelled"):
            request = await house.paid_request(house.customer, **routing)
            offered.append((request["offer"]["id"], outcome))
            if outcome == "declined":
                await rest.ok("POST", f"/api/offers/{request['offer']['id']}/decline", status=204)
            await customer.ok("POST", f"/api/requests/{request['id']}/cancel")
        first = await rest.ok("GET", "/api/offers/past?limit=1")
        second = await rest.ok("GET", f"/api/offers/past?limit=1&cursor={first['next_cursor']}")
        assert second["next_cursor"] is None
        told = [*first["offers"], *second["offers"]]
        assert [(one["offer_id"], one["outcome"]) for one in told] == offered[::-1]
        members = OFFER_MEMBERS - {"expires_at", "expires_in_ms", "note"} | {"offered_at", "ended_at", "outcome"}
        assert {frozenset(one) for one in told} == {frozenset(members)}
        assert await rest.problem("GET", "/api/offers/past?cursor=nowhere") == (422, "validation_failed")
        assert await customer.problem("GET", "/api/offers/past") == (403, "wrong_role")


# --- one mechanic, several devices ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["priority", "broadcast"])
@pytest.mark.parametrize("answer", ["accept", "decline"])
@pytest.mark.parametrize("over", ["socket", "rest"])
async def test_what_a_mechanic_answers_on_one_device_is_withdrawn_on_the_other_as_their_own_doing(
    house: House, kind: str, answer: str, over: str
):
    mechanic_id = await house.add("mechanic", f"devices-{kind}-{answer}-{over}")
    async with (
        socket(house.base_url, "mechanic", mechanic_id) as phone,
        socket(house.base_url, "mechanic", mechanic_id) as tablet,
        house.as_(mechanic_id, "mechanic") as rest,
    ):
        routing = {"routing_type": "priority_broadcast", "preferred_mechanic_id": mechanic_id}
        request = await house.paid_request(house.customer, **(routing if kind == "priority" else {}))
        offer_id = request["offer"]["id"]
        for device in (phone, tablet):
            await device.expect("offer", offer__offer_id=offer_id, offer__kind=kind)
        if over == "socket":
            await phone.send(answer, offer_id=offer_id)
        else:
            await rest.ok("POST", f"/api/offers/{offer_id}/{answer}", status=200 if answer == "accept" else 204)
        reason = {"accept": "taken", "decline": "declined"}[answer]
        withdrawn = {"type": "offer_withdrawn", "offer_id": offer_id, "reason": reason}
        assert await tablet.expect("offer_withdrawn", offer_id=offer_id) == withdrawn | {"by_you": True}
        if over == "rest":
            assert await phone.expect("offer_withdrawn", offer_id=offer_id) == withdrawn | {"by_you": True}
        elif answer == "accept":
            await phone.expect("offer_accepted", offer_id=offer_id)
        else:
            # The device itself needs no telling whose doing it was.
            assert await phone.expect("offer_withdrawn", offer_id=offer_id) == withdrawn
        async with house.as_customer() as customer:
            await customer.ok("POST", f"/api/requests/{request['id']}/cancel")


async def test_what_another_mechanic_takes_is_nobodys_own_doing(house: House):
    slow, fast = await house.add("mechanic", "slow-thumb"), await house.add("mechanic", "fast-thumb")
    async with socket(house.base_url, "mechanic", slow) as app, house.as_(fast, "mechanic") as rest:
        request = await house.paid_request(house.customer)
        offer_id = request["offer"]["id"]
        await app.expect("offer", offer__offer_id=offer_id)
        await rest.ok("POST", f"/api/offers/{offer_id}/accept")
        withdrawn = await app.expect("offer_withdrawn", offer_id=offer_id)
        assert withdrawn == {"type": "offer_withdrawn", "offer_id": offer_id, "reason": "taken"}
        async with house.as_customer() as customer:
            await customer.ok("POST", f"/api/requests/{request['id']}/cancel")


async def test_both_welcomes_say_how_long_silence_and_a_lost_socket_are_borne(house: House):
    for kind, account_id in (("mechanic", house.mechanic), ("customer", house.customer)):
        async with socket(house.base_url, kind, account_id) as app:
            welcome = app.received[0]
            assert (welcome["presence_timeout_s"], welcome["disconnect_grace_s"]) == (45, 3)


async def test_why_a_favourite_declined_is_told_to_operators_and_not_to_the_customer(house: House):
    routing = {"routing_type": "priority_broadcast", "preferred_mechanic_id": house.workshop}
    request = await house.paid_request(house.customer, **routing)
    async with (
        house.as_(house.workshop, "mechanic") as rest,
        house.as_customer() as customer,
        house.as_admin() as admin,
        socket(house.base_url, "customer", house.customer) as page,
    ):
        body = {"reason": "never again\u202e with this one"}
        await rest.ok("POST", f"/api/offers/{request['offer']['id']}/decline", status=204, json=body)
        told = await page.expect("request_update", request__id=request["id"], request__status="broadcasting")
        read = await customer.ok("GET", f"/api/requests/{request['id']}")
        snapshot = await admin.ok("GET", "/api/ops/snapshot")
        shown = next(one for one in snapshot["open_requests"] if one["id"] == request["id"])
        (to_page,), (to_customer,), (to_admin,) = (
            [line for line in view["timeline"] if line["event"] == "declined"]
            for view in (told["request"], read, shown)
        )
        assert to_admin == to_customer | {"reason": "never again with this one"}
        assert to_page == to_customer
        assert to_customer["mechanic_id"] == house.workshop
        await customer.ok("POST", f"/api/requests/{request['id']}/cancel")
