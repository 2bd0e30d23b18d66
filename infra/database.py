"""Reading and writing SQL: SQLite (WAL) or PostgreSQL behind the same few lines.

What happens often is made of statements in files and goes straight to the driver (``commit``, ``query``); everything else uses
SQLAlchemy's sessions (``write``, ``read``). What is true of the one is true of the other.

A write on SQLite is ``BEGIN IMMEDIATE``, and one at a time in this process: writers wait for each other here, in order, instead
of failing half-way with SQLITE_BUSY when a reading transaction wants to become a writing one.
"""

import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import NoReturn, TypeVar

import anyio
import anyio.to_thread
import asyncpg
from sqlalchemy import Connection, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

from infra.drivers import PostgresDriver, SqliteDriver, to_sqlite
from infra.statements import Call, Rows, Transaction, drive_awaiting
from models.errors import DatabaseUnavailable

T = TypeVar("T")

BUSY_TIMEOUT_MS = 10_000
POOL_SIZE = 10
POOL_TIMEOUT_S = 30
TRANSACTION_TIMEOUT_S = 10.0
"""For waiting one's turn, the statements and the commit together."""

_SQLITE_BROKEN = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
)
_POSTGRES_BROKEN = ("08", "25006", "25P03", "3D", "40", "53", "55P03", "57", "58")
"""SQLSTATEs, or classes of them, that are not a bug of ours: connection, read-only after a failover, idle for too long, no such
database, deadlock, resources, a lock that was not to be had, an operator, the system."""
POSTGRES_SETTINGS = {
    # Whoever waits for a lock gives up before the transaction's time is over, and leaves nobody waiting on the server for it.
    "lock_timeout": "3000",
    "statement_timeout": "10000",
    # A node that was cut off amid a transaction holds its locks no longer than this (the kernel would keep them for hours).
    "idle_in_transaction_session_timeout": "15000",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
"""Of each of our sessions (postgresql.org/docs, "Client Connection Defaults"); in ms, and s for the last three."""
_BROKEN = (
    DBAPIError,
    PoolTimeoutError,
    sqlite3.Error,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)
"""What reaches us when the database is away; what does not come through SQLAlchemy is not wrapped by it."""
PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=NORMAL",
    f"busy_timeout={BUSY_TIMEOUT_MS}",
    "foreign_keys=ON",
    # What is deleted is overwritten: somebody may have asked to be forgotten.
    "secure_delete=ON",
)
SWEEP_TIMEOUT_S = 3.0
REWRITTEN_LEN_MAX = 256 * 1024 * 1024
HAS_BEEN_REWRITTEN = 1
"""As the file's ``user_version``: since then nothing has been deleted in it without being overwritten."""
SWEPT = (
    *("accounts", "checkouts", "favorites", "outbox", "password_resets", "push_messages", "push_subscriptions"),
    *("sign_ins", "stripe_events", "timeline"),
)
"""Tables in which somebody's name, address or words may have been."""
_WRITE_NOTHING_NEW = {
    True: "UPDATE alembic_version SET version_num = version_num",
    # Not the row that another node has locked and cannot let go of: only that node is in trouble. Wanting to lock is refused where
    # nothing can be written, as well.
    False: "UPDATE alembic_version SET version_num = version_num WHERE version_num IN "
    "(SELECT version_num FROM alembic_version FOR UPDATE SKIP LOCKED)",
}
"""By whether it is SQLite."""


class Database:
    """The SQL database of one installation: short transactions, of statements (``commit``, ``query``) or in sessions."""

    def __init__(self, url: str) -> None:
        """``url`` is ``sqlite:///path`` or ``postgresql://…``; nothing is opened yet."""
        self.url = async_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            self.writer = _sqlite_engine(self.url, begin="BEGIN IMMEDIATE", pool_size=1)
            self.reader = _sqlite_engine(self.url, begin="BEGIN", pool_size=4)
            turn = anyio.Lock()
            self._turn: AbstractAsyncContextManager[None] = turn
            self._driver: SqliteDriver | PostgresDriver = SqliteDriver(
                self.url.database or "", pragmas=PRAGMAS, turn=turn
            )
        else:
            self.writer = create_async_engine(
                self.url,
                pool_size=POOL_SIZE,
                max_overflow=0,
                pool_timeout=POOL_TIMEOUT_S,
                pool_pre_ping=True,
                # They may be names and addresses, and end up in logs.
                hide_parameters=True,
                connect_args={"server_settings": POSTGRES_SETTINGS},
            )
            # The same pool; what is read in several queries belongs together, as it does in SQLite.
            self.reader = self.writer.execution_options(isolation_level="REPEATABLE READ")
            self._turn = nullcontext()
            arguments = dict(self.writer.dialect.create_connect_args(self.url)[1])
            self._driver = PostgresDriver(arguments | {"server_settings": POSTGRES_SETTINGS})
        self._writes = async_sessionmaker(self.writer, class_=AsyncSession, expire_on_commit=False)
        self._reads = async_sessionmaker(self.reader, class_=AsyncSession, expire_on_commit=False)

    @asynccontextmanager
    async def write(self, *, within_s: float = TRANSACTION_TIMEOUT_S) -> AsyncIterator[AsyncSession]:
        """One writing transaction: committed at the end of the block, rolled back if it raises.

        Raises ``DatabaseUnavailable`` when the connection is lost or ``within_s`` is over; the transaction then did not happen, or
        its commit's fate is unknown, so callers' work must be idempotent. Cancellation waits for the end of the block.
        """
        with _Bounded(within_s):
            async with self._turn, self._writes() as session, session.begin():
                yield session

    @asynccontextmanager
    async def read(self, *, within_s: float = TRANSACTION_TIMEOUT_S) -> AsyncIterator[AsyncSession]:
        """One reading transaction, bounded and shielded like a writing one."""
        with _Bounded(within_s):
            async with self._reads() as session:
                yield session

    async def commit(self, work: Transaction[T], *, within_s: float = TRANSACTION_TIMEOUT_S) -> T:
        """Run a writing transaction; return what has come of it. For the rest as ``write``."""
        with _Bounded(within_s):
            return await self._driver.commit(work)

    async def query(self, work: Transaction[T], *, within_s: float = TRANSACTION_TIMEOUT_S) -> T:
        """Run a reading transaction; return what has come of it. For the rest as ``read``."""
        with _Bounded(within_s):
            return await self._driver.query(work)

    async def sweep(self) -> None:
        """Leave nothing of what has been deleted or overwritten in the files of an embedded database: see ``docs/accounts.md``.

        All that we delete is overwritten with zeros right away, and what the log of writes still has of it goes here. What an
        earlier version has deleted may not be overwritten: the first sweep rewrites the file, unless it is larger than
        ``REWRITTEN_LEN_MAX``. That takes about a second for 200 MB, in which nobody writes.

        On PostgreSQL this only takes deleted rows out of reach of SQL. Raises ``DatabaseUnavailable``: it may be tried again.
        """
        if self.is_sqlite:
            async with self._turn:
                await anyio.to_thread.run_sync(self._sweep_sqlite)
            return
        with _translated():
            async with self.writer.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
                try:
                    # It waits for nobody, and takes as long as it takes.
                    await connection.exec_driver_sql("SET statement_timeout = 0")
                    await connection.exec_driver_sql(f"VACUUM (SKIP_LOCKED) {', '.join(SWEPT)}")
                finally:
                    with anyio.CancelScope(shield=True):
                        await connection.invalidate()

    def _sweep_sqlite(self) -> None:
        path = Path(self.url.database or "")
        connection = sqlite3.connect(path, isolation_level=None, timeout=SWEEP_TIMEOUT_S)
        try:
            [(swept,)] = connection.execute("PRAGMA user_version")
            if not swept and path.stat().st_size <= REWRITTEN_LEN_MAX:
                connection.execute("VACUUM")
                connection.execute(f"PRAGMA user_version = {HAS_BEEN_REWRITTEN}")
            [(is_busy, _, _)] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            raise DatabaseUnavailable(f"The database cannot be swept now: {error}") from error
        finally:
            connection.close()
        if is_busy:
            raise DatabaseUnavailable("The database cannot be swept now: somebody reads it.")

    async def ping(self) -> None:
        """Raise ``DatabaseUnavailable`` unless the database answers."""
        async with self.read() as session:
            connection = await session.connection()
            await connection.execute(text("SELECT 1"))

    async def prove_writable(self, *, within_s: float = TRANSACTION_TIMEOUT_S) -> None:
        """Raise ``DatabaseUnavailable`` unless something can be written and committed: a row that stays as it is."""
        async with self.write(within_s=within_s) as session:
            connection = await session.connection()
            await connection.execute(text(_WRITE_NOTHING_NEW[self.is_sqlite]))

    async def close(self) -> None:
        """Close all connections; idempotent. Cancellation waits for it, for as long as a transaction may take."""
        with anyio.move_on_after(TRANSACTION_TIMEOUT_S, shield=True):
            await self._driver.close()
            await self.writer.dispose()
            if self.is_sqlite:
                await self.reader.dispose()


async def within(session: AsyncSession, work: Transaction[T]) -> T:
    """Run what a transaction does as a part of the session's, on its connection."""
    await session.flush()
    connection = await session.connection()
    is_sqlite = connection.dialect.name == "sqlite"

    async def execute(call: Call) -> Rows:
        text = call.statement.sqlite if is_sqlite else call.statement.postgresql
        found: list[Sequence[object]] = []
        for one in call.arguments:
            answer = await connection.exec_driver_sql(text, tuple(to_sqlite(one) if is_sqlite else one))
            found += answer.fetchall() if answer.returns_rows else ()
        return found

    return await drive_awaiting(work, execute)


def async_url(url: str) -> URL:
    """Return ``url`` with the asyncio driver for its kind of database."""
    parsed = make_url(url)
    driver = "sqlite+aiosqlite" if parsed.get_backend_name() == "sqlite" else "postgresql+asyncpg"
    return parsed.set(drivername=driver)


class _Bounded:
    """Bounds a transaction in time, lets it finish when its task is cancelled, and says so when the database is away.

    A transaction that is cancelled half-way costs its connection, and the drivers clean up after it in tasks of their own; short
    ones are finished sooner than that.
    """

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._scope = anyio.CancelScope(deadline=anyio.current_time() + within_s, shield=True)

    def __enter__(self) -> None:
        self._scope.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._scope.__exit__(kind, error, traceback)
        if self._scope.cancelled_caught:
            raise DatabaseUnavailable(f"The database does not answer: not within {self._within_s:g} s.") from error
        if isinstance(error, _BROKEN):
            _raise_translated(error)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        _raise_translated(error)


def _raise_translated(error: Exception) -> NoReturn:
    """Raise what a caller should see: a lost or locked database is the world's fault; everything else is ours."""
    origin = error.orig if isinstance(error, DBAPIError) else error
    sqlite_code = getattr(origin, "sqlite_errorcode", None)
    sqlstate = getattr(origin, "sqlstate", None)
    is_broken = (
        isinstance(error, PoolTimeoutError | OSError | asyncpg.InterfaceError | asyncpg.InternalClientError)
        or (isinstance(error, DBAPIError) and error.connection_invalidated)
        or (sqlite_code is not None and sqlite_code & 0xFF in _SQLITE_BROKEN)
        or (sqlstate is not None and sqlstate.startswith(_POSTGRES_BROKEN))
    )
    if is_broken:
        raise DatabaseUnavailable(f"The database does not answer: {origin}") from error
    raise error


def _sqlite_engine(url: URL, *, begin: str, pool_size: int) -> AsyncEngine:
    engine = create_async_engine(
        url, pool_size=pool_size, max_overflow=0, pool_timeout=POOL_TIMEOUT_S, hide_parameters=True
    )

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: DBAPIConnection, _record: object) -> None:
        # The driver's own transaction handling begins too late and never IMMEDIATE; it is turned off in favour of ours.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin_transaction(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
