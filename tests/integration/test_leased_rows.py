"""Rows that any node may work on, one node at a time: what a claim takes, and what it leaves to others."""

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import pytest
from sqlalchemy import true
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from dispatch.due_work import DueWork
from dispatch.failures import NEVER_MS, Patience
from dispatch.leased_rows import LeasedRows
from dispatch.money.bookkeeping import SQL as MONEY_SQL
from dispatch.stored import Named
from infra.clock import Clock, WallClock
from infra.database import Database
from infra.metrics import REGISTRY
from infra.statements import Statement
from models import tables
from models.errors import DatabaseUnavailable
from tests.parts import eventually

LEASE_MS = 1_000
PATIENCE = Patience(first_ms=100, max_ms=10_000, failures_max=2)


class Wall(Clock):
    """Stands still until it is told otherwise."""

    def __init__(self, now_ms: int) -> None:
        self.at_ms = now_ms

    def now_ms(self) -> int:
        return self.at_ms


class Held(Database):
    """A database whose writing transactions begin only when they may."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.waiting = 0
        self.may_write = anyio.Event()

    @asynccontextmanager
    async def write(self, **bounds: Any) -> AsyncIterator[AsyncSession]:
        self.waiting += 1
        await self.may_write.wait()
        async with super().write(**bounds) as session:
            yield session


def events(database: Database, clock: Clock, patience: Patience = PATIENCE) -> LeasedRows[tuple[str, int]]:
    """Return Stripe's events, claimed as their ids and attempts."""
    table = tables.StripeEvent
    return LeasedRows(
        table,
        look=Statement(MONEY_SQL / "due_events.sql", Named),
        due="next_attempt_at_ms",
        row=lambda *columns: columns,
        columns=[col(table.id), col(table.attempts)],
        database=database,
        clock=clock,
        lease_ms=LEASE_MS,
        patience=patience,
    )


async def add(database: Database, **due_at_ms: int) -> None:
    async with database.write() as session:
        for event_id, at_ms in due_at_ms.items():
            session.add(tables.StripeEvent(id=event_id, type="test", received_at_ms=0, next_attempt_at_ms=at_ms))


async def event(database: Database, event_id: str) -> tables.StripeEvent:
    async with database.read() as session:
        return await session.get_one(tables.StripeEvent, event_id)


async def finish(database: Database, event_id: str) -> None:
    async with database.write() as session:
        (await session.get_one(tables.StripeEvent, event_id)).processed_at_ms = 1


def set_aside() -> float:
    return REGISTRY.get_sample_value("pitlane_items_set_aside_total", {"work": "stripe_events"}) or 0


@asynccontextmanager
async def opened(*databases: Database) -> AsyncIterator[None]:
    try:
        yield
    finally:
        for database in databases:
            await database.close()


async def test_of_two_nodes_that_have_read_the_same_rows_each_row_is_claimed_by_one(database_url):
    # Both read before either writes. The first to write has them all; the second finds the lease that it had not seen.
    a, b, clock, claimed = Held(database_url), Held(database_url), Wall(10_000), {}

    async def claim(database: Held) -> None:
        claimed[database] = await events(database, clock).claim(10)

    async with opened(a, b):
        setting_up = Database(database_url)
        async with opened(setting_up):
            await add(setting_up, evt_1=1, evt_2=2)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(claim, a)
            tasks.start_soon(claim, b)
            await eventually(lambda: (a.waiting, b.waiting) == (1, 1), "both have read")
            a.may_write.set()
            await eventually(lambda: a in claimed, "the first has claimed")
            b.may_write.set()
    assert claimed == {a: [("evt_1", 1), ("evt_2", 1)], b: []}


async def test_what_was_finished_while_it_was_being_claimed_is_not_worked_on_again(database_url):
    # The claim has read the row; whoever had it before finishes it; then the claim writes.
    late, other, claimed = Held(database_url), Database(database_url), []

    async def claim() -> None:
        claimed.append(await events(late, Wall(10_000)).claim(10, which=true()))

    async with opened(late, other):
        await add(other, evt_1=1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(claim)
            await eventually(lambda: late.waiting, "it has been read")
            await finish(other, "evt_1")
            late.may_write.set()
        assert claimed == [[]]
        assert (await event(other, "evt_1")).attempts == 0


async def test_a_claim_holds_for_its_lease_and_counts_as_an_attempt(database_url):
    database, clock = Database(database_url), Wall(10_000)
    rows = events(database, clock)
    async with opened(database):
        await add(database, evt_1=10_001)
        assert await rows.claim(10) == [], "not before it is due"
        clock.at_ms = 10_001
        assert await rows.claim(10) == [("evt_1", 1)]
        assert (await event(database, "evt_1")).next_attempt_at_ms == 10_001 + LEASE_MS
        clock.at_ms += LEASE_MS - 1
        assert await rows.claim(10) == []
        clock.at_ms += 1
        assert await rows.claim(10) == [("evt_1", 2)], "who had claimed it has died"


async def test_a_claim_that_finds_nothing_does_not_stand_in_line_to_write(database_url):
    # Every idle node looks now and again, and SQLite has one writer at a time.
    database = Held(database_url)
    async with opened(database):
        assert await events(database, Wall(10_000)).claim(10) == []
        assert database.waiting == 0


async def test_a_claim_tells_when_the_next_row_falls_due_whoever_has_put_it_off_or_died_with_it(database_url):
    database, clock = Database(database_url), Wall(10_000)
    rows = events(database, clock)
    async with opened(database):
        assert (await rows.claim(10)).next_in_ms is None
        await add(database, evt_1=10_000, evt_2=10_300, evt_3=10_200, evt_4=10_100)
        await finish(database, "evt_4")
        first = await rows.claim(10)
        assert (first, first.next_in_ms) == ([("evt_1", 1)], 200)
        clock.at_ms = 10_300
        both = await rows.claim(10)
        assert (both, both.next_in_ms) == ([("evt_2", 1), ("evt_3", 1)], 10_000 + LEASE_MS - 10_300)
        assert (await rows.claim(0)).next_in_ms is None, "nobody has looked"


@pytest.mark.bugs_planted
async def test_what_failed_is_tried_again_on_time_and_what_a_dead_node_had_when_its_lease_ends(
    database_url, monkeypatch: pytest.MonkeyPatch
):
    # Nobody looks in between: each look tells when to look again.
    monkeypatch.setattr("dispatch.due_work.POLL_S", 60.0)
    database, tried_at_ms = Database(database_url), defaultdict[str, list[int]](list)
    clock = WallClock()
    rows = events(database, clock, Patience(first_ms=1_000, max_ms=10_000, failures_max=9))

    async def work(row: tuple[str, int]) -> None:
        tried_at_ms[row[0]].append(clock.now_ms())
        if row[0] == "evt_1" and len(tried_at_ms["evt_1"]) == 1:
            raise KeyError("only the first time")
        await finish(database, row[0])

    async def failed(row: tuple[str, int], error: Exception) -> None:
        await rows.failed(row[0], error)

    async with opened(database):
        await add(database, evt_1=1, evt_2=1)
        # Claimed by a node that dies.
        claimed_at_ms = clock.now_ms()
        assert len(await rows.claim(1)) == 1
        due = DueWork("test", claim=rows.claim, work=work, failed=failed, side_by_side=4)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(due.run)
            await eventually(lambda: len(tried_at_ms["evt_1"]) == 2 and tried_at_ms["evt_2"], "both are done")
            tasks.cancel_scope.cancel()
        first, second = tried_at_ms["evt_1"]
        # Not before its time, and long before anybody would have looked by themselves.
        assert LEASE_MS <= first - claimed_at_ms < 30_000
        assert 1_000 <= second - first < 30_000


async def test_a_claim_takes_as_many_as_it_may_in_the_order_asked_for_and_leaves_alone_what_it_is_told_to(database_url):
    database = Database(database_url)
    rows = events(database, Wall(10_000))
    async with opened(database):
        await add(database, evt_1=5, evt_2=4, evt_3=3, evt_6=99_999)
        assert await rows.claim(2) == [("evt_1", 1), ("evt_2", 1)]
        assert await rows.claim(2, skip={"evt_3"}) == []
        # Also what nobody would come to yet.
        named = col(tables.StripeEvent.id).in_(["evt_1", "evt_6"])
        assert await rows.claim(2, which=named) == [("evt_1", 2), ("evt_6", 1)]


@pytest.mark.bugs_planted
async def test_noting_a_failure_does_not_fail_by_the_text_of_the_error(database_url):
    database = Database(database_url)
    async with opened(database):
        await add(database, evt_1=1)
        await events(database, Wall(10_000)).failed("evt_1", KeyError("\0\udcff" + "x" * 1_000))
        assert (await event(database, "evt_1")).failures == 1
        await events(database, Wall(10_000)).failed("evt_1", ValueError("half a pair: \udcff\0\nsecond line"))
        assert (await event(database, "evt_1")).last_error == "ValueError: half a pair: \\udcff"


@pytest.mark.bugs_planted
async def test_who_has_never_failed_comes_first_but_whoever_goes_through_all_meets_each_once(database_url):
    database, clock = Database(database_url), Wall(10_000)
    rows = events(database, clock)
    async with opened(database):
        await add(database, evt_1=1, evt_2=2, evt_3=3)
        await rows.failed("evt_1", KeyError("a bug"))
        clock.at_ms = 20_000
        assert [event_id for event_id, _ in await rows.claim(2)] == ["evt_2", "evt_3"]
        assert [event_id for event_id, _ in await rows.claim(2)] == ["evt_1"]
        # As the refunds of a restart are gone through: by a cursor on the id.
        met, after = [], ""
        while claimed := await rows.claim(1, which=col(tables.StripeEvent.id) > after):
            met.append(after := claimed[-1][0])
        assert met == ["evt_1", "evt_2", "evt_3"]


async def test_an_outage_puts_a_row_off_by_its_attempts_and_is_not_counted_against_it(database_url):
    database, clock = Database(database_url), Wall(10_000)
    rows = events(database, clock)
    async with opened(database):
        await add(database, evt_1=1, evt_2=1, evt_3=1)
        await finish(database, "evt_3")
        for event_id in ("evt_1", "evt_3"):
            await rows.failed(event_id, DatabaseUnavailable("away"), attempts=3)
        found = [await event(database, event_id) for event_id in ("evt_1", "evt_2", "evt_3")]
        assert [one.next_attempt_at_ms for one in found] == [10_400, 1, 1]
        assert [one.failures for one in found] == [0, 0, 0]


@pytest.mark.bugs_planted
async def test_a_failure_puts_off_its_own_row_alone_and_the_last_that_is_borne_sets_it_aside_for_good(database_url):
    database, clock = Database(database_url), Wall(10_000)
    rows = events(database, clock)
    async with opened(database):
        await add(database, evt_1=1, evt_2=1, evt_3=1)
        await finish(database, "evt_3")
        for event_id in ("evt_1", "evt_3"):
            await rows.failed(event_id, KeyError("first"), attempts=7)
        one, two, three = [await event(database, event_id) for event_id in ("evt_1", "evt_2", "evt_3")]
        assert (one.failures, one.last_error, one.next_attempt_at_ms) == (1, "KeyError: 'first'", 10_100)
        assert one.set_aside_at_ms is None
        for other in (two, three):
            assert (other.failures, other.last_error, other.next_attempt_at_ms) == (0, None, 1)

        clock.at_ms = 20_000
        await rows.failed("evt_1", KeyError("second"), attempts=8)
        one = await event(database, "evt_1")
        assert (one.failures, one.next_attempt_at_ms, one.set_aside_at_ms) == (2, NEVER_MS, 20_000)


@pytest.mark.bugs_planted
async def test_what_money_hangs_on_is_shown_as_set_aside_since_the_first_time_and_tried_on(database_url):
    database, clock = Database(database_url), Wall(10_000)
    rows = events(database, clock, replace(PATIENCE, gives_up=False))
    before = set_aside()
    async with opened(database):
        await add(database, evt_1=1)
        for n in range(3):
            clock.at_ms = 10_000 * (n + 1)
            await rows.failed("evt_1", KeyError(str(n)), attempts=1)
        assert set_aside() == before + 1
        one = await event(database, "evt_1")
        assert (one.failures, one.last_error, one.set_aside_at_ms) == (3, "KeyError: '2'", 20_000)
        assert one.next_attempt_at_ms == 30_000 + 400
        assert await rows.claim(1, which=true()) == [("evt_1", 1)]


def test_the_wait_after_a_failure_doubles_from_the_first_to_the_longest():
    patience = Patience(first_ms=100, max_ms=1_000, failures_max=9)
    assert [patience.delay_ms(failures) for failures in (1, 2, 3, 4, 5, 6)] == [100, 200, 400, 800, 1_000, 1_000]
    assert patience.delay_ms(10**9) == 1_000
