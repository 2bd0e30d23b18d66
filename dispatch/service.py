"""What mechanics and customers do to requests, and what time does: gathers, asks the core, commits, tells.

Every method is safe to repeat. Expected outcomes come back as ``Refused`` values; ``DatabaseUnavailable`` means that nothing
happened, or that it happened and asking again will say so.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from weakref import WeakValueDictionary

import anyio
import structlog
from sqlalchemy import update
from sqlmodel import col, select

from dispatch import request_store
from dispatch.deadlines import Deadlines
from dispatch.effects import Cause
from dispatch.eligibility import Standing
from dispatch.failures import Failures, Patience
from dispatch.notices import FactsChanged, RequestChanged
from dispatch.outbox import Message, Outbox
from dispatch.reading.reader import Reader
from dispatch.reading.views import request_view
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
from dispatch.request_store import LostRace, MechanicBusy, Move
from infra.clock import RedisClock
from infra.database import Database
from infra.loops import in_halves, keep_running
from infra.metrics import FALLBACK_LATENESS
from models import tables
from models.errors import DatabaseUnavailable, Unavailable
from models.ids import is_id, new_id
from models.outcomes import NotFound, OfferGone, Refused
from models.settings import DispatchSettings
from models.wire import RequestView

RECONCILE_BATCH = 10_000
TURN_TIMEOUT_S = 10.0
"""For waiting until the accepts of the same offer before one's own have been decided."""
IN_HAND_RETRY_MS = 20
"""When to look again at a window whose request somebody else had in hand."""
TAKEN_LEN_MAX = 1_000
"""Broadcasts that this node remembers as taken, newest kept."""


class Dispatch:
    """The request's life, on this node."""

    def __init__(
        self,
        *,
        database: Database,
        clock: RedisClock,
        reader: Reader,
        deadlines: Deadlines,
        outbox: Outbox,
        settings: DispatchSettings,
    ) -> None:
        self._database = database
        self._clock = clock
        self._reader = reader
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
        self.windows = Windows(settings.priority_window_ms, settings.broadcast_window_ms)
        self._log = structlog.get_logger("dispatch")

    async def run(self) -> None:
        """End windows on time, and restore from SQL what Redis has lost, until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_running, "windows", partial(self._deadlines.run, self._windows_elapsed))
            tasks.start_soon(keep_running, "deadlines_reconciler", self._reconcile)

    # --- what mechanics do --------------------------------------------------------------------------------------------

    async def accept(
        self, mechanic_id: str, offer_id: str, *, received_at_ms: int, connection_id: str | None = None
    ) -> RequestView | Refused:
        """Take the request. Repeating it after having won answers the same again.

        ``received_at_ms`` is when the accept reached a server; ``connection_id`` the socket that gets the answer.
        """
        event = MechanicAccepted(mechanic_id, offer_id, received_at_ms)
        async with self._turn(offer_id):
            if self._taken_by.get(offer_id, mechanic_id) != mechanic_id:
                return OfferGone(detail="Another mechanic was faster.")
            outcome = await self._on_offer(mechanic_id, offer_id, event, cause=Cause(connection_id, offer_id))
            if isinstance(outcome, OfferGone):
                return await self._own_session(mechanic_id, offer_id) or outcome
            return outcome

    async def decline(self, mechanic_id: str, offer_id: str, reason: str | None = None) -> Refused | None:
        """Do not be asked for this request again; ends a priority window at once. Repeating it changes nothing."""
        outcome = await self._on_offer(mechanic_id, offer_id, MechanicDeclined(mechanic_id, offer_id, reason))
        if isinstance(outcome, Refused) and not await self._has_declined(mechanic_id, offer_id):
            return outcome
        return None

    async def acknowledge(self, mechanic_id: str, offer_id: str) -> None:
        """Note, once, that a priority offer has reached the favourite's app, and tell the customer."""
        async with self._database.read() as session:
            offer = await session.get(tables.Offer, offer_id)
        if offer is None or offer.mechanic_id != mechanic_id or offer.delivered_at_ms is not None:
            return
        now_ms = self._clock.now_ms()
        async with self._database.write() as session:
            await request_store.lock(session, [offer.request_id])
            first = await session.exec(
                update(tables.Offer)
                .where(
                    col(tables.Offer.id) == offer_id,
                    col(tables.Offer.closed_at_ms).is_(None),
                    col(tables.Offer.delivered_at_ms).is_(None),
                )
                .values(delivered_at_ms=now_ms)
                .returning(col(tables.Offer.id))
            )
            if first.first() is None:
                return
            await request_store.record(
                session, offer.request_id, "delivered", {"mechanic_id": mechanic_id}, now_ms=now_ms
            )
            messages = [Message.of(RequestChanged(offer.request_id))]
            await self._outbox.add(session, messages)
        self._outbox.post(messages)

    async def start(self, mechanic_id: str, request_id: str) -> RequestView | Refused:
        """Begin the session."""
        return await self._by_assigned(mechanic_id, request_id, SessionStarted(mechanic_id))

    async def complete(self, mechanic_id: str, request_id: str) -> RequestView | Refused:
        """End the session well."""
        return await self._by_assigned(mechanic_id, request_id, SessionCompleted(mechanic_id))

    async def release(self, mechanic_id: str, request_id: str) -> RequestView | Refused:
        """Give the request back: it is broadcast again, without this mechanic."""
        return await self._by_assigned(mechanic_id, request_id, MechanicReleased(mechanic_id))

    async def set_on_duty(self, mechanic_id: str, on_duty: bool) -> Standing | Refused:
        """Remember whether the mechanic wants to be asked."""
        async with self._database.write() as session:
            # Counted by the database: an accept on another node may raise the version at the same time.
            changed = await session.exec(
                update(tables.Mechanic)
                .where(col(tables.Mechanic.id) == mechanic_id, col(tables.Mechanic.on_duty) != on_duty)
                .values(on_duty=on_duty, facts_version=tables.Mechanic.facts_version + 1)
                .returning(col(tables.Mechanic.id))
            )
            messages = [Message.of(FactsChanged(found_id)) for found_id in changed.scalars()]
            await self._outbox.add(session, messages)
            mechanic = await session.get(tables.Mechanic, mechanic_id)
            if mechanic is None:
                return NotFound("mechanic_not_found", "There is no such mechanic.")
            standing = Standing(on_duty, mechanic.active_request_id is not None)
        self._outbox.post(messages)
        return standing

    # --- what customers do --------------------------------------------------------------------------------------------

    async def skip_wait(self, customer_id: str, request_id: str) -> RequestView | Refused:
        """End the priority window now and ask everyone."""
        return await self._by_customer(customer_id, request_id, WaitSkipped())

    async def cancel(self, customer_id: str, request_id: str) -> RequestView | Refused:
        """Cancel before the session starts; what was paid goes back."""
        return await self._by_customer(customer_id, request_id, RequestCancelled())

    # --- transitions --------------------------------------------------------------------------------------------------

    async def _by_customer(self, customer_id: str, request_id: str, event: Event) -> RequestView | Refused:
        async with self._database.read() as session:
            row = await session.get(tables.SessionRequest, request_id)
        if row is None or row.customer_id != customer_id:
            return NotFound(detail="There is no such request.")
        return await self._transition(request_id, event)

    async def _by_assigned(self, mechanic_id: str, request_id: str, event: Event) -> RequestView | Refused:
        return await self._transition(request_id, event, only_for=mechanic_id)

    async def _on_offer(
        self, mechanic_id: str, offer_id: str, event: Event, *, cause: Cause | None = None
    ) -> RequestView | Refused:
        async with self._database.read() as session:
            offer = await session.get(tables.Offer, offer_id)
        # An offer to somebody else looks like one that never was.
        if offer is None or offer.mechanic_id not in (None, mechanic_id):
            return NotFound(detail="There is no such offer for you.")
        return await self._transition(offer.request_id, event, cause=cause)

    async def _transition(
        self,
        request_id: str,
        event: Event,
        *,
        cause: Cause | None = None,
        only_for: str | None = None,
    ) -> RequestView | Refused:
        """Take one step: reload and decide anew as often as somebody else was faster, within a bound."""
        for _ in range(self._settings.race_tries_max):
            try:
                async with self._database.write() as session:
                    before = (await request_store.load(session, [request_id])).get(request_id)
                    if before is None or (only_for is not None and before.assigned_mechanic_id != only_for):
                        return NotFound(detail="There is no such request.")
                    now_ms = self._clock.now_ms()
                    outcome = step(before, event, now_ms=now_ms, next_offer_id=new_id(), windows=self.windows)
                    if isinstance(outcome, Refused):
                        return outcome
                    messages = await request_store.commit(
                        session, [Move(before, *outcome)], now_ms=now_ms, cause=cause or Cause()
                    )
                    await self._outbox.add(session, messages)
                    seen = await request_view(session, request_id, now_ms=now_ms)
            except LostRace:
                continue
            except MechanicBusy:
                return Refused("already_in_session", "You are in a session already; complete it or give it back first.")
            self._outbox.post(messages)
            assert seen is not None, "the request was there a moment ago, in this very transaction"
            return seen.view
        raise DatabaseUnavailable(f"Request {request_id} changed {self._settings.race_tries_max} times while deciding.")

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

    async def _own_session(self, mechanic_id: str, offer_id: str) -> RequestView | None:
        """Return the request of this offer if the mechanic has it: a repeated accept of the winner's is no loss."""
        async with self._database.read() as session:
            offer = await session.get(tables.Offer, offer_id)
            request = await session.get(tables.SessionRequest, offer.request_id) if offer else None
        if offer is None or request is None:
            return None
        if offer.mechanic_id is None and offer.close_reason == "taken":
            # A broadcast that was taken never opens again: whoever else wants it need not ask the database.
            self._taken_by[offer_id] = request.assigned_mechanic_id
            if len(self._taken_by) > TAKEN_LEN_MAX:
                self._taken_by.popitem(last=False)
        active = (await self._reader.active_requests([mechanic_id])).get(mechanic_id)
        return active if active and active.id == offer.request_id else None

    async def _has_declined(self, mechanic_id: str, offer_id: str) -> bool:
        async with self._database.read() as session:
            offer = await session.get(tables.Offer, offer_id)
            return (
                offer is not None and await session.get(tables.Exclusion, (offer.request_id, mechanic_id)) is not None
            )

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
            in_hand = await self._end_windows(together, now_ms)
            put_off_ms.update(dict.fromkeys(in_hand, IN_HAND_RETRY_MS))

        async def note(offer_id: str, error: Exception) -> None:
            if (delay_ms := await self._failures.count(offer_id, error)) is not None:
                put_off_ms[offer_id] = delay_ms

        await in_halves(ours, end, note)
        return put_off_ms

    async def _end_windows(self, offer_ids: Sequence[str], now_ms: int) -> Collection[str]:
        """End windows, all in one transaction; return those whose requests somebody else has in hand just now."""
        moves: list[Move] = []
        in_hand: set[str] = set()
        try:
            async with self._database.write() as session:
                request_of = await request_store.requests_of(session, offer_ids)
                # Nobody's slowness is to hold up the other windows.
                standing = await request_store.load(session, request_of.values(), skip_locked=True)
                unlocked = set(request_of.values()) - standing.keys()
                if unlocked != await request_store.known(session, unlocked):
                    raise LookupError("There is no such request.")
                for offer_id, request_id in request_of.items():
                    if request_id not in standing:
                        in_hand.add(offer_id)
                        continue
                    before, event = standing[request_id], WindowElapsed(offer_id)
                    outcome = step(before, event, now_ms=now_ms, next_offer_id=new_id(), windows=self.windows)
                    if not isinstance(outcome, Refused):
                        moves.append(Move(before, *outcome))
                messages = await request_store.commit(session, moves, now_ms=now_ms, cause=Cause())
                await self._outbox.add(session, messages)
        except LostRace:
            return offer_ids
        self._outbox.post(messages)
        if unknown := set(offer_ids) - request_of.keys():
            self._log.warning("deadlines_of_unknown_offers", offer_ids=sorted(unknown))
        if moves:
            self._note_ended(moves)
        return in_hand

    def _note_ended(self, moves: Sequence[Move]) -> None:
        """Measure how late the windows ended, and say so in one line: they come by the hundred."""
        now_ms = self._clock.now_ms()
        late_ms: dict[str, int] = {}
        for window in (move.before.offer for move in moves):
            assert window is not None, "only an open window can end"
            late_ms[window.offer_id] = now_ms - window.ends_at_ms
            FALLBACK_LATENESS.labels(window.kind.value).observe(late_ms[window.offer_id] / 1000)
        self._log.info("windows_ended", count=len(late_ms), late_ms_max=max(late_ms.values()), offer_ids=list(late_ms))

    async def _reconcile(self) -> None:
        """Put back on the clock what Redis does not know: at start, periodically, and at once when it has lost its memory."""
        while True:
            try:
                async with self._database.read() as session:
                    open_offers = await session.exec(
                        select(tables.Offer.id, tables.Offer.kind, tables.Offer.expires_at_ms)
                        .where(col(tables.Offer.closed_at_ms).is_(None))
                        .order_by(col(tables.Offer.expires_at_ms))
                        .limit(RECONCILE_BATCH)
                    )
                    deadlines = [(offer_id, ends_at_ms(kind, at_ms)) for offer_id, kind, at_ms in open_offers]
                if restored := await self._deadlines.restore(*deadlines):
                    self._log.info("deadlines_restored", count=restored)
            except Unavailable as error:
                self._log.warning("not_reconciled", error=str(error))
            with anyio.move_on_after(self._settings.reconcile_interval_ms / 1000):
                await self._deadlines.forgotten()
