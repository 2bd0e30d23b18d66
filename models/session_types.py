"""Which kinds of session a mechanic takes. Pure.

Kept, and passed on, is what they have switched off: words with commas between, in the order of ``SESSION_TYPES``; nothing is an
empty text. So a mechanic who has never chosen takes everything, and a kind that there is no switch for is taken by everybody.
"""

from collections.abc import Collection
from typing import Final, get_args

from models.words import SessionType

SESSION_TYPES: Final[tuple[SessionType, ...]] = get_args(SessionType)


def types_off(taken: Collection[SessionType]) -> str:
    """Return what is switched off by a mechanic who takes these, as it is kept."""
    return ",".join(kind for kind in SESSION_TYPES if kind not in taken)


def types_taken(off: str) -> list[SessionType]:
    """Return what a mechanic takes, always in the same order; ``off`` as it is kept."""
    return [kind for kind in SESSION_TYPES if not is_off(kind, off)]


def is_off(session_type: str, off: str) -> bool:
    """Tell whether a mechanic has switched off sessions of this kind; ``off`` as it is kept."""
    return session_type in off.split(",") if off else False
