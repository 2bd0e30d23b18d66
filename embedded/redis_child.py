"""The embedded Redis: a real Redis server as a child process, one per data directory, on a private unix socket.

    with RedisChild.start(data_dir) as redis_child:      # before the event loop; in the main thread
        ...                                              # redis_child.url is unix:///…
        task_group.start_soon(redis_child.run)           # starts it again should it die

What it keeps lies in ``<data_dir>/redis`` as an append-only file and survives a SIGKILL of either process. Two locks lie
beside it: ``owner.lock`` is held by the Pitlane process, ``server.lock`` by the Redis server itself, so that a server
that outlived its owner is noticed, and ended, before a second one could write to the same file.
"""

import fcntl
import hashlib
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import quote

import anyio
import anyio.to_thread
import structlog

from embedded.redis_servers import server_command
from models.errors import ConfigurationError, PitlaneError

START_TIMEOUT_S = 5.0
LOAD_TIMEOUT_S = 60.0
"""A server that answers that it is still reading its file is given this long."""
STOP_TIMEOUT_S = 5.0
POLL_INTERVAL_S = 0.01
RESTARTS_MAX = 5
RESTARTS_WINDOW_S = 60.0
SOCKET_PATH_LEN_MAX = 100
"""Bytes. The system's own limit is 107 on Linux and 103 on macOS (``sun_path`` in unix(7))."""
LOG_TAIL_LINES = 12

# Runs between fork and the server, as a program of its own: doing this in the forked child (`preexec_fn`) can deadlock in
# a process that has threads. The signal comes when the parent ends for whatever reason, SIGKILL included; a parent that
# ended before we asked for the signal shows as another parent id.
_END_WITH_PARENT = """
import ctypes, os, sys
PR_SET_PDEATHSIG = 1
parent, signal, program = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal)
if os.getppid() == parent:
    os.execv(program[0], program)
"""

log = structlog.get_logger("redis_child")


class EmbeddedRedisError(PitlaneError):
    """The embedded Redis does not run; the message says why."""


class DataDirectoryInUse(EmbeddedRedisError, ConfigurationError):
    """Another Pitlane process runs on this data directory."""


class RedisChild:
    """One embedded Redis server. Make it with ``start``; it is a context manager that stops it at the end."""

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir.resolve() / "redis"
        self.socket_path = socket_path_for(self.folder)
        self.url = f"unix://{quote(str(self.socket_path))}"
        self.log_path = self.folder / "redis.log"
        self._owner_lock: IO[bytes] | None = None
        self._server_lock: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._command: list[str] = []

    @classmethod
    def start(cls, data_dir: Path, *, share: bool = False) -> Self:
        """Start the server on ``data_dir`` and return once it answers; blocks, for some 50 ms.

        Call it from the main thread, see ``ending_with_parent``.
        Where another process already runs one on this directory, ``share`` connects to that one and leaves its life to
        its owner; otherwise ``DataDirectoryInUse`` is raised. Raises ``RedisServerMissing`` where there is no server to
        run, and ``EmbeddedRedisError`` with the tail of its log when it does not come up.
        """
        child = cls(data_dir)
        child.folder.mkdir(parents=True, exist_ok=True)
        child.folder.chmod(0o700)
        child._owner_lock = _try_lock(child.folder / "owner.lock")
        if child._owner_lock is None:
            if not share:
                raise DataDirectoryInUse(
                    f"another Pitlane process runs on {data_dir}; stop it, or set PITLANE_DATA_DIR to another directory"
                )
            child._await_ready()
            return child
        try:
            child._server_lock = child._lock_server()
            child._command = child._compose_command()
            child.log_path.write_bytes(b"")
            child._spawn()
            child._await_ready()
        except BaseException:
            child.stop()
            raise
        return child

    @property
    def owned(self) -> bool:
        """Whether the server is our child; ``False`` when it is shared and another process looks after it."""
        return self._owner_lock is not None

    @property
    def pid(self) -> int | None:
        """The server's process id, or ``None`` when it is shared or stopped."""
        return self._process.pid if self._process else None

    async def run(self) -> None:
        """Start the server again on the same socket whenever it dies, until cancelled or ``stop``.

        Raises ``EmbeddedRedisError`` when it has died more than ``RESTARTS_MAX`` times within a minute. For a shared
        server there is nothing to do but wait. Everything above rebuilds what a restart loses.
        """
        restarted_at: deque[float] = deque()
        while True:
            await self._until_death()
            if self._process is None:
                return
            while restarted_at and restarted_at[0] < time.monotonic() - RESTARTS_WINDOW_S:
                restarted_at.popleft()
            exit_code = self._process.returncode
            if len(restarted_at) >= RESTARTS_MAX:
                raise EmbeddedRedisError(self._explain(f"the embedded Redis keeps dying (exit code {exit_code})"))
            log.warning("redis_died", exit_code=exit_code, restarts=len(restarted_at))
            # At once the first time; a server that keeps dying is not worth a busy loop.
            await anyio.sleep(0.1 * len(restarted_at))
            restarted_at.append(time.monotonic())
            self._spawn()
            try:
                await anyio.to_thread.run_sync(self._await_ready)
            except EmbeddedRedisError as error:
                # Counts as one more death, so that its bound also ends this.
                log.warning("redis_not_restarted", error=str(error))
                if self._process is not None:
                    self._process.kill()
            else:
                log.info("redis_restarted", pid=self.pid)

    async def _until_death(self) -> None:
        if not self.owned:
            await anyio.sleep_forever()
        if self._process is not None:
            # In a thread: the one way to wait that all systems and event loops offer. It outlives our cancellation, until ``stop``.
            await anyio.to_thread.run_sync(self._process.wait, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1))

    def restart(self) -> None:
        """Start the server again now if it has died; blocks. Not while ``run`` looks after it."""
        if self._process is None or self._process.poll() is None:
            return
        self._spawn()
        self._await_ready()

    def kill(self) -> None:
        """End the server with SIGKILL and return once it is gone, as a crash would; for tests of what heals."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """End the server in good order and free the data directory; idempotent, leaves a shared server alone."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                log.warning("redis_killed", reason="it did not end in time", timeout_s=STOP_TIMEOUT_S)
                process.kill()
                process.wait()
            self.socket_path.unlink(missing_ok=True)
            if self.socket_path.parent != self.folder:
                self.socket_path.parent.rmdir()
        for lock in (self._server_lock, self._owner_lock):
            if lock is not None:
                lock.close()
        self._server_lock = self._owner_lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _lock_server(self) -> IO[bytes]:
        """Return the server's lock; a server whose owner was killed, and which did not notice, is ended first."""
        path = self.folder / "server.lock"
        lock = _try_lock(path)
        if lock is None:
            # Not by a process id from a file: that may belong to somebody else by now. The socket is its own.
            log.warning("redis_left_over", socket=str(self.socket_path))
            _ask(self.socket_path, b"SHUTDOWN NOSAVE NOW FORCE\r\n")
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while lock is None:
            if time.monotonic() > deadline:
                raise EmbeddedRedisError(f"a Redis server of an earlier run still writes to {self.folder}; end it")
            time.sleep(POLL_INTERVAL_S)
            lock = _try_lock(path)
        return lock

    def _compose_command(self) -> list[str]:
        if self.socket_path.parent != self.folder:
            _make_private(self.socket_path.parent)
        # The data directory's owner alone may connect, and no network is involved. Every write is in the system's hands
        # before it is answered, and on the disk within a second.
        server = [*server_command(self.folder), "--port", "0"]
        server += ["--unixsocket", str(self.socket_path), "--unixsocketperm", "700"]
        server += ["--dir", str(self.folder), "--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
        server += ["--daemonize", "no"]
        return ending_with_parent(server)

    def _spawn(self) -> None:
        assert threading.current_thread() is threading.main_thread(), "the child would end with this thread"
        assert self._server_lock is not None
        with self.log_path.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.folder,
                # Redis refuses to start in a locale the machine does not have, and has no use for our secrets.
                env={"PATH": os.defpath, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(self._server_lock.fileno(),),
                # Out of the terminal's reach: Ctrl-C is for us, and Redis is the last to stop.
                start_new_session=True,
            )

    def _await_ready(self) -> None:
        """Return once the server answers PING; raises ``EmbeddedRedisError`` when it ended or takes too long."""
        begun = time.monotonic()
        while True:
            answer = _ask(self.socket_path, b"PING\r\n")
            if answer.startswith(b"+PONG"):
                return
            process = self._process
            if process is not None and process.poll() is not None:
                raise EmbeddedRedisError(self._explain(f"Redis ended with exit code {process.returncode}"))
            limit_s = LOAD_TIMEOUT_S if answer.startswith(b"-LOADING") else START_TIMEOUT_S
            if time.monotonic() - begun > limit_s:
                raise EmbeddedRedisError(self._explain(f"Redis does not answer on {self.socket_path}"))
            time.sleep(POLL_INTERVAL_S)

    def _explain(self, what: str) -> str:
        tail = (
            self.log_path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:] if self.log_path.exists() else []
        )
        return "\n  ".join([f"{what}; the end of {self.log_path}:", *(tail or ["(empty)"])])


def ending_with_parent(program: list[str], with_signal: int = signal.SIGTERM) -> list[str]:
    """Return the command line that runs ``program`` so that it gets the signal when this process ends, however it ends.

    Start it from the main thread: to Linux the parent is the *thread* that started it (prctl(2)). Elsewhere than on
    Linux the program is returned as it is, and outlives a parent that was killed.
    """
    if sys.platform != "linux":
        return program
    return [sys.executable, "-I", "-S", "-c", _END_WITH_PARENT, str(os.getpid()), str(int(with_signal)), *program]


def socket_path_for(folder: Path) -> Path:
    """Return where the socket of a data folder lies: in it, or in a private temporary folder when that is too deep."""
    path = folder / "redis.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_LEN_MAX:
        return path
    # The address of a unix socket has a fixed, small size. A name derived from the folder is the same for every process
    # that looks for this server.
    name = f"pitlane-{os.getuid()}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"
    for parent in (Path(tempfile.gettempdir()), Path("/tmp")):
        path = parent / name / "redis.sock"
        if len(os.fsencode(path)) <= SOCKET_PATH_LEN_MAX:
            break
    return path


def _make_private(folder: Path) -> None:
    """Create the folder for us alone; raises ``EmbeddedRedisError`` when somebody else's stands there already."""
    folder.mkdir(mode=0o700, exist_ok=True)
    # The temporary directory is everybody's: without a look, a stranger could have prepared the place.
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise EmbeddedRedisError(f"{folder} is not a private folder of ours; remove it")


def _try_lock(path: Path) -> IO[bytes] | None:
    """Return the open file that holds the lock, or ``None`` when somebody has it; freed when its last holder ends."""
    lock = path.open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def _ask(socket_path: Path, command: bytes) -> bytes:
    """Send one inline command and return what comes back first; empty when nobody answers within a second."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(1.0)
        try:
            link.connect(str(socket_path))
            link.sendall(command)
            return link.recv(256)
        except OSError:
            # Not there yet, or not any more: the caller decides how long to go on asking.
            return b""
