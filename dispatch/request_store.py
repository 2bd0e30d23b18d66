"""One transaction per transition, or for many together: what the core decided, made true in SQL, or not at all.

Every transition is one conditional ``UPDATE … WHERE id = … AND version = …``; whoever's update matches has won, everyone
else finds no row, reloads and decides anew. The timeline and the outbox rows are written in the same transaction. Statements
are counted by table and not by request, so that a thousand windows that end together cost little more than one.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy
from sqlalchemy import tuple_, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from dispatch.effects import Cause, Effects
from dispatch.outbox import Message
from dispatch.request import (
    Assign,
    Command,
    Details,
    OpenWindow,
    Request,
)
from infra.database import rows_of
from models import tables
from models.words import FallbackReason, OfferKind, RequestStatus


class LostRace(Exception):
    """Somebody else's transition came first; roll back, reload and decide anew."""


class MechanicBusy(Exception):
    """The mechanic to assign is in another session; roll back."""


@dataclass(frozen=True)
class Move:
    """A step that the core has decided for one request, and what it causes."""

    before: Request
    after: Request
    commands: list[Command]


async def lock(
    session: AsyncSession, request_ids: Collection[str], *, skip_locked: bool = False
) -> list[tables.SessionRequest]:
    """Return the requests' rows, locked until this transaction ends; those that there are, by id.

    PostgreSQL's default isolation lets each statement see what others committed in between: without the lock the row could
    be from before somebody's transition and its offer from after. Everything that touches a request takes this lock
    first, and of several in the order of their ids, so that nobody waits for each other in a circle. With ``skip_locked``,
    rows that somebody else holds are left out instead of waited for. On SQLite the writing transaction is lock enough.
    """
    query = select(tables.SessionRequest).where(col(tables.SessionRequest.id).in_(request_ids))
    in_order = query.order_by(tables.SessionRequest.id)
    locked = in_order.with_for_update(key_share=True, skip_locked=skip_locked)
    return list(await session.exec(locked.execution_options(populate_existing=True)))


async def load(session: AsyncSession, request_ids: Collection[str], *, skip_locked: bool = False) -> dict[str, Request]:
    """Return the requests by id as the core sees them, locked as by ``lock``."""
    rows = await lock(session, request_ids, skip_locked=skip_locked)
    ids = [row.id for row in rows]
    if not ids:
        return {}
    windows = await open_windows(session, ids)
    excluded = await excluded_from(session, ids)
    return {
        row.id: Request(
            id=row.id,
            version=row.version,
            # Words of a later version, perhaps, are nothing to decide by: that request fails alone.
            status=RequestStatus(row.status),
            preferred_mechanic_id=row.preferred_mechanic_id,
            assigned_mechanic_id=row.assigned_mechanic_id,
            fallback=FallbackReason(row.fallback_reason) if row.fallback_reason else None,
            offer=_understood(windows.get(row.id)),
            priority_offer_id=row.priority_offer_id,
            excluded=frozenset(excluded[row.id]),
            accepted_at_ms=row.accepted_at_ms,
            started_at_ms=row.started_at_ms,
            completed_at_ms=row.completed_at_ms,
            settled_at_ms=row.settled_at_ms,
        )
        for row in rows
    }


def _understood(window: OpenWindow | None) -> OpenWindow | None:
    return window and replace(window, kind=OfferKind(window.kind))


async def open_windows(session: AsyncSession, request_ids: Collection[str]) -> dict[str, OpenWindow]:
    """Return the open window of each request that has one, by the request's id.

    Which offers are closed is looked at here and not asked in SQL: a planner whose statistics are from a quiet hour, or that has
    none, believes that hardly any is open, and reads all those of a rush hour to find a few.
    """
    offer = tables.Offer
    query = sqlalchemy.select(
        col(offer.request_id),
        col(offer.closed_at_ms),
        col(offer.id),
        col(offer.kind),
        col(offer.mechanic_id),
        col(offer.opened_at_ms),
        col(offer.expires_at_ms),
    ).where(col(offer.request_id).in_(request_ids))
    return {
        request_id: OpenWindow(offer_id, kind, mechanic_id, opened_at_ms, expires_at_ms)
        for request_id, closed_at_ms, offer_id, kind, mechanic_id, opened_at_ms, expires_at_ms in await rows_of(
            session, query
        )
        if closed_at_ms is None
    }


async def excluded_from(session: AsyncSession, request_ids: Collection[str]) -> defaultdict[str, set[str]]:
    """Return who is not to be asked (again), by request; nobody of those not named."""
    excluded: defaultdict[str, set[str]] = defaultdict(set)
    pairs = select(tables.Exclusion.request_id, tables.Exclusion.mechanic_id)
    for request_id, mechanic_id in await session.exec(pairs.where(col(tables.Exclusion.request_id).in_(request_ids))):
        excluded[request_id].add(mechanic_id)
    return excluded


async def requests_of(session: AsyncSession, offer_ids: Collection[str]) -> dict[str, str]:
    """Return the request's id of each of the offers that there are."""
    found = select(tables.Offer.id, tables.Offer.request_id).where(col(tables.Offer.id).in_(offer_ids))
    return dict((await session.exec(found)).all())


async def known(session: AsyncSession, request_ids: Collection[str]) -> set[str]:
    """Return those of the ids that there are, whoever holds their rows."""
    if not request_ids:
        return set()
    table = tables.SessionRequest
    return set(await session.exec(select(table.id).where(col(table.id).in_(request_ids))))


async def create(
    session: AsyncSession,
    request: Request,
    commands: list[Command],
    *,
    checkout: tables.Checkout,
    paid_cents: int,
    now_ms: int,
) -> list[Message]:
    """Insert a new request and carry out its first commands; return what has to be told after the commit.

    The unique ``checkout_id`` makes a second request for one payment impossible (``IntegrityError``).
    """
    session.add(
        tables.SessionRequest(
            id=request.id,
            version=request.version,
            checkout_id=checkout.id,
            customer_id=checkout.customer_id,
            plan_id=checkout.plan_id,
            session_type=checkout.session_type,
            duration_min=checkout.duration_min,
            price_cents=paid_cents,
            currency=checkout.currency,
            routing_type=checkout.routing_type,
            preferred_mechanic_id=checkout.preferred_mechanic_id,
            status=request.status,
            priority_offer_id=request.priority_offer_id,
            created_at_ms=now_ms,
        )
    )
    await session.flush()
    effects = Effects(now_ms, Cause())
    effects.take(request, commands)
    return await effects.write(session)


async def commit(session: AsyncSession, moves: Sequence[Move], *, now_ms: int, cause: Cause) -> list[Message]:
    """Make moves of different requests true, all or none; return what has to be told after the commit.

    Raises ``LostRace`` or ``MechanicBusy``; the caller's transaction must then be rolled back.
    """
    effects = Effects(now_ms, cause)
    for move in moves:
        for command in move.commands:
            if isinstance(command, Assign):
                # Before the requests move: here a busy mechanic is found without an error, later by the index, with one.
                await _assign(session, command.mechanic_id, move.before.id)
    await _move(session, [move for move in moves if move.after.version != move.before.version])
    for move in moves:
        effects.take(move.after, move.commands, is_news=move.after.version != move.before.version)
    return await effects.write(session)


async def record(session: AsyncSession, request_id: str, event: str, details: Details, *, now_ms: int) -> None:
    """Add a line to the story that no transition tells (delivered, refunded), and let the version grow with it."""
    session.add(tables.TimelineEntry(request_id=request_id, at_ms=now_ms, event=event, details=dict(details)))
    await session.exec(
        update(tables.SessionRequest)
        .where(col(tables.SessionRequest.id) == request_id)
        .values(version=tables.SessionRequest.version + 1)
    )


async def _move(session: AsyncSession, moves: Sequence[Move]) -> None:
    """Move the requests' rows, by one conditional update for all that share the status they leave and the values they get."""
    alike: defaultdict[tuple[RequestStatus, tuple[tuple[str, Any], ...]], list[tuple[str, int]]] = defaultdict(list)
    for before, after in ((move.before, move.after) for move in moves):
        assert after.version == before.version + 1, "a step that can be seen is one version"
        values = {
            "status": after.status,
            "assigned_mechanic_id": after.assigned_mechanic_id,
            "fallback_reason": after.fallback,
            "accepted_at_ms": after.accepted_at_ms,
            "started_at_ms": after.started_at_ms,
            "completed_at_ms": after.completed_at_ms,
            "settled_at_ms": after.settled_at_ms,
        }
        alike[before.status, tuple(values.items())].append((before.id, before.version))
    row = tables.SessionRequest
    for (status_before, values_after), versions in alike.items():
        moved = await session.exec(
            update(row)
            .where(
                # By the key alone first: not every planner looks into pairs for an index.
                col(row.id).in_([request_id for request_id, _ in versions]),
                tuple_(col(row.id), col(row.version)).in_(versions),
                col(row.status) == status_before,
            )
            .values(version=row.version + 1, **dict(values_after))
            .returning(col(row.id))
            .execution_options(synchronize_session=False)
        )
        if len(moved.all()) != len(versions):
            raise LostRace


async def _assign(session: AsyncSession, mechanic_id: str, request_id: str) -> None:
    # The one place where a mechanic gets a session: two accepts of theirs cannot both find it empty.
    assigned = await session.exec(
        update(tables.Mechanic)
        .where(col(tables.Mechanic.id) == mechanic_id, col(tables.Mechanic.active_request_id).is_(None))
        .values(active_request_id=request_id, facts_version=tables.Mechanic.facts_version + 1)
        .returning(col(tables.Mechanic.id))
    )
    if assigned.first() is None:
        raise MechanicBusy
