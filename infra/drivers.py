"""Transactions made of statements, run on the drivers themselves: on SQLite in a thread from begin to commit, on PostgreSQL on
the event loop.

Both raise what the driver raises; ``Database`` translates it.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

import anyio
import anyio.to_thread
import asyncpg
import msgspec

from infra.statements import Call, Rows, Transaction, drive, drive_awaiting

T = TypeVar("T")

SQLITE_READERS: Final = 4
POSTGRES_CONNECTIONS: Final = 10
CACHED_STATEMENTS: Final = 256


class SqliteDriver:
    """One writing connection and a few reading ones, opened when they are first needed. Each is used by one thread at a time."""

    def __init__(self, path: str, *, pragmas: Sequence[str], turn: anyio.Lock) -> None:
        """``turn``: who has it writes; it is shared with whoever writes in other ways."""
        self._path = path
        self._pragmas = pragmas
        self._turn = turn
        self._writer: sqlite3.Connection | None = None
        self._idle_readers: list[sqlite3.Connection] = []
        self._writing = anyio.CapacityLimiter(1)
        self._reading = anyio.CapacityLimiter(SQLITE_READERS)

    async def commit(self, work: Transaction[T]) -> T:
        """Run a writing transaction."""
        async with self._turn:
            return await anyio.to_thread.run_sync(partial(self._commit, work), limiter=self._writing)

    async def query(self, work: Transaction[T]) -> T:
        """Run a reading transaction, on one snapshot."""
        return await anyio.to_thread.run_sync(partial(self._query, work), limiter=self._reading)

    async def close(self) -> None:
        """Close what is open; idempotent. Nothing may be running."""
        connections = [*self._idle_readers, *([] if self._writer is None else [self._writer])]
        self._idle_readers, self._writer = [], None
        for connection in connections:
            await anyio.to_thread.run_sync(connection.close)

    def _commit(self, work: Transaction[T]) -> T:
        if self._writer is None:
            self._writer = self._connect()
        return _run(self._writer, "BEGIN IMMEDIATE", work)

    def _query(self, work: Transaction[T]) -> T:
        # No more are in use than the limiter lets in; one that fails is as good afterwards as before.
        connection = self._idle_readers.pop() if self._idle_readers else self._connect()
        try:
            return _run(connection, "BEGIN", work)
        finally:
            self._idle_readers.append(connection)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, cached_statements=CACHED_STATEMENTS
        )
        for pragma in self._pragmas:
            connection.execute(f"PRAGMA {pragma}")
        return connection


def _run(connection: sqlite3.Connection, begin: str, work: Transaction[T]) -> T:
    def execute(call: Call) -> Rows:
        text = call.statement.sqlite
        return [row for one in call.arguments for row in connection.execute(text, to_sqlite(one))]

    connection.execute(begin)
    try:
        answer = drive(work, execute)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return answer


def to_sqlite(arguments: Sequence[Any]) -> list[Any]:
    """Return a statement's arguments as SQLite takes them: lists as JSON."""
    return [msgspec.json.encode(one).decode() if isinstance(one, list) else one for one in arguments]


class _PooledConnection(asyncpg.Connection):  # type: ignore[misc]
    """A connection that leaves nothing behind which the next user would have to be protected from."""

    def get_reset_query(self) -> str:
        """Ask nothing: the pool would spend a round trip on every transaction, and ours end with COMMIT or ROLLBACK."""
        return ""


class PostgresDriver:
    """A pool of connections, each opened when it is first needed."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        """``arguments`` are for ``asyncpg.connect``."""
        self._arguments = arguments
        self._pool: asyncpg.Pool | None = None
        self._opening = anyio.Lock()

    async def commit(self, work: Transaction[T]) -> T:
        """Run a writing transaction, read committed."""
        return await self._run("BEGIN", work)

    async def query(self, work: Transaction[T]) -> T:
        """Run a reading transaction, on one snapshot."""
        return await self._run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", work)

    async def close(self) -> None:
        """Close the pool; idempotent. Nothing may be running."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await pool.close()

    async def _opened(self) -> asyncpg.Pool:
        async with self._opening:
            if self._pool is None:
                # None are kept ready, so that this connects nowhere: a server that is away fails transactions, and not the pool.
                self._pool = await asyncpg.create_pool(
                    **self._arguments,
                    min_size=0,
                    max_size=POSTGRES_CONNECTIONS,
                    connection_class=_PooledConnection,
                    init=_prepare,
                    statement_cache_size=CACHED_STATEMENTS,
                )
            return self._pool

    async def _run(self, begin: str, work: Transaction[T]) -> T:
        pool = self._pool or await self._opened()
        async with pool.acquire() as connection:
            try:
                await connection.execute(begin)
                answer = await drive_awaiting(work, partial(_execute, connection))
                await connection.execute("COMMIT")
            except BaseException as error:
                await _roll_back(connection, error)
                raise
        return answer


async def _prepare(connection: Any) -> None:
    # Everything is asked for by its key: whatever the values, the plan is the same, and is made once.
    await connection.execute("SET plan_cache_mode = force_generic_plan")


async def _execute(connection: Any, call: Call) -> Rows:
    text = call.statement.postgresql
    if len(call.arguments) == 1:
        found: Rows = await connection.fetch(text, *call.arguments[0])
    else:
        # All of them in one round trip.
        found = await connection.fetchmany(text, call.arguments)
    return found


async def _roll_back(connection: Any, error: BaseException) -> None:
    """Leave the connection as it was before, or close it."""
    try:
        if isinstance(error, Exception) and not connection.is_closed():
            await connection.execute("ROLLBACK")
            return
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
        # It is of no use any more; what matters is the error that it was to be rolled back for.
        pass
    # Cancelled amid an answer, perhaps: nobody knows what comes next on this connection.
    with suppress(asyncpg.InterfaceError):
        connection.terminate()
