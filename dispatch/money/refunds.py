"""Money on its way back: durable rows, tried until Stripe has taken them, under one idempotency key each."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import anyio
import structlog
from sqlalchemy import ColumnElement, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from dispatch import request_store
from dispatch.due_work import DueWork
from dispatch.failures import Patience
from dispatch.leased_rows import LeasedRows
from dispatch.money.stripe_api import StripeApi, StripeRefund
from dispatch.notices import RefundOwed
from dispatch.outbox import Message, Outbox
from dispatch.request import Details
from dispatch.stored import SQL, Named
from infra.clock import Clock
from infra.database import Database, within
from infra.statements import Statement
from models.errors import StripeRefused
from models.settings import DispatchSettings
from models.tables import Refund

ATTEMPT_LEASE_MS = 15_000
"""Longer than an attempt usually takes, so that two nodes do not ask Stripe side by side; a dead node's is repeated after it."""
SIDE_BY_SIDE = 4

OUTCOMES = {"succeeded": "succeeded", "failed": "failed", "canceled": "failed"}
"""Stripe's final statuses (docs.stripe.com/api/refunds/object) in the contract's words; others are still pending."""


@dataclass(frozen=True)
class OwedRefund:
    """What is needed of a refund's row to ask for it and to take note of the answer."""

    id: str
    checkout_id: str
    request_id: str | None
    payment_intent_id: str
    amount_cents: int
    cause: str
    status: str
    stripe_refund_id: str | None
    attempts: int


COLUMNS = [getattr(Refund, field.name) for field in fields(OwedRefund)]


def patience(settings: DispatchSettings) -> Patience:
    """Return how an owed refund is tried again: exponentially, bounded, for ever (contract: first within two seconds)."""
    return Patience(settings.refund_retry_first_ms, settings.refund_retry_max_ms, settings.failures_max, gives_up=False)


class Refunds:
    """Asks Stripe for every refund that is owed, and takes note of what became of it."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        outbox: Outbox,
        stripe_api: StripeApi,
        settings: DispatchSettings,
    ) -> None:
        self._database = database
        self._clock = clock
        self._outbox = outbox
        self._stripe = stripe_api
        self._settings = settings
        self._owed: LeasedRows[OwedRefund] = LeasedRows(
            Refund,
            look=Statement(SQL / "due_refunds.sql", Named),
            due="next_attempt_at_ms",
            row=OwedRefund,
            columns=COLUMNS,
            database=database,
            clock=clock,
            lease_ms=ATTEMPT_LEASE_MS,
            patience=patience(settings),
        )
        self._due = DueWork(
            "refunds", claim=self._claim_due, work=self._ask, failed=self._put_off, side_by_side=SIDE_BY_SIDE
        )
        self._log = structlog.get_logger("refunds")
        outbox.on(self._wake, RefundOwed)

    async def run(self) -> None:
        """Ask for what is due until cancelled; a new refund is asked for at once, others are looked for twice a second."""
        await self._due.run()

    async def confirm(self, stripe_refund_id: str) -> None:
        """Take note of what Stripe says of a refund (after a webhook). Repeating is harmless."""
        now = await self._stripe.refund_now(stripe_refund_id)
        async with self._database.read() as session:
            # By what we wrote on it: the webhook may overtake the answer that tells us Stripe's own id.
            refund = await _found(session, col(Refund.id) == now.ours) if now.ours else None
            if refund is None:
                refund = await _found(session, col(Refund.stripe_refund_id) == now.id)
        if refund is not None and refund.status != "failed":
            await self._settle(refund, stripe_refund_id, now.status)

    async def _wake(self, _notices: Sequence[RefundOwed]) -> None:
        self._due.wake()

    async def ask_all(self) -> list[Refund]:
        """Ask Stripe at once for every refund that is owed, whenever it would be its turn; return those that ended by it.

        For a restart and for the reconciler: whoever had claimed one may have died. Two who ask side by side share
        the idempotency key.
        """
        asked: list[str] = []
        while batch := await self._owed.claim(SIDE_BY_SIDE, which=col(Refund.id) > (asked[-1] if asked else "")):
            async with anyio.create_task_group() as tasks:
                for refund in batch:
                    tasks.start_soon(self._due.work_on, refund)
            asked += [refund.id for refund in batch]
        async with self._database.read() as session:
            ended = await session.exec(select(Refund).where(col(Refund.id).in_(asked), Refund.status != "pending"))
            return list(ended)

    async def _claim_due(self, count_max: int) -> Sequence[OwedRefund]:
        return await self._owed.claim(count_max)

    async def _put_off(self, refund: OwedRefund, error: Exception) -> None:
        # Whatever became of the attempt, the idempotency key makes asking again harmless.
        await self._owed.failed(refund.id, error, attempts=refund.attempts)

    async def _ask(self, refund: OwedRefund) -> None:
        try:
            answer = await self._ask_stripe(refund)
        except StripeRefused as error:
            if error.code != "charge_already_refunded":
                raise
            # Somebody gave it back in Stripe's dashboard: the customer has their money.
            await self._settle(refund, None, "succeeded")
        else:
            await self._settle(refund, answer.id, answer.status)

    async def _ask_stripe(self, refund: OwedRefund) -> StripeRefund:
        if refund.stripe_refund_id is not None:
            # Asked for already and still on its way; the webhook that would tell of its end may never come.
            return await self._stripe.refund_now(refund.stripe_refund_id)
        return await self._stripe.refund(
            {
                "payment_intent": refund.payment_intent_id,
                "amount": refund.amount_cents,
                "metadata": {"refund_id": refund.id, "checkout_id": refund.checkout_id, "cause": refund.cause},
            },
            idempotency_key=f"refund:{refund.checkout_id}",
        )

    async def _settle(self, refund: OwedRefund, stripe_refund_id: str | None, stripe_status: str | None) -> None:
        status = OUTCOMES.get(stripe_status or "", "pending")
        now_ms = self._clock.now_ms()
        messages: list[Message] = []
        async with self._database.write() as session:
            if refund.request_id is not None:
                await within(session, request_store.LOCK_REQUESTS(ids=[refund.request_id]))
            if status == "pending":
                await session.exec(
                    update(Refund)
                    .where(col(Refund.id) == refund.id, col(Refund.status) == "pending")
                    .values(
                        stripe_refund_id=stripe_refund_id,
                        next_attempt_at_ms=now_ms + self._settings.refund_retry_max_ms,
                    )
                )
                return
            changed = await session.exec(
                update(Refund)
                # Also one that had succeeded: a bank may send it back weeks later (docs.stripe.com/refunds#failed-refunds).
                .where(col(Refund.id) == refund.id, col(Refund.status).in_(["pending", "succeeded"]))
                .where(col(Refund.status) != status)
                .values(
                    status=status,
                    stripe_refund_id=stripe_refund_id or refund.stripe_refund_id,
                    next_attempt_at_ms=None,
                    settled_at_ms=now_ms,
                )
                .returning(col(Refund.id))
            )
            if changed.first() is None:
                return
            if refund.request_id is not None:
                event = "refunded" if status == "succeeded" else "refund_failed"
                details: Details = {"amount_cents": refund.amount_cents}
                messages = await within(session, request_store.record(refund.request_id, event, details, now_ms=now_ms))
                await within(session, self._outbox.add(messages))
        self._log.info("refund", refund_id=refund.id, status=status, amount_cents=refund.amount_cents)
        self._outbox.post(messages)


async def _found(session: AsyncSession, which: ColumnElement[bool]) -> OwedRefund | None:
    row = (await session.exec(select(*COLUMNS).where(which))).first()
    return None if row is None else OwedRefund(*row)
