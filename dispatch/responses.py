"""How mechanics usually answer: counted from their priority offers when one is over, and kept; nobody counts at a look.

A customer who is about to wait for a favourite is told so beforehand. What the customer ended, by skipping or cancelling, was not
the mechanic's to answer. A late accept that took the broadcast is no answer within the window.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median
from typing import Final

import anyio
import structlog

from dispatch.stored import SQL, Named
from infra.clock import Clock
from infra.database import Database
from infra.loops import keep_running
from infra.statements import Nothing, Statement, Transaction
from models.errors import Unavailable
from models.words import WithdrawReason

DAYS_MS: Final = 90 * 24 * 3600 * 1000
"""How far back offers count (contract)."""
EACH_MAX: Final = 500
"""Of one mechanic, the newest: what is older says little."""
POLL_S: Final = 1.0
BATCH: Final = 200
"""Offers counted together."""
OLD_MS: Final = 24 * 3600 * 1000
"""After this, what was counted is counted anew, as some of it may be older than it may be by now."""


@dataclass(frozen=True)
class Answer:
    """A row of ``answers_of``: how a priority offer ended, and after how many ms."""

    mechanic_id: str
    close_reason: str
    after_ms: int


@dataclass(frozen=True)
class Response:
    """How somebody usually answers; ``answers_within_s`` is ``None`` if they answered nothing."""

    offers: int
    accept_percent: int
    answers_within_s: int | None


COUNT_OFFERS = Statement(SQL / "count_offers.sql", Named)
OLD_RESPONSES = Statement(SQL / "old_responses.sql", Named)
ANSWERS_OF = Statement(SQL / "answers_of.sql", Answer)
KEEP_RESPONSE = Statement(SQL / "keep_response.sql", Nothing)


def response_of(answers: Sequence[Answer]) -> Response:
    """Return what the answers come to. Pure."""
    accepted = sum(one.close_reason == WithdrawReason.TAKEN for one in answers)
    answered_ms = [one.after_ms for one in answers if one.close_reason != WithdrawReason.EXPIRED]
    within_s = ceil(median(answered_ms) / 1000) if answered_ms else None
    return Response(len(answers), round(100 * accepted / len(answers)) if answers else 0, within_s)


class Responses:
    """Counts, on any node."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._log = structlog.get_logger("dispatch")

    async def run(self) -> None:
        """Count until cancelled."""
        await keep_running("responses", self._count_on)

    async def _count_on(self) -> None:
        while True:
            try:
                counted = await self._database.commit(self._count())
            except Unavailable as error:
                counted = 0
                self._log.warning("responses_not_counted", error=str(error))
            if counted < BATCH:
                await anyio.sleep(POLL_S)

    def _count(self) -> Transaction[int]:
        """Count for the mechanics of some offers that are over, or of old counts; return how many offers or counts those were."""
        now_ms = self._clock.now_ms()
        found = yield from COUNT_OFFERS(now_ms=now_ms, limit=BATCH)
        if not found:
            found = yield from OLD_RESPONSES(before_ms=now_ms - OLD_MS, limit=BATCH)
        mechanic_ids = sorted({one.id for one in found})
        if not mechanic_ids:
            return 0
        answers: defaultdict[str, list[Answer]] = defaultdict(list)
        for one in (yield from ANSWERS_OF(mechanic_ids=mechanic_ids, since_ms=now_ms - DAYS_MS, each=EACH_MAX)):
            answers[one.mechanic_id].append(one)
        yield from KEEP_RESPONSE.each(
            {
                "mechanic_id": mechanic_id,
                "offers": counted.offers,
                "accept_percent": counted.accept_percent,
                "answers_within_s": counted.answers_within_s,
                "now_ms": now_ms,
            }
            for mechanic_id in mechanic_ids
            for counted in [response_of(answers[mechanic_id])]
        )
        return len(found)
