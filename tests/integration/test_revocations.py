"""What is revoked is refused on every node within seconds, by a list in memory that neither Redis nor a start loses."""

import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import jwt
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from accounts.accounts import Accounts
from accounts.revocations import Proof, mark_disabled, revoke_all
from accounts.sign_ins import NewSignIn, SignIns
from http_api.auth import Identity
from http_api.sockets.close_codes import TOKEN_EXPIRED
from infra.database import within
from infra.metrics import REGISTRY
from models.tables import Revocation
from models.words import Role
from tests.integration.asked import asked
from tests.integration.socket_nodes import SECRET_KEY, Client, Node, Town, eventually, town
from tests.services import redis_server

STORM = int(os.environ.get("RECONNECTS", "300"))
SIDE_BY_SIDE = 50
HOUR_MS = 3_600_000
ABOUT_ACCOUNTS = re.compile(r"\b(accounts|revocations|sign_ins)\b")


@dataclass
class Device:
    """Something that an account is signed in on."""

    token: str
    sign_in_id: str


def signed_in(node: Node, account_id: str, *, lifetime_s: int | None = None) -> Device:
    """Sign somebody in; with ``lifetime_s``, for less long than is usual."""
    now_ms = node.clock.now_ms()
    issued = node.tokens.issue(account_id, Role.CUSTOMER, now_ms=now_ms)
    if lifetime_s is None:
        return Device(issued.token, issued.sign_in_id)
    claims = jwt.decode(issued.token, SECRET_KEY, algorithms=["HS256"], options={"verify_iat": False})
    return Device(made_elsewhere(**claims | {"exp": now_ms // 1000 + lifetime_s}), issued.sign_in_id)


def renewed(node: Node, device: Device, account_id: str) -> Device:
    """Return what a node makes of a device's token that it has found to be good."""
    now_ms = node.clock.now_ms()
    issued = node.tokens.issue(account_id, Role.CUSTOMER, now_ms=now_ms, sign_in_id=device.sign_in_id)
    return Device(issued.token, issued.sign_in_id)


def made_elsewhere(**claims: object) -> str:
    """Return a token as an integrator makes it, or anybody else with the key."""
    return jwt.encode(claims, SECRET_KEY, algorithm="HS256")


def verified(node: Node, token: str) -> Identity | None:
    return node.tokens.verify(token, now_s=node.clock.now_ms() // 1000, via="bearer")


def proof_of(node: Node, token: str) -> Proof:
    identity = verified(node, token)
    assert identity is not None
    return identity.proof


def count_of(statement: str) -> float:
    return REGISTRY.get_sample_value("pitlane_sql_statements_total", {"name": statement}) or 0


def headers_of(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def socket_of(node: Node, device: Device) -> AsyncIterator[Client]:
    """A customer's socket past its welcome."""
    options = {"ping_interval": None, "compression": None, "proxy": None}
    async with connect(node.url("customer"), additional_headers=headers_of(device.token), **options) as connection:
        client = Client(connection)
        assert (await client.hear())["type"] == "welcome"
        yield client


async def handshake(node: Node, token: str) -> int:
    """Return the status that a handshake is answered with."""
    try:
        async with connect(node.url("customer"), additional_headers=headers_of(token), proxy=None) as connection:
            assert isinstance(connection, ClientConnection)
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


@asynccontextmanager
async def two_nodes(
    redis_url: str, folder: Path, database_url: str | None = None
) -> AsyncIterator[tuple[Town, Node, Node, str]]:
    """Two nodes and a customer."""
    async with (
        town(redis_url, folder, database_url=database_url) as here,
        here.node() as a,
        here.node() as b,
    ):
        yield here, a, b, await here.add_customer()


async def test_a_device_that_signs_out_is_out_on_every_node_and_the_others_stay(redis_url, tmp_path, database_url):
    async with two_nodes(redis_url, tmp_path, database_url) as (_, a, b, ann):
        phone, desk = signed_in(a, ann), signed_in(b, ann)
        later = renewed(b, phone, ann)
        ticket = await a.tickets.issue(verified(a, phone.token) or pytest.fail("a good token"))
        async with (
            socket_of(a, phone) as here,
            socket_of(b, later) as there,
            socket_of(b, desk) as other,
        ):
            await a.revocations.revoke_token(proof_of(a, phone.token))
            assert [await here.closed_with(), await there.closed_with()] == [TOKEN_EXPIRED, TOKEN_EXPIRED]
            for node in (a, b):
                assert [await handshake(node, device.token) for device in (phone, later, desk)] == [401, 401, 101]
            with pytest.raises(InvalidStatus, match="401"):
                async with connect(b.url("customer", f"?ticket={ticket}"), proxy=None):
                    pass
            await other.send("heartbeat")
            await other.expect("heartbeat_ack")


async def test_signing_out_everywhere_spares_only_who_signs_in_afterwards(redis_url, tmp_path):
    async with two_nodes(redis_url, tmp_path) as (here, a, b, ann):
        bob = await here.add_customer()
        devices, bobs = [signed_in(a, ann), signed_in(b, ann)], signed_in(a, bob)
        claims = {"sub": ann, "role": "customer", "exp": a.clock.now_ms() // 1000 + 600}
        integrators = made_elsewhere(**claims, iat=a.clock.now_ms() // 1000)
        async with socket_of(a, devices[0]) as one, socket_of(b, devices[1]) as other, socket_of(b, bobs) as theirs:
            at_ms = await a.revocations.revoke_all(ann)
            assert [await one.closed_with(), await other.closed_with()] == [TOKEN_EXPIRED, TOKEN_EXPIRED]
            await theirs.send("heartbeat")
            await theirs.expect("heartbeat_ack")
        # A node that has not heard of it yet renews what it should not.
        smuggled = renewed(b, devices[1], ann)
        for node in (a, b):
            refused = (*(device.token for device in devices), smuggled.token, integrators)
            assert [verified(node, token) for token in refused] == [None] * 4
            after = node.tokens.issue(ann, Role.CUSTOMER, now_ms=at_ms + 1).token
            assert verified(node, after) is not None
            assert verified(node, made_elsewhere(**claims, iat=at_ms // 1000)) is None, "of that second, to be safe"
            assert verified(node, made_elsewhere(**claims, iat=at_ms // 1000 + 1)) is not None


async def test_a_disabled_account_is_refused_whoever_makes_its_tokens_and_one_that_is_enabled_has_to_sign_in_anew(
    redis_url, tmp_path, database_url
):
    async with two_nodes(redis_url, tmp_path, database_url) as (here, a, b, ann):
        accounts, phone = Accounts(here.database), signed_in(a, ann)
        async with socket_of(b, phone) as socket:
            assert await accounts.set_disabled(ann, True, now_ms=a.clock.now_ms())
            await a.revocations.tell()
            assert await socket.closed_with() == TOKEN_EXPIRED
        now_s = a.clock.now_ms() // 1000
        fresh = made_elsewhere(sub=ann, role="customer", iat=now_s + 60, exp=now_s + 600)
        for node in (a, b):
            assert [verified(node, token) for token in (phone.token, fresh, signed_in(node, ann).token)] == [None] * 3
        assert await accounts.set_disabled(ann, False, now_ms=a.clock.now_ms())
        await a.revocations.tell()
        await eventually(lambda: verified(b, fresh) is not None, "the other node hears of it")
        assert verified(a, phone.token) is verified(b, phone.token) is None


async def test_what_nobody_tells_of_is_heard_all_the_same(redis_url, tmp_path, database_url):
    """As by the command line, which has no voice on the bus, on a machine whose clock is an hour behind."""
    async with two_nodes(redis_url, tmp_path, database_url) as (here, a, b, ann):
        bob, phone = await here.add_customer(), signed_in(a, ann)
        await a.revocations.revoke_all(bob)
        async with socket_of(a, phone) as one, socket_of(b, phone) as other:
            await here.database.commit(mark_disabled(ann, True, now_ms=a.clock.now_ms() - HOUR_MS))
            assert [await one.closed_with(), await other.closed_with()] == [TOKEN_EXPIRED, TOKEN_EXPIRED]


async def test_neither_an_emptied_redis_nor_a_start_forgets(tmp_path, database_url):
    with redis_server() as redis:
        async with town(redis.url, tmp_path, database_url=database_url) as here:
            ann, bob = await here.add_customer(), await here.add_customer()
            async with here.node() as a:
                phone, desk, bobs = signed_in(a, ann), signed_in(a, ann), signed_in(a, bob)
                claims = {"sub": bob, "role": "customer", "exp": a.clock.now_ms() // 1000 + 600}
                integrators = made_elsewhere(**claims, iat=a.clock.now_ms() // 1000 - 1)
                await a.revocations.revoke_token(proof_of(a, phone.token))
                await a.revocations.revoke_token(proof_of(a, integrators))
                await a.link.everywhere(lambda client: client.flushall())
                refused = (phone.token, integrators)
                assert [verified(a, token) for token in refused] == [None, None]
                assert [await handshake(a, device.token) for device in (phone, desk, bobs)] == [401, 101, 101]
                await a.revocations.revoke_all(bob)
            redis.kill()
            redis.restart()
            async with here.node() as b:
                assert [verified(b, token) for token in (*refused, bobs.token)] == [None] * 3
                assert verified(b, desk.token) is not None


async def test_while_redis_is_away_signing_out_works_and_the_other_node_hears_of_it(tmp_path):
    with redis_server() as redis:
        async with two_nodes(redis.url, tmp_path) as (_, a, b, ann):
            phone = signed_in(a, ann)
            redis.kill()
            try:
                await a.revocations.revoke_all(ann)
                assert verified(a, phone.token) is None
                await eventually(lambda: verified(b, phone.token) is None, "the other node looks by itself")
            finally:
                redis.restart()


async def test_a_storm_of_reconnects_asks_sql_nothing_about_tokens(
    redis_url, tmp_path, database_url, monkeypatch: pytest.MonkeyPatch
):
    async with two_nodes(redis_url, tmp_path, database_url) as (here, a, b, ann):
        # Many: an account may have some twenty sockets at a time.
        devices = [signed_in(a, await here.add_customer()) for _ in range(SIDE_BY_SIDE)]
        signed_out = signed_in(a, ann)
        await a.revocations.revoke_token(proof_of(a, signed_out.token))
        await eventually(lambda: verified(b, signed_out.token) is None, "the other node hears of it")
        statuses: list[int] = []

        async def storm(device: Device) -> None:
            for position in range(STORM // SIDE_BY_SIDE):
                statuses.append(await handshake((a, b)[position % 2], device.token))

        async def storms(devices: list[Device]) -> set[str]:
            """Return what was asked of SQL about accounts and their tokens meanwhile."""
            with asked(monkeypatch) as noted:
                async with anyio.create_task_group() as tasks:
                    for device in devices:
                        tasks.start_soon(storm, device)
            return {one.name for one in noted.statements.values() if ABOUT_ACCOUNTS.search(one.text)}

        looks, began_s = count_of("revoked_since"), time.monotonic()
        # The list is looked at every two seconds, storm or not.
        assert await storms([signed_out] * SIDE_BY_SIDE) <= {"revoked_since"}
        # Whoever comes in is told of their open requests, many in one statement.
        assert await storms(devices) <= {"revoked_since", "open_requests_of"}
        assert looks > 0
        looks, took_s = count_of("revoked_since") - looks, time.monotonic() - began_s
        print(f"{2 * STORM} handshakes in {took_s:.1f} s, and the list was looked at {looks:.0f} times")
        assert looks < STORM
        assert sorted(statuses) == [101] * STORM + [401] * STORM


# SQLite's transactions do not write side by side.
@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
async def test_what_commits_late_is_not_overlooked(redis_url, tmp_path, database_url):
    """A transaction is stamped, another one is stamped and commits and is read, and only then the first one commits."""
    async with two_nodes(redis_url, tmp_path, database_url) as (here, a, _, ann):
        bob = await here.add_customer()
        late, soon = signed_in(a, ann), signed_in(a, bob)
        now_ms = a.clock.now_ms()
        async with here.database.write() as session:
            await within(session, revoke_all(ann, now_ms=now_ms))
            await here.database.commit(revoke_all(bob, now_ms=now_ms + 5))
            await a.revocations.refresh()
            assert verified(a, soon.token) is None
            assert verified(a, late.token) is not None
        await a.revocations.refresh()
        assert verified(a, late.token) is None


async def test_a_device_that_signed_out_by_an_old_token_is_remembered_for_as_long_as_its_newest_may_live(
    redis_url, tmp_path, database_url
):
    async with two_nodes(redis_url, tmp_path, database_url) as (here, a, _, ann):
        old = signed_in(a, ann, lifetime_s=60)
        await SignIns(here.database).note(
            NewSignIn(old.sign_in_id, ann, None, "a phone"),
            now_ms=a.clock.now_ms(),
            expires_at_ms=a.clock.now_ms() + 60_000,
        )
        proof = proof_of(a, old.token)
        assert proof.expires_at_ms < a.clock.now_ms() + HOUR_MS
        newest = renewed(a, old, ann)
        ends_at_ms = proof_of(a, newest.token).expires_at_ms
        await a.revocations.revoke_token(proof)
        async with here.database.read() as session:
            kept = await session.get_one(Revocation, f"token:{old.sign_in_id}")
        assert kept.token_expires_at_ms is not None
        assert kept.token_expires_at_ms >= ends_at_ms
        assert await SignIns(here.database).of(ann, now_ms=0) == []


async def test_odd_tokens_that_others_make_can_be_signed_out_alone(redis_url, tmp_path, database_url):
    async with two_nodes(redis_url, tmp_path, database_url) as (_, a, b, ann):
        now_s = a.clock.now_ms() // 1000
        usual = {"sub": ann, "role": "customer", "iat": now_s - 1, "exp": now_s + 600}
        other = made_elsewhere(**usual)
        # One that never ends, one that is older than time, ids that PostgreSQL cannot keep or that are long, and no device of ours.
        for claims in ({"exp": 1e300}, {"iat": -1e300}, {"jti": "\x00"}, {"jti": "x" * 2_000}, {"sid": "\x00" * 26}):
            odd = made_elsewhere(**usual | claims)
            await a.revocations.revoke_token(proof_of(a, odd))
            await b.revocations.refresh()
            for node in (a, b):
                assert verified(node, odd) is None, claims
                assert verified(node, other) is not None, claims
