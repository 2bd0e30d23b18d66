"""What statements read of tables that grow, whatever a planner's statistics say; and rows for them to read past."""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

import asyncpg
from sqlalchemy import inspect, text
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from infra.statements import Statement
from tests.parts import World

CUSTOM_PLANS = 5
"""So often PostgreSQL plans a prepared statement for the values at hand, before it thinks of any others."""


async def rows_read(
    world: World, statement: Statement[Any], *, is_prepared: bool = False, **arguments: object
) -> str | int:
    """Return how SQLite would find the rows, in words; how many rows of tables and indexes PostgreSQL reads.

    With ``is_prepared`` by the plan that PostgreSQL keeps for whatever is asked for.
    """
    values = [arguments[name] for name in statement.parameters]
    if world.database.is_sqlite:
        kept = [json.dumps(value) if isinstance(value, list) else value for value in values]
        with sqlite3.connect(world.database.url.database or "") as connection:
            steps = connection.execute(f"EXPLAIN QUERY PLAN {statement.sqlite}", kept).fetchall()
        return "; ".join(step[-1] for step in steps)
    connection = await asyncpg.connect(world.database_url)
    explain = "EXPLAIN (ANALYZE, FORMAT JSON)"
    try:
        if is_prepared:
            [[plan]] = await connection.fetch(f"{explain} {await kept_plan(connection, statement.postgresql, values)}")
        else:
            [[plan]] = await connection.fetch(f"{explain} {statement.postgresql}", *values)
    finally:
        await connection.close()

    return rows_of(json.loads(plan)[0]["Plan"])


async def kept_plan(
    connection: asyncpg.Connection, text: str, values: Sequence[object], *, is_forced: bool = True
) -> str:
    """Let PostgreSQL plan a statement for whatever is asked for; return what executes it with these values.

    Without ``is_forced`` it does so after a few times, if it thinks that as good (postgresql.org/docs, PREPARE, "Notes").
    """
    await connection.execute(f"SET plan_cache_mode = {'force_generic_plan' if is_forced else 'auto'}")
    await connection.execute(f"PREPARE kept AS {text}")
    # Not as parameters: PostgreSQL would explain how it had planned for these.
    executed = f"EXECUTE kept ({', '.join(map(_literal, values))})" if values else "EXECUTE kept"
    if not is_forced:
        for _ in range(CUSTOM_PLANS):
            await connection.fetch(f"EXPLAIN {executed}")
    return executed


def _literal(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return f"ARRAY[{', '.join(map(_literal, value))}]::text[]"
    return str(value) if isinstance(value, int) else "'" + str(value).replace("'", "''") + "'"


def rows_of(step: dict[str, Any], *, knows_tables: bool = False) -> int:
    """Return how many rows of tables and indexes a step of PostgreSQL's plan has read, with those before it.

    ``knows_tables``: there are statistics. Then what was to look through a table, and stopped as there happened to be nothing to
    look for, counts as if it had.
    """
    read = 0
    if "Relation Name" in step or "Index Name" in step:
        removed = sum(step.get(f"Rows Removed by {why}", 0) for why in ("Filter", "Index Recheck"))
        read = int((step["Actual Rows"] + removed) * step["Actual Loops"])
        if knows_tables and step["Node Type"] == "Seq Scan":
            read = max(read, step["Plan Rows"])
    return read + sum(rows_of(one, knows_tables=knows_tables) for one in step.get("Plans", ()))


async def copy_row(
    session: AsyncSession,
    table: type[SQLModel],
    count: int,
    *,
    of: str = "",
    key: str | None = "'c' || number",
    **columns: str,
) -> None:
    """Let there be copies of a table's only row, or of those ``of`` a condition; ids are ``c1`` and so on.

    ``columns``, and ``key``, are SQL in which ``number`` counts from 1; ``key=None``: the database gives it.
    """
    names = [column.name for column in inspect(table).columns if column.name != "id" or key is not None]
    chosen = ", ".join(columns.get(name, name) if name != "id" else str(key) for name in names)
    insert = f"""
        WITH RECURSIVE n(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM n WHERE number < :count)
        INSERT INTO {table.__tablename__} ({", ".join(names)})
        SELECT {chosen} FROM n, {table.__tablename__} {of and "WHERE " + of}"""
    await session.exec(text(insert), params={"count": count})  # type: ignore[call-overload]
