"""What is read for many together is what each of them would be told alone, and what nobody should be told is not read."""

from pathlib import Path

import pytest

from dispatch.reading.reader import RECENT_MS
from models import tables
from models.outcomes import Refused
from tests.integration.dispatch_nodes import free_request, untimed
from tests.parts import running_node, running_world

# The SDK hands httpx its form body by a parameter that httpx would like to see renamed.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")


async def test_a_snapshot_of_many_is_what_each_of_them_would_be_told_alone(database_url, redis_url, tmp_path: Path):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as node:
        free, off_duty, busy, declined, favorite, gone = await world.mechanics(6)
        await node.dispatch.set_on_duty(off_duty, False)
        await node.dispatch.set_on_duty(favorite, False)
        now_ms = node.clock.now_ms()

        doe, first = await free_request(world, node)
        _, second = await free_request(world, node)
        roe, third = await free_request(world, node)
        _, own = await free_request(world, node, favorite)
        assert first.offer and second.offer and third.offer and own.offer
        assert not isinstance(await node.dispatch.decline(declined, first.offer.id), Refused)
        taken = await node.dispatch.accept(busy, third.offer.id, received_at_ms=now_ms)
        assert not isinstance(taken, Refused)

        ids = [free, off_duty, busy, declined, favorite, "nobody", doe]
        snapshots = await node.reader.mechanic_snapshots(ids)
        assert set(snapshots) == {free, off_duty, busy, declined, favorite}
        for mechanic_id, snapshot in snapshots.items():
            alone = (await node.reader.offers([mechanic_id]))[mechanic_id]
            assert {mechanic_id: snapshot.standing} == await node.reader.standings([mechanic_id])
            assert [one.offer.offer_id for one in snapshot.offers] == [one.offer.offer_id for one in alone]
            assert [one.expires_at_ms for one in snapshot.offers] == [one.expires_at_ms for one in alone]
            assert (snapshot.request is not None) == (mechanic_id == busy)
        assert {one.offer.offer_id for one in snapshots[free].offers} == {first.offer.id, second.offer.id}
        assert {one.offer.offer_id for one in snapshots[declined].offers} == {second.offer.id}
        assert [one.offer.offer_id for one in snapshots[favorite].offers] == [own.offer.id]
        assert snapshots[busy].request is not None
        assert untimed(snapshots[busy].request) == untimed(taken)

        customers = await node.reader.open_requests([doe, roe, gone])
        assert [view.id for view in customers[doe]] == [first.id]
        assert [(view.id, view.status) for view in customers[roe]] == [(third.id, "accepted")]
        assert customers[gone] == []


async def test_what_is_settled_or_over_is_in_no_snapshot(database_url, redis_url, tmp_path: Path):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as node:
        mechanic = await world.mechanic()
        customer, request = await free_request(world, node)
        assert not isinstance(await node.dispatch.cancel(customer, request.id), Refused)
        other, late = await free_request(world, node)
        assert late.offer is not None
        # A window that has ended, but which nobody has come to close yet.
        await world.update(tables.Offer, late.offer.id, expires_at_ms=node.clock.now_ms() - 1)
        assert (await node.reader.mechanic_snapshots([mechanic]))[mechanic].offers == []
        assert (await node.reader.open_requests([customer, other])).keys() == {customer, other}
        assert (await node.reader.open_requests([customer]))[customer] == []


async def test_what_ended_unheard_is_told_to_the_customer_and_to_everybody_who_served(
    database_url, redis_url, tmp_path: Path
):
    # The bus was deaf while the session ended: the end is in no list of open requests, and nobody would ever hear of it.
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as node:
        former, server, decliner, bystander = await world.mechanics(4)
        customer, request = await free_request(world, node)
        now_ms = node.clock.now_ms()
        assert request.offer is not None
        assert not isinstance(await node.dispatch.decline(decliner, request.offer.id), Refused)
        for mechanic in (former, server):
            opened = await node.reader.request_for(customer, request.id)
            assert not isinstance(opened, Refused) and opened.offer is not None
            taken = await node.dispatch.accept(mechanic, opened.offer.id, received_at_ms=now_ms)
            assert not isinstance(taken, Refused)
            if mechanic == former:
                assert not isinstance(await node.dispatch.release(former, request.id), Refused)
        assert not isinstance(await node.dispatch.cancel(customer, request.id), Refused)

        assert await node.reader.open_requests([customer]) == {customer: []}
        told = await node.reader.recent_requests([customer, former, server, decliner, bystander])
        assert {account_id: [view.status for view in views] for account_id, views in told.items()} == {
            customer: ["cancelled"],
            former: ["cancelled"],
            server: ["cancelled"],
        }


async def test_what_ended_long_ago_is_not_told_again(database_url, redis_url, tmp_path: Path):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as node:
        customer, request = await free_request(world, node)
        assert not isinstance(await node.dispatch.cancel(customer, request.id), Refused)
        await world.update(tables.SessionRequest, request.id, settled_at_ms=node.clock.now_ms() - RECENT_MS - 1)
        assert await node.reader.recent_requests([customer]) == {}
