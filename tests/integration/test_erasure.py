"""Accounts whose person is forgotten: what goes, down to the bytes of the files, and what stays."""

import json
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace
from sqlalchemy import text
from sqlmodel import select

from accounts.accounts import Accounts, NewAccount
from accounts.revocations import Proof, is_revoked
from accounts.sign_ins import NewSignIn, SignIns
from dispatch.departures import Departures
from dispatch.erasure import Erasure
from dispatch.favorites import Favorites
from dispatch.notices import FavoriteToPrompt, RequestChanged, Seen
from dispatch.outbox import Message
from dispatch.stored import READ_REQUESTS
from infra.database import Database
from models import tables
from models.outcomes import Refused
from models.rest import FreeCheckout, StripeCheckout
from models.wire import RequestView
from models.words import Role
from tests.acceptance.clients import Rest, pay, socket
from tests.acceptance.servers import run
from tests.integration.push_browsers import Browser
from tests.integration.rest_house import PASSWORD, House, rest_house
from tests.parts import Node, World, body, events, eventually, running_node, running_world, side_by_side

NAME, EMAIL = "Zebulon Quartermain", "zebulon.quartermain@example.com"
NOTE, REASON = "The purple Yugo hisses", "Whistled all the way"
AGENT, ENDPOINT = "Zebulons phone 9", "https://127.0.0.1:9/zebulons-browser"
PERSONAL = (NAME, EMAIL, NOTE, REASON, AGENT, ENDPOINT)


@dataclass
class Place:
    """A node, and somebody in its database who is to be forgotten."""

    world: World
    node: Node
    person: tables.Account

    @property
    def erasure(self) -> Erasure:
        return Erasure(database=self.node.database, clock=self.node.clock)

    async def erase(self) -> Refused | None:
        outcome = await self.erasure.erase(self.person)
        await self.node.database.sweep()
        return outcome

    async def account(self) -> tables.Account:
        return await self.world.row(tables.Account, self.person.id)

    async def found(self, *words: str) -> list[tuple[str, str]]:
        """Return which of the words stand in which table, in any row."""
        return [(name, word) for name, kept in await self._rows() for word in words if word in kept]

    async def _rows(self) -> Iterable[tuple[str, str]]:
        async with self.world.database.read() as session:
            connection = await session.connection()
            rows = []
            for table in tables.metadata.sorted_tables:
                found = (await connection.execute(text(f"SELECT * FROM {table.name}"))).all()
                rows.append(
                    (table.name, json.dumps([[str(value) for value in row] for row in found], ensure_ascii=False))
                )
        return rows


@asynccontextmanager
async def place(
    database_url: str, redis_url: str, folder: Path | None = None, role: Role = Role.CUSTOMER
) -> AsyncIterator[Place]:
    async with running_world(database_url, redis_url, folder) as world, running_node(world) as node:
        person = await Accounts(world.database).add(NewAccount(role, EMAIL, NAME, PASSWORD), now_ms=1)
        assert isinstance(person, tables.Account)
        yield Place(world, node, person)


def bytes_of(database_url: str) -> bytes:
    """Return what the files of an embedded database have in them."""
    path = Path(database_url.removeprefix("sqlite:///"))
    return b"".join(one.read_bytes() for one in path.parent.glob(f"{path.name}*"))


async def free_request(place: Place, *, favorite: str | None = None, note: str | None = None) -> RequestView:
    await place.world.update(tables.Account, place.person.id, free_session_used=False)
    asked = replace(body("free_diagnostic", favorite), note=note)
    answer = await place.node.checkouts.start(place.person.id, asked)
    assert isinstance(answer, FreeCheckout), answer
    return answer.request


async def accept(node: Node, mechanic_id: str, request: RequestView) -> RequestView | Refused:
    assert request.offer is not None
    return await node.dispatch.accept(mechanic_id, request.offer.id, received_at_ms=node.clock.now_ms())


def departures(node: Node) -> Departures:
    return Departures(database=node.database, dispatch=node.dispatch, subscriptions=node.push)


# --- a customer -------------------------------------------------------------------------------------------------------


async def with_a_history(place: Place) -> tuple[str, str]:
    """Let the customer do all that leaves something of them; return a served request and a cancelled one."""
    world, node, customer_id = place.world, place.node, place.person.id
    mechanic_id = await world.mechanic()
    sign_ins = SignIns(world.database)
    await sign_ins.note(
        NewSignIn("device", customer_id, place.person.password_hash, AGENT), now_ms=1, expires_at_ms=2**45
    )
    await Accounts(world.database).begin_reset(EMAIL, now_ms=node.clock.now_ms())
    await Favorites(node.database, node.clock, node.presence).add(customer_id, mechanic_id)
    await node.push.subscribe(customer_id, replace(Browser(ENDPOINT).subscription, label=AGENT))
    served = await paid_request(place)
    await accept(node, mechanic_id, served)
    await node.dispatch.start(mechanic_id, served.id)
    await node.dispatch.complete(mechanic_id, served.id)
    reported = await node.dispatch.report(customer_id, served.id, REASON)
    assert not isinstance(reported, Refused)
    cancelled = await paid_request(place)
    await node.dispatch.cancel(customer_id, cancelled.id)

    async def is_refunded() -> bool:
        return all(one.status == "succeeded" for one in await world.rows(tables.Refund))

    await eventually(is_refunded, "the money is back")
    # One that is still open, and was asked for under a key.
    await node.checkouts.start(customer_id, replace(body(), note=NOTE), idempotency_key="zebulons-key")
    [stored] = await world.database.query(READ_REQUESTS(ids=[served.id]))
    left = [
        # What could not be told for long, and waits for an operator.
        RequestChanged(served.id, seen=Seen.of(stored, now_ms=1)),
        FavoriteToPrompt(served.id, mechanic_id, customer_id, NAME),
    ]
    async with world.database.write() as session:
        for message in map(Message.of, left):
            session.add(
                tables.OutboxMessage(
                    id=message.id,
                    kind=message.notice.kind,
                    payload=json.loads(msgspec.json.encode(message.notice)),
                    leased_until_ms=2**45,
                    set_aside_at_ms=1,
                )
            )
        # As an earlier version has kept them.
        payload = {"data": {"object": {"customer_details": {"email": EMAIL.upper(), "name": "Z."}}}}
        session.add(
            tables.StripeEvent(
                id="evt_old",
                type="checkout.session.completed",
                payload=payload,
                received_at_ms=1,
                next_attempt_at_ms=2**45,
            )
        )
        other = tables.PushSubscription(
            id="other", account_id=mechanic_id, endpoint="https://other", p256dh="", auth="", created_at_ms=1
        )
        session.add(other)
        await session.flush()
        session.add(
            tables.PushMessage(
                id="offer-other",
                subscription_id="other",
                place="other",
                about_id=served.offer.id if served.offer else "",
                kind="offer",
                topic="t",
                payload=json.dumps({"customer_name": NAME, "note": NOTE}),
                due_at_ms=2**45,
                expires_at_ms=2**45,
                attempts=0,
                was_forbidden=False,
            )
        )
    await world.update(tables.SessionRequest, served.id, last_error=f"KeyError: {NAME}")
    return served.id, cancelled.id


async def paid_request(place: Place) -> RequestView:
    world, node, customer_id = place.world, place.node, place.person.id
    checkout = await node.checkouts.start(customer_id, replace(body(), note=NOTE))
    assert isinstance(checkout, StripeCheckout), checkout
    await world.pay(checkout.url)
    state = await node.checkouts.state(customer_id, checkout.checkout_id)
    assert not isinstance(state, Refused)
    assert isinstance(state.request_id, str)
    return await world.request(node, customer_id, state.request_id)


async def test_of_an_erased_customer_with_a_whole_history_nothing_personal_is_left_and_bookings_and_money_stay(
    database_url: str, redis_url: str, tmp_path: Path
):
    async with place(database_url, redis_url, tmp_path) as at:
        served_id, cancelled_id = await with_a_history(at)
        world = at.world
        # Nothing of it is missed because it was never there.
        assert {word for _, word in await at.found(*PERSONAL)} == set(PERSONAL)
        money = {
            row.id: (row.price_cents, row.status, row.payment_intent_id) for row in await world.rows(tables.Checkout)
        }
        story = [line.event for line in await world.rows(tables.TimelineEntry)]
        assert await at.erase() is None

        assert await at.found(*PERSONAL, EMAIL.upper(), "zebulon", "Zebulon", "Yugo") == []
        account = await at.account()
        assert (account.name, account.password_hash) == ("Former customer", None)
        assert "@" not in account.email
        after = {
            row.id: (row.price_cents, row.status, row.payment_intent_id) for row in await world.rows(tables.Checkout)
        }
        assert after == money
        assert [line.event for line in await world.rows(tables.TimelineEntry)] == story
        assert [one.request_id for one in await world.rows(tables.Refund)] == [cancelled_id]
        for table in (tables.Favorite, tables.SignIn, tables.PasswordReset):
            assert await world.rows(table) == []
        served = await world.row(tables.SessionRequest, served_id)
        seen = await at.node.reader.request_for(served.assigned_mechanic_id or "", served_id)
        assert isinstance(seen, RequestView)
        assert (seen.customer_name, seen.note, seen.status) == ("Former customer", None, "completed")
        if world.database.is_sqlite:
            kept = bytes_of(database_url)
            assert served_id.encode() in kept
            assert [word for word in PERSONAL if word.encode() in kept] == []

        assert await world.database.query(is_revoked(Proof(account.id, "token", 2**45, 2**46)))
        accounts = Accounts(world.database)
        assert await accounts.sign_in(EMAIL, PASSWORD) is None
        again = await accounts.add(NewAccount(Role.CUSTOMER, EMAIL, NAME, PASSWORD), now_ms=2)
        assert isinstance(again, tables.Account)
        assert again.id != account.id
        # Once more does no harm, and to nobody else.
        assert await at.erasure.erase(account) is None
        assert await accounts.sign_in(EMAIL, PASSWORD) is not None
        assert not await accounts.set_disabled(account.id, False, now_ms=3)


async def test_what_an_earlier_version_has_deleted_without_overwriting_it_goes_as_well(
    redis_url: str, tmp_path: Path, sqlite_template: Path
):
    path = tmp_path / "old.sqlite3"
    shutil.copyfile(sqlite_template, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.execute("PRAGMA secure_delete = OFF")
        for number in range(50):
            old.execute("INSERT INTO kept_keys VALUES (?, ?, 1)", (f"{number}", NOTE * 50))
        old.execute("DELETE FROM kept_keys")
    url = f"sqlite:///{path}"
    async with place(url, redis_url) as at:
        assert NOTE.encode() in bytes_of(url)
        assert await at.erase() is None
        assert NOTE.encode() not in bytes_of(url)


async def test_the_file_is_rewritten_once_and_what_is_deleted_later_is_gone_all_the_same(
    redis_url: str, tmp_path: Path, sqlite_template: Path
):
    path = tmp_path / "new.sqlite3"
    shutil.copyfile(sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    await database.sweep()
    async with database.write() as session:
        session.add_all(tables.KeptKey(name=str(number), value=NOTE * 50, created_at_ms=1) for number in range(50))
    len_before = path.stat().st_size
    async with database.write() as session:
        for row in await session.exec(select(tables.KeptKey)):
            await session.delete(row)
    await database.sweep()
    await database.close()
    assert NOTE.encode() not in bytes_of(str(database.url.database))
    assert path.stat().st_size >= len_before, "nobody has waited for the whole file to be written"


async def test_a_customer_who_waits_for_a_mechanic_is_not_erased_and_nothing_of_them_is(
    database_url: str, redis_url: str
):
    async with place(database_url, redis_url) as at:
        node, mechanic_id = at.node, await at.world.mechanic()
        request = await free_request(at, note=NOTE)
        for go_on in (
            lambda: accept(node, mechanic_id, request),
            lambda: node.dispatch.start(mechanic_id, request.id),
            lambda: node.dispatch.complete(mechanic_id, request.id),
        ):
            refused = await at.erase()
            assert isinstance(refused, Refused)
            assert refused.code == "request_open"
            account = await at.account()
            assert (account.name, account.email, account.disabled_at_ms) == (NAME, EMAIL, None)
            assert ("checkouts", NOTE) in await at.found(NOTE)
            await go_on()
        assert await at.erase() is None
        assert await at.found(NOTE) == []


async def test_what_is_paid_after_its_customer_was_erased_is_given_back(
    database_url: str, redis_url: str, tmp_path: Path
):
    async with place(database_url, redis_url, tmp_path) as at:
        world, node = at.world, at.node
        checkout = await node.checkouts.start(at.person.id, replace(body(), note=NOTE))
        assert isinstance(checkout, StripeCheckout)
        assert await at.erase() is None
        await world.pay(checkout.url)

        async def refund() -> Sequence[tables.Refund]:
            return [one for one in await world.rows(tables.Refund) if one.status == "succeeded"]

        [given_back] = await eventually(refund, "the money is back")
        assert (given_back.checkout_id, given_back.cause) == (checkout.checkout_id, "account_erased")
        [request] = await world.rows(tables.SessionRequest)
        assert request.status == "cancelled"
        assert await world.rows(tables.Offer) == []


async def test_of_a_payment_and_an_erasure_at_once_one_sees_the_other(
    database_url: str, redis_url: str, tmp_path: Path
):
    """Fulfilment: the account is there. Erasure: no request is open; commits. Fulfilment: here is a request, of nobody."""
    async with place(database_url, redis_url, tmp_path) as at:
        world, node, accounts = at.world, at.node, Accounts(at.world.database)
        for number in range(4):
            person = await accounts.add(NewAccount(Role.CUSTOMER, f"c{number}@example.com", "Casey"), now_ms=1)
            assert isinstance(person, tables.Account)
            checkout = await node.checkouts.start(person.id, body())
            assert isinstance(checkout, StripeCheckout)
            await world.hold_webhooks(checkout.url)
            await world.pay(checkout.url)
            session_id = (await world.row(tables.Checkout, checkout.checkout_id)).stripe_session_id
            assert session_id is not None
            erasure = Erasure(database=Database(world.database_url), clock=node.clock)
            _, refused = await side_by_side(
                lambda session_id=session_id: node.payments.fulfil(session_id),
                lambda erasure=erasure, person=person: erasure.erase(person),
            )
            await erasure._database.close()
            [request] = await world.rows(tables.SessionRequest, customer_id=person.id)
            is_erased = (await world.row(tables.Account, person.id)).erased_at_ms is not None
            assert is_erased is (refused is None)
            assert request.status == ("cancelled" if is_erased else "broadcasting")


@pytest.mark.parametrize("what", ["checkout", "free", "favorite", "rename", "push"])
async def test_a_tab_that_is_still_open_writes_nothing_of_the_erased_down(database_url: str, redis_url: str, what: str):
    async with place(database_url, redis_url) as at:
        node, mechanic_id = at.node, await at.world.mechanic()
        assert await at.erase() is None
        if what in ("checkout", "free"):
            plan = "quick_chat" if what == "checkout" else "free_diagnostic"
            outcome: object = await node.checkouts.start(at.person.id, replace(body(plan), note=NOTE))
        elif what == "favorite":
            outcome = await Favorites(node.database, node.clock, node.presence).add(at.person.id, mechanic_id)
        elif what == "rename":
            outcome = await Accounts(node.database).rename(at.person.id, NAME)
        else:
            outcome = await node.push.subscribe(at.person.id, Browser(ENDPOINT).subscription)
        assert isinstance(outcome, Refused)
        assert outcome.code == "unauthenticated"
        assert await at.found(*PERSONAL) == []


# --- a mechanic -------------------------------------------------------------------------------------------------------


async def test_of_an_erased_mechanic_the_sessions_stay_and_what_they_said_and_who_trusted_them_goes(
    database_url: str, redis_url: str
):
    async with place(database_url, redis_url, role=Role.MECHANIC) as at:
        world, node, mechanic_id = at.world, at.node, at.person.id
        customer_id, other_id = await world.customer(), await world.mechanic()
        await Favorites(node.database, node.clock, node.presence).add(customer_id, mechanic_id)
        served = await node.checkouts.start(customer_id, body("free_diagnostic", mechanic_id))
        assert isinstance(served, FreeCheckout)
        await accept(node, mechanic_id, served.request)
        await node.dispatch.start(mechanic_id, served.request.id)
        await node.dispatch.complete(mechanic_id, served.request.id)
        await world.update(tables.Account, customer_id, free_session_used=False)
        declined = await node.checkouts.start(customer_id, body("free_diagnostic", mechanic_id))
        assert isinstance(declined, FreeCheckout)
        assert declined.request.offer is not None
        assert await node.dispatch.decline(mechanic_id, declined.request.offer.id, reason=REASON) is True
        assert {word for _, word in await at.found(*PERSONAL)} == {NAME, EMAIL, REASON}

        assert await at.erase() is None
        assert await at.found(*PERSONAL) == []
        assert await world.rows(tables.Favorite) == []
        seen = await world.request(node, customer_id, served.request.id)
        assert seen.assigned_mechanic is not None
        assert (seen.assigned_mechanic.id, seen.assigned_mechanic.name) == (mechanic_id, "Former mechanic")
        assert events(await world.request(node, customer_id, declined.request.id))[-2:] == ["declined", "broadcast"]
        # Nobody can ask for them any more, and they are asked for nothing.
        late = await Favorites(node.database, node.clock, node.presence).add(customer_id, mechanic_id)
        assert isinstance(late, Refused)
        assert isinstance(await accept(node, mechanic_id, declined.request), Refused)
        assert not isinstance(
            await accept(node, other_id, await world.request(node, customer_id, declined.request.id)), Refused
        )


async def test_an_offer_that_is_open_to_an_erased_mechanic_goes_to_everybody(database_url: str, redis_url: str):
    async with place(database_url, redis_url, role=Role.MECHANIC) as at:
        world, node = at.world, at.node
        customer_id = await world.customer()
        started = await node.checkouts.start(customer_id, body("free_diagnostic", at.person.id))
        assert isinstance(started, FreeCheckout)
        assert await at.erase() is None
        [departing] = await departures(node)._departing(10)
        await departures(node)._let_go(departing)
        seen = await world.request(node, customer_id, started.request.id)
        assert (seen.status, seen.fallback_reason) == ("broadcasting", "declined")
        assert (await at.account()).departing_since_ms is None


async def test_a_mechanic_who_has_accepted_is_waited_for_and_not_erased(database_url: str, redis_url: str):
    async with place(database_url, redis_url, role=Role.MECHANIC) as at:
        world, node = at.world, at.node
        customer_id = await world.customer()
        started = await node.checkouts.start(customer_id, body("free_diagnostic", at.person.id))
        assert isinstance(started, FreeCheckout)
        await accept(node, at.person.id, started.request)
        for go_on in (node.dispatch.start, node.dispatch.complete):
            refused = await at.erase()
            assert isinstance(refused, Refused)
            assert refused.code == "request_open"
            assert not (await world.row(tables.Mechanic, at.person.id)).is_disabled
            await go_on(at.person.id, started.request.id)
        assert await at.erase() is None


async def test_of_an_accept_and_an_erasure_at_once_one_sees_the_other(database_url: str, redis_url: str):
    """Accept: takes the mechanic. Erasure: nobody waits for them; commits. Accept: here is a session with nobody."""
    async with place(database_url, redis_url) as at:
        world, node, accounts = at.world, at.node, Accounts(at.world.database)
        for number in range(4):
            mechanic = await accounts.add(NewAccount(Role.MECHANIC, f"m{number}@example.com", "Morgan"), now_ms=1)
            assert isinstance(mechanic, tables.Account)
            request = await free_request(at, favorite=mechanic.id)
            erasure = Erasure(database=Database(world.database_url), clock=node.clock)
            taken, refused = await side_by_side(
                lambda mechanic=mechanic, request=request: accept(node, mechanic.id, request),
                lambda erasure=erasure, mechanic=mechanic: erasure.erase(mechanic),
            )
            await erasure._database.close()
            assert isinstance(taken, Refused) is (refused is None), (taken, refused)


# --- through the doors ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with rest_house(tmp_path_factory.mktemp("erased")) as one:
        yield one


async def test_whoever_erases_their_account_is_signed_out_and_no_file_of_ours_knows_them(house: House):
    async with house.as_nobody() as rest:
        who = {"email": EMAIL, "password": PASSWORD, "name": NAME}
        account_id = (await rest.ok("POST", "/api/auth/register", status=201, json=who))["account"]["id"]
        checkout_body = {"plan": "quick_chat", "routing_type": "broadcast", "note": NOTE}
        checkout = await rest.ok("POST", "/api/checkout", status=201, json=checkout_body)
        await pay(checkout["url"])
        state = await rest.ok("GET", f"/api/checkout/{checkout['checkout_id']}")
        open_checkout = await rest.ok("POST", "/api/checkout", status=201, json=checkout_body)
        erase = {"json": {"current_password": PASSWORD}}
        assert await rest.problem("DELETE", "/api/me", **erase) == (409, "request_open")
        await rest.ok("POST", f"/api/requests/{state['request_id']}/cancel")
        wrong = {"current_password": "wrong"}
        assert await rest.problem("DELETE", "/api/me", json=wrong) == (401, "bad_credentials")
        async with socket(house.base_url, "customer", account_id) as page:
            answer = await rest.request("DELETE", "/api/me", **erase)
            assert (answer.status_code, answer.content) == (204, b"")
            assert "Max-Age=0" in answer.headers["set-cookie"]
            assert await page.closed() == 4401
        async with house.as_(account_id, "customer") as token:
            assert await token.problem("GET", "/api/me") == (401, "unauthenticated")
        credentials = {"email": EMAIL, "password": PASSWORD}
        assert await rest.problem("POST", "/api/auth/login", json=credentials) == (401, "bad_credentials")
        # The stand-in for Stripe remembers nobody, either; Redis and the log never knew.
        known = {
            (path.name, word)
            for path in house.settings.data_dir.rglob("*")
            if path.is_file()
            for word in (NAME, EMAIL, NOTE)
            if word.encode() in path.read_bytes()
        }
        assert known == set()
        assert open_checkout["checkout_id"].encode() in bytes_of(house.settings.resolved_database_url)
        await rest.ok("POST", "/api/auth/register", status=201, json=who)


async def test_an_operator_does_not_erase_themselves_here_and_nobody_else_does(house: House):
    body = {"current_password": PASSWORD}
    async with house.as_admin() as admin, house.as_nobody() as nobody:
        assert await admin.problem("DELETE", "/api/me", json=body) == (403, "wrong_role")
        assert await nobody.problem("DELETE", "/api/me", json=body) == (401, "unauthenticated")


async def test_operators_change_erase_and_sign_out_accounts_by_command(house: House):
    """Beside a running server, which hears of it."""
    account_id = await house.add("mechanic", "mona", PASSWORD)
    email = "mona@example.com"
    directory = house.settings.data_dir

    async def status_of(rest: Rest) -> int:
        return (await rest.get("/api/me")).status_code

    async def is_out(rest: Rest) -> bool:
        return await status_of(rest) == 401

    async with house.as_(account_id, "mechanic") as app:
        assert await status_of(app) == 200
        refused = run(directory, "account", "password", "--email", email, stdin=f"{email}\n")
        assert (refused.returncode, len(refused.stderr.strip().splitlines())) == (2, 1), refused
        done = run(directory, "account", "password", "--email", email, stdin="another correct horse\nand more\n")
        assert done.returncode == 0, done.stderr
        await eventually(lambda: is_out(app), "it is signed out")
    async with house.as_nobody() as rest:
        login = {"email": email, "password": "another correct horse"}
        await rest.ok("POST", "/api/auth/login", json=login)
        done = run(directory, "account", "erase", "--email", "Mona@Example.com")
        assert done.returncode == 0, done.stderr
        await eventually(lambda: is_out(rest), "it is signed out")
        assert await rest.problem("POST", "/api/auth/login", json=login) == (401, "bad_credentials")
    assert b"Mona" not in bytes_of(house.settings.resolved_database_url)
    unknown = run(directory, "account", "erase", "--email", email)
    assert (unknown.returncode, email in unknown.stderr) == (2, True), unknown
    enabled = run(directory, "account", "enable", "--email", f"erased:{account_id}")
    assert enabled.returncode == 2, enabled
