"""The whole journey through REST and sockets alone: the customer on one server process, the mechanics on another."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from accounts.accounts import NewAccount
from models.words import Role
from tests.acceptance.clients import Rest, pay, socket
from tests.acceptance.servers import Server, add_accounts, running_servers
from tests.services import redis_server


@dataclass
class Town:
    """Two servers on one Redis and one database, a driver, a favourite and another mechanic."""

    customers: Server
    mechanics: Server
    driver: str
    john: str
    mike: str


@contextmanager
def two_servers(database_url: str, redis_url: str, tmp_path: Path, **settings: str) -> Iterator[list[Server]]:
    with running_servers(tmp_path, 2, DATABASE_URL=database_url, REDIS_URL=redis_url, **settings) as servers:
        yield servers


@pytest.fixture
def redis_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A Redis of the test's own; a cluster where the test asks for one."""
    if getattr(request, "param", "server") == "cluster":
        yield request.getfixturevalue("redis_cluster_url")
        return
    with redis_server(tmp_path / "redis") as child:
        yield child.url


async def town(servers: list[Server], database_url: str) -> Town:
    for server in servers:
        await server.ready()
    driver, john, mike = await add_accounts(
        database_url,
        NewAccount(Role.CUSTOMER, "driver@example.com", "John Doe"),
        NewAccount(Role.MECHANIC, "john@example.com", "John Smith", provider_type="independent"),
        NewAccount(Role.MECHANIC, "mike@example.com", "Mike's Garage", provider_type="workshop"),
    )
    return Town(servers[0], servers[1], driver, john, mike)


async def test_an_online_favourite_is_asked_alone_accepts_and_completes(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    with two_servers(database_url, redis_url, tmp_path) as servers:
        here = await town(servers, database_url)
        async with (
            Rest.of(here.customers.base_url, here.driver, "customer") as driver,
            Rest.of(here.mechanics.base_url, here.john, "mechanic") as john_rest,
            socket(here.customers.base_url, "customer", here.driver) as page,
            socket(here.mechanics.base_url, "mechanic", here.mike) as mike,
        ):
            await page.send("watch", mechanic_ids=[here.john])
            never_seen = await page.expect("status", mechanic_id=here.john)
            assert (never_seen["is_online"], never_seen["last_seen"]) == (False, None)
            async with socket(here.mechanics.base_url, "mechanic", here.john) as john:
                online = await page.expect("status", mechanic_id=here.john, is_online=True)
                assert (online["availability"], online["reachable"]) == ("available", "socket")
                assert online["version"] > never_seen["version"]

                asked = {
                    "plan": "expert_video",
                    "routing_type": "priority_broadcast",
                    "preferred_mechanic_id": here.john,
                }
                checkout = await driver.ok("POST", "/api/checkout", json=asked, status=201)
                assert checkout["kind"] == "stripe"
                back_to = await pay(checkout["url"])
                assert checkout["checkout_id"] in back_to
                paid = await driver.ok("GET", f"/api/checkout/{checkout['checkout_id']}")
                assert paid["status"] == "paid"

                offer = (await john.expect("offer"))["offer"]
                assert offer["kind"] == "priority"
                assert (offer["customer_name"], offer["plan"], offer["duration_min"]) == (
                    "John Doe",
                    "expert_video",
                    30,
                )
                assert 0 < offer["expires_in_ms"] <= 600_000
                await john.send("offer_ack", offer_id=offer["offer_id"])
                await page.expect("request_update", request__status="priority_offered")

                await john.send("accept", offer_id=offer["offer_id"])
                accepted = await john.expect("offer_accepted", offer_id=offer["offer_id"])
                request_id = accepted["request"]["id"]
                assert accepted["request"]["assigned_mechanic"] == {"id": here.john, "name": "John Smith"}
                await page.expect("request_update", request__status="accepted")
                busy = await page.expect("status", mechanic_id=here.john, availability="busy")
                assert busy["is_online"]

                await john_rest.ok("POST", f"/api/requests/{request_id}/start")
                await page.expect("request_update", request__status="in_progress")
                await john_rest.ok("POST", f"/api/requests/{request_id}/complete")
                await page.expect("request_update", request__status="completed")
                prompt = await page.expect("favorite_prompt", request_id=request_id)
                assert prompt["mechanic"] == {"id": here.john, "name": "John Smith"}

            await driver.ok("PUT", f"/api/favorites/{here.john}", status=201)
            favorite = (await driver.ok("GET", "/api/favorites"))["favorites"][0]
            assert (favorite["services_count"], favorite["total_spent_cents"]) == (1, 2999)
            story = [line["event"] for line in (await driver.ok("GET", f"/api/requests/{request_id}"))["timeline"]]
            assert story == ["paid", "offered", "delivered", "accepted", "started", "completed"]
            await mike.send("heartbeat")
            await mike.expect("heartbeat_ack")
            assert not any(message["type"] == "offer" for message in mike.received), "the offer was for John alone"


@pytest.mark.parametrize("redis_url", ["server", "cluster"], indirect=True)
async def test_an_offline_favourites_window_ends_by_itself_and_another_mechanic_takes_the_broadcast(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    with two_servers(database_url, redis_url, tmp_path, PRIORITY_WINDOW_S="0.8") as servers:
        here = await town(servers, database_url)
        async with (
            Rest.of(here.customers.base_url, here.driver, "customer") as driver,
            socket(here.customers.base_url, "customer", here.driver) as page,
            socket(here.mechanics.base_url, "mechanic", here.mike) as mike,
        ):
            asked = {"plan": "quick_chat", "routing_type": "priority_broadcast", "preferred_mechanic_id": here.john}
            checkout = await driver.ok("POST", "/api/checkout", json=asked, status=201)
            await pay(checkout["url"])
            waiting = await page.expect("request_update", request__status="priority_offered")
            assert waiting["request"]["offer"]["kind"] == "priority"
            broadcasting = await page.expect("request_update", request__status="broadcasting")
            assert broadcasting["request"]["fallback_reason"] == "expired"
            assert broadcasting["request"]["version"] > waiting["request"]["version"]

            offer = (await mike.expect("offer"))["offer"]
            assert offer["kind"] == "broadcast"
            await mike.send("accept", offer_id=offer["offer_id"])
            won = await mike.expect("offer_accepted")
            assert won["request"]["assigned_mechanic"]["id"] == here.mike
            seen = await page.expect("request_update", request__status="accepted")
            assert seen["request"]["preferred_mechanic"]["id"] == here.john
            story = [line["event"] for line in seen["request"]["timeline"]]
            assert story == ["paid", "offered", "expired", "broadcast", "accepted"]


async def test_who_paid_and_is_served_by_nobody_gets_the_money_back(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    windows = {"PRIORITY_WINDOW_S": "0.3", "BROADCAST_WINDOW_S": "0.5"}
    with two_servers(database_url, redis_url, tmp_path, **windows) as servers:
        here = await town(servers, database_url)
        async with (
            Rest.of(here.customers.base_url, here.driver, "customer") as driver,
            socket(here.mechanics.base_url, "customer", here.driver) as page,
        ):
            asked = {"plan": "premium_session", "routing_type": "broadcast"}
            checkout = await driver.ok("POST", "/api/checkout", json=asked, status=201)
            await pay(checkout["url"])
            await page.expect("request_update", request__status="unfilled")
            refunded = await page.expect("request_update", request__refund__status="succeeded")
            assert refunded["request"]["refund"]["amount_cents"] == 4999
