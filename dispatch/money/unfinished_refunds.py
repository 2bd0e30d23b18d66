"""What is to go back and has not arrived, for operators: on their page, at their command and in the metrics."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

from infra.database import Database
from infra.metrics import DISPUTES_OPEN, REFUNDS_UNFINISHED
from infra.statements import Statement
from models.words import RefundProgress

UNFINISHED_MAX: Final = 100
"""As many as an operator is shown."""


@dataclass(frozen=True)
class UnfinishedRefund:
    """A row of ``unfinished_refunds``: money that is to go back. ``left_cents`` of ``amount_cents`` nobody has moved yet."""

    id: str
    request_id: str | None
    """``None``: of a payment that was never dispatched."""
    status: str
    currency: str
    amount_cents: int
    left_cents: int
    on_its_way_cents: int
    is_disputed: bool
    is_set_aside: bool
    attempts: int
    cause: str
    last_error: str | None

    @property
    def state(self) -> RefundProgress:
        """Return what it waits for."""
        if self.status == "failed" or self.is_set_aside:
            return "failed"
        if self.is_disputed:
            return "held"
        return "on_its_way" if self.on_its_way_cents and self.left_cents <= 0 else "owed"


@dataclass(frozen=True)
class UnfinishedCount:
    """A row of ``count_unfinished``."""

    state: RefundProgress
    count: int


@dataclass(frozen=True)
class Disputes:
    """A row of ``open_disputes``."""

    count: int


@dataclass(frozen=True)
class OpenDispute:
    """A row of ``list_disputes``."""

    dispute_id: str
    payment_intent_id: str
    request_id: str | None
    amount_cents: int
    currency: str
    status: str


SQL = Path(__file__).parent / "sql"
LIST_DISPUTES = Statement(SQL / "list_disputes.sql", OpenDispute)
UNFINISHED_REFUNDS = Statement(SQL / "unfinished_refunds.sql", UnfinishedRefund)
COUNT_UNFINISHED = Statement(SQL / "count_unfinished.sql", UnfinishedCount)
OPEN_DISPUTES = Statement(SQL / "open_disputes.sql", Disputes)


async def measure(database: Database) -> None:
    """Tell the metrics what is to go back, and what is disputed. Raises ``DatabaseUnavailable``."""
    found = {row.state: row.count for row in await database.query(COUNT_UNFINISHED())}
    for state in get_args(RefundProgress):
        REFUNDS_UNFINISHED.labels(state).set(found.get(state, 0))
    [disputes] = await database.query(OPEN_DISPUTES())
    DISPUTES_OPEN.set(disputes.count)


async def unfinished(database: Database) -> AsyncIterator[UnfinishedRefund]:
    """Tell all that is to go back and has not arrived: what the ledgers lack of what they should say."""
    after = ""
    while page := await database.query(UNFINISHED_REFUNDS(after=after, limit=UNFINISHED_MAX)):
        for refund in page:
            yield refund
        after = page[-1].id
