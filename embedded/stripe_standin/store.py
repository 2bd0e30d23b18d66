"""The stand-in's tables and the queries on them; those on money that was paid are in ``money.py``.

All state is here, shared by the nodes of an installation. A race is settled by one conditional UPDATE: whoever's
matches has won. Functions take an open connection, so that the caller decides what commits together. ``created`` and
``expires_at`` are Unix seconds, as in Stripe's objects; ``*_at_ms`` are milliseconds.
"""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import anyio
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from embedded.stripe_standin import objects, params

metadata = sa.MetaData()


def _table(name: str, *columns: sa.schema.SchemaItem) -> sa.Table:
    # Lists are answered newest first by seq: ids are random, and created has only seconds.
    seq = sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), sa.Identity(), primary_key=True)
    return sa.Table(f"stripe_standin_{name}", metadata, seq, *columns)


def _text(name: str, *, nullable: bool = False, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, sa.Text, nullable=nullable, **options)


def _int(name: str, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger, nullable=False, **options)


sessions = _table(
    "session",
    _text("id", unique=True),
    _text("status", index=True),  # open, complete, expired
    _text("payment_status"),  # unpaid, paid, no_payment_required
    _text("payment_intent", nullable=True, index=True),
    _text("email", nullable=True),
    _text("delivery"),  # how its events go out, see DELIVERY_MODES
    _int("created"),
    _int("expires_at"),
    sa.Column("params", sa.JSON, nullable=False),
)
payment_intents = _table(
    "payment_intent",
    _text("id", unique=True),
    _text("session", unique=True),  # one Session is never charged twice, whatever the code does
    _text("charge", unique=True),
    _text("status"),  # processing, succeeded, requires_payment_method
    _text("method"),  # card, us_bank_account
    _text("email", nullable=True),
    _text("currency"),
    _int("amount"),
    _int("amount_refunded"),  # pending refunds included, failed ones not
    _int("created"),
    sa.Column("details", sa.JSON, nullable=False),
    sa.Column("disputed", sa.Boolean, nullable=True),  # null in rows that are older than this column: no
)
refunds = _table(
    "refund",
    _text("id", unique=True),
    _text("payment_intent", index=True),
    _text("charge"),
    _text("status"),  # pending, succeeded, failed
    _text("reason", nullable=True),
    _text("currency"),
    _int("amount"),
    _int("created"),
    sa.Column("metadata", sa.JSON, nullable=False),
    _text("failure_reason", nullable=True),
)
disputes = _table(
    "dispute",
    _text("id", unique=True),
    _text("payment_intent", index=True),
    _text("charge", index=True),
    _text("reason"),
    _text("status"),  # see money.py
    _text("currency"),
    _int("amount"),
    _int("created"),
    _int("submissions"),  # how often evidence was handed in
    sa.Column("withdrawn_at", sa.BigInteger, nullable=True),  # when the bank took the money, and gave it back
    sa.Column("reinstated_at", sa.BigInteger, nullable=True),
)
faults = _table("fault", _text("payment_intent", unique=True), _text("kind"), _int("times_left"))
events = _table(
    "event", _text("id", unique=True), _text("session", index=True), _text("type"), _int("created"), _text("payload")
)
deliveries = _table(
    "delivery",
    _text("event", index=True),
    _text("session", index=True),
    _text("state"),  # pending, held, delivered, abandoned
    _int("attempts"),
    _int("due_at_ms"),  # moved ahead while an attempt is under way: that is its lease
    _text("outcome", nullable=True),
    sa.Index("ix_stripe_standin_delivery_due", "state", "due_at_ms"),
)
idempotency_keys = _table(
    "idempotency_key",
    _text("key", unique=True),
    _text("fingerprint"),
    _text("request_id"),
    _int("claimed_at_ms"),
    sa.Column("status", sa.Integer, nullable=True),  # null while the first request is under way
    _text("body", nullable=True),
)

DELIVERY_MODES = {
    "normal": "at once, in order",
    "held": "held until you release them",
    "duplicated": "each one twice, and once more as another Event",
    "reversed": "held, then released newest first",
}
# A database that is busy or away: nothing was committed, and asking again is safe.
TROUBLE = (DBAPIError, PoolTimeoutError, OSError)
IDEMPOTENCY_LEASE_MS = 30_000
IDEMPOTENCY_KEPT_MS = 24 * 3600 * 1000
REVERSED_GAP_MS = 500


def now_ms() -> int:
    """Return Unix milliseconds: the stand-in's own clock, as Stripe has its own."""
    return int(datetime.now(UTC).timestamp() * 1000)


FORGOTTEN = "forgotten@example.invalid"
ADDRESSED = (
    *((sessions, name) for name in ("email", "params")),
    *((payment_intents, name) for name in ("email", "details")),
    (events, "payload"),
    (idempotency_keys, "body"),
)
"""Where a customer's address may stand."""


async def forget(conn: AsyncConnection, email: str) -> None:
    """Write another address wherever this one stands, in any letter case of its own."""
    for table, name in ADDRESSED:
        column = table.c[name]
        text = sa.cast(column, sa.Text)
        replaced = sa.cast(sa.func.replace(text, email, FORGOTTEN), column.type)
        await conn.execute(sa.update(table).where(text.contains(email, autoescape=True)).values({name: replaced}))


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """One short transaction. A cancellation waits for its end, since one amid a query would cost the connection."""
    with anyio.CancelScope(shield=True):
        async with engine.begin() as conn:
            yield conn


async def rows(conn: AsyncConnection, query: sa.Executable) -> sa.MappingResult:
    return (await conn.execute(query)).mappings()


async def prepare(conn: AsyncConnection) -> None:
    """Create the tables, and the columns that tables of an older version lack: each of those may be null."""

    def bring_up_to_date(sync: sa.Connection) -> None:
        metadata.create_all(sync)
        inspector = sa.inspect(sync)
        for table in metadata.sorted_tables:
            there = {column["name"] for column in inspector.get_columns(table.name)}
            for column in table.columns:
                if column.name not in there:
                    kind = column.type.compile(sync.dialect)
                    sync.execute(sa.text(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}"))

    await conn.run_sync(bring_up_to_date)


async def one(conn: AsyncConnection, table: sa.Table, id: str) -> objects.Row | None:
    return (await rows(conn, sa.select(table).where(table.c.id == id))).one_or_none()


async def listed(
    conn: AsyncConnection, table: sa.Table, conditions: Sequence[sa.ColumnElement[bool]], page: dict[str, Any]
) -> tuple[list[objects.Row], bool]:
    """Return one page, newest first, and whether there is more. ``page``: checked list parameters.

    Raises `StripeError` when the cursor names nothing.
    """
    query = sa.select(table).where(*conditions)
    for operator, bound in page.get("created", {}).items():
        column = table.c.created
        query = query.where(
            {"gt": column > bound, "gte": column >= bound, "lt": column < bound, "lte": column <= bound}[operator]
        )
    backwards = "ending_before" in page
    if cursor := page.get("starting_after") or page.get("ending_before"):
        edge = await one(conn, table, cursor)
        if edge is None:
            name = "ending_before" if backwards else "starting_after"
            raise params.StripeError(f"No such object: '{cursor}'", code="resource_missing", param=name)
        query = query.where(table.c.seq > edge["seq"] if backwards else table.c.seq < edge["seq"])
    query = query.order_by(table.c.seq.asc() if backwards else table.c.seq.desc()).limit(page["limit"] + 1)
    found: list[objects.Row] = list(await rows(conn, query))
    has_more = len(found) > page["limit"]
    found = found[: page["limit"]]
    return (found[::-1] if backwards else found), has_more


async def insert_session(conn: AsyncConnection, created: dict[str, Any], now_s: int) -> objects.Row:
    """Store a new open Session; ``created`` are checked creation parameters."""
    items = [{**item, "id": objects.new_id("li_1")} for item in created["line_items"]]
    query = sa.insert(sessions).values(
        id=objects.new_id("cs_test_a1"),
        status="open",
        payment_status="unpaid",
        delivery="normal",
        created=now_s,
        expires_at=created["expires_at"],
        params={**created, "line_items": items},
    )
    return (await rows(conn, query.returning(sessions))).one()


async def complete_session(
    conn: AsyncConnection, session: objects.Row, *, delayed: bool, email: str | None, now_s: int
) -> tuple[objects.Row, objects.Row | None] | None:
    """Complete an open Session and charge it once; None when it is no longer open.

    The intent is None for a zero amount. ``delayed``: the money is still on its way.
    """
    is_free = session["params"]["amount_total"] == 0
    payment_status = "no_payment_required" if is_free else "unpaid" if delayed else "paid"
    claim = (
        sa.update(sessions)
        .where(sessions.c.id == session["id"], sessions.c.status == "open", sessions.c.expires_at > now_s)
        .values(
            status="complete",
            payment_status=payment_status,
            payment_intent=None if is_free else objects.new_id("pi_3"),
            email=session["params"].get("customer_email") or email,
        )
        .returning(sessions)
    )
    completed = (await rows(conn, claim)).one_or_none()
    if completed is None:
        return None
    if is_free:
        return completed, None
    charge = sa.insert(payment_intents).values(
        id=completed["payment_intent"],
        session=completed["id"],
        charge=objects.new_id("ch_3"),
        status="processing" if delayed else "succeeded",
        method="us_bank_account" if delayed else "card",
        email=completed["email"],
        currency=completed["params"]["currency"],
        amount=completed["params"]["amount_total"],
        amount_refunded=0,
        created=now_s,
        details=completed["params"].get("payment_intent_data", {}),
    )
    return completed, (await rows(conn, charge.returning(payment_intents))).one()


async def settle_delayed(
    conn: AsyncConnection, session_id: str, *, succeeds: bool
) -> tuple[objects.Row, objects.Row] | None:
    """Let a payment on its way arrive or fail; None when none is on its way."""
    query = (
        sa.update(payment_intents)
        .where(payment_intents.c.session == session_id, payment_intents.c.status == "processing")
        .values(status="succeeded" if succeeds else "requires_payment_method")
    )
    intent = (await rows(conn, query.returning(payment_intents))).one_or_none()
    if intent is None:
        return None
    if succeeds:
        await conn.execute(sa.update(sessions).where(sessions.c.id == session_id).values(payment_status="paid"))
    session = await one(conn, sessions, session_id)
    assert session is not None
    return session, intent


async def expire_session(conn: AsyncConnection, session_id: str) -> objects.Row | None:
    """Expire an open Session; None when it is no longer open."""
    query = sa.update(sessions).where(sessions.c.id == session_id, sessions.c.status == "open").values(status="expired")
    return (await rows(conn, query.returning(sessions))).one_or_none()


async def overdue_sessions(conn: AsyncConnection, now_s: int, limit: int) -> list[str]:
    query = sa.select(sessions.c.id).where(sessions.c.status == "open", sessions.c.expires_at <= now_s).limit(limit)
    return list((await conn.execute(query)).scalars())


async def insert_events(
    conn: AsyncConnection,
    session_id: str,
    happened: Sequence[tuple[str, objects.JsonObject]],
    *,
    request_id: str | None = None,
    idempotency_key: str | None = None,
) -> list[str]:
    """Store one event per (type, snapshot) in order, delivered as the Session's mode wants; return the event ids."""
    mode = (await conn.execute(sa.select(sessions.c.delivery).where(sessions.c.id == session_id))).scalar_one()
    ids = []
    for type, snapshot in happened:
        for copies in (2, 1) if mode == "duplicated" else (1,):
            event = objects.event(
                type, snapshot, now_ms() // 1000, request_id=request_id, idempotency_key=idempotency_key
            )
            await insert_event(conn, session_id, event)
            for _ in range(copies):
                await insert_delivery(conn, event["id"], session_id, held=mode in ("held", "reversed"))
            ids.append(event["id"])
    return ids


async def insert_event(conn: AsyncConnection, session_id: str, event: objects.JsonObject) -> None:
    await conn.execute(
        sa.insert(events).values(
            id=event["id"],
            session=session_id,
            type=event["type"],
            created=event["created"],
            payload=json.dumps(event, indent=2),
        )
    )


async def insert_delivery(conn: AsyncConnection, event_id: str, session_id: str, *, held: bool = False) -> None:
    state = "held" if held else "pending"
    await conn.execute(
        sa.insert(deliveries).values(event=event_id, session=session_id, state=state, attempts=0, due_at_ms=now_ms())
    )


async def send_again(conn: AsyncConnection, event: objects.Row, *, as_twin: bool) -> None:
    """Deliver an event once more; ``as_twin``: as a second Event for the same thing, as Stripe sometimes does."""
    if as_twin:
        twin = {**json.loads(event["payload"]), "id": objects.new_id("evt_1")}
        await insert_event(conn, event["session"], twin)
        await insert_delivery(conn, twin["id"], event["session"])
    else:
        await insert_delivery(conn, event["id"], event["session"])


async def set_delivery_mode(conn: AsyncConnection, session_id: str, mode: str) -> None:
    await conn.execute(sa.update(sessions).where(sessions.c.id == session_id).values(delivery=mode))


async def release_held(conn: AsyncConnection, session: objects.Row) -> None:
    """Make held deliveries due: in order, or newest first with a gap that keeps them apart."""
    at = deliveries.c
    query = sa.select(at.seq).where(at.session == session["id"], at.state == "held").order_by(at.seq)
    held = list((await conn.execute(query)).scalars())
    is_reversed = session["delivery"] == "reversed"
    for position, seq in enumerate(held[::-1] if is_reversed else held):
        due_at_ms = now_ms() + position * REVERSED_GAP_MS * is_reversed
        await conn.execute(
            sa.update(deliveries).where(at.seq == seq, at.state == "held").values(state="pending", due_at_ms=due_at_ms)
        )


async def events_of(conn: AsyncConnection, session_id: str) -> list[tuple[objects.Row, list[objects.Row]]]:
    """Return a Session's events, oldest first, each with its deliveries."""
    found = await rows(conn, sa.select(events).where(events.c.session == session_id).order_by(events.c.seq))
    sent = await rows(conn, sa.select(deliveries).where(deliveries.c.session == session_id).order_by(deliveries.c.seq))
    by_event: dict[str, list[objects.Row]] = {}
    for delivery in sent:
        by_event.setdefault(delivery["event"], []).append(delivery)
    return [(event, by_event.get(event["id"], [])) for event in found]


async def count_pending(conn: AsyncConnection, event_ids: Sequence[str]) -> int:
    """Count the deliveries of these events that nobody has answered yet; held ones do not count."""
    query = sa.select(sa.func.count()).where(deliveries.c.event.in_(event_ids), deliveries.c.state == "pending")
    return (await conn.execute(query)).scalar_one()


async def claim_deliveries(conn: AsyncConnection, limit: int, lease_ms: int) -> list[objects.Row]:
    """Claim what is due for ``lease_ms``, oldest first; a claim whose node dies falls due again by itself."""
    now = now_ms()
    due = (deliveries.c.state == "pending") & (deliveries.c.due_at_ms <= now)
    chosen = sa.select(deliveries.c.seq).where(due).order_by(deliveries.c.due_at_ms, deliveries.c.seq).limit(limit)
    query = (
        sa.update(deliveries)
        .where(deliveries.c.seq.in_(chosen.scalar_subquery()), due)
        .values(due_at_ms=now + lease_ms, attempts=deliveries.c.attempts + 1)
        .returning(deliveries.c.seq, deliveries.c.event, deliveries.c.attempts)
    )
    claimed = {row["seq"]: row for row in await rows(conn, query)}
    if not claimed:
        return []
    payloads = sa.select(events.c.id, events.c.payload).where(
        events.c.id.in_([row["event"] for row in claimed.values()])
    )
    by_id = {row.id: row.payload for row in await conn.execute(payloads)}
    return [{**claimed[seq], "payload": by_id[claimed[seq]["event"]]} for seq in sorted(claimed)]


async def finish_attempt(
    conn: AsyncConnection, delivery: objects.Row, *, state: str, outcome: str, due_at_ms: int
) -> None:
    """Write down how a claimed attempt ended, unless its lease ran out and another node has taken over."""
    await conn.execute(
        sa.update(deliveries)
        .where(deliveries.c.seq == delivery["seq"], deliveries.c.attempts == delivery["attempts"])
        .values(state=state, outcome=outcome, due_at_ms=due_at_ms)
    )


@dataclass(frozen=True)
class Replay:
    """The stored answer of an earlier request under the same idempotency key."""

    request_id: str
    status: int
    body: str


async def claim_key(conn: AsyncConnection, key: str, fingerprint: str, request_id: str) -> Replay | None:
    """Claim an idempotency key for this request; an answer stored before comes back instead.

    Raises `StripeError` when the key was used with other parameters or its first request is still under way. A claim
    whose node died is taken over after `IDEMPOTENCY_LEASE_MS`: its work was never committed.
    """
    at, now = idempotency_keys.c, now_ms()
    await conn.execute(sa.delete(idempotency_keys).where(at.key == key, at.claimed_at_ms < now - IDEMPOTENCY_KEPT_MS))
    insert = (
        inserting(conn, idempotency_keys)
        .on_conflict_do_nothing()
        .values(key=key, fingerprint=fingerprint, request_id=request_id, claimed_at_ms=now)
    )
    if (await conn.execute(insert.returning(at.seq))).first() is not None:
        return None
    seen = (await rows(conn, sa.select(idempotency_keys).where(at.key == key))).one()
    if seen["fingerprint"] != fingerprint:
        raise params.StripeError(
            "Keys for idempotent requests can only be used with the same parameters they were first used with. Try "
            f"using a key other than '{key}' if you meant to execute a different request.",
            type="idempotency_error",
        )
    if seen["status"] is not None:
        return Replay(seen["request_id"], seen["status"], seen["body"])
    takeover = (
        sa.update(idempotency_keys)
        .where(at.key == key, at.status.is_(None), at.claimed_at_ms < now - IDEMPOTENCY_LEASE_MS)
        .values(request_id=request_id, claimed_at_ms=now)
    )
    if (await conn.execute(takeover.returning(at.seq))).first() is not None:
        return None
    raise params.StripeError(
        "There is currently another in-progress request using this Stripe Account/Idempotent Key (that probably means "
        f"you submitted twice, and the other request is still going through): {key}.",
        status=409,
        code="idempotency_key_in_use",
    )


async def store_answer(conn: AsyncConnection, key: str, request_id: str, status: int, body: str) -> bool:
    """Keep an answer under the key this request claimed; False when the claim was taken over meanwhile."""
    at = idempotency_keys.c
    query = (
        sa.update(idempotency_keys)
        .where(at.key == key, at.request_id == request_id, at.status.is_(None))
        .values(status=status, body=body)
    )
    return (await conn.execute(query.returning(at.seq))).first() is not None


async def release_key(conn: AsyncConnection, key: str, request_id: str) -> None:
    at = idempotency_keys.c
    await conn.execute(
        sa.delete(idempotency_keys).where(at.key == key, at.request_id == request_id, at.status.is_(None))
    )


def inserting(conn: AsyncConnection, table: sa.Table) -> Any:
    """Return an INSERT that can be told what to do on a conflict, in the words of the connection's database."""
    if conn.dialect.name == "sqlite":
        from sqlalchemy.dialects import sqlite

        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql

    return postgresql.insert(table)
