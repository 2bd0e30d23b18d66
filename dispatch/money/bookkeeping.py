"""Bookkeeping: makes the ledger of a payment say what Stripe says, and carries out what follows for the refund and the request.

Whatever told of it (a webhook, our own refund, the reconciler), Stripe is asked how everything stands now. Of two who look side by
side, one writes; the other asks again: so what is written is never older than what it overwrites.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, assert_never

import structlog

from dispatch.money.ledger import (
    Ask,
    Broken,
    Entry,
    Held,
    Ledger,
    OnItsWay,
    Owed,
    Returned,
    Whereabouts,
    merged,
    moved,
    summed,
    whereabouts,
)
from dispatch.money.stripe_api import StripeApi
from dispatch.notices import RefundOwed
from dispatch.outbox import Message, Outbox
from dispatch.request import Details, PaymentMoved, Windows
from dispatch.request_store import LOCK_REQUESTS, LostRace, Move, carry_out, decide, noted
from dispatch.stored import READ_REQUESTS, StoredRequest
from infra.clock import Clock
from infra.database import Database
from infra.statements import Nothing, Statement, Transaction
from models.errors import DatabaseUnavailable

SQL = Path(__file__).parent / "sql"
LOOKS_MAX: Final = 10
"""How often Stripe is asked anew because somebody else has written meanwhile."""
LOOK_AGAIN_MS: Final = 5 * 60_000
"""How often what is on its way, or held by a dispute, is looked at, also if Stripe tells nothing."""


@dataclass(frozen=True)
class KnownPayment:
    """A row of ``payment_of_intent``. ``version`` zero: nothing of it has moved yet."""

    payment_intent_id: str
    checkout_id: str
    request_id: str | None
    version: int
    paid_cents: int
    refund_id: str | None
    """``None``: nothing is to go back."""
    refund_status: str | None
    stripe_refund_id: str | None
    refund_attempts: int
    entries: list[Entry]

    @property
    def owed(self) -> "OwedBack | None":
        """Return what is to go back, as it was when this was read."""
        if self.refund_id is None or self.refund_status is None:
            return None
        return OwedBack(self.refund_id, self.refund_status, self.stripe_refund_id)


@dataclass(frozen=True)
class OwedBack:
    """A row of ``refund_of_checkout``."""

    id: str
    status: str
    stripe_refund_id: str | None


@dataclass(frozen=True)
class Kept:
    """The id of a payment's ledger."""

    payment_intent_id: str


@dataclass(frozen=True)
class InLine:
    """``whereabouts``: of what is to go back, ``None`` if nothing is; ``has_changed``: whether this very look has found news."""

    whereabouts: Whereabouts | None
    has_changed: bool
    ledger: Ledger

    @property
    def word(self) -> str:
        """Return, for operators, how the payment stands."""
        if self.ledger.dispute == "open":
            return "disputed"
        if self.ledger.taken_cents:
            return "taken_by_the_bank"
        if not self.ledger.given_back_cents:
            return "kept"
        return "given_back_in_part" if self.ledger.left_cents else "given_back"


@dataclass(frozen=True)
class Settled:
    """What has become of what is to go back: whether its customer can see a difference, and the lines of the story that tell it."""

    is_news: bool = False
    lines: Sequence[tuple[str, Details]] = ()


PAYMENT_OF_INTENT = Statement(SQL / "payment_of_intent.sql", KnownPayment, json=("entries",))
KEEP_LEDGER = Statement(SQL / "keep_ledger.sql", Kept)
KEEP_ENTRY = Statement(SQL / "keep_entry.sql", Nothing)
REFUND_OF_CHECKOUT = Statement(SQL / "refund_of_checkout.sql", OwedBack)
SETTLE_REFUND = Statement(SQL / "settle_refund.sql", Nothing)


class Bookkeeping:
    """Keeps the ledgers of all payments."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        outbox: Outbox,
        stripe_api: StripeApi,
        windows: Windows,
    ) -> None:
        self._database = database
        self._clock = clock
        self._outbox = outbox
        self._stripe = stripe_api
        self._windows = windows
        self._log = structlog.get_logger("bookkeeping")

    async def bring_in_line(
        self,
        payment_intent_id: str,
        *,
        is_refunded: bool = False,
        is_disputed: bool = False,
        is_refused_for_good: bool = False,
    ) -> InLine | None:
        """Ask Stripe how everything stands with a payment, and make that true here; ``None`` if no checkout was paid with it.

        ``is_refunded``, ``is_disputed``: somebody has told of a refund, or of a dispute. ``is_refused_for_good``: Stripe will not
        give back what is left, whenever it is asked. Idempotent, and safe side by side. Raises ``StripeUnavailable`` and
        ``StripeRefused`` (Stripe does not know it).
        """

        async def ask(known: KnownPayment) -> Sequence[Entry]:
            return await self._stripe.entries(
                payment_intent_id,
                checkout_id=known.checkout_id,
                with_refunds=is_refunded or bool(known.entries) or known.refund_attempts > 1,
                with_disputes=is_disputed or any(entry.kind == "dispute" for entry in known.entries),
            )

        return await self._look(payment_intent_id, ask, is_refused_for_good=is_refused_for_good)

    async def note(self, payment_intent_id: str, entry: Entry) -> InLine | None:
        """Take note of one refund that Stripe has just answered with."""

        async def as_answered(_known: KnownPayment) -> Sequence[Entry]:
            return [entry]

        return await self._look(payment_intent_id, as_answered)

    async def _look(
        self,
        payment_intent_id: str,
        ask: Callable[[KnownPayment], Awaitable[Sequence[Entry]]],
        *,
        is_refused_for_good: bool = False,
    ) -> InLine | None:
        for _ in range(LOOKS_MAX):
            found = await self._database.query(PAYMENT_OF_INTENT(payment_intent_id=payment_intent_id))
            if not found:
                return None
            entries = merged(found[0].entries, await ask(found[0]))
            try:
                in_line, messages = await self._database.commit(self._write(found[0], entries, is_refused_for_good))
            except LostRace:
                continue
            self._outbox.post(messages)
            return in_line
        raise DatabaseUnavailable(f"Others kept writing the ledger of {payment_intent_id}.")

    def _write(
        self, known: KnownPayment, entries: dict[str, Entry], is_refused_for_good: bool
    ) -> Transaction[tuple[InLine, list[Message]]]:
        """Write what has changed; raises ``LostRace`` if somebody else has written since ``known`` was read."""
        now_ms = self._clock.now_ms()
        before, after = summed(known.paid_cents, known.entries), summed(known.paid_cents, entries.values())
        is_news = entries != merged(known.entries, [])
        if known.request_id is not None:
            yield from LOCK_REQUESTS(ids=[known.request_id])
        if is_news or known.version:
            yield from self._keep(known, entries, after, now_ms)
        owed = yield from REFUND_OF_CHECKOUT(checkout_id=known.checkout_id)
        if (owed[0] if owed else None) != known.owed:
            # Asked for, settled or tried again since Stripe was asked: what Stripe has said then may be older than that.
            raise LostRace
        now: Whereabouts | None = None
        messages: list[Message] = []
        settled = Settled()
        if owed:
            it, known_entries = Owed(owed[0].status, owed[0].stripe_refund_id), merged(known.entries, [])
            now = whereabouts(it, after, entries, known_entries)
            if is_refused_for_good and isinstance(now, Ask):
                now = Broken()
            # What waited for others until now must not wait until it would be looked at again.
            is_let_go = not isinstance(whereabouts(it, before, known_entries, known_entries), Ask)
            settled = yield from self._settle(owed[0], now, after, entries, now_ms, is_let_go=is_let_go)
            if isinstance(now, Ask) and is_let_go:
                messages.append(Message.of(RefundOwed(owed[0].id)))
                yield from self._outbox.add(messages)
        if known.request_id is not None and (is_news or settled.is_news):
            messages += yield from self._tell_request(known.request_id, before, after, settled.lines, now_ms)
        if is_news:
            self._log.info("payment_moved", payment_intent_id=known.payment_intent_id, ledger=after)
        return InLine(now, is_news or settled.is_news, after), messages

    def _keep(self, known: KnownPayment, entries: dict[str, Entry], ledger: Ledger, now_ms: int) -> Transaction[None]:
        kept = yield from KEEP_LEDGER(
            payment_intent_id=known.payment_intent_id,
            checkout_id=known.checkout_id,
            seen=known.version,
            paid_cents=ledger.paid_cents,
            by_us_cents=ledger.by_us_cents,
            by_others_cents=ledger.by_others_cents,
            on_its_way_cents=ledger.on_its_way_cents,
            taken_cents=ledger.taken_cents,
            dispute=ledger.dispute,
            is_unsettled=ledger.on_its_way_cents > 0 or ledger.dispute == "open",
            at_ms=now_ms,
        )
        if not kept:
            raise LostRace
        before = merged(known.entries, [])
        yield from KEEP_ENTRY.each(
            {
                "id": entry.id,
                "payment_intent_id": known.payment_intent_id,
                "kind": entry.kind,
                "amount_cents": entry.amount_cents,
                "status": entry.status,
                "is_ours": entry.is_ours,
                "is_refundable": entry.is_refundable,
            }
            for entry in entries.values()
            if entry != before.get(entry.id)
        )

    def _settle(
        self,
        owed: OwedBack,
        now: Whereabouts,
        ledger: Ledger,
        entries: dict[str, Entry],
        now_ms: int,
        *,
        is_let_go: bool,
    ) -> Transaction[Settled]:
        """Write down how it stands with what is to go back; return what of that is news.

        ``is_let_go``: it no longer waits for others.
        """
        status, next_ms = "pending", now_ms + LOOK_AGAIN_MS
        match now:
            case Returned():
                status = "succeeded"
            case Broken():
                status = "failed"
            case OnItsWay() | Held():
                pass
            case Ask():
                if not is_let_go:
                    # Whoever asks has put it off already.
                    return Settled()
                next_ms = now_ms
            case _:
                assert_never(now)
        if status == owed.status != "pending":
            return Settled()
        is_over = status != "pending"
        # The one that counts; of those that have failed, the row keeps the one that it names.
        ours = [entry.id for entry in entries.values() if entry.is_ours and not entry.has_failed]
        yield from SETTLE_REFUND(
            id=owed.id,
            status=status,
            stripe_refund_id=ours[-1] if ours else None,
            next_attempt_at_ms=None if is_over else next_ms,
            settled_at_ms=now_ms if is_over else None,
            last_error=_what_failed(entries.values()) if status == "failed" else None,
        )
        if status == "failed":
            return Settled(is_news=True, lines=[("refund_failed", {"amount_cents": ledger.left_cents})])
        if status == "succeeded" and ledger.by_us_cents:
            return Settled(is_news=True, lines=[("refunded", {"amount_cents": ledger.by_us_cents})])
        return Settled(is_news=is_over)

    def _tell_request(
        self, request_id: str, before: Ledger, after: Ledger, lines: Sequence[tuple[str, Details]], now_ms: int
    ) -> Transaction[list[Message]]:
        """Let the request follow from what others have moved, and tell in its story how it stands with the refund."""
        # Read after the ledger was written: what is told shows it.
        [stored] = yield from READ_REQUESTS(ids=[request_id])
        messages: list[Message] = []
        version = stored.version
        if (news := moved(before, after)) is not None:
            event = PaymentMoved(news.returned_cents, news.failed_cents, news.is_all_returned, news.dispute)
            move = decide(stored, event, now_ms=now_ms, windows=self._windows)
            if isinstance(move, Move):
                stored = yield from self._carry_out(move, messages, now_ms)
            if news.failed_cents:
                # That it has failed is told by now.
                lines = [line for line in lines if line[0] != "refund_failed"]
        for line, details in lines:
            stored = yield from self._carry_out(noted(stored, [line], details), messages, now_ms)
        if stored.version == version:
            # No line tells it, and yet it reads otherwise: what was on its way has arrived.
            stored = yield from self._carry_out(noted(stored, [], {}), messages, now_ms)
        yield from self._outbox.add(messages)
        return messages

    def _carry_out(self, move: Move, messages: list[Message], now_ms: int) -> Transaction[StoredRequest]:
        told, [stored] = yield from carry_out([move], now_ms=now_ms)
        messages += told
        return stored


def _what_failed(entries: Iterable[Entry]) -> str:
    """Return, for operators, why nothing leads to the money being back without them."""
    failed = [entry for entry in entries if entry.has_failed]
    if not failed:
        return "Stripe does not give back what is left."
    return f"The refund {failed[-1].id} failed: {failed[-1].reason or failed[-1].status}."
