"""One transaction per transition, or for many together: what the core decided, made true in SQL, or not at all.

Every transition is one conditional ``UPDATE … WHERE id = … AND version = …`` (``move_request.sql``); whoever's update matches has
won, everyone else finds no row, reloads and decides anew. The story and what is to be told are written in the same transaction.
A statement of a kind is executed for all moves in one go, so that a thousand windows that end together cost little more than one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dispatch.effects import NOBODYS, Cause, Effects
from dispatch.outbox import Message
from dispatch.request import Command, Details, Event, Record, Request, Windows, step
from dispatch.stored import READ_REQUESTS, SQL, Named, StoredRequest, Window, began_ms_of
from infra.statements import Nothing, Statement, Transaction
from models.ids import new_id
from models.outcomes import Refused


class LostRace(Exception):
    """Somebody else's transition came first; roll back, reload and decide anew."""


@dataclass(frozen=True)
class Move:
    """A step that the core has decided for one request, and what it causes."""

    stored: StoredRequest
    after: Request
    commands: Sequence[Command]

    @property
    def is_news(self) -> bool:
        """Whether anybody can see a difference."""
        return self.after.version != self.stored.version


@dataclass(frozen=True)
class LockedOffer:
    """A row of ``lock_request_of_offer``."""

    request_id: str
    mechanic_id: str | None
    close_reason: str | None
    taken_by_id: str | None
    asking_name: str
    asking_types_off: str


@dataclass(frozen=True)
class MayDepart:
    """The row of ``is_disabled``."""

    is_disabled: bool


IS_DISABLED = Statement(SQL / "is_disabled.sql", MayDepart)
DEPART_AGAIN = Statement(SQL / "depart_again.sql", Nothing)
LOCK_REQUESTS = Statement(SQL / "lock_requests.sql", Named)
LOCK_REQUEST_OF_OFFER = Statement(SQL / "lock_request_of_offer.sql", LockedOffer)
LOCK_WINDOWS = Statement(SQL / "lock_windows.sql", Window)
LOCK_LIMITS = Statement(SQL / "lock_limits.sql", Window)
MOVE_REQUEST = Statement(SQL / "move_request.sql", Named)
INSERT_REQUEST = Statement(SQL / "insert_request.sql", Nothing)


def load(request_id: str) -> Transaction[StoredRequest | None]:
    """Return a request, locked until the transaction ends; ``None`` if there is none."""
    yield from LOCK_REQUESTS(ids=[request_id])
    found = yield from READ_REQUESTS(ids=[request_id])
    return found[0] if found else None


def carry_out(
    moves: Sequence[Move], *, now_ms: int, cause: Cause = NOBODYS
) -> Transaction[tuple[list[Message], list[StoredRequest]]]:
    """Make moves of different requests true, all or none; return what has to be told after the commit, and what is stored then.

    ``cause`` names a mechanic who is assigned without having been named in the request before. Raises ``LostRace`` or
    ``MechanicBusy``; the transaction must then be rolled back.
    """
    effects = Effects(now_ms, cause)
    stored = [effects.take(move.stored, move.after, move.commands, is_news=move.is_news) for move in moves]
    yield from effects.assign()
    changed = [move for move in moves if move.is_news]
    moved = yield from MOVE_REQUEST.each(map(_values, changed))
    if len(moved) < len(changed):
        raise LostRace
    yield from effects.write()
    return effects.messages, stored


def create(
    request: Request, commands: Sequence[Command], *, checkout_id: str, paid_cents: int, now_ms: int
) -> Transaction[tuple[list[Message], StoredRequest]]:
    """Insert the new request of a checkout and carry out its first commands; return what has to be told, and what is stored.

    The unique ``checkout_id`` makes a second request for one payment impossible.
    """
    yield from INSERT_REQUEST(
        id=request.id,
        checkout_id=checkout_id,
        version=request.version,
        status=request.status,
        priority_offer_id=request.priority_offer_id,
        paid_cents=paid_cents,
        at_ms=now_ms,
        settled_at_ms=request.settled_at_ms,
    )
    [inserted] = yield from READ_REQUESTS(ids=[request.id])
    effects = Effects(now_ms, NOBODYS)
    stored = effects.take(inserted, request, commands, is_news=True)
    yield from effects.write()
    if stored.offer_mechanic_id is not None:
        standings = yield from IS_DISABLED(mechanic_id=stored.offer_mechanic_id)
        if any(standing.is_disabled for standing in standings):
            yield from DEPART_AGAIN(id=stored.offer_mechanic_id, at_ms=now_ms)
    return effects.messages, stored


def decide(stored: StoredRequest, event: Event, *, now_ms: int, windows: Windows) -> Move | Refused:
    """Return what the core decides of an event."""
    outcome = step(stored.as_decided_by(), event, now_ms=now_ms, next_id=new_id(), windows=windows)
    return outcome if isinstance(outcome, Refused) else Move(stored, *outcome)


def noted(stored: StoredRequest, events: Sequence[str], details: Details) -> Move:
    """Return the move that only adds lines to the story."""
    after = replace(stored.as_decided_by(), version=stored.version + 1)
    return Move(stored, after, [Record(event, details) for event in events])


def _values(move: Move) -> dict[str, object]:
    before, after = move.stored, move.after
    assert after.version == before.version + 1, "a step that can be seen is one version"
    return {
        "id": before.id,
        "version": before.version,
        "status_before": before.status,
        "status": after.status,
        "assigned_mechanic_id": after.assigned_mechanic_id,
        "fallback_reason": after.fallback,
        "accepted_at_ms": after.accepted_at_ms,
        "started_at_ms": after.started_at_ms,
        "completed_at_ms": after.completed_at_ms,
        "settled_at_ms": after.settled_at_ms,
        "limit_id": after.limit and after.limit.id,
        "limit_of_ms": began_ms_of(after),
        "limit_expires_at_ms": after.limit and after.limit.expires_at_ms,
        "limit_rings_at_ms": after.limit and after.limit.rings_at_ms,
    }
