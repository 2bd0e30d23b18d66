"""One transaction per transition: what the core decided, made true in SQL, or not at all.

Every transition is one conditional ``UPDATE … WHERE id = … AND version = …``; whoever's update matches has won, everyone
else finds no row, reloads and decides anew. The timeline and the outbox rows are written in the same transaction.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from dispatch.outbox import Message
from dispatch.request import (
    Assign,
    CloseOffer,
    Command,
    Exclude,
    Fallback,
    Free,
    OfferKind,
    OpenOffer,
    OpenWindow,
    PromptFavorite,
    Record,
    Refund,
    Request,
    Status,
    Tell,
    WithdrawFrom,
)
from models import tables
from models.ids import new_id


class LostRace(Exception):
    """Somebody else's transition came first; roll back, reload and decide anew."""


class MechanicBusy(Exception):
    """The mechanic to assign is in another session; roll back."""


@dataclass(frozen=True)
class Cause:
    """Whose doing a transition is, for those who are told."""

    connection_id: str | None = None
    """The socket that gets the answer directly and needs no withdrawal."""


async def lock(session: AsyncSession, request_id: str) -> tables.SessionRequest | None:
    """Return the request's row, locked until this transaction ends, or ``None``.

    PostgreSQL's default isolation lets each statement see what others committed in between: without the lock the row could
    be from before somebody's transition and its offer from after. Everything that touches a request takes this lock
    first, so that nobody waits for each other in a circle. On SQLite the writing transaction is lock enough.
    """
    query = select(tables.SessionRequest).where(tables.SessionRequest.id == request_id)
    locked = query.with_for_update(key_share=True).execution_options(populate_existing=True)
    return (await session.exec(locked)).first()


async def load(session: AsyncSession, request_id: str) -> Request | None:
    """Return the request as the core sees it, locked until this transaction ends, or ``None``."""
    row = await lock(session, request_id)
    if row is None:
        return None
    is_open = (tables.Offer.request_id == request_id, col(tables.Offer.closed_at_ms).is_(None))
    offer = (await session.exec(select(tables.Offer).where(*is_open))).first()
    excluded = await session.exec(select(tables.Exclusion.mechanic_id).where(tables.Exclusion.request_id == request_id))
    return Request(
        id=row.id,
        version=row.version,
        status=Status(row.status),
        preferred_mechanic_id=row.preferred_mechanic_id,
        assigned_mechanic_id=row.assigned_mechanic_id,
        fallback=Fallback(row.fallback_reason) if row.fallback_reason else None,
        offer=None if offer is None else _window(offer),
        priority_offer_id=row.priority_offer_id,
        excluded=frozenset(excluded),
        accepted_at_ms=row.accepted_at_ms,
        started_at_ms=row.started_at_ms,
        completed_at_ms=row.completed_at_ms,
        settled_at_ms=row.settled_at_ms,
    )


async def create(
    session: AsyncSession,
    request: Request,
    commands: list[Command],
    *,
    checkout: tables.Checkout,
    paid_cents: int,
    now_ms: int,
) -> list[Message]:
    """Insert a new request and carry out its first commands; return what has to be told after the commit.

    The unique ``checkout_id`` makes a second request for one payment impossible (``IntegrityError``).
    """
    session.add(
        tables.SessionRequest(
            id=request.id,
            version=request.version,
            checkout_id=checkout.id,
            customer_id=checkout.customer_id,
            plan_id=checkout.plan_id,
            session_type=checkout.session_type,
            duration_min=checkout.duration_min,
            price_cents=paid_cents,
            currency=checkout.currency,
            routing_type=checkout.routing_type,
            preferred_mechanic_id=checkout.preferred_mechanic_id,
            status=request.status.value,
            priority_offer_id=request.priority_offer_id,
            created_at_ms=now_ms,
        )
    )
    await session.flush()
    return await _carry_out(session, request, commands, now_ms=now_ms, cause=Cause())


async def commit_transition(
    session: AsyncSession, before: Request, after: Request, commands: list[Command], *, now_ms: int, cause: Cause
) -> list[Message]:
    """Make the transition true; return what has to be told after the commit.

    Raises ``LostRace`` or ``MechanicBusy``; the caller's transaction must then be rolled back.
    """
    for command in commands:
        if isinstance(command, Assign):
            # First of all: the mechanic's row says politely that they are busy, the index on the requests only with an error.
            await _assign(session, command.mechanic_id, before.id)
    if after.version != before.version:
        changed = await session.exec(
            update(tables.SessionRequest)
            .where(
                col(tables.SessionRequest.id) == before.id,
                col(tables.SessionRequest.version) == before.version,
                col(tables.SessionRequest.status) == before.status.value,
            )
            .values(
                version=after.version,
                status=after.status.value,
                assigned_mechanic_id=after.assigned_mechanic_id,
                fallback_reason=after.fallback.value if after.fallback else None,
                accepted_at_ms=after.accepted_at_ms,
                started_at_ms=after.started_at_ms,
                completed_at_ms=after.completed_at_ms,
                settled_at_ms=after.settled_at_ms,
            )
            .returning(col(tables.SessionRequest.id))
        )
        if changed.first() is None:
            raise LostRace
    return await _carry_out(
        session, after, commands, now_ms=now_ms, cause=cause, announce=after.version != before.version
    )


async def record(session: AsyncSession, request_id: str, event: str, details: dict[str, Any], *, now_ms: int) -> None:
    """Add a line to the story that no transition tells (delivered, refunded), and let the version grow with it."""
    session.add(tables.TimelineEntry(request_id=request_id, at_ms=now_ms, event=event, details=details))
    await session.exec(
        update(tables.SessionRequest)
        .where(col(tables.SessionRequest.id) == request_id)
        .values(version=tables.SessionRequest.version + 1)
    )


async def _carry_out(
    session: AsyncSession,
    request: Request,
    commands: list[Command],
    *,
    now_ms: int,
    cause: Cause,
    announce: bool = True,
) -> list[Message]:
    messages: list[Message] = []
    tell: list[str] = []
    for command in commands:
        match command:
            case OpenOffer(window):
                session.add(
                    tables.Offer(
                        id=window.offer_id,
                        request_id=request.id,
                        kind=window.kind.value,
                        mechanic_id=window.mechanic_id,
                        opened_at_ms=window.opened_at_ms,
                        expires_at_ms=window.expires_at_ms,
                    )
                )
                # Written now: the row that it closes and the one that it opens must not both be open at the flush.
                await session.flush()
                messages.append(Message.of("offer_opened", offer_id=window.offer_id))
            case CloseOffer(offer_id, reason):
                await session.exec(
                    update(tables.Offer)
                    .where(col(tables.Offer.id) == offer_id, col(tables.Offer.closed_at_ms).is_(None))
                    .values(closed_at_ms=now_ms, close_reason=reason)
                )
                messages.append(
                    Message.of(
                        "offer_closed", offer_id=offer_id, reason=reason, except_connection_id=cause.connection_id
                    )
                )
            case WithdrawFrom(offer_id, mechanic_id):
                messages.append(Message.of("offer_withdrawn", offer_id=offer_id, mechanic_id=mechanic_id))
            case Exclude(mechanic_id, because):
                key = (request.id, mechanic_id)
                if await session.get(tables.Exclusion, key) is None:
                    session.add(tables.Exclusion(request_id=request.id, mechanic_id=mechanic_id, because=because))
            case Assign(mechanic_id):
                messages.append(Message.of("facts_changed", mechanic_id=mechanic_id))
            case Free(mechanic_id):
                await session.exec(
                    update(tables.Mechanic)
                    .where(col(tables.Mechanic.id) == mechanic_id, col(tables.Mechanic.active_request_id) == request.id)
                    .values(active_request_id=None, facts_version=tables.Mechanic.facts_version + 1)
                )
                messages.append(Message.of("facts_changed", mechanic_id=mechanic_id))
            case Refund(because):
                messages += await _owe(session, request, because, now_ms=now_ms)
            case PromptFavorite(mechanic_id):
                messages.append(Message.of("favorite_prompt", request_id=request.id, mechanic_id=mechanic_id))
            case Tell(mechanic_id):
                tell.append(mechanic_id)
            case Record(event, details):
                session.add(tables.TimelineEntry(request_id=request.id, at_ms=now_ms, event=event, details=details))
    if announce:
        messages.append(Message.of("request_changed", request_id=request.id, tell=tell))
    return messages


async def _assign(session: AsyncSession, mechanic_id: str, request_id: str) -> None:
    # The one place where a mechanic gets a session: two accepts of theirs cannot both find it empty.
    assigned = await session.exec(
        update(tables.Mechanic)
        .where(col(tables.Mechanic.id) == mechanic_id, col(tables.Mechanic.active_request_id).is_(None))
        .values(active_request_id=request_id, facts_version=tables.Mechanic.facts_version + 1)
        .returning(col(tables.Mechanic.id))
    )
    if assigned.first() is None:
        raise MechanicBusy


async def _owe(session: AsyncSession, request: Request, cause: str, *, now_ms: int) -> list[Message]:
    """Write down that everything paid goes back: money, or the right to the free session."""
    row = await session.get_one(tables.SessionRequest, request.id)
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
            session, checkout, request_id=request.id, cause=cause, amount_cents=row.price_cents, now_ms=now_ms
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
    return Message.of("refund_owed", refund_id=refund.id)


def _window(offer: tables.Offer) -> OpenWindow:
    return OpenWindow(
        offer_id=offer.id,
        kind=OfferKind(offer.kind),
        mechanic_id=offer.mechanic_id,
        opened_at_ms=offer.opened_at_ms,
        expires_at_ms=offer.expires_at_ms,
    )
