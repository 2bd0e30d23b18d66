"""When the Python client asks whether its line lives, and when it tries again: no earlier than it was told to."""

import asyncio
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from starlette.responses import JSONResponse

from clients.python import pitlane_client as client
from clients.python.pitlane_client import ConnectionState, MechanicClient, Refused, Unsettled
from tests.integration.scripted_server import Call, ScriptedServer, a_request, ours, page, scripted_server, welcome
from tests.integration.socket_nodes import eventually


class Fixed(Random):
    """Draws the same each time."""

    def __init__(self, chance: float = 0.0) -> None:
        super().__init__()
        self._chance = chance

    def random(self) -> float:
        return self._chance


def app_of(server: ScriptedServer, chance: float = 0.0, **options: Any) -> MechanicClient:
    return MechanicClient(server.base_url, "good", trust_env=False, dice=Fixed(chance), **options)


# --- is the line alive? -----------------------------------------------------------------------------------------------


async def test_a_beat_that_is_due_while_a_probe_waits_breaks_no_healthy_line() -> None:
    async with scripted_server() as server:
        # The first beat comes after half an interval, and the answer to the probe after that: both in good time.
        server.welcome = welcome(heartbeat_interval_s=0.6)
        server.acknowledges = False
        async with app_of(server, chance=0.5) as app:
            await eventually(lambda: app.state is ConnectionState.LIVE, "it is connected")
            app.hurry()
            await eventually(lambda: len(server.received) == 2, "the probe and the beat have arrived")
            server.acknowledges = True
            await server.acknowledge()
            await eventually(lambda: len(server.received) == 4, "two more beats")
            assert len(server.tries) == 1


async def test_a_dead_line_is_found_also_where_a_beat_has_been_unanswered_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "PROBE_TIMEOUT_S", 0.2)
    async with scripted_server() as server:
        server.acknowledges = False
        async with app_of(server) as app:
            await eventually(lambda: len(server.received) == 1, "the first beat, and the next one is a minute away")
            app.hurry()
            await eventually(lambda: len(server.received) == 2, "it is asked all the same")
            await eventually(lambda: len(server.tries) == 2, "it is given up, and tried again")


async def test_one_probe_at_a_time_and_its_time_runs_from_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PROBE_TIMEOUT_S", 0.3)
    async with scripted_server() as server:
        server.acknowledges = False
        async with app_of(server, chance=0.9) as app:
            await eventually(lambda: app.state is ConnectionState.LIVE, "it is connected")

            def is_lost_for_all_the_hurry() -> bool:
                app.hurry()
                return app.state is not ConnectionState.LIVE

            await eventually(is_lost_for_all_the_hurry, "it is given up")
            assert len(server.received) == 1


# --- when may it be tried again? --------------------------------------------------------------------------------------


def gaps_s(calls: list[Call]) -> list[float]:
    return [later.at_s - earlier.at_s for earlier, later in pairwise(calls)]


async def test_hurry_does_not_try_a_socket_before_the_server_allows_it() -> None:
    async with scripted_server() as server:
        server.handshakes = [ours(503, "unavailable", retry_after="1")]
        async with app_of(server) as app:

            def is_live_for_all_the_hurry() -> bool:
                app.hurry()
                return app.state is ConnectionState.LIVE

            await eventually(is_live_for_all_the_hurry, "it is connected")
            assert len(server.tries) == 2
            assert gaps_s(server.tries)[0] >= 1.0


async def test_polling_that_begins_to_work_does_not_try_a_socket_before_the_server_allows_it() -> None:
    async with scripted_server() as server:
        server.rest = lambda _: JSONResponse({"id": "m1", "offers": [], "requests": []})
        server.handshakes = [page(502), page(502), ours(503, "unavailable", retry_after="1")]
        async with app_of(server) as app:
            await eventually(lambda: app.state is ConnectionState.POLLING, "REST answers")
            await eventually(lambda: app.state is ConnectionState.LIVE, "it is connected")
            assert gaps_s(server.tries)[-1] >= 1.0


async def test_what_became_of_a_request_is_not_asked_before_the_server_allows_it() -> None:
    async with scripted_server() as server:
        answers = [ours(429, "too_many", retry_after="1"), ours(404, "not_found")]
        server.rest = lambda _: answers.pop(0)
        server.welcome = welcome(request=a_request(assigned_to="m1"))
        async with app_of(server) as app:
            await eventually(lambda: app.state is ConnectionState.LIVE, "the request is known")
            server.welcome = welcome()
            await server.sockets[-1].close(1011)
            await eventually(lambda: not answers, "it is known what became of it")
            assert gaps_s(server.calls)[0] >= 1.0


async def test_an_answer_is_not_repeated_before_the_server_allows_it_and_unsettled_where_that_is_too_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with scripted_server() as server:
        server.handshakes = [ours(503, "unavailable", retry_after="60")]
        answers = [ours(503, "unavailable", retry_after="1"), ours(409, "offer_gone")]
        server.rest = lambda _: answers.pop(0)
        async with app_of(server) as app:
            await eventually(lambda: not server.handshakes, "there is no line, and will be none for a minute")
            assert isinstance(await app.decline("o1"), Refused)
            assert gaps_s(server.calls)[0] >= 1.0
            monkeypatch.setattr(client, "SETTLE_TIMEOUT_S", 0.5)
            answers[:] = [ours(429, "too_many", retry_after="60")]
            with pytest.raises(Unsettled):
                async with asyncio.timeout(5.0):
                    await app.decline("o1")
            assert len(server.calls) == 3


async def test_an_accept_that_may_have_won_is_not_called_lost_because_nobody_says_whose_it_is() -> None:
    async with scripted_server() as server:
        offer = {"offer_id": "o1", "request_id": "r1", "expires_in_ms": 60_000}
        server.welcome = welcome(offers=[offer])
        answers = [
            # The first try has won, and its answer was lost; then a proxy stands in for the server.
            page(502),
            ours(409, "offer_gone"),
            page(502),
            JSONResponse(a_request(assigned_to="m1")),
        ]
        server.rest = lambda _: answers.pop(0)
        async with app_of(server) as app:
            await eventually(lambda: app.offers, "the offer is there")
            server.handshakes = [ours(503, "unavailable", retry_after="60")]
            await server.sockets[0].close(1011)
            await eventually(lambda: not server.handshakes, "there is no line, and will be none for a minute")
            taken = await app.accept("o1")
            assert not isinstance(taken, Refused)
            assert taken["id"] == "r1"


@pytest.mark.parametrize("goes_first", [False, True], ids=["open when it is accepted", "off the table by then"])
async def test_an_accept_that_was_never_answered_is_not_called_lost_by_the_next_one_when_it_has_won(
    monkeypatch: pytest.MonkeyPatch, goes_first: bool
) -> None:
    monkeypatch.setattr(client, "SETTLE_TIMEOUT_S", 0.5)
    monkeypatch.setattr(client, "ANSWER_TIMEOUT_S", 0.1)
    async with scripted_server() as server:
        offer = {"offer_id": "o1", "request_id": "r1", "expires_in_ms": 60_000}
        server.welcome = welcome(offers=[offer])
        answers = [
            ours(429, "too_many_requests", retry_after="60"),
            ours(409, "offer_gone"),
            JSONResponse(a_request(assigned_to="m1")),
        ]
        server.rest = lambda _: answers.pop(0)
        async with app_of(server) as app:
            await eventually(lambda: app.offers, "the offer is there")

            async def it_goes() -> None:
                await server.sockets[0].send_json({"type": "offer_withdrawn", "offer_id": "o1", "reason": "taken"})
                await eventually(lambda: not app.offers, "it is off the table")

            if goes_first:
                await it_goes()
            with pytest.raises(Unsettled):
                await app.accept("o1")
            if not goes_first:
                await it_goes()
            taken = await app.accept("o1")
            assert not isinstance(taken, Refused)
            assert taken["id"] == "r1"


async def test_hurry_asks_rest_at_once_where_sockets_are_blocked_and_not_before_the_server_allows_it() -> None:
    async with scripted_server() as server:
        # More than all the hurry below can use up.
        server.handshakes = [page(502)] * 100_000
        answers = [page(502), ours(503, "unavailable", retry_after="1")]
        server.rest = lambda _: answers.pop(0) if answers else JSONResponse({"id": "m1", "offers": [], "requests": []})
        async with app_of(server, poll_interval_s=60.0) as app:
            await eventually(lambda: len(answers) == 1, "the first poll has failed, and the next one is a minute away")

            # The server has answered; the client may not have heard it yet, and hurries nothing that is under way.
            def asks_at_once() -> bool:
                app.hurry()
                return not answers

            await eventually(asks_at_once, "it is asked at once")

            def polls_for_all_the_hurry() -> bool:
                app.hurry()
                return app.state is ConnectionState.POLLING

            await eventually(polls_for_all_the_hurry, "REST answers")
            assert gaps_s(server.calls)[1] >= 1.0


async def test_a_try_is_given_up_when_the_handshake_and_the_welcome_together_have_taken_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "WELCOME_TIMEOUT_S", 1.5)
    async with scripted_server() as server:
        server.handshake_takes_s = 1.4
        server.welcome = {"type": "not yet"}
        async with app_of(server):
            await eventually(lambda: len(server.tries) == 2, "it is tried again")
            assert gaps_s(server.tries)[0] < 2.2
