"""Two real servers: who is signed out or disabled on one, or by the command line, is out on both, whatever starts anew."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import connect

from accounts.accounts import NewAccount
from embedded.redis_child import RedisChild
from models.ids import new_id
from models.words import Role
from tests.acceptance.clients import ON_LOOPBACK, PATIENCE_S, SECRET_KEY, Rest, Socket, pay
from tests.acceptance.servers import Server, add_accounts, running_servers, start_server
from tests.acceptance.servers import run as run_command
from tests.parts import SHORT_LIVED, eventually
from tests.services import drop_database, fresh_database, redis_server

PASSWORD = "correct horse battery"
FRESH_KEY = "another secret of the tests, of forty bytes"


@dataclass
class House:
    """Two servers on one PostgreSQL and one Redis."""

    servers: list[Server]
    settings: dict[str, str]
    redis: RedisChild
    folder: Path

    @property
    def database_url(self) -> str:
        return self.settings["DATABASE_URL"]

    async def ready(self) -> tuple[Server, Server]:
        for server in self.servers:
            await server.ready()
        one, other = self.servers
        return one, other

    def start_anew(self, **changes: str) -> None:
        """SIGKILL for both, and two others on the same ports."""
        for position, server in enumerate(self.servers):
            server.kill()
            port = server.base_url.rpartition(":")[2]
            folder = server.log_path.parent
            self.servers[position] = start_server(folder, PORT=port, **self.settings | changes)

    async def command(self, *arguments: str) -> tuple[int, str]:
        """Run a command beside the servers; return its exit code and what it complains of."""
        work = partial(run_command, self.folder, *arguments, **self.settings)
        done = await anyio.to_thread.run_sync(work)
        return done.returncode, done.stderr


@pytest.fixture
def house(postgres_template: str, tmp_path: Path) -> Iterator[House]:
    url = fresh_database(postgres_template.rsplit("/", 1)[0], postgres_template)
    with redis_server() as redis:
        settings = {"DATABASE_URL": url, "REDIS_URL": redis.url}
        with running_servers(tmp_path, 2, **settings) as servers:
            one = House(servers, settings, redis, tmp_path)
            try:
                yield one
            finally:
                for server in one.servers:
                    server.kill()
    drop_database(url)


async def added(house: House, role: Role) -> tuple[str, str]:
    """Return a new account's id and address."""
    email = f"{new_id().lower()}@example.com"
    [account_id] = await add_accounts(house.database_url, NewAccount(role, email, "Somebody", PASSWORD))
    return account_id, email


async def signed_in(server: Server, email: str) -> Rest:
    """Return a client with a token that the server has made."""
    async with httpx.AsyncClient(base_url=server.base_url, timeout=PATIENCE_S, **ON_LOOPBACK) as nobody:
        answer = await nobody.post("/api/auth/login", json={"email": email, "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    return with_token(server, answer.json()["token"])


def with_token(server: Server, token: str) -> Rest:
    headers = {"Authorization": f"Bearer {token}"}
    return Rest(base_url=server.base_url, headers=headers, timeout=PATIENCE_S, limits=SHORT_LIVED, **ON_LOOPBACK)


def token_of(rest: Rest) -> str:
    return rest.headers["authorization"].removeprefix("Bearer ")


def socket_of(server: Server, kind: str, token: str) -> Any:
    url = f"{server.base_url.replace('http', 'ws', 1)}/ws/{kind}"
    return connect(url, additional_headers={"Authorization": f"Bearer {token}"}, compression=None, proxy=None)


async def status(server: Server, token: str, method: str = "GET", path: str = "/api/me") -> int:
    async with with_token(server, token) as rest:
        return (await rest.request(method, path)).status_code


async def refused(servers: tuple[Server, Server], token: str) -> bool:
    return [await status(server, token) for server in servers] == [401, 401]


async def test_who_signs_out_or_is_disabled_on_one_server_is_out_on_both_and_no_start_or_empty_redis_forgets(
    house: House,
):
    servers = await house.ready()
    one, other = servers
    (_, her_email), (_, admins), (mia, mias) = [
        await added(house, role) for role in (Role.CUSTOMER, Role.ADMIN, Role.MECHANIC)
    ]
    phone, desk, admin, mechanic = [await signed_in(one, email) for email in (her_email, her_email, admins, mias)]
    async with (
        phone,
        desk,
        admin,
        mechanic,
        socket_of(other, "customer", token_of(phone)) as hers,
        socket_of(other, "customer", token_of(desk)) as hers_at_the_desk,
        socket_of(one, "mechanic", token_of(mechanic)) as mias_socket,
        socket_of(other, "mechanic", token_of(mechanic)) as mias_other_socket,
    ):
        await phone.ok("POST", "/api/auth/logout", status=204)
        assert await Socket(hers).closed() == 4401
        assert await refused(servers, token_of(phone))
        assert await status(other, token_of(phone), "POST", "/api/auth/renew") == 401
        assert await status(other, token_of(desk)) == 200

        # A mechanic who has accepted something is disabled by the command line.
        routing = {"plan": "quick_chat", "routing_type": "priority_broadcast", "preferred_mechanic_id": mia}
        checkout = await desk.ok("POST", "/api/checkout", json=routing, status=201)
        await pay(checkout["url"])
        request_id = (await desk.ok("GET", f"/api/checkout/{checkout['checkout_id']}"))["request_id"]
        [offer] = (await mechanic.ok("GET", "/api/offers"))["offers"]
        await mechanic.ok("POST", f"/api/offers/{offer['offer_id']}/accept")
        assert await house.command("account", "disable", "--email", mias) == (0, "")
        # Within five seconds by the contract, as both look every two; here the machine may be busy.
        assert [await Socket(mias_socket).closed(), await Socket(mias_other_socket).closed()] == [4401, 4401]
        assert await refused(servers, token_of(mechanic))

        async def is_broadcast() -> bool:
            request = await desk.ok("GET", f"/api/requests/{request_id}")
            return request["status"] == "broadcasting" and request["assigned_mechanic"] is None

        await eventually(is_broadcast, "others are asked", within_s=PATIENCE_S)
        async with httpx.AsyncClient(base_url=other.base_url, timeout=PATIENCE_S, **ON_LOOPBACK) as nobody:
            answer = await nobody.post("/api/auth/login", json={"email": mias, "password": PASSWORD})
            assert (answer.status_code, answer.json()["code"]) == (401, "bad_credentials")
        # Nor can an integrator sign them in.
        async with Rest.of(one.base_url, mia, "mechanic") as fresh:
            assert await fresh.problem("GET", "/api/offers") == (401, "unauthenticated")

        code, complaint = await house.command("account", "signout", "--email", "nobody@example.com")
        assert (code, "nobody@example.com" in complaint) == (2, True)
        assert await house.command("account", "signout", "--email", her_email) == (0, "")
        assert await Socket(hers_at_the_desk).closed() == 4401
        await eventually(partial(refused, servers, token_of(desk)), "both have heard of it", within_s=PATIENCE_S)

        # Everything dies, Redis forgets all, and the key is changed.
        house.start_anew(SECRET_KEY=f"{FRESH_KEY},{SECRET_KEY}")
        async with Redis.from_url(house.redis.url) as client:
            await client.flushall()
        servers = await house.ready()
        for rest in (phone, desk, mechanic):
            assert await refused(servers, token_of(rest))
        assert [await status(server, token_of(admin)) for server in servers] == [200, 200]

        await admin.ok("POST", f"/api/ops/accounts/{mia}/enable")
        assert await admin.problem("POST", f"/api/ops/accounts/{new_id()}/disable") == (404, "not_found")
        again = await signed_in(servers[1], mias)
        async with again:

            async def is_in() -> bool:
                return await status(servers[1], token_of(again)) == 200

            await eventually(is_in, "the other server has heard of it, too", within_s=PATIENCE_S)
        assert await refused(servers, token_of(mechanic))
