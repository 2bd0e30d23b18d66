"""The demo: its cast and their past, how simulated mechanics decide, and the whole of it as a visitor starts it."""

import secrets
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random

import anyio
import httpx
import pytest
from sqlmodel import func, select

from accounts.accounts import Accounts, NewAccount
from demo import Demo, banner, cast, characters, doors, furnished
from demo.characters import Action, Whereabouts
from demo.mechanics import SimulatedMechanic, Way
from dispatch.favorites import Favorites
from dispatch.responses import ANSWERS_OF, DAYS_MS, EACH_MAX, response_of
from http_api.auth import Tokens
from http_api.sockets.mechanic import MechanicConnection
from infra.bus import Bus
from infra.clock import RedisClock
from infra.database import Database
from infra.metrics import REGISTRY
from infra.redis_link import RedisLink
from models.errors import ConfigurationError
from models.ids import new_id
from models.rest import FavoriteView
from models.settings import PresenceSettings, Settings
from models.tables import (
    Account,
    Checkout,
    Favorite,
    Mechanic,
    Offer,
    OutboxMessage,
    SessionRequest,
    TimelineEntry,
)
from models.words import OfferKind, Role
from presence.responses import OFFERS_MIN
from presence.service import Presence
from tests.acceptance.servers import ROOT, Server, environment, start_server
from tests.integration.socket_nodes import SECRET_KEY, eventually, town
from tests.integration.test_sockets_messages import offered
from tests.services import free_port

NOW_MS = 1_795_000_000_000
PATIENCE_S = 30.0
POLL_S = 0.05
TABLES = (Account, Mechanic, Favorite, Checkout, SessionRequest, Offer, TimelineEntry, OutboxMessage)
SEEDS = range(200)


# --- the cast ---------------------------------------------------------------------------------------------------------


async def counts(database: Database) -> dict[str, int]:
    async with database.read() as session:
        return {
            table.__tablename__: (await session.exec(select(func.count()).select_from(table))).one() for table in TABLES
        }


async def favorites_of(slug: str, database_url: str, redis_url: str, ids: dict[str, str]) -> list[FavoriteView]:
    database, link = Database(database_url), RedisLink(redis_url, prefix=f"test-{secrets.token_hex(6)}")
    try:
        clock = RedisClock(link)
        await clock.sync()
        node_id = new_id()
        presence = Presence(link, Bus(link, node_id), clock, database, PresenceSettings(), node_id)
        return await Favorites(database, clock, presence).of(ids[slug])
    finally:
        await link.close()
        await database.close()


async def test_the_first_customer_has_the_two_favourites_of_the_flow(database_url: str, redis_url: str) -> None:
    database = Database(database_url)
    ids = await cast.prepare(database, NOW_MS)
    await database.close()

    smith, garage = await favorites_of("john-doe", database_url, redis_url, ids)

    assert (smith.provider_name, smith.provider_type) == ("John Smith", "independent")
    assert (smith.services_count, smith.total_spent_cents) == (3, 24500)
    assert (garage.provider_name, garage.provider_type) == ("Mike's Garage", "workshop")
    assert (garage.services_count, garage.total_spent_cents) == (5, 89000)
    assert not garage.status.is_online
    assert garage.status.last_seen is not None, "so that the page can say when"


async def test_how_the_first_customers_favourites_usually_answer_is_known_for_weeks_to_come(database_url: str) -> None:
    database = Database(database_url)
    ids = await cast.prepare(database, NOW_MS)
    in_five_weeks_ms = NOW_MS + 35 * 86_400_000
    answers = await database.commit(
        ANSWERS_OF(
            mechanic_ids=[ids["john-smith"], ids["mikes-garage"]], since_ms=in_five_weeks_ms - DAYS_MS, each=EACH_MAX
        )
    )
    for slug in ("john-smith", "mikes-garage"):
        response = response_of([answer for answer in answers if answer.mechanic_id == ids[slug]])
        assert response.offers >= OFFERS_MIN
        assert 0 < response.accept_percent < 100, "somebody was busy once"
        assert response.answers_within_s is not None
        assert 10 <= response.answers_within_s <= 60
    await database.close()


async def test_a_second_start_changes_nothing_and_keeps_what_visitors_did(database_url: str) -> None:
    database = Database(database_url)
    ids = await cast.prepare(database, NOW_MS)
    async with database.write() as session:
        await session.delete(await session.get_one(Favorite, (ids["john-doe"], ids["john-smith"])))
        session.add(Favorite(customer_id=ids["noah-lindqvist"], mechanic_id=ids["rosa-delgado"], created_at_ms=NOW_MS))
        (await session.get_one(Account, ids["noah-lindqvist"])).free_session_used = True
        (await session.get_one(Mechanic, ids["mikes-garage"])).last_seen_at_ms = NOW_MS + 1
    before = await counts(database)

    assert await cast.prepare(database, NOW_MS + 86_400_000) == ids

    assert await counts(database) == before
    async with database.read() as session:
        assert await session.get(Favorite, (ids["john-doe"], ids["john-smith"])) is None
        assert (await session.get_one(Account, ids["noah-lindqvist"])).free_session_used
        assert (await session.get_one(Mechanic, ids["mikes-garage"])).last_seen_at_ms == NOW_MS + 1
    await database.close()


async def test_several_processes_may_set_the_stage_side_by_side(database_url: str) -> None:
    databases = [Database(database_url) for _ in range(3)]
    found: list[dict[str, str]] = []

    async def prepare(database: Database) -> None:
        found.append(await cast.prepare(database, NOW_MS))

    async with anyio.create_task_group() as tasks:
        for database in databases:
            tasks.start_soon(prepare, database)

    assert found[0] == found[1] == found[2]
    assert (await counts(databases[0]))["accounts"] == len(cast.MEMBERS)
    for database in databases:
        await database.close()


async def test_the_past_is_over_and_nobody_is_told_of_it(database_url: str) -> None:
    database = Database(database_url)
    await cast.prepare(database, NOW_MS)
    async with database.read() as session:
        requests = list(await session.exec(select(SessionRequest).order_by(SessionRequest.id)))
        open_offers = await session.exec(select(Offer).where(Offer.closed_at_ms == None))  # noqa: E711
        busy = await session.exec(select(Mechanic).where(Mechanic.active_request_id != None))  # noqa: E711
        assert not list(open_offers)
        assert not list(busy)
    assert {request.status for request in requests} == {"completed"}
    assert [request.created_at_ms for request in requests] == sorted(request.created_at_ms for request in requests)
    assert all(request.completed_at_ms and request.completed_at_ms < NOW_MS for request in requests)
    assert (await counts(database))["outbox"] == 0
    await database.close()


async def test_somebody_else_in_a_members_place_is_refused_with_a_sentence(database_url: str) -> None:
    database = Database(database_url)
    await Accounts(database).add(NewAccount(Role.ADMIN, "john.smith@example.com", "Another One"), now_ms=1)

    with pytest.raises(ConfigurationError, match="PITLANE_DATA_DIR"):
        await cast.prepare(database, NOW_MS)

    assert (await counts(database))["accounts"] == 1, "all or nothing"
    await database.close()


def test_a_dozen_mechanics_and_one_who_vanishes_are_simulated_and_one_is_for_a_person_to_play() -> None:
    simulated = [member for member in cast.MECHANICS if member.character is not None]
    assert [member.slug for member in simulated if member.character.vanishes] == ["vince-carrow"]
    assert len(simulated) == 12 + 1
    assert [member.slug for member in cast.MECHANICS if member.character is None] == [banner.PLAYABLE_MECHANIC]
    assert {member.provider_type for member in simulated} == {"independent", "workshop"}


# --- the characters ---------------------------------------------------------------------------------------------------


def answers(character: characters.Character, kind: OfferKind, expires_in_s: float = 90) -> list[characters.Answer]:
    return [characters.answer(character, kind, expires_in_s=expires_in_s, random=Random(seed)) for seed in SEEDS]


def test_the_favourite_accepts_a_priority_offer_after_about_four_seconds() -> None:
    for answer in answers(characters.REGULAR, OfferKind.PRIORITY, 30):
        assert answer.action is Action.ACCEPT
        assert 3.5 <= answer.after_s <= 4.5


def test_a_broadcast_is_left_to_a_person_for_eight_seconds_and_taken_soon_after() -> None:
    for answer in answers(characters.STEADY, OfferKind.BROADCAST):
        assert answer.action is Action.ACCEPT
        assert 8 <= answer.after_s <= 15


def test_at_least_three_mechanics_who_never_leave_take_broadcasts() -> None:
    always_there = [
        member
        for member in cast.MECHANICS
        if member.character is not None
        and member.character.on_broadcast.action is Action.ACCEPT
        and member.character.habit == (characters.Phase(Whereabouts.ON_DUTY),)
    ]
    assert len(always_there) >= 3


@pytest.mark.parametrize("expires_in_s", [0.0, 0.5, 2.0, 12.0])
def test_an_answer_comes_within_the_window_however_short_it_is(expires_in_s: float) -> None:
    for kind in OfferKind:
        for answer in answers(characters.STEADY, kind, expires_in_s):
            assert 0 <= answer.after_s <= expires_in_s / 2


def test_a_customer_has_the_mechanic_who_vanishes_for_a_favourite_and_the_terminal_says_whom() -> None:
    [booker] = [customer for customer in cast.CUSTOMERS if "vince-carrow" in customer.favorites]
    text = banner.text(facts())
    assert f"/demo/enter/{booker.slug}" in text
    assert "Vince Carrow, accepts and then vanishes" in text
    # Who is asked first accepts, as if they would come; they never take what others could have.
    assert {answer.action for answer in answers(characters.VANISHER, OfferKind.PRIORITY)} == {Action.ACCEPT}
    assert {answer.action for answer in answers(characters.VANISHER, OfferKind.BROADCAST)} == {Action.IGNORE}


@pytest.mark.parametrize("start_in_s", [0.0, 0.5, 4.0, 40.0])
def test_whoever_comes_starts_in_time_however_short_it_is_and_who_vanishes_stays_away_longer(start_in_s: float) -> None:
    for seed in SEEDS:
        assert 0 <= characters.pace(Random(seed), start_in_s=start_in_s).start_after_s <= start_in_s / 2
    assert characters.gone_for_s(start_in_s) > start_in_s


def test_some_decline_with_a_reason_and_some_ignore() -> None:
    assert {(answer.action, bool(answer.reason)) for answer in answers(characters.PICKY, OfferKind.PRIORITY)} == {
        (Action.DECLINE, True)
    }
    assert {answer.action for answer in answers(characters.ABSENT_MINDED, OfferKind.BROADCAST)} == {Action.IGNORE}


def test_who_comes_and_goes_is_away_for_twenty_to_sixty_seconds_at_a_time() -> None:
    for seed in SEEDS:
        times = list(islice(characters.spells(characters.COMMUTER, Random(seed)), 6))
        assert [spell.whereabouts for spell in times] == [Whereabouts.ON_DUTY, Whereabouts.AWAY] * 3
        assert all(20 <= (spell.lasts_s or 0) <= 60 for spell in times if spell.whereabouts is Whereabouts.AWAY)


def test_who_has_the_day_off_has_it_for_good() -> None:
    assert list(characters.spells(characters.DAY_OFF, Random(1))) == [characters.Spell(Whereabouts.OFF_DUTY, None)]


def test_the_same_seed_makes_the_same_day() -> None:
    days = [list(islice(characters.spells(characters.TAKES_BREAKS, Random(7)), 10)) for _ in range(2)]
    assert days[0] == days[1]


async def test_simulated_mechanics_who_come_together_do_not_beat_together(redis_url: str, tmp_path: Path) -> None:
    minute = {"heartbeat_interval_ms": 60_000, "presence_timeout_ms": 150_000}
    async with (
        town(redis_url, tmp_path) as here,
        here.node(**minute) as node,
        anyio.create_task_group() as tasks,
    ):
        for seed in range(20):
            mechanic = await here.add_mechanic()
            way = Way(f"http://127.0.0.1:{node.port}", partial(node.token, mechanic))
            tasks.start_soon(SimulatedMechanic("Somebody", characters.REGULAR, way, Random(seed)).run)
        # They have nothing else to say, and the first of them does not wait for the minute to pass.
        await eventually(lambda: node.hub.counters.frames_in, "a heartbeat")
        assert node.hub.counters.frames_in < 20
        tasks.cancel_scope.cancel()


@pytest.mark.bugs_planted
async def test_a_simulated_mechanic_who_cannot_be_played_keeps_no_other_from_coming(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hesitate(*_arguments: object, **_named: object) -> float:
        raise KeyError("no such thing")

    async with town(redis_url, tmp_path) as here, here.node() as node:
        settings = replace(
            Settings(secret_key=SECRET_KEY, _env_file=None).doors(), loopback_url=f"http://127.0.0.1:{node.port}"
        )
        tokens = Tokens([SECRET_KEY], settings.token_lifetime_s)
        dispatch = furnished(Settings(secret_key=SECRET_KEY, _env_file=None)).dispatch()
        demo = await Demo.prepare(here.database, node.link, node.clock, tokens, settings, dispatch)
        # It is asked for by whoever is offered something, and by nobody else.
        monkeypatch.setattr(characters, "answer", hesitate)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(demo.run)

            def here_now() -> list[MechanicConnection]:
                return [connection for connection in node.hub.mechanics.all() if connection.is_open]

            await eventually(lambda: len(here_now()) >= 3, "some are there")
            for connection in here_now()[:2]:
                await node.tell(offered(node, f"for-{connection.account_id}", to=connection.account_id))
            await eventually(lambda: deaths("demo_mechanic") >= 2, "two cannot go on")
            await eventually(lambda: len(here_now()) >= 3, "all are there, those two started anew")
            tasks.cancel_scope.cancel()


def deaths(loop: str) -> float:
    return REGISTRY.get_sample_value("pitlane_loops_died_total", {"loop": loop}) or 0


# --- links and what the terminal says ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "base_url", "second"),
    [
        ("127.0.0.1", None, "http://localhost:8000"),
        ("0.0.0.0", None, "http://localhost:8000"),
        ("localhost", None, "http://127.0.0.1:8000"),
        ("::1", None, "http://localhost:8000"),
        ("127.0.0.1", "https://demo.example.com", None),
        ("192.0.2.7", None, None),
    ],
)
def test_the_second_page_gets_a_host_name_of_its_own_where_there_is_one(
    host: str, base_url: str | None, second: str | None
) -> None:
    settings = Settings(_env_file=None, host=host, port=8000, base_url=base_url, secret_key="s" * 32)
    assert doors.second_base_url(settings.doors(is_demo=True)) == second


def facts(**changes: object) -> banner.Facts:
    usual = {
        "base_url": "http://127.0.0.1:8000",
        "second_base_url": "http://localhost:8000",
        "priority_window_ms": 30_000,
        "broadcast_window_ms": 90_000,
        "start_window_ms": 40_000,
        "has_own_room": True,
        "data_place": "/home/me/pitlane/var",
        "stripe_is_standin": True,
    }
    return banner.Facts(**(usual | changes))


def test_the_terminal_shows_each_link_on_a_line_of_its_own_and_says_that_windows_are_short() -> None:
    text = banner.text(facts())
    lines = [line.strip() for line in text.splitlines()]
    assert "http://127.0.0.1:8000/demo/enter/john-doe" in lines
    assert "http://localhost:8000/demo/enter/mikes-garage" in lines
    assert "30 s to answer (10 min in real life)" in text
    assert "40 s to start (5 min in real life)" in text
    assert "no real money" in text
    assert "a stand-in, where both sides see that the other has arrived" in text
    assert "private window" not in text


def test_the_terminal_says_what_is_different_about_this_run() -> None:
    public = banner.text(facts(base_url="https://demo.example.com", second_base_url=None))
    assert "https://demo.example.com/demo/enter/mikes-garage" in public
    assert "private window" in public
    real = banner.text(
        facts(
            priority_window_ms=600_000,
            broadcast_window_ms=900_000,
            start_window_ms=300_000,
            has_own_room=False,
            stripe_is_standin=False,
        )
    )
    assert "Join leads to where PITLANE_JOIN_URL says" in real
    assert "in real life" not in real
    assert "10 min" in real
    assert "no real money" not in real


# --- the whole of it --------------------------------------------------------------------------------------------------


async def until(true: Callable[[], Awaitable[bool]], server: Server, what: str) -> None:
    with anyio.move_on_after(PATIENCE_S):
        while not await true():
            assert server.process.poll() is None, server.log_path.read_text()
            await anyio.sleep(POLL_S)
        return
    pytest.fail(f"not within {PATIENCE_S:g} s: {what}; the terminal says:\n{server.log_path.read_text()}")


def git(folder: Path, *arguments: str) -> str:
    nobody = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.com"]
    return subprocess.run(["git", *nobody, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


def fresh_checkout(folder: Path) -> Path:
    """Return a clean checkout of the code as it is here, which nobody else works in, with the environment of this one."""
    for name in git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "As it is")
    (folder / ".venv").symlink_to(ROOT / ".venv", target_is_directory=True)
    with (folder / ".git" / "info" / "exclude").open("a") as exclude:
        exclude.write("/.venv\n")
    return folder


def start_demo(checkout: Path, folder: Path, **settings: str) -> Server:
    port = free_port()
    log_path = folder / "terminal"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [checkout / ".venv/bin/python", "run.py", "demo"],
            cwd=checkout,
            env=environment(checkout / "var", port, **settings),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    return Server(process, f"http://127.0.0.1:{port}", log_path)


async def test_a_visitor_starts_the_demo_books_a_favourite_and_stops_it(tmp_path: Path) -> None:
    """Paid through the stand-in, accepted over the socket, started over REST; ended in the midst of it all."""
    checkout = fresh_checkout(tmp_path / "checkout")
    server = start_demo(checkout, tmp_path, PRIORITY_WINDOW_S="5", BROADCAST_WINDOW_S="5")
    try:

        async def is_announced() -> bool:
            return "Ctrl-C" in server.log_path.read_text()

        await until(is_announced, server, "the demo says that it is there")
        said = server.log_path.read_text()
        links = [line.strip() for line in said.splitlines() if line.strip().startswith("http")]
        assert len(links) == 5
        assert "5 s to answer" in said

        async with httpx.AsyncClient(base_url=server.base_url, trust_env=False) as visitor:
            entered = await visitor.get(links[0])
            assert (entered.status_code, entered.headers["location"]) == (302, "/")
            cookie = entered.headers["set-cookie"]
            assert cookie.startswith("pitlane_session=")
            assert "HttpOnly" in cookie
            assert "SameSite=Lax" in cookie
            page = await visitor.get("/")
            assert page.status_code == 200
            assert "<html" in page.text
            assert (await visitor.get("/api/me")).json()["name"] == "John Doe"
            assert (await visitor.get("/api/config")).json()["demo"] is True

            smith, garage = (await visitor.get("/api/favorites")).json()["favorites"]

            async def smith_is_online() -> bool:
                answer = await visitor.get(f"/api/mechanics/{smith['provider_id']}/status")
                return bool(answer.json()["availability"] == "available")

            await until(smith_is_online, server, "John Smith is online")
            status = (await visitor.get(f"/api/mechanics/{garage['provider_id']}/status")).json()
            assert not status["is_online"], "waits for a person to play them"

            async def it_is_known_how_they_answer() -> bool:
                answers = [await visitor.get(f"/api/mechanics/{one['provider_id']}/status") for one in (smith, garage)]
                return all(answer.json()["response"] for answer in answers)

            await until(it_is_known_how_they_answer, server, "how both favourites usually answer")

            ours = {"Origin": server.base_url}
            wish = {"plan": "expert_video", "routing_type": "priority_broadcast"}
            wish["preferred_mechanic_id"] = smith["provider_id"]
            paying = (await visitor.post("/api/checkout", json=wish, headers=ours)).json()
            await visitor.post(paying["url"], data={"ending": "pay"}, headers=ours)

            async def smith_has_started() -> bool:
                newest = (await visitor.get("/api/requests?limit=1")).json()["requests"][0]
                return newest["status"] == "in_progress" and newest["assigned_mechanic"]["name"] == "John Smith"

            await until(smith_has_started, server, "John Smith has accepted and started")

            # The other names of the doors.
            assert (await visitor.get("/demo/enter/nobody")).json()["code"] == "not_found"
            at_work = await visitor.get("/demo/enter/mikes-garage")
            assert (at_work.status_code, at_work.headers["location"]) == (302, "/mechanic")
            assert (await visitor.get("/api/me")).json()["role"] == "mechanic"

        assert await anyio.to_thread.run_sync(server.stop) == 0
        assert server.log_path.read_text() == said, "nothing but the links, and no trace of trouble"
        assert git(checkout, "status", "--porcelain") == ""
    finally:
        if server.process.poll() is None:
            server.kill()


async def test_without_the_demo_nobody_gets_in_by_a_link(tmp_path: Path) -> None:
    server = start_server(tmp_path)
    try:
        await server.ready()
        async with httpx.AsyncClient(base_url=server.base_url, trust_env=False) as visitor:
            answer = await visitor.get("/demo/enter/john-doe")
            assert answer.status_code == 404
            assert "set-cookie" not in answer.headers
    finally:
        server.kill()


def test_a_demo_in_production_is_refused(tmp_path: Path) -> None:
    server = start_server(
        tmp_path, command=("demo",), ENV="production", STRIPE_SECRET_KEY="sk_x", STRIPE_WEBHOOK_SECRET="whsec_x"
    )
    assert server.process.wait(PATIENCE_S) == 2
    assert "PITLANE_ENV" in server.log_path.read_text()
