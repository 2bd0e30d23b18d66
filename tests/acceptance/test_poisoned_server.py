"""A whole server with poison in its tables and in its Redis: it serves on, and an operator sees what is wrong."""

import secrets
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx
from redis import Redis

from tests.acceptance.clients import Rest
from tests.acceptance.servers import running_servers
from tests.integration.rest_house import House, rest_house
from tests.parts import eventually

POISON = """
INSERT INTO outbox (id, kind, payload, leased_until_ms) VALUES
    ('shape', 'offer_closed', '{"offer": 1}', 1),
    ('no-json', 'request_changed', '{', 1),
    ('kind', 'tea_is_ready', '{}', 1),
    ('nobody', 'request_changed', '{"request_id": "nobody", "tell": []}', 1);
INSERT INTO stripe_events (id, type, payload, received_at_ms, attempts, next_attempt_at_ms)
    VALUES ('event', 'checkout.session.completed', '{', 1, 0, 1);
"""
FAILING = {"shape", "no-json", "kind", "nobody"}
LAST_BUT_ONE = 7


def execute(data_dir: Path, script: str) -> None:
    """Run SQL on the embedded database beside the server."""
    with closing(sqlite3.connect(data_dir / "pitlane.sqlite3", timeout=10)) as connection:
        connection.executescript(script)


async def paid(house: House) -> None:
    """Go through a checkout: webhook, fulfilment, dispatch and telling all work."""
    request = await house.paid_request(house.customer)
    assert request["status"] == "broadcasting"


async def test_a_server_with_poisoned_rows_serves_on_starts_again_and_shows_them(tmp_path: Path):
    async with rest_house(tmp_path) as house, house.as_admin() as operator:
        execute(tmp_path, POISON)

        async def failing() -> set[str]:
            with closing(sqlite3.connect(tmp_path / "pitlane.sqlite3", timeout=10)) as connection:
                return {row_id for (row_id,) in connection.execute("SELECT id FROM outbox WHERE failures > 0")}

        async def have_all_failed() -> bool:
            return await failing() >= FAILING

        await eventually(have_all_failed, "each has failed by itself")
        await paid(house)
        execute(tmp_path, f"UPDATE outbox SET failures = {LAST_BUT_ONE}, leased_until_ms = 1 WHERE failures > 0")

        async def set_aside() -> set[str]:
            snapshot = await operator.ok("GET", "/api/ops/snapshot")
            return {one["id"] for one in snapshot["set_aside"] if one["work"] == "outbox"}

        async def are_all_set_aside() -> bool:
            return await set_aside() == FAILING

        await eventually(are_all_set_aside, "all are set aside")
        assert (await operator.get("/readyz")).status_code == httpx.codes.OK
        metrics = (await operator.get("/metrics")).text
        assert 'pitlane_items_set_aside_total{work="outbox"} 4.0' in metrics
        await paid(house)
    with running_servers(tmp_path) as (again,):
        await again.ready()
        async with Rest.of(again.base_url, house.admin, "admin") as operator:
            await paid(replace(house, server=again))
            snapshot = await operator.ok("GET", "/api/ops/snapshot")
            assert {one["id"] for one in snapshot["set_aside"] if one["work"] == "outbox"} == FAILING


async def test_a_loop_that_keeps_dying_makes_the_server_unready_and_nothing_else_and_recovers(
    tmp_path: Path, redis_url: str
):
    prefix = f"poison-{secrets.token_hex(4)}"
    epoch = f"{prefix}:{{presence-0}}:epoch"
    with closing(Redis.from_url(redis_url)) as redis:
        async with rest_house(tmp_path, REDIS_URL=redis_url, REDIS_PREFIX=prefix) as house:
            # Somebody has put something else in the place of presence' memory: every look at it is a mistake to Redis.
            redis.delete(epoch)
            redis.lpush(epoch, "no string")
            async with house.as_nobody() as anyone:

                async def is_named() -> bool:
                    answer = await anyone.get("/readyz")
                    return answer.status_code == httpx.codes.SERVICE_UNAVAILABLE and "presence_" in answer.text

                await eventually(is_named, "it says which loop is dying")
                assert (await anyone.get("/healthz")).status_code == httpx.codes.OK
                await paid(house)
                redis.delete(epoch)

                async def is_ready() -> bool:
                    return (await anyone.get("/readyz")).status_code == httpx.codes.OK

                await eventually(is_ready, "it has recovered", within_s=60)
