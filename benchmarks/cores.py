"""Which process runs on which core, so that the load does not slow down what it measures."""

import os
import resource
from pathlib import Path


class Cores:
    """The last of our cores is the load's and Redis', the others are the servers'. With one core nothing is pinned."""

    def __init__(self) -> None:
        self._all = sorted(os.sched_getaffinity(0))

    @property
    def count(self) -> int:
        """Cores that this process may use."""
        return len(self._all)

    def pin_load(self, pid: int) -> None:
        """Keep a process (0 is our own) on the load's core."""
        self._pin(pid, self._all[-1])

    def pin_server(self, pid: int, number: int = 0) -> None:
        """Keep a server on one core; ``number`` counts the servers that run at the same time."""
        self._pin(pid, self._all[number % max(1, self.count - 1)])

    def free(self, pid: int) -> None:
        """Let a process run on all cores."""
        for thread in _threads(pid):
            os.sched_setaffinity(thread, self._all)

    def _pin(self, pid: int, core: int) -> None:
        if self.count > 1:
            for thread in _threads(pid):
                os.sched_setaffinity(thread, {core})


def _threads(pid: int) -> list[int]:
    # Threads that start later inherit from the one that starts them.
    return [int(task.name) for task in Path(f"/proc/{pid or 'self'}/task").iterdir()]


def raise_open_files_limit() -> int:
    """Raise the limit of open files as far as we may, for us and for what we start; return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
