"""A client of Pitlane for asyncio, in one file to copy. It needs Python 3.11, ``websockets`` (15 or newer) and ``httpx``.

    async with MechanicClient("https://pitlane.example", token) as app:
        await app.set_on_duty(True)
        async for event in app:
            match event:
                case OfferMade(offer):
                    app.seen(offer["offer_id"])                      # a person can see it
                    answer = await app.accept(offer["offer_id"])     # the request, or a Refused that says why not
                case OfferGone(offer, reason): ...
                case RequestChanged(request): ...

    async with CustomerClient("https://pitlane.example", token) as page:
        page.watch(["01HV…"])
        async for event in page:
            match event:
                case StatusChanged(status): ...

What is promised, and what the server does in turn, is written in Pitlane's ``docs/protocol.md``:

- The socket is opened again whenever it is lost, with exponential backoff and full jitter. Heartbeats go out at the pace that the
  server names. Where sockets are blocked, REST is asked instead.
- Every offer is acknowledged each time that it comes, and handed out once for as long as it is open.
- ``accept`` and ``decline`` end with the server's answer, also when the socket dies before it: REST is asked then. Both may be
  repeated.
- After a reconnect only what has changed meanwhile is handed out. What comes late never overwrites what is newer.
- Whoever reads slowly skips to what is true now: of one thing only the newest event waits.
- Leaving the block ends everything: no task and no connection stays behind.

The file reads from what can be decided without a network to what needs one: words, events, decisions, lines, clients.
"""

import asyncio
import json
import logging
import random
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from functools import partial
from itertools import islice
from time import monotonic
from types import TracebackType
from typing import Any, Final, Generic, NotRequired, Self, TypedDict, TypeVar

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

__all__ = [
    "ConnectionChanged",
    "CustomerClient",
    "DutyChanged",
    "Event",
    "FavoritePrompted",
    "MechanicClient",
    "Offer",
    "OfferGone",
    "OfferMade",
    "OpenOffer",
    "PitlaneError",
    "Problem",
    "Refused",
    "Request",
    "RequestChanged",
    "RequestGone",
    "ServerComplained",
    "SignedOut",
    "Status",
    "StatusChanged",
    "TooSlow",
    "Unsettled",
]

WELCOME_TIMEOUT_S: Final = 10.0
"""How long a handshake may take, together with the welcome after it."""
STABLE_AFTER_S: Final = 10.0
"""A connection that lived this long has earned a fresh backoff."""
PROBE_TIMEOUT_S: Final = 4.0
CLOSE_TIMEOUT_S: Final = 2.0
HEARTBEAT_FALLBACK_S: Final = 20.0
"""The pace if the welcome names none."""
ANSWER_TIMEOUT_S: Final = 5.0
"""How long the socket may take to answer an accept or a decline before REST is asked."""
SETTLE_TIMEOUT_S: Final = 30.0
"""After this time of asking nobody knows what became of an answer; the next snapshot tells."""
REST_TIMEOUT_S: Final = 10.0
RETRY_AFTER_MAX_S: Final = 3_600.0
"""Whoever asks for more than this much patience means something else."""
BLOCKED_AFTER: Final = 3
"""So many tries in a row without a welcome, and REST is asked as well."""
POLL_INTERVAL_S: Final = 4.0
POLL_CAP_S: Final = 60.0
POLL_LEN: Final = 20
"""How many of the newest requests a poll reads."""
WATCH_MAX: Final = 100
"""How many mechanics one socket may watch, and how many ids one REST call may ask for."""
FRAMES_BURST: Final = 100
FRAMES_PER_S: Final = 25.0
"""Half of what the server allows: what is repeated on the way must not cost us the socket."""
FRAME_LEN_MAX: Final = 4 * 1024 * 1024
URGENT_MAX: Final = 100
"""Frames that wait to be sent, acknowledgements aside."""
OFFERS_MAX: Final = 1_000
REMEMBERED_MAX: Final = 1_000
"""Offers answered and requests ended that are remembered, so that what comes late is recognised."""
EVENTS_MAX: Final = 5_000
"""Different things that have changed and wait to be read."""
UNSURE_MAX: Final = 100
TOKEN_REFUSED: Final = "the server refuses the token: it has expired or was revoked"
NOT_DONE_CODES: Final = frozenset({"unavailable", "internal_error"})
"""Errors after which the same may be asked for again: nothing is known to have been done."""

log = logging.getLogger("pitlane_client")

T = TypeVar("T")
Json = dict[str, Any]
Token = str | Callable[[], str] | Callable[[], Awaitable[str]]
"""A bearer token, or what gives a fresh one each time that it is called. It is called once more where the server refuses what
it gave; if it has no other, or that one is refused as well, it ends with ``SignedOut``."""
Work = Callable[[], Awaitable[None]]


# --- words ------------------------------------------------------------------------------------------------------------
#
# As they travel; what a newer server says besides is in the dictionaries, too.


class Person(TypedDict):
    id: str
    name: str


class OfferDeadline(TypedDict):
    """The open offer of a request. ``preferred_is_busy``: the favourite whom it waits for is in a session with somebody else."""

    id: str
    kind: str
    expires_at: str
    expires_in_ms: int
    preferred_is_busy: NotRequired[bool]


class Deadline(TypedDict):
    """Until when something has to have happened. Count it down by ``RequestChanged.deadline_s``; a clock may be wrong."""

    expires_at: str
    expires_in_ms: int


class Request(TypedDict):
    """A session request. ``version`` only grows.

    ``start``: while it is accepted, until when the mechanic must start; ``ends``: while it is in progress, when it ends by itself.
    ``assigned_is_online``: whether the mechanic is there, while it is one of the two; ``None`` also when nobody knows just now.
    ``join_url``: where the session takes place, for this account alone, and only then. What a server of an earlier version says
    lacks these.
    """

    id: str
    version: int
    plan: str
    session_type: str
    routing_type: str
    status: str
    customer_name: str
    preferred_mechanic: Person | None
    assigned_mechanic: Person | None
    offer: OfferDeadline | None
    fallback_reason: str | None
    created_at: str
    accepted_at: str | None
    completed_at: str | None
    refund: Json | None
    timeline: list[Json]
    note: str | None
    price_cents: NotRequired[int]
    currency: NotRequired[str]
    favorite_prompt: NotRequired[bool]
    start: NotRequired[Deadline | None]
    ends: NotRequired[Deadline | None]
    assigned_is_online: NotRequired[bool | None]
    join_url: NotRequired[str | None]


class Offer(TypedDict):
    """An offer. Count it down by ``expires_in_ms``, or by what ``OpenOffer`` makes of it; a clock may be wrong."""

    offer_id: str
    request_id: str
    kind: str
    customer_name: str
    plan: str
    session_type: str
    duration_min: int
    expires_at: str
    expires_in_ms: int
    note: str | None
    price_cents: NotRequired[int]
    currency: NotRequired[str]


class Status(TypedDict):
    """What is true of a mechanic at ``as_of``."""

    mechanic_id: str
    is_online: bool
    last_seen: str | None
    availability: str
    reachable: str
    session_types: list[str]
    as_of: str
    version: int


# --- what goes wrong --------------------------------------------------------------------------------------------------


class PitlaneError(Exception):
    """Anything that this file raises of its own."""


class SignedOut(PitlaneError):
    """The token is refused: expired, revoked, or of another kind of account. Sign in again, and make a new client."""


class Unsettled(PitlaneError):
    """Nobody has answered for so long that nothing is known. Trying again is safe."""


class TooSlow(PitlaneError):
    """Thousands of things have changed and nobody has read of them: is the loop over the client still running?"""


class Problem(PitlaneError):
    """A REST call was refused or got no answer. ``status`` 0: no answer.

    ``code`` is the server's stable word, or one of ours: ``network``, ``unreadable``, ``no_token``, ``http_403`` and so on.
    ``is_ours``: said by the server itself; otherwise by a proxy that may not have asked it, or by nobody.
    """

    def __init__(
        self, status: int, code: str, detail: str, retry_after_s: float | None = None, *, is_ours: bool = True
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.is_ours = is_ours and status != 0

    @property
    def may_retry(self) -> bool:
        """Whether the very same call may simply be made again: nobody knows, or nothing was decided."""
        return not self.is_ours or self.status in (408, 429) or self.status >= 500

    @property
    def refuses_token(self) -> bool:
        """Whether the server does not take the token any more."""
        return self.is_ours and self.code == "unauthenticated"


@dataclass(frozen=True)
class Refused:
    """Why something was not done: an expected answer. ``message`` is a sentence for a person."""

    code: str
    message: str


# --- events: what a client hands out ----------------------------------------------------------------------------------


class ConnectionState(StrEnum):
    CONNECTING = "connecting"
    LIVE = "live"
    RECONNECTING = "reconnecting"
    POLLING = "polling"
    """No socket can be had; REST says the same, a little later."""


@dataclass(frozen=True)
class ConnectionChanged:
    state: ConnectionState


@dataclass(frozen=True)
class OfferMade:
    """An offer that was not open to the mechanic before. ``deadline_s`` is on the scale of ``time.monotonic``."""

    offer: Offer
    deadline_s: float


@dataclass(frozen=True)
class OfferGone:
    """An offer that is no longer open. ``reason``: the server's word; or ``accepted``; or ``gone``, which happened unheard.

    ``by_you``: this account has answered it, here or on another device.
    """

    offer: Offer
    reason: str
    by_you: bool = False


@dataclass(frozen=True)
class RequestChanged:
    """``deadline_s``: when what it waits for is over, on the scale of ``time.monotonic``: the open offer, the time to start, the
    session itself. ``None``: it waits for nothing.
    """

    request: Request
    deadline_s: float | None = None


@dataclass(frozen=True)
class RequestGone:
    """A request that is no longer one of this account's."""

    request_id: str


@dataclass(frozen=True)
class DutyChanged:
    """``availability`` is ``None`` where the server has not said it: in a welcome.

    ``back_at``: when a break ends by itself, RFC 3339; ``None``: no break. ``off_after_session``: off duty with the session that
    they are in.
    """

    on_duty: bool
    availability: str | None
    back_at: str | None = None
    off_after_session: bool = False


@dataclass(frozen=True)
class StatusChanged:
    status: Status


@dataclass(frozen=True)
class FavoritePrompted:
    """Ask the customer whether this mechanic shall be a favourite; once for each request."""

    request_id: str
    mechanic: Person


@dataclass(frozen=True)
class ServerComplained:
    """Something that was sent has not been done, and nobody waits for its answer. ``ref``: the id it was about."""

    code: str
    message: str
    ref: str | None


Event = (
    ConnectionChanged
    | OfferMade
    | OfferGone
    | RequestChanged
    | RequestGone
    | DutyChanged
    | StatusChanged
    | FavoritePrompted
    | ServerComplained
)


# --- decisions: after a close, and how long to wait. Pure -------------------------------------------------------------


class Then(StrEnum):
    """What to do after a connection has ended."""

    RECONNECT = "reconnect"
    RECONNECT_SPREAD = "reconnect_spread"
    RECONNECT_SLOWLY = "reconnect_slowly"
    SIGN_IN = "sign_in"
    FIX = "fix"
    SELDOM = "seldom"
    """Where sockets do not seem to get through, and polling works; no close asks for it."""


THEN_BY_CODE: Final[Mapping[int, Then]] = {
    1002: Then.FIX,
    1003: Then.FIX,
    1007: Then.FIX,
    1008: Then.RECONNECT_SLOWLY,
    1009: Then.FIX,
    1011: Then.RECONNECT,
    1012: Then.RECONNECT_SPREAD,
    1013: Then.RECONNECT,
    4401: Then.SIGN_IN,
    4408: Then.RECONNECT,
}


@dataclass(frozen=True)
class Pace:
    """The bound of the first wait, which doubles with every try up to the cap, and the share of it that is always waited."""

    base_s: float
    cap_s: float
    share_min: float


_QUICK: Final = Pace(0.5, 20.0, 0.0)
_SPREAD: Final = Pace(2.0, 20.0, 0.0)
_SLOW: Final = Pace(15.0, 120.0, 0.5)
"""A server that has sent us away must not be hit again at once by a lucky draw."""
PACES: Final[Mapping[Then, Pace]] = {
    Then.RECONNECT: _QUICK,
    Then.RECONNECT_SPREAD: _SPREAD,
    Then.RECONNECT_SLOWLY: _SLOW,
    # The same frame would be refused again, and somebody has to mend this client: until then it knocks slowly.
    Then.FIX: _SLOW,
    Then.SELDOM: _SLOW,
}


def after_close(code: int | None) -> Then:
    """Return what to do after a close; ``None``: the line broke without one. An unknown code says no more than that."""
    return THEN_BY_CODE.get(code or 0, Then.RECONNECT)


def backoff_s(attempt: int, then: Then, chance: float) -> float:
    """Return how long to wait before a try: anything up to the bound ("full jitter"), where haste would do harm at least half.

    ``attempt``: 0 for the first; ``then``: what the end of the last connection asks for, not ``SIGN_IN``; ``chance``: 0 to 1.
    """
    pace = PACES[then]
    bound_s = min(pace.cap_s, pace.base_s * 2.0 ** min(attempt, 16))
    return bound_s * (pace.share_min + chance * (1 - pace.share_min))


class Tries:
    """How often a socket was tried in vain, and so how long the next wait is."""

    def __init__(self) -> None:
        self._attempt = 0
        self._seldom = 0

    def wait_s(self, then: Then, lived_s: float, chance: float, *, is_polling: bool) -> float:
        """Return how long to wait after a try that has ended, and count it. ``lived_s``: of the connection, if there was one."""
        if lived_s >= STABLE_AFTER_S:
            self._attempt = 0
        self._attempt += 1
        if is_polling:
            self._seldom += 1
            return backoff_s(self._seldom - 1, Then.SELDOM, chance)
        self._seldom = 0
        return backoff_s(self._attempt - 1, then, chance)

    def hurry(self) -> None:
        """Note that things are different now: what was in vain before says little of the next try."""
        self._attempt = min(self._attempt, 1)
        self._seldom = 0


def poll_in_s(interval_s: float, failures: int, retry_after_s: float, chance: float) -> float:
    """Return how long to wait before the next poll: three to five quarters of the pace, which each failure in a row doubles."""
    pace_s = min(POLL_CAP_S, interval_s * 2.0 ** min(failures, 16))
    return max(retry_after_s, pace_s * (0.75 + chance / 2))


def slices(ids: Iterable[str], len_max: int = WATCH_MAX) -> Iterator[list[str]]:
    """Yield the ids, so many at a time."""
    rest = iter(ids)
    while some := list(islice(rest, len_max)):
        yield some


class ServerClock:
    """The server's time as it was last heard, carried on by a clock that nobody sets."""

    def __init__(self) -> None:
        self._ahead_ms: float | None = None
        """How far the server's clock is ahead of the monotonic one."""

    def hear(self, server_time: str, received_s: float, *, is_first: bool = False) -> None:
        """Take a reading. ``is_first``: of a connection, perhaps of another server's clock.

        What was held up on its way makes the server's clock seem late, so of the others the one furthest ahead counts.
        """
        ahead_ms = datetime.fromisoformat(server_time).timestamp() * 1000 - received_s * 1000
        if is_first or self._ahead_ms is None or ahead_ms > self._ahead_ms:
            self._ahead_ms = ahead_ms

    def now_ms(self, now_s: float) -> float | None:
        """Return the server's time, ms since the epoch, at ``now_s`` of the monotonic clock; ``None`` before it was heard."""
        return None if self._ahead_ms is None else self._ahead_ms + now_s * 1000


# --- decisions: offers, and what is versioned. Pure -------------------------------------------------------------------


@dataclass
class OpenOffer:
    """An offer that is open to the mechanic. ``deadline_s`` is on the scale of ``time.monotonic``."""

    offer: Offer
    deadline_s: float
    is_seen: bool = False

    def left_s(self) -> float:
        """How long it stays open, in seconds, never below zero."""
        return max(0.0, self.deadline_s - monotonic())


class OfferBook:
    """Which offers are open, by their ``offer_id``: each is new once, for as long as it is open."""

    def __init__(self) -> None:
        self.open: dict[str, OpenOffer] = {}
        self._answered: OrderedDict[str, None] = OrderedDict()
        self._request_of: OrderedDict[str, str] = OrderedDict()

    def take(self, offer: Offer, received_s: float) -> OpenOffer | None:
        """Take an offer in; return it if it is new, ``None`` if it is known or has been answered."""
        offer_id = offer["offer_id"]
        deadline_s = received_s + offer["expires_in_ms"] / 1000
        self._request_of[offer_id] = offer["request_id"]
        if len(self._request_of) > REMEMBERED_MAX:
            self._request_of.popitem(last=False)
        if known := self.open.get(offer_id):
            if offer["expires_at"] == known.offer["expires_at"]:
                # One deadline heard twice: the road only ever makes it seem later, so the earlier reading is nearer the truth.
                known.deadline_s = min(known.deadline_s, deadline_s)
            elif _said_ms(offer) < _said_ms(known.offer):
                return None
            else:
                known.deadline_s = deadline_s
            known.offer = offer
            return None
        if offer_id in self._answered:
            return None
        if len(self.open) >= OFFERS_MAX:
            self.open.pop(next(iter(self.open)))
        self.open[offer_id] = OpenOffer(offer, deadline_s)
        return self.open[offer_id]

    def snapshot(self, offers: Sequence[Offer], received_s: float) -> tuple[list[OpenOffer], list[Offer]]:
        """Take in all that are open now; return those that are new and those that have gone."""
        named = {offer["offer_id"] for offer in offers}
        gone = [self.open.pop(offer_id).offer for offer_id in list(self.open) if offer_id not in named]
        taken = [self.take(offer, received_s) for offer in offers]
        return [one for one in taken if one is not None], gone

    def withdraw(self, offer_id: str) -> Offer | None:
        """Close an offer; return it if it was open. The server may offer it again: then it is new."""
        known = self.open.pop(offer_id, None)
        return None if known is None else known.offer

    def answer(self, offer_id: str) -> Offer | None:
        """Close an offer for good, because this account has answered it; return it if it was open."""
        self._answered[offer_id] = None
        if len(self._answered) > REMEMBERED_MAX:
            self._answered.popitem(last=False)
        return self.withdraw(offer_id)

    def request_of(self, offer_id: str) -> str | None:
        """Return whose offer it is or was, also after it has gone from the table; ``None`` if it was never there."""
        return self._request_of.get(offer_id)

    def of_request(self, request_id: str) -> list[str]:
        """Return the open offers of a request: after a window has ended, the old card and the new one."""
        return [offer_id for offer_id, one in self.open.items() if one.offer["request_id"] == request_id]


def _said_ms(offer: Offer) -> float:
    """Return when the server said so, by its own clock, ms since the epoch."""
    return datetime.fromisoformat(offer["expires_at"]).timestamp() * 1000 - offer["expires_in_ms"]


OPEN_STATUSES: Final = frozenset({"priority_offered", "broadcasting", "accepted", "in_progress"})
"""Statuses of a request after which something follows."""
TAKEN_STATUSES: Final = frozenset({"accepted", "in_progress", "completed"})


def deadline_of(request: Request) -> Deadline | OfferDeadline | None:
    """Return what a request has to wait for at most."""
    return request.get("start") or request.get("ends") or request.get("offer")


class RequestBook:
    """The newest that is known of each request."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Request] = OrderedDict()
        self._deadlines_s: dict[str, float] = {}

    def take(self, request: Request, received_s: float) -> bool:
        """Take a request in; ``False`` if this version, or a newer one, is known."""
        known = self._known.get(request["id"])
        if known is not None and known["version"] >= request["version"]:
            return False
        self._note_deadline(request, known, received_s)
        self._known[request["id"]] = request
        self._known.move_to_end(request["id"])
        if len(self._known) > REMEMBERED_MAX:
            self.forget(next(iter(self._known)))
        return True

    def deadline_s(self, request_id: str) -> float | None:
        """Return when what the request waits for is over, on the scale of ``time.monotonic``."""
        return self._deadlines_s.get(request_id)

    def open_besides(self, named: Iterable[Request]) -> list[str]:
        """Return the requests that were open and that a snapshot of the open ones does not name: they ended unheard."""
        ids = {request["id"] for request in named}
        return [one for one, known in self._known.items() if known["status"] in OPEN_STATUSES and one not in ids]

    def forget(self, request_id: str) -> None:
        """Forget a request that is somebody else's now."""
        self._known.pop(request_id, None)
        self._deadlines_s.pop(request_id, None)

    def get(self, request_id: str) -> Request | None:
        """Return what is known of a request."""
        return self._known.get(request_id)

    def _note_deadline(self, request: Request, known: Request | None, received_s: float) -> None:
        """Of one deadline heard twice the earlier reading is nearer the truth: the road only ever makes it seem later."""
        deadline = deadline_of(request)
        before_s = self._deadlines_s.pop(request["id"], None)
        if deadline is None:
            return
        deadline_s = received_s + deadline["expires_in_ms"] / 1000
        before = None if known is None else deadline_of(known)
        if before is not None and before_s is not None and before["expires_at"] == deadline["expires_at"]:
            deadline_s = min(deadline_s, before_s)
        self._deadlines_s[request["id"]] = deadline_s


class StatusBook:
    """The newest that is known of each mechanic that is watched."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, str]] = {}

    def take(self, status: Status) -> bool:
        """Take a status in; ``False`` if it is no news. Of two readings of one version the later one counts."""
        known = self._known.get(status["mechanic_id"])
        read = (status["version"], status["as_of"])
        if known is not None and read <= known:
            return False
        self._known[status["mechanic_id"]] = read
        return True

    def forget(self, mechanic_id: str) -> None:
        """Forget a mechanic who is not watched any more."""
        self._known.pop(mechanic_id, None)


class Mailbox:
    """Events that wait to be read: of one thing only the newest, in the place of the first."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], Event] = {}
        self._changed = asyncio.Event()
        self._end: Exception | None = None

    def put(self, key: tuple[str, str], event: Event) -> None:
        """Add what is true of ``key`` now. An offer that comes and goes unread, or goes and comes, leaves nothing to read."""
        waits = self._waiting.get(key)
        if isinstance(event, OfferMade | OfferGone) and waits is not None and type(waits) is not type(event):
            del self._waiting[key]
            return
        if key not in self._waiting and len(self._waiting) >= EVENTS_MAX:
            self.end(TooSlow(f"{EVENTS_MAX} events wait, and nobody reads them"))
            return
        self._waiting[key] = event
        self._changed.set()

    def end(self, error: Exception) -> None:
        """Let the reader have what waits, and then this."""
        self._end = self._end or error
        self._changed.set()

    @property
    def ended_by(self) -> Exception | None:
        """What has ended it."""
        return self._end

    async def take(self) -> Event:
        """Return the oldest, as soon as there is one; raises what has ended it. For one reader."""
        while not self._waiting:
            if self._end is not None:
                raise self._end
            self._changed.clear()
            await self._changed.wait()
        return self._waiting.pop(next(iter(self._waiting)))


# --- lines: one connection, and REST ----------------------------------------------------------------------------------


class _Line:
    """One socket past its handshake: what waits to be sent, and whether it answers."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once nothing more will be heard here."""
        self.is_unanswered = False
        """A heartbeat of the regular ones has gone out, and nothing was heard since."""
        self._sign_of_life: asyncio.Future[None] | None = None
        """What a probe waits for, while there is one."""
        self.since_s = monotonic()
        self._urgent: deque[Json] = deque()
        self._acknowledgements: OrderedDict[str, bool] = OrderedDict()
        self._has_some = asyncio.Event()

    def say(self, message: Json) -> bool:
        """Send a message, before all acknowledgements; ``False``: so many wait that the line must be dead."""
        if self.lost.done() or len(self._urgent) >= URGENT_MAX:
            return False
        self._urgent.append(message)
        self._has_some.set()
        return True

    def acknowledge(self, offer_id: str, *, is_seen: bool) -> None:
        """Say that an offer is here; several times while it waits is once."""
        self._acknowledgements[offer_id] = is_seen or self._acknowledgements.get(offer_id, False)
        self._has_some.set()

    async def write(self) -> None:
        """Send what waits, no faster than the server takes it, until cancelled or the line is lost."""
        full_at_s = 0.0
        with suppress(ConnectionClosed):
            while True:
                await self._has_some.wait()
                # A bucket of tokens, kept as the instant at which it is full again.
                full_at_s = max(full_at_s, monotonic()) + 1 / FRAMES_PER_S
                await asyncio.sleep(max(0.0, full_at_s - monotonic() - FRAMES_BURST / FRAMES_PER_S))
                await self.socket.send(json.dumps(self._next()))

    def _next(self) -> Json:
        if self._urgent:
            message = self._urgent.popleft()
        else:
            offer_id, is_seen = self._acknowledgements.popitem(last=False)
            message = {"type": "offer_ack", "offer_id": offer_id} | ({"seen": True} if is_seen else {})
        if not self._urgent and not self._acknowledgements:
            self._has_some.clear()
        return message

    async def beat(self, interval_s: float, first_s: float) -> None:
        """Send heartbeats until cancelled; a line on which one stays unanswered until the next is given up."""
        await asyncio.sleep(first_s)
        while not self.is_unanswered:
            self.is_unanswered = True
            self.say({"type": "heartbeat"})
            await asyncio.sleep(interval_s)
        self.give_up()

    async def probe(self) -> None:
        """Ask for a sign of life now, and give the line up if there is none. While one waits, another adds nothing."""
        if self._sign_of_life is not None:
            return
        self._sign_of_life = asyncio.get_running_loop().create_future()
        # Before all that waits: the time runs from now.
        self._urgent.appendleft({"type": "heartbeat"})
        self._has_some.set()
        done, _ = await asyncio.wait(
            [self._sign_of_life, self.lost], timeout=PROBE_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED
        )
        self._sign_of_life = None
        if not done:
            self.give_up()

    def heard(self) -> None:
        """Note a sign of life: any frame is one."""
        self.is_unanswered = False
        if self._sign_of_life is not None and not self._sign_of_life.done():
            self._sign_of_life.set_result(None)

    def give_up(self) -> None:
        """Break off without asking whether the other side is still there."""
        self.socket.transport.abort()


@dataclass(frozen=True)
class _End:
    """How a connection, or a try to get one, has ended."""

    then: Then = Then.RECONNECT
    was_welcomed: bool = False
    lived_s: float = 0.0
    retry_after_s: float = 0.0
    """What the server asked for at least."""
    is_refused: bool = False
    """Because of its token."""


class _Tokens:
    """Where the bearer token comes from. A refused one is not shown again."""

    def __init__(self, source: Token) -> None:
        self._source = source
        self._refused: str | None = None
        self._asking = asyncio.Lock()

    async def get(self) -> str:
        """Return the token to show. Raises ``SignedOut`` if there is none but the one that was refused, and ``Problem`` while
        there is none to be had."""
        while True:
            known_as_refused = self._refused
            token = await self._ask()
            if token != self._refused:
                return token
            if self._refused == known_as_refused:
                raise SignedOut(TOKEN_REFUSED)
            # It was refused while its source looked for it, and so could not know: asked now, there may be another.

    def refuse(self, token: str) -> None:
        """Note that the server does not take this one any more: not to be shown again, however many had it shown.

        Raises ``SignedOut`` where there can be no other.
        """
        if isinstance(self._source, str):
            raise SignedOut(TOKEN_REFUSED)
        self._refused = token

    async def _ask(self) -> str:
        if isinstance(self._source, str):
            return self._source
        try:
            # One at a time: a source that is renewing its token may still give the one before to whoever asks meanwhile.
            async with asyncio.timeout(REST_TIMEOUT_S), self._asking:
                given = self._source()
                return given if isinstance(given, str) else await given
        except (OSError, httpx.HTTPError) as error:
            raise Problem(0, "no_token", f"there is no token to be had: {error!r}") from error


class _Rest:
    """REST calls with the token; a refused token is replaced once, if there is where to get another."""

    def __init__(self, http: httpx.AsyncClient, tokens: _Tokens) -> None:
        self._http = http
        self._tokens = tokens

    async def call(self, method: str, path: str, *, body: Json | None = None, query: Json | None = None) -> Any:
        """Return the JSON that is answered, ``None`` for 204. Raises ``Problem``, and ``SignedOut``."""
        was_refused = False
        while True:
            token = await self._tokens.get()
            headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
            try:
                async with asyncio.timeout(REST_TIMEOUT_S):
                    answer = await self._http.request(method, path, json=body, params=query, headers=headers)
            except (httpx.HTTPError, TimeoutError) as error:
                raise Problem(0, "network", f"the server did not answer: {error!r}") from error
            if answer.is_success:
                return _said(answer)
            problem = _problem(answer.status_code, answer.headers, answer.content)
            if not problem.refuses_token:
                raise problem
            self._tokens.refuse(token)
            if was_refused:
                # Another one than the first: the source had its chance.
                raise SignedOut(TOKEN_REFUSED)
            was_refused = True


def _said(answer: httpx.Response) -> Any:
    """Return the JSON of an answer, ``None`` for 204. Whatever else succeeds is not ours: the page of a login, say."""
    if answer.status_code == httpx.codes.NO_CONTENT:
        return None
    try:
        return answer.json()
    except ValueError as error:
        raise Problem(0, "unreadable", "the answer is not JSON") from error


def _member(answer: Any, name: str) -> Any:
    """Return what an answer says under a name. Raises ``Problem`` for what is no answer of ours, although it is JSON."""
    try:
        return answer[name]
    except (KeyError, TypeError) as error:
        raise Problem(0, "unreadable", f"the answer does not name {name}") from error


def _problem(status: int, headers: Mapping[str, str], content: bytes) -> Problem:
    code, detail = f"http_{status}", f"the server refused this ({status})"
    # Anything else is not our server's: a proxy's page.
    is_ours = False
    if headers.get("content-type", "").partition(";")[0].strip().lower() == "application/problem+json":
        with suppress(ValueError, KeyError, TypeError):
            said = json.loads(content)
            code, detail = said["code"], said["detail"]
            is_ours = True
    asked = headers.get("retry-after", "").strip()
    retry_after_s = min(float(asked), RETRY_AFTER_MAX_S) if asked.isascii() and asked.isdecimal() else None
    return Problem(status, code, detail, retry_after_s, is_ours=is_ours)


@dataclass(eq=False)
class _Pending(Generic[T]):
    """An answer of the server's that somebody waits for. ``request_id``: what the offer was for, if known."""

    answer: asyncio.Future[T]
    not_done: asyncio.Future[None]
    """Done once the socket has said that it could not be done just now."""
    request_id: str | None = None
    waiting: int = 0


@dataclass(eq=False)
class _Wish:
    """What duty should be, until the server has said that it is, or why not."""

    message: Json
    answer: asyncio.Future[Refused | None]

    def is_granted_by(self, told: Json) -> bool:
        """Whether duty as the server tells it is what was asked for."""
        asked = self.message
        return (
            asked["on_duty"] is told["on_duty"]
            and ("back_in_s" in asked) is ("back_at" in told)
            and ("off_after_session" in asked) is bool(told.get("off_after_session"))
        )

    def settle(self, answer: Refused | None) -> None:
        """Let its caller go on, unless that has happened."""
        if not self.answer.done():
            self.answer.set_result(answer)


# --- clients ----------------------------------------------------------------------------------------------------------


class _Client:
    """What both kinds of clients do: stay connected, hand out events, ask REST where there is no socket."""

    _path: str

    def __init__(
        self,
        base_url: str,
        token: Token,
        *,
        dice: random.Random | None = None,
        trust_env: bool = True,
        poll_interval_s: float = POLL_INTERVAL_S,
    ) -> None:
        """``base_url``: scheme, host and port of the server. ``token``: a bearer token, or what gives a fresh one each time.

        ``trust_env``: whether the proxies and certificates that the environment names count.
        """
        self._base_url = base_url.rstrip("/")
        self._tokens = _Tokens(token)
        self._dice = dice or random.Random()
        self._trust_env = trust_env
        self._poll_interval_s = poll_interval_s
        self._mailbox = Mailbox()
        self._clock = ServerClock()
        self._requests = RequestBook()
        self._line: _Line | None = None
        self._state: ConnectionState | None = None
        self._welcomes = 0
        self._changes = 0
        """What was changed by REST."""
        self._is_leaving = False
        self._is_blocked = asyncio.Event()
        self._tries = Tries()
        self._hurried = asyncio.Event()
        self._poll_hurried = asyncio.Event()
        self._unsure: dict[str, None] = {}
        self._has_unsure = asyncio.Event()
        self._tasks = asyncio.TaskGroup()
        self._running: set[asyncio.Task[None]] = set()
        self._http: httpx.AsyncClient
        self._rest: _Rest
        self._ended: asyncio.Future[None]

    # --- what an app calls --------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Start connecting; events follow. Nothing is waited for."""
        self._ended = asyncio.get_running_loop().create_future()
        self._http = httpx.AsyncClient(
            base_url=self._base_url,
            trust_env=self._trust_env,
            timeout=REST_TIMEOUT_S,
            # Reading all certificates takes its time, and without TLS they say nothing.
            verify=not self._base_url.startswith("http:"),
        )
        self._rest = _Rest(self._http, self._tokens)
        await self._tasks.__aenter__()
        for loop in (self._stay_connected, self._poll_while_blocked, self._look_up_unsure):
            self._start(loop)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End everything. Says goodbye to the server, unless something was raised: then there may be no time for it."""
        self._is_leaving = True
        try:
            if kind is None and self._line is not None:
                # Bounded by the socket's own time-out.
                await self._line.socket.close()
        finally:
            self._cancel_all()
            try:
                # Not told what was raised: a group would wrap it, and the app wants it as it is.
                await self._tasks.__aexit__(None, None, None)
            finally:
                await self._http.aclose()

    def __aiter__(self) -> AsyncIterator[Event]:
        """Return the client itself: one loop may read from it."""
        return self

    async def __anext__(self) -> Event:
        """Return the next event. Raises ``SignedOut`` once the server refuses the token; then nothing follows."""
        return await self._mailbox.take()

    @property
    def state(self) -> ConnectionState:
        """How the server is reached now."""
        return self._state or ConnectionState.CONNECTING

    def server_now_ms(self) -> float | None:
        """Return the server's time, ms since the epoch, whatever this machine's clock says; ``None`` before it was heard."""
        return self._clock.now_ms(monotonic())

    def hurry(self) -> None:
        """The network is back, or the app is in front again: do not sit out a long wait, and ask the line whether it is alive."""
        if self._line is not None:
            self._start(self._line.probe)
        self._try_now()
        self._poll_hurried.set()

    async def call(self, method: str, path: str, *, body: Json | None = None, query: Json | None = None) -> Any:
        """Make a REST call; return the JSON that is answered, ``None`` for 204. Raises ``Problem``, and ``SignedOut``."""
        answer = await self._rest.call(method, path, body=body, query=query)
        if method != "GET":
            # What a poll on its way is going to say may be older than this.
            self._changes += 1
            self._poll_hurried.set()
        return answer

    async def act(self, request_id: str, verb: str, *, body: Json | None = None) -> Request | Refused:
        """Do something with a request, by the last part of its path.

        A mechanic's: ``start`` (before the request's ``start`` is over), ``release``, ``complete``. A customer's: ``skip-wait``,
        ``cancel``, ``complete``, ``find-another`` with a ``body`` of ``{"mechanic_id": …}``, and ``report`` with one of
        ``{"reason": …}``. Safe to repeat; a refusal may then be the echo of an earlier try whose answer was lost: the request's
        status tells. Raises ``Problem`` if nobody answers, and ``SignedOut``.
        """
        try:
            answer = await self.call("POST", f"/api/requests/{request_id}/{verb}", body=body)
        except Problem as problem:
            if problem.may_retry:
                raise
            return Refused(problem.code, problem.detail)
        request: Request = _member(answer, "request")
        self._take_request(request)
        return request

    # --- for the two kinds to fill in ---------------------------------------------------------------------------------

    def _hear_welcome(self, line: _Line, message: Json, received_s: float) -> None:
        """Tell what is different since the last one, and say what the server has to know."""
        raise NotImplementedError

    def _hear(self, line: _Line, message: Json) -> None:
        """Do what a message asks for; unknown types are ignored."""
        raise NotImplementedError

    async def _poll(self) -> Callable[[], None]:
        """Ask REST for what a welcome says; return what takes it in."""
        raise NotImplementedError

    def _note_request(self, request: Request) -> None:
        """Look at a request, each time that it is heard of, news or not."""

    # --- the life of it -----------------------------------------------------------------------------------------------

    def _start(self, work: Work) -> asyncio.Task[None]:
        """Run something until it ends or the client does. What it raises ends the client."""
        # Called inside of the task: one that is cancelled before its first step has then begun nothing.
        task = self._tasks.create_task(self._ending_all(work))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _ending_all(self, work: Work) -> None:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - raised where events are read and answers are waited for
            self._mailbox.end(error)
            if not self._ended.done():
                self._ended.set_result(None)
            self._cancel_all()

    def _cancel_all(self) -> None:
        for task in self._running:
            task.cancel()

    def _raise_if_ended(self) -> None:
        if self._mailbox.ended_by is not None:
            raise self._mailbox.ended_by

    async def _stay_connected(self) -> None:
        unwelcomed = 0
        is_fresh = False
        """Whether the token is one that was fetched because the one before was refused."""
        while not self._is_leaving:
            self._tell_state(ConnectionState.RECONNECTING if self._state else ConnectionState.CONNECTING)
            end = await self._visit()
            self._tell_state(ConnectionState.RECONNECTING)
            if end.is_refused and is_fresh and not end.was_welcomed:
                raise SignedOut(TOKEN_REFUSED)
            is_fresh = end.is_refused
            unwelcomed = 0 if end.was_welcomed else unwelcomed + 1
            if unwelcomed >= BLOCKED_AFTER:
                self._is_blocked.set()
            is_polling = self._state is ConnectionState.POLLING
            wait_s = self._tries.wait_s(end.then, end.lived_s, self._dice.random(), is_polling=is_polling)
            await self._pause(self._hurried, wait_s, end.retry_after_s)

    async def _pause(self, hurried: asyncio.Event, wait_s: float, at_least_s: float) -> None:
        """Wait. Hurry shortens our own wait, and not the one that the server has asked for."""
        may_go_on_at_s = monotonic() + at_least_s
        hurried.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await hurried.wait()
        await asyncio.sleep(max(0.0, may_go_on_at_s - monotonic()))

    async def _visit(self) -> _End:
        """Open one socket and stay until it ends. Raises ``SignedOut`` if there is no token to do it with any more."""
        try:
            token = await self._tokens.get()
        except Problem as problem:
            if not problem.may_retry:
                raise
            log.debug("no token: %s", problem)
            return _End(retry_after_s=problem.retry_after_s or 0.0)
        ends_s = monotonic() + WELCOME_TIMEOUT_S
        try:
            socket = await connect(
                self._base_url.replace("http", "ws", 1) + self._path,
                additional_headers={"Authorization": f"Bearer {token}"},
                compression=None,
                open_timeout=WELCOME_TIMEOUT_S,
                close_timeout=CLOSE_TIMEOUT_S,
                # Heartbeats find out the same; what the server pings is answered all the same.
                ping_interval=None,
                max_size=FRAME_LEN_MAX,
                proxy=True if self._trust_env else None,
            )
        except InvalidStatus as refusal:
            return self._after_refusal(refusal, token)
        except (OSError, TimeoutError, WebSocketException) as error:
            log.debug("no connection: %r", error)
            return _End()
        line = _Line(socket)
        beside = [self._start(line.write)]
        try:
            end = await self._talk(line, beside, ends_s)
        finally:
            self._line = None
            line.lost.set_result(None)
            for task in beside:
                task.cancel()
            # Closed already, or there is no time for it: nothing stays behind either way.
            line.give_up()
        if end.then is not Then.SIGN_IN:
            return end
        self._tokens.refuse(token)
        return replace(end, then=Then.RECONNECT, is_refused=True)

    def _after_refusal(self, refusal: InvalidStatus, token: str) -> _End:
        response = refusal.response
        headers = {name.lower(): value for name, value in response.headers.raw_items()}
        problem = _problem(response.status_code, headers, bytes(response.body))
        if problem.refuses_token:
            self._tokens.refuse(token)
        if problem.code == "wrong_role":
            raise SignedOut(problem.detail)
        log.debug("the socket was refused: %s", problem)
        # More sockets than an account may have are not fewer in a second.
        has_too_many = problem.is_ours and problem.status == httpx.codes.TOO_MANY_REQUESTS
        return _End(
            Then.RECONNECT_SLOWLY if has_too_many else Then.RECONNECT,
            retry_after_s=problem.retry_after_s or 0.0,
            is_refused=problem.refuses_token,
        )

    async def _talk(self, line: _Line, beside: list[asyncio.Task[None]], ends_s: float) -> _End:
        """Hear the welcome, which is the first message, by ``ends_s``, and then what follows; put the heartbeat ``beside``."""
        was_welcomed = False
        try:
            async with asyncio.timeout(max(0.0, ends_s - monotonic())):
                while (welcome := _parsed(await line.socket.recv())) is None or welcome.get("type") != "welcome":
                    pass
            self._take_welcome(line, welcome)
            was_welcomed = True
            interval_s = float(welcome.get("heartbeat_interval_s") or HEARTBEAT_FALLBACK_S)
            # Anywhere in the interval: those who come back together after a restart must not beat together.
            beside.append(self._start(partial(line.beat, interval_s, self._dice.random() * interval_s)))
            while True:
                self._take_frame(line, await line.socket.recv())
        except TimeoutError:
            return _End()
        except (KeyError, TypeError, ValueError):
            log.warning("the welcome was not understood", exc_info=True)
            return _End(Then.FIX)
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd is not None else None
            return _End(after_close(code), was_welcomed, monotonic() - line.since_s)

    def _take_welcome(self, line: _Line, message: Json) -> None:
        received_s = monotonic()
        self._clock.hear(message["server_time"], received_s, is_first=True)
        self._line = line
        self._welcomes += 1
        self._is_blocked.clear()
        self._tell_state(ConnectionState.LIVE)
        self._hear_welcome(line, message, received_s)

    def _take_frame(self, line: _Line, frame: str | bytes) -> None:
        line.heard()
        message = _parsed(frame)
        if message is None:
            return
        try:
            if message["type"] == "heartbeat_ack":
                self._clock.hear(message["server_time"], monotonic())
            else:
                self._hear(line, message)
        except (KeyError, TypeError, ValueError):
            # What a newer server means by it, nobody here knows; the others are as good as before.
            log.warning("a message was not understood: %.200r", frame, exc_info=True)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _try_now(self) -> None:
        self._tries.hurry()
        self._hurried.set()

    def _tell_state(self, state: ConnectionState) -> None:
        # While REST answers, a socket that is tried in between is no news.
        if state is self._state or (state is ConnectionState.RECONNECTING and self._state is ConnectionState.POLLING):
            return
        self._state = state
        self._mailbox.put(("connection", ""), ConnectionChanged(state))

    def _take_request(self, request: Request) -> None:
        self._unsure.pop(request["id"], None)
        if self._requests.take(request, monotonic()):
            changed = RequestChanged(request, self._requests.deadline_s(request["id"]))
            self._mailbox.put(("request", request["id"]), changed)
        self._note_request(request)

    def _take_requests(self, requests: Sequence[Request]) -> None:
        """Take in a list that names all that are open; find out what became of others that were."""
        for request_id in self._requests.open_besides(requests)[:UNSURE_MAX]:
            self._unsure[request_id] = None
            self._has_unsure.set()
        for request in requests:
            self._take_request(request)

    async def _read(self, request_id: str) -> Request:
        request: Request = await self.call("GET", f"/api/requests/{request_id}")
        _member(request, "version")
        return request

    async def _look_up_unsure(self) -> None:
        attempt = 0
        while True:
            if not self._unsure:
                self._has_unsure.clear()
                await self._has_unsure.wait()
                continue
            request_id = next(iter(self._unsure))
            try:
                request = await self._read(request_id)
            except Problem as problem:
                if problem.may_retry:
                    wait_s = backoff_s(attempt, Then.RECONNECT, self._dice.random())
                    await asyncio.sleep(max(problem.retry_after_s or 0.0, wait_s))
                    attempt += 1
                    continue
                # Whatever else is the matter with this call, the next snapshot that does not name the request asks again.
                self._unsure.pop(request_id, None)
                if problem.status == httpx.codes.NOT_FOUND:
                    self._requests.forget(request_id)
                    self._mailbox.put(("request", request_id), RequestGone(request_id))
            else:
                self._take_request(request)
            attempt = 0

    async def _poll_while_blocked(self) -> None:
        failures = 0
        while True:
            await self._is_blocked.wait()
            welcomes, changes = self._welcomes, self._changes
            retry_after_s = 0.0
            try:
                take_in = await self._poll()
            except Problem as problem:
                if problem.code == "wrong_role":
                    raise SignedOut(problem.detail) from problem
                log.debug("no answer to a poll: %s", problem)
                failures += 1
                retry_after_s = problem.retry_after_s or 0.0
                if self._state is ConnectionState.POLLING:
                    self._state = None
                    self._tell_state(ConnectionState.RECONNECTING)
            else:
                failures = 0
                if changes != self._changes:
                    continue
                # A welcome that came meanwhile is newer.
                if welcomes == self._welcomes and self._is_blocked.is_set():
                    if self._state is not ConnectionState.POLLING:
                        # What has just begun to work may be the server itself: the socket gets its chance now, and then seldom.
                        self._try_now()
                    self._tell_state(ConnectionState.POLLING)
                    take_in()
            wait_s = poll_in_s(self._poll_interval_s, failures, retry_after_s, self._dice.random())
            await self._pause(self._poll_hurried, wait_s, retry_after_s)

    async def _first_of(self, *futures: asyncio.Future[Any], within_s: float | None = None) -> None:
        """Wait until one of them is done, or the client has ended: that is raised."""
        await asyncio.wait([*futures, self._ended], timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        if not any(future.done() for future in futures):
            self._raise_if_ended()


class MechanicClient(_Client):
    """A mechanic's app."""

    _path = "/ws/mechanic"

    def __init__(self, base_url: str, token: Token, **options: Any) -> None:
        """As ``_Client``; ``options`` are its own."""
        super().__init__(base_url, token, **options)
        self.mechanic_id: str | None = None
        """Who this is; known from the first welcome on."""
        self._book = OfferBook()
        self._accepts: dict[str, _Pending[Request | Refused]] = {}
        self._declines: dict[str, _Pending[Refused | None]] = {}
        self._doubtful: OrderedDict[str, None] = OrderedDict()
        """Offers that an accept was sent for which may still win."""
        self._duty: DutyChanged | None = None
        self._wish: _Wish | None = None
        self._unanswered: deque[_Wish] = deque(maxlen=URGENT_MAX)
        """What was said of duty on this line, in order; once for each time. The server answers in the same order."""

    # --- what an app calls --------------------------------------------------------------------------------------------

    @property
    def offers(self) -> list[OpenOffer]:
        """What is open to the mechanic now."""
        return list(self._book.open.values())

    @property
    def on_duty(self) -> bool | None:
        """Whether the mechanic wants to be asked; ``None`` before the first welcome."""
        return None if self._duty is None else self._duty.on_duty

    def seen(self, offer_id: str) -> None:
        """Say that a person could see the offer, on a screen that was on. It is said again whenever the offer comes again."""
        known = self._book.open.get(offer_id)
        if known is not None and not known.is_seen:
            known.is_seen = True
            if self._line is not None:
                self._line.acknowledge(offer_id, is_seen=True)

    async def accept(self, offer_id: str) -> Request | Refused:
        """Take the request; return it, or why it cannot be had. Safe to repeat, also while an earlier call has not ended.

        Raises ``Unsettled`` if nobody answers for half a minute, and ``SignedOut``.
        """

        async def by_rest() -> Request | Refused:
            try:
                taken: Request = _member(await self.call("POST", f"/api/offers/{offer_id}/accept"), "request")
            except Problem as problem:
                if problem.may_retry:
                    raise
                return Refused(problem.code, problem.detail)
            return taken

        was_doubtful = offer_id in self._doubtful
        self._doubtful[offer_id] = None
        if len(self._doubtful) > REMEMBERED_MAX:
            self._doubtful.popitem(last=False)
        with _waiting_for(self._accepts, offer_id) as pending:
            # By now it may not be open any more: an earlier call has won it, or a session keeps it from the table.
            pending.request_id = self._book.request_of(offer_id)
            outcome, tries = await self._settled(pending, {"type": "accept", "offer_id": offer_id}, by_rest)
            if isinstance(outcome, Refused) and (was_doubtful or tries > 1):
                # An earlier try may have won and the session be over by now: then this one came too late.
                outcome = await self._ours(pending.request_id) or outcome
        if not isinstance(outcome, Refused) or outcome.code == "offer_gone":
            # Of what was refused only for now, a double that is still on its way may win.
            self._doubtful.pop(offer_id, None)
        if isinstance(outcome, Refused):
            self._note_refusal(offer_id, outcome.code)
        else:
            self._note_accepted(offer_id, outcome)
        return outcome

    async def decline(self, offer_id: str, reason: str | None = None) -> Refused | None:
        """Do not be asked for this request again; ``None``: so it is, else why it made no difference. Safe to repeat.

        Raises ``Unsettled`` if nobody answers for half a minute, and ``SignedOut``.
        """
        said = {} if reason is None else {"reason": reason}

        async def by_rest() -> Refused | None:
            try:
                await self.call("POST", f"/api/offers/{offer_id}/decline", body=said)
            except Problem as problem:
                if problem.may_retry:
                    raise
                return Refused(problem.code, problem.detail)
            return None

        with _waiting_for(self._declines, offer_id) as pending:
            outcome, _ = await self._settled(pending, {"type": "decline", "offer_id": offer_id} | said, by_rest)
        if outcome is None:
            self._close(offer_id, "declined", by_you=True)
        else:
            self._note_refusal(offer_id, outcome.code)
        return outcome

    async def set_on_duty(
        self, on_duty: bool, *, back_in_s: int | None = None, off_after_session: bool = False
    ) -> Refused | None:
        """Go on or off duty; ``None`` once the server has said so, else why not. Only the newest wish counts.

        It survives a reconnect; whoever waits for an older one gets ``None``. ``back_in_s``, with off duty: on duty again by itself
        then, counted from when the server hears it. ``off_after_session``, with on duty: off duty once the session has ended.
        Raises ``Unsettled`` after half a minute, and ``SignedOut``.
        """
        if self._wish is not None:
            self._wish.settle(None)
        message: Json = {"type": "set_availability", "on_duty": on_duty}
        if back_in_s is not None:
            message["back_in_s"] = back_in_s
        if off_after_session:
            message["off_after_session"] = True
        wish = self._wish = _Wish(message, asyncio.get_running_loop().create_future())
        ends_s = monotonic() + SETTLE_TIMEOUT_S
        try:
            while not wish.answer.done():
                if monotonic() >= ends_s:
                    raise Unsettled("the server has not said whether duty has changed")
                if self._line is not None:
                    self._say_wish(self._line, wish)
                await self._first_of(wish.answer, within_s=ANSWER_TIMEOUT_S)
        finally:
            # Also for who was cancelled: nobody waits for what is answered now.
            wish.settle(None)
            if self._wish is wish:
                self._wish = None
        return wish.answer.result()

    async def start(self, request_id: str) -> Request | Refused:
        """Begin the session, before ``start`` is over: else it goes to others, and this is refused. Raises as ``act``."""
        return await self.act(request_id, "start")

    async def release(self, request_id: str) -> Request | Refused:
        """Give an accepted request back: everybody else is asked; once more, it is answered the same. Raises as ``act``."""
        return await self.act(request_id, "release")

    async def complete(self, request_id: str) -> Request | Refused:
        """Say that the session is over; also after the customer has, it is answered the same. Raises as ``act``."""
        return await self.act(request_id, "complete")

    # --- hearing ------------------------------------------------------------------------------------------------------

    def _hear_welcome(self, line: _Line, message: Json, received_s: float) -> None:
        self.mechanic_id = message["mechanic_id"]
        self._take_duty(message)
        # What the line before has not answered, it never will.
        self._unanswered.clear()
        if self._wish is not None:
            self._say_wish(line, self._wish)
        # The request first: an offer that it came from was accepted, and is not merely gone.
        self._take_requests([message["request"]] if message["request"] is not None else [])
        self._take_offers(message["offers"], received_s)
        for offer in message["offers"]:
            self._acknowledge(line, offer["offer_id"])

    def _hear(self, line: _Line, message: Json) -> None:
        match message:
            case {"type": "offer", "offer": offer}:
                if (made := self._book.take(offer, monotonic())) is not None:
                    self._tell_made(made)
                # Each time, also for one that we have: it came again because our first word did not arrive.
                self._acknowledge(line, offer["offer_id"])
            case {"type": "offer_accepted", "offer_id": offer_id, "request": request}:
                _resolve(self._accepts.get(offer_id), request)
                self._note_accepted(offer_id, request)
            case {"type": "offer_withdrawn", "offer_id": offer_id, "reason": reason}:
                # Not for good: who changes what they take may be offered the same again.
                if (offer := self._book.withdraw(offer_id)) is not None:
                    by_you = message.get("by_you") is True or offer_id in self._declines
                    self._mailbox.put(("offer", offer_id), OfferGone(offer, reason, by_you))
                was_late = Refused("offer_gone", f"The offer is not open any more: {reason}.")
                _resolve(self._declines.get(offer_id), None if reason == "declined" else was_late)
            case {"type": "request_update", "request": request}:
                self._take_request(request)
            case {"type": "availability", "on_duty": _, "availability": _}:
                self._take_duty(message)
                self._note_granted(message)
            case {"type": "error", "code": code, "message": sentence}:
                self._hear_error(code, sentence, message.get("ref"))
            case _:
                pass

    def _hear_error(self, code: str, sentence: str, ref: str | None) -> None:
        is_awaited = False
        if ref is not None:
            refused = Refused(code, sentence)
            is_awaited = _refuse(self._accepts.get(ref), refused) | _refuse(self._declines.get(ref), refused)
        else:
            is_awaited = self._note_wish_refused(Refused(code, sentence))
        if not is_awaited:
            if ref is not None:
                self._note_refusal(ref, code)
            self._mailbox.put(("complaint", f"{code} {ref}"), ServerComplained(code, sentence, ref))

    async def _poll(self) -> Callable[[], None]:
        if self.mechanic_id is None:
            self.mechanic_id = _member(await self.call("GET", "/api/me"), "id")
        offers = _member(await self.call("GET", "/api/offers"), "offers")
        received_s = monotonic()
        requests = _member(await self.call("GET", "/api/requests", query={"limit": POLL_LEN}), "requests")

        def take_in() -> None:
            self._take_requests(requests[::-1])
            self._take_offers(offers, received_s)

        return take_in

    # --- inside -------------------------------------------------------------------------------------------------------

    async def _settled(self, pending: _Pending[T], message: Json, by_rest: Callable[[], Awaitable[T]]) -> tuple[T, int]:
        """Return the server's answer to a message, and after how many tries: by the socket, by REST where that says nothing."""
        ends_s = monotonic() + SETTLE_TIMEOUT_S
        tries = 0
        while True:
            if (line := self._line) is not None and not pending.answer.done() and line.say(message):
                tries += 1
                await self._first_of(pending.answer, pending.not_done, line.lost, within_s=ANSWER_TIMEOUT_S)
            if pending.answer.done():
                return pending.answer.result(), max(tries, 1)
            tries += 1
            try:
                return await self._or_by(pending.answer, by_rest), tries
            except Problem as problem:
                if not problem.may_retry:
                    raise
                await self._wait_after(problem, tries, ends_s, pending.answer)
            if pending.not_done.done():
                pending.not_done = asyncio.get_running_loop().create_future()

    async def _wait_after(self, problem: Problem, tries: int, ends_s: float, *answers: asyncio.Future[Any]) -> None:
        """Wait until the same may be asked again, or is answered meanwhile. Raises ``Unsettled`` if neither is by ``ends_s``."""
        wait_s = max(problem.retry_after_s or 0.0, backoff_s(tries, Then.RECONNECT, self._dice.random()))
        left_s = max(0.0, ends_s - monotonic())
        await self._first_of(*answers, within_s=min(wait_s, left_s))
        if wait_s >= left_s and not any(answer.done() for answer in answers):
            raise Unsettled("nobody has answered; the next snapshot tells what is true") from problem

    async def _or_by(self, answer: asyncio.Future[T], by_rest: Callable[[], Awaitable[T]]) -> T:
        """Ask REST, and return whatever answers first: that, or the socket which is back meanwhile."""
        asked: asyncio.Future[T | Exception] = asyncio.get_running_loop().create_future()

        async def ask() -> None:
            said: T | Exception
            try:
                said = await by_rest()
            except (Problem, SignedOut) as error:
                said = error
            if not asked.done():
                asked.set_result(said)

        task = self._start(ask)
        try:
            await self._first_of(answer, asked)
        finally:
            task.cancel()
        if answer.done():
            return answer.result()
        said = asked.result()
        if isinstance(said, Exception):
            raise said
        return said

    async def _ours(self, request_id: str | None) -> Request | None:
        """Return the request if this mechanic has it or has had it to its end. Raises ``Unsettled`` if nobody says so in time."""
        if request_id is None:
            return None
        ends_s = monotonic() + SETTLE_TIMEOUT_S
        tries = 0
        while (request := self._requests.get(request_id)) is None or not self._is_ours(request):
            tries += 1
            try:
                request = await self._read(request_id)
            except Problem as problem:
                if not problem.may_retry:
                    # Somebody else's.
                    return None
                await self._wait_after(problem, tries, ends_s)
            else:
                break
        return request if self._is_ours(request) else None

    def _is_ours(self, request: Request) -> bool:
        assigned = request["assigned_mechanic"]
        return assigned is not None and assigned["id"] == self.mechanic_id and request["status"] in TAKEN_STATUSES

    def _note_request(self, request: Request) -> None:
        if self._is_ours(request):
            for pending in self._accepts.values():
                if pending.request_id == request["id"]:
                    _resolve(pending, request)
            for offer_id in self._book.of_request(request["id"]):
                self._close(offer_id, "accepted", by_you=True)

    def _note_accepted(self, offer_id: str, request: Request) -> None:
        self._close(offer_id, "accepted", by_you=True)
        self._take_request(request)

    def _note_refusal(self, offer_id: str, code: str) -> None:
        if code == "offer_gone":
            self._close(offer_id, "gone")

    def _close(self, offer_id: str, reason: str, *, by_you: bool = False) -> None:
        """Take an offer off the table; what this account has answered stays off it."""
        offer = self._book.answer(offer_id) if by_you else self._book.withdraw(offer_id)
        if offer is not None:
            self._mailbox.put(("offer", offer_id), OfferGone(offer, reason, by_you))

    def _take_offers(self, offers: Sequence[Offer], received_s: float) -> None:
        made, gone = self._book.snapshot(offers, received_s)
        for offer in gone:
            self._mailbox.put(("offer", offer["offer_id"]), OfferGone(offer, "gone"))
        for one in made:
            self._tell_made(one)

    def _tell_made(self, made: OpenOffer) -> None:
        self._mailbox.put(("offer", made.offer["offer_id"]), OfferMade(made.offer, made.deadline_s))

    def _acknowledge(self, line: _Line, offer_id: str) -> None:
        known = self._book.open.get(offer_id)
        line.acknowledge(offer_id, is_seen=known is not None and known.is_seen)

    def _say_wish(self, line: _Line, wish: _Wish) -> None:
        if line.say(wish.message):
            self._unanswered.append(wish)

    def _note_granted(self, told: Json) -> None:
        """Settle the oldest wish that is so now; what was said before it has been overtaken."""
        granted = next((wish for wish in self._unanswered if wish.is_granted_by(told)), None)
        if granted is not None:
            while self._unanswered.popleft() is not granted:
                pass
            granted.settle(None)

    def _note_wish_refused(self, refused: Refused) -> bool:
        """Settle the oldest wish, as only errors about duty name no id; ``False``: nobody waits for this answer."""
        wish = self._unanswered.popleft() if self._unanswered else None
        if wish is None or wish.answer.done():
            return False
        # What could not be done just now is said again until it is.
        if refused.code not in NOT_DONE_CODES:
            wish.settle(refused)
        return True

    def _take_duty(self, told: Json) -> None:
        """Take a welcome, or an ``availability``."""
        duty = DutyChanged(
            told["on_duty"], told.get("availability"), told.get("back_at"), told.get("off_after_session") is True
        )
        known = self._duty
        if known is not None and duty.availability is None:
            # A welcome does not name it, and that alone is no news.
            known = replace(known, availability=None)
        if duty != known:
            self._duty = duty
            self._mailbox.put(("duty", ""), duty)


class CustomerClient(_Client):
    """A customer's page or app."""

    _path = "/ws/customer"

    def __init__(self, base_url: str, token: Token, **options: Any) -> None:
        """As ``_Client``; ``options`` are its own."""
        super().__init__(base_url, token, **options)
        self._watched: dict[str, None] = {}
        self._statuses = StatusBook()
        self._prompted: OrderedDict[str, None] = OrderedDict()

    # --- what an app calls --------------------------------------------------------------------------------------------

    @property
    def watched(self) -> list[str]:
        """Whose status is followed."""
        return list(self._watched)

    def watch(self, mechanic_ids: Iterable[str]) -> None:
        """Follow the status of these, too: now, after every change, and after every reconnect. Twice is once.

        Raises ``ValueError`` for more than a socket may watch in total; then nothing is different.
        """
        fresh = [one for one in dict.fromkeys(mechanic_ids) if one not in self._watched]
        if len(self._watched) + len(fresh) > WATCH_MAX:
            raise ValueError(f"one client may watch at most {WATCH_MAX} mechanics")
        self._watched |= dict.fromkeys(fresh)
        if self._line is not None:
            self._say_watch(self._line, fresh)

    def unwatch(self, mechanic_ids: Iterable[str]) -> None:
        """Follow these no longer."""
        gone = [one for one in dict.fromkeys(mechanic_ids) if one in self._watched]
        for mechanic_id in gone:
            self._forget(mechanic_id)
        if gone and self._line is not None:
            self._line.say({"type": "unwatch", "mechanic_ids": gone})

    async def find_another(self, request_id: str, mechanic_id: str) -> Request | Refused:
        """Do not wait for the mechanic who has accepted: everybody else is asked. Raises as ``act``.

        ``mechanic_id`` is whom the person saw when they decided. If somebody else has the request by now, it is refused.
        """
        return await self.act(request_id, "find-another", body={"mechanic_id": mechanic_id})

    async def complete(self, request_id: str) -> Request | Refused:
        """Say that the session is over; also after the mechanic has, it is answered the same. Raises as ``act``."""
        return await self.act(request_id, "complete")

    async def report(self, request_id: str, reason: str) -> Request | Refused:
        """Tell the operator that something was wrong with the session: once, within seven days of its end. Raises as ``act``."""
        return await self.act(request_id, "report", body={"reason": reason})

    # --- hearing ------------------------------------------------------------------------------------------------------

    def _hear_welcome(self, line: _Line, message: Json, received_s: float) -> None:
        self._take_requests(message["requests"])
        self._say_watch(line, self._watched)

    def _hear(self, line: _Line, message: Json) -> None:
        match message:
            case {"type": "status"}:
                self._take_status(_without_type(message))
            case {"type": "statuses", "statuses": statuses}:
                for status in statuses:
                    self._take_status(status)
            case {"type": "request_update", "request": request}:
                self._take_request(request)
            case {"type": "favorite_prompt", "request_id": request_id, "mechanic": mechanic}:
                if request_id not in self._prompted:
                    self._prompted[request_id] = None
                    if len(self._prompted) > REMEMBERED_MAX:
                        self._prompted.popitem(last=False)
                    self._mailbox.put(("prompt", request_id), FavoritePrompted(request_id, mechanic))
            case {"type": "error", "code": code, "message": sentence}:
                ref = message.get("ref")
                if code == "mechanic_not_found" and ref is not None:
                    self._forget(ref)
                self._mailbox.put(("complaint", f"{code} {ref}"), ServerComplained(code, sentence, ref))
            case _:
                pass

    async def _poll(self) -> Callable[[], None]:
        requests = _member(await self.call("GET", "/api/requests", query={"limit": POLL_LEN}), "requests")
        statuses: list[Status] = []
        for some in slices(self._watched):
            answer = await self.call("GET", "/api/mechanics/status", query={"ids": ",".join(some)})
            statuses += _member(answer, "statuses")

        def take_in() -> None:
            self._take_requests(requests[::-1])
            for status in statuses:
                self._take_status(status)

        return take_in

    # --- inside -------------------------------------------------------------------------------------------------------

    def _say_watch(self, line: _Line, mechanic_ids: Iterable[str]) -> None:
        for some in slices(mechanic_ids):
            line.say({"type": "watch", "mechanic_ids": some})

    def _forget(self, mechanic_id: str) -> None:
        self._watched.pop(mechanic_id, None)
        self._statuses.forget(mechanic_id)

    def _take_status(self, status: Status) -> None:
        mechanic_id = status["mechanic_id"]
        if mechanic_id in self._watched and self._statuses.take(status):
            self._mailbox.put(("status", mechanic_id), StatusChanged(status))


# --- small things -----------------------------------------------------------------------------------------------------


def _parsed(frame: str | bytes) -> Json | None:
    """Return the object in a frame; ``None`` for what is none: clients ignore what they do not understand."""
    try:
        message = json.loads(frame)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def _without_type(message: Json) -> Any:
    return {name: value for name, value in message.items() if name != "type"}


def _resolve(pending: _Pending[T] | None, answer: T) -> None:
    if pending is not None and not pending.answer.done():
        pending.answer.set_result(answer)


def _refuse(pending: _Pending[T | Refused] | None, refused: Refused) -> bool:
    """Hand an error to who waits for an answer; ``False``: nobody does."""
    if pending is None:
        return False
    if refused.code not in NOT_DONE_CODES:
        _resolve(pending, refused)
    elif not pending.not_done.done():
        pending.not_done.set_result(None)
    return True


@contextmanager
def _waiting_for(table: dict[str, _Pending[T]], offer_id: str) -> Iterator[_Pending[T]]:
    """Wait for the answer about an offer, together with whoever waits for the same."""
    loop = asyncio.get_running_loop()
    pending = table.setdefault(offer_id, _Pending(loop.create_future(), loop.create_future()))
    pending.waiting += 1
    try:
        yield pending
    finally:
        pending.waiting -= 1
        if not pending.waiting:
            del table[offer_id]
