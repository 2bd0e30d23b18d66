"""How mechanics usually answer, as dispatch has counted it: a copy on each node, so that no look at a status reads it from SQL."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio

from infra.database import Database
from infra.statements import Statement
from models.wire import ResponseView

OFFERS_MIN: Final = 5
"""Fewer say nothing about anybody (contract)."""
POLL_S: Final = 1.0
PAGE_LEN: Final = 1_000
OVERLAP_S: Final = 10.0
"""For so long what is new is read again: what was committed after a later one must not be missed. Then it is left alone, or the
last of a thousand that were counted together would be read every second for ever.
"""
AFTER_ALL: Final = "~"
"""Sorts after every id."""


@dataclass(frozen=True)
class _Counted:
    """A row of ``read_responses``."""

    mechanic_id: str
    offers: int
    accept_percent: int
    answers_within_s: int | None
    counted_at_ms: int


READ_RESPONSES = Statement(Path(__file__).parent / "read_responses.sql", _Counted)


class Responses:
    """Follows what is counted."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, ResponseView] = {}
        """One for each mechanic who has been offered enough."""
        self._until_ms = 0
        self._new_at_s = 0.0
        """When something new was last read."""

    def of(self, mechanic_id: str) -> ResponseView | None:
        """Return how a mechanic usually answers; ``None`` while too little is known."""
        return self._known.get(mechanic_id)

    async def follow(self) -> None:
        """Read what is new, then wait a moment: one step of a loop. Raises ``DatabaseUnavailable``."""
        since_ms, after_id = self._until_ms, AFTER_ALL
        if anyio.current_time() < self._new_at_s + OVERLAP_S:
            since_ms -= int(OVERLAP_S * 1000)
        while True:
            page = await self._database.query(READ_RESPONSES(since_ms=since_ms, after_id=after_id, limit=PAGE_LEN))
            for one in page:
                self._take(one)
            if len(page) < PAGE_LEN:
                break
            since_ms, after_id = page[-1].counted_at_ms, page[-1].mechanic_id
        await anyio.sleep(POLL_S)

    def _take(self, one: _Counted) -> None:
        if one.counted_at_ms > self._until_ms:
            self._until_ms, self._new_at_s = one.counted_at_ms, anyio.current_time()
        if one.offers < OFFERS_MIN:
            self._known.pop(one.mechanic_id, None)
        else:
            self._known[one.mechanic_id] = ResponseView(one.accept_percent, one.answers_within_s, one.offers)
