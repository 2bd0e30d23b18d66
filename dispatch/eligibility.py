"""Who may get a broadcast. Pure, and the one place that says so.

What is asked of SQL, of Redis (who counts as available) and of presence's own rules is held to this by tests.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Standing:
    """What dispatch knows of a mechanic: do they want to be asked, and are they in a session?"""

    on_duty: bool
    is_busy: bool
    version: int = field(default=0, compare=False)
    """Which facts it is made of; 0 if that is not known."""


def may_get_broadcast(standing: Standing, *, is_excluded: bool = False) -> bool:
    """Tell whether a broadcast is for a mechanic; ``is_excluded``: they declined its request, or gave it back."""
    return standing.on_duty and not standing.is_busy and not is_excluded
