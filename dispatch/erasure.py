"""An account's person is forgotten: what they are called, where they can be written to, and what they have written.

Bookings, their stories and money stay, of a "Former customer" or a "Former mechanic". An erased account is a disabled one that
nobody can enable: its tokens are refused, and what it still holds goes to others (``departures``).
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy import update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from accounts.accounts import normal_email
from accounts.revocations import mark_disabled
from dispatch.request import OPEN, SERVING
from dispatch.stored import SQL, Named
from infra.clock import Clock
from infra.database import Database, within
from infra.statements import Nothing, Statement
from models.errors import DatabaseUnavailable
from models.outcomes import Refused
from models.tables import Account, Exclusion, SessionRequest, TimelineEntry
from models.words import Role

FORMER: Final = {Role.CUSTOMER: "Former customer", Role.MECHANIC: "Former mechanic", Role.ADMIN: "Former operator"}
ERASE_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True)
class Person:
    """What has to be found wherever it stands."""

    account_id: str
    email: str


Elsewhere = Callable[[Person], Awaitable[None]]
"""Forgets a person in a place that dispatch does not know."""

ERASE_ACCOUNT = Statement(SQL / "erase_account.sql", Named)
ERASE_NOTES = Statement(SQL / "erase_notes.sql", Nothing)
ERASE_FAVORITES = Statement(SQL / "erase_favorites.sql", Nothing)
ERASE_PUSH = Statement(SQL / "erase_push.sql", Nothing)
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
        self._log = structlog.get_logger("erasure")

    async def erase(self, account: Account) -> Refused | None:
        """Forget the account's person; ``request_open`` while somebody waits for them, or they for somebody. Idempotent.

        Whoever calls tells ``Revocations``, and dispatch that the account departs. Also what has been overwritten or deleted is
        gone from the files of an embedded database when this returns.
        """
        now_ms = self._clock.now_ms()
        person = Person(account.id, normal_email(account.email))
        async with self._database.write(within_s=ERASE_TIMEOUT_S) as session:
            # Locked, so that no request of theirs begins meanwhile: a checkout that is paid later finds the account erased.
            erased = await within(
                session,
                ERASE_ACCOUNT(id=account.id, name=FORMER[account.role], email=f"erased:{account.id}", at_ms=now_ms),
            )
            if erased:
                if await _has_open_request(session, account.id):
                    await session.rollback()
                    return Refused(
                        "request_open", "A request of yours is still open. Cancel it, or wait until it is over."
                    )
                await self._forget(session, person, now_ms=now_ms)
        for forget in self._elsewhere:
            await forget(person)
        try:
            await self._database.compact()
        except DatabaseUnavailable as error:
            # It is erased; what it leaves in free pages goes with the next one.
            self._log.warning("not_compacted", error=str(error))
        return None

    async def _forget(self, session: AsyncSession, person: Person, *, now_ms: int) -> None:
        for statement in (ERASE_NOTES, ERASE_FAVORITES, ERASE_PUSH, ERASE_RESETS, ERASE_MECHANIC):
            await within(session, statement(account_id=person.account_id))
        await within(session, ERASE_EVENTS(email=f"%{_escaped(person.email)}%"))
        await within(session, mark_disabled(person.account_id, True, now_ms=now_ms))
        for line in await _lines_written_by(session, person.account_id):
            kept = {name: value for name, value in line.details.items() if name != "reason"}
            await session.exec(update(TimelineEntry).where(col(TimelineEntry.id) == line.id).values(details=kept))


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


def _escaped(text: str) -> str:
    """Return text as it stands for itself in LIKE."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
