"""How watchers are told: in order, in slices, the same thing once, and each whatever happens to the others."""

import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from infra.slices import SLICE_LOOK_LEN, SLICE_S
from models.wire import StatusView
from presence import watch
from presence.liveness import view
from tests.integration.presence_nodes import CALM, Node, Recorder, eventually, world
from tests.services import redis_server


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with redis_server() as server:
        yield server.url


async def said_of(node: Node, mechanic: str) -> str:
    """Return the mechanic's status as the scripts announce it."""
    status = (await node.leases_of(mechanic).read([mechanic], as_of_ms=node.clock.now_ms()))[mechanic]
    flags = (status.is_online, status.on_duty, status.is_busy, status.has_push)
    words = (status.version, *map(int, flags), status.facts_version, status.last_seen_ms or "-", status.as_of_ms)
    return " ".join(map(str, (mechanic, *words)))


async def test_a_status_that_was_told_is_not_told_again(any_redis_url: str, tmp_path: Path):
    # Interleaving: a change is announced -> the snapshot that has it is read and told -> the announcement arrives.
    async with world(any_redis_url, tmp_path, CALM) as here, here.node() as a, here.node() as b:
        mechanic, sink, other = await here.add_mechanic(), Recorder(), Recorder()
        await b.presence.watch([mechanic], sink)
        await a.link.publish(b.presence.channel_of(mechanic), await said_of(a, mechanic))
        # Somebody else who begins to watch has everything read again, for the first one, too.
        await b.presence.watch([mechanic], other)
        a.presence.joined(mechanic)
        await eventually(lambda: sink.words[-1] == other.words[-1] == "available", "the change arrives")
        assert sink.words == other.words == ["offline", "available"]


async def test_a_change_is_told_to_many_watchers_in_slices_and_as_one_object(any_redis_url: str, tmp_path: Path):
    async with world(any_redis_url, tmp_path, CALM) as here, here.node() as a, here.node() as b:
        mechanic = await here.add_mechanic()
        turns = 0
        turns_at: list[int] = []

        class Slow(Recorder):
            def __call__(self, view: StatusView) -> None:
                super().__call__(view)
                if view.is_online:
                    turns_at.append(turns)
                    ends_s = time.monotonic() + SLICE_S / SLICE_LOOK_LEN
                    while time.monotonic() < ends_s:
                        pass

        sinks = [Slow() for _ in range(20 * SLICE_LOOK_LEN)]
        async with anyio.create_task_group() as tasks:
            for sink in sinks:
                tasks.start_soon(b.presence.watch, [mechanic], sink)
        async with anyio.create_task_group() as tasks:

            async def take_turns() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await anyio.lowlevel.checkpoint()

            tasks.start_soon(take_turns)
            a.presence.joined(mechanic)
            await eventually(lambda: len(turns_at) == len(sinks), "all are told")
            tasks.cancel_scope.cancel()
        # Each look at the clock finds the slice over.
        assert len(set(turns_at)) >= 15
        assert len({id(sink.views[-1]) for sink in sinks}) == 1


async def test_what_happens_while_a_change_is_being_told_is_told_after_it_and_to_nobody_who_has_left(
    any_redis_url: str, tmp_path: Path
):
    async with world(any_redis_url, tmp_path, CALM) as here, here.node() as a, here.node() as b:
        mechanic = await here.add_mechanic()
        sinks = [Recorder() for _ in range(3 * SLICE_LOOK_LEN)]
        leaves = sinks[-1]

        class Eager(Recorder):
            """The first who is told; before anybody else is, the next change has come and somebody leaves."""

            def __call__(self, view: StatusView) -> None:
                super().__call__(view)
                if view.is_online and not len(self.words) > 2:
                    b.presence._watches._hear(f"{mechanic} {view.version + 1} 0 1 0 0 1 - +{a.clock.now_ms()}")
                    b.presence._watches.drop(leaves)

        first = Eager()
        for sink in (first, *sinks):
            await b.presence.watch([mechanic], sink)
        a.presence.joined(mechanic)
        await eventually(lambda: len(sinks[0].views) == 3, "both changes are told")
        for sink in (first, *sinks[:-1]):
            assert sink.words == ["offline", "available", "offline"]
            versions = [view.version for view in sink.views]
            assert versions == sorted(set(versions))
        assert leaves.words == ["offline"]


@asynccontextmanager
async def deaf_for(node: Node, mechanic: str) -> AsyncIterator[None]:
    """Let the node hear nothing of a mechanic inside the block, and not notice that."""
    watches, channel = node.presence._watches, node.presence.channel_of(mechanic)
    await watches._bus.unsubscribe(channel, handler=watches._hear)
    yield
    await watches._bus.subscribe(channel, handler=watches._hear)


async def test_more_changes_than_can_wait_end_in_what_is_true(
    any_redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watch, "QUEUE_LEN_MAX", 3)
    async with world(any_redis_url, tmp_path, CALM) as here, here.node() as a, here.node() as b:
        mechanic, sink = await here.add_mechanic(), Recorder()
        await b.presence.watch([mechanic], sink)
        first = sink.views[0].version
        await eventually(lambda: a.clock.now_ms() > first + 10, "versions follow the clock")
        async with deaf_for(b, mechanic):
            a.presence.joined(mechanic)
            await eventually(lambda: a.is_online(mechanic), "online")
        for step in range(1, 6):
            b.presence._watches._hear(f"{mechanic} {first + step} 1 0 0 0 1 - +{a.clock.now_ms()}")
        await eventually(lambda: sink.words[-1] == "available", "what is true is read and told")
        assert sink.words == ["offline", "off_duty", "off_duty", "available"]


async def test_an_announcement_that_nobody_understands_is_replaced_by_reading(any_redis_url: str, tmp_path: Path):
    async with world(any_redis_url, tmp_path, CALM) as here, here.node() as a, here.node() as b:
        mechanic, sink = await here.add_mechanic(), Recorder()
        await b.presence.watch([mechanic], sink)
        # What was announced in words of another version is in Redis all the same.
        async with deaf_for(b, mechanic):
            a.presence.joined(mechanic)
            await eventually(lambda: a.is_online(mechanic), "online")
        await a.link.publish(b.presence.channel_of(mechanic), f"{mechanic} in words of tomorrow")
        await eventually(lambda: sink.words == ["offline", "available"], "it is read")


@pytest.mark.bugs_planted
async def test_a_bug_in_leaving_a_channel_loses_neither_that_nor_what_is_to_be_read(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # Interleaving: one stops watching, another begins -> leaving fails -> the loop starts again, and nobody wakes it.
    async with world(redis_url, tmp_path, CALM) as here, here.node() as node:
        left, wanted = await here.add_mechanics(2)
        leaves, comes = Recorder(), Recorder()
        await node.presence.watch([left], leaves)
        unsubscribe = node.bus.unsubscribe

        async def fail_once(*_channels: str, **_handler: object) -> None:
            monkeypatch.setattr(node.bus, "unsubscribe", unsubscribe)
            raise KeyError("a bug")

        monkeypatch.setattr(node.bus, "unsubscribe", fail_once)
        node.presence._watches.drop(leaves)
        await node.presence.watch([wanted], comes)
        assert comes.words == ["offline"]
        await eventually(lambda: node.presence.channel_of(left) not in node.bus._handlers, "the channel is left")


async def test_what_was_being_read_when_the_loops_ended_is_read_when_they_start_again(redis_url: str, tmp_path: Path):
    async with world(redis_url, tmp_path, CALM) as here, here.node() as node:
        mechanic, sink = await here.add_mechanic(), Recorder()
        is_reading = anyio.Event()

        async def read(ids: Iterable[str]) -> dict[str, StatusView]:
            if not is_reading.is_set():
                is_reading.set()
                await anyio.sleep_forever()
            return await node.presence.status_of(ids)

        watches = watch.Watches(node.bus, channel_of=node.presence.channel_of, read=read, show=view)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watches.run)
            tasks.start_soon(watches.watch, [mechanic], sink)
            await is_reading.wait()
            tasks.cancel_scope.cancel()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watches.run)
            await eventually(lambda: sink.words == ["offline"], "it is read")
            tasks.cancel_scope.cancel()
