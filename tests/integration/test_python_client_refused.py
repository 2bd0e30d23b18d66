"""The Python client where it is refused: by our server, by a proxy in between, for now or for good."""

import asyncio
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any

import anyio
import pytest
from starlette.responses import JSONResponse, Response

from clients.python.pitlane_client import (
    ConnectionChanged,
    ConnectionState,
    MechanicClient,
    OfferMade,
    Problem,
    Refused,
    RequestGone,
    SignedOut,
)
from tests.integration.scripted_server import Call, ScriptedServer, a_request, ours, page, scripted_server, welcome
from tests.integration.socket_nodes import eventually

PATIENCE_S = 15.0
EXPIRED = 4401


class Impatient(Random):
    """Draws the shortest wait each time."""

    def random(self) -> float:
        return 0.0


def app_of(server: ScriptedServer, token: Any = "good", **options: Any) -> MechanicClient:
    return MechanicClient(server.base_url, token, trust_env=False, **{"dice": Impatient(), **options})


def once_good(server: ScriptedServer) -> Callable[[], str]:
    """A source that gives ``old`` until the server has been shown it by REST, and ``new`` from then on."""
    return lambda: "new" if any(call.token == "old" for call in server.calls) else "old"


async def ends_signed_out(app: MechanicClient) -> None:
    with pytest.raises(SignedOut), anyio.fail_after(PATIENCE_S):
        async for _ in app:
            pass


# --- tokens -----------------------------------------------------------------------------------------------------------


async def test_calls_that_overlap_a_renewal_all_go_on_with_the_fresh_token() -> None:
    # Two calls are on their way with the old token when it ends; the second refusal of it arrives after the first one
    # has been answered by a fresh token.
    async with scripted_server() as server:
        both_are_here = asyncio.Barrier(2)

        async def rest(call: Call) -> Response:
            if call.token == "new":
                return JSONResponse({"by": call.token})
            await both_are_here.wait()
            return ours(401, "unauthenticated")

        server.rest = rest
        asked = count()
        async with app_of(server, lambda: "new" if next(asked) >= 3 else "old") as app, asyncio.timeout(PATIENCE_S):
            await eventually(lambda: server.sockets, "the first token has gone to the socket")
            answers = await asyncio.gather(app.call("GET", "/api/me"), app.call("GET", "/api/me"))
            assert answers == [{"by": "new"}, {"by": "new"}]


async def test_a_socket_and_a_call_that_lose_the_same_token_both_go_on_with_the_fresh_one() -> None:
    async with scripted_server() as server:

        async def rest(call: Call) -> Response:
            if call.token == "old":
                return ours(401, "unauthenticated")
            # The server notices at the socket, too, before it has taken the fresh one anywhere.
            await server.sockets[0].close(EXPIRED)
            await eventually(lambda: len(server.sockets) == 2, "the socket is back")
            return JSONResponse({})

        server.rest = rest
        async with app_of(server, once_good(server)) as app:
            await eventually(lambda: server.sockets, "it is connected")
            assert await app.call("GET", "/api/me") == {}
            assert [one.token for one in server.tries] == ["old", "new"]
            await eventually(lambda: app.state is ConnectionState.LIVE, "nothing has ended")


async def test_a_source_that_makes_a_token_for_each_call_loses_none_of_them_for_good() -> None:
    # The socket's is older than those that calls have been made with since.
    async with scripted_server() as server:
        server.rest = lambda _: JSONResponse({})
        made = count()
        async with app_of(server, lambda: f"token {next(made)}") as app:
            for times in range(1, 4):
                await eventually(lambda times=times: len(server.sockets) == times, "it is connected")
                await app.call("GET", "/api/me")
                await server.sockets[-1].close(EXPIRED)
            await eventually(lambda: len(server.sockets) == 4, "it is back each time")


async def test_a_fresh_token_that_is_refused_as_well_signs_out() -> None:
    async with scripted_server() as server:
        server.rest = lambda _: ours(401, "unauthenticated")
        made = count()
        async with app_of(server, lambda: f"token {next(made)}") as app:
            await eventually(lambda: server.sockets, "the socket has taken its token")
            with pytest.raises(SignedOut):
                await app.call("GET", "/api/me")
            assert [call.token for call in server.calls] == ["token 1", "token 2"]
            server.handshakes = [ours(401, "unauthenticated")] * 2
            await server.sockets[0].close(1011)
            await ends_signed_out(app)
            assert len(server.tries) == 3


async def test_a_source_that_was_asked_before_its_token_was_refused_is_asked_again() -> None:
    async with scripted_server() as server:
        server.rest = lambda call: JSONResponse({}) if call.token == "new" else ours(401, "unauthenticated")
        is_slow, let_go, is_asked = False, asyncio.Event(), asyncio.Event()
        current = "old"

        async def source() -> str:
            given = current
            if is_slow:
                is_asked.set()
                await let_go.wait()
            return given

        async with app_of(server, source) as app, asyncio.TaskGroup() as tasks:
            await eventually(lambda: server.sockets, "it is connected")
            is_slow = True
            called = tasks.create_task(app.call("GET", "/api/me"))
            await is_asked.wait()
            await server.sockets[0].close(EXPIRED)
            await eventually(lambda: app.state is ConnectionState.RECONNECTING, "the old one is refused")
            current = "new"
            let_go.set()
            assert await called == {}


async def test_a_wrong_password_is_no_refusal_of_the_token() -> None:
    async with scripted_server() as server:
        server.rest = lambda _: ours(401, "bad_credentials")
        async with app_of(server) as app:
            with pytest.raises(Problem) as caught:
                await app.call("POST", "/api/auth/login", body={})
            assert (caught.value.code, caught.value.may_retry) == ("bad_credentials", False)
            assert len(server.calls) == 1


# --- a proxy in between -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 409, 429, 502])
async def test_a_proxys_page_decides_nothing_and_refuses_no_token(status: int) -> None:
    async with scripted_server() as server:
        server.rest = lambda _: page(status)
        async with app_of(server) as app:
            with pytest.raises(Problem) as caught:
                await app.act("r1", "start")
            assert (caught.value.status, caught.value.may_retry) == (status, True)
            server.rest = lambda _: JSONResponse({})
            assert await app.call("GET", "/api/me") == {}
            assert {call.token for call in server.calls} == {"good"}


@pytest.mark.parametrize("body", [b"", b"<h1>Please sign in to the guest network</h1>", b'{"blocked": true}', b"[]"])
async def test_what_a_proxy_says_with_200_is_no_answer_either(body: bytes) -> None:
    async with scripted_server() as server:
        server.rest = lambda _: Response(body, 200, media_type="text/html")
        async with app_of(server) as app:
            with pytest.raises(Problem) as caught:
                await app.act("r1", "start")
            assert (caught.value.code, caught.value.may_retry) == ("unreadable", True)


async def test_an_answer_that_met_a_proxys_page_is_asked_for_again() -> None:
    async with scripted_server() as server:
        answers = [page(403), page(404), ours(409, "offer_gone")]
        server.rest = lambda _: answers.pop(0)
        server.handshakes = [page(502)] * 10
        async with app_of(server) as app, asyncio.timeout(PATIENCE_S):
            refused = await app.decline("o1")
            assert isinstance(refused, Refused)
            assert (refused.code, answers) == ("offer_gone", [])


@pytest.mark.parametrize("status", [401, 403, 429])
async def test_a_handshake_that_a_proxy_refuses_is_tried_again_like_a_line_that_broke(status: int) -> None:
    async with scripted_server() as server:
        server.handshakes = [page(status), page(status)]
        async with app_of(server) as app:
            await eventually(lambda: app.state is ConnectionState.LIVE, "the third try is welcomed")
            assert {one.token for one in server.tries} == {"good"}


async def test_a_request_is_gone_when_the_server_says_404_and_not_when_a_proxy_does() -> None:
    async with scripted_server() as server:
        answers = [page(404), ours(403, "wrong_role"), ours(404, "not_found")]
        server.rest = lambda _: answers.pop(0)
        server.welcome = welcome(request=a_request(assigned_to="m1"))
        async with app_of(server) as app:
            await eventually(lambda: app.state is ConnectionState.LIVE, "the request is known")
            server.welcome = welcome()
            # A refusal that is none of it is forgotten; the next snapshot does not name the request either.
            for left in (1, 0):
                await server.sockets[-1].close(1011)
                await eventually(lambda left=left: len(answers) == left, "it is asked what became of the request")
            with anyio.fail_after(PATIENCE_S):
                async for event in app:
                    if isinstance(event, RequestGone):
                        assert event.request_id == "r1"
                        break


async def test_a_proxy_that_answers_everything_with_something_ends_nothing() -> None:
    async with scripted_server() as server:
        server.rest = lambda _: JSONResponse({"blocked": True})
        server.welcome = welcome(request=a_request(assigned_to="m1"))
        async with app_of(server, poll_interval_s=0.1) as app:
            await eventually(lambda: app.state is ConnectionState.LIVE, "the request is known")
            server.welcome = welcome()
            await server.sockets[0].close(1011)
            await eventually(lambda: server.calls, "what became of the request is asked")
            server.handshakes = [page(200)] * 6
            await server.sockets[1].close(1011)
            await eventually(lambda: {call.path for call in server.calls} >= {"/api/offers"}, "it has polled")
            await eventually(lambda: len(server.sockets) == 3, "it is back")
            assert app._mailbox.ended_by is None


async def test_a_token_of_another_kind_of_account_is_refused_for_good_also_where_sockets_are_blocked() -> None:
    async with scripted_server() as server:
        server.rest = lambda call: ours(403, "wrong_role") if call.path != "/api/me" else JSONResponse({"id": "c1"})
        server.handshakes = [page(403)] * 1_000
        async with app_of(server) as app:
            await ends_signed_out(app)


async def test_a_poll_that_was_asked_before_an_answer_brings_no_offer_back() -> None:
    async with scripted_server() as server:
        is_asked, let_go = asyncio.Event(), asyncio.Event()
        # Of one request: the card of the favourite's window, and the one of the broadcast after it.
        offers = [{"offer_id": one, "request_id": "r1", "expires_in_ms": 60_000} for one in ("o1", "o2")]

        async def rest(call: Call) -> Response:
            match call.path:
                case "/api/me":
                    return JSONResponse({"id": "m1"})
                case "/api/offers" if not is_asked.is_set():
                    is_asked.set()
                    await let_go.wait()
                    return JSONResponse({"offers": offers})
                case "/api/offers":
                    return JSONResponse({"offers": []})
                case "/api/requests":
                    return JSONResponse({"requests": []})
                case _:
                    return JSONResponse({"request": a_request(assigned_to="m1")})

        server.rest = rest
        server.handshakes = [page(403)] * 1_000
        async with app_of(server) as app, asyncio.timeout(PATIENCE_S):
            await is_asked.wait()
            assert not isinstance(await app.accept("o1"), Refused)
            let_go.set()
            async for event in app:
                assert not isinstance(event, OfferMade)
                if event == ConnectionChanged(ConnectionState.POLLING):
                    break
            assert app.offers == []
