"""The embedded database as one file, made while it is in use; and back again.

A backup is a whole SQLite database with one table more, ``pitlane_backup``, which says when it was made and keeps the signing key
that was generated beside the database: with another one everybody would be signed out. So it is as secret as the data directory.
What Redis knows is not in it: presence comes back with the next heartbeats, deadlines are read from SQL.
"""

import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from infra.private_files import FILE_MODE, alone
from models.errors import ConfigurationError

BUSY_TIMEOUT_S = 30.0
_MARK = """
CREATE TABLE pitlane_backup (made_at_ms INTEGER NOT NULL, secret_key TEXT)
"""


@dataclass(frozen=True)
class Backup:
    """What a backup says of itself. ``secret_key`` is ``None`` where the key was a setting."""

    made_at_ms: int
    secret_key: str | None
    schema: int


@dataclass(frozen=True)
class Installation:
    """What a backup is of, or is to become again. ``key_path`` is ``None`` where the signing key is a setting."""

    database: Path
    key_path: Path | None


def back_up(of: Installation, target: Path, *, now_ms: int, is_forced: bool) -> None:
    """Write the database as it is now to ``target``, whole or not at all; it may be written to meanwhile.

    Raises ``ConfigurationError`` where there is no database, the copy is not sound, or ``target`` is something that a backup of now
    should not replace: no backup at all, or a newer one; ``is_forced`` replaces those, too.
    """
    if not of.database.exists():
        raise ConfigurationError(f"There is no database at {of.database} to back up.")
    if target.exists() and (target.is_dir() or target.samefile(of.database)):
        raise ConfigurationError(f"{target} is not where a backup could be.")
    if target.exists() and not is_forced:
        there = read_backup(target)
        if there is None:
            raise ConfigurationError(f"{target} is there already and is no backup; --force overwrites it.")
        if there.made_at_ms > now_ms:
            raise ConfigurationError(f"{target} is there already and is newer; --force overwrites it.")
    key = of.key_path.read_text().strip() if of.key_path is not None and of.key_path.exists() else None
    with _aside(target) as aside, _connected(of.database, "rw") as source, _connected(aside, "rw") as copy:
        # In one step, which reads one snapshot: in several it would begin anew with each write of others.
        source.backup(copy)
        # The copy is one file, and nothing beside it.
        copy.execute("PRAGMA journal_mode=DELETE")
        copy.execute("DROP TABLE IF EXISTS pitlane_backup")
        copy.execute(_MARK)
        copy.execute("INSERT INTO pitlane_backup VALUES (?, ?)", (now_ms, key))
        copy.commit()
        _check_sound(copy, of.database)


def restore(source: Path, to: Installation, *, newest_schema: int, is_forced: bool) -> Backup:
    """Put the backup in ``source`` in the database's place, whole or not at all, and return what it says of itself.

    Raises ``ConfigurationError`` if it is no backup, is damaged, is of a later version than ``newest_schema``, while anybody uses
    the database, and where the database has been written to since the backup was made, unless ``is_forced``.
    """
    backup = read_backup(source)
    if backup is None:
        raise ConfigurationError(f"{source} is no backup that run.py backup has made.")
    if backup.schema > newest_schema:
        raise ConfigurationError(f"{source} is of a newer version of Pitlane; bring this one up to date first.")
    with alone(to.database):
        if not is_forced and _written_at_ms(to.database) > backup.made_at_ms:
            raise ConfigurationError(
                f"{to.database} has been written to since {source} was made; --force overwrites what is newer."
            )
        with _aside(to.database) as aside:
            with _connected(source, "ro") as kept, _connected(aside, "rw") as copy:
                kept.backup(copy)
                copy.execute("PRAGMA secure_delete=ON")
                copy.execute("DROP TABLE pitlane_backup")
                copy.commit()
                _check_sound(copy, source)
            # What was written to the old one and not yet into its main file must not get into the new one.
            for suffix in ("-wal", "-shm", "-journal"):
                to.database.with_name(to.database.name + suffix).unlink(missing_ok=True)
        if backup.secret_key is not None and to.key_path is not None:
            with _aside(to.key_path) as aside:
                aside.write_text(backup.secret_key)
    return backup


def read_backup(path: Path) -> Backup | None:
    """Return what the backup at ``path`` says of itself, ``None`` if it is none. Raises ``ConfigurationError`` where nothing is."""
    if not path.is_file():
        raise ConfigurationError(f"There is no file {path}.")
    try:
        with _connected(path, "ro") as connection:
            made_at_ms, key = connection.execute("SELECT made_at_ms, secret_key FROM pitlane_backup").fetchone()
            [schema] = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except (sqlite3.DatabaseError, TypeError):
        # Some other file, or a database without these tables, or with nothing in them.
        return None
    return Backup(made_at_ms, key, int(schema))


def _written_at_ms(database: Path) -> int:
    """Return when the database was last written to, 0 where there is none."""
    written = [database, database.with_name(f"{database.name}-wal")]
    return max((path.stat().st_mtime_ns // 1_000_000 for path in written if path.exists()), default=0)


def _check_sound(connection: sqlite3.Connection, of: Path) -> None:
    [(found,), *_] = connection.execute("PRAGMA integrity_check(1)").fetchall()
    if found != "ok":
        raise ConfigurationError(f"{of} is damaged, and nothing was replaced: {found}.")


@contextmanager
def _connected(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    address = f"file:{quote(str(path.resolve()))}?mode={mode}"
    with closing(sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT_S)) as connection:
        yield connection


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """Yield an empty private file beside ``path``, which takes its place, safely on the disk, if the block succeeds."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE))
        yield aside
        _to_disk(aside)
        aside.replace(path)
        _to_disk(path.parent)
    except sqlite3.Error as error:
        raise ConfigurationError(f"{path} could not be written, and is as it was: {error}.") from error
    except OSError as error:
        raise ConfigurationError(f"{path} could not be written, and is as it was: {error.strerror}.") from error
    finally:
        aside.unlink(missing_ok=True)
        aside.with_name(f"{aside.name}-journal").unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
