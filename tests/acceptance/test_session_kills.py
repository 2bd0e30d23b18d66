"""Nodes, Redis and PostgreSQL die around the end of a start window and of a session: each ends once, by whoever lives, never early.

Real servers on one PostgreSQL and one Redis, as in ``test_dispatch_kills`` and ``test_dispatch_outages``.
"""

import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from enum import Enum
from pathlib import Path

import anyio
import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlmodel import col, select

from embedded.redis_child import RedisChild
from models import tables
from models.errors import DatabaseUnavailable
from models.settings import DispatchSettings
from tests.acceptance.houses import House, running_house
from tests.acceptance.servers import Pair, Server, running_pair, running_servers
from tests.acceptance.town import LOCKED_MAX_S, Town, new_town
from tests.parts import eventually
from tests.services import PostgresServer, redis_server

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

WINDOW_S = 1.5
TRIES_MAX = 10
"""How often a moment that was missed, because the machine is busy, is waited for once more."""


class End(Enum):
    """Which time limit ends, and what is true then."""

    START = ("START_WINDOW_S", "broadcasting", ["paid", "offered", "accepted", "reminded", "no_show", "broadcast"])
    SESSION = ("SESSION_GRACE_S", "completed", ["paid", "offered", "accepted", "started", "completed"])

    def __init__(self, setting: str, status: str, story: list[str]) -> None:
        self.setting = setting
        self.status = status
        self.story = story


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisChild]:
    with redis_server() as child:
        yield child


@pytest.fixture(scope="module")
def pair(sql: str, redis: RedisChild, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two nodes whose own time limits do not end while a test looks on."""
    with running_pair(tmp_path_factory.mktemp("pair"), DATABASE_URL=sql, REDIS_URL=redis.url) as one:
        yield one


@pytest.fixture(params=list(End), ids=lambda end: end.name.lower())
def end(request: pytest.FixtureRequest) -> End:
    return request.param


@pytest.fixture
async def hurried(end: End, pair: Pair, sql: str, redis: RedisChild, tmp_path: Path) -> AsyncIterator[Server]:
    """A third node, to be killed, whose time limits are short; the pair is ready, too."""
    limit = {end.setting: str(WINDOW_S)}
    with running_servers(tmp_path, DATABASE_URL=sql, REDIS_URL=redis.url, **limit) as [server]:
        await server.ready()
        await pair.both()
        yield server


async def limited(here: Town, server: Server, end: End, mechanic_id: str) -> str:
    """Let a mechanic accept a request, and for the end of a session start it; its time limit is the server's. Return its id."""
    request_id = await here.paid(server, favorite=mechanic_id)
    [offer] = await here.offers(request_id)
    async with here.as_mechanic(server, mechanic_id) as rest:
        await rest.ok("POST", f"/api/offers/{offer.id}/accept")
        if end is End.SESSION:
            async with here.database.write() as session:
                at_once = text("UPDATE session_requests SET duration_min = 0 WHERE id = :id")
                await session.exec(at_once, params={"id": request_id})  # type: ignore[call-overload]
            await rest.ok("POST", f"/api/requests/{request_id}/start")
    return request_id


@asynccontextmanager
async def mechanics_locked(here: Town, *mechanic_ids: str) -> AsyncIterator[None]:
    """Hold these mechanics' rows: who frees one waits in the middle of its transaction."""
    async with here.database.write(within_s=LOCKED_MAX_S) as session:
        theirs = select(tables.Mechanic.id).where(col(tables.Mechanic.id).in_(mechanic_ids))
        # As an update does: foreign keys that are checked meanwhile do not wait.
        await session.exec(theirs.order_by(tables.Mechanic.id).with_for_update(key_share=True))
        yield


async def row_of(here: Town, request_id: str) -> tables.SessionRequest:
    [row] = await here.rows(tables.SessionRequest, id=request_id)
    return row


async def is_over(here: Town, server: Server, end: End, request_id: str, mechanic_id: str) -> None:
    """Check that the limit has ended once, not early, and that the mechanic is free."""

    async def is_so() -> bool:
        return (await row_of(here, request_id)).status == end.status

    await eventually(is_so, f"it is {end.status}", within_s=20)
    story = [event for event in await here.story(request_id) if event != "delivered"]
    # Who was to remind may have been the one that died, until it was too late to.
    assert [event for event in story if event != "reminded"] == [one for one in end.story if one != "reminded"]
    assert story.count("reminded") <= 1
    at_ms = {line.event: line.at_ms for line in await here.rows(tables.TimelineEntry, request_id=request_id)}
    began_ms, ended_ms = (
        (at_ms["accepted"], at_ms["no_show"]) if end is End.START else (at_ms["started"], at_ms["completed"])
    )
    assert ended_ms >= began_ms + WINDOW_S * 1000, "never early"
    [mechanic] = await here.rows(tables.Mechanic, id=mechanic_id)
    assert mechanic.active_request_id is None
    await here.is_right(server, request_id)


async def test_a_limit_claimed_by_a_node_that_dies_before_the_commit_is_ended_once_by_another(
    end: End, pair: Pair, hurried: Server, sql: str
):
    b, c = await pair.both()
    async with new_town(sql) as here:
        with b.standing_still(), c.standing_still():
            for _ in range(TRIES_MAX):
                request_id = await limited(here, hurried, end, here.john)
                async with mechanics_locked(here, here.john):
                    row = await row_of(here, request_id)
                    if row.status != end.status:
                        await here.waiting()
                        hurried.kill()
                        break
            else:
                raise AssertionError("the end of the limit was never met")
        assert row.limit_expires_at_ms is not None
        await is_over(here, b, end, request_id, here.john)
        last = (await here.rows(tables.TimelineEntry, request_id=request_id))[-1]
        delay_ms = last.at_ms - row.limit_expires_at_ms
        assert delay_ms >= DispatchSettings().claim_lease_ms - 1, "not before the dead node's claim has ended"
        print(f"claimed again {delay_ms} ms after the limit")


# --- Redis and PostgreSQL ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def house(own_postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    windows = {one.setting: str(WINDOW_S) for one in End}
    with running_house(own_postgres, tmp_path_factory.mktemp("house"), **windows) as one:
        yield one


@asynccontextmanager
async def limits_under_way(house: House, end: End) -> AsyncIterator[tuple[Town, list[str]]]:
    """One after the other, so that an outage meets one limit at its end, one in the middle, and one that has just begun."""
    await house.ready()
    async with new_town(house.database_url) as here:
        mechanics = [here.john, here.mike]
        requests = [
            await limited(here, house.servers[number % 2], end, mechanic) for number, mechanic in enumerate(mechanics)
        ]
        yield here, requests
        for request_id, mechanic_id in zip(requests, mechanics, strict=True):
            await is_over(here, house.servers[0], end, request_id, mechanic_id)
        if end is End.START:
            for request_id in requests:
                await here.cancelled(house.servers[0], request_id)


async def test_redis_that_is_killed_while_limits_run_out(house: House, end: End):
    async with limits_under_way(house, end):
        house.redis.kill()
        await anyio.sleep(WINDOW_S * 0.6)
        house.redis.restart()


async def test_redis_that_forgets_everything_while_limits_run_out(house: House, end: End):
    async with limits_under_way(house, end), Redis.from_url(house.redis.url) as redis:
        for _ in range(4):
            await redis.flushall()
            await anyio.sleep(WINDOW_S / 4)


async def test_postgresql_that_crashes_in_the_middle_of_the_transactions_that_end_limits(house: House, end: End):
    async with limits_under_way(house, end) as (here, requests):
        with suppress(DatabaseUnavailable):
            async with mechanics_locked(here, here.john, here.mike):
                if any([(await row_of(here, one)).status != end.status for one in requests]):
                    await here.waiting()
                house.postgres.stop(signal.SIGQUIT)
        house.postgres.restart()
