"""Simulated mechanics: each over a real socket and the real REST calls, like the app of a person.

SimulatedMechanic ── habits ──► connected or away ──► Visit (one connection) ──► accept ──► start ──► complete
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

import anyio
import httpx
import msgspec
import structlog
from anyio.abc import TaskGroup
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from demo import characters
from demo.characters import Action, Character, Whereabouts
from models import wire
from models.wire import OfferView, RequestView

ANSWER_TIMEOUT_S = 10.0
FAILURES_BEFORE_WARNING = 3
"""A server that restarts is nothing to tell an operator; one that stays away is."""

_decoder = msgspec.json.Decoder(wire.ToMechanic)
_log = structlog.get_logger("demo")


@dataclass(frozen=True)
class Way:
    """How a mechanic reaches the server. ``token`` returns a fresh bearer token."""

    socket_url: str
    rest: httpx.AsyncClient
    token: Callable[[], str]

    @property
    def headers(self) -> dict[str, str]:
        """What proves who is calling."""
        return {"Authorization": f"Bearer {self.token()}"}


class Habits:
    """Where somebody is now, and the event of its change."""

    def __init__(self, character: Character, random: Random) -> None:
        self._spells = characters.spells(character, random)
        self._random = random
        first = next(self._spells)
        self.whereabouts = first.whereabouts
        self.changed = anyio.Event()
        self._lasts_s = first.lasts_s

    def are_away(self) -> bool:
        """Whether they want no connection now."""
        return self.whereabouts is Whereabouts.AWAY

    async def keep(self) -> None:
        """Move on as time passes; returns when the habits say to stay for good."""
        while self._lasts_s is not None:
            await anyio.sleep(self._lasts_s)
            spell = next(self._spells)
            self.whereabouts, self._lasts_s = spell.whereabouts, spell.lasts_s
            changed, self.changed = self.changed, anyio.Event()
            changed.set()


class SimulatedMechanic:
    """One mechanic, for as long as the demo runs."""

    def __init__(self, name: str, character: Character, way: Way, random: Random) -> None:
        self._character = character
        self._way = way
        self._random = random
        self._habits = Habits(character, random)
        self._failures = 0
        self._log = _log.bind(mechanic=name)

    async def run(self) -> None:
        """Come and go until cancelled. Whatever fails is logged, and tried again after a while."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._habits.keep)
            while True:
                while self._habits.are_away():
                    await self._habits.changed.wait()
                await self._visit()
                if not self._habits.are_away():
                    await anyio.sleep(characters.backoff_s(self._failures, self._random))

    async def _visit(self) -> None:
        try:
            async with connect(
                self._way.socket_url,
                additional_headers=self._way.headers,
                # To ourselves, whatever proxy the machine has for the rest of the world.
                proxy=None,
                compression=None,
            ) as socket:
                try:
                    await Visit(self, socket).run()
                finally:
                    # When cancelled there is no time for a closing handshake; the socket must not be left behind.
                    socket.transport.abort()
        except* (OSError, WebSocketException, httpx.HTTPError) as group:
            self._note_failure(group)
        except* Exception as group:  # noqa: BLE001
            # A fault of ours in one mechanic must not end the demo, nor be hidden.
            self._failures += 1
            self._log.exception("mechanic_failed", exc_info=group)

    def _note_failure(self, group: BaseExceptionGroup[Exception]) -> None:
        self._failures += 1
        say = self._log.warning if self._failures == FAILURES_BEFORE_WARNING else self._log.debug
        say("connection_lost", failures=self._failures, errors=[repr(error) for error in group.exceptions])

    # --- what a visit needs of its mechanic ---------------------------------------------------------------------------

    @property
    def habits(self) -> Habits:
        """Where they want to be."""
        return self._habits

    def welcomed(self) -> None:
        """The connection is good."""
        self._failures = 0

    def answer(self, offer: OfferView) -> characters.Answer:
        """What they will do about an offer."""
        expires_in_s = offer.expires_in_ms / 1000
        decided = characters.answer(self._character, offer.kind, expires_in_s=expires_in_s, random=self._random)
        self._log.debug(
            "offer", offer_id=offer.offer_id, kind=offer.kind, action=decided.action, after_s=decided.after_s
        )
        return decided

    def first_heartbeat_s(self, interval_s: float) -> float:
        """When they will beat first, counted from the welcome."""
        return characters.first_heartbeat_s(interval_s, self._random)

    def pace(self) -> characters.Pace:
        """How fast they will work."""
        return characters.pace(self._random)

    async def act(self, request_id: str, verb: str) -> bool:
        """Start or complete a request; ``False``: that is no longer possible (the customer has cancelled)."""
        response = await self._way.rest.post(f"/api/requests/{request_id}/{verb}", headers=self._way.headers)
        if response.status_code in (httpx.codes.CONFLICT, httpx.codes.NOT_FOUND):
            self._log.debug("too_late", request_id=request_id, verb=verb)
            return False
        response.raise_for_status()
        return True


@dataclass
class Consideration:
    """An offer on somebody's mind. ``outcome`` is set when their accept has been answered; ``request``: they have it."""

    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    outcome: anyio.Event = field(default_factory=anyio.Event)
    request: RequestView | None = None


class Visit:
    """One connection, from the welcome to the goodbye. What is unfinished when it breaks, the next welcome brings back."""

    def __init__(self, mechanic: SimulatedMechanic, socket: ClientConnection) -> None:
        self._mechanic = mechanic
        self._socket = socket
        self._hands = anyio.Lock()
        """Held from an accept to the end of its session: one at a time, and nobody leaves in between."""
        self._considered: dict[str, Consideration] = {}
        self._session: tuple[str, anyio.CancelScope] | None = None
        self._tasks: TaskGroup

    async def run(self) -> None:
        """Return when the mechanic has left; raise what broke the connection, in a group."""
        async with anyio.create_task_group() as self._tasks:
            async for frame in self._socket:
                await self._hear(_decoder.decode(frame))
            self._tasks.cancel_scope.cancel()

    async def _send(self, message: wire.MechanicMessage) -> None:
        # A socket that has just been closed says so to the one who reads it, and that one ends the visit.
        with suppress(ConnectionClosed):
            await self._socket.send(msgspec.json.encode(message), text=True)

    async def _hear(self, message: wire.ToMechanic) -> None:
        match message:
            case wire.MechanicWelcome():
                self._mechanic.welcomed()
                self._tasks.start_soon(self._beat, message.heartbeat_interval_s)
                if message.request is not None:
                    self._tasks.start_soon(self._resume, message.request)
                for offer in message.offers:
                    await self._take_note(offer)
                self._tasks.start_soon(self._follow_habits, message.on_duty)
            case wire.OfferMade(offer):
                await self._take_note(offer)
            case wire.OfferAccepted(offer_id, request):
                if (considered := self._considered.pop(offer_id, None)) is not None:
                    considered.request = request
                    considered.outcome.set()
            case wire.OfferWithdrawn(offer_id):
                self._drop(offer_id)
            case wire.ErrorMessage(_, _, ref) if isinstance(ref, str):
                self._drop(ref)
            case wire.RequestUpdate(request) if request.status in ("cancelled", "broadcasting"):
                if self._session is not None and self._session[0] == request.id:
                    self._session[1].cancel()
            case _:
                # Nothing follows from the others: as every app, it ignores what it makes nothing of.
                pass

    # --- what goes on beside listening --------------------------------------------------------------------------------

    async def _beat(self, interval_s: float) -> None:
        await anyio.sleep(self._mechanic.first_heartbeat_s(interval_s))
        while True:
            await self._send(wire.Heartbeat())
            await anyio.sleep(interval_s)

    async def _follow_habits(self, on_duty: bool) -> None:
        while True:
            habits = self._mechanic.habits
            changed = habits.changed
            if habits.whereabouts is Whereabouts.AWAY:
                async with self._hands:
                    if habits.whereabouts is Whereabouts.AWAY:
                        await self._socket.close()
                        return
            elif on_duty != (habits.whereabouts is Whereabouts.ON_DUTY):
                on_duty = not on_duty
                await self._send(wire.SetAvailability(on_duty))
            await changed.wait()

    async def _take_note(self, offer: OfferView) -> None:
        await self._send(wire.OfferAck(offer.offer_id))
        if offer.offer_id in self._considered:
            return
        considered = self._considered[offer.offer_id] = Consideration()
        answer = self._mechanic.answer(offer)
        if answer.action is not Action.IGNORE:
            self._tasks.start_soon(self._consider, offer.offer_id, considered, answer)

    async def _consider(self, offer_id: str, considered: Consideration, answer: characters.Answer) -> None:
        with considered.scope:
            await anyio.sleep(answer.after_s)
            if answer.action is Action.DECLINE:
                await self._send(wire.Decline(offer_id, answer.reason))
                return
            async with self._hands:
                await self._send(wire.Accept(offer_id))
                # Unanswered, we do not know whether we have it; a new connection's welcome does.
                with anyio.fail_after(ANSWER_TIMEOUT_S):
                    await considered.outcome.wait()
                if considered.request is not None:
                    await self._serve(considered.request)

    def _drop(self, offer_id: str) -> None:
        """Think of something else: the offer is gone."""
        considered = self._considered.pop(offer_id, None)
        if considered is not None:
            considered.scope.cancel()

    async def _resume(self, request: RequestView) -> None:
        async with self._hands:
            await self._serve(request)

    async def _serve(self, request: RequestView) -> None:
        pace = self._mechanic.pace()
        with anyio.CancelScope() as scope:
            # Replaced by the next session; an update of one that is over cancels a scope that nobody is in any more.
            self._session = (request.id, scope)
            if request.status == "accepted":
                await anyio.sleep(pace.start_after_s)
                if not await self._mechanic.act(request.id, "start"):
                    return
            await anyio.sleep(pace.complete_after_s)
            await self._mechanic.act(request.id, "complete")
