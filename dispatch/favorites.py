"""Whom a customer trusts, with what they have had done by them."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from sqlalchemy import ColumnElement, delete, func
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from accounts.revocations import GONE, still_here
from dispatch.money.payments import LOCK_BUYER
from dispatch.money.plans import USUAL_CURRENCY, usual
from dispatch.stored import SQL
from infra.clock import RedisClock
from infra.database import Database, within
from infra.statements import Statement
from models.outcomes import NotFound, Refused
from models.rest import FavoriteView
from models.tables import Account, Favorite, Mechanic
from models.timestamps import rfc3339_or_none
from presence.service import Presence

FAVORITES_MAX = 100
"""As many as one socket may watch."""


@dataclass(frozen=True)
class Services:
    """What a mechanic has done for a customer, as far as it was paid in one currency: a row of ``services_of``.

    ``payments`` are those of its ``count`` sessions that cost something in the end.
    """

    mechanic_id: str
    currency: str
    count: int
    payments: int
    spent_cents: int
    last_at_ms: int


SERVICES_OF = Statement(SQL / "services_of.sql", Services)


class Favorites:
    """A customer's favourite mechanics; services and money are counted from completed requests, see ``FavoriteView``."""

    def __init__(self, database: Database, clock: RedisClock, presence: Presence) -> None:
        self._database = database
        self._clock = clock
        self._presence = presence

    async def of(self, customer_id: str) -> list[FavoriteView]:
        """Return the favourites, oldest mark first."""
        return await self._views(customer_id, col(Favorite.customer_id).is_not(None))

    async def add(self, customer_id: str, mechanic_id: str) -> tuple[FavoriteView, bool] | Refused:
        """Mark a mechanic; return the favourite and whether it is new. Idempotent."""
        async with self._database.read() as session:
            mechanic = await session.get(Mechanic, mechanic_id)
            if mechanic is None or mechanic.is_disabled:
                return NotFound("mechanic_not_found", "There is no such mechanic.")
            if await session.get(Account, customer_id) is None:
                return GONE
        try:
            async with self._database.write() as session:
                # Neither of the two, not even if the mechanic is erased just now: nothing is to point at them any more. The
                # customer's row is locked, so that of two at once the second counts the first one's.
                if not await within(session, LOCK_BUYER(customer_id=customer_id)):
                    return GONE
                if not await within(session, still_here(mechanic_id)):
                    return NotFound("mechanic_not_found", "There is no such mechanic.")
                created = await session.get(Favorite, (customer_id, mechanic_id)) is None
                if created and await _is_full(session, customer_id):
                    detail = f"You can have at most {FAVORITES_MAX} favourites; remove one first."
                    return Refused("too_many_favorites", detail)
                if created:
                    at_ms = self._clock.now_ms()
                    session.add(Favorite(customer_id=customer_id, mechanic_id=mechanic_id, created_at_ms=at_ms))
        except IntegrityError:
            # Another tab was faster, on a node of an earlier version.
            created = False
        # Not read back from the favourites: another tab may have removed it again, and that is no failure of this one.
        return (await self._views(customer_id, col(Mechanic.id) == mechanic_id))[0], created

    async def remove(self, customer_id: str, mechanic_id: str) -> None:
        """Take the mark away. Idempotent."""
        async with self._database.write() as session:
            await session.exec(
                delete(Favorite).where(
                    col(Favorite.customer_id) == customer_id, col(Favorite.mechanic_id) == mechanic_id
                )
            )

    async def _views(self, customer_id: str, which: ColumnElement[bool]) -> list[FavoriteView]:
        async with self._database.read() as session:
            mechanics = (
                await session.exec(
                    select(Mechanic, Account.name)
                    .join(Account, col(Account.id) == col(Mechanic.id))
                    .outerjoin(
                        Favorite,
                        (col(Favorite.mechanic_id) == col(Mechanic.id)) & (Favorite.customer_id == customer_id),
                    )
                    .where(which)
                    .order_by(col(Favorite.created_at_ms), col(Mechanic.id))
                )
            ).all()
            services = in_all(await within(session, SERVICES_OF(customer_id=customer_id)))
            nothing = Services("", usual(await within(session, USUAL_CURRENCY())), 0, 0, 0, 0)
        statuses = await self._presence.status_of([mechanic.id for mechanic, _ in mechanics])
        views = []
        for mechanic, name in mechanics:
            done = services.get(mechanic.id, nothing)
            views.append(
                FavoriteView(
                    provider_id=mechanic.id,
                    provider_name=name,
                    provider_type=mechanic.provider_type,
                    services_count=done.count,
                    total_spent_cents=done.spent_cents,
                    currency=done.currency,
                    last_service_at=rfc3339_or_none(done.last_at_ms or None),
                    status=statuses[mechanic.id],
                )
            )
        return views


async def _is_full(session: AsyncSession, customer_id: str) -> bool:
    """Tell whether a customer has as many as may be."""
    count = await session.exec(select(func.count()).select_from(Favorite).where(Favorite.customer_id == customer_id))
    return count.one() >= FAVORITES_MAX


def in_all(services: Iterable[Services]) -> dict[str, Services]:
    """Return for each mechanic all that they have done; the money is that of the currency most used, of two the one used last."""
    by_mechanic: defaultdict[str, list[Services]] = defaultdict(list)
    for one in services:
        by_mechanic[one.mechanic_id].append(one)
    return {
        mechanic_id: replace(
            max(parts, key=lambda part: (part.payments, part.last_at_ms)),
            count=sum(part.count for part in parts),
            last_at_ms=max(part.last_at_ms for part in parts),
        )
        for mechanic_id, parts in by_mechanic.items()
    }
