"""What a node asks of SQL, whichever way it takes, and what answering that reads."""

import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Engine, event

from infra.database import Database
from infra.drivers import to_sqlite
from infra.statements import Transaction
from tests.integration.plans import kept_plan, rows_of
from tests.parts import World, loop_of

READS = re.compile(r"\s*(SELECT|WITH|UPDATE|DELETE|INSERT)\b")
"""And not what a driver asks about the connection."""
OPCODES = 20
"""Of SQLite's virtual machine, as many as finding a row and reading it take at least."""


@dataclass(frozen=True)
class Asked:
    """A statement that went to the database, with its last arguments."""

    name: str
    """Of its file, or how it begins."""
    text: str
    arguments: tuple[Any, ...]
    by_driver: bool
    """Not in a session: on PostgreSQL planned once, for whatever is asked for."""


@dataclass(frozen=True)
class Noted:
    """What has been asked so far."""

    statements: dict[str, Asked] = field(default_factory=dict)
    """By their texts."""
    loops: set[str] = field(default_factory=set)
    """Which of a node's loops have asked something."""

    @property
    def names(self) -> set[str]:
        return {one.name for one in self.statements.values()}

    def note(self, loop: str | None, one: Asked) -> None:
        self.statements[one.text] = one
        if loop is not None:
            self.loops.add(loop)


@contextmanager
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Noted]:
    """Note every statement of any node inside the block."""
    found = Noted()

    def noted(database: Database, work: Transaction[Any], loop: str | None) -> Transaction[Any]:
        rows: Any = None
        try:
            while True:
                call = work.send(rows)
                text = call.statement.sqlite if database.is_sqlite else call.statement.postgresql
                found.note(loop, Asked(call.statement.name, text, tuple(call.arguments[0]), by_driver=True))
                rows = yield call
        except StopIteration as end:
            return end.value

    def execute(_connection: Any, _cursor: Any, text: str, arguments: Any, _context: Any, is_many: bool) -> None:
        if READS.match(text) and "stripe_standin" not in text:
            first: Sequence[Any] = arguments[0] if is_many else arguments
            name = " ".join(text.split())[:100]
            found.note(loop_of.get(), Asked(name, text, tuple(first or ()), by_driver=False))

    with monkeypatch.context() as patched:
        for name in ("commit", "query"):
            patched.setattr(Database, name, _noting(getattr(Database, name), noted))
        event.listen(Engine, "before_cursor_execute", execute)
        try:
            yield found
        finally:
            event.remove(Engine, "before_cursor_execute", execute)


def _noting(way: Callable[..., Any], noted: Callable[..., Transaction[Any]]) -> Callable[..., Any]:
    # Who asks is known here: statements go to SQLite in a thread.
    return lambda self, work, **options: way(self, noted(self, work, loop_of.get()), **options)


async def cost(world: World, one: Asked, *, is_prepared: bool) -> int:
    """Return about how many rows of tables and indexes answering it takes, and leave everything as it was.

    With ``is_prepared`` by the plan that PostgreSQL keeps after a while.
    """
    return _cost_sqlite(world, one) if world.database.is_sqlite else await _cost_postgresql(world, one, is_prepared)


def _cost_sqlite(world: World, one: Asked) -> int:
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    connection = sqlite3.connect(world.database.url.database or "", isolation_level=None)
    try:
        connection.execute("PRAGMA foreign_keys=ON")
        # The schema is read once, whatever is asked.
        connection.execute("SELECT 1 FROM alembic_version").fetchall()
        connection.execute("BEGIN IMMEDIATE")
        connection.set_progress_handler(step, OPCODES)
        try:
            connection.execute(one.text, to_sqlite(one.arguments)).fetchall()
        except sqlite3.IntegrityError:
            # It has been done already.
            return 0
        finally:
            connection.execute("ROLLBACK")
    finally:
        connection.close()
    return steps


async def _cost_postgresql(world: World, one: Asked, is_prepared: bool) -> int:
    connection = await asyncpg.connect(world.database_url)
    try:
        text, arguments = one.text, one.arguments
        if is_prepared:
            text, arguments = await kept_plan(connection, text, arguments, is_forced=one.by_driver), ()
        transaction = connection.transaction()
        await transaction.start()
        try:
            [[plan]] = await connection.fetch(f"EXPLAIN (ANALYZE, FORMAT JSON) {text}", *arguments)
        except asyncpg.IntegrityConstraintViolationError:
            return 0
        finally:
            await transaction.rollback()
    finally:
        await connection.close()
    return rows_of(json.loads(plan)[0]["Plan"], knows_tables=True)
