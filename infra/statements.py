"""SQL in files of its own, for what happens often: read once, prepared once, its rows typed.

One file serves both kinds of database. A line that ends in ``-- sqlite`` or ``-- postgresql`` is for that kind alone: SQLite
knows no arrays and no row locks. Parameters are named (``:name``); a list is an array to PostgreSQL (``ANY (:ids)``), and JSON to
SQLite (``json_each(:ids)``). What a file locks, and why it is as it is, stands in its header.

What a transaction does is a generator: it yields a ``Call`` and is sent the rows. It does no I/O itself, so that it can be driven
in SQLite's thread from begin to commit, by PostgreSQL's driver, or inside a session, whoever brings the connection:

    def rename(account_id: str, name: str) -> Transaction[bool]:
        return bool((yield from RENAME(account_id=account_id, name=name)))
"""

import re
from collections.abc import Awaitable, Callable, Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from infra.loops import note_failure
from infra.metrics import SQL_STATEMENTS

ONLY_FOR = re.compile(r"\s*-- (sqlite|postgresql)$")
PARAMETER = re.compile(r"(?<!:):([a-z_]+)")
"""But not PostgreSQL's ``::type``."""

T = TypeVar("T")


Row = TypeVar("Row")


@dataclass(frozen=True)
class Nothing:
    """The row of a statement that returns none."""


@dataclass(frozen=True, slots=True)
class Call:
    """A statement to be executed once with each of ``arguments``, in order; the answer is all their rows together."""

    statement: "Statement[Any]"
    arguments: Sequence[Sequence[Any]]
    """Each in the order of the statement's parameters."""


Rows = Sequence[Sequence[Any]]
Transaction = Generator[Call, Rows, T]
"""What is done in one transaction, and what comes of it."""


@dataclass(frozen=True)
class Written:
    """A statement without a file, for what is asked of several tables in the same words."""

    name: str
    text: str


class Statement(Generic[Row]):
    """The statement of one file."""

    def __init__(
        self, source: Path | Written, row: type[Row], *, json: Collection[str] = (), leaves_out: str | None = None
    ) -> None:
        """``row``: a dataclass or a ``msgspec.Struct``; its fields are the columns, in order. ``json``: those that come as JSON.

        ``leaves_out``: what operators call a row that makes no sense; it is counted, and left out. Else it fails all of them: right
        where something is decided by the rows, wrong where each is somebody else's.
        """
        written = source if isinstance(source, Written) else Written(source.stem, source.read_text())
        lines = written.text.splitlines()
        self.name = written.name
        self.parameters = tuple(dict.fromkeys(PARAMETER.findall(_without_comments(lines))))
        self.sqlite = self._text(lines, "sqlite", mark="?")
        self.postgresql = self._text(lines, "postgresql", mark="$")
        self._executed = SQL_STATEMENTS.labels(self.name)
        self._row = row
        self._columns = _fields(row)
        self._json = json
        self._leaves_out = leaves_out

    def __repr__(self) -> str:
        return f"<{self.name}.sql>"

    def __call__(self, **arguments: Any) -> Transaction[list[Row]]:
        """Execute it once; return its rows."""
        return self.each([arguments])

    def each(self, arguments: Iterable[Mapping[str, Any]]) -> Transaction[list[Row]]:
        """Execute it with each of ``arguments``, by the names of parameters; return all their rows. For none, do nothing."""
        many: list[list[Any]] = []
        for one in arguments:
            assert one.keys() == set(self.parameters), f"{self!r} takes {self.parameters}"
            many.append([one[name] for name in self.parameters])
        if not many:
            return []
        self._executed.inc()
        found = yield Call(self, many)
        if self._leaves_out is None:
            return [self._typed(columns) for columns in found]
        rows: list[Row] = []
        for columns in found:
            try:
                rows.append(self._typed(columns))
            except msgspec.ValidationError as error:
                note_failure(self._leaves_out, error, statement=self.name, row=columns[0])
        return rows

    def _typed(self, columns: Sequence[Any]) -> Row:
        row = dict(zip(self._columns, columns, strict=True))
        for name in self._json:
            # SQLAlchemy's connections have decoded it already.
            if isinstance(row[name], str):
                row[name] = msgspec.json.decode(row[name])
        # Not strict: to SQLite, true is 1.
        return msgspec.convert(row, self._row, strict=False)

    def _text(self, lines: Iterable[str], kind: str, *, mark: str) -> str:
        theirs = [line for line in lines if (only := ONLY_FOR.search(line)) is None or only[1] == kind]
        return PARAMETER.sub(lambda name: f"{mark}{self.parameters.index(name[1]) + 1}", _without_comments(theirs))


def _fields(row: type) -> tuple[str, ...]:
    shape = msgspec.inspect.type_info(row)
    assert isinstance(shape, msgspec.inspect.StructType | msgspec.inspect.DataclassType)
    return tuple(field.encode_name for field in shape.fields)


def _without_comments(lines: Iterable[str]) -> str:
    return "\n".join(line.partition("--")[0].rstrip() for line in lines if not line.startswith("--"))


def drive(work: Transaction[T], execute: Callable[[Call], Rows]) -> T:
    """Run a transaction's steps one after the other; what ``execute`` raises ends it."""
    try:
        call = next(work)
        while True:
            call = work.send(execute(call))
    except StopIteration as end:
        answer: T = end.value
        return answer
    finally:
        work.close()


async def drive_awaiting(work: Transaction[T], execute: Callable[[Call], Awaitable[Rows]]) -> T:
    """As ``drive``, where executing is awaited."""
    try:
        call = next(work)
        while True:
            call = work.send(await execute(call))
    except StopIteration as end:
        answer: T = end.value
        return answer
    finally:
        work.close()
