"""The bus: what is heard, and what is left, whatever happens on the way."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import pytest

from infra import bus as bus_module
from infra.bus import Bus
from infra.redis_link import RedisLink
from models.ids import new_id
from tests.integration.presence_nodes import eventually
from tests.services import redis_server


@asynccontextmanager
async def running_bus(redis_url: str) -> AsyncIterator[tuple[Bus, RedisLink]]:
    link = RedisLink(redis_url, prefix=f"test-{new_id()}")
    bus = Bus(link, new_id())
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bus.run)
            yield bus, link
            tasks.cancel_scope.cancel()
    finally:
        await link.close()


async def test_a_channel_that_is_given_up_while_its_first_subscription_is_on_its_way_is_left(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    # Interleaving: the ear connects and subscribes what waits for it -> one channel is given up -> the ear begins to listen.
    subscribe = bus_module._OncePubSub.ssubscribe
    is_on_its_way, goes_on = anyio.Event(), anyio.Event()

    async with running_bus(redis_url) as (bus, link):
        left, kept = link.key("test", "left"), link.key("test", "kept")

        async def slowly(pubsub: bus_module._OncePubSub, *channels: str) -> None:
            await subscribe(pubsub, *channels)
            if left in channels:
                is_on_its_way.set()
                await goes_on.wait()

        async def listeners(channel: str) -> int:
            ((_, count),) = await link.ask(channel, lambda redis: redis.pubsub_shardnumsub(channel))
            return count

        monkeypatch.setattr(bus_module._OncePubSub, "ssubscribe", slowly)
        heard: list[str] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(bus.subscribe, left, kept, handler=heard.append))
            await is_on_its_way.wait()
            await bus.unsubscribe(left, handler=heard.append)
            goes_on.set()
            await eventually(bus._confirmed[kept].is_set, "what is kept is confirmed")
            tasks.cancel_scope.cancel()

        async def is_left() -> bool:
            return await listeners(left) == 0

        await eventually(is_left, "nobody listens to what was given up")
        await bus.publish(kept, b"hello")
        await eventually(lambda: heard == ["hello"], "what is kept is heard")
        assert await listeners(kept) == 1


async def test_payloads_travel_together_unless_somebody_listens_who_knows_no_lines(redis_url: str):
    async with running_bus(redis_url) as (bus, link), running_bus(redis_url) as (other, _):
        channel = link.key("test", "deliveries")
        messages: list[str] = []
        heard: list[str] = []
        hear = bus.hear

        def count(where: str, message: str) -> None:
            if message != "ping":
                messages.append(message)
            hear(where, message)

        bus.hear = count  # type: ignore[method-assign]
        await bus.subscribe(channel, bus_module.together(channel), handler=heard.append)
        await bus.publish(channel, b"one", b"two")
        await eventually(lambda: heard == ["one", "two"], "both are heard")
        assert messages == ["one\ntwo"]
        # As a node of the version before: it listens to the one channel, and takes a message for one payload.
        older: list[str] = []
        await other.subscribe(channel, handler=older.append)
        await bus.publish(channel, b"three", b"four")
        await eventually(lambda: heard[2:] == ["three", "four"] and older == ["three", "four"], "both hear both")
        assert messages[1:] == ["three", "four"]


@pytest.mark.bugs_planted
async def test_whoever_cannot_take_a_gap_keeps_nobody_else_from_hearing_of_it():
    with redis_server() as own_redis:
        async with running_bus(own_redis.url) as (bus, link):
            gaps: list[str] = []

            def fail() -> None:
                gaps.append("failed")
                raise KeyError("a bug")

            bus.on_gap(fail)
            bus.on_gap(lambda: gaps.append("told"))
            await bus.subscribe(link.key("test", "heard"), handler=lambda _: None)
            own_redis.kill()
            own_redis.restart()
            await eventually(lambda: gaps == ["failed", "told"], "both are told")
