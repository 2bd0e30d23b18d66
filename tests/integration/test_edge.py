"""What strangers may take of a node, by real sockets: heads, bodies, silence, upgrades, answers, room, and a drain."""

import asyncio
import gc
import json
import logging
from contextlib import AsyncExitStack, suppress
from weakref import ref

import anyio
import pytest

from http_api.edge.connections import MEMBERS_OF_ACCOUNT_MAX
from http_api.edge.http import HttpConnection
from infra.metrics import REGISTRY
from tests.integration.edge_server import LARGE_LEN, UPGRADE, OneConnection, edge_server
from tests.integration.socket_nodes import PATIENCE_S, eventually

KIB = 1024
HASTY = {
    "silence_timeout_ms": 250,
    "request_timeout_ms": 1_000,
    "handshake_timeout_ms": 250,
    "client_drain_timeout_ms": 250,
}
"""For tests in which nothing else happens than that time runs out."""
GET = "GET /echo HTTP/1.1\r\nHost: h\r\n"


def refusals(why: str) -> float:
    return REGISTRY.get_sample_value("pitlane_connections_refused_total", {"why": why}) or 0


async def send_for_ever(one: OneConnection, piece: bytes) -> None:
    """Send until nobody takes it any more."""
    with suppress(ConnectionError):
        while True:
            one.writer.write(piece)
            await one.writer.drain()
            await anyio.lowlevel.checkpoint()


# --- heads ------------------------------------------------------------------------------------------------------------

TOO_LARGE = {
    "one huge header": GET + "X: " + "x" * 65 * KIB + "\r\n\r\n",
    "a huge target": "GET /echo?" + "x" * 65 * KIB + " HTTP/1.1\r\nHost: h\r\n\r\n",
    "many headers": GET + "".join(f"X-{number}: {'x' * 1000}\r\n" for number in range(70)) + "\r\n",
    "too many headers": GET + "".join(f"X-{number}: x\r\n" for number in range(129)) + "\r\n",
    "no end": GET + "X: " + "x" * 80 * KIB,
    "no end of the first line": "GET /" + "x" * 80 * KIB,
    "an upgrade": UPGRADE.format(path="/ws/no") + "X: " + "x" * 65 * KIB + "\r\n\r\n",
    "an upgrade with a line over 8 KiB": UPGRADE.format(path="/ws/no") + "X: " + "x" * 8192 + "\r\n\r\n",
    "an upgrade with a target over 8 KiB": UPGRADE.format(path="/ws/no?" + "x" * 8192) + "\r\n",
    "an upgrade with too many headers": UPGRADE.format(path="/ws/no")
    + "".join(f"X-{n}: x\r\n" for n in range(125))
    + "\r\n",
}


async def test_a_head_that_is_too_large_gets_431_and_the_end_whatever_way_it_comes(caplog):
    async with edge_server() as server:
        with caplog.at_level(logging.WARNING):
            for name, head in TOO_LARGE.items():
                for before in ("", GET + "\r\n"):
                    async with server.connection() as one:
                        if before:
                            one.write(before)
                            assert (await one.answer())[0] == 200
                        one.write(head)
                        assert (await one.answer())[0] == 431, name
                        assert await one.rest() == b""
        await eventually(lambda: server.in_all == 0, "nobody is kept")
    assert [record for record in caplog.records if record.name.startswith("uvicorn")] == []


async def test_a_pipelined_head_that_is_too_large_ends_the_connection():
    async with edge_server() as server, server.connection() as one:
        one.write(GET + "\r\n" + TOO_LARGE["one huge header"])
        assert await one.last_status() in {200, 431}


async def test_the_refusal_is_a_problem_as_over_rest():
    async with edge_server() as server, server.connection() as one:
        one.write(TOO_LARGE["one huge header"])
        status, body = await one.answer()
        assert (status, json.loads(body)["status"], json.loads(body)["code"]) == (431, 431, "head_too_large")


async def test_a_head_just_within_the_bound_is_served_also_by_the_byte_and_in_one_piece_with_others():
    head = GET + "X: " + "x" * 63 * KIB + "\r\n\r\n"
    async with edge_server() as server, server.connection() as one:
        for _ in range(2):
            one.write(head)
            assert (await one.answer())[0] == 200
        one.write(head + head + "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello")
        assert [await one.answer() for _ in range(3)] == [(200, b""), (200, b""), (200, b"hello")]
        for byte in GET + "\r\n":
            one.write(byte)
            await one.writer.drain()
            await asyncio.sleep(0)
        assert (await one.answer())[0] == 200


async def test_a_head_without_end_is_not_kept():
    async with edge_server(client_drain_timeout_ms=250) as server, server.connection() as one:
        one.write(GET + "X: ")
        with anyio.fail_after(PATIENCE_S):
            # What is sent after the refusal is thrown away, and not for long.
            await send_for_ever(one, b"x" * KIB)
        await eventually(lambda: server.in_all == 0, "nobody is kept")


async def test_more_requests_at_once_than_are_kept_end_the_connection_with_the_last_answer():
    async with edge_server() as server, server.connection() as one:
        one.write((GET + "\r\n") * 1_000)
        said = await one.rest()
        assert 1 <= said.count(b"HTTP/1.1 200") <= 20
        assert said.count(b"connection: close") == 1


# --- time -------------------------------------------------------------------------------------------------------------

LATE = {
    "a silent connection": ("", 0),
    "half a head": (GET, 408),
    "half an upgrade": (UPGRADE.format(path="/ws/no"), 408),
    "half a second head": (GET + "\r\n" + GET, 408),
    "a body that does not come": ("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n", 408),
    "a body that stops": ("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhel", 408),
    "chunks that stop": ("POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", 408),
    "a body nobody wants": ("POST /early HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhel", 401),
    "an idle connection": (GET + "\r\n", 200),
    "a socket whose endpoint waits": (UPGRADE.format(path="/ws/wait") + "\r\n", 503),
}


@pytest.mark.parametrize("what", LATE)
async def test_what_does_not_come_in_time_ends_the_connection(what):
    sent, status = LATE[what]
    async with edge_server(**HASTY) as server, server.connection() as one:
        one.write(sent)
        said = await one.rest()
        statuses = [int(part[:3]) for part in said.split(b"HTTP/1.1 ")[1:]]
        # The first of two requests has been answered.
        assert statuses == ([200, 408] if what == "half a second head" else [status] if status else [])
        await eventually(lambda: server.in_all == 0, "nobody is kept")
        if "stop" in what or "not come" in what:
            assert server.seen == ["left"], "the app was told"


async def test_a_body_that_drips_for_ever_is_ended_by_the_bound_of_the_whole():
    async with edge_server(request_timeout_ms=700, client_drain_timeout_ms=250) as server, server.connection() as one:
        one.write("POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n")

        async def drip() -> None:
            while True:
                one.write("x")
                await anyio.sleep(0.02)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(drip)
            assert (await one.answer())[0] == 408
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize("hasty", [{"silence_timeout_ms": 250}, {"request_timeout_ms": 400}], ids=["still", "slow"])
async def test_who_does_not_read_their_answer_is_cut_off(hasty):
    before = refusals("unread")
    async with edge_server(**hasty) as server, server.connection(limit=1) as one:
        one.writer.transport.pause_reading()
        one.write("GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
        await eventually(lambda: server.in_all == 1, "it has come")
        await eventually(lambda: server.in_all == 0, "it is cut off")
    assert refusals("unread") == before + 1


async def test_who_reads_a_large_answer_gets_all_of_it():
    async with edge_server() as server, server.connection() as one:
        one.write("GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
        assert len((await one.answer())[1]) == LARGE_LEN


async def test_a_request_in_work_is_not_hurried():
    async with edge_server(**HASTY) as server, server.connection() as one:
        one.write("GET /wait HTTP/1.1\r\nHost: h\r\n\r\n")
        await eventually(lambda: server.seen == ["waits"], "in work")
        await anyio.sleep(0.5)
        assert server.in_all == 1
        server.server.should_exit = True


# --- room -------------------------------------------------------------------------------------------------------------


async def test_guests_push_out_the_oldest_guest_and_nobody_who_is_signed_in():
    before = refusals("no_room")
    async with edge_server(soft=128) as server, server.connection() as member, server.connection() as first:
        most = server.connections.limits.guests_max
        member.write(GET + "Authorization: good\r\n\r\n")
        assert (await member.answer())[0] == 200
        first.write(GET + "\r\n")
        assert (await first.answer())[0] == 200
        async with server.crowd(most), server.crowd(most), server.crowd(most):
            assert await first.rest() == b"", "the oldest has gone"
            await eventually(lambda: server.connections.counts == {"guest": most, "member": 1}, "and nobody else")
            member.write(GET + "\r\n")
            assert (await member.answer())[0] == 200
        assert refusals("no_room") == before + 1 + 2 * most


async def test_a_guest_whose_request_is_in_work_stays_while_there_are_others_to_go():
    async with edge_server(soft=128) as server, server.connection() as one:
        one.write("GET /wait HTTP/1.1\r\nHost: h\r\n\r\n")
        await eventually(lambda: server.seen == ["waits"], "in work")
        async with server.crowd(80):
            await eventually(lambda: server.connections.counts["guest"] == server.connections.limits.guests_max, "full")
            server.release()
            assert await one.answer() == (200, b"done")


async def test_what_guests_hold_is_bounded_in_all():
    async with edge_server(guests_len_max=256 * KIB) as server, server.crowd(40) as crowd:
        for one in crowd:
            one.write(GET + "X: " + "x" * 20 * KIB)
        await eventually(lambda: 8 <= server.in_all <= 13, "only so many halves are kept")


async def test_what_arrives_with_its_head_is_counted_as_well_and_so_is_what_is_behind_it():
    whole = f"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: {24 * KIB}\r\n\r\n" + "x" * (20 * KIB)
    behind = "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n" + whole
    for request in (whole, behind):
        async with edge_server(guests_len_max=256 * KIB) as server, server.crowd(40) as crowd:
            for one in crowd:
                one.write(request)
            await eventually(lambda: server.in_all <= 13, "only so many halves are kept")


async def test_empty_lines_buy_no_time():
    async with edge_server(silence_timeout_ms=300) as server, server.connection() as one:
        one.write("\r\n\r\n")
        with anyio.fail_after(PATIENCE_S):
            while server.in_all:
                one.write("\r\n")
                await anyio.sleep(0.05)


async def test_of_one_account_no_more_connections_are_kept_than_a_person_has():
    async with edge_server() as server, AsyncExitStack() as stack:
        for _ in range(MEMBERS_OF_ACCOUNT_MAX + 3):
            one = await stack.enter_async_context(server.connection())
            one.write(GET + "Authorization: good\r\n\r\n")
            assert (await one.answer())[0] == 200
        assert server.connections.counts == {"guest": 3, "member": MEMBERS_OF_ACCOUNT_MAX}
        # One more account's has its place; and who leaves makes room.
        other = await stack.enter_async_context(server.connection())
        other.write(GET + "Authorization: good\r\nAccount: else\r\n\r\n")
        assert (await other.answer())[0] == 200
        assert server.connections.counts["member"] == MEMBERS_OF_ACCOUNT_MAX + 1
    await eventually(lambda: server.connections.counts == {"guest": 0, "member": 0}, "nobody is left")


async def test_members_go_only_when_nothing_else_is_left_and_then_the_one_used_least_recently():
    async with edge_server(soft=100) as server, AsyncExitStack() as stack:
        members = []
        for _ in range(server.connections.limits.connections_max):
            members.append(await stack.enter_async_context(server.connection()))
            members[-1].write(GET + f"Authorization: good\r\nAccount: a{len(members)}\r\n\r\n")
            assert (await members[-1].answer())[0] == 200
        members[0].write(GET + "\r\n")
        assert (await members[0].answer())[0] == 200
        async with server.connection() as late:
            late.write(GET + "\r\n")
            assert (await late.answer())[0] == 200
            assert await members[1].rest() == b""
            members[0].write(GET + "\r\n")
            assert (await members[0].answer())[0] == 200


# --- drain ------------------------------------------------------------------------------------------------------------


async def test_a_drain_waits_for_no_client_and_for_what_is_in_work():
    halves = [
        "",
        GET,
        GET + "\r\n",
        GET + "\r\n" + GET,
        UPGRADE.format(path="/ws/no"),
        UPGRADE.format(path="/ws/wait") + "\r\n",
        "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhel",
        "GET /large HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /large HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    ]
    async with (
        edge_server(client_drain_timeout_ms=300, guests_len_max=3 * LARGE_LEN) as server,
        server.connection() as working,
        server.crowd(len(halves), limit=1) as crowd,
    ):
        for one, half in zip(crowd, halves, strict=True):
            one.writer.transport.pause_reading()
            one.write(half)
        working.write("GET /wait HTTP/1.1\r\nHost: h\r\n\r\n")
        await eventually(lambda: server.in_all == len(halves) + 1 and server.seen.count("waits") == 2, "all are there")
        server.server.should_exit = True
        await eventually(lambda: server.in_all == 1, "but for the one in work, all have gone")
        server.release()
        assert await working.answer() == (200, b"done")


# --- what is no HTTP --------------------------------------------------------------------------------------------------


async def test_what_is_no_http_gets_400_and_no_line_in_the_log_each_time(caplog):
    async with edge_server() as server:
        with caplog.at_level(logging.WARNING):
            for garbage in (
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n",
                b"GET /\xff\xfe HTTP/1.1\r\nHost: h\r\n\r\n",
                b"GET /echo HTTP/9.9\r\nHost: h\r\n\r\n",
                b"GET /echo HTTP/1.1\r\nHost: h\r\nX\xe9: 1\r\n\r\n",
                b"GET /echo HTTP/1.1\r\nHost: h\r\nX: \x00\r\n\r\n",
                b"GET /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                b"GET /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                b"GET http://[::1 HTTP/1.1\r\nHost: h\r\n\r\n",
                UPGRADE.format(path="/ws/no\xff").encode("latin-1") + b"\r\n",
                UPGRADE.format(path="/ws/no").encode() + b"Content-Length: 5\r\n\r\nhello",
                UPGRADE.format(path="/ws/no").encode() + b"X: \xe9\x01\r\n\r\n",
                UPGRADE.format(path="/ws/no").encode().replace(b"dGhl", b"\xe9\xe9\xe9\xe9") + b"\r\n",
            ):
                async with server.connection() as one:
                    one.write(garbage)
                    assert await one.last_status() == 400, garbage
    assert [record for record in caplog.records if record.name != "asyncio"] == []


async def test_an_upgrade_behind_a_request_that_waits_for_its_answer_is_no_upgrade():
    async with edge_server() as server, server.connection() as one:
        one.write("GET /wait HTTP/1.1\r\nHost: h\r\n\r\n" + UPGRADE.format(path="/ws/no") + "\r\n")
        assert await one.rest() == b""


@pytest.mark.parametrize(
    "said", ["POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nx", "no HTTP\r\n\r\n", GET + "\r\n"]
)
async def test_what_a_request_took_goes_with_its_connection_and_not_when_the_collector_comes(
    said: str, monkeypatch: pytest.MonkeyPatch
):
    """Else those who are thrown out and come again, thousands of times, leave their memory until it does."""
    made: list[ref[HttpConnection]] = []
    begin = HttpConnection.connection_made

    def connection_made(self: HttpConnection, transport: asyncio.Transport) -> None:
        made.append(ref(self))
        begin(self, transport)

    monkeypatch.setattr(HttpConnection, "connection_made", connection_made)
    async with edge_server() as server:
        gc.collect()
        gc.disable()
        try:
            async with server.crowd(20) as crowd:
                for one in crowd:
                    one.write(said)
                await eventually(lambda: len(made) == 20, "they are there")
            await eventually(lambda: server.in_all == 0, "they are gone")
            await eventually(lambda: all(one() is None for one in made), "and so is what they took")
        finally:
            gc.enable()
