"""Whom a customer trusts, with what they have had done by them."""

from sqlalchemy import ColumnElement, delete, func
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.sql.expression import Select

from infra.clock import RedisClock
from infra.database import Database
from models.outcomes import NotFound, Refused
from models.rest import FavoriteView
from models.tables import Account, Favorite, Mechanic, SessionRequest
from models.timestamps import rfc3339_or_none
from presence.service import Presence

FAVORITES_MAX = 100
"""As many as one socket may watch."""
CURRENCY = "usd"


class Favorites:
    """A customer's favourite mechanics; services and money are counted from completed requests."""

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
            if await session.get(Mechanic, mechanic_id) is None:
                return NotFound("mechanic_not_found", "There is no such mechanic.")
            if await session.get(Account, customer_id) is None:
                return Refused("unauthenticated", "This account does not exist any more.")
            count = await session.exec(
                select(func.count()).select_from(Favorite).where(Favorite.customer_id == customer_id)
            )
            is_full = count.one() >= FAVORITES_MAX
            exists = await session.get(Favorite, (customer_id, mechanic_id)) is not None
        if is_full and not exists:
            return Refused("too_many_favorites", f"You can have at most {FAVORITES_MAX} favourites; remove one first.")
        created = False
        if not exists:
            try:
                async with self._database.write() as session:
                    session.add(
                        Favorite(customer_id=customer_id, mechanic_id=mechanic_id, created_at_ms=self._clock.now_ms())
                    )
                created = True
            except IntegrityError:
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
            history = await session.exec(_history(customer_id))
            services = {assigned: (count, spent, last) for assigned, count, spent, last in history}
        statuses = await self._presence.status_of([mechanic.id for mechanic, _ in mechanics])
        views = []
        for mechanic, name in mechanics:
            count, spent_cents, last_at_ms = services.get(mechanic.id, (0, 0, None))
            views.append(
                FavoriteView(
                    provider_id=mechanic.id,
                    provider_name=name,
                    provider_type=mechanic.provider_type,
                    services_count=count,
                    total_spent_cents=spent_cents or 0,
                    currency=CURRENCY,
                    last_service_at=rfc3339_or_none(last_at_ms),
                    status=statuses[mechanic.id],
                )
            )
        return views


def _history(customer_id: str) -> Select[str | None, int, int | None, int | None]:
    return (
        select(
            col(SessionRequest.assigned_mechanic_id),
            func.count(),
            func.sum(SessionRequest.price_cents),
            func.max(SessionRequest.completed_at_ms),
        )
        .where(SessionRequest.customer_id == customer_id, SessionRequest.status == "completed")
        .group_by(SessionRequest.assigned_mechanic_id)
    )
