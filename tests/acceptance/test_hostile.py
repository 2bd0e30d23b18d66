"""A whole server with few open files, besieged: whoever is signed in is served, nothing grows, and it stops in time."""

import asyncio
from contextlib import ExitStack
from pathlib import Path

import pytest

from accounts.accounts import NewAccount
from benchmarks import hostile
from benchmarks.contenders import Node
from models.settings import Settings
from models.words import Role
from tests.acceptance.clients import socket
from tests.acceptance.servers import add_accounts, running_servers

FILES = 512
"""Soft and hard: it cannot be raised."""
STRANGERS = 400
LASTS_S = 5.0
MB = 2**20


@pytest.mark.timeout(180)
async def test_whoever_is_signed_in_is_served_while_strangers_take_all_there_is_and_nobody_hangs_in_the_drain(
    tmp_path: Path,
):
    with ExitStack() as stack:
        [server] = stack.enter_context(running_servers(tmp_path, ulimit=f"-n {FILES}"))
        await server.ready()
        url = Settings(_env_file=None, data_dir=tmp_path).resolved_database_url
        mechanic, *customers = await add_accounts(
            url,
            NewAccount(Role.MECHANIC, "mia@example.com", "Mia"),
            *[NewAccount(Role.CUSTOMER, f"c{number}@example.com", "Carl") for number in range(20)],
        )
        node = Node(server.process, int(server.base_url.rpartition(":")[2]), server.log_path)
        outcome = await hostile.siege(node, mechanic, customers, STRANGERS, LASTS_S)

        assert outcome.bystander.failed == []
        assert len(outcome.bystander.fresh_ms) > 0
        assert outcome.rss_most - outcome.rss_before < 64 * MB
        assert outcome.siege["opened"] > STRANGERS, "many had to go, and came again"
        assert f"connections_max={FILES - 128} hard={FILES} soft={FILES}" in outcome.log
        assert "why=no_room" in outcome.log
        assert "Traceback" not in outcome.log
        assert "[error" not in outcome.log
        assert len(outcome.log.splitlines()) < 40

        crowd = [await asyncio.open_connection("127.0.0.1", node.port) for _ in range(30)]
        for number, (_, writer) in enumerate(crowd):
            writer.write(
                (b"", b"GET / HTTP/1.1\r\n", b"POST /api/auth/login HTTP/1.1\r\nContent-Length: 9\r\n\r\n{")[number % 3]
            )
        async with socket(server.base_url, "mechanic", mechanic) as phone:
            assert await asyncio.to_thread(server.stop) == 0, "within ten seconds"
            assert await phone.closed() == 1012
        for _, writer in crowd:
            writer.transport.abort()
