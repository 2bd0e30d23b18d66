"""Older payment pages for a choice that has a newer one: expired at Stripe, so that nobody pays twice.

The newer page is open and shown before any of this happens, so nothing here can slow a checkout down or fail it. What could
not be done at once (Stripe was away, this node died) is found again by the reconciler: it follows from the rows alone.
"""

from collections.abc import Sequence

import structlog
from sqlalchemy import and_, or_
from sqlalchemy.orm import aliased
from sqlmodel import col, select

from dispatch.due_work import DueWork
from dispatch.money.payments import Change, Payments
from dispatch.money.stripe_api import StripeApi
from infra.clock import Clock
from infra.database import Database
from models.errors import PitlaneError, StripeRefused
from models.tables import IS_OPEN_CHECKOUT, Checkout

NOTED_MAX = 1000
"""Beyond it the reconciler finds them."""
SIDE_BY_SIDE = 4
BATCH = 100
"""Pages that are looked for together."""


class Superseded:
    """Expires what ``note`` was told of, in the background."""

    def __init__(self, *, database: Database, clock: Clock, stripe_api: StripeApi, payments: Payments) -> None:
        self._database = database
        self._clock = clock
        self._stripe = stripe_api
        self._payments = payments
        self._noted: set[str] = set()
        self._due = DueWork(
            "superseded", claim=self._take, work=self._expire_of, failed=self._leave, side_by_side=SIDE_BY_SIDE
        )
        self._log = structlog.get_logger("superseded")

    def note(self, customer_id: str) -> None:
        """Look, soon, for older pages of this customer, who has just been given a newer one; never waits."""
        if len(self._noted) >= NOTED_MAX:
            self._log.warning("superseded_left_to_reconciler", customer_id=customer_id)
            return
        self._noted.add(customer_id)
        self._due.wake()

    async def run(self) -> None:
        """Expire what is noted until cancelled."""
        await self._due.run()

    async def _take(self, count_max: int) -> Sequence[str]:
        return [self._noted.pop() for _ in range(min(count_max, len(self._noted)))]

    async def _expire_of(self, customer_id: str) -> None:
        for session_id in await self.left_open(customer_id):
            await self.expire(session_id)

    async def _leave(self, customer_id: str, error: Exception) -> None:
        """Leave a customer's older pages to the reconciler."""
        if not isinstance(error, PitlaneError):
            raise error
        self._log.warning("superseded_not_expired_yet", customer_id=customer_id, error=str(error))

    async def left_open(self, customer_id: str | None = None) -> Sequence[str]:
        """Return the Sessions of superseded pages that may still be open (of one customer, or some of all)."""
        newer = aliased(Checkout)
        supersedes = (
            col(newer.customer_id) == Checkout.customer_id,
            col(newer.plan_id) == Checkout.plan_id,
            col(newer.routing_type) == Checkout.routing_type,
            col(newer.preferred_mechanic_id).is_not_distinct_from(Checkout.preferred_mechanic_id),
            col(newer.stripe_session_id).is_not(None),
            # By the one clock of all nodes; ids only decide between equals. Said twice, as an index takes the simple half.
            col(newer.created_at_ms) >= Checkout.created_at_ms,
            or_(
                col(newer.created_at_ms) > Checkout.created_at_ms,
                and_(col(newer.created_at_ms) == Checkout.created_at_ms, col(newer.id) > Checkout.id),
            ),
        )
        # Looked up for each open page, the newest first: PostgreSQL would make a join of EXISTS, and read all checkouts for it.
        newest = select(newer.id).where(*supersedes).order_by(col(newer.created_at_ms).desc()).limit(1)
        query = (
            select(Checkout.stripe_session_id)
            .where(
                IS_OPEN_CHECKOUT,
                col(Checkout.stripe_session_id).is_not(None),
                # Nobody can pay on a page whose time is over.
                col(Checkout.expires_at_ms) > self._clock.now_ms(),
                newest.scalar_subquery().is_not(None),
            )
            .limit(BATCH)
        )
        if customer_id is not None:
            query = query.where(Checkout.customer_id == customer_id)
        async with self._database.read() as session:
            return [session_id for session_id in await session.exec(query) if session_id is not None]

    async def expire(self, stripe_session_id: str) -> Change | None:
        """Expire a page at Stripe; one that was paid in this very moment is served instead. Idempotent.

        Raises ``StripeUnavailable``.
        """
        try:
            expired = await self._stripe.expire_session(stripe_session_id)
        except StripeRefused:
            # Only open ones can be expired: what it is instead, its Session tells.
            return await self._payments.fulfil(stripe_session_id)
        return await self._payments.settle(expired)
