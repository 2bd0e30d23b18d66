"""One machine with several worker processes: its numbers, its files, and what goes on when a part of it dies or hangs."""

import os
import re
import resource
import signal
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
import pytest

from tests.acceptance.clients import ON_LOOPBACK, Rest, socket
from tests.acceptance.servers import Server, run, running_servers
from tests.parts import eventually

TOKEN = "a token for whoever reads the numbers"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
PATIENCE_S = 30.0
REGISTERED = 'pitlane_http_requests_total{method="POST",route="/api/auth/register",status="201"}'
DISK_LEN = 16 * 1024
"""Bytes. So long may a file be on the disk that is full: enough for the log, not for the database's."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


async def numbers(server: Server) -> dict[str, float]:
    """Ask on a connection of its own, which any worker may get; values by series."""
    async with httpx.AsyncClient(base_url=server.base_url, headers=AUTHORIZED, **ON_LOOPBACK) as client:
        text = (await client.get("/metrics", timeout=PATIENCE_S)).text
    return {name: float(value) for name, value in re.findall(r"^([a-z].*) (\S+)$", text, re.MULTILINE)}


def children(server: Server, what: str) -> list[int]:
    """Return the process ids of the server's children whose command line has ``what`` in it."""
    pid = server.process.pid
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed if what in Path(f"/proc/{child}/cmdline").read_text()]


async def readiness(server: Server) -> httpx.Response:
    async with httpx.AsyncClient(base_url=server.base_url, timeout=PATIENCE_S, **ON_LOOPBACK) as client:
        return await client.get("/readyz")


@asynccontextmanager
async def machine(tmp_path: Path, **settings: str) -> AsyncIterator[Server]:
    with running_servers(tmp_path, METRICS_TOKEN=TOKEN, **settings) as [server]:
        await server.ready()
        yield server


async def test_workers_are_one_machine_in_numbers_and_no_death_is_anothers(tmp_path: Path) -> None:
    # As an earlier version, or an operator's copy, may have left it.
    leave_open(tmp_path)
    async with machine(tmp_path, WORKERS="3") as server, AsyncExitStack() as stack:
        await eventually(lambda: has_workers(server, 3), "all three are heard of", within_s=PATIENCE_S)
        assert open_to_others(tmp_path) == [server.log_path], "which is not ours"

        rest = await stack.enter_async_context(Rest(base_url=server.base_url, **ON_LOOPBACK))
        body = {"email": "driver@example.com", "password": "correct horse", "name": "John Doe"}
        customer = (await rest.ok("POST", "/api/auth/register", json=body, status=201))["account"]["id"]
        for _ in range(6):
            await stack.enter_async_context(socket(server.base_url, "customer", customer))
        await eventually(lambda: has_open(server, 6), "whoever is asked knows all sockets", within_s=PATIENCE_S)

        await eventually(lambda: has_registered(server), "and all calls", within_s=PATIENCE_S)

        first, second, third = children(server, "\0worker\0")
        os.kill(second, signal.SIGKILL)
        [redis] = children(server, "redis")
        os.kill(redis, signal.SIGKILL)
        await eventually(
            lambda: len({*children(server, "\0worker\0")} - {second}) == 3, "it is replaced", within_s=PATIENCE_S
        )
        await server.ready()
        assert {first, third} < set(children(server, "\0worker\0")), "the others were left alone"
        assert await has_registered(server), "a counter never goes back"

        os.kill(first, signal.SIGSTOP)
        try:
            # One that hangs may have been given a connection that it never answers; nobody else waits for it.
            await eventually(lambda: has_numbers_soon(server), "the others tell the numbers", within_s=PATIENCE_S)
        finally:
            os.kill(first, signal.SIGCONT)
        server.process.terminate()
        assert await anyio.to_thread.run_sync(server.process.wait, 20) == 0


def leave_open(data_dir: Path) -> None:
    (data_dir / "secret_key").write_text("0123456789" * 6)
    (data_dir / "secret_key").chmod(0o644)
    data_dir.chmod(0o755)


def open_to_others(data_dir: Path) -> list[Path]:
    return [path for path in (data_dir, *data_dir.rglob("*")) if stat.S_IMODE(path.lstat().st_mode) & 0o077]


async def has_workers(server: Server, count: int) -> bool:
    return (await numbers(server)).get("pitlane_workers") == count


async def has_open(server: Server, count: int) -> bool:
    return (await numbers(server)).get('pitlane_connections{role="customer"}') == count


async def has_registered(server: Server) -> bool:
    return (await numbers(server)).get(REGISTERED) == 1


async def has_numbers_soon(server: Server) -> bool:
    with anyio.move_on_after(2):
        return bool(await numbers(server))
    return False


async def test_the_numbers_are_for_who_has_the_token_and_readiness_says_what_cannot_be_written(tmp_path: Path) -> None:
    async with machine(tmp_path) as server, httpx.AsyncClient(base_url=server.base_url, **ON_LOOPBACK) as client:
        assert (await client.get("/metrics", headers=AUTHORIZED)).status_code == 200
        for wrong in (
            {},
            {"Authorization": f"Basic {TOKEN}"},
            {"Authorization": "Bearer"},
            {"Authorization": f"Bearer {TOKEN}x"},
        ):
            answer = await client.get("/metrics", headers=wrong)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
        answer = await client.get("/metrics", headers={"Authorization": "Bearer é".encode()})
        assert answer.status_code == 401

        pid = server.process.pid
        unlimited = resource.prlimit(pid, resource.RLIMIT_FSIZE, (DISK_LEN, resource.RLIM_INFINITY))
        answer = await eventually(lambda: unready(server), "it says that SQL cannot be written", within_s=PATIENCE_S)
        assert "database" in answer.json()["detail"]
        assert "redis" not in answer.json()["detail"]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)
        await server.ready()

        [redis] = children(server, "redis")
        os.kill(redis, signal.SIGSTOP)
        try:
            answer = await eventually(
                lambda: unready(server), "it says that Redis does not answer", within_s=PATIENCE_S
            )
            assert "redis" in answer.json()["detail"]
        finally:
            os.kill(redis, signal.SIGCONT)


async def unready(server: Server) -> httpx.Response | None:
    answer = await readiness(server)
    return answer if answer.status_code == 503 else None


def test_a_stand_in_on_the_network_is_refused_before_anything_listens(tmp_path: Path) -> None:
    refused = run(tmp_path, "demo", HOST="0.0.0.0")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1), refused
    assert "PITLANE_STANDIN_ON_NETWORK" in refused.stderr


def test_a_backup_of_a_running_server_comes_back_with_everybody_signed_in_and_plans_change_beside_one(
    tmp_path: Path,
) -> None:
    data_dir, kept = tmp_path / "var", tmp_path / "one.backup"
    body = {"password": "correct horse", "name": "John Doe"}
    # The key is generated, and so a part of what is to come back.
    with running_servers(data_dir, SECRET_KEY="") as [server]:
        anyio.run(server.ready)
        with httpx.Client(base_url=server.base_url, timeout=PATIENCE_S, **ON_LOOPBACK) as client:
            token = client.post("/api/auth/register", json=body | {"email": "a@example.com"}).json()["token"]
            changed = run(data_dir, "plan", "set", "quick_chat", "--price-cents", "1299", SECRET_KEY="")
            assert changed.returncode == 0, changed.stderr
            assert prices(client)["quick_chat"] == 1299
            backed_up = run(data_dir, "backup", str(kept), SECRET_KEY="")
            assert backed_up.returncode == 0, backed_up.stderr
            assert client.post("/api/auth/register", json=body | {"email": "later@example.com"}).status_code == 201
        refused = run(data_dir, "restore", str(kept), "--force", SECRET_KEY="")
        assert (refused.returncode, "stop the server" in refused.stderr) == (2, True), refused
        server.stop()
    assert run(data_dir, "restore", str(kept), "--force", SECRET_KEY="").returncode == 0
    with running_servers(data_dir, SECRET_KEY="") as [server]:
        anyio.run(server.ready)
        with httpx.Client(base_url=server.base_url, timeout=PATIENCE_S, **ON_LOOPBACK) as client:
            me = client.get("/api/me", headers={"Authorization": f"Bearer {token}"})
            assert (me.status_code, me.json().get("email")) == (200, "a@example.com")
            later = client.post("/api/auth/login", json={"email": "later@example.com", "password": "correct horse"})
            assert later.status_code == 401
            assert prices(client)["quick_chat"] == 1299


def prices(client: httpx.Client) -> dict[str, int]:
    return {plan["id"]: plan["price_cents"] for plan in client.get("/api/plans").json()["plans"]}


def test_a_postgresql_is_left_to_its_own_tools(tmp_path: Path) -> None:
    refused = run(tmp_path, "backup", str(tmp_path / "file"), DATABASE_URL="postgresql://127.0.0.1/nothing")
    assert (refused.returncode, "pg_dump" in refused.stderr) == (2, True), refused
