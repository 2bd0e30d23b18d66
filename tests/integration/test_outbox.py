"""Telling what was committed: at least once, by whoever is left."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import anyio
import pytest
from sqlalchemy import text

from dispatch import deliveries
from dispatch import outbox as outbox_module
from dispatch.notices import Notice
from dispatch.outbox import TELL_BATCH, Message, Outbox
from infra.database import within
from models import tables
from models.errors import DatabaseUnavailable, RedisUnavailable
from models.rest import FreeCheckout
from tests.integration.dispatch_nodes import accept, free_request
from tests.parts import PATIENT, Node, World, body, eventually, running_node, running_world, side_by_side

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

BRISK = replace(PATIENT, outbox_lease_ms=400)
LATE = -1


class Numbered(Notice, frozen=True):
    """A notice for an ear."""

    kind: ClassVar[str] = "test"
    n: int


class Changing(Numbered, frozen=True):
    """One that is another when it is told late."""

    kind: ClassVar[str] = "changing"

    def told_late(self) -> "Changing":
        return Changing(LATE)


class Ear:
    """A handler that keeps what it was told, and fails at some messages as often as it is told to."""

    def __init__(self, failing: dict[int, list[Exception]] | None = None) -> None:
        self.heard: list[int] = []
        self.failing = failing or {}

    async def __call__(self, notices: Sequence[Numbered]) -> None:
        for notice in notices:
            self.heard.append(notice.n)
            if errors := self.failing.get(notice.n):
                raise errors.pop()


def outbox_of(node: Node, ear: Ear, **changes: Any) -> Outbox:
    outbox = Outbox(node.database, node.clock, replace(BRISK, **changes))
    outbox.on(ear, Numbered)
    return outbox


async def write(node: Node, outbox: Outbox, count: int) -> list[Message]:
    """Commit messages as a transition does, without posting them yet."""
    messages = [Message.of(Numbered(n)) for n in range(count)]
    async with node.database.write() as session:
        await within(session, outbox.add(messages))
    return messages


async def is_told(world: World) -> bool:
    return await world.rows(tables.OutboxMessage) == []


async def test_what_was_posted_is_told_in_order_and_then_forgotten(database_url, redis_url):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, without=("outbox",)) as node,
    ):
        ear = Ear()
        outbox = outbox_of(node, ear, outbox_lease_ms=60_000)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outbox.run)
            outbox.post(await write(node, outbox, 150))
            await outbox.drained()
            tasks.cancel_scope.cancel()
        assert ear.heard == list(range(150))
        assert await is_told(world)
        assert outbox.depth == 0


@pytest.mark.parametrize(("fresh_s", "heard"), [(60.0, [1]), (0.0, [LATE])], ids=["at once", "late"])
async def test_what_is_told_late_leaves_out_what_may_have_changed(database_url, redis_url, monkeypatch, fresh_s, heard):
    # Redis stood still between the commit and now: what was true then may have been taken or declined.
    monkeypatch.setattr(outbox_module, "FRESH_S", fresh_s)
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, without=("outbox",)) as node,
    ):
        ear = Ear()
        outbox = Outbox(node.database, node.clock, replace(BRISK, outbox_lease_ms=60_000))
        outbox.on(ear, Changing)
        message = Message.of(Changing(1))
        async with node.database.write() as session:
            await within(session, outbox.add([message]))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outbox.run)
            outbox.post([message])
            await outbox.drained()
            tasks.cancel_scope.cancel()
        assert ear.heard == heard


async def test_a_transaction_that_is_rolled_back_tells_nothing(database_url, redis_url):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, without=("outbox",)) as node,
    ):
        with pytest.raises(ZeroDivisionError):
            async with node.database.write() as session:
                await within(session, node.outbox.add([Message.of(Numbered(1))]))
                raise ZeroDivisionError
        assert await is_told(world)


async def test_what_a_node_that_died_had_committed_is_told_by_another_after_the_lease(database_url, redis_url):
    # The node commits and dies before it has told anybody: its outbox never runs.
    async with running_world(database_url, redis_url) as world, running_node(world, BRISK) as alive:
        async with running_node(world, BRISK, without=("outbox",)) as dying:
            customer_id, favorite = await world.customer(), await world.mechanic()
            # The lease begins somewhere in here.
            begun_at_ms = dying.clock.now_ms()
            answer = await dying.checkouts.start(customer_id, body("free_diagnostic", favorite))
            assert isinstance(answer, FreeCheckout)
        await eventually(lambda: alive.heard_of(deliveries.OfferTo), "the offer is told")
        assert alive.clock.now_ms() - begun_at_ms >= BRISK.outbox_lease_ms - 50, "not before the lease has ended"
        (offer,) = alive.heard_of(deliveries.OfferTo)
        assert (offer.offer.offer_id, offer.mechanic_id) == (answer.request.offer.id, favorite)
        update, *_ = await eventually(lambda: alive.updates_of(answer.request.id), "the customer is told")
        left_ms = answer.request.offer.expires_in_ms - (BRISK.outbox_lease_ms - 50)
        assert update["offer"]["expires_in_ms"] <= left_ms, "the time that is left is counted anew"
        key = alive.link.key("deadlines", f"offer:{answer.request.offer.id}")
        assert await alive.link.ask(key, lambda redis: redis.exists(key))
        await eventually(lambda: is_told(world), "nothing is left to tell")


@pytest.mark.bugs_planted
async def test_a_payload_that_is_nested_too_deeply_keeps_nothing_else_from_being_told(database_url, redis_url):
    deep = '{"offer_id": "x", "y": ' + "[" * 1_500 + "]" * 1_500 + "}"
    async with running_world(database_url, redis_url) as world:
        async with running_node(world, BRISK, without=("outbox",)) as dying:
            mechanic_id = await world.mechanic()
            await dying.dispatch.set_on_duty(mechanic_id, False)
            async with world.database.write() as session:
                values = "('0', 'offer_closed', :deep, 1, 0)"
                await session.exec(
                    text(f"INSERT INTO outbox (id, kind, payload, leased_until_ms, failures) VALUES {values}"),
                    params={"deep": deep},
                )
        async with running_node(world, BRISK) as alive:
            await eventually(lambda: alive.heard_of(deliveries.StandingChanged), "the other message is told")


async def test_nobody_is_asked_late_for_a_favorite_whom_they_have_already(database_url, redis_url):
    # The session ends and its node dies -> the customer makes the mechanic a favourite -> another node tells what is left.
    async with running_world(database_url, redis_url) as world, running_node(world, BRISK) as alive:
        async with running_node(world, BRISK, without=("outbox",)) as dying:
            mechanic_id = await world.mechanic()
            customer_id, request = await free_request(world, dying, mechanic_id)
            await accept(dying, mechanic_id, request.offer.id)()
            await dying.dispatch.start(mechanic_id, request.id)
            await dying.dispatch.complete(mechanic_id, request.id)
            async with world.database.write() as session:
                session.add(tables.Favorite(customer_id=customer_id, mechanic_id=mechanic_id, created_at_ms=1))
        await eventually(lambda: is_told(world), "nothing is left to tell")
        told = [one.frame for one in alive.heard_of(deliveries.FrameToCustomer)]
        assert any(b"request_update" in bytes(frame) for frame in told)
        assert not any(b'"favorite_prompt":true' in bytes(frame) for frame in told)
        assert not any(b'"type":"favorite_prompt"' in bytes(frame) for frame in told)


@pytest.mark.parametrize(
    "error",
    [RedisUnavailable("away"), DatabaseUnavailable("away")],
    ids=lambda e: type(e).__name__,
)
async def test_a_message_that_could_not_be_told_is_told_again_and_does_not_stop_the_others(
    database_url, redis_url, error: Exception
):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, without=("outbox",)) as node,
    ):
        ear = Ear({1: [error, error, error]})
        outbox = outbox_of(node, ear, outbox_lease_ms=200)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outbox.run)
            outbox.post(await write(node, outbox, 4))
            await eventually(lambda: is_told(world), "all is told")
            tasks.cancel_scope.cancel()
        # All together until the one that fails, then by halves, and later the one that had failed.
        assert ear.heard == [0, 1, 0, 1, 0, 1, 2, 3, 1]


async def test_of_two_nodes_that_sweep_one_takes_each_message(database_url, redis_url):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, without=("outbox",)) as a,
        running_node(world, without=("outbox",)) as b,
    ):
        ears = [Ear(), Ear()]
        outboxes = [outbox_of(node, ear, outbox_lease_ms=300) for node, ear in zip((a, b), ears, strict=True)]
        await write(a, outboxes[0], 120)
        async with anyio.create_task_group() as tasks:
            for outbox in outboxes:
                tasks.start_soon(outbox.run)
            await eventually(lambda: is_told(world), "all is told")
            tasks.cancel_scope.cancel()
        told = Counter(ears[0].heard + ears[1].heard)
        assert told.keys() == set(range(120))
        # At least once; a batch that takes longer than its lease may be told by both.
        assert sum(told.values()) <= 240


async def test_a_full_queue_loses_nothing(database_url, redis_url):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, without=("outbox",)) as node,
    ):
        ear = Ear()
        outbox = outbox_of(node, ear, outbox_queue_len_max=3)
        outbox.post(await write(node, outbox, 10))
        assert outbox.depth == 3
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outbox.run)
            await eventually(lambda: is_told(world), "the sweep has told the rest")
            tasks.cancel_scope.cancel()
        assert sorted(ear.heard) == list(range(10))
        assert ear.heard[:3] == [0, 1, 2]


async def test_nothing_is_left_to_tell_after_many_transitions_on_two_nodes(database_url, redis_url):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as a,
        running_node(world) as b,
    ):

        async def live(node: Node) -> None:
            customer_id, mechanic_id = await world.customer(), await world.mechanic()
            answer = await node.checkouts.start(customer_id, body("free_diagnostic", mechanic_id))
            assert isinstance(answer, FreeCheckout)
            await node.dispatch.decline(mechanic_id, answer.request.offer.id)
            await node.dispatch.cancel(customer_id, answer.request.id)

        await side_by_side(*(lambda node=node: live(node) for node in (a, b) * 5))
        await a.outbox.drained()
        await b.outbox.drained()
        assert await is_told(world)
        for node in (a, b):

            def last_told(node: Node = node) -> list[bytes]:
                last = {
                    delivery.account_id: bytes(delivery.frame) for delivery in node.heard_of(deliveries.FrameToCustomer)
                }
                return [frame for frame in last.values() if b'"cancelled"' in frame]

            await eventually(lambda told=last_told: len(told()) == 10, "everyone was told the end last")


async def test_a_node_that_is_behind_takes_over_what_a_dead_one_left_behind_its_own(database_url, redis_url):
    # Three hundred of its own wait in its queue, their leases over; what the dead node wrote has later ids.
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, without=("outbox",)) as node,
        running_node(world, without=("outbox",)) as dying,
    ):
        ear = Ear()
        outbox = outbox_of(node, ear, outbox_lease_ms=1)
        outbox.post(await write(node, outbox, TELL_BATCH))
        left_at_ms = node.clock.now_ms()
        (left,) = await write(dying, outbox_of(dying, Ear(), outbox_lease_ms=1), 1)
        await eventually(lambda: node.clock.now_ms() > left_at_ms + 100, "all leases are over")
        taken = await outbox._left_behind.claim(TELL_BATCH, skip=frozenset(outbox._own))
        assert [row.id for row in taken] == [left.id]
