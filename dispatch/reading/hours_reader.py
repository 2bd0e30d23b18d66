"""A mechanic's hours, from what is kept: their duty in intervals of its own, their sessions in the requests themselves.

A request keeps when its session began and ended, and a mechanic has one at a time (a unique index):
a second account of the same would be one that can differ.
"""

from collections import defaultdict
from datetime import date
from typing import Final

from dispatch.hours import DAY_MS, Session, Stretch, add_up, day_number, hours
from dispatch.money.plans import USUAL_CURRENCY, usual
from dispatch.stored import SQL
from infra.clock import Clock
from infra.database import Database
from infra.statements import Statement, Transaction
from models.outcomes import Refused
from models.rest import Hours

DAYS_MAX: Final = 92
"""A quarter of a year."""
DAYS_USUAL: Final = 7
SLICE_LEN: Final = 500
"""Intervals read at a time: others have their turn between two slices, however often a switch was moved."""


DUTY_OF = Statement(SQL / "duty_of.sql", Stretch)
SESSIONS_WORKED = Statement(SQL / "sessions_worked.sql", Session)


class HoursReader:
    """Reads from SQL; raises ``DatabaseUnavailable``."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def hours_of(self, mechanic_id: str, first_day: date | None, last_day: date | None) -> Hours | Refused:
        """Return the mechanic's days from the first to the last, both included (UTC); without either, the last seven."""
        now_ms = self._clock.now_ms()
        last = now_ms // DAY_MS if last_day is None else day_number(last_day)
        first = max(last - DAYS_USUAL + 1, day_number(date.min)) if first_day is None else day_number(first_day)
        if first > last:
            return Refused("validation_failed", "The first day must not be after the last.", member="from")
        if last - first >= DAYS_MAX:
            return Refused("validation_failed", f"At most {DAYS_MAX} days at a time.", member="from")
        within = {
            "mechanic_id": mechanic_id,
            "from_ms": first * DAY_MS,
            "until_ms": (last + 1) * DAY_MS,
            "now_ms": now_ms,
        }

        def work() -> Transaction[Hours]:
            on_duty_ms: defaultdict[int, int] = defaultdict(int)
            after_ms = -1
            while True:
                duty = yield from DUTY_OF(**within, after_ms=after_ms, limit=SLICE_LEN)
                add_up(on_duty_ms, duty, first, last)
                if len(duty) < SLICE_LEN:
                    break
                after_ms = duty[-1].started_at_ms
            sessions = yield from SESSIONS_WORKED(**within)
            currency = usual((yield from USUAL_CURRENCY()))
            return Hours(hours(on_duty_ms, sessions, first=first, last=last, currency=currency))

        return await self._database.query(work())
