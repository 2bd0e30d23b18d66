"""Who may get a broadcast, as SQL and Redis answer it: what the pure rule says, for every combination."""

import secrets
from itertools import product
from pathlib import Path

import pytest

from dispatch.eligibility import Standing, may_be_asked, may_get_broadcast
from dispatch.push.planner import WAKEABLE_MECHANICS
from infra.redis_link import RedisLink
from models import tables
from models.ids import new_id
from models.session_types import SESSION_TYPES
from models.settings import PresenceSettings
from presence.leases import Leases
from presence.liveness import Facts
from tests.integration.dispatch_nodes import free_request
from tests.parts import running_node, running_world

# The SDK hands httpx its form body by a parameter that httpx would like to see renamed.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

EXCLUSIONS = (None, "declined", "released")
TYPES_OFF = ("", "text", "diagnostic", "diagnostic,video")


async def test_the_offers_read_from_sql_have_a_broadcast_for_exactly_those_who_may_get_it(
    database_url: str, redis_url: str, tmp_path: Path
):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as node:
        _, request = await free_request(world, node)
        _, elsewhere = await free_request(world, node)
        assert request.offer is not None
        expected = {}
        for on_duty, is_busy, because, off in product([True, False], [True, False], EXCLUSIONS, TYPES_OFF):
            mechanic = await world.mechanic()
            active = elsewhere.id if is_busy else None
            await world.update(
                tables.Mechanic, mechanic, on_duty=on_duty, active_request_id=active, session_types_off=off
            )
            if because is not None:
                async with world.database.write() as session:
                    session.add(tables.Exclusion(request_id=request.id, mechanic_id=mechanic, because=because))
            standing = Standing(on_duty, is_busy, types_off=off)
            expected[mechanic] = may_get_broadcast(standing, "diagnostic", is_excluded=because is not None)

        together = await node.reader.offers(expected)
        snapshots = await node.reader.mechanic_snapshots(expected)
        for mechanic, is_expected in expected.items():
            alone = await node.reader.offers([mechanic])
            for offers in (together[mechanic], snapshots[mechanic].offers, alone[mechanic]):
                assert (request.offer.id in [timed.offer.offer_id for timed in offers]) == is_expected


@pytest.mark.parametrize("session_type", ["diagnostic", "text", "phone_call"])
async def test_those_whom_sql_would_wake_for_a_broadcast_are_exactly_those_who_may_get_it(
    database_url: str, redis_url: str, tmp_path: Path, session_type: str
):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as node:
        _, request = await free_request(world, node)
        _, elsewhere = await free_request(world, node)
        await world.update(tables.SessionRequest, request.id, session_type=session_type)
        expected = set()
        for on_duty, is_busy, because, off in product([True, False], [True, False], EXCLUSIONS, TYPES_OFF):
            mechanic = await world.mechanic()
            await world.update(
                tables.Mechanic,
                mechanic,
                on_duty=on_duty,
                active_request_id=elsewhere.id if is_busy else None,
                session_types_off=off,
                has_push=True,
                push_broadcasts=True,
            )
            if because is not None:
                async with world.database.write() as session:
                    session.add(tables.Exclusion(request_id=request.id, mechanic_id=mechanic, because=because))
            standing = Standing(on_duty, is_busy, types_off=off)
            if may_get_broadcast(standing, session_type, is_excluded=because is not None):
                expected.add(mechanic)
        found = await world.database.query(WAKEABLE_MECHANICS(request_id=request.id, limit=1_000))
        assert {one.id for one in found} == expected


@pytest.mark.parametrize("off", TYPES_OFF)
@pytest.mark.parametrize("are_facts_first", [True, False], ids=["facts, then online", "online, then facts"])
@pytest.mark.parametrize(("is_online", "on_duty", "is_busy"), list(product([True, False], repeat=3)))
async def test_redis_counts_those_as_available_who_are_online_and_may_get_a_broadcast(
    redis_url: str, is_online: bool, on_duty: bool, is_busy: bool, are_facts_first: bool, off: str
):
    link = RedisLink(redis_url, prefix=f"test-{secrets.token_hex(6)}")
    leases = Leases(link, PresenceSettings(), new_id(), 0)

    async def come_online() -> None:
        ((seconds, _),) = await link.everywhere(lambda redis: redis.time())
        async for _ in leases.renew({"mike": seconds * 1000}):
            pass

    async def learn() -> None:
        await leases.store_facts([Facts("mike", 1, on_duty, is_busy, False, None, off)])

    steps = [learn, come_online] if are_facts_first else [come_online, learn]
    try:
        for step in steps:
            if is_online or step is not come_online:
                await step()
        standing = Standing(on_duty, is_busy, types_off=off)
        assert await leases.available_count() == int(is_online and may_be_asked(standing))
        for kind in (*SESSION_TYPES, "phone_call"):
            assert await leases.available_count(kind) == int(is_online and may_get_broadcast(standing, kind))
    finally:
        await link.close()
