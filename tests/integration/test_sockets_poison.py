"""One socket, delivery or row that cannot be handled, in each loop of a node's sockets: the others are served all the same.

Each test breaks something inside one connection of a real node, or puts into SQL or Redis what nobody can read, and then looks
at the others: they are served within ``SOON_S``, no loop has died of it, and the failure is counted.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import pytest
from msgspec import Raw
from websockets.exceptions import InvalidStatus

from dispatch.deliveries import Delivery, FrameToCustomer, FrameToMechanic, StandingChanged, Withdraw
from http_api.sockets.connection import Connection
from http_api.sockets.mechanic import MechanicConnection
from infra.metrics import LOOPS_DIED, REGISTRY
from models import wire
from models.ids import new_id
from models.tables import Checkout, Mechanic, SessionRequest, TimelineEntry
from models.wire import RequestUpdate, StatusView
from models.words import RequestStatus, WithdrawReason
from presence import leases
from presence.liveness import MechanicStatus
from tests.integration.presence_nodes import CALM, Recorder, world
from tests.integration.socket_nodes import Client, Town, eventually, town
from tests.integration.test_sockets_messages import offered
from tests.services import redis_server
from tests.unit.connection_stage import a_request

pytestmark = pytest.mark.bugs_planted

SOON_S = 5.0
"""A second is promised; a machine that does other things besides gets more."""
UPDATE = Raw(wire.encode(RequestUpdate(a_request())))


@contextmanager
def costing_only(work: str) -> Iterator[None]:
    """Insist that items of this work have failed at the end of the block, and no loop has died."""
    before, died = _failed(work), _loops_died()
    yield
    assert _failed(work) > before
    assert _loops_died() == died


def _failed(work: str) -> float:
    return REGISTRY.get_sample_value("pitlane_items_failed_total", {"work": work}) or 0


def _loops_died() -> float:
    return sum(sample.value for family in LOOPS_DIED.collect() for sample in family.samples)


async def expect_soon(client: Client, kind: str) -> None:
    with anyio.fail_after(SOON_S):
        await client.expect(kind)


def break_one_of(connections: tuple[Connection, ...]) -> None:
    """Leave a connection in a state in which everything that is told to it raises."""
    connection = connections[0]
    connection._held = 5  # type: ignore[assignment]
    if isinstance(connection, MechanicConnection):
        connection._was_eligible = "perhaps"  # type: ignore[assignment]


async def test_a_socket_whose_silence_cannot_be_measured_keeps_no_silent_one_open(redis_url, tmp_path):
    brisk = {"heartbeat_interval_ms": 150, "presence_timeout_ms": 450}
    async with town(redis_url, tmp_path) as here, here.node(**brisk) as node:
        poisoned, first, second = [await here.add_mechanic() for _ in range(3)]
        with costing_only("socket_time"):
            async with node.mechanic(poisoned):
                node.hub.mechanics.of(poisoned)[0].heard_at_s = "never"  # type: ignore[assignment]
                for silent in (first, second):
                    async with node.raw("mechanic", silent) as client:
                        with anyio.fail_after(SOON_S):
                            assert await client.close_code() == 4408
                assert [one.account_id for one in node.hub.mechanics.all()] == [poisoned]


async def test_a_socket_that_cannot_be_sent_an_offer_again_keeps_nobody_else_from_it(redis_url, tmp_path):
    async with town(redis_url, tmp_path) as here, here.node(resend_interval_ms=100) as node:
        poisoned, other = await here.add_mechanic(), await here.add_mechanic()
        with costing_only("offer_again"):
            async with node.mechanic(poisoned) as broken, node.mechanic(other) as phone:
                await node.tell(offered(node))
                for client in (broken, phone):
                    await expect_soon(client, "offer")
                break_one_of(node.hub.mechanics.of(poisoned))
                for _ in range(3):
                    await expect_soon(phone, "offer")


@pytest.mark.parametrize("kind", ["broadcast", "priority", "withdrawal", "update", "standing"])
async def test_a_socket_that_cannot_take_a_delivery_keeps_nobody_else_from_it(redis_url, tmp_path, kind):
    async with town(redis_url, tmp_path) as here, here.node() as node:
        mechanic, other = await here.add_mechanic(), await here.add_mechanic()
        told: tuple[Delivery, str] = {
            "broadcast": (offered(node, "fresh"), "offer"),
            "priority": (offered(node, "fresh", to=mechanic), "offer"),
            "withdrawal": (Withdraw("shown", WithdrawReason.TAKEN), "offer_withdrawn"),
            "update": (FrameToMechanic(mechanic, UPDATE), "request_update"),
            "standing": (StandingChanged(mechanic, on_duty=False, is_busy=False), "availability"),
        }[kind]
        with costing_only("delivery"):
            async with node.mechanic(mechanic), node.mechanic(mechanic) as tablet, node.mechanic(other) as phone:
                await node.tell(offered(node, "shown"))
                await expect_soon(tablet, "offer")
                if kind == "standing":
                    # What the tablet is told then is what SQL says.
                    async with here.database.write() as session:
                        (await session.get_one(Mechanic, mechanic)).on_duty = False
                break_one_of(node.hub.mechanics.of(mechanic))
                await node.tell(told[0])
                await expect_soon(tablet, told[1])
                await node.tell(FrameToMechanic(other, UPDATE))
                await expect_soon(phone, "request_update")


async def test_a_page_that_cannot_take_a_delivery_keeps_nobody_else_from_it(redis_url, tmp_path):
    async with town(redis_url, tmp_path) as here, here.node() as node:
        customer = await here.add_customer()
        with costing_only("delivery"):
            async with node.customer(customer), node.customer(customer) as second:
                break_one_of(node.hub.customers.of(customer))
                await node.tell(FrameToCustomer(customer, UPDATE))
                await expect_soon(second, "request_update")


async def test_a_socket_that_cannot_be_brought_up_to_date_keeps_nobody_else_behind(tmp_path):
    with redis_server() as own_redis:
        async with town(own_redis.url, tmp_path) as here, here.node() as node:
            poisoned, other = await here.add_mechanic(), await here.add_mechanic()
            with costing_only("refresh"), costing_only("socket_job"):
                async with node.mechanic(poisoned), node.mechanic(poisoned), node.mechanic(other) as phone:
                    unrefreshable, unreadable = node.hub.mechanics.of(poisoned)
                    break_one_of((unrefreshable,))
                    unreadable._parts = None  # type: ignore[assignment]
                    for off_duty in (True, False):
                        own_redis.kill()
                        async with here.database.write() as session:
                            mechanic = await session.get_one(Mechanic, other)
                            mechanic.on_duty, mechanic.facts_version = not off_duty, mechanic.facts_version + 1
                        own_redis.restart()
                        await expect_soon(phone, "availability")


async def request_of(here: Town, customer: str, story: object) -> None:
    """Put a customer's open request into SQL, with one line in its timeline, whose details may be what they must not."""
    about = {"customer_id": customer, "plan_id": "quick_chat", "price_cents": 1, "currency": "usd", "duration_min": 10}
    about |= {"session_type": "text", "routing_type": "broadcast", "created_at_ms": 1}
    one = new_id()
    async with here.database.write() as session:
        session.add(Checkout(id=one, **about))
        await session.flush()
        session.add(SessionRequest(id=one, checkout_id=one, version=1, status=RequestStatus.BROADCASTING, **about))
        await session.flush()
        session.add(TimelineEntry(request_id=one, at_ms=1, event="paid", details=story))


async def test_a_request_that_nobody_can_read_keeps_no_other_customer_from_connecting(redis_url, tmp_path):
    async with town(redis_url, tmp_path) as here, here.node() as node:
        customers = [await here.add_customer() for _ in range(10)]
        poisoned = customers[4]
        for customer in customers:
            await request_of(here, customer, 5 if customer == poisoned else {})
        answers: dict[str, object] = {}

        async def connect(customer: str) -> None:
            try:
                async with node.client("customer", customer) as page:
                    answers[customer] = len((await page.hear())["requests"])
            except InvalidStatus as refused:
                answers[customer] = refused.response.status_code

        with costing_only("snapshot"), anyio.fail_after(SOON_S):
            async with anyio.create_task_group() as tasks:
                for customer in customers:
                    tasks.start_soon(connect, customer)
        assert answers == {customer: 500 if customer == poisoned else 1 for customer in customers}


async def test_a_watcher_that_raises_keeps_no_other_from_being_told(redis_url, tmp_path):
    class Broken(Recorder):
        def __call__(self, view: StatusView) -> None:
            super().__call__(view)
            raise KeyError("a bug")

    async with world(redis_url, tmp_path, CALM) as here, here.node() as node:
        mechanic, broken, other = await here.add_mechanic(), Broken(), Recorder()
        with costing_only("status"), anyio.fail_after(SOON_S):
            await node.presence.watch([mechanic], broken)
            await node.presence.watch([mechanic], other)
            node.presence.joined(mechanic)
            await eventually(lambda: broken.words == other.words == ["offline", "available"], "both are told")


async def test_a_status_that_cannot_be_read_keeps_no_other_from_being_told(redis_url, tmp_path, monkeypatch):
    async with world(redis_url, tmp_path, CALM) as here, here.node() as node:
        mechanics, sink, late = await here.add_mechanics(8), Recorder(), Recorder()
        poisoned, *others = mechanics
        await node.presence.status_of(mechanics)
        parse = leases.parse

        def parse_all_but_one(message: str) -> MechanicStatus:
            if message.startswith(poisoned):
                raise KeyError("no such thing")
            return parse(message)

        monkeypatch.setattr(leases, "parse", parse_all_but_one)
        with costing_only("watch"), anyio.fail_after(SOON_S):
            await node.presence.watch(mechanics, sink)
            assert {view.mechanic_id for view in sink.views} == set(others)
            await node.presence.watch(others, late)
            assert len(late.views) == len(others)
