"""Clients of a running server, as the contract describes them: REST, sockets, and a customer at the payment page."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import anyio
import httpx
from websockets.asyncio.client import ClientConnection, connect

from http_api.auth import Tokens
from infra.clock import wall_clock_ms
from models.words import Role

SECRET_KEY = "a secret of the tests of forty bytes or so"
PATIENCE_S = 15.0
TOKEN_LIFETIME_S = 3600
ON_LOOPBACK: dict[str, Any] = {"verify": False, "trust_env": False}
"""For clients that speak plain HTTP to this machine: reading all certificates costs each of them 30 ms."""


def token_for(account_id: str, role: str, *, lifetime_s: int = TOKEN_LIFETIME_S) -> str:
    """Return a token as anybody with the secret key would make it."""
    return Tokens([SECRET_KEY], lifetime_s).issue(account_id, Role(role), now_ms=wall_clock_ms()).token


class Rest(httpx.AsyncClient):
    """A REST client signed in as one account."""

    @classmethod
    def of(cls, base_url: str, account_id: str, role: str) -> Self:
        headers = {"Authorization": f"Bearer {token_for(account_id, role)}"}
        return cls(base_url=base_url, headers=headers, timeout=PATIENCE_S, **ON_LOOPBACK)

    async def ok(self, method: str, path: str, *, status: int = 200, **options: Any) -> Any:
        """Call, require ``status``, and return the JSON body (``None`` for 204)."""
        answer = await self.request(method, path, **options)
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    async def problem(self, method: str, path: str, **options: Any) -> tuple[int, str]:
        """Call, require a problem document, and return its status and code."""
        answer = await self.request(method, path, **options)
        assert answer.headers["content-type"] == "application/problem+json", answer.text
        body = answer.json()
        assert body["status"] == answer.status_code
        assert {"type", "title", "status", "code", "detail"} <= body.keys()
        return answer.status_code, body["code"]


class Socket:
    """A socket that keeps what it was sent, and waits for what it should be sent."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.received: list[dict[str, Any]] = []
        self._unexpected: list[dict[str, Any]] = []

    async def send(self, kind: str, **members: Any) -> None:
        await self.connection.send(json.dumps({"type": kind, **members}))

    async def expect(self, kind: str, **members: Any) -> dict[str, Any]:
        """Return the first message of this type with these members (``__`` reaches inside) not yet expected.

        Messages of different kinds may come in any order, so what does not match waits for its own ``expect``.
        """
        return await self.expect_any(kind, **members)

    async def expect_any(self, *kinds: str, **members: Any) -> dict[str, Any]:
        """As ``expect``, for the first that is of any of these types."""

        def matches(message: dict[str, Any]) -> bool:
            return message["type"] in kinds and all(_at(message, path) == value for path, value in members.items())

        for position, message in enumerate(self._unexpected):
            if matches(message):
                return self._unexpected.pop(position)
        try:
            with anyio.fail_after(PATIENCE_S):
                while True:
                    heard: dict[str, Any] = json.loads(await self.connection.recv())
                    self.received.append(heard)
                    if matches(heard):
                        return heard
                    self._unexpected.append(heard)
        except TimeoutError:
            raise AssertionError(f"no {kinds} {members}; unexpected so far: {self._unexpected}") from None

    async def closed(self) -> int:
        """Wait until the server closes, and return its code."""
        with anyio.fail_after(PATIENCE_S):
            await self.connection.wait_closed()
        assert self.connection.close_code is not None
        return self.connection.close_code


@asynccontextmanager
async def socket(base_url: str, kind: str, account_id: str, **options: Any) -> AsyncIterator[Socket]:
    """A socket of a ``mechanic`` or ``customer``, past its welcome (which is ``received[0]``)."""
    headers = {"Authorization": f"Bearer {token_for(account_id, kind)}"}
    url = f"{base_url.replace('http', 'ws', 1)}/ws/{kind}"
    async with connect(url, additional_headers=headers, compression=None, **options) as connection:
        one = Socket(connection)
        await one.expect("welcome")
        yield one


async def pay(url: str) -> str:
    """Pay at the stand-in's page; return the address that the customer is sent back to."""
    async with httpx.AsyncClient(timeout=PATIENCE_S, **ON_LOOPBACK) as browser:
        page = await browser.get(url)
        assert page.status_code == 200, page.text
        answer = await browser.post(url, data={"ending": "pay", "email": "driver@example.com"})
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]


def _at(message: dict[str, Any], path: str) -> Any:
    value: Any = message
    for part in path.split("__"):
        value = value.get(part) if isinstance(value, dict) else None
    return value
