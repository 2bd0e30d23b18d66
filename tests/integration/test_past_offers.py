"""What a mechanic was offered: how each offer ended for them, page by page, and without reading the whole past for it."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from dispatch.hours import Stretch
from dispatch.reading import past_offers
from dispatch.reading.past_offers import (
    DECLINED_BROADCASTS,
    INTERVALS_MAX,
    PAST_BROADCASTS,
    PAST_PRIORITY_OFFERS,
    SESSION_MS_MAX,
    TAKEN_BROADCASTS,
    slices,
)
from infra.statements import Statement
from models import tables
from models.outcomes import Refused
from models.rest import PastOffer
from models.wire import RequestView
from tests.integration.dispatch_nodes import accept, free_request
from tests.integration.plans import copy_row
from tests.parts import Node, World, running_node, running_world

MINUTE_MS = 60_000


async def past(node: Node, mechanic_id: str, *, limit: int = 100) -> list[PastOffer]:
    """Return all of them, page by page, having seen that they come newest first and none twice."""
    found: list[PastOffer] = []
    cursor: str | None = None
    while True:
        page = await node.past_offers.page_of(mechanic_id, cursor=cursor, limit=limit)
        assert not isinstance(page, Refused)
        assert len(page.offers) <= limit
        found += page.offers
        cursor = page.next_cursor
        if cursor is None:
            break
    assert [one.offered_at for one in found] == sorted((one.offered_at for one in found), reverse=True)
    assert len({one.offer_id for one in found}) == len(found)
    return found


async def outcomes(node: Node, mechanic_id: str) -> dict[str, str]:
    return {one.offer_id: one.outcome for one in await past(node, mechanic_id)}


def open_offer(request: object) -> str:
    assert isinstance(request, RequestView)
    assert request.offer is not None
    return request.offer.id


# --- how it ended -----------------------------------------------------------------------------------------------------


async def test_each_offer_is_told_as_it_ended_for_this_mechanic(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world) as node:
        mike, jane = await world.mechanics(2)
        # Jane declines, Mike takes the broadcast and gives it back, and Jane is not asked again.
        customer_id, request = await free_request(world, node, jane)
        to_jane = open_offer(request)
        await node.dispatch.decline(jane, to_jane)
        broadcast = open_offer(await world.request(node, customer_id, request.id))
        await accept(node, mike, broadcast)()
        again = open_offer(await node.dispatch.release(mike, request.id))
        await node.dispatch.cancel(customer_id, request.id)
        assert await outcomes(node, jane) == {to_jane: "declined"}
        assert await outcomes(node, mike) == {broadcast: "given_back"}
        tom = await world.mechanic()
        await on_duty_at(world, tom, (node.clock.now_ms(), None))
        assert await outcomes(node, tom) == {}, "they were not here yet"
        assert again not in await outcomes(node, mike)


@pytest.mark.parametrize("ending", ["cancelled", "skipped", "missed", "accepted", "taken"])
async def test_what_others_or_time_did_to_an_offer_is_told_as_that(database_url, redis_url, ending: str):
    async with running_world(database_url, redis_url) as world, running_node(world, without=("elapsing",)) as node:
        mike, jane = await world.mechanics(2)
        customer_id, request = await free_request(world, node, None if ending == "taken" else mike)
        offer_id = open_offer(request)
        if ending == "cancelled":
            await node.dispatch.cancel(customer_id, request.id)
        elif ending == "skipped":
            await node.dispatch.skip_wait(customer_id, request.id)
        elif ending == "missed":
            row = await world.row(tables.Offer, offer_id)
            await node.elapsing._elapsed([offer_id], row.expires_at_ms)
        else:
            await accept(node, mike if ending == "accepted" else jane, offer_id)()
        (told,) = await past(node, mike)
        assert (told.offer_id, told.outcome, told.request_id) == (offer_id, ending, request.id)
        assert (told.customer_name, told.plan, told.price_cents, told.currency) == (
            request.customer_name,
            "free_diagnostic",
            0,
            "usd",
        )
        assert told.offered_at <= told.ended_at


async def test_a_late_tap_takes_the_broadcast_and_leaves_the_offer_that_it_named_as_it_was(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world) as node:
        mike = await world.mechanic()
        customer_id, request = await free_request(world, node, mike)
        first = open_offer(request)
        second = open_offer(await node.dispatch.skip_wait(customer_id, request.id))
        await accept(node, mike, first)()
        assert await outcomes(node, mike) == {first: "skipped", second: "accepted"}


async def test_a_declined_broadcast_is_there_while_it_is_still_open_for_others(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world) as node:
        mike, jane = await world.mechanics(2)
        _, request = await free_request(world, node)
        offer_id = open_offer(request)
        assert await past(node, mike) == []
        await node.dispatch.decline(mike, offer_id)
        (declined,) = await past(node, mike)
        assert (declined.outcome, await past(node, jane)) == ("declined", [])
        await accept(node, jane, offer_id)()
        assert await past(node, mike) == [declined]
        assert await outcomes(node, jane) == {offer_id: "accepted"}


async def test_a_broadcast_counts_that_was_open_at_any_time_of_their_duty_and_no_other(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world) as node:
        mike = await world.mechanic()
        await node.dispatch.set_on_duty(mike, False)
        customer_id, request = await free_request(world, node)
        missed = open_offer(request)
        await node.dispatch.cancel(customer_id, request.id)
        customer_id, request = await free_request(world, node)
        reached = open_offer(request)
        (first,) = await world.rows(tables.DutyInterval, mechanic_id=mike)
        begun_ms = first.started_at_ms - 5_000
        await world.update(tables.DutyInterval, first.id, started_at_ms=begun_ms, ended_at_ms=begun_ms + 1)
        await node.dispatch.set_on_duty(mike, True)
        (_, second) = sorted(await world.rows(tables.DutyInterval, mechanic_id=mike), key=lambda one: one.started_at_ms)
        await node.dispatch.cancel(customer_id, request.id)
        row = await world.row(tables.Offer, reached)
        await world.update(tables.Offer, reached, opened_at_ms=second.started_at_ms - 5)
        assert (row.closed_at_ms or 0) >= second.started_at_ms
        await world.update(tables.Offer, missed, closed_at_ms=second.started_at_ms - 10)
        assert await outcomes(node, mike) == {reached: "cancelled"}


async def test_what_they_took_while_off_duty_is_there_like_what_they_took_on_duty(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world) as node:
        mike = await world.mechanic()
        await on_duty_at(world, mike)
        _, request = await free_request(world, node)
        offer_id = open_offer(request)
        await accept(node, mike, offer_id)()
        assert await outcomes(node, mike) == {offer_id: "accepted"}


async def test_a_broadcast_that_began_and_ended_while_they_were_in_one_session_was_never_theirs(
    database_url, redis_url
):
    async with running_world(database_url, redis_url) as world, running_node(world) as node:
        mike = await world.mechanic()
        _, request = await free_request(world, node)
        before = await free_request(world, node)
        own = open_offer(request)
        await accept(node, mike, own)()
        await node.dispatch.start(mike, request.id)
        customer_id, amid = await free_request(world, node)
        after = await free_request(world, node)
        await node.dispatch.cancel(customer_id, amid.id)
        await node.dispatch.cancel(before[0], before[1].id)
        assert await outcomes(node, mike) == {own: "accepted", open_offer(before[1]): "cancelled"}
        await node.dispatch.complete(mike, request.id)
        # They were free again before it ended, if only for a moment.
        ended = await world.row(tables.Offer, open_offer(before[1]))
        await world.update(tables.SessionRequest, request.id, completed_at_ms=ended.closed_at_ms)
        await node.dispatch.cancel(after[0], after[1].id)
        assert set(await outcomes(node, mike)) == {own, open_offer(before[1]), open_offer(after[1])}


async def test_offers_of_a_kind_that_they_do_not_take_are_not_told_as_missed(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world) as node:
        mike = await world.mechanic()
        customer_id, request = await free_request(world, node)
        await node.dispatch.cancel(customer_id, request.id)
        assert await outcomes(node, mike) == {open_offer(request): "cancelled"}
        await node.preferences.choose(mike, ["text"], push_broadcasts=False)
        assert await outcomes(node, mike) == {}


async def test_offers_that_nodes_of_the_version_before_have_closed_are_told_as_far_as_is_known(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world) as node:
        mike, jane = await world.mechanics(2)
        _, request = await free_request(world, node, jane)
        to_jane = open_offer(request)
        await node.dispatch.decline(jane, to_jane)
        broadcast = open_offer(await node.reader.request_for(await customer_of(world, request.id), request.id))
        await accept(node, mike, broadcast)()
        async with world.database.write() as session:
            await session.exec(text("UPDATE offers SET taken_by_id = NULL"))
            await session.exec(text("UPDATE exclusions SET at_ms = NULL"))
        assert await outcomes(node, mike) == {broadcast: "accepted"}
        assert await outcomes(node, jane) == {to_jane: "declined", broadcast: "declined"}


async def customer_of(world: World, request_id: str) -> str:
    return (await world.row(tables.SessionRequest, request_id)).customer_id


# --- page by page -----------------------------------------------------------------------------------------------------


async def many(world: World, node: Node, mechanic_id: str, count: int, *, apart_ms: int, from_ms: int) -> list[str]:
    """Store closed offers of one request, every third for this mechanic alone; return their ids, the newest first."""
    customer_id, request = await free_request(world, node)
    await node.dispatch.cancel(customer_id, request.id)
    insert = """
        WITH RECURSIVE n(number) AS (SELECT 0 UNION ALL SELECT number + 1 FROM n WHERE number < :count - 1)
        INSERT INTO offers
          (id, request_id, kind, mechanic_id, opened_at_ms, expires_at_ms, closed_at_ms, close_reason, failures)
        SELECT 'o' || (1000000 + number), :request_id, 'broadcast', CASE WHEN number % 3 = 0 THEN :mechanic_id END,
          :from_ms + number * :apart_ms, 0, :from_ms + number * :apart_ms + 5, 'expired', 0
        FROM n"""
    values = {"count": count, "request_id": request.id, "mechanic_id": mechanic_id}
    async with world.database.write() as session:
        await session.exec(text("DELETE FROM offers"))
        await session.exec(text(insert), params={**values, "from_ms": from_ms, "apart_ms": apart_ms})
    return [f"o{1_000_000 + number}" for number in reversed(range(count))]


async def on_duty_at(world: World, mechanic_id: str, *times: tuple[int, int | None]) -> None:
    """Let the mechanic have been on duty then, and at no other time."""
    async with world.database.write() as session:
        await session.exec(text("DELETE FROM duty_intervals WHERE mechanic_id = :id"), params={"id": mechanic_id})
        for started_at_ms, ended_at_ms in times:
            session.add(
                tables.DutyInterval(mechanic_id=mechanic_id, started_at_ms=started_at_ms, ended_at_ms=ended_at_ms)
            )


async def test_pages_of_any_length_hold_every_offer_once_also_over_more_duty_than_a_page_looks_at(
    database_url, redis_url, monkeypatch
):
    monkeypatch.setattr(past_offers, "INTERVALS_MAX", 4)
    async with running_world(database_url, redis_url) as world, running_node(world) as node:
        mike = await world.mechanic()
        ids = await many(world, node, mike, 60, apart_ms=10, from_ms=1_000)
        # Ten times on duty for a moment each.
        await on_duty_at(world, mike, *((start_ms, start_ms + 25) for start_ms in range(1_000, 1_600, 60)))
        numbers = [int(offer_id[1:]) - 1_000_000 for offer_id in ids]
        shown = [number % 3 == 0 or number * 10 % 60 < 25 for number in numbers]
        expected = [offer_id for offer_id, is_shown in zip(ids, shown, strict=True) if is_shown]
        for limit in (1, 2, 7, 100):
            assert [one.offer_id for one in await past(node, mike, limit=limit)] == expected


async def test_every_page_gets_further_also_past_duty_that_began_more_often_in_a_millisecond_than_a_page_looks_at(
    database_url, redis_url, monkeypatch
):
    # The clock was set back: whatever began before it was right again, began and ended as the last interval did.
    monkeypatch.setattr(past_offers, "INTERVALS_MAX", 4)
    async with running_world(database_url, redis_url) as world, running_node(world) as node:
        mike = await world.mechanic()
        ids = await many(world, node, mike, 12, apart_ms=10, from_ms=1_000)
        await on_duty_at(world, mike, (900, 1_050), *[(1_050, 1_050)] * 12, (1_050, 1_200))
        cursors: set[str | None] = set()
        cursor: str | None = None
        found: list[str] = []
        while cursor not in cursors:
            cursors.add(cursor)
            page = await node.past_offers.page_of(mike, cursor=cursor, limit=5)
            assert not isinstance(page, Refused)
            found += [one.offer_id for one in page.offers]
            cursor = page.next_cursor
        assert (cursor, found) == (None, ids)


async def test_a_cursor_that_is_none_is_refused(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world) as node:
        for cursor in ("yesterday", "-", "1e3-x", "9" * 30):
            refused = await node.past_offers.page_of("mike", cursor=cursor)
            assert isinstance(refused, Refused)
            assert (refused.code, refused.member) == ("validation_failed", "cursor")


GROWING = ("offers", "exclusions", "session_requests")
EXPLAIN = {True: "EXPLAIN QUERY PLAN ", False: "EXPLAIN "}


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (PAST_BROADCASTS, "ix_offers_past_broadcasts"),
        (PAST_PRIORITY_OFFERS, "ix_offers_past_priority"),
        (TAKEN_BROADCASTS, "ix_offers_taken_broadcasts"),
        # What is open is as much as it is: it is sorted.
        (DECLINED_BROADCASTS, "_open"),
    ],
    ids=["broadcasts", "priority", "taken", "declined"],
)
async def test_neither_database_scans_the_offers_exclusions_or_sessions_of_all_time_or_sorts_them(
    database_url, redis_url, statement: Statement, index: str
):
    async with running_world(database_url, redis_url) as world, running_node(world) as node:
        mike = await world.mechanic()
        await many(world, node, mike, 5_000, apart_ms=1_000, from_ms=1_000_000)
        async with world.database.write() as session:
            (request_id,) = {one.request_id for one in await world.rows(tables.Offer, id="o1000000")}
            insert = """
                WITH RECURSIVE n(number) AS (SELECT 0 UNION ALL SELECT number + 1 FROM n WHERE number < 5000)
                INSERT INTO exclusions (request_id, mechanic_id, because, at_ms)
                SELECT :request_id, 'm' || number, 'declined', 1 FROM n"""
            await session.exec(text(insert), params={"request_id": request_id})
            await copy_row(session, tables.Checkout, 5_000)
            await copy_row(session, tables.SessionRequest, 5_000, checkout_id="'c' || number", started_at_ms="number")
            await session.exec(text("ANALYZE"))
        values = {
            "mechanic_id": mike,
            "from_ms": 2_000_000,
            "until_ms": 4_000_000,
            "open_after_ms": 2_100_000,
            "before_ms": 5_000_000,
            "before_id": "",
            "session_ms": SESSION_MS_MAX,
            "limit": 21,
        }
        arguments = tuple(values[name] for name in statement.parameters)
        is_sqlite = world.database.is_sqlite
        asked = EXPLAIN[is_sqlite] + (statement.sqlite if is_sqlite else statement.postgresql)
        async with world.database.read() as session:
            connection = await session.connection()
            plan = "\n".join(str(tuple(row)) for row in await connection.exec_driver_sql(asked, arguments))
        assert index in plan, plan
        slow = {"SCAN o'", "SCAN e'", "SCAN s'"} | {f"Seq Scan on {one}" for one in GROWING}
        if statement is not DECLINED_BROADCASTS:
            slow |= {"TEMP B-TREE", "Sort"}
        assert not [word for word in slow if word in plan], plan


# --- duty leads to broadcasts (pure) ----------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 1_000), min_size=2, max_size=24, unique=True),
    st.lists(st.tuples(st.integers(0, 1_000), st.integers(1, 50)), max_size=20),
)
def test_the_slices_hold_exactly_the_broadcasts_that_were_open_on_duty_each_once(
    instants: list[int], broadcasts: list[tuple[int, int]]
):
    instants.sort()
    duty = [Stretch(a, b) for a, b in zip(instants[::2], instants[1::2], strict=False)]
    found = list(slices(duty[::-1], 50))
    assert len(duty) <= INTERVALS_MAX
    for opened_ms, open_for_ms in broadcasts:
        closed_ms = opened_ms + open_for_ms
        was_open = any(one.started_at_ms < closed_ms and opened_ms < one.ended_at_ms for one in duty)
        count = sum(one.from_ms <= opened_ms < one.until_ms and closed_ms > one.open_after_ms for one in found)
        assert count == was_open
    assert all(newer.from_ms >= older.until_ms for newer, older in pairwise(found))
