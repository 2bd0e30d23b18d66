"""Who may open a socket, and what everybody else is told: plain HTTP answers with the right status."""

import json

import anyio
import pytest
from sqlalchemy import delete
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from http_api.auth import Identity
from http_api.cookies import SESSION as COOKIE
from models.tables import Mechanic
from tests.integration.socket_nodes import ORIGIN, SECRET_KEY, Node, eventually, town
from tests.services import redis_server


async def refused(node: Node, kind: str, *, query: str = "", **headers: str) -> tuple[int, str]:
    """Return the status and the problem's code of a handshake that must be refused."""
    with pytest.raises(InvalidStatus) as answer:
        async with connect(node.url(kind, query), additional_headers=headers, proxy=None):
            pass
    response = answer.value.response
    assert response.headers["content-type"] == "application/problem+json"
    problem = json.loads(response.body)
    assert problem["status"] == response.status_code
    return response.status_code, problem["code"]


async def welcomed(node: Node, kind: str, *, query: str = "", **headers: str) -> dict:
    async with connect(node.url(kind, query), additional_headers=headers, proxy=None) as connection:
        welcome = json.loads(await connection.recv())
    assert welcome["type"] == "welcome"
    return welcome


async def test_every_proof_opens_the_socket_it_is_for_and_nothing_else_does(redis_url, tmp_path):
    async with town(redis_url, tmp_path) as here, here.node(own_origins=frozenset({ORIGIN})) as node:
        mechanic, customer = await here.add_mechanic(), await here.add_customer()
        bearer = f"Bearer {node.token(mechanic)}"
        cookie = f"{COOKIE}={node.token(customer, 'customer')}"

        assert (await welcomed(node, "mechanic", Authorization=bearer))["mechanic_id"] == mechanic
        assert (await welcomed(node, "customer", Cookie=cookie, Origin=ORIGIN))["account_id"] == customer
        ticket = await node.ticket(mechanic)
        assert (await welcomed(node, "mechanic", query=f"?ticket={ticket}"))["mechanic_id"] == mechanic

        assert await refused(node, "mechanic", query=f"?ticket={ticket}") == (401, "unauthenticated")
        assert await refused(node, "mechanic", query="?ticket=guessed") == (401, "unauthenticated")
        assert await refused(node, "mechanic") == (401, "unauthenticated")
        assert await refused(node, "mechanic", Authorization="Bearer x.y.z") == (401, "unauthenticated")
        assert await refused(node, "customer", Authorization=bearer) == (403, "wrong_role")
        assert await refused(node, "customer", Cookie=cookie) == (403, "foreign_origin")
        assert await refused(node, "customer", Cookie=cookie, Origin="http://evil.example") == (403, "foreign_origin")
        await eventually(lambda: node.hub.connection_counts == {"mechanic": 0, "customer": 0}, "nobody is left behind")


async def test_a_token_that_has_expired_opens_nothing_nor_does_a_ticket_that_outlived_it(redis_url, tmp_path):
    async with town(redis_url, tmp_path) as here, here.node() as node:
        mechanic = await here.add_mechanic()
        old = node.token(mechanic, lifetime_s=0)
        assert await refused(node, "mechanic", Authorization=f"Bearer {old}") == (401, "unauthenticated")
        now_s = node.clock.now_ms() // 1000
        ticket = await node.tickets.issue(Identity(mechanic, "mechanic", now_s - 1, "bearer"))
        assert await refused(node, "mechanic", query=f"?ticket={ticket}") == (401, "unauthenticated")


async def test_a_mechanic_who_is_no_more_is_refused_before_anybody_sees_them(redis_url, tmp_path):
    async with town(redis_url, tmp_path) as here, here.node() as node:
        mechanic = await here.add_mechanic()
        async with here.database.write() as session:
            await (await session.connection()).execute(
                delete(Mechanic.__table__).where(Mechanic.__table__.c.id == mechanic)
            )
        bearer = f"Bearer {node.token(mechanic)}"
        assert await refused(node, "mechanic", Authorization=bearer) == (401, "unauthenticated")
        assert len(node.hub.mechanics) == 0


async def test_a_ticket_opens_one_socket_even_if_used_twice_side_by_side(redis_url, tmp_path):
    async with town(redis_url, tmp_path) as here, here.node() as node:
        mechanic = await here.add_mechanic()
        ticket = await node.ticket(mechanic)
        outcomes: list[str] = []

        async def use() -> None:
            try:
                await welcomed(node, "mechanic", query=f"?ticket={ticket}")
                outcomes.append("welcome")
            except InvalidStatus as answer:
                outcomes.append(str(answer.response.status_code))

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(use)
        assert sorted(outcomes) == ["401"] * 4 + ["welcome"]


async def test_a_node_that_drains_refuses_with_503_and_sends_1012_to_who_is_there(redis_url, tmp_path):
    async with town(redis_url, tmp_path) as here, here.node() as node:
        mechanic = await here.add_mechanic()
        async with node.mechanic(mechanic) as phone:
            await node.hub.drain()
            assert await phone.closed_with() == 1012
        bearer = f"Bearer {node.token(mechanic)}"
        assert await refused(node, "mechanic", Authorization=bearer) == (503, "unavailable")


async def test_without_redis_a_ticket_is_refused_with_503_and_a_bearer_token_still_works(redis_url, tmp_path):
    with redis_server() as own_redis:
        async with town(own_redis.url, tmp_path) as here, here.node() as node:
            mechanic = await here.add_mechanic()
            bearer, ticket = f"Bearer {node.token(mechanic)}", await node.ticket(mechanic)
            own_redis.kill()
            assert await refused(node, "mechanic", query=f"?ticket={ticket}") == (503, "unavailable")
            assert (await welcomed(node, "mechanic", Authorization=bearer))["mechanic_id"] == mechanic
            own_redis.restart()


async def test_the_secret_key_of_another_installation_opens_nothing(redis_url, tmp_path):
    async with town(redis_url, tmp_path) as here, here.node(secret_keys=(SECRET_KEY,)) as node:
        mechanic = await here.add_mechanic()
        forged = node.token(mechanic)[:-4] + "AAAA"
        assert await refused(node, "mechanic", Authorization=f"Bearer {forged}") == (401, "unauthenticated")
