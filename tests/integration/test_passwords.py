"""Passwords: changed by who knows the present one, forgotten and set anew by mail, and what that ends."""

import hashlib
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import anyio
import httpx
import pytest
from sqlalchemy import text
from sqlmodel import select
from websockets.asyncio.client import connect

from accounts.accounts import RESET_MS, RESETS_MAX, Accounts, NewAccount
from accounts.revocations import Proof, is_revoked, revoke_all, sign_out
from accounts.sign_ins import HOLD_PASSWORD, NewSignIn, SignIns
from infra.database import Database, within
from models.outcomes import Refused
from models.tables import Account, PasswordReset, SignIn
from models.words import Role
from tests.acceptance.clients import Rest
from tests.integration.mail_servers import MailServer, mail_server
from tests.integration.rest_house import COOKIE, PASSWORD, House, rest_house
from tests.parts import eventually, side_by_side

OTHER = "another correct horse"
THIRD = "a third correct horse"


class Hand:
    """A clock that is set by hand."""

    def __init__(self, at_ms: int) -> None:
        self.at_ms = at_ms

    def now_ms(self) -> int:
        return self.at_ms


@dataclass
class Office:
    """The accounts of one database, with one account in it."""

    database: Database
    accounts: Accounts
    sign_ins: SignIns
    clock: Hand
    account_id: str
    email: str = "mia@example.com"

    async def account(self) -> Account:
        account = await self.accounts.find(self.account_id)
        assert account is not None
        return account

    async def link(self) -> str:
        """Return the token of a fresh link to a new password."""
        begun = await self.accounts.begin_reset(self.email, now_ms=self.clock.at_ms)
        assert begun is not None
        return begun[1]

    async def opens(self, password: str) -> bool:
        return await self.accounts.sign_in(self.email, password) is not None

    async def is_waited_for(self) -> bool:
        """Tell whether somebody waits for what a transaction has locked."""
        if self.database.is_sqlite:
            return self.database._turn.statistics().tasks_waiting > 0
        waiting = text(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        async with self.database.read() as session:
            return bool((await (await session.connection()).execute(waiting)).scalar())


@pytest.fixture
async def office(database_url: str) -> AsyncIterator[Office]:
    database = Database(database_url)
    accounts = Accounts(database)
    account = await accounts.add(NewAccount(Role.MECHANIC, "Mia@Example.com", "Mia", PASSWORD), now_ms=1)
    assert isinstance(account, Account)
    yield Office(database, accounts, SignIns(database), Hand(1_000_000), account.id)
    await database.close()


def is_bad_link(outcome: object) -> bool:
    return isinstance(outcome, Refused) and outcome.code == "bad_reset_token"


# --- what SQL keeps of it, on both databases --------------------------------------------------------------------------


async def test_a_link_is_good_once_and_sets_the_password(office: Office):
    token = await office.link()
    done = await office.accounts.reset_password(token, OTHER, office.clock)
    assert not isinstance(done, Refused)
    assert (done[0].id, done[1]) == (office.account_id, office.clock.at_ms)
    assert [await office.opens(PASSWORD), await office.opens(OTHER)] == [False, True]
    assert is_bad_link(await office.accounts.reset_password(token, THIRD, office.clock))
    assert await office.opens(OTHER)


async def test_of_two_who_use_a_link_at_once_one_sets_the_password(office: Office):
    token = await office.link()
    outcomes = await side_by_side(
        *[
            lambda password=password: office.accounts.reset_password(token, password, office.clock)
            for password in (OTHER, THIRD)
        ]
    )
    [winner] = [number for number, outcome in enumerate(outcomes) if not isinstance(outcome, Refused)]
    assert is_bad_link(outcomes[1 - winner])
    assert [await office.opens(OTHER), await office.opens(THIRD)] == [winner == 0, winner == 1]


async def test_a_link_ends_after_half_an_hour(office: Office):
    assert RESET_MS == 30 * 60_000
    late, in_time = await office.link(), await office.link()
    office.clock.at_ms += RESET_MS - 1
    assert not isinstance(await office.accounts.reset_password(in_time, OTHER, office.clock), Refused)
    office.clock.at_ms += 1
    assert is_bad_link(await office.accounts.reset_password(late, THIRD, office.clock))


async def test_sql_keeps_nothing_by_which_a_password_could_be_set(office: Office):
    token = await office.link()
    async with office.database.read() as session:
        [row] = await session.exec(select(PasswordReset))
    assert row.id == hashlib.sha256(token.encode()).hexdigest()
    assert len(token) >= 43
    assert is_bad_link(await office.accounts.reset_password(row.id, OTHER, office.clock))


async def test_the_newest_few_links_of_an_account_are_good_and_old_ones_are_forgotten(office: Office):
    tokens = []
    for _ in range(RESETS_MAX + 1):
        office.clock.at_ms += 1
        tokens.append(await office.link())
    assert is_bad_link(await office.accounts.reset_password(tokens[0], OTHER, office.clock))
    assert not isinstance(await office.accounts.reset_password(tokens[1], OTHER, office.clock), Refused)
    await office.link()
    office.clock.at_ms += RESET_MS
    await office.link()
    async with office.database.read() as session:
        assert len(list(await session.exec(select(PasswordReset)))) == 1


@pytest.mark.parametrize("how", ["change", "reset"])
async def test_a_new_password_voids_every_other_link(office: Office, how: str):
    one, other = await office.link(), await office.link()
    if how == "change":
        await office.accounts.change_password(await office.account(), OTHER, office.clock)
    else:
        await office.accounts.reset_password(one, OTHER, office.clock)
    assert is_bad_link(await office.accounts.reset_password(other, THIRD, office.clock))
    assert await office.opens(OTHER)


@pytest.mark.parametrize("password", ["short", "x" * 1025, "é" * 513, "MIA@example.com", "password1"])
async def test_a_password_that_cannot_be_kept_uses_no_link_up_and_changes_nothing(office: Office, password: str):
    token = await office.link()
    for outcome in (
        await office.accounts.reset_password(token, password, office.clock),
        await office.accounts.change_password(await office.account(), password, office.clock),
    ):
        assert isinstance(outcome, Refused)
        assert (outcome.code, outcome.member) == ("validation_failed", "password")
    assert await office.opens(PASSWORD)
    assert not isinstance(await office.accounts.reset_password(token, "é" * 512, office.clock), Refused)
    assert await office.opens("é" * 512)


async def test_of_two_changes_at_once_one_comes_too_late(office: Office):
    account = await office.account()
    outcomes = await side_by_side(
        *[
            lambda password=password: office.accounts.change_password(account.model_copy(), password, office.clock)
            for password in (OTHER, THIRD)
        ]
    )
    [winner] = [number for number, outcome in enumerate(outcomes) if not isinstance(outcome, Refused)]
    assert [await office.opens(OTHER), await office.opens(THIRD)] == [winner == 0, winner == 1]


async def test_there_is_no_link_for_nobody_for_the_disabled_and_for_whom_only_tokens_can_use(office: Office):
    await office.accounts.add(NewAccount(Role.CUSTOMER, "tokens@example.com", "Tokens"), now_ms=1)
    assert await office.accounts.begin_reset("nobody@example.com", now_ms=1) is None
    assert await office.accounts.begin_reset("tokens@example.com", now_ms=1) is None
    token = await office.link()
    await office.accounts.set_disabled(office.account_id, True, now_ms=office.clock.at_ms)
    assert await office.accounts.begin_reset(office.email, now_ms=1) is None
    assert is_bad_link(await office.accounts.reset_password(token, OTHER, office.clock))
    assert isinstance(await office.accounts.change_password(await office.account(), OTHER, office.clock), Refused)


# --- and whoever is signing in meanwhile ------------------------------------------------------------------------------


def new_sign_in(account: Account, sign_in_id: str = "phone") -> NewSignIn:
    return NewSignIn(sign_in_id, account.id, account.password_hash, "a phone")


async def revoked(office: Office, *, issued_at_ms: int, sign_in_id: str | None = "phone") -> bool:
    proof = Proof(office.account_id, "token", issued_at_ms, 2**40, sign_in_id)
    return await office.database.query(is_revoked(proof))


async def test_whoever_has_proven_the_password_from_before_a_change_gets_no_token_after_it(office: Office):
    """Sign-in: the password is right. Change: committed, tokens until now revoked. Sign-in: here is a token of after that."""
    proven = await office.accounts.sign_in(office.email, PASSWORD)
    assert proven is not None
    before = proven.model_copy()
    assert not isinstance(await office.accounts.change_password(proven, OTHER, office.clock), Refused)
    assert not await office.sign_ins.note(new_sign_in(before), now_ms=office.clock.at_ms + 1, expires_at_ms=2**40)
    # Who has changed it stays.
    assert await office.sign_ins.note(new_sign_in(proven), now_ms=office.clock.at_ms + 1, expires_at_ms=2**40)
    assert not await revoked(office, issued_at_ms=office.clock.at_ms + 1)


@pytest.mark.parametrize("what", ["change", "sign out"])
async def test_a_token_that_is_issued_while_a_change_waits_is_revoked_by_it(office: Office, what: str):
    """Change: begins. Sign-in: holds the account, issues a token, commits. Change: goes on, and revokes until now, not then."""
    ended_at_ms: list[object] = []

    async def end_all() -> None:
        if what == "change":
            ended_at_ms.append(await office.accounts.change_password(await office.account(), OTHER, office.clock))
        else:
            ended_at_ms.append(await office.database.commit(sign_out(office.account_id, office.clock)))

    account = await office.account()
    async with anyio.create_task_group() as tasks, office.database.write() as session:
        [_] = await within(session, HOLD_PASSWORD(id=account.id, password_hash=account.password_hash))
        tasks.start_soon(end_all)
        await eventually(office.is_waited_for, "the change waits")
        office.clock.at_ms += 500
        issued_at_ms = office.clock.at_ms
    assert ended_at_ms == [issued_at_ms]
    assert await revoked(office, issued_at_ms=issued_at_ms)
    assert not await revoked(office, issued_at_ms=issued_at_ms + 1)


async def test_a_revoked_token_is_not_renewed_also_where_nobody_has_heard_of_it(office: Office):
    account = await office.account()
    await office.sign_ins.note(new_sign_in(account), now_ms=1_000, expires_at_ms=2_000_000)
    proof = Proof(account.id, "token", 1_000, 2_000_000, "phone")
    assert await office.sign_ins.renewed(proof, "phone", expires_at_ms=3_000_000)
    async with office.database.read() as session:
        assert (await session.get_one(SignIn, "phone")).expires_at_ms == 3_000_000
    await office.database.commit(revoke_all(account.id, now_ms=1_000))
    assert not await office.sign_ins.renewed(proof, "phone", expires_at_ms=4_000_000)
    # One of an integrator's, without a device.
    assert not await office.sign_ins.renewed(Proof(account.id, "", 1_000, 2_000_000), "", expires_at_ms=4_000_000)
    assert await office.sign_ins.renewed(Proof(account.id, "", 1_001, 2_000_000), "", expires_at_ms=4_000_000)
    await office.accounts.set_disabled(account.id, True, now_ms=1_000)
    assert not await office.sign_ins.renewed(Proof(account.id, "", 9_000, 2**40), "", expires_at_ms=2**40)


# --- over REST, with mail ---------------------------------------------------------------------------------------------


@dataclass
class PostedHouse:
    """A running server, and the mail server that it sends by."""

    house: House
    mail: MailServer

    def mails_to(self, email: str) -> Sequence[str]:
        return [str(one.message.get_content()) for one in self.mail.received if one.recipients == [email]]

    async def link_to(self, email: str, number: int = 1) -> str:
        """Return the ``number``-th link that has come for an address."""
        await eventually(lambda: len(self.mails_to(email)) >= number, f"a mail to {email}")
        [link] = re.findall(r"https?://\S+", self.mails_to(email)[number - 1])
        return link


@pytest.fixture(scope="module")
async def posted(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PostedHouse]:
    async with mail_server() as mail:
        url = f"smtp://127.0.0.1:{mail.port}"
        folder = tmp_path_factory.mktemp("posted")
        async with rest_house(folder, SMTP_URL=url, MAIL_FROM="Pitlane <no-reply@example.com>") as house:
            yield PostedHouse(house, mail)


@asynccontextmanager
async def signed_in(
    house: House, email: str, password: str = PASSWORD, address: str = "127.0.0.1"
) -> AsyncIterator[Rest]:
    """Return a client with a token of its own sign-in."""
    async with house.as_nobody(address=address) as rest:
        answer = await rest.ok("POST", "/api/auth/login", json={"email": email, "password": password})
        rest.cookies.clear()
        rest.headers["Authorization"] = f"Bearer {answer['token']}"
        yield rest


async def status_of_me(rest: Rest) -> int:
    return (await rest.get("/api/me")).status_code


async def login(house: House, email: str, password: str) -> int:
    async with house.as_nobody(address="127.0.9.9") as rest:
        return (await rest.post("/api/auth/login", json={"email": email, "password": password})).status_code


async def forget(rest: Rest, email: str) -> httpx.Response:
    return await rest.post("/api/auth/password/forgot", json={"email": email})


async def test_a_change_signs_out_every_other_device_and_answers_a_token_that_is_good_at_once(posted: PostedHouse):
    house = posted.house
    account_id = await house.add("mechanic", "changes", PASSWORD)
    async with (
        house.as_(account_id, "mechanic") as integrators,
        signed_in(house, "changes@example.com") as here,
        signed_in(house, "changes@example.com") as there,
    ):
        assert await status_of_me(integrators) == 200
        url = f"{house.base_url.replace('http', 'ws', 1)}/ws/mechanic"
        async with connect(url, additional_headers={"Authorization": there.headers["Authorization"]}) as socket:
            body = {"current_password": PASSWORD, "new_password": OTHER}
            answer = await here.post("/api/auth/password", json=body)
            assert answer.status_code == 200, answer.text
            assert set(answer.json()) == {"account", "token", "expires_at"}
            assert answer.headers["set-cookie"].startswith(f"{COOKIE}={answer.json()['token']};")
            async with house.as_nobody(headers={"Authorization": f"Bearer {answer.json()['token']}"}) as fresh:
                assert await status_of_me(fresh) == 200
                devices = await fresh.ok("GET", "/api/me/devices")
                assert [one["is_this"] for one in devices["devices"]] == [True]
            here.cookies.clear()
            assert [await status_of_me(one) for one in (here, there, integrators)] == [401, 401, 401]
            with anyio.fail_after(10):
                await socket.wait_closed()
            assert socket.close_code == 4401
    assert [await login(house, "changes@example.com", word) for word in (PASSWORD, OTHER)] == [401, 200]


async def test_a_change_takes_the_current_password_and_names_what_is_wrong_with_the_new_one(posted: PostedHouse):
    house = posted.house
    await house.add("customer", "picky", PASSWORD)
    async with signed_in(house, "picky@example.com") as rest:
        wrong = {"current_password": OTHER, "new_password": THIRD}
        assert await rest.problem("POST", "/api/auth/password", json=wrong) == (401, "bad_credentials")
        for password in ("seven77", "é" * 513, "Picky@Example.com", "password1"):
            answer = await rest.post(
                "/api/auth/password", json={"current_password": PASSWORD, "new_password": password}
            )
            assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "new_password"), password
        assert await status_of_me(rest) == 200
        long = "x" * 1024
        await rest.ok("POST", "/api/auth/password", json={"current_password": PASSWORD, "new_password": long})
    assert await login(house, "picky@example.com", long) == 200
    async with house.as_nobody() as nobody:
        assert (await nobody.problem("POST", "/api/auth/password", json=wrong))[0] == 401


async def test_an_account_that_only_tokens_can_use_has_no_password_to_change(posted: PostedHouse):
    account_id = await posted.house.add("mechanic", "only-tokens")
    async with posted.house.as_(account_id, "mechanic") as rest:
        body = {"current_password": "", "new_password": OTHER}
        assert await rest.problem("POST", "/api/auth/password", json=body) == (401, "bad_credentials")


async def test_whoever_guesses_the_current_password_is_stopped_as_at_sign_in_wherever_they_guess(posted: PostedHouse):
    await posted.house.add("customer", "guessed", PASSWORD)

    async def change(rest: Rest, password: str) -> tuple[int, str]:
        body = {"current_password": password, "new_password": OTHER}
        return await rest.problem("POST", "/api/auth/password", json=body)

    async def erase(rest: Rest, password: str) -> tuple[int, str]:
        return await rest.problem("DELETE", "/api/me", json={"current_password": password})

    async with signed_in(posted.house, "guessed@example.com") as rest:
        for guess in (change, erase, change, erase, erase):
            assert await guess(rest, "a guess") == (401, "bad_credentials")
        for guess in (change, erase):
            assert await guess(rest, PASSWORD) == (429, "too_many_attempts")
        assert await status_of_me(rest) == 200


async def test_a_forgotten_password_is_set_by_the_link_that_comes_by_mail(posted: PostedHouse):
    house, email = posted.house, "forgets@example.com"
    await house.add("customer", "forgets", PASSWORD)
    async with signed_in(house, email) as before, house.as_nobody(address="127.0.7.1") as rest:
        answer = await forget(rest, " Forgets@Example.com ")
        assert (answer.status_code, answer.content) == (204, b"")
        link = urlsplit(await posted.link_to(email))
        # Behind the #: in no log of ours or of a proxy's, and in no Referer.
        assert (link.path, link.query) == ("/reset", "")
        assert f"{link.scheme}://{link.netloc}" == house.base_url
        assert (await rest.get("/reset")).status_code == 200
        body = {"reset_token": link.fragment, "new_password": OTHER}
        refused = await rest.post("/api/auth/password/reset", json=body | {"new_password": "forgets@example.com"})
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "new_password")
        answer = await rest.post("/api/auth/password/reset", json=body)
        assert answer.status_code == 200, answer.text
        assert set(answer.json()) == {"account", "token", "expires_at"}
        assert (await rest.ok("GET", "/api/me"))["email"] == email, "by the cookie that has been set"
        assert await status_of_me(before) == 401
        assert await rest.problem("POST", "/api/auth/password/reset", json=body) == (400, "bad_reset_token")
    assert [await login(house, email, word) for word in (PASSWORD, OTHER)] == [401, 200]
    log = house.server.log_path.read_text()
    assert link.fragment not in log
    assert email not in log


async def test_asking_for_a_link_tells_nobody_who_has_an_account(posted: PostedHouse):
    house = posted.house
    await house.add("customer", "asked-for", PASSWORD)
    async with house.as_nobody(address="127.0.7.2") as rest:
        answers = [await forget(rest, email) for email in ("nobody@example.com", "no address", "asked-for@example.com")]
        seen = [(one.status_code, one.content, [*one.headers.keys()]) for one in answers]
        assert seen[0][0] == 204
        assert seen == [seen[0]] * 3
        await posted.link_to("asked-for@example.com")
        # They are looked up in the order in which they were asked about.
        assert not posted.mails_to("nobody@example.com")
        assert (await rest.problem("POST", "/api/auth/password/forgot", json={}))[0] == 422


async def test_links_are_limited_for_an_account_and_for_an_address(posted: PostedHouse):
    house = posted.house
    await house.add("customer", "bombed", PASSWORD)
    await house.add("customer", "after", PASSWORD)
    async with house.as_nobody(address="127.0.7.3") as rest:
        for _ in range(19):
            assert (await forget(rest, "bombed@example.com")).status_code == 204
        assert (await forget(rest, "after@example.com")).status_code == 204
        answer = await forget(rest, "after@example.com")
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many_requests")
        assert 1 <= int(answer.headers["retry-after"]) <= 600
    await posted.link_to("after@example.com")
    assert len(posted.mails_to("bombed@example.com")) == 5


async def test_a_mail_that_the_server_puts_off_delays_neither_an_answer_nor_another_mail(posted: PostedHouse):
    house = posted.house
    await house.add("customer", "slow-mail", PASSWORD)
    posted.mail.answers["slow-mail@example.com"] = ["451 later"] * 100
    async with house.as_nobody(address="127.0.7.4") as rest:
        for _ in range(3):
            assert (await forget(rest, "slow-mail@example.com")).status_code == 204
        await eventually(lambda: "slow-mail@example.com" in posted.mail.tries, "it is tried")
        await house.add("customer", "quick-mail", PASSWORD)
        await forget(rest, "quick-mail@example.com")
        await posted.link_to("quick-mail@example.com")
    assert not posted.mails_to("slow-mail@example.com")


@pytest.mark.parametrize("token", ["", "guess", "x" * 43, "\ud800", "ü"])
async def test_a_token_that_is_none_sets_no_password(posted: PostedHouse, token: str):
    async with posted.house.as_nobody(address="127.0.7.5") as rest:
        body = {"reset_token": token, "new_password": OTHER}
        headers = {"Content-Type": "application/json"}
        answer = await rest.post("/api/auth/password/reset", content=json.dumps(body), headers=headers)
        assert answer.json()["code"] in ({"malformed_json"} if token == "\ud800" else {"bad_reset_token"})
        assert answer.status_code == 400
