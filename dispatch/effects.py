"""What follows from transitions in SQL beside the requests' own rows: offers, exclusions, the story, and what is owed.

It is gathered from many transitions and then written table by table, so that the number of statements does not grow with them.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import assert_never

from sqlalchemy import update
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from dispatch.notices import (
    FactsChanged,
    FavoriteToPrompt,
    Notice,
    OfferClosed,
    OfferOpened,
    OfferWithdrawnFrom,
    RefundOwed,
    RequestChanged,
)
from dispatch.outbox import Message
from dispatch.request import (
    Assign,
    CloseOffer,
    Command,
    Exclude,
    Free,
    OpenOffer,
    OweRefund,
    PromptFavorite,
    Record,
    Request,
    Tell,
    WithdrawFrom,
)
from infra.database import insert_rows
from models import tables
from models.ids import new_id
from models.words import WithdrawReason


@dataclass(frozen=True)
class Cause:
    """Whose doing a transition is, for those who are told."""

    connection_id: str | None = None
    """The socket that gets the answer directly."""
    offer_id: str | None = None
    """The offer that it has named: of that one it needs no withdrawal. A late tap names another than the one that it takes."""


@dataclass
class Effects:
    """What moves change beside the requests' own rows, gathered and then written table by table."""

    now_ms: int
    cause: Cause
    messages: list[Message] = field(default_factory=list)
    _closed: defaultdict[WithdrawReason, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Offer ids by the reason."""
    _opened: list[dict[str, object]] = field(default_factory=list)
    _excluded: list[dict[str, object]] = field(default_factory=list)
    _freed: list[tuple[str, str]] = field(default_factory=list)
    """Mechanics, and of which request."""
    _story: list[dict[str, object]] = field(default_factory=list)
    _owed: list[tuple[str, str]] = field(default_factory=list)
    """Requests, and what everything is given back for."""

    def take(self, request: Request, commands: list[Command], *, is_news: bool = True) -> None:
        """Take note of what follows for one request; ``is_news``: whether its customer can see a difference."""
        tell: list[str] = []
        for command in commands:
            match command:
                case OpenOffer(window):
                    self._opened.append(
                        {
                            "id": window.offer_id,
                            "request_id": request.id,
                            "kind": window.kind,
                            "mechanic_id": window.mechanic_id,
                            "opened_at_ms": window.opened_at_ms,
                            "expires_at_ms": window.expires_at_ms,
                        }
                    )
                    self._tell(OfferOpened(window.offer_id))
                case CloseOffer(offer_id, reason):
                    self._closed[reason].append(offer_id)
                    answered_id = self.cause.connection_id if self.cause.offer_id == offer_id else None
                    self._tell(OfferClosed(offer_id, reason, answered_id))
                case WithdrawFrom(offer_id, mechanic_id):
                    self._tell(OfferWithdrawnFrom(offer_id, mechanic_id))
                case Exclude(mechanic_id, because):
                    self._excluded.append({"request_id": request.id, "mechanic_id": mechanic_id, "because": because})
                case Assign(mechanic_id):
                    self._tell(FactsChanged(mechanic_id))
                case Free(mechanic_id):
                    self._freed.append((mechanic_id, request.id))
                    self._tell(FactsChanged(mechanic_id))
                case OweRefund(because):
                    self._owed.append((request.id, because))
                case PromptFavorite(mechanic_id):
                    self._tell(FavoriteToPrompt(request.id, mechanic_id))
                case Tell(mechanic_id):
                    tell.append(mechanic_id)
                case Record(event, details):
                    self._story.append(
                        {"request_id": request.id, "at_ms": self.now_ms, "event": event, "details": details}
                    )
                case _:
                    assert_never(command)
        if is_news:
            self._tell(RequestChanged(request.id, tuple(tell)))

    async def write(self, session: AsyncSession) -> list[Message]:
        """Write it all; return what has to be told after the commit."""
        for reason, offer_ids in self._closed.items():
            # They are open: their requests' rows have just been moved from the state in which that was read.
            await session.exec(
                update(tables.Offer)
                .where(col(tables.Offer.id).in_(offer_ids))
                .values(closed_at_ms=self.now_ms, close_reason=reason)
                .execution_options(synchronize_session=False)
            )
        # After the closing: a request has one open offer at a time.
        await insert_rows(session, tables.Offer, self._opened)
        await insert_rows(session, tables.Exclusion, self._excluded)
        for mechanic_id, request_id in self._freed:
            await session.exec(
                update(tables.Mechanic)
                .where(col(tables.Mechanic.id) == mechanic_id, col(tables.Mechanic.active_request_id) == request_id)
                .values(active_request_id=None, facts_version=tables.Mechanic.facts_version + 1)
            )
        await insert_rows(session, tables.TimelineEntry, self._story)
        for request_id, because in self._owed:
            self.messages += await _owe(session, request_id, because, now_ms=self.now_ms)
        return self.messages

    def _tell(self, notice: Notice) -> None:
        self.messages.append(Message.of(notice))


async def _owe(session: AsyncSession, request_id: str, cause: str, *, now_ms: int) -> list[Message]:
    """Write down that everything paid goes back: money, or the right to the free session."""
    row = await session.get_one(tables.SessionRequest, request_id)
    checkout = await session.get_one(tables.Checkout, row.checkout_id)
    if checkout.price_cents == 0:
        await session.exec(
            update(tables.Account).where(col(tables.Account.id) == row.customer_id).values(free_session_used=False)
        )
        return []
    if checkout.payment_intent_id is None:
        # Nothing was charged: a hundred per cent discount (Stripe: payment_status no_payment_required).
        return []
    return [
        await owe_refund(
            session, checkout, request_id=request_id, cause=cause, amount_cents=row.price_cents, now_ms=now_ms
        )
    ]


async def owe_refund(
    session: AsyncSession,
    checkout: tables.Checkout,
    *,
    request_id: str | None,
    cause: str,
    now_ms: int,
    amount_cents: int,
) -> Message:
    """Insert the refund of a checkout (unique: a second one is impossible) and return the message that starts it."""
    assert checkout.payment_intent_id is not None, "only what was charged can be refunded"
    refund = tables.Refund(
        id=new_id(),
        checkout_id=checkout.id,
        request_id=request_id,
        payment_intent_id=checkout.payment_intent_id,
        amount_cents=amount_cents,
        currency=checkout.currency,
        cause=cause,
        created_at_ms=now_ms,
        next_attempt_at_ms=now_ms,
    )
    session.add(refund)
    if request_id is not None:
        session.add(
            tables.TimelineEntry(
                request_id=request_id,
                at_ms=now_ms,
                event="refund_requested",
                details={"amount_cents": refund.amount_cents, "cause": cause},
            )
        )
    return Message.of(RefundOwed(refund.id))
