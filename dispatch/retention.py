"""What nobody needs any more is forgotten after a while: worked-off events, spent idempotency keys, checkouts that came to nothing,
and tokens that were revoked and have ended by themselves since.

Requests, their stories, offers and money are kept for good. Any node forgets, a batch at a time; of several that do so side by side
each takes what the others have not in hand. A row that cannot be forgotten keeps no other from being.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import anyio
import structlog

from dispatch.stored import SQL, Named
from infra.clock import Clock
from infra.database import Database
from infra.loops import failing_alone, in_halves, keep_running, note_failure
from infra.metrics import ROWS_FORGOTTEN
from infra.statements import Statement
from models.errors import Unavailable
from models.settings import DispatchSettings

FIRST_AFTER_S: Final = 60.0
"""Not in the way of a start."""
INTERVAL_S: Final = 3600.0
BATCH: Final = 500
"""Rows forgotten together; then others have their turn."""
PAUSE_S: Final = 0.2
WORK: Final = "retention"
"""What operators call it when something cannot be forgotten."""


@dataclass(frozen=True)
class Old:
    """A row that is old enough, and since when."""

    id: str
    at_ms: int


@dataclass(frozen=True)
class Kind:
    """One kind of what is forgotten. ``find``: the oldest of those since an instant; ``forget``: those that are still so."""

    name: str
    find: Statement[Old]
    forget: Statement[Named]


def _kind(name: str) -> Kind:
    return Kind(name, Statement(SQL / f"old_{name}.sql", Old), Statement(SQL / f"forget_{name}.sql", Named))


KINDS: Final = (_kind("stripe_events"), _kind("checkouts"), _kind("idempotency_keys"), _kind("revocations"))
"""A checkout that goes takes its key with it."""


class Retention:
    """Forgets, on any node."""

    def __init__(self, *, database: Database, clock: Clock, settings: DispatchSettings) -> None:
        self._database = database
        self._clock = clock
        self._retention_ms = settings.retention_ms
        self._log = structlog.get_logger("retention")
        for kind in KINDS:
            # There from the first scrape on.
            ROWS_FORGOTTEN.labels(kind.name)

    async def run(self) -> None:
        """Forget now and again until cancelled."""
        await keep_running("retention", self._forget_on)

    async def _forget_on(self) -> None:
        await anyio.sleep(FIRST_AFTER_S)
        while True:
            await self.forget_all()
            await anyio.sleep(INTERVAL_S)

    async def forget_all(self) -> None:
        """Forget all that is old enough by now; idempotent."""
        for kind in KINDS:
            try:
                with failing_alone(WORK, kind=kind.name):
                    await self._forget_kind(kind)
            except Unavailable as error:
                # The rest has its turn the next time.
                self._log.warning("not_forgotten", kind=kind.name, error=str(error))

    async def _forget_kind(self, kind: Kind) -> None:
        before_ms, since_ms = self._clock.now_ms() - self._retention_ms, 0
        left: set[str] = set()
        """Found and not forgotten: somebody else has them in hand, something hangs on them, or they cannot be."""
        count = 0
        while True:
            found = await self._database.query(kind.find(since_ms=since_ms, before_ms=before_ms, limit=BATCH))
            ids = [one.id for one in found if one.id not in left]
            forgotten = await self._forget(kind, ids, before_ms)
            ROWS_FORGOTTEN.labels(kind.name).inc(len(forgotten))
            count += len(forgotten)
            if len(found) < BATCH:
                break
            left.update(set(ids).difference(forgotten))
            # On from where this batch ended; past that instant when there was nothing else of it.
            since_ms = found[-1].at_ms + (not ids)
            await anyio.sleep(PAUSE_S)
        if count:
            self._log.info("forgotten", kind=kind.name, count=count)

    async def _forget(self, kind: Kind, ids: Sequence[str], before_ms: int) -> set[str]:
        forgotten: set[str] = set()

        async def forget(together: Sequence[str]) -> None:
            done = await self._database.commit(kind.forget(ids=list(together), before_ms=before_ms))
            forgotten.update(one.id for one in done)

        await in_halves(ids, forget, partial(self._note, kind))
        return forgotten

    async def _note(self, kind: Kind, row_id: str, error: Exception) -> None:
        note_failure(WORK, error, kind=kind.name, id=row_id)
