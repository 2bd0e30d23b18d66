"""What mechanics and customers do to requests, and what time does: gathers, asks the core, commits, tells.

Every method is safe to repeat. Expected outcomes come back as ``Refused`` values; ``DatabaseUnavailable`` means that nothing
happened, or that it happened and asking again will say so.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from weakref import WeakValueDictionary

import anyio
import structlog

from dispatch import request_store
from dispatch.deadlines import Deadlines
from dispatch.duty import Duty
from dispatch.effects import NOBODYS, Cause, MechanicBusy
from dispatch.eligibility import Standing, takes
from dispatch.failures import Failures, Patience
from dispatch.outbox import Message, Outbox
from dispatch.request import (
    Event,
    MechanicAccepted,
    MechanicDeclined,
    MechanicReleased,
    RequestCancelled,
    SessionCompleted,
    SessionStarted,
    WaitSkipped,
    WindowElapsed,
    Windows,
    ends_at_ms,
    step,
)
from dispatch.request_store import LOCK_REQUEST_OF_OFFER, LOCK_WINDOWS, LockedOffer, LostRace, Move
from dispatch.stored import READ_REQUESTS, REQUESTS_OF_OFFERS, SQL, StoredRequest
from dispatch.views import request_view
from infra.clock import RedisClock
from infra.database import Database
from infra.loops import in_halves, keep_running
from infra.metrics import LATENESS_OF
from infra.statements import Statement, Transaction
from models import tables
from models.errors import DatabaseUnavailable, Unavailable
from models.ids import is_id, new_id
from models.outcomes import NotFound, OfferGone, Refused
from models.settings import DispatchSettings
from models.text import cleaned
from models.wire import RequestView
from models.words import RequestStatus, WithdrawReason

RECONCILE_BATCH = 10_000
TURN_TIMEOUT_S = 10.0
"""For waiting until the accepts of the same offer before one's own have been decided."""
IN_HAND_RETRY_MS = 20
"""When to look again at a window whose request somebody else had in hand."""
OUTAGES_MAX = 10
"""How often a batch of windows may meet a broken world until the rest waits for its claims: enough to find one by halving."""
TAKEN_LEN_MAX = 1_000
"""Broadcasts that this node remembers as taken, newest kept."""
IN_SESSION = (RequestStatus.ACCEPTED, RequestStatus.IN_PROGRESS)


@dataclass(frozen=True)
class Acknowledged:
    """A row of ``acknowledge_offer``: what it has noted that had not been before."""

    is_delivered: bool
    is_seen: bool


ACKNOWLEDGE_OFFER = Statement(SQL / "acknowledge_offer.sql", Acknowledged)


@dataclass(frozen=True)
class OpenDeadline:
    """A row of ``open_deadlines``."""

    id: str
    kind: str
    expires_at_ms: int


OPEN_DEADLINES = Statement(SQL / "open_deadlines.sql", OpenDeadline, leaves_out="windows")


@dataclass(frozen=True)
class Stepped:
    """What has come of an event: the request as it is then, and what is to be told; or why nothing has happened."""

    stored: StoredRequest
    messages: list[Message] = field(default_factory=list)
    refusal: Refused | None = None
    offer: LockedOffer | None = None
    """The offer that was named, as it was before."""


@dataclass(frozen=True)
class Elapsed:
    """What has come of windows that were looked at together."""

    messages: Sequence[Message]
    moves: Sequence[Move]
    put_off_ms: Mapping[str, int]
    """Which are not over, and in how many ms to look at them again."""
    unknown: Collection[str]
    """Ids that are no offers."""


class Dispatch:
    """The request's life, on this node."""

    def __init__(
        self,
        *,
        database: Database,
        clock: RedisClock,
        deadlines: Deadlines,
        outbox: Outbox,
        settings: DispatchSettings,
    ) -> None:
        self._database = database
        self._clock = clock
        self._outbox = outbox
        self._settings = settings
        self._deadlines = deadlines
        self._failures = Failures(
            tables.Offer,
            database=database,
            clock=clock,
            # Money hangs on it: a window that an operator has been shown is still tried.
            patience=replace(Patience.of(settings), gives_up=False),
        )
        self._turns: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()
        self._taken_by: OrderedDict[str, str | None] = OrderedDict()
        self._duty = Duty(database=database, clock=clock, outbox=outbox, settings=settings)
        self._windows = Windows(settings.priority_window_ms, settings.broadcast_window_ms)
        self._log = structlog.get_logger("dispatch")

    async def run(self) -> None:
        """End windows and breaks on time, and restore from SQL what Redis has lost, until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_running, "windows", partial(self._deadlines.run, self._windows_elapsed))
            tasks.start_soon(keep_running, "deadlines_reconciler", self._reconcile)
            tasks.start_soon(self._duty.run)

    # --- what mechanics do --------------------------------------------------------------------------------------------

    async def accept(
        self, mechanic_id: str, offer_id: str, *, received_at_ms: int, connection_id: str | None = None
    ) -> RequestView | Refused:
        """Take the request. Repeating it after having won answers the same again.

        ``received_at_ms`` is when the accept reached a server; ``connection_id`` the socket that accepts and gets the answer.
        """
        event = MechanicAccepted(mechanic_id, offer_id, received_at_ms)
        async with self._turn(offer_id):
            if self._taken_by.get(offer_id, mechanic_id) != mechanic_id:
                return OfferGone(detail="Another mechanic was faster.")
            outcome = await self._on_offer(mechanic_id, offer_id, event, connection_id=connection_id)
            if not isinstance(outcome, Stepped):
                return outcome
            if outcome.refusal is not None:
                self._note_taken(offer_id, outcome)
        stored = outcome.stored
        # A repeated accept of the winner's is no loss.
        is_theirs = stored.assigned_mechanic_id == mechanic_id and stored.status in IN_SESSION
        return self._view(stored) if is_theirs or outcome.refusal is None else outcome.refusal

    async def decline(
        self, mechanic_id: str, offer_id: str, reason: str | None = None, *, connection_id: str | None = None
    ) -> Refused | bool:
        """Do not be asked for this request again; ends a priority window at once. Repeating it changes nothing: ``False``.

        ``reason`` is kept in the story with a declined priority offer, for operators: its customer is told that the mechanic has
        declined, and not why. ``connection_id`` is the socket that declines.
        """
        # An app that leaves its field empty gives no reason; one of characters that nobody can see is a mistake.
        if reason is not None and (reason := reason.strip() or None):
            reason = cleaned(reason, keeps_lines=True)
            if not reason:
                detail = "The reason has no character that can be seen; leave it out instead."
                return Refused("validation_failed", detail, member="reason")
        event = MechanicDeclined(mechanic_id, offer_id, reason)
        outcome = await self._on_offer(mechanic_id, offer_id, event, connection_id=connection_id)
        if not isinstance(outcome, Stepped):
            return outcome
        if outcome.refusal is None:
            return True
        return False if mechanic_id in outcome.stored.excluded else outcome.refusal

    async def acknowledge(self, mechanic_id: str, offer_id: str, *, seen: bool = False) -> None:
        """Note, once, that a priority offer has reached the favourite's app, or that a person could see it; tell the customer."""
        now_ms = self._clock.now_ms()

        def work() -> Transaction[list[Message]]:
            locked = yield from LOCK_REQUEST_OF_OFFER(offer_id=offer_id, mechanic_id=mechanic_id)
            if not locked or locked[0].mechanic_id != mechanic_id:
                return []
            noted = yield from ACKNOWLEDGE_OFFER(offer_id=offer_id, at_ms=now_ms, is_seen=seen)
            if not noted:
                return []
            [stored] = yield from READ_REQUESTS(ids=[locked[0].request_id])
            events = [
                event for event, is_new in (("delivered", noted[0].is_delivered), ("seen", noted[0].is_seen)) if is_new
            ]
            move = request_store.noted(stored, events, {"mechanic_id": mechanic_id})
            messages, _ = yield from request_store.carry_out([move], now_ms=now_ms)
            yield from self._outbox.add(messages)
            return messages

        self._outbox.post(await self._database.commit(work()))

    async def start(self, mechanic_id: str, request_id: str) -> RequestView | Refused:
        """Begin the session."""
        return await self._by_assigned(mechanic_id, request_id, SessionStarted(mechanic_id))

    async def complete(self, mechanic_id: str, request_id: str) -> RequestView | Refused:
        """End the session well."""
        return await self._by_assigned(mechanic_id, request_id, SessionCompleted(mechanic_id))

    async def release(self, mechanic_id: str, request_id: str) -> RequestView | Refused:
        """Give the request back: it is broadcast again, without this mechanic."""
        return await self._by_assigned(mechanic_id, request_id, MechanicReleased(mechanic_id))

    async def set_on_duty(
        self, mechanic_id: str, on_duty: bool, *, back_in_s: int | None = None, off_after_session: bool = False
    ) -> Standing | Refused:
        """Remember whether the mechanic wants to be asked, and what is to follow by itself; see ``Duty.set``."""
        return await self._duty.set(mechanic_id, on_duty, back_in_s=back_in_s, off_after_session=off_after_session)

    # --- what customers do --------------------------------------------------------------------------------------------

    async def skip_wait(self, customer_id: str, request_id: str) -> RequestView | Refused:
        """End the priority window now and ask everyone."""
        return await self._by_customer(customer_id, request_id, WaitSkipped())

    async def cancel(self, customer_id: str, request_id: str) -> RequestView | Refused:
        """Cancel before the session starts; what was paid goes back."""
        return await self._by_customer(customer_id, request_id, RequestCancelled())

    # --- transitions --------------------------------------------------------------------------------------------------

    async def _by_customer(self, customer_id: str, request_id: str, event: Event) -> RequestView | Refused:
        return await self._on_request(request_id, event, lambda stored: stored.customer_id == customer_id)

    async def _by_assigned(self, mechanic_id: str, request_id: str, event: Event) -> RequestView | Refused:
        return await self._on_request(request_id, event, lambda stored: stored.assigned_mechanic_id == mechanic_id)

    async def _on_request(
        self, request_id: str, event: Event, is_theirs: Callable[[StoredRequest], bool]
    ) -> RequestView | Refused:
        """Take one step of a request, for somebody whose it is; to anybody else there is none."""

        def work() -> Transaction[Stepped | Refused]:
            stored = yield from request_store.load(request_id)
            if stored is None or not is_theirs(stored):
                return NotFound(detail="There is no such request.")
            return (yield from self._step(stored, event))

        outcome = await self._decided(request_id, work)
        if not isinstance(outcome, Stepped):
            return outcome
        return outcome.refusal or self._view(outcome.stored)

    async def _on_offer(
        self, mechanic_id: str, offer_id: str, event: Event, *, connection_id: str | None = None
    ) -> Stepped | Refused:
        """Take one step of the request that an offer is of; to somebody else the offer looks like one that never was."""

        def work() -> Transaction[Stepped | Refused]:
            locked = yield from LOCK_REQUEST_OF_OFFER(offer_id=offer_id, mechanic_id=mechanic_id)
            if not locked or locked[0].mechanic_id not in (None, mechanic_id):
                return NotFound(detail="There is no such offer for you.")
            offer = locked[0]
            [stored] = yield from READ_REQUESTS(ids=[offer.request_id])
            cause = Cause(mechanic_id, connection_id, offer_id, {mechanic_id: offer.asking_name})
            heard = event
            if isinstance(event, MechanicAccepted):
                heard = replace(event, takes_it=takes(offer.asking_types_off, stored.session_type))
            stepped = yield from self._step(stored, heard, cause)
            return replace(stepped, offer=offer)

        return await self._decided(offer_id, work)

    def _step(self, stored: StoredRequest, event: Event, cause: Cause = NOBODYS) -> Transaction[Stepped]:
        """Let the core decide, and write what it has decided."""
        now_ms = self._clock.now_ms()
        move = self._move(stored, event, now_ms)
        if isinstance(move, Refused):
            return Stepped(stored, refusal=move)
        messages, [after] = yield from request_store.carry_out([move], now_ms=now_ms, cause=cause)
        yield from self._outbox.add(messages)
        return Stepped(after, messages)

    def _move(self, stored: StoredRequest, event: Event, now_ms: int) -> Move | Refused:
        """Return what the core decides."""
        before = stored.as_decided_by()
        outcome = step(before, event, now_ms=now_ms, next_offer_id=new_id(), windows=self._windows)
        return outcome if isinstance(outcome, Refused) else Move(stored, *outcome)

    async def _decided(self, what_id: str, work: Callable[[], Transaction[Stepped | Refused]]) -> Stepped | Refused:
        """Run a step to its commit and have it told: anew as often as somebody else was faster, within a bound."""
        for _ in range(self._settings.race_tries_max):
            try:
                outcome = await self._database.commit(work())
            except LostRace:
                continue
            except MechanicBusy:
                return Refused("already_in_session", "You are in a session already; complete it or give it back first.")
            if isinstance(outcome, Stepped):
                self._outbox.post(outcome.messages)
            return outcome
        raise DatabaseUnavailable(f"{what_id} changed {self._settings.race_tries_max} times while deciding.")

    def _view(self, stored: StoredRequest) -> RequestView:
        return request_view(stored, now_ms=self._clock.now_ms())

    def _note_taken(self, offer_id: str, outcome: Stepped) -> None:
        """Remember who took a broadcast: it never opens again, so whoever else wants it need not ask the database."""
        offer = outcome.offer
        if offer is not None and offer.mechanic_id is None and offer.close_reason == WithdrawReason.TAKEN:
            self._taken_by[offer_id] = outcome.stored.assigned_mechanic_id
            if len(self._taken_by) > TAKEN_LEN_MAX:
                self._taken_by.popitem(last=False)

    @asynccontextmanager
    async def _turn(self, offer_id: str) -> AsyncIterator[None]:
        """Let the accepts of one offer into the database one after the other, in the order in which they came to this node.

        A thousand side by side would all wait for the same row, and meanwhile nobody else would get a connection: not even those
        who are to tell the thousand that it is taken.
        """
        turn = self._turns.setdefault(offer_id, anyio.Lock())
        try:
            with anyio.fail_after(TURN_TIMEOUT_S):
                await turn.acquire()
        except TimeoutError as error:
            raise DatabaseUnavailable(
                f"The accepts of offer {offer_id} before this one are not decided yet."
            ) from error
        try:
            yield
        finally:
            turn.release()

    # --- what time does -----------------------------------------------------------------------------------------------

    async def _windows_elapsed(self, offer_ids: Sequence[str], now_ms: int) -> Mapping[str, int]:
        """End windows; return those that could not be ended, and in how many ms to look at them again.

        All in one transaction, unless one of them fails it.
        """
        put_off_ms: dict[str, int] = {}
        ours = [offer_id for offer_id in offer_ids if is_id(offer_id)]
        if len(ours) < len(offer_ids):
            self._log.warning("deadlines_of_no_offers", count=len(offer_ids) - len(ours))

        async def end(together: Sequence[str]) -> None:
            put_off_ms.update(await self._end_windows(together, now_ms))

        async def note(offer_id: str, error: Exception) -> None:
            if isinstance(error, Unavailable):
                # Its claim ends by itself.
                put_off_ms[offer_id] = self._settings.claim_lease_ms
            elif (delay_ms := await self._failures.count(offer_id, error)) is not None:
                put_off_ms[offer_id] = delay_ms

        # What one of them waits for in vain (a row that somebody else holds) must not keep the others waiting, too.
        await in_halves(ours, end, note, outages_max=OUTAGES_MAX)
        return put_off_ms

    async def _end_windows(self, offer_ids: Sequence[str], now_ms: int) -> Mapping[str, int]:
        """End windows, all in one transaction; return those that are not over, and in how many ms to look at them again."""

        def work() -> Transaction[Elapsed]:
            # Nobody's slowness is to hold up the other windows: what somebody else holds is left out.
            locked = yield from LOCK_WINDOWS(offer_ids=list(offer_ids))
            missing = set(offer_ids).difference(window.offer_id for window in locked)
            in_hand = (yield from REQUESTS_OF_OFFERS(offer_ids=sorted(missing))) if missing else []
            stored_of = {one.id: one for one in (yield from READ_REQUESTS(ids=[one.request_id for one in locked]))}
            put_off_ms = dict.fromkeys((window.offer_id for window in in_hand), IN_HAND_RETRY_MS)
            moves: list[Move] = []
            for window in locked:
                stored = stored_of[window.request_id]
                move = self._move(stored, WindowElapsed(window.offer_id), now_ms)
                if not isinstance(move, Refused):
                    moves.append(move)
                elif (offer := stored.offer) is not None and offer.offer_id == window.offer_id:
                    # Redis has lost its key; SQL knows better.
                    put_off_ms[offer.offer_id] = max(IN_HAND_RETRY_MS, offer.ends_at_ms - now_ms)
            messages, _ = yield from request_store.carry_out(moves, now_ms=now_ms)
            yield from self._outbox.add(messages)
            return Elapsed(messages, moves, put_off_ms, unknown=missing - put_off_ms.keys())

        try:
            elapsed = await self._database.commit(work())
        except LostRace:
            return dict.fromkeys(offer_ids, IN_HAND_RETRY_MS)
        self._outbox.post(elapsed.messages)
        if elapsed.unknown:
            self._log.warning("deadlines_of_unknown_offers", offer_ids=sorted(elapsed.unknown))
        if elapsed.moves:
            self._note_ended(elapsed.moves)
        return elapsed.put_off_ms

    def _note_ended(self, moves: Sequence[Move]) -> None:
        """Measure how late the windows ended, and say so in one line: they come by the hundred."""
        now_ms = self._clock.now_ms()
        late_ms: dict[str, int] = {}
        for window in (move.stored.offer for move in moves):
            assert window is not None, "only an open window can end"
            late_ms[window.offer_id] = now_ms - window.ends_at_ms
            LATENESS_OF[window.kind].observe(late_ms[window.offer_id] / 1000)
        self._log.info("windows_ended", count=len(late_ms), late_ms_max=max(late_ms.values()), offer_ids=list(late_ms))

    async def _reconcile(self) -> None:
        """Put back on the clock what Redis does not know: at start, periodically, and at once when it has lost its memory."""
        while True:
            try:
                open_offers = await self._database.query(OPEN_DEADLINES(limit=RECONCILE_BATCH))
                deadlines = [(offer.id, ends_at_ms(offer.kind, offer.expires_at_ms)) for offer in open_offers]
                if restored := await self._deadlines.restore(*deadlines):
                    self._log.info("deadlines_restored", count=restored)
            except Unavailable as error:
                self._log.warning("not_reconciled", error=str(error))
            with anyio.move_on_after(self._settings.reconcile_interval_ms / 1000):
                await self._deadlines.forgotten()
