"""Whether this node can do its work: what it needs can be written, and answers in time.

Anybody may ask, as often as they like: those who ask together share one look, and what was found is good for a moment.
"""

from collections.abc import Awaitable, Callable
from time import monotonic

import anyio
import structlog

from infra.database import Database
from infra.redis_link import RedisLink
from models.errors import Unavailable

LOOK_WITHIN_S = 1.5
ANSWER_WITHIN_S = 1.9
"""Of the two seconds that the contract gives an answer; the rest is for its way."""
GOOD_FOR_S = 0.5
PARTS = ("database", "redis")

_log = structlog.get_logger("health")


class Readiness:
    """Looks whether SQL and Redis can be written."""

    def __init__(self, database: Database, link: RedisLink) -> None:
        self._parts: dict[str, Callable[[], Awaitable[None]]] = {
            "database": lambda: database.prove_writable(within_s=LOOK_WITHIN_S),
            "redis": link.prove_writable,
        }
        self._found: tuple[str, ...] = PARTS
        self._found_at_s = float("-inf")
        self._looking: anyio.Event | None = None

    async def missing(self) -> tuple[str, ...]:
        """Return which parts cannot be written now, as of half a second ago at most; takes less than two seconds."""
        if monotonic() - self._found_at_s < GOOD_FOR_S:
            return self._found
        if self._looking is None:
            self._looking = anyio.Event()
            try:
                self._found, self._found_at_s = await self._look(), monotonic()
            finally:
                self._looking.set()
                self._looking = None
            return self._found
        looking = self._looking
        with anyio.move_on_after(ANSWER_WITHIN_S):
            await looking.wait()
            return self._found
        return PARTS

    async def _look(self) -> tuple[str, ...]:
        written: set[str] = set()

        async def look(name: str, prove_writable: Callable[[], Awaitable[None]]) -> None:
            with anyio.move_on_after(LOOK_WITHIN_S):
                try:
                    await prove_writable()
                    written.add(name)
                except Unavailable as error:
                    _log.warning("not_ready", part=name, error=str(error))

        async with anyio.create_task_group() as looks:
            for name, prove_writable in self._parts.items():
                looks.start_soon(look, name, prove_writable)
        return tuple(name for name in PARTS if name not in written)
