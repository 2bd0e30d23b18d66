"""A mechanic who is disabled: what they were offered or have accepted goes to others, once, whoever dies in between."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import pytest

from accounts.accounts import Accounts
from dispatch.departures import DEPARTED, DEPARTING
from dispatch.money.checkout import Checkouts
from dispatch.request_store import DEPART_AGAIN, IS_DISABLED
from infra.database import within
from models import tables
from models.outcomes import NotFound, Refused
from models.rest import StripeCheckout
from models.wire import RequestView
from tests.integration.dispatch_nodes import accept, free_request, is_consistent
from tests.integration.push_browsers import running_push_service, subscribed
from tests.parts import Node, World, body, eventually, running_node, running_world, side_by_side

RACES = 8


@asynccontextmanager
async def two_nodes(database_url: str, redis_url: str) -> AsyncIterator[tuple[World, Node, Node]]:
    async with running_world(database_url, redis_url) as world, running_node(world) as a, running_node(world) as b:
        yield world, a, b


async def disable(world: World, node: Node, account_id: str) -> None:
    """Disable an account as an operator does at a node."""
    assert await Accounts(world.database).set_disabled(account_id, True, now_ms=node.clock.now_ms())
    node.departures.wake()


async def is_let_go(world: World, account_id: str) -> None:
    """Wait until everything has let go of an account."""

    async def is_so() -> bool:
        for node in world.nodes:
            # They look by themselves, but only every few seconds.
            node.departures.wake()
        return (await world.row(tables.Account, account_id)).departing_since_ms is None

    await eventually(is_so, "everything has let go of it")


async def becomes(world: World, request_id: str, status: str) -> tables.SessionRequest:
    async def is_so() -> bool:
        return (await world.row(tables.SessionRequest, request_id)).status == status

    await eventually(is_so, f"it is {status}")
    return await world.row(tables.SessionRequest, request_id)


async def is_offered(world: World, node: Node, mechanic_id: str) -> tuple[str, RequestView]:
    """Return a customer, and a request of theirs that is offered to this mechanic."""
    customer_id, request = await free_request(world, node, mechanic_id)
    assert request.offer is not None
    assert request.offer.kind == "priority"
    return customer_id, request


async def accepted(world: World, node: Node, mechanic_id: str) -> tuple[str, RequestView]:
    customer_id, request = await is_offered(world, node, mechanic_id)
    taken = await accept(node, mechanic_id, request.offer.id if request.offer else "")()
    assert isinstance(taken, RequestView), taken
    return customer_id, taken


async def test_what_a_mechanic_holds_goes_to_others_when_they_are_disabled(database_url, redis_url):
    async with two_nodes(database_url, redis_url) as (world, a, b), running_push_service() as service:
        gone, other = await world.mechanics(2)
        await subscribed(a, gone, service.browser("phone"))
        await a.dispatch.set_on_duty(gone, True)
        _, taken = await accepted(world, a, gone)
        _, offered = await is_offered(world, a, gone)
        await disable(world, b, gone)

        row = await becomes(world, offered.id, "broadcasting")
        assert row.fallback_reason == "declined"
        row = await becomes(world, taken.id, "broadcasting")
        assert row.assigned_mechanic_id is None
        await is_let_go(world, gone)
        mechanic = await world.row(tables.Mechanic, gone)
        assert (mechanic.on_duty, mechanic.back_at_ms, mechanic.has_push) == (False, None, False)
        assert mechanic.active_request_id is None
        assert [
            interval.ended_at_ms is None for interval in await world.rows(tables.DutyInterval, mechanic_id=gone)
        ] == [False]
        assert await world.rows(tables.PushSubscription, account_id=gone) == []

        # Neither of the two comes back to them; others can have both, one after the other.
        for request_id in (taken.id, offered.id):
            assert isinstance(await accept(a, gone, await open_offer(world, request_id))(), Refused)
        won = await accept(b, other, await open_offer(world, taken.id))()
        assert isinstance(won, RequestView), won
        for request_id in (taken.id, offered.id):
            await is_consistent(world, request_id)


async def open_offer(world: World, request_id: str) -> str:
    [offer] = [offer for offer in await world.rows(tables.Offer, request_id=request_id) if offer.closed_at_ms is None]
    return offer.id


async def test_a_session_that_is_under_way_goes_on_and_its_customer_ends_it(database_url, redis_url):
    async with two_nodes(database_url, redis_url) as (world, a, b):
        gone = await world.mechanic()
        customer_id, taken = await accepted(world, a, gone)
        assert isinstance(await a.dispatch.start(gone, taken.id), RequestView)
        await disable(world, b, gone)
        await is_let_go(world, gone)
        assert (await world.row(tables.SessionRequest, taken.id)).status == "in_progress"
        ended = await b.dispatch.complete_by_customer(customer_id, taken.id)
        assert isinstance(ended, RequestView)
        assert ended.status == "completed"
        await is_consistent(world, taken.id)


async def test_whoever_is_disabled_gets_no_session_goes_on_no_duty_and_cannot_be_asked_for(
    database_url, redis_url, tmp_path
):
    async with (
        running_world(database_url, redis_url, tmp_path) as world,
        running_node(world) as a,
        running_push_service() as service,
    ):
        gone, customer_id = await world.mechanic(), await world.customer()
        _, request = await free_request(world, a)
        assert request.offer is not None
        # Paid for when it is too late: they are asked nothing, and everybody else is.
        bought_before = await a.checkouts.start(customer_id, body("quick_chat", gone))
        assert isinstance(bought_before, StripeCheckout)
        await disable(world, a, gone)
        await is_let_go(world, gone)

        assert isinstance(await accept(a, gone, request.offer.id)(), Refused)
        await a.dispatch.set_on_duty(gone, True)
        assert not (await world.row(tables.Mechanic, gone)).on_duty
        assert isinstance(await a.push.subscribe(gone, service.browser("tablet").subscription), Refused)
        for plan in ("quick_chat", "free_diagnostic"):
            refused = await a.checkouts.start(await world.customer(), body(plan, gone))
            assert isinstance(refused, NotFound)
            assert refused.code == "mechanic_not_found"
        await world.pay(bought_before.url)
        state = await a.checkouts.state(customer_id, bought_before.checkout_id)
        assert not isinstance(state, Refused)
        await is_let_go(world, gone)
        paid = await becomes(world, str(state.request_id), "broadcasting")
        assert paid.fallback_reason == "declined"
        await is_consistent(world, paid.id)

        assert await Accounts(world.database).set_disabled(gone, False, now_ms=a.clock.now_ms())
        await a.dispatch.set_on_duty(gone, True)
        assert (await world.row(tables.Mechanic, gone)).on_duty
        assert isinstance(await accept(a, gone, request.offer.id)(), RequestView)


async def test_a_node_that_starts_later_lets_go_of_whoever_was_disabled_while_none_did(database_url, redis_url):
    """As by the command line, while no server runs, or when the one dies that was about to."""
    async with running_world(database_url, redis_url) as world:
        async with running_node(world, without=("departures",)) as dying:
            gone = await world.mechanic()
            _, taken = await accepted(world, dying, gone)
            _, offered = await is_offered(world, dying, gone)
            await disable(world, dying, gone)
        async with running_node(world):
            await becomes(world, taken.id, "broadcasting")
            await becomes(world, offered.id, "broadcasting")
            await is_let_go(world, gone)
        await is_consistent(world, taken.id)
        await is_consistent(world, offered.id)


async def test_a_node_that_dies_while_letting_go_leaves_the_rest_to_others(
    database_url, redis_url, monkeypatch: pytest.MonkeyPatch
):
    async with running_world(database_url, redis_url) as world:
        async with running_node(world, without=("departures",)) as node:
            gone = await world.mechanic()
            _, taken = await accepted(world, node, gone)
            _, offered = await is_offered(world, node, gone)
            await disable(world, node, gone)
        async with running_node(world, without=("departures",)) as dying, anyio.create_task_group() as tasks:
            died = anyio.Event()

            async def die(*_: object) -> None:
                died.set()
                await anyio.sleep_forever()

            # Off duty and without the offer by then.
            monkeypatch.setattr(dying.dispatch, "release", die)
            tasks.start_soon(dying.departures.run)
            with anyio.fail_after(10.0):
                await died.wait()
            tasks.cancel_scope.cancel()
        assert (await world.row(tables.SessionRequest, taken.id)).status == "accepted"
        async with running_node(world):
            await becomes(world, taken.id, "broadcasting")
            await is_let_go(world, gone)
        for request_id in (taken.id, offered.id):
            await is_consistent(world, request_id)


async def test_an_accept_beside_being_disabled_is_refused_or_undone(database_url, redis_url):
    async with two_nodes(database_url, redis_url) as (world, a, b):
        for number in range(RACES):
            gone = await world.mechanic()
            _, offered = await is_offered(world, a, gone)
            taps = [accept(a, gone, offered.offer.id if offered.offer else ""), partial(disable, world, b, gone)]
            await side_by_side(*(taps if number % 2 else taps[::-1]))
            await is_let_go(world, gone)
            await becomes(world, offered.id, "broadcasting")
            assert (await world.row(tables.Mechanic, gone)).active_request_id is None
            await is_consistent(world, offered.id)


async def test_a_request_made_beside_its_favourite_being_disabled_is_not_left_with_them(database_url, redis_url):
    async with two_nodes(database_url, redis_url) as (world, a, b):
        for number in range(RACES):
            gone, customer_id = await world.mechanic(), await world.customer()
            ask = partial(Checkouts.start, a.checkouts, customer_id, body("free_diagnostic", gone))
            both = [ask, partial(disable, world, b, gone)]
            answers = await side_by_side(*(both if number % 2 else both[::-1]))
            await is_let_go(world, gone)
            if any(isinstance(answer, Refused) for answer in answers):
                continue
            [request] = await world.rows(tables.SessionRequest, customer_id=customer_id)
            await becomes(world, request.id, "broadcasting")


async def test_whoever_disables_waits_for_an_offer_that_is_being_made(database_url, redis_url):
    """Else it would be let go of before the offer can be seen, and nobody would look again."""
    async with running_world(database_url, redis_url) as world, running_node(world, without=("departures",)) as node:
        gone = await world.mechanic()
        is_done = False

        async def disabling() -> None:
            nonlocal is_done
            await disable(world, node, gone)
            is_done = True

        async with anyio.create_task_group() as tasks, world.database.write() as session:
            [seen] = await within(session, IS_DISABLED(mechanic_id=gone))
            assert not seen.is_disabled
            tasks.start_soon(disabling)
            # There is nothing to wait for but what must not come.
            await anyio.sleep(0.2)
            assert not is_done
        assert is_done
        assert (await world.row(tables.Account, gone)).departing_since_ms is not None


async def test_an_offer_made_while_they_are_let_go_of_is_looked_for_again(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world, without=("departures",)) as node:
        gone = await world.mechanic()
        await disable(world, node, gone)
        [before] = await world.database.query(DEPARTING(limit=10))
        # By the clock of another node, which is behind.
        await world.database.commit(DEPART_AGAIN(id=gone, at_ms=before.since_ms - 5))
        await world.database.commit(DEPARTED(id=gone, since_ms=before.since_ms))
        [again] = await world.database.query(DEPARTING(limit=10))
        assert again.id == gone
        await world.database.commit(DEPARTED(id=gone, since_ms=again.since_ms))
        assert await world.database.query(DEPARTING(limit=10)) == []


async def test_a_customer_who_is_disabled_is_woken_no_more_and_still_served(database_url, redis_url):
    async with two_nodes(database_url, redis_url) as (world, a, b), running_push_service() as service:
        mechanic = await world.mechanic()
        customer_id, request = await is_offered(world, a, mechanic)
        await subscribed(a, customer_id, service.browser("laptop"))
        await disable(world, b, customer_id)
        await is_let_go(world, customer_id)
        assert await world.rows(tables.PushSubscription, account_id=customer_id) == []
        taken = await accept(b, mechanic, request.offer.id if request.offer else "")()
        assert isinstance(taken, RequestView), taken
