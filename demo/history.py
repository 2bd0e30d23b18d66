"""How a past comes into the database: by the very core that makes the present, so that no row can contradict another.

What the core would have told people is dropped: nobody was connected then.
"""

from dataclasses import dataclass

from sqlmodel.ext.asyncio.session import AsyncSession
from ulid import ULID

from dispatch import request_store
from dispatch.effects import Cause
from dispatch.request import (
    MechanicAccepted,
    MechanicDeclined,
    SessionCompleted,
    SessionStarted,
    Windows,
    opened,
    step,
)
from infra.database import within
from models.outcomes import Refused
from models.tables import Account, Checkout

_MINUTE_MS = 60_000
_DAY_MS = 24 * 60 * _MINUTE_MS
_WINDOWS = Windows(
    priority_ms=10 * _MINUTE_MS, broadcast_ms=15 * _MINUTE_MS, start_ms=5 * _MINUTE_MS, grace_ms=15 * _MINUTE_MS
)
_TAKEN_AFTER_MS = 40_000
"""How long after its opening somebody took a broadcast."""
_STARTED_AFTER_MS = 3 * _MINUTE_MS
_SESSIONS = {"quick_chat": (10, "text"), "expert_video": (30, "video"), "premium_session": (60, "video")}
"""Minutes and kind of each plan. A copy: an operator may have changed the plans since."""
CURRENCY = "usd"


@dataclass(frozen=True)
class Service:
    """Something that was paid for and done. ``price_cents`` is what it cost then: prices change over the years."""

    plan_id: str
    price_cents: int
    days_ago: float
    was_rebooked: bool = True
    """Offered to a favourite first; ``False``: the mechanic took a broadcast, as at the first encounter."""
    answered_after_s: int = 40
    """How long the favourite took to answer."""
    declined_by: str | None = None
    """The favourite, a slug, if they declined and this mechanic took the broadcast that followed; ``None``: they accepted."""


def id_at(at_ms: int) -> str:
    """Return a fresh id as if made at that instant: ids sort by creation time, lists are ordered by them."""
    return str(ULID.from_timestamp(at_ms))


async def write(
    session: AsyncSession,
    service: Service,
    *,
    customer_id: str,
    mechanic_id: str,
    declined_by_id: str | None = None,
    now_ms: int,
) -> None:
    """Add one completed service. The mechanic must be in no session. ``declined_by_id``: the id for ``declined_by``."""
    duration_min, session_type = _SESSIONS[service.plan_id]
    paid_at_ms = now_ms - int(service.days_ago * _DAY_MS)
    checkout = Checkout(
        id=id_at(paid_at_ms - _MINUTE_MS),
        customer_id=customer_id,
        plan_id=service.plan_id,
        price_cents=service.price_cents,
        currency=CURRENCY,
        duration_min=duration_min,
        session_type=session_type,
        routing_type="priority_broadcast" if service.was_rebooked else "broadcast",
        preferred_mechanic_id=(declined_by_id or mechanic_id) if service.was_rebooked else None,
        status="paid",
        created_at_ms=paid_at_ms - _MINUTE_MS,
    )
    session.add(checkout)
    await session.flush()
    offer_id = id_at(paid_at_ms)
    request, commands = opened(
        id_at(paid_at_ms),
        paid_cents=service.price_cents,
        session_ms=duration_min * _MINUTE_MS,
        preferred_mechanic_id=checkout.preferred_mechanic_id,
        is_priority=service.was_rebooked,
        offer_id=offer_id,
        now_ms=paid_at_ms,
        windows=_WINDOWS,
    )
    _, stored = await within(
        session,
        request_store.create(
            request, commands, checkout_id=checkout.id, paid_cents=service.price_cents, now_ms=paid_at_ms
        ),
    )
    checkout.request_id = request.id

    names = {
        one: (await session.get_one(Account, one)).name for one in (mechanic_id, declined_by_id) if one is not None
    }
    life: list[tuple[int, MechanicDeclined | MechanicAccepted | SessionStarted | SessionCompleted]] = []
    accepted_at_ms = paid_at_ms + (service.answered_after_s * 1000 if service.was_rebooked else _TAKEN_AFTER_MS)
    if declined_by_id is not None:
        life.append((accepted_at_ms, MechanicDeclined(declined_by_id, offer_id)))
        offer_id = id_at(accepted_at_ms)
        accepted_at_ms += _TAKEN_AFTER_MS
    started_at_ms = accepted_at_ms + _STARTED_AFTER_MS
    life += [
        (accepted_at_ms, MechanicAccepted(mechanic_id, offer_id, accepted_at_ms)),
        (started_at_ms, SessionStarted(mechanic_id)),
        (started_at_ms + duration_min * _MINUTE_MS, SessionCompleted(mechanic_id)),
    ]
    for at_ms, event in life:
        # A decline opens the broadcast that is accepted next.
        next_id = offer_id if isinstance(event, MechanicDeclined) else id_at(at_ms)
        outcome = step(request, event, now_ms=at_ms, next_id=next_id, windows=_WINDOWS)
        assert not isinstance(outcome, Refused), "every event of this life is possible when it happens"
        move = request_store.Move(stored, *outcome)
        cause = Cause(event.mechanic_id, names=names)
        _, after = await within(session, request_store.carry_out([move], now_ms=at_ms, cause=cause))
        stored = after[0]
        request = move.after
