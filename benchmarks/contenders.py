"""Pitlane and what it is compared with: how each is started, and spoken to. Real server processes, on real Redis."""

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Final, Protocol

import anyio

import bootstrap
from benchmarks.cores import Cores
from benchmarks.dialects import Dialect, PlainJson, SocketIo
from benchmarks.meters import RedisMeter
from benchmarks.report import progress
from tests.acceptance.clients import SECRET_KEY
from tests.acceptance.servers import start_server
from tests.services import free_port, redis_server

START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 15.0
PEER_PACKAGES: Final = ("python-socketio", "channels", "channels-redis", "django", "uvicorn", "redis", "arq")


@dataclass
class Node:
    """One running server process."""

    process: subprocess.Popen[bytes]
    port: int
    log_path: Path

    @property
    def pid(self) -> int:
        return self.process.pid


@dataclass
class Ground:
    """What servers of one run stand on: a Redis of its own, a folder, and a database to start from."""

    folder: Path
    redis: RedisMeter
    redis_url: str
    cores: Cores
    database_url: str
    settings: dict[str, str] = field(default_factory=dict)
    """More of Pitlane's settings, without their prefix; and ``ulimit``, see ``start_server``."""


class Contender(Protocol):
    """Something that does the work."""

    name: str
    dialect: Dialect

    def start(self, ground: Ground, number: int) -> Node:
        """Start one server process, the ``number``-th on this ground; it may not be ready yet."""
        ...


class Pitlane:
    """``run.py serve`` with settings from the environment."""

    name = "Pitlane"
    dialect: Dialect = PlainJson()

    def start(self, ground: Ground, number: int) -> Node:
        settings = {"DATABASE_URL": ground.database_url, "REDIS_URL": ground.redis_url, **ground.settings}
        server = start_server(ground.folder / f"node{number}", **settings)
        return Node(server.process, int(server.base_url.rsplit(":", 1)[1]), server.log_path)


class Peer:
    """A small program of ``benchmarks/peers``, in the environment of its own."""

    def __init__(self, name: str, program: str, dialect: Dialect, python: Path) -> None:
        self.name = name
        self.dialect = dialect
        self._program = program
        self._python = python

    def start(self, ground: Ground, number: int) -> Node:
        port = free_port()
        log_path = ground.folder / f"{self._program}-{number}.log"
        process = start_peer(self._python, self._program, ground, log_path, str(port))
        return Node(process, port, log_path)


def start_peer(python: Path, program: str, ground: Ground, log_path: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start one program of ``benchmarks/peers``; the caller ends it."""
    with log_path.open("ab") as log:
        return subprocess.Popen(
            [str(python), str(Path(__file__).parent / "peers" / f"{program}.py"), *arguments],
            env={"PATH": os.environ["PATH"], "PEER_REDIS_URL": ground.redis_url, "PEER_SECRET_KEY": SECRET_KEY},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def socket_peers(python: Path | None) -> list[Contender]:
    """Return the peers that serve sockets; none without their environment."""
    if python is None:
        return []
    return [
        Peer("python-socketio", "socketio_peer", SocketIo(), python),
        Peer("Django Channels", "channels_peer", PlainJson(), python),
    ]


def peers_python(*, wanted: bool) -> tuple[Path | None, str]:
    """Return the Python that the peers run in, set up if need be; or ``None``, and why there are no peers."""
    if not wanted:
        return None, "The peers are skipped: --without-peers."
    try:
        return bootstrap.ensure_peers(), ""
    except bootstrap.SetupError as error:
        return None, f"The peers are skipped, as their packages could not be installed: {str(error).splitlines()[0]}"


def peer_versions(python: Path | None) -> dict[str, str]:
    """Return the versions of the peers' packages."""
    if python is None:
        return {}
    asked = f"import importlib.metadata as m, json; print(json.dumps({{n: m.version(n) for n in {PEER_PACKAGES}}}))"
    done = subprocess.run([str(python), "-c", asked], capture_output=True, text=True, timeout=30, check=True)
    return {f"{name} (peers)": version for name, version in json.loads(done.stdout).items()}


@contextmanager
def ground(folder: Path, cores: Cores, *, database_url: str, **settings: str) -> Iterator[Ground]:
    """A Redis of its own in a new folder, on the load's core; ``settings`` are Pitlane's, without their prefix."""
    folder.mkdir(parents=True)
    with redis_server(folder / "redis") as server:
        assert server.pid is not None
        cores.pin_load(server.pid)
        meter = RedisMeter(server.url, server.pid)
        try:
            yield Ground(folder, meter, server.url, cores, database_url, settings)
        finally:
            meter.close()


@contextmanager
def nodes(contender: Contender, on: Ground, count: int = 1, *, pinned: bool = True) -> Iterator[list[Node]]:
    """``count`` started servers of one contender, ended at the end; ``pinned`` to the servers' cores, in turn."""
    with ExitStack() as stack:
        running = []
        for number in range(count):
            node = contender.start(on, number)
            stack.callback(end, node.process)
            if pinned:
                on.cores.pin_server(node.pid, number)
            else:
                on.cores.free(node.pid)
            running.append(node)
        yield running


async def listening(running: Sequence[Node]) -> None:
    """Wait until all of them take connections; raises ``RuntimeError`` with the end of its log if one ended."""
    for node in running:
        give_up_s = monotonic() + START_TIMEOUT_S
        while not await _answers(node.port):
            if node.process.poll() is not None or monotonic() > give_up_s:
                raise RuntimeError(f"a server does not start: {node.log_path.read_text(errors='replace')[-2000:]}")
            await anyio.sleep(0.05)


async def _answers(port: int) -> bool:
    """Whether somebody accepts and answers HTTP, with whatever: a bound socket alone serves nobody yet."""
    try:
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            with anyio.fail_after(5):
                return (await stream.receive()).startswith(b"HTTP/1.1 ")
    except (OSError, TimeoutError, anyio.EndOfStream, anyio.BrokenResourceError):
        return False


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL for whom that does not end in time."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            progress(f"process {process.pid} had to be killed")
            process.kill()
            process.wait()
