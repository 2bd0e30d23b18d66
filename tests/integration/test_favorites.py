"""What a favourite has done for a customer: sessions served, and money that stayed paid, in the currency that it was paid in."""

from functools import partial
from unittest import mock

from dispatch.favorites import Favorites
from models import tables
from models.ids import new_id
from models.outcomes import Refused
from models.rest import DayHours, FavoriteView
from tests.integration.dispatch_nodes import accept
from tests.parts import Node, World, eventually, running_node, running_world, side_by_side


async def served(world: World, node: Node, customer_id: str, mechanic_id: str) -> str:
    """Let the mechanic serve a paid session; return its checkout."""
    request = await world.paid_request(node, customer_id, favorite=mechanic_id)
    assert request.offer is not None
    await accept(node, mechanic_id, request.offer.id)()
    await node.dispatch.start(mechanic_id, request.id)
    await node.dispatch.complete(mechanic_id, request.id)
    (row,) = await world.rows(tables.SessionRequest, id=request.id)
    return row.checkout_id


async def at_stripe(world: World, checkout_id: str, action: str, **fields: str) -> None:
    """Let somebody move money of a payment there."""
    checkout = await world.row(tables.Checkout, checkout_id)
    assert checkout.url is not None
    await world.play_money(checkout.url, action, **fields)


async def the_favorite(node: Node, customer_id: str) -> FavoriteView:
    (favorite,) = await Favorites(node.database, node.clock, node.presence).of(customer_id)
    return favorite


async def earned_by(node: Node, mechanic_id: str) -> list[tuple[str, int, int]]:
    hours = await node.hours.hours_of(mechanic_id, None, None)
    assert not isinstance(hours, Refused)
    days: list[DayHours] = [day for day in hours.days if day.sessions]
    return [(day.currency, day.sessions, day.earned_cents) for day in days]


async def test_money_is_told_in_the_currency_most_used_and_only_while_it_stays_paid(database_url, redis_url, tmp_path):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as node:
        customer_id, mechanic_id = await world.customer(), await world.mechanic()
        await Favorites(node.database, node.clock, node.presence).add(customer_id, mechanic_id)
        await world.update(tables.Plan, "free_diagnostic", currency="eur")
        nothing = await the_favorite(node, customer_id)
        assert (nothing.services_count, nothing.total_spent_cents, nothing.currency) == (0, 0, "eur")

        async def tells(spent_cents: int, currency: str, *, earned: list[tuple[str, int, int]]) -> None:
            async def does() -> bool:
                told = await the_favorite(node, customer_id)
                assert told.services_count == 3, "all of them were served"
                return (told.total_spent_cents, told.currency) == (spent_cents, currency)

            await eventually(does, f"{spent_cents} {currency} were spent")
            assert await earned_by(node, mechanic_id) == earned

        await world.update(tables.Plan, "quick_chat", currency="eur")
        first, second = [await served(world, node, customer_id, mechanic_id) for _ in range(2)]
        await world.update(tables.Plan, "quick_chat", currency="jpy", price_cents=1500)
        third = await served(world, node, customer_id, mechanic_id)
        await tells(1998, "eur", earned=[("eur", 2, 1998), ("jpy", 1, 1500)])
        await at_stripe(world, first, "refund", amount="5.00")
        await tells(1498, "eur", earned=[("eur", 2, 1998), ("jpy", 1, 1500)])
        # Of what went back in full nothing is spent or earned: one payment is left in each currency, the last of them in yen.
        await at_stripe(world, second, "refund")
        await tells(1500, "jpy", earned=[("eur", 2, 999), ("jpy", 1, 1500)])
        await at_stripe(world, third, "dispute")
        (dispute,) = (await world.at_stripe("disputes"))["data"]
        await at_stripe(world, third, "lose", dispute=dispute["id"])
        await tells(499, "eur", earned=[("eur", 2, 999), ("jpy", 1, 0)])


async def test_what_an_earlier_version_has_given_back_is_neither_spent_nor_earned(database_url, redis_url, tmp_path):
    # It has kept no ledger, only that it had to give all back, and has.
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as node:
        customer_id, mechanic_id = await world.customer(), await world.mechanic()
        await Favorites(node.database, node.clock, node.presence).add(customer_id, mechanic_id)
        checkout = await world.row(tables.Checkout, await served(world, node, customer_id, mechanic_id))
        async with world.database.write() as session:
            session.add(
                tables.Refund(
                    id=new_id(),
                    checkout_id=checkout.id,
                    payment_intent_id=checkout.payment_intent_id or "",
                    amount_cents=checkout.price_cents,
                    currency=checkout.currency,
                    cause="operator",
                    status="succeeded",
                    created_at_ms=1,
                )
            )
        told = await the_favorite(node, customer_id)
        assert (told.services_count, told.total_spent_cents, told.currency) == (1, 0, "usd")
        assert await earned_by(node, mechanic_id) == [("usd", 1, 0)]


async def test_of_many_marks_side_by_side_as_many_are_kept_as_there_may_be(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world) as a, running_node(world) as b:
        customer_id = await world.customer()
        mechanics = await world.mechanics(4)
        others = await world.mechanics(2)
        async with world.database.write() as session:
            session.add_all(
                tables.Favorite(customer_id=customer_id, mechanic_id=one, created_at_ms=1) for one in others
            )
        marks = [Favorites(node.database, node.clock, node.presence) for node in (a, b)]
        with mock.patch("dispatch.favorites.FAVORITES_MAX", 4):
            calls = [partial(marks[number % 2].add, customer_id, one) for number, one in enumerate(mechanics)]
            answers = await side_by_side(*calls)
            refused = [answer for answer in answers if isinstance(answer, Refused)]
            assert [answer.code for answer in refused] == ["too_many_favorites"] * 2
            # What is there already can be marked again.
            again = await marks[0].add(customer_id, others[0])
        assert not isinstance(again, Refused)
        assert again[1] is False
        assert len(await world.rows(tables.Favorite, customer_id=customer_id)) == 4
