"""What a node asks of SQL by itself, over and over, costs no more when years have passed.

Nobody lists these statements: a node is left to itself amid what another has left behind, and held to all that it asks.
"""

from dataclasses import replace

import anyio
import pytest

from models import tables
from models.rest import StripeCheckout
from tests.integration.asked import asked, cost
from tests.integration.past import STEP_MS, YEARS, years
from tests.integration.push_browsers import PushService, running_push_service
from tests.parts import PATIENT, World, body, eventually, run_loop, running_node, running_world

READ_MAX = 100
"""Far from the thousands that there are of everything."""
EAGER = replace(PATIENT, reconcile_interval_ms=200, outbox_lease_ms=400, retention_ms=(YEARS - 20) * STEP_MS)
"""Looks often; some twenty of each kind are old enough to be forgotten."""
LOOPS = frozenset(
    {
        "outbox",
        "push_planner",
        "push",
        "dispatch",
        "elapsing",
        "awaited",
        "responses",
        "refunds",
        "payments",
        "superseded",
        "departures",
        "reconciler",
        "retention",
        "presence",
    }
)
ONLY_WHEN_TOLD = frozenset({"superseded"})
"""Loops that do not look by themselves."""
AT_START = frozenset({"steady_places"})
"""What is read once: of browsers, which grow in number with people and not with time."""
SEEN = frozenset(
    {
        *("due_to_tell", "forget_told", "due_events", "finish_event", "due_refunds", "due_breaks", "end_break"),
        *("due_messages", "claim_messages", "finish_message", "forget_messages", "overlooked_offers", "unseen_offers"),
        *("unpushed_broadcasts", "broadcasts_to_look_at_again", "ended_offers", "open_deadlines", "read_responses"),
        *("requests_without_limit", "turned_favorites", "count_offers", "old_responses", "claim_payment"),
        *("forget_stripe_events", "forget_checkouts", "forget_idempotency_keys", "end_unopened"),
        *("forget_revocations", "departing"),
        # The last that the reconciler asks.
        *("take_unsettled", "count_unfinished", "open_disputes"),
    }
)
"""What has to be seen: a look of each kind, and what follows where something is found."""


async def left_behind(world: World, mechanic_id: str, service: PushService) -> None:
    """Let a node die amid everything."""
    async with running_node(world, without=LOOPS) as dying:
        await dying.push.subscribe(mechanic_id, service.browser("phone").subscription)
        resting, customer_id = await world.mechanic(), await world.customer()
        await dying.dispatch.set_on_duty(resting, False, back_in_s=60)
        await world.update(tables.Mechanic, resting, back_at_ms=1)
        request = await world.paid_request(dying, customer_id)
        await dying.dispatch.cancel(customer_id, request.id)
        # Two pages for the same choice, and one that nobody has heard of for a while, though it has been paid.
        for _ in range(2):
            opened = await dying.checkouts.start(await world.customer(), body())
            again = await dying.checkouts.start(customer_id, body())
        assert isinstance(opened, StripeCheckout)
        assert isinstance(again, StripeCheckout)
        await world.hold_webhooks(opened.url)
        await world.pay(opened.url)
        await world.update(tables.Checkout, opened.checkout_id, created_at_ms=dying.clock.now_ms() - 120_000)


@pytest.mark.parametrize("is_prepared", [False, True], ids=["planned for these", "planned for any"])
async def test_what_is_asked_over_and_over_reads_what_is_open_and_not_what_is_over(
    database_url, redis_url, tmp_path, monkeypatch: pytest.MonkeyPatch, is_prepared: bool
):
    monkeypatch.setattr("dispatch.retention.FIRST_AFTER_S", 0.0)
    async with running_world(database_url, redis_url, tmp_path) as world, running_push_service() as service:
        async with running_node(world, without=LOOPS) as node:
            now_ms = node.clock.now_ms()
        _, mechanic_id = await years(world, since_ms=now_ms - (YEARS + 1) * STEP_MS)
        await left_behind(world, mechanic_id, service)
        with asked(monkeypatch) as noted:
            async with running_node(world, EAGER) as node, anyio.create_task_group() as tasks:
                tasks.start_soon(run_loop, "reconciler", node.reconciler.run)
                # What an operator's page asks for; the first time all is counted.
                for _ in range(2):
                    await node.ops.snapshot()
                await eventually(lambda: noted.names >= SEEN, "everything has been looked for")
                tasks.cancel_scope.cancel()
        assert noted.loops == LOOPS - ONLY_WHEN_TOLD, "a loop whose first look comes late is to be hurried here"
        periodic = [one for one in noted.statements.values() if one.name not in AT_START]
        costs = [(one.name, await cost(world, one, is_prepared=is_prepared)) for one in periodic]
        dear = [f"{name} reads {read}" for name, read in costs if read > READ_MAX]
        assert not dear, "; ".join(dear)
