"""Two nodes, two things at once after an accept: one of them happens, and everybody is told the same.

``RACES=1000`` runs each a thousand times.
"""

import os
from collections import Counter
from functools import partial
from typing import Final

import anyio
import pytest
from sqlalchemy import text

from models import tables
from models.outcomes import Refused
from models.wire import RequestView
from tests.integration.dispatch_nodes import accept, free_request, is_consistent, untimed
from tests.parts import PATIENT, Node, World, eventually, running_node, running_world, side_by_side

RACES: Final = int(os.environ.get("RACES", "20"))
SIDE_BY_SIDE: Final = 8
"""Races under way at a time."""


async def run_races(database_url: str, redis_url: str, race) -> Counter[str]:
    """Run a race many times, on two nodes on which time does nothing by itself; return how often each of the two has won."""
    winners: Counter[str] = Counter()
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, PATIENT, without=("elapsing",)) as a,
        running_node(world, PATIENT, without=("elapsing",)) as b,
    ):
        turns = anyio.Semaphore(SIDE_BY_SIDE)

        async def run(number: int) -> None:
            async with turns:
                # Each node has the first word as often as the other.
                nodes = (a, b) if number % 2 else (b, a)
                winners[await race(world, *nodes)] += 1

        async with anyio.create_task_group() as tasks:
            for number in range(RACES):
                tasks.start_soon(run, number)
    assert winners.total() == RACES
    return winners


async def accepted(world: World, node: Node) -> tuple[str, str, RequestView]:
    """Return a customer, a mechanic, and what the one wants and the other has accepted."""
    mechanic_id = await world.mechanic()
    customer_id, request = await free_request(world, node, mechanic_id)
    assert request.offer is not None
    taken = await accept(node, mechanic_id, request.offer.id)()
    assert isinstance(taken, RequestView), taken
    return customer_id, mechanic_id, taken


async def agreed(world: World, a: Node, b: Node, customer_id: str, mechanic_id: str, request_id: str) -> RequestView:
    """Return what the customer sees; the mechanic, if it is still theirs, sees the same, on whichever node."""
    theirs = await a.reader.request_for(customer_id, request_id)
    his = await b.reader.request_for(mechanic_id, request_id)
    assert isinstance(theirs, RequestView)
    if theirs.assigned_mechanic is not None:
        assert untimed(his) == untimed(theirs)
    else:
        assert isinstance(his, Refused)
    await is_consistent(world, request_id)
    return theirs


async def test_a_start_and_the_end_of_the_start_window(database_url, redis_url):
    async def race(world: World, a: Node, b: Node) -> str:
        customer_id, mechanic_id, request = await accepted(world, a)
        row = await world.row(tables.SessionRequest, request.id)
        assert row.limit_id is not None
        assert row.limit_expires_at_ms is not None
        started, _ = await side_by_side(
            partial(a.dispatch.start, mechanic_id, request.id),
            partial(b.elapsing._elapsed, [row.limit_id], row.limit_expires_at_ms),
        )
        seen = await agreed(world, a, b, customer_id, mechanic_id, request.id)
        assert seen.status in ("in_progress", "broadcasting")
        assert isinstance(started, RequestView) == (seen.status == "in_progress")
        return seen.status

    await run_races(database_url, redis_url, race)


async def test_a_start_and_a_customer_who_asks_for_another(database_url, redis_url):
    async def race(world: World, a: Node, b: Node) -> str:
        customer_id, mechanic_id, request = await accepted(world, a)
        started, other = await side_by_side(
            partial(a.dispatch.start, mechanic_id, request.id),
            partial(b.dispatch.find_another, customer_id, request.id),
        )
        seen = await agreed(world, a, b, customer_id, mechanic_id, request.id)
        assert [isinstance(one, RequestView) for one in (started, other)] == [
            seen.status == "in_progress",
            seen.status == "broadcasting",
        ]
        return seen.status

    await run_races(database_url, redis_url, race)


async def test_both_complete_and_are_answered_the_same(database_url, redis_url):
    async def race(world: World, a: Node, b: Node) -> str:
        customer_id, mechanic_id, request = await accepted(world, a)
        await a.dispatch.start(mechanic_id, request.id)
        his, theirs = await side_by_side(
            partial(a.dispatch.complete, mechanic_id, request.id),
            partial(b.dispatch.complete_by_customer, customer_id, request.id),
        )
        assert untimed(his) == untimed(theirs)
        seen = await agreed(world, a, b, customer_id, mechanic_id, request.id)
        [by] = [line.by for line in seen.timeline if line.event == "completed"]
        return str(by)

    await run_races(database_url, redis_url, race)


async def test_a_favourite_accepts_one_of_two_who_wait_and_the_other_hears_that_they_are_busy(database_url, redis_url):
    async def race(world: World, a: Node, b: Node) -> str:
        mechanic_id = await world.mechanic()
        waiting = [await free_request(world, node, mechanic_id) for node in (a, b)]
        answers = await side_by_side(
            *(
                accept(node, mechanic_id, request.offer.id)
                for node, (_, request) in zip((a, b), waiting, strict=True)
                if request.offer is not None
            )
        )
        won = [isinstance(answer, RequestView) for answer in answers]
        assert sorted(won) == [False, True], answers
        customer_id, lost = waiting[won.index(False)]

        async def is_told() -> bool:
            offer = (await world.request(a, customer_id, lost.id)).offer
            return offer is not None and offer.preferred_is_busy is True

        await eventually(is_told, "whoever waits is told")
        assert (await world.request(a, customer_id, lost.id)).status == "priority_offered"
        return ("first", "second")[won.index(True)]

    await run_races(database_url, redis_url, race)


@pytest.mark.parametrize("database_kind", ["postgresql"])
async def test_sessions_that_end_together_and_heartbeats_that_are_saved_do_not_wait_for_each_other_in_a_circle(
    database_url, redis_url
):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, PATIENT, without=("elapsing",)) as a,
    ):
        # The first request is the second mechanic's.
        limits = {}
        for mechanic_id in reversed(await world.mechanics(2)):
            _, request = await free_request(world, a, mechanic_id)
            assert request.offer is not None
            await accept(a, mechanic_id, request.offer.id)()
            limits[mechanic_id] = (await world.row(tables.SessionRequest, request.id)).limit_id
        first, second = sorted(limits)
        seen = text("UPDATE mechanics SET last_seen_at_ms = 1 WHERE id = :id")
        waiting = text(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )

        async def somebody_waits() -> bool:
            async with world.database.read() as session:
                return bool((await (await session.connection()).execute(waiting)).scalar())

        async with anyio.create_task_group() as tasks, world.database.write() as session:
            connection = await session.connection()
            # As ``save_last_seen`` does: one mechanic after the other, in the order of their ids.
            await connection.execute(seen, {"id": first})
            at_ms = a.clock.now_ms() + PATIENT.start_window_ms
            tasks.start_soon(a.elapsing._elapsed, [limits[second], limits[first]], at_ms)
            await eventually(somebody_waits, "the sessions' end waits for the first mechanic")
            # Whoever waits for the first holds the second not yet.
            await connection.execute(text("SELECT id FROM mechanics WHERE id = :id FOR UPDATE NOWAIT"), {"id": second})
            await connection.execute(seen, {"id": second})
        for mechanic_id in limits:
            assert (await world.row(tables.Mechanic, mechanic_id)).active_request_id is None
