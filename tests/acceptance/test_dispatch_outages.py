"""Redis and PostgreSQL die, forget and come back while windows are open and while they end: one fallback each, never early."""

import signal
from collections.abc import Iterator
from contextlib import suppress

import anyio
import pytest
from redis.asyncio import Redis

from models.errors import DatabaseUnavailable
from tests.acceptance.clients import Socket, socket
from tests.acceptance.houses import House, running_house
from tests.acceptance.town import Town, new_town
from tests.services import PostgresServer

WINDOW_S = 1.5
REQUESTS = 3
"""One after the other, so that an outage meets one window at its end, one in the middle, and one that has just begun."""


@pytest.fixture(scope="module")
def house(own_postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    windows = {"PRIORITY_WINDOW_S": str(WINDOW_S), "BROADCAST_WINDOW_S": "60"}
    with running_house(own_postgres, tmp_path_factory.mktemp("house"), **windows) as one:
        yield one


async def offered(here: Town, house: House) -> list[str]:
    return [await here.paid(house.servers[number % 2], favorite=here.john) for number in range(REQUESTS)]


async def each_is_broadcast_once(here: Town, house: House, mike: Socket, requests: list[str]) -> None:
    for request_id in requests:
        offer = (await mike.expect("offer", offer__request_id=request_id, offer__kind="broadcast"))["offer"]
        for server in house.servers:
            seen = await here.request(server, request_id)
            assert (seen["status"], seen["offer"]["id"]) == ("broadcasting", offer["offer_id"])
    for request_id in requests:
        assert await here.story(request_id) == ["paid", "offered", "expired", "broadcast"]
        await here.cancelled(house.servers[0], request_id)
    for request_id in requests:
        await here.refunded(request_id)
        await here.is_right(house.servers[1], request_id)


async def test_redis_that_is_killed_while_windows_are_open_and_end(house: House):
    await house.ready()
    async with new_town(house.database_url) as here, socket(house.servers[1].base_url, "mechanic", here.mike) as mike:
        requests = await offered(here, house)
        house.redis.kill()
        # Over the end of all of them but perhaps the last.
        await anyio.sleep(WINDOW_S * 0.6)
        house.redis.restart()
        await each_is_broadcast_once(here, house, mike, requests)


async def test_redis_that_forgets_everything_while_windows_are_open_and_end(house: House):
    await house.ready()
    async with new_town(house.database_url) as here, socket(house.servers[1].base_url, "mechanic", here.mike) as mike:
        requests = await offered(here, house)
        async with Redis.from_url(house.redis.url) as redis:
            for _ in range(4):
                await redis.flushall()
                await anyio.sleep(WINDOW_S / 4)
        await each_is_broadcast_once(here, house, mike, requests)


async def test_postgresql_that_is_restarted_while_windows_are_open_and_end(house: House):
    await house.ready()
    async with new_town(house.database_url) as here, socket(house.servers[1].base_url, "mechanic", here.mike) as mike:
        requests = await offered(here, house)
        house.postgres.stop(signal.SIGINT)
        await anyio.sleep(WINDOW_S * 0.6)
        house.postgres.restart()
        await each_is_broadcast_once(here, house, mike, requests)


async def test_postgresql_that_crashes_in_the_middle_of_the_transactions_that_end_windows(house: House):
    await house.ready()
    async with new_town(house.database_url) as here, socket(house.servers[1].base_url, "mechanic", here.mike) as mike:
        requests = await offered(here, house)
        with suppress(DatabaseUnavailable):
            async with here.ends_locked(*requests):
                if any([len(await here.offers(one)) == 1 for one in requests]):
                    # How many wait depends on who has claimed how many windows together.
                    await here.waiting()
                house.postgres.stop(signal.SIGQUIT)
        house.postgres.restart()
        await each_is_broadcast_once(here, house, mike, requests)
