"""What travels on the sockets of real nodes, with real dispatch and presence behind them."""

import json

import anyio
from msgspec import Raw
from sqlalchemy import update

from dispatch.deliveries import FrameToCustomer, FrameToMechanic, OfferTo, Withdraw
from models import wire
from models.tables import Mechanic
from models.wire import OfferView, RequestUpdate
from tests.integration.socket_nodes import Node, eventually, town
from tests.services import redis_server
from tests.unit.connection_stage import a_request


def offered(node: Node, offer_id: str = "o1", *, left_ms: int = 60_000, to: str | None = None) -> OfferTo:
    expires_at_ms = node.clock.now_ms() + left_ms
    kind = "broadcast" if to is None else "priority"
    view = OfferView(offer_id, "r1", kind, "John Doe", "quick_chat", "text", 10, "2026-11-22T09:30:00.000Z", left_ms)
    return OfferTo(view, expires_at_ms, to, [])


async def test_what_one_node_publishes_reaches_the_sockets_of_another(redis_url, tmp_path):
    async with town(redis_url, tmp_path) as here, here.node() as a, here.node() as b:
        mechanic, customer = await here.add_mechanic(), await here.add_customer()
        async with b.mechanic(mechanic) as phone, b.customer(customer) as page:
            await a.tell(offered(a))
            offer = (await phone.expect("offer"))["offer"]
            assert (offer["offer_id"], offer["kind"]) == ("o1", "broadcast")
            assert 0 < offer["expires_in_ms"] <= 60_000

            await a.tell(Withdraw("o1", "taken"))
            assert await phone.expect("offer_withdrawn") == {
                "type": "offer_withdrawn",
                "offer_id": "o1",
                "reason": "taken",
            }
            frame = Raw(wire.encode(RequestUpdate(a_request())))
            await a.tell(FrameToCustomer(customer, frame))
            await a.tell(FrameToMechanic(mechanic, frame))
            assert (await page.expect("request_update"))["request"]["id"] == "r-o1"
            assert (await phone.expect("request_update"))["request"]["id"] == "r-o1"


async def test_an_offer_comes_again_until_it_is_acknowledged(redis_url, tmp_path):
    async with town(redis_url, tmp_path) as here, here.node(resend_interval_ms=150) as node:
        mechanic = await here.add_mechanic()
        async with node.mechanic(mechanic) as phone:
            await node.tell(offered(node))
            left_ms = [(await phone.expect("offer"))["offer"]["expires_in_ms"] for _ in range(3)]
            assert left_ms == sorted(left_ms, reverse=True)
            assert left_ms[0] - left_ms[2] >= 290

            await phone.send("offer_ack", offer_id="o1")
            await phone.send("heartbeat")
            await phone.expect("heartbeat_ack")
            phone.received.clear()
            # Two more intervals' worth of heartbeats, and no offer among their answers.
            for _ in range(6):
                await anyio.sleep(0.05)
                await phone.send("heartbeat")
                await phone.expect("heartbeat_ack")
            assert [message["type"] for message in phone.received] == ["heartbeat_ack"] * 6


async def test_a_broadcast_is_not_sent_again_to_who_has_gone_off_duty_until_they_are_back(redis_url, tmp_path):
    async with town(redis_url, tmp_path) as here, here.node(resend_interval_ms=150) as node:
        mike, jane = await here.add_mechanic(), await here.add_mechanic()
        async with node.mechanic(mike) as phone, node.mechanic(jane) as other:
            await node.tell(offered(node))
            for app in (phone, other):
                await app.expect("offer")
            await phone.send("set_availability", on_duty=False)
            assert (await phone.expect("availability"))["on_duty"] is False
            await phone.send("heartbeat")
            await phone.expect("heartbeat_ack")
            phone.received.clear()
            for _ in range(3):
                await other.expect("offer")
            await phone.send("set_availability", on_duty=True)
            assert (await phone.expect("availability"))["on_duty"] is True
            assert [message["type"] for message in phone.received] == ["availability"]
            await phone.expect("offer")


async def test_duty_is_remembered_across_connections_and_shown_to_the_other_device_on_another_node(redis_url, tmp_path):
    async with town(redis_url, tmp_path) as here, here.node() as a, here.node() as b:
        mechanic = await here.add_mechanic()
        async with a.mechanic(mechanic) as phone, b.mechanic(mechanic) as tablet:
            assert phone.received[0]["on_duty"] is True
            await phone.send("set_availability", on_duty=False)
            off = {"type": "availability", "on_duty": False, "availability": "off_duty"}
            assert await phone.expect("availability") == off
            assert await tablet.expect("availability") == off
            await b.tell(offered(b))
            await phone.send("heartbeat")
            await phone.expect("heartbeat_ack")
            assert "offer" not in [message["type"] for message in phone.received]
        async with b.client("mechanic", mechanic) as again:
            assert (await again.hear())["on_duty"] is False


async def test_an_accept_of_what_never_was_is_answered_by_the_real_dispatch(redis_url, tmp_path):
    async with (
        town(redis_url, tmp_path) as here,
        here.node() as node,
        node.mechanic(await here.add_mechanic()) as phone,
    ):
        await phone.send("accept", offer_id="never-was")
        error = await phone.expect("error")
        assert (error["code"], error["ref"]) == ("offer_gone", "never-was")
        await phone.send("decline", offer_id="never-was")
        assert (await phone.expect("error"))["ref"] == "never-was"


async def test_a_customer_sees_a_mechanic_come_and_go_on_another_node(redis_url, tmp_path):
    async with town(redis_url, tmp_path) as here, here.node() as a, here.node() as b:
        mechanic, customer = await here.add_mechanic(), await here.add_customer()
        async with a.customer(customer) as page:
            await page.send("watch", mechanic_ids=[mechanic, "nobody"])
            first = await page.expect("status")
            assert (first["mechanic_id"], first["is_online"], first["last_seen"]) == (mechanic, False, None)
            error = await page.expect("error")
            assert (error["code"], error["ref"]) == ("mechanic_not_found", "nobody")

            async with b.mechanic(mechanic):
                online = await page.expect("status")
                assert (online["is_online"], online["availability"]) == (True, "available")
            offline = await page.expect("status")
            assert (offline["is_online"], offline["availability"]) == (False, "offline")
            assert first["version"] < online["version"] < offline["version"]


async def test_a_watch_of_many_is_answered_by_one_frame(redis_url, tmp_path):
    async with town(redis_url, tmp_path) as here, here.node() as node:
        mechanics = [await here.add_mechanic() for _ in range(30)]
        async with node.customer(await here.add_customer()) as page, node.mechanic(mechanics[0]):
            await page.send("watch", mechanic_ids=[*mechanics, "nobody"])
            answer = await page.expect("statuses")
            assert {status["mechanic_id"] for status in answer["statuses"]} == set(mechanics)
            assert (await page.expect("error"))["ref"] == "nobody"
            async with node.mechanic(mechanics[1]):
                online = await page.expect("status")
                assert (online["mechanic_id"], online["is_online"]) == (mechanics[1], True)


async def test_a_mechanic_hears_the_news_that_the_bus_lost(redis_url, tmp_path):
    with redis_server() as own_redis:
        async with town(own_redis.url, tmp_path) as here, here.node() as node:
            mechanic = await here.add_mechanic()
            async with node.mechanic(mechanic) as phone:
                own_redis.kill()
                table = Mechanic.__table__
                async with here.database.write() as session:
                    await (await session.connection()).execute(
                        update(table).where(table.c.id == mechanic).values(on_duty=False, facts_version=99)
                    )
                own_redis.restart()
                assert (await phone.expect("availability"))["on_duty"] is False


async def test_a_broadcast_to_many_sockets_reaches_each_once_and_is_counted(redis_url, tmp_path):
    async with town(redis_url, tmp_path) as here, here.node() as node:
        mechanics = [await here.add_mechanic() for _ in range(20)]
        async with anyio.create_task_group() as tasks:
            got: list[str] = []
            ready: list[str] = []

            async def listen(mechanic: str) -> None:
                async with node.mechanic(mechanic) as phone:
                    ready.append(mechanic)
                    got.append((await phone.expect("offer"))["offer"]["offer_id"])

            for mechanic in mechanics:
                tasks.start_soon(listen, mechanic)
            await eventually(lambda: len(ready) == 20, "all are connected")
            assert node.hub.connection_counts["mechanic"] == 20
            before = node.hub.counters.frames_out
            await node.tell(offered(node))
            await eventually(lambda: len(got) == 20, "all have it")
            assert node.hub.counters.frames_out - before >= 20
        assert got == ["o1"] * 20


async def test_bad_messages_are_answered_and_the_socket_stays_open(redis_url, tmp_path):
    async with (
        town(redis_url, tmp_path) as here,
        here.node() as node,
        node.mechanic(await here.add_mechanic()) as phone,
    ):
        for text, code in (
            ("{", "malformed_json"),
            ('{"type": "dance"}', "unknown_type"),
            ('{"type": "accept"}', "invalid_message"),
            ("[" * 16_000, "invalid_message"),
        ):
            await phone.connection.send(text)
            assert (await phone.expect("error"))["code"] == code
        await phone.connection.send(json.dumps({"type": "heartbeat", "unknown": [1, 2]}))
        await phone.expect("heartbeat_ack")
