"""Who gets a request when many want it at the same time, on two nodes; and what everyone is told."""

from functools import partial

import pytest

from dispatch import deliveries
from models import tables
from models.outcomes import OfferGone, Refused
from models.rest import FreeCheckout
from models.wire import RequestView
from tests.integration.dispatch_nodes import accept, free_request, is_consistent, untimed
from tests.parts import (
    HURRIED,
    PATIENT,
    Node,
    World,
    body,
    events,
    eventually,
    running_node,
    running_world,
    side_by_side,
)

# The SDK hands httpx its form body by a parameter that httpx would like to see renamed.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")


# --- one winner -------------------------------------------------------------------------------------------------------


async def test_of_fifty_mechanics_on_two_nodes_one_wins_the_broadcast(database_url, redis_url):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as a,
        running_node(world) as b,
    ):
        customer_id, request = await free_request(world, a)
        assert request.offer is not None
        mechanics = await world.mechanics(50)
        answers = await side_by_side(
            *(accept((a, b)[number % 2], mechanic_id, request.offer.id) for number, mechanic_id in enumerate(mechanics))
        )
        (won,) = [answer for answer in answers if isinstance(answer, RequestView)]
        lost = [answer for answer in answers if isinstance(answer, OfferGone)]
        assert len(lost) == 49
        assert {answer.detail for answer in lost} == {"Another mechanic was faster."}
        winner = mechanics[answers.index(won)]
        assert won.assigned_mechanic is not None
        assert won.assigned_mechanic.id == winner
        assert (await world.request(b, customer_id, request.id)).assigned_mechanic == won.assigned_mechanic
        assert events(won).count("accepted") == 1
        await is_consistent(world, request.id)


async def test_whoever_took_a_broadcast_and_gave_it_back_is_told_so_whoever_has_tapped_it_since(
    database_url, redis_url
):
    async with running_world(database_url, redis_url) as world, running_node(world) as a:
        _, request = await free_request(world, a)
        assert request.offer is not None
        first, stale = await world.mechanics(2)
        await accept(a, first, request.offer.id)()
        await a.dispatch.release(first, request.id)
        # The node remembers now who took it, and not who has the request.
        for _ in range(2):
            assert await accept(a, stale, request.offer.id)() == OfferGone(detail="Another mechanic was faster.")
            assert await accept(a, first, request.offer.id)() == OfferGone(detail="You gave this request back.")


async def test_the_winner_who_accepts_again_gets_the_same_answer_and_nothing_happens(database_url, redis_url):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as a,
        running_node(world) as b,
    ):
        _, request = await free_request(world, a)
        assert request.offer is not None
        mechanic_id = await world.mechanic()
        first = await accept(a, mechanic_id, request.offer.id)()
        again = await side_by_side(*(accept(node, mechanic_id, request.offer.id) for node in (a, b, a, b)))
        assert isinstance(first, RequestView)
        assert list(map(untimed, again)) == [untimed(first)] * 4
        await a.dispatch.start(mechanic_id, request.id)
        done = await a.dispatch.complete(mechanic_id, request.id)
        assert await accept(b, mechanic_id, request.offer.id)() == done, "nobody else was faster"


async def test_one_mechanic_who_accepts_two_requests_side_by_side_gets_one_of_them(database_url, redis_url):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as a,
        running_node(world) as b,
    ):
        for _ in range(5):
            mechanic_id = await world.mechanic()
            requests = [(await free_request(world, node))[1] for node in (a, b)]
            answers = await side_by_side(
                *(accept(node, mechanic_id, request.offer.id) for node, request in zip((a, b), requests, strict=True))
            )
            codes = sorted(answer.code if isinstance(answer, Refused) else answer.status for answer in answers)
            assert codes == ["accepted", "already_in_session"]
            for request in requests:
                await is_consistent(world, request.id)


async def test_a_mechanic_in_a_session_cannot_take_another_request(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world) as a:
        mechanic_id = await world.mechanic()
        (_, first), (_, second) = [await free_request(world, a) for _ in range(2)]
        await accept(a, mechanic_id, first.offer.id)()
        refused = await accept(a, mechanic_id, second.offer.id)()
        assert isinstance(refused, Refused)
        assert refused.code == "already_in_session"
        await a.dispatch.release(mechanic_id, first.id)
        assert isinstance(await accept(a, mechanic_id, second.offer.id)(), RequestView)


async def test_a_decline_tapped_twice_side_by_side_is_one_decline(database_url, redis_url):
    # Both found no exclusion and both inserted it: the second met the primary key.
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as a,
        running_node(world) as b,
    ):
        for _ in range(5):
            _, request = await free_request(world, a)
            mechanic_id = await world.mechanic()
            taps = [partial(node.dispatch.decline, mechanic_id, request.offer.id) for node in (a, b, a, b)]
            assert sorted(await side_by_side(*taps)) == [False, False, False, True]
            assert len(await world.rows(tables.Exclusion, request_id=request.id)) == 1


async def test_accept_cancel_skip_and_decline_side_by_side_make_one_story_and_the_money_is_right(
    database_url, redis_url, tmp_path
):
    async with (
        running_world(database_url, redis_url, tmp_path) as world,
        running_node(world, PATIENT) as a,
        running_node(world, PATIENT) as b,
    ):
        for number in range(6):
            customer_id, favorite = await world.customer(), await world.mechanic()
            request = await world.paid_request(a, customer_id, favorite=favorite)
            assert request.offer is not None
            moves = [
                accept(a, favorite, request.offer.id),
                partial(b.dispatch.cancel, customer_id, request.id),
                partial(a.dispatch.skip_wait, customer_id, request.id),
                partial(b.dispatch.decline, favorite, request.offer.id),
                partial(a.dispatch.acknowledge, favorite, request.offer.id),
            ]
            turn = number % len(moves)
            await side_by_side(*(moves[turn:] + moves[:turn]))
            row = await world.row(tables.SessionRequest, request.id)
            assert row.status == "cancelled", "a customer can cancel in each of these states"
            await is_consistent(world, request.id)
            await eventually(partial(_refunded, world, request.id), "the money is back")


async def _refunded(world: World, request_id: str) -> bool:
    return [refund.status for refund in await world.rows(tables.Refund, request_id=request_id)] == ["succeeded"]


async def test_accept_and_cancel_racing_the_deadline_end_in_one_consistent_state(database_url, redis_url):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world, HURRIED) as a,
        running_node(world, HURRIED) as b,
    ):
        made = []
        for _ in range(6):
            favorite = await world.mechanic()
            made.append((favorite, *await free_request(world, a, favorite)))

        async def at_the_deadline(node: Node, favorite: str, customer_id: str, request: RequestView) -> None:
            deadline_ms = (await world.row(tables.Offer, request.offer.id)).expires_at_ms
            await eventually(lambda: node.clock.now_ms() >= deadline_ms - 2, "the deadline")
            await side_by_side(
                accept(node, favorite, request.offer.id),
                partial(b.dispatch.skip_wait, customer_id, request.id),
            )

        await side_by_side(*(partial(at_the_deadline, (a, b)[n % 2], *one) for n, one in enumerate(made)))
        for _, _, request in made:
            await is_consistent(world, request.id)
            row = await world.row(tables.SessionRequest, request.id)
            assert row.status in ("accepted", "broadcasting", "unfilled"), row.status
            offers = await world.rows(tables.Offer, request_id=request.id)
            assert len(offers) == (1 if row.fallback_reason is None else 2)


# --- the favourite and the broadcast ----------------------------------------------------------------------------------


async def test_a_decline_widens_at_once_and_only_the_others_are_asked(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world) as a:
        favorite, other = await world.mechanics(2)
        _, request = await free_request(world, a, favorite)
        assert [open_.offer.offer_id for open_ in (await a.reader.offers([favorite]))[favorite]] == [request.offer.id]
        assert (await a.reader.offers([other]))[other] == []

        assert await a.dispatch.decline(favorite, request.offer.id, "on holiday") is True
        assert (await a.reader.offers([favorite]))[favorite] == []
        (open_,) = (await a.reader.offers([other]))[other]
        assert (open_.offer.request_id, open_.offer.kind) == (request.id, "broadcast")
        told = await eventually(
            lambda: [offer for offer in a.heard_of(deliveries.OfferTo) if offer.mechanic_id is None], "a broadcast"
        )
        assert told[0].excluded == [favorite]
        withdrawn = await eventually(lambda: a.heard_of(deliveries.Withdraw), "the favourite's card goes")
        assert (withdrawn[0].offer_id, withdrawn[0].reason) == (request.offer.id, "declined")
        assert isinstance(await accept(a, favorite, open_.offer.offer_id)(), OfferGone)
        assert isinstance(await accept(a, favorite, request.offer.id)(), OfferGone)


async def test_a_late_accept_of_the_skipped_favorite_wins_the_broadcast(database_url, redis_url):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as a,
        running_node(world) as b,
    ):
        favorite, other = await world.mechanics(2)
        customer_id, request = await free_request(world, a, favorite)
        widened = await b.dispatch.skip_wait(customer_id, request.id)
        assert isinstance(widened, RequestView)
        assert (widened.status, widened.fallback_reason) == ("broadcasting", "skipped")
        won = await accept(a, favorite, request.offer.id)()
        assert isinstance(won, RequestView)
        assert won.assigned_mechanic is not None
        assert won.assigned_mechanic.id == favorite
        assert (await accept(b, other, widened.offer.id)()).detail == "Another mechanic was faster."
        again = await b.dispatch.skip_wait(customer_id, request.id)
        assert isinstance(again, Refused)
        assert again.code == "wrong_state"


@pytest.mark.parametrize("is_late", [False, True], ids=["in_time", "late"])
async def test_the_winner_is_told_to_drop_a_card_unless_it_is_the_one_that_they_named(
    database_url, redis_url, is_late: bool
):
    # A late tap names the priority offer and takes the broadcast, whose card its app may show by then.
    async with running_world(database_url, redis_url) as world, running_node(world) as a:
        favorite = await world.mechanic()
        customer_id, request = await free_request(world, a, favorite)
        named = taken = request.offer.id
        if is_late:
            widened = await a.dispatch.skip_wait(customer_id, request.id)
            assert isinstance(widened, RequestView)
            taken = widened.offer.id
        now_ms = a.clock.now_ms()
        won = await a.dispatch.accept(favorite, named, received_at_ms=now_ms, connection_id="phone")
        assert isinstance(won, RequestView)

        def withdrawn() -> list[deliveries.Withdraw]:
            return [one for one in a.heard_of(deliveries.Withdraw) if one.offer_id == taken]

        await eventually(withdrawn, "the card is withdrawn")
        assert [one.except_connection_id for one in withdrawn()] == [None if is_late else "phone"]


async def test_a_released_request_is_broadcast_without_whoever_released_it(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world) as a:
        favorite, other = await world.mechanics(2)
        _, request = await free_request(world, a, favorite)
        await accept(a, favorite, request.offer.id)()
        assert (await a.reader.standings([favorite]))[favorite].is_busy
        released = await a.dispatch.release(favorite, request.id)
        assert isinstance(released, RequestView)
        assert (released.status, released.assigned_mechanic, released.fallback_reason) == ("broadcasting", None, None)
        assert not (await a.reader.standings([favorite]))[favorite].is_busy
        assert (await a.reader.offers([favorite]))[favorite] == []
        for offer_id in (request.offer.id, released.offer.id):
            assert isinstance(await accept(a, favorite, offer_id)(), OfferGone)
        again = await a.dispatch.release(favorite, request.id)
        assert untimed(again) == untimed(released), "whoever has not heard the answer gets it"
        taken = await accept(a, other, released.offer.id)()
        assert isinstance(taken, RequestView)
        late = await a.dispatch.release(favorite, request.id)
        assert untimed(late).assigned_mechanic == taken.assigned_mechanic, "and whoever is late how it stands by then"
        stranger = await a.dispatch.release(await world.mechanic(), request.id)
        assert isinstance(stranger, Refused)
        assert stranger.code == "not_found"
        await is_consistent(world, request.id)
        assert events(taken) == ["requested", "offered", "accepted", "released", "broadcast", "accepted"]


async def test_an_unfilled_request_is_refunded_at_stripe_by_itself(database_url, redis_url, tmp_path):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world, HURRIED) as a:
        customer_id, favorite = await world.customer(), await world.mechanic()
        request = await world.paid_request(a, customer_id, favorite=favorite)
        await eventually(
            lambda: [u for u in a.updates_of(request.id) if (u["refund"] or {}).get("status") == "succeeded"],
            "the customer is told of the refund",
        )
        view = await world.request(a, customer_id, request.id)
        assert (view.status, view.fallback_reason, view.refund.amount_cents) == ("unfilled", "expired", 999)
        assert events(view) == [
            "paid",
            "offered",
            "expired",
            "broadcast",
            "unfilled",
            "refund_requested",
            "refunded",
        ]
        (refund,) = await world.rows(tables.Refund, request_id=request.id)
        at_stripe = await world.at_stripe(f"refunds/{refund.stripe_refund_id}")
        assert (at_stripe["amount"], at_stripe["status"]) == (999, "succeeded")
        assert at_stripe["payment_intent"] == refund.payment_intent_id


async def test_a_cancelled_request_is_refunded_and_its_mechanic_is_free_again(database_url, redis_url, tmp_path):
    async with running_world(database_url, redis_url, tmp_path) as world, running_node(world) as a:
        customer_id, favorite = await world.customer(), await world.mechanic()
        request = await world.paid_request(a, customer_id, favorite=favorite)
        await accept(a, favorite, request.offer.id)()
        cancelled = await a.dispatch.cancel(customer_id, request.id)
        assert isinstance(cancelled, RequestView)
        assert (cancelled.status, cancelled.refund.status) == ("cancelled", "pending")
        await eventually(lambda: _refunded(world, request.id), "the money is back")
        assert not (await a.reader.standings([favorite]))[favorite].is_busy
        again = await a.dispatch.cancel(customer_id, request.id)
        assert isinstance(again, Refused)
        assert again.code == "wrong_state"
        await is_consistent(world, request.id)
        told = await eventually(
            lambda: [to for to in a.heard_of(deliveries.FrameToMechanic) if b'"cancelled"' in bytes(to.frame)],
            "the mechanic is told",
        )
        assert told[0].mechanic_id == favorite


# --- the session ------------------------------------------------------------------------------------------------------


async def test_a_session_is_started_and_completed_by_its_mechanic_alone_and_the_customer_is_asked_to_keep_them(
    database_url, redis_url
):
    async with running_world(database_url, redis_url) as world, running_node(world) as a:
        mechanic_id, other = await world.mechanics(2)
        customer_id, request = await free_request(world, a)
        await accept(a, mechanic_id, request.offer.id)()
        for verb in (a.dispatch.start, a.dispatch.complete, a.dispatch.release):
            refused = await verb(other, request.id)
            assert isinstance(refused, Refused)
            assert refused.code == "not_found"
        assert (await a.dispatch.complete(mechanic_id, request.id)).code == "wrong_state"
        assert (await a.dispatch.start(mechanic_id, request.id)).status == "in_progress"
        assert (await a.dispatch.cancel(customer_id, request.id)).code == "wrong_state"
        assert (await a.dispatch.release(mechanic_id, request.id)).code == "wrong_state"
        serving = (await a.reader.mechanic_snapshots([mechanic_id]))[mechanic_id].request
        assert serving is not None
        assert serving.id == request.id
        done = await a.dispatch.complete(mechanic_id, request.id)
        assert (done.status, done.assigned_mechanic.id) == ("completed", mechanic_id)
        assert (await a.reader.mechanic_snapshots([mechanic_id]))[mechanic_id].request is None
        prompt = await eventually(
            lambda: [
                to for to in a.heard_of(deliveries.FrameToCustomer) if b'"type":"favorite_prompt"' in bytes(to.frame)
            ],
            "the prompt",
        )
        assert prompt[0].account_id == customer_id
        await is_consistent(world, request.id)


async def test_a_request_is_nobody_elses(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world) as a:
        stranger, mechanic_id = await world.customer(), await world.mechanic()
        customer_id, request = await free_request(world, a)
        for answer in (
            await a.reader.request_for(stranger, request.id),
            await a.reader.request_for(mechanic_id, request.id),
            await a.dispatch.cancel(stranger, request.id),
            await a.dispatch.skip_wait(stranger, request.id),
            await a.reader.request_for(customer_id, "nothing"),
            await a.dispatch.start(mechanic_id, "nothing"),
            await accept(a, mechanic_id, "nothing")(),
        ):
            assert isinstance(answer, Refused)
            assert answer.code == "not_found"


async def test_an_acknowledged_offer_is_shown_to_the_customer_as_delivered_once(database_url, redis_url):
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as a,
        running_node(world) as b,
    ):
        favorite, other = await world.mechanics(2)
        customer_id, request = await free_request(world, a, favorite)
        await a.dispatch.acknowledge(other, request.offer.id)
        assert "delivered" not in events(await world.request(a, customer_id, request.id))
        await side_by_side(*(partial(node.dispatch.acknowledge, favorite, request.offer.id) for node in (a, b, a, b)))
        view = await world.request(a, customer_id, request.id)
        assert events(view).count("delivered") == 1
        assert view.version == request.version + 1


class StoppedClock:
    """A millisecond that lasts."""

    def __init__(self, at_ms: int) -> None:
        self._at_ms = at_ms

    def now_ms(self) -> int:
        return self._at_ms


async def test_what_is_delivered_and_seen_in_the_same_millisecond_is_told_once_each(
    database_url, redis_url, monkeypatch
):
    async with running_world(database_url, redis_url) as world, running_node(world) as a:
        favorite = await world.mechanic()
        customer_id, request = await free_request(world, a, favorite)
        assert request.offer is not None
        monkeypatch.setattr(a.dispatch, "_clock", StoppedClock(a.clock.now_ms()))
        for seen in (False, True, True, False):
            await a.dispatch.acknowledge(favorite, request.offer.id, seen=seen)
        view = await world.request(a, customer_id, request.id)
        assert events(view)[-2:] == ["delivered", "seen"]
        assert events(view).count("delivered") == 1
        assert view.version == request.version + 2


async def test_off_duty_and_busy_mechanics_are_not_in_the_broadcast_but_may_come_on_duty_while_it_is_open(
    database_url, redis_url
):
    async with running_world(database_url, redis_url) as world, running_node(world) as a:
        off_duty, busy = await world.mechanics(2)
        await a.dispatch.set_on_duty(off_duty, False)
        _, first = await free_request(world, a)
        await accept(a, busy, first.offer.id)()
        _, request = await free_request(world, a)
        assert (await a.reader.offers([off_duty]))[off_duty] == (await a.reader.offers([busy]))[busy] == []
        assert (await a.dispatch.set_on_duty(off_duty, True)).on_duty
        assert [open_.offer.request_id for open_ in (await a.reader.offers([off_duty]))[off_duty]] == [request.id]


async def test_the_facts_version_counts_every_change_also_when_they_come_side_by_side(database_url, redis_url):
    # Going on duty read the version, an accept raised it, and the switch wrote the same number again.
    async with (
        running_world(database_url, redis_url) as world,
        running_node(world) as a,
        running_node(world) as b,
    ):
        for _ in range(5):
            mechanic_id = await world.mechanic()
            _, request = await free_request(world, a)
            before = (await world.row(tables.Mechanic, mechanic_id)).facts_version
            await side_by_side(
                accept(a, mechanic_id, request.offer.id), partial(b.dispatch.set_on_duty, mechanic_id, False)
            )
            assert (await world.row(tables.Mechanic, mechanic_id)).facts_version == before + 2


async def test_requests_are_listed_newest_first_page_by_page(database_url, redis_url):
    async with running_world(database_url, redis_url) as world, running_node(world) as a:
        customer_id = await world.customer()
        made = []
        for _ in range(3):
            answer = await a.checkouts.start(customer_id, body("free_diagnostic"))
            assert isinstance(answer, FreeCheckout)
            made.append(answer.request.id)
            await a.dispatch.cancel(customer_id, answer.request.id)
        first = await a.reader.requests_of(customer_id, "customer", limit=2)
        second = await a.reader.requests_of(customer_id, "customer", limit=2, cursor=first.next_cursor)
        assert [view.id for view in (*first.requests, *second.requests)] == made[::-1]
        assert second.next_cursor is None
        assert (await a.reader.requests_of(customer_id, "customer", status="accepted")).requests == []
        assert (await a.ops.snapshot()).counts["requests_cancelled"] == 3
