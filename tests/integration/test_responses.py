"""How mechanics usually answer: counted from their priority offers, kept, and told with their status."""

import pytest
from sqlalchemy import text

from dispatch.responses import OLD_MS, Answer, Response, response_of
from models import tables
from models.wire import ResponseView
from tests.integration.dispatch_nodes import accept, free_request
from tests.parts import PATIENT, Node, World, eventually, running_node, running_world

DAY_MS = 24 * 3600 * 1000


def answer(reason: str, after_ms: int) -> Answer:
    return Answer("mike", reason, after_ms)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([], Response(0, 0, None)),
        ([answer("expired", 600_000)] * 6, Response(6, 0, None)),
        ([answer("taken", 30_000), answer("declined", 90_000)], Response(2, 50, 60)),
        ([answer("taken", 1)] * 2 + [answer("expired", 600_000)], Response(3, 67, 1)),
        ([answer("taken", ms) for ms in (1_000, 2_000, 500_000)], Response(3, 100, 2)),
    ],
    ids=["none", "never answered", "between two", "of what they answered", "the middle, not the mean"],
)
def test_answers_come_to_a_share_and_a_median(answers: list[Answer], expected: Response):
    assert response_of(answers) == expected


async def ended(world: World, node: Node, mechanic_id: str, how: str) -> str:
    """Let a priority offer to them end so; return its id."""
    customer_id, request = await free_request(world, node, mechanic_id)
    assert request.offer is not None
    match how:
        case "taken":
            await accept(node, mechanic_id, request.offer.id)()
            await node.dispatch.start(mechanic_id, request.id)
            await node.dispatch.complete(mechanic_id, request.id)
        case "declined":
            await node.dispatch.decline(mechanic_id, request.offer.id)
        case "skipped":
            await node.dispatch.skip_wait(customer_id, request.id)
        case _:
            await node.dispatch.cancel(customer_id, request.id)
    return request.offer.id


async def is_told(node: Node, mechanic_id: str, expected: ResponseView | None) -> None:
    async def is_so() -> bool:
        return (await node.presence.status_of([mechanic_id]))[mechanic_id].response == expected

    await eventually(is_so, f"{expected} is told")


async def test_from_five_offers_on_each_node_tells_how_somebody_answers(database_url, redis_url):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, PATIENT) as a,
        running_node(world, PATIENT) as b,
    ):
        mike, other = await world.mechanics(2)
        for how in ("taken", "taken", "declined", "skipped", "cancelled", "taken"):
            await ended(world, a, mike, how)
        await ended(world, a, other, "taken")

        async def all_counted() -> bool:
            async with world.database.read() as session:
                counted = await session.exec(  # type: ignore[call-overload]
                    text("SELECT count(*) FROM offers WHERE mechanic_id IS NOT NULL AND counted_at_ms IS NULL")
                )
                return counted.scalar_one() == 0

        await eventually(all_counted, "all are counted")
        await is_told(a, mike, None)
        await ended(world, b, mike, "declined")
        for node in (a, b):
            await is_told(node, mike, ResponseView(accept_percent=60, answers_within_s=1, offers=5))
            await is_told(node, other, None)


async def test_what_runs_out_while_they_are_in_a_session_was_not_theirs_to_answer(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world, PATIENT) as node:
        mike = await world.mechanic()
        for _ in range(5):
            await ended(world, node, mike, "declined")
        _, session = await free_request(world, node, mike)
        assert session.offer is not None
        await accept(node, mike, session.offer.id)()
        customer_id, waiting = await free_request(world, node, mike)
        assert waiting.offer is not None
        assert waiting.offer.preferred_is_busy is True
        end_ms = (await world.row(tables.Offer, waiting.offer.id)).expires_at_ms
        await node.elapsing._elapsed([waiting.offer.id], end_ms)
        assert (await world.request(node, customer_id, waiting.id)).status == "broadcasting"
        await is_told(node, mike, ResponseView(accept_percent=17, answers_within_s=1, offers=6))


async def test_what_is_older_than_ninety_days_counts_no_more(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world, PATIENT) as node:
        mike = await world.mechanic()
        for _ in range(5):
            await ended(world, node, mike, "declined")
        await is_told(node, mike, ResponseView(accept_percent=0, answers_within_s=1, offers=5))
        async with world.database.write() as session:
            for change in (
                f"UPDATE offers SET opened_at_ms = opened_at_ms - {91 * DAY_MS} WHERE mechanic_id IS NOT NULL",
                f"UPDATE mechanic_responses SET counted_at_ms = counted_at_ms - {OLD_MS + 1000}",
            ):
                await session.exec(text(change))  # type: ignore[call-overload]
        await is_told(node, mike, None)
