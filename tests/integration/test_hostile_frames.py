"""Whatever a frame holds, its socket is answered or closed, and nothing on our side fails: by chance, from seeds."""

import json
import logging
import random
from asyncio import IncompleteReadError

import anyio
import pytest

from http_api.sockets.frames import CLOSE, PING, PONG, TEXT
from tests.hostile_frames import odd_bytes, odd_text
from tests.integration.socket_nodes import PATIENCE_S, Node, RawClient, town

ROUNDS = 60
ANSWERS = {"error", "heartbeat_ack", "availability", "offer_withdrawn", "status", "statuses", "welcome"}


async def answered(client: RawClient) -> set[str]:
    """Send a heartbeat, and return the kinds of what comes until its answer; a frame may have been a heartbeat, too."""
    kinds: set[str] = set()
    client.send(PING, b"last")
    while True:
        opcode, payload = await client.frame()
        assert opcode in (TEXT, PONG), (opcode, payload)
        if opcode == PONG and payload == b"last":
            return kinds
        if opcode == TEXT:
            message = json.loads(payload)
            kinds.add(message["type"])
            assert message.get("code") != "internal_error", message


@pytest.mark.parametrize("kind", ["mechanic", "customer"])
async def test_whatever_a_text_frame_says_it_is_answered_and_the_socket_stays_open(
    redis_url, tmp_path, caplog, capsys, kind
):
    boundless = {"frames_per_s_max": 10**6, "frames_burst_max": 10**6}
    async with town(redis_url, tmp_path) as here, here.node(**boundless) as node:
        account = await (here.add_mechanic() if kind == "mechanic" else here.add_customer())
        async with node.raw(kind, account) as client:
            heard: set[str] = set()
            for seed in range(ROUNDS):
                chance = random.Random(seed)
                for _ in range(20):
                    client.send(TEXT, odd_text(chance).encode())
                heard |= await answered(client)
            assert {"error", "heartbeat_ack"} <= heard <= ANSWERS
    assert no_traceback(caplog, capsys)


@pytest.mark.parametrize("kind", ["mechanic", "customer"])
async def test_whatever_bytes_come_in_the_place_of_frames_the_socket_is_closed_or_lives(
    redis_url, tmp_path, caplog, capsys, kind
):
    async with town(redis_url, tmp_path) as here, here.node() as node:
        account = await (here.add_mechanic() if kind == "mechanic" else here.add_customer())
        for seed in range(ROUNDS):
            code = await ended_by(node, kind, account, odd_bytes(random.Random(seed)))
            assert code in {None, 1000, 1002, 1003, 1005, 1007, 1008, 1009, 3000, 4401}, seed
        assert sum(node.hub.connection_counts.values()) <= 1
    assert no_traceback(caplog, capsys)


async def ended_by(node: Node, kind: str, account: str, sent: bytes) -> int | None:
    """Return the code that a socket is closed with for these bytes; ``None`` if it waits for more of them."""
    async with node.raw(kind, account) as client:
        client.write(sent + b"\x89\x80\0\0\0\0")
        client.writer.write_eof()
        with anyio.fail_after(PATIENCE_S):
            try:
                said = await client.next_of(CLOSE)
            except (IncompleteReadError, ConnectionError):
                return None
        return int.from_bytes(said[:2], "big") if said else 1005


async def test_a_flood_of_frames_that_are_no_messages_is_closed_like_any_flood(redis_url, tmp_path):
    async with (
        town(redis_url, tmp_path) as here,
        here.node() as node,
        node.raw("customer", await here.add_customer()) as client,
    ):
        client.write(b"\x81\x84\0\0\0\0null" * 1_000)
        assert await client.close_code() == 1008


def no_traceback(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> bool:
    """Tell whether nothing was logged as an error, neither by a library nor by us."""
    said = "".join(capsys.readouterr())
    return (
        "Traceback" not in said and "[error" not in said and all(one.levelno < logging.ERROR for one in caplog.records)
    )
