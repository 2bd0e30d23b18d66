"""What the command line asks of a benchmark."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Options:
    """How much of it."""

    connections: int | None
    windows: int | None
    repeats: int | None
    duration_s: float | None
    database: str | None
    """The only kind to measure on, where several are."""
    is_quick: bool
    peers: Path | None
    """The Python that the peers run in."""
    without_peers: str
    """Why there are none; empty if there are."""

    def pick(self, given: Any, full: Any, quick: Any) -> Any:
        """Return what was asked for, else the size that fits."""
        if given is not None:
            return given
        return quick if self.is_quick else full
