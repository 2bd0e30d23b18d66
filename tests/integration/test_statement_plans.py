"""What the hottest statements read at a rush hour that the planner knows nothing of yet: their own rows, and not everybody's."""

import pytest

from dispatch.reading.reader import OPEN_BROADCASTS, OPEN_OFFERS_OF
from dispatch.request_store import LOCK_REQUEST_OF_OFFER, LOCK_WINDOWS
from dispatch.stored import READ_REQUESTS
from models import tables
from tests.integration.dispatch_nodes import free_request
from tests.integration.plans import copy_row, rows_read
from tests.parts import World, running_node, running_world

CROWD = 5_000
ASKED = 5
ROWS_EACH = 20
"""For a request: itself, its checkout, its offer, its story and five names, from tables and indexes."""
SCANS = ("SCAN r", "SCAN o", "SCAN c", "SCAN t", "SCAN m", "SCAN a", "SCAN customer")


async def rush(world: World) -> tuple[list[str], list[str], str]:
    """Let thousands have an open offer at once; return some of the requests, their offers, and their mechanic."""
    async with running_node(world, without=("elapsing",)) as node:
        mike = await world.mechanic()
        await free_request(world, node, mike)
    async with world.database.write() as session:
        await copy_row(session, tables.Account, CROWD, of=f"id = '{mike}'", email="'c' || number")
        await copy_row(session, tables.Checkout, CROWD, stripe_session_id="NULL", idempotency_key="NULL")
        await copy_row(
            session,
            tables.SessionRequest,
            CROWD,
            checkout_id="'c' || number",
            preferred_mechanic_id="'c' || number",
            priority_offer_id="'c' || number",
        )
        await copy_row(session, tables.Offer, CROWD, request_id="'c' || number", mechanic_id="'c' || number")
        await copy_row(session, tables.TimelineEntry, CROWD, key=None, request_id="'c' || number")
    ids = [f"c{number}" for number in range(1, ASKED + 1)]
    return ids, ids, mike


@pytest.mark.parametrize("is_prepared", [False, True], ids=["planned for these", "planned for any"])
async def test_a_few_of_thousands_of_open_requests_are_read_without_the_others(database_url, redis_url, is_prepared):
    async with running_world(database_url, redis_url) as world:
        request_ids, offer_ids, mechanic_id = await rush(world)
        for statement, count, arguments in (
            (READ_REQUESTS, ASKED, {"ids": request_ids}),
            (LOCK_WINDOWS, ASKED, {"offer_ids": offer_ids}),
            (LOCK_REQUEST_OF_OFFER, 1, {"offer_id": offer_ids[0], "mechanic_id": mechanic_id}),
            (OPEN_OFFERS_OF, ASKED, {"mechanic_ids": request_ids, "now_ms": 1}),
            (OPEN_BROADCASTS, 0, {"now_ms": 1, "limit": 100}),
        ):
            read = await rows_read(world, statement, is_prepared=is_prepared, **arguments)
            if isinstance(read, int):
                assert count <= read <= count * ROWS_EACH, statement
            else:
                assert not [scan for scan in SCANS if scan in read.replace("SCAN json_each", "")], read
                # Everything that is open has not ended yet.
                assert "ix_offers_open (" not in read, read
