"""How many there are of what is only ever added to, without counting all of it each time."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from infra.statements import Transaction

LATE_MS: Final = 10 * 60_000
"""So long after its instant a row may still appear: nodes' clocks differ, and a commit takes its time."""


@dataclass(frozen=True)
class Count:
    """How many there are of a kind."""

    kind: str
    count: int


class Tally:
    """Counts what is new and remembers the rest; all of it is counted once, when it is first asked for."""

    def __init__(self, count_since: Callable[[int], Transaction[Sequence[Count]]]) -> None:
        """``count_since`` counts those of an instant, in ms, and later ones."""
        self._count_since = count_since
        self._before: tuple[int, Counter[str]] = (0, Counter())
        """An instant, and how many there were before it."""

    def total(self, now_ms: int) -> Transaction[Counter[str]]:
        """Return how many there are of each kind, as a part of a transaction."""
        since_ms, before = self._before
        total = before + _by_kind((yield from self._count_since(since_ms)))
        if now_ms - LATE_MS > since_ms:
            new = _by_kind((yield from self._count_since(now_ms - LATE_MS)))
            # Both together: of two who ask side by side each leaves what is true.
            self._before = (now_ms - LATE_MS, total - new)
        return total


def _by_kind(counts: Sequence[Count]) -> Counter[str]:
    return Counter({one.kind: one.count for one in counts})
