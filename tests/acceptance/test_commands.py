"""The commands of ``run.py``, as an operator types them."""

import contextlib
import csv
import json
import os
import signal
import sqlite3
import subprocess
from pathlib import Path

import anyio
import httpx
import pytest

from tests.acceptance.clients import Rest, socket
from tests.acceptance.servers import run, running_servers
from tests.parts import eventually
from tests.services import fresh_database

STRONG = "0123456789012345678901234567890123456789"


def assert_one_sentence(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 2, result
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    for word in words:
        assert word in result.stderr


def test_an_account_can_be_added_before_the_first_start_and_signs_in_afterwards(tmp_path: Path) -> None:
    options = ["--role", "mechanic", "--email", "M@Example.com", "--name", "Mia", "--password", "correct horse"]
    added = run(tmp_path, "account", "add", *options, "--provider-type", "workshop")
    assert added.returncode == 0, added.stderr
    account_id = json.loads(added.stdout)["id"]
    assert json.loads(added.stdout) == {"id": account_id}
    assert_one_sentence(run(tmp_path, "account", "add", *options), "m@example.com")
    with running_servers(tmp_path) as [server]:
        anyio.run(server.ready)
        answer = httpx.post(
            f"{server.base_url}/api/auth/login", json={"email": "m@example.com", "password": "correct horse"}
        )
        assert answer.status_code == 200, answer.text
        assert answer.json()["account"]["id"] == account_id


def test_accounts_are_imported_in_file_order_beside_a_running_server(tmp_path: Path) -> None:
    rows = [["mechanic", f"m{number}@example.com", f"Mechanic {number}", "", "independent"] for number in range(200)]
    path = tmp_path / "accounts.csv"
    with path.open("w", newline="") as lines:
        csv.writer(lines).writerows([["role", "email", "name", "password", "provider_type"], *rows])
    with running_servers(tmp_path) as [server]:
        anyio.run(server.ready)
        imported = run(tmp_path, "account", "import", str(path))
        assert imported.returncode == 0, imported.stderr
        lines_out = [json.loads(line) for line in imported.stdout.splitlines()]
        assert [line["email"] for line in lines_out] == [row[1] for row in rows]
        assert [line["id"] for line in lines_out] == sorted(line["id"] for line in lines_out)

        async def one_of_them_connects() -> None:
            async with socket(server.base_url, "mechanic", lines_out[0]["id"]) as mechanic:
                assert mechanic.received[0]["on_duty"] is True

        anyio.run(one_of_them_connects)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frobnicate"], ["frobnicate"]),
        (["account", "add", "--role", "boss"], ["boss"]),
        (["account", "import", "no-such-file.csv"], ["no-such-file.csv"]),
        (["serve", "--fast"], ["--fast"]),
    ],
)
def test_wrong_usage_exits_2_with_one_sentence(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    assert_one_sentence(run(tmp_path, *arguments), *words)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"ENV": "production", "SECRET_KEY": ""}, "PITLANE_SECRET_KEY"),
        ({"ENV": "production", "SECRET_KEY": "too short"}, "PITLANE_SECRET_KEY"),
        ({"ENV": "production", "SECRET_KEY": STRONG}, "PITLANE_STRIPE_SECRET_KEY"),
        (
            {"ENV": "production", "SECRET_KEY": STRONG, "STRIPE_SECRET_KEY": "sk_live_x"},
            "PITLANE_STRIPE_WEBHOOK_SECRET",
        ),
        ({"STRIPE_SECRET_KEY": "sk_test_x"}, "PITLANE_STRIPE_WEBHOOK_SECRET"),
        ({"HEARTBEAT_INTERVAL_S": "30"}, "PITLANE_PRESENCE_TIMEOUT_S"),
        ({"PRIORITY_WINDOW_S": "-1"}, "PITLANE_PRIORITY_WINDOW_S"),
        ({"WORKERS": "many"}, "PITLANE_WORKERS"),
        ({"DATABASE_URL": "mysql://somewhere"}, "PITLANE_DATABASE_URL"),
        ({"REDIS_URL": "http://somewhere"}, "PITLANE_REDIS_URL"),
        ({"REDIS_URL": "redis+cluster://one,,two"}, "PITLANE_REDIS_URL"),
    ],
)
def test_settings_that_cannot_work_exit_2_naming_the_setting(
    tmp_path: Path, settings: dict[str, str], name: str
) -> None:
    assert_one_sentence(run(tmp_path, "serve", **settings), name)


def test_a_postgresql_that_is_behind_is_refused_until_it_is_migrated(tmp_path: Path, postgres_url: str) -> None:
    postgres_database = fresh_database(postgres_url)
    assert_one_sentence(run(tmp_path, "serve", DATABASE_URL=postgres_database), "run.py migrate")
    migrated = run(tmp_path, "migrate", DATABASE_URL=postgres_database)
    assert migrated.returncode == 0, migrated.stderr
    with running_servers(tmp_path, DATABASE_URL=postgres_database) as [server]:
        anyio.run(server.ready)


def test_a_second_server_on_the_same_data_directory_is_refused(tmp_path: Path) -> None:
    with running_servers(tmp_path) as [server]:
        anyio.run(server.ready)
        assert_one_sentence(run(tmp_path, "serve"), str(tmp_path))


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_sigterm_drains_with_1012_and_exits_0_within_ten_seconds(tmp_path: Path, workers: str) -> None:
    with running_servers(tmp_path, WORKERS=workers) as [server]:
        await server.ready()
        customer = (await register(server.base_url))["account"]["id"]
        async with socket(server.base_url, "customer", customer) as page:
            server.process.send_signal(signal.SIGTERM)
            assert await page.closed() == 1012
        assert await anyio.to_thread.run_sync(server.process.wait, 10) == 0


async def test_sigterm_ends_a_server_whose_database_hangs_within_ten_seconds_too(tmp_path: Path) -> None:
    with running_servers(tmp_path) as [server]:
        await server.ready()
        customer = (await register(server.base_url))["account"]["id"]
        with contextlib.closing(sqlite3.connect(tmp_path / "pitlane.sqlite3", isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            async with Rest.of(server.base_url, customer, "customer") as rest, anyio.create_task_group() as tasks:
                is_sent = anyio.Event()

                async def note(step: str, _details: object) -> None:
                    if step == "http11.send_request_body.complete":
                        is_sent.set()

                async def write() -> None:
                    body = {"plan": "free_diagnostic", "routing_type": "broadcast"}
                    with contextlib.suppress(httpx.TransportError):
                        await rest.post("/api/checkout", json=body, extensions={"trace": note})

                tasks.start_soon(write)
                await is_sent.wait()
                server.process.send_signal(signal.SIGTERM)
                assert await anyio.to_thread.run_sync(server.process.wait, 10) is not None


async def test_two_workers_share_one_address_and_one_truth(tmp_path: Path) -> None:
    with running_servers(tmp_path, WORKERS="2") as [server]:
        await server.ready()
        customer = (await register(server.base_url))["account"]["id"]
        async with Rest.of(server.base_url, customer, "customer") as rest:
            made = await rest.ok(
                "POST", "/api/checkout", json={"plan": "free_diagnostic", "routing_type": "broadcast"}, status=201
            )
            request_id = made["request"]["id"]
        for _ in range(8):
            # Each call opens a connection of its own, which either worker may get.
            async with Rest.of(server.base_url, customer, "customer") as rest:
                assert (await rest.ok("GET", f"/api/requests/{request_id}"))["id"] == request_id


async def test_a_worker_that_is_killed_is_replaced(tmp_path: Path) -> None:
    with running_servers(tmp_path, WORKERS="2") as [server]:
        await server.ready()
        before = workers_of(server.process.pid)
        assert len(before) == 2
        os.kill(before[0], signal.SIGKILL)
        await eventually(
            lambda: len(now := workers_of(server.process.pid)) == 2 and before[0] not in now, "the worker is replaced"
        )
        await server.ready()


def workers_of(parent: int) -> list[int]:
    """Return the process ids of the worker processes of a server."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(pid) for pid in children if "\0worker\0" in Path(f"/proc/{pid}/cmdline").read_text()]


async def register(base_url: str) -> dict[str, dict[str, str]]:
    """Make a customer through the front door."""
    async with Rest(base_url=base_url) as rest:
        body = {"email": "driver@example.com", "password": "correct horse", "name": "John Doe"}
        return await rest.ok("POST", "/api/auth/register", json=body, status=201)
