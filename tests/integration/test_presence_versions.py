"""A node of the version before beside one of today, on one Redis: what either has written, the other reads.

The scripts in ``presence_before`` are those of the version before, as they were; ``Before`` calls them as it did. It knows nothing
of the kinds of session that a mechanic has switched off.
"""

import re
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from infra.redis_link import RedisLink
from models.ids import new_id
from models.settings import PresenceSettings
from presence.leases import Leases
from presence.liveness import Facts, MechanicStatus
from tests.integration.presence_nodes import Recorder, eventually, world

SCRIPTS = Path(__file__).parent / "presence_before"
PACKED = re.compile(r"\d{1,18} \d \d \d \d \d{1,18}")
FACTS = Facts("mike", 2, on_duty=True, is_busy=False, has_push=False, last_seen_ms=None)
NO_TEXT = replace(FACTS, types_off="text")


def parse(message: str) -> MechanicStatus:
    """Read a message as the version before does: nine fields, or ``ValueError``, and then it reads the status anew."""
    mechanic_id, version, online, on_duty, busy, push, facts_version, last_seen, as_of = message.split(" ")
    flags = [flag == "1" for flag in (online, on_duty, busy, push)]
    seen_ms = None if last_seen == "-" else int(float(last_seen))
    return MechanicStatus(mechanic_id, int(version), *flags, int(facts_version), seen_ms, int(as_of))


class Before(Leases):
    """What a node of the version before does to a shard."""

    def __init__(self, link: RedisLink, settings: PresenceSettings, node_id: str, shard: int) -> None:
        super().__init__(link, settings, node_id, shard)
        self._keys = self._keys[:4]
        self._renew = link.script(SCRIPTS / "status.lua", SCRIPTS / "renew.lua")
        self._sweep = link.script(SCRIPTS / "status.lua", SCRIPTS / "sweep.lua")
        self._facts = link.script(SCRIPTS / "status.lua", SCRIPTS / "facts.lua")

    async def store_facts(self, facts: Iterable[Facts]) -> dict[str, MechanicStatus]:
        arguments: list[str | int] = [self._channels]
        for one in facts:
            arguments += (one.mechanic_id, one.version, int(one.on_duty), int(one.is_busy), int(one.has_push), "-")
        return {status.mechanic_id: status for status in map(parse, await self._facts(keys=self._keys, args=arguments))}

    async def read(self, ids: Collection[str], *, as_of_ms: int) -> dict[str, MechanicStatus]:
        packed = await self._link.ask(self._keys[0], lambda redis: redis.hmget(self._keys[0], list(ids)))
        return {
            mechanic_id: parse(f"{mechanic_id} {fields} - {as_of_ms}")
            for mechanic_id, fields in zip(ids, packed, strict=True)
            if fields is not None and PACKED.fullmatch(fields)
        }


@dataclass
class Nodes:
    """One of each version, and what was announced of Mike."""

    before: Before
    today: Leases
    announced: list[str]

    async def status(self, at: Leases) -> MechanicStatus:
        return (await at.read(["mike"], as_of_ms=1))["mike"]

    async def announcement(self, number: int) -> str:
        """Return the ``number``-th that was made, from 1."""
        await eventually(lambda: len(self.announced) >= number, f"{number} announcements")
        return self.announced[number - 1]


@asynccontextmanager
async def side_by_side(redis_url: str) -> AsyncIterator[Nodes]:
    link = RedisLink(redis_url, prefix=f"test-{secrets.token_hex(6)}")
    settings = PresenceSettings()
    nodes = Nodes(Before(link, settings, new_id(), 0), Leases(link, settings, new_id(), 0), [])
    listener = link.listener(None)
    async with listener, listener.pubsub() as ear, listening(ear, nodes.today.channel("mike"), nodes.announced.append):
        yield nodes
    await link.close()


@asynccontextmanager
async def listening(ear: Any, channel: str, hear: Callable[[str], None]) -> AsyncIterator[None]:
    """Hear what is said on a channel inside the block."""
    await ear.ssubscribe(channel)

    async def listen() -> None:
        async for message in ear.listen():
            if message["type"] == "smessage":
                hear(message["data"])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        yield
        tasks.cancel_scope.cancel()


async def comes_online(at: Leases, mechanic_id: str) -> None:
    ((seconds, _),) = await at._link.everywhere(lambda redis: redis.time())
    async for _ in at.renew({mechanic_id: seconds * 1000}):
        pass


async def test_a_status_with_something_switched_off_is_kept_in_the_form_of_the_version_before(redis_url: str):
    async with side_by_side(redis_url) as nodes:
        await nodes.today.store_facts([NO_TEXT])
        assert replace(await nodes.status(nodes.today), types_off="") == await nodes.status(nodes.before)
        assert (await nodes.status(nodes.today)).types_off == "text"


async def test_a_status_kept_by_the_version_before_is_read_as_of_somebody_who_takes_everything(redis_url: str):
    async with side_by_side(redis_url) as nodes:
        await nodes.before.store_facts([FACTS])
        assert await nodes.status(nodes.today) == await nodes.status(nodes.before)
        await comes_online(nodes.today, "mike")
        assert (await nodes.status(nodes.today)).is_online
        assert await nodes.today.available_count("text") == 1


async def test_facts_that_the_version_before_brings_first_are_made_whole_by_today(redis_url: str):
    # Interleaving: text is switched off, of version 2 -> the node of yesterday learns version 2 from SQL -> today's tells it.
    async with side_by_side(redis_url) as nodes:
        await comes_online(nodes.before, "mike")
        await nodes.before.store_facts([FACTS])
        half = await nodes.status(nodes.today)
        (whole,) = (await nodes.today.store_facts([NO_TEXT])).values()
        assert (whole.types_off, whole.version > half.version) == ("text", True)
        assert await nodes.today.available_count("text") == 0
        # Told again, or learnt again by the node of yesterday, it is no change.
        await nodes.before.store_facts([FACTS])
        assert (await nodes.today.store_facts([NO_TEXT]))["mike"].version == whole.version


async def test_what_the_version_before_changes_leaves_what_is_switched_off(redis_url: str):
    async with side_by_side(redis_url) as nodes:
        await nodes.today.store_facts([NO_TEXT])
        await comes_online(nodes.before, "mike")
        await nodes.before.store_facts([replace(FACTS, version=3, on_duty=False)])
        status = await nodes.status(nodes.today)
        assert (status.is_online, status.on_duty, status.types_off) == (True, False, "text")
        await nodes.before.store_facts([replace(FACTS, version=4)])
        assert [await nodes.today.available_count(kind) for kind in (None, "text", "video")] == [1, 0, 1]


async def test_announcements_of_who_takes_everything_are_read_by_the_version_before(redis_url: str):
    async with side_by_side(redis_url) as nodes:
        await nodes.today.store_facts([FACTS])
        await comes_online(nodes.today, "mike")
        assert parse(await nodes.announcement(1)).is_online
        await nodes.today.store_facts([replace(FACTS, version=3, on_duty=False)])
        assert not parse(await nodes.announcement(2)).on_duty


async def test_an_announcement_that_the_version_before_does_not_understand_is_of_a_status_that_it_can_read(
    redis_url: str,
):
    # Not understood is not ignored: such a node logs it and reads the status anew.
    async with side_by_side(redis_url) as nodes:
        await comes_online(nodes.today, "mike")
        await nodes.today.store_facts([NO_TEXT])
        with pytest.raises(ValueError, match="too many values"):
            parse(await nodes.announcement(1))
        assert (await nodes.status(nodes.before)).is_online


async def test_who_watches_is_told_what_is_switched_off_also_after_an_announcement_of_the_version_before(
    redis_url: str, tmp_path: Path
):
    async with world(redis_url, tmp_path, PresenceSettings()) as here, here.node() as node:
        mechanic_id = await here.add_mechanic()
        await here.set_facts(mechanic_id, session_types_off="text")
        before = Before(node.link, here.settings, new_id(), 0)
        sink = Recorder()
        await node.presence.watch([mechanic_id], sink)
        await here.set_facts(mechanic_id, on_duty=False)
        await comes_online(before, mechanic_id)
        await before.store_facts(await here.facts(mechanic_id))
        await eventually(lambda: "off_duty" in sink.words, "the change is told")
        assert {tuple(view.session_types) for view in sink.views} == {("diagnostic", "video")}
