"""A whole server for the REST tests: the real process with its own database, Redis and payment stand-in."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from accounts.accounts import NewAccount
from models.settings import Settings
from models.words import Role
from tests.acceptance.clients import PATIENCE_S, SECRET_KEY, Rest, pay, token_for
from tests.acceptance.servers import Server, add_accounts, running_servers

PASSWORD = "correct horse battery"
COOKIE = "pitlane_session"


@dataclass
class House:
    """One running server and the accounts that every test may use (but not lock out)."""

    server: Server
    settings: Settings
    customer: str
    other_customer: str
    mechanic: str
    workshop: str
    admin: str

    @property
    def base_url(self) -> str:
        return self.server.base_url

    def as_(self, account_id: str, role: str) -> Rest:
        """Return a client with a bearer token."""
        return Rest.of(self.base_url, account_id, role)

    def as_customer(self) -> Rest:
        return self.as_(self.customer, "customer")

    def as_mechanic(self) -> Rest:
        return self.as_(self.mechanic, "mechanic")

    def as_admin(self) -> Rest:
        return self.as_(self.admin, "admin")

    def as_nobody(self, *, address: str = "127.0.0.1", **options: Any) -> Rest:
        """Return a client without a token that comes from ``address``; on loopback one may pick any of 127/8."""
        transport = httpx.AsyncHTTPTransport(local_address=address)
        return Rest(base_url=self.base_url, timeout=PATIENCE_S, transport=transport, **options)

    def with_cookie(self, account_id: str, role: str, origin: str | None) -> Rest:
        """Return a client as a browser on a page of ``origin``."""
        headers = {"Cookie": f"{COOKIE}={token_for(account_id, role)}"}
        return self.as_nobody(headers=headers | ({"Origin": origin} if origin is not None else {}))

    async def add(self, role: str, name: str, password: str | None = None) -> str:
        """Add an account beside the running server; its address is ``name@example.com``."""
        new = NewAccount(Role(role), f"{name}@example.com", name.title(), password)
        return (await add_accounts(self.settings.resolved_database_url, new))[0]

    async def paid_request(self, customer_id: str, plan: str = "quick_chat", **routing: str) -> dict[str, Any]:
        """Return a fresh request of ``customer_id``, paid at the stand-in."""
        async with self.as_(customer_id, "customer") as rest:
            body = {"plan": plan, "routing_type": "broadcast"} | routing
            checkout = await rest.ok("POST", "/api/checkout", status=201, json=body)
            await pay(checkout["url"])
            state = await rest.ok("GET", f"/api/checkout/{checkout['checkout_id']}")
            assert state["status"] == "paid"
            return await rest.ok("GET", f"/api/requests/{state['request_id']}")


@asynccontextmanager
async def rest_house(data_dir: Path, **variables: str) -> AsyncIterator[House]:
    """Run a server with ``PITLANE_`` ``variables`` on ``data_dir``."""
    with running_servers(data_dir, **variables) as (server,):
        await server.ready()
        port = int(server.base_url.rpartition(":")[2])
        settings = Settings(_env_file=None, data_dir=data_dir, port=port, secret_key=SECRET_KEY)
        people = [
            NewAccount(Role.CUSTOMER, "cara@example.com", "Cara", PASSWORD),
            NewAccount(Role.CUSTOMER, "carl@example.com", "Carl", PASSWORD),
            NewAccount(Role.MECHANIC, "mia@example.com", "Mia", PASSWORD),
            NewAccount(Role.MECHANIC, "garage@example.com", "Mike's Garage", PASSWORD, "workshop"),
            NewAccount(Role.ADMIN, "ada@example.com", "Ada", PASSWORD),
        ]
        yield House(server, settings, *await add_accounts(settings.resolved_database_url, *people))
