#!/usr/bin/env python3
"""Pitlane's one command, and the life of its process: the only file that knows all the parts.

    python3 run.py demo | test [pytest arguments] | serve | migrate | reconcile | bench [NAME]
                 | account add | import | disable | enable | signout | password | erase …
                 | plan list | plan set ID … | backup FILE | restore FILE

Needs nothing but Python: ``bootstrap`` makes the environment and comes back here inside it. This file must stay readable
for older Pythons, which are told so by ``bootstrap``; hence no ``match`` and no ``except*``.
"""

import gc
import sys

import bootstrap

if __name__ == "__main__":
    bootstrap.enter(groups=("test",) if sys.argv[1:2] == ["test"] else ())
    # Nothing that is imported is garbage, and looking through it would take a seventh of the time until we serve.
    gc.disable()

import argparse
import contextlib
import csv
import getpass
import json
import os
import signal
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, NoReturn, TypeVarTuple, Unpack

import anyio
import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount

from accounts.accounts import Accounts, NewAccount, NewAccountRefused
from accounts.revocations import Revocations, sign_out
from accounts.sign_ins import SignIns
from dispatch import deliveries
from dispatch.assembly import DispatchParts, MoneyParts
from dispatch.erasure import Erasure, Person
from dispatch.favorites import Favorites
from dispatch.money.plans import PlanChange, Plans
from dispatch.money.stripe_api import StripeApi
from dispatch.money.unfinished_refunds import unfinished
from dispatch.outbox import Outbox
from embedded.redis_child import RedisChild
from embedded.redis_servers import choose_server, find_servers
from embedded.stripe_standin.standin import StripeStandin
from embedded.workers import Workers
from http_api.app import create_app
from http_api.auth import Tickets, Tokens
from http_api.known_browsers import KnownBrowsers
from http_api.machine_numbers import MachineNumbers
from http_api.rest.rate_limit import RateLimit
from http_api.rest.routes.passwords import ForgottenPasswords
from http_api.rest.signing_in import SigningIn
from http_api.services import Services
from http_api.sockets.handshake import Handshakes
from http_api.sockets.hub import Hub
from http_api.sockets.places import RedisPlaces
from http_api.sockets.protocol import uvicorn_options
from infra import backups, logs, migrations, open_files
from infra.bus import Bus
from infra.clock import Clock, RedisClock, WallClock, wall_clock_ms
from infra.database import Database
from infra.loops import Loop, keep_running
from infra.mail import Mailer
from infra.private_files import in_use, keep_private, make_private
from infra.redis_link import RedisLink
from models.errors import ConfigurationError, PitlaneError, RedisUnavailable, StripeUnavailable
from models.ids import new_id
from models.outcomes import Refused
from models.settings import DoorSettings, Settings
from models.tables import Plan
from models.timestamps import rfc3339
from presence.service import Presence

if TYPE_CHECKING:
    from demo import Demo

gc.enable()

DRAIN_S = 8.0
"""Of the ten seconds that the contract gives a SIGTERM; the rest is for what is stopped after the server."""
OUTBOX_DRAIN_S = 1.0
LAST_RESORT_S = 9.5
"""After the signal; the contract gives a drain ten seconds."""
COLLECT_AFTER = (20_000, 20, 50)
"""New objects until the youngest are looked through for garbage, and how often that happens until the older ones are."""
BACKLOG = 4096
TEST_PROCESSES_MAX = 4
ACCOUNT_ACTIONS = ("disable", "enable", "signout", "password", "erase")
DEMO_DEFAULTS = {"priority_window_s": 30.0, "broadcast_window_s": 90.0, "start_window_s": 40.0}
"""Short, so that a visitor sees the fallback and a no-show happen; the demo says so."""

Arguments = TypeVarTuple("Arguments")

log = structlog.get_logger("pitlane")


# --- the life of a serving process ------------------------------------------------------------------------------------


def serve(settings: Settings, is_demo: bool = False) -> None:
    """Serve until SIGTERM or SIGINT: Redis first, then one node here, or several worker processes."""
    settings.check_exposure(is_demo=is_demo)
    settings.signing_keys()
    if settings.env == "production" and settings.smtp_url is None:
        log.warning("mail_is_not_sent", why="PITLANE_SMTP_URL is not set: nobody who forgets a password gets a new one")
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listen(settings))
        redis_child: RedisChild | None = None
        redis_url = settings.redis_url
        if redis_url is None:
            ensure_redis()
            # Before the event loop and in the main thread: the child is to end with this very thread's process.
            redis_child = stack.enter_context(RedisChild.start(settings.data_dir))
            redis_url = redis_child.url
        if settings.workers > 1:
            run_loop(supervise, settings, redis_child, redis_url, listener, is_demo)
        else:
            run_loop(node, settings, redis_child, redis_url, listener, is_demo)


async def node(
    settings: Settings,
    redis_child: RedisChild | None,
    redis_url: str,
    listener: socket.socket,
    is_demo: bool = False,
    number: int = 0,
    numbers: MachineNumbers | None = None,
    up_fd: int | None = None,
) -> None:
    """One server process: what is inside starts first, everything stops in reverse, a crash of any part ends all.

    Of several, ``number`` 0 speaks to the terminal and moves the demo's mechanics, ``numbers`` are those of all, and a byte
    goes into ``up_fd`` once this one serves.
    """
    files = open_files.raise_to_hard()
    numbers = numbers or MachineNumbers()
    async with contextlib.AsyncExitStack() as stack:
        database = Database(settings.resolved_database_url)
        stack.push_async_callback(database.close)
        await bring_up_to_date(database)
        log.info("open_files", soft=files.soft, hard=files.hard, connections_max=files.connections_max)

        node_id = new_id()
        link = RedisLink(redis_url, prefix=settings.redis_prefix)
        stack.push_async_callback(link.close)
        clock = await clock_of(link)
        bus = Bus(link, node_id)

        presence = Presence(link, bus, clock, database, settings.presence(), node_id)
        parts = DispatchParts(
            database=database,
            link=link,
            bus=bus,
            clock=clock,
            presence=presence,
            settings=settings.dispatch(),
            secret_key=settings.signing_keys()[-1],
            contact=settings.resolved_base_url,
        )
        money = await stack.enter_async_context(money_parts(settings, database, clock, parts.outbox))

        doors = settings.doors(is_demo=is_demo)
        revocations = Revocations(database, clock, bus, link, token_lifetime_s=doors.token_lifetime_s)
        # Before anybody's token is looked at.
        await revocations.refresh()
        # Somebody may have been disabled by the command line, which can wake nobody.
        revocations.on_change(lambda _: parts.departures.wake())
        tokens = Tokens(doors.secret_keys, doors.token_lifetime_s, is_revoked=revocations.covers)
        tickets = Tickets(link, doors.ticket_lifetime_s)
        accounts, sign_ins, mailer = Accounts(database), SignIns(database), Mailer(settings.mail())
        signing_in = SigningIn(tokens, sign_ins, KnownBrowsers(doors.secret_keys), clock, doors)
        links_of_account = RateLimit(link, "password_links_of_account", allowed=5, window_s=1500)
        forgotten = ForgottenPasswords(accounts, mailer, signing_in, links_of_account)
        standin = standin_of(settings, database)
        elsewhere = [] if standin is None else [partial(forgotten_at, standin)]
        erasure = Erasure(database=database, clock=clock, elsewhere=elsewhere)
        services = Services(
            settings=doors,
            database=database,
            link=link,
            clock=clock,
            accounts=accounts,
            revocations=revocations,
            sign_ins=sign_ins,
            signing_in=signing_in,
            forgotten=forgotten,
            presence=presence,
            dispatch=parts.dispatch,
            departures=parts.departures,
            reader=parts.reader,
            hours=parts.hours,
            past_offers=parts.past_offers,
            ops=parts.ops,
            checkouts=money.checkouts,
            payments=money.payments,
            refunds=money.refunds,
            favorites=Favorites(database, clock, presence),
            plans=Plans(database),
            preferences=parts.preferences,
            subscriptions=parts.subscriptions,
            vapid=parts.vapid,
            erasure=erasure,
            tokens=tokens,
            tickets=tickets,
            numbers=numbers,
        )
        loops: dict[str, Loop] = {
            "clock": clock.run,
            "bus": bus.run,
            "revocations": revocations.run,
            "mail": mailer.run,
            "forgotten_passwords": forgotten.run,
            "erasure": erasure.run,
            "presence": presence.run,
            "numbers": numbers.run,
            **parts.loops,
            **money.loops,
        }
        mounts: list[BaseRoute] = []
        if standin is not None:
            await standin.prepare()
            mounts.append(Mount("/stripe-standin", app=standin.app))
            loops["stripe_standin"] = standin.run
        stage: Demo | None = None
        if is_demo:
            import demo

            stage = await demo.Demo.prepare(database, link, clock, tokens, doors, settings.dispatch())
            mounts += stage.routes
            if number == 0:
                loops["demo"] = stage.run

        hub = Hub(
            settings=doors,
            clock=clock,
            bus=bus,
            channel=deliveries.channel(link),
            presence=presence,
            dispatch=parts.dispatch,
            reader=parts.reader,
            handshakes=Handshakes(clock, tokens, tickets, doors),
            revocations=revocations,
            pages=parts.pages,
            places=RedisPlaces(link, node_id, doors.sockets_per_account_max),
            resend_interval_ms=settings.dispatch().resend_interval_ms,
        )
        server = Server(create_app(services, hub, mounts=mounts), hub, doors)
        async with anyio.create_task_group() as tasks:
            if redis_child is not None:
                # Without it nothing works, so its end is the node's.
                tasks.start_soon(redis_child.run)
            for name, loop in loops.items():
                tasks.start_soon(keep_running, name, loop)
            await tasks.start(hub.run)
            tasks.start_soon(stop_on_signal, server)
            look_less_for_garbage()
            if number == 0:
                tasks.start_soon(announce, settings, server, stage)
            if up_fd is not None:
                tasks.start_soon(tell_supervisor, server, up_fd)
            await server.serve(sockets=[listener])
            with anyio.move_on_after(OUTBOX_DRAIN_S):
                await parts.outbox.drained()
                await mailer.drained()
            tasks.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def money_parts(
    settings: Settings, database: Database, clock: Clock, outbox: Outbox
) -> AsyncIterator[MoneyParts]:
    """Put together what deals with Stripe, for as long as the block lasts."""
    stripe_api = StripeApi(settings.stripe())
    try:
        yield MoneyParts(
            database=database,
            clock=clock,
            outbox=outbox,
            stripe_api=stripe_api,
            stripe=settings.stripe(),
            settings=settings.dispatch(),
            base_url=settings.resolved_base_url,
        )
    finally:
        await stripe_api.close()


def standin_of(settings: Settings, database: Database) -> StripeStandin | None:
    """Return the stand-in for Stripe, where no key is set."""
    stripe = settings.stripe()
    if not stripe.is_standin:
        return None
    return StripeStandin(
        database.writer,
        api_key=stripe.secret_key,
        webhook_secret=stripe.webhook_secrets[0],
        webhook_url=settings.loopback_url + "/api/stripe/webhook",
        public_url=settings.resolved_base_url + "/stripe-standin",
    )


async def forgotten_at(standin: StripeStandin, person: Person) -> None:
    """Have the stand-in for Stripe forget somebody."""
    await standin.forget(person.email)


async def clock_of(link: RedisLink) -> RedisClock:
    """Return a clock that has read Redis' own."""
    clock = RedisClock(link)
    try:
        await clock.sync()
    except RedisUnavailable as error:
        raise RedisUnavailable(f"Redis does not answer; is PITLANE_REDIS_URL right? {error}") from error
    return clock


def look_less_for_garbage() -> None:
    """Leave what is loaded by now to itself: it lives as long as the process, and every look through it stops all sockets."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


class Server(uvicorn.Server):
    """Uvicorn with a drain of our own, and the signals left to ``stop_on_signal``: its own would end the rest too early."""

    def __init__(self, app: Starlette, hub: Hub, doors: DoorSettings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                # Whose forwarded addresses are believed is decided in one place: http_api.caller.
                proxy_headers=False,
                timeout_graceful_shutdown=int(DRAIN_S),
                **uvicorn_options(doors),
            )
        )
        self.is_up = anyio.Event()
        self._hub = hub

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        log.info("draining")
        # First of all, and not only in uvicorn's turn: whoever comes now is refused at once, and tries the next node.
        for server in self.servers:
            server.close()
        for listener in sockets or ():
            listener.close()
        await self._hub.drain()
        await super().shutdown(sockets)


async def stop_on_signal(server: Server) -> None:
    """Turn SIGTERM and SIGINT into a drain; the second of them into an end without waiting.

    A drain that does not come to its end, because the database hangs, say, is cut off: everything here survives being killed.
    """
    last_resort = threading.Timer(LAST_RESORT_S, os._exit, [1])
    last_resort.daemon = True
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            if server.should_exit:
                server.force_exit = True
            elif not last_resort.is_alive():
                last_resort.start()
            server.should_exit = True


async def announce(settings: Settings, server: Server, stage: "Demo | None") -> None:
    """Say, once it is true, that we are serving."""
    await server.is_up.wait()
    if stage is not None:
        print(stage.banner(stripe_is_standin=settings.stripe().is_standin), flush=True)
    else:
        print(f"Pitlane is serving at {settings.resolved_base_url}", flush=True)


async def tell_supervisor(server: Server, up_fd: int) -> None:
    """Write a byte into ``up_fd`` once this process serves."""
    await server.is_up.wait()
    os.write(up_fd, b"+")
    os.close(up_fd)


async def bring_up_to_date(database: Database) -> None:
    """Migrate the embedded database; of a PostgreSQL that is behind, only say so: its operator decides when."""
    if database.is_sqlite:
        await migrations.upgrade(database)
    elif not await migrations.is_current(database):
        raise ConfigurationError("The database's schema is not current; run: python3 run.py migrate")


def listen(settings: Settings) -> socket.socket:
    """Bind the address; everything after this may take its time, early clients wait in the backlog."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"Cannot listen on PITLANE_HOST {settings.host} PITLANE_PORT {settings.port}: {error.strerror}."
        ) from error
    listener.set_inheritable(True)
    return listener


async def supervise(
    settings: Settings, redis_child: RedisChild | None, redis_url: str, listener: socket.socket, is_demo: bool
) -> None:
    """Keep ``PITLANE_WORKERS`` server processes on one listening socket until a signal comes."""
    database = Database(settings.resolved_database_url)
    await bring_up_to_date(database)
    await database.close()
    with tempfile.TemporaryDirectory(prefix="pitlane-workers-") as numbers_dir:
        command = [
            sys.executable,
            *sys.argv[:1],
            "worker",
            *(["--demo"] if is_demo else []),
            "--numbers-dir",
            numbers_dir,
        ]
        workers = Workers(command, settings.workers, {"PITLANE_REDIS_URL": redis_url}, listener, Random())
        async with anyio.create_task_group() as tasks:
            if redis_child is not None:
                # Without it nothing works, so its end is the machine's; it is started again before it comes to that.
                tasks.start_soon(redis_child.run)
            await workers.run()
            tasks.cancel_scope.cancel()


def run_loop(
    function: Callable[[Unpack[Arguments]], Awaitable[None]],
    *arguments: Unpack[Arguments],  # noqa: UP044  (the shorter form is no Python to an older one)
) -> None:
    """Run an async function on the fast event loop where there is one."""
    anyio.run(function, *arguments, backend_options={"use_uvloop": sys.platform != "win32"})


# --- commands ---------------------------------------------------------------------------------------------------------


def main(arguments: list[str]) -> int:
    """Return the exit code: 0 done, 1 broken, 2 wrong usage or settings (one sentence on standard error)."""
    parser = Parser(prog="run.py", description="Pitlane: real-time presence and dispatch.")
    commands = parser.add_subparsers(dest="command", parser_class=Parser)
    commands.add_parser("serve", help="the server alone, settings from the environment (the default)")
    commands.add_parser("demo", help="the server with demo accounts and simulated mechanics")
    commands.add_parser("migrate", help="bring the database to the current schema")
    commands.add_parser("reconcile", help="finish payments and refunds that were left behind, and print each")
    test = commands.add_parser("test", help="the whole test suite; takes pytest's arguments", add_help=False)
    test.add_argument("pytest_arguments", nargs=argparse.REMAINDER)
    commands.add_parser("bench", help="the benchmarks; run.py bench --help lists them", add_help=False)
    worker = commands.add_parser("worker")
    worker.add_argument("listener_fd", type=int)
    worker.add_argument("--demo", action="store_true")
    worker.add_argument("--number", type=int, required=True)
    worker.add_argument("--up-fd", type=int, required=True)
    worker.add_argument("--numbers-dir", type=Path, required=True)
    account = commands.add_parser("account", help="add or import accounts").add_subparsers(
        dest="account_command", required=True, parser_class=Parser
    )
    add = account.add_parser("add")
    add.add_argument("--role", required=True, choices=["mechanic", "customer", "admin"])
    add.add_argument("--email", required=True)
    add.add_argument("--name", required=True)
    add.add_argument("--password", required=True)
    add.add_argument("--provider-type", choices=["independent", "workshop"])
    account.add_parser("import").add_argument("file", type=Path)
    for name in ACCOUNT_ACTIONS:
        account.add_parser(name).add_argument("--email", required=True)
    plan = commands.add_parser("plan", help="list plans, change or add one").add_subparsers(
        dest="plan_command", required=True, parser_class=Parser
    )
    plan.add_parser("list")
    change = plan.add_parser("set")
    change.add_argument("id")
    change.add_argument("--name")
    change.add_argument("--price-cents", type=int)
    change.add_argument("--currency")
    change.add_argument("--duration-min", type=int)
    change.add_argument("--session-type")
    change.add_argument("--first-time-only", choices=["yes", "no"])
    change.add_argument("--position", type=int)
    for name, what in (
        ("backup", "the embedded database as one file, while it is in use"),
        ("restore", "put a backup in the database's place"),
    ):
        command = commands.add_parser(name, help=what)
        command.add_argument("file", type=Path)
        command.add_argument("--force", action="store_true", help="overwrite what is newer")

    if arguments[:1] == ["test"]:
        # Everything after it is pytest's, options included; argparse would want to understand them.
        return run_tests(arguments[1:])
    if arguments[:1] == ["bench"]:
        # Imported here: nothing else needs them, and they need the tests' servers.
        from benchmarks.command import main as bench

        return bench(arguments[1:])
    options = parser.parse_args(arguments)
    keep_private()
    try:
        is_demo = options.command == "demo" or (options.command == "worker" and options.demo)
        settings = Settings.load(**(DEMO_DEFAULTS if is_demo else {}))
        logs.configure(settings, is_quiet=is_demo)
        if is_demo and settings.env == "production":
            raise ConfigurationError(
                "PITLANE_ENV is production, and the demo signs in anybody who opens its links; run: python3 run.py serve"
            )
        if is_demo:
            import demo

            settings = demo.furnished(settings)
        if options.command not in ("migrate", "reconcile") or settings.embedded_database is not None:
            make_private(settings.data_dir, settings.embedded_database)
        if options.command == "restore":
            # Which has the database to itself.
            restore_backup(settings, options.file, is_forced=options.force)
            return 0
        with in_use(settings.embedded_database):
            carry_out(options, settings, is_demo)
    except PitlaneError as error:
        return complain(error)
    except ExceptionGroup as group:
        # One part of a serving process has ended all of it; what it says is for an operator, unless it is a bug.
        reason = the_only(group)
        if reason is None:
            raise
        return complain(reason)
    except KeyboardInterrupt:
        return 130
    return 0


def the_only(group: "BaseExceptionGroup[BaseException]") -> PitlaneError | None:
    """Return what the group was raised for, if that is one thing and no bug."""
    inner = group.exceptions[0]
    if len(group.exceptions) > 1:
        return None
    if isinstance(inner, BaseExceptionGroup):
        return the_only(inner)
    return inner if isinstance(inner, PitlaneError) else None


def carry_out(options: argparse.Namespace, settings: Settings, is_demo: bool) -> None:
    """Do what the command line asks for, with settings that have been checked."""
    if options.command == "migrate":
        run_loop(migrate, settings)
    elif options.command == "reconcile":
        run_loop(reconcile, settings)
    elif options.command == "account" and options.account_command in ACCOUNT_ACTIONS:
        run_loop(change_account, settings, options.account_command, options.email)
    elif options.command == "account":
        run_loop(add_accounts, settings, accounts_from(options), options.account_command == "import")
    elif options.command == "plan":
        run_loop(list_plans if options.plan_command == "list" else set_plan, settings, options)
    elif options.command == "backup":
        make_backup(settings, options.file, is_forced=options.force)
    elif options.command == "worker":
        listener = socket.socket(fileno=options.listener_fd)
        assert settings.redis_url is not None, "whoever starts a worker says where Redis is"
        numbers = MachineNumbers(options.numbers_dir, options.number)
        run_loop(node, settings, None, settings.redis_url, listener, is_demo, options.number, numbers, options.up_fd)
    else:
        serve(settings, is_demo)


def complain(error: PitlaneError) -> int:
    """Print one sentence, and return the exit code."""
    print(f"run.py: {error}", file=sys.stderr)
    return 2 if isinstance(error, ConfigurationError) else 1


class CannotBeDone(PitlaneError):
    """What an operator wants is not possible as things stand."""


class Parser(argparse.ArgumentParser):
    """Says what to change in one sentence, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"run.py: {message}; see run.py --help.\n")


def ensure_redis() -> None:
    """Install the distribution's Redis server where there is none to embed and the machine allows it."""
    if choose_server(find_servers()) is None:
        bootstrap.install_redis()


def run_tests(pytest_arguments: list[str]) -> NoReturn:
    """Install what the suite needs and the machine allows, then become pytest."""
    ensure_redis()
    bootstrap.ensure_browser()
    bootstrap.ensure_postgres()
    bootstrap.ensure_nginx()
    os.chdir(str(Path(__file__).resolve().parent))
    if not pytest_arguments:
        # One more than there are cores: much of what is tested is a deadline that has to come.
        processes = min((os.cpu_count() or 1) + 1, TEST_PROCESSES_MAX)
        pytest_arguments = ["-n", str(processes), "--dist", "worksteal"]
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *pytest_arguments])


async def migrate(settings: Settings) -> None:
    """Bring the database to the current schema, and say whether there was anything to do."""
    database = Database(settings.resolved_database_url)
    changed = await migrations.upgrade(database)
    await database.close()
    print(
        "The database is now at the current schema." if changed else "The database was at the current schema already."
    )


async def reconcile(settings: Settings) -> None:
    """Finish what was paid and not served, or owed and not refunded, and print each as a JSON line.

    Then what is left: money that is to go back and has not arrived. The last line counts what was finished.
    """
    async with contextlib.AsyncExitStack() as stack:
        database = Database(settings.resolved_database_url)
        stack.push_async_callback(database.close)
        await bring_up_to_date(database)
        clock: Clock = WallClock()
        if settings.redis_url is not None:
            # An embedded one would be a child on this very machine, with the same clock.
            link = RedisLink(settings.redis_url, prefix=settings.redis_prefix)
            stack.push_async_callback(link.close)
            clock = await clock_of(link)
        # What it leaves to tell is told by a running node, or by the next one to start.
        outbox = Outbox(database, clock, settings.dispatch())
        money = await stack.enter_async_context(money_parts(settings, database, clock, outbox))
        count = 0
        try:
            async for repair in money.reconciler.repairs():
                print(json.dumps({"found": repair.found, "id": repair.id, "became": repair.became}), flush=True)
                count += 1
        except StripeUnavailable as error:
            if not settings.stripe().is_standin:
                raise
            raise StripeUnavailable(
                "There is no Stripe key, and the stand-in for Stripe lives in the server, which does not answer at "
                f"{settings.loopback_url}; start it first: python3 run.py serve"
            ) from error
        async for refund in unfinished(database):
            left = {"owed": refund.id, "left_cents": max(0, refund.left_cents), "currency": refund.currency}
            print(json.dumps(left | {"state": refund.state, "last_error": refund.last_error}))
        print(json.dumps({"repaired": count}))


async def list_plans(settings: Settings, _options: argparse.Namespace) -> None:
    """Print each plan as a JSON line, in their order."""
    async with plans_of(settings) as plans:
        for plan in await plans.all():
            print(line_of(plan))


async def set_plan(settings: Settings, options: argparse.Namespace) -> None:
    """Change a plan, or add one, and print it as a JSON line; a running server sells it from the next look on."""
    first_time_only = None if options.first_time_only is None else options.first_time_only == "yes"
    members = ("name", "price_cents", "currency", "duration_min", "session_type", "position")
    change = PlanChange(**{name: getattr(options, name) for name in members}, first_time_only=first_time_only)
    async with plans_of(settings) as plans:
        plan = await plans.change(options.id, change)
    if isinstance(plan, Refused):
        raise ConfigurationError(plan.detail)
    print(line_of(plan))


def line_of(plan: Plan) -> str:
    """Return a plan as a JSON line, its members in the order of the table's."""
    return json.dumps({name: getattr(plan, name) for name in Plan.model_fields})


@contextlib.asynccontextmanager
async def plans_of(settings: Settings) -> AsyncIterator[Plans]:
    """Open the plans for the length of the block."""
    database = Database(settings.resolved_database_url)
    try:
        await bring_up_to_date(database)
        yield Plans(database)
    finally:
        await database.close()


def make_backup(settings: Settings, target: Path, *, is_forced: bool) -> None:
    """Copy the embedded database into one file, and say so in a JSON line."""
    made_at_ms = wall_clock_ms()
    backups.back_up(installation(settings), target, now_ms=made_at_ms, is_forced=is_forced)
    print(json.dumps({"backup": str(target), "made_at": rfc3339(made_at_ms), "bytes": target.stat().st_size}))


def restore_backup(settings: Settings, source: Path, *, is_forced: bool) -> None:
    """Put a backup in the embedded database's place, and say in a JSON line from when it is."""
    of = installation(settings)
    restored = backups.restore(source, of, newest_schema=migrations.newest(), is_forced=is_forced)
    print(json.dumps({"restored": str(of.database), "made_at": rfc3339(restored.made_at_ms)}))


def installation(settings: Settings) -> backups.Installation:
    """Return what a backup is of."""
    if settings.embedded_database is None:
        raise ConfigurationError(
            "The database is PostgreSQL, which has tools of its own for this: pg_dump and pg_restore; see docs/operations.md."
        )
    return backups.Installation(settings.embedded_database, settings.kept_key)


def accounts_from(options: argparse.Namespace) -> list[NewAccount]:
    """Return the accounts that the command line, or the file that it names, asks for."""
    if options.account_command == "add":
        row = {
            "role": options.role,
            "email": options.email,
            "name": options.name,
            "password": options.password,
            "provider_type": options.provider_type,
        }
        return [NewAccount.checked(row, "account add")]
    try:
        with options.file.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines)
            expected = ["role", "email", "name", "password", "provider_type"]
            if rows.fieldnames != expected:
                raise ConfigurationError("{} must begin with the line {}".format(options.file, ",".join(expected)))
            return [NewAccount.checked(row, f"{options.file} line {rows.line_num}") for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f"Cannot read {options.file}: {error}") from error


async def change_account(settings: Settings, action: str, email: str) -> None:
    """Do what an operator wants with an account. Running nodes hear of it within two seconds, and do what follows."""
    password = read_password() if action == "password" else ""
    async with contextlib.AsyncExitStack() as stack:
        database = Database(settings.resolved_database_url)
        stack.push_async_callback(database.close)
        await bring_up_to_date(database)
        # Nodes judge tokens by Redis' clock; where that is a child of theirs, it is this machine's own.
        clock: Clock = WallClock()
        if settings.redis_url is not None:
            link = RedisLink(settings.redis_url, prefix=settings.redis_prefix)
            stack.push_async_callback(link.close)
            clock = await clock_of(link)
        accounts = Accounts(database)
        account = await accounts.find_by_email(email)
        if account is None:
            raise ConfigurationError(f"There is no account with the e-mail address {email}.")
        refused: Refused | None = None
        if action in ("disable", "enable"):
            if not await accounts.set_disabled(account.id, action == "disable", now_ms=clock.now_ms()):
                raise ConfigurationError(f"The account {account.id} has been erased, and nobody can use it again.")
        elif action == "signout":
            await database.commit(sign_out(account.id, clock))
        elif action == "password":
            outcome = await accounts.change_password(account, password, clock)
            refused = outcome if isinstance(outcome, Refused) else None
        else:
            standin = standin_of(settings, database)
            if standin is not None:
                await standin.prepare()
            elsewhere = [] if standin is None else [partial(forgotten_at, standin)]
            erasure = Erasure(database=database, clock=clock, elsewhere=elsewhere)
            refused = await erasure.erase(account)
            if refused is None:
                await erasure.sweep_now()
        if refused is not None:
            # What was typed is to be typed otherwise; else it is the account that is not as it has to be.
            raise ConfigurationError(refused.detail) if refused.member else CannotBeDone(refused.detail)


def read_password() -> str:
    """Return the first line of standard input; from a terminal, without showing it."""
    if sys.stdin.isatty():
        return getpass.getpass("New password: ")
    try:
        return sys.stdin.readline().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ConfigurationError("The password on standard input must be text in UTF-8.") from error


async def add_accounts(settings: Settings, new_accounts: list[NewAccount], is_import: bool) -> None:
    """Add the accounts, all or none, and print each as a JSON line."""
    database = Database(settings.resolved_database_url)
    await bring_up_to_date(database)
    try:
        added = await Accounts(database).add_all(new_accounts, now_ms=wall_clock_ms())
    except NewAccountRefused as error:
        raise ConfigurationError(str(error)) from error
    finally:
        await database.close()
    for account in added:
        print(json.dumps({"id": account.id, "email": account.email} if is_import else {"id": account.id}))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
