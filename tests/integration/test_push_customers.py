"""Waking a customer with what has become of their request while no page of theirs is open."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import msgspec
import pytest

from dispatch import deliveries
from dispatch.push import rules, sender, updates
from dispatch.push.sealing import TEXT_LEN_MAX
from dispatch.push.updates import fitting
from models import tables
from models.rest import FreeCheckout
from models.timestamps import rfc3339
from models.wire import Person, RequestView, TimelineEntryView
from models.words import RequestStatus
from tests.integration.push_browsers import Browser, PushService, running_push_service
from tests.integration.socket_nodes import Town
from tests.parts import HURRIED, PATIENT, Node, World, body, eventually, running_node, running_world

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")


@pytest.fixture(autouse=True)
def pages_answer_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updates, "PAGE_ANSWERS_WITHIN_MS", 500)


@asynccontextmanager
async def a_customer(
    world: World, service: PushService, node: Node, name: str = "phone"
) -> AsyncIterator[tuple[str, Browser]]:
    """A customer with a browser that can be woken, and no page."""
    customer_id, browser = await world.customer(), service.browser(name)
    await node.push.subscribe(customer_id, browser.subscription)
    yield customer_id, browser


def said(service: PushService, browser: Browser) -> list[dict]:
    """What the push service has got for the browser, in order."""
    return [browser.read(sealed) for name, _, sealed in service.got if browser.endpoint.endswith(f"/{name}")]


async def booked(node: Node, customer_id: str, favorite: str) -> RequestView:
    answer = await node.checkouts.start(customer_id, body("free_diagnostic", favorite))
    assert isinstance(answer, FreeCheckout), answer
    return answer.request


async def accept(node: Node, mechanic_id: str, request: RequestView) -> None:
    assert request.offer is not None
    taken = await node.dispatch.accept(mechanic_id, request.offer.id, received_at_ms=node.clock.now_ms())
    assert isinstance(taken, RequestView), taken


async def test_a_customer_without_a_page_is_told_of_accepted_and_started_and_a_newer_one_replaces_an_older(
    database_url, redis_url
):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as a,
        running_node(world) as b,
        running_push_service() as service,
        a_customer(world, service, a) as (customer_id, browser),
    ):
        favorite = await world.mechanic()
        request = await booked(a, customer_id, favorite)
        await accept(a, favorite, request)
        await eventually(lambda: len(service.got) == 1, "accepted")
        await b.dispatch.start(favorite, request.id)
        await eventually(lambda: len(service.got) == 2, "started")
        # It is no news, but what they have on their screen is not true any more.
        await a.dispatch.complete(favorite, request.id)
        await eventually(lambda: len(service.got) == 3, "completed")
        messages = said(service, browser)
        assert [one["type"] for one in messages] == ["request_update"] * 3
        assert [one["request"]["status"] for one in messages] == ["accepted", "in_progress", "completed"]
        assert messages[0]["request"]["assigned_mechanic"]["id"] == favorite
        assert {headers["topic"] for _, headers, _ in service.got} == {request.id}
        assert {int(headers["ttl"]) for _, headers, _ in service.got} <= set(range(3_000, 12 * 3600 + 1))


async def test_a_customer_without_a_page_is_told_that_nobody_came_and_that_the_money_is_back(
    database_url, redis_url, tmp_path
):
    async with (
        running_world(database_url, redis_url, tmp_path) as world,
        running_node(world, replace(HURRIED, refund_retry_first_ms=1_500)) as node,
        running_push_service() as service,
        a_customer(world, service, node) as (customer_id, browser),
    ):
        await world.paid_request(node, customer_id)
        await eventually(lambda: said(service, browser)[-1:], "told")
        last = await eventually(
            lambda: [one for one in said(service, browser) if one["request"]["refund"]["status"] == "succeeded"],
            "the money is back",
        )
        assert last[0]["request"]["status"] == "unfilled"


async def test_a_customer_is_told_in_each_browser_and_nobody_else_is(database_url, redis_url):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as node,
        running_push_service() as service,
        a_customer(world, service, node) as (customer_id, phone),
        a_customer(world, service, node, "others"),
    ):
        laptop = service.browser("laptop")
        await node.push.subscribe(customer_id, laptop.subscription)
        favorite = await world.mechanic()
        await accept(node, favorite, await booked(node, customer_id, favorite))
        await eventually(lambda: len(service.got) == 2, "told")
        assert [len(said(service, browser)) for browser in (phone, laptop)] == [1, 1]


async def test_a_customer_with_a_page_on_whichever_node_is_not_woken_until_it_is_closed(database_url, redis_url):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as node,
        running_push_service() as service,
        a_customer(world, service, node) as (customer_id, browser),
        Town(world.redis_url, world.prefix, world.database).node() as elsewhere,
    ):
        favorite = await world.mechanic()
        async with elsewhere.customer(customer_id) as page:
            request = await booked(node, customer_id, favorite)
            await accept(node, favorite, request)
            while (await page.expect("request_update"))["request"]["status"] != "accepted":
                pass
            await eventually(lambda: are_done(world), "it was not sent, as they see it")
            assert service.got == []
        await node.dispatch.start(favorite, request.id)
        await eventually(lambda: service.got, "woken")
        assert [one["request"]["status"] for one in said(service, browser)] == ["in_progress"]


async def are_done(world: World) -> bool:
    messages = await world.rows(tables.PushMessage)
    return bool(messages) and all(one.done_at_ms is not None for one in messages)


async def test_a_page_that_sleeps_is_as_good_as_none(database_url, redis_url):
    # Its socket is open, because nobody has noticed yet: it takes what is written, and answers no ping.
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as node,
        running_push_service() as service,
        a_customer(world, service, node) as (customer_id, browser),
        Town(world.redis_url, world.prefix, world.database).node() as elsewhere,
        elsewhere.raw("customer", customer_id),
    ):
        await eventually(lambda: elsewhere.hub.customers.of(customer_id), "its socket is open")
        favorite = await world.mechanic()
        await accept(node, favorite, await booked(node, customer_id, favorite))
        await eventually(lambda: service.got, "woken")
        assert elsewhere.hub.customers.of(customer_id)
        assert said(service, browser)[0]["request"]["status"] == "accepted"


async def test_what_waits_to_be_sent_is_replaced_by_what_is_newer(database_url, redis_url, monkeypatch):
    monkeypatch.setattr(updates, "PAGE_ANSWERS_WITHIN_MS", 0)
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, without=("push",)) as node,
        running_push_service() as service,
        a_customer(world, service, node) as (customer_id, browser),
    ):
        favorite = await world.mechanic()
        request = await booked(node, customer_id, favorite)
        await accept(node, favorite, request)
        await eventually(lambda: world.rows(tables.PushMessage), "planned")
        await node.dispatch.start(favorite, request.id)
        await eventually(lambda: has_planned(world, 2), "planned again")
        async with running_node(world):
            await eventually(lambda: service.got, "sent")
            await eventually(lambda: are_done(world), "there is no more")
        assert [one["request"]["status"] for one in said(service, browser)] == ["in_progress"]


async def has_planned(world: World, count: int) -> bool:
    return len(await world.rows(tables.PushMessage)) == count


async def test_what_follows_news_that_was_not_sent_yet_is_told_in_its_place(database_url, redis_url):
    # A change that is no news by itself must not swallow what is.
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, without=("push",)) as node,
        running_push_service() as service,
        a_customer(world, service, node) as (customer_id, browser),
    ):
        favorite = await world.mechanic()
        request = await booked(node, customer_id, favorite)
        await accept(node, favorite, request)
        await eventually(lambda: world.rows(tables.PushMessage), "planned")
        await node.dispatch.release(favorite, request.id)
        await eventually(lambda: has_planned(world, 2), "planned again")
        async with running_node(world):
            await eventually(lambda: service.got, "sent")
            await eventually(lambda: are_done(world), "there is no more")
        assert [one["request"]["status"] for one in said(service, browser)] == ["broadcasting"]


async def test_a_customer_is_woken_though_the_node_died_before_it_told_anybody(database_url, redis_url):
    hasty = replace(PATIENT, outbox_lease_ms=300)
    async with (
        running_world(database_url, redis_url) as world,
        running_push_service() as service,
    ):
        favorite = await world.mechanic()
        async with (
            running_node(world, hasty, without=("outbox",)) as dying,
            a_customer(world, service, dying) as (customer_id, browser),
        ):
            await accept(dying, favorite, await booked(dying, customer_id, favorite))
        assert await world.rows(tables.PushMessage) == []
        async with running_node(world, hasty):
            await eventually(lambda: service.got, "woken")
        assert said(service, browser)[0]["request"]["status"] == "accepted"


async def test_a_question_whether_a_page_is_open_is_asked_only_for_who_has_a_browser_to_be_woken(
    database_url, redis_url
):
    async with running_world(database_url, redis_url) as world, running_node(world) as node:
        favorite = await world.mechanic()
        await accept(node, favorite, await booked(node, await world.customer(), favorite))
        await eventually(lambda: node.heard_of(deliveries.FrameToMechanic), "told")
        await node.outbox.drained()
        assert node.heard_of(deliveries.PageWanted) == []


def test_a_request_with_a_long_story_fits_into_a_message_with_the_end_of_it():
    line = TimelineEntryView(rfc3339(0), "declined", mechanic_name="M" * 100, reason="r" * 200)
    view = RequestView(
        id="01" * 13,
        version=40,
        plan="quick_chat",
        session_type="text",
        routing_type="broadcast",
        status=RequestStatus.ACCEPTED,
        customer_name="\N{GRINNING FACE}" * 100,
        preferred_mechanic=None,
        assigned_mechanic=Person("01" * 13, "\N{GRINNING FACE}" * 100),
        offer=None,
        fallback_reason=None,
        created_at=rfc3339(0),
        accepted_at=rfc3339(0),
        completed_at=None,
        refund=None,
        timeline=[line] * 39 + [TimelineEntryView(rfc3339(1), "accepted")],
    )
    message = msgspec.json.decode(fitting(view))
    assert len(fitting(view)) <= TEXT_LEN_MAX
    assert message["request"]["timeline"][-1]["event"] == "accepted"
    assert 1 < len(message["request"]["timeline"]) < 40
    longest = TimelineEntryView(rfc3339(0), "declined", reason="\N{GRINNING FACE}" * 200)
    assert len(fitting(msgspec.structs.replace(view, timeline=[longest] * 40))) <= TEXT_LEN_MAX
    wordy = msgspec.structs.replace(
        view, preferred_mechanic=view.assigned_mechanic, note="\N{GRINNING FACE}" * 500, timeline=[longest]
    )
    shortened = msgspec.json.decode(fitting(wordy))
    assert len(fitting(wordy)) <= TEXT_LEN_MAX
    assert shortened["request"]["assigned_mechanic"]["name"] == "\N{GRINNING FACE}" * 100


def test_what_a_message_counts_down_is_counted_anew_when_it_is_sent():
    said: dict = {"request": {"start": {"expires_at": rfc3339(60_000), "expires_in_ms": 50_000}, "offer": None}}
    sender._count_anew(said, 59_000)
    assert said["request"]["start"]["expires_in_ms"] == 1_000
    sender._count_anew(said, 61_000)
    assert said["request"]["start"]["expires_in_ms"] == 0


def test_what_is_over_is_worth_telling_for_longer_than_what_will_soon_be_another():
    assert rules.update_lifetime_ms(is_settled=True) > rules.update_lifetime_ms(is_settled=False) > 60_000
