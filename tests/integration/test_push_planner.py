"""What looking for offers to be pushed costs, and that it goes on while Redis is away."""

import sqlite3
from functools import partial

import anyio
import anyio.to_thread
import asyncpg
import msgspec
import pytest
from sqlalchemy import delete, text, update
from sqlmodel import col

from dispatch import notices
from dispatch.push import planner, rules, updates
from dispatch.push.planner import UNPUSHED_BROADCASTS, UNSEEN_OFFERS
from models import tables
from models.rest import FreeCheckout
from models.wire import RequestView
from tests.integration.plans import rows_read
from tests.integration.push_browsers import Browser, offered, plant, running_push_service
from tests.parts import World, body, eventually, running_node, running_world
from tests.services import redis_server

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

OPEN_OFFERS = 10_000
INSERT_OFFERS = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
INSERT INTO offers (id, request_id, kind, mechanic_id, opened_at_ms, expires_at_ms, failures)
SELECT 'open' || i, 'request' || i, '{kind}', {mechanic}, 1, 9000000000000, 0 FROM n
"""


async def open_many(world: World, kind: str, mechanic_id: str | None) -> None:
    """Open ten thousand offers, whose requests are nobody's."""
    mechanic = "NULL" if mechanic_id is None else f"'{mechanic_id}'"
    text = INSERT_OFFERS.format(count=OPEN_OFFERS, kind=kind, mechanic=mechanic)
    if world.database.is_sqlite:
        with sqlite3.connect(world.database.url.database or "") as connection:
            connection.execute(text)
        return
    connection = await asyncpg.connect(world.database_url)
    try:
        await connection.execute(f"SET session_replication_role = replica; {text}")
    finally:
        await connection.close()


async def test_messages_that_are_over_are_forgotten_as_fast_as_a_rush_hour_makes_them(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world) as node:
        mike = await world.mechanic()
        async with running_push_service() as service:
            await node.push.subscribe(mike, service.browser().subscription)
        (browser,) = await world.rows(tables.PushSubscription)
        async with world.database.write() as session:
            for number in range(2_000):
                session.add(
                    tables.PushMessage(
                        id=str(number),
                        subscription_id=browser.id,
                        place="",
                        about_id="o",
                        kind="offer",
                        topic="r",
                        payload="{}",
                        due_at_ms=1,
                        expires_at_ms=1,
                        attempts=0,
                        was_forbidden=False,
                        done_at_ms=1,
                    )
                )

        async def is_empty() -> bool:
            return await world.rows(tables.PushMessage) == []

        await eventually(is_empty, "nothing is left of it", within_s=2 * planner.TIDY_S)


async def test_ten_thousand_open_offers_that_wake_nobody_cost_a_look_nothing(database_url, redis_url):
    async with running_world(database_url, redis_url) as world:
        await open_many(world, "priority", await world.mechanic())
        read = await rows_read(world, UNSEEN_OFFERS, now_ms=1, after_id="", limit=500)
        assert read == 0 or "ix_offers_wakeful" in str(read), read


async def test_ten_thousand_open_broadcasts_that_wake_nobody_cost_a_look_nothing(database_url, redis_url):
    async with running_world(database_url, redis_url) as world:
        await world.mechanics(20)
        await open_many(world, "broadcast", None)
        read = await rows_read(world, UNPUSHED_BROADCASTS, now_ms=1, limit=500)
        # PostgreSQL may look through a table of twenty mechanics; it reads no offer.
        assert ("ix_mechanics_woken" in str(read)) if world.database.is_sqlite else (int(read) <= 20), read


async def test_offers_to_mechanics_without_a_browser_are_no_candidates(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world) as node:
        without, with_one = await world.mechanics(2)
        await node.push.subscribe(with_one, Browser("http://127.0.0.1:9/phone").subscription)
        for favorite in (without, with_one):
            await offered(world, node, favorite)
        assert {one.mechanic_id: one.may_wake for one in await world.rows(tables.Offer)} == {
            without: False,
            with_one: True,
        }


async def test_who_subscribes_while_an_offer_is_open_is_woken_for_it(database_url, redis_url, monkeypatch):
    # So is one whose offer was opened by a node of the version before, which notes nothing of it.
    monkeypatch.setattr(planner, "TIDY_S", 0.2)
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as node,
        running_push_service() as service,
    ):
        favorite, browser = await world.mechanic(), service.browser()
        request = await offered(world, node, favorite)
        await node.push.subscribe(favorite, browser.subscription)
        ((_, headers, _),) = await eventually(lambda: service.got, "woken")
        assert headers["topic"] == request.id


async def test_what_is_no_use_any_more_is_forgotten_also_when_no_offer_ends(database_url, redis_url, monkeypatch):
    monkeypatch.setattr(planner, "KEEP_MS", -3_600_000)
    monkeypatch.setattr(planner, "TIDY_S", 0.2)
    async with running_world(database_url, redis_url) as world, running_node(world, without=("push",)) as node:
        mechanic_id = await world.mechanic()
        await node.push.subscribe(mechanic_id, Browser("http://127.0.0.1:9/phone").subscription)
        assert await node.push.try_out(mechanic_id, None) is None
        await eventually(lambda: is_empty(world), "forgotten")


async def is_empty(world: World) -> bool:
    return not await world.rows(tables.PushMessage)


async def test_what_a_subscription_changes_is_told_with_the_facts(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world, without=("outbox",)) as node:
        mechanic_id = await world.mechanic()
        await node.push.subscribe(mechanic_id, Browser("http://127.0.0.1:9/phone").subscription)
        [row] = await world.rows(tables.OutboxMessage)
        told = msgspec.convert(row.payload, notices.FactsChanged)
        assert told.facts is not None
        assert (told.facts.mechanic_id, told.facts.has_push) == (mechanic_id, True)


async def test_a_favorite_and_a_customer_are_woken_while_redis_is_away(database_url, monkeypatch):
    # Nobody knows then who has a socket: what was acknowledged decides, and no page hears of anything.
    monkeypatch.setattr(rules, "ACKNOWLEDGED_WITHIN_MS", 300)
    monkeypatch.setattr(updates, "PAGE_ANSWERS_WITHIN_MS", 300)
    with redis_server() as server:
        async with (
            running_world(database_url, server.url) as world,
            running_node(world) as node,
            running_push_service() as service,
        ):
            favorite, customer = await world.mechanic(), await world.customer()
            await node.push.subscribe(favorite, service.browser("phone").subscription)
            await node.push.subscribe(customer, service.browser("laptop").subscription)
            await node.outbox.drained()
            await anyio.to_thread.run_sync(server.kill)
            answer = await node.checkouts.start(customer, body("free_diagnostic", favorite))
            assert isinstance(answer, FreeCheckout)
            await eventually(lambda: service.got, "the favourite is woken", within_s=30)
            assert answer.request.offer is not None
            taken = await node.dispatch.accept(favorite, answer.request.offer.id, received_at_ms=node.clock.now_ms())
            assert isinstance(taken, RequestView)
            await eventually(lambda: "laptop" in {name for name, _, _ in service.got}, "the customer, too", within_s=30)


@pytest.mark.parametrize("kind", ["an offer", "an update", "a withdrawal"])
async def test_a_browser_that_is_forgotten_while_it_is_left_a_message_gets_none_and_fails_nobody(
    kind, database_url, redis_url
):
    """The one transaction has deleted the browser and not committed; the other still sees it."""
    async with running_world(database_url, redis_url) as world:
        mike = await world.mechanic()
        browser_id = await plant(world, mike, Browser("https://push.example/phone").subscription)
        told = {"payload": "{}", "due_at_ms": 1, "expires_at_ms": 9_000_000_000_000}
        offer = {"kind": "offer", "about_id": "an offer", "topic": "t"}
        if kind == "a withdrawal":
            await world.database.commit(planner.ADD_MESSAGES(account_ids=[mike], **offer, **told))
            async with world.database.write() as session:
                await session.exec(update(tables.PushMessage).values(attempts=1))
        leave = {
            "an offer": partial(planner.ADD_MESSAGES, account_ids=[mike], **offer, **told),
            "an update": partial(
                updates.ADD_UPDATE, name="u", account_id=mike, request_id="r", kind="update", is_news=True, **told
            ),
            "a withdrawal": partial(
                planner.REPLACE_MESSAGES, about_id="an offer", replaced="offer", kind="withdrawn", **told
            ),
        }[kind]
        async with anyio.create_task_group() as tasks, world.database.write() as session:
            await session.exec(delete(tables.PushSubscription).where(col(tables.PushSubscription.id) == browser_id))
            tasks.start_soon(world.database.commit, leave())
            if not world.database.is_sqlite:
                await eventually(partial(somebody_waits, world), "it waits for the other transaction")
        assert await world.rows(tables.PushMessage) == []


async def somebody_waits(world: World) -> bool:
    async with world.database.read() as session:
        waiting = await session.exec(
            text("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")
        )  # type: ignore[call-overload]
        return waiting.first() is not None
