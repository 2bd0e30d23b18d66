"""A mechanic's hours, day by day: stretches of time are cut at midnight (UTC) and summed. Pure; instants are ms since the epoch.

Days are whole numbers here, counted from 1970-01-01: UTC has no other lengths of them.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final

from models.rest import DayHours

DAY_MS: Final = 86_400_000
EPOCH: Final = date(1970, 1, 1).toordinal()


@dataclass(frozen=True)
class Stretch:
    """From when until when something lasted; what has not ended lasts until now."""

    started_at_ms: int
    ended_at_ms: int


@dataclass(frozen=True)
class Session(Stretch):
    """A session from its start to its end; ``earned_cents`` is what it is worth once it is completed."""

    is_completed: bool
    earned_cents: int
    currency: str


def day_number(day: date) -> int:
    """Return which day it is."""
    return day.toordinal() - EPOCH


def by_day(stretch: Stretch, first: int, last: int) -> Iterator[tuple[int, int]]:
    """Yield how long the stretch lasted on each of its days from ``first`` to ``last``: the day, and ms, more than none."""
    start_ms = max(stretch.started_at_ms, first * DAY_MS)
    end_ms = min(stretch.ended_at_ms, (last + 1) * DAY_MS)
    while start_ms < end_ms:
        day = start_ms // DAY_MS
        cut_ms = min(end_ms, (day + 1) * DAY_MS)
        yield day, cut_ms - start_ms
        start_ms = cut_ms


def add_up(sums_ms: defaultdict[int, int], stretches: Iterable[Stretch], first: int, last: int) -> None:
    """Add to each day's sum how long the stretches lasted on it."""
    for stretch in stretches:
        for day, lasted_ms in by_day(stretch, first, last):
            sums_ms[day] += lasted_ms


def hours(
    on_duty_ms: Mapping[int, int], sessions: Iterable[Session], *, first: int, last: int, currency: str
) -> list[DayHours]:
    """Return every day from ``first`` to ``last``, the oldest first, with what there is of it; see ``DayHours``.

    ``on_duty_ms`` is as ``add_up`` makes it; ``currency`` is said on days on which no session was completed.
    """
    in_session_ms: defaultdict[int, int] = defaultdict(int)
    earned: defaultdict[int, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for session in sessions:
        for day, lasted_ms in by_day(session, first, last):
            in_session_ms[day] += lasted_ms
        if session.is_completed:
            earned[session.ended_at_ms // DAY_MS][session.currency].append(session.earned_cents)
    found: list[DayHours] = []
    for day in range(first, last + 1):
        text = date.fromordinal(EPOCH + day).isoformat()
        on_duty_s, in_session_s = on_duty_ms.get(day, 0) // 1000, in_session_ms[day] // 1000
        for name, sums in sorted(earned[day].items()) or [(currency, [])]:
            found.append(DayHours(text, on_duty_s, in_session_s, len(sums), sum(sums), name))
            # Once for each day: whoever adds the entries up must not count an hour twice.
            on_duty_s = in_session_s = 0
    return found
