"""Worker processes live and die each for itself, and when they are to stop nobody is left waiting at their door."""

import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import anyio
import anyio.to_thread
import pytest

from embedded import workers
from embedded.workers import Workers, WorkersDoNotStart, WorkersRefused, restart_delay_s
from tests.parts import eventually

# Says its number to whoever connects; or ends at once, with the code in the file `end-<number>`, where there is one.
WORKER = """
import os, signal, socket, sys
listener_fd, number, up_fd, folder = int(sys.argv[1]), sys.argv[3], int(sys.argv[5]), os.environ["FOLDER"]
with open(f"{folder}/started-{number}", "a") as started:
    print(os.getpid(), file=started)
if os.path.exists(f"{folder}/end-{number}"):
    sys.exit(int(open(f"{folder}/end-{number}").read()))
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
os.write(up_fd, b"+")
listener = socket.socket(fileno=listener_fd)
while True:
    link, _ = listener.accept()
    link.sendall(number.encode())
    link.close()
"""


@dataclass
class House:
    """Workers that run, and what they have left in ``folder``."""

    workers: Workers
    folder: Path
    address: tuple[str, int]

    def end(self, number: int, code: int) -> None:
        """Let the worker of this number end with ``code`` from its next start on."""
        path = self.folder / f"end-{number}"
        path.with_suffix(".new").write_text(str(code))
        path.with_suffix(".new").replace(path)

    def started(self, number: int) -> list[int]:
        """Return the process ids that the worker of this number has had."""
        path = self.folder / f"started-{number}"
        return [int(line) for line in path.read_text().splitlines()] if path.exists() else []

    def answer(self) -> str:
        """Return the number of who answers a new connection."""
        with socket.create_connection(self.address, timeout=10) as link:
            return link.recv(16).decode()


@asynccontextmanager
async def house(tmp_path: Path, count: int, **ends: int) -> AsyncIterator[House]:
    """``count`` workers, stopped at the end; ``ends`` as ``w0=2``: the code with which one ends from the first time on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        command = [sys.executable, "-S", "-c", WORKER]
        running = House(
            Workers(command, count, {"FOLDER": str(tmp_path)}, listener, Random(1)), tmp_path, listener.getsockname()
        )
        for name, code in ends.items():
            running.end(int(name[1:]), code)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(running.workers.run)
            try:
                yield running
            finally:
                running.workers.stop()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "DELAY_FIRST_S", 0.01)
    monkeypatch.setattr(workers, "DELAY_MAX_S", 0.05)


def test_whoever_keeps_dying_is_started_ever_more_seldom_but_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    random = Random(7)
    delays = [restart_delay_s(deaths, random) for deaths in range(1, 40)]
    assert delays[0] <= workers.DELAY_FIRST_S
    assert all(workers.DELAY_MAX_S / 2 <= delay <= workers.DELAY_MAX_S for delay in delays[10:])
    assert len(set(delays)) == len(delays), "those that died together come back apart"


async def test_one_that_cannot_start_again_takes_nobody_along(tmp_path: Path) -> None:
    async with house(tmp_path, 3) as running:
        await eventually(lambda: all(running.started(number) for number in range(3)), "all have started")
        await anyio.to_thread.run_sync(running.answer)
        # The schema is newer than it knows, say; and Redis is away for another.
        running.end(1, 2)
        running.end(2, 1)
        for number in (1, 2):
            os.kill(running.started(number)[-1], signal.SIGKILL)
        await eventually(
            lambda: min(len(running.started(1)), len(running.started(2))) > 12, "both are tried over and over"
        )
        assert len(running.started(0)) == 1, "the healthy one is left alone"
        assert {await anyio.to_thread.run_sync(running.answer) for _ in range(8)} == {"0"}, "and takes their share"
        for number in (1, 2):
            (tmp_path / f"end-{number}").unlink()
        await eventually(lambda: running.answer() in "12", "they are back once the reason is gone")


async def test_settings_that_no_worker_can_work_with_end_all(tmp_path: Path) -> None:
    with pytest.RaisesGroup(WorkersRefused):
        async with house(tmp_path, 2, w0=2, w1=2):
            await anyio.sleep_forever()


async def test_if_none_ever_comes_up_all_is_given_up_after_some_tries(tmp_path: Path) -> None:
    with pytest.RaisesGroup(WorkersDoNotStart):
        async with house(tmp_path, 2, w0=1, w1=1) as running:
            await anyio.sleep_forever()
    tries = len(running.started(0)) + len(running.started(1))
    # The other may just have been started again when the last of them counted.
    assert 2 * workers.FIRST_TRIES_MAX <= tries <= 2 * workers.FIRST_TRIES_MAX + 1


async def test_one_that_refuses_beside_one_that_serves_is_waited_for(tmp_path: Path) -> None:
    async with house(tmp_path, 2, w1=1) as running:
        await eventually(lambda: running.started(0), "the good one starts")
        await anyio.to_thread.run_sync(running.answer)
        running.end(1, 2)
        await eventually(lambda: len(running.started(1)) > 2 * workers.FIRST_TRIES_MAX, "it is tried again")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a listening socket ends with its last holder")
async def test_at_a_stop_nobody_is_left_waiting_even_before_a_worker_that_hangs(tmp_path: Path) -> None:
    async with house(tmp_path, 1) as running:
        await eventually(lambda: running.started(0), "it has started")
        await anyio.to_thread.run_sync(running.answer)
        pid = running.started(0)[0]
        os.kill(pid, signal.SIGSTOP)
        try:
            with socket.create_connection(running.address, timeout=10) as waiting:
                running.workers.stop()
                with pytest.raises(ConnectionResetError):
                    await anyio.to_thread.run_sync(waiting.recv, 1)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(running.address, timeout=10)
        finally:
            os.kill(pid, signal.SIGCONT)
