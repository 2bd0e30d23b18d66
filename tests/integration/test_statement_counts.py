"""How many statements each transition takes, and that telling right after its commit reads nothing: on both databases, by name."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from infra.database import Database
from infra.statements import Transaction
from models import tables
from models.rest import StripeCheckout
from tests.integration.dispatch_nodes import accept, free_request
from tests.parts import PATIENT, Node, World, body, running_node, running_world

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

CALM = replace(PATIENT, outbox_lease_ms=60_000)
"""Nobody sweeps while statements are being counted."""

TELL = {"forget_told"}
"""All that telling may do in SQL: what is told is known from the transaction."""
NOW_AND_AGAIN = {"read_responses"}
"""What presence asks by itself, whatever happens."""


@dataclass
class Counted:
    """Names of statements: of the task that acts, and of all others."""

    own: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


acting: ContextVar[bool] = ContextVar("acting", default=False)


@contextmanager
def counted(database: Database) -> Iterator[Counted]:
    """Note every statement that goes to the database inside the block, whichever way it takes."""
    found = Counted()

    def note(name: str) -> None:
        if acting.get():
            found.own.append(name)
        elif name not in NOW_AND_AGAIN:
            found.others.append(name)

    def noted(work: Transaction[Any]) -> Transaction[Any]:
        rows: Any = None
        try:
            while True:
                call = work.send(rows)
                note(call.statement.name)
                rows = yield call
        except StopIteration as end:
            return end.value

    def execute(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        note(statement)

    ways = {name: getattr(database, name) for name in ("commit", "query")}
    engines = {database.writer.sync_engine, database.reader.sync_engine}
    token = acting.set(True)
    try:
        for name, way in ways.items():
            setattr(database, name, lambda work, way=way, **options: way(noted(work), **options))
        for engine in engines:
            event.listen(engine, "before_cursor_execute", execute)
        yield found
    finally:
        acting.reset(token)
        for name in ways:
            delattr(database, name)
        for engine in engines:
            event.remove(engine, "before_cursor_execute", execute)


async def statements_of(node: Node, act: Callable[[], Awaitable[Any]]) -> Counted:
    """Return what an action takes, and what telling of it takes."""
    await node.outbox.drained()
    with counted(node.database) as found:
        await act()
        await node.outbox.drained()
    return found


@asynccontextmanager
async def one_node(database_url: str, redis_url: str, folder: Path | None = None) -> AsyncIterator[tuple[World, Node]]:
    """Run a node on which nothing happens by itself but telling."""
    still = ("refunds", "payments", "superseded", "dispatch", "elapsing", "awaited", "push", "push_planner")
    still += ("responses", "departures")
    async with (
        running_world(database_url, redis_url, folder) as world,
        running_node(world, CALM, without=still) as node,
    ):
        yield world, node


async def has_been_here(node: Node, *mechanic_ids: str) -> None:
    """Let presence know them: it reads from SQL only those whom Redis has never heard of."""
    await node.presence.status_of(mechanic_ids)


BY_OFFER = ["lock_request_of_offer", "read_requests"]
BY_REQUEST = ["lock_requests", "read_requests"]
COMMIT = ["add_to_story", "leave_to_tell"]


async def test_each_step_from_an_accept_to_the_end_takes_these_statements_and_telling_none(database_url, redis_url):
    async with one_node(database_url, redis_url) as (world, node):
        favorite = await world.mechanic()
        _, request = await free_request(world, node, favorite)
        await has_been_here(node, favorite)
        for act, expected in (
            (
                partial(node.dispatch.acknowledge, favorite, request.offer.id),
                ["lock_request_of_offer", "acknowledge_offer", "read_requests", "move_request", *COMMIT],
            ),
            (
                accept(node, favorite, request.offer.id),
                [*BY_OFFER, "assign_mechanic", "move_request", "close_offer", *COMMIT],
            ),
            (accept(node, favorite, request.offer.id), BY_OFFER),
            (partial(node.dispatch.start, favorite, request.id), [*BY_REQUEST, "move_request", *COMMIT]),
            (
                partial(node.dispatch.complete, favorite, request.id),
                [*BY_REQUEST, "move_request", "free_mechanic", *COMMIT],
            ),
        ):
            found = await statements_of(node, act)
            assert found.own == expected
            assert set(found.others) <= TELL


async def test_a_decline_takes_these_statements_and_telling_of_its_broadcast_none(database_url, redis_url):
    async with one_node(database_url, redis_url) as (world, node):
        favorite, other, third = await world.mechanics(3)
        customer_id, request = await free_request(world, node, favorite)
        await has_been_here(node, favorite, other, third)
        found = await statements_of(node, partial(node.dispatch.decline, favorite, request.offer.id))
        assert found.own == [*BY_OFFER, "move_request", "close_offer", "open_offer", "exclude_mechanic", *COMMIT]
        assert set(found.others) <= TELL
        broadcast = (await world.request(node, customer_id, request.id)).offer
        assert broadcast is not None
        for act, expected in (
            (partial(node.dispatch.decline, other, broadcast.id), [*BY_OFFER, "exclude_mechanic", "leave_to_tell"]),
            (partial(node.dispatch.decline, other, broadcast.id), BY_OFFER),
            (
                accept(node, third, broadcast.id),
                [*BY_OFFER, "assign_mechanic", "move_request", "close_offer", *COMMIT],
            ),
            (
                partial(node.dispatch.release, third, request.id),
                [*BY_REQUEST, "move_request", "open_offer", "exclude_mechanic", "free_mechanic", *COMMIT],
            ),
            (
                partial(node.dispatch.cancel, customer_id, request.id),
                [
                    *BY_REQUEST,
                    *("move_request", "close_offer", "add_to_story"),
                    *("clear_free_use", "return_free_session", "leave_to_tell"),
                ],
            ),
        ):
            found = await statements_of(node, act)
            assert found.own == expected
            assert set(found.others) <= TELL


@pytest.mark.parametrize("count", [1, 20])
async def test_windows_that_end_together_take_as_many_as_one(count: int, database_url, redis_url):
    async with one_node(database_url, redis_url) as (world, node):
        favorites = await world.mechanics(count)
        requests = [(await free_request(world, node, favorite))[1] for favorite in favorites]
        offer_ids = [request.offer.id for request in requests if request.offer is not None]
        later_ms = node.clock.now_ms() + CALM.priority_window_ms
        found = await statements_of(node, partial(node.elapsing._elapsed, offer_ids, later_ms))
        assert found.own == ["lock_windows", "read_requests", "move_request", "close_offer", "open_offer", *COMMIT]
        assert set(found.others) <= TELL


async def test_a_change_of_duty_takes_three_statements_and_telling_none(database_url, redis_url):
    async with one_node(database_url, redis_url) as (world, node):
        mechanic = await world.mechanic()
        for on_duty, hours in ((False, "end_duty"), (True, "reopen_duty")):
            found = await statements_of(node, partial(node.dispatch.set_on_duty, mechanic, on_duty))
            assert found.own == ["set_on_duty", hours, "leave_to_tell"]
            assert set(found.others) <= TELL
            again = await statements_of(node, partial(node.dispatch.set_on_duty, mechanic, on_duty))
            assert again.own == ["set_on_duty", "plan_duty", "read_facts"]


async def test_who_goes_off_duty_with_a_session_takes_one_statement_more_to_complete_it(database_url, redis_url):
    async with one_node(database_url, redis_url) as (world, node):
        mechanic = await world.mechanic()
        _, request = await free_request(world, node, mechanic)
        await accept(node, mechanic, request.offer.id)()
        await node.dispatch.start(mechanic, request.id)
        planning = await statements_of(node, partial(node.dispatch.set_on_duty, mechanic, True, off_after_session=True))
        assert planning.own == ["set_on_duty", "plan_duty", "leave_to_tell"]
        found = await statements_of(node, partial(node.dispatch.complete, mechanic, request.id))
        assert found.own == [*BY_REQUEST, "move_request", "free_mechanic", "end_duty", *COMMIT]
        assert set(found.others) <= TELL


async def test_fulfilling_a_payment_takes_these_statements_and_telling_none(database_url, redis_url, tmp_path):
    async with one_node(database_url, redis_url, tmp_path) as (world, node):
        customer_id, favorite = await world.customer(), await world.mechanic()
        checkout = await node.checkouts.start(customer_id, body("quick_chat", favorite))
        assert isinstance(checkout, StripeCheckout)
        await world.pay(checkout.url)
        session_id = (await world.row(tables.Checkout, checkout.checkout_id)).stripe_session_id
        assert session_id is not None
        await has_been_here(node, favorite)
        found = await statements_of(node, partial(node.payments.fulfil, session_id))
        assert found.own == [
            "checkout_of_session",
            "claim_payment",
            "lock_customer",
            "insert_request",
            "read_requests",
            "open_offer",
            "add_to_story",
            "is_disabled",
            "leave_to_tell",
        ]
        assert set(found.others) <= TELL
        again = await statements_of(node, partial(node.payments.fulfil, session_id))
        assert again.own == ["checkout_of_session", "claim_payment"]


@pytest.mark.parametrize("count", [1, 50])
async def test_welcomes_that_are_read_together_take_as_many_as_one(count: int, database_url, redis_url):
    async with one_node(database_url, redis_url) as (world, node):
        busy, *others = await world.mechanics(count + 1)
        _, served = await free_request(world, node, busy)
        await accept(node, busy, served.offer.id)()
        await free_request(world, node)
        with counted(node.database) as found:
            snapshots = await node.reader.mechanic_snapshots([busy, *others])
        assert found.own == [
            "read_standings",
            "open_offers_of",
            "open_broadcasts",
            "exclusions_among",
            "read_requests",
        ]
        assert [len(snapshot.offers) for snapshot in snapshots.values()].count(1) == count
