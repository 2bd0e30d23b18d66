"""Several server processes on one listening socket, each kept alive for itself by the process that bound it.

They accept from one queue: a worker that is dead or busy takes nothing from it, and the others take its share. One that dies is
started again after a while that grows with its deaths, and the others never notice.
"""

import os
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Final

import anyio
import anyio.abc
import structlog

from embedded.redis_child import ending_with_parent
from models.errors import ConfigurationError, PitlaneError

DELAY_FIRST_S: Final = 0.2
DELAY_MAX_S: Final = 30.0
STEADY_S: Final = 60.0
"""A worker that has served for this long had nothing wrong with it from the start: its next death is its first."""
FIRST_TRIES_MAX: Final = 4
"""Starts of each worker, if no worker at all has ever come up."""
STOP_TIMEOUT_S: Final = 9.5
"""A little less than the ten seconds that a drain may take; after it a worker is killed."""
SETTINGS_REFUSED: Final = 2
"""The exit code of who cannot work with these settings; the sentence is on standard error already."""


class WorkersRefused(ConfigurationError):
    """The very first worker found something that waiting does not mend."""


class WorkersDoNotStart(PitlaneError):
    """No worker has come up, ever, in as many tries as a passing fault explains."""


def restart_delay_s(deaths: int, random: Random) -> float:
    """Return how long to wait before a worker that has died ``deaths`` times in a row is started again.

    Between half of the bound and all of it, so that workers that died together do not come back together.
    """
    longest: float = min(DELAY_MAX_S, DELAY_FIRST_S * 2 ** min(deaths - 1, 16))
    return longest * random.uniform(0.5, 1.0)


@dataclass
class _Worker:
    """One running process. It writes a byte into the pipe behind ``told_fd`` once it serves."""

    process: anyio.abc.Process
    told_fd: int
    is_up: bool = False

    def look(self) -> bool:
        """Return whether it has ever served."""
        if not self.is_up:
            with suppress(BlockingIOError):
                self.is_up = os.read(self.told_fd, 1) != b""
        return self.is_up


class Workers:
    """Starts ``count`` processes of ``command``, replaces those that die, and drains them all on SIGTERM or SIGINT.

    To each are appended ``--number`` and ``--up-fd``, the descriptor to write a byte into once it serves.
    """

    def __init__(
        self,
        command: Sequence[str],
        count: int,
        extra_environment: Mapping[str, str],
        listener: socket.socket,
        random: Random,
    ) -> None:
        """``listener`` is inherited by all of them, and closed when they are to stop."""
        self._command = list(command)
        self._count = count
        self._environment = {**os.environ, **extra_environment}
        self._listener = listener
        self._random = random
        self._running: dict[int, _Worker] = {}
        self._stopping = anyio.Event()
        self._given_up: PitlaneError | None = None
        self._has_any_come_up = False
        self._first_deaths = 0
        self._log = structlog.get_logger("workers")

    async def run(self) -> None:
        """Keep them running until a signal comes and all have ended.

        Raises ``WorkersRefused`` when the first to start refuses its settings, and ``WorkersDoNotStart`` when none ever comes up.
        """
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._stop_on_signal)
            tasks.start_soon(self._end_in_time)
            async with anyio.create_task_group() as running:
                for number in range(self._count):
                    running.start_soon(self._keep, number)
            tasks.cancel_scope.cancel()
        if self._given_up is not None:
            raise self._given_up

    def stop(self) -> None:
        """Let them drain. New connections are refused at once, and those that nobody has accepted are reset; idempotent."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._tell_all(signal.SIGTERM)
        # It is one socket, however many processes hold it: this also ends it for a worker that hears nothing any more.
        # Elsewhere than on Linux it ends when the last of them has closed it.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    async def _keep(self, number: int) -> None:
        deaths = 0
        while not self._stopping.is_set():
            was_up, served_s, code = await self._live(number)
            if self._stopping.is_set():
                return
            deaths = 1 if was_up and served_s >= STEADY_S else deaths + 1
            if self._is_hopeless(code, was_up):
                self.stop()
                return
            delay_s = restart_delay_s(deaths, self._random)
            event = "worker_refused_its_settings" if code == SETTINGS_REFUSED else "worker_died"
            self._log.error(event, number=number, code=code, deaths=deaths, starts_again_in_s=round(delay_s, 1))
            with anyio.move_on_after(delay_s):
                await self._stopping.wait()

    async def _live(self, number: int) -> tuple[bool, float, int | None]:
        """Start a worker and wait for its end; return whether and for how long it served, and its exit code."""
        started_s = anyio.current_time()
        try:
            worker = await self._start(number)
        except OSError as error:
            # The machine has no room for one more process, say. That is no reason to give up those that run.
            self._log.error("worker_not_started", number=number, error=str(error))
            return False, 0.0, None
        try:
            code = await worker.process.wait()
            return worker.look(), anyio.current_time() - started_s, code
        finally:
            os.close(worker.told_fd)
            del self._running[number]

    async def _start(self, number: int) -> _Worker:
        told_fd, up_fd = os.pipe()
        os.set_blocking(told_fd, False)
        listener_fd = self._listener.fileno()
        command = [*self._command, str(listener_fd), "--number", str(number), "--up-fd", str(up_fd)]
        try:
            process = await anyio.open_process(
                ending_with_parent(command, signal.SIGTERM),
                stdin=None,
                stdout=None,
                stderr=None,
                env=self._environment,
                pass_fds=(listener_fd, up_fd),
                # Ctrl-C reaches the whole terminal; the workers are to hear of it from here, once.
                start_new_session=True,
            )
        except BaseException:
            os.close(told_fd)
            raise
        finally:
            os.close(up_fd)
        worker = self._running[number] = _Worker(process, told_fd)
        if self._stopping.is_set():
            # The signal came while it was being started.
            self._tell(worker, signal.SIGTERM)
        return worker

    def _is_hopeless(self, code: int | None, was_up: bool) -> bool:
        """Tell whether there is no point in going on: nothing has ever worked. One that has worked is worth waiting for."""
        looks = [worker.look() for worker in self._running.values()]
        self._has_any_come_up = self._has_any_come_up or was_up or any(looks)
        if self._has_any_come_up:
            return False
        self._first_deaths += 1
        if code == SETTINGS_REFUSED:
            self._given_up = WorkersRefused("A worker cannot work with these settings; it has said why above.")
        elif self._first_deaths >= FIRST_TRIES_MAX * self._count:
            self._given_up = WorkersDoNotStart(
                f"No worker has come up in {self._first_deaths} tries; the log says why."
            )
        return self._given_up is not None

    async def _stop_on_signal(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                self.stop()

    async def _end_in_time(self) -> None:
        """Kill what does not end by itself."""
        await self._stopping.wait()
        await anyio.sleep(STOP_TIMEOUT_S)
        self._tell_all(signal.SIGKILL)

    def _tell_all(self, what: signal.Signals) -> None:
        for worker in self._running.values():
            self._tell(worker, what)

    def _tell(self, worker: _Worker, what: signal.Signals) -> None:
        if worker.process.returncode is None:
            # It may have ended just now.
            with suppress(ProcessLookupError):
                worker.process.send_signal(what)
