"""Accounts and requests to start from, made by the product's own commands and code; and the databases they are in."""

import csv
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import text, update

import bootstrap
from dispatch import request_store
from dispatch.deadlines import Deadlines
from dispatch.request import MechanicAccepted, Windows, opened
from infra.clock import RedisClock
from infra.database import Database, within
from infra.redis_link import RedisLink
from models import tables
from models.ids import new_id
from models.settings import DispatchSettings
from tests.acceptance.servers import ROOT, environment
from tests.services import ServiceMissing, free_port, fresh_database, postgres_server

IMPORT_TIMEOUT_S: Final = 300
BATCH: Final = 200
"""Requests per transaction."""
PRICE_CENTS: Final = 999
PREFIX: Final = "pitlane"
"""The default of ``PITLANE_REDIS_PREFIX``."""


@dataclass(frozen=True)
class People:
    """Accounts in a database."""

    mechanics: list[str]
    customers: list[str]


def import_people(folder: Path, *, mechanics: int, customers: int, database_url: str) -> People:
    """Add accounts without passwords by ``run.py account import``; return their ids."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "accounts.csv"
    rows = [
        ["mechanic", f"m{number}@example.com", f"Mechanic {number}", "", "independent"] for number in range(mechanics)
    ]
    rows += [["customer", f"c{number}@example.com", f"Customer {number}", "", ""] for number in range(customers)]
    with path.open("w", newline="") as lines:
        csv.writer(lines).writerows([["role", "email", "name", "password", "provider_type"], *rows])
    done = run(folder, "account", "import", str(path), database_url=database_url)
    ids = [json.loads(line)["id"] for line in done.splitlines()]
    return People(ids[:mechanics], ids[mechanics:])


def run(folder: Path, *command: str, database_url: str) -> str:
    """Run one of ``run.py``'s commands and return what it printed; raises ``RuntimeError`` with what went wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "run.py", *command],
        cwd=ROOT,
        env=environment(folder, free_port(), DATABASE_URL=database_url),
        capture_output=True,
        text=True,
        timeout=IMPORT_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"run.py {' '.join(command[:2])} failed: {done.stderr}")
    return done.stdout


# --- requests ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wanted:
    """A paid request for one favourite. ``opens_in_ms``: how much later than the first of them its offer is opened."""

    customer_id: str
    mechanic_id: str
    opens_in_ms: int = 0


async def seed_requests(
    database_url: str, wanted: Sequence[Wanted], windows: Windows, *, now_ms: int, are_accepted: bool = False
) -> dict[str, str]:
    """Make requests as a payment at ``now_ms`` would, but tell nobody; return the offer of each, in the order asked for.

    ``are_accepted``: their favourites accept them at once, each a single one; then it is the time limit of each that is returned.
    """
    database = Database(database_url)
    offers: dict[str, str] = {}
    try:
        for start in range(0, len(wanted), BATCH):
            async with database.write(within_s=IMPORT_TIMEOUT_S) as session:
                for one in wanted[start : start + BATCH]:
                    checkout = _paid_checkout(one, now_ms)
                    session.add(checkout)
                    await session.flush()
                    request, commands = opened(
                        new_id(),
                        paid_cents=PRICE_CENTS,
                        session_ms=checkout.duration_min * 60_000,
                        preferred_mechanic_id=one.mechanic_id,
                        is_priority=True,
                        offer_id=new_id(),
                        now_ms=now_ms + one.opens_in_ms,
                        windows=windows,
                    )
                    checkout.request_id = request.id
                    _, stored = await within(
                        session,
                        request_store.create(
                            request, commands, checkout_id=checkout.id, paid_cents=PRICE_CENTS, now_ms=now_ms
                        ),
                    )
                    assert request.offer is not None
                    offers[request.id] = request.offer.offer_id
                    if are_accepted:
                        event = MechanicAccepted(one.mechanic_id, request.offer.offer_id, now_ms)
                        move = request_store.decide(stored, event, now_ms=now_ms, windows=windows)
                        assert isinstance(move, request_store.Move)
                        assert move.after.limit is not None
                        await within(session, request_store.carry_out([move], now_ms=now_ms))
                        offers[request.id] = move.after.limit.id
    finally:
        await database.close()
    return offers


async def move_windows(
    database_url: str, redis_url: str, ends_at_ms: dict[str, int], *, are_limits: bool = False
) -> None:
    """Let open offers (by id) end at other instants than they were made for, in SQL and on the clock of a running server.

    ``are_limits``: they are time limits, of which nobody is reminded.
    """
    database = Database(database_url)
    link = RedisLink(redis_url, prefix=PREFIX)
    deadlines = Deadlines(link, RedisClock(link), DispatchSettings())
    try:
        async with database.write(within_s=IMPORT_TIMEOUT_S) as session:
            if are_limits:
                moved = "UPDATE session_requests SET limit_expires_at_ms = :at_ms, limit_rings_at_ms = :at_ms"
                limits = [{"id": limit_id, "at_ms": at_ms} for limit_id, at_ms in ends_at_ms.items()]
                connection = await session.connection()
                await connection.execute(text(f"{moved} WHERE limit_id = :id"), limits)
            else:
                rows = [{"id": offer_id, "expires_at_ms": at_ms} for offer_id, at_ms in ends_at_ms.items()]
                await session.run_sync(lambda sync: sync.execute(update(tables.Offer), rows))
        # What is on the clock keeps its place; so nothing is left there first.
        index = link.key("deadlines", "index")
        await link.ask(index, lambda redis: redis.delete(index))
        await deadlines.schedule(*ends_at_ms.items())
    finally:
        await link.close()
        await database.close()


def _paid_checkout(wanted: Wanted, now_ms: int) -> tables.Checkout:
    checkout_id = new_id()
    return tables.Checkout(
        id=checkout_id,
        customer_id=wanted.customer_id,
        plan_id="quick_chat",
        price_cents=PRICE_CENTS,
        currency="usd",
        duration_min=10,
        session_type="text",
        routing_type="priority_broadcast",
        preferred_mechanic_id=wanted.mechanic_id,
        status="paid",
        stripe_session_id=f"cs_{checkout_id}",
        payment_intent_id=f"pi_{checkout_id}",
        created_at_ms=now_ms,
    )


# --- databases --------------------------------------------------------------------------------------------------------


class Sqlite:
    """Files in one folder; each run copies the one with the accounts."""

    name = "SQLite"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def fresh(self, template: str | None = None) -> str:
        """Return the URL of a new database, a copy of ``template`` (a URL) if given."""
        path = self._folder / f"{new_id()}.sqlite3"
        if template is not None:
            shutil.copyfile(template.removeprefix("sqlite:///"), path)
        return f"sqlite:///{path}"

    def versions(self) -> dict[str, str]:
        """Return what to name in a report."""
        return {"SQLite": sqlite3.sqlite_version}


class Postgres:
    """A throw-away PostgreSQL server that does not wait for the disk."""

    name = "PostgreSQL"

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url

    def fresh(self, template: str | None = None) -> str:
        """Return the URL of a new database, a copy of ``template`` (a URL) if given."""
        return fresh_database(self._base_url, template)

    def versions(self) -> dict[str, str]:
        """Return what to name in a report."""
        asked = [f"{bootstrap.find_postgres()}/postgres", "--version"]
        return {"PostgreSQL": subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[2]}


Store = Sqlite | Postgres


@contextmanager
def stores(folder: Path, only: str | None = None) -> Iterator[tuple[list[Store], str]]:
    """SQLite, and PostgreSQL where it is installed; else why it is missing. ``only``: the one that is wanted, by its name."""
    sqlite = Sqlite(folder / "sqlite")
    if only == Sqlite.name:
        yield [sqlite], "PostgreSQL is skipped: --database SQLite."
        return
    try:
        with postgres_server() as base_url:
            postgres = Postgres(base_url)
            yield [postgres] if only == Postgres.name else [sqlite, postgres], ""
    except ServiceMissing as missing:
        yield [sqlite], f"PostgreSQL is skipped: {missing}."


def prepared(folder: Path, store: Store, *, mechanics: int, customers: int) -> tuple[str, People]:
    """Return the URL of a database with accounts, to be copied, and who is in it."""
    url = store.fresh()
    if isinstance(store, Postgres):
        # Whose schema is its operator's affair; the embedded one comes to it by itself.
        run(folder, "migrate", database_url=url)
    return url, import_people(folder, mechanics=mechanics, customers=customers, database_url=url)
