"""A thousand mechanics on two real servers who all want the same request, and one who wants two side by side."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from accounts.accounts import NewAccount
from models.ids import new_id
from models.words import Role
from tests.acceptance.clients import Socket, socket
from tests.acceptance.servers import Server, add_accounts, running_servers
from tests.acceptance.town import new_town
from tests.parts import side_by_side
from tests.services import redis_server

MECHANICS = 1_000
CONNECTING_SIDE_BY_SIDE = 50


@pytest.fixture(scope="module")
def servers(sql: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    folder: Path = tmp_path_factory.mktemp("storm")
    with redis_server() as redis, running_servers(folder, 2, DATABASE_URL=sql, REDIS_URL=redis.url) as both:
        yield both


@asynccontextmanager
async def sockets_of(mechanics: list[str], servers: list[Server]) -> AsyncIterator[list[Socket]]:
    """A socket of each, on the servers in turn."""
    limit = anyio.CapacityLimiter(CONNECTING_SIDE_BY_SIDE)
    async with AsyncExitStack() as stack:

        async def connect(number: int) -> Socket:
            async with limit:
                base_url = servers[number % len(servers)].base_url
                return await stack.enter_async_context(socket(base_url, "mechanic", mechanics[number]))

        yield await side_by_side(*(partial(connect, number) for number in range(len(mechanics))))


async def answer_to(one: Socket, offer_id: str) -> str:
    """Return what the accept is answered: that it won, or why not."""
    answer: dict[str, Any] = await one.expect_any("offer_accepted", "error")
    assert offer_id in (answer.get("offer_id"), answer.get("ref")), answer
    return answer.get("code", answer["type"])


async def test_of_a_thousand_accepts_side_by_side_one_wins_and_everyone_is_told(servers: list[Server], sql: str):
    for server in servers:
        await server.ready()
    async with new_town(sql) as here, socket(servers[1].base_url, "customer", here.driver) as page:
        added = [NewAccount(Role.MECHANIC, f"{new_id().lower()}@example.com", "Mo") for _ in range(MECHANICS)]
        mechanics = await add_accounts(sql, *added)
        async with sockets_of(mechanics, servers) as sockets:
            request_id = await here.paid(servers[0])
            offers = await side_by_side(
                *(partial(one.expect, "offer", offer__request_id=request_id) for one in sockets)
            )
            (offer_id,) = {offer["offer"]["offer_id"] for offer in offers}
            started_s = time.monotonic()
            await side_by_side(*(partial(one.send, "accept", offer_id=offer_id) for one in sockets))
            answers = await side_by_side(*(partial(answer_to, one, offer_id) for one in sockets))
            print(f"{MECHANICS} accepts answered within {time.monotonic() - started_s:.1f} s: {Counter(answers)}")
            assert Counter(answers) == {"offer_accepted": 1, "offer_gone": MECHANICS - 1}
            winner = mechanics[answers.index("offer_accepted")]
            seen = await page.expect("request_update", request__id=request_id, request__status="accepted")
            assert seen["request"]["assigned_mechanic"]["id"] == winner
        assert await here.story(request_id) == ["paid", "broadcast", "accepted"]
        await here.is_right(servers[1], request_id)


async def test_a_mechanic_who_accepts_two_requests_side_by_side_on_two_servers_gets_one_of_them(
    servers: list[Server], sql: str
):
    for server in servers:
        await server.ready()
    async with (
        new_town(sql) as here,
        socket(servers[0].base_url, "mechanic", here.mike) as phone,
        socket(servers[1].base_url, "mechanic", here.mike) as tablet,
    ):
        requests = [await here.paid(server) for server in servers]
        offers = [
            (await one.expect("offer", offer__request_id=request_id))["offer"]["offer_id"]
            for one, request_id in zip((phone, tablet), requests, strict=True)
        ]
        taps = zip((phone, tablet), offers, strict=True)
        await side_by_side(*(partial(one.send, "accept", offer_id=offer_id) for one, offer_id in taps))
        answers = await side_by_side(*(partial(answer_to, *tap) for tap in zip((phone, tablet), offers, strict=True)))
        assert sorted(answers) == ["already_in_session", "offer_accepted"]
        for request_id, answer in zip(requests, answers, strict=True):
            status = (await here.request(servers[0], request_id))["status"]
            assert status == ("accepted" if answer == "offer_accepted" else "broadcasting")
            await here.is_right(servers[1], request_id)
