"""Messages on their way to push services. Each service has a batch of its own in hand: one that hangs delays nobody else's.

Services that did not answer last time are asked by workers of their own, one message at a time: a stranger who subscribes at many
places that hang holds up the others of that kind, and nobody whose push service works.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import anyio
import msgspec
import structlog

from dispatch.due_work import DueWork
from dispatch.push.planner import OFFER, SQL, Planner
from dispatch.push.road import Answered, PushRoad, PushServiceAway
from dispatch.push.rules import FORBIDDEN, Again, GivenUp, Refused, SubscriptionOver, Taken, judge
from dispatch.push.subscriptions import Subscriptions
from dispatch.push.vapid import Vapid
from infra.clock import Clock
from infra.database import Database
from infra.statements import Nothing, Statement, Transaction
from models.errors import PitlaneError

LEASE_MS: Final = 20_000
"""Longer than one try takes; after it another node sends the message."""
STEADY_PLACES_MAX: Final = 64
"""Messages under way to services that answer; of one service a batch."""
BATCH_LEN: Final = 16
TROUBLED_PLACES_MAX: Final = 16
"""Messages under way to services that did not answer last time."""
TROUBLED_LEN_MAX: Final = 10_000


@dataclass(frozen=True)
class DueMessage:
    """A row of ``due_messages``."""

    id: str
    place: str


@dataclass(frozen=True)
class Message:
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


DUE_MESSAGES = Statement(SQL / "due_messages.sql", DueMessage)
CLAIM_MESSAGES = Statement(SQL / "claim_messages.sql", Message)
FINISH_MESSAGE = Statement(SQL / "finish_message.sql", Nothing)
NOTE_USE = Statement(SQL / "note_use.sql", Nothing)
PUT_OFF_MESSAGE = Statement(SQL / "put_off_message.sql", Nothing)


class PushRefused(PitlaneError):
    """A push service will not take messages for a subscription."""


class Sender:
    """Sends what is due, as often as it takes, until it is no use any more."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        planner: Planner,
        subscriptions: Subscriptions,
        road: PushRoad,
        vapid: Vapid,
    ) -> None:
        self._database = database
        self._clock = clock
        self._planner = planner
        self._subscriptions = subscriptions
        self._road = road
        self._vapid = vapid
        self._under_way: Counter[str] = Counter()
        """Messages in hand here, by their push service."""
        self._troubled: dict[str, None] = {}
        """Push services that did not answer last time, in that order."""
        self._steady = self._worker("push", is_troubled=False, side_by_side=STEADY_PLACES_MAX)
        self._patient = self._worker("push_again", is_troubled=True, side_by_side=TROUBLED_PLACES_MAX)
        self._log = structlog.get_logger("push")

    def _worker(self, name: str, *, is_troubled: bool, side_by_side: int) -> DueWork[Message]:
        return DueWork(
            name,
            claim=partial(self._claim, is_troubled=is_troubled),
            work=self._send,
            failed=self._failed,
            side_by_side=side_by_side,
        )

    async def run(self) -> None:
        """Send until cancelled."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._steady.run)
                tasks.start_soon(self._patient.run)
                tasks.start_soon(self._follow_planner)
        finally:
            with anyio.CancelScope(shield=True):
                await self._road.close()

    async def _follow_planner(self) -> None:
        while True:
            await self._planner.has_planned.wait()
            self._planner.has_planned = anyio.Event()
            self._steady.wake()

    async def _claim(self, count_max: int, *, is_troubled: bool) -> Sequence[Message]:
        now_ms = self._clock.now_ms()
        if is_troubled:
            places = [place for place in self._troubled if not self._under_way[place]]
        else:
            places = list({*self._troubled, *(+self._under_way)})
        if is_troubled and not places:
            return []
        each = 1 if is_troubled else BATCH_LEN
        due = await self._database.query(
            DUE_MESSAGES(now_ms=now_ms, places=places, only=is_troubled, each=each, limit=count_max)
        )
        if not due:
            return []
        claimed = await self._database.commit(
            CLAIM_MESSAGES(ids=[one.id for one in due], now_ms=now_ms, leased_until_ms=now_ms + LEASE_MS)
        )
        self._under_way.update(message.place for message in claimed)
        return claimed

    async def _send(self, message: Message) -> None:
        try:
            await self._try(message)
        finally:
            self._under_way[message.place] -= 1
            if not self._under_way[message.place]:
                del self._under_way[message.place]
                # There may be more for this service.
                self._steady.wake()

    async def _try(self, message: Message) -> None:
        now_ms = self._clock.now_ms()
        if message.endpoint is None or message.account_id is None or now_ms >= message.expires_at_ms:
            await self._finish(message)
            return
        answered = await self._post(message, now_ms)
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
            case Refused(status):
                raise PushRefused(f"The push service answers {status} to this subscription.")

    async def _post(self, message: Message, now_ms: int) -> Answered | None:
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
            answered = await self._road.post(message.endpoint, sealed, headers)
        except PushServiceAway as error:
            self._log.warning("push_not_sent_yet", place=message.place, attempt=message.attempts, error=str(error))
            answered = None
        if answered is None or answered.status >= 500:
            self._note_trouble(message.place)
        else:
            self._troubled.pop(message.place, None)
        if answered is not None and not 200 <= answered.status < 300:
            self._log.warning("push_refused", place=message.place, attempt=message.attempts, status=answered.status)
        return answered

    def _note_trouble(self, place: str) -> None:
        self._troubled.pop(place, None)
        self._troubled[place] = None
        if len(self._troubled) > TROUBLED_LEN_MAX:
            del self._troubled[next(iter(self._troubled))]

    def _taken(self, message: Message, now_ms: int) -> Transaction[None]:
        yield from FINISH_MESSAGE(id=message.id, at_ms=now_ms)
        yield from NOTE_USE(subscription_id=message.subscription_id, at_ms=now_ms)

    async def _finish(self, message: Message) -> None:
        await self._database.commit(FINISH_MESSAGE(id=message.id, at_ms=self._clock.now_ms()))

    async def _failed(self, message: Message, error: Exception) -> None:
        """What waiting does not mend is the subscription's fault: counted, and this message is not sent."""
        await self._subscriptions.failed(message.subscription_id, message.account_id, error)
        await self._finish(message)


def _as_of(message: Message, now_ms: int) -> bytes:
    """Return what it says, with the time that is left counted anew: it may have waited."""
    if message.kind != OFFER:
        return message.payload.encode()
    said: dict[str, Any] = msgspec.json.decode(message.payload)
    said["offer"]["expires_in_ms"] = max(0, message.expires_at_ms - now_ms)
    return msgspec.json.encode(said)
