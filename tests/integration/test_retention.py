"""What is forgotten after a while, and what is kept for good."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from sqlalchemy import text
from sqlmodel import SQLModel

from infra.metrics import REGISTRY
from models import tables
from models.rest import StripeCheckout
from models.words import RequestStatus
from tests.integration.plans import copy_row
from tests.parts import PATIENT, World, body, eventually, running_node, running_world, side_by_side

RETENTION_MS = 24 * 3600 * 1000
FORGETFUL = replace(PATIENT, retention_ms=RETENTION_MS)
YOUNG_MS = 60_000
"""Younger than the time after which things are forgotten, by so much."""
KINDS = ("stripe_events", "checkouts", "idempotency_keys", "revocations")


def forgotten() -> list[float]:
    return [REGISTRY.get_sample_value("pitlane_rows_forgotten_total", {"kind": kind}) or 0 for kind in KINDS]


async def add(world: World, *rows: SQLModel) -> None:
    async with world.database.write() as session:
        for row in rows:
            session.add(row)
            await session.flush()


def event(event_id: str, processed_at_ms: int | None) -> tables.StripeEvent:
    return tables.StripeEvent(
        id=event_id,
        type="test",
        received_at_ms=1,
        processed_at_ms=processed_at_ms,
        next_attempt_at_ms=9_000_000_000_000,
    )


def checkout(checkout_id: str, customer_id: str, at_ms: int, **changes: Any) -> tables.Checkout:
    wanted: dict[str, Any] = {
        "id": checkout_id,
        "customer_id": customer_id,
        "plan_id": "quick_chat",
        "price_cents": 999,
        "currency": "usd",
        "duration_min": 10,
        "session_type": "text",
        "routing_type": "broadcast",
        "status": "expired",
        "stripe_session_id": f"cs_{checkout_id}",
        "idempotency_key": f"key of {checkout_id}",
        "idempotency_hash": "hash",
        "created_at_ms": at_ms,
    }
    return tables.Checkout(**wanted | changes)


def revocation(name: str, token_expires_at_ms: int | None) -> tables.Revocation:
    is_whole = token_expires_at_ms is None
    return tables.Revocation(
        id=name,
        account_id="somebody",
        up_to_ms=1 if is_whole else None,
        token_expires_at_ms=token_expires_at_ms,
        changed_at_ms=1,
    )


async def ids(world: World, table: type[SQLModel]) -> set[str]:
    return {row.id for row in await world.rows(table)}  # type: ignore[attr-defined]


async def keys(world: World) -> set[str]:
    """Return the checkouts that still know under which key they were asked for."""
    rows = await world.rows(tables.Checkout)
    assert all((row.idempotency_key is None) == (row.idempotency_hash is None) for row in rows)
    return {row.id for row in rows if row.idempotency_key is not None}


async def test_what_is_worked_off_or_came_to_nothing_goes_when_it_is_old_and_everything_else_stays(
    database_url, redis_url
):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, FORGETFUL, without=("payments",)) as a,
    ):
        customer_id = await world.customer()
        old_ms = a.clock.now_ms() - RETENTION_MS - 1
        young_ms = old_ms + YOUNG_MS
        paid = {"status": "paid", "payment_intent_id": "pi_1"}
        await add(
            world,
            event("worked off", old_ms),
            event("worked off lately", young_ms),
            event("never worked off", None),
            checkout("expired", customer_id, old_ms),
            checkout("failed", customer_id, old_ms, status="failed"),
            checkout("expired lately", customer_id, young_ms),
            checkout("open", customer_id, old_ms, status="open"),
            checkout("with a request", customer_id, old_ms, **paid, request_id="request"),
            checkout("with a payment", customer_id, old_ms, status="failed", payment_intent_id="pi_2"),
            checkout("with a refund", customer_id, old_ms, status="failed"),
            revocation("ended", old_ms),
            revocation("ended lately", young_ms),
            revocation("of a whole account", None),
            tables.SessionRequest(
                id="request",
                version=1,
                checkout_id="with a request",
                customer_id=customer_id,
                plan_id="quick_chat",
                session_type="text",
                duration_min=10,
                price_cents=999,
                currency="usd",
                routing_type="broadcast",
                status=RequestStatus.CANCELLED,
                created_at_ms=old_ms,
                settled_at_ms=old_ms,
            ),
            tables.TimelineEntry(request_id="request", at_ms=old_ms, event="cancelled"),
            tables.Refund(
                id="refund",
                checkout_id="with a refund",
                payment_intent_id="pi_3",
                amount_cents=999,
                currency="usd",
                cause="cancelled",
                status="succeeded",
                created_at_ms=old_ms,
                settled_at_ms=old_ms,
            ),
        )
        before = forgotten()
        for _ in range(2):
            await a.retention.forget_all()
            assert await ids(world, tables.StripeEvent) == {"worked off lately", "never worked off"}
            has_something = {"with a request", "with a payment", "with a refund"}
            assert await ids(world, tables.Checkout) == {"expired lately", "open", *has_something}
            assert await keys(world) == {"expired lately", "open"}
            assert await ids(world, tables.Revocation) == {"ended lately", "of a whole account"}
        assert [now - then for now, then in zip(forgotten(), before, strict=True)] == [1, 2, 3, 1]
        assert (len(await world.rows(tables.SessionRequest)), len(await world.rows(tables.Refund))) == (1, 1)
        assert [line.event for line in await world.rows(tables.TimelineEntry)] == ["cancelled"]


async def test_a_key_that_is_forgotten_asks_for_a_new_checkout(database_url, redis_url, tmp_path):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world, FORGETFUL) as a:
        customer_id = await world.customer()

        async def asked() -> StripeCheckout:
            answer = await a.checkouts.start(customer_id, body(), idempotency_key="again")
            assert isinstance(answer, StripeCheckout)
            return answer

        first = await asked()
        await world.pay(first.url)
        await a.checkouts.state(customer_id, first.checkout_id)
        assert await asked() == first
        await world.update(tables.Checkout, first.checkout_id, created_at_ms=1)
        await a.retention.forget_all()
        second = await asked()
        assert second.checkout_id != first.checkout_id
        assert await ids(world, tables.Checkout) == {first.checkout_id, second.checkout_id}


async def many_old(world: World, count: int) -> None:
    """Let there be many old events and checkouts, two of an age."""
    await add(world, event("event", 0), checkout("checkout", await world.customer(), 0))
    async with world.database.write() as session:
        await copy_row(session, tables.StripeEvent, count - 1, processed_at_ms="number / 2")
        unique = {"stripe_session_id": "'c' || number", "idempotency_key": "'c' || number"}
        await copy_row(session, tables.Checkout, count - 1, created_at_ms="number / 2", **unique)


async def test_nodes_that_forget_side_by_side_forget_each_row_once_a_few_at_a_time(
    database_url, redis_url, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("dispatch.retention.BATCH", 7)
    monkeypatch.setattr("dispatch.retention.PAUSE_S", 0.0)
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, FORGETFUL) as a,
        running_node(world, FORGETFUL) as b,
    ):
        await many_old(world, 50)
        before = forgotten()
        await side_by_side(*(node.retention.forget_all for node in (a, b, a)))
        # What one had in hand when the others looked is found the next time.
        await a.retention.forget_all()
        assert [now - then for now, then in zip(forgotten(), before, strict=True)] == [50, 50, 0, 0]
        assert await ids(world, tables.StripeEvent) == await ids(world, tables.Checkout) == set()


@pytest.mark.bugs_planted
async def test_what_cannot_be_forgotten_keeps_nothing_else_from_being(
    database_url, redis_url, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("dispatch.retention.BATCH", 7)
    monkeypatch.setattr("dispatch.retention.PAUSE_S", 0.0)
    async with running_world(database_url, redis_url) as world, running_node(world, FORGETFUL) as a:
        await many_old(world, 30)
        # A later version keeps something of a few checkouts, more than fit in a batch; the first kind of all fails altogether.
        kept = {f"c{number}" for number in range(1, 11)}
        async with world.database.write() as session:
            connection = await session.connection()
            await connection.execute(text("CREATE TABLE later (checkout_id varchar REFERENCES checkouts (id))"))
            await connection.execute(
                text(f"INSERT INTO later SELECT id FROM checkouts WHERE id IN {tuple(sorted(kept))}")
            )
            await connection.execute(text("DROP TABLE stripe_events"))
        await a.retention.forget_all()
        assert await ids(world, tables.Checkout) == kept
        assert await keys(world) == set()


async def test_every_node_forgets_by_itself_a_while_after_its_start_and_again(
    database_url, redis_url, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("dispatch.retention.FIRST_AFTER_S", 0.1)
    monkeypatch.setattr("dispatch.retention.INTERVAL_S", 0.1)
    async with running_world(database_url, redis_url) as world:
        await add(world, event("first", 1))
        async with running_node(world, FORGETFUL):

            async def is_gone(event_id: str) -> bool:
                return event_id not in await ids(world, tables.StripeEvent)

            await eventually(partial(is_gone, "first"), "it is forgotten")
            await add(world, event("second", 1))
            await eventually(partial(is_gone, "second"), "the next one, too")
