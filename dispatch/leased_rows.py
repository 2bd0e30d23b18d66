"""Rows that any node may work on, one node at a time: the one way behind the outbox, Stripe's events and refunds.

Each row falls due at an instant of its own. Whoever claims it moves that instant on by a lease: nobody else takes it meanwhile, and
what a dead node had claimed is taken over when the lease has ended. Work must therefore be idempotent.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, and_, literal_column, update
from sqlalchemy.orm import Mapped
from sqlmodel import col, select

from dispatch.failures import WORK, Failures, Patience
from infra.clock import Clock
from infra.database import Database
from models.errors import Unavailable
from models.tables import MayFail

Row = TypeVar("Row")


class LeasedRows(Generic[Row]):
    """One table's rows, claimed as ``Row``. Every method raises ``DatabaseUnavailable``; a claim then simply ends."""

    def __init__(
        self,
        table: type[MayFail],
        *,
        due: str,
        row: Callable[..., Row],
        columns: Sequence[Mapped[Any] | ColumnElement[Any]],
        database: Database,
        clock: Clock,
        lease_ms: int,
        patience: Patience,
        counts_attempts: bool = True,
    ) -> None:
        """``due`` names the column of when a row falls due. ``row`` makes of ``columns`` what is worked on; only these are read,
        because a value elsewhere that makes no sense must not fail a claim.

        ``counts_attempts``: whether the table counts claims in ``attempts``.
        """
        self._table = table
        self._due_name = due
        self._due: ColumnElement[int | None] = getattr(table, due)
        self._is_open = WORK[table].is_open
        self._row = row
        self._columns = columns
        self._database = database
        self._clock = clock
        self._lease_ms = lease_ms
        self._patience = patience
        self._counts_attempts = counts_attempts
        self._failures = Failures(table, database=database, clock=clock, patience=patience, due=due)

    async def claim(
        self,
        count_max: int,
        *,
        which: ColumnElement[bool] | None = None,
        order_by: Mapped[Any] | None = None,
        skip: Collection[str] = (),
    ) -> list[Row]:
        """Claim at most ``count_max`` open rows: those that are due, or those of ``which``; by id unless ``order_by`` says else.

        ``skip``: ids to leave alone.
        """
        now_ms = self._clock.now_ms()
        wanted = and_(self._is_open, self._due <= now_ms if which is None else which)
        async with self._database.read() as session:
            order = col(self._table.id) if order_by is None else order_by
            found = await session.exec(
                select(self._table.id).where(wanted).order_by(order).limit(count_max + len(skip))
            )
            ids = [row_id for row_id in found if row_id not in skip][:count_max]
        if not ids:
            return []
        values: dict[str, Any] = {self._due_name: now_ms + self._lease_ms}
        if self._counts_attempts:
            values["attempts"] = literal_column("attempts") + 1
        async with self._database.write() as session:
            claimed = await session.exec(
                # The condition is checked again: of two nodes that saw the same rows, one claims each.
                update(self._table)
                .where(col(self._table.id).in_(ids), wanted)
                .values(**values)
                .returning(col(self._table.id), *self._columns)
                .execution_options(synchronize_session=False)
            )
            by_id = {row_id: self._row(*columns) for row_id, *columns in claimed}
        return [by_id[row_id] for row_id in ids if row_id in by_id]

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
