"""The Python client against real servers: what it is told, what it answers, and that it goes without a trace."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import anyio
import httpx
import pytest

from clients.python.pitlane_client import (
    ConnectionState,
    CustomerClient,
    DutyChanged,
    FavoritePrompted,
    MechanicClient,
    OfferGone,
    OfferMade,
    Problem,
    Refused,
    RequestChanged,
    RequestGone,
    ServerComplained,
    SignedOut,
    StatusChanged,
)
from http_api.sockets import close_codes
from models import tables
from tests.acceptance.clients import token_for
from tests.acceptance.town import Town, new_town
from tests.integration.rest_house import House, rest_house
from tests.integration.socket_nodes import Node, eventually, town
from tests.integration.test_sockets_messages import offered
from tests.lossy_proxy import Fate, LossyProxy, Weather, lossy_proxy

PATIENCE_S = 15.0
OF_THE_CLIENT = ("pitlane_client", "/websockets/asyncio/client", "httpx")
Client = TypeVar("Client", MechanicClient, CustomerClient)


@contextmanager
def leaving_nothing_behind() -> Iterator[None]:
    yield
    # The nodes run in this loop, too, and have tasks of their own.
    assert [task for task in asyncio.all_tasks() if any(name in repr(task) for name in OF_THE_CLIENT)] == []


async def next_of(client: Any, kind: type[Any], **members: Any) -> Any:
    """Return the next event of a kind with these members of its object, reading past others."""
    with anyio.fail_after(PATIENCE_S):
        async for event in client:
            if isinstance(event, kind):
                inner = next(iter(vars(event).values()))
                if all(
                    (inner if isinstance(inner, dict) else vars(event))[name] == is_ for name, is_ in members.items()
                ):
                    return event
    raise AssertionError("a client's events have no end")


def at(node: Node, account_id: str, role: str, kind: Callable[..., Client], **options: Any) -> Client:
    return kind(f"http://127.0.0.1:{node.port}", node.token(account_id, role), trust_env=False, **options)


# --- sockets alone: real nodes without REST ---------------------------------------------------------------------------


async def test_an_offer_is_acknowledged_each_time_and_handed_out_once(redis_url: str, tmp_path: Path) -> None:
    async with town(redis_url, tmp_path) as here, here.node(resend_interval_ms=60_000) as node:
        mechanic = await here.add_mechanic()
        with leaving_nothing_behind():
            async with at(node, mechanic, "mechanic", MechanicClient) as app:
                await next_of(app, DutyChanged, on_duty=True)
                await node.tell(offered(node))
                made = await next_of(app, OfferMade)
                assert made.offer["offer_id"] == "o1"
                assert [one.offer["offer_id"] for one in app.offers] == ["o1"]
                (connection,) = node.hub.mechanics.all()
                shown = connection._shown["o1"]  # type: ignore[index]
                await eventually(lambda: not shown.unacknowledged, "it is acknowledged")
                # As if our word had been lost: the very same offer again.
                frame = shown.frame(node.clock.now_ms())
                shown.unacknowledged[connection] = 0.0
                connection.deliver(frame)
                await eventually(lambda: not shown.unacknowledged, "it is acknowledged again")
                assert not shown.is_seen
                app.seen("o1")
                await eventually(lambda: shown.is_seen, "a person could see it")
                await node.tell(offered(node, "o2"))
                assert (await next_of(app, OfferMade)).offer["offer_id"] == "o2"
        await eventually(lambda: node.hub.connection_counts["mechanic"] == 0, "it has left")


async def test_after_a_reconnect_only_what_has_changed_is_handed_out(redis_url: str, tmp_path: Path) -> None:
    async with town(redis_url, tmp_path) as here, here.node() as node:
        mechanic = await here.add_mechanic()
        async with at(node, mechanic, "mechanic", MechanicClient) as app:
            await next_of(app, DutyChanged)
            await node.tell(offered(node))
            await next_of(app, OfferMade)
            (connection,) = node.hub.mechanics.all()
            connection.close(close_codes.BUG, "a test")
            # It is in no table of SQL, so the snapshot after the reconnect does not have it.
            gone = await next_of(app, OfferGone)
            assert (gone.offer["offer_id"], gone.reason, gone.by_you) == ("o1", "gone", False)
            assert app.state is ConnectionState.LIVE
            assert app.offers == []


async def test_duty_is_set_over_a_reconnect_and_told_once(redis_url: str, tmp_path: Path) -> None:
    async with town(redis_url, tmp_path) as here, here.node() as node:
        mechanic = await here.add_mechanic()
        async with at(node, mechanic, "mechanic", MechanicClient) as app:
            await next_of(app, DutyChanged, on_duty=True)
            (connection,) = node.hub.mechanics.all()
            connection.close(close_codes.BUG, "a test")
            await app.set_on_duty(False)
            assert app.on_duty is False
            assert (await next_of(app, DutyChanged)).on_duty is False


async def test_what_is_watched_is_watched_again_after_a_reconnect(redis_url: str, tmp_path: Path) -> None:
    async with town(redis_url, tmp_path) as here, here.node() as node:
        mechanics = [await here.add_mechanic() for _ in range(3)]
        async with at(node, await here.add_customer(), "customer", CustomerClient) as page:
            page.watch([*mechanics, "nobody"])
            for _ in mechanics:
                assert not (await next_of(page, StatusChanged)).status["is_online"]
            complaint = await next_of(page, ServerComplained)
            assert (complaint.code, complaint.ref) == ("mechanic_not_found", "nobody")
            page.unwatch(mechanics[2:])
            assert page.watched == mechanics[:2]
            (connection,) = node.hub.customers.all()
            connection.close(close_codes.BUG, "a test")
            await eventually(lambda: page.state is ConnectionState.RECONNECTING, "it has noticed")
            async with node.mechanic(mechanics[2]), node.mechanic(mechanics[0]):
                online = await next_of(page, StatusChanged, is_online=True)
                assert online.status["mechanic_id"] == mechanics[0]
            with pytest.raises(ValueError, match="at most 100"):
                page.watch(f"m{number}" for number in range(99))


async def test_a_token_that_has_expired_ends_the_client_and_everybody_who_waits(redis_url: str, tmp_path: Path) -> None:
    async with town(redis_url, tmp_path) as here, here.node() as node:
        mechanic = await here.add_mechanic()
        url, token = f"http://127.0.0.1:{node.port}", node.token(mechanic, lifetime_s=2)
        with leaving_nothing_behind(), anyio.fail_after(PATIENCE_S):
            async with MechanicClient(url, token, trust_env=False) as app:
                with pytest.raises(SignedOut):
                    async for _ in app:
                        pass
                with pytest.raises(SignedOut):
                    await app.set_on_duty(False)


async def test_a_fresh_token_is_asked_for_when_one_has_expired(redis_url: str, tmp_path: Path) -> None:
    async with town(redis_url, tmp_path) as here, here.node() as node:
        mechanic = await here.add_mechanic()
        given: list[str] = []

        async def token() -> str:
            given.append(node.token(mechanic, lifetime_s=2 if not given else 3600))
            return given[-1]

        async with MechanicClient(f"http://127.0.0.1:{node.port}", token, trust_env=False) as app:
            await next_of(app, DutyChanged)
            await eventually(lambda: app._welcomes == 2, "it is back with the second")
            assert len(given) == 2
            await app.set_on_duty(False)


class Impatient(Random):
    """Draws the shortest wait each time."""

    def random(self) -> float:
        return 0.0


async def test_a_token_that_cannot_be_had_for_a_while_ends_nothing(redis_url: str, tmp_path: Path) -> None:
    # Without one there is no socket, and after three tries REST is asked as well: it needs one, too.
    async with town(redis_url, tmp_path) as here, here.node() as node:
        mechanic = await here.add_mechanic()
        is_away, asked = True, 0

        async def token() -> str:
            nonlocal asked
            asked += 1
            if is_away:
                raise httpx.ConnectError("the issuer is away")
            return node.token(mechanic)

        url = f"http://127.0.0.1:{node.port}"
        async with MechanicClient(url, token, trust_env=False, dice=Impatient()) as app:
            await eventually(lambda: asked > 50, "sockets and REST have been tried")
            with pytest.raises(Problem, match="no token"):
                await app.call("GET", "/api/me")
            is_away = False
            app.hurry()
            await next_of(app, DutyChanged)
            assert app.state is ConnectionState.LIVE


async def test_a_wish_that_makes_no_sense_is_answered_at_once(redis_url: str, tmp_path: Path) -> None:
    async with town(redis_url, tmp_path) as here, here.node() as node:
        mechanic = await here.add_mechanic()
        async with at(node, mechanic, "mechanic", MechanicClient) as app:
            await next_of(app, DutyChanged, on_duty=True)
            refused = await app.set_on_duty(True, off_after_session=True)
            assert isinstance(refused, Refused)
            assert refused.code == "not_in_session"
            refused = await app.set_on_duty(False, back_in_s=1)
            assert isinstance(refused, Refused)
            assert refused.code == "invalid_availability"
            assert await app.set_on_duty(False, back_in_s=60) is None
            assert app.on_duty is False
            told = await next_of(app, DutyChanged, on_duty=False)
            assert told.back_at is not None
        async with at(node, mechanic, "mechanic", MechanicClient) as other_device:
            assert (await next_of(other_device, DutyChanged)).back_at == told.back_at


async def test_of_two_wishes_each_gets_its_own_answer_and_the_newer_one_counts(redis_url: str, tmp_path: Path) -> None:
    async with town(redis_url, tmp_path) as here, here.node() as node:
        mechanic = await here.add_mechanic()
        async with at(node, mechanic, "mechanic", MechanicClient) as app:
            await next_of(app, DutyChanged, on_duty=True)
            # The server refuses the older one after the newer one has been said.
            answers = await asyncio.gather(
                app.set_on_duty(False, back_in_s=59), app.set_on_duty(False, back_in_s=1_800)
            )
            assert answers == [None, None]
            assert app.on_duty is False
            assert (await next_of(app, ServerComplained)).code == "invalid_availability"
            # Off duty they are already: it is the break that is waited for.
            answers = await asyncio.gather(app.set_on_duty(False), app.set_on_duty(False, back_in_s=59))
            assert isinstance(answers[1], Refused)
        async with at(node, mechanic, "mechanic", MechanicClient) as other_device:
            assert not (await next_of(other_device, DutyChanged)).on_duty


async def test_a_token_of_another_kind_of_account_is_refused_for_good(redis_url: str, tmp_path: Path) -> None:
    async with town(redis_url, tmp_path) as here, here.node() as node:
        customer = await here.add_customer()
        async with at(node, customer, "customer", MechanicClient) as app:
            with pytest.raises(SignedOut, match="mechanic"), anyio.fail_after(PATIENCE_S):
                async for _ in app:
                    pass


async def test_what_the_app_raises_comes_out_as_it_is_and_cancelling_leaves_nothing(
    redis_url: str, tmp_path: Path
) -> None:
    async with town(redis_url, tmp_path) as here, here.node() as node:
        mechanic = await here.add_mechanic()
        with leaving_nothing_behind():
            with pytest.raises(ZeroDivisionError):
                async with at(node, mechanic, "mechanic", MechanicClient) as app:
                    await next_of(app, DutyChanged)
                    raise ZeroDivisionError
            with anyio.move_on_after(PATIENCE_S) as scope:
                async with at(node, mechanic, "mechanic", MechanicClient) as app:
                    await next_of(app, DutyChanged)
                    scope.cancel()
                    await anyio.sleep_forever()
            # In the midst of a handshake.
            with anyio.move_on_after(0.001):
                async with at(node, mechanic, "mechanic", MechanicClient) as app:
                    await anyio.sleep_forever()
        await eventually(lambda: node.hub.connection_counts["mechanic"] == 0, "all have left")


# --- a whole server ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with rest_house(tmp_path_factory.mktemp("client")) as one:
        yield one


@asynccontextmanager
async def mechanic_of(house: House, mechanic_id: str) -> AsyncIterator[MechanicClient]:
    async with MechanicClient(house.base_url, token_for(mechanic_id, "mechanic"), trust_env=False) as app:
        await next_of(app, DutyChanged)
        yield app


async def test_a_session_from_the_offer_to_the_end_as_both_sides_see_it(house: House) -> None:
    driver, mia = await house.add("customer", "dora"), await house.add("mechanic", "mona")
    with leaving_nothing_behind():
        async with (
            CustomerClient(house.base_url, token_for(driver, "customer"), trust_env=False) as page,
            mechanic_of(house, mia) as app,
        ):
            page.watch([mia])
            await house.paid_request(driver, routing_type="priority_broadcast", preferred_mechanic_id=mia)
            offer = (await next_of(app, OfferMade)).offer
            assert offer["kind"] == "priority"
            answers = await asyncio.gather(app.accept(offer["offer_id"]), app.accept(offer["offer_id"]))
            for request in answers:
                assert not isinstance(request, Refused)
                assert request["status"] == "accepted"
            gone = await next_of(app, OfferGone)
            assert (gone.reason, gone.by_you) == ("accepted", True)
            request_id = offer["request_id"]
            await next_of(page, StatusChanged, availability="busy")
            for request in answers:
                assert not isinstance(request, Refused)
                start = request.get("start")
                assert start is not None
                assert 0 < start["expires_in_ms"] <= 300_000
                assert request.get("ends") is None
            started = await app.start(request_id)
            assert not isinstance(started, Refused)
            assert isinstance(await page.find_another(request_id, mia), Refused), "it has begun"
            begun = await next_of(page, RequestChanged, status="in_progress")
            assert begun.deadline_s is not None
            assert begun.deadline_s > asyncio.get_running_loop().time()
            # Repeated, it is refused, and nothing is different.
            assert isinstance(await app.act(request_id, "start"), Refused)
            for done in (await page.complete(request_id), await app.complete(request_id)):
                assert not isinstance(done, Refused)
                assert done["timeline"][-1]["by"] == "customer"
            assert (await next_of(page, RequestChanged, status="completed")).deadline_s is None
            reported = await page.report(request_id, "We could not hear each other")
            assert not isinstance(reported, Refused)
            again = await page.report(request_id, "We could not hear each other")
            assert isinstance(again, Refused)
            assert again.code == "already_reported"
            prompt = await next_of(page, FavoritePrompted)
            assert (prompt.request_id, prompt.mechanic["id"]) == (request_id, mia)
            server_now_ms = app.server_now_ms()
            assert server_now_ms is not None


async def test_a_customer_who_finds_another_mechanic_takes_the_request_from_the_one_who_has_it(house: House) -> None:
    driver, mia, second = (
        await house.add("customer", "dita"),
        await house.add("mechanic", "mika"),
        await house.add("mechanic", "milo"),
    )
    async with (
        CustomerClient(house.base_url, token_for(driver, "customer"), trust_env=False) as page,
        mechanic_of(house, mia) as app,
        mechanic_of(house, second) as other,
    ):
        request = await house.paid_request(driver, routing_type="priority_broadcast", preferred_mechanic_id=mia)
        offer_id = (await next_of(app, OfferMade)).offer["offer_id"]
        await app.accept(offer_id)
        assert not isinstance(await page.find_another(request["id"], mia), Refused)
        lost = (await next_of(app, RequestChanged, status="broadcasting")).request
        assert ("find_another", mia) in [(line["event"], line.get("mechanic_id")) for line in lost["timeline"]]
        taken = await other.accept((await next_of(other, OfferMade)).offer["offer_id"])
        assert not isinstance(taken, Refused)
        # Repeated, as after an answer that was lost, it is still about the first one.
        again = await page.find_another(request["id"], mia)
        assert isinstance(again, Refused)
        assert again.code == "wrong_state"
        assert not isinstance(await other.release(request["id"]), Refused)
    async with house.as_(driver, "customer") as rest:
        await rest.ok("POST", f"/api/requests/{request['id']}/cancel")


async def test_who_loses_the_race_is_told_so_and_who_declines_is_not_asked_again(house: House) -> None:
    driver = await house.add("customer", "dan")
    fast, slow, picky = [await house.add("mechanic", name) for name in ("fast", "slow", "picky")]
    async with mechanic_of(house, fast) as one, mechanic_of(house, slow) as two, mechanic_of(house, picky) as three:
        await house.paid_request(driver)
        offer_ids = [(await next_of(app, OfferMade)).offer["offer_id"] for app in (one, two, three)]
        assert len(set(offer_ids)) == 1
        assert await three.decline(offer_ids[0], "Not my kind of job") is None
        assert (await next_of(three, OfferGone)).reason == "declined"
        # Again: so it is already.
        assert await three.decline(offer_ids[0]) is None
        assert not isinstance(await one.accept(offer_ids[0]), Refused)
        lost = await two.accept(offer_ids[0])
        assert isinstance(lost, Refused)
        assert lost.code == "offer_gone"
        assert (await next_of(two, OfferGone)).offer["offer_id"] == offer_ids[0]
        assert isinstance(await three.accept("no-such-offer"), Refused)


async def test_a_request_that_is_somebody_elses_now_is_gone(house: House) -> None:
    driver, mia = await house.add("customer", "dirk"), await house.add("mechanic", "maud")
    async with mechanic_of(house, mia) as app:
        request = await house.paid_request(driver, routing_type="priority_broadcast", preferred_mechanic_id=mia)
        offer = (await next_of(app, OfferMade)).offer
        await app.accept(offer["offer_id"])
        released, given = asyncio.Event(), app._tokens.get

        async def once_released() -> str:
            await released.wait()
            return await given()

        # Who is back before it was given back hears of that as a change.
        app._tokens.get = once_released  # type: ignore[method-assign]
        async with house.as_(mia, "mechanic") as other_device:
            app._line.give_up()  # type: ignore[union-attr]
            await other_device.ok("POST", f"/api/requests/{request['id']}/release")
        released.set()
        gone = await next_of(app, RequestGone)
        assert gone.request_id == request["id"]
    async with house.as_(driver, "customer") as rest:
        await rest.ok("POST", f"/api/requests/{request['id']}/cancel")


# --- a line that dies before the answer -------------------------------------------------------------------------------


async def is_heard(here: Town, mechanic_id: str, request_id: str, verb: str) -> bool:
    """Whether the server has done what the mechanic has answered."""
    if verb == "decline":
        return await here.rows(tables.Exclusion, request_id=request_id, mechanic_id=mechanic_id) != []
    return "accepted" in await here.story(request_id)


async def die_once_heard(proxy: LossyProxy, here: Town, *answer: str) -> None:
    """The server does what was asked for; what it says of that does not arrive."""
    await eventually(lambda: is_heard(here, *answer), "the server has heard it")
    proxy.cut_all()


@pytest.mark.parametrize("fate", [Fate.STALL_DOWN, Fate.HALF_OPEN])
@pytest.mark.parametrize("verb", ["accept", "decline"])
async def test_an_answer_whose_socket_dies_first_is_settled_over_rest_and_counts_once(
    house: House, verb: str, fate: Fate
) -> None:
    async with (
        new_town(house.settings.resolved_database_url) as here,
        # What is held stays held until the line is cut.
        lossy_proxy(house.base_url, seed=0, weather=Weather(stall_s=(60.0, 60.0))) as proxy,
        MechanicClient(proxy.base_url, token_for(here.john, "mechanic"), trust_env=False) as app,
        anyio.create_task_group() as tasks,
    ):
        request_id = await here.paid(house.server)
        offer = (await next_of(app, OfferMade, request_id=request_id)).offer
        # From now on no new socket can be had either: what answers is REST.
        proxy.blocks_sockets = True
        proxy.strike_all(fate)
        if fate is Fate.STALL_DOWN:
            tasks.start_soon(die_once_heard, proxy, here, here.john, request_id, verb)
        outcome = await (app.accept if verb == "accept" else app.decline)(offer["offer_id"])
        if verb == "accept":
            assert isinstance(outcome, dict)
            assert (outcome["id"], outcome["status"]) == (request_id, "accepted")
        else:
            assert outcome is None
        gone = await next_of(app, OfferGone)
        assert (gone.offer["offer_id"], gone.by_you) == (offer["offer_id"], True)
        # What others have left open may be there.
        assert offer["offer_id"] not in [one.offer["offer_id"] for one in app.offers]
        assert (await here.story(request_id)).count("accepted") == (verb == "accept")
        (row,) = await here.rows(tables.SessionRequest, id=request_id)
        assert row.assigned_mechanic_id == (here.john if verb == "accept" else None)
        assert len(await here.rows(tables.Exclusion, request_id=request_id)) == (verb == "decline")
