"""Push services that mean no good, as real servers on loopback: none keeps another waiting, none fills memory or the log."""

import threading
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import anyio
import pytest
from anyio.abc import ByteStream, SocketStream
from structlog.testing import capture_logs

from dispatch.push import road, rules, sender
from dispatch.push.road import LookUps, PushRoad, PushServiceAway, TrustedHosts
from models import tables
from tests.integration.push_browsers import Browser, offered, running_push_service
from tests.parts import World, eventually, running_node, running_world

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

SECRET = "what no log should ever hold"
GROWTH_MAX_KIB = 48 * 1024


@dataclass
class Hostile:
    """A server that does one thing to everybody who connects."""

    act: Callable[[ByteStream], Awaitable[None]]
    base: str = ""
    connections: int = 0
    open_now: int = 0
    sent: int = 0
    heads: list[bytes] = field(default_factory=list)

    def browser(self, name: str = "phone") -> Browser:
        return Browser(f"{self.base}/push/{name}")

    async def serve(self, stream: SocketStream) -> None:
        self.connections += 1
        self.open_now += 1
        try:
            async with stream:
                self.heads.append(await stream.receive())
                await self.act(_Counted(stream, self))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
            pass
        finally:
            self.open_now -= 1


class _Counted:
    """What a hostile server writes to, counted."""

    def __init__(self, stream: SocketStream, whose: Hostile) -> None:
        self._stream = stream
        self._whose = whose

    async def receive(self) -> bytes:
        return await self._stream.receive()

    async def send(self, data: bytes) -> None:
        await self._stream.send(data)
        self._whose.sent += len(data)


@asynccontextmanager
async def running(act: Callable[[ByteStream], Awaitable[None]], count: int = 1) -> AsyncIterator[list[Hostile]]:
    """Run some hostile servers on loopback, each on a port of its own: another push service to us."""
    servers = []
    async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
        for _ in range(count):
            hostile = Hostile(act)
            listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
            stack.push_async_callback(listener.aclose)
            hostile.base = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
            tasks.start_soon(listener.serve, hostile.serve)
            servers.append(hostile)
        yield servers
        tasks.cancel_scope.cancel()


async def hang(_stream: ByteStream) -> None:
    await anyio.sleep_forever()


async def endless_head(stream: ByteStream) -> None:
    await stream.send(b"HTTP/1.1 201 Created\r\n")
    while True:
        await stream.send(b"X-Filler: " + b"x" * 8_000 + b"\r\n")


async def endless_body(stream: ByteStream) -> None:
    await stream.send(b"HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = SECRET.encode() * 1_000
    while True:
        await stream.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))


@cache
def packed_zeros(mebibytes: int) -> bytes:
    """So many bytes of nothing, packed without ever having them in memory."""
    packer, piece = zlib.compressobj(9, wbits=31), bytes(1 << 20)
    return b"".join([*(packer.compress(piece) for _ in range(mebibytes)), packer.flush()])


async def gzip_bomb(stream: ByteStream) -> None:
    packed = packed_zeros(100)
    await stream.send(
        b"HTTP/1.1 201 Created\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(packed), packed)
    )


async def unknown_charset(stream: ByteStream) -> None:
    body = SECRET.encode("utf-16")
    head = b"HTTP/1.1 400 \xff\xfe\r\nContent-Type: text/plain; charset=klingon\r\nContent-Length: %d\r\n\r\n"
    await stream.send(head % len(body) + body)


async def redirect(stream: ByteStream) -> None:
    await stream.send(
        b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/elsewhere\r\nContent-Length: 0\r\n\r\n"
    )


async def always_500(stream: ByteStream) -> None:
    await stream.send(b"HTTP/1.1 500 Oh dear\r\nContent-Length: 28\r\n\r\n" + SECRET.encode())


async def closes_amid_its_answer(stream: ByteStream) -> None:
    await stream.send(b"HTTP/1.1 2")


async def drips(stream: ByteStream) -> None:
    for byte in b"HTTP/1.1 201 Created\r\n" + b"X-Slow: " + b"x" * 10_000:
        await stream.send(bytes([byte]))
        await anyio.sleep(0.3)


async def flood_of_100s(stream: ByteStream) -> None:
    while True:
        await stream.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


WAYS = [
    hang,
    endless_head,
    endless_body,
    gzip_bomb,
    unknown_charset,
    redirect,
    always_500,
    closes_amid_its_answer,
    drips,
    flood_of_100s,
]


def peak_kib(*, is_reset: bool = False) -> int:
    """The most memory that this process has had since the last reset (proc(5)); 0 where the system does not say."""
    own = Path("/proc/self")
    if not own.exists():
        return 0
    if is_reset:
        (own / "clear_refs").write_text("5")
    [line] = [line for line in (own / "status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1])


@pytest.fixture
def sqlite_url(sqlite_template, tmp_path) -> str:
    """What hostile services do has nothing to do with the kind of database."""
    path = tmp_path / "pitlane.sqlite3"
    path.write_bytes(sqlite_template.read_bytes())
    return f"sqlite:///{path}"


@pytest.mark.parametrize("act", WAYS, ids=lambda act: act.__name__)
@pytest.mark.bugs_planted
async def test_a_hostile_push_service_harms_nobody_but_its_own(sqlite_url, redis_url, monkeypatch, act):
    monkeypatch.setattr(rules, "RETRY_FIRST_MS", 20)
    monkeypatch.setattr(road, "ANSWER_TIMEOUT_S", 1.0)
    async with (
        running_world(sqlite_url, redis_url) as world,
        running_node(world) as node,
        running_push_service() as good,
        running(act) as [bad],
    ):
        stranger, favorite = await world.mechanics(2)
        await node.push.subscribe(stranger, bad.browser().subscription)
        await node.push.subscribe(favorite, good.browser().subscription)
        packed_zeros(100)
        began_kib = peak_kib(is_reset=True)
        with capture_logs() as logs:
            await offered(world, node, stranger)
            await eventually(lambda: bad.heads, "it was asked")
            request = await offered(world, node, favorite)
            ((_, headers, _),) = await eventually(lambda: good.got, "the push to the good one")
            assert headers["topic"] == request.id
            await eventually(lambda: bad.open_now == 0 or bad.connections > 1, "its connection was closed on it")
        assert peak_kib() - began_kib < GROWTH_MAX_KIB
        assert SECRET not in str(logs)
        assert b"/elsewhere" not in b"".join(bad.heads), "no redirect is followed"


async def test_a_hundred_services_that_hang_keep_none_waiting_that_is_known_to_answer(
    sqlite_url, redis_url, monkeypatch
):
    # Each is on a port of its own, and none has been asked before: they take all places that there are for new ones, and none of
    # those for services that are known to answer.
    monkeypatch.setattr(road, "ANSWER_TIMEOUT_S", 300.0)
    async with (
        running_world(sqlite_url, redis_url) as world,
        running_node(world) as node,
        running_push_service() as known,
        running(hang, count=100) as hanging,
    ):
        favorite, *strangers = await world.mechanics(11)
        await node.push.subscribe(favorite, known.browser().subscription)
        await offered(world, node, favorite)
        await eventually(lambda: known.got, "it has answered once")
        for number, bad in enumerate(hanging):
            await node.push.subscribe(strangers[number // 10], bad.browser().subscription)
        for stranger in strangers:
            await offered(world, node, stranger)
        await eventually(lambda: sum(bad.open_now for bad in hanging) == sender.PATIENT_MAX, "all places are taken")
        request = await offered(world, node, favorite)
        await eventually(lambda: len(known.got) == 2, "the push")
        assert known.got[1][1]["topic"] == request.id
        # The fact, and no clock: those that hang when it arrived had been hanging since before it was booked.
        assert sum(bad.open_now for bad in hanging) == sender.PATIENT_MAX
        assert sum(bad.connections for bad in hanging) == sender.PATIENT_MAX


async def test_a_service_that_has_answered_and_fails_once_does_not_wait_among_those_that_hang(
    sqlite_url, redis_url, monkeypatch
):
    monkeypatch.setattr(rules, "RETRY_FIRST_MS", 20)
    monkeypatch.setattr(road, "ANSWER_TIMEOUT_S", 0.5)
    count = sender.PATIENT_MAX
    async with (
        running_world(sqlite_url, redis_url) as world,
        running_node(world) as node,
        running_push_service() as known,
        running(hang, count=count) as hanging,
    ):
        favorite, *strangers = await world.mechanics(3)
        await node.push.subscribe(favorite, known.browser().subscription)
        await offered(world, node, favorite)
        await eventually(lambda: known.got, "it has answered once")
        for number, bad in enumerate(hanging):
            await node.push.subscribe(strangers[number // 10], bad.browser().subscription)
        for stranger in strangers:
            await offered(world, node, stranger)
        await eventually(lambda: all(bad.connections for bad in hanging), "each has been tried")
        monkeypatch.setattr(road, "ANSWER_TIMEOUT_S", 300.0)
        await eventually(
            lambda: all(bad.connections > 1 and bad.open_now for bad in hanging), "they take all places of their kind"
        )
        known.answers = [503]
        await offered(world, node, favorite)
        await eventually(lambda: len(known.got) == 3, "it is asked once more")
        assert all(bad.open_now for bad in hanging)


async def test_which_services_are_known_to_answer_outlives_a_restart(sqlite_url, redis_url, monkeypatch):
    monkeypatch.setattr(road, "ANSWER_TIMEOUT_S", 300.0)
    async with (
        running_world(sqlite_url, redis_url) as world,
        running_push_service() as known,
        running(hang, count=30) as hanging,
    ):
        favorite, *strangers = await world.mechanics(4)
        async with running_node(world) as first:
            await first.push.subscribe(favorite, known.browser().subscription)
            await offered(world, first, favorite)
            await eventually(lambda: known.got, "it has answered once")
            await eventually(lambda: first_use(world), "which is noted")
            for number, bad in enumerate(hanging):
                await first.push.subscribe(strangers[number // 10], bad.browser().subscription)
        async with running_node(world) as second:
            for stranger in strangers:
                await offered(world, second, stranger)
            await eventually(lambda: sum(bad.open_now for bad in hanging) == sender.PATIENT_MAX, "places are taken")
            await offered(world, second, favorite)
            await eventually(lambda: len(known.got) == 2, "the push")
            assert sum(bad.connections for bad in hanging) == sender.PATIENT_MAX


async def first_use(world: World) -> bool:
    return any(row.last_used_at_ms for row in await world.rows(tables.PushSubscription))


async def test_names_that_nobody_answers_for_keep_no_other_name_waiting(monkeypatch):
    # A name server that says nothing keeps a thread for half a minute, and the event loop has but a few.
    waiting: list[str] = []
    is_over = threading.Event()

    def resolve(host: str, port: int) -> list[str]:
        if host.endswith(".dark.example"):
            waiting.append(host)
            is_over.wait()
        return ["127.0.0.1"]

    monkeypatch.setattr(road, "resolve", resolve)
    monkeypatch.setattr(road, "LOOK_UP_TIMEOUT_S", 0.2)
    strangers, known = LookUps(8), LookUps(8)

    async def look_up(number: int) -> None:
        with pytest.raises(OSError):
            await strangers.addresses_of(f"{number}.dark.example", 443)

    async with anyio.create_task_group() as tasks:
        for number in range(40):
            tasks.start_soon(look_up, number)
    assert len(waiting) == 8, "whoever has stopped waiting, the threads are still there"
    with pytest.raises(OSError, match="Too many"):
        await strangers.addresses_of("bright.example", 443)
    assert await known.addresses_of("bright.example", 443)
    is_over.set()
    await eventually(lambda: strangers._room == 8, "the threads have come back")
    assert await strangers.addresses_of("bright.example", 443)


async def test_a_look_up_that_nobody_waits_for_before_it_has_begun_keeps_no_place(monkeypatch):
    # The time limit of the whole call ends just when the look-up is about to be given to a thread.
    monkeypatch.setattr(road, "resolve", lambda host, port: ["127.0.0.1"])
    look_ups = LookUps(1)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await look_ups.addresses_of("bright.example", 443)
    assert await look_ups.addresses_of("bright.example", 443)


async def test_a_look_up_for_which_no_thread_can_be_started_is_an_outage_and_keeps_no_place(monkeypatch):
    monkeypatch.setattr(road, "resolve", lambda host, port: ["127.0.0.1"])
    look_ups = LookUps(1)

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        for _ in range(2):
            with pytest.raises(OSError, match="No thread"):
                await look_ups.addresses_of("bright.example", 443)
    assert await look_ups.addresses_of("bright.example", 443)


async def test_a_name_that_is_none_is_an_outage_of_its_service_and_no_bug():
    # Of strangers such a name is refused; an operator may have mistyped it.
    name = f"{'a' * 70}.example"
    async with a_road(name) as way:
        with pytest.raises(PushServiceAway):
            await way.post(f"https://{name}/push", b"", {})


@pytest.mark.parametrize("act", [flood_of_100s, endless_head], ids=lambda act: act.__name__)
async def test_an_answer_that_does_not_begin_is_not_read_for_as_long_as_it_takes(act):
    async with running(act) as [service], a_road("127.0.0.1") as way:
        # Not the time-out: until that, it would take all of the others' turns.
        with pytest.raises(PushServiceAway, match="ReadError"):
            await way.post(f"{service.base}/push/phone", b"", {})


async def test_an_answer_counts_also_when_the_time_is_up_before_its_body_has_come(monkeypatch):
    async def never_ends(stream: ByteStream) -> None:
        await stream.send(b"HTTP/1.1 201 Created\r\nContent-Length: 7\r\n\r\nCrea")
        await anyio.sleep_forever()

    monkeypatch.setattr(road, "ANSWER_TIMEOUT_S", 0.5)
    async with running(never_ends) as [service], a_road("127.0.0.1") as way:
        assert (await way.post(f"{service.base}/push/phone", b"", {})).status == 201


async def test_messages_to_one_service_share_a_connection():
    async def answers(stream: ByteStream) -> None:
        while True:
            await stream.send(b"HTTP/1.1 201 Created\r\nContent-Length: 7\r\n\r\nCreated")
            await stream.receive()

    async with running(answers) as [service], a_road("127.0.0.1") as way:
        for _ in range(5):
            assert (await way.post(f"{service.base}/push/phone", b"", {})).status == 201
        assert service.connections == 1


@asynccontextmanager
async def a_road(*trusted: str) -> AsyncIterator[PushRoad]:
    way = PushRoad(TrustedHosts(frozenset(trusted)), connections_max=4)
    try:
        yield way
    finally:
        await way.close()
