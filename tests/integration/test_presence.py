"""Presence as its callers see it: two nodes (or more) on one real Redis and one real SQLite."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from accounts.accounts import Accounts, NewAccount
from http_api.sockets.connection import CLOCKS_APART_MS
from models.timestamps import rfc3339
from models.words import Role
from presence.facts import save_last_seen
from presence.liveness import Facts
from tests.integration.presence_nodes import CALM, SHORT, Recorder, eventually, world
from tests.services import redis_server


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with redis_server() as server:
        yield server.url


# --- online -----------------------------------------------------------------------------------------------------------


async def test_the_first_join_brings_a_mechanic_online_and_is_announced_on_another_node(
    any_redis_url: str, tmp_path: Path
):
    async with world(any_redis_url, tmp_path, CALM) as here, here.node() as a, here.node() as b:
        mechanic, sink = await here.add_mechanic(), Recorder()
        await b.presence.watch([mechanic], sink)
        before_ms = a.clock.now_ms()
        a.presence.joined(mechanic)
        await eventually(lambda: len(sink.views) == 2, "the change arrives")
        snapshot, change = sink.views
        assert (snapshot.is_online, snapshot.availability, snapshot.reachable) == (False, "offline", "none")
        assert (change.is_online, change.availability, change.reachable) == (True, "available", "socket")
        assert change.version > snapshot.version
        # A node's idea of Redis' time may be off by as much as the answer took on its way.
        assert change.last_seen is not None and change.last_seen >= rfc3339(before_ms - CLOCKS_APART_MS)
        asked = await a.status(mechanic)
        assert (asked.is_online, asked.version) == (True, change.version)


async def test_a_mechanic_with_two_devices_on_one_node_stays_online_until_both_are_gone(
    any_redis_url: str, tmp_path: Path
):
    async with world(any_redis_url, tmp_path, CALM) as here, here.node() as a:
        mechanic, sink = await here.add_mechanic(), Recorder()
        a.presence.joined(mechanic)
        a.presence.joined(mechanic)
        await eventually(lambda: a.is_online(mechanic), "online")
        await a.presence.watch([mechanic], sink)
        a.presence.left(mechanic)
        await a.flush(mechanic)
        # Longer than the grace and a sweep: had the first close counted, it would show by now.
        await anyio.sleep((CALM.grace_ms + 3 * CALM.sweep_interval_ms) / 1000)
        assert sink.words == ["available"]
        a.presence.left(mechanic)
        await eventually(lambda: sink.words == ["available", "offline"], "offline after the second")


async def test_a_mechanic_on_two_nodes_stays_online_until_both_have_lost_them(any_redis_url: str, tmp_path: Path):
    async with world(any_redis_url, tmp_path) as here, here.node() as a, here.node() as b:
        mechanic, sink = await here.add_mechanic(), Recorder()
        a.presence.joined(mechanic)
        b.presence.joined(mechanic)
        await eventually(lambda: a.is_online(mechanic), "online")
        async with b.heartbeats(mechanic):
            await b.presence.watch([mechanic], sink)
            a.presence.left(mechanic)
            await anyio.sleep((SHORT.grace_ms + SHORT.timeout_ms) / 1000)
            assert sink.words == ["available"]
        b.presence.left(mechanic)
        await eventually(lambda: sink.words == ["available", "offline"], "offline after the last")


@pytest.mark.parametrize("elsewhere", [False, True], ids=["on the same node", "on another node"])
async def test_a_reconnect_within_the_grace_shows_nobody_a_flicker(any_redis_url: str, tmp_path: Path, elsewhere: bool):
    # A grace that a busy machine's pause between the two flushes does not use up; leases to match.
    settings = replace(SHORT, timeout_ms=3_000, grace_ms=1_200, node_lease_ms=3_000)
    async with world(any_redis_url, tmp_path, settings) as here, here.node() as a, here.node() as b:
        mechanic, sink = await here.add_mechanic(), Recorder()
        a.presence.joined(mechanic)
        await eventually(lambda: a.is_online(mechanic), "online")
        await b.presence.watch([mechanic], sink)
        held, back = a, b if elsewhere else a
        for _ in range(3):
            held.presence.left(mechanic)
            await held.flush(mechanic)
            back.presence.joined(mechanic)
            await back.flush(mechanic)
            async with back.heartbeats(mechanic):
                await anyio.sleep((settings.grace_ms + 3 * settings.sweep_interval_ms) / 1000)
            held, back = back, held
        assert sink.words == ["available"]


async def test_a_late_close_of_an_old_socket_does_not_override_a_newer_one(any_redis_url: str, tmp_path: Path):
    # The network dropped the old socket; the app is back on another node long before the old one notices.
    async with world(any_redis_url, tmp_path) as here, here.node() as old, here.node() as new:
        mechanic, sink = await here.add_mechanic(), Recorder()
        old.presence.joined(mechanic)
        await eventually(lambda: old.is_online(mechanic), "online")
        new.presence.joined(mechanic)
        await new.flush(mechanic)
        await new.presence.watch([mechanic], sink)
        async with new.heartbeats(mechanic):
            await anyio.sleep(SHORT.timeout_ms / 2000)
            old.presence.left(mechanic)
            await anyio.sleep((SHORT.timeout_ms + SHORT.grace_ms) / 1000)
        assert sink.words == ["available"]


async def test_silence_for_the_timeout_shows_offline_although_the_socket_is_open(any_redis_url: str, tmp_path: Path):
    async with world(any_redis_url, tmp_path) as here, here.node() as a, here.node() as b:
        mechanic, sink = await here.add_mechanic(), Recorder()
        a.presence.joined(mechanic)
        await eventually(lambda: b.is_online(mechanic), "online")
        await b.presence.watch([mechanic], sink)
        async with a.heartbeats(mechanic):
            await anyio.sleep(2 * SHORT.timeout_ms / 1000)
            assert sink.words == ["available"]
        silent_s = await eventually(lambda: sink.words[-1] == "offline", "offline after the time-out")
        assert silent_s > (SHORT.timeout_ms - 100) / 1000
        a.presence.heard(mechanic)
        await eventually(lambda: sink.words == ["available", "offline", "available"], "a heartbeat brings them back")


async def test_a_socket_that_closes_between_two_flushes_was_here_for_the_grace(any_redis_url: str, tmp_path: Path):
    async with world(any_redis_url, tmp_path, CALM) as here, here.node() as a:
        mechanic, sink = await here.add_mechanic(), Recorder()
        await a.presence.watch([mechanic], sink)
        a.presence.joined(mechanic)
        a.presence.left(mechanic)
        await eventually(lambda: sink.words == ["offline", "available", "offline"], "online for the grace")
        assert sink.views[-1].last_seen is not None


async def test_a_heartbeat_of_somebody_who_left_counts_for_nothing(any_redis_url: str, tmp_path: Path):
    async with world(any_redis_url, tmp_path, CALM) as here, here.node() as a:
        mechanic = await here.add_mechanic()
        a.presence.heard(mechanic)
        await a.flush(mechanic)
        assert not await a.is_online(mechanic)


# --- facts ------------------------------------------------------------------------------------------------------------


async def test_an_off_duty_mechanic_whom_redis_does_not_know_never_shows_available(any_redis_url: str, tmp_path: Path):
    async with world(any_redis_url, tmp_path, CALM) as here, here.node() as a, here.node() as b:
        sinks = {}
        for mechanic in await here.add_mechanics(20):
            await here.set_facts(mechanic, on_duty=False)
            # Listening on the channel alone: a watch would make Redis know them before they come.
            sinks[mechanic] = heard = []
            channel = b.presence.channel_of(mechanic)
            await b.presence._watches._bus.subscribe(channel, handler=heard.append)
        for mechanic in sinks:
            a.presence.joined(mechanic)
        await eventually(lambda: all(sinks.values()), "all are announced")
        assert {message.split(" ")[3] for heard in sinks.values() for message in heard} == {"0"}
        assert await a.presence.available_count() == 0
        assert {view.availability for view in (await b.presence.status_of(sinks)).values()} == {"off_duty"}


async def test_changed_facts_are_announced_and_unchanged_ones_are_not(any_redis_url: str, tmp_path: Path):
    async with world(any_redis_url, tmp_path, CALM) as here, here.node() as a, here.node() as b:
        mechanic, sink = await here.add_mechanic(), Recorder()
        a.presence.joined(mechanic)
        await eventually(lambda: a.is_online(mechanic), "online")
        await b.presence.watch([mechanic], sink)
        steps = [
            ({"on_duty": False}, "off_duty"),
            ({"on_duty": True}, "available"),
            ({"active_request_id": "r1"}, "busy"),
            ({"active_request_id": None}, "available"),
        ]
        for columns, word in steps:
            await here.set_facts(mechanic, **columns)
            await a.presence.take_facts(await here.facts(mechanic))
            await a.presence.take_facts(await here.facts(mechanic))
            await eventually(lambda word=word: sink.words[-1] == word, word)
        assert sink.words == ["available", "off_duty", "available", "busy", "available"]


async def test_push_makes_an_offline_mechanic_reachable(any_redis_url: str, tmp_path: Path):
    async with world(any_redis_url, tmp_path, CALM) as here, here.node() as a:
        mechanic, sink = await here.add_mechanic(), Recorder()
        await a.presence.watch([mechanic], sink)
        await here.set_facts(mechanic, has_push=True)
        await a.presence.take_facts(await here.facts(mechanic))
        await eventually(lambda: len(sink.views) == 2, "the change arrives")
        assert [view.reachable for view in sink.views] == ["none", "push"]
        assert sink.words == ["offline", "offline"]


async def test_facts_that_arrive_late_never_overwrite_newer_ones(any_redis_url: str, tmp_path: Path):
    async with world(any_redis_url, tmp_path, CALM) as here, here.node() as a:
        mechanic, sink = await here.add_mechanic(), Recorder()
        a.presence.joined(mechanic)
        await eventually(lambda: a.is_online(mechanic), "online")
        await a.presence.watch([mechanic], sink)
        # Another node read these from SQL, then stood still for a while.
        late = Facts(mechanic, 2, on_duty=False, is_busy=False, has_push=False, last_seen_ms=None)
        newer = Facts(mechanic, 3, on_duty=True, is_busy=True, has_push=False, last_seen_ms=None)
        await a.leases_of(mechanic).store_facts([newer])
        stored = await a.leases_of(mechanic).store_facts([late])
        assert stored[mechanic].facts_version == 3
        assert (await a.status(mechanic)).availability == "busy"
        await eventually(lambda: sink.words == ["available", "busy"], "only the newer is announced")


async def test_who_comes_online_is_read_from_sql_again(any_redis_url: str, tmp_path: Path):
    # Redis restarted without its last second and so missed that the mechanic went off duty.
    async with world(any_redis_url, tmp_path, CALM) as here, here.node() as a:
        mechanic = await here.add_mechanic()
        assert (await a.status(mechanic)).availability == "offline"
        await here.set_facts(mechanic, on_duty=False)
        a.presence.joined(mechanic)

        async def is_off_duty() -> bool:
            return (await a.status(mechanic)).availability == "off_duty"

        await eventually(is_off_duty, "the facts are the newest")


async def test_the_available_are_online_on_duty_and_not_in_a_session(any_redis_url: str, tmp_path: Path):
    async with world(any_redis_url, tmp_path, CALM) as here, here.node() as a, here.node() as b:
        free, busy, off, _away = await here.add_mechanics(4)
        await here.set_facts(busy, active_request_id="r1")
        await here.set_facts(off, on_duty=False)
        for mechanic in (free, busy, off):
            a.presence.joined(mechanic)

        async def counted(expected: int) -> bool:
            return await b.presence.available_count() == expected

        await eventually(lambda: counted(1), "one of the four")
        await here.set_facts(busy, active_request_id=None)
        await b.presence.take_facts(await here.facts(busy))
        assert await counted(2)
        # They may live on servers apart, and are counted on each.
        for mechanic, types_off in ((free, "text"), (busy, "text,video")):
            await here.set_facts(mechanic, session_types_off=types_off)
            await b.presence.take_facts(await here.facts(mechanic))
        assert [await b.presence.available_count(kind) for kind in ("diagnostic", "text", "video")] == [2, 0, 1]
        a.presence.left(free)
        await eventually(lambda: counted(1), "one has left")


# --- what is told to those who ask ------------------------------------------------------------------------------------


async def test_a_mechanic_who_was_never_here_was_never_seen(any_redis_url: str, tmp_path: Path):
    async with world(any_redis_url, tmp_path, CALM) as here, here.node() as a:
        shown = await a.status(await here.add_mechanic())
        assert (shown.is_online, shown.last_seen, shown.availability, shown.reachable) == (
            False,
            None,
            "offline",
            "none",
        )


async def test_only_mechanics_have_a_status(any_redis_url: str, tmp_path: Path):
    async with world(any_redis_url, tmp_path, CALM) as here, here.node() as a:
        mechanic = await here.add_mechanic()
        customer = await Accounts(here.database).add(NewAccount(Role.CUSTOMER, "c@example.com", "C"), now_ms=1)
        a.presence.joined(customer.id)
        await a.flush(mechanic)
        asked = [mechanic, customer.id, "nobody", "not an id", "\x00", "", mechanic]
        assert list(await a.presence.status_of(asked)) == [mechanic]
        assert await a.presence.status_of([]) == {}
        sink = Recorder()
        await a.presence.watch(asked, sink)
        assert [view.mechanic_id for view in sink.views] == [mechanic]


async def test_last_seen_is_the_last_heartbeat_and_not_the_close(any_redis_url: str, tmp_path: Path):
    async with world(any_redis_url, tmp_path, CALM) as here, here.node() as a:
        mechanic = await here.add_mechanic()
        a.presence.joined(mechanic)
        await eventually(lambda: a.is_online(mechanic), "online")
        await anyio.sleep(0.05)
        a.presence.heard(mechanic)
        heard = rfc3339(a.heard_at_ms(mechanic))
        await anyio.sleep(0.05)
        a.presence.left(mechanic)

        async def is_offline() -> bool:
            return not await a.is_online(mechanic)

        await eventually(is_offline, "offline")
        assert (await a.status(mechanic)).last_seen == heard


async def test_last_seen_is_in_sql_after_they_left_and_outlives_a_flush_of_redis(any_redis_url: str, tmp_path: Path):
    async with world(any_redis_url, tmp_path, CALM) as here, here.node() as a:
        mechanic = await here.add_mechanic()
        a.presence.joined(mechanic)
        await eventually(lambda: a.is_online(mechanic), "online")
        seen_ms = a.heard_at_ms(mechanic)
        a.presence.left(mechanic)

        async def is_saved() -> bool:
            return (await here.in_sql(mechanic)).last_seen_at_ms == seen_ms

        await eventually(is_saved, "saved")
        await a.link.everywhere(lambda redis: redis.flushall())
        shown = await a.status(mechanic)
        assert (shown.last_seen, shown.is_online) == (rfc3339(seen_ms), False)


async def test_last_seen_never_goes_back_in_sql(any_redis_url: str, tmp_path: Path):
    async with world(any_redis_url, tmp_path) as here:
        first, second = await here.add_mechanics(2)
        await save_last_seen(here.database, {first: 2_000, second: 5})
        await save_last_seen(here.database, {first: 1_000, second: 6, "nobody": 7})
        assert (await here.in_sql(first)).last_seen_at_ms == 2_000
        assert (await here.in_sql(second)).last_seen_at_ms == 6


# --- watching ---------------------------------------------------------------------------------------------------------


async def test_watching_again_gives_the_current_status_again(any_redis_url: str, tmp_path: Path):
    async with world(any_redis_url, tmp_path, CALM) as here, here.node() as a:
        mechanic, sink = await here.add_mechanic(), Recorder()
        await a.presence.watch([mechanic], sink)
        await a.presence.watch([mechanic], sink)
        assert sink.words == ["offline", "offline"]


async def test_a_status_that_is_announced_or_read_again_is_told_once(any_redis_url: str, tmp_path: Path):
    # A script whose answer is lost on its way is run again, and so announces again; after a gap everything is read again.
    async with world(any_redis_url, tmp_path, CALM) as here, here.node() as a:
        mechanic, sink = await here.add_mechanic(), Recorder()
        channel, announced = a.presence.channel_of(mechanic), []
        await a.presence.watch([mechanic], sink)
        await a.bus.subscribe(channel, handler=announced.append)
        a.presence.joined(mechanic)
        await eventually(lambda: sink.words == ["offline", "available"], "the change arrives")
        await a.link.publish(channel, announced[0])
        await eventually(lambda: announced == announced[:1] * 2, "the same is heard again")
        a.presence._watches.mark_stale()
        # One loop reads, in order: what was stale before this is read with it, or before.
        second = Recorder()
        await a.presence.watch([mechanic], second)
        assert second.words == ["available"]
        assert sink.words == ["offline", "available"]


async def test_who_no_longer_watches_is_told_nothing_and_redis_is_no_longer_asked_for_it(
    any_redis_url: str, tmp_path: Path
):
    async with world(any_redis_url, tmp_path, CALM) as here, here.node() as a, here.node() as b:
        first, second = await here.add_mechanics(2)
        stays, unwatches, drops = Recorder(), Recorder(), Recorder()
        for sink in (stays, unwatches, drops):
            await b.presence.watch([first, second], sink)
        b.presence.unwatch([first], unwatches)
        b.presence.drop(drops)
        a.presence.joined(first)
        a.presence.joined(second)
        await eventually(lambda: len(stays.views) == 4, "the other watcher hears of both")
        assert [view.mechanic_id for view in unwatches.views[2:]] == [second]
        assert len(drops.views) == 2
        b.presence.drop(unwatches)
        b.presence.drop(stays)
        b.presence.drop(stays)
        channels = [b.presence.channel_of(mechanic) for mechanic in (first, second)]

        async def nobody_listens() -> bool:
            told = await b.link.everywhere(lambda redis: redis.pubsub_shardnumsub(*channels))
            return all(count == 0 for server in told for _, count in server)

        await eventually(nobody_listens, "unsubscribed")
        assert b.presence._watches.ids == []


async def test_a_watcher_who_comes_back_at_once_is_still_told_of_changes(any_redis_url: str, tmp_path: Path):
    # Unsubscribing and subscribing again must not overtake each other.
    async with world(any_redis_url, tmp_path, CALM) as here, here.node() as a, here.node() as b:
        mechanic, sink = await here.add_mechanic(), Recorder()
        for _ in range(20):
            await b.presence.watch([mechanic], sink)
            b.presence.drop(sink)
        await b.presence.watch([mechanic], sink)
        a.presence.joined(mechanic)
        await eventually(lambda: sink.words[-1] == "available", "the change arrives")


async def test_many_watchers_side_by_side_all_get_their_snapshots(any_redis_url: str, tmp_path: Path):
    async with world(any_redis_url, tmp_path, CALM) as here, here.node() as a:
        mechanics = await here.add_mechanics(40)
        sinks = [Recorder() for _ in range(200)]
        async with anyio.create_task_group() as tasks:
            for sink in sinks:
                tasks.start_soon(a.presence.watch, mechanics, sink)
        assert {len(sink.views) for sink in sinks} == {len(mechanics)}


async def test_a_watcher_cancelled_midway_takes_nobody_else_down(any_redis_url: str, tmp_path: Path):
    async with world(any_redis_url, tmp_path, CALM) as here, here.node() as a:
        mechanic, stays, leaves = await here.add_mechanic(), Recorder(), Recorder()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(a.presence.watch, [mechanic], leaves)
            tasks.start_soon(a.presence.watch, [mechanic], stays)
            with anyio.move_on_after(0.0001):
                await a.presence.watch([mechanic], leaves)
        a.presence.drop(leaves)
        given = len(leaves.views)
        a.presence.joined(mechanic)
        await eventually(lambda: stays.words == ["offline", "available"], "the other one is told")
        assert len(leaves.views) == given


async def test_a_gap_on_the_bus_is_made_good_by_a_snapshot(any_redis_url: str, tmp_path: Path):
    async with world(any_redis_url, tmp_path, CALM) as here, here.node() as a, here.node() as b:
        mechanics = await here.add_mechanics(3)
        sink = Recorder()
        await b.presence.watch(mechanics, sink)
        for mechanic in mechanics:
            await b.cut_off_listeners()
            a.presence.joined(mechanic)
            await a.flush(mechanic)
            await eventually(lambda mechanic=mechanic: a.is_online(mechanic), "online")
        told = lambda: {view.mechanic_id for view in sink.views if view.is_online}  # noqa: E731
        await eventually(lambda: told() == set(mechanics), "what was missed arrives")
        for mechanic in mechanics:
            versions = [view.version for view in sink.views if view.mechanic_id == mechanic]
            assert versions == sorted(set(versions))
