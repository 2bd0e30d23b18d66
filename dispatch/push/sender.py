"""Messages on their way to push services. Each service has a batch of its own in hand: one that hangs delays nobody else's.

Services that have answered, those that have never been asked, and those that are in trouble have workers, connections and
look-ups of their own; all but the first kind one message at a time. So a stranger who subscribes at a hundred places that hang
holds up the others of that kind, and nobody whose push service works.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from functools import partial
from typing import Any, Final

import anyio
import msgspec
import structlog

from dispatch.due_work import Claimed, DueWork
from dispatch.push.bell import Bell
from dispatch.push.pages import OpenPages
from dispatch.push.planner import SQL
from dispatch.push.road import Answered, PushRoad, PushServiceAway, TrustedHosts
from dispatch.push.rules import FORBIDDEN, Again, GivenUp, Rejected, SubscriptionOver, Taken, judge
from dispatch.push.subscriptions import Subscriptions
from dispatch.push.updates import UPDATE
from dispatch.push.vapid import Vapid
from infra.clock import Clock
from infra.database import Database
from infra.statements import Nothing, Statement, Transaction
from models.errors import PitlaneError, RedisUnavailable, Unavailable

LEASE_MS: Final = 10_000
"""Longer than one try takes; after it another node sends the message, as when the one that had it was killed."""
STEADY_MAX: Final = 64
"""Messages under way to services that answer; of one service a batch."""
BATCH_LEN: Final = 16
PATIENT_MAX: Final = 16
"""Messages under way to services of each other kind."""
PLACES_LEN_MAX: Final = 10_000
"""Push services of each kind that are remembered; of more, the oldest is like a new one."""
SLOW_MS: Final = 3_000
"""Who takes longer to answer is in trouble, too: it would keep the places of those that do not."""


class Kind(Enum):
    """What is known of a push service."""

    STEADY = auto()
    """It answered last time, or the time before: one call that fails at once is no trouble yet."""
    UNTRIED = auto()
    TROUBLED = auto()
    """It did not answer, or says itself that it is in trouble."""


@dataclass(frozen=True)
class DueMessage:
    """A row of ``due_messages``."""

    id: str
    place: str


@dataclass(frozen=True)
class NextMessage:
    """The row of ``next_message``: when the next one is to be sent; ``None`` if there is none."""

    at_ms: int | None


@dataclass(frozen=True)
class PushMessage:
    """A row of ``claim_messages``. The browser's part is ``None`` if it has unsubscribed."""

    id: str
    subscription_id: str
    place: str
    topic: str
    kind: str
    payload: str
    expires_at_ms: int
    attempts: int
    was_forbidden: bool
    account_id: str | None
    endpoint: str | None
    p256dh: str | None
    auth: str | None


@dataclass(frozen=True)
class Place:
    """A row of ``steady_places``."""

    place: str


STEADY_PLACES = Statement(SQL / "steady_places.sql", Place)
DUE_MESSAGES = Statement(SQL / "due_messages.sql", DueMessage)
NEXT_MESSAGE = Statement(SQL / "next_message.sql", NextMessage)
CLAIM_MESSAGES = Statement(SQL / "claim_messages.sql", PushMessage)
FINISH_MESSAGE = Statement(SQL / "finish_message.sql", Nothing)
WITHHOLD_MESSAGE = Statement(SQL / "withhold_message.sql", Nothing)
NOTE_USE = Statement(SQL / "note_use.sql", Nothing)
PUT_OFF_MESSAGE = Statement(SQL / "put_off_message.sql", Nothing)


class PushRejected(PitlaneError):
    """A push service will not take messages for a subscription."""


class Sender:
    """Sends what is due, as often as it takes, until it is no use any more."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        bell: Bell,
        subscriptions: Subscriptions,
        pages: OpenPages,
        trusted: TrustedHosts,
        vapid: Vapid,
    ) -> None:
        self._database = database
        self._clock = clock
        self._bell = bell
        self._subscriptions = subscriptions
        self._pages = pages
        self._vapid = vapid
        self._roads = {
            Kind.STEADY: PushRoad(trusted, connections_max=STEADY_MAX),
            Kind.UNTRIED: PushRoad(trusted, connections_max=PATIENT_MAX),
            Kind.TROUBLED: PushRoad(trusted, connections_max=PATIENT_MAX),
        }
        self._under_way: Counter[str] = Counter()
        """Messages in hand here, by their push service."""
        self._places: dict[Kind, dict[str, bool]] = {Kind.STEADY: {}, Kind.TROUBLED: {}}
        """Push services as they were when they were last asked, in that order, and whether they answered then."""
        self._has_read_places = False
        self._workers = {
            Kind.STEADY: self._worker("push", Kind.STEADY, side_by_side=STEADY_MAX),
            Kind.UNTRIED: self._worker("push_untried", Kind.UNTRIED, side_by_side=PATIENT_MAX),
            Kind.TROUBLED: self._worker("push_troubled", Kind.TROUBLED, side_by_side=PATIENT_MAX),
        }
        self._log = structlog.get_logger("push")

    def _worker(self, name: str, kind: Kind, *, side_by_side: int) -> DueWork[PushMessage]:
        return DueWork(
            name,
            claim=partial(self._claim, kind),
            work=partial(self._send, kind),
            failed=self._failed,
            side_by_side=side_by_side,
        )

    async def run(self) -> None:
        """Send until cancelled."""
        try:
            async with anyio.create_task_group() as tasks:
                for worker in self._workers.values():
                    tasks.start_soon(worker.run)
                tasks.start_soon(self._follow_bell)
        finally:
            with anyio.CancelScope(shield=True):
                for road in self._roads.values():
                    await road.close()

    async def _follow_bell(self) -> None:
        while True:
            await self._bell.rung()
            for worker in self._workers.values():
                worker.wake()

    async def _claim(self, kind: Kind, count_max: int) -> Sequence[PushMessage]:
        now_ms = self._clock.now_ms()
        steady, troubled = self._places[Kind.STEADY], self._places[Kind.TROUBLED]
        if not self._has_read_places:
            for row in await self._database.query(STEADY_PLACES(limit=PLACES_LEN_MAX)):
                steady.setdefault(row.place, True)
            self._has_read_places = True
        is_untried = kind is Kind.UNTRIED
        if is_untried:
            places = list({*steady, *troubled, *self._under_way})
        else:
            places = [place for place in self._places[kind] if place not in self._under_way]
        if not (places or is_untried):
            return []
        each = BATCH_LEN if kind is Kind.STEADY else 1

        def look() -> Transaction[tuple[list[DueMessage], list[NextMessage]]]:
            which: dict[str, Any] = {"now_ms": now_ms, "places": places, "only": not is_untried}
            return (yield from DUE_MESSAGES(**which, each=each, limit=count_max)), (yield from NEXT_MESSAGE(**which))

        due, [after] = await self._database.query(look())
        next_in_ms = None if after.at_ms is None else after.at_ms - now_ms
        if not due:
            return Claimed(next_in_ms=next_in_ms)
        claimed = await self._database.commit(
            CLAIM_MESSAGES(ids=[one.id for one in due], now_ms=now_ms, leased_until_ms=now_ms + LEASE_MS)
        )
        self._under_way.update(message.place for message in claimed)
        return Claimed(claimed, next_in_ms=next_in_ms)

    async def _send(self, kind: Kind, message: PushMessage) -> None:
        try:
            await self._try(kind, message)
        finally:
            self._under_way[message.place] -= 1
            if not self._under_way[message.place]:
                del self._under_way[message.place]
                # There may be more for this service, or the same again, later.
                self._workers[self._kind_of(message.place)].wake()

    def _kind_of(self, place: str) -> Kind:
        return next((kind for kind, places in self._places.items() if place in places), Kind.UNTRIED)

    async def _try(self, kind: Kind, message: PushMessage) -> None:
        now_ms = self._clock.now_ms()
        if message.endpoint is None or message.account_id is None or now_ms >= message.expires_at_ms:
            await self._finish(message)
            return
        if message.kind == UPDATE and await self._is_seen(message):
            await self._database.commit(WITHHOLD_MESSAGE(id=message.id, at_ms=now_ms))
            return
        answered = await self._post(kind, message, now_ms)
        now_ms = self._clock.now_ms()
        verdict = judge(
            answered.status if answered else None,
            answered.retry_after_s if answered else None,
            attempts=message.attempts,
            was_forbidden=message.was_forbidden,
            expires_at_ms=message.expires_at_ms,
            now_ms=now_ms,
        )
        match verdict:
            case Taken():
                await self._database.commit(self._taken(message, now_ms))
            case GivenUp():
                await self._finish(message)
            case Again(at_ms):
                is_forbidden = answered is not None and answered.status == FORBIDDEN
                await self._database.commit(PUT_OFF_MESSAGE(id=message.id, due_at_ms=at_ms, is_forbidden=is_forbidden))
            case SubscriptionOver():
                await self._subscriptions.unsubscribe(message.account_id, message.endpoint)
            case Rejected(status):
                raise PushRejected(f"The push service answers {status} to this subscription.")

    async def _is_seen(self, message: PushMessage) -> bool:
        """Whether its customer has a page open that shows it."""
        try:
            return await self._pages.is_any_open(message.id.removesuffix(f"-{message.subscription_id}"))
        except RedisUnavailable as error:
            # Pages do not hear of anything just now either.
            self._log.warning("page_not_known", id=message.id, error=str(error))
            return False

    async def _post(self, kind: Kind, message: PushMessage, now_ms: int) -> Answered | None:
        assert message.endpoint is not None
        assert message.p256dh is not None
        assert message.auth is not None
        sealed = self._vapid.seal(_as_of(message, now_ms), p256dh=message.p256dh, auth=message.auth)
        headers = {
            "Authorization": await self._vapid.authorization(message.endpoint),
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
            "Urgency": "high",
            "Topic": message.topic,
            # Afterwards it is no use any more (RFC 8030 §5.2).
            "TTL": str(max(1, (message.expires_at_ms - now_ms) // 1000)),
        }
        try:
            answered = await self._roads[kind].post(message.endpoint, sealed, headers)
        except PushServiceAway as error:
            self._log.warning("push_not_sent_yet", place=message.place, attempt=message.attempts, error=str(error))
            answered = None
        is_slow = self._clock.now_ms() >= now_ms + SLOW_MS
        self._note(message.place, is_well=answered is not None and answered.status < 500, is_slow=is_slow)
        if answered is not None and not 200 <= answered.status < 300:
            self._log.warning("push_refused", place=message.place, attempt=message.attempts, status=answered.status)
        return answered

    def _note(self, place: str, *, is_well: bool, is_slow: bool) -> None:
        # What has answered stays at its first failure apart from strangers that hang, unless it keeps others waiting, too.
        is_spared = self._places[Kind.STEADY].get(place, False)
        kind = Kind.STEADY if (is_well or is_spared) and not is_slow else Kind.TROUBLED
        for places in self._places.values():
            places.pop(place, None)
        places = self._places[kind]
        places[place] = is_well
        if len(places) > PLACES_LEN_MAX:
            del places[next(iter(places))]

    def _taken(self, message: PushMessage, now_ms: int) -> Transaction[None]:
        # The browser before its message, as when it is unsubscribed and its messages go with it.
        yield from NOTE_USE(subscription_id=message.subscription_id, at_ms=now_ms)
        yield from FINISH_MESSAGE(id=message.id, at_ms=now_ms)

    async def _finish(self, message: PushMessage) -> None:
        await self._database.commit(FINISH_MESSAGE(id=message.id, at_ms=self._clock.now_ms()))

    async def _failed(self, message: PushMessage, error: Exception) -> None:
        """What waiting does not mend is the subscription's fault: counted, and this message is not sent."""
        if isinstance(error, Unavailable):
            # Nobody's fault: the lease ends by itself, and then it is sent, perhaps once more, in the place of the first.
            self._log.warning("push_put_off", id=message.id, error=str(error))
            return
        await self._subscriptions.failed(message.subscription_id, message.account_id, error)
        await self._finish(message)


def _as_of(message: PushMessage, now_ms: int) -> bytes:
    """Return what it says, with the time that is left counted anew: it may have waited."""
    said: dict[str, Any] = msgspec.json.decode(message.payload)
    _count_anew(said, now_ms)
    return msgspec.json.encode(said)


def _count_anew(said: dict[str, Any], now_ms: int) -> None:
    if "expires_in_ms" in said:
        at_ms = round(datetime.fromisoformat(said["expires_at"]).timestamp() * 1000)
        said["expires_in_ms"] = max(0, at_ms - now_ms)
    for member in said.values():
        if isinstance(member, dict):
            _count_anew(member, now_ms)
