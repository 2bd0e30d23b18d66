"""Money on its way back: durable rows, tried until Stripe has taken them, under one idempotency key each."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import anyio
import structlog
from sqlalchemy import ColumnElement, and_, update
from sqlmodel import col, select

from dispatch import request_store
from dispatch.due_work import DueWork
from dispatch.money.stripe_api import StripeApi, StripeRefund
from dispatch.outbox import Message, Outbox
from infra.clock import Clock
from infra.database import Database
from models.errors import StripeRefused, StripeUnavailable, Unavailable
from models.settings import DispatchSettings
from models.tables import Refund

ATTEMPT_LEASE_MS = 15_000
"""Longer than an attempt may take, so that two nodes do not ask Stripe at once; a dead node's attempt is repeated after it."""
AT_ONCE = 4

OUTCOMES = {"succeeded": "succeeded", "failed": "failed", "canceled": "failed"}
"""Stripe's final statuses (docs.stripe.com/api/refunds/object) in the contract's words; others are still pending."""


def retry_delay_ms(attempts: int, settings: DispatchSettings) -> int:
    """Return how long to wait after ``attempts`` failed ones: exponential, bounded (contract: first within two seconds)."""
    doublings = min(attempts - 1, math.ceil(math.log2(settings.refund_retry_max_ms / settings.refund_retry_first_ms)))
    return min(settings.refund_retry_first_ms * 2**doublings, settings.refund_retry_max_ms)


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
        self._due = DueWork("refunds", claim=self._claim_due, work=self._ask, at_once=AT_ONCE)
        self._log = structlog.get_logger("refunds")
        outbox.on("refund_owed", self._wake)

    async def run(self) -> None:
        """Ask for what is due until cancelled; a new refund is asked for at once, others are looked for twice a second."""
        await self._due.run()

    async def confirm(self, stripe_refund_id: str) -> None:
        """Take note of what Stripe says of a refund (after a webhook). Repeating is harmless."""
        now = await self._stripe.refund_now(stripe_refund_id)
        async with self._database.read() as session:
            # By what we wrote on it: the webhook may overtake the answer that tells us Stripe's own id.
            refund = await session.get(Refund, now.ours) if now.ours else None
            if refund is None:
                refund = (await session.exec(select(Refund).where(Refund.stripe_refund_id == now.id))).first()
        if refund is not None and refund.status != "failed":
            await self._settle(refund, stripe_refund_id, now.status)

    async def _wake(self, _payloads: Sequence[Mapping[str, Any]]) -> None:
        self._due.wake()

    async def ask_all(self) -> list[Refund]:
        """Ask Stripe at once for every refund that is owed, whenever it would be its turn; return those that ended by it.

        For a restart and for the reconciler: whoever had claimed one may have died. Two who ask at once share the idempotency key.
        """
        asked: list[str] = []
        while batch := await self._claim_next(asked[-1] if asked else ""):
            async with anyio.create_task_group() as tasks:
                for refund in batch:
                    tasks.start_soon(self._ask, refund)
            asked += [refund.id for refund in batch]
        async with self._database.read() as session:
            ended = await session.exec(select(Refund).where(col(Refund.id).in_(asked), Refund.status != "pending"))
            return list(ended)

    async def _claim_due(self, count_max: int) -> Sequence[Refund]:
        is_due = col(Refund.next_attempt_at_ms) <= self._clock.now_ms()
        return await self._claim(count_max, is_due, col(Refund.next_attempt_at_ms))

    async def _claim_next(self, after_id: str) -> Sequence[Refund]:
        is_next = and_(col(Refund.next_attempt_at_ms).is_not(None), col(Refund.id) > after_id)
        return await self._claim(AT_ONCE, is_next, col(Refund.id))

    async def _claim(self, count_max: int, which: ColumnElement[bool], order: ColumnElement[Any]) -> Sequence[Refund]:
        async with self._database.read() as session:
            ids = (await session.exec(select(Refund.id).where(which).order_by(order).limit(count_max))).all()
        if not ids:
            return []
        async with self._database.write() as session:
            # The condition is checked again: of two nodes, one claims each.
            claimed = await session.exec(
                update(Refund)
                .where(col(Refund.id).in_(ids), which)
                .values(next_attempt_at_ms=self._clock.now_ms() + ATTEMPT_LEASE_MS, attempts=Refund.attempts + 1)
                .returning(Refund)
            )
            return sorted(claimed.scalars(), key=lambda refund: refund.id)

    async def _ask(self, refund: Refund) -> None:
        try:
            answer = await self._ask_stripe(refund)
            await self._settle(refund, answer.id, answer.status)
        except StripeRefused as error:
            if error.code == "charge_already_refunded":
                # Somebody gave it back in Stripe's dashboard: the customer has their money.
                await self._settle(refund, None, "succeeded")
                return
            self._log.error("refund_refused", refund_id=refund.id, error=str(error))
            await self._retry_later(refund)
        except StripeUnavailable:
            await self._retry_later(refund)
        except Unavailable as error:
            # The lease ends by itself, and the idempotency key makes asking again harmless.
            self._log.warning("refund_not_noted", refund_id=refund.id, error=str(error))

    async def _ask_stripe(self, refund: Refund) -> StripeRefund:
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

    async def _retry_later(self, refund: Refund) -> None:
        delay_ms = retry_delay_ms(refund.attempts, self._settings)
        try:
            async with self._database.write() as session:
                await session.exec(
                    update(Refund)
                    .where(col(Refund.id) == refund.id, col(Refund.next_attempt_at_ms).is_not(None))
                    .values(next_attempt_at_ms=self._clock.now_ms() + delay_ms)
                )
        except Unavailable as error:
            self._log.warning("refund_not_noted", refund_id=refund.id, error=str(error))

    async def _settle(self, refund: Refund, stripe_refund_id: str | None, stripe_status: str | None) -> None:
        status = OUTCOMES.get(stripe_status or "", "pending")
        now_ms = self._clock.now_ms()
        messages: list[Message] = []
        async with self._database.write() as session:
            if refund.request_id is not None:
                await request_store.lock(session, [refund.request_id])
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
                details = {"amount_cents": refund.amount_cents}
                await request_store.record(session, refund.request_id, event, details, now_ms=now_ms)
                messages = [Message.of("request_changed", request_id=refund.request_id, tell=[])]
                await self._outbox.add(session, messages)
        self._log.info("refund", refund_id=refund.id, status=status, amount_cents=refund.amount_cents)
        self._outbox.post(messages)
