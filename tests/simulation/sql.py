"""SQL for many nodes on one virtual clock: real SQLite files and our real schema, behind a driver without threads.

Every statement and every commit is a step of its node, so others may act before and after each, and the node may die there.
The server comes in two kinds, because what may happen between two statements differs:

- ``sqlite``: as in production, a writing transaction holds the database from its first moment (BEGIN IMMEDIATE).
- ``postgresql``: read committed. Until a transaction locks or writes for the first time, each of its statements sees what
  others have committed in between; from then on it holds the lock. There is one lock where PostgreSQL has one for each row, so
  deadlocks, and writers of different rows side by side, are left to the tests on a real PostgreSQL.

Reading transactions see one snapshot in both, as they do in production (WAL, REPEATABLE READ).
"""

import re
import sqlite3
import tempfile
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from sqlalchemy import event
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool
from sqlmodel.ext.asyncio.session import AsyncSession

from dispatch.stored import SQL
from infra.database import BUSY_TIMEOUT_MS, Database
from infra.drivers import to_sqlite
from infra.statements import Call, Nothing, Rows, Statement, Transaction, drive_awaiting
from tests.simulation.chance import Chance
from tests.simulation.life import Life, current_life
from tests.simulation.loop import VirtualLoop, run

if TYPE_CHECKING:
    from asyncio import Future

T = TypeVar("T")
Kind = Literal["sqlite", "postgresql"]
FOR_UPDATE = "/* for update */"
WATCHED = re.compile(r"\b(session_requests|offers|mechanics)\b")
WRITES = ("INSERT", "UPDATE", "DELETE")
LOCKING = frozenset(
    Statement(path, Nothing).sqlite for path in SQL.parent.rglob("*.sql") if "FOR NO KEY UPDATE" in path.read_text()
)
"""What takes rows on PostgreSQL, in the words that SQLite gets."""


class SqlServer:
    """One database and its lock. ``on_commit`` is called after each commit that could break a promise, before anything else."""

    def __init__(self, path: Path, kind: Kind) -> None:
        self.kind: Kind = kind
        self.on_commit: Callable[[], None] = lambda: None
        self.trouble = 0.0
        """How likely a statement or a commit fails; half of such commits have happened nevertheless."""
        self._path = path
        self._all: list[sqlite3.Connection] = []
        self._idle: list[sqlite3.Connection] = []
        self._holder: Connection | None = None
        self._waiting: deque[tuple[Connection, Future[None]]] = deque()

    def take(self) -> sqlite3.Connection:
        """Hand out a connection that nobody uses."""
        if self._idle:
            return self._idle.pop()
        raw = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode=WAL", "synchronous=OFF", "foreign_keys=ON"):
            raw.execute(f"PRAGMA {pragma}")
        self._all.append(raw)
        return raw

    def give_back(self, raw: sqlite3.Connection) -> None:
        """Take a connection back, rolling back what is open on it."""
        if raw.in_transaction:
            raw.execute("ROLLBACK")
        self._idle.append(raw)

    async def lock(self, connection: "Connection", life: Life) -> None:
        """Return once ``connection`` alone may write; in order of arrival. Raises SQLITE_BUSY after the busy time-out."""
        if self._holder is None:
            self._holder = connection
            return
        turn = life.loop.create_future()
        self._waiting.append((connection, turn))
        timer = life.loop.call_later(
            BUSY_TIMEOUT_MS / 1000, lambda: turn.done() or turn.set_exception(broken(sqlite3.SQLITE_BUSY))
        )
        try:
            await life.until(turn)
        finally:
            timer.cancel()

    def unlock(self, connection: "Connection") -> None:
        """Let the next one write; idempotent."""
        if self._holder is connection:
            self._holder = None
            while self._waiting and self._holder is None:
                heir, turn = self._waiting.popleft()
                if not turn.done():
                    self._holder = heir
                    turn.set_result(None)

    def close(self) -> None:
        """Close all connections."""
        for raw in self._all:
            raw.close()


def broken(code: int) -> sqlite3.OperationalError:
    """Return the error of a database that is away or busy."""
    error = sqlite3.OperationalError("the database is away")
    error.sqlite_errorcode = code
    return error


class Connection:
    """A node's connection, as SQLAlchemy's asynchronous adapter for SQLite wants it."""

    def __init__(self, server: SqlServer, life: Life) -> None:
        self._server = server
        self._life = life
        self._raw: sqlite3.Connection | None = server.take()
        self._is_read_committed = False
        self._is_news = False
        life.on_death(self.stop)

    @property
    def _connection(self) -> sqlite3.Connection | None:
        """What the adapter asks to know whether this is open."""
        return self._raw

    def cursor(self) -> "Cursor":
        return Cursor(self)

    async def create_function(self, *_arguments: Any, **_options: Any) -> None:
        """Functions in SQL are not needed by us."""

    async def run(self, statement: str, run: Callable[[sqlite3.Connection], sqlite3.Cursor]) -> sqlite3.Cursor:
        """Run one statement as this node's next step."""
        if statement == "BEGIN IMMEDIATE" and self._server.kind == "postgresql":
            self._is_read_committed = True
            return self._open().cursor()
        if statement.startswith("BEGIN"):
            if statement == "BEGIN IMMEDIATE":
                await self._life.step("sql begin")
                await self._server.lock(self, self._life)
            return self._open().execute(statement)
        self._is_news |= statement.startswith(WRITES) and WATCHED.search(statement) is not None
        await self._life.step(f"sql {statement.split(None, 1)[0].lower()}")
        if self._life.chance(self._server.trouble):
            raise broken(sqlite3.SQLITE_IOERR)
        if self._is_read_committed and (
            statement.startswith(WRITES) or FOR_UPDATE in statement or statement in LOCKING
        ):
            await self._server.lock(self, self._life)
            self._is_read_committed = False
            self._open().execute("BEGIN IMMEDIATE")
        return run(self._open())

    async def commit(self) -> None:
        raw = self._open()
        if raw.in_transaction:
            writes = self._server._holder is self
            if writes:
                await self._life.step("sql commit")
            is_trouble = self._life.chance(self._server.trouble) and writes
            if is_trouble and self._life.chance(0.5):
                raise broken(sqlite3.SQLITE_IOERR)
            self._open().execute("COMMIT")
            self._server.unlock(self)
            if writes:
                if self._is_news:
                    self._server.on_commit()
                self._is_news = False
                await self._life.step("sql committed")
            if is_trouble:
                # It has happened, but nobody will hear of it.
                raise broken(sqlite3.SQLITE_IOERR)
        self._is_read_committed = False

    async def rollback(self) -> None:
        if self._raw is not None and self._raw.in_transaction:
            self._raw.execute("ROLLBACK")
        self._is_read_committed = False
        self._server.unlock(self)

    async def close(self) -> None:
        self.stop()

    def stop(self) -> None:
        """Let go of everything, at once; idempotent. Also what the server sees of a node that was killed."""
        if self._raw is not None:
            raw, self._raw = self._raw, None
            self._server.give_back(raw)
            self._server.unlock(self)
            self._life.no_longer_on_death(self.stop)

    def _open(self) -> sqlite3.Connection:
        if self._raw is None:
            raise broken(sqlite3.SQLITE_IOERR)
        return self._raw


def new_connection() -> Connection:
    """Return a connection of the current node's."""
    life = current_life.get()
    assert isinstance(life.sql, SqlServer)
    return Connection(life.sql, life)


class Cursor:
    """A cursor of the same; everything is fetched when it is executed."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._found: sqlite3.Cursor | None = None
        self._rows: list[Any] = []
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: Any = None
        self.arraysize = 1

    async def __aenter__(self) -> "Cursor":
        return self

    async def execute(self, statement: str, parameters: Any = ()) -> "Cursor":
        return self._take(await self._connection.run(statement, lambda raw: raw.execute(statement, parameters)))

    async def executemany(self, statement: str, rows: Any) -> "Cursor":
        return self._take(await self._connection.run(statement, lambda raw: raw.executemany(statement, rows)))

    async def fetchall(self) -> list[Any]:
        return self._rows

    async def close(self) -> None:
        self._rows = []

    def _take(self, found: sqlite3.Cursor) -> "Cursor":
        self.description, self._rows = found.description, found.fetchall()
        self.rowcount, self.lastrowid = found.rowcount, found.lastrowid
        found.close()
        return self


class SimulatedDriver:
    """What runs transactions made of statements: each statement, and the commit, a step of its own."""

    async def commit(self, work: Transaction[T]) -> T:
        """Run a writing transaction."""
        return await self._run("BEGIN IMMEDIATE", work)

    async def query(self, work: Transaction[T]) -> T:
        """Run a reading transaction."""
        return await self._run("BEGIN", work)

    async def close(self) -> None:
        """There is nothing to close: each transaction has a connection of its own."""

    async def _run(self, begin: str, work: Transaction[T]) -> T:
        connection = new_connection()

        async def execute(call: Call) -> Rows:
            text, found = call.statement.sqlite, []
            for one in call.arguments:
                values = to_sqlite(one)
                found += (await connection.run(text, lambda raw, values=values: raw.execute(text, values))).fetchall()
            return found

        try:
            await connection.run(begin, lambda raw: raw.execute(begin))
            answer = await drive_awaiting(work, execute)
            await connection.commit()
        except BaseException:
            await connection.rollback()
            raise
        finally:
            connection.stop()
        return answer


class SimulatedDatabase(Database):
    """The real ``Database`` over the driver above; the current node's server is asked, whoever's engine it is."""

    def __init__(self) -> None:
        self.is_sqlite = True
        self.writer = engine().execution_options(begin="BEGIN IMMEDIATE")
        self.reader = engine().execution_options(begin="BEGIN")
        self._writes = async_sessionmaker(self.writer, class_=AsyncSession, expire_on_commit=False)
        self._reads = async_sessionmaker(self.reader, class_=AsyncSession, expire_on_commit=False)
        self._turn = nullcontext()

        self._driver = SimulatedDriver()


class _Compiler(SQLiteCompiler):
    def for_update_clause(self, _select: Any, **_options: Any) -> str:
        """SQLite knows no row locks; the driver must."""
        return f" {FOR_UPDATE}"


@cache
def engine() -> AsyncEngine:
    """Return the one engine of all nodes of all worlds, so that each statement is compiled once for thousands of runs."""

    async def connect() -> Connection:
        return new_connection()

    made = create_async_engine("sqlite+aiosqlite:///simulated", poolclass=NullPool, async_creator=connect)
    made.sync_engine.dialect.statement_compiler = _Compiler

    @event.listens_for(made.sync_engine, "begin")
    def begin_transaction(connection: Any) -> None:
        connection.exec_driver_sql(connection.get_execution_options()["begin"])

    return made


@cache
def warm_up() -> None:
    """Let SQLAlchemy ask its first questions outside of any world, so that all worlds begin alike."""
    loop = VirtualLoop()
    life = Life("nobody", loop, Chance(0), lambda _who, _what: None)
    with tempfile.TemporaryDirectory() as folder:
        server = life.sql = SqlServer(Path(folder) / "nothing.sqlite3", "sqlite")
        token = current_life.set(life)
        try:
            run(_first_connection(), loop)
        finally:
            current_life.reset(token)
            server.close()


async def _first_connection() -> None:
    async with engine().execution_options(begin="BEGIN").connect():
        pass
