"""A backup is one whole moment of the embedded database, made while others write; and it comes back as it was."""

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from infra.backups import Installation, back_up, read_backup, restore
from infra.private_files import DatabaseInUse, in_use
from models.errors import ConfigurationError

NOW_MS = 4_000_000_000_000
"""Later than any file of a test is written."""
SCHEMA = 15

# Moves money between two accounts, over and over, as another process; each transaction leaves the sum as it was.
WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
for number in range(10**9):
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE accounts SET cents = cents - 1, filler = randomblob(2000) WHERE id = ?", (number % 50,))
    connection.execute("UPDATE accounts SET cents = cents + 1 WHERE id = ?", ((number * 7 + 1) % 50,))
    connection.execute("COMMIT")
    if number == 20:
        print("writing", flush=True)
"""


@pytest.fixture
def here(tmp_path: Path) -> Installation:
    """An installation with a database in it and a key of its own."""
    folder = tmp_path / "var"
    folder.mkdir()
    here = Installation(folder / "pitlane.sqlite3", folder / "secret_key")
    with closing(sqlite3.connect(here.database)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('0015')")
        connection.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, cents INTEGER, filler BLOB)")
        connection.executemany("INSERT INTO accounts VALUES (?, 100, NULL)", [(number,) for number in range(50)])
        connection.commit()
    here.key_path.write_text("the key of here")
    return here


@pytest.fixture
def writer(here: Installation) -> Iterator[None]:
    """Another process that never stops writing."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, here.database], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"writing\n"
    yield
    assert process.poll() is None, "it has written all the time"
    process.kill()
    process.wait()
    process.stdout.close()


def cents_in(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return connection.execute("SELECT sum(cents) FROM accounts").fetchone()[0]


def elsewhere(tmp_path: Path) -> Installation:
    return Installation(tmp_path / "other" / "pitlane.sqlite3", tmp_path / "other" / "secret_key")


@pytest.mark.usefixtures("writer")
def test_a_backup_amid_writes_is_one_moment_and_one_private_file(here: Installation, tmp_path: Path) -> None:
    target = tmp_path / "backups" / "one.backup"
    for _ in range(3):
        back_up(here, target, now_ms=NOW_MS, is_forced=False)
        assert cents_in(target) == 5_000
    assert [path.name for path in target.parent.iterdir()] == ["one.backup"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    there = elsewhere(tmp_path)
    assert restore(target, there, newest_schema=SCHEMA, is_forced=False).made_at_ms == NOW_MS
    assert cents_in(there.database) == 5_000
    assert there.key_path is not None
    assert there.key_path.read_text() == "the key of here"
    assert {stat.S_IMODE(path.stat().st_mode) for path in (there.database, there.key_path)} == {0o600}
    with closing(sqlite3.connect(there.database)) as connection:
        assert connection.execute("SELECT * FROM sqlite_master WHERE name = 'pitlane_backup'").fetchall() == []
    assert b"the key of here" not in there.database.read_bytes(), "the key is no longer in the database"


def test_what_is_newer_is_overwritten_by_force_alone_and_then_with_all_beside_it(
    here: Installation, tmp_path: Path
) -> None:
    target = tmp_path / "one.backup"
    back_up(here, target, now_ms=1_000, is_forced=False)
    with closing(sqlite3.connect(here.database)) as connection:
        connection.execute("UPDATE accounts SET cents = 0")
        connection.commit()
        # As after a crash: what was written last is beside the main file still.
        wal = here.database.with_name("pitlane.sqlite3-wal").read_bytes()
    here.database.with_name("pitlane.sqlite3-wal").write_bytes(wal)
    with pytest.raises(ConfigurationError, match="--force"):
        restore(target, here, newest_schema=SCHEMA, is_forced=False)
    assert cents_in(here.database) == 0
    here.database.with_name("pitlane.sqlite3-wal").write_bytes(wal)
    restore(target, here, newest_schema=SCHEMA, is_forced=True)
    assert cents_in(here.database) == 5_000


def test_a_damaged_database_can_be_replaced(here: Installation, tmp_path: Path) -> None:
    target = tmp_path / "one.backup"
    back_up(here, target, now_ms=NOW_MS, is_forced=False)
    here.database.write_bytes(b"scrambled" * 1000)
    restore(target, here, newest_schema=SCHEMA, is_forced=False)
    assert cents_in(here.database) == 5_000


def test_nothing_is_restored_while_somebody_uses_the_database(here: Installation, tmp_path: Path) -> None:
    target = tmp_path / "one.backup"
    with in_use(here.database):
        back_up(here, target, now_ms=NOW_MS, is_forced=False)
        with pytest.raises(DatabaseInUse, match="stop the server"):
            restore(target, here, newest_schema=SCHEMA, is_forced=True)


def test_a_backup_replaces_an_older_one_and_nothing_else(here: Installation, tmp_path: Path) -> None:
    target, other = tmp_path / "one.backup", tmp_path / "diary.txt"
    back_up(here, target, now_ms=2_000, is_forced=False)
    back_up(here, target, now_ms=3_000, is_forced=False)
    found = read_backup(target)
    assert found is not None
    assert (found.made_at_ms, found.schema) == (3_000, SCHEMA)
    with pytest.raises(ConfigurationError, match=r"newer.*--force"):
        back_up(here, target, now_ms=2_500, is_forced=False)
    other.write_text("dear diary")
    with pytest.raises(ConfigurationError, match=r"no backup.*--force"):
        back_up(here, other, now_ms=NOW_MS, is_forced=False)
    for wrong in (tmp_path, here.database):
        with pytest.raises(ConfigurationError):
            back_up(here, wrong, now_ms=NOW_MS, is_forced=True)
    assert other.read_text() == "dear diary"
    back_up(here, other, now_ms=NOW_MS, is_forced=True)
    assert cents_in(other) == 5_000


def test_what_is_no_sound_backup_of_this_version_is_refused_and_leaves_all_as_it_was(
    here: Installation, tmp_path: Path
) -> None:
    target, there = tmp_path / "one.backup", elsewhere(tmp_path)
    back_up(here, target, now_ms=NOW_MS, is_forced=False)
    with pytest.raises(ConfigurationError, match="newer version"):
        restore(target, there, newest_schema=SCHEMA - 1, is_forced=True)
    for no_backup in (here.database, here.key_path):
        assert no_backup is not None
        with pytest.raises(ConfigurationError, match="no backup"):
            restore(no_backup, there, newest_schema=SCHEMA, is_forced=True)
    with pytest.raises(ConfigurationError, match="There is no file"):
        restore(tmp_path / "nothing", there, newest_schema=SCHEMA, is_forced=True)
    whole = target.read_bytes()
    # A page of the table is gone; what a backup says of itself can still be read.
    target.write_bytes(whole[: len(whole) - 4096 * 2] + os.urandom(4096) + whole[-4096:])
    before = here.database.read_bytes()
    with pytest.raises(ConfigurationError):
        restore(target, here, newest_schema=SCHEMA, is_forced=True)
    assert here.database.read_bytes() == before
    assert not there.database.exists()


def test_without_a_database_there_is_nothing_to_back_up(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no database"):
        back_up(elsewhere(tmp_path), tmp_path / "one.backup", now_ms=NOW_MS, is_forced=False)


def test_a_key_that_is_a_setting_is_not_in_the_backup(here: Installation, tmp_path: Path) -> None:
    target, there = tmp_path / "one.backup", elsewhere(tmp_path)
    back_up(Installation(here.database, None), target, now_ms=NOW_MS, is_forced=False)
    restore(target, there, newest_schema=SCHEMA, is_forced=False)
    assert there.key_path is not None
    assert not there.key_path.exists()
