"""One item that cannot be handled, in each of the background loops: it costs itself attempts, and nobody else anything.

Each test puts the poison in front of good items, on real parts. The good ones are done within ``SOON_S``; the poison is counted,
set aside where an operator sees it, left alone by the next start, and taken up again once it is mended.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import anyio
import pytest
from sqlalchemy import text

from dispatch import awaited, deliveries, elapsing
from dispatch.failures import NEVER_MS
from dispatch.money.stripe_events import StripeEvents, UnfinishedEvent
from dispatch.notices import Notice
from dispatch.outbox import Message, Outbox
from dispatch.push import rules
from dispatch.reading.ops import OpsReader
from infra.bus import together
from infra.database import within
from infra.metrics import REGISTRY
from models import tables
from models.ids import new_id
from models.outcomes import Refused
from models.rest import FreeCheckout, PushKeys, PushSubscribeBody
from models.settings import DispatchSettings
from tests.integration.money import checkout, session_id_of, signed
from tests.integration.push_browsers import Browser, is_reachable_by, plant, running_push_service
from tests.parts import HURRIED, PATIENT, World, body, eventually, running_node, running_world

pytestmark = [
    pytest.mark.bugs_planted,
    pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning"),
]

SOON_S = 5.0
"""A second is promised; a machine that does other things besides gets more."""
on_sqlite = pytest.mark.parametrize("database_kind", ["sqlite"])


def impatient(settings: DispatchSettings = PATIENT) -> DispatchSettings:
    """Return the settings, with little patience for what fails."""
    return replace(settings, outbox_lease_ms=400, failure_retry_first_ms=30, failure_retry_max_ms=60, failures_max=3)


def counted(metric: str, work: str) -> float:
    return REGISTRY.get_sample_value(f"pitlane_items_{metric}_total", {"work": work}) or 0


async def set_aside(world: World) -> list[tuple[str, str, int]]:
    """Return what an operator is shown: the kind of work, the row, and how often it has failed."""
    node = world.nodes[0]
    ops = OpsReader(database=world.database, clock=node.clock, presence=node.presence, outbox=node.outbox)
    return [(one.work, one.id, one.failures) for one in (await ops.snapshot()).set_aside]


async def is_set_aside(world: World, work: str, row_id: str) -> bool:
    return (work, row_id) in [(kind, found) for kind, found, _ in await set_aside(world)]


async def execute(world: World, statement: str, **values: object) -> None:
    async with world.database.write() as session:
        await (await session.connection()).execute(text(statement), values)


async def write_as_yesterday(world: World, kind: str, payload: str) -> str:
    """Leave a message in the outbox as the version before this one would, its lease over; return its id."""
    row_id = new_id()
    cast = "CAST(:payload AS JSON)" if world.database_url.startswith("postgresql") else ":payload"
    await execute(
        world,
        f"INSERT INTO outbox (id, kind, payload, leased_until_ms) VALUES (:id, :kind, {cast}, 1)",
        id=row_id,
        kind=kind,
        payload=payload,
    )
    return row_id


# --- the outbox -------------------------------------------------------------------------------------------------------

POISONS = {
    "another shape": ("offer_closed", '{"offer": "01J"}'),
    "another type": ("request_changed", '{"request_id": 7}'),
    "no object": ("facts_changed", "[]"),
    "a reason that there is not": ("offer_closed", '{"offer_id": "o", "reason": "eaten"}'),
    "a kind that there is not": ("tea_is_ready", "{}"),
    "a request that there is not": ("request_changed", '{"request_id": "nobody", "tell": []}'),
    "a session that there is not": ("favorite_prompt", '{"request_id": "nobody", "mechanic_id": "nobody"}'),
}


@pytest.mark.parametrize("poison", POISONS.values(), ids=POISONS.keys())
async def test_a_message_that_cannot_be_told_is_set_aside_and_keeps_no_other_from_being_told(
    database_url, redis_url, poison: tuple[str, str]
):
    async with running_world(database_url, redis_url) as world:
        failed, aside = counted("failed", "outbox"), counted("set_aside", "outbox")
        poisoned = await write_as_yesterday(world, *poison)
        async with running_node(world, impatient()) as node:
            answer = await node.checkouts.start(await world.customer(), body("free_diagnostic"))
            assert isinstance(answer, FreeCheckout)
            await eventually(lambda: node.updates_of(answer.request.id), "the other is told", within_s=SOON_S)
            await eventually(partial(is_set_aside, world, "outbox", poisoned), "set aside")
        assert counted("failed", "outbox") - failed == impatient().failures_max
        assert counted("set_aside", "outbox") - aside == 1
        # The next start leaves it alone, as does a version that knows nothing of this: it never falls due.
        async with running_node(world, impatient()) as node:
            await anyio.sleep(impatient().outbox_lease_ms / 1000 * 2)
        row = await world.row(tables.OutboxMessage, poisoned)
        assert (row.failures, row.leased_until_ms) == (impatient().failures_max, NEVER_MS)
        assert row.last_error


@on_sqlite
@pytest.mark.parametrize("payload", ["{", "cast(x'ff' as text)"], ids=["no JSON", "no UTF-8"])
async def test_a_message_that_cannot_be_read_is_set_aside(database_url, redis_url, payload: str):
    # PostgreSQL refuses to store either.
    async with running_world(database_url, redis_url) as world:
        value = payload if payload.startswith("cast") else f"'{payload}'"
        await execute(
            world,
            f"INSERT INTO outbox (id, kind, payload, leased_until_ms) VALUES ('poison', 'facts_changed', {value}, 1)",
        )
        good = await write_as_yesterday(world, "offer_closed", '{"offer_id": "o", "reason": "taken"}')
        async with running_node(world, impatient()) as node:
            await eventually(lambda: node.heard_of(deliveries.Withdraw), f"{good} is told", within_s=SOON_S)
            await eventually(partial(is_set_aside, world, "outbox", "poison"), "set aside")


@pytest.mark.parametrize("failures", [-5, 2**31 - 1])
async def test_counting_does_not_fail_by_what_stands_there(database_url, redis_url, failures: int):
    async with running_world(database_url, redis_url) as world:
        poisoned = await write_as_yesterday(world, "tea_is_ready", "{}")
        await execute(world, "UPDATE outbox SET failures = :failures", failures=failures)
        async with running_node(world, impatient()):
            await eventually(partial(is_set_aside, world, "outbox", poisoned), "set aside")


async def test_a_crowd_that_cannot_be_told_does_not_keep_a_good_one_waiting(database_url, redis_url):
    async with running_world(database_url, redis_url) as world:
        for _ in range(20):
            rows = ", ".join(f"('{new_id()}', 'tea_is_ready', '{{}}', 1)" for _ in range(100))
            await execute(world, f"INSERT INTO outbox (id, kind, payload, leased_until_ms) VALUES {rows}")
        await write_as_yesterday(world, "offer_closed", '{"offer_id": "o", "reason": "taken"}')
        async with running_node(world, replace(impatient(), failures_max=50)) as node:
            # Behind two thousand that fall due again and again: it comes once each of them has had its first turn.
            await eventually(lambda: node.heard_of(deliveries.Withdraw), "it is told", within_s=3 * SOON_S)


async def test_what_yesterdays_version_wrote_is_told(database_url, redis_url):
    # Without a member that came later, and with one that is gone by now.
    async with running_world(database_url, redis_url) as world:
        await write_as_yesterday(world, "offer_closed", '{"offer_id": "o", "reason": "taken", "once_was": 1}')
        async with running_node(world, impatient()) as node:
            await eventually(lambda: node.heard_of(deliveries.Withdraw), "it is told")
            await eventually(partial(has_no_rows, world, tables.OutboxMessage), "and forgotten")
            assert await set_aside(world) == []


async def has_no_rows(world: World, table: type[Any]) -> bool:
    return await world.rows(table) == []


class Numbered(Notice, frozen=True):
    """A notice for a handler that cannot stand one number."""

    kind: ClassVar[str] = "numbered"
    n: int


async def test_a_handler_that_raises_at_one_of_three_hundred_tells_the_others(database_url, redis_url):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, without=("outbox",)) as node,
    ):
        told: set[int] = set()
        calls = 0

        async def tell(notices: Sequence[Numbered]) -> None:
            nonlocal calls
            calls += 1
            if any(notice.n == 137 for notice in notices):
                raise KeyError("no such thing")
            told.update(notice.n for notice in notices)

        outbox = Outbox(node.database, node.clock, impatient())
        outbox.on(tell, Numbered)
        messages = [Message.of(Numbered(n)) for n in range(300)]
        async with node.database.write() as session:
            await within(session, outbox.add(messages))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(outbox.run)
            with anyio.fail_after(SOON_S):
                outbox.post(messages)
                await outbox.drained()
            assert told == set(range(300)) - {137}
            # Halved nine times, not told one by one.
            assert calls <= 2 * 10
            await eventually(partial(is_set_aside, world, "outbox", messages[137].id), "set aside")
            tasks.cancel_scope.cancel()
        assert [row.id for row in await world.rows(tables.OutboxMessage)] == [messages[137].id]


# --- Stripe's events --------------------------------------------------------------------------------------------------


async def test_an_event_whose_handling_raises_is_set_aside_and_the_others_are_worked_on(database_url, redis_url):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, without=("payments",)) as node,
    ):
        handled: list[str] = []

        async def handle(event: UnfinishedEvent) -> None:
            if event.object_id == "cs_poison":
                raise KeyError("no such thing")
            handled.append(event.object_id)

        inbox = StripeEvents(node.database, node.clock, node.stripe_api, handle)
        for object_id in ("cs_poison", "cs_1", "cs_2"):
            event = {"id": f"evt_{object_id}", "object": "event", "type": "x", "data": {"object": {"id": object_id}}}
            assert await inbox.receive(*signed(event)) is None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(inbox.run)
            await eventually(lambda: sorted(handled) == ["cs_1", "cs_2"], "the others are", within_s=SOON_S)

            async def fall_due_again() -> bool:
                if await is_set_aside(world, "stripe_events", "evt_cs_poison"):
                    return True
                await execute(world, "UPDATE stripe_events SET next_attempt_at_ms = 1 WHERE set_aside_at_ms IS NULL")
                return False

            await eventually(fall_due_again, "set aside")
            tasks.cancel_scope.cancel()
        row = await world.row(tables.StripeEvent, "evt_cs_poison")
        assert (row.processed_at_ms, row.next_attempt_at_ms) == (None, NEVER_MS)
        assert row.last_error == "KeyError: 'no such thing'"


@on_sqlite
async def test_an_event_whose_payload_is_no_json_is_worked_on_nevertheless(database_url, redis_url, tmp_path):
    # What is not needed is not read: it must not fail the claim of all others.
    async with running_world(database_url, redis_url, tmp_path) as world:
        await execute(
            world,
            "INSERT INTO stripe_events (id, type, payload, received_at_ms, attempts, next_attempt_at_ms) "
            "VALUES ('evt_1', 'x', '{', 1, 0, 1)",
        )
        async with running_node(world):

            async def is_processed() -> bool:
                async with world.database.read() as session:
                    found = await session.exec(text("SELECT processed_at_ms FROM stripe_events"))  # type: ignore[call-overload]
                    return found.scalar() is not None

            await eventually(is_processed, "worked on")


# --- refunds ----------------------------------------------------------------------------------------------------------


async def test_a_refund_whose_asking_raises_is_shown_and_tried_on_while_the_others_are_paid_back(
    database_url, redis_url, tmp_path, monkeypatch
):
    settings = replace(impatient(), refund_retry_first_ms=50, refund_retry_max_ms=100)
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world, settings) as node:
        requests = [
            await world.paid_request(node, customer_id := await world.customer(), plan=plan)
            for plan in ("quick_chat",) * 3
        ]
        customers = [row.customer_id for row in await world.rows(tables.SessionRequest)]
        poisoned = requests[0].id
        ask, is_poisonous = node.stripe_api.refund, True

        async def raise_at_one(params: Any, **more: Any) -> Any:
            owed = await world.row(tables.Refund, params["metadata"]["refund_id"])
            if is_poisonous and owed.request_id == poisoned:
                raise KeyError("no such thing")
            return await ask(params, **more)

        monkeypatch.setattr(node.stripe_api, "refund", raise_at_one)
        for customer_id, request in zip(customers, requests, strict=True):
            await node.dispatch.cancel(customer_id, request.id)

        async def refunds(status: str) -> list[tables.Refund]:
            return await world.rows(tables.Refund, status=status)

        async def are_paid_back(count: int) -> bool:
            return len(await refunds("succeeded")) == count

        await eventually(partial(are_paid_back, 2), "the others are paid back", within_s=SOON_S)
        (owed,) = await refunds("pending")
        await eventually(partial(is_set_aside, world, "refunds", owed.id), "an operator sees it")
        assert (await world.row(tables.Refund, owed.id)).next_attempt_at_ms < NEVER_MS
        is_poisonous = False
        await eventually(partial(are_paid_back, 3), "paid back as soon as that works again")
        assert await set_aside(world) == [], "an operator has nothing to do any more"


# --- windows ----------------------------------------------------------------------------------------------------------


async def test_a_window_that_cannot_be_ended_is_shown_and_tried_on_while_the_others_end_on_time(
    database_url, redis_url
):
    settings = impatient(replace(HURRIED, priority_window_ms=2_000, broadcast_window_ms=60_000))
    async with running_world(database_url, redis_url) as world, running_node(world, settings) as node:
        offers = []
        for _ in range(3):
            answer = await node.checkouts.start(await world.customer(), body("free_diagnostic", await world.mechanic()))
            assert isinstance(answer, FreeCheckout)
            offers.append(answer.request.offer)
        poisoned = (await world.row(tables.Offer, offers[0].id)).request_id
        await execute(world, "UPDATE session_requests SET status = 'eaten' WHERE id = :id", id=poisoned)

        async def are_closed(count: int) -> bool:
            return len(await world.rows(tables.Offer, close_reason="expired")) == count

        await eventually(partial(are_closed, 2), "the others end", within_s=settings.priority_window_ms / 1000 + SOON_S)
        await eventually(partial(is_set_aside, world, "windows", offers[0].id), "an operator sees it", within_s=30)
        await execute(world, "UPDATE session_requests SET status = 'priority_offered' WHERE id = :id", id=poisoned)
        await eventually(partial(are_closed, 3), "ended as soon as that works again")
        assert await set_aside(world) == [], "an operator has nothing to do any more"


NO_LIMIT = "limit_id = NULL, limit_of_ms = NULL, limit_expires_at_ms = NULL, limit_rings_at_ms = NULL"


async def test_a_request_that_cannot_be_given_its_missing_limit_is_shown_and_keeps_no_other_from_its_own(
    database_url, redis_url, monkeypatch
):
    monkeypatch.setattr(elapsing, "LIMITS_BATCH", 2)
    settings = impatient(replace(PATIENT, reconcile_interval_ms=50))
    async with running_world(database_url, redis_url) as world:
        async with running_node(world, settings, without=("elapsing",)) as node:
            ids: list[str] = []
            for mechanic_id in await world.mechanics(5):
                answer = await node.checkouts.start(await world.customer(), body("free_diagnostic", mechanic_id))
                assert isinstance(answer, FreeCheckout) and answer.request.offer is not None
                now_ms = node.clock.now_ms()
                await node.dispatch.accept(mechanic_id, answer.request.offer.id, received_at_ms=now_ms)
                ids.append(answer.request.id)
            # Whole pages of them, before and after those that can be given theirs.
            poisoned, good = [*ids[:2], *ids[3:]], ids[2]
            await execute(world, f"UPDATE session_requests SET {NO_LIMIT}")
            for request_id in poisoned:
                await execute(
                    world, "UPDATE session_requests SET fallback_reason = 'eaten' WHERE id = :id", id=request_id
                )
        async with running_node(world, settings):

            async def have_limits(request_ids: Sequence[str]) -> bool:
                rows = [await world.row(tables.SessionRequest, request_id) for request_id in request_ids]
                return all(row.limit_id is not None for row in rows)

            await eventually(partial(have_limits, [good]), "the others get theirs", within_s=SOON_S)
            for request_id in poisoned:
                await eventually(partial(is_set_aside, world, "requests", request_id), "an operator sees it")
            await execute(world, "UPDATE session_requests SET fallback_reason = NULL")
            await eventually(partial(have_limits, poisoned), "set as soon as that works again")
            assert await set_aside(world) == [], "an operator has nothing to do any more"
            assert {row.failures for row in await world.rows(tables.SessionRequest)} == {0}


async def test_whoever_waits_and_cannot_be_told_of_a_busy_favourite_is_shown_and_keeps_no_other_from_hearing(
    database_url, redis_url, monkeypatch
):
    monkeypatch.setattr(awaited, "BATCH", 2)
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, impatient(replace(PATIENT, reconcile_interval_ms=50))) as node,
    ):
        favorite = await world.mechanic()
        answers = [
            await node.checkouts.start(await world.customer(), body("free_diagnostic", favorite)) for _ in range(6)
        ]
        requests = [answer.request for answer in answers if isinstance(answer, FreeCheckout)]
        # Whole pages of them, before and after the one who can be told.
        poisoned, good = [one.id for one in (*requests[:2], *requests[3:5])], requests[2].id
        for request_id in poisoned:
            await execute(world, "UPDATE session_requests SET fallback_reason = 'eaten' WHERE id = :id", id=request_id)
        taken = requests[5].offer
        assert taken is not None
        await node.dispatch.accept(favorite, taken.id, received_at_ms=node.clock.now_ms())

        async def are_told(request_ids: Sequence[str]) -> bool:
            told = [await world.rows(tables.Offer, request_id=request_id) for request_id in request_ids]
            return all(offer.mechanic_is_busy for (offer,) in told)

        await eventually(partial(are_told, [good]), "the other one is told", within_s=SOON_S)
        for request_id in poisoned:
            await eventually(partial(is_set_aside, world, "requests", request_id), "an operator sees it")
        await execute(world, "UPDATE session_requests SET fallback_reason = NULL")
        await eventually(partial(are_told, poisoned), "told as soon as that works again")
        assert await set_aside(world) == [], "an operator has nothing to do any more"


@pytest.mark.parametrize("which", ["index", "began"])
async def test_a_key_of_the_clock_that_is_of_another_type_keeps_no_window_from_ending(
    database_url, redis_url, which: str
):
    settings = impatient(replace(PATIENT, priority_window_ms=500, reconcile_interval_ms=200))
    async with running_world(database_url, redis_url) as world, running_node(world, settings) as node:
        key = node.link.key("deadlines", which)
        eaten = "redis.call('DEL', KEYS[1]) return redis.call('LPUSH', KEYS[1], 'eaten')"
        await node.link.ask(key, lambda redis: redis.eval(eaten, 1, key))
        answer = await node.checkouts.start(await world.customer(), body("free_diagnostic", await world.mechanic()))
        assert isinstance(answer, FreeCheckout)

        async def is_broadcast() -> bool:
            return (await world.row(tables.SessionRequest, answer.request.id)).status == "broadcasting"

        await eventually(is_broadcast, "the window has ended", within_s=SOON_S)
        await eventually(lambda: len(node.heard_of(deliveries.OfferTo)) == 2, "both offers are told")
        assert {row.failures for row in await world.rows(tables.OutboxMessage)} <= {0}


@pytest.mark.parametrize("reason", ["\x00", "\u202e\u200b"])
async def test_a_reason_in_which_nothing_can_be_seen_is_refused_and_costs_the_customer_nothing(
    database_url, redis_url, reason: str
):
    # PostgreSQL cannot read a document with U+0000: the customer's request could not be read any more.
    async with running_world(database_url, redis_url) as world, running_node(world) as node:
        favorite, customer_id = await world.mechanic(), await world.customer()
        answer = await node.checkouts.start(customer_id, body("free_diagnostic", favorite))
        assert isinstance(answer, FreeCheckout)
        offer = answer.request.offer
        refused = await node.dispatch.decline(favorite, offer.id, reason)
        assert isinstance(refused, Refused) and refused.code == "validation_failed"
        assert await node.dispatch.decline(favorite, offer.id, f"{reason}no time") is True
        assert await node.dispatch.decline(favorite, offer.id, " ") is False, (
            "an empty field is no reason, and no mistake"
        )
        request = await node.dispatch.cancel(customer_id, answer.request.id)
        assert not isinstance(request, Refused)
        (declined,) = await world.rows(tables.TimelineEntry, request_id=request.id, event="declined")
        assert declined.details == {"mechanic_id": favorite, "reason": "no time"}


@pytest.mark.bugs_planted
async def test_an_offer_with_a_value_of_another_type_is_left_out_of_what_mechanics_see_and_the_others_stay(
    database_url, redis_url
):
    async with running_world(database_url, redis_url) as world, running_node(world) as node:
        if not node.database.is_sqlite:
            pytest.skip("PostgreSQL's columns have types.")
        mechanic_id = await world.mechanic()
        answers = [await node.checkouts.start(await world.customer(), body("free_diagnostic", None)) for _ in range(2)]
        first, second = [answer.request.offer.id for answer in answers if isinstance(answer, FreeCheckout)]
        await execute(world, "UPDATE offers SET opened_at_ms = 'soon' WHERE id = :id", id=first)
        found = await node.reader.offers([mechanic_id])
        assert [one.offer.offer_id for one in found[mechanic_id]] == [second]


async def test_an_offer_of_no_known_kind_keeps_no_deadline_from_being_restored(database_url, redis_url):
    settings = impatient(replace(PATIENT, reconcile_interval_ms=100))
    async with running_world(database_url, redis_url) as world:
        async with running_node(world, settings, without=("elapsing",)) as node:
            answers = [
                await node.checkouts.start(await world.customer(), body("free_diagnostic", await world.mechanic()))
                for _ in range(2)
            ]
            offers = [answer.request.offer.id for answer in answers if isinstance(answer, FreeCheckout)]
            await node.outbox.drained()
            await node.take_off_the_clock(*offers)
            await execute(world, "UPDATE offers SET kind = 'eaten', expires_at_ms = 1 WHERE id = :id", id=offers[0])
        async with running_node(world, settings) as node:

            async def is_on_the_clock() -> bool:
                key = node.link.key("deadlines", f"offer:{offers[1]}")
                return bool(await node.link.ask(key, lambda redis: redis.exists(key)))

            await eventually(is_on_the_clock, "restored")
            await eventually(partial(is_set_aside, world, "windows", offers[0]), "an operator sees the other")


async def test_words_of_a_later_version_keep_nobody_from_their_welcome(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world) as node:
        customer_id, mechanic_id = await world.customer(), await world.mechanic()
        offers = []
        for _ in range(2):
            answer = await node.checkouts.start(await world.customer(), body("free_diagnostic"))
            assert isinstance(answer, FreeCheckout)
            offers.append(answer.request.offer.id)
        answer = await node.checkouts.start(customer_id, body("free_diagnostic", mechanic_id))
        await execute(world, "UPDATE offers SET kind = 'auction' WHERE id = :id", id=offers[0])
        await execute(world, "UPDATE session_requests SET fallback_reason = 'auctioned', routing_type = 'auction'")
        snapshots = await node.reader.mechanic_snapshots([mechanic_id])
        assert set(offers) < {one.offer.offer_id for one in snapshots[mechanic_id].offers}
        assert await node.reader.open_requests([customer_id])


FAR_FUTURE_MS = 2**62


async def test_instants_that_make_no_sense_fail_no_answer_about_others(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world, impatient()) as node:
        customer_id, mechanic_id = await world.customer(), await world.mechanic()
        answers = [await node.checkouts.start(await world.customer(), body("free_diagnostic")) for _ in range(2)]
        offers = [answer.request.offer.id for answer in answers if isinstance(answer, FreeCheckout)]
        await execute(world, "UPDATE offers SET expires_at_ms = :at WHERE id = :id", at=FAR_FUTURE_MS, id=offers[0])
        await execute(world, "UPDATE session_requests SET created_at_ms = :at", at=-FAR_FUTURE_MS)
        snapshots = await node.reader.mechanic_snapshots([mechanic_id])
        assert {one.offer.offer_id for one in snapshots[mechanic_id].offers} == set(offers)
        assert await node.reader.open_requests([customer_id]) == {customer_id: []}
        await node.deadlines.schedule((offers[0], FAR_FUTURE_MS), (offers[1], FAR_FUTURE_MS))
        await execute(
            world,
            "INSERT INTO outbox (id, kind, payload, leased_until_ms, set_aside_at_ms) VALUES ('x', 'y', '{}', :at, :at)",
            at=FAR_FUTURE_MS,
        )
        assert await is_set_aside(world, "outbox", "x")


async def test_what_is_no_offer_among_the_deadlines_keeps_no_window_from_ending(database_url, redis_url):
    settings = impatient(replace(HURRIED, broadcast_window_ms=60_000))
    async with running_world(database_url, redis_url) as world, running_node(world, settings) as node:
        index = node.link.key("deadlines", "index")
        junk = {b"\xff\xfe": 1, b"": 1, b"no offer": 1}
        await node.link.ask(index, lambda redis: redis.zadd(index, junk))
        answer = await node.checkouts.start(await world.customer(), body("free_diagnostic", await world.mechanic()))
        assert isinstance(answer, FreeCheckout)

        async def has_ended() -> bool:
            return bool(await world.rows(tables.Offer, close_reason="expired"))

        await eventually(has_ended, "the window ends")

        async def is_clean() -> bool:
            return not await node.link.ask(index, lambda redis: redis.zrangebyscore(index, "-inf", 10_000_000_000))

        await eventually(is_clean, "what is none of ours is off the clock")


# --- push -------------------------------------------------------------------------------------------------------------

NO_KEYS = PushKeys("no", "keys")
TOO_SHORT = PushKeys("BAAA", "AAAA")


async def test_a_subscription_that_cannot_be_encrypted_for_is_set_aside_and_the_others_get_the_offer(
    database_url, redis_url
):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, impatient()) as node,
        running_push_service() as service,
    ):
        favorite, browser = await world.mechanic(), service.browser()
        await node.push.subscribe(favorite, browser.subscription)
        poisoned = await plant(world, favorite, PushSubscribeBody(f"{service.base}/push/poison", NO_KEYS))
        await eventually(partial(is_reachable_by, node, favorite, "push"), "reachable by push")
        for pushed in range(1, 4):
            answer = await node.checkouts.start(await world.customer(), body("free_diagnostic", favorite))
            assert isinstance(answer, FreeCheckout)
            await eventually(lambda count=pushed: len(service.got) == count, "pushed", within_s=SOON_S)
        await eventually(partial(is_set_aside, world, "push", poisoned), "set aside")
        # Subscribing anew is a new beginning.
        await node.push.subscribe(favorite, PushSubscribeBody(f"{service.base}/push/poison", browser.subscription.keys))
        assert await set_aside(world) == []


async def test_who_has_only_a_subscription_that_is_set_aside_is_not_shown_as_reachable(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world, impatient()) as node:
        favorite, browser = await world.mechanic(), Browser("http://127.0.0.1:9/poison")
        await node.push.subscribe(favorite, browser.subscription)
        (row,) = await world.rows(tables.PushSubscription)
        await world.update(tables.PushSubscription, row.id, p256dh=TOO_SHORT.p256dh, auth=TOO_SHORT.auth)
        await eventually(partial(is_reachable_by, node, favorite, "push"), "reachable by push")
        for _ in range(impatient().failures_max):
            await node.checkouts.start(await world.customer(), body("free_diagnostic", favorite))
        await eventually(partial(is_reachable_by, node, favorite, "none"), "honestly not reachable")


async def test_a_subscription_that_its_service_always_refuses_is_set_aside(database_url, redis_url, monkeypatch):
    monkeypatch.setattr(rules, "RETRY_FIRST_MS", 10)
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, impatient()) as node,
        running_push_service() as service,
    ):
        favorite = await world.mechanic()
        await node.push.subscribe(favorite, service.browser().subscription)
        service.answers = [400] * 100
        await eventually(partial(is_reachable_by, node, favorite, "push"), "reachable by push")
        for _ in range(impatient().failures_max):
            await node.checkouts.start(await world.customer(), body("free_diagnostic", favorite))
        await eventually(partial(is_reachable_by, node, favorite, "none"), "honestly not reachable")


# --- presence ---------------------------------------------------------------------------------------------------------


async def test_a_status_in_redis_that_makes_no_sense_is_mended_and_disturbs_nobody(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world) as node:
        poisoned, other = await world.mechanics(2)
        key = node.link.key("presence-0", "statuses")
        await node.link.ask(key, lambda redis: redis.hset(key, poisoned, "eaten"))
        node.presence.joined(poisoned)
        node.presence.joined(other)

        async def are_online() -> bool:
            statuses = await node.presence.status_of([poisoned, other])
            return all(statuses[mechanic_id].is_online for mechanic_id in (poisoned, other))

        await eventually(are_online, "both are online", within_s=SOON_S)
        node.presence.left(poisoned)
        node.presence.left(other)


async def test_a_count_of_nodes_that_is_no_number_keeps_nobody_from_coming_and_going(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world) as node:
        mechanics = await world.mechanics(2)
        key = node.link.key("presence-0", "holders")
        await node.link.ask(key, lambda redis: redis.hset(key, mechanics[0], "x"))
        for mechanic_id in mechanics:
            node.presence.joined(mechanic_id)

        async def are(is_online: bool) -> bool:
            statuses = await node.presence.status_of(mechanics)
            return all(status.is_online is is_online for status in statuses.values())

        await eventually(partial(are, True), "both are online")
        for mechanic_id in mechanics:
            node.presence.left(mechanic_id)
        await eventually(partial(are, False), "both are offline")


@on_sqlite
async def test_a_mechanic_whose_facts_make_no_sense_keeps_nobody_from_being_learned(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world) as node:
        failed = counted("failed", "presence_learn")
        poisoned, other = await world.mechanics(2)
        await execute(world, "UPDATE mechanics SET facts_version = 'eaten' WHERE id = :id", id=poisoned)
        node.presence.joined(poisoned)
        node.presence.joined(other)

        async def is_online() -> bool:
            return (await node.presence.status_of([other]))[other].is_online

        await eventually(is_online, "the other is online", within_s=SOON_S)
        await eventually(lambda: counted("failed", "presence_learn") > failed, "counted")
        node.presence.left(poisoned)
        node.presence.left(other)


# --- what nobody has told us of ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["session", "expire_session"], ids=["open checkouts", "superseded pages"])
@on_sqlite
async def test_a_page_whose_reconciling_raises_stands_in_nobodys_way(
    database_url, redis_url, tmp_path, monkeypatch, call: str
):
    async with (
        running_world(database_url, redis_url, tmp_path) as world,
        running_node(world, without=("superseded",)) as node,
    ):
        customers = [await world.customer() for _ in range(2)]
        sessions, older = [], []
        for customer_id in customers:
            opened = await checkout(node, customer_id)
            older.append(opened.checkout_id)
            sessions.append(await session_id_of(world, opened.checkout_id))
            if call == "expire_session":
                await checkout(node, customer_id)
            else:
                await world.hold_webhooks(opened.url)
                await world.pay(opened.url)
                await world.update(tables.Checkout, opened.checkout_id, created_at_ms=1)
        real = getattr(node.stripe_api, call)

        async def raise_at_the_first(session_id: str) -> Any:
            if session_id == sessions[0]:
                raise KeyError("no such thing")
            return await real(session_id)

        monkeypatch.setattr(node.stripe_api, call, raise_at_the_first)
        failed = counted("failed", "reconciler")
        _ = [repair async for repair in node.reconciler.repairs()]
        states = [(await world.row(tables.Checkout, checkout_id)).status for checkout_id in older]
        assert states == ["open", "expired" if call == "expire_session" else "paid"]
        assert counted("failed", "reconciler") > failed


async def test_expiring_an_older_page_that_raises_stands_in_nobodys_way(database_url, redis_url, tmp_path, monkeypatch):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as node:
        customers = [await world.customer() for _ in range(2)]
        older = [await checkout(node, customer_id) for customer_id in customers]
        poisoned = await session_id_of(world, older[0].checkout_id)
        expire = node.stripe_api.expire_session

        async def raise_at_one(session_id: str) -> Any:
            if session_id == poisoned:
                raise KeyError("no such thing")
            return await expire(session_id)

        monkeypatch.setattr(node.stripe_api, "expire_session", raise_at_one)
        for customer_id in customers:
            await checkout(node, customer_id)

        async def is_expired() -> bool:
            return (await world.row(tables.Checkout, older[1].checkout_id)).status == "expired"

        await eventually(is_expired, "the other one is expired", within_s=SOON_S)


# --- the bus ----------------------------------------------------------------------------------------------------------


async def test_a_listener_that_raises_keeps_no_other_from_hearing(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world) as node:
        heard: list[str] = []
        channel = node.link.key("test", "channel")

        def raise_at_all(_message: str) -> None:
            raise KeyError("no such thing")

        await node.bus.subscribe(channel, together(channel), handler=raise_at_all)
        await node.bus.subscribe(channel, together(channel), handler=heard.append)
        await node.bus.publish(channel, b"one", b"\xff\xfe", b"two")
        await eventually(lambda: heard[::2] == ["one", "two"], "heard", within_s=SOON_S)
