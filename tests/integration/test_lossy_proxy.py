"""What the lossy proxy promises to the tests that use it: its misfortunes happen, and nothing else does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from random import Random

import anyio
import anyio.abc
import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import InvalidStatus

from tests.lossy_proxy import Fate, LossyProxy, Weather, lossy_proxy
from tests.parts import eventually

PATIENCE_S = 10.0
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@asynccontextmanager
async def upstream(heard: list[bytes], *, answer: bytes | None = None) -> AsyncIterator[str]:
    """A server that notes each piece it hears, and says it again or gives its one answer."""

    async def talk(stream: anyio.abc.SocketStream) -> None:
        with suppress(anyio.BrokenResourceError):
            async with stream:
                async for piece in stream:
                    heard.append(piece)
                    await stream.send(piece if answer is None else answer)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, talk)
        yield f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        tasks.cancel_scope.cancel()


def always(fate: Fate, **members: object) -> Weather:
    return Weather(weights={fate: 1.0}, **members)  # type: ignore[arg-type]


async def open_through(proxy: LossyProxy) -> anyio.abc.SocketStream:
    return await anyio.connect_tcp("127.0.0.1", int(proxy.base_url.rsplit(":", 1)[1]))


async def heard_until_the_end(stream: anyio.abc.SocketStream) -> bytes:
    heard = b""
    with anyio.fail_after(PATIENCE_S), suppress(anyio.BrokenResourceError):
        async for piece in stream:
            heard += piece
    return heard


async def test_in_calm_weather_every_byte_arrives_in_order_both_ways() -> None:
    heard: list[bytes] = []
    sent = Random(1).randbytes(300_000)
    async with (
        upstream(heard) as url,
        lossy_proxy(url, seed=1, weather=Weather(delay_s=(0.0, 0.002))) as proxy,
        await open_through(proxy) as stream,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(stream.send, sent)
        back = b""
        with anyio.fail_after(PATIENCE_S):
            while len(back) < len(sent):
                back += await stream.receive()
    assert b"".join(heard) == sent == back


async def test_one_seed_is_one_history() -> None:
    async def history(seed: int) -> list[bool]:
        weather = Weather(weights={Fate.REFUSED: 1.0, Fate.NONE: 1.0})
        passed = []
        async with upstream([]) as url, lossy_proxy(url, seed=seed, weather=weather) as proxy:
            for _ in range(20):
                async with await open_through(proxy) as stream:
                    try:
                        await stream.send(b"?")
                        passed.append(await stream.receive() == b"?")
                    except (anyio.BrokenResourceError, anyio.EndOfStream):
                        passed.append(False)
        return passed

    first = await history(7)
    assert set(first) == {True, False}
    assert await history(7) == first != await history(8)


@pytest.mark.parametrize("fate", [Fate.RESET, Fate.CLOSED])
async def test_a_cut_lets_so_many_bytes_through_and_no_more(fate: Fate) -> None:
    # Whatever the seed says strikes: the 700th byte of one way, or an instant at which all thousand have passed.
    weather = always(fate, after_bytes=(700, 700), after_s=(0.5, 0.5))
    came = []
    async with upstream([]) as url, lossy_proxy(url, seed=1, weather=weather) as proxy:
        for _ in range(8):
            async with await open_through(proxy) as stream:
                await stream.send(b"x" * 1_000)
                came.append(len(await heard_until_the_end(stream)))
        assert proxy.met[fate] == 8
    assert {length <= 700 for length in came} == {True, False}


async def test_a_half_open_connection_says_nothing_and_ends_for_nobody() -> None:
    heard: list[bytes] = []
    async with upstream(heard) as url:
        weather = always(Fate.HALF_OPEN, after_s=(0.0, 0.0), after_bytes=(1, 1))
        async with lossy_proxy(url, seed=1, weather=weather) as proxy, await open_through(proxy) as held:
            await held.send(b"first")
            await eventually(lambda: proxy.met[Fate.HALF_OPEN] == 1, "it is held")
            proxy.weather = Weather()
            await held.send(b"lost")
            async with await open_through(proxy) as other:
                await other.send(b"later")
                assert await other.receive() == b"later"
            assert b"lost" not in b"".join(heard)
            with pytest.raises(TimeoutError), anyio.fail_after(0.1):
                while True:
                    assert await held.receive() != b"lost"


async def test_a_stalled_way_goes_on_where_it_stood() -> None:
    heard: list[bytes] = []
    async with upstream(heard) as url:
        weather = always(Fate.STALL_UP, after_s=(0.0, 0.0), after_bytes=(1, 1), stall_s=(0.05, 0.05))
        async with lossy_proxy(url, seed=1, weather=weather) as proxy, await open_through(proxy) as stream:
            for number in range(5):
                await stream.send(bytes([number]) * 100)
            back = b""
            with anyio.fail_after(PATIENCE_S):
                while len(back) < 500:
                    back += await stream.receive()
            assert proxy.met[Fate.STALL_UP] == 1
    assert back == b"".join(bytes([number]) * 100 for number in range(5))


async def test_whole_requests_are_repeated_and_only_those_that_may_be() -> None:
    heard: list[bytes] = []
    accept = b"POST /api/offers/o1/accept HTTP/1.1\r\nhost: h\r\nContent-Length: 4\r\n\r\nbody"
    pay = b"POST /api/checkout HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{}"
    async with (
        upstream(heard, answer=ANSWER) as url,
        lossy_proxy(url, seed=1, weather=Weather(repeats=1.0)) as proxy,
        await open_through(proxy) as stream,
    ):
        for request in (accept[:20], accept[20:], pay, accept):
            await stream.send(request)
        await eventually(lambda: sum(map(len, heard)) == 4 * len(accept) + len(pay), "each accept came twice")
        assert proxy.met["repeated request"] == 2
        assert b"".join(heard).count(pay) == 1


async def test_whole_text_frames_are_repeated_both_ways() -> None:
    heard: list[str | bytes] = []

    async def talk(connection: ServerConnection) -> None:
        async for message in connection:
            heard.append(message)
            await connection.send(f"{message} to you")

    async with serve(talk, "127.0.0.1", 0, compression=None) as server:
        port = server.sockets[0].getsockname()[1]
        async with lossy_proxy(f"http://127.0.0.1:{port}", seed=1, weather=Weather(repeats=1.0)) as proxy:
            async with connect(f"{proxy.base_url.replace('http', 'ws')}/ws", compression=None) as client:
                with anyio.fail_after(PATIENCE_S):
                    for text in ("a", "b" * 200, "c" * 70_000):
                        await client.send(text)
                        assert [await client.recv() for _ in range(4)] == [f"{text} to you"] * 4
                    await (await client.ping())
            assert heard == [text for text in ("a", "b" * 200, "c" * 70_000) for _ in range(2)]


async def test_where_sockets_are_blocked_their_handshakes_are_refused_and_requests_pass() -> None:
    heard: list[bytes] = []
    async with upstream(heard, answer=ANSWER) as url, lossy_proxy(url, seed=1) as proxy:
        proxy.blocks_sockets = True
        with pytest.raises(InvalidStatus, match="403"):
            await connect(f"{proxy.base_url.replace('http', 'ws')}/ws")
        async with await open_through(proxy) as stream:
            await stream.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
            assert await stream.receive() == ANSWER
        assert b"Upgrade" not in b"".join(heard)


async def test_what_is_open_can_be_cut_at_once() -> None:
    async with upstream([]) as url, lossy_proxy(url, seed=1) as proxy, await open_through(proxy) as stream:
        await stream.send(b"?")
        assert await stream.receive() == b"?"
        proxy.cut_all()
        assert await heard_until_the_end(stream) == b""
