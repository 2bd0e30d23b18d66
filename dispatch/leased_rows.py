"""Rows that any node may work on, one node at a time: the one way behind the outbox, Stripe's events and refunds.

Each row falls due at an instant of its own. Whoever claims it moves that instant on by a lease: nobody else takes it meanwhile, and
what a dead node had claimed is taken over when the lease has ended. Work must therefore be idempotent.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, and_, bindparam, case, func, literal_column, update
from sqlalchemy.orm import Mapped
from sqlmodel import col, select

from dispatch.due_work import Claimed
from dispatch.failures import FAILURES_MAX, WORK, Failures, Patience
from dispatch.stored import Named
from infra.clock import Clock
from infra.database import Database
from infra.loops import in_halves
from infra.statements import Statement, Transaction, Written
from models.errors import Unavailable
from models.tables import MayFail

Row = TypeVar("Row")


@dataclass(frozen=True)
class Next:
    """When the next row falls due; ``None`` if none will."""

    at_ms: int | None


@dataclass(frozen=True)
class Found:
    """Rows that are due, and when the next one will be; ``None`` if none will, or nobody has looked."""

    ids: Sequence[str]
    next_at_ms: int | None


class LeasedRows(Generic[Row]):
    """One table's rows, claimed as ``Row``. Every method raises ``DatabaseUnavailable``; a claim then simply ends."""

    def __init__(
        self,
        table: type[MayFail],
        *,
        look: Statement[Named],
        due: str,
        row: Callable[..., Row],
        columns: Sequence[Mapped[Any] | ColumnElement[Any]],
        database: Database,
        clock: Clock,
        lease_ms: int,
        patience: Patience,
        counts_attempts: bool = True,
        looks_ahead: bool = True,
    ) -> None:
        """``look`` finds the rows that are open and due (``:now_ms``, ``:limit``), ``due`` names the column of when one falls due.
        ``row`` makes of ``columns`` what is worked on; only these are read, because a value elsewhere that makes no sense must not
        fail a claim.

        ``counts_attempts``: whether the table counts claims in ``attempts``. ``looks_ahead``: whether a claim tells when the next
        row falls due.
        """
        self._table = table
        self._look = look
        self._due_name = due
        self._due: ColumnElement[int | None] = getattr(table, due)
        self._is_open = WORK[table].is_open
        after_now = select(func.min(self._due)).where(self._is_open, self._due > bindparam("now_ms"))
        self._next = Statement(Written(f"next_of_{table.__tablename__}", str(after_now)), Next)
        self._row = row
        self._columns = columns
        self._database = database
        self._clock = clock
        self._lease_ms = lease_ms
        self._patience = patience
        self._counts_attempts = counts_attempts
        self._looks_ahead = looks_ahead
        self._failures = Failures(table, database=database, clock=clock, patience=patience, due=due)

    async def claim(
        self,
        count_max: int,
        *,
        which: ColumnElement[bool] | None = None,
        skip: Collection[str] = (),
    ) -> Claimed[Row]:
        """Claim at most ``count_max`` open rows that are due. ``skip``: ids to leave alone.

        With ``which``, those rows instead, due or not, in the order of their ids, so that a caller can go through all of them.
        """
        now_ms, next_in_ms = self._clock.now_ms(), None
        if which is None:
            # Every idle node looks now and again: so it is cheap, and does not stand in line to write.
            found = await self._database.query(self._find(now_ms, count_max, skip))
            ids = found.ids
            if found.next_at_ms is not None:
                next_in_ms = found.next_at_ms - now_ms
        else:
            async with self._database.read() as session:
                ids = list(
                    await session.exec(
                        select(self._table.id)
                        .where(self._is_open, which)
                        .order_by(col(self._table.id))
                        .limit(count_max)
                    )
                )
        claimed: dict[str, Row] = {}

        async def claim(together: Sequence[str]) -> None:
            claimed.update(await self._claim(together, which, now_ms))

        # A row that cannot even be read is found by halves, and counted like one that cannot be worked on.
        await in_halves(ids, claim, self._unreadable)
        return Claimed((claimed[row_id] for row_id in ids if row_id in claimed), next_in_ms=next_in_ms)

    def _find(self, now_ms: int, count_max: int, skip: Collection[str]) -> Transaction[Found]:
        due = yield from self._look(now_ms=now_ms, limit=count_max + len(skip))
        ids = [row.id for row in due if row.id not in skip][:count_max]
        if len(ids) == count_max or not self._looks_ahead:
            return Found(ids, None)
        [after] = yield from self._next(now_ms=now_ms)
        return Found(ids, after.at_ms)

    async def _claim(self, ids: Sequence[str], which: ColumnElement[bool] | None, now_ms: int) -> dict[str, Row]:
        wanted = and_(self._is_open, self._due <= now_ms if which is None else which)
        values: dict[str, Any] = {self._due_name: now_ms + self._lease_ms}
        if self._counts_attempts:
            attempts: ColumnElement[int] = literal_column("attempts")
            values["attempts"] = case((attempts.between(0, FAILURES_MAX), attempts + 1), else_=1)
        async with self._database.write() as session:
            rows = await session.exec(
                # The condition is checked again: of two nodes that saw the same rows, one claims each.
                update(self._table)
                .where(col(self._table.id).in_(ids), wanted)
                .values(**values)
                .returning(col(self._table.id), *self._columns)
                .execution_options(synchronize_session=False)
            )
            return {row_id: self._row(*columns) for row_id, *columns in rows}

    async def _unreadable(self, row_id: str, error: Exception) -> None:
        await self._failures.count(row_id, error)

    async def all_failed(self, failures: Sequence[tuple[str, Exception]]) -> None:
        """Count what waiting does not mend, for many rows together."""
        await self._failures.count_all(failures)

    async def failed(self, row_id: str, error: Exception, *, attempts: int = 1) -> None:
        """Put a row off after ``attempts`` claims that came to nothing; what waiting does not mend is counted against it."""
        if not isinstance(error, Unavailable):
            await self._failures.count(row_id, error)
            return
        async with self._database.write() as session:
            await session.exec(
                update(self._table)
                .where(col(self._table.id) == row_id, self._is_open)
                .values({self._due_name: self._clock.now_ms() + self._patience.delay_ms(attempts)})
                .execution_options(synchronize_session=False)
            )
