"""Signing up, in and out, and how often one may try."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from http_api.cookies import DEVICE
from http_api.rest.login_limit import ATTEMPTS_SIDE_BY_SIDE, WAITING_MAX, LoginLimit, TooMany
from infra.database import Database
from infra.redis_link import RedisLink
from models.errors import Overloaded
from models.settings import DoorSettings, Settings
from models.tables import Account
from tests.acceptance.clients import PATIENCE_S, Rest, token_for
from tests.integration.rest_house import COOKIE, PASSWORD, House, rest_house

EVIL = "https://evil.example"


@pytest.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with rest_house(tmp_path_factory.mktemp("accounts")) as one:
        yield one


async def login(rest: Rest, email: str, password: str = PASSWORD) -> tuple[int, str | None]:
    """Return the status and, of a refusal, the code."""
    answer = await rest.post("/api/auth/login", json={"email": email, "password": password})
    return answer.status_code, answer.json().get("code")


# --- signing up -------------------------------------------------------------------------------------------------------


async def test_registering_makes_a_customer_who_is_signed_in_by_token_and_by_cookie(house: House):
    body = {"email": "New.Driver@Example.com", "password": PASSWORD, "name": "  Nia  "}
    async with house.as_nobody() as browser, house.as_nobody() as app:
        signed_in = await browser.ok("POST", "/api/auth/register", status=201, json=body)
        account = signed_in["account"]
        assert account | {"id": ""} == {
            "id": "",
            "role": "customer",
            "name": "Nia",
            "email": "new.driver@example.com",
            "has_used_free_session": False,
        }
        assert set(signed_in) == {"account", "token", "expires_at"}
        assert signed_in["expires_at"].endswith(".000Z")
        headers = {"Authorization": f"Bearer {signed_in['token']}"}
        for me in (await browser.ok("GET", "/api/me"), await app.ok("GET", "/api/me", headers=headers)):
            assert me.items() >= account.items()
            assert me["session_expires_at"] == signed_in["expires_at"]


async def test_an_address_is_taken_in_any_letter_case_and_also_by_two_side_by_side(house: House):
    body = {"email": "twice@example.com", "password": PASSWORD, "name": "Twice"}
    async with house.as_nobody() as rest:
        answers = await asyncio.gather(*(rest.post("/api/auth/register", json=body) for _ in range(4)))
        assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
        body["email"] = "TWICE@example.com"
        assert await rest.problem("POST", "/api/auth/register", json=body) == (409, "email_taken")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"email": "no address"}, "email"),
        ({"email": "x@" + "y" * 254}, "email"),
        ({"password": "short"}, "password"),
        ({"password": "x" * 1025}, "password"),
        ({"password": "Password123"}, "password"),
        ({"password": "FINE@example.com"}, "password"),
        ({"name": "   "}, "name"),
        ({"name": "Nul\0l"}, "name"),
        ({"role": "admin"}, "role"),
    ],
)
async def test_what_cannot_be_an_account_is_refused_naming_the_member(house: House, change: dict[str, str], field: str):
    async with house.as_nobody() as rest:
        body = {"email": "fine@example.com", "password": PASSWORD, "name": "Fine"} | change
        answer = await rest.post("/api/auth/register", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)


# --- signing in and out -----------------------------------------------------------------------------------------------


async def test_signing_in_tells_the_same_for_a_wrong_password_and_for_nobody(house: House):
    async with house.as_nobody(address="127.0.1.1") as rest:
        assert await login(rest, "CARA@example.com") == (200, None)
        wrong = await rest.post("/api/auth/login", json={"email": "cara@example.com", "password": "wrong"})
        nobody = await rest.post("/api/auth/login", json={"email": "nobody@example.com", "password": "wrong"})
        assert wrong.status_code == nobody.status_code == 401
        assert wrong.content == nobody.content
        assert wrong.json()["code"] == "bad_credentials"


async def test_an_account_that_only_tokens_can_use_has_no_password(house: House):
    await house.add("mechanic", "tokens")
    async with house.as_nobody(address="127.0.1.2") as rest:
        assert await login(rest, "tokens@example.com", "") == (401, "bad_credentials")
    async with house.as_mechanic() as rest:
        assert "has_used_free_session" not in await rest.ok("GET", "/api/me")


async def test_the_cookie_is_out_of_reach_for_scripts_and_foreign_pages_and_signing_out_clears_it(house: House):
    async with house.as_nobody() as rest:
        answer = await rest.post("/api/auth/login", json={"email": "carl@example.com", "password": PASSWORD})
        session, _known_browser = answer.headers.get_list("set-cookie")
        name_and_value, *attributes = session.split("; ")
        assert name_and_value == f"{COOKIE}={answer.json()['token']}"
        assert set(attributes) == {"Path=/", "Max-Age=604800", "HttpOnly", "SameSite=Lax"}
        assert (await rest.get("/api/me")).status_code == 200
        answer = await rest.post("/api/auth/logout")
        assert (answer.status_code, answer.content) == (204, b"")
        assert await rest.problem("GET", "/api/me") == (401, "unauthenticated")
        assert await rest.problem("POST", "/api/auth/logout") == (401, "unauthenticated")


# --- staying signed in ------------------------------------------------------------------------------------------------


async def test_a_browser_that_renews_gets_a_fresh_cookie_and_no_token_that_a_script_could_take_away(house: House):
    old = token_for(house.customer, "customer", lifetime_s=60)
    async with house.as_nobody(headers={"Origin": house.base_url}) as browser:
        browser.cookies.set(COOKIE, old)
        before = await browser.ok("GET", "/api/me")
        answer = await browser.post("/api/auth/renew")
        assert (answer.status_code, answer.json().keys()) == (200, {"account", "expires_at"})
        name_and_value, *attributes = answer.headers["set-cookie"].split("; ")
        assert name_and_value not in (f"{COOKIE}=", f"{COOKIE}={old}")
        assert set(attributes) == {"Path=/", "Max-Age=604800", "HttpOnly", "SameSite=Lax"}
        after = await browser.ok("GET", "/api/me", headers={"Cookie": name_and_value})
        assert after["id"] == before["id"] == answer.json()["account"]["id"]
        assert after["session_expires_at"] == answer.json()["expires_at"] > before["session_expires_at"]
        # Half of seven days after it was made, half of its life is over.
        assert _days_between(after["session_renew_at"], after["session_expires_at"]) == 3.5


async def test_whoever_renews_with_a_token_gets_a_fresh_token_and_no_cookie(house: House):
    headers = {"Authorization": f"Bearer {token_for(house.mechanic, 'mechanic', lifetime_s=60)}"}
    async with house.as_nobody(headers=headers) as app:
        answer = await app.post("/api/auth/renew")
        assert (answer.status_code, answer.json().keys()) == (200, {"account", "token", "expires_at"})
        assert "set-cookie" not in answer.headers
        me = await app.ok("GET", "/api/me", headers={"Authorization": f"Bearer {answer.json()['token']}"})
        assert (me["id"], me["session_expires_at"]) == (house.mechanic, answer.json()["expires_at"])


async def test_nobody_renews_what_is_not_theirs_or_is_over(house: House):
    over = {"Authorization": f"Bearer {token_for(house.mechanic, 'mechanic', lifetime_s=-1)}"}
    gone = {"Authorization": f"Bearer {token_for('01AAAAAAAAAAAAAAAAAAAAAAAA', 'customer')}"}
    async with house.as_nobody() as rest, house.with_cookie(house.customer, "customer", EVIL) as foreign:
        assert await rest.problem("POST", "/api/auth/renew") == (401, "unauthenticated")
        assert await rest.problem("POST", "/api/auth/renew", headers=over) == (401, "unauthenticated")
        assert await rest.problem("POST", "/api/auth/renew", headers=gone) == (401, "unauthenticated")
        assert await foreign.problem("POST", "/api/auth/renew") == (403, "foreign_origin")


def _days_between(earlier: str, later: str) -> float:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds() / 86_400


async def test_behind_https_the_cookie_is_secure_and_the_public_origin_is_ours(tmp_path: Path):
    async with rest_house(tmp_path, BASE_URL="https://pitlane.example") as house, house.as_nobody() as rest:
        body = {"email": "carl@example.com", "password": PASSWORD}
        answer = await rest.post("/api/auth/login", json=body)
        assert answer.headers["set-cookie"].endswith("; Secure")
        async with house.with_cookie(house.customer, "customer", "https://pitlane.example") as browser:
            assert (await browser.delete(f"/api/favorites/{house.mechanic}")).status_code == 204
        async with house.with_cookie(house.customer, "customer", house.base_url) as browser:
            assert await browser.problem("DELETE", f"/api/favorites/{house.mechanic}") == (403, "foreign_origin")


async def test_a_foreign_page_cannot_sign_its_visitor_in_here(house: House):
    body = {"email": "carl@example.com", "password": PASSWORD}
    async with house.as_nobody() as rest:
        assert "set-cookie" not in (await rest.post("/api/auth/login", json=body, headers={"Origin": EVIL})).headers
        ours = await rest.post("/api/auth/login", json=body, headers={"Origin": house.base_url})
        assert "set-cookie" in ours.headers


async def test_whoever_has_an_old_cookie_can_still_sign_in(house: House):
    async with house.as_nobody(headers={"Cookie": f"{COOKIE}=old.and.bad"}) as rest:
        assert await login(rest, "carl@example.com") == (200, None)
        assert (await rest.get("/api/plans")).status_code == 200


# --- how often --------------------------------------------------------------------------------------------------------


async def test_after_five_failures_from_an_address_for_an_account_even_the_right_password_waits_there(house: House):
    await house.add("customer", "guessed", PASSWORD)
    async with house.as_nobody(address="127.0.2.1") as rest:
        for attempt in range(5):
            assert await login(rest, "Guessed@example.com", f"guess {attempt}") == (401, "bad_credentials")
        answer = await rest.post("/api/auth/login", json={"email": "guessed@example.com", "password": PASSWORD})
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many_attempts")
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        # Others come in as ever, from the same address, too.
        assert await login(rest, "cara@example.com") == (200, None)
    # And so does the owner, from anywhere else.
    async with house.as_nobody(address="127.0.2.2") as rest:
        assert await login(rest, "guessed@example.com") == (200, None)


async def test_after_twenty_failures_from_an_address_only_known_browsers_come_in_from_there(house: House):
    await house.add("customer", "regular", PASSWORD)
    async with house.as_nobody(address="127.0.3.1") as browser, house.as_nobody(address="127.0.3.1") as rest:
        assert await login(browser, "regular@example.com") == (200, None)
        guesses = await asyncio.gather(*(login(rest, f"guess{n // 4}@example.com", "guess") for n in range(20)))
        assert guesses == [(401, "bad_credentials")] * 20
        assert await login(rest, "cara@example.com") == (429, "too_many_attempts")
        assert await login(browser, "regular@example.com") == (200, None)
        # It is known for whom it has signed in, and for nobody else.
        assert await login(browser, "cara@example.com") == (429, "too_many_attempts")
    async with house.as_nobody(address="127.0.3.2") as rest:
        assert await login(rest, "cara@example.com") == (200, None)


async def test_a_browser_that_has_signed_in_before_has_failures_of_its_own_also_after_signing_out(house: House):
    await house.add("customer", "owner", PASSWORD)
    async with house.as_nobody(address="127.0.6.1") as browser, house.as_nobody(address="127.0.6.1") as stranger:
        assert await login(browser, "owner@example.com") == (200, None)
        assert (await browser.post("/api/auth/logout")).status_code == 204
        assert COOKIE not in browser.cookies
        for _ in range(5):
            assert await login(stranger, "owner@example.com", "guess") == (401, "bad_credentials")
        assert await login(stranger, "owner@example.com") == (429, "too_many_attempts")
        assert await login(browser, "owner@example.com") == (200, None)
        for _ in range(5):
            assert await login(browser, "owner@example.com", "guess") == (401, "bad_credentials")
        assert await login(browser, "owner@example.com") == (429, "too_many_attempts")
    # What a known browser has spent is not others' fault.
    async with house.as_nobody(address="127.0.6.2") as elsewhere:
        assert await login(elsewhere, "owner@example.com") == (200, None)


async def test_what_says_that_a_browser_is_known_is_out_of_reach_for_scripts_and_cannot_be_made_up(house: House):
    await house.add("customer", "known", PASSWORD)
    async with house.as_nobody(address="127.0.7.1") as browser:
        answer = await browser.post("/api/auth/login", json={"email": "known@example.com", "password": PASSWORD})
        [kept] = [one for one in answer.headers.get_list("set-cookie") if one.startswith(f"{DEVICE}=")]
        assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(kept.split("; "))
        assert "known" not in kept.lower().partition("=")[2]
        value = browser.cookies[DEVICE]
    forged = value[:-1] + ("0" if value[-1] != "0" else "1")
    async with house.as_nobody(address="127.0.7.1") as stranger:
        for _ in range(5):
            assert await login(stranger, "known@example.com", "guess") == (401, "bad_credentials")
        for cookie in (forged, value.partition(".")[0], f".{value}", "", "\x80", "7b7d.00"):
            headers = {"Cookie": f"{DEVICE}={cookie}".encode("latin-1")}
            body = {"email": "known@example.com", "password": PASSWORD}
            assert (await stranger.post("/api/auth/login", json=body, headers=headers)).status_code == 429
        # Where it was copied to, it opens nothing by itself.
        assert (await stranger.get("/api/me", headers={"Cookie": f"{DEVICE}={value}"})).status_code == 401


async def test_thirty_people_within_ten_minutes_can_sign_up_from_one_address(house: House):
    # A name of which nothing can be seen: counted, and refused before its password costs anything.
    body = {"email": "many@example.com", "password": PASSWORD, "name": "\u200b"}
    async with house.as_nobody(address="127.0.8.1") as rest:
        for _ in range(30):
            assert (await rest.post("/api/auth/register", json=body)).status_code == 422
        answer = await rest.post("/api/auth/register", json=body | {"name": "Nia"})
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many_requests")
        assert 1 <= int(answer.headers["retry-after"]) <= 600
        # Whoever has an account comes in from there as ever.
        assert await login(rest, "carl@example.com") == (200, None)
    async with house.as_nobody(address="127.0.8.2") as rest:
        assert (await rest.post("/api/auth/register", json=body | {"name": "Nia"})).status_code == 201


@pytest.mark.parametrize(
    "email",
    [
        "\u202ea@example.com",
        "a\u200b@example.com",
        "a@exam\u00adple.com",
        "a@example.com\n",
        "a\x00@b.c",
        "a\u2028@b.c",
        "a b@c.d",
    ],
)
async def test_an_address_that_looks_like_another_one_is_no_address(house: House, email: str):
    body = {"email": email, "password": PASSWORD, "name": "Nia"}
    async with house.as_nobody(address="127.0.9.1") as rest:
        answer = await rest.post("/api/auth/register", json=body)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "email")


async def test_an_address_is_the_same_however_its_letters_are_composed(house: House):
    composed, decomposed = "zo\u00eb@example.com", "Zoe\u0308@example.com"
    async with house.as_nobody(address="127.0.9.2") as rest:
        body = {"email": decomposed, "password": PASSWORD, "name": "Zo\u00eb"}
        made = await rest.ok("POST", "/api/auth/register", status=201, json=body)
        assert made["account"]["email"] == composed
        assert (await rest.post("/api/auth/register", json=body | {"email": composed})).status_code == 409
        for email in (composed, decomposed):
            assert await login(rest, email) == (200, None)
    # As a version that did not compose it has kept it.
    database = Database(house.settings.resolved_database_url)
    async with database.write() as session:
        account = await session.get_one(Account, made["account"]["id"])
        account.email = decomposed.lower()
    await database.close()
    async with house.as_nobody(address="127.0.9.2") as rest:
        assert await login(rest, decomposed) == (200, None)


async def test_thirty_guesses_side_by_side_are_five(house: House):
    await house.add("customer", "rushed", PASSWORD)
    async with house.as_nobody(address="127.0.4.1") as rest:
        verdicts = await asyncio.gather(*(login(rest, "rushed@example.com", f"guess {n}") for n in range(30)))
    assert sorted(verdicts) == [(401, "bad_credentials")] * 5 + [(429, "too_many_attempts")] * 25


async def test_more_right_passwords_side_by_side_than_may_fail_all_come_in(house: House):
    async with house.as_nobody(address="127.0.5.1") as rest:
        emails = ["cara@example.com"] * 8 + ["mia@example.com"] * 4
        assert await asyncio.gather(*(login(rest, email) for email in emails)) == [(200, None)] * 12


# --- the limit by itself, as several nodes share it -------------------------------------------------------------------


def doors(**changes: Any) -> DoorSettings:
    return replace(Settings(_env_file=None, secret_key="x" * 32).doors(), **changes)


async def fail(limit: LoginLimit, *, email: str = "a@b.c", address: str = "::1", device_id: str | None = None) -> bool:
    """Try a wrong password; return whether it was looked at."""
    async with limit.attempt(email, address, device_id=device_id) as attempt:
        return not isinstance(attempt, TooMany)


async def test_nodes_count_together_and_forget_after_the_window(redis_url: str):
    link = RedisLink(redis_url, prefix="window")
    nodes = [LoginLimit(link, doors(login_window_s=3)) for _ in range(2)]
    began_s = time.monotonic()
    looked_at = await asyncio.gather(*(fail(node) for node in nodes * 10))
    assert sum(looked_at) == 5
    async with nodes[0].attempt("a@b.c", "::1") as attempt:
        assert isinstance(attempt, TooMany)
    with anyio.fail_after(PATIENCE_S):
        while not await fail(nodes[1]):  # noqa: ASYNC110
            await anyio.sleep(0.02)
    assert time.monotonic() - began_s >= 3
    await link.close()


async def test_an_attempt_that_breaks_is_no_failure_and_one_that_is_cut_off_is(redis_url: str):
    link = RedisLink(redis_url, prefix="broken")
    limit = LoginLimit(link, doors())
    for _ in range(6):
        with pytest.raises(OSError, match="the database is away"):
            async with limit.attempt("a@b.c", "::1"):
                raise OSError("the database is away")
    for _ in range(5):
        with anyio.move_on_after(5) as scope:
            async with limit.attempt("a@b.c", "::1") as attempt:
                assert not isinstance(attempt, TooMany)
                scope.cancel()
                await anyio.sleep_forever()
    assert not await fail(limit)
    await link.close()


async def test_a_crowd_of_strangers_is_bounded_and_no_known_browser_waits_behind_it(redis_url: str):
    link = RedisLink(redis_url, prefix="crowd")
    limit = LoginLimit(link, doors())
    looked_at: list[str] = []
    gone = anyio.Event()

    async def stranger(number: int) -> None:
        async with limit.attempt(f"{number}@b.c", f"192.0.2.{number % 250}"):
            looked_at.append("stranger")
            await gone.wait()

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            for number in range(ATTEMPTS_SIDE_BY_SIDE + WAITING_MAX):
                tasks.start_soon(stranger, number)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(Overloaded):
                await fail(limit)
            assert await fail(limit, device_id="phone")
            assert looked_at == ["stranger"] * ATTEMPTS_SIDE_BY_SIDE
            tasks.cancel_scope.cancel()
    # Nobody's place is lost.
    assert await fail(limit)
    await link.close()


async def test_redis_learns_no_address_of_anybody(redis_url: str):
    link = RedisLink(redis_url, prefix="private")
    await fail(LoginLimit(link, doors()), email="Jo@Example.com", address="192.0.2.7")
    (keys,) = await link.everywhere(lambda redis: redis.keys("private:*"))
    assert len(keys) == 2, "what failed: by account and address, and by address"
    kept = [
        *keys,
        *[member for key in keys for member in await link.ask(key, lambda redis, key=key: redis.zrange(key, 0, -1))],
    ]
    assert not any(word in text.lower() for text in kept for word in ("jo@", "example", "192.0.2.7"))
    assert all([await link.ask(key, lambda redis, key=key: redis.pttl(key)) > 0 for key in keys])
    await link.close()
