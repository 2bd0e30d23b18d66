"""The embedded Redis outlives nothing and forgets nothing: real servers, real signals."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
import redis

from embedded import redis_child
from embedded.redis_child import DataDirectoryInUse, EmbeddedRedisError, RedisChild
from tests.services import redis_server

REPO = Path(__file__).resolve().parents[2]
PATIENCE_S = 10.0
POLL_S = 0.01

OWNER = """
import sys
from pathlib import Path
from embedded.redis_child import RedisChild
sys.platform = sys.argv[2]
child = RedisChild.start(Path(sys.argv[1]))
print(child.pid, flush=True)
sys.stdin.read()
"""


@contextmanager
def owner_process(data_dir: Path, platform: str = sys.platform) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run another process that owns the Redis on ``data_dir``; yields it and the server's process id."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(data_dir), platform],
        cwd=REPO,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def ended(pid: int) -> bool:
    """Say whether a process is gone; one that only waits for somebody to take note of its end is."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except ProcessLookupError:
        return True
    except FileNotFoundError:
        return Path("/proc/self").exists()  # else a system without /proc: it answered the signal
    return state == "Z"


def wait_until(fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not fact():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(POLL_S)


def answers(child: RedisChild) -> bool:
    with redis.Redis.from_url(child.url) as client:
        try:
            return client.ping()
        except redis.ConnectionError:
            return False


def remembered(child: RedisChild) -> bytes | None:
    with redis.Redis.from_url(child.url) as client:
        return client.get("who")


def remember(child: RedisChild) -> None:
    with redis.Redis.from_url(child.url) as client:
        client.set("who", "john")


def test_data_survives_sigkill_of_the_server_and_a_new_start(tmp_path: Path) -> None:
    with redis_server(tmp_path) as child:
        remember(child)
        child.kill()
        assert not answers(child)
        child.restart()
        assert remembered(child) == b"john"
    with redis_server(tmp_path) as child:
        assert remembered(child) == b"john"


def test_stop_ends_the_server_and_is_idempotent(tmp_path: Path) -> None:
    child = RedisChild.start(tmp_path)
    pid = child.pid
    assert pid is not None
    child.stop()
    child.stop()
    assert ended(pid)
    assert not child.socket_path.exists()


def test_only_the_owner_of_the_data_may_connect(tmp_path: Path) -> None:
    with redis_server(tmp_path) as child:
        assert child.folder.stat().st_mode & 0o077 == 0
        assert child.socket_path.stat().st_mode & 0o077 == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent was killed")
def test_the_server_ends_with_an_owner_that_is_killed(tmp_path: Path) -> None:
    with owner_process(tmp_path) as (owner, pid):
        owner.kill()
        owner.wait()
        wait_until(lambda: ended(pid))


def test_a_server_that_outlived_its_owner_is_replaced_with_its_data(tmp_path: Path) -> None:
    # "darwin" stands for any system that does not tell the child: there the server stays when its owner is killed, and
    # a second server beside it would write to the same append-only file.
    with owner_process(tmp_path, platform="darwin") as (owner, left_over):
        left = RedisChild(tmp_path)
        remember(left)
        owner.kill()
        owner.wait()
        assert answers(left)
        with redis_server(tmp_path) as child:
            assert ended(left_over)
            assert child.pid != left_over
            assert remembered(child) == b"john"


def test_a_second_start_on_a_data_directory_is_refused_or_shares(tmp_path: Path) -> None:
    with owner_process(tmp_path) as (_, pid):
        with pytest.raises(DataDirectoryInUse, match="PITLANE_DATA_DIR"):
            RedisChild.start(tmp_path)
        with RedisChild.start(tmp_path, share=True) as shared:
            assert not shared.owned
            assert answers(shared)
        assert not ended(pid)
        assert answers(shared), "a shared server is its owner's to stop"


def test_a_deep_data_directory_gets_a_short_private_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("deep" * 20) / ("a folder with 100 % odd ? characters" * 3)
    with redis_server(deep) as child:
        assert answers(child)
        remember(child)
        assert len(os.fsencode(child.socket_path)) <= redis_child.SOCKET_PATH_LEN_MAX
        assert child.socket_path.parent.stat().st_mode & 0o077 == 0
        assert RedisChild(deep).url == child.url
    assert not child.socket_path.parent.exists()
    with redis_server(deep) as child:
        assert remembered(child) == b"john"


def test_a_socket_folder_prepared_by_somebody_else_is_refused(tmp_path: Path) -> None:
    deep = tmp_path / ("deep" * 25)
    place = redis_child.socket_path_for(deep / "redis").parent
    place.mkdir(mode=0o777)
    place.chmod(0o777)
    try:
        with pytest.raises(EmbeddedRedisError, match="not a private folder"):
            RedisChild.start(deep)
    finally:
        place.rmdir()


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with redis_server(tmp_path) as child:
        remember(child)
    manifest = next((tmp_path / "redis").glob("appendonlydir/*.manifest"))
    manifest.write_text("not a manifest\n")
    with pytest.raises(EmbeddedRedisError, match=r"(?s)ended with exit code 1.*AOF"):
        RedisChild.start(tmp_path)
    manifest.parent.rename(tmp_path / "set-aside")
    with redis_server(tmp_path) as child:
        assert answers(child), "the failed start has let go of the directory"


async def test_a_killed_server_is_started_again_on_the_same_socket(tmp_path: Path) -> None:
    with redis_server(tmp_path) as child:
        remember(child)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child.run)
            for _ in range(2):
                killed = child.pid
                child.kill()
                with anyio.fail_after(PATIENCE_S):
                    while child.pid == killed or not answers(child):  # noqa: ASYNC110 - another process's fact
                        await anyio.sleep(POLL_S)
                assert remembered(child) == b"john"
            tasks.cancel_scope.cancel()


async def test_a_server_that_keeps_dying_is_given_up(tmp_path: Path) -> None:
    async def keep_killing(child: RedisChild) -> None:
        while True:
            child.kill()
            await anyio.sleep(POLL_S)

    with redis_server(tmp_path) as child, anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_killing, child)
            with pytest.raises(EmbeddedRedisError, match="keeps dying"):
                await child.run()
            tasks.cancel_scope.cancel()


async def test_run_ends_quietly_once_the_server_is_stopped(tmp_path: Path) -> None:
    with redis_server(tmp_path) as child, anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child.run)
            await anyio.lowlevel.checkpoint()
            child.stop()
