"""What operators see: what is open, what is owed, and how much there is of everything."""

from collections.abc import Sequence

from sqlalchemy import func
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from dispatch.failures import WORK
from dispatch.outbox import Outbox
from dispatch.request import OPEN
from dispatch.stored import READ_REQUESTS
from dispatch.views import request_view
from infra.clock import Clock
from infra.database import Database, within
from infra.loops import dying_loops, in_halves, note_failure
from models import tables
from models.rest import NodeState, OpsSnapshot, OwedRefundView, SetAside
from models.timestamps import rfc3339
from models.wire import RequestView
from presence.service import Presence

OPEN_REQUESTS_MAX = 50
REFUNDS_MAX = 100
SET_ASIDE_MAX = 50
"""Of each kind of work."""


class OpsReader:
    """Counts and lists for operators."""

    def __init__(self, *, database: Database, clock: Clock, presence: Presence, outbox: Outbox) -> None:
        self._database = database
        self._clock = clock
        self._presence = presence
        self._outbox = outbox

    async def snapshot(self) -> OpsSnapshot:
        """Return all of it as of now; of lists, the newest requests and the oldest refunds that are owed."""
        async with self._database.read() as session:
            by_status = await session.exec(
                select(tables.SessionRequest.status, func.count()).group_by(tables.SessionRequest.status)
            )
            counts = {f"requests_{status}": count for status, count in by_status}
            for name, table in (
                ("mechanics", tables.Mechanic),
                ("accounts", tables.Account),
                ("outbox", tables.OutboxMessage),
            ):
                counts[name] = (await session.exec(select(func.count()).select_from(table))).one()
            owed = await session.exec(
                select(tables.Refund)
                .where(tables.Refund.status != "succeeded")
                .order_by(col(tables.Refund.id))
                .limit(REFUNDS_MAX)
            )
            refunds = [
                OwedRefundView(
                    refund_id=refund.id,
                    request_id=refund.request_id,
                    status=refund.status,
                    amount_cents=refund.amount_cents,
                    attempts=refund.attempts,
                    cause=refund.cause,
                )
                for refund in owed
            ]
            ids = await session.exec(
                select(tables.SessionRequest.id)
                .where(col(tables.SessionRequest.status).in_(OPEN))
                .order_by(col(tables.SessionRequest.id).desc())
                .limit(OPEN_REQUESTS_MAX)
            )
            open_requests = await self._views(session, list(ids))
            set_aside = await _set_aside(session)
        counts["mechanics_available"] = await self._presence.available_count()
        return OpsSnapshot(
            at=rfc3339(self._clock.now_ms()),
            counts=counts,
            open_requests=open_requests,
            refunds_owed=refunds,
            set_aside=set_aside,
            node=NodeState(self._outbox.depth, dying_loops()),
        )

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
