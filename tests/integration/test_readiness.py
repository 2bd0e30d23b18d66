"""A node is ready while it can write, whatever can still be read; and asking costs the same however many ask."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import asyncpg
import pytest

from http_api import readiness
from http_api.readiness import Readiness
from infra.database import Database
from infra.redis_link import RedisLink
from models.errors import DatabaseUnavailable
from tests.parts import eventually, side_by_side
from tests.services import redis_server


@asynccontextmanager
async def parts(database_url: str, redis_url: str) -> AsyncIterator[tuple[Database, RedisLink]]:
    database, link = Database(database_url), RedisLink(redis_url, prefix="ready")
    try:
        yield database, link
    finally:
        await link.close()
        await database.close()


async def test_where_all_can_be_written_nothing_is_missing(database_url: str, any_redis_url: str) -> None:
    async with parts(database_url, any_redis_url) as (database, link):
        assert await Readiness(database, link).missing() == ()


@pytest.mark.parametrize("database_kind", ["postgresql"])
async def test_a_postgresql_that_only_reads_is_named(database_url: str, redis_url: str) -> None:
    operator = await asyncpg.connect(database_url)
    name = database_url.rsplit("/", 1)[1]
    await operator.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    async with parts(database_url, redis_url) as (database, link):
        await database.ping()
        assert await Readiness(database, link).missing() == ("database",)
    await operator.close()


@pytest.mark.parametrize("database_kind", ["postgresql"])
async def test_a_row_that_another_node_holds_makes_no_node_unready(database_url: str, redis_url: str) -> None:
    other = await asyncpg.connect(database_url)
    async with parts(database_url, redis_url) as (database, link), other.transaction():
        await other.execute("UPDATE alembic_version SET version_num = version_num")
        assert await Readiness(database, link).missing() == ()
    await other.close()


@pytest.mark.parametrize("database_kind", ["sqlite"])
async def test_a_database_that_somebody_holds_is_named_in_time_and_asked_once_for_all(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "LOOK_WITHIN_S", 0.3)
    async with parts(database_url, redis_url) as (database, link), parts(database_url, redis_url) as (other, _):
        looks = Readiness(database, link)
        async with other.write() as session:
            # From its first word on.
            await session.connection()
            found = await side_by_side(*[looks.missing] * 50)
            assert set(found) == {("database",)}
            with pytest.raises(DatabaseUnavailable):
                await database.prove_writable(within_s=0.1)
        await eventually(lambda: is_ready(looks), "it is written again")


async def is_ready(looks: Readiness) -> bool:
    return await looks.missing() == ()


@pytest.mark.parametrize("database_kind", ["sqlite"])
async def test_a_redis_that_only_reads_is_named(database_url: str, tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis") as server:
        async with parts(database_url, server.url) as (database, link):
            await link.everywhere(lambda redis: redis.execute_command("CONFIG", "SET", "min-replicas-to-write", "1"))
            await link.ping()
            assert await Readiness(database, link).missing() == ("redis",)


@pytest.mark.parametrize("database_kind", ["sqlite"])
async def test_however_many_ask_there_is_one_look(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "GOOD_FOR_S", 3_600.0)
    looks = 0
    async with parts(database_url, redis_url) as (database, link):
        prove = database.prove_writable

        async def counted(*, within_s: float) -> None:
            nonlocal looks
            looks += 1
            await prove(within_s=within_s)

        monkeypatch.setattr(database, "prove_writable", counted)
        asked = Readiness(database, link)
        assert set(await side_by_side(*[asked.missing] * 200)) == {()}
        for _ in range(50):
            assert await asked.missing() == ()
        assert looks == 1


@pytest.mark.parametrize("database_kind", ["sqlite"])
async def test_who_waits_for_a_look_that_hangs_is_answered_all_the_same(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "ANSWER_WITHIN_S", 0.05)
    async with parts(database_url, redis_url) as (database, link):

        async def hang(*, within_s: float) -> None:
            with anyio.CancelScope(shield=True):
                await released.wait()

        released = anyio.Event()
        monkeypatch.setattr(database, "prove_writable", hang)
        asked = Readiness(database, link)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(asked.missing)
            await anyio.lowlevel.checkpoint()
            assert await asked.missing() == readiness.PARTS
            released.set()
