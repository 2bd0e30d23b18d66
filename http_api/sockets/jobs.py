"""What this node's connections have in hand that takes a while: run beside each other, and counted for the drain."""

from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass

import anyio
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskGroup, TaskStatus

from infra.loops import failing_alone

Work = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Job:
    """What one connection has to do in turn, for its client or for us."""

    work: Work
    ref: str | None = None
    """The id that it is about, named to the client when it fails."""
    key: Hashable = None
    """What says the same as it, of our own jobs; ``None`` if a client has asked for it."""

    @property
    def is_ours(self) -> bool:
        """Whether we have caused it, and not the client."""
        return self.key is not None


class Jobs:
    """Runs what connections ask for. Before ``run`` and after its end nothing is worked on."""

    def __init__(self) -> None:
        self._tasks: TaskGroup | None = None
        self._in_hand = 0
        self._is_idle = anyio.Event()

    def start(self, work: Work) -> None:
        """Run ``work`` beside what is in hand already. A bug that it meets ends it, and nothing else."""
        if self._tasks is not None:
            self._in_hand += 1
            if self._is_idle.is_set():
                self._is_idle = anyio.Event()
            self._tasks.start_soon(self._count, work)

    async def finished(self) -> None:
        """Return when nothing is in hand."""
        while self._in_hand:
            await self._is_idle.wait()

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Take work until cancelled."""
        try:
            async with anyio.create_task_group() as self._tasks:
                task_status.started()
                await anyio.sleep_forever()
        finally:
            self._tasks = None

    async def _count(self, work: Work) -> None:
        try:
            with failing_alone("socket_job"):
                await work()
        finally:
            self._in_hand -= 1
            if not self._in_hand:
                self._is_idle.set()
