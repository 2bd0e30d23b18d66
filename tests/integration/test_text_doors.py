"""What people write is kept without what nobody can see, by whichever door it comes; and no door is forgotten."""

import csv
import io
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from accounts.accounts import Accounts, NewAccount, NewAccountRefused
from infra.database import Database
from models.errors import ConfigurationError
from models.ids import new_id
from tests.acceptance.clients import pay, socket
from tests.acceptance.servers import run
from tests.integration.push_browsers import Browser
from tests.integration.rest_house import PASSWORD, House, rest_house
from tests.kept_texts import unclean_texts

HOSTILE: Final = "\ufeffZoe\u0308\u202e\u200b\u2066 \u2028O'\u00adNeill\x07" + 40 * "\u0336" + "\U000e0041\u3164"
KEPT: Final = "Zo\u00eb  O'Neill" + 6 * "\u0336"
"""Of one line; where lines are kept, the second blank is a line break."""
LINES: Final = KEPT.replace("  ", " \n")

TEXTS: Final = {
    "register.name",
    "rename.name",
    "create_checkout.note",
    "decline_offer.reason",
    "report_session.reason",
    "refund_request.reason",
    "subscribe_push.label",
    "mechanic decline.reason",
}
"""What people write for others to read: each is sent by ``test_nothing_invisible_comes_in_by_any_door``."""
NO_TEXTS: Final = {
    # Compared, never shown.
    *("register.password", "login.password", "login.email", "change_password.current_password"),
    *("change_password.new_password", "forgot_password.email", "reset_password.reset_token"),
    *("reset_password.new_password", "erase.current_password"),
    # Of something that there is, or there is not.
    *("create_checkout.plan", "unsubscribe_push.endpoint", "test_push.endpoint"),
    # Machines' words, checked as what they are.
    *("subscribe_push.keys.p256dh", "subscribe_push.keys.auth"),
}


@pytest.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with rest_house(tmp_path_factory.mktemp("texts")) as one:
        yield one


def free_texts(schema: Mapping[str, Any], schemas: Mapping[str, Any], path: str) -> Iterator[str]:
    """Tell the members that take a text of any form."""
    schema = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    for one in schema.get("anyOf", ()):
        yield from free_texts(one, schemas, path)
    for name, member in schema.get("properties", {}).items():
        yield from free_texts(member, schemas, f"{path}.{name}")
    if "items" in schema:
        yield from free_texts(schema["items"], schemas, path)
    is_any = schema.get("pattern") in (None, r"\S") and not {"enum", "const", "format"} & schema.keys()
    if schema.get("type") == "string" and is_any:
        yield path


async def test_every_member_that_takes_any_text_is_one_that_is_looked_after_here(house: House):
    async with house.as_nobody() as rest:
        over_rest = await rest.ok("GET", "/openapi.json")
        on_sockets = await rest.ok("GET", "/asyncapi.json")
    found = set()
    for methods in over_rest["paths"].values():
        for operation in methods.values():
            if "requestBody" in operation and operation["operationId"] != "stripe_webhook":
                schema = operation["requestBody"]["content"]["application/json"]["schema"]
                found |= set(free_texts(schema, over_rest["components"]["schemas"], operation["operationId"]))
    messages = on_sockets["components"]["messages"]
    for operation in on_sockets["operations"].values():
        if operation["action"] == "receive":
            side = operation["channel"]["$ref"].rpartition("/")[2]
            for one in operation["messages"]:
                message = messages[_end_of(one, on_sockets)]
                path = f"{side} {message['name']}"
                found |= set(free_texts(message["payload"], on_sockets["components"]["schemas"], path))
    assert found - {path for path in found if path.endswith(".type")} == TEXTS | NO_TEXTS


def _end_of(reference: Mapping[str, str], document: Mapping[str, Any]) -> str:
    """Return the name of the message that a reference leads to, over the channel's own."""
    at: Any = document
    for part in reference["$ref"].removeprefix("#/").split("/"):
        at = at[part]
    return _end_of(at, document) if "$ref" in at and "payload" not in at else reference["$ref"].rpartition("/")[2]


async def test_nothing_invisible_comes_in_by_any_door(house: House, tmp_path: Path):
    async with house.as_nobody(address="127.0.20.1", headers={"User-Agent": "b\xe9\xad\x85".encode("latin-1")}) as rest:  # type: ignore[dict-item]
        body = {"email": "zoe@example.com", "password": PASSWORD, "name": HOSTILE}
        made = await rest.ok("POST", "/api/auth/register", status=201, json=body)
    assert made["account"]["name"] == KEPT
    customer_id = made["account"]["id"]
    mechanic_id = await house.add("mechanic", "texts")
    async with (
        house.as_(customer_id, "customer") as customer,
        house.as_(mechanic_id, "mechanic") as mechanic,
        house.as_(house.workshop, "mechanic") as other,
        house.as_admin() as admin,
    ):
        assert (await customer.ok("PATCH", "/api/me", json={"name": f"x{HOSTILE}"}))["name"] == f"x{KEPT}"
        keys = Browser("https://push.example/texts").subscription.keys
        body = {"endpoint": "https://push.example/texts", "keys": {"p256dh": keys.p256dh, "auth": keys.auth}}
        await mechanic.ok("POST", "/api/push/subscriptions", status=201, json=body | {"label": HOSTILE})
        [browser] = (await mechanic.ok("GET", "/api/push/subscriptions"))["subscriptions"]
        assert browser["label"] == KEPT

        offer = await offered(customer, mechanic, mechanic_id)
        assert offer["note"] == LINES
        assert offer["customer_name"] == f"x{KEPT}"
        await mechanic.ok("POST", f"/api/offers/{offer['offer_id']}/decline", status=204, json={"reason": HOSTILE})
        offer = await offered(customer, mechanic, mechanic_id)
        async with socket(house.base_url, "mechanic", mechanic_id) as phone:
            await phone.send("decline", offer_id=offer["offer_id"], reason=HOSTILE)
            await phone.expect("offer_withdrawn")
        offer = next(
            one for one in (await other.ok("GET", "/api/offers"))["offers"] if one["request_id"] == offer["request_id"]
        )
        await other.ok("POST", f"/api/offers/{offer['offer_id']}/accept")
        path = f"requests/{offer['request_id']}"
        for step in ("start", "complete"):
            await other.ok("POST", f"/api/{path}/{step}")
        await customer.ok("POST", f"/api/{path}/report", json={"reason": HOSTILE})
        await admin.ok("POST", f"/api/ops/{path}/refund", json={"reason": HOSTILE})
        story = (await admin.ok("GET", "/api/ops/snapshot"))["reported_requests"][0]["timeline"]
        assert LINES in [line.get("reason") for line in story]

    table = io.StringIO()
    rows = csv.writer(table)
    rows.writerow(["role", "email", "name", "password", "provider_type"])
    rows.writerow(["mechanic", "imported@example.com", HOSTILE, "", ""])
    (tmp_path / "people.csv").write_text(table.getvalue())
    done = run(house.settings.data_dir, "account", "import", str(tmp_path / "people.csv"))
    assert done.returncode == 0, done.stderr
    database = Database(house.settings.resolved_database_url)
    try:
        assert await unclean_texts(database) == []
    finally:
        await database.close()


async def offered(customer: httpx.AsyncClient, mechanic: httpx.AsyncClient, mechanic_id: str) -> dict[str, Any]:
    """Book a session with a note; return what the mechanic is offered."""
    body = {"plan": "quick_chat", "routing_type": "priority_broadcast", "preferred_mechanic_id": mechanic_id}
    headers = {"Idempotency-Key": new_id()}
    checkout = (await customer.post("/api/checkout", json=body | {"note": HOSTILE}, headers=headers)).json()
    await pay(checkout["url"])
    state = (await customer.get(f"/api/checkout/{checkout['checkout_id']}")).json()
    offers = (await mechanic.get("/api/offers")).json()["offers"]
    return next(one for one in offers if one["request_id"] == state["request_id"])


@pytest.mark.parametrize(
    ("member", "text"),
    [
        ("name", "\u200b\u3164"),
        ("name", "\u0301"),
        ("name", "\u2800 \u00a0"),
        ("email", "a\u202e@example.com"),
        ("email", "a\u200b@example.com"),
        ("email", "a@example.com\n"),
    ],
)
async def test_an_operator_is_told_of_a_name_or_an_address_that_cannot_be_kept(house: House, member: str, text: str):
    row = {"role": "mechanic", "email": "i@example.com", "name": "I", "password": None, "provider_type": None}
    database = Database(house.settings.resolved_database_url)
    try:
        with pytest.raises(
            (ConfigurationError, NewAccountRefused), match=member if member == "name" else "kept|form|email"
        ):
            await Accounts(database).add_all([NewAccount.checked(row | {member: text}, "people.csv line 2")], now_ms=1)
    finally:
        await database.close()
    async with house.as_customer() as rest:
        if member == "name":
            assert await rest.problem("PATCH", "/api/me", json={"name": text}) == (422, "validation_failed")
