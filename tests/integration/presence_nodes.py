"""Two (or more) presence nodes on one real Redis and one real SQLite, for the tests of presence.

with redis_server() as server:                      # a fixture
    async with world(server.url, tmp_path) as here: # in the test body
        async with here.node() as a, here.node() as b: ...
"""

import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from sqlalchemy import update

from accounts.accounts import Accounts, NewAccount
from infra import migrations
from infra.bus import Bus
from infra.clock import RedisClock
from infra.database import Database
from infra.redis_link import RedisLink
from models.ids import new_id
from models.settings import PresenceSettings
from models.tables import Mechanic
from models.wire import StatusView
from models.words import Role
from presence.facts import read_facts
from presence.leases import Leases
from presence.liveness import Facts
from presence.service import Presence

PATIENCE_S = 8.0
POLL_S = 0.005
SHORT = PresenceSettings(
    heartbeat_interval_ms=200,
    timeout_ms=800,
    grace_ms=300,
    node_lease_ms=1_000,
    flush_interval_ms=20,
    sweep_interval_ms=100,
)
CALM = PresenceSettings(grace_ms=150, node_lease_ms=1_000, flush_interval_ms=20, sweep_interval_ms=50)
"""Leases that do not lapse during a test, for those that do not send heartbeats."""


async def eventually(true: Callable[[], bool] | Callable[[], Awaitable[bool]], what: str) -> float:
    """Wait until ``true()``; return after how many seconds; fail after a bounded time."""
    started = time.monotonic()
    while True:
        answer = true()
        if not isinstance(answer, bool):
            answer = await answer
        if answer:
            return time.monotonic() - started
        assert time.monotonic() - started < PATIENCE_S, f"not within {PATIENCE_S:g} s: {what}"
        await anyio.sleep(POLL_S)


@dataclass
class Recorder:
    """A sink that keeps what it was given, and when (monotonic seconds)."""

    views: list[StatusView] = field(default_factory=list)
    at_s: list[float] = field(default_factory=list)

    def __call__(self, view: StatusView) -> None:
        self.views.append(view)
        self.at_s.append(time.monotonic())

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    @property
    def words(self) -> list[str]:
        """The availabilities, in order."""
        return [view.availability for view in self.views]

    @property
    def last(self) -> StatusView | None:
        return self.views[-1] if self.views else None


@dataclass
class Node:
    """One node's presence and what it stands on."""

    node_id: str
    link: RedisLink
    clock: RedisClock
    bus: Bus
    presence: Presence

    async def status(self, mechanic_id: str) -> StatusView:
        return (await self.presence.status_of([mechanic_id]))[mechanic_id]

    async def is_online(self, mechanic_id: str) -> bool:
        return (await self.status(mechanic_id)).is_online

    def leases_of(self, mechanic_id: str) -> Leases:
        """The shard in Redis that a mechanic belongs to."""
        return self.presence._shard(mechanic_id).leases

    def heard_at_ms(self, mechanic_id: str) -> int:
        """When this node last heard a mechanic who is here."""
        return self.presence._shard(mechanic_id).last_heard_ms[mechanic_id]

    async def flush(self, *ids: str) -> None:
        """Tell Redis now what this node has heard of ``ids``."""
        for shard in {self.presence._shard(mechanic_id) for mechanic_id in ids}:
            await shard.flush()

    async def cut_off_listeners(self) -> None:
        """Let Redis cut the connections of whoever listens, on all its servers and of all nodes."""
        await self.link.everywhere(lambda redis: redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub"))

    @asynccontextmanager
    async def heartbeats(self, *ids: str, every_ms: int = 50) -> AsyncIterator[None]:
        """Send heartbeats of ``ids`` inside the block."""

        async def beat() -> None:
            while True:
                for mechanic_id in ids:
                    self.presence.heard(mechanic_id)
                await anyio.sleep(every_ms / 1000)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(beat)
            yield
            tasks.cancel_scope.cancel()


@dataclass
class World:
    """What all nodes share."""

    redis_url: str
    prefix: str
    database: Database
    settings: PresenceSettings

    async def add_mechanics(self, count: int = 1) -> list[str]:
        accounts = Accounts(self.database)
        made = []
        for _ in range(count):
            new = NewAccount(Role.MECHANIC, f"{new_id()}@example.com", "Mechanic")
            made.append(await accounts.add(new, now_ms=1))
        return [account.id for account in made]

    async def add_mechanic(self) -> str:
        return (await self.add_mechanics())[0]

    async def set_facts(self, mechanic_id: str, **columns: object) -> None:
        """Change a mechanic's facts in SQL as dispatch does: the version grows with every change."""
        table = Mechanic.__table__
        changed = update(table).where(table.c.id == mechanic_id)
        async with self.database.write() as session:
            connection = await session.connection()
            await connection.execute(changed.values(facts_version=table.c.facts_version + 1, **columns))

    async def facts(self, mechanic_id: str) -> list[Facts]:
        """Return what SQL knows of a mechanic now."""
        return await read_facts(self.database, [mechanic_id])

    async def in_sql(self, mechanic_id: str) -> Mechanic:
        async with self.database.read() as session:
            found = await session.get(Mechanic, mechanic_id)
        assert found is not None
        return found

    @asynccontextmanager
    async def node(self, settings: PresenceSettings | None = None) -> AsyncIterator[Node]:
        """Run one more node inside the block; it stops in good order at the end."""
        node_id = new_id()
        link = RedisLink(self.redis_url, prefix=self.prefix)
        bus = Bus(link, node_id)
        clock = RedisClock(link)
        try:
            await clock.sync()
            presence = Presence(link, bus, clock, self.database, settings or self.settings, node_id)
            async with anyio.create_task_group() as under:
                under.start_soon(bus.run)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(presence.run)
                    yield Node(node_id, link, clock, bus, presence)
                    tasks.cancel_scope.cancel()
                under.cancel_scope.cancel()
        finally:
            await link.close()


@asynccontextmanager
async def world(redis_url: str, folder: Path, settings: PresenceSettings = SHORT) -> AsyncIterator[World]:
    """A migrated database in ``folder`` and a key prefix of its own in the Redis at ``redis_url``."""
    database = Database(f"sqlite:///{folder / 'pitlane.sqlite3'}")
    try:
        await migrations.upgrade(database)
        yield World(redis_url, f"test-{os.getpid()}-{secrets.token_hex(4)}", database, settings)
    finally:
        await database.close()
