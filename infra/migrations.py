"""How a database gets to the newest page of the schema's history, which ``models/migrations`` holds."""

import fcntl
from pathlib import Path

import anyio
import anyio.to_thread
from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncConnection

from infra.database import Database

HISTORY = Path(__file__).parent.parent / "models" / "migrations"
ADVISORY_LOCK = 0x70_69_74_6C
"""Any constant: PostgreSQL lets one migration at a time hold it."""
TURN_POLL_S = 0.1


async def is_current(database: Database) -> bool:
    """Tell whether the schema is the newest that this version knows, or a later one, which is made so that this version lives on.

    Costs one query and no import of Alembic.
    """
    async with database.read() as session:
        connection = await session.connection()
        tables = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
        if "alembic_version" not in tables:
            return False
        version = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar()
        return version is not None and int(version) >= newest()


def newest() -> int:
    """Return the number of the newest schema that this version knows."""
    return max(int(path.stem.split("_", 1)[0]) for path in (HISTORY / "versions").glob("[0-9]*.py"))


async def upgrade(database: Database) -> bool:
    """Bring the database to the newest schema; return whether there was anything to do. Safe from several processes."""
    if database.is_sqlite:
        path = Path(database.url.database or "")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(path.name + ".migrating").open("w") as lock:
            await anyio.to_thread.run_sync(fcntl.flock, lock, fcntl.LOCK_EX)
            return await _upgrade(database)
    return await _upgrade(database)


async def _upgrade(database: Database) -> bool:
    if await is_current(database):
        return False
    await _migrate(database, "head")
    return True


async def _migrate(database: Database, revision: str) -> None:
    if database.is_sqlite:
        async with database.writer.begin() as connection:
            await connection.run_sync(_run_alembic, revision)
        return
    # No transaction around all of it: each migration has its own, and one that builds the index of a big table has none.
    async with database.writer.connect() as connection:
        try:
            await _take_turn(connection)
            await connection.run_sync(_run_alembic, revision)
        finally:
            # Its session has the lock, and no limits.
            await connection.invalidate()


async def _take_turn(connection: AsyncConnection) -> None:
    """Lock others out who migrate, for as long as the connection lasts."""
    # A migration may take its time, and so may waiting for another node's.
    for limit in ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"):
        await connection.execute(text(f"SET {limit} = 0"))
    # Asked for over and over: an index that is built beside others waits for whatever was being asked when it began.
    while not await connection.scalar(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": ADVISORY_LOCK}):
        await connection.commit()
        await anyio.sleep(TURN_POLL_S)
    await connection.commit()


def _run_alembic(connection: Connection, revision: str) -> None:
    # Imported here: it costs a quarter of a second, and almost every start finds nothing to do.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(HISTORY))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
