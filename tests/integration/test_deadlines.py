"""Windows that end on time: once, never early, whoever dies and whatever Redis forgets."""

import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

import anyio
import pytest
from sqlalchemy import update
from sqlmodel import col

from dispatch import request_store
from dispatch.deadlines import Deadlines
from infra import database as database_module
from infra.database import within
from models import tables
from models.errors import DatabaseUnavailable
from models.ids import new_id
from models.rest import FreeCheckout
from models.settings import DispatchSettings
from models.wire import RequestView
from tests.integration.dispatch_nodes import free_request
from tests.parts import PATIENT, Node, World, body, eventually, running_node, running_world
from tests.services import redis_server

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

SOON = DispatchSettings(priority_window_ms=700, broadcast_window_ms=60_000)
"""The priority window ends while the test looks on; the broadcast stays."""


async def offered(world: World, node: Node, favorite: str | None = None) -> RequestView:
    favorite = favorite or await world.mechanic()
    answer = await node.checkouts.start(await world.customer(), body("free_diagnostic", favorite))
    assert isinstance(answer, FreeCheckout), answer
    return answer.request


async def offers(world: World, request: RequestView) -> list[tables.Offer]:
    return await world.rows(tables.Offer, request_id=request.id)


async def broadcast_of(world: World, request: RequestView) -> tables.Offer | None:
    found = [offer for offer in await offers(world, request) if offer.kind == "broadcast"]
    return found[0] if found else None


async def deadlines_left(node: Node) -> int:
    """Return how many deadlines Redis still knows."""
    index = node.link.key("deadlines", "index")
    return await node.link.ask(index, lambda redis: redis.zcard(index))


async def lateness_ms(world: World, request: RequestView) -> int:
    """Return how long after its deadline the priority window ended, checking that it did so once."""
    priority, broadcast = await offers(world, request)
    story = Counter(entry.event for entry in await world.rows(tables.TimelineEntry, request_id=request.id))
    assert (story["expired"], story["broadcast"]) == (1, 1)
    assert (priority.close_reason, broadcast.kind) == ("expired", "broadcast")
    # Stamped with Redis' own TIME by the script that claimed the deadline.
    return broadcast.opened_at_ms - priority.expires_at_ms


async def test_of_two_nodes_one_ends_each_window_once_and_never_early(database_url, any_redis_url):
    async with (
        running_world(database_url, any_redis_url) as world,
        running_node(world, SOON) as a,
        running_node(world, SOON) as b,
    ):
        favorites = await world.mechanics(4)
        requests = [await offered(world, (a, b)[n % 2], favorites[n % 4]) for n in range(24)]
        late_ms = []
        for request in requests:
            await eventually(lambda wanted=request: broadcast_of(world, wanted), "the broadcast")
            late_ms.append(await lateness_ms(world, request))
        assert min(late_ms) >= 0, "never early"


async def test_an_open_offer_has_a_redis_key_of_its_own_that_dies_with_its_window(database_url, any_redis_url):
    async with running_world(database_url, any_redis_url) as world, running_node(world) as a:
        request = await offered(world, a)
        key, index = a.link.key("deadlines", f"offer:{request.offer.id}"), a.link.key("deadlines", "index")
        await eventually(lambda: a.link.ask(key, lambda redis: redis.exists(key)), "the key")
        (offer,) = await offers(world, request)
        assert await a.link.ask(key, lambda redis: redis.pexpiretime(key)) == offer.expires_at_ms
        assert offer.expires_at_ms - offer.opened_at_ms == PATIENT.priority_window_ms
        assert await a.link.ask(index, lambda redis: redis.zscore(index, offer.id)) == offer.expires_at_ms

        await a.dispatch.decline(offer.mechanic_id, offer.id)

        async def is_off_the_clock() -> bool:
            left = await a.link.ask(index, lambda redis: redis.zrange(index, 0, -1))
            return offer.id not in left and not await a.link.ask(key, lambda redis: redis.exists(key))

        await eventually(is_off_the_clock, "a closed offer is off the clock")


async def test_a_window_claimed_by_a_node_that_died_is_ended_by_another_after_the_claim(database_url, redis_url):
    # One node claims what is due and dies before its commit; the claim is a lease, and runs out.
    async with running_world(database_url, redis_url) as world:
        claims = []
        async with running_node(world, SOON, without=("elapsing",)) as dying:
            request = await offered(world, dying)

            async def die(offer_ids: Sequence[str], now_ms: int) -> Collection[str]:
                claims.append((*offer_ids, now_ms))
                await anyio.sleep_forever()
                return ()

            async with anyio.create_task_group() as life:
                life.start_soon(dying.deadlines.run, die)
                await eventually(lambda: claims, "a claim")
                life.cancel_scope.cancel()
        ((offer_id, claimed_at_ms),) = claims
        assert offer_id == request.offer.id
        assert [offer.closed_at_ms for offer in await offers(world, request)] == [None]
        async with running_node(world, SOON):
            broadcast = await eventually(lambda: broadcast_of(world, request), "the broadcast")
        assert broadcast.opened_at_ms - claimed_at_ms >= SOON.claim_lease_ms - 1
        await lateness_ms(world, request)


async def test_a_window_that_ended_while_no_node_ran_is_ended_by_the_first_that_starts(database_url, redis_url):
    async with running_world(database_url, redis_url) as world:
        async with running_node(world, SOON, without=("elapsing",)) as a:
            request = await offered(world, a)
            (offer,) = await offers(world, request)
            await eventually(lambda: a.clock.now_ms() > offer.expires_at_ms, "the deadline")
        assert len(await offers(world, request)) == 1
        async with running_node(world, SOON):
            await eventually(lambda: broadcast_of(world, request), "the broadcast")


async def test_redis_that_lost_everything_is_reminded_and_windows_end_on_time(database_url, tmp_path):
    # What is put back is put back because a node has noticed, not because it was time to look.
    settings = replace(SOON, priority_window_ms=4_000, reconcile_interval_ms=60_000)
    with redis_server(tmp_path / "redis") as server:
        async with (
            running_world(database_url, server.url) as world,
            running_node(world, settings) as a,
            running_node(world, settings),
        ):
            requests = [await offered(world, a) for _ in range(3)]
            await a.outbox.drained()
            await a.link.everywhere(lambda redis: redis.flushall())
            keys = [a.link.key("deadlines", f"offer:{request.offer.id}") for request in requests]

            async def are_back() -> bool:
                return await a.link.ask(keys[0], lambda redis: redis.exists(*keys)) == len(keys)

            await eventually(are_back, "the keys are back")
            for request in requests:
                await eventually(lambda wanted=request: broadcast_of(world, wanted), "the broadcast")
                assert await lateness_ms(world, request) >= 0


async def test_a_redis_that_was_away_at_the_deadline_delays_the_fallback_and_does_not_lose_it(database_url, tmp_path):
    settings = replace(SOON, reconcile_interval_ms=100)
    with redis_server(tmp_path / "redis") as server:
        async with running_world(database_url, server.url) as world, running_node(world, settings) as a:
            request = await offered(world, a)
            (offer,) = await offers(world, request)
            server.kill()
            await eventually(lambda: a.clock.now_ms() > offer.expires_at_ms + 100, "the deadline")
            assert len(await offers(world, request)) == 1
            server.restart()
            await eventually(lambda: broadcast_of(world, request), "the broadcast")
            assert await lateness_ms(world, request) >= 0


# SQLite has one writer at a time: nobody holds one request alone.
@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
async def test_a_request_that_somebody_holds_does_not_hold_up_the_windows_that_end_with_it(database_url, redis_url):
    # No claim ends by itself here: what was held is ended because the node has looked again.
    lasting = replace(SOON, claim_lease_ms=60_000)
    async with running_world(database_url, redis_url) as world, running_node(world, lasting) as a:
        held, *others = requests = [await offered(world, a) for _ in range(4)]
        async with world.database.write() as session:
            await within(session, request_store.LOCK_REQUESTS(ids=[held.id]))
            for request in others:
                await eventually(lambda wanted=request: broadcast_of(world, wanted), "the broadcast")
        for request in requests:
            await eventually(lambda wanted=request: broadcast_of(world, wanted), "the broadcast")
            assert await lateness_ms(world, request) >= 0


# --- the clockwork alone ----------------------------------------------------------------------------------------------


async def test_each_of_many_deadlines_is_claimed_once_by_one_of_two_nodes_and_never_early(database_url, redis_url):
    # A machine that stands still for longer than a claim lasts must not look like two nodes with the same claim.
    lasting = replace(PATIENT, claim_lease_ms=60_000)
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, lasting, without=("elapsing",)) as a,
        running_node(world, lasting, without=("elapsing",)) as b,
    ):
        dice = random.Random(7)
        now_ms = await a.redis_now_ms()
        due = {new_id(): now_ms + dice.randint(-20, 600) for _ in range(300)}
        ended: list[tuple[str, int]] = []

        async def end(offer_ids: Sequence[str], at_ms: int) -> Collection[str]:
            ended.extend((offer_id, at_ms) for offer_id in offer_ids)
            return ()

        assert await a.deadlines.schedule(*due.items()) == 300
        assert await b.deadlines.schedule(*due.items()) == 0, "putting them on the clock again changes nothing"
        async with anyio.create_task_group() as tasks:
            for node in (a, b):
                tasks.start_soon(node.deadlines.run, end)
            await eventually(lambda: len(ended) >= 300, "all have ended")
            await eventually(lambda: _is_empty(a), "and all are off the clock")
            tasks.cancel_scope.cancel()
        assert sorted(offer_id for offer_id, _ in ended) == sorted(due)
        late_ms = [at_ms - due[offer_id] for offer_id, at_ms in ended if due[offer_id] > now_ms + 50]
        assert min(late_ms) >= 0


async def test_a_look_that_comes_too_early_ends_no_window_early(database_url, redis_url):
    # A claim that ends by itself, or one that is put off, may have any node look before the deadline.
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, without=("elapsing",)) as a,
    ):
        ended: list[str] = []

        async def end(offer_ids: Sequence[str], _: int) -> Mapping[str, int]:
            ended.extend(offer_ids)
            return {}

        index, now_ms = a.link.key("deadlines", "index"), await a.redis_now_ms()
        await a.deadlines.schedule(("early", now_ms + 60_000), ("due", now_ms))
        # One claim comes to both.
        await a.link.ask(index, lambda redis: redis.zadd(index, {"early": now_ms - 1}))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(a.deadlines.run, end)
            await eventually(lambda: ended, "the window that is due ends")
            tasks.cancel_scope.cancel()
        assert ended == ["due"]
        looked_at_next_ms = await a.link.ask(index, lambda redis: redis.zscore(index, "early"))
        assert looked_at_next_ms >= now_ms + 60_000 - 1


async def test_a_window_whose_key_redis_has_lost_ends_on_time_and_not_when_it_is_looked_at(database_url, redis_url):
    # Its key is gone and its place in the index too early: Redis says that it is over, and SQL knows better.
    async with running_world(database_url, redis_url) as world, running_node(world, SOON) as node:
        request = await offered(world, node)
        index, key = node.link.key("deadlines", "index"), node.link.key("deadlines", f"offer:{request.offer.id}")
        await node.outbox.drained()
        await node.link.ask(key, lambda redis: redis.delete(key))
        await node.link.ask(index, lambda redis: redis.zadd(index, {request.offer.id: 1}))
        await eventually(lambda: broadcast_of(world, request), "the broadcast")
        assert 0 <= await lateness_ms(world, request) < 1_000


async def test_redis_has_forgotten_the_deadlines_only_when_it_has(database_url, tmp_path):
    # Whoever hears of it reads all open offers from SQL, so it must not be heard at every claim.
    with redis_server(tmp_path / "redis") as server:
        async with (
            running_world(database_url, server.url) as world,
            running_node(world, without=("elapsing",)) as a,
        ):
            ended: list[str] = []
            heard: list[None] = []

            async def end(offer_ids: Sequence[str], _: int) -> Mapping[str, int]:
                ended.extend(offer_ids)
                return {}

            async def listen() -> None:
                heard.append(await a.deadlines.forgotten())

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(listen)
                tasks.start_soon(a.deadlines.run, end)
                for n in range(1, 4):
                    await a.deadlines.schedule((f"offer-{n}", await a.redis_now_ms()))
                    await eventually(lambda n=n: len(ended) == n, "the window ends")
                assert heard == []
                await a.link.everywhere(lambda redis: redis.flushall())
                await eventually(lambda: heard, "it has forgotten")
                tasks.cancel_scope.cancel()


async def test_a_redis_that_came_back_with_an_older_memory_is_reminded(database_url, tmp_path):
    # It remembers when its memory began, and not what came after the snapshot on its disk: the broken bus is all that tells.
    with redis_server(tmp_path / "redis") as server:
        async with (
            running_world(database_url, server.url) as world,
            running_node(world, without=("elapsing",)) as a,
            anyio.create_task_group() as tasks,
        ):
            heard: list[None] = []

            async def listen() -> None:
                heard.append(await a.deadlines.forgotten())

            tasks.start_soon(listen)
            server.kill()
            server.restart()
            await eventually(lambda: heard, "it is looked after")
            tasks.cancel_scope.cancel()


async def test_a_window_that_could_not_be_ended_is_tried_again_when_the_claim_ends(database_url, redis_url):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, without=("elapsing",)) as a,
    ):
        clockwork = Deadlines(a.link, a.clock, replace(PATIENT, claim_lease_ms=200))
        tries: list[int] = []

        async def end(_: Sequence[str], at_ms: int) -> Collection[str]:
            tries.append(at_ms)
            if len(tries) < 3:
                raise DatabaseUnavailable("away")
            return ()

        await clockwork.schedule(("offer", await a.redis_now_ms()))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(clockwork.run, end)
            await eventually(lambda: len(tries) == 3, "the third try")
            await eventually(lambda: _is_empty(a), "and then it is off the clock")
            tasks.cancel_scope.cancel()
        assert min(later - earlier for earlier, later in pairwise(tries)) >= 199


async def test_an_offer_that_closed_while_its_end_was_being_put_off_does_not_come_back_on_the_clock(
    database_url, redis_url
):
    # This node claims the window and finds its request held. Whoever holds it closes the offer and takes it off the clock; only
    # then does this node put it off.
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, without=("elapsing",)) as a,
        running_node(world, without=("elapsing",)) as b,
    ):
        claims: list[str] = []

        async def end(offer_ids: Sequence[str], _: int) -> Mapping[str, int]:
            claims.extend(offer_ids)
            if "closed" not in offer_ids:
                return {}
            await b.take_off_the_clock("closed")
            return {"closed": 0}

        now_ms = await a.redis_now_ms()
        await a.deadlines.schedule(("closed", now_ms), ("later", now_ms + 300))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(a.deadlines.run, end)
            await eventually(lambda: "later" in claims, "the next window ends")
            await eventually(lambda: _is_empty(a), "nothing is on the clock")
            tasks.cancel_scope.cancel()
        assert claims == ["closed", "later"]


async def _is_empty(node: Node) -> bool:
    return await deadlines_left(node) == 0


async def test_restoring_a_deadline_does_not_cut_short_the_claim_of_who_is_working_on_it(database_url, redis_url):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, without=("elapsing",)) as a,
        running_node(world, without=("elapsing",)) as b,
    ):
        deadline_ms = await a.redis_now_ms()
        claims: list[str] = []
        done = anyio.Event()

        async def work(offer_ids: Sequence[str], _: int) -> Collection[str]:
            claims.extend(offer_ids)
            await done.wait()
            return ()

        async with anyio.create_task_group() as tasks:
            await a.deadlines.schedule(("offer", deadline_ms))
            tasks.start_soon(a.deadlines.run, work)
            await eventually(lambda: claims, "a claim")
            assert await b.deadlines.schedule(("offer", deadline_ms)) == 0
            tasks.start_soon(b.deadlines.run, work)
            # Longer than the other node's poll, shorter than the claim.
            claimed_at_ms = a.clock.now_ms()
            await eventually(lambda: a.clock.now_ms() > claimed_at_ms + 700, "a while")
            assert claims == ["offer"]
            done.set()
            await eventually(lambda: _is_empty(a), "off the clock")
            tasks.cancel_scope.cancel()


async def test_a_row_that_somebody_holds_keeps_only_its_own_window_waiting(
    database_url, redis_url, tmp_path, monkeypatch
):
    # All end together, and one of them gives a customer's free session back: that customer's row is held by somebody else.
    if database_url.startswith("sqlite"):
        pytest.skip("SQLite has one lock for all.")
    monkeypatch.setitem(database_module.POSTGRES_SETTINGS, "lock_timeout", "200")
    settings = replace(PATIENT, broadcast_window_ms=1_000)
    async with running_world(database_url, redis_url, tmp_path) as world:
        async with running_node(world, settings, without=("elapsing",)) as node:
            held_id, held = await free_request(world, node)
            paid = [await world.paid_request(node, await world.customer()) for _ in range(4)]
            await eventually(lambda: _are_over(world, node), "all windows are over")
        async with world.database.write() as session:
            await session.exec(update(tables.Account).where(col(tables.Account.id) == held_id).values(name="held"))
            async with running_node(world, settings):
                for request in paid:
                    await eventually(partial(_is_unfilled, world, request.id), "the others end")
                assert not await _is_unfilled(world, held.id)
        async with running_node(world, settings):
            await eventually(partial(_is_unfilled, world, held.id), "and this one when it can")


async def _are_over(world: World, node: Node) -> bool:
    return all(offer.expires_at_ms + 300 < node.clock.now_ms() for offer in await world.rows(tables.Offer))


async def _is_unfilled(world: World, request_id: str) -> bool:
    return (await world.row(tables.SessionRequest, request_id)).status == "unfilled"
