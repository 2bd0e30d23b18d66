"""A server is killed between a booking and its push: the push arrives all the same, once for each browser."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from accounts.accounts import NewAccount
from models.settings import Settings
from models.words import Role
from tests.acceptance.clients import SECRET_KEY, Rest
from tests.acceptance.servers import Server, add_accounts, running_pair, running_servers, start_server
from tests.acceptance.town import new_town
from tests.integration.push_browsers import Browser, PushService, running_push_service
from tests.parts import eventually
from tests.services import redis_server

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

TAKEN_OVER_WITHIN_S = 30.0
"""A message's lease, and as much again for a machine that is busy."""


async def subscribe(server: Server, mechanic_id: str, *browsers: Browser) -> None:
    async with Rest.of(server.base_url, mechanic_id, "mechanic") as rest:
        for browser in browsers:
            keys = browser.subscription.keys
            body = {"endpoint": browser.endpoint, "keys": {"p256dh": keys.p256dh, "auth": keys.auth}}
            await rest.ok("POST", "/api/push/subscriptions", status=201, json=body)


async def book(server: Server, customer_id: str, favorite: str) -> str:
    """Return the request's id."""
    routing = {"routing_type": "priority_broadcast", "preferred_mechanic_id": favorite}
    async with Rest.of(server.base_url, customer_id, "customer") as rest:
        made = await rest.ok("POST", "/api/checkout", json={"plan": "free_diagnostic", **routing}, status=201)
    return made["request"]["id"]


@asynccontextmanager
async def a_push_service_that_holds() -> AsyncIterator[PushService]:
    """Whoever asks it waits until it is opened."""
    async with running_push_service() as service:
        service.opens = anyio.Event()
        try:
            yield service
        finally:
            service.opens.set()


def got(service: PushService, browser: Browser, request_id: str) -> int:
    """How often the browser was told of the request; fails if it cannot read what it was told."""
    theirs = [(headers, sealed) for name, headers, sealed in service.got if browser.endpoint.endswith(f"/{name}")]
    assert all(browser.read(sealed)["offer"]["request_id"] == request_id for _, sealed in theirs)
    assert all(headers["topic"] == request_id for headers, _ in theirs)
    return len(theirs)


@pytest.mark.parametrize("is_under_way", [False, True], ids=["right after the booking", "while it is being pushed"])
async def test_a_push_outlives_the_only_server(tmp_path: Path, is_under_way: bool):
    settings = Settings(_env_file=None, data_dir=tmp_path, secret_key=SECRET_KEY)
    trusted = {"PUSH_TRUSTED_HOSTS": "127.0.0.1"}
    async with a_push_service_that_holds() as service:
        with running_servers(tmp_path, **trusted) as [server]:
            await server.ready()
            customer, favorite = await add_accounts(
                settings.resolved_database_url,
                NewAccount(Role.CUSTOMER, "cara@example.com", "Cara"),
                NewAccount(Role.MECHANIC, "mia@example.com", "Mia"),
            )
            phone, tablet = service.browser("phone"), service.browser("tablet")
            await subscribe(server, favorite, phone, tablet)
            request_id = await book(server, customer, favorite)
            if is_under_way:
                await eventually(lambda: service.held, "it is being pushed")
            server.kill()
        assert service.got == []
        assert service.opens is not None
        service.opens.set()
        again = start_server(tmp_path, **trusted)
        try:
            await again.ready()
            for browser in (phone, tablet):
                await eventually(
                    lambda browser=browser: got(service, browser, request_id),
                    "woken",
                    within_s=TAKEN_OVER_WITHIN_S,
                )
            assert [got(service, browser, request_id) for browser in (phone, tablet)] == [1, 1]
        finally:
            again.kill()


async def test_another_node_pushes_what_the_killed_one_had_in_hand(sql: str, tmp_path: Path):
    with (
        redis_server() as redis,
        running_pair(tmp_path, DATABASE_URL=sql, REDIS_URL=redis.url, PUSH_TRUSTED_HOSTS="127.0.0.1") as pair,
    ):
        a, b = await pair.both()
        async with new_town(sql) as here, a_push_service_that_holds() as service:
            phone = service.browser("phone")
            await subscribe(a, here.john, phone)
            with b.standing_still():
                request_id = await book(a, here.driver, here.john)
                await eventually(lambda: service.held, "the first node is pushing")
                a.kill()
            assert service.opens is not None
            service.opens.set()
            await eventually(
                lambda: got(service, phone, request_id), "the other one pushes", within_s=TAKEN_OVER_WITHIN_S
            )
            assert got(service, phone, request_id) == 1
