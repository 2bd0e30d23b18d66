"""A mechanic's duty: switched by hand, by a break that is over, or by the end of the session after which they wanted to stop.

    on duty ──by hand, back_in_s──────────────────────► off duty, on a break ──its end──► on duty
    on duty, off_after_session ──the session ends, however it does──► off duty

Whatever is set by hand replaces what was planned before. The hours that are paid (``DutyInterval``) begin and end in the very
transactions that change the switch. Duty is that switch: it stays on while no app is connected, as its mechanic can still be woken,
and a new mechanic's is on from the beginning.

A node of the version before changes the switch and counts no hours, and nobody can tell afterwards when it did. Hours that it began
are not counted; hours that it ended are counted until the mechanic was last heard of, and closed there when they begin anew.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dispatch.due_work import Claimed, DueWork
from dispatch.eligibility import Standing
from dispatch.failures import Patience
from dispatch.notices import FactsChanged
from dispatch.outbox import Message, Outbox
from dispatch.stored import SQL, Named
from infra.clock import Clock
from infra.database import Database
from infra.loops import note_failure
from infra.statements import Nothing, Statement, Transaction
from models.errors import Unavailable
from models.outcomes import NotFound, Refused
from models.settings import DispatchSettings
from models.wire import BREAK_S_MAX, BREAK_S_MIN
from presence.facts import READ_FACTS
from presence.liveness import Facts

SIDE_BY_SIDE: Final = 10
"""Breaks that this node ends at a time."""
FAILING_LEN_MAX: Final = 1_000
"""Mechanics whose breaks could not be ended that this node remembers, newest kept."""
REOPEN_MS: Final = 1_000
"""Who is on duty again within it was never off, to their hours: a switch that flaps must not fill the table."""


@dataclass(frozen=True)
class Begun:
    """A row of ``begin_duty`` and ``reopen_duty``: the interval that is open now."""

    id: int


@dataclass(frozen=True)
class NextBreak:
    """The row of ``next_break``: when the next break is over; ``None`` if nobody is on one."""

    at_ms: int | None


SET_ON_DUTY = Statement(SQL / "set_on_duty.sql", Facts)
PLAN_DUTY = Statement(SQL / "plan_duty.sql", Facts)
DUE_BREAKS = Statement(SQL / "due_breaks.sql", Named)
NEXT_BREAK = Statement(SQL / "next_break.sql", NextBreak)
END_BREAK = Statement(SQL / "end_break.sql", Facts)
REOPEN_DUTY = Statement(SQL / "reopen_duty.sql", Begun)
BEGIN_DUTY = Statement(SQL / "begin_duty.sql", Begun)
END_DUTY = Statement(SQL / "end_duty.sql", Nothing)
END_FORGOTTEN_DUTY = Statement(SQL / "end_forgotten_duty.sql", Nothing)


class NotInSession(Exception):
    """There is no session to go off duty after; roll back."""


class Duty:
    """Changes the switch, for mechanics and when their breaks are over."""

    def __init__(self, *, database: Database, clock: Clock, outbox: Outbox, settings: DispatchSettings) -> None:
        self._database = database
        self._clock = clock
        self._outbox = outbox
        self._patience = Patience.of(settings)
        self._failing: OrderedDict[str, tuple[int, int]] = OrderedDict()
        """How often the end of a mechanic's break has failed, and until when (ms) to leave it alone."""
        self._breaks = DueWork(
            "breaks", claim=self._due, work=self._end_break, failed=self._not_ended, side_by_side=SIDE_BY_SIDE
        )

    async def run(self) -> None:
        """End breaks on time until cancelled."""
        await self._breaks.run()

    async def set(
        self, mechanic_id: str, on_duty: bool, *, back_in_s: int | None = None, off_after_session: bool = False
    ) -> Standing | Refused:
        """Remember whether the mechanic wants to be asked, and what is to follow by itself; idempotent but for ``back_in_s``.

        ``back_in_s``, with off duty: for how long. ``off_after_session``, with on duty: until the session that they are in ends.
        """
        if (refused := _contradiction(on_duty, back_in_s, off_after_session)) is not None:
            return refused
        now_ms = self._clock.now_ms()
        back_at_ms = None if back_in_s is None else now_ms + back_in_s * 1000
        wanted = {
            "mechanic_id": mechanic_id,
            "on_duty": on_duty,
            "back_at_ms": back_at_ms,
            "off_after_session": off_after_session,
        }

        def work() -> Transaction[tuple[list[Facts], list[Message]]]:
            facts = yield from SET_ON_DUTY(**wanted)
            if facts and on_duty:
                yield from _begin(mechanic_id, now_ms)
            elif facts:
                yield from END_DUTY(mechanic_id=mechanic_id, at_ms=now_ms)
            else:
                facts = yield from PLAN_DUTY(**wanted)
            if not facts:
                return (yield from READ_FACTS(ids=[mechanic_id])), []
            if off_after_session and not facts[0].is_busy:
                raise NotInSession
            return facts, (yield from self._told(facts))

        try:
            facts, messages = await self._database.commit(work())
        except NotInSession:
            return Refused("not_in_session", "You are in no session that you could go off duty after.")
        self._outbox.post(messages)
        return standing_of(facts[0]) if facts else NotFound("mechanic_not_found", "There is no such mechanic.")

    def _told(self, facts: Sequence[Facts]) -> Transaction[list[Message]]:
        messages = [Message.of(FactsChanged(one.mechanic_id, one)) for one in facts]
        yield from self._outbox.add(messages)
        return messages

    # --- breaks -------------------------------------------------------------------------------------------------------

    async def _due(self, count_max: int) -> Claimed[Named]:
        """Look for breaks that are over. Nobody claims one: of several nodes that end it, one finds the row as it was."""
        now_ms = self._clock.now_ms()
        skip = {mechanic_id: until_ms for mechanic_id, (_, until_ms) in self._failing.items() if until_ms > now_ms}

        def work() -> Transaction[tuple[list[Named], list[NextBreak]]]:
            found = yield from DUE_BREAKS(now_ms=now_ms, limit=count_max + len(skip))
            # A break is longer than it takes until somebody looks again: whoever looks knows of each in time.
            return found, (yield from NEXT_BREAK(now_ms=now_ms))

        found, [after] = await self._database.query(work())
        soonest_ms = min([*skip.values(), *([] if after.at_ms is None else [after.at_ms])], default=None)
        return Claimed(
            [one for one in found if one.id not in skip][:count_max],
            next_in_ms=None if soonest_ms is None else soonest_ms - now_ms,
        )

    async def _end_break(self, mechanic: Named) -> None:
        now_ms = self._clock.now_ms()

        def work() -> Transaction[list[Message]]:
            facts = yield from END_BREAK(mechanic_id=mechanic.id, now_ms=now_ms)
            if not facts:
                return []
            yield from _begin(mechanic.id, now_ms)
            return (yield from self._told(facts))

        self._outbox.post(await self._database.commit(work()))
        self._failing.pop(mechanic.id, None)

    async def _not_ended(self, mechanic: Named, error: Exception) -> None:
        """Leave a break alone for a while that cannot be ended though the world is well."""
        if isinstance(error, Unavailable):
            return
        note_failure("breaks", error, mechanic_id=mechanic.id)
        failures = self._failing.pop(mechanic.id, (0, 0))[0] + 1
        self._failing[mechanic.id] = (failures, self._clock.now_ms() + self._patience.delay_ms(failures))
        if len(self._failing) > FAILING_LEN_MAX:
            self._failing.popitem(last=False)


def standing_of(facts: Facts) -> Standing:
    """Return what dispatch knows of a mechanic, of what SQL does."""
    return Standing(
        facts.on_duty, facts.is_busy, facts.version, facts.types_off, facts.back_at_ms, facts.off_after_session
    )


def _begin(mechanic_id: str, now_ms: int) -> Transaction[None]:
    """Begin to count hours, in the transaction that has just switched the mechanic's duty on."""
    if (yield from REOPEN_DUTY(mechanic_id=mechanic_id, since_ms=now_ms - REOPEN_MS, at_ms=now_ms)):
        return
    if not (yield from BEGIN_DUTY(mechanic_id=mechanic_id, at_ms=now_ms)):
        # Still open: a node of the version before has switched it off.
        yield from END_FORGOTTEN_DUTY(mechanic_id=mechanic_id, at_ms=now_ms)
        yield from BEGIN_DUTY(mechanic_id=mechanic_id, at_ms=now_ms)


def _contradiction(on_duty: bool, back_in_s: int | None, off_after_session: bool) -> Refused | None:
    if back_in_s is not None and on_duty:
        return Refused("invalid_availability", "back_in_s is for going off duty: on_duty must be false.")
    if back_in_s is not None and not BREAK_S_MIN <= back_in_s <= BREAK_S_MAX:
        return Refused("invalid_availability", f"back_in_s must be between {BREAK_S_MIN} and {BREAK_S_MAX}.")
    if off_after_session and not on_duty:
        return Refused(
            "invalid_availability", "off_after_session is for staying on duty until then: on_duty must be true."
        )
    return None
