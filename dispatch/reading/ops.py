"""What operators see: what is open, what is owed, and how much there is of everything.

An operator's page asks every few seconds, so nothing here may cost more when years have passed. What an index is chosen by is
written into its statement and is no parameter: PostgreSQL keeps a plan for whatever is asked for.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import cast

from sqlalchemy import literal_column
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from dispatch.failures import WORK
from dispatch.money.unfinished_refunds import LIST_DISPUTES, UNFINISHED_MAX, UNFINISHED_REFUNDS
from dispatch.outbox import Outbox
from dispatch.reading.tally import Count, Tally
from dispatch.stored import READ_REQUESTS, SQL
from dispatch.views import request_view
from infra.clock import Clock
from infra.database import Database, within
from infra.loops import dying_loops, in_halves, note_failure
from infra.statements import Statement, Transaction
from models import tables
from models.ids import first_id_at
from models.rest import DisputeView, NodeState, OpsSnapshot, OwedRefundView, SetAside
from models.timestamps import rfc3339
from models.wire import RequestView
from models.words import RefundStatus, Role
from presence.service import Presence

OPEN_REQUESTS_MAX = 50
REPORTED_MAX = 50
SET_ASIDE_MAX = 50
"""Of each kind of work."""

COUNT_SETTLED = Statement(SQL / "count_settled.sql", Count)
COUNT_OPEN = Statement(SQL / "count_open.sql", Count)
COUNT_ACCOUNTS = Statement(SQL / "count_accounts.sql", Count)
COUNT_OUTBOX = Statement(SQL / "count_outbox.sql", Count)


class OpsReader:
    """Counts and lists for operators."""

    def __init__(self, *, database: Database, clock: Clock, presence: Presence, outbox: Outbox) -> None:
        self._database = database
        self._clock = clock
        self._presence = presence
        self._outbox = outbox
        self._settled = Tally(lambda since_ms: COUNT_SETTLED(since_ms=since_ms))
        self._accounts = Tally(lambda since_ms: COUNT_ACCOUNTS(since_id=first_id_at(since_ms)))

    async def snapshot(self) -> OpsSnapshot:
        """Return all of it as of now; of lists, the newest requests and the oldest refunds that are owed."""
        async with self._database.read() as session:
            counts = await within(session, self._counts())
            unfinished = await within(session, UNFINISHED_REFUNDS(after="", limit=UNFINISHED_MAX))
            refunds = [
                OwedRefundView(
                    refund_id=refund.id,
                    request_id=refund.request_id,
                    status=cast(RefundStatus, refund.status),
                    amount_cents=refund.amount_cents,
                    attempts=refund.attempts,
                    cause=refund.cause,
                    currency=refund.currency,
                    left_cents=max(0, refund.left_cents),
                    state=refund.state,
                    last_error=refund.last_error,
                )
                for refund in unfinished
            ]
            disputes = await within(session, LIST_DISPUTES(limit=UNFINISHED_MAX))
            ids = await session.exec(
                select(tables.SessionRequest.id)
                .where(col(tables.SessionRequest.settled_at_ms).is_(None))
                .order_by(col(tables.SessionRequest.id).desc())
                .limit(OPEN_REQUESTS_MAX)
            )
            open_requests = await self._views(session, list(ids))
            reported = await session.exec(
                select(tables.TimelineEntry.request_id)
                .where(col(tables.TimelineEntry.event) == literal_column("'reported'"))
                .order_by(col(tables.TimelineEntry.id).desc())
                .limit(REPORTED_MAX)
            )
            reported_requests = await self._views(session, list(reported))
            set_aside = await _set_aside(session)
        counts["mechanics_available"] = await self._presence.available_count()
        return OpsSnapshot(
            at=rfc3339(self._clock.now_ms()),
            counts=counts,
            open_requests=open_requests,
            refunds_owed=refunds,
            disputes=[DisputeView(**asdict(dispute)) for dispute in disputes],
            reported_requests=reported_requests,
            set_aside=set_aside,
            node=NodeState(self._outbox.depth, dying_loops()),
        )

    async def knows_refund(self, refund_id: str) -> bool:
        """Tell whether there is, or was, such a refund."""
        async with self._database.read() as session:
            return await session.get(tables.Refund, refund_id) is not None

    def _counts(self) -> Transaction[dict[str, int]]:
        now_ms = self._clock.now_ms()
        requests = yield from self._settled.total(now_ms)
        requests.update({one.kind: one.count for one in (yield from COUNT_OPEN())})
        accounts = yield from self._accounts.total(now_ms)
        [outbox] = yield from COUNT_OUTBOX()
        counts = {f"requests_{status}": count for status, count in requests.items()}
        return counts | {
            "mechanics": accounts[Role.MECHANIC],
            "accounts": accounts.total(),
            "outbox": outbox.count,
        }

    async def _views(self, session: AsyncSession, request_ids: Sequence[str]) -> list[RequestView]:
        """Return the views of all requests that can be shown: one that cannot must not hide the others from an operator."""
        views: dict[str, RequestView] = {}

        async def show(together: Sequence[str]) -> None:
            for row in await within(session, READ_REQUESTS(ids=list(together))):
                views[row.id] = request_view(row, now_ms=self._clock.now_ms(), for_operators=True)

        async def leave_out(request_id: str, error: Exception) -> None:
            note_failure("ops_snapshot", error, request_id=request_id)

        await in_halves(request_ids, show, leave_out)
        return [views[request_id] for request_id in request_ids if request_id in views]


async def _set_aside(session: AsyncSession) -> list[SetAside]:
    """Return what is set aside and still open, the newest of each kind of work first."""
    found: list[SetAside] = []
    for table, work in WORK.items():
        rows = await session.exec(
            select(table.id, table.failures, col(table.last_error), col(table.set_aside_at_ms))
            .where(col(table.set_aside_at_ms).is_not(None), work.is_open)
            .order_by(col(table.set_aside_at_ms).desc())
            .limit(SET_ASIDE_MAX)
        )
        found += [
            SetAside(work.name, row_id, failures, error or "", rfc3339(at_ms))
            for row_id, failures, error, at_ms in rows
            if at_ms is not None
        ]
    return found
