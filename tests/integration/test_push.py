"""Waking a favourite's app that is not connected, at a real push endpoint."""

import base64
import hashlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import UNSET
from msgspec.structs import replace as replaced

from dispatch import deliveries
from dispatch.push import planner, rules, sender
from dispatch.push.subscriptions import SUBSCRIPTIONS_MAX
from dispatch.push.vapid import Vapid
from dispatch.stored import Named
from infra.statements import Transaction
from models import tables
from models.errors import DatabaseUnavailable
from models.outcomes import NotFound, Refused, TooMany
from models.rest import FreeCheckout, PushKeys, PushSubscribeBody
from tests.integration.push_browsers import (
    Browser,
    PushService,
    base64url,
    is_reachable_by,
    offered,
    plant,
    reachable,
    running_push_service,
    subscribed,
)
from tests.parts import PATIENT, Node, World, body, eventually, running_node, running_world, side_by_side

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")


async def test_a_subscription_makes_a_mechanic_reachable_until_the_last_one_goes(database_url, redis_url):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as a,
        running_node(world) as b,
    ):
        mechanic_id = await world.mechanic()
        phone, laptop = Browser("http://127.0.0.1:9/phone"), Browser("http://127.0.0.1:9/laptop")
        assert await reachable(a, mechanic_id) == "none"
        assert await subscribed(a, mechanic_id, phone) is True
        assert await subscribed(b, mechanic_id, phone) is False
        assert await subscribed(b, mechanic_id, laptop) is True
        await eventually(lambda: is_reachable_by(b, mechanic_id, "push"), "reachable by push")
        await a.push.unsubscribe(mechanic_id, phone.endpoint)
        await a.push.unsubscribe(mechanic_id, phone.endpoint)
        assert (await world.row(tables.Mechanic, mechanic_id)).has_push
        await b.push.unsubscribe(mechanic_id, laptop.endpoint)
        assert not (await world.row(tables.Mechanic, mechanic_id)).has_push
        await eventually(lambda: is_reachable_by(a, mechanic_id, "none"), "not reachable any more")


async def test_an_offer_reaches_a_favorite_who_is_not_connected_sealed_for_their_browser(database_url, redis_url):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as a,
        running_push_service() as service,
    ):
        favorite, browser = await world.mechanic(), service.browser()
        await a.push.subscribe(favorite, browser.subscription)
        request = await offered(world, a, favorite)
        ((_, headers, sealed),) = await eventually(lambda: service.got, "the push")
        message = browser.read(sealed)
        assert message["type"] == "offer"
        assert message["offer"]["offer_id"] == request.offer.id
        assert message["offer"]["expires_at"] == request.offer.expires_at
        assert message["offer"]["kind"] == "priority"
        (offer,) = await world.rows(tables.Offer)
        assert 1 <= int(headers["ttl"]) <= (offer.expires_at_ms - offer.opened_at_ms) // 1000
        assert (headers["topic"], headers["urgency"]) == (request.id, "high")
        # Signed for this very push service, port included, with the key that browsers were given (RFC 8292).
        token, key = (part.split("=", 1)[1] for part in headers["authorization"].removeprefix("vapid ").split(","))
        assert key == await a.vapid.public_key()
        point = base64.urlsafe_b64decode(key + "=" * (-len(key) % 4))
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        claims = jwt.decode(token, public, algorithms=["ES256"], audience=service.base)
        assert claims["sub"] == "https://pitlane.example"


async def test_every_node_signs_with_the_same_key(database_url, redis_url):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as a,
        running_node(world) as b,
    ):
        assert await a.vapid.public_key() == await b.vapid.public_key()
        assert len(base64.urlsafe_b64decode(await a.vapid.public_key() + "=")) == 65


async def test_a_machine_without_a_public_address_can_push_too(database_url, redis_url):
    # Push services may refuse a contact that is neither https nor mailto, and a development machine has only http.
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, contact="http://127.0.0.1:8000") as a,
        running_push_service() as service,
    ):
        favorite, browser = await world.mechanic(), service.browser()
        await a.push.subscribe(favorite, browser.subscription)
        request = await offered(world, a, favorite)
        ((_, _, sealed),) = await eventually(lambda: service.got, "the push")
        assert browser.read(sealed)["offer"]["request_id"] == request.id


async def test_a_favorite_with_a_socket_is_not_pushed_and_a_broadcast_is_pushed_to_nobody(database_url, redis_url):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as a,
        running_push_service() as service,
    ):
        connected, away = await world.mechanics(2)
        for mechanic_id, name in ((connected, "connected"), (away, "away")):
            await a.push.subscribe(mechanic_id, service.browser(name).subscription)
        a.presence.joined(connected)
        await eventually(lambda: is_reachable_by(a, connected, "socket"), "connected")
        first = await offered(world, a, connected)
        await a.dispatch.decline(connected, first.offer.id)
        broadcasts = await eventually(
            lambda: [told for told in a.heard_of(deliveries.OfferTo) if told.mechanic_id is None], "the broadcast"
        )
        assert broadcasts
        # Pushes go out in the order of the offers: when this one has come, the others would have.
        await offered(world, a, away)
        await eventually(lambda: service.got, "the push")
        assert [name for name, _, _ in service.got] == ["away"]


@pytest.mark.parametrize("status", [404, 410])
async def test_a_subscription_that_is_over_is_forgotten_and_the_customer_sees_it(database_url, redis_url, status: int):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as a,
        running_push_service() as service,
    ):
        favorite = await world.mechanic()
        await a.push.subscribe(favorite, service.browser().subscription)
        await eventually(lambda: is_reachable_by(a, favorite, "push"), "reachable by push")
        service.answers = [status]
        await offered(world, a, favorite)
        await eventually(lambda: is_reachable_by(a, favorite, "none"), "not reachable any more")
        assert await world.rows(tables.PushSubscription) == []
        assert len(service.got) == 1


async def test_a_push_service_in_trouble_is_asked_again(database_url, redis_url, monkeypatch):
    monkeypatch.setattr(rules, "RETRY_FIRST_MS", 50)
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as a,
        running_push_service() as service,
    ):
        favorite, browser = await world.mechanic(), service.browser()
        await a.push.subscribe(favorite, browser.subscription)
        service.answers = [503, 429]
        request = await offered(world, a, favorite)
        await eventually(lambda: len(service.got) == 3, "the third try")
        assert browser.read(service.got[2][2])["offer"]["request_id"] == request.id
        assert len(await world.rows(tables.PushSubscription)) == 1


async def test_a_push_that_a_database_away_for_a_moment_has_kept_is_sent_and_held_against_nobody(
    database_url, redis_url, monkeypatch
):
    monkeypatch.setattr(sender, "LEASE_MS", 500)
    outages = [DatabaseUnavailable("away")]
    signed = Vapid.authorization

    async def authorization(vapid: Vapid, endpoint: str) -> str:
        if outages:
            raise outages.pop()
        return await signed(vapid, endpoint)

    monkeypatch.setattr(Vapid, "authorization", authorization)
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as a,
        running_push_service() as service,
    ):
        favorite = await world.mechanic()
        await a.push.subscribe(favorite, service.browser().subscription)
        await offered(world, a, favorite)
        await eventually(lambda: service.got, "the push")
        [row] = await world.rows(tables.PushSubscription)
        assert (row.failures, row.last_error) == (0, None)


@pytest.mark.parametrize(
    "broken",
    [
        PushSubscribeBody("http://127.0.0.1:9/gone", PushKeys("AAAA", "AAAA")),
        PushSubscribeBody("http://127.0.0.1:9/gone", PushKeys("not base64 at all!", "?")),
        PushSubscribeBody("http://", PushKeys("AAAA", "AAAA")),
        PushSubscribeBody("http://127.0.0.1:9/nobody-listens", Browser("").subscription.keys),
    ],
    ids=["keys that are no keys", "keys that are no base64", "an endpoint that is none", "nobody listens"],
)
@pytest.mark.bugs_planted
async def test_a_broken_subscription_harms_neither_the_node_nor_the_others(
    database_url, redis_url, monkeypatch, broken: PushSubscribeBody
):
    monkeypatch.setattr(rules, "RETRY_FIRST_MS", 10)
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as a,
        running_push_service() as service,
    ):
        favorite, browser = await world.mechanic(), service.browser()
        await a.push.subscribe(favorite, browser.subscription)
        await plant(world, favorite, broken)
        await offered(world, a, favorite)
        await eventually(lambda: service.got, "the push to the other browser")


async def test_two_tabs_that_subscribe_side_by_side_are_one_subscription(database_url, redis_url):
    # Both found no row and both inserted one: the second met the unique endpoint.
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as a,
        running_node(world) as b,
    ):
        mechanic_id, browser = await world.mechanic(), Browser("http://127.0.0.1:9/phone")
        made = await side_by_side(*(partial(subscribed, node, mechanic_id, browser) for node in (a, b, a, b)))
        assert sorted(made) == [False, False, False, True]
        assert len(await world.rows(tables.PushSubscription)) == 1


async def test_has_push_is_right_after_subscribing_and_unsubscribing_side_by_side(database_url, redis_url):
    # One transaction saw its own last subscription go, the other its own new one come, neither saw the other.
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as a,
        running_node(world) as b,
    ):
        mechanic_id = await world.mechanic()
        for number in range(5):
            old, new = (Browser(f"http://127.0.0.1:9/{number}-{age}") for age in ("old", "new"))
            await a.push.subscribe(mechanic_id, old.subscription)
            await side_by_side(
                partial(a.push.unsubscribe, mechanic_id, old.endpoint),
                partial(b.push.subscribe, mechanic_id, new.subscription),
            )
            assert (await world.row(tables.Mechanic, mechanic_id)).has_push
            await a.push.unsubscribe(mechanic_id, new.endpoint)
            assert not (await world.row(tables.Mechanic, mechanic_id)).has_push


async def test_a_browser_that_changes_hands_no_longer_wakes_who_had_it(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world) as a:
        former, present = await world.mechanics(2)
        browser = Browser("http://127.0.0.1:9/shared")
        await a.push.subscribe(former, browser.subscription)
        await a.push.subscribe(present, browser.subscription)
        assert not (await world.row(tables.Mechanic, former)).has_push
        assert (await world.row(tables.Mechanic, present)).has_push
        await a.push.unsubscribe(former, browser.endpoint)
        assert len(await world.rows(tables.PushSubscription, account_id=present)) == 1


async def test_what_waits_for_a_browser_goes_when_another_account_signs_in_there(database_url, redis_url):
    # A shared tablet: an offer to the one who has just left must not wake the other with it.
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, without=("push",)) as node,
        running_push_service() as service,
    ):
        former, present = await world.mechanics(2)
        browser = service.browser()
        await node.push.subscribe(former, browser.subscription)
        await offered(world, node, former)
        await eventually(lambda: world.rows(tables.PushMessage), "planned")
        await node.push.subscribe(present, browser.subscription)
        assert await world.rows(tables.PushMessage) == []


async def test_a_browser_that_changes_hands_is_the_newest_of_its_account(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world) as a:
        former, present = await world.mechanics(2)
        shared = Browser("http://127.0.0.1:9/shared")
        await a.push.subscribe(former, shared.subscription)
        for number in range(SUBSCRIPTIONS_MAX):
            await a.push.subscribe(present, Browser(f"http://127.0.0.1:9/{number}").subscription)
        await a.push.subscribe(present, shared.subscription)
        kept = await world.rows(tables.PushSubscription)
        assert {row.account_id for row in kept} == {present}
        names = [str(number) for number in range(1, SUBSCRIPTIONS_MAX)]
        assert [row.endpoint.rsplit("/")[-1] for row in kept] == [*names, "shared"]


async def test_a_list_of_devices_names_each_without_its_secret_and_says_when_it_was_of_use(database_url, redis_url):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as node,
        running_push_service() as service,
    ):
        mechanic_id = await world.mechanic()
        phone = service.browser("very-secret")
        outcome = await node.push.subscribe(
            mechanic_id, replaced(phone.subscription, label=" Chrome\u202e on Android ")
        )
        assert not isinstance(outcome, Refused)
        await plant(world, mechanic_id, Browser("http://127.0.0.1:9/other").subscription)
        (first, other) = await node.push.of(mechanic_id)
        hashed = base64url(hashlib.sha256(phone.endpoint.encode()).digest())
        assert (first.id, first.label, first.endpoint_host) == (outcome[0].id, "Chrome on Android", "127.0.0.1")
        assert (first.endpoint_hash, first.last_used_at, other.label) == (hashed, UNSET, UNSET)
        assert b"very-secret" not in msgspec.json.encode([first, other])
        await offered(world, node, mechanic_id)
        await eventually(lambda: used(node, mechanic_id), "it was of use")
        assert {one.id for one in await node.push.of(mechanic_id) if one.last_used_at is not UNSET} == {first.id}
        # Without a label it keeps the one that it had.
        await node.push.subscribe(mechanic_id, phone.subscription)
        assert {one.label for one in await node.push.of(mechanic_id)} == {"Chrome on Android", UNSET}


async def used(node: Node, account_id: str) -> bool:
    return any(one.last_used_at is not UNSET for one in await node.push.of(account_id))


async def test_a_device_is_forgotten_by_its_id_and_nobody_elses(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world) as node:
        mine, other = await world.mechanics(2)
        await node.push.subscribe(mine, Browser("http://127.0.0.1:9/phone").subscription)
        [device] = await node.push.of(mine)
        assert isinstance(await node.push.unsubscribe_one(other, device.id), NotFound)
        assert (await world.row(tables.Mechanic, mine)).has_push
        assert await node.push.unsubscribe_one(mine, device.id) is None
        assert not (await world.row(tables.Mechanic, mine)).has_push
        assert isinstance(await node.push.unsubscribe_one(mine, device.id), NotFound)


async def test_a_trial_reaches_the_browser_that_is_named_and_three_a_minute_do(database_url, redis_url):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as node,
        running_push_service() as service,
    ):
        customer, other = await world.customer(), await world.customer()
        phone, laptop = service.browser("phone"), service.browser("laptop")
        for browser in (phone, laptop):
            await node.push.subscribe(customer, browser.subscription)
        assert await node.push.try_out(customer, phone.endpoint) is None
        ((name, headers, sealed),) = await eventually(lambda: service.got, "the trial")
        assert (name, phone.read(sealed)) == ("phone", {"type": "test"})
        assert int(headers["ttl"]) <= 60
        assert await node.push.try_out(customer, None) is None
        await eventually(lambda: len(service.got) == 3, "to both")
        refused = await node.push.try_out(other, phone.endpoint)
        assert isinstance(refused, Refused)
        assert refused.code == "no_subscription"
        # Side by side, too, there is but one left.
        outcomes = await side_by_side(*(partial(node.push.try_out, customer, phone.endpoint) for _ in range(4)))
        too_many = [one for one in outcomes if isinstance(one, TooMany)]
        assert (outcomes.count(None), len(too_many)) == (1, 3)
        assert all(1 <= one.retry_after_s <= 60 for one in too_many)


async def test_trials_count_though_their_browser_is_unsubscribed_and_subscribed_again(database_url, redis_url):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as node,
        running_push_service() as service,
    ):
        customer, other, phone = await world.customer(), await world.customer(), service.browser("phone")
        outcomes = []
        for _ in range(4):
            await node.push.subscribe(customer, phone.subscription)
            outcomes.append(await node.push.try_out(customer, None))
            await node.push.unsubscribe(customer, phone.endpoint)
        assert outcomes[:3] == [None, None, None]
        assert isinstance(outcomes[3], TooMany)
        # It is the account's limit, and not the browser's.
        await node.push.subscribe(other, phone.subscription)
        assert await node.push.try_out(other, None) is None


async def test_trials_that_do_not_count_any_more_are_forgotten(database_url, redis_url):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as node,
        running_push_service() as service,
    ):
        customer = await world.customer()
        await node.push.subscribe(customer, service.browser("phone").subscription)
        for _ in range(3):
            assert await node.push.try_out(customer, None) is None
        for trial in await world.rows(tables.PushTrial):
            await world.update(tables.PushTrial, trial.id, expires_at_ms=1)
        assert await node.push.try_out(customer, None) is None
        assert len(await world.rows(tables.PushTrial)) == 1


async def test_one_device_too_many_replaces_the_oldest(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world) as a:
        mechanic_id = await world.mechanic()
        for number in range(SUBSCRIPTIONS_MAX + 1):
            await a.push.subscribe(mechanic_id, Browser(f"http://127.0.0.1:9/{number}").subscription)
        kept = await world.rows(tables.PushSubscription)
        assert [row.endpoint.rsplit("/")[-1] for row in kept] == [str(n) for n in range(1, SUBSCRIPTIONS_MAX + 1)]


# --- when a favourite is woken ----------------------------------------------------------------------------------------


@asynccontextmanager
async def a_favorite_who_is_here(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[World, Node, PushService, str, Browser]]:
    """A favourite with a socket and a browser that can be woken; a second is a hundred milliseconds."""
    monkeypatch.setattr(rules, "ACKNOWLEDGED_WITHIN_MS", 500)
    monkeypatch.setattr(rules, "SEEN_WITHIN_MS", 1_500)
    monkeypatch.setattr(planner, "POLL_S", 0.3)
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as node,
        running_push_service() as service,
    ):
        favorite, browser = await world.mechanic(), service.browser()
        await node.push.subscribe(favorite, browser.subscription)
        node.presence.joined(favorite)
        await eventually(lambda: is_reachable_by(node, favorite, "socket"), "connected")
        yield world, node, service, favorite, browser


async def opened_at_ms(world: World, offer_id: str) -> int:
    return (await world.row(tables.Offer, offer_id)).opened_at_ms


async def test_a_favorite_whose_app_does_not_acknowledge_is_woken_after_five_seconds(
    database_url, redis_url, monkeypatch
):
    async with a_favorite_who_is_here(database_url, redis_url, monkeypatch) as (world, node, service, favorite, _):
        request = await offered(world, node, favorite)
        await eventually(lambda: service.got, "the push")
        assert node.clock.now_ms() >= await opened_at_ms(world, request.offer.id) + rules.ACKNOWLEDGED_WITHIN_MS


async def test_a_favorite_who_does_not_see_the_offer_is_woken_after_fifteen_seconds(
    database_url, redis_url, monkeypatch
):
    async with a_favorite_who_is_here(database_url, redis_url, monkeypatch) as (world, node, service, favorite, _):
        request = await offered(world, node, favorite)
        await node.dispatch.acknowledge(favorite, request.offer.id)
        await eventually(lambda: service.got, "the push")
        assert node.clock.now_ms() >= await opened_at_ms(world, request.offer.id) + rules.SEEN_WITHIN_MS
        assert len(service.got) == 1


async def test_a_favorite_who_saw_the_offer_is_woken_only_when_their_last_socket_goes(
    database_url, redis_url, monkeypatch
):
    async with a_favorite_who_is_here(database_url, redis_url, monkeypatch) as (world, node, service, favorite, _):
        request = await offered(world, node, favorite)
        await node.dispatch.acknowledge(favorite, request.offer.id, seen=True)
        seen_by_ms = await opened_at_ms(world, request.offer.id) + rules.SEEN_WITHIN_MS
        await eventually(lambda: node.clock.now_ms() > seen_by_ms + 200, "time passes")
        assert service.got == []
        node.presence.left(favorite)
        await eventually(lambda: service.got, "the push")
        # Once per offer and browser, however often they come and go.
        node.presence.joined(favorite)
        await eventually(lambda: is_reachable_by(node, favorite, "socket"), "here again")
        node.presence.left(favorite)
        await eventually(lambda: is_reachable_by(node, favorite, "push"), "gone again")
        await offered(world, node, favorite)
        await eventually(lambda: len(service.got) == 2, "the push of another offer")
        assert len({headers["topic"] for _, headers, _ in service.got}) == 2
        story = [line.event for line in await world.rows(tables.TimelineEntry, request_id=request.id)]
        assert story[-2:] == ["delivered", "seen"]


async def test_an_offer_that_was_pushed_and_has_ended_replaces_its_notification(database_url, redis_url):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as node,
        running_push_service() as service,
    ):
        favorite, browser = await world.mechanic(), service.browser()
        await node.push.subscribe(favorite, browser.subscription)
        request = await offered(world, node, favorite)
        await eventually(lambda: service.got, "the push")
        await node.dispatch.cancel((await world.row(tables.SessionRequest, request.id)).customer_id, request.id)
        await eventually(lambda: len(service.got) == 2, "its end")
        (_, first, _), (_, second, sealed) = service.got
        assert first["topic"] == second["topic"] == request.id
        assert browser.read(sealed) == {
            "type": "offer_withdrawn",
            "offer_id": request.offer.id,
            "reason": "cancelled",
        }


@pytest.mark.bugs_planted
async def test_an_end_that_cannot_be_told_keeps_no_other_from_being_told(database_url, redis_url, monkeypatch):
    told = planner.MARK_UNPUSHED
    poisoned: set[str] = set()

    def mark_unpushed(*, offer_id: str, at_ms: int) -> Transaction[list[Named]]:
        if offer_id in poisoned:
            raise ValueError("a bug")
        return told(offer_id=offer_id, at_ms=at_ms)

    monkeypatch.setattr(planner, "MARK_UNPUSHED", mark_unpushed)
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as node,
        running_push_service() as service,
    ):
        favorite = await world.mechanic()
        await node.push.subscribe(favorite, service.browser().subscription)
        # The looks go by the offers' ids: the first to have ended is the one that fails.
        requests = [await offered(world, node, favorite) for _ in range(2)]
        await eventually(lambda: len(service.got) == 2, "the pushes")
        assert requests[0].offer is not None
        poisoned.add(requests[0].offer.id)
        for request in requests:
            await node.dispatch.cancel((await world.row(tables.SessionRequest, request.id)).customer_id, request.id)
        await eventually(lambda: len(service.got) == 3, "the end of the other")
        assert service.got[2][1]["topic"] == requests[1].id


async def test_a_push_that_a_node_has_planned_and_not_sent_is_sent_by_another(database_url, redis_url):
    async with (
        running_world(database_url, redis_url) as world,
        running_push_service() as service,
    ):
        favorite = await world.mechanic()
        async with running_node(world, without=("push",)) as dying:
            await dying.push.subscribe(favorite, service.browser().subscription)
            request = await offered(world, dying, favorite)
            await eventually(lambda: world.rows(tables.PushMessage), "planned")
        assert service.got == []
        async with running_node(world) as other:
            await eventually(lambda: service.got, "the push")
            assert other.heard == []
        assert [row.about_id for row in await world.rows(tables.PushMessage)] == [request.offer.id]


async def test_two_nodes_push_an_offer_once(database_url, redis_url):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as a,
        running_node(world) as b,
        running_push_service() as service,
    ):
        favorite = await world.mechanic()
        await a.push.subscribe(favorite, service.browser("phone").subscription)
        await a.push.subscribe(favorite, service.browser("tablet").subscription)
        requests = [await offered(world, node, favorite) for node in (a, b, a, b)]
        await eventually(lambda: len(service.got) >= 8, "the pushes")
        told = Counter((name, headers["topic"]) for name, headers, _ in service.got)
        assert told == {(name, one.id): 1 for name in ("phone", "tablet") for one in requests}


def in_some_seconds() -> str:
    """Return when that is, as HTTP says it, in whole seconds: two or more after whatever happens within a second."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=4), usegmt=True)


@pytest.mark.parametrize("retry_after", [lambda: "2", in_some_seconds], ids=["seconds", "a date"])
async def test_a_push_service_that_names_a_time_is_left_alone_until_then(database_url, redis_url, retry_after):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as node,
        running_push_service() as service,
    ):
        favorite = await world.mechanic()
        await node.push.subscribe(favorite, service.browser().subscription)
        service.answers, service.retry_after = [429], retry_after()
        await offered(world, node, favorite)
        await eventually(lambda: len(service.got) == 2, "the second try")
        first_s, second_s = service.got_at_s
        assert second_s - first_s >= 1.9


@pytest.mark.parametrize("retry_after", [None, "3600"], ids=["by backoff", "when the service says"])
async def test_no_offer_is_pushed_after_its_window(database_url, redis_url, monkeypatch, retry_after: str | None):
    monkeypatch.setattr(rules, "RETRY_FIRST_MS", 50)
    hurried = replace(PATIENT, priority_window_ms=1_000)
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, hurried) as node,
        running_push_service() as service,
    ):
        favorite, browser = await world.mechanic(), service.browser()
        await node.push.subscribe(favorite, browser.subscription)
        service.answers, service.retry_after = [503] * 1_000, retry_after
        request = await offered(world, node, favorite)
        first = await eventually(lambda: service.got[:1], "a try")
        assert browser.read(first[0][2])["type"] == "offer"
        if retry_after:
            # That is beyond the window, so it is given up at once.
            [message] = await eventually(lambda: done(world), "it is given up")
            assert message.attempts == 1
        await eventually(lambda: has_ended(world, request.offer.id), "the window has ended")
        await eventually(lambda: len(service.got) > tries_of(service, browser, "offer"), "its end is told")
        count = tries_of(service, browser, "offer")
        await eventually(
            lambda: tries_of(service, browser, "offer_withdrawn") >= (1 if retry_after else 3), "on it goes"
        )
        assert tries_of(service, browser, "offer") == count


async def done(world: World) -> list[tables.PushMessage]:
    return [one for one in await world.rows(tables.PushMessage) if one.done_at_ms is not None]


async def has_ended(world: World, offer_id: str) -> bool:
    return (await world.row(tables.Offer, offer_id)).unpushed_at_ms is not None


def tries_of(service: PushService, browser: Browser, kind: str) -> int:
    return [browser.read(sealed)["type"] for _, _, sealed in service.got].count(kind)


async def test_a_subscription_that_is_forbidden_twice_is_over(database_url, redis_url, monkeypatch):
    monkeypatch.setattr(rules, "RETRY_FIRST_MS", 10)
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as node,
        running_push_service() as service,
    ):
        favorite = await world.mechanic()
        await node.push.subscribe(favorite, service.browser().subscription)
        service.answers = [403, 403]
        await offered(world, node, favorite)
        await eventually(lambda: is_reachable_by(node, favorite, "none"), "not reachable any more")
        assert await world.rows(tables.PushSubscription) == []


async def test_open_requests_wake_those_who_asked_for_it_the_last_seen_first(database_url, redis_url):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, replace(PATIENT, broadcast_push_max=2)) as node,
        running_push_service() as service,
    ):
        here, not_asked, off_duty, *asked = await world.mechanics(6)
        for number, mechanic_id in enumerate((here, not_asked, off_duty, *asked)):
            await node.push.subscribe(mechanic_id, service.browser(mechanic_id).subscription)
            await world.update(
                tables.Mechanic,
                mechanic_id,
                push_broadcasts=mechanic_id != not_asked,
                on_duty=mechanic_id != off_duty,
                last_seen_at_ms=number,
            )
        node.presence.joined(here)
        await eventually(lambda: is_reachable_by(node, here, "socket"), "connected")
        answer = await node.checkouts.start(await world.customer(), body("free_diagnostic", None))
        assert isinstance(answer, FreeCheckout)
        await eventually(lambda: len(service.got) == 2, "the pushes")
        assert {name for name, _, _ in service.got} == set(asked[-2:])


async def test_who_falls_asleep_just_before_a_request_opens_is_woken_once_they_are_known_to_be_away(
    database_url, redis_url
):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, replace(PATIENT, broadcast_push_max=2)) as node,
        running_push_service() as service,
    ):
        asleep, away, *others = await world.mechanics(4)
        for mechanic_id in (asleep, away, *others):
            await node.push.subscribe(mechanic_id, service.browser(mechanic_id).subscription)
        for mechanic_id in (asleep, away):
            await world.update(tables.Mechanic, mechanic_id, push_broadcasts=True)
        # As far as anybody knows, their phone is awake.
        node.presence.joined(asleep)
        await eventually(lambda: is_reachable_by(node, asleep, "socket"), "connected")
        answer = await node.checkouts.start(await world.customer(), body("free_diagnostic", None))
        assert isinstance(answer, FreeCheckout)
        await eventually(lambda: [name for name, _, _ in service.got] == [away], "one is woken")
        # More than may be woken ask for it now; one place is left.
        for mechanic_id in others:
            await world.update(tables.Mechanic, mechanic_id, push_broadcasts=True)
        node.presence.left(asleep)
        await eventually(lambda: is_reachable_by(node, asleep, "push"), "known to be away")
        (offer,) = await world.rows(tables.Offer)
        long_ago_ms = node.clock.now_ms() - node.presence.unnoticed_ms
        await world.update(tables.Offer, offer.id, pushed_at_ms=long_ago_ms)
        await eventually(lambda: len(service.got) == 2, "the other push")
        assert [name for name, _, _ in service.got] == [away, asleep]
        (offer,) = await world.rows(tables.Offer)
        assert offer.looked_again_at_ms is not None
