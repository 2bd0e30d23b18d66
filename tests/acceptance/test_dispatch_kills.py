"""A node is killed at each stage of an offer's life; the other one finishes what it began, once.

Real servers on one PostgreSQL and one Redis. To kill between two steps, a step is made to wait from outside: a transition for the
lock on its request's row, which the test holds, and telling for a Redis that stands still. The other nodes stand still meanwhile,
so that it is known who has the work in hand.
"""

import os
import re
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from embedded.redis_child import RedisChild
from models import tables
from models.settings import DispatchSettings
from tests.acceptance.clients import pay, socket
from tests.acceptance.servers import Pair, Server, running_pair, running_servers
from tests.acceptance.town import LOCKED_MAX_S, Town, new_town, refunds_at_stripe
from tests.parts import eventually
from tests.services import redis_server

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

WINDOW_S = 1.5
"""Long enough to kill a node while it is open, short enough to wait for its end."""
TRIES_MAX = 10
"""How often a moment that was missed, because the machine is busy, is waited for once more."""


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisChild]:
    with redis_server() as child:
        yield child


@pytest.fixture(scope="module")
def pair(sql: str, redis: RedisChild, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two nodes whose own windows do not end while a test looks on."""
    with running_pair(tmp_path_factory.mktemp("pair"), DATABASE_URL=sql, REDIS_URL=redis.url) as one:
        yield one


@pytest.fixture
async def hurried(
    request: pytest.FixtureRequest, pair: Pair, sql: str, redis: RedisChild, tmp_path: Path
) -> AsyncIterator[Server]:
    """A third node, to be killed, whose priority windows (or what the parameter says) are short; the pair is ready, too."""
    window = {getattr(request, "param", "PRIORITY_WINDOW_S"): str(WINDOW_S)}
    with running_servers(tmp_path, DATABASE_URL=sql, REDIS_URL=redis.url, **window) as [server]:
        await server.ready()
        await pair.both()
        yield server


async def broadcast_of(here: Town, request_id: str) -> tables.Offer | None:
    return next((offer for offer in await here.offers(request_id) if offer.kind == "broadcast"), None)


async def windows_ended(here: Town, server: Server) -> float:
    """How many priority windows the node says that it has ended."""
    async with here.as_driver(server) as anybody:
        metrics = (await anybody.get("/metrics")).text
    (count,) = re.findall(r'^pitlane_window_end_lateness_seconds_count{kind="priority"} (\S+)$', metrics, re.MULTILINE)
    return float(count)


async def test_a_payment_whose_node_dies_while_fulfilling_it_is_served_once_by_the_other(pair: Pair, sql: str):
    a, b = await pair.both()
    async with (
        new_town(sql) as here,
        socket(b.base_url, "customer", here.driver) as page,
        socket(b.base_url, "mechanic", here.john) as john,
    ):
        checkout = await here.checkout(a, favorite=here.john)
        with b.standing_still():
            async with here.database.write(within_s=LOCKED_MAX_S) as session:
                # Fulfilment's first step is an update of this row: it has begun, and is not committed.
                await session.get(tables.Checkout, checkout["checkout_id"], with_for_update=True)
                await pay(checkout["url"])
                await here.waiting()
                pair.kill(a)
        request_id = await here.landed(b, checkout["checkout_id"])
        offer = (await john.expect("offer", offer__request_id=request_id))["offer"]
        assert offer["kind"] == "priority"
        await page.expect("request_update", request__id=request_id, request__status="priority_offered")
        await john.send("accept", offer_id=offer["offer_id"])
        await page.expect("request_update", request__id=request_id, request__status="accepted")
        await here.is_right(b, request_id)
        assert await here.story(request_id) == ["paid", "offered", "delivered", "accepted"]


async def test_a_priority_offer_outlives_the_node_with_its_timer_and_the_favourites_and_the_customers_sockets(
    pair: Pair, hurried: Server, sql: str
):
    b, _ = await pair.both()
    async with new_town(sql) as here, socket(b.base_url, "mechanic", here.mike) as mike:
        async with (
            socket(hurried.base_url, "customer", here.driver) as page,
            socket(hurried.base_url, "mechanic", here.john) as john,
        ):
            request_id = await here.paid(hurried, favorite=here.john)
            offered = (await john.expect("offer", offer__request_id=request_id))["offer"]
            await page.expect("request_update", request__id=request_id)
            hurried.kill()
        async with (
            socket(b.base_url, "customer", here.driver) as page,
            socket(b.base_url, "mechanic", here.john) as john,
        ):
            (seen,) = page.received[0]["requests"]
            assert seen["id"] == request_id
            broadcast = (await mike.expect("offer", offer__request_id=request_id))["offer"]
            assert broadcast["kind"] == "broadcast"
            if seen["status"] == "priority_offered":
                assert seen["offer"]["expires_at"] == offered["expires_at"]
                assert [offer["offer_id"] for offer in john.received[0]["offers"]] == [offered["offer_id"]]
                await page.expect("request_update", request__id=request_id, request__fallback_reason="expired")
            await john.send("accept", offer_id=offered["offer_id"])
            await john.expect("offer_accepted")
            await mike.expect("offer_withdrawn", offer_id=broadcast["offer_id"], reason="taken")
            await page.expect("request_update", request__id=request_id, request__status="accepted")
        await here.is_right(b, request_id)
        story = [event for event in await here.story(request_id) if event != "delivered"]
        assert story == ["paid", "offered", "expired", "broadcast", "accepted"]


@asynccontextmanager
async def held_over_its_deadline(here: Town, a: Server, *, favorite: str | None) -> AsyncIterator[str]:
    """A request whose first window has ended: node ``a`` has claimed it, and waits in the middle of the transaction for our lock.

    No other node may be awake.
    """
    for _ in range(TRIES_MAX):
        request_id = await here.paid(a, favorite=favorite)
        async with here.ends_locked(request_id):
            if [offer.closed_at_ms for offer in await here.offers(request_id)] == [None]:
                await here.waiting()
                yield request_id
                return
        # The window was over before we had the lock.
        if favorite is not None:
            await here.cancelled(a, request_id)
    raise AssertionError(f"{TRIES_MAX} windows of {WINDOW_S} s were over before they could be looked at")


async def test_a_window_claimed_by_a_node_that_dies_before_the_commit_is_ended_once_by_another(
    pair: Pair, hurried: Server, sql: str
):
    b, c = await pair.both()
    async with new_town(sql) as here, socket(b.base_url, "mechanic", here.mike) as mike:
        with b.standing_still(), c.standing_still():
            async with held_over_its_deadline(here, hurried, favorite=here.john) as request_id:
                hurried.kill()
        offer = (await mike.expect("offer", offer__request_id=request_id))["offer"]
        assert offer["kind"] == "broadcast"
        priority, broadcast = await here.offers(request_id)
        delay_ms = broadcast.opened_at_ms - priority.expires_at_ms
        assert delay_ms >= DispatchSettings().claim_lease_ms - 1, "not before the dead node's claim has ended"
        print(f"claimed again {delay_ms} ms after the deadline")
        assert sum([await windows_ended(here, server) for server in (b, c)]) >= 1
        assert await here.story(request_id) == ["paid", "offered", "expired", "broadcast"]
        await here.is_right(b, request_id)
        await here.cancelled(b, request_id)


@pytest.mark.parametrize("hurried", ["BROADCAST_WINDOW_S"], indirect=True)
async def test_the_end_of_a_broadcast_claimed_by_a_node_that_dies_is_committed_and_refunded_once_by_the_others(
    pair: Pair, hurried: Server, sql: str
):
    b, c = await pair.both()
    async with new_town(sql) as here, socket(b.base_url, "customer", here.driver) as page:
        with b.standing_still(), c.standing_still():
            async with held_over_its_deadline(here, hurried, favorite=None) as request_id:
                hurried.kill()
        await page.expect("request_update", request__id=request_id, request__status="unfilled")
        await page.expect("request_update", request__id=request_id, request__refund__status="succeeded")
        assert await here.story(request_id) == ["paid", "broadcast", "unfilled", "refund_requested", "refunded"]
        await here.is_right(c, request_id)


async def test_a_fallback_whose_node_dies_before_it_has_told_anybody_is_told_by_another(
    pair: Pair, hurried: Server, sql: str, redis: RedisChild
):
    b, c = await pair.both()
    async with (
        new_town(sql) as here,
        socket(b.base_url, "mechanic", here.mike) as mike,
        socket(b.base_url, "customer", here.driver) as page,
    ):
        assert redis.pid is not None
        with b.standing_still(), c.standing_still():
            try:
                async with held_over_its_deadline(here, hurried, favorite=here.john) as request_id:
                    # The commit needs nothing more of Redis, telling does.
                    os.kill(redis.pid, signal.SIGSTOP)
                await eventually(lambda: broadcast_of(here, request_id), "the fallback is committed")
                hurried.kill()
            finally:
                os.kill(redis.pid, signal.SIGCONT)
            assert await here.rows(tables.OutboxMessage), "nobody has been told"
        offer = (await mike.expect("offer", offer__request_id=request_id))["offer"]
        assert offer["kind"] == "broadcast"
        await page.expect("request_update", request__id=request_id, request__fallback_reason="expired")
        assert await here.story(request_id) == ["paid", "offered", "expired", "broadcast"]
        await mike.send("accept", offer_id=offer["offer_id"])
        await page.expect("request_update", request__id=request_id, request__status="accepted")
        await here.is_right(b, request_id)


async def test_a_broadcast_outlives_the_node_that_opened_it_also_while_an_accept_is_being_committed_there(
    pair: Pair, sql: str
):
    a, b = await pair.both()
    async with new_town(sql) as here, socket(b.base_url, "customer", here.driver) as page:
        async with (
            socket(a.base_url, "mechanic", here.mike) as mike,
            socket(a.base_url, "mechanic", here.john) as john,
        ):
            request_id = await here.paid(a)
            offer = (await mike.expect("offer", offer__request_id=request_id))["offer"]
            await john.expect("offer", offer__request_id=request_id)
            with b.standing_still():
                async with here.locked(request_id):
                    await mike.send("accept", offer_id=offer["offer_id"])
                    await here.waiting()
                    pair.kill(a)
        async with (
            socket(b.base_url, "mechanic", here.mike) as mike,
            socket(b.base_url, "mechanic", here.john) as john,
        ):
            for one in (mike, john):
                assert [open_["offer_id"] for open_ in one.received[0]["offers"]] == [offer["offer_id"]]
            await john.send("accept", offer_id=offer["offer_id"])
            await john.expect("offer_accepted", offer_id=offer["offer_id"])
            await mike.expect("offer_withdrawn", offer_id=offer["offer_id"], reason="taken")
            won = await page.expect("request_update", request__id=request_id, request__status="accepted")
            assert won["request"]["assigned_mechanic"]["id"] == here.john
        assert await here.story(request_id) == ["paid", "broadcast", "accepted"]
        await here.is_right(b, request_id)


async def test_a_story_with_a_death_in_it_reads_as_if_nobody_had_died(pair: Pair, sql: str):
    a, b = await pair.both()
    async with new_town(sql) as here, socket(b.base_url, "mechanic", here.mike) as mike:
        async with socket(a.base_url, "mechanic", here.john) as john:
            request_id = await here.paid(a, favorite=here.john)
            offer_id = (await john.expect("offer", offer__request_id=request_id))["offer"]["offer_id"]
            await john.send("offer_ack", offer_id=offer_id)
            await john.send("decline", offer_id=offer_id, reason="on holiday")
            await john.expect("offer_withdrawn", offer_id=offer_id, reason="declined")
            pair.kill(a)
        offer_id = (await mike.expect("offer", offer__request_id=request_id))["offer"]["offer_id"]
        await mike.send("accept", offer_id=offer_id)
        await mike.expect("offer_accepted", offer_id=offer_id)
        async with here.as_mechanic(b, here.mike) as rest:
            await rest.ok("POST", f"/api/requests/{request_id}/release")
        await here.cancelled(b, request_id)
        await here.refunded(request_id)
        timeline = (await here.request(b, request_id))["timeline"]
        instants = [line.pop("at") for line in timeline]
        assert instants == sorted(instants)
        john_is = {"mechanic_id": here.john, "mechanic_name": "John Smith"}
        mike_is = {"mechanic_id": here.mike, "mechanic_name": "Mike's Garage"}
        assert timeline == [
            {"event": "paid", "amount_cents": 999},
            {"event": "offered", **john_is},
            {"event": "delivered", **john_is},
            {"event": "declined", **john_is},
            {"event": "broadcast"},
            {"event": "accepted", **mike_is},
            {"event": "released", **mike_is},
            {"event": "broadcast"},
            {"event": "cancelled"},
            {"event": "refund_requested", "amount_cents": 999, "cause": "cancelled"},
            {"event": "refunded", "amount_cents": 999},
        ]
        await here.is_right(b, request_id)


async def test_an_accepted_request_goes_on_at_the_other_node_to_its_end(pair: Pair, sql: str):
    a, b = await pair.both()
    async with new_town(sql) as here:
        async with (
            socket(a.base_url, "customer", here.driver) as page,
            socket(a.base_url, "mechanic", here.john) as john,
        ):
            request_id = await here.paid(a, favorite=here.john)
            offer = (await john.expect("offer", offer__request_id=request_id))["offer"]
            await john.send("offer_ack", offer_id=offer["offer_id"])
            await john.send("accept", offer_id=offer["offer_id"])
            await john.expect("offer_accepted")
            pair.kill(a)
        async with (
            socket(b.base_url, "customer", here.driver) as page,
            socket(b.base_url, "mechanic", here.john) as john,
            socket(b.base_url, "mechanic", here.mike) as mike,
        ):
            assert john.received[0]["request"]["id"] == request_id
            assert [(one["id"], one["status"]) for one in page.received[0]["requests"]] == [(request_id, "accepted")]
            async with here.as_mechanic(b, here.john) as rest:
                await rest.ok("POST", f"/api/requests/{request_id}/start")
                await rest.ok("POST", f"/api/requests/{request_id}/complete")
            await page.expect("request_update", request__id=request_id, request__status="completed")
            await page.expect("favorite_prompt", request_id=request_id)
            await mike.send("heartbeat")
            await mike.expect("heartbeat_ack")
            assert not any(message["type"] == "offer" for message in mike.received)
        assert await here.story(request_id) == ["paid", "offered", "delivered", "accepted", "started", "completed"]
        await here.is_right(b, request_id)


@asynccontextmanager
async def held_before_its_refund_is_noted(here: Town, a: Server) -> AsyncIterator[str]:
    """A cancelled request whose money Stripe has given back; node ``a`` waits for our lock to write that down."""
    for _ in range(TRIES_MAX):
        request_id = await here.paid(a)
        await here.cancelled(a, request_id)

        async def is_asked_for(request_id: str = request_id) -> bool:
            (refund,) = await here.rows(tables.Refund, request_id=request_id)
            return refund.asked_cents is not None

        # Not sooner: before it asks, the node looks at the payment's ledger, under the same lock.
        await eventually(is_asked_for, "the refund is about to be asked for")
        async with here.locked(request_id):
            if "refunded" not in await here.story(request_id):
                await here.waiting()
                yield request_id
                return
    raise AssertionError(f"{TRIES_MAX} refunds were noted before they could be looked at")


async def test_a_refund_whose_node_dies_after_stripe_has_taken_it_is_made_once(pair: Pair, sql: str):
    a, b = await pair.both()
    async with new_town(sql) as here, socket(b.base_url, "customer", here.driver) as page:
        with b.standing_still():
            async with held_before_its_refund_is_noted(here, a) as request_id:
                pair.kill(a)
                started_s = time.monotonic()
        (refund,) = await here.rows(tables.Refund, request_id=request_id)
        assert refund.status == "pending"
        assert refund.stripe_refund_id is None
        assert len(await refunds_at_stripe(b, refund.payment_intent_id)) == 1
        await page.expect("request_update", request__id=request_id, request__refund__status="pending")
        await here.refunded(request_id)
        await page.expect("request_update", request__id=request_id, request__refund__status="succeeded")
        print(f"noted {time.monotonic() - started_s:.1f} s after the death of who had asked for it")
        assert await here.story(request_id) == ["paid", "broadcast", "cancelled", "refund_requested", "refunded"]
        await here.is_right(b, request_id)
