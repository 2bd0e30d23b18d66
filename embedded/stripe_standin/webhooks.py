"""Signed webhooks, sent at least once: one loop per node over the shared deliveries."""

import hashlib
import hmac

import anyio
import anyio.abc
import httpx
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from embedded.stripe_standin import objects, store

TIMEOUT_S = 10.0
# Longer than an attempt can take, so that only a dead node's claim falls due again.
LEASE_MS = 15_000
POLL_S = 1.0
CONCURRENT_MAX = 8
ATTEMPTS_MAX = 50
BACKOFF_S_MIN, BACKOFF_S_MAX = 1, 60

log = structlog.get_logger()


def signature_header(payload: str, secret: str, at_s: int) -> str:
    """Return the ``Stripe-Signature`` header for a payload (https://docs.stripe.com/webhooks#verify-manually)."""
    digest = hmac.new(secret.encode(), f"{at_s}.{payload}".encode(), hashlib.sha256).hexdigest()
    return f"t={at_s},v1={digest}"


def backoff_ms(attempts: int) -> int:
    """Return the wait after the given number of failed attempts: 1 s, 2 s, 4 s … 60 s."""
    return min(BACKOFF_S_MAX, BACKOFF_S_MIN << min(attempts - 1, 10)) * 1000


class Deliverer:
    """Sends due deliveries to one webhook address until `run` is cancelled."""

    def __init__(self, engine: AsyncEngine, *, secret: str, url: str) -> None:
        self._engine = engine
        self._secret = secret
        self._url = url
        self._due = anyio.Event()
        self._finished = anyio.Event()
        self._in_flight = 0

    def wake(self) -> None:
        """Look for due deliveries now rather than at the next poll."""
        self._due.set()

    async def answered(self, event_ids: list[str], within_s: float) -> bool:
        """Wait until every delivery of these events was answered 2xx (by any node); False when time ran out."""
        give_up_at = anyio.current_time() + within_s
        while anyio.current_time() < give_up_at:
            finished = self._finished
            async with store.transaction(self._engine) as conn:
                if await store.count_pending(conn, event_ids) == 0:
                    return True
            # Another node may have sent it, of which this one hears only from the database.
            with anyio.move_on_after(POLL_S / 4):
                await finished.wait()
        return False

    async def run(self) -> None:
        # The address is our own installation's: a proxy from the environment must not get in between.
        async with (
            httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client,
            anyio.create_task_group() as attempts,
        ):
            while True:
                self._due = anyio.Event()
                if await self._start_due(client, attempts) == 0:
                    with anyio.move_on_after(POLL_S):
                        await self._due.wait()

    async def _start_due(self, client: httpx.AsyncClient, attempts: anyio.abc.TaskGroup) -> int:
        room = CONCURRENT_MAX - self._in_flight
        if room == 0:
            return 0
        try:
            async with store.transaction(self._engine) as conn:
                claimed = await store.claim_deliveries(conn, room, LEASE_MS)
        except store.TROUBLE as error:
            log.warning("stripe_standin.database_unavailable", error=repr(error))
            return 0
        for delivery in claimed:
            self._in_flight += 1
            attempts.start_soon(self._attempt, client, delivery)
        return len(claimed)

    async def _attempt(self, client: httpx.AsyncClient, delivery: objects.Row) -> None:
        try:
            is_taken, outcome = await self._send(client, delivery["payload"])
            attempts = delivery["attempts"]
            state = "delivered" if is_taken else "pending" if attempts < ATTEMPTS_MAX else "abandoned"
            due_at_ms = store.now_ms() + backoff_ms(attempts)
            async with store.transaction(self._engine) as conn:
                await store.finish_attempt(conn, delivery, state=state, outcome=outcome, due_at_ms=due_at_ms)
            if not is_taken:
                log.info("stripe_standin.webhook_refused", event_id=delivery["event"], outcome=outcome, state=state)
        except store.TROUBLE as error:
            # Nothing is lost: the lease runs out and the delivery is sent again.
            log.warning("stripe_standin.database_unavailable", error=repr(error))
        except Exception:
            # One delivery that cannot be made must not keep the others from being made.
            log.exception("stripe_standin.webhook_failed", event_id=delivery["event"])
        finally:
            self._in_flight -= 1
            self.wake()
            self._finished.set()
            self._finished = anyio.Event()

    async def _send(self, client: httpx.AsyncClient, payload: str) -> tuple[bool, str]:
        """Return whether the receiver took it (2xx; a redirect is a refusal, as at Stripe) and what to show for it."""
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": signature_header(payload, self._secret, store.now_ms() // 1000),
            "User-Agent": "Stripe/1.0 (stand-in)",
        }
        try:
            response = await client.post(self._url, content=payload.encode(), headers=headers)
        except httpx.HTTPError as error:
            return False, type(error).__name__
        return response.is_success, f"HTTP {response.status_code}"
