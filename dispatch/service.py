"""What mechanics, customers and operators do to requests: gathers, asks the core, commits, tells.

Every method is safe to repeat: nothing happens twice. Where a method does not say otherwise, a repetition is refused, because it
is so already (``wrong_state``). Expected outcomes come back as ``Refused`` values; ``DatabaseUnavailable`` means that nothing
happened, or that it happened and asking again will say so.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from weakref import WeakValueDictionary

import anyio

from dispatch import request_store
from dispatch.duty import Duty
from dispatch.effects import NOBODYS, Cause, MechanicBusy
from dispatch.eligibility import Standing, takes
from dispatch.outbox import Message, Outbox
from dispatch.request import (
    SERVING,
    AnotherWanted,
    Event,
    MechanicAccepted,
    MechanicDeclined,
    MechanicReleased,
    OperatorRefunded,
    OperatorSettled,
    RequestCancelled,
    SessionCompleted,
    SessionReported,
    SessionStarted,
    WaitSkipped,
    Windows,
)
from dispatch.request_store import LOCK_REQUEST_OF_OFFER, LockedOffer, LostRace, decide
from dispatch.showing import Showing
from dispatch.stored import READ_REQUESTS, SQL, Named, StoredRequest
from infra.clock import Clock
from infra.database import Database
from infra.statements import Statement, Transaction
from models.errors import DatabaseUnavailable
from models.outcomes import NotFound, OfferGone, Refused
from models.settings import DispatchSettings
from models.text import REASON_LEN_MAX, kept
from models.wire import RequestView
from models.words import RequestStatus, Settlement

TURN_TIMEOUT_S = 10.0
"""For waiting until the accepts of the same offer before one's own have been decided."""
TAKEN_LEN_MAX = 1_000
"""Broadcasts that this node remembers as taken, newest kept."""
TAKEN = SERVING | {RequestStatus.COMPLETED}
"""Whoever is assigned then has won it, whatever has become of the session since."""


ACKNOWLEDGE_OFFER = Statement(SQL / "acknowledge_offer.sql", Named)


@dataclass(frozen=True)
class Stepped:
    """What has come of an event: the request as it is then, and what is to be told; or why nothing has happened."""

    stored: StoredRequest
    messages: list[Message] = field(default_factory=list)
    refusal: Refused | None = None
    offer: LockedOffer | None = None
    """The offer that was named, as it was before."""


class Dispatch:
    """The request's life, on this node."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        outbox: Outbox,
        showing: Showing,
        windows: Windows,
        settings: DispatchSettings,
    ) -> None:
        self._database = database
        self._clock = clock
        self._outbox = outbox
        self._showing = showing
        self._settings = settings
        self._turns: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()
        self._taken_by: OrderedDict[str, str] = OrderedDict()
        self._duty = Duty(database=database, clock=clock, outbox=outbox, settings=settings)
        self._windows = windows

    async def run(self) -> None:
        """End breaks, until cancelled."""
        await self._duty.run()

    # --- what mechanics do --------------------------------------------------------------------------------------------

    async def accept(
        self, mechanic_id: str, offer_id: str, *, received_at_ms: int, connection_id: str | None = None
    ) -> RequestView | Refused:
        """Take the request. Repeating it after having won says so again, also when the session is over by now.

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
        is_theirs = stored.assigned_mechanic_id == mechanic_id and stored.status in TAKEN
        if outcome.refusal is not None and not is_theirs:
            return outcome.refusal
        return await self._showing.to(mechanic_id, stored)

    async def decline(
        self, mechanic_id: str, offer_id: str, reason: str | None = None, *, connection_id: str | None = None
    ) -> Refused | bool:
        """Do not be asked for this request again; ends a priority window at once. Repeating it changes nothing: ``False``.

        ``reason`` is kept in the story with a declined priority offer, for operators: its customer is told that the mechanic has
        declined, and not why. ``connection_id`` is the socket that declines.
        """
        # An app that leaves its field empty gives no reason; one of characters that nobody can see is a mistake.
        if reason is not None and (reason := reason.strip() or None):
            said = kept(reason, "reason", len_max=REASON_LEN_MAX, keeps_lines=True)
            if isinstance(said, Refused):
                return said
            reason = said
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
            # A request has one priority offer, so each is in its story once at most.
            told = {line.event for line in stored.story}
            events = [event for event in ("delivered", *(["seen"] if seen else [])) if event not in told]
            move = request_store.noted(stored, events, {"mechanic_id": mechanic_id})
            messages, _ = yield from request_store.carry_out([move], now_ms=now_ms)
            yield from self._outbox.add(messages)
            return messages

        self._outbox.post(await self._database.commit(work()))

    async def start(self, mechanic_id: str, request_id: str) -> RequestView | Refused:
        """Begin the session."""
        return await self._by_assigned(mechanic_id, request_id, SessionStarted(mechanic_id))

    async def complete(self, mechanic_id: str, request_id: str) -> RequestView | Refused:
        """End the session well. Repeating it, or its customer having done so, or time, answers the same."""
        return await self._by_assigned(mechanic_id, request_id, SessionCompleted(mechanic_id))

    async def release(self, mechanic_id: str, request_id: str) -> RequestView | Refused:
        """Give the request back: it is broadcast again, without this mechanic. Repeating it answers how it stands by then."""
        event = MechanicReleased(mechanic_id)
        stepped = await self._on_request(
            request_id, event, lambda stored: stored.assigned_mechanic_id == mechanic_id or _has_released(stored, event)
        )
        return await self._shown(mechanic_id, event, stepped)

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

    async def find_another(
        self, customer_id: str, request_id: str, mechanic_id: str | None = None
    ) -> RequestView | Refused:
        """Take the request from the mechanic who has accepted it, and ask all others.

        ``mechanic_id`` is whom the customer means: repeated, or late, it takes the request from nobody else. ``None``: whoever
        has it.
        """
        return await self._by_customer(customer_id, request_id, AnotherWanted(mechanic_id))

    async def complete_by_customer(self, customer_id: str, request_id: str) -> RequestView | Refused:
        """End the session; see ``complete``."""
        return await self._by_customer(customer_id, request_id, SessionCompleted(None))

    async def report(self, customer_id: str, request_id: str, reason: str) -> RequestView | Refused:
        """Say that something was wrong with a session; once, within seven days of its end. The operator sees it."""
        said = kept(reason, "reason", len_max=REASON_LEN_MAX, keeps_lines=True, is_optional=False)
        if isinstance(said, Refused):
            return said
        return await self._by_customer(customer_id, request_id, SessionReported(said))

    # --- what operators do --------------------------------------------------------------------------------------------

    async def refund(self, request_id: str, reason: str) -> RequestView | Refused:
        """Give back what was paid, in any state; before the session starts that cancels the request."""
        said = kept(reason, "reason", len_max=REASON_LEN_MAX, keeps_lines=True, is_optional=False)
        if isinstance(said, Refused):
            return said
        return await self._by_operator(request_id, OperatorRefunded(said))

    async def settle(self, request_id: str, as_: Settlement) -> RequestView | Refused:
        """End a request that is stuck."""
        return await self._by_operator(request_id, OperatorSettled(as_))

    # --- transitions --------------------------------------------------------------------------------------------------

    async def _by_customer(self, customer_id: str, request_id: str, event: Event) -> RequestView | Refused:
        stepped = await self._on_request(request_id, event, lambda stored: stored.customer_id == customer_id)
        return await self._shown(customer_id, event, stepped)

    async def _by_assigned(self, mechanic_id: str, request_id: str, event: Event) -> RequestView | Refused:
        stepped = await self._on_request(request_id, event, lambda stored: stored.assigned_mechanic_id == mechanic_id)
        return await self._shown(mechanic_id, event, stepped)

    async def _by_operator(self, request_id: str, event: Event) -> RequestView | Refused:
        return await self._shown(None, event, await self._on_request(request_id, event, lambda _: True))

    async def _shown(self, account_id: str | None, event: Event, outcome: Stepped | Refused) -> RequestView | Refused:
        """Return what somebody is answered: of what is so already, a completed session say, the same as whoever has done it."""
        if isinstance(outcome, Refused):
            return outcome
        if outcome.refusal is not None and not _is_so_already(event, outcome.stored):
            return outcome.refusal
        return await self._showing.to(account_id, outcome.stored)

    async def _on_request(
        self, request_id: str, event: Event, is_theirs: Callable[[StoredRequest], bool]
    ) -> Stepped | Refused:
        """Take one step of a request, for somebody whose it is; to anybody else there is none."""

        def work() -> Transaction[Stepped | Refused]:
            stored = yield from request_store.load(request_id)
            if stored is None or not is_theirs(stored):
                return NotFound(detail="There is no such request.")
            return (yield from self._step(stored, event))

        return await self._decided(request_id, work)

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
                takes_it = takes(offer.asking_types_off, stored.session_type)
                heard = replace(event, takes_it=takes_it, closed=offer.close_reason)
            elif isinstance(event, MechanicDeclined):
                heard = replace(event, closed=offer.close_reason)
            stepped = yield from self._step(stored, heard, cause)
            return replace(stepped, offer=offer)

        return await self._decided(offer_id, work)

    def _step(self, stored: StoredRequest, event: Event, cause: Cause = NOBODYS) -> Transaction[Stepped]:
        """Let the core decide, and write what it has decided."""
        now_ms = self._clock.now_ms()
        move = decide(stored, event, now_ms=now_ms, windows=self._windows)
        if isinstance(move, Refused):
            return Stepped(stored, refusal=move)
        messages, [after] = yield from request_store.carry_out([move], now_ms=now_ms, cause=cause)
        yield from self._outbox.add(messages)
        return Stepped(after, messages)

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

    def _note_taken(self, offer_id: str, outcome: Stepped) -> None:
        """Remember who took a broadcast: it never opens again, so whoever else wants it need not ask the database."""
        offer = outcome.offer
        # Not who has the request by now: whoever took it may have come to lose it.
        if offer is not None and offer.mechanic_id is None and offer.taken_by_id is not None:
            self._taken_by[offer_id] = offer.taken_by_id
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


def _is_so_already(event: Event, stored: StoredRequest) -> bool:
    match event:
        case SessionCompleted():
            return stored.status == RequestStatus.COMPLETED
        case MechanicReleased():
            return _has_released(stored, event)
        case OperatorRefunded():
            return stored.refund_status is not None
        case _:
            return False


def _has_released(stored: StoredRequest, event: MechanicReleased) -> bool:
    """Tell whether a mechanic has given the request back: they may see what has become of it, as they hear it on a socket."""
    return stored.lost_by.get(event.mechanic_id) == "released"
