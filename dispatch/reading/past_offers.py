"""What a mechanic was offered and how that ended: priority offers to them, broadcasts that were open while they were on duty, and
those that they took otherwise.

Two tables that grow are asked by their indexes alone. A broadcast has no row for each mechanic, so their duty leads to it: from the
newest interval back, each with the gap before it, in which a broadcast may have opened that was still open when they came.

    opened at     ├── gap ──┤├──── on duty ────┤├── gap ──┤├── on duty ──┤
                            started             ended      the next newer one

A page looks at so many intervals and no more; it may then be short, and say where to go on.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, cast

from dispatch.hours import Stretch
from dispatch.stored import SQL
from dispatch.views import word
from infra.clock import Clock
from infra.database import Database
from infra.statements import Statement, Transaction
from models.outcomes import Refused
from models.rest import PastOffer, PastOfferOutcome, PastOffers
from models.settings import DispatchSettings
from models.timestamps import rfc3339
from models.words import OfferKind, WithdrawReason

INTERVALS_MAX: Final = 50
"""Of duty, looked at for one page."""
LATE_MS: Final = 60_000
"""How long after its window a broadcast may close, that is still found from an interval which began only then."""
SESSION_MS_MAX: Final = 24 * 3_600_000
"""Sessions that began longer before an offer are not looked for among those that kept it from being shown."""
LOST: Final[Mapping[str, PastOfferOutcome]] = {
    "released": "given_back",
    "no_show": "no_show",
    "find_another": "find_another",
}
"""How an offer that was accepted ended, by why the mechanic is not asked again."""
BEGINNING: Final = Stretch(-1, -1)


@dataclass(frozen=True, order=True)
class Position:
    """Where an offer stands among all."""

    opened_at_ms: int
    id: str

    @property
    def cursor(self) -> str:
        """The position, to go on from it."""
        return f"{self.opened_at_ms}-{self.id}"

    @classmethod
    def at(cls, cursor: str) -> "Position | None":
        """Return the position of a cursor; ``None`` if it is none of ours."""
        at_ms, _, offer_id = cursor.partition("-")
        # As many digits as fit into SQL's integers.
        return cls(int(at_ms), offer_id) if at_ms.isascii() and at_ms.isdigit() and len(at_ms) <= 18 else None


@dataclass(frozen=True)
class _Found:
    """A row of the statements that look for offers."""

    id: str
    opened_at_ms: int


@dataclass(frozen=True)
class Slice:
    """Broadcasts opened from when until when; those count that were open after ``open_after_ms``."""

    from_ms: int
    until_ms: int
    open_after_ms: int


@dataclass(frozen=True)
class PastOfferRow:
    """A row of ``read_past_offers``; ``because`` and ``excluded_at_ms``: why and since when they are not asked again."""

    id: str
    request_id: str
    kind: str
    customer_name: str
    plan_id: str
    session_type: str
    duration_min: int
    plan_cents: int
    currency: str
    opened_at_ms: int
    closed_at_ms: int | None
    close_reason: str | None
    taken_by_id: str | None
    assigned_mechanic_id: str | None
    because: str | None
    excluded_at_ms: int | None


DUTY_BEFORE = Statement(SQL / "duty_before.sql", Stretch)
PAST_BROADCASTS = Statement(SQL / "past_broadcasts.sql", _Found)
PAST_PRIORITY_OFFERS = Statement(SQL / "past_priority_offers.sql", _Found)
TAKEN_BROADCASTS = Statement(SQL / "taken_broadcasts.sql", _Found)
DECLINED_BROADCASTS = Statement(SQL / "declined_broadcasts.sql", _Found)
READ_PAST_OFFERS = Statement(SQL / "read_past_offers.sql", PastOfferRow)


class PastOffersReader:
    """Reads from SQL; raises ``DatabaseUnavailable``."""

    def __init__(self, database: Database, clock: Clock, settings: DispatchSettings) -> None:
        self._database = database
        self._clock = clock
        self._reach_ms = settings.broadcast_window_ms + LATE_MS

    async def page_of(self, mechanic_id: str, *, cursor: str | None = None, limit: int = 20) -> PastOffers | Refused:
        """Return a page of the mechanic's, newest first; ``cursor`` is the page before's ``next_cursor``."""
        now_ms = self._clock.now_ms()
        before = Position(now_ms + 1, "") if cursor is None else Position.at(cursor)
        if before is None:
            return Refused("validation_failed", "This is the cursor of no page.", member="cursor")

        def work() -> Transaction[PastOffers]:
            found, reached_ms = yield from self._newest(mechanic_id, before, now_ms, limit + 1)
            page = found[:limit]
            rows = (yield from READ_PAST_OFFERS(mechanic_id=mechanic_id, ids=[one.id for one in page])) if page else []
            next_cursor = None
            if len(found) > limit:
                next_cursor = page[-1].cursor
            elif reached_ms:
                next_cursor = Position(reached_ms, "").cursor
            return PastOffers([view(row, mechanic_id) for row in rows], next_cursor)

        return await self._database.query(work())

    def _newest(
        self, mechanic_id: str, before: Position, now_ms: int, count: int
    ) -> Transaction[tuple[list[Position], int]]:
        """Return the newest ``count`` before a position, and until when (ms) was looked if that was not the whole past, else 0."""
        older = {"mechanic_id": mechanic_id, "before_ms": before.opened_at_ms, "before_id": before.id}
        duty = yield from DUTY_BEFORE(
            mechanic_id=mechanic_id, before_ms=before.opened_at_ms, now_ms=now_ms, limit=INTERVALS_MAX + 1
        )
        reached_ms = last_ms = 0
        broadcasts: list[_Found] = []
        for one in slices(duty, self._reach_ms):
            broadcasts += yield from PAST_BROADCASTS(
                **older,
                from_ms=one.from_ms,
                until_ms=one.until_ms,
                open_after_ms=one.open_after_ms,
                session_ms=SESSION_MS_MAX,
                limit=count - len(broadcasts),
            )
            if len(broadcasts) == count:
                break
            last_ms = one.from_ms
        else:
            if len(duty) > INTERVALS_MAX:
                reached_ms = last_ms
        within = {**older, "from_ms": reached_ms, "limit": count}
        own = yield from PAST_PRIORITY_OFFERS(**within)
        taken = yield from TAKEN_BROADCASTS(**within)
        declined = yield from DECLINED_BROADCASTS(**within)
        # What was taken on duty is found twice.
        found = {Position(one.opened_at_ms, one.id) for one in (*broadcasts, *own, *taken, *declined)}
        return sorted(found, reverse=True)[:count], reached_ms


def slices(duty: Sequence[Stretch], reach_ms: int) -> Iterator[Slice]:
    """Yield in which times broadcasts opened that were open on duty, the newest first; they do not overlap.

    ``duty`` is newest first; of more than ``INTERVALS_MAX`` intervals the last only says how far the gap before the others reaches.
    ``reach_ms``: for how long a broadcast is open at most.
    """
    for one, before in pairwise([*duty, BEGINNING] if len(duty) <= INTERVALS_MAX else duty):
        from_ms = max(before.ended_at_ms, one.started_at_ms - reach_ms)
        yield Slice(from_ms, one.ended_at_ms, one.started_at_ms)


def view(row: PastOfferRow, mechanic_id: str) -> PastOffer:
    """Return an offer as the mechanic sees it once it is over."""
    how = outcome(row, mechanic_id)
    closed_at_ms = row.opened_at_ms if row.closed_at_ms is None else row.closed_at_ms
    answered_at_ms = row.excluded_at_ms if how == "declined" else None
    return PastOffer(
        offer_id=row.id,
        request_id=row.request_id,
        kind=word(OfferKind, row.kind),
        customer_name=row.customer_name,
        plan=row.plan_id,
        session_type=row.session_type,
        duration_min=row.duration_min,
        price_cents=row.plan_cents,
        currency=row.currency,
        offered_at=rfc3339(row.opened_at_ms),
        ended_at=rfc3339(closed_at_ms if answered_at_ms is None else answered_at_ms),
        outcome=how,
    )


def outcome(row: PastOfferRow, mechanic_id: str) -> PastOfferOutcome:
    """Say how an offer ended for the mechanic."""
    lost = LOST.get(row.because or "")
    # A node of an earlier version does not note who took it; who has the request, or had it, most likely did.
    taker_id = row.taken_by_id or row.assigned_mechanic_id
    if row.close_reason == WithdrawReason.TAKEN and (
        taker_id == mechanic_id or (row.taken_by_id is None and lost is not None)
    ):
        return lost or "accepted"
    if row.because == "declined" and (
        row.excluded_at_ms is None or row.closed_at_ms is None or row.excluded_at_ms <= row.closed_at_ms
    ):
        return "declined"
    return cast(PastOfferOutcome, {"expired": "missed"}.get(row.close_reason or "", row.close_reason))
