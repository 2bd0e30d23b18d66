"""What time does to requests: ends windows and sessions, reminds, and puts back on the clock what Redis has lost."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import anyio
import structlog

from dispatch import request_store
from dispatch.deadlines import Deadlines
from dispatch.failures import Failures, LeftAlone, Patience
from dispatch.outbox import Message, Outbox
from dispatch.request import LimitMissing, Request, WindowElapsed, Windows, ends_at_ms
from dispatch.request_store import LOCK_LIMITS, LOCK_WINDOWS, LostRace, Move, decide
from dispatch.stored import READ_REQUESTS, REQUESTS_OF_LIMITS, REQUESTS_OF_OFFERS, SQL, Named, StoredRequest, Window
from infra.clock import RedisClock
from infra.database import Database
from infra.loops import in_halves, keep_running
from infra.metrics import LATENESS_OF
from infra.statements import Statement, Transaction
from models import tables
from models.errors import Unavailable
from models.ids import is_id
from models.outcomes import Refused
from models.settings import DispatchSettings
from models.words import RequestStatus

RECONCILE_BATCH = 10_000
LIMITS_BATCH = 200
"""Requests without a time limit that are read together."""
IN_HAND_RETRY_MS = 20
"""When to look again at a window whose request somebody else had in hand."""
OUTAGES_MAX = 10
"""How often a batch of windows may meet a broken world until the rest waits for its claims: enough to find one by halving."""


@dataclass(frozen=True)
class OpenDeadline:
    """A row of ``open_deadlines``; ``kind`` is an offer's, or the status of the request that a time limit is of."""

    id: str
    kind: str
    at_ms: int


OPEN_DEADLINES = Statement(SQL / "open_deadlines.sql", OpenDeadline, leaves_out="windows")
REQUESTS_WITHOUT_LIMIT = Statement(SQL / "requests_without_limit.sql", Named)


@dataclass(frozen=True)
class Elapsed:
    """What has come of windows that were looked at together."""

    messages: Sequence[Message]
    moves: Sequence[Move]
    put_off_ms: Mapping[str, int]
    """Which are not over, and in how many ms to look at them again."""
    unknown: Collection[str]
    """Ids that are of no window."""


class Elapsing:
    """Time, on this node."""

    def __init__(
        self,
        *,
        database: Database,
        clock: RedisClock,
        deadlines: Deadlines,
        outbox: Outbox,
        windows: Windows,
        settings: DispatchSettings,
    ) -> None:
        self._database = database
        self._clock = clock
        self._outbox = outbox
        self._settings = settings
        self._deadlines = deadlines
        # Money hangs on it: a window that an operator has been shown is still tried.
        patience = replace(Patience.of(settings), gives_up=False)
        self._offer_failures = Failures(tables.Offer, database=database, clock=clock, patience=patience)
        self._request_failures = Failures(tables.SessionRequest, database=database, clock=clock, patience=patience)
        self._windows = windows
        self._unlimited = LeftAlone(self._request_failures, clock=clock, patience=patience)
        """Requests that cannot be given their missing time limit."""
        self._log = structlog.get_logger("dispatch")

    async def run(self) -> None:
        """End windows on time, and restore from SQL what Redis has lost, until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_running, "windows", partial(self._deadlines.run, self._elapsed))
            tasks.start_soon(keep_running, "deadlines_reconciler", self._reconcile)

    async def _elapsed(self, window_ids: Sequence[str], now_ms: int) -> Mapping[str, int]:
        """End windows; return those that could not be ended, and in how many ms to look at them again.

        All in one transaction, unless one of them fails it.
        """
        put_off_ms: dict[str, int] = {}
        ours = [window_id for window_id in window_ids if is_id(window_id)]
        if len(ours) < len(window_ids):
            self._log.warning("deadlines_of_no_windows", count=len(window_ids) - len(ours))

        async def end(together: Sequence[str]) -> None:
            put_off_ms.update(await self._end(together, now_ms))

        async def note(window_id: str, error: Exception) -> None:
            if isinstance(error, Unavailable):
                # Its claim ends by itself.
                put_off_ms[window_id] = self._settings.claim_lease_ms
            elif (delay_ms := await self._count_failure(window_id, error)) is not None:
                put_off_ms[window_id] = delay_ms

        # What one of them waits for in vain (a row that somebody else holds) must not keep the others waiting, too.
        await in_halves(ours, end, note, outages_max=OUTAGES_MAX)
        return put_off_ms

    async def _count_failure(self, window_id: str, error: Exception) -> int | None:
        """Count it where an operator sees it: at the offer, or at the request that the time limit is of."""
        limited = await self._database.query(REQUESTS_OF_LIMITS(limit_ids=[window_id]))
        if limited:
            return await self._request_failures.count(limited[0].request_id, error)
        return await self._offer_failures.count(window_id, error)

    async def _end(self, window_ids: Sequence[str], now_ms: int) -> Mapping[str, int]:
        """End windows, all in one transaction; return those that are not over, and in how many ms to look at them again."""

        def work() -> Transaction[Elapsed]:
            locked, in_hand, unknown = yield from _locked(window_ids)
            stored_of = {one.id: one for one in (yield from READ_REQUESTS(ids=[one.request_id for one in locked]))}
            put_off_ms = dict.fromkeys((window.id for window in in_hand), IN_HAND_RETRY_MS)
            moves: list[Move] = []
            for window in locked:
                stored = stored_of[window.request_id]
                move = decide(stored, WindowElapsed(window.id), now_ms=now_ms, windows=self._windows)
                if isinstance(move, Refused):
                    # Redis has lost its key; SQL knows better.
                    next_ms = _due_ms(stored, window.id)
                else:
                    moves.append(move)
                    # Whoever has been reminded has the rest of the start window.
                    next_ms = _due_ms(move.after, window.id)
                if next_ms is not None:
                    put_off_ms[window.id] = max(IN_HAND_RETRY_MS, next_ms - now_ms)
            messages, _ = yield from request_store.carry_out(moves, now_ms=now_ms)
            yield from self._outbox.add(messages)
            return Elapsed(messages, moves, put_off_ms, unknown)

        try:
            elapsed = await self._database.commit(work())
        except LostRace:
            return dict.fromkeys(window_ids, IN_HAND_RETRY_MS)
        self._outbox.post(elapsed.messages)
        if elapsed.unknown:
            # Mostly time limits that ended otherwise, and were not taken off the clock before their node stopped.
            self._log.info("deadlines_of_unknown_windows", ids=sorted(elapsed.unknown))
        if elapsed.moves:
            self._note_ended(elapsed.moves)
        return elapsed.put_off_ms

    def _note_ended(self, moves: Sequence[Move]) -> None:
        """Measure how late the windows ended, and say so in one line: they come by the hundred."""
        now_ms = self._clock.now_ms()
        late_ms: dict[str, int] = {}
        for stored in (move.stored for move in moves):
            if (offer := stored.offer) is not None:
                kind, window_id, due_ms = str(offer.kind), offer.offer_id, offer.ends_at_ms
            else:
                assert stored.limit is not None, "only an open window can end"
                kind = "start" if stored.status == RequestStatus.ACCEPTED else "session"
                window_id, due_ms = stored.limit.id, stored.limit.rings_at_ms
            late_ms[window_id] = now_ms - due_ms
            LATENESS_OF[kind].observe(late_ms[window_id] / 1000)
        self._log.info("windows_ended", count=len(late_ms), late_ms_max=max(late_ms.values()), ids=list(late_ms))

    # --- what Redis has lost, and what earlier versions have left -----------------------------------------------------

    async def _reconcile(self) -> None:
        """Put back on the clock what Redis does not know: at start, periodically, and at once when it has lost its memory."""
        while True:
            try:
                await self._set_missing_limits()
                found = await self._database.query(OPEN_DEADLINES(limit=RECONCILE_BATCH))
                # Of a time limit it is when time has to do something; what ends an offer gives a moment more.
                deadlines = [(one.id, ends_at_ms(one.kind, one.at_ms)) for one in found]
                if restored := await self._deadlines.restore(*deadlines):
                    self._log.info("deadlines_restored", count=restored)
            except Unavailable as error:
                self._log.warning("not_reconciled", error=str(error))
            with anyio.move_on_after(self._settings.reconcile_interval_ms / 1000):
                await self._deadlines.forgotten()

    async def _set_missing_limits(self) -> None:
        """Give a time limit to what a node of an earlier version has let be accepted or started without one.

        One that cannot be given its limit is counted at its row and left alone for a while; it keeps no other from its own.
        """
        after_id = ""
        while True:
            found = await self._database.query(REQUESTS_WITHOUT_LIMIT(after_id=after_id, limit=LIMITS_BATCH))
            failures: list[tuple[str, Exception]] = []
            for one in found:
                if not self._unlimited.is_due(one.id):
                    continue
                try:
                    self._outbox.post(await self._database.commit(self._set_limit(one.id)))
                except Unavailable:
                    raise
                except Exception as error:  # noqa: BLE001 - noted at its row: one item never stops a loop
                    failures.append((one.id, error))
            await self._unlimited.count_all(failures)
            if len(found) < LIMITS_BATCH:
                break
            after_id = found[-1].id

    def _set_limit(self, request_id: str) -> Transaction[Sequence[Message]]:
        stored = yield from request_store.load(request_id)
        if stored is None:
            return []
        now_ms = self._clock.now_ms()
        move = decide(stored, LimitMissing(), now_ms=now_ms, windows=self._windows)
        if isinstance(move, Refused):
            return []
        messages, _ = yield from request_store.carry_out([move], now_ms=now_ms)
        yield from self._outbox.add(messages)
        return messages


def _locked(window_ids: Sequence[str]) -> Transaction[tuple[list[Window], list[Window], set[str]]]:
    """Lock the windows' requests; return those locked, those that somebody else holds, and the ids that are of no window.

    Nobody's slowness is to hold up the other windows: what somebody else holds is left out.
    """
    locked = yield from LOCK_WINDOWS(offer_ids=list(window_ids))
    missing = set(window_ids).difference(window.id for window in locked)
    in_hand: list[Window] = []
    if missing:
        limits = yield from LOCK_LIMITS(limit_ids=sorted(missing))
        locked = [*locked, *limits]
        missing.difference_update(window.id for window in limits)
    if missing:
        in_hand = yield from REQUESTS_OF_OFFERS(offer_ids=sorted(missing))
        in_hand += yield from REQUESTS_OF_LIMITS(limit_ids=sorted(missing))
        missing.difference_update(window.id for window in in_hand)
    return locked, in_hand, missing


def _due_ms(stands: StoredRequest | Request, window_id: str) -> int | None:
    """Return when time has to do something about a window; ``None`` if it is not open any more."""
    if (offer := stands.offer) is not None and offer.offer_id == window_id:
        return offer.ends_at_ms
    if (limit := stands.limit) is not None and limit.id == window_id:
        return limit.rings_at_ms
    return None
