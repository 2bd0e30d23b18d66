"""How many files this process may have open: each connection is one."""

import resource
from dataclasses import dataclass
from typing import Final

RESERVE_MIN: Final = 128
"""For what is not a connection of ours: Redis (up to 64), SQL, Stripe, push services, files that are served."""
RESERVE_SHARE: Final = 100
"""Or one in so many, where that is more."""
ROOM_MIN: Final = 16


@dataclass(frozen=True)
class OpenFiles:
    """The limits as they are now."""

    soft: int
    hard: int

    @property
    def connections_max(self) -> int:
        """How many connections they leave room for."""
        return max(ROOM_MIN, self.soft - max(RESERVE_MIN, self.soft // RESERVE_SHARE))


def current() -> OpenFiles:
    """Return this process' limits."""
    soft, hard = (_counted(limit) for limit in resource.getrlimit(resource.RLIMIT_NOFILE))
    return OpenFiles(soft, hard)


def raise_to_hard() -> OpenFiles:
    """Raise the soft limit to the hard one, for us and for what we start, and return what there is then; idempotent.

    Where that is refused, we live with what there is.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        # macOS says that there is no limit, and refuses to take it at its word.
        return current()
    return current()


def _counted(limit: int) -> int:
    """Return a limit as a number: no limit is more than anybody has connections."""
    return 2**20 if limit == resource.RLIM_INFINITY else limit
