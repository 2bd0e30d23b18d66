"""What becomes of commands when Redis is started anew, stops answering, or nobody waits for the answer any more."""

import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar

import anyio
import pytest
from redis.asyncio import Redis

from infra.clock import RedisClock
from infra.redis_link import CLIENTS_MAX, RedisLink
from models.errors import RedisUnavailable
from tests.parts import eventually
from tests.services import redis_server

# As a server has it: time enough for a busy machine, and not too long for a test that sits it out.
TIMEOUT_S = 2

T = TypeVar("T")


@asynccontextmanager
async def linked(url: str, timeout_s: float = TIMEOUT_S) -> AsyncIterator[RedisLink]:
    link = RedisLink(url, prefix="test", timeout_s=timeout_s)
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


async def answers(link: RedisLink) -> bool:
    try:
        await link.ask("key", lambda redis: redis.get("key"))
    except RedisUnavailable:
        return False
    return True


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
        # The claim is how many, and not how soon.
        async with linked(server.url, timeout_s=30) as link:
            assert len(await several(link, CLIENTS_MAX * 3)) == CLIENTS_MAX * 3
            assert 1 < await connections(link) <= CLIENTS_MAX


async def test_a_redis_that_may_not_write_for_want_of_replicas_is_waited_for(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis") as server:
        async with linked(server.url) as link:
            await link.ask("key", lambda redis: redis.config_set("min-replicas-to-write", 1))
            with pytest.raises(RedisUnavailable, match="NOREPLICAS"):
                await link.ask("key", lambda redis: redis.set("key", "x"))
            await link.ask("key", lambda redis: redis.config_set("min-replicas-to-write", 0))
            await link.ask("key", lambda redis: redis.set("key", "x"))


async def test_a_redis_that_is_busy_with_somebody_s_script_is_waited_for(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis") as server:
        async with linked(server.url) as link, linked(server.url) as somebody:
            await link.ask("key", lambda redis: redis.config_set("busy-reply-threshold", 1))
            with pytest.raises(RedisUnavailable, match="did not answer"):
                await somebody.ask("key", lambda redis: redis.eval("while true do end", 0))
            with pytest.raises(RedisUnavailable, match="BUSY"):
                await link.ask("key", lambda redis: redis.get("key"))
            # Killed at its next look; until then it is busy.
            await link.ask("key", lambda redis: redis.script_kill())
            await eventually(lambda: answers(link), "it answers again")


class LateAnswers(RedisLink):
    """A link whose answers are ``late_s`` on their way back."""

    late_s = 0.0

    async def ask(self, key: str, command: Callable[[Redis], Awaitable[T]]) -> T:
        answer = await super().ask(key, command)
        await anyio.sleep(self.late_s)
        return answer


async def test_an_answer_that_took_long_moves_no_clock(tmp_path: Path) -> None:
    # Nobody knows when on its way Redis read its time: a clock that believes it may be half of the way wrong.
    with redis_server(tmp_path / "redis") as server:
        link = LateAnswers(server.url, prefix="test")
        clock = RedisClock(link)
        await clock.sync()
        before_ms = ahead_ms(clock)
        link.late_s = 0.4
        await clock.sync()
        assert ahead_ms(clock) == pytest.approx(before_ms, abs=100)
        await link.close()


def ahead_ms(clock: RedisClock) -> float:
    """Return how far the clock is ahead of this machine's monotonic one."""
    return clock.now_ms() - time.monotonic_ns() / 1e6


@contextmanager
def stopped(pid: int | None) -> Iterator[None]:
    """Let a process do nothing for a while."""
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
