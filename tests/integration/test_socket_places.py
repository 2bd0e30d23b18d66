"""How many sockets an account may have: on one node, over all of them, after a node was killed, and while Redis is away."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import pytest
from websockets.exceptions import InvalidStatus

from http_api.sockets import places
from http_api.sockets.places import RedisPlaces
from infra.redis_link import RedisLink
from models.ids import new_id
from tests.integration.socket_nodes import PATIENCE_S, Node, eventually, town
from tests.services import redis_server

MOST = 3


@asynccontextmanager
async def counting(url: str, prefix: str, most: int = MOST) -> AsyncIterator[RedisPlaces]:
    """One node's places, counted inside the block."""
    link = RedisLink(url, prefix=prefix)
    one = RedisPlaces(link, new_id(), most)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.run)
            yield one
            tasks.cancel_scope.cancel()
    finally:
        await link.close()


async def taken(one: RedisPlaces, account: str, tries: int) -> int:
    """Try so often at the same time; return how many were let in."""
    granted: list[bool] = []

    async def take() -> None:
        granted.append(await one.take(account))

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            for _ in range(tries):
                tasks.start_soon(take)
    return sum(granted)


async def test_two_nodes_together_let_in_no_more_than_one_account_may_have_and_others_besides(any_redis_url):
    prefix, account = f"test-{new_id()}", new_id()
    async with counting(any_redis_url, prefix) as here, counting(any_redis_url, prefix) as there:
        counts: list[int] = []

        async def some(one: RedisPlaces) -> None:
            counts.append(await taken(one, account, 5))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(some, here)
            tasks.start_soon(some, there)
        assert sum(counts) == MOST
        assert await taken(there, new_id(), 5) == MOST


async def test_a_place_that_is_given_back_is_free_on_every_node(any_redis_url):
    prefix, account = f"test-{new_id()}", new_id()
    async with counting(any_redis_url, prefix) as here, counting(any_redis_url, prefix) as there:
        assert await taken(here, account, MOST) == MOST
        assert not await there.take(account)
        here.give_back(account)
        await eventually(lambda: there.take(account), "free there")
        assert not await here.take(account)


async def test_a_node_that_stops_leaves_its_places_free_at_once(redis_url):
    prefix, account = f"test-{new_id()}", new_id()
    async with counting(redis_url, prefix) as there:
        async with counting(redis_url, prefix) as here:
            assert await taken(here, account, MOST) == MOST
        assert await taken(there, account, MOST) == MOST


async def test_the_places_of_a_node_that_was_killed_are_free_when_its_lease_has_ended(redis_url, monkeypatch):
    prefix, account = f"test-{new_id()}", new_id()
    monkeypatch.setattr(places, "LEASE_MS", 400)
    monkeypatch.setattr(places, "RENEW_S", 0.05)
    link = RedisLink(redis_url, prefix=prefix)
    killed = RedisPlaces(link, new_id(), MOST)
    async with counting(redis_url, prefix) as there:
        async with anyio.create_task_group() as tasks:
            for shard in killed._shards:
                tasks.start_soon(shard.run)
            assert await taken(killed, account, MOST) == MOST
            assert not await there.take(account)
            tasks.cancel_scope.cancel()
        await eventually(lambda: there.take(account), "free when the lease has ended")
    await link.close()


async def test_a_redis_that_has_forgotten_is_told_again(monkeypatch):
    prefix, account = f"test-{new_id()}", new_id()
    monkeypatch.setattr(places, "RENEW_S", 0.05)
    with redis_server() as own_redis:
        async with counting(own_redis.url, prefix) as here, counting(own_redis.url, prefix) as there:
            assert await taken(here, account, MOST) == MOST
            link = RedisLink(own_redis.url, prefix=prefix)
            await link.ask("any", lambda redis: redis.flushall())
            key = link.key("sockets-0", "held:")

            async def is_known() -> bool:
                names = await link.ask(
                    "any", lambda redis: redis.keys(key.replace("{", "[{]").replace("}", "[}]") + "*")
                )
                return any([await link.ask("any", lambda redis: redis.hexists(name, account)) for name in names])  # noqa: B023

            await eventually(is_known, "told again")
            assert not await there.take(account)
            await link.close()


async def test_without_redis_each_node_counts_its_own_and_together_again_when_it_is_back():
    prefix, account = f"test-{new_id()}", new_id()
    with redis_server() as own_redis:
        async with counting(own_redis.url, prefix) as here, counting(own_redis.url, prefix) as there:
            assert await taken(here, account, 1) == 1
            own_redis.kill()
            assert await taken(here, account, 5) == MOST - 1
            assert await taken(there, account, 5) == MOST
            own_redis.restart()
            await eventually(lambda: not any(one._shards[0]._is_away for one in (here, there)), "together again")
            for one in (here, there):
                for _ in range(MOST):
                    one.give_back(account)
            await eventually(lambda: here.take(account), "free again")
            await eventually(lambda: there.take(account), "also there")
            assert await taken(here, account, 5) == MOST - 2


async def test_many_who_come_together_are_few_visits_to_redis(redis_url):
    prefix = f"test-{new_id()}"
    async with counting(redis_url, prefix) as here:
        scripts = 0
        shard = here._shards[0]
        claim = shard._claim

        async def counted(**arguments: object) -> object:
            nonlocal scripts
            scripts += 1
            return await claim(**arguments)  # type: ignore[arg-type]

        shard._claim = counted  # type: ignore[assignment]
        async with anyio.create_task_group() as tasks:
            for _ in range(1_000):
                tasks.start_soon(here.take, new_id())
        assert scripts <= 10


async def refused_with(node: Node, kind: str, account: str) -> tuple[int, str | None]:
    with pytest.raises(InvalidStatus) as answer:
        async with node.client(kind, account):
            pass
    return answer.value.response.status_code, answer.value.response.headers.get("Retry-After")


@pytest.mark.parametrize("kind", ["mechanic", "customer"])
async def test_the_handshake_of_one_more_gets_429_on_every_node_until_one_is_closed(redis_url, tmp_path, kind):
    async with (
        town(redis_url, tmp_path) as here,
        here.node() as first,
        here.node() as second,
        AsyncExitStack() as stack,
    ):
        account = await (here.add_mechanic() if kind == "mechanic" else here.add_customer())
        for number in range(20):
            node = (first, second)[number % 2]
            client = await stack.enter_async_context(node.client(kind, account))
            assert (await client.hear())["type"] == "welcome"
        for node in (first, second):
            assert await refused_with(node, kind, account) == (429, "10")
        await client.connection.close()

        async def is_let_in() -> bool:
            try:
                async with first.client(kind, account) as again:
                    return (await again.hear())["type"] == "welcome"
            except InvalidStatus:
                return False

        await eventually(is_let_in, "let in again")
