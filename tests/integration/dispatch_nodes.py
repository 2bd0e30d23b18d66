"""What the tests of dispatch on composed nodes share: quick requests, accepts, and what is true of every request."""

from collections import Counter
from functools import partial

from msgspec.structs import replace

from models import tables
from models.outcomes import Refused
from models.rest import FreeCheckout
from models.wire import RequestView
from tests.parts import Node, World, body


async def free_request(world: World, node: Node, favorite: str | None = None) -> tuple[str, RequestView]:
    """Return a new customer and their free request: quick to make where money does not matter."""
    customer_id = await world.customer()
    answer = await node.checkouts.start(customer_id, body("free_diagnostic", favorite))
    assert isinstance(answer, FreeCheckout), answer
    return customer_id, answer.request


def untimed(view: RequestView | Refused | None) -> RequestView:
    """Return the view without the time that is left: two that are read one after the other differ in that."""
    assert isinstance(view, RequestView), view
    return replace(
        view,
        offer=view.offer and replace(view.offer, expires_in_ms=0),
        start=view.start and replace(view.start, expires_in_ms=0),
        ends=view.ends and replace(view.ends, expires_in_ms=0),
    )


def accept(node: Node, mechanic_id: str, offer_id: str):
    return partial(node.dispatch.accept, mechanic_id, offer_id, received_at_ms=node.clock.now_ms())


async def is_consistent(world: World, request_id: str) -> None:
    """Check what is true of every request: one story, one end, money served or back once."""
    row = await world.row(tables.SessionRequest, request_id)
    offers = await world.rows(tables.Offer, request_id=request_id)
    refunds = await world.rows(tables.Refund, request_id=request_id)
    story = [entry.event for entry in await world.rows(tables.TimelineEntry, request_id=request_id)]
    mechanics = await world.rows(tables.Mechanic, active_request_id=request_id)
    is_looking = row.status in ("priority_offered", "broadcasting")
    assert [offer.closed_at_ms is None for offer in offers].count(True) == is_looking
    assert len(refunds) == (row.status in ("unfilled", "cancelled") and row.price_cents > 0)
    assert [mechanic.id for mechanic in mechanics] == (
        [row.assigned_mechanic_id] if row.status in ("accepted", "in_progress") else []
    )
    count = Counter(story)
    assert max(count["cancelled"], count["unfilled"], count["completed"]) <= 1
    assert count["expired"] + count["skipped"] + sum(
        entry.event == "declined" for entry in await world.rows(tables.TimelineEntry, request_id=request_id)
    ) == (row.fallback_reason is not None)
    assert row.version >= count["accepted"] + count["broadcast"] * (row.routing_type == "priority_broadcast")
