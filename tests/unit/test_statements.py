"""SQL in files: one text for each kind of database, arguments by name, rows with types."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dispatch.stored import SQL
from infra.drivers import to_sqlite
from infra.statements import Call, Nothing, Statement, Transaction, drive

FILE = """-- What it is for: by :nobody.
--
-- :ids, :since_ms
SELECT id, is_done, note::json   -- a remark
FROM things
WHERE id = ANY (:ids)                              -- postgresql
WHERE id IN (SELECT value FROM json_each(:ids))    -- sqlite
  AND at_ms > :since_ms AND until_ms > :since_ms
FOR NO KEY UPDATE -- postgresql
"""


@dataclass(frozen=True)
class Thing:
    id: str
    is_done: bool
    note: list[int]


@pytest.fixture
def things(tmp_path: Path) -> Statement[Thing]:
    path = tmp_path / "things.sql"
    path.write_text(FILE)
    return Statement(path, Thing, json=("note",))


def test_each_kind_of_database_gets_its_own_lines_and_marks(things: Statement[Thing]) -> None:
    assert things.parameters == ("ids", "since_ms")
    assert things.postgresql.split("\n") == [
        "SELECT id, is_done, note::json",
        "FROM things",
        "WHERE id = ANY ($1)",
        "  AND at_ms > $2 AND until_ms > $2",
        "FOR NO KEY UPDATE",
    ]
    assert things.sqlite.split("\n") == [
        "SELECT id, is_done, note::json",
        "FROM things",
        "WHERE id IN (SELECT value FROM json_each(?1))",
        "  AND at_ms > ?2 AND until_ms > ?2",
    ]


def test_arguments_go_by_their_names_and_rows_come_with_their_types(things: Statement[Thing]) -> None:
    asked: list[Call] = []

    def answer(call: Call) -> Sequence[Sequence[Any]]:
        asked.append(call)
        # As SQLite says it: true is 1, and what is nested is text.
        return [("a", 1, "[1,2]"), ("b", 0, "[]")]

    found = drive(things(since_ms=5, ids=["a", "b"]), answer)
    assert asked == [Call(things, [[["a", "b"], 5]])]
    assert found == [Thing("a", True, [1, 2]), Thing("b", False, [])]
    assert to_sqlite(asked[0].arguments[0]) == ['["a","b"]', 5]


def test_what_is_executed_for_nobody_is_not_executed(things: Statement[Thing]) -> None:
    def refuse(_: Call) -> Sequence[Sequence[Any]]:
        pytest.fail("nothing is to be executed")

    assert drive(things.each([]), refuse) == []


def test_a_name_too_few_or_too_many_and_a_column_too_many_are_errors(things: Statement[Thing]) -> None:
    with pytest.raises(AssertionError, match="since_ms"):
        drive(things(ids=[]), lambda _: [])
    with pytest.raises(AssertionError, match="since_ms"):
        drive(things(ids=[], since_ms=0, nonsense=1), lambda _: [])
    with pytest.raises(ValueError, match="zip"):
        drive(things(ids=[], since_ms=0), lambda _: [("a", 1, "[]", "more")])
    with pytest.raises(msgspec.ValidationError, match="is_done"):
        drive(things(ids=[], since_ms=0), lambda _: [("a", "perhaps", "[]")])


def test_what_the_database_raises_ends_the_transaction_where_it_stands(things: Statement[Thing]) -> None:
    seen: list[str] = []

    def work() -> Transaction[None]:
        try:
            yield from things(ids=[], since_ms=0)
            seen.append("went on")
        finally:
            seen.append("ended")

    def away(_: Call) -> Sequence[Sequence[Any]]:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        drive(work(), away)
    assert seen == ["ended"]


@pytest.mark.parametrize("path", sorted(SQL.glob("*.sql")), ids=lambda path: path.stem)
def test_the_header_names_each_parameter_and_no_other(path: Path) -> None:
    header = "\n".join(line for line in path.read_text().splitlines() if line.startswith("--"))
    named = {word.strip(",.;()") for word in header.split() if word.startswith(":")}
    assert named == {f":{name}" for name in Statement(path, Nothing).parameters}
