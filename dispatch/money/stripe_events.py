"""The inbox for Stripe's webhooks: verify, store, answer; work afterwards, until it is done.

Stripe may send an event twice, late and in any order, and waits for the answer (docs.stripe.com/webhooks). So an event is stored
under its id, which is unique, before it is answered, and whatever the work costs comes after the answer, on any node.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, fields

import msgspec
import structlog

from dispatch.due_work import DueWork
from dispatch.failures import Patience
from dispatch.leased_rows import LeasedRows
from dispatch.money.bookkeeping import SQL
from dispatch.money.fulfilment import is_other_mode
from dispatch.money.stripe_api import StripeApi
from dispatch.stored import Named
from infra.clock import Clock
from infra.database import Database
from infra.statements import Nothing, Statement
from models.outcomes import Refused
from models.tables import StripeEvent

SIDE_BY_SIDE = 6
"""Leaves most of the connections to the database to the doors, also when all of these wait for a lock."""
LEASE_MS = 15_000
"""Longer than one event's work usually takes, so that two nodes do not do it twice; a dead node's is done again after it."""
RETRY_FIRST_MS = 500
RETRY_MAX_MS = 60_000
FAILURES_MAX = 10
"""Some three minutes: what Stripe still does not know then (a Session of another account, say) it will not know later."""

STORE_EVENT = Statement(SQL / "store_event.sql", Named)
FINISH_EVENT = Statement(SQL / "finish_event.sql", Nothing)


@dataclass(frozen=True)
class UnfinishedEvent:
    """What is needed of an event's row to work on it."""

    id: str
    type: str
    object_id: str | None
    payment_intent_id: str | None
    """Of which payment its object is; ``None``: of none, or from a version that did not keep it."""
    attempts: int


Handle = Callable[[UnfinishedEvent], Awaitable[None]]
"""Called with an event; must be idempotent."""


class StripeEvents:
    """Stored events, each handed to ``handle`` until that has succeeded once."""

    def __init__(self, database: Database, clock: Clock, stripe_api: StripeApi, handle: Handle) -> None:
        self._database = database
        self._clock = clock
        self._stripe = stripe_api
        self._handle = handle
        self._unfinished: LeasedRows[UnfinishedEvent] = LeasedRows(
            StripeEvent,
            look=Statement(SQL / "due_events.sql", Named),
            due="next_attempt_at_ms",
            row=UnfinishedEvent,
            columns=[getattr(StripeEvent, field.name) for field in fields(UnfinishedEvent)],
            database=database,
            clock=clock,
            lease_ms=LEASE_MS,
            patience=Patience(RETRY_FIRST_MS, RETRY_MAX_MS, FAILURES_MAX),
        )
        self._due = DueWork(
            "stripe_events",
            claim=self._claim_due,
            work=self._work_on,
            failed=self._put_off,
            side_by_side=SIDE_BY_SIDE,
        )
        self._log = structlog.get_logger("stripe_events")

    async def receive(self, payload: bytes, signature: str | None) -> Refused | None:
        """Store a verified event and return; the work comes afterwards. An event seen before is fine."""
        event = self._stripe.verified_event(payload, signature or "")
        if isinstance(event, Refused):
            if event.code != "bad_signature":
                self._log.error("event_not_readable", length=len(payload))
            return event
        if is_other_mode(self._stripe.is_live, event.livemode):
            # Genuine, and sent to a live address on purpose (docs.stripe.com/connect/webhooks): refusing it would make Stripe
            # repeat it for days.
            self._log.warning("event_of_the_other_mode", event_id=event.id, type=event.type)
            return None
        row = UnfinishedEvent(event.id, event.type, event.data.object.id, event.payment_intent_id, attempts=1)
        # If there is room for it, it is stored as claimed: whoever finds it then need not look for it first.
        is_claimed = self._due.reserve()
        is_started = False
        try:
            now_ms = self._clock.now_ms()
            stored = await self._database.commit(
                STORE_EVENT(
                    id=row.id,
                    type=row.type,
                    object_id=row.object_id,
                    payment_intent_id=row.payment_intent_id,
                    payload=msgspec.json.encode({"created": event.created, "livemode": event.livemode}).decode(),
                    at_ms=now_ms,
                    attempts=int(is_claimed),
                    due_at_ms=now_ms + (LEASE_MS if is_claimed else 0),
                )
            )
            if stored and is_claimed:
                self._due.start(row)
                is_started = True
            elif stored:
                self._due.wake()
        finally:
            if is_claimed and not is_started:
                self._due.give_back()
        return None

    async def run(self) -> None:
        """Work on what has arrived, until cancelled: immediately, and again with exponential backoff after a failure."""
        await self._due.run()

    async def _claim_due(self, count_max: int) -> Sequence[UnfinishedEvent]:
        return await self._unfinished.claim(count_max)

    async def _put_off(self, event: UnfinishedEvent, error: Exception) -> None:
        await self._unfinished.failed(event.id, error, attempts=event.attempts)

    async def _work_on(self, event: UnfinishedEvent) -> None:
        await self._handle(event)
        await self._database.commit(FINISH_EVENT(id=event.id, at_ms=self._clock.now_ms()))
