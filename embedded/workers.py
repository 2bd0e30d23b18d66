"""Several server processes on one listening socket, kept alive by the process that bound it."""

import os
import signal
from collections import deque
from collections.abc import Mapping, Sequence

import anyio
import anyio.abc
import structlog

from embedded.redis_child import ending_with_parent
from models.errors import PitlaneError

RESTARTS_MAX = 10
RESTARTS_WINDOW_S = 60.0
STOP_TIMEOUT_S = 9.5
"""A little less than the ten seconds that a drain may take; after it a worker is killed."""


class WorkersKeepDying(PitlaneError):
    """More workers died within a minute than a passing fault explains."""


class Workers:
    """Starts ``count`` processes of ``command``, replaces those that die, and drains them all on SIGTERM or SIGINT."""

    def __init__(
        self, command: Sequence[str], count: int, extra_environment: Mapping[str, str], shared_fd: int
    ) -> None:
        self._command = list(command)
        self._count = count
        self._environment = {**os.environ, **extra_environment}
        self._shared_fd = shared_fd
        self._processes: dict[int, anyio.abc.Process] = {}
        self._stopping = anyio.Event()
        self._deaths: deque[float] = deque(maxlen=RESTARTS_MAX)
        self._log = structlog.get_logger("workers")

    async def run(self, *, first_extra: Sequence[str] = ()) -> None:
        """Keep them running until a signal comes and all have ended. ``first_extra``: arguments for the first one only.

        Raises ``WorkersKeepDying`` when restarting does not help.
        """
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._stop_on_signal)
            async with anyio.create_task_group() as running:
                for number in range(self._count):
                    running.start_soon(self._keep, number, list(first_extra) if number == 0 else [])
            tasks.cancel_scope.cancel()

    async def _keep(self, number: int, extra: list[str]) -> None:
        while not self._stopping.is_set():
            process = await anyio.open_process(
                ending_with_parent([*self._command, *extra], signal.SIGTERM),
                stdin=None,
                stdout=None,
                stderr=None,
                env=self._environment,
                pass_fds=(self._shared_fd,),
                # Ctrl-C reaches the whole terminal; the workers are to hear of it from here, once.
                start_new_session=True,
            )
            self._processes[number] = process
            code = await process.wait()
            if self._stopping.is_set():
                return
            self._log.error("worker_died", number=number, code=code)
            if code == 2:
                raise WorkersKeepDying("A worker refused its settings; see the sentence above.")
            self._note_death()

    def _note_death(self) -> None:
        now = anyio.current_time()
        if len(self._deaths) == RESTARTS_MAX and now - self._deaths[0] < RESTARTS_WINDOW_S:
            raise WorkersKeepDying(f"{RESTARTS_MAX} workers died within {RESTARTS_WINDOW_S:g} s.")
        self._deaths.append(now)

    async def _stop_on_signal(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                self._stopping.set()
                self._tell_all(signal.SIGTERM)
                await anyio.sleep(STOP_TIMEOUT_S)
                self._tell_all(signal.SIGKILL)

    def _tell_all(self, what: signal.Signals) -> None:
        for process in self._processes.values():
            if process.returncode is None:
                process.send_signal(what)
