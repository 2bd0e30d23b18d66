"""Rows whose handling failed unexpectedly: counted, put off for longer each time, and in the end set aside for an operator.

``Unavailable`` is mended by waiting: it is no failure of the row and is not counted. Every other exception may come again each time
the row is handled. So it costs that row an attempt, and the others nothing. A row that is set aside stays where it is, with the
last error beside it; ``/api/ops/snapshot`` lists it and ``pitlane_items_set_aside_total`` counts it.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import ColumnElement, case, or_, true, update
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from dispatch.request import OPEN
from infra.clock import Clock
from infra.database import Database
from infra.metrics import ITEMS_FAILED, ITEMS_SET_ASIDE
from models.errors import PitlaneError
from models.settings import DispatchSettings
from models.tables import MayFail, Offer, OutboxMessage, PushSubscription, Refund, SessionRequest, StripeEvent

NEVER_MS = 9_000_000_000_000_000
"""When a row that is set aside falls due: after everybody's time, also by the clock of a version that knows nothing of this."""
ERROR_LEN_MAX = 300
LOGGED_MAX = 5
"""Of the rows that fail together, each with its error; of the others the log says how many they are."""
LEFT_ALONE_MAX = 10_000
"""Rows that a node leaves alone by itself; of more, the first ones are tried again at once."""
FAILURES_MAX = 1_000_000
"""As far as is counted: what is tried on for ever must not come to the end of an integer."""


@dataclass(frozen=True)
class Work:
    """What metrics, logs and the operator call the handling of a kind of row, and which rows there is still something to do for."""

    name: str
    is_open: ColumnElement[bool]


WORK: dict[type[MayFail], Work] = {
    OutboxMessage: Work("outbox", true()),
    StripeEvent: Work("stripe_events", col(StripeEvent.processed_at_ms).is_(None)),
    Refund: Work("refunds", col(Refund.next_attempt_at_ms).is_not(None)),
    Offer: Work("windows", col(Offer.closed_at_ms).is_(None)),
    # By its limit as well: its status may be a word that makes no sense here.
    SessionRequest: Work(
        "requests", or_(col(SessionRequest.status).in_(OPEN), col(SessionRequest.limit_id).is_not(None))
    ),
    PushSubscription: Work("push", true()),
}


@dataclass(frozen=True)
class Patience:
    """How long to leave a failing row alone, doubling from the first to the longest, and after how many failures to set it aside.

    ``gives_up`` ``False``: it is shown as set aside, and nevertheless tried again, because money hangs on it.
    """

    first_ms: int
    max_ms: int
    failures_max: int
    gives_up: bool = True

    @classmethod
    def of(cls, settings: DispatchSettings) -> "Patience":
        """Return the usual patience."""
        return cls(settings.failure_retry_first_ms, settings.failure_retry_max_ms, settings.failures_max)

    def delay_ms(self, failures: int) -> int:
        """Return how long to wait after that many failures (at least one)."""
        # The exponent is bounded, or after a long outage the power alone would be work.
        return min(self.first_ms << min(max(failures - 1, 0), 30), self.max_ms)


class Failures:
    """The failures of one table's rows."""

    def __init__(
        self,
        table: type[MayFail],
        *,
        database: Database,
        clock: Clock,
        patience: Patience,
        due: str | None = None,
    ) -> None:
        """``due`` names the column of when to try again, if there is one."""
        self._table = table
        self._database = database
        self._clock = clock
        self._patience = patience
        self._due = due
        self._is_open = WORK[table].is_open
        self._work = WORK[table].name
        self._log = structlog.get_logger(self._work)

    async def count(self, row_id: str, error: Exception) -> int | None:
        """Count a failure; return in how many ms to try again, or ``None`` if that is over or nothing is left to do.

        Raises ``DatabaseUnavailable``; then nothing was counted but in the metrics and the log.
        """
        return (await self.count_all([(row_id, error)]))[row_id]

    async def count_all(self, failures: Sequence[tuple[str, Exception]]) -> dict[str, int | None]:
        """Count the failures of many rows, in a few statements whatever their number; see ``count``."""
        self._say(failures)
        now_ms = self._clock.now_ms()
        ids_by_error: defaultdict[str, list[str]] = defaultdict(list)
        for row_id, error in failures:
            ids_by_error[_one_line(error)].append(row_id)
        delays_ms: dict[str, int | None] = dict.fromkeys(row_id for row_id, _ in failures)
        alike: defaultdict[tuple[tuple[str, int], ...], list[str]] = defaultdict(list)
        """Rows by what they get: when they fall due again, and since when they are set aside."""
        newly_aside: list[str] = []
        async with self._database.write() as session:
            for error_text, ids in ids_by_error.items():
                for row_id, count, set_aside_at_ms in await self._counted(session, ids, error_text):
                    is_set_aside = count >= self._patience.failures_max
                    if not (is_set_aside and self._patience.gives_up):
                        delays_ms[row_id] = self._patience.delay_ms(count)
                    values: dict[str, int] = {}
                    if self._due is not None:
                        delay_ms = delays_ms[row_id]
                        values[self._due] = NEVER_MS if delay_ms is None else now_ms + delay_ms
                    if is_set_aside and set_aside_at_ms is None:
                        values["set_aside_at_ms"] = now_ms
                        newly_aside.append(row_id)
                    alike[tuple(values.items())].append(row_id)
            for these, ids in alike.items():
                if these:
                    await session.exec(
                        update(self._table)
                        .where(col(self._table.id).in_(ids))
                        .values(**dict(these))
                        .execution_options(synchronize_session=False)
                    )
        if newly_aside:
            ITEMS_SET_ASIDE.labels(self._work).inc(len(newly_aside))
            self._log.error("items_set_aside", count=len(newly_aside), ids=newly_aside[:LOGGED_MAX])
        return delays_ms

    def _say(self, failures: Sequence[tuple[str, Exception]]) -> None:
        ITEMS_FAILED.labels(self._work).inc(len(failures))
        for row_id, error in failures[:LOGGED_MAX]:
            if isinstance(error, PitlaneError):
                # One of our own words is no bug, and strangers can bring it about: the sentence says all there is to say.
                self._log.warning("item_failed", id=row_id, error=_one_line(error))
            else:
                self._log.error("item_failed", id=row_id, error=_one_line(error), exc_info=error)
        if len(failures) > LOGGED_MAX:
            self._log.error("more_items_failed", count=len(failures) - LOGGED_MAX)

    async def _counted(
        self, session: AsyncSession, ids: Sequence[str], error_text: str
    ) -> Sequence[tuple[str, int, int | None]]:
        """Count one failure of each row; return id, failures, and since when it has been set aside."""
        counted = await session.exec(
            update(self._table)
            .where(col(self._table.id).in_(ids), self._is_open)
            .values(
                # Whatever stands there, counting must not fail by it.
                failures=case((col(self._table.failures).between(0, FAILURES_MAX), self._table.failures + 1), else_=1),
                last_error=error_text,
            )
            .returning(col(self._table.id), col(self._table.failures), col(self._table.set_aside_at_ms))
            .execution_options(synchronize_session=False)
        )
        return [(row_id, count, at_ms) for row_id, count, at_ms in counted]


class LeftAlone:
    """Rows that have failed and have no column of when to try again: each node leaves them alone for a while, and counts them."""

    def __init__(self, failures: Failures, *, clock: Clock, patience: Patience) -> None:
        self._failures = failures
        self._clock = clock
        self._patience = patience
        self._until_ms: OrderedDict[str, int] = OrderedDict()

    def is_due(self, row_id: str) -> bool:
        """Tell whether a row may be tried, for the first time or again."""
        return self._until_ms.get(row_id, 0) <= self._clock.now_ms()

    async def count_all(self, failures: Sequence[tuple[str, Exception]]) -> None:
        """Count failures, and leave the rows alone. Raises ``DatabaseUnavailable``; then they are due."""
        if not failures:
            return
        delays_ms = await self._failures.count_all(failures)
        now_ms = self._clock.now_ms()
        for row_id, delay_ms in delays_ms.items():
            self._until_ms.pop(row_id, None)
            self._until_ms[row_id] = now_ms + (self._patience.max_ms if delay_ms is None else delay_ms)
            if len(self._until_ms) > LEFT_ALONE_MAX:
                self._until_ms.popitem(last=False)


def _one_line(error: Exception) -> str:
    """Return an error's kind and first line: what follows, of a database's say, are the values it was about."""
    first_line = next(iter(str(error).splitlines()), "")
    # PostgreSQL stores no NUL, and no database half a surrogate pair: noting a failure must not fail by what failed.
    storable = f"{type(error).__name__}: {first_line}".replace("\0", "").encode(errors="backslashreplace").decode()
    return storable[:ERROR_LEN_MAX]
