"""What every door does before it opens: who, may they, from where, and only then what; and how it says no."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from http_api.rest.problems import PROBLEMS, failure
from models.errors import DatabaseUnavailable, RedisUnavailable, StripeUnavailable
from tests.acceptance.clients import Rest, token_for
from tests.integration.rest_house import House, rest_house
from tests.services import redis_server

EVIL = "https://evil.example"


@pytest.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with rest_house(tmp_path_factory.mktemp("doors")) as one:
        yield one


# --- in which order ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        ("{not json", (400, "malformed_json")),
        ('{"unknown": 1}', (422, "validation_failed")),
        ("x" * 100_000, (413, "body_too_large")),
    ],
    ids=["malformed", "invalid", "huge"],
)
async def test_who_asks_and_whether_they_may_is_settled_before_the_body_is_looked_at(
    house: House, body: str, verdict: tuple[int, str]
):
    async with house.as_nobody() as rest:
        assert await rest.problem("POST", "/api/checkout", content=body) == (401, "unauthenticated")
    async with house.as_mechanic() as rest:
        assert await rest.problem("POST", "/api/checkout", content=body) == (403, "wrong_role")
    async with house.with_cookie(house.customer, "customer", EVIL) as rest:
        assert await rest.problem("POST", "/api/checkout", content=body) == (403, "foreign_origin")
    async with house.as_customer() as rest:
        assert await rest.problem("POST", "/api/checkout", content=body) == verdict


async def test_a_call_that_was_meant_by_somebody_else_is_not_done_in_the_name_of_who_is_signed_in(house: House):
    # Two tabs share one cookie: the second signs in as somebody else, and the first still shows what it knows.
    theirs, other = {"Pitlane-Account": house.customer}, {"Pitlane-Account": house.mechanic}
    async with house.as_customer() as rest:
        assert (await rest.get("/api/me", headers=theirs)).status_code == 200
        assert await rest.problem("GET", "/api/me", headers=other) == (401, "unauthenticated")
        # Whose it is is settled before what kind of account it takes.
        assert await rest.problem("POST", "/api/offers/o1/accept", headers=other) == (401, "unauthenticated")
        assert await rest.problem("POST", "/api/auth/logout", headers=other) == (401, "unauthenticated")
        # What is open to anybody is answered as to somebody who is not signed in.
        async with house.as_nobody() as nobody:
            strangers = await nobody.ok("GET", "/api/plans")
        assert (await rest.get("/api/plans", headers=other)).json() == strangers


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer x.y.z", "Basic eDp5", f"Token {token_for('01J9', 'customer')}"],
)
async def test_a_missing_or_bad_token_is_told_how_to_sign_in(house: House, authorization: str):
    async with house.as_nobody() as rest:
        answer = await rest.get("/api/me", headers={"Authorization": authorization})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["code"] == "unauthenticated"


async def test_an_expired_token_and_one_for_an_account_that_is_gone_are_nobodys(house: House):
    async with house.as_nobody() as rest:
        for token in (
            token_for(house.customer, "customer", lifetime_s=-1),
            token_for("01AAAAAAAAAAAAAAAAAAAAAAAA", "customer"),
        ):
            headers = {"Authorization": f"Bearer {token}"}
            assert await rest.problem("GET", "/api/me", headers=headers) == (401, "unauthenticated")


async def test_a_bad_bearer_token_is_not_rescued_by_a_good_cookie(house: House):
    async with house.with_cookie(house.customer, "customer", None) as rest:
        assert (await rest.get("/api/me")).status_code == 200
        assert (await rest.get("/api/me", headers={"Authorization": "Bearer bad"})).status_code == 401


async def test_a_cookie_write_from_a_foreign_page_is_refused_and_reading_and_our_own_pages_are_not(house: House):
    path = f"/api/favorites/{house.mechanic}"
    for origin in (EVIL, "null", house.base_url.replace("http:", "https:"), f"{house.base_url}.evil.example"):
        async with house.with_cookie(house.customer, "customer", origin) as rest:
            assert await rest.problem("PUT", path) == (403, "foreign_origin")
            assert await rest.problem("DELETE", path) == (403, "foreign_origin")
            assert await rest.problem("POST", "/api/auth/logout") == (403, "foreign_origin")
            assert (await rest.get("/api/favorites")).json() == {"favorites": []}
    for origin in (house.base_url, house.base_url.replace("127.0.0.1", "localhost"), None):
        async with house.with_cookie(house.customer, "customer", origin) as rest:
            assert (await rest.put(path)).status_code in (200, 201)
            assert (await rest.delete(path)).status_code == 204


async def test_a_bearer_token_needs_no_origin_of_ours(house: House):
    async with house.as_customer() as rest:
        assert (await rest.delete(f"/api/favorites/{house.mechanic}", headers={"Origin": EVIL})).status_code == 204


# --- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"plan": "quick_chat", "routing_type": "broadcast", "price_cents": 1}, "price_cents"),
        ({"plan": "quick_chat"}, "routing_type"),
        ({"plan": 7, "routing_type": "broadcast"}, "plan"),
        ({"plan": "quick_chat", "routing_type": "auction"}, "routing_type"),
        ({"plan": "quick_chat", "routing_type": "broadcast", "preferred_mechanic_id": "a b"}, "preferred_mechanic_id"),
        ({"plan": "quick\0chat", "routing_type": "broadcast"}, "plan"),
        ({"plan": "x" * 65, "routing_type": "broadcast"}, "plan"),
        ([], "body"),
        (None, "body"),
    ],
)
async def test_a_body_that_does_not_fit_is_refused_naming_the_member(house: House, body: Any, field: str):
    async with house.as_customer() as rest:
        answer = await rest.post("/api/checkout", content=json.dumps(body))
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert all(error["message"] for error in answer.json()["errors"])


async def test_a_member_inside_a_member_is_named_by_its_path(house: House):
    async with house.as_mechanic() as rest:
        for keys, field in (({"p256dh": "a", "auth": "b", "x": 1}, "keys.x"), ({"p256dh": "a"}, "keys.auth")):
            body = {"endpoint": "https://push.example/1", "keys": keys}
            answer = await rest.post("/api/push/subscriptions", json=body)
            assert answer.json()["errors"][0]["field"] == field


@pytest.mark.parametrize(
    "body", [b"", b"{", b"plan=quick_chat&routing_type=broadcast", b'{"plan": "\xff"}', b"{} {}", b'{"plan": 7']
)
async def test_what_is_not_json_in_utf8_is_malformed(house: House, body: bytes):
    async with house.as_customer() as rest:
        assert await rest.problem("POST", "/api/checkout", content=body) == (400, "malformed_json")


async def test_where_a_body_is_needed_an_empty_one_is_told_so(house: House):
    async with house.as_customer() as rest:
        for empty in (b"", b" \n"):
            answer = await rest.post("/api/checkout", content=empty)
            assert (answer.status_code, answer.json()["detail"]) == (400, "A body is needed here: one JSON object.")


async def test_a_write_without_a_body_takes_none_or_an_empty_one_but_no_unknown_member(house: House):
    path = f"/api/favorites/{house.mechanic}"
    async with house.as_customer() as rest:
        for empty in (b"", b"{}", b"null", b" "):
            assert (await rest.request("DELETE", path, content=empty)).status_code == 204
        answer = await rest.request("DELETE", path, content=b'{"why": 1}')
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "why")


async def test_a_body_over_the_bound_is_refused_announced_or_not(house: House):
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 1024

    async with house.as_customer() as rest:
        assert await rest.problem("POST", "/api/checkout", content=b" " * 65_537) == (413, "body_too_large")
        assert await rest.problem("POST", "/api/checkout", content=endless()) == (413, "body_too_large")
        # The connection is still good for the next request.
        assert (await rest.get("/api/me")).status_code == 200


async def test_a_client_that_leaves_in_the_middle_of_its_body_harms_nobody(house: House):
    host, port = house.base_url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /api/auth/login HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100\r\n\r\n{{"
    writer.write(head.encode())
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert await reader.read() == b""
    async with house.as_nobody() as rest:
        assert (await rest.get("/healthz")).json() == {"status": "ok"}


# --- paths and queries ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/api", "/api/", "/api/nothing", "/api/me/", "/static/", "/static/../app.py", "/x" * 500]
)
async def test_an_unknown_path_is_a_problem_like_any_other(house: House, path: str):
    async with house.as_customer() as rest:
        assert await rest.problem("GET", path) == (404, "not_found")


async def test_a_wrong_method_is_told_all_the_right_ones(house: House):
    async with house.as_customer() as rest:
        answer = await rest.post(f"/api/favorites/{house.mechanic}")
        assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
        assert answer.headers["allow"] == "DELETE, PUT"
        assert (await rest.put("/api/requests")).headers["allow"] == "GET, HEAD"
        assert (await rest.request("DELETE", "/")).json()["code"] == "method_not_allowed"


async def test_head_is_get_without_the_body(house: House):
    async with house.as_customer() as rest:
        answer = await rest.head("/api/me")
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-length"] == (await rest.get("/api/me")).headers["content-length"]


@pytest.mark.parametrize("path_id", ["a%20b", "x" * 65, "%00", "a%0A", "..%2f", "a'--"])
async def test_an_id_that_cannot_be_one_is_the_id_of_nothing(house: House, path_id: str):
    async with house.as_customer() as rest:
        assert (await rest.problem("GET", f"/api/requests/{path_id}"))[0] == 404
        assert (await rest.problem("GET", f"/api/checkout/{path_id}"))[0] == 404
        assert (await rest.problem("GET", f"/api/mechanics/{path_id}/status"))[0] == 404


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=101", "limit=x", "limit=1.5", "status=lost", "cursor=a%20b", "cursor=a%0A", "cursor=%00"),
        *("limit=null", "status=null", "status=NULL"),
    ],
)
async def test_a_query_that_does_not_fit_is_refused_naming_the_parameter(house: House, query: str):
    async with house.as_customer() as rest:
        answer = await rest.get(f"/api/requests?{query}")
        assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
        assert answer.json()["errors"][0]["field"] == query.partition("=")[0]


async def test_the_word_null_in_a_query_is_a_word(house: House):
    async with house.as_customer() as rest:
        # As an id it is one like any other: of the page after it.
        assert (await rest.get("/api/requests?cursor=null")).status_code == 200
        for plan, code in (("null", "unknown_plan"), ("%00", "validation_failed")):
            assert await rest.problem("GET", f"/api/mechanics/availability?plan={plan}") == (422, code)
        assert await rest.problem("GET", "/api/mechanics/status?ids=") == (422, "validation_failed")
    async with house.as_mechanic() as rest:
        for query in ("from=null", "to=null", "from=%00"):
            assert await rest.problem("GET", f"/api/me/hours?{query}") == (422, "validation_failed")


async def test_an_empty_query_parameter_is_one_that_was_left_out(house: House):
    async with house.as_customer() as rest:
        assert (await rest.get("/api/requests?status=&cursor=&limit=")).status_code == 200


# --- for operators and browsers ---------------------------------------------------------------------------------------


async def test_a_healthy_server_says_so(house: House):
    async with house.as_nobody() as rest:
        assert (await rest.ok("GET", "/healthz")) == {"status": "ok"}
        assert (await rest.ok("GET", "/readyz")) == {"status": "ok"}


async def test_metrics_count_by_route_and_never_by_id(house: House):
    async with house.as_customer() as rest:
        await rest.get(f"/api/requests/{house.mechanic}")
        answer = await rest.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'pitlane_http_requests_total{method="GET",route="/api/requests/{id}",status="404"}' in answer.text
    for kind in ("priority", "broadcast"):
        assert f'pitlane_window_end_lateness_seconds_count{{kind="{kind}"}}' in answer.text
    assert 'pitlane_connections{role="mechanic"} 0.0' in answer.text
    assert "pitlane_socket_frames_received_total 0.0" in answer.text
    assert "process_resident_memory_bytes" in answer.text
    assert house.mechanic not in answer.text


async def test_every_answer_is_hardened_and_pages_run_only_our_own_scripts(house: House):
    async with house.as_nobody() as rest:
        for path in ("/", "/mechanic", "/docs", "/static/favicon.svg", "/openapi.json", "/api/plans", "/nothing"):
            answer = await rest.get(path)
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "same-origin"
            assert ("content-security-policy" in answer.headers) is answer.headers["content-type"].startswith(
                "text/html"
            )
        policy = (await rest.get("/")).headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy


async def test_an_unchanged_file_is_not_sent_again(house: House):
    async with house.as_nobody() as rest:
        for path in ("/", "/static/theme.css"):
            first = await rest.get(path)
            again = await rest.get(path, headers={"If-None-Match": first.headers["etag"]})
            assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
        assert (await rest.get("/favicon.ico")).headers["content-type"] == "image/svg+xml"


async def test_the_documents_are_served_and_a_problems_type_leads_to_its_explanation(house: House):
    async with house.as_nobody() as rest:
        assert (await rest.ok("GET", "/openapi.json"))["openapi"].startswith("3.1")
        assert (await rest.ok("GET", "/asyncapi.json"))["asyncapi"].startswith("3.")
        kind = (await rest.get("/api/me")).json()["type"]
        explained = await rest.get(kind)
        assert explained.headers["location"] == "/docs#unauthenticated"
        assert (await rest.get("/problems/unheard_of")).status_code == 404


async def test_the_pages_learn_the_windows(house: House):
    async with house.as_nobody() as rest:
        assert await rest.ok("GET", "/api/config") == {
            "priority_window_s": 600.0,
            "broadcast_window_s": 900.0,
            "heartbeat_interval_s": 20.0,
            "demo": False,
        }


# --- when the world is broken -----------------------------------------------------------------------------------------


async def test_without_redis_the_server_says_what_is_missing_and_what_needs_no_redis_still_works(tmp_path: Path):
    with redis_server() as redis:
        async with rest_house(tmp_path, REDIS_URL=redis.url) as house:
            redis.kill()
            async with house.as_customer() as rest:
                answer = await rest.get("/readyz")
                assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
                assert "redis" in answer.json()["detail"]
                assert "database" not in answer.json()["detail"]
                answer = await rest.get(f"/api/mechanics/{house.mechanic}/status")
                assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
                assert int(answer.headers["retry-after"]) >= 1
                # Nobody signs in uncounted.
                login = {"email": "cara@example.com", "password": "whatever"}
                assert await rest.problem("POST", "/api/auth/login", json=login) == (503, "unavailable")
                assert (await rest.get("/healthz")).status_code == 200
                assert (await rest.get("/api/me")).json()["name"] == "Cara"
                assert (await rest.get("/api/plans")).status_code == 200
                redis.restart()
                await until_ready(rest)
                assert (await rest.get(f"/api/mechanics/{house.mechanic}/status")).status_code == 200


async def until_ready(rest: Rest) -> None:
    with anyio.fail_after(10):
        while (await rest.get("/readyz")).status_code != 200:  # noqa: ASYNC110
            await anyio.sleep(0.05)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DatabaseUnavailable("password=hunter2"), "unavailable"),
        (RedisUnavailable("10.0.0.7"), "unavailable"),
        (StripeUnavailable("sk_live_hunter2"), "stripe_unavailable"),
        (KeyError("hunter2"), "internal_error"),
    ],
)
def test_what_breaks_is_named_by_kind_and_nothing_internal_gets_out(error: Exception, code: str):
    response = failure(error, where="GET /api/me")
    assert response.status_code == PROBLEMS[code][0]
    assert json.loads(response.body)["code"] == code
    assert b"hunter2" not in response.body
    assert b"10.0.0.7" not in response.body
    # Whoever can do something by trying again is told when.
    assert ("retry-after" in response.headers) == (code != "internal_error")


async def test_a_hundred_clients_side_by_side_are_all_answered(house: House):
    limits = httpx.Limits(max_connections=100)
    async with (
        house.as_customer() as rest,
        httpx.AsyncClient(base_url=house.base_url, limits=limits, timeout=15) as crowd,
    ):
        answers = await asyncio.gather(*(crowd.get("/api/me", headers=rest.headers) for _ in range(100)))
    assert {answer.status_code for answer in answers} == {200}


# --- what nobody has reckoned with ------------------------------------------------------------------------------------

ODD = [
    "é".encode("latin-1"),
    "é".encode(),
    b"\xff\xfe\xed\xa0\x80",
    b"t=1,v1=\xe9",
    b"t=" + b"9" * 5_000 + b",v1=0",
    b"[::1",
    b"Bearer \xe9.\xe9.\xe9",
    b"Basic \xe9\xe9",
    b"pitlane_session=\xff; pitlane_session=\xe9",
    b"bytes=-99999999999999999999999-",
    b"Thu, 99 Foo 99999 99:99:99 GMT",
    b",;=\"\\'%00%ff${}",
    b"x" * 4_000,
]
READ = (
    "Authorization",
    "Cookie",
    "Origin",
    "Idempotency-Key",
    "Pitlane-Account",
    "Stripe-Signature",
    "Stripe-Version",
    "User-Agent",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "Content-Type",
    "Host",
    "If-None-Match",
    "If-Modified-Since",
    "Range",
    "Accept-Encoding",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Version",
    "Expect",
)
ODD_PARTS = (
    "%00",
    "%ff",
    "%ed%a0%80",
    "%c3%28",
    "%2e%2e%2f",
    "%0a",
    "9" * 400,
    "-1",
    "NaN",
    "null",
    "a%00b",
    "%f0%9f%9a%97",
    "[",
    "x" * 2_000,
)


async def statuses_of(house: House, requests: list[bytes]) -> list[int]:
    """Send each on a connection of its own, some at a time; return the statuses in order, 0 for no answer."""
    port = int(house.base_url.rpartition(":")[2])
    statuses = [0] * len(requests)
    waiting = iter(enumerate(requests))

    async def send_some() -> None:
        for number, request in waiting:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            with anyio.fail_after(30):
                try:
                    said = await reader.read()
                except ConnectionError:
                    said = b""
            statuses[number] = int(said[9:12] or b"0")
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async with anyio.create_task_group() as tasks:
        for _ in range(16):
            tasks.start_soon(send_some)
    return statuses


def as_request(method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], body: bytes = b"") -> bytes:
    lines = [method + b" " + target + b" HTTP/1.1", *(name + b": " + value for name, value in headers)]
    lines += [b"Connection: close", b"Content-Length: %d" % len(body)]
    return b"\r\n".join([*lines, b"", body])


def upgrade(target: bytes, headers: list[tuple[bytes, bytes]]) -> bytes:
    usual = {b"Host": b"h", b"Sec-WebSocket-Key": b"dGhlIHNhbXBsZSBub25jZQ==", b"Sec-WebSocket-Version": b"13"}
    usual |= dict(headers)
    lines = [b"GET " + target + b" HTTP/1.1", b"Upgrade: websocket", b"Connection: Upgrade"]
    return b"\r\n".join([*lines, *(name + b": " + value for name, value in usual.items()), b"", b""])


@pytest.mark.timeout(180)
async def test_odd_bytes_in_any_header_path_or_query_at_any_door_are_the_askers_fault(house: House):
    async with house.as_nobody() as rest:
        paths = (await rest.ok("GET", "/openapi.json"))["paths"]
    doors = [
        (method.upper().encode(), path.encode())
        for path, methods in paths.items()
        for method in methods
        if method in {"get", "post", "put", "delete"}
    ]
    doors += [
        (b"GET", path)
        for path in (b"/", b"/static/theme.css", b"/docs", b"/problems/x", b"/stripe-standin/v1/refunds", b"/metrics")
    ]
    requests = []
    bearer = (b"Authorization", b"Bearer " + token_for(house.customer, "customer").encode())
    for method, path in doors:
        target = re.sub(rb"{\w+}", b"01KARJ7QWA1E5G9K3N7R2T6V0X", path)
        for value in ODD:
            odd = [(name.encode(), value) for name in READ if name != "Expect"]
            requests.append(as_request(method, target, odd, b"{}"))
            requests.append(as_request(method, target, [(b"Authorization", bearer[1]), *odd[1:]], b"{}"))
        for part in ODD_PARTS:
            requests.append(
                as_request(method, re.sub(rb"{\w+}", part.encode(), path), [(b"Host", b"h"), bearer], b"{}")
            )
            query = b"&".join(
                name + b"=" + part.encode()
                for name in (b"ids", b"plan", b"status", b"cursor", b"limit", b"from", b"to")
            )
            requests.append(as_request(method, target + b"?" + query, [(b"Host", b"h"), bearer], b"{}"))
    for name in READ:
        for value in ODD:
            requests += [
                upgrade(kind, [(name.encode(), value)]) for kind in (b"/ws/mechanic", b"/ws/customer?ticket=%ff")
            ]
            requests.append(
                as_request(b"POST", b"/api/stripe/webhook", [(b"Host", b"h"), (name.encode(), value)], b"{}")
            )
    requests += [upgrade(b"/ws/customer?ticket=" + part.encode(), []) for part in ODD_PARTS]
    before = house.server.log_path.read_text()
    statuses = await statuses_of(house, requests)
    wrong = [(status, one[:300]) for status, one in zip(statuses, requests, strict=True) if not 200 <= status < 500]
    assert wrong == []
    said = house.server.log_path.read_text()[len(before) :]
    assert "Traceback" not in said
    assert len(said.splitlines()) < 60, "thousands of refusals are some lines"
