"""Waking an app that is not connected: Web Push (RFC 8030) with VAPID (RFC 8292), for priority offers only."""

import hashlib
import os
from collections import deque
from collections.abc import Mapping
from urllib.parse import urlsplit

import anyio
import httpx
import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import delete, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from dispatch.failures import Failures, Patience
from dispatch.notices import FactsChanged
from dispatch.outbox import Message, Outbox
from dispatch.web_push import CURVE, SALT_LEN, authorization, public_point, seal, to_base64url
from infra.clock import RedisClock
from infra.database import Database, within
from infra.loops import keep_running
from models.errors import DatabaseUnavailable, PitlaneError, Unavailable
from models.ids import new_id
from models.rest import PushSubscribeBody
from models.settings import DispatchSettings
from models.tables import Mechanic, PushSubscription
from models.wire import OfferMade, OfferView

QUEUE_LEN_MAX = 1_000
SENDERS = 4
SEND_TIMEOUT_S = 10
TRIES_MAX = 3
SUBSCRIBE_TRIES_MAX = 3
RETRY_S = 1.0
SUBSCRIPTIONS_MAX = 10
"""Per mechanic; the oldest goes when an eleventh device subscribes."""
GONE = (404, 410)
"""The push service says that the subscription is over (RFC 8030 §7.3)."""
TOO_MANY = 429
"""No fault of the subscription (RFC 8030 §8.4)."""

_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class PushRefused(PitlaneError):
    """A push service will not take messages for a subscription."""


class Push:
    """Subscriptions of mechanics' browsers, and sending to them.

    The VAPID key is derived from the installation's secret key: a subscription is bound to the key that it was made with, so
    every node must sign with the same one.
    """

    def __init__(
        self,
        *,
        database: Database,
        clock: RedisClock,
        outbox: Outbox,
        settings: DispatchSettings,
        secret_key: str,
        contact: str,
    ) -> None:
        """``contact`` is our public URL, from which a push service's operator may find us (the VAPID ``sub`` claim)."""
        self._database = database
        self._clock = clock
        self._outbox = outbox
        self._subject = _subject(contact)
        digest = hashlib.sha512(b"pitlane vapid " + secret_key.encode()).digest()
        self._key = ec.derive_private_key(int.from_bytes(digest, "big") % (_P256_ORDER - 1) + 1, CURVE)
        self._failures = Failures(PushSubscription, database=database, clock=clock, patience=Patience.of(settings))
        self._queue: deque[tuple[str, OfferView, int]] = deque()
        self._queued = anyio.Semaphore(0)
        self._http: httpx.AsyncClient | None = None
        self._log = structlog.get_logger("push")

    @property
    def public_key(self) -> str:
        """The ``applicationServerKey`` for browsers: base64url of the uncompressed point."""
        return to_base64url(public_point(self._key))

    async def subscribe(self, mechanic_id: str, body: PushSubscribeBody) -> bool:
        """Remember a browser; return whether it is new. A known endpoint is updated and may change hands."""
        for _ in range(SUBSCRIBE_TRIES_MAX):
            try:
                return await self._subscribe(mechanic_id, body)
            except IntegrityError:
                # Two tabs of one browser side by side, and the other was faster: now it is known.
                continue
        raise DatabaseUnavailable("The same push endpoint kept appearing and vanishing.")

    async def _subscribe(self, mechanic_id: str, body: PushSubscribeBody) -> bool:
        async with self._database.write() as session:
            by_endpoint = select(PushSubscription).where(PushSubscription.endpoint == body.endpoint)
            known = (await session.exec(by_endpoint)).first()
            messages = []
            if known is None:
                session.add(
                    PushSubscription(
                        id=new_id(),
                        mechanic_id=mechanic_id,
                        endpoint=body.endpoint,
                        p256dh=body.keys.p256dh,
                        auth=body.keys.auth,
                        created_at_ms=self._clock.now_ms(),
                    )
                )
            else:
                former = known.mechanic_id
                known.mechanic_id, known.p256dh, known.auth = mechanic_id, body.keys.p256dh, body.keys.auth
                known.failures, known.last_error, known.set_aside_at_ms = 0, None, None
                if former != mechanic_id:
                    await session.flush()
                    messages += await self._facts_after_change(session, former)
            await session.flush()
            await self._drop_oldest(session, mechanic_id)
            messages += await self._facts_after_change(session, mechanic_id)
            await within(session, self._outbox.add(messages))
        self._outbox.post(messages)
        return known is None

    async def unsubscribe(self, mechanic_id: str, endpoint: str) -> None:
        """Forget a browser. Idempotent."""
        async with self._database.write() as session:
            await session.exec(
                delete(PushSubscription).where(
                    col(PushSubscription.endpoint) == endpoint, col(PushSubscription.mechanic_id) == mechanic_id
                )
            )
            messages = await self._facts_after_change(session, mechanic_id)
            await within(session, self._outbox.add(messages))
        self._outbox.post(messages)

    def send_soon(self, mechanic_id: str, offer: OfferView, *, expires_at_ms: int) -> None:
        """Send the offer to the mechanic's browsers, in the background; never waits. A push is a hint, like a socket."""
        if len(self._queue) >= QUEUE_LEN_MAX:
            self._log.warning("push_queue_full", offer_id=offer.offer_id)
            return
        self._queue.append((mechanic_id, offer, expires_at_ms))
        self._queued.release()

    async def run(self) -> None:
        """Send until cancelled."""
        try:
            async with anyio.create_task_group() as tasks:
                for _ in range(SENDERS):
                    tasks.start_soon(keep_running, "push", self._send_queued)
        finally:
            if self._http is not None:
                with anyio.CancelScope(shield=True):
                    await self._http.aclose()

    async def _send_queued(self) -> None:
        while True:
            await self._queued.acquire()
            mechanic_id, offer, expires_at_ms = self._queue.popleft()
            try:
                async with self._database.read() as session:
                    found = await session.exec(
                        select(PushSubscription).where(
                            PushSubscription.mechanic_id == mechanic_id,
                            col(PushSubscription.set_aside_at_ms).is_(None),
                        )
                    )
                    subscriptions = list(found)
                for subscription in subscriptions:
                    try:
                        await self._send_to(subscription, offer, expires_at_ms)
                    except Exception as error:  # noqa: BLE001 - counted against the one that it is about
                        await self._failed(subscription, error)
            except Unavailable as error:
                self._log.warning("push_not_sent", offer_id=offer.offer_id, error=str(error))

    async def _send_to(self, subscription: PushSubscription, offer: OfferView, expires_at_ms: int) -> None:
        # Sealed and signed before the first try: what cannot be sealed for these keys cannot be at the next try either.
        sealed = seal(
            msgspec.json.encode(OfferMade(offer)),
            p256dh=subscription.p256dh,
            auth=subscription.auth,
            key=ec.generate_private_key(CURVE),
            salt=os.urandom(SALT_LEN),
        )
        headers = {
            "Authorization": authorization(
                subscription.endpoint, key=self._key, subject=self._subject, now_s=self._clock.now_ms() // 1000
            ),
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
            "Urgency": "high",
            "Topic": offer.request_id,
        }
        for attempt in range(TRIES_MAX):
            left_ms = expires_at_ms - self._clock.now_ms()
            if left_ms <= 0:
                return
            # When the window has ended the offer is no use any more (RFC 8030 §5.2).
            headers["TTL"] = str(max(1, left_ms // 1000))
            try:
                status = await self._post(subscription.endpoint, sealed, headers)
            except (httpx.HTTPError, TimeoutError, OSError) as error:
                self._log.warning("push_failed", attempt=attempt, error=repr(error))
            else:
                if httpx.codes.is_success(status):
                    return
                if status in GONE:
                    await self.unsubscribe(subscription.mechanic_id, subscription.endpoint)
                    return
                self._log.warning("push_refused", status=status, attempt=attempt)
                if attempt == TRIES_MAX - 1 and httpx.codes.is_client_error(status) and status != TOO_MANY:
                    raise PushRefused(f"The push service answers {status} to this subscription.")
            if attempt < TRIES_MAX - 1:
                await anyio.sleep(RETRY_S * 2**attempt)

    async def _post(self, endpoint: str, sealed: bytes, headers: Mapping[str, str]) -> int:
        """Return the push service's status; what else it answers is not read, be it as long as it likes."""
        if self._http is None:
            # At the first message: most nodes never push, and reading the certificates takes a while.
            self._http = httpx.AsyncClient(timeout=SEND_TIMEOUT_S, trust_env=False)
        with anyio.fail_after(SEND_TIMEOUT_S):
            async with self._http.stream("POST", endpoint, content=sealed, headers=headers) as answer:
                return answer.status_code

    async def _failed(self, subscription: PushSubscription, error: Exception) -> None:
        """Count what is the fault of one subscription, or of its push service; who fails too often is not reachable by it."""
        if isinstance(error, Unavailable):
            raise error
        await self._failures.count(subscription.id, error)
        async with self._database.write() as session:
            messages = await self._facts_after_change(session, subscription.mechanic_id)
            await within(session, self._outbox.add(messages))
        self._outbox.post(messages)

    async def _drop_oldest(self, session: AsyncSession, mechanic_id: str) -> None:
        newest = select(PushSubscription.id).where(PushSubscription.mechanic_id == mechanic_id)
        keep = (await session.exec(newest.order_by(col(PushSubscription.id).desc()).limit(SUBSCRIPTIONS_MAX))).all()
        await session.exec(
            delete(PushSubscription).where(
                col(PushSubscription.mechanic_id) == mechanic_id, col(PushSubscription.id).not_in(keep)
            )
        )

    async def _facts_after_change(self, session: AsyncSession, mechanic_id: str) -> list[Message]:
        """Let ``has_push`` follow the subscriptions; return what has to be told."""
        # Locked first: of two changes side by side the second must see what the first has left.
        await session.exec(select(Mechanic.id).where(Mechanic.id == mechanic_id).with_for_update())
        in_use = (PushSubscription.mechanic_id == mechanic_id, col(PushSubscription.set_aside_at_ms).is_(None))
        has_any = select(PushSubscription.id).where(*in_use).exists()
        changed = await session.exec(
            update(Mechanic)
            .where(col(Mechanic.id) == mechanic_id, col(Mechanic.has_push) != has_any)
            .values(has_push=~col(Mechanic.has_push), facts_version=Mechanic.facts_version + 1)
            .returning(col(Mechanic.id))
        )
        return [] if changed.first() is None else [Message.of(FactsChanged(mechanic_id))]


def _subject(contact: str) -> str:
    """Return the contact as push services accept it: a public https URL, or an address (RFC 8292 §2.1)."""
    url = urlsplit(contact)
    if url.scheme == "https" and url.hostname and "." in url.hostname:
        return f"https://{url.hostname}"
    return "mailto:operator@localhost"
