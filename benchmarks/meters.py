"""What processes and Redis have used, and the order statistics of what was sampled. Linux only: reads ``/proc``."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Self

import redis

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_LEN = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    """What a process has used up to an instant; ``after - before`` is what it used in between."""

    at_s: float
    cpu_s: float

    @classmethod
    def of(cls, *pids: int) -> Self:
        """Return the sum over the processes."""
        return cls(monotonic(), sum(map(_cpu_s, pids)))

    def __sub__(self, before: "Usage") -> "Usage":
        return Usage(self.at_s - before.at_s, self.cpu_s - before.cpu_s)

    @property
    def share(self) -> float:
        """Of a difference: the share of one core, 1.0 when it was never idle."""
        return self.cpu_s / self.at_s if self.at_s else 0.0


def _cpu_s(pid: int) -> float:
    # After the name, which may itself contain blanks and brackets: proc(5), fields 14 and 15 counted from 1.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def rss_len(pid: int) -> int:
    """Return a process' resident memory in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_LEN


class RedisMeter:
    """One Redis server's work: its CPU time, and commands by name."""

    def __init__(self, url: str, pid: int) -> None:
        self.pid = pid
        self._redis = redis.Redis.from_url(url, decode_responses=True)

    def usage(self) -> Usage:
        """Return what the server process has used, in finer steps than ``/proc`` has."""
        cpu = self._redis.info("cpu")
        return Usage(monotonic(), cpu["used_cpu_sys"] + cpu["used_cpu_user"])

    def commands(self) -> int:
        """Return how many commands were carried out so far, those inside scripts included, our own questions not."""
        stats = self._redis.info("commandstats")
        return sum(stat["calls"] for name, stat in stats.items() if name != "cmdstat_info")

    def visits(self) -> int:
        """Return how often Redis has read from a socket so far: a batch or a script is one visit."""
        return int(self._redis.info("stats")["total_reads_processed"])

    def version(self) -> str:
        """Return the server's version."""
        return str(self._redis.info("server")["redis_version"])

    def close(self) -> None:
        """Give the connection back."""
        self._redis.close()


def percentile(samples: Sequence[float], share: float) -> float:
    """Return the sample below or at which ``share`` (0 to 1) of all lie; there must be samples."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def middle(values: Sequence[float | None]) -> float | None:
    """Return the median of those that were measured, or ``None`` if nothing was."""
    measured = [value for value in values if value is not None]
    return median(measured) if measured else None
