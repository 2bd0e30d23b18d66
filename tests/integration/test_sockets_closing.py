"""What ends a socket and with which code, and what does not end it: real bytes against a real server."""

import asyncio
import json
import logging
from time import monotonic

import anyio
import pytest
from msgspec import Raw

from dispatch.deliveries import FrameToMechanic
from http_api.sockets.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT
from tests.integration.socket_nodes import PATIENCE_S, RawClient, eventually, town
from tests.unit.connection_stage import client_frame

HEARTBEAT = b'{"type": "heartbeat"}'
BRISK = {"heartbeat_interval_ms": 300, "presence_timeout_ms": 1_500}
"""A busy machine may let a test stand still for a second, and its client must not count as silent for that."""
MESSAGE_TOO_BIG = b'{"type": "heartbeat", "x": "' + b"x" * 16 * 1024 + b'"}'


async def acknowledged(client: RawClient) -> None:
    """Wait for the acknowledgement of a heartbeat."""
    while json.loads(await client.next_of(TEXT))["type"] != "heartbeat_ack":
        pass


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([(BINARY, b"\x00", True)], 1003),
        ([(BINARY, b"", False)], 1003),
        ([(TEXT, b"\xff\xff", True)], 1007),
        ([(TEXT, "ä".encode()[:1], False), (CONTINUATION, b"x", True)], 1007),
        ([(TEXT, MESSAGE_TOO_BIG, True)], 1009),
        ([(TEXT, b"x" * 9000, False), (CONTINUATION, b"x" * 9000, True)], 1009),
        ([(CONTINUATION, b"x", True)], 1002),
        ([(TEXT, b"x", False), (TEXT, b"y", True)], 1002),
        ([(PING, b"x" * 126, True)], 1002),
        ([(3, b"", True)], 1002),
        ([(CLOSE, b"\x03", True)], 1002),
        ([(CLOSE, b"\x03\xe8", True)], 1000),
        ([(PING, b"", True)] * 300, 1008),
        ([(TEXT, HEARTBEAT, True)] * 300, 1008),
    ],
    ids=[
        "binary",
        "fragmented binary",
        "bad UTF-8",
        "bad UTF-8 in fragments",
        "too long",
        "too long in total",
        "continuation of nothing",
        "a message within a message",
        "long ping",
        "unknown opcode",
        "half a close code",
        "a plain goodbye",
        "too many pings",
        "too many messages",
    ],
)
async def test_each_way_to_break_the_rules_has_its_close_code(redis_url, tmp_path, caplog, frames, code):
    async with town(redis_url, tmp_path) as here, here.node() as node:
        mechanic = await here.add_mechanic()
        with caplog.at_level(logging.WARNING):
            async with node.raw("mechanic", mechanic) as client:
                for opcode, payload, is_final in frames:
                    client.send(opcode, payload, is_final=is_final)
                assert await client.close_code() == code
                await eventually(lambda: len(node.hub.mechanics) == 0, "the connection is forgotten")
                with anyio.fail_after(PATIENCE_S):
                    assert await client.reader.read() == b"", "the end of the stream follows the close frame"
        assert [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR] == []


async def test_a_message_of_exactly_16_kib_in_three_fragments_with_a_ping_between_is_understood(redis_url, tmp_path):
    text = b'{"type": "heartbeat", "x": "' + b"x" * (16 * 1024 - 30) + b'"}'
    assert len(text) == 16 * 1024
    async with (
        town(redis_url, tmp_path) as here,
        here.node() as node,
        node.raw("mechanic", await here.add_mechanic()) as client,
    ):
        client.send(TEXT, text[:5000], is_final=False)
        client.send(CONTINUATION, text[5000:10_000], is_final=False)
        client.send(PING, b"still there?")
        client.send(CONTINUATION, text[10_000:])
        assert await client.next_of(PONG) == b"still there?"
        await acknowledged(client)


async def test_a_frame_that_arrives_byte_by_byte_is_understood(redis_url, tmp_path):
    async with (
        town(redis_url, tmp_path) as here,
        here.node() as node,
        node.raw("mechanic", await here.add_mechanic()) as client,
    ):
        before = node.hub.counters.frames_in
        for byte in client_frame(TEXT, HEARTBEAT):
            client.write(bytes([byte]))
            await client.writer.drain()
            await asyncio.sleep(0)
        await acknowledged(client)
        assert node.hub.counters.frames_in == before + 1


async def test_what_a_hasty_client_sends_before_it_was_answered_is_not_lost(redis_url, tmp_path):
    async with town(redis_url, tmp_path) as here, here.node() as node:
        mechanic = await here.add_mechanic()
        async with node.raw("mechanic", mechanic, early=client_frame(TEXT, HEARTBEAT)) as client:
            assert json.loads(await client.next_of(TEXT))["type"] == "welcome"
            await acknowledged(client)


async def test_who_answers_pings_stays_and_who_says_nothing_is_closed_with_4408(redis_url, tmp_path):
    async with town(redis_url, tmp_path) as here, here.node(**BRISK) as node:
        quiet, dead = await here.add_mechanic(), await here.add_mechanic()
        async with node.raw("mechanic", quiet) as answering, node.raw("mechanic", dead) as silent:
            began_s = monotonic()
            answered = 0

            async def answer_pings() -> None:
                nonlocal answered
                while True:
                    answering.send(PONG, await answering.next_of(PING))
                    answered += 1

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(answer_pings)
                assert await silent.close_code() == 4408
                closed_after_s = monotonic() - began_s
                await eventually(lambda: answered >= 6, "pinged and answering for longer than the time-out")
                tasks.cancel_scope.cancel()
            assert closed_after_s >= 1.49
            assert [one.account_id for one in node.hub.mechanics.all()] == [quiet]
            statuses = await node.presence.status_of([quiet])
            assert statuses[quiet].is_online


async def test_a_customer_who_says_nothing_is_closed_too(redis_url, tmp_path):
    async with (
        town(redis_url, tmp_path) as here,
        here.node(**BRISK) as node,
        node.raw("customer", await here.add_customer()) as silent,
    ):
        assert await silent.close_code() == 4408


async def test_pings_of_the_client_keep_it_too(redis_url, tmp_path):
    async with (
        town(redis_url, tmp_path) as here,
        here.node(**BRISK) as node,
        node.raw("customer", await here.add_customer()) as client,
    ):
        ends_s = monotonic() + 2.0
        while monotonic() < ends_s:
            client.send(PING)
            await client.next_of(PONG)
            await anyio.sleep(0.05)
        assert len(node.hub.customers) == 1


async def test_a_token_that_expires_closes_with_4401_within_a_second(redis_url, tmp_path):
    async with town(redis_url, tmp_path) as here, here.node() as node:
        mechanic = await here.add_mechanic()
        expires_at_ms = (node.clock.now_ms() // 1000 + 2) * 1000
        async with node.mechanic(mechanic, lifetime_s=2) as phone:
            assert await phone.closed_with() == 4401
            assert 0 <= node.clock.now_ms() - expires_at_ms < 1_500


async def test_a_stop_of_the_server_sends_1012_and_is_prompt(redis_url, tmp_path):
    async with town(redis_url, tmp_path) as here, here.node() as node:
        mechanic, customer = await here.add_mechanic(), await here.add_customer()
        async with node.mechanic(mechanic) as phone, node.customer(customer) as page:
            node.server.should_exit = True
            assert (await phone.closed_with(), await page.closed_with()) == (1012, 1012)
        await eventually(lambda: not node.server.server_state.connections, "uvicorn waits for nobody")
        assert node.hub.connection_counts == {"mechanic": 0, "customer": 0}


async def test_who_does_not_read_is_cut_off_when_the_buffer_is_full_and_others_do_not_wait(redis_url, tmp_path):
    async with town(redis_url, tmp_path) as here, here.node(send_buffer_len_max=256 * 1024) as node:
        slow, other = await here.add_mechanic(), await here.add_mechanic()
        async with node.raw("mechanic", slow) as lazy, node.mechanic(other) as phone:
            await lazy.next_of(TEXT)
            lazy.writer.transport.pause_reading()
            bulk = Raw(json.dumps({"type": "request_update", "x": "x" * 60_000}).encode())
            sent = 0
            while node.hub.counters.slow_consumers_closed == 0:
                assert sent < 1_000, "it must be cut off some day"
                await node.tell(FrameToMechanic(slow, bulk))
                sent += 1
            await phone.send("heartbeat")
            await phone.expect("heartbeat_ack")
            assert [one.account_id for one in node.hub.mechanics.all()] == [other]


async def test_a_connection_cut_without_a_word_is_forgotten_at_once(redis_url, tmp_path):
    async with town(redis_url, tmp_path) as here, here.node() as node:
        mechanic = await here.add_mechanic()
        async with node.raw("mechanic", mechanic) as client:
            await client.next_of(TEXT)
            client.writer.transport.abort()
            await eventually(lambda: len(node.hub.mechanics) == 0, "forgotten")

        async def is_offline() -> bool:
            return not (await node.presence.status_of([mechanic]))[mechanic].is_online

        await eventually(is_offline, "offline after the grace")
