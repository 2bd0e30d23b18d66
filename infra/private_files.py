"""The files of one installation are its owner's alone; and who may change the embedded database at the same time.

All that we make is private by the process' umask (``keep_private``). ``make_private`` is for what exists already: an earlier
version, or an operator's copy, may have left it open.
"""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.errors import ConfigurationError

PRIVATE_UMASK = 0o077
DIRECTORY_MODE, FILE_MODE = 0o700, 0o600
OURS = ("secret_key*", "pitlane.sqlite3*")
"""In the data directory; everything in ``REDIS`` besides."""
REDIS = "redis"


class DatabaseInUse(ConfigurationError):
    """A server or a command works on the embedded database, or it is just being restored."""


def keep_private() -> None:
    """Let nobody else read what this process and its children make from now on."""
    os.umask(PRIVATE_UMASK)


def make_private(data_dir: Path, database: Path | None) -> None:
    """Create the data directory, and make it and all in it that is ours its owner's alone. Idempotent.

    ``database``: the embedded one, wherever it lies, ``None`` where there is none. Raises ``ConfigurationError`` with a sentence
    where that cannot be, and for a directory that is everybody's.
    """
    try:
        data_dir.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        found = data_dir.stat()
        if found.st_mode & stat.S_ISVTX or data_dir.resolve() == Path(data_dir.resolve().anchor):
            raise ConfigurationError(
                f"PITLANE_DATA_DIR {data_dir} is for everybody on this machine; name a directory of Pitlane's own."
            )
        _restrict(data_dir)
        for path in _files(data_dir, database):
            _restrict(path)
    except PermissionError as error:
        raise ConfigurationError(
            f"PITLANE_DATA_DIR {data_dir} cannot be kept private: {error.filename or data_dir} belongs to somebody else; "
            "give it to the user that Pitlane runs as, or name another directory."
        ) from error
    except OSError as error:
        raise ConfigurationError(f"PITLANE_DATA_DIR {data_dir} cannot be used: {error.strerror}.") from error


@contextmanager
def in_use(database: Path | None) -> Iterator[None]:
    """Work on the embedded database inside the block, beside whoever else does, and never while it is being restored.

    Does nothing for ``None``. Raises ``DatabaseInUse``.
    """
    with _locked(database, fcntl.LOCK_SH, "is being restored; try again when that is done"):
        yield


@contextmanager
def alone(database: Path) -> Iterator[None]:
    """Have the embedded database to oneself inside the block. Raises ``DatabaseInUse``."""
    with _locked(database, fcntl.LOCK_EX, "is in use; stop the server first"):
        yield


@contextmanager
def _locked(database: Path | None, how: int, otherwise: str) -> Iterator[None]:
    if database is None:
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_name(f"{database.name}.in-use").open("ab") as lock:
        try:
            fcntl.flock(lock, how | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DatabaseInUse(f"The database {database} {otherwise}.") from error
        yield


def _files(data_dir: Path, database: Path | None) -> Iterator[Path]:
    for pattern in OURS:
        yield from data_dir.glob(pattern)
    if database is not None:
        yield from database.parent.glob(f"{database.name}*")
    redis = data_dir / REDIS
    if redis.is_dir():
        yield redis
        yield from redis.rglob("*")


def _restrict(path: Path) -> None:
    """Take everybody's rights but the owner's; links are left alone, what they lead to is not ours."""
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            return
        wanted = mode & (DIRECTORY_MODE if stat.S_ISDIR(mode) or stat.S_ISSOCK(mode) else FILE_MODE)
        if stat.S_ISDIR(mode):
            wanted |= DIRECTORY_MODE
        if stat.S_IMODE(mode) != wanted:
            path.chmod(stat.S_IMODE(wanted))
    except FileNotFoundError:
        # SQLite's and Redis' own files come and go while others work on them.
        return
