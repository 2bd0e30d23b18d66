"""Customers who wait for a favourite hear at once when that mechanic becomes busy with somebody else, or free again.

It ends no window: whoever waits is told, and may go on waiting or ask everyone. What they have been told stands beside the offer,
so that a change which a crash or an earlier version has left untold is found and told by any node.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import anyio
import structlog
from msgspec.structs import replace as replace_struct

from dispatch import request_store
from dispatch.failures import Failures, LeftAlone, Patience
from dispatch.notices import FavoriteTurned
from dispatch.outbox import Message, Outbox
from dispatch.stored import SQL
from infra.clock import Clock
from infra.database import Database
from infra.loops import keep_running
from infra.statements import Nothing, Statement, Transaction
from models import tables
from models.errors import Unavailable
from models.settings import DispatchSettings

BATCH: Final = 100
"""Requests that are read together."""


@dataclass(frozen=True)
class Waiting:
    """A row of ``turned_favorites``: an offer, and its request, whose customer has been told otherwise of its favourite."""

    offer_id: str
    request_id: str


TURNED_FAVORITES = Statement(SQL / "turned_favorites.sql", Waiting)
TURNED_FAVORITES_OF = Statement(SQL / "turned_favorites_of.sql", Waiting)
NOTE_BUSY = Statement(SQL / "note_busy.sql", Nothing)


class Awaited:
    """Registers itself with the outbox for mechanics who are waited for."""

    def __init__(self, *, database: Database, clock: Clock, outbox: Outbox, settings: DispatchSettings) -> None:
        self._database = database
        self._clock = clock
        self._outbox = outbox
        self._interval_s = settings.reconcile_interval_ms / 1000
        # A customer waits: one that an operator has been shown is still tried.
        patience = replace(Patience.of(settings), gives_up=False)
        failures = Failures(tables.SessionRequest, database=database, clock=clock, patience=patience)
        self._untold = LeftAlone(failures, clock=clock, patience=patience)
        """Requests that cannot be told."""
        self._log = structlog.get_logger("dispatch")
        outbox.on(self._turned, FavoriteTurned)

    async def run(self) -> None:
        """Find what has been left untold, until cancelled."""
        await keep_running("awaited", self._sweep)

    async def _turned(self, notices: Sequence[FavoriteTurned]) -> None:
        mechanic_ids = sorted({notice.mechanic_id for notice in notices})
        await self._tell_all(partial(TURNED_FAVORITES_OF, mechanic_ids=mechanic_ids))

    async def _sweep(self) -> None:
        while True:
            await anyio.sleep(self._interval_s)
            try:
                await self._tell_all(TURNED_FAVORITES)
            except Unavailable as error:
                self._log.warning("favorites_not_looked_at", error=str(error))

    async def _tell_all(self, look: Callable[..., Transaction[list[Waiting]]]) -> None:
        """Tell of all that ``look`` finds, page by page: those that cannot be told keep none from being found."""
        after_id = ""
        while True:
            found = await self._database.query(look(after_id=after_id, limit=BATCH))
            await self._tell([one for one in found if self._untold.is_due(one.request_id)])
            if len(found) < BATCH:
                break
            after_id = found[-1].offer_id

    async def _tell(self, waiting: Sequence[Waiting]) -> None:
        failures: list[tuple[str, Exception]] = []
        for one in waiting:
            try:
                self._outbox.post(await self._database.commit(self._note(one.request_id)))
            except Unavailable:
                raise
            except Exception as error:  # noqa: BLE001 - noted at its row: one item never stops a loop
                failures.append((one.request_id, error))
        await self._untold.count_all(failures)

    def _note(self, request_id: str) -> Transaction[Sequence[Message]]:
        """Let the request say what is true of its favourite now; nothing changes when it is repeated."""
        stored = yield from request_store.load(request_id)
        if stored is None or stored.offer_mechanic_id is None or stored.offer_id is None:
            return []
        is_busy = stored.preferred_is_busy
        if is_busy == stored.offer_mechanic_is_busy:
            return []
        yield from NOTE_BUSY(offer_id=stored.offer_id, is_busy=is_busy)
        seen = request_store.noted(replace_struct(stored, offer_mechanic_is_busy=is_busy), [], {})
        messages, _ = yield from request_store.carry_out([seen], now_ms=self._clock.now_ms())
        yield from self._outbox.add(messages)
        return messages
