"""SQL on both kinds: the schema's history, transactions that are all or nothing, and what cannot be."""

import gc
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, func, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlmodel import SQLModel, col, select

from infra import migrations
from infra.database import POSTGRES_SETTINGS, Database
from infra.statements import Statement
from models import tables
from models.errors import DatabaseUnavailable
from models.words import OfferKind, RequestStatus, Role
from tests.parts import eventually, side_by_side
from tests.services import drop_database, fresh_database


@pytest.fixture
async def database(database_url: str):
    database = Database(database_url)
    yield database
    await database.close()


async def closed(*databases: Database) -> None:
    for database in databases:
        await database.close()


async def add(database: Database, *rows: SQLModel) -> None:
    async with database.write() as session:
        for row in rows:
            session.add(row)
            await session.flush()


def account(account_id: str, role: Role = Role.CUSTOMER) -> tables.Account:
    return tables.Account(id=account_id, role=role, email=f"{account_id}@x", name=account_id, created_at_ms=1)


def checkout(checkout_id: str, **changes: Any) -> tables.Checkout:
    wanted: dict[str, Any] = {
        "id": checkout_id,
        "customer_id": "casey",
        "plan_id": "quick_chat",
        "price_cents": 999,
        "currency": "usd",
        "duration_min": 10,
        "session_type": "text",
        "routing_type": "broadcast",
        "created_at_ms": 1,
    }
    return tables.Checkout(**wanted | changes)


def request(request_id: str, checkout_id: str, **changes: Any) -> tables.SessionRequest:
    wanted: dict[str, Any] = {
        "id": request_id,
        "version": 1,
        "checkout_id": checkout_id,
        "customer_id": "casey",
        "plan_id": "quick_chat",
        "session_type": "text",
        "duration_min": 10,
        "price_cents": 999,
        "currency": "usd",
        "routing_type": "broadcast",
        "status": RequestStatus.BROADCASTING,
        "created_at_ms": 1,
    }
    return tables.SessionRequest(**wanted | changes)


def offer(offer_id: str, request_id: str, **changes: Any) -> tables.Offer:
    wanted: dict[str, Any] = {"kind": OfferKind.BROADCAST, "opened_at_ms": 1, "expires_at_ms": 2}
    return tables.Offer(id=offer_id, request_id=request_id, **wanted | changes)


def refund(refund_id: str, checkout_id: str) -> tables.Refund:
    return tables.Refund(
        id=refund_id,
        checkout_id=checkout_id,
        payment_intent_id="pi",
        amount_cents=999,
        currency="usd",
        cause="cancelled",
        created_at_ms=1,
    )


# --- migrations -------------------------------------------------------------------------------------------------------


async def test_the_migrations_build_exactly_the_tables_that_the_code_knows(database: Database):
    def differences(connection: Connection) -> list[Any]:
        return compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), tables.metadata)

    async with database.writer.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_the_migrations_build_the_partial_indexes_that_rules_depend_on(database: Database):
    catalogue = "SELECT sql FROM sqlite_master" if database.is_sqlite else "SELECT indexdef FROM pg_indexes"
    column = "sql" if database.is_sqlite else "indexdef"
    async with database.read() as session:
        found = await session.exec(text(f"{catalogue} WHERE {column} LIKE '%UNIQUE%WHERE%'"))
        definitions = " ".join(row[0] for row in found)
    assert "uq_offers_one_open_per_request" in definitions
    assert "uq_session_requests_one_session_per_mechanic" in definitions


async def test_migrating_twice_changes_nothing_and_says_so(empty_database_url):
    database = Database(empty_database_url())
    assert not await migrations.is_current(database)
    assert await migrations.upgrade(database) is True
    assert await migrations.is_current(database)
    assert await migrations.upgrade(database) is False
    async with database.read() as session:
        assert (await session.exec(select(func.count()).select_from(tables.Plan))).one() == 4
    await closed(database)


async def test_a_schema_that_a_later_version_has_made_is_worked_with_and_left_alone(database: Database):
    async with database.write() as session:
        await (await session.connection()).execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert await migrations.is_current(database)
    assert await migrations.upgrade(database) is False


async def test_several_nodes_that_migrate_side_by_side_build_one_schema(empty_database_url):
    url = empty_database_url()
    databases = [Database(url) for _ in range(4)]
    await side_by_side(*(partial(migrations.upgrade, database) for database in databases))
    async with databases[0].read() as session:
        assert (await session.exec(select(func.count()).select_from(tables.Plan))).one() == 4
    assert await migrations.is_current(databases[3])
    await closed(*databases)


def an_event(event_id: str) -> str:
    return f"""INSERT INTO stripe_events (id, type, payload, received_at_ms, processed_at_ms, attempts, next_attempt_at_ms)
        VALUES ('{event_id}', 'test', '{{}}', 1, 1, 1, 1)"""


async def test_indexes_are_built_while_others_write_and_begun_anew_when_that_was_broken_off(postgres_url: str):
    # On PostgreSQL only: SQLite's is one machine's, and its server is not up yet.
    url = fresh_database(postgres_url)
    database, slow, quick = Database(url), await asyncpg.connect(url), await asyncpg.connect(url)
    await migrations._migrate(database, "0013")
    await quick.execute("SET lock_timeout = 2000")

    async def migrate(outcomes: list[str]) -> None:
        try:
            await migrations._migrate(database, "0014")
            outcomes.append("done")
        except DBAPIError:
            outcomes.append("broken off")

    async def builder() -> int | None:
        """Return which session waits for those that write as it begins to build an index of theirs."""
        waits = "SELECT pid FROM pg_stat_progress_create_index WHERE phase = 'waiting for writers before build'"
        return await quick.fetchval(waits)

    outcomes: list[str] = []
    async with slow.transaction(), anyio.create_task_group() as tasks:
        await slow.execute(an_event("evt_1"))
        tasks.start_soon(migrate, outcomes)
        pid = await eventually(builder, "it waits for who writes just then")
        await quick.execute(an_event("evt_2"))
        await quick.execute("SELECT pg_cancel_backend($1)", pid)
    await migrate(outcomes)
    assert outcomes == ["broken off", "done"]
    assert await quick.fetchval("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == 0
    assert await quick.fetchval("SELECT count(*) FROM pg_class WHERE relname = 'ix_stripe_events_finished'") == 1
    await slow.close()
    await quick.close()
    await database.close()


# --- transactions -----------------------------------------------------------------------------------------------------


async def test_a_write_that_raises_did_not_happen(database: Database):
    with pytest.raises(ZeroDivisionError):
        async with database.write() as session:
            session.add(account("casey"))
            await session.flush()
            raise ZeroDivisionError
    async with database.read() as session:
        assert await session.get(tables.Account, "casey") is None


async def test_a_write_whose_task_is_cancelled_is_finished_first_and_then_the_task_ends(database: Database):
    with anyio.CancelScope() as scope:
        async with database.write() as session:
            scope.cancel()
            session.add(account("casey"))
            await session.flush()
        await anyio.lowlevel.checkpoint()
        pytest.fail("the task goes on although it was cancelled")
    assert scope.cancelled_caught
    async with database.read() as session:
        assert (await session.exec(select(tables.Account.name))).one() == "casey"


async def test_a_transaction_that_takes_too_long_did_not_happen_and_does_not_block_the_next(database: Database):
    with pytest.raises(DatabaseUnavailable):
        async with database.write(within_s=0.05) as session:
            session.add(account("casey"))
            await session.flush()
            await anyio.sleep_forever()
    await add(database, account("casey"))


async def test_what_is_read_in_one_transaction_belongs_together(database: Database):
    await add(database, account("casey"))
    async with database.read() as session:
        before = (await session.exec(select(tables.Account.name))).one()
        async with database.write() as writing:
            await writing.exec(update(tables.Account).values(name="renamed"))
        assert (await session.exec(select(tables.Account.name))).one() == before == "casey"
    async with database.read() as session:
        assert (await session.exec(select(tables.Account.name))).one() == "renamed"


async def test_of_fifty_conditional_updates_side_by_side_one_matches(database_url: str):
    databases = [Database(database_url) for _ in range(2)]
    await add(databases[0], account("casey"))

    async def claim(number: int) -> bool:
        async with databases[number % 2].write() as session:
            claimed = await session.exec(
                update(tables.Account)
                .where(col(tables.Account.free_session_used).is_(False))
                .values(free_session_used=True)
                .returning(col(tables.Account.id))
            )
            return claimed.first() is not None

    assert sorted(await side_by_side(*(partial(claim, number) for number in range(50)))) == [False] * 49 + [True]
    await closed(*databases)


# --- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "impossible",
    [
        [request("r1", "c1"), request("r2", "c1")],
        [request("r1", "c1"), offer("o1", "r1"), offer("o2", "r1")],
        [
            request("r1", "c1", status=RequestStatus.ACCEPTED, assigned_mechanic_id="morgan"),
            request("r2", "c2", status=RequestStatus.IN_PROGRESS, assigned_mechanic_id="morgan"),
        ],
        [refund("f1", "c1"), refund("f2", "c1")],
        [checkout("c3", idempotency_key="k"), checkout("c4", idempotency_key="k")],
        [checkout("c3", stripe_session_id="cs"), checkout("c4", stripe_session_id="cs")],
        [request("r1", "no such checkout")],
        [account("other"), tables.Account(id="x", role=Role.CUSTOMER, email="other@x", name="x", created_at_ms=1)],
    ],
    ids=[
        "two requests for one checkout",
        "two open offers of one request",
        "two sessions of one mechanic",
        "two refunds of one checkout",
        "one idempotency key twice for a customer",
        "one Stripe Session for two checkouts",
        "a request without a checkout",
        "one address for two accounts",
    ],
)
async def test_the_database_does_not_let_it_happen(database: Database, impossible: list[SQLModel]):
    await add(database, account("casey"), account("morgan", Role.MECHANIC), checkout("c1"), checkout("c2"))
    with pytest.raises(IntegrityError):
        await add(database, *(type(row)(**row.model_dump()) for row in impossible))


async def test_what_is_over_does_not_stand_in_the_way(database: Database):
    await add(database, account("casey"), account("morgan", Role.MECHANIC), checkout("c1"), checkout("c2"))
    await add(
        database,
        request("r1", "c1", status=RequestStatus.COMPLETED, assigned_mechanic_id="morgan"),
        request("r2", "c2", status=RequestStatus.ACCEPTED, assigned_mechanic_id="morgan"),
        offer("o1", "r1", closed_at_ms=3),
        offer("o2", "r1"),
    )


# --- a broken world ---------------------------------------------------------------------------------------------------


async def test_a_database_that_nobody_serves_is_unavailable(tmp_path):
    nowhere = [Database("postgresql://app@127.0.0.1:9/x"), Database(f"sqlite:///{tmp_path}/no/such/folder/x.sqlite3")]
    for database in nowhere:
        for transaction in (database.read, database.write):
            with pytest.raises((DatabaseUnavailable, DBAPIError)) as raised:
                async with transaction() as session:
                    await session.exec(text("SELECT 1"))
            assert isinstance(raised.value, DatabaseUnavailable), raised.value
        with pytest.raises(DatabaseUnavailable):
            await database.ping()
    await closed(*nowhere)


async def test_a_connection_that_is_cut_is_unavailable_once_and_then_replaced(postgres_url: str):
    database = Database(f"{postgres_url}/postgres")
    other = Database(f"{postgres_url}/postgres")
    with pytest.raises(DatabaseUnavailable):
        async with database.write() as session:
            (own,) = (await session.exec(text("SELECT pg_backend_pid()"))).one()
            async with other.write() as executioner:
                await executioner.exec(text("SELECT pg_terminate_backend(:own)").bindparams(own=own))
            await session.exec(text("SELECT 1"))
    await database.ping()
    await closed(database, other)


@pytest.mark.parametrize("sqlstate", ["25006", "25P03", "40001", "53300", "55P03", "57014", "57P03", "58030"])
async def test_what_an_operator_or_a_failover_does_to_postgresql_is_the_worlds_fault(postgres_url: str, sqlstate: str):
    database = Database(f"{postgres_url}/postgres")
    with pytest.raises(DatabaseUnavailable):
        async with database.write() as session:
            await session.exec(text(f"DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{sqlstate}'; END $$"))
    await database.ping()
    await closed(database)


@pytest.mark.parametrize("sqlstate", ["22012", "23505", "42601"])
async def test_what_is_wrong_with_our_statements_is_not_told_as_an_outage(postgres_url: str, sqlstate: str):
    database = Database(f"{postgres_url}/postgres")
    with pytest.raises(DBAPIError):
        async with database.write() as session:
            await session.exec(text(f"DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{sqlstate}'; END $$"))
    await closed(database)


async def test_a_driver_that_has_lost_its_thread_is_the_worlds_fault(database: Database):
    # asyncpg raises this when a connection breaks off amid an answer; it is no subclass of its other errors.
    with pytest.raises(DatabaseUnavailable):
        async with database.write():
            raise asyncpg.InternalClientError("got result for unknown protocol state 3")


@dataclass(frozen=True)
class Setting:
    name: str
    setting: str


async def test_a_node_that_is_cut_off_amid_a_transaction_holds_no_lock_for_hours(postgres_url: str, tmp_path: Path):
    # The kernel would keep the connection, and PostgreSQL the locks with it, until somebody notices.
    database = Database(f"{postgres_url}/postgres")
    path = tmp_path / "settings.sql"
    path.write_text("SELECT name, setting FROM pg_settings WHERE source = 'client'")
    async with database.read() as session:
        by_session = {row.name: row.setting for row in await session.exec(text(path.read_text()))}
    by_statement = {row.name: row.setting for row in await database.query(Statement(path, Setting)())}
    for found in (by_session, by_statement):
        assert POSTGRES_SETTINGS.items() <= found.items()
    await closed(database)


async def test_a_deadlock_is_the_worlds_fault_and_one_of_the_two_goes_on(postgres_url: str, postgres_template: str):
    # On PostgreSQL only: SQLite has one writer at a time, so that there is no circle to wait in.
    database = Database(fresh_database(postgres_url, postgres_template))
    await add(database, account("a"), account("b"))
    holding = [anyio.Event(), anyio.Event()]

    async def touch(first: int) -> str:
        names = ["a", "b"]
        try:
            async with database.write() as session:
                for step, name in enumerate((names[first], names[1 - first])):
                    await session.exec(update(tables.Account).where(col(tables.Account.id) == name).values(name="x"))
                    if step == 0:
                        holding[first].set()
                        await holding[1 - first].wait()
        except DatabaseUnavailable:
            return "unavailable"
        return "done"

    assert sorted(await side_by_side(partial(touch, 0), partial(touch, 1))) == ["done", "unavailable"]
    await database.close()


async def test_a_database_dropped_under_us_does_not_look_like_a_bug(postgres_url: str):
    url = fresh_database(postgres_url)
    database = Database(url)
    await database.ping()
    drop_database(url)
    with pytest.raises(DatabaseUnavailable):
        await database.ping()
    await database.close()


async def test_whoever_is_cancelled_closes_every_connection_all_the_same(database_url: str):
    """A connection that is left open fails the test in which it is collected: warnings are errors here."""
    database = Database(database_url)
    await database.ping()
    async with database.write() as session:
        await session.connection()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await database.close()
    del database, session
    gc.collect()
