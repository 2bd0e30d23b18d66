"""Accepts at the last moment against the end of the broadcast: who came in time has it, and nothing counts twice."""

import random
from dataclasses import replace
from functools import partial

import anyio
import pytest

from dispatch import request as core
from dispatch import request_store, service
from infra.database import within
from models import tables
from models.errors import DatabaseUnavailable
from models.outcomes import OfferGone
from models.wire import RequestView
from tests.integration.dispatch_nodes import accept, free_request, is_consistent, untimed
from tests.parts import PATIENT, Node, World, events, eventually, running_node, running_world, side_by_side

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

SHORT = replace(PATIENT, broadcast_window_ms=400)


async def deadline_of(world: World, request: RequestView) -> int:
    assert request.offer is not None
    return (await world.row(tables.Offer, request.offer.id)).expires_at_ms


async def test_an_accept_that_reached_a_node_in_time_wins_although_the_timers_fire_while_it_waits_there(
    database_url, redis_url, monkeypatch
):
    # The accept reaches node a before the deadline and waits there for a connection to the database. The deadline comes; the
    # timers of both nodes are awake. Ended at the deadline, the request was unfilled and refunded although somebody had it.
    monkeypatch.setattr(core, "ACCEPT_LEEWAY_MS", 20_000)
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, SHORT) as a,
        running_node(world, SHORT) as b,
    ):
        customer_id, request = await free_request(world, a)
        on_time, late = await world.mechanics(2)
        deadline_ms = await deadline_of(world, request)
        waiting = partial(a.dispatch.accept, on_time, request.offer.id, received_at_ms=deadline_ms - 1)
        await eventually(lambda: b.clock.now_ms() > deadline_ms + 100, "the deadline is past")

        # The offer cannot be taken any more by whoever comes only now, nor is it shown to them.
        assert (await a.reader.offers([late]))[late] == []
        assert await accept(b, late, request.offer.id)() == OfferGone(detail="This offer has expired.")
        assert (await world.request(b, customer_id, request.id)).status == "broadcasting"

        won = await waiting()
        assert isinstance(won, RequestView), won
        assert won.assigned_mechanic is not None
        assert won.assigned_mechanic.id == on_time
        assert events(won) == ["requested", "broadcast", "accepted"]
        await is_consistent(world, request.id)


async def test_after_the_end_of_the_broadcast_no_accept_counts_however_early_it_came(database_url, redis_url, tmp_path):
    # A node stood still for longer than the leeway with an accept in its hand; meanwhile the money has gone back.
    async with (
        running_world(database_url, redis_url, tmp_path) as world,
        running_node(world, SHORT) as a,
        running_node(world, SHORT) as b,
    ):
        customer_id, mechanic_id = await world.customer(), await world.mechanic()
        request = await world.paid_request(a, customer_id)
        deadline_ms = await deadline_of(world, request)

        async def is_refunded() -> bool:
            return [refund.status for refund in await world.rows(tables.Refund)] == ["succeeded"]

        await eventually(is_refunded, "the money is back")
        for node in (a, b):
            early = await node.dispatch.accept(mechanic_id, request.offer.id, received_at_ms=deadline_ms - 300)
            assert early == OfferGone(detail="The offer expired before anyone accepted.")
        row = await world.row(tables.SessionRequest, request.id)
        assert row.settled_at_ms >= deadline_ms + core.ACCEPT_LEEWAY_MS
        assert events(await world.request(b, customer_id, request.id)) == [
            "paid",
            "broadcast",
            "unfilled",
            "refund_requested",
            "refunded",
        ]
        await is_consistent(world, request.id)


@pytest.mark.parametrize("seed", [7])
async def test_accepts_around_the_end_of_the_broadcast_on_two_nodes_win_once_or_the_request_is_unfilled_once(
    database_url, redis_url, seed: int
):
    dice = random.Random(seed)
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, SHORT) as a,
        running_node(world, SHORT) as b,
    ):
        mechanics = await world.mechanics(24)
        made = [(await free_request(world, node))[1] for node in (a, b) * 4]

        async def tap(node: Node, mechanic_id: str, request: RequestView, after_ms: int) -> tuple[int, object]:
            at_ms = await deadline_of(world, request) + after_ms
            await eventually(lambda: node.clock.now_ms() >= at_ms, "the moment")
            received_at_ms = node.clock.now_ms()
            return received_at_ms, await node.dispatch.accept(
                mechanic_id, request.offer.id, received_at_ms=received_at_ms
            )

        taps = [
            partial(tap, dice.choice((a, b)), mechanic_id, made[number % len(made)], dice.randint(-40, 300))
            for number, mechanic_id in enumerate(mechanics)
        ]
        answers = await side_by_side(*taps)
        for number, request in enumerate(made):
            deadline_ms = await deadline_of(world, request)
            won = [at_ms for at_ms, answer in answers[number :: len(made)] if isinstance(answer, RequestView)]
            lost = [at_ms for at_ms, answer in answers[number :: len(made)] if isinstance(answer, OfferGone)]
            assert len(won) + len(lost) == 3, answers
            await eventually(partial(_is_decided, world, request), "it is accepted or unfilled")
            row = await world.row(tables.SessionRequest, request.id)
            assert (row.status == "accepted", len(won)) in ((True, 1), (False, 0)), row.status
            assert all(at_ms < deadline_ms for at_ms in won), "acceptable until the deadline"
            if row.status == "unfilled":
                assert row.settled_at_ms >= deadline_ms + core.ACCEPT_LEEWAY_MS, "never early"
            await is_consistent(world, request.id)


async def test_accepts_that_wait_for_one_that_is_stuck_are_told_to_try_again_and_lose_nothing(
    database_url, redis_url, monkeypatch
):
    # Accepts of one offer take turns. The first waits in the database for a lock that somebody holds; the others must not wait
    # for it for ever.
    monkeypatch.setattr(service, "TURN_TIMEOUT_S", 0.2)
    async with running_world(database_url, redis_url) as world, running_node(world) as a:
        first, *others = await world.mechanics(4)
        _, request = await free_request(world, a)
        told: list[str] = []

        async def accept_in_vain(mechanic_id: str) -> None:
            with pytest.raises(DatabaseUnavailable):
                await accept(a, mechanic_id, request.offer.id)()
            told.append(mechanic_id)

        async def hold_until_told() -> None:
            async with world.database.write() as session:
                await within(session, request_store.LOCK_REQUESTS(ids=[request.id]))
                is_held.set()
                await eventually(lambda: len(told) == len(others), "the others are told")

        is_held = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hold_until_told)
            await is_held.wait()
            won, *_ = await side_by_side(
                accept(a, first, request.offer.id), *(partial(accept_in_vain, other) for other in others)
            )
        assert isinstance(won, RequestView), won
        for mechanic_id in others:
            assert await accept(a, mechanic_id, request.offer.id)() == OfferGone(detail="Another mechanic was faster.")
        again = await accept(a, first, request.offer.id)()
        assert untimed(again) == untimed(won), "the winner's repetition is answered as before"
        await is_consistent(world, request.id)


async def _is_decided(world: World, request: RequestView) -> bool:
    return (await world.row(tables.SessionRequest, request.id)).status in ("accepted", "unfilled")
