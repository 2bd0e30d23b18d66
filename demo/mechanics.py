"""Simulated mechanics: each with the client that others build on, over a real socket and the real REST calls.

SimulatedMechanic ── habits ──► connected or away ──► Visit (from coming to leaving) ──► accept ──► start ──► complete
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx
import structlog
from anyio.abc import TaskGroup

from clients.python.pitlane_client import (
    DutyChanged,
    Event,
    MechanicClient,
    Offer,
    OfferGone,
    OfferMade,
    PitlaneError,
    Refused,
    Request,
    RequestChanged,
)
from demo import banner, characters, room
from demo.characters import Action, Character, Whereabouts
from models.words import OfferKind

PAUSE_S = 1.0
"""After a visit that nobody could go on with."""
IN_SESSION = ("accepted", "in_progress")
ROOM_EVERY_S = 1.0

_log = structlog.get_logger("demo")


@dataclass(frozen=True)
class Way:
    """How a mechanic reaches the server. ``token`` returns a fresh bearer token."""

    base_url: str
    token: Callable[[], str]


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

    def __init__(
        self, name: str, character: Character, way: Way, random: Random, say: Callable[[str], None] = banner.say
    ) -> None:
        """``say`` tells whoever watches the terminal."""
        self.name = name
        self.vanishes = character.vanishes
        self.base_url = way.base_url
        self._character = character
        self._way = way
        self._say = say
        self._gone_for_s: float | None = None
        self._random = random
        self.habits = Habits(character, random)
        self.log = _log.bind(mechanic=name)

    async def run(self) -> None:
        """Come and go until cancelled. What breaks is mended by the client; a visit that it gave up is begun again."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.habits.keep)
            while True:
                await self._come_back()
                while self.habits.are_away():
                    await self.habits.changed.wait()
                try:
                    # To ourselves, whatever proxy the machine has for the rest of the world.
                    async with MechanicClient(
                        self._way.base_url, self._way.token, dice=self._random, trust_env=False
                    ) as app:
                        await Visit(self, app).run()
                except* PitlaneError as group:
                    self.log.warning("visit_given_up", errors=[repr(error) for error in group.exceptions])
                    await anyio.sleep(PAUSE_S)

    # --- what a visit needs of its mechanic ---------------------------------------------------------------------------

    def answer(self, offer: Offer) -> characters.Answer:
        """What they will do about an offer."""
        expires_in_s = offer["expires_in_ms"] / 1000
        kind = OfferKind(offer["kind"])
        decided = characters.answer(self._character, kind, expires_in_s=expires_in_s, random=self._random)
        self.log.debug("offer", offer_id=offer["offer_id"], kind=kind, action=decided.action, after_s=decided.after_s)
        return decided

    def pace(self, request: Request) -> characters.Pace:
        """How fast they will work."""
        return characters.pace(self._random, start_in_s=start_in_s(request))

    def vanish(self, request: Request) -> None:
        """Be gone for good as far as this request goes, from the end of the visit on."""
        self._gone_for_s = characters.gone_for_s(start_in_s(request))
        self._say(banner.vanished(self.name, request["customer_name"], start_in_s(request)))

    async def _come_back(self) -> None:
        if self._gone_for_s is not None:
            await anyio.sleep(self._gone_for_s)
            self._gone_for_s = None
            self._say(banner.came_back(self.name))


def start_in_s(request: Request) -> float:
    """Return until when, from now, whoever has accepted must start."""
    start = request.get("start")
    return start["expires_in_ms"] / 1000 if start else 0.0


class Visit:
    """From coming to leaving. The client reconnects meanwhile, and tells only what has changed."""

    def __init__(self, mechanic: SimulatedMechanic, app: MechanicClient) -> None:
        self._mechanic = mechanic
        self._app = app
        self._hands = anyio.Lock()
        """Held from an accept to the end of its session: one at a time, and nobody leaves in between."""
        self._considered: dict[str, anyio.CancelScope] = {}
        self._session: tuple[str, anyio.CancelScope] | None = None
        """The newest that was begun, also when it is over."""
        self._follows_habits = False
        self._tasks: TaskGroup

    async def run(self) -> None:
        """Return when the mechanic wants to leave."""
        async with anyio.create_task_group() as self._tasks:
            async for event in self._app:
                self._hear(event)

    def _hear(self, event: Event) -> None:
        match event:
            case DutyChanged() if not self._follows_habits:
                self._follows_habits = True
                self._tasks.start_soon(self._follow_habits)
            case OfferMade(offer):
                answer = self._mechanic.answer(offer)
                if answer.action is not Action.IGNORE:
                    scope = self._considered[offer["offer_id"]] = anyio.CancelScope()
                    self._tasks.start_soon(self._consider, offer["offer_id"], scope, answer)
            case OfferGone(offer, reason):
                scope_of_it = self._considered.pop(offer["offer_id"], None)
                if scope_of_it is not None and reason != "accepted":
                    scope_of_it.cancel()
            case RequestChanged(request):
                is_known = self._session is not None and self._session[0] == request["id"]
                if request["status"] in IN_SESSION and not is_known:
                    self._tasks.start_soon(self._resume, request)
                elif request["status"] not in IN_SESSION and is_known and self._session is not None:
                    self._session[1].cancel()
            case _:
                # Nothing follows from the others.
                pass

    # --- what goes on beside listening --------------------------------------------------------------------------------

    async def _follow_habits(self) -> None:
        habits = self._mechanic.habits
        while True:
            changed = habits.changed
            if habits.are_away():
                async with self._hands:
                    if habits.are_away():
                        self._tasks.cancel_scope.cancel()
                        return
            elif self._app.on_duty != (wanted := habits.whereabouts is Whereabouts.ON_DUTY):
                await self._app.set_on_duty(wanted)
            await changed.wait()

    async def _consider(self, offer_id: str, scope: anyio.CancelScope, answer: characters.Answer) -> None:
        with scope:
            await anyio.sleep(answer.after_s)
            if answer.action is Action.DECLINE:
                await self._app.decline(offer_id, answer.reason)
                return
            async with self._hands:
                taken = await self._app.accept(offer_id)
                if not isinstance(taken, Refused):
                    await self._serve(taken)

    async def _resume(self, request: Request) -> None:
        async with self._hands:
            # It may be the one that was served while the hands were full.
            if self._session is None or self._session[0] != request["id"]:
                await self._serve(request)

    async def _serve(self, request: Request) -> None:
        if self._mechanic.vanishes:
            self._mechanic.vanish(request)
            self._tasks.cancel_scope.cancel()
            return
        pace = self._mechanic.pace(request)
        with anyio.CancelScope() as scope:
            self._session = (request["id"], scope)
            if request["status"] == "accepted":
                await anyio.sleep(pace.start_after_s)
                started = await self._app.act(request["id"], "start")
                if isinstance(started, Refused):
                    # That is no longer possible: the customer has cancelled.
                    return
                request = started
            async with anyio.create_task_group() as beside:
                beside.start_soon(self._be_in_the_room, request.get("join_url"))
                await anyio.sleep(pace.complete_after_s)
                beside.cancel_scope.cancel()
            await self._app.act(request["id"], "complete")

    async def _be_in_the_room(self, join_url: str | None) -> None:
        """Say that we are here, until cancelled; a room of somebody else's is for people."""
        address = room.address(self._mechanic.base_url, join_url)
        if address is None or join_url is None:
            return
        [token] = parse_qs(urlsplit(join_url).query)["token"]
        async with httpx.AsyncClient(trust_env=False, headers={"Authorization": f"Bearer {token}"}) as http:
            while True:
                try:
                    await http.post(address)
                except httpx.HTTPError as error:
                    # The next second may do better; the session goes on meanwhile.
                    self._mechanic.log.debug("room_not_reached", error=repr(error))
                await anyio.sleep(ROOM_EVERY_S)
