"""Nothing is ever sent to an address of our own network that nobody has trusted: a listener there never hears a thing."""

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace

import anyio
import pytest

from dispatch.push import road, rules
from models import tables
from models.outcomes import Refused
from tests.integration.push_browsers import Browser, offered, plant, running_push_service
from tests.parts import PATIENT, World, eventually, running_node, running_world

pytestmark = [
    pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning"),
    # Each is refused, and counted against its subscription.
    pytest.mark.bugs_planted,
]


@dataclass
class Trap:
    """Listens on one port of this machine's own addresses."""

    port: int
    listeners: list[socket.socket]

    def heard(self) -> int:
        """How many have connected since it was made."""
        count = 0
        for listener in self.listeners:
            while True:
                try:
                    connection, _ = listener.accept()
                except BlockingIOError:
                    break
                connection.close()
                count += 1
        return count


@contextmanager
def trapped() -> Iterator[Trap]:
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0)))]
        port = listeners[0].getsockname()[1]
        if socket.has_ipv6:
            try:
                six = socket.create_server(("::1", port), family=socket.AF_INET6)
            except OSError:
                # No IPv6 on this machine: the other addresses are enough.
                pass
            else:
                listeners.append(stack.enter_context(six))
        for listener in listeners:
            listener.setblocking(False)
        yield Trap(port, listeners)


WRITTEN = [
    *("https://127.0.0.1:{port}/x", "https://[::1]:{port}/x", "https://[::ffff:127.0.0.1]:{port}/x"),
    *("https://localhost:{port}/x", "https://LOCALHOST:{port}/x", "https://localhost.:{port}/x"),
    *(
        "https://127.1:{port}/x",
        "https://2130706433:{port}/x",
        "https://0x7f000001:{port}/x",
        "https://0177.0.0.1:{port}/x",
    ),
    *("https://0:{port}/x", "https://0.0.0.0:{port}/x", "https://[::]:{port}/x", "https://[::1%25lo]:{port}/x"),
    *("http://127.0.0.1:{port}/x", "https://user@127.0.0.1:{port}/x", "https://\uff11\uff12\uff17.0.0.1:{port}/x"),
    *("https://inside.example:{port}/x", "https://mapped.example:{port}/x", "https://both.example:{port}/x"),
]
"""As a stranger may write an address of ours, or name it."""

NO_NAMES = [
    *("https://a..b/x", "https://.push.example/x", f"https://{'a' * 64}.example/x", f"https://{'a.' * 127}example/x"),
    *("https://-a.example/x", "https://a-.example/x", "https://a!b.example/x", "https://push.example:22/x"),
]
"""Where no push service can be, for nothing can be looked up or listens there."""

NAMES = {
    "inside.example": ["127.0.0.1"],
    "mapped.example": ["::ffff:127.0.0.1", "64:ff9b::7f00:1", "fd00::1", "fe80::1%lo", "10.0.0.1", "169.254.169.254"],
    "both.example": ["127.0.0.1", "::1"],
}


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of a stranger's own, which stand for addresses of ours."""
    system = road.resolve
    monkeypatch.setattr(road, "resolve", lambda host, port: NAMES[host] if host in NAMES else system(host, port))
    monkeypatch.setattr(rules, "RETRY_FIRST_MS", 10)


@asynccontextmanager
async def a_world(sqlite_template, redis_url, tmp_path) -> AsyncIterator[World]:
    path = tmp_path / "pitlane.sqlite3"
    path.write_bytes(sqlite_template.read_bytes())
    async with running_world(f"sqlite:///{path}", redis_url) as world:
        yield world


@pytest.mark.usefixtures("names")
async def test_an_endpoint_on_an_address_of_ours_cannot_be_subscribed(sqlite_template, redis_url, tmp_path):
    with trapped() as trap:
        async with (
            a_world(sqlite_template, redis_url, tmp_path) as world,
            running_node(world, replace(PATIENT, push_trusted_hosts="push.internal")) as node,
        ):
            mechanic_id = await world.mechanic()
            for written in WRITTEN:
                endpoint = written.format(port=trap.port)
                outcome = await node.push.subscribe(mechanic_id, Browser(endpoint).subscription)
                assert isinstance(outcome, Refused), endpoint
                assert outcome.code == "push_endpoint_refused", endpoint
            assert await world.rows(tables.PushSubscription) == []
            assert trap.heard() == 0


async def test_an_endpoint_where_no_push_service_can_be_cannot_be_subscribed(sqlite_template, redis_url, tmp_path):
    async with a_world(sqlite_template, redis_url, tmp_path) as world, running_node(world, PATIENT) as node:
        mechanic_id = await world.mechanic()
        for endpoint in NO_NAMES:
            outcome = await node.push.subscribe(mechanic_id, Browser(endpoint).subscription)
            assert isinstance(outcome, Refused), endpoint
            assert outcome.code == "push_endpoint_refused", endpoint


@pytest.mark.usefixtures("names")
async def test_an_endpoint_on_an_address_of_ours_that_is_in_sql_is_never_called(sqlite_template, redis_url, tmp_path):
    # An older version took what it was given; and a name may have stood for something else then.
    with trapped() as trap:
        async with (
            a_world(sqlite_template, redis_url, tmp_path) as world,
            running_push_service() as good,
            running_node(world, replace(PATIENT, push_trusted_hosts=good.base.removeprefix("http://"))) as node,
        ):
            favorites = await world.mechanics(len(WRITTEN))
            for favorite, written in zip(favorites, WRITTEN, strict=True):
                await plant(world, favorite, Browser(written.format(port=trap.port)).subscription)
                await world.update(tables.Mechanic, favorite, has_push=True)
                await offered(world, node, favorite)
            await eventually(lambda: all_tried(world, len(WRITTEN)), "each has been tried")
            trusted = await world.mechanic()
            await node.push.subscribe(trusted, good.browser().subscription)
            await offered(world, node, trusted)
            await eventually(lambda: good.got, "the trusted one is called, on loopback")
            assert trap.heard() == 0
        # And it would have heard.
        async with await anyio.connect_tcp("127.0.0.1", trap.port):
            pass
        assert trap.heard() == 1


async def all_tried(world: World, count: int) -> bool:
    messages = await world.rows(tables.PushMessage)
    return len(messages) == count and all(one.attempts for one in messages)


async def test_a_trusted_service_that_sends_us_elsewhere_is_not_followed(sqlite_template, redis_url, tmp_path):
    with trapped() as trap:
        async with (
            a_world(sqlite_template, redis_url, tmp_path) as world,
            running_push_service() as service,
            running_node(world, replace(PATIENT, push_trusted_hosts=service.base.removeprefix("http://"))) as node,
        ):
            service.answers, service.location = [301, 302, 303, 307, 308], f"http://127.0.0.1:{trap.port}/inside"
            favorite = await world.mechanic()
            await node.push.subscribe(favorite, service.browser().subscription)
            await offered(world, node, favorite)
            await eventually(lambda: service.got, "it is called")
            await eventually(lambda: all_tried(world, 1), "and that was all")
            assert trap.heard() == 0


async def test_a_name_is_looked_up_once_for_a_connection_and_that_very_address_is_called(
    sqlite_template, redis_url, tmp_path, monkeypatch
):
    # Judged by one answer and connected by another: DNS rebinding.
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        # Nobody listens at the first, which is everybody's (RFC 5737 has none that is); the second is ours.
        return ["127.0.0.1"] if len(asked) > 1 else ["240.0.0.1", "127.0.0.1"]

    monkeypatch.setattr(road, "resolve", resolve)
    monkeypatch.setattr(road, "is_public", lambda address: str(address) == "240.0.0.1")
    with trapped() as trap:
        way = road.PushRoad(road.TrustedHosts(), connections_max=1)
        try:
            with pytest.raises(road.PushServiceAway):
                await way.post(f"https://rebinding.example:{trap.port}/x", b"", {})
        finally:
            await way.close()
        assert asked == ["rebinding.example"]
        assert trap.heard() == 0
