"""An account's person is forgotten: what they are called, where they can be written to, and what they have written.

Bookings, their stories and money stay, of a "Former customer" or a "Former mechanic". An erased account is a disabled one that
nobody can enable: its tokens are refused, and what it still holds goes to others (``departures``).
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import anyio
import structlog
from sqlalchemy import update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from accounts.accounts import normal_email
from accounts.revocations import mark_disabled
from dispatch.notices import FavoriteToPrompt, OfferOpened, RequestChanged
from dispatch.request import OPEN, SERVING
from dispatch.stored import SQL, Named
from infra.clock import Clock
from infra.database import Database, within
from infra.statements import Nothing, Statement
from models.errors import DatabaseUnavailable
from models.outcomes import Refused
from models.tables import Account, Exclusion, OutboxMessage, SessionRequest, TimelineEntry
from models.words import Role

FORMER: Final = {Role.CUSTOMER: "Former customer", Role.MECHANIC: "Former mechanic", Role.ADMIN: "Former operator"}
ERASE_TIMEOUT_S: Final = 60.0
SWEEP_PAUSE_S: Final = 60.0
"""Between two sweeps of a database that is not embedded: each looks through whole tables."""
QUOTES: Final = {
    OfferOpened.kind: ("to",),
    RequestChanged.kind: ("seen",),
    FavoriteToPrompt.kind: ("customer_id", "mechanic_name"),
}
"""What of a notice in the outbox repeats what somebody is called, or has written. Without it, that is read when it is told."""


@dataclass(frozen=True)
class Person:
    """What has to be found wherever it stands."""

    account_id: str
    email: str
    name: str


Elsewhere = Callable[[Person], Awaitable[None]]
"""Forgets a person in a place that dispatch does not know."""

ERASE_ACCOUNT = Statement(SQL / "erase_account.sql", Named)
ERASE_NOTES = Statement(SQL / "erase_notes.sql", Nothing)
ERASE_FAVORITES = Statement(SQL / "erase_favorites.sql", Nothing)
ERASE_PUSH = Statement(SQL / "erase_push.sql", Nothing)
ERASE_PUSH_MESSAGES = Statement(SQL / "erase_push_messages.sql", Nothing)
ERASE_ERRORS = Statement(SQL / "erase_errors.sql", Nothing)
ERASE_EVENTS = Statement(SQL / "erase_events.sql", Nothing)
ERASE_RESETS = Statement(SQL / "erase_resets.sql", Nothing)
ERASE_MECHANIC = Statement(SQL / "erase_mechanic.sql", Nothing)


class Erasure:
    """Erases accounts."""

    def __init__(self, *, database: Database, clock: Clock, elsewhere: Sequence[Elsewhere] = ()) -> None:
        """``elsewhere``: what else remembers people (the stand-in for Stripe), asked after the account is erased."""
        self._database = database
        self._clock = clock
        self._elsewhere = elsewhere
        self._to_sweep = anyio.Event()
        self._log = structlog.get_logger("erasure")

    async def run(self) -> None:
        """Sweep what could not be swept at once, until cancelled."""
        while True:
            await self._to_sweep.wait()
            self._to_sweep = anyio.Event()
            await self.sweep_now()
            await anyio.sleep(SWEEP_PAUSE_S)

    async def erase(self, account: Account) -> Refused | None:
        """Forget the account's person; ``request_open`` while somebody waits for them, or they for somebody. Idempotent.

        Whoever calls tells ``Revocations``, and dispatch that the account departs; and has the database swept.
        """
        person = Person(account.id, normal_email(account.email), account.name)
        async with self._database.write(within_s=ERASE_TIMEOUT_S) as session:
            # In the order in which others lock these: an accept writes the mechanic, a payment the checkout and then the account.
            await within(session, ERASE_MECHANIC(account_id=account.id))
            await within(session, ERASE_NOTES(account_id=account.id))
            # From here on no request of theirs begins: a checkout that is paid later finds the account erased.
            erased = await within(
                session,
                ERASE_ACCOUNT(
                    id=account.id,
                    name=FORMER[account.role],
                    email=f"erased:{account.id}",
                    at_ms=self._clock.now_ms(),
                ),
            )
            if erased and await _has_open_request(session, account.id):
                await session.rollback()
                return Refused("request_open", "A request of yours is still open. Cancel it, or wait until it is over.")
            if erased:
                await self._forget(session, person)
        for forget in self._elsewhere:
            await forget(person)
        return None

    async def sweep(self) -> None:
        """Make what has been erased unreadable in the database's files: at once in an embedded one, else ``run`` sees to it."""
        if self._database.is_sqlite:
            await self.sweep_now()
        else:
            self._to_sweep.set()

    async def sweep_now(self) -> None:
        """Sweep; of what cannot be done now only the log tells, and ``run`` tries again."""
        try:
            await self._database.sweep()
        except DatabaseUnavailable as error:
            self._to_sweep.set()
            self._log.warning("not_swept_yet", error=str(error))

    async def _forget(self, session: AsyncSession, person: Person) -> None:
        # Once more the notes: a checkout may have begun before the account was locked.
        for statement in (ERASE_NOTES, ERASE_ERRORS, ERASE_FAVORITES, ERASE_PUSH, ERASE_RESETS):
            await within(session, statement(account_id=person.account_id))
        await within(
            session, ERASE_PUSH_MESSAGES(account_id=person.account_id, naming=f"%{_escaped(person.account_id)}%")
        )
        await within(session, ERASE_EVENTS(email=f"%{_escaped(person.email)}%"))
        await within(session, mark_disabled(person.account_id, True, now_ms=self._clock.now_ms()))
        for line in await _lines_written_by(session, person.account_id):
            kept = {name: value for name, value in line.details.items() if name != "reason"}
            await session.exec(update(TimelineEntry).where(col(TimelineEntry.id) == line.id).values(details=kept))
        for notice in await _notices_naming(session, person):
            kept = notice.payload | dict.fromkeys(QUOTES[notice.kind])
            await session.exec(update(OutboxMessage).where(col(OutboxMessage.id) == notice.id).values(payload=kept))


async def _has_open_request(session: AsyncSession, account_id: str) -> bool:
    """Tell whether a customer waits for a mechanic, or a mechanic is waited for. An offer that is open to them goes to others."""
    is_theirs = (col(SessionRequest.customer_id) == account_id) & col(SessionRequest.status).in_(OPEN)
    serves_it = (col(SessionRequest.assigned_mechanic_id) == account_id) & col(SessionRequest.status).in_(SERVING)
    found = await session.exec(select(SessionRequest.id).where(is_theirs | serves_it).limit(1))
    return found.first() is not None


async def _lines_written_by(session: AsyncSession, account_id: str) -> Sequence[TimelineEntry]:
    """Return the lines of stories in which the account's person gives a reason: reports, and declined offers."""
    reports = (col(SessionRequest.customer_id) == account_id) & (col(TimelineEntry.event) == "reported")
    found = await session.exec(
        select(TimelineEntry)
        .join(SessionRequest, col(SessionRequest.id) == col(TimelineEntry.request_id))
        .where(reports)
    )
    lines = list(found)
    declined = await session.exec(
        select(TimelineEntry)
        .join(Exclusion, col(Exclusion.request_id) == col(TimelineEntry.request_id))
        .where(col(Exclusion.mechanic_id) == account_id, col(TimelineEntry.event) == "declined")
    )
    return lines + [line for line in declined if line.details.get("mechanic_id", account_id) == account_id]


async def _notices_naming(session: AsyncSession, person: Person) -> Sequence[OutboxMessage]:
    """Return what is still to be told and has a person's name in it. What is being told right now is deleted right afterwards."""
    # Few, unless Redis has been away for long.
    query = select(OutboxMessage).where(col(OutboxMessage.kind).in_(QUOTES)).with_for_update(skip_locked=True)
    words = (person.name, person.account_id)
    return [
        row
        for row in await session.exec(query)
        if any(word in json.dumps(row.payload, ensure_ascii=False) for word in words)
    ]


def _escaped(text: str) -> str:
    """Return text as it stands for itself in LIKE."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
