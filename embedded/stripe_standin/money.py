"""What happens to money that was paid: refunds, disputes, and how the next refunds shall go wrong.

Each move is one conditional UPDATE with the events that Stripe sends for it, in Stripe's order, in the caller's
transaction: ``None`` or a `Refusal` when something else was faster. API and payment page make the same moves.

Refund   pending ──► succeeded ──► failed; pending ──► failed
Dispute  needs_response ──► under_review ──► won or lost; needs_response ──► won or lost
Inquiry  warning_needs_response ──► warning_under_review ──► warning_closed; as long as it is open: ──► needs_response

Sources: https://docs.stripe.com/refunds, https://docs.stripe.com/disputes/how-disputes-work,
https://docs.stripe.com/api/events/types.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from embedded.stripe_standin import objects, store
from embedded.stripe_standin.store import disputes, faults, payment_intents, refunds

FAULTS = {
    "balance_insufficient": "Refused: balance_insufficient",
    "error": "HTTP 500, not made",
    "error_after": "HTTP 500, but made",
    "pending": "Made, but pending",
}
"""How the next refunds that the API is asked for may go wrong."""
FAULT_TIMES_MAX = 1000
FAILURE_REASONS = (
    "expired_or_canceled_card",
    "lost_or_stolen_card",
    "charge_for_pending_refund_disputed",
    "insufficient_funds",
    "declined",
    "merchant_request",
    "unknown",
)
DISPUTE_REASONS = (
    "fraudulent",
    "product_not_received",
    "product_unacceptable",
    "credit_not_processed",
    "duplicate",
    "subscription_canceled",
    "unrecognized",
    "general",
    "customer_initiated",
    "bank_cannot_process",
    "check_returned",
    "debit_not_authorized",
    "incorrect_account_details",
    "insufficient_funds",
    "noncompliant",
)
OPEN_DISPUTES = ("needs_response", "under_review")
OPEN_INQUIRIES = ("warning_needs_response", "warning_under_review")
UNREFUNDABLE = (*OPEN_DISPUTES, "lost")
"""While a dispute stands like this the bank has the money, and Stripe refuses to pay it a second time."""
Refusal = Literal["unpaid", "disputed", "refunded", "too_much"]
Happened = list[tuple[str, objects.JsonObject]]


@dataclass(frozen=True)
class Move:
    """How a dispute gets on: from which status to which, the events, and whether evidence or money moves with it."""

    ways: dict[str, str]
    events: tuple[str, ...]
    is_evidence: bool = False
    moves: Literal["withdrawn_at", "reinstated_at"] | None = None


MOVES = {
    "review": Move(
        {"needs_response": "under_review", "warning_needs_response": "warning_under_review"},
        ("updated",),
        is_evidence=True,
    ),
    # Stripe gives money back after a dispute is closed (api/events/types).
    "win": Move(dict.fromkeys(OPEN_DISPUTES, "won"), ("closed", "funds_reinstated"), moves="reinstated_at"),
    "lose": Move(dict.fromkeys(OPEN_DISPUTES, "lost"), ("closed",)),
    "close": Move(dict.fromkeys(OPEN_INQUIRIES, "warning_closed"), ("closed",)),
    "escalate": Move(
        dict.fromkeys(OPEN_INQUIRIES, "needs_response"), ("updated", "funds_withdrawn"), moves="withdrawn_at"
    ),
}


async def intent_of_charge(conn: AsyncConnection, charge_id: str) -> objects.Row | None:
    query = sa.select(payment_intents).where(payment_intents.c.charge == charge_id)
    return (await store.rows(conn, query)).one_or_none()


# Refunds


async def refund(
    conn: AsyncConnection,
    intent_id: str,
    wanted: dict[str, Any],
    public_url: str,
    *,
    status: str = "succeeded",
    request_id: str | None = None,
    idempotency_key: str | None = None,
) -> tuple[objects.Row, list[str]] | Refusal:
    """Refund ``wanted["amount"]`` (absent: all that is left); return the refund and the ids of its events.

    Any number of refunds side by side, or beside a dispute, never give back more than was paid.
    """
    taken = await _take(conn, intent_id, wanted.get("amount"))
    if isinstance(taken, str):
        return taken
    intent, amount = taken
    query = sa.insert(refunds).values(
        id=objects.new_id("re_3"),
        payment_intent=intent["id"],
        charge=intent["charge"],
        status=status,
        reason=wanted.get("reason"),
        currency=intent["currency"],
        amount=amount,
        created=store.now_ms() // 1000,
        metadata=wanted.get("metadata", {}),
    )
    row = (await store.rows(conn, query.returning(refunds))).one()
    happened: Happened = [
        ("refund.created", objects.refund(row, is_new=True)),
        ("charge.refunded", objects.charge(intent, public_url)),
    ]
    if status == "succeeded":
        # Stripe follows up with the acquirer's reference number.
        happened += _updated(row)
    caused = {"request_id": request_id, "idempotency_key": idempotency_key}
    return row, await store.insert_events(conn, intent["session"], happened, **caused)


async def _take(conn: AsyncConnection, intent_id: str, amount: int | None) -> tuple[objects.Row, int] | Refusal:
    """Take ``amount`` (None: all that is left) from what can be refunded; return the intent afterwards and the amount."""
    paid = payment_intents.c
    # Whoever opens a dispute locks this row, too.
    seen = (await store.rows(conn, sa.select(payment_intents).where(paid.id == intent_id).with_for_update())).one()
    taken = seen["amount"] - seen["amount_refunded"] if amount is None else amount
    is_with_the_bank = sa.exists().where(disputes.c.charge == seen["charge"], disputes.c.status.in_(UNREFUNDABLE))
    query = (
        sa.update(payment_intents)
        .where(paid.id == intent_id, paid.status == "succeeded", ~is_with_the_bank)
        .where(sa.literal(taken) > 0, paid.amount_refunded + taken <= paid.amount)
        .values(amount_refunded=paid.amount_refunded + taken)
    )
    intent = (await store.rows(conn, query.returning(payment_intents))).one_or_none()
    if intent is not None:
        return intent, taken
    if seen["status"] != "succeeded":
        return "unpaid"
    if (await conn.execute(sa.select(is_with_the_bank))).scalar_one():
        return "disputed"
    return "refunded" if seen["amount"] == seen["amount_refunded"] else "too_much"


async def settle_refund(conn: AsyncConnection, intent: objects.Row, refund_id: str) -> list[str] | None:
    """Let a pending refund succeed; return the ids of its events, None when it is not pending (any more)."""
    at = refunds.c
    query = (
        sa.update(refunds)
        .where(at.id == refund_id, at.payment_intent == intent["id"], at.status == "pending")
        .values(status="succeeded")
    )
    row = (await store.rows(conn, query.returning(refunds))).one_or_none()
    return None if row is None else await store.insert_events(conn, intent["session"], _updated(row))


async def fail_refund(
    conn: AsyncConnection, intent: objects.Row, refund_id: str, failure_reason: str
) -> list[str] | None:
    """Let a refund fail, however late: the bank has sent the money back, and it can be refunded again.

    Returns the ids of its events, None when it has failed already.
    """
    at = refunds.c
    query = (
        sa.update(refunds)
        .where(at.id == refund_id, at.payment_intent == intent["id"], at.status.in_(("pending", "succeeded")))
        .values(status="failed", failure_reason=failure_reason)
    )
    row = (await store.rows(conn, query.returning(refunds))).one_or_none()
    if row is None:
        return None
    paid = payment_intents.c
    await conn.execute(
        sa.update(payment_intents)
        .where(paid.id == intent["id"])
        .values(amount_refunded=paid.amount_refunded - row["amount"])
    )
    happened = [*_updated(row), ("refund.failed", objects.refund(row))]
    return await store.insert_events(conn, intent["session"], happened)


def _updated(row: objects.Row) -> Happened:
    """Return both events of a refund that has changed: the one for all, and the older one for cards."""
    return [(type, objects.refund(row)) for type in ("refund.updated", "charge.refund.updated")]


async def refunds_of(conn: AsyncConnection, intent_id: str) -> Sequence[objects.Row]:
    """Return an intent's refunds, oldest first."""
    query = sa.select(refunds).where(refunds.c.payment_intent == intent_id).order_by(refunds.c.seq)
    return (await store.rows(conn, query)).all()


# Disputes


async def open_dispute(
    conn: AsyncConnection, intent_id: str, reason: str, amount: int, *, is_inquiry: bool
) -> list[str] | None:
    """Let the customer's bank dispute a payment, or only inquire; return the ids of the events.

    None when nothing was paid, or when a dispute of it is open or lost.
    """
    locked = sa.select(payment_intents).where(payment_intents.c.id == intent_id).with_for_update()
    intent = (await store.rows(conn, locked)).one()
    standing = sa.exists().where(
        disputes.c.charge == intent["charge"], disputes.c.status.in_((*UNREFUNDABLE, *OPEN_INQUIRIES))
    )
    if intent["status"] != "succeeded" or (await conn.execute(sa.select(standing))).scalar_one():
        return None
    now_s = store.now_ms() // 1000
    query = sa.insert(disputes).values(
        id=objects.new_id("dp_1"),
        payment_intent=intent["id"],
        charge=intent["charge"],
        reason=reason,
        status="warning_needs_response" if is_inquiry else "needs_response",
        currency=intent["currency"],
        amount=amount,
        created=now_s,
        submissions=0,
        withdrawn_at=None if is_inquiry else now_s,
    )
    row = (await store.rows(conn, query.returning(disputes))).one()
    await conn.execute(sa.update(payment_intents).where(payment_intents.c.id == intent_id).values(disputed=True))
    types = ("created",) if is_inquiry else ("created", "funds_withdrawn")
    return await _tell_of_dispute(conn, intent["session"], row, types)


async def move_dispute(conn: AsyncConnection, intent: objects.Row, dispute_id: str, move: Move) -> list[str] | None:
    """Let a dispute get on; return the ids of the events, None when it does not stand where ``move`` begins."""
    at = disputes.c
    # As for a refund: whoever looks whether the bank has the money holds this row.
    paid = sa.select(payment_intents).where(payment_intents.c.id == intent["id"]).with_for_update()
    now = (await store.rows(conn, paid)).one()
    if move.moves == "withdrawn_at" and now["amount_refunded"] == now["amount"]:
        return None  # once everything was refunded, Stripe says, no bank takes it any more
    query = (
        sa.update(disputes)
        .where(at.id == dispute_id, at.payment_intent == intent["id"], at.status.in_(move.ways))
        .values(status=sa.case(move.ways, value=at.status), submissions=at.submissions + move.is_evidence)
    )
    if move.moves is not None:
        query = query.values({move.moves: store.now_ms() // 1000})
    row = (await store.rows(conn, query.returning(disputes))).one_or_none()
    return None if row is None else await _tell_of_dispute(conn, intent["session"], row, move.events)


async def _tell_of_dispute(conn: AsyncConnection, session_id: str, row: objects.Row, types: Sequence[str]) -> list[str]:
    happened: Happened = []
    for number, type in enumerate(types):
        # Money that an event of its own tells of has not moved yet when the one before is sent.
        later = {"funds_withdrawn": "withdrawn_at", "funds_reinstated": "reinstated_at"}
        unmoved = {later[other]: None for other in types[number + 1 :] if other in later}
        happened.append((f"charge.dispute.{type}", objects.dispute({**row, **unmoved})))
    return await store.insert_events(conn, session_id, happened)


async def disputes_of(conn: AsyncConnection, intent_id: str) -> Sequence[objects.Row]:
    """Return an intent's disputes, oldest first."""
    query = sa.select(disputes).where(disputes.c.payment_intent == intent_id).order_by(disputes.c.seq)
    return (await store.rows(conn, query)).all()


# Faults


async def set_fault(conn: AsyncConnection, intent_id: str, kind: str, times: int) -> None:
    """Let the next ``times`` refunds that the API is asked for go this way (one of `FAULTS`); 0 times: none."""
    insert = store.inserting(conn, faults).values(payment_intent=intent_id, kind=kind, times_left=times)
    await conn.execute(
        insert.on_conflict_do_update(index_elements=["payment_intent"], set_={"kind": kind, "times_left": times})
    )


async def fault_of(conn: AsyncConnection, intent_id: str) -> objects.Row | None:
    query = sa.select(faults).where(faults.c.payment_intent == intent_id, faults.c.times_left > 0)
    return (await store.rows(conn, query)).one_or_none()


async def use_fault(conn: AsyncConnection, intent_id: str) -> str | None:
    """Return how this refund shall go wrong, and count it; None: not at all."""
    at = faults.c
    query = (
        sa.update(faults)
        .where(at.payment_intent == intent_id, at.times_left > 0)
        .values(times_left=at.times_left - 1)
        .returning(at.kind)
    )
    kind: str | None = (await conn.execute(query)).scalar_one_or_none()
    return kind
