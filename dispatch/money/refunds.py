"""Money on its way back: durable rows, tried until the ledger says that all is back.

What is asked for is what is left of the payment, as Stripe says; so money that has gone back is never given back twice. An attempt
whose outcome nobody knows is repeated under its own idempotency key. One that Stripe has answered for good, or whose stored answer
keeps coming back (docs.stripe.com/api/idempotent_requests), is followed by another under the next key.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import anyio
from sqlmodel import col, select

from dispatch import request_store
from dispatch.due_work import DueWork
from dispatch.failures import Patience
from dispatch.leased_rows import LeasedRows
from dispatch.money.bookkeeping import SQL, Bookkeeping
from dispatch.money.ledger import Ask, Whereabouts
from dispatch.money.stripe_api import StripeApi
from dispatch.notices import RefundOwed
from dispatch.outbox import Message, Outbox
from dispatch.stored import READ_REQUESTS, Named
from infra.clock import Clock
from infra.database import Database
from infra.statements import Nothing, Statement, Transaction
from models.errors import StripeForbids, StripeRefused, StripeUnavailable, Unavailable
from models.settings import DispatchSettings
from models.tables import Refund

ATTEMPT_LEASE_MS = 15_000
"""Longer than an attempt usually takes, so that two nodes do not ask Stripe side by side; a dead node's is repeated after it."""
SIDE_BY_SIDE = 4

DISPUTED = "charge_disputed"
"""Stripe's word for a payment that a bank has asked for (docs.stripe.com/error-codes)."""
KEY_ERRORS_MAX = 2
"""After as many errors of Stripe's own under one key it is taken for a stored answer that would come back for a day."""
USED_UP = 1
"""As ``KEY_ERRORS_MAX`` where one answer is enough."""


@dataclass(frozen=True)
class OwedRefund:
    """What is needed of a refund's row to ask for it and to take note of the answer."""

    id: str
    checkout_id: str
    request_id: str | None
    payment_intent_id: str
    cause: str
    attempts: int
    key_number: int

    @property
    def idempotency_key(self) -> str:
        """What the attempt under way is asked for under; the first is the one of all earlier versions."""
        first = f"refund:{self.checkout_id}"
        return first if self.key_number == 1 else f"{first}:{self.key_number}"


@dataclass(frozen=True)
class Reserved:
    """A row of ``reserve_key``."""

    id: str
    asked_cents: int


COLUMNS = [getattr(Refund, field.name) for field in fields(OwedRefund)]
RESERVE_KEY = Statement(SQL / "reserve_key.sql", Reserved)
USE_UP_KEY = Statement(SQL / "use_up_key.sql", Nothing)
REQUEST_OF_REFUND = Statement(SQL / "request_of_refund.sql", Named)
RETRY_REFUND = Statement(SQL / "retry_refund.sql", Named)


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
        bookkeeping: Bookkeeping,
        settings: DispatchSettings,
    ) -> None:
        self._database = database
        self._clock = clock
        self._outbox = outbox
        self._stripe = stripe_api
        self._books = bookkeeping
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
        outbox.on(self._wake, RefundOwed)

    async def run(self) -> None:
        """Ask for what is due until cancelled: for a new refund at once, for others when it is their turn."""
        await self._due.run()

    async def retry(self, its_id: str) -> bool:
        """Ask for a refund once more, from the beginning, because an operator wants it: by its own id or its request's.

        ``False``: there is none such, or all is back.
        """

        def work() -> Transaction[list[Message]]:
            now_ms = self._clock.now_ms()
            request = yield from REQUEST_OF_REFUND(id=its_id)
            stored = (yield from request_store.load(request[0].id)) if request else None
            retried = yield from RETRY_REFUND(id=its_id, at_ms=now_ms)
            messages = [Message.of(RefundOwed(refund.id)) for refund in retried]
            yield from self._outbox.add(messages)
            if retried and stored is not None:
                # It reads otherwise now.
                [again] = yield from READ_REQUESTS(ids=[stored.id])
                told, _ = yield from request_store.carry_out([request_store.noted(again, [], {})], now_ms=now_ms)
                yield from self._outbox.add(told)
                messages += told
            return messages

        messages = await self._database.commit(work())
        self._outbox.post(messages)
        return bool(messages)

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
        if isinstance(error, StripeForbids):
            # Waiting does not mend that: an operator has to hear of it.
            await self._owed.all_failed([(refund.id, error)])
        else:
            await self._owed.failed(refund.id, error, attempts=refund.attempts)
        if refund.request_id is not None and (isinstance(error, StripeForbids) or not isinstance(error, Unavailable)):
            await self._tell_if_set_aside(refund.request_id)

    async def _tell_if_set_aside(self, request_id: str) -> None:
        """Let the customer know, once, that the money is not on its way: it is asked for on, and operators see it."""

        def work() -> Transaction[list[Message]]:
            stored = yield from request_store.load(request_id)
            if stored is None or not stored.refund_is_set_aside or stored.has_been_told("refund_failed"):
                return []
            now_ms = self._clock.now_ms()
            move = request_store.noted(stored, ["refund_failed"], {"amount_cents": stored.left_cents})
            messages, _ = yield from request_store.carry_out([move], now_ms=now_ms)
            yield from self._outbox.add(messages)
            return messages

        self._outbox.post(await self._database.commit(work()))

    async def _ask(self, refund: OwedRefund) -> None:
        """Ask Stripe for what is left of the payment; whatever has become of earlier attempts is looked up first."""
        now = await self._whereabouts(refund)
        if not isinstance(now, Ask):
            return
        reserved = await self._database.commit(RESERVE_KEY(id=refund.id, key_number=refund.key_number, cents=now.cents))
        if not reserved:
            # Another node has gone on to the next key meanwhile.
            raise StripeUnavailable("Another attempt at the same refund is under way.")
        try:
            entry = await self._stripe.refund(
                {
                    "payment_intent": refund.payment_intent_id,
                    "amount": reserved[0].asked_cents,
                    "metadata": {"refund_id": refund.id, "checkout_id": refund.checkout_id, "cause": refund.cause},
                },
                checkout_id=refund.checkout_id,
                idempotency_key=refund.idempotency_key,
            )
        except StripeUnavailable as error:
            if error.is_answer:
                await self._use_up_key(refund, USED_UP if error.is_replayed else KEY_ERRORS_MAX)
            raise
        except StripeRefused as error:
            # Stripe keeps a refusal under the key, and would repeat it when the reason for it has gone.
            await self._use_up_key(refund, USED_UP)
            # Others may have been faster, in the dashboard or at the bank. What a bank has taken a part of stays refused.
            now = await self._whereabouts(refund, is_told=True, is_refused_for_good=error.code == DISPUTED)
            if isinstance(now, Ask):
                raise
            return
        in_line = await self._books.note(refund.payment_intent_id, entry)
        if in_line is not None and isinstance(in_line.whereabouts, Ask):
            # Made, and yet something is left: of others' refunds one has failed meanwhile, or Stripe has repeated what it had
            # answered before, of a refund that has failed by now.
            await self._use_up_key(refund, USED_UP)
            raise StripeUnavailable("Something of the payment is left after a refund.")

    async def _whereabouts(
        self, refund: OwedRefund, *, is_told: bool = False, is_refused_for_good: bool = False
    ) -> Whereabouts | None:
        in_line = await self._books.bring_in_line(
            refund.payment_intent_id,
            is_refunded=is_told,
            is_disputed=is_told,
            is_refused_for_good=is_refused_for_good,
        )
        assert in_line is not None, "only what a checkout was paid with can be owed"
        return in_line.whereabouts

    async def _use_up_key(self, refund: OwedRefund, errors_max: int) -> None:
        await self._database.commit(USE_UP_KEY(id=refund.id, key_number=refund.key_number, errors_max=errors_max))
