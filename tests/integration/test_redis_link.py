"""What becomes of commands when Redis is started anew, stops answering, or nobody waits for the answer any more."""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import pytest

from infra.redis_link import CLIENTS_MAX, RedisLink
from models.errors import RedisUnavailable
from tests.services import redis_server

TIMEOUT_S = 0.5


@asynccontextmanager
async def linked(url: str) -> AsyncIterator[RedisLink]:
    link = RedisLink(url, prefix="test", timeout_s=TIMEOUT_S)
    try:
        yield link
    finally:
        await link.close()


async def several(link: RedisLink, count: int) -> list[str]:
    """Ask side by side, so that as many connections are needed; return the answers, each of which is its asker's own."""
    answers: list[str] = []

    async def ask(number: int) -> None:
        answer = await link.ask("key", lambda redis: redis.echo(f"{number}"))
        assert answer == f"{number}"
        answers.append(answer)

    async with anyio.create_task_group() as tasks:
        for number in range(count):
            tasks.start_soon(ask, number)
    return answers


async def connections(link: RedisLink) -> int:
    return len(await link.ask("key", lambda redis: redis.client_list()))


async def test_after_redis_was_started_anew_the_first_command_on_each_connection_works(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis") as server:
        async with linked(server.url) as link:
            await several(link, 5)
            server.kill()
            server.restart()
            # One after the other as well as side by side: none of the connections is what it was.
            for _ in range(3):
                assert len(await several(link, 5)) == 5


async def test_a_server_that_does_not_answer_costs_a_command_its_time_and_the_next_one_nothing(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis") as server:
        async with linked(server.url) as link:
            await several(link, 3)
            with stopped(server.pid), pytest.raises(RedisUnavailable, match="did not answer"):
                await link.ask("key", lambda redis: redis.echo("lost"))
            assert await link.ask("key", lambda redis: redis.echo("found")) == "found"


async def test_who_stops_waiting_for_an_answer_leaves_it_to_nobody_else(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis") as server:
        async with linked(server.url) as link:
            await link.ask("key", lambda redis: redis.echo("known"))
            with stopped(server.pid):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(link.ask, "key", lambda redis: redis.echo("given up"))
                    await anyio.wait_all_tasks_blocked()
                    tasks.cancel_scope.cancel()
            assert len(await several(link, 4)) == 4


async def test_a_storm_of_commands_opens_no_more_connections_than_may_be(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis") as server:
        async with linked(server.url) as link:
            assert len(await several(link, CLIENTS_MAX * 3)) == CLIENTS_MAX * 3
            assert 1 < await connections(link) <= CLIENTS_MAX


@contextmanager
def stopped(pid: int | None) -> Iterator[None]:
    """Let a process do nothing for a while."""
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
