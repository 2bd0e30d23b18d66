"""Years that have passed: sessions, money and messages, all of them over, for statements to read past."""

from sqlalchemy import text
from sqlmodel import select

from models import tables
from tests.integration.dispatch_nodes import free_request
from tests.integration.plans import copy_row
from tests.parts import World, running_node

YEARS = 6_000
"""Sessions, a thousand seconds apart."""
OF_ONE = 3_000
"""The later ones, which one customer had with one mechanic; of the others everybody had one."""
STEP_MS = 1_000_000
SESSION_MS = 600_000
FILLED_WITHIN_S = 60.0
"""On a busy machine."""


async def years(world: World, *, since_ms: int = 0) -> tuple[str, str]:
    """Let there be years of sessions, refunds and events, all of them over but one; return the customer and the mechanic.

    The world is empty till then.
    """
    async with running_node(world, without=("elapsing",)) as node:
        mike, other = await world.mechanic(), await world.customer()
        await free_request(world, node, mike)
    # Before those that were made later, as ids are.
    somebody = "'00' || number"
    then = f"{since_ms} + number * CAST({STEP_MS} AS bigint)"
    until_ms = since_ms + YEARS * STEP_MS
    soon_after = f"{then} + {SESSION_MS}"
    async with world.database.write(within_s=FILLED_WITHIN_S) as session:
        request = (await session.exec(select(tables.SessionRequest))).one()
        customer_id, checkout_id = request.customer_id, request.checkout_id
        await copy_row(session, tables.Account, YEARS - OF_ONE, of=f"id = '{mike}'", key=somebody, email=somebody)
        await copy_row(session, tables.Mechanic, YEARS - OF_ONE, of=f"id = '{mike}'", key=somebody)
        whose = f"CASE WHEN number > {YEARS - OF_ONE} THEN customer_id ELSE {somebody} END"
        checkouts = {
            "of": f"id = '{checkout_id}'",
            "customer_id": whose,
            "created_at_ms": then,
            "expires_at_ms": soon_after,
        }
        await copy_row(
            session,
            tables.Checkout,
            YEARS,
            **checkouts,
            stripe_session_id="NULL",
            idempotency_key="'key' || number",
            payment_intent_id="'c' || number",
        )
        await copy_row(
            session,
            tables.Checkout,
            YEARS,
            **checkouts,
            key="'x' || number",
            status="'expired'",
            request_id="NULL",
            stripe_session_id="'cs_' || number",
            idempotency_key="NULL",
        )
        await copy_row(
            session,
            tables.SessionRequest,
            YEARS,
            checkout_id="'c' || number",
            priority_offer_id="NULL",
            status="'completed'",
            customer_id=whose,
            assigned_mechanic_id=f"CASE WHEN number > {YEARS - OF_ONE} THEN '{mike}' ELSE {somebody} END",
            accepted_at_ms=then,
            started_at_ms=then,
            completed_at_ms=soon_after,
            settled_at_ms=soon_after,
        )
        refund = tables.Refund(
            id="refund",
            checkout_id=checkout_id,
            payment_intent_id="pi_1",
            amount_cents=999,
            currency="usd",
            cause="cancelled",
            status="succeeded",
            created_at_ms=1,
            settled_at_ms=1,
        )
        event = tables.StripeEvent(
            id="event", type="refund.updated", received_at_ms=1, processed_at_ms=since_ms or 1, next_attempt_at_ms=1
        )
        revocation = tables.Revocation(
            id="token:1", account_id=customer_id, token_expires_at_ms=since_ms or 1, changed_at_ms=since_ms or 1
        )
        session.add_all([refund, event, revocation])
        await session.flush()
        await copy_row(session, tables.Revocation, YEARS, token_expires_at_ms=then, changed_at_ms=then)
        await copy_row(session, tables.Refund, YEARS, checkout_id="'c' || number", request_id="'c' || number")
        ledger = tables.PaymentLedger(
            payment_intent_id="pi_1",
            checkout_id=checkout_id,
            version=1,
            paid_cents=999,
            by_us_cents=999,
            by_others_cents=0,
            on_its_way_cents=0,
            taken_cents=0,
            is_unsettled=False,
            looked_at_ms=1,
        )
        session.add(ledger)
        await session.flush()
        of_each = {"payment_intent_id": "'c' || number"}
        await copy_row(session, tables.PaymentLedger, YEARS, key=None, **of_each, checkout_id="'c' || number")
        entry = tables.LedgerEntry(
            id="re_1",
            payment_intent_id="pi_1",
            kind="refund",
            amount_cents=999,
            status="succeeded",
            is_ours=True,
            is_refundable=True,
        )
        session.add(entry)
        await session.flush()
        await copy_row(session, tables.LedgerEntry, YEARS, **of_each)
        await copy_row(session, tables.StripeEvent, YEARS, received_at_ms=then, processed_at_ms=then)
        offer = {"mechanic_id": f"'{mike}'", "request_id": "'c' || number", "kind": "'priority'"}
        over = {"opened_at_ms": then, "expires_at_ms": soon_after, "closed_at_ms": soon_after, "counted_at_ms": "1"}
        pushed = {"pushed_at_ms": then, "unpushed_at_ms": soon_after}
        await copy_row(session, tables.Offer, YEARS, **offer, **over, **pushed, close_reason="'taken'")
        phone = tables.PushSubscription(
            id="phone", account_id=other, endpoint="https://push.example/0", p256dh="", auth="", created_at_ms=1
        )
        session.add(phone)
        await session.flush()
        await copy_row(
            session,
            tables.PushSubscription,
            YEARS - OF_ONE,
            mechanic_id=somebody,
            endpoint="'https://push.example/' || number",
        )
        message = tables.PushMessage(
            id="message",
            subscription_id="phone",
            place="push.example",
            about_id=request.id,
            kind="offer",
            topic=request.id,
            payload="{}",
            due_at_ms=1,
            expires_at_ms=until_ms,
            attempts=1,
            was_forbidden=False,
            done_at_ms=1,
        )
        session.add(message)
        await session.flush()
        await copy_row(session, tables.PushMessage, YEARS, about_id="'c' || number")
        session.add(tables.MechanicResponse(mechanic_id=mike, offers=9, accept_percent=50, counted_at_ms=until_ms))
        await session.flush()
        counted = {"mechanic_id": somebody, "counted_at_ms": f"{until_ms} - number * 20000"}
        await copy_row(session, tables.MechanicResponse, YEARS - OF_ONE, key=None, **counted)
        told = {"of": "event = 'requested'", "key": None, "request_id": "'c' || number"}
        await copy_row(session, tables.TimelineEntry, YEARS, **told)
    if not world.database.is_sqlite:
        async with world.database.write() as session:
            # As autovacuum has done long before there are years.
            await session.exec(text("ANALYZE"))  # type: ignore[call-overload]
    return customer_id, mike
