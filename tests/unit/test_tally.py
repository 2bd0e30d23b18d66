"""Counting what is only ever added to, without counting all of it each time."""

from collections import Counter
from collections.abc import Sequence

import pytest

from dispatch.reading.tally import LATE_MS, Count, Tally
from infra.statements import Call, Transaction, drive

DAY_MS = 24 * 3600 * 1000


class Past:
    """What there is, each with its instant; notes from when on it was counted."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int]] = []
        self.counted_since: list[int] = []

    def count_since(self, since_ms: int) -> Transaction[Sequence[Count]]:
        self.counted_since.append(since_ms)
        yield from ()
        kinds = Counter(kind for kind, at_ms in self.rows if at_ms >= since_ms)
        return [Count(kind, count) for kind, count in kinds.items()]


def refuse(_call: Call) -> list[Sequence[object]]:
    pytest.fail("nothing is asked here")


def test_all_is_counted_once_and_then_only_what_is_new():
    past = Past()
    tally = Tally(past.count_since)
    past.rows = [("completed", at_ms) for at_ms in range(100)] + [("cancelled", DAY_MS)]
    assert drive(tally.total(2 * DAY_MS), refuse) == {"completed": 100, "cancelled": 1}
    assert past.counted_since[0] == 0
    past.counted_since.clear()
    past.rows += [("cancelled", 2 * DAY_MS + 1), ("unfilled", 3 * DAY_MS)]
    for _ in range(2):
        assert drive(tally.total(3 * DAY_MS), refuse) == {"completed": 100, "cancelled": 2, "unfilled": 1}
    assert min(past.counted_since) == 2 * DAY_MS - LATE_MS


def test_what_appears_a_while_after_its_instant_counts_and_nothing_counts_twice():
    past = Past()
    tally = Tally(past.count_since)
    for count in range(1, 50):
        now_ms = DAY_MS + count * LATE_MS // 2
        # Another node's clock is behind, and its commit has taken a while.
        past.rows.append(("completed", now_ms - LATE_MS + 1))
        assert drive(tally.total(now_ms), refuse) == {"completed": count}
        assert drive(tally.total(now_ms - 1_000), refuse) == {"completed": count}, "a clock that was set back"
