"""The inbox for Stripe's webhooks: verify, store, answer; work afterwards, until it is done.

Stripe may send an event twice, late and in any order, and waits for the answer (docs.stripe.com/webhooks). So an event is stored
under its id, which is unique, before it is answered, and whatever the work costs comes after the answer, on any node.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select

from dispatch.due_work import DueWork
from dispatch.money.fulfilment import is_other_mode
from dispatch.money.stripe_api import StripeApi
from infra.clock import Clock
from infra.database import Database
from models.errors import StripeRefused, Unavailable
from models.outcomes import Refused
from models.tables import StripeEvent

AT_ONCE = 6
"""Leaves most of the connections to the database to the doors, also when all of these wait for a lock."""
LEASE_MS = 15_000
"""Longer than one event's work may take, so that two nodes do not do it at once; a dead node's is done again after it."""
RETRY_FIRST_MS = 500
RETRY_MAX_MS = 60_000
REFUSED_TRIES_MAX = 10
"""Some five minutes: what Stripe still does not know then (a Session of another account, say) it will not know later."""

Handle = Callable[[str, str], Awaitable[None]]
"""Called with an event's type and the id of its object; must be idempotent."""


class StripeEvents:
    """Stored events, each handed to ``handle`` until that has succeeded once."""

    def __init__(self, database: Database, clock: Clock, stripe_api: StripeApi, handle: Handle) -> None:
        self._database = database
        self._clock = clock
        self._stripe = stripe_api
        self._handle = handle
        self._due = DueWork("stripe_events", claim=self._claim_due, work=self._work_on, at_once=AT_ONCE)
        self._log = structlog.get_logger("stripe_events")

    async def receive(self, payload: bytes, signature: str | None) -> Refused | None:
        """Store a verified event and return; the work comes afterwards. An event seen before is fine."""
        event = self._stripe.verified_event(payload, signature) if signature else None
        if event is None:
            return Refused("bad_signature", "The Stripe-Signature header does not match the body, or is too old.")
        if is_other_mode(self._stripe.is_live, event.livemode):
            # Genuine, and sent to a live address on purpose (docs.stripe.com/connect/webhooks): refusing it would make Stripe
            # repeat it for days.
            self._log.warning("event_of_the_other_mode", event_id=event.id, type=event.type)
            return None
        now_ms = self._clock.now_ms()
        try:
            async with self._database.write() as session:
                session.add(
                    StripeEvent(
                        id=event.id,
                        type=event.type,
                        object_id=event.data.object.id,
                        payload={"created": event.created, "livemode": event.livemode},
                        received_at_ms=now_ms,
                        next_attempt_at_ms=now_ms,
                    )
                )
        except IntegrityError:
            return None
        self._due.wake()
        return None

    async def run(self) -> None:
        """Work on what has arrived, until cancelled: at once, and again with exponential backoff while the world is broken."""
        await self._due.run()

    async def _claim_due(self, count_max: int) -> list[StripeEvent]:
        now_ms = self._clock.now_ms()
        waiting = (
            col(StripeEvent.processed_at_ms).is_(None),
            col(StripeEvent.next_attempt_at_ms) <= now_ms,
        )
        async with self._database.read() as session:
            due = select(StripeEvent.id).where(*waiting).order_by(StripeEvent.received_at_ms)
            ids = (await session.exec(due.limit(count_max))).all()
        if not ids:
            return []
        async with self._database.write() as session:
            claimed = await session.exec(
                update(StripeEvent)
                .where(col(StripeEvent.id).in_(ids), *waiting)
                .values(next_attempt_at_ms=now_ms + LEASE_MS, attempts=StripeEvent.attempts + 1)
                .returning(StripeEvent)
            )
            return list(claimed.scalars())

    async def _work_on(self, event: StripeEvent) -> None:
        values: dict[str, Any] = {}
        try:
            await self._handle(event.type, event.object_id or "")
        except (Unavailable, StripeRefused) as error:
            if isinstance(error, StripeRefused) and event.attempts >= REFUSED_TRIES_MAX:
                self._log.error("event_given_up", event_id=event.id, type=event.type, error=str(error))
            else:
                self._log.warning("event_not_worked_on_yet", event_id=event.id, type=event.type, error=str(error))
                delay_ms = min(RETRY_FIRST_MS * 2 ** min(event.attempts, 10), RETRY_MAX_MS)
                values = {"next_attempt_at_ms": self._clock.now_ms() + delay_ms}
        try:
            async with self._database.write() as session:
                done = values or {"processed_at_ms": self._clock.now_ms()}
                await session.exec(update(StripeEvent).where(col(StripeEvent.id) == event.id).values(**done))
        except Unavailable as error:
            # Its lease ends by itself, and working on it again is harmless.
            self._log.warning("event_not_noted", event_id=event.id, error=str(error))
