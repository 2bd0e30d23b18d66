"""Who may get a broadcast. Pure, and the one place that says so.

What is asked of SQL, of Redis (who counts as available) and of presence's own rules is held to this by tests. A priority offer is
for the favourite whatever they have switched off: they were chosen for it, and it was paid for.
"""

from dataclasses import dataclass, field

from models.session_types import is_off


@dataclass(frozen=True, slots=True)
class Standing:
    """What dispatch knows of a mechanic: do they want to be asked, for what, and are they in a session?"""

    on_duty: bool
    is_busy: bool
    version: int = field(default=0, compare=False)
    """Which facts it is made of; 0 if that is not known."""
    types_off: str = ""
    """The kinds of session that they do not take, as in ``models.session_types``."""
    back_at_ms: int | None = None
    """When they go on duty again by themselves; ``None``: not on a break."""
    off_after_session: bool = False
    """Whether they go off duty with the session that they are in."""


def may_get_broadcast(standing: Standing, session_type: str, *, is_excluded: bool = False) -> bool:
    """Tell whether a broadcast is for a mechanic; ``is_excluded``: they declined its request, or had it and lost it."""
    return may_be_asked(standing) and takes(standing.types_off, session_type) and not is_excluded


def may_be_asked(standing: Standing) -> bool:
    """Tell whether there may be a broadcast for a mechanic, of one kind or another."""
    return standing.on_duty and not standing.is_busy


def takes(types_off: str, session_type: str) -> bool:
    """Tell whether a mechanic who has switched off ``types_off`` takes sessions of this kind."""
    return not is_off(session_type, types_off)
