"""The reconciler of money: compares what Stripe knows with what SQL knows, and finishes what was left behind.

At start it looks back over the days in which Stripe itself would still repeat a webhook; then, now and again, over the time
in which a page can be paid. Everything it does is idempotent, so that every node may do it, also beside the command.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal

import anyio
import msgspec
import structlog
from sqlalchemy import or_
from sqlmodel import col, select

from dispatch.money.bookkeeping import LOOK_AGAIN_MS, SQL, Bookkeeping, Kept
from dispatch.money.payments import Payments
from dispatch.money.refunds import Refunds
from dispatch.money.stripe_api import Listed, StripeApi
from dispatch.money.superseded import Superseded
from dispatch.money.unfinished_refunds import measure
from dispatch.stored import Named
from infra.clock import Clock
from infra.database import Database
from infra.loops import failing_alone
from infra.statements import Statement
from models.errors import StripeForbids, StripeRefused, Unavailable
from models.tables import IS_OPEN_CHECKOUT, Checkout

INTERVAL_S = 30.0
RETRY_FIRST_S = 1.0
LISTED_EVERY = 10
"""Passes, of which one looks through Stripe's list; the others ask for what is open here."""
LOOK_BACK_S = 3 * 24 * 3600
"""As long as Stripe repeats a webhook (docs.stripe.com/webhooks); at start, and by command."""
RECENT_S = 2 * 3600
"""Longer than a page can be open, for the passes after the first."""
OPEN_AGE_MS = 60_000
"""Younger ones are likely being paid just now, and their webhooks on their way."""
OVERDUE_MS = 5 * 60_000
BATCH = 50
MOVES: Final[tuple[Literal["refunds", "disputes"], ...]] = ("refunds", "disputes")
"""What others may have done to a payment, by the names of Stripe's lists."""


END_UNOPENED = Statement(SQL / "end_unopened.sql", Named)
TAKE_UNSETTLED = Statement(SQL / "take_unsettled.sql", Kept)
UNKNOWN_ENTRIES = Statement(SQL / "unknown_entries.sql", Kept)


@dataclass(frozen=True)
class Repair:
    """One thing that was found unfinished, and what it has become: a ``Change``, a refund's end, or how a payment stands."""

    found: str
    id: str
    became: str


class Reconciler:
    """Looks after payments and refunds that everybody else has forgotten."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        stripe_api: StripeApi,
        bookkeeping: Bookkeeping,
        payments: Payments,
        superseded: Superseded,
        refunds: Refunds,
    ) -> None:
        self._database = database
        self._clock = clock
        self._stripe = stripe_api
        self._books = bookkeeping
        self._payments = payments
        self._superseded = superseded
        self._refunds = refunds
        self._log = structlog.get_logger("reconciler")

    async def run(self) -> None:
        """Reconcile at start and periodically, until cancelled; sooner again while the world is broken."""
        passes, failures = 0, 0
        listed_until_ms = self._clock.now_ms() - (LOOK_BACK_S - RECENT_S) * 1000
        while True:
            with failing_alone("reconciler"):
                await self._measure()
            began_ms, look_back_s = self._clock.now_ms(), None
            if passes % LISTED_EVERY == 0:
                # However long Stripe was away: on from where the last list was complete.
                look_back_s = (began_ms - listed_until_ms) // 1000 + RECENT_S
            try:
                # Refunds are tried again by themselves, once those of the dead have been taken over.
                async for repair in self.repairs(look_back_s=look_back_s, with_refunds=passes == 0):
                    self._log.warning("reconciled", found=repair.found, id=repair.id, became=repair.became)
            except (StripeRefused, StripeForbids) as error:
                # A restricted key without the right to list, say: trying sooner would not help.
                self._log.error("not_reconciled", error=str(error))
            except Unavailable as error:
                self._log.warning("not_reconciled", error=str(error))
                failures += 1
                await anyio.sleep(min(INTERVAL_S, RETRY_FIRST_S * 2 ** min(failures - 1, 10)))
                continue
            else:
                if look_back_s is not None:
                    listed_until_ms = began_ms
            passes, failures = passes + 1, 0
            await anyio.sleep(INTERVAL_S)

    async def _measure(self) -> None:
        """Also, and above all, while Stripe is away."""
        try:
            await measure(self._database)
        except Unavailable as error:
            self._log.warning("not_measured", error=str(error))

    async def repairs(
        self, *, look_back_s: int | None = LOOK_BACK_S, with_refunds: bool = True
    ) -> AsyncIterator[Repair]:
        """Finish what can be found unfinished now, and tell each; ``look_back_s`` ``None`` leaves Stripe's list aside.

        Raises ``StripeUnavailable``, ``StripeRefused`` (a key that may not list) and ``DatabaseUnavailable``; what has been told
        is done.
        """
        if with_refunds:
            for refund in await self._refunds.ask_all():
                yield Repair("refund_owed", refund.id, refund.status)
        async for checkout_id, session_id in self._open_here():
            if (became := await self._known(self._payments.fulfil, session_id)) is not None:
                yield Repair("open_checkout_ended", checkout_id, became)
        for session_id in await self._superseded.left_open():
            if (became := await self._known(self._superseded.expire, session_id)) is not None:
                yield Repair("superseded_page_open", session_id, became)
        for checkout_id in await self._end_unopened():
            yield Repair("checkout_without_page", checkout_id, "expired")
        if look_back_s is not None:
            async for session_id in self._paid_at_stripe(look_back_s):
                if (became := await self._known(self._payments.fulfil, session_id)) is not None:
                    yield Repair("paid_session_not_fulfilled", session_id, became)
            for kind in MOVES:
                try:
                    moved = [intent_id async for intent_id in self._moved_at_stripe(kind, look_back_s)]
                except StripeForbids as error:
                    # What one right is missing for must not keep the rest from being looked for.
                    self._log.error("moves_not_listed", kind=kind, error=str(error))
                    continue
                for intent_id in moved:
                    if (became := await self._known(self._moved, intent_id)) is not None:
                        yield Repair("payment_moved_at_stripe", intent_id, became)
        async for intent_id in self._unsettled(with_all=with_refunds):
            if (became := await self._known(self._moved, intent_id)) is not None:
                yield Repair("payment_unsettled", intent_id, became)

    async def _known(self, do: Callable[[str], Awaitable[str | None]], stripe_id: str) -> str | None:
        # One that Stripe does not know (of another account, say), or that we do not understand, must not stand in the others' way.
        with failing_alone("reconciler", stripe_id=stripe_id):
            try:
                return await do(stripe_id)
            except (StripeRefused, StripeForbids) as error:
                self._log.error("not_reconciled", stripe_id=stripe_id, error=str(error))
        return None

    async def _moved(self, payment_intent_id: str) -> str | None:
        in_line = await self._books.bring_in_line(payment_intent_id, is_refunded=True, is_disputed=True)
        return None if in_line is None or not in_line.has_changed else in_line.word

    async def _unsettled(self, *, with_all: bool) -> AsyncIterator[str]:
        """Tell the payments of which something is on its way, or disputed: all, or some that were not looked at lately."""
        now_ms = self._clock.now_ms()
        before_ms = now_ms if with_all else now_ms - LOOK_AGAIN_MS
        while True:
            taken = await self._database.commit(TAKE_UNSETTLED(looked_before_ms=before_ms, at_ms=now_ms, limit=BATCH))
            for ledger in taken:
                yield ledger.payment_intent_id
            if not with_all or len(taken) < BATCH:
                return

    async def _moved_at_stripe(self, kind: Literal["refunds", "disputes"], look_back_s: int) -> AsyncIterator[str]:
        """Tell the payments of ours of which Stripe lists refunds or disputes that we have not been told of as they are now."""
        listed: list[Listed] = []
        async for one in self._stripe.moved_since(kind, self._clock.now_ms() // 1000 - look_back_s):
            listed.append(one)
            if len(listed) == BATCH:
                async for intent_id in self._unknown(listed):
                    yield intent_id
                listed = []
        async for intent_id in self._unknown(listed):
            yield intent_id

    async def _unknown(self, listed: list[Listed]) -> AsyncIterator[str]:
        entries = msgspec.json.encode([(one.id, one.payment_intent_id, one.status) for one in listed]).decode()
        for found in await self._database.query(UNKNOWN_ENTRIES(entries=entries)):
            yield found.payment_intent_id

    async def _paid_at_stripe(self, look_back_s: int) -> AsyncIterator[str]:
        """Tell the Sessions that Stripe has as paid and whose money we have not taken note of, whatever we know of them."""
        since_s, after = self._clock.now_ms() // 1000 - look_back_s, None
        while True:
            page, has_more = await self._stripe.complete_sessions(since_s=since_s, after=after)
            # Others on the same account at Stripe do not write our words on theirs.
            ours = [one.id for one in page if one.paid.is_paid and "checkout_id" in one.metadata]
            async with self._database.read() as session:
                noted = await session.exec(
                    select(Checkout.stripe_session_id).where(
                        col(Checkout.stripe_session_id).in_(ours),
                        or_(col(Checkout.payment_intent_id).is_not(None), col(Checkout.status) == "paid"),
                    )
                )
                missing = set(ours) - set(noted)
            for session_id in (one for one in ours if one in missing):
                yield session_id
            if not has_more or not page:
                return
            after = page[-1].id

    async def _open_here(self) -> AsyncIterator[tuple[str, str]]:
        """Tell checkouts that have been open for a while, and their Sessions: a webhook may never have come."""
        looked_at = ""
        while True:
            async with self._database.read() as session:
                still_open = await session.exec(
                    select(Checkout.id, col(Checkout.stripe_session_id))
                    .where(
                        Checkout.id > looked_at,
                        IS_OPEN_CHECKOUT,
                        col(Checkout.stripe_session_id).is_not(None),
                        Checkout.created_at_ms < self._clock.now_ms() - OPEN_AGE_MS,
                    )
                    .order_by(Checkout.id)
                    .limit(BATCH)
                )
                rows = list(still_open)
            for checkout_id, session_id in rows:
                assert session_id is not None, "asked for so"
                yield checkout_id, session_id
            if len(rows) < BATCH:
                return
            looked_at = rows[-1][0]

    async def _end_unopened(self) -> list[str]:
        """End checkouts that never got a page, as their node died: by now Stripe would take nothing for them any more."""
        ended = await self._database.commit(END_UNOPENED(before_ms=self._clock.now_ms() - OVERDUE_MS))
        return [one.id for one in ended]
