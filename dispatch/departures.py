"""Accounts that have been disabled are let go of: their offers go to others, and so does what they have accepted and not started.

A session that is under way goes on; its customer, or time, ends it. Whoever disables an account only notes that it departs. Any
node finds the note and does the rest, so that a crash in between forgets nobody, nor a command that ran while no node did.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import structlog

from dispatch.due_work import DueWork
from dispatch.push.subscriptions import Subscriptions
from dispatch.service import Dispatch
from dispatch.stored import SQL
from infra.database import Database
from infra.loops import note_failure
from infra.statements import Nothing, Statement
from models.errors import Unavailable
from models.outcomes import Refused

SIDE_BY_SIDE: Final = 4
FAILING_LEN_MAX: Final = 1_000
"""Accounts that this node could not let go of and tries last, newest kept."""


@dataclass(frozen=True)
class Departing:
    """A row of ``departing``. ``since_ms``: another one if it has been offered something since it was read."""

    id: str
    since_ms: int


@dataclass(frozen=True)
class Held:
    """A row of ``held_by``; ``offer_id`` ``None`` for a request that was accepted."""

    offer_id: str | None
    request_id: str


DEPARTING: Final = Statement(SQL / "departing.sql", Departing)
DEPARTED: Final = Statement(SQL / "departed.sql", Nothing)
HELD_BY: Final = Statement(SQL / "held_by.sql", Held)


class Departures:
    """Lets go of departing accounts, on any node; doing it twice does no harm."""

    def __init__(self, *, database: Database, dispatch: Dispatch, subscriptions: Subscriptions) -> None:
        self._database = database
        self._dispatch = dispatch
        self._subscriptions = subscriptions
        self._failing: OrderedDict[str, None] = OrderedDict()
        self._due = DueWork(
            "departures", claim=self._departing, work=self._let_go, failed=self._not_yet, side_by_side=SIDE_BY_SIDE
        )
        self._log = structlog.get_logger("departures")

    def wake(self) -> None:
        """Look now: an account has just been disabled on this node."""
        self._due.wake()

    async def run(self) -> None:
        """Let go of accounts until cancelled."""
        await self._due.run()

    async def _departing(self, count_max: int) -> list[Departing]:
        found = await self._database.query(DEPARTING(limit=count_max + len(self._failing)))
        # Those that fail wait for those that may not.
        return sorted(found, key=lambda one: one.id in self._failing)[:count_max]

    async def _let_go(self, account: Departing) -> None:
        await self._subscriptions.unsubscribe_all(account.id)
        # Off duty first: no broadcast comes while the rest is taken away. A customer has no duty.
        await self._dispatch.set_on_duty(account.id, False)
        for held in await self._database.query(HELD_BY(mechanic_id=account.id)):
            outcome: object
            if held.offer_id is not None:
                outcome = await self._dispatch.decline(account.id, held.offer_id)
            else:
                outcome = await self._dispatch.release(account.id, held.request_id)
            if isinstance(outcome, Refused):
                # Answered, withdrawn or started meanwhile.
                self._log.info("departing_held_no_more", request_id=held.request_id, code=outcome.code)
        await self._database.commit(DEPARTED(id=account.id, since_ms=account.since_ms))
        self._failing.pop(account.id, None)

    async def _not_yet(self, account: Departing, error: Exception) -> None:
        if isinstance(error, Unavailable):
            return
        note_failure("departures", error, account_id=account.id)
        self._failing[account.id] = None
        if len(self._failing) > FAILING_LEN_MAX:
            self._failing.popitem(last=False)
