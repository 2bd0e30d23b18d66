"""From accept to done on two nodes: whoever must do something has a time limit, and whoever waits has a way out."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import jwt
from msgspec import UNSET
from sqlalchemy import text

from dispatch import deliveries
from dispatch.notices import MechanicToWake
from dispatch.outbox import Message
from models import tables
from models.outcomes import OfferGone, Refused
from models.settings import DispatchSettings
from models.wire import RequestView
from tests.integration.dispatch_nodes import accept, free_request, is_consistent, untimed
from tests.integration.push_browsers import PushService, running_push_service
from tests.parts import PATIENT, Node, World, eventually, running_node, running_world

SOON = replace(PATIENT, start_window_ms=600, session_grace_ms=400)
"""Time limits that end while a test looks on."""
SECRET = "a secret of forty bytes or more, for tests"


@asynccontextmanager
async def two_nodes(
    database_url: str, redis_url: str, settings: DispatchSettings = SOON
) -> AsyncIterator[tuple[World, Node, Node]]:
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, settings) as a,
        running_node(world, settings) as b,
    ):
        yield world, a, b


async def accepted(world: World, node: Node, mechanic_id: str) -> tuple[str, RequestView]:
    """Return a customer, and a request of theirs that the mechanic has accepted."""
    customer_id, request = await free_request(world, node, mechanic_id)
    assert request.offer is not None
    taken = await accept(node, mechanic_id, request.offer.id)()
    assert isinstance(taken, RequestView), taken
    return customer_id, taken


async def story(world: World, request_id: str) -> list[str]:
    return [entry.event for entry in await world.rows(tables.TimelineEntry, request_id=request_id)]


async def becomes(world: World, request_id: str, status: str) -> tables.SessionRequest:
    async def is_so() -> bool:
        return (await world.row(tables.SessionRequest, request_id)).status == status

    await eventually(is_so, f"it is {status}")
    return await world.row(tables.SessionRequest, request_id)


async def set_in_sql(world: World, request_id: str, **columns: int | str | None) -> None:
    """Change a request behind the nodes' back."""
    named = ", ".join(f"{name} = :{name}" for name in columns)
    async with world.database.write() as session:
        update = text(f"UPDATE session_requests SET {named} WHERE id = :id")
        await session.exec(update, params={"id": request_id, **columns})  # type: ignore[call-overload]


# --- the start window -------------------------------------------------------------------------------------------------


async def test_whoever_accepts_and_vanishes_is_reminded_loses_the_request_and_is_free(database_url, redis_url):
    async with two_nodes(database_url, redis_url) as (world, a, _):
        favorite, other = await world.mechanics(2)
        customer_id, request = await accepted(world, a, favorite)
        assert request.start is not None
        assert 0 < request.start.expires_in_ms <= 600
        assert (request.offer, request.ends) == (None, None)
        row = await becomes(world, request.id, "broadcasting")
        limit = await world.request(a, customer_id, request.id)
        assert (limit.start, limit.assigned_mechanic) == (None, None)
        assert row.limit_id is None
        assert await story(world, request.id) == [
            "requested",
            "offered",
            "accepted",
            "reminded",
            "no_show",
            "broadcast",
        ]
        by_event = {entry.event: entry for entry in await world.rows(tables.TimelineEntry, request_id=request.id)}
        accepted_at_ms = by_event["accepted"].at_ms
        assert by_event["reminded"].at_ms >= accepted_at_ms + 300, "not before half time"
        assert by_event["no_show"].at_ms >= accepted_at_ms + 600, "never early"
        mechanic = await world.row(tables.Mechanic, favorite)
        assert mechanic.active_request_id is None
        assert limit.offer is not None
        gone = await accept(a, favorite, limit.offer.id)()
        assert gone == OfferGone(detail="You had this request and did not start in time.")
        assert isinstance(await accept(a, other, limit.offer.id)(), RequestView)
        # The mechanic hears of each, too.
        told = [one for one in a.heard_of(deliveries.FrameToMechanic) if one.mechanic_id == favorite]
        assert len(told) >= 3
        await is_consistent(world, request.id)


async def test_who_starts_in_time_has_nothing_to_fear_from_the_start_window(database_url, redis_url):
    async with two_nodes(database_url, redis_url, replace(SOON, session_grace_ms=900_000)) as (world, a, b):
        favorite = await world.mechanic()
        _, request = await accepted(world, a, favorite)
        started = await b.dispatch.start(favorite, request.id)
        assert isinstance(started, RequestView)
        assert started.start is None
        assert started.ends is not None
        assert started.ends.expires_in_ms > 24 * 60_000
        row = await world.row(tables.SessionRequest, request.id)
        # Until after the start window: its end must mean nothing.
        await eventually(lambda: a.clock.now_ms() > (row.accepted_at_ms or 0) + 900, "the start window is over")
        assert (await world.row(tables.SessionRequest, request.id)).status == "in_progress"


async def test_a_start_window_that_ends_while_no_node_runs_is_ended_by_the_first_that_does(database_url, redis_url):
    async with running_world(database_url, redis_url) as world:
        async with running_node(world, SOON, without=("elapsing",)) as dying:
            favorite = await world.mechanic()
            _, request = await accepted(world, dying, favorite)
        async with running_node(world, SOON):
            await becomes(world, request.id, "broadcasting")
        assert (await story(world, request.id)).count("no_show") == 1


async def test_time_limits_that_redis_has_forgotten_are_put_back(database_url, redis_url):
    lasting = replace(SOON, start_window_ms=2_500)
    async with two_nodes(database_url, redis_url, lasting) as (world, a, _):
        favorite = await world.mechanic()
        _, request = await accepted(world, a, favorite)
        await a.link.everywhere(lambda redis: redis.flushall())
        await becomes(world, request.id, "broadcasting")
        assert (await story(world, request.id)).count("no_show") == 1
        assert (await story(world, request.id)).count("reminded") == 1


# --- ways out ---------------------------------------------------------------------------------------------------------


async def test_the_customer_who_finds_another_mechanic_frees_this_one_who_is_told(database_url, redis_url):
    async with two_nodes(database_url, redis_url, PATIENT) as (world, a, b):
        favorite, other = await world.mechanics(2)
        customer_id, request = await accepted(world, a, favorite)
        again = await b.dispatch.find_another(customer_id, request.id)
        assert isinstance(again, RequestView)
        assert (again.status, again.assigned_mechanic, again.fallback_reason) == ("broadcasting", None, None)
        assert again.offer is not None
        assert again.offer.preferred_is_busy is False
        refused = await b.dispatch.find_another(customer_id, request.id)
        assert isinstance(refused, Refused)
        assert refused.code == "wrong_state"
        gone = await accept(a, favorite, again.offer.id)()
        assert gone == OfferGone(detail="The customer asked for another mechanic.")
        assert isinstance(await accept(a, other, again.offer.id)(), RequestView)
        # Whoever had it is told, after a gap in the bus as well.
        recent = await a.reader.recent_requests([favorite])
        assert [view.id for view in recent[favorite]] == [request.id]
        past = await a.past_offers.page_of(favorite)
        assert not isinstance(past, Refused)
        assert {one.outcome for one in past.offers if one.request_id == request.id} >= {"find_another"}


async def test_a_session_is_ended_by_its_customer_or_its_mechanic_and_whoever_comes_second_is_answered_the_same(
    database_url, redis_url
):
    async with two_nodes(database_url, redis_url, PATIENT) as (world, a, b):
        favorite = await world.mechanic()
        customer_id, request = await accepted(world, a, favorite)
        await a.dispatch.start(favorite, request.id)
        first = await b.dispatch.complete_by_customer(customer_id, request.id)
        second = await a.dispatch.complete(favorite, request.id)
        third = await a.dispatch.complete_by_customer(customer_id, request.id)
        assert untimed(first) == untimed(second) == untimed(third)
        assert untimed(first).timeline[-1].by == "customer"
        assert untimed(first).timeline[-1].lasted_s == 0, "of seconds, for an operator to see"
        assert (await world.row(tables.Mechanic, favorite)).active_request_id is None


async def test_a_session_that_nobody_ends_is_over_when_its_minutes_and_the_grace_have_passed(database_url, redis_url):
    async with two_nodes(database_url, redis_url) as (world, a, _):
        favorite = await world.mechanic()
        customer_id, request = await accepted(world, a, favorite)
        await set_in_sql(world, request.id, duration_min=0)
        await a.dispatch.start(favorite, request.id)
        row = await becomes(world, request.id, "completed")
        assert row.completed_at_ms is not None
        assert row.started_at_ms is not None
        assert row.completed_at_ms >= row.started_at_ms + 400, "never early"
        view = await world.request(a, customer_id, request.id)
        assert view.timeline[-1].by == "time"
        assert (await world.row(tables.Mechanic, favorite)).active_request_id is None
        await is_consistent(world, request.id)


async def test_a_report_reaches_the_operator_once_and_not_the_mechanic(database_url, redis_url):
    async with two_nodes(database_url, redis_url, PATIENT) as (world, a, b):
        favorite = await world.mechanic()
        customer_id, request = await accepted(world, a, favorite)
        await a.dispatch.start(favorite, request.id)
        early = await a.dispatch.report(customer_id, request.id, "too early")
        assert isinstance(early, Refused)
        assert early.code == "wrong_state"
        await a.dispatch.complete(favorite, request.id)
        await eventually(lambda: a.updates_of(request.id)[-1]["status"] == "completed", "both have heard of the end")
        told = len(a.heard_of(deliveries.FrameToMechanic))
        view = await b.dispatch.report(customer_id, request.id, "  nobody came\u200b ")
        assert isinstance(view, RequestView)
        await eventually(
            lambda: a.updates_of(request.id)[-1]["version"] == view.version, "the customer's other pages know"
        )
        assert len(a.heard_of(deliveries.FrameToMechanic)) == told, "the mechanic does not hear that there is anything"
        assert (view.timeline[-1].event, view.timeline[-1].reason) == ("reported", UNSET)
        again = await b.dispatch.report(customer_id, request.id, "nobody came")
        assert isinstance(again, Refused)
        assert again.code == "already_reported"
        [reported] = (await b.ops.snapshot()).reported_requests
        assert reported.timeline[-1].reason == "nobody came"
        theirs = await a.reader.request_for(favorite, request.id)
        assert isinstance(theirs, RequestView)
        assert "reported" not in [line.event for line in theirs.timeline]


async def test_an_operator_gives_back_once_and_ends_what_is_stuck(database_url, redis_url):
    async with two_nodes(database_url, redis_url, PATIENT) as (world, a, b):
        favorite = await world.mechanic()
        _, request = await accepted(world, a, favorite)
        refunded = await a.dispatch.refund(request.id, "asked by phone")
        assert isinstance(refunded, RequestView)
        assert refunded.status == "cancelled"
        assert (await world.row(tables.Mechanic, favorite)).active_request_id is None
        _, stuck = await accepted(world, a, favorite)
        await a.dispatch.start(favorite, stuck.id)
        settled = await b.dispatch.settle(stuck.id, "completed")
        assert isinstance(settled, RequestView)
        assert settled.timeline[-1].by == "operator"
        assert isinstance(await b.dispatch.settle(stuck.id, "unfilled"), Refused)
        nobodys = await b.dispatch.refund("no-such-request", "why")
        assert isinstance(nobodys, Refused)
        assert nobodys.code == "not_found"


# --- the favourite has become busy ------------------------------------------------------------------------------------


async def test_whoever_waits_for_a_favourite_hears_at_once_when_they_become_busy_and_when_they_are_free(
    database_url, redis_url
):
    async with two_nodes(database_url, redis_url, PATIENT) as (world, a, b):
        favorite = await world.mechanic()
        waiting_id, waiting = await free_request(world, a, favorite)
        assert waiting.offer is not None
        assert waiting.offer.preferred_is_busy is False
        _, taken = await accepted(world, b, favorite)

        async def is_busy(word: bool) -> bool:
            offer = (await world.request(a, waiting_id, waiting.id)).offer
            return offer is not None and offer.preferred_is_busy is word

        await eventually(partial(is_busy, True), "the customer can see it")
        await eventually(
            lambda: any(one["offer"] and one["offer"]["preferred_is_busy"] for one in a.updates_of(waiting.id)),
            "and is told",
        )
        # Who comes now is told from the beginning.
        _, late = await free_request(world, a, favorite)
        assert late.offer is not None
        assert late.offer.preferred_is_busy is True
        await b.dispatch.release(favorite, taken.id)
        await eventually(partial(is_busy, False), "they are free")
        versions = [one["version"] for one in a.updates_of(waiting.id)]
        assert versions == sorted(set(versions)), "each change is a version of its own"
        assert (await world.request(a, waiting_id, waiting.id)).status == "priority_offered", "it ends no window"


async def test_a_change_of_a_favourite_that_was_left_untold_is_found(database_url, redis_url):
    hurried = replace(PATIENT, reconcile_interval_ms=200)
    async with two_nodes(database_url, redis_url, hurried) as (world, a, _):
        favorite = await world.mechanic()
        customer_id, waiting = await free_request(world, a, favorite)
        async with world.database.write() as session:
            # As a node of an earlier version does, which knows of nobody who waits.
            busy = text("UPDATE mechanics SET active_request_id = 'elsewhere' WHERE id = :id")
            await session.exec(busy, params={"id": favorite})  # type: ignore[call-overload]

        async def is_told() -> bool:
            offer = (await world.request(a, customer_id, waiting.id)).offer
            return offer is not None and offer.preferred_is_busy is True

        await eventually(is_told, "any node finds it")


# --- earlier versions -------------------------------------------------------------------------------------------------


async def test_what_an_earlier_version_let_be_accepted_or_started_gets_a_time_limit_and_ends_by_it(
    database_url, redis_url
):
    hurried = replace(SOON, reconcile_interval_ms=200)
    async with running_world(database_url, redis_url) as world:
        # No time limit ends here.
        async with running_node(world, PATIENT, without=("elapsing",)) as old:
            first, second, third = await world.mechanics(3)
            (_, vanished), (_, forgotten), (_, stale) = [
                await accepted(world, old, mechanic) for mechanic in (first, second, third)
            ]
            await old.dispatch.start(second, forgotten.id)
            nothing = {"limit_id": None, "limit_of_ms": None, "limit_expires_at_ms": None, "limit_rings_at_ms": None}
            await set_in_sql(world, vanished.id, **nothing)
            await set_in_sql(world, forgotten.id, duration_min=0, **nothing)
            # Of an acceptance before this one, long over.
            await set_in_sql(world, stale.id, limit_of_ms=1, limit_expires_at_ms=2, limit_rings_at_ms=2)
            serving = (await old.reader.mechanic_snapshots([third]))[third].request
            assert serving is not None
            assert serving.start is None
            before_ms = old.clock.now_ms()
        async with running_node(world, hurried):
            await becomes(world, vanished.id, "broadcasting")
            await becomes(world, forgotten.id, "completed")
            await becomes(world, stale.id, "broadcasting")
            rows = [await world.row(tables.SessionRequest, one.id) for one in (vanished, stale)]
            for row in rows:
                by_event = {one.event: one for one in await world.rows(tables.TimelineEntry, request_id=row.id)}
                # Not from the acceptance: nobody had told them of a limit then.
                assert by_event["no_show"].at_ms >= before_ms + 600, "the whole start window, from when somebody knew"


# --- who is there, and where ------------------------------------------------------------------------------------------


async def test_the_two_parties_see_whether_the_mechanic_is_there(database_url, redis_url):
    async with two_nodes(database_url, redis_url, PATIENT) as (world, a, b):
        favorite = await world.mechanic()
        customer_id, request = await accepted(world, a, favorite)
        assert request.assigned_is_online is False
        b.presence.joined(favorite)

        async def is_online(word: bool) -> bool:
            return (await world.request(a, customer_id, request.id)).assigned_is_online is word

        await eventually(partial(is_online, True), "they have come")
        b.presence.left(favorite)
        await eventually(partial(is_online, False), "they have gone")
        await a.dispatch.cancel(customer_id, request.id)
        assert (await world.request(a, customer_id, request.id)).assigned_is_online is None


async def test_each_party_gets_a_link_of_their_own_while_there_is_a_session_and_nobody_else_does(
    database_url, redis_url
):
    settings = replace(PATIENT, join_url="https://rooms.example/{request_id}?token={token}", join_secret=SECRET)
    async with two_nodes(database_url, redis_url, settings) as (world, a, _):
        favorite, other = await world.mechanics(2)
        customer_id, offered = await free_request(world, a, favorite)
        assert offered.join_url is None, "early"
        assert offered.offer is not None
        taken = await accept(a, favorite, offered.offer.id)()
        assert isinstance(taken, RequestView)
        theirs = await world.request(a, customer_id, offered.id)
        seen = []
        for view, role, account_id in ((taken, "mechanic", favorite), (theirs, "customer", customer_id)):
            assert view.join_url is not None
            head, _, token = view.join_url.partition("?token=")
            assert head == f"https://rooms.example/{offered.id}"
            claims = jwt.decode(token, SECRET, algorithms=["HS256"])
            assert (claims["sub"], claims["role"], claims["request_id"]) == (account_id, role, offered.id)
            assert (claims["plan"], claims["session_type"]) == ("free_diagnostic", "diagnostic")
            row = await world.row(tables.SessionRequest, offered.id)
            assert row.limit_expires_at_ms is not None
            # Until the latest end: started at the last moment, ten minutes, and the grace.
            until_ms = row.limit_expires_at_ms + 10 * 60_000 + settings.session_grace_ms
            assert claims["exp"] == until_ms // 1000
            seen.append(token)
        assert seen[0] != seen[1]
        # What is pushed to their sockets carries each one's own.
        await eventually(lambda: a.heard_of(deliveries.FrameToMechanic), "both are told")
        for told, own in (
            (a.heard_of(deliveries.FrameToMechanic)[-1], seen[0]),
            (a.heard_of(deliveries.FrameToCustomer)[-1], seen[1]),
        ):
            assert own.encode() in bytes(told.frame)
        released = await a.dispatch.release(favorite, offered.id)
        assert isinstance(released, RequestView)
        assert released.join_url is None
        assert released.offer is not None
        again = await accept(a, other, released.offer.id)()
        assert isinstance(again, RequestView)
        # Who had it hears that somebody else has, and not where.
        [[late]] = (await a.reader.recent_requests([favorite])).values()
        assert (late.status, late.join_url) == ("accepted", None)
        await a.dispatch.start(other, offered.id)
        row = await world.row(tables.SessionRequest, offered.id)
        begun = await world.request(a, customer_id, offered.id)
        claims = jwt.decode((begun.join_url or "").partition("?token=")[2], SECRET, algorithms=["HS256"])
        assert row.limit_expires_at_ms is not None
        assert claims["exp"] == row.limit_expires_at_ms // 1000
        await a.dispatch.complete(other, offered.id)
        assert (await world.request(a, customer_id, offered.id)).join_url is None, "late"


# --- a sleeping phone -------------------------------------------------------------------------------------------------


LASTING = replace(SOON, start_window_ms=20_000, session_grace_ms=900_000)
"""A start window that is over when a test says so."""


async def rings(world: World, node: Node, request_id: str, *, is_over: bool = False) -> None:
    """Let it be half of a request's start window, or its end."""
    now_ms = node.clock.now_ms()
    await set_in_sql(
        world, request_id, limit_rings_at_ms=now_ms, **({"limit_expires_at_ms": now_ms} if is_over else {})
    )
    limit_id = (await world.row(tables.SessionRequest, request_id)).limit_id
    assert limit_id is not None
    await node.elapsing._elapsed([limit_id], now_ms)


async def woken(world: World, node: Node, service: PushService) -> tuple[str, str, RequestView]:
    """Return a customer, a mechanic whose browser can be woken, and what the one wants and the other has accepted."""
    mechanic_id = await world.mechanic()
    await node.push.subscribe(mechanic_id, service.browser(mechanic_id).subscription)
    customer_id, request = await accepted(world, node, mechanic_id)
    return customer_id, mechanic_id, request


async def session_messages(world: World, mechanic_id: str) -> dict[str, bool]:
    """Return what a mechanic is to be woken with, by its event, and whether that is over."""
    [phone] = await world.rows(tables.PushSubscription, account_id=mechanic_id)
    found = await world.rows(tables.PushMessage, kind="session_update", subscription_id=phone.id)
    events = ("reminded", "no_show", "find_another", "cancelled")
    return {event: one.done_at_ms is not None for one in found for event in events if f"-{event}-" in one.id}


async def are_messages(world: World, mechanic_id: str, **over: bool) -> None:
    async def are_so() -> bool:
        return await session_messages(world, mechanic_id) == over

    await eventually(are_so, f"the messages are {over}")


async def test_nobody_is_reminded_to_start_what_is_not_theirs_to_start_any_more(database_url, redis_url):
    async with two_nodes(database_url, redis_url, LASTING) as (world, a, b), running_push_service() as service:
        # The push service is away until then.
        service.answers = [503] * 1_000
        deeds: dict[str, tuple[Callable[[str, str, str], Awaitable[object]], dict[str, bool]]] = {
            "start": (lambda _, mine, it: b.dispatch.start(mine, it), {}),
            "release": (lambda _, mine, it: b.dispatch.release(mine, it), {}),
            "find another": (lambda me, _, it: b.dispatch.find_another(me, it), {"find_another": False}),
            "cancel": (lambda me, _, it: b.dispatch.cancel(me, it), {"cancelled": False}),
            "refund": (lambda _, __, it: b.dispatch.refund(it, "asked by phone"), {"cancelled": False}),
            "settle": (lambda _, __, it: b.dispatch.settle(it, "unfilled"), {}),
            "no show": (lambda _, __, it: rings(world, b, it, is_over=True), {"no_show": False}),
        }
        for deed, is_told in deeds.values():
            customer_id, mechanic_id, request = await woken(world, a, service)
            await rings(world, a, request.id)
            await are_messages(world, mechanic_id, reminded=False)
            await deed(customer_id, mechanic_id, request.id)
            await are_messages(world, mechanic_id, reminded=True, **is_told)


async def test_whoever_lost_a_request_is_told_so_although_the_next_one_has_started_it(database_url, redis_url):
    async with two_nodes(database_url, redis_url, LASTING) as (world, a, b), running_push_service() as service:
        service.answers = [503] * 1_000
        _, first, request = await woken(world, a, service)
        await rings(world, a, request.id, is_over=True)
        await are_messages(world, first, no_show=False)
        second = await world.mechanic()
        await a.push.subscribe(second, service.browser(second).subscription)
        [broadcast] = [one for one in await world.rows(tables.Offer, request_id=request.id) if one.closed_at_ms is None]
        assert isinstance(await accept(b, second, broadcast.id)(), RequestView)
        await rings(world, a, request.id)
        await are_messages(world, second, reminded=False)
        await b.dispatch.start(second, request.id)
        await are_messages(world, second, reminded=True)
        await are_messages(world, first, no_show=False)


async def test_a_reminder_that_is_told_after_the_start_wakes_nobody(database_url, redis_url):
    async with two_nodes(database_url, redis_url, LASTING) as (world, a, _), running_push_service() as service:
        _, mechanic_id, request = await woken(world, a, service)
        await a.dispatch.start(mechanic_id, request.id)
        # As by a node that has taken over what another one had left to tell.
        a.outbox.post([Message.of(MechanicToWake(request.id, mechanic_id, ("reminded",)))])
        await a.outbox.drained()
        assert await world.rows(tables.PushMessage, kind="session_update") == []


async def test_what_is_not_for_a_sleeping_phone_leaves_nothing_to_tell_it(database_url, redis_url):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, LASTING, without=("outbox", "push", "elapsing")) as a,
        running_push_service() as service,
    ):
        customer_id, mechanic_id, request = await woken(world, a, service)
        await rings(world, a, request.id)
        await a.dispatch.start(mechanic_id, request.id)
        await a.dispatch.complete(mechanic_id, request.id)
        await a.dispatch.report(customer_id, request.id, "nobody came")
        await a.dispatch.refund(request.id, "asked by phone")
        left = await world.rows(tables.OutboxMessage, kind=MechanicToWake.kind)
        assert [one.payload["events"] for one in left] == [["reminded"], ["started"]]


async def test_a_mechanic_whose_phone_sleeps_is_woken_to_start_and_told_when_it_is_too_late(database_url, redis_url):
    # A reminder that could not be sent by the end of the start window is of no use.
    slower = replace(SOON, start_window_ms=5_000)
    async with two_nodes(database_url, redis_url, slower) as (world, a, _), running_push_service() as service:
        favorite = await world.mechanic()
        browser = service.browser("phone")
        await a.push.subscribe(favorite, browser.subscription)
        _, request = await accepted(world, a, favorite)
        await becomes(world, request.id, "broadcasting")

        def updates() -> list[dict]:
            said = [browser.read(sealed) for _, _, sealed in service.got]
            return [one["request"] for one in said if one["type"] == "request_update"]

        await eventually(lambda: any(one["status"] == "broadcasting" for one in updates()), "told that it is gone")
        assert [one["timeline"][-1]["event"] for one in updates()][:1] == ["reminded"]
