"""Real PostgreSQL and Redis servers for tests and benchmarks: plain context managers, thrown away at the end.

Each listens on loopback or on a unix socket only, is ready when handed over, and ends together with this process.
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bootstrap
from embedded.redis_child import RedisChild, ending_with_parent

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
POLL_INTERVAL_S = 0.02
CONNECTIONS_MAX = 200
START_ATTEMPTS = 3


class ServiceMissing(Exception):
    """The machine lacks the server's programs; the message is the reason to skip with, or to fail with in CI."""


def free_port() -> int:
    """Return a TCP port on loopback that nobody listens on now; somebody else may still be faster."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def redis_server(data_dir: Path | None = None) -> Iterator[RedisChild]:
    """Run a Redis server on ``data_dir`` (a temporary one when ``None``); its ``url`` is ``unix://…``.

    For tests of what heals: ``kill()`` ends it as a crash would, ``restart()`` brings it back on the same socket.
    """
    with (
        tempfile.TemporaryDirectory(prefix="pitlane-redis-") as scratch,
        RedisChild.start(data_dir or Path(scratch)) as child,
    ):
        yield child


class PostgresServer:
    """A throw-away PostgreSQL; ``base_url`` is ``postgresql://app@127.0.0.1:PORT``, for ``fresh_database``."""

    def __init__(self, programs: Path, folder: Path, user: pwd.struct_passwd | None, *, keeps_commits: bool) -> None:
        self._programs = programs
        self._folder = folder
        self._user = user
        self._settings = ("synchronous_commit=on",) if keeps_commits else ()
        self._process, self._port = _start(programs, folder, user, self._settings)
        self.base_url = f"postgresql://app@127.0.0.1:{self._port}"

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it and return once it is gone: SIGINT ends its clients' sessions in order, SIGQUIT is like a crash."""
        _stop(self._process, how)

    def restart(self) -> None:
        """Start it again on the same port and data, and return once it accepts connections."""
        self._process, _ = _start(self._programs, self._folder, self._user, self._settings, self._port)


@contextmanager
def restartable_postgres(*, keeps_commits: bool = True) -> Iterator[PostgresServer]:
    """Run a throw-away PostgreSQL; with ``keeps_commits`` what was committed outlives its crash.

    Raises ``ServiceMissing`` where PostgreSQL is not installed.
    """
    programs = bootstrap.find_postgres()
    if programs is None:
        raise ServiceMissing("PostgreSQL's server programs (initdb, postgres) are not on this machine")
    folder = Path(tempfile.mkdtemp(prefix="pitlane-postgres-"))
    try:
        user = _unprivileged_user()
        if user is not None:
            os.chown(folder, user.pw_uid, user.pw_gid)
        _initialise(Path(programs), folder, user)
        server = PostgresServer(Path(programs), folder, user, keeps_commits=keeps_commits)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


@contextmanager
def postgres_server() -> Iterator[str]:
    """Run a throw-away PostgreSQL and yield its base URL; raises ``ServiceMissing`` as ``restartable_postgres`` does."""
    with restartable_postgres(keeps_commits=False) as server:
        yield server.base_url


def fresh_database(base_url: str, template: str | None = None) -> str:
    """Create a database with a random name and return its URL; a copy of ``template`` (a URL or a name) if given.

    Nobody may be connected to the template meanwhile.
    """
    name = f"t_{secrets.token_hex(6)}"
    options = ["--template", template.rsplit("/", 1)[-1]] if template else []
    _client("createdb", base_url, [*options, name])
    return f"{base_url}/{name}"


def drop_database(url: str) -> None:
    """Remove a database that ``fresh_database`` made, whoever is still connected."""
    base_url, name = url.rsplit("/", 1)
    _client("dropdb", base_url, ["--force", name])


def _client(program: str, base_url: str, arguments: list[str]) -> None:
    programs = bootstrap.find_postgres()
    assert programs is not None
    port = base_url.rsplit(":", 1)[-1]
    to = ["--host", "127.0.0.1", "--port", port, "--username", "app", "--no-password"]
    _run([f"{programs}/{program}", *to, *arguments])


def _unprivileged_user() -> pwd.struct_passwd | None:
    """Return who the server shall run as, or ``None`` for ourselves: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    users = {user.pw_name: user for user in pwd.getpwall()}
    return users.get("postgres") or users["nobody"]


def _initialise(programs: Path, folder: Path, user: pwd.struct_passwd | None) -> None:
    options = ["--auth", "trust", "--username", "app", "--encoding", "UTF8", "--no-locale", "--no-sync"]
    _run([str(programs / "initdb"), "--pgdata", str(folder / "data"), *options], user)


def _start(
    programs: Path, folder: Path, user: pwd.struct_passwd | None, settings: Sequence[str] = (), port: int | None = None
) -> tuple[subprocess.Popen[bytes], int]:
    """Start the server on this port, or a free one, and return once it accepts connections."""
    server = [str(programs / "postgres"), "-D", str(folder / "data")]
    # Nothing here needs to survive a power cut.
    for setting in (
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        f"max_connections={CONNECTIONS_MAX}",
        "fsync=off",
        "synchronous_commit=off",
        "full_page_writes=off",
        *settings,
    ):
        server += ["-c", setting]
    log = folder / "postgres.log"
    for _ in range(START_ATTEMPTS):
        at = port or free_port()
        command = _ending_with_us([*server, "-p", str(at)], user)
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=folder, env=_variables(), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        if _accepts(programs, process, at):
            return process, at
        _stop(process)
    raise RuntimeError(f"PostgreSQL does not start:\n{log.read_text(errors='replace')[-2000:]}")


def _ending_with_us(server: list[str], user: pwd.struct_passwd | None) -> list[str]:
    """Return the command line that runs the server as ``user`` and shuts it down when this process is killed."""
    # SIGINT is PostgreSQL's fast shutdown: it does not wait for its clients.
    if user is None:
        return ending_with_parent(server, signal.SIGINT)
    # Changing the user drops the wish for that signal (prctl(2)), and afterwards our own Python, which may lie in a
    # home directory, need not be within reach: setpriv does both in the right order.
    to = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    return [*to, "--pdeathsig", "INT", *server]


def _accepts(programs: Path, process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until the server accepts connections; ``False`` when it ended (the port was taken) or takes too long."""
    asked = [str(programs / "pg_isready"), "--quiet", "--host", "127.0.0.1", "--port", str(port)]
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        if subprocess.run(asked, check=False).returncode == 0:
            return process.poll() is None
        time.sleep(POLL_INTERVAL_S)
    return False


def _stop(process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGINT) -> None:
    process.send_signal(how)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _run(command: list[str], user: pwd.struct_passwd | None = None) -> None:
    """Run a program to its end, as ``user`` if given; raises ``RuntimeError`` with its output when it fails."""
    switch: dict[str, Any] = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    done = subprocess.run(
        command,
        cwd="/",
        env=_variables(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
        **switch,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed ({done.returncode}):\n{done.stdout}")


def _variables() -> dict[str, str]:
    """Return the little that the programs need of our environment: PG* variables would lead them elsewhere."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
