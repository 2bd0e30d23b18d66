"""Duty on both databases: the hours that are kept of it, breaks that end by themselves, and going off after a session."""

from functools import partial
from itertools import pairwise

import anyio
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from dispatch.eligibility import Standing
from dispatch.reading import hours_reader
from dispatch.stored import Named
from models import tables
from models.outcomes import Refused
from tests.integration.dispatch_nodes import accept, free_request
from tests.parts import Node, World, eventually, running_node, running_world, side_by_side


async def kept(world: World, mechanic_id: str) -> list[tables.DutyInterval]:
    """Return the mechanic's intervals, the earliest first, having seen that they do not overlap."""
    rows = await world.rows(tables.DutyInterval, mechanic_id=mechanic_id)
    rows.sort(key=lambda row: (row.started_at_ms, row.id or 0))
    for before, after in pairwise(rows):
        assert before.ended_at_ms is not None
        assert before.started_at_ms <= before.ended_at_ms <= after.started_at_ms
    return rows


async def is_open(world: World, mechanic_id: str) -> list[bool]:
    return [row.ended_at_ms is None for row in await kept(world, mechanic_id)]


async def set_duty(node: Node, mechanic_id: str, on_duty: bool, **planned: object) -> Standing:
    standing = await node.dispatch.set_on_duty(mechanic_id, on_duty, **planned)  # type: ignore[arg-type]
    assert isinstance(standing, Standing), standing
    return standing


async def as_yesterday(world: World, mechanic_id: str, on_duty: bool) -> None:
    """Set duty as a node of the version before does, which keeps no intervals."""
    async with world.database.write() as session:
        statement = "UPDATE mechanics SET on_duty = :on, facts_version = facts_version + 1 WHERE id = :id"
        await session.exec(text(statement), params={"on": on_duty, "id": mechanic_id})


async def as_of_long_ago(world: World, mechanic_id: str) -> None:
    """Move the mechanic's intervals back, so that switching now is no flapping."""
    async with world.database.write() as session:
        statement = """
            UPDATE duty_intervals SET started_at_ms = started_at_ms - 5000, ended_at_ms = ended_at_ms - 5000
            WHERE mechanic_id = :id"""
        await session.exec(text(statement), params={"id": mechanic_id})


# --- hours ------------------------------------------------------------------------------------------------------------


async def test_an_interval_is_kept_for_each_time_on_duty_from_the_first_day_on(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world) as node:
        mechanic_id = await world.mechanic()
        assert await is_open(world, mechanic_id) == [True]
        for on_duty, expected in (
            (True, [True]),
            (False, [False]),
            (False, [False]),
            (True, [False, True]),
            (False, [False, False]),
        ):
            await as_of_long_ago(world, mechanic_id)
            await set_duty(node, mechanic_id, on_duty)
            assert await is_open(world, mechanic_id) == expected


async def test_a_switch_that_flaps_is_one_interval_also_under_a_clock_that_was_set_back(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world) as node:
        mechanic_id = await world.mechanic()
        (first,) = await kept(world, mechanic_id)
        for on_duty in (False, True) * 5:
            await set_duty(node, mechanic_id, on_duty)
        (interval,) = await kept(world, mechanic_id)
        assert (interval.id, interval.started_at_ms, interval.ended_at_ms) == (first.id, first.started_at_ms, None)
        # Its hours have ended in the clock's future: what follows begins then, and has no length.
        await set_duty(node, mechanic_id, False)
        ahead_ms = node.clock.now_ms() + 3_600_000
        await world.update(tables.DutyInterval, first.id, ended_at_ms=ahead_ms)
        for on_duty in (True, False) * 5:
            await set_duty(node, mechanic_id, on_duty)
        _, last = await kept(world, mechanic_id)
        assert (last.started_at_ms, last.ended_at_ms) == (ahead_ms, ahead_ms)


async def test_hours_are_the_same_in_however_many_slices_their_intervals_are_read(database_url, redis_url, monkeypatch):
    monkeypatch.setattr(hours_reader, "SLICE_LEN", 3)
    async with running_world(database_url, redis_url) as world, running_node(world) as node:
        mechanic_id = await world.mechanic()
        now_ms = node.clock.now_ms()
        start_ms = now_ms - now_ms % 86_400_000 - 86_400_000
        async with world.database.write() as session:
            await session.exec(text("DELETE FROM duty_intervals"))
            for number in range(10):
                at_ms = start_ms + number * 60_000
                for ended_at_ms in (at_ms, at_ms, at_ms + 30_000):
                    row = tables.DutyInterval(mechanic_id=mechanic_id, started_at_ms=at_ms, ended_at_ms=ended_at_ms)
                    session.add(row)
        hours = await node.hours.hours_of(mechanic_id, None, None)
        assert [day.on_duty_s for day in hours.days] == [0] * 5 + [300, 0]


async def test_of_a_mechanic_one_interval_is_open_at_a_time_whoever_writes(database_url, redis_url):
    async with running_world(database_url, redis_url) as world:
        mechanic_id = await world.mechanic()
        with pytest.raises(IntegrityError):
            async with world.database.write() as session:
                session.add(tables.DutyInterval(mechanic_id=mechanic_id, started_at_ms=1))


async def test_duty_switched_side_by_side_on_two_nodes_keeps_intervals_that_fit_the_switch(database_url, redis_url):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as a,
        running_node(world) as b,
    ):
        mechanic_id = await world.mechanic()
        calls = [
            partial(node.dispatch.set_on_duty, mechanic_id, on_duty) for node in (a, b) for on_duty in (False, True) * 5
        ]
        await side_by_side(*calls)
        row = await world.row(tables.Mechanic, mechanic_id)
        assert (await is_open(world, mechanic_id)).count(True) == row.on_duty


async def test_intervals_do_not_overlap_though_the_clock_of_another_node_is_behind(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world) as node:
        mechanic_id = await world.mechanic()
        await set_duty(node, mechanic_id, False)
        (ended,) = await kept(world, mechanic_id)
        ahead_ms = (ended.ended_at_ms or 0) + 60_000
        await world.update(tables.DutyInterval, ended.id, ended_at_ms=ahead_ms)
        await set_duty(node, mechanic_id, True)
        assert (await kept(world, mechanic_id))[-1].started_at_ms == ahead_ms
        await set_duty(node, mechanic_id, False)
        assert (await kept(world, mechanic_id))[-1].ended_at_ms == ahead_ms


async def test_what_a_node_of_the_version_before_has_switched_is_mended_and_hinders_nobody(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world) as node:
        mechanic_id = await world.mechanic()
        (first,) = await kept(world, mechanic_id)
        seen_at_ms = first.started_at_ms + 1_000
        await world.update(tables.Mechanic, mechanic_id, last_seen_at_ms=seen_at_ms)
        await as_yesterday(world, mechanic_id, False)
        today = (await node.hours.hours_of(mechanic_id, None, None)).days[-1]
        assert today.on_duty_s <= 1, "who was last heard of then is not paid until now"
        await set_duty(node, mechanic_id, True)
        first, second = await kept(world, mechanic_id)
        assert (first.ended_at_ms, second.ended_at_ms) == (seen_at_ms, None)
        # And the other way round: nobody knows when duty began.
        await set_duty(node, mechanic_id, False)
        await as_yesterday(world, mechanic_id, True)
        await set_duty(node, mechanic_id, False)
        assert await is_open(world, mechanic_id) == [False, False]


async def test_hours_tell_of_duty_and_of_sessions_by_the_day_and_of_what_they_earned(database_url, redis_url, tmp_path):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as node:
        customer_id, mechanic_id, other = await world.customer(), *await world.mechanics(2)
        request = await world.paid_request(node, customer_id, favorite=mechanic_id)
        assert request.offer is not None
        request_id = request.id
        await accept(node, mechanic_id, request.offer.id)()
        await node.dispatch.start(mechanic_id, request_id)
        now_ms = node.clock.now_ms()
        midnight_ms = now_ms - now_ms % 86_400_000
        (interval,) = await kept(world, mechanic_id)
        await world.update(tables.DutyInterval, interval.id, started_at_ms=midnight_ms - 7_200_000)
        await world.update(tables.SessionRequest, request_id, started_at_ms=midnight_ms - 3_600_000)
        *_, before, today = (await node.hours.hours_of(mechanic_id, None, None)).days
        assert (before.on_duty_s, before.in_session_s, before.sessions) == (7200, 3600, 0)
        assert today.on_duty_s == today.in_session_s >= (now_ms - midnight_ms) // 1000
        assert (today.sessions, today.earned_cents) == (0, 0), "it goes on"
        await node.dispatch.complete(mechanic_id, request_id)
        days = (await node.hours.hours_of(mechanic_id, None, None)).days
        assert len(days) == 7
        assert (days[-1].sessions, days[-1].earned_cents, days[-1].currency) == (1, 999, "usd")
        theirs = (await node.hours.hours_of(other, None, None)).days
        assert {(day.in_session_s, day.sessions, day.earned_cents, day.currency) for day in theirs} == {
            (0, 0, 0, "usd")
        }


# --- breaks -----------------------------------------------------------------------------------------------------------


async def test_a_break_ends_by_itself_once_on_whichever_node_is_left(database_url, redis_url):
    async with running_world(database_url, redis_url) as world:
        mechanic_id = await world.mechanic()
        async with running_node(world) as before:
            standing = await set_duty(before, mechanic_id, False, back_in_s=600)
            await as_of_long_ago(world, mechanic_id)
            assert standing.back_at_ms is not None
            assert 590_000 < standing.back_at_ms - before.clock.now_ms() <= 600_000
            away = await world.row(tables.Mechanic, mechanic_id)
            assert (away.on_duty, await is_open(world, mechanic_id)) == (False, [False])
        await world.update(tables.Mechanic, mechanic_id, back_at_ms=1)
        async with running_node(world) as a, running_node(world) as b:

            async def is_back() -> bool:
                return (await world.row(tables.Mechanic, mechanic_id)).on_duty

            await eventually(is_back, "the break is over")
            for node in (a, b):
                await node.outbox.drained()
            back = await world.row(tables.Mechanic, mechanic_id)
            assert (back.facts_version, back.back_at_ms) == (away.facts_version + 1, None)
            assert await is_open(world, mechanic_id) == [False, True]
            assert (await a.reader.standings([mechanic_id]))[mechanic_id] == Standing(on_duty=True, is_busy=False)


async def test_a_break_ends_on_time_though_nobody_looks_meanwhile(database_url, redis_url, monkeypatch):
    monkeypatch.setattr("dispatch.due_work.POLL_S", 60.0)
    async with running_world(database_url, redis_url) as world:
        early, late = await world.mechanics(2)
        async with running_node(world, without=("dispatch",)) as before:
            for mechanic_id in (early, late):
                await set_duty(before, mechanic_id, False, back_in_s=60)
                await as_of_long_ago(world, mechanic_id)
            ends_at_ms = {early: before.clock.now_ms() + 1_000, late: before.clock.now_ms() + 2_000}
            for mechanic_id, at_ms in ends_at_ms.items():
                await world.update(tables.Mechanic, mechanic_id, back_at_ms=at_ms)
        async with running_node(world):

            async def are_back() -> bool:
                return all([(await world.row(tables.Mechanic, mechanic_id)).on_duty for mechanic_id in ends_at_ms])

            await eventually(are_back, "both breaks are over")
        for mechanic_id, at_ms in ends_at_ms.items():
            assert 0 <= (await kept(world, mechanic_id))[-1].started_at_ms - at_ms < 1_000


@pytest.mark.bugs_planted
async def test_a_break_that_cannot_be_ended_keeps_no_other_from_ending(database_url, redis_url):
    async with running_world(database_url, redis_url) as world:
        crowd = await world.mechanics(12)
        async with running_node(world, without=("dispatch",)) as node:
            for mechanic_id in crowd:
                await set_duty(node, mechanic_id, False, back_in_s=600)
            # More of them than places, and the longest over.
            *broken, last = crowd
            duty, end = node.dispatch._duty, node.dispatch._duty._end_break

            async def end_others(mechanic: Named) -> None:
                if mechanic.id in broken:
                    raise RuntimeError("a bug that was planted")
                await end(mechanic)

            duty._breaks._work = end_others
            for position, mechanic_id in enumerate(crowd):
                await world.update(tables.Mechanic, mechanic_id, back_at_ms=1 + position)

            async def is_back() -> bool:
                return (await world.row(tables.Mechanic, last)).on_duty

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(duty.run)
                await eventually(is_back, "the last one's break is over")
                tasks.cancel_scope.cancel()


async def test_who_decides_by_hand_ends_the_break_and_what_was_planned(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world) as node:
        mechanic_id = await world.mechanic()
        for on_duty in (False, True):
            await set_duty(node, mechanic_id, False, back_in_s=60)
            standing = await set_duty(node, mechanic_id, on_duty)
            assert standing == Standing(on_duty, is_busy=False)
            assert (await world.row(tables.Mechanic, mechanic_id)).back_at_ms is None
        await set_duty(node, mechanic_id, False, back_in_s=60)
        longer = await set_duty(node, mechanic_id, False, back_in_s=6_000)
        assert longer.back_at_ms is not None
        assert longer.back_at_ms > node.clock.now_ms() + 5_000_000
        assert await is_open(world, mechanic_id) == [False] * len(await kept(world, mechanic_id))


@pytest.mark.parametrize(
    ("on_duty", "planned", "code"),
    [
        (False, {"back_in_s": 59}, "invalid_availability"),
        (False, {"back_in_s": 14_401}, "invalid_availability"),
        (True, {"back_in_s": 60}, "invalid_availability"),
        (False, {"off_after_session": True}, "invalid_availability"),
        (True, {"off_after_session": True}, "not_in_session"),
    ],
)
async def test_what_contradicts_itself_is_refused_and_changes_nothing(
    database_url, redis_url, on_duty: bool, planned: dict[str, object], code: str
):
    async with running_world(database_url, redis_url) as world, running_node(world) as node:
        mechanic_id = await world.mechanic()
        for before in (True, False):
            await set_duty(node, mechanic_id, before)
            row = await world.row(tables.Mechanic, mechanic_id)
            refused = await node.dispatch.set_on_duty(mechanic_id, on_duty, **planned)  # type: ignore[arg-type]
            assert isinstance(refused, Refused)
            assert refused.code == code
            assert (await world.row(tables.Mechanic, mechanic_id)).facts_version == row.facts_version
            assert (await is_open(world, mechanic_id)).count(True) == before


# --- off after the session --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["complete", "release", "cancel"])
async def test_who_wanted_to_stop_after_this_session_is_off_duty_once_it_has_ended(
    database_url, redis_url, ending: str
):
    async with running_world(database_url, redis_url) as world, running_node(world) as node:
        mechanic_id = await world.mechanic()
        customer_id, request = await free_request(world, node, mechanic_id)
        await accept(node, mechanic_id, request.offer.id)()
        standing = await set_duty(node, mechanic_id, True, off_after_session=True)
        assert standing == Standing(on_duty=True, is_busy=True, off_after_session=True)
        assert await set_duty(node, mechanic_id, True, off_after_session=True) == standing
        if ending == "complete":
            await node.dispatch.start(mechanic_id, request.id)
            await node.dispatch.complete(mechanic_id, request.id)
        elif ending == "release":
            await node.dispatch.release(mechanic_id, request.id)
        else:
            await node.dispatch.cancel(customer_id, request.id)
        now = (await node.reader.standings([mechanic_id]))[mechanic_id]
        assert now == Standing(on_duty=False, is_busy=False)
        assert await is_open(world, mechanic_id) == [False]
        # The next session is another one.
        await set_duty(node, mechanic_id, True)
        _, another = await free_request(world, node, mechanic_id)
        await accept(node, mechanic_id, another.offer.id)()
        assert (await node.reader.standings([mechanic_id]))[mechanic_id] == Standing(on_duty=True, is_busy=True)


async def test_who_changes_their_mind_during_the_session_stays_on_duty_after_it(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world) as node:
        mechanic_id = await world.mechanic()
        _, request = await free_request(world, node, mechanic_id)
        await accept(node, mechanic_id, request.offer.id)()
        await set_duty(node, mechanic_id, True, off_after_session=True)
        assert await set_duty(node, mechanic_id, True) == Standing(on_duty=True, is_busy=True)
        await node.dispatch.release(mechanic_id, request.id)
        assert (await node.reader.standings([mechanic_id]))[mechanic_id].on_duty
        assert await is_open(world, mechanic_id) == [True]
