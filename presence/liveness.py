"""What presence means. Pure: no I/O, no clock; instants are milliseconds since the epoch.

A *lease* says until when a mechanic counts as here on one node; each node has one for itself, too. Online is computed
from the leases that are left, never from an event: a late close of an old socket cannot override a newer one.

    online    some live node holds a live lease of theirs        (heartbeats renew it, the last close shortens it)
    status    online + on duty + in a session + push + kinds of session switched off, five different facts
    change    any of these five; ``last_seen`` moving on is none

The scripts beside this file decide the same inside Redis, with Redis' TIME as ``now_ms``; tests hold them to these rules.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from models.session_types import is_off, types_taken
from models.timestamps import rfc3339, rfc3339_or_none
from models.wire import Availability, Reachable, ResponseView, StatusView


@dataclass(frozen=True, slots=True)
class Facts:
    """What SQL knows of a mechanic. ``version`` grows with every change, ``last_seen_ms`` is ``None`` if never seen.

    ``types_off``: the kinds of session that they do not take, as in ``models.session_types``. What follows is for their own apps:
    when a break ends by itself, and whether they go off duty with the session they are in.
    """

    mechanic_id: str
    version: int
    on_duty: bool
    is_busy: bool
    has_push: bool
    last_seen_ms: int | None
    types_off: str = ""
    back_at_ms: int | None = None
    off_after_session: bool = False


@dataclass(frozen=True, slots=True)
class MechanicStatus:
    """What is true of a mechanic at ``as_of_ms``. ``version`` only grows; ``facts_version`` tells which facts are in it."""

    mechanic_id: str
    version: int
    is_online: bool
    on_duty: bool
    is_busy: bool
    has_push: bool
    facts_version: int
    last_seen_ms: int | None
    as_of_ms: int
    types_off: str = ""


# --- leases -----------------------------------------------------------------------------------------------------------


def is_live(end_ms: int | None, now_ms: int) -> bool:
    """Tell whether a lease that ends at ``end_ms`` holds now; ``None`` is no lease."""
    return end_ms is not None and end_ms > now_ms


def renewed(end_ms: int | None, heard_at_ms: int, now_ms: int, timeout_ms: int) -> int | None:
    """Return the lease's end after a heartbeat: never earlier than before, never later than a time-out from now.

    A heartbeat that was delayed for longer than the time-out makes no lease where there is none.
    """
    end_from_here = min(heard_at_ms, now_ms) + timeout_ms
    if end_from_here <= now_ms:
        return end_ms
    return end_from_here if end_ms is None else max(end_ms, end_from_here)


def released(end_ms: int | None, now_ms: int, grace_ms: int) -> int | None:
    """Return the lease's end after the last socket here closed: the grace hides a reconnect, and only ever shortens."""
    return None if end_ms is None else min(end_ms, now_ms + grace_ms)


def is_online(lease_ends_ms: Mapping[str, int], node_ends_ms: Mapping[str, int], now_ms: int) -> bool:
    """Tell whether any node, itself alive, holds a live lease. Both mappings are by node id."""
    return any(is_live(end, now_ms) and is_live(node_ends_ms.get(node), now_ms) for node, end in lease_ends_ms.items())


# --- status -----------------------------------------------------------------------------------------------------------


def next_version(previous: int | None, now_ms: int) -> int:
    """Return a version above ``previous``. It follows the clock, so that it grows even when ``previous`` was forgotten."""
    return now_ms if previous is None else max(previous + 1, now_ms)


def first_status(facts: Facts, *, online: bool, now_ms: int) -> tuple[MechanicStatus, bool]:
    """Return the status of a mechanic whom Redis did not know, and whether to announce it.

    Offline is not announced: whoever asks is told anyway, and after a flush the mechanic may be about to be renewed.
    """
    status = MechanicStatus(
        facts.mechanic_id,
        next_version(None, now_ms),
        online,
        facts.on_duty,
        facts.is_busy,
        facts.has_push,
        facts.version,
        facts.last_seen_ms,
        now_ms,
        facts.types_off,
    )
    return status, online


def with_online(status: MechanicStatus, *, online: bool, now_ms: int) -> tuple[MechanicStatus, bool]:
    """Return ``status`` with what the leases say, and whether that is a change to announce."""
    if status.is_online == online:
        return status, False
    version = next_version(status.version, now_ms)
    return replace(status, is_online=online, version=version, as_of_ms=now_ms), True


def with_facts(status: MechanicStatus, facts: Facts, *, now_ms: int) -> tuple[MechanicStatus, bool]:
    """Return ``status`` with ``facts`` unless they are older than its own, and whether that is a change to announce.

    A node of the version before may have brought the same facts without what is switched off, of which it knows nothing.
    """
    is_newer = facts.version > status.facts_version
    if not is_newer and (facts.version < status.facts_version or facts.types_off == status.types_off):
        return status, False
    told = (status.on_duty, status.is_busy, status.has_push, status.types_off)
    changed = told != (facts.on_duty, facts.is_busy, facts.has_push, facts.types_off)
    return replace(
        status,
        version=next_version(status.version, now_ms) if changed else status.version,
        on_duty=facts.on_duty,
        is_busy=facts.is_busy,
        has_push=facts.has_push,
        facts_version=facts.version,
        as_of_ms=now_ms,
        types_off=facts.types_off,
    ), changed


def with_seen(status: MechanicStatus, seen_at_ms: int) -> MechanicStatus:
    """Return ``status`` with a later ``last_seen_ms``; it never goes back. No change to announce."""
    return replace(status, last_seen_ms=max(status.last_seen_ms or seen_at_ms, seen_at_ms))


def is_available(status: MechanicStatus, session_type: str | None = None) -> bool:
    """Tell whether a broadcast of this kind would reach them now; ``None``: one of a kind that they take."""
    takes_it = session_type is None or not is_off(session_type, status.types_off)
    return status.is_online and status.on_duty and not status.is_busy and takes_it


def availability_of(status: MechanicStatus) -> Availability:
    """Return the contract's word. Being in a session outweighs being off duty: it is why they do not answer now."""
    if not status.is_online:
        return "offline"
    if status.is_busy:
        return "busy"
    return "available" if status.on_duty else "off_duty"


def reachable_by(status: MechanicStatus) -> Reachable:
    """Return the best way to reach them now."""
    if status.is_online:
        return "socket"
    return "push" if status.has_push else "none"


def view(status: MechanicStatus, response: ResponseView | None = None) -> StatusView:
    """Return ``status`` as it travels, with how the mechanic usually answers."""
    return StatusView(
        mechanic_id=status.mechanic_id,
        is_online=status.is_online,
        last_seen=rfc3339_or_none(status.last_seen_ms),
        availability=availability_of(status),
        reachable=reachable_by(status),
        session_types=types_taken(status.types_off),
        as_of=rfc3339(status.as_of_ms),
        version=status.version,
        response=response,
    )
