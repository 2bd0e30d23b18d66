"""Real server processes with real settings, started and ended by the tests."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import httpx

from accounts.accounts import Accounts, NewAccount
from infra.clock import wall_clock_ms
from infra.database import Database
from tests.acceptance.clients import ON_LOOPBACK, SECRET_KEY
from tests.services import free_port

ROOT = Path(__file__).parent.parent.parent
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
"""The contract's: SIGTERM drains and exits within ten seconds."""
POLL_S = 0.02


@dataclass
class Server:
    """One running ``run.py serve``."""

    process: subprocess.Popen[bytes]
    base_url: str
    log_path: Path

    async def ready(self) -> None:
        """Wait until it answers that database and Redis are reachable."""
        async with httpx.AsyncClient(base_url=self.base_url, **ON_LOOPBACK) as client:
            with anyio.fail_after(START_TIMEOUT_S):
                while True:
                    assert self.process.poll() is None, f"the server ended: {self.log_path.read_text()[-3000:]}"
                    try:
                        if (await client.get("/readyz")).status_code == 200:
                            return
                    except httpx.TransportError:
                        pass
                    await anyio.sleep(POLL_S)

    def kill(self) -> None:
        """SIGKILL: no goodbye."""
        self.process.kill()
        self.process.wait()

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """SIGSTOP for the length of the block: it is there, and does nothing."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        """SIGTERM; return the exit code."""
        self.process.terminate()
        return self.process.wait(STOP_TIMEOUT_S)


def environment(data_dir: Path, port: int, **settings: str) -> dict[str, str]:
    """The environment of a server: nothing of ours but these settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PITLANE_")}
    own = {"DATA_DIR": str(data_dir), "PORT": str(port), "SECRET_KEY": SECRET_KEY, **settings}
    return kept | {f"PITLANE_{name}": value for name, value in own.items()}


def start_server(data_dir: Path, *, command: Sequence[str] = ("serve",), ulimit: str = "", **settings: str) -> Server:
    """Start a server on a free port; the caller awaits ``ready`` and ends it. ``ulimit``: the shell's, as in ``-S -n 1024``."""
    port = int(settings.pop("PORT", 0)) or free_port()
    data_dir.mkdir(parents=True, exist_ok=True)
    log_path = data_dir / f"server-{port}.log"
    limited = ["sh", "-c", f'ulimit {ulimit} && exec "$@"', "sh"] if ulimit else []
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [*limited, sys.executable, "run.py", *command],
            cwd=ROOT,
            env=environment(data_dir, port, **settings),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    return Server(process, f"http://127.0.0.1:{port}", log_path)


@contextmanager
def running_servers(data_dir: Path, count: int = 1, **settings: str) -> Iterator[list[Server]]:
    """``count`` servers with the same settings on ports of their own, killed at the end if they still run."""
    with ExitStack() as stack:
        servers = []
        for number in range(count):
            server = start_server(data_dir / f"node{number}" if count > 1 else data_dir, **settings)
            stack.callback(_end, server)
            servers.append(server)
        yield servers


def _end(server: Server) -> None:
    if server.process.poll() is None:
        server.kill()


class Pair:
    """Two servers with the same settings; one that is killed is replaced at once, and ready when both are wanted again."""

    def __init__(self, data_dir: Path, **settings: str) -> None:
        self._data_dir = data_dir
        self._settings = settings
        self._started = 0
        self._servers: list[Server] = []
        for _ in range(2):
            self._start()

    async def both(self) -> tuple[Server, Server]:
        """Return the two, ready; which of them is which does not matter."""
        for server in self._servers:
            await server.ready()
        first, second = self._servers
        return first, second

    def kill(self, server: Server) -> None:
        """SIGKILL, and start the next."""
        server.kill()
        self._servers.remove(server)
        self._start()

    def end(self) -> None:
        """Kill both."""
        for server in self._servers:
            server.kill()

    def _start(self) -> None:
        self._servers.append(start_server(self._data_dir / f"node{self._started}", **self._settings))
        self._started += 1


@contextmanager
def running_pair(data_dir: Path, **settings: str) -> Iterator[Pair]:
    """A ``Pair``, killed at the end."""
    pair = Pair(data_dir, **settings)
    try:
        yield pair
    finally:
        pair.end()


def run(tmp_path: Path, *arguments: str, stdin: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command of ``run.py`` to its end, on the data directory ``tmp_path``; ``stdin`` is what it can read."""
    return subprocess.run(
        [sys.executable, "run.py", *arguments],
        cwd=ROOT,
        env=environment(tmp_path, int(settings.pop("PORT", 0)) or free_port(), **settings),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def add_accounts(database_url: str, *accounts: NewAccount) -> list[str]:
    """Add accounts beside a running server; return their ids."""
    database = Database(database_url)
    added = await Accounts(database).add_all(accounts, now_ms=wall_clock_ms())
    await database.close()
    return [account.id for account in added]
