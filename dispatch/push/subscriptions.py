"""The browsers in which people can be woken: who has subscribed where, and what has come of it."""

import hashlib
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from msgspec import UNSET
from sqlalchemy import ColumnElement, delete, true
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from accounts.revocations import GONE, still_here
from dispatch.failures import Failures, Patience
from dispatch.notices import FactsChanged
from dispatch.outbox import Message, Outbox
from dispatch.push.bell import Bell
from dispatch.push.road import ForbiddenEndpoint, LookUps, TrustedHosts, judged_by_name, place_of
from dispatch.push.sealing import CannotSeal, check_keys, to_base64url
from dispatch.stored import Named
from infra.clock import Clock
from infra.database import Database, within
from infra.statements import Nothing, Statement
from models.errors import DatabaseUnavailable
from models.ids import new_id
from models.outcomes import NotFound, Refused, TooMany
from models.rest import PushSubscribeBody, PushSubscribed, PushSubscriptionView
from models.settings import DispatchSettings
from models.tables import Account, PushSubscription, PushTrial
from models.text import LABEL_LEN_MAX, kept
from models.timestamps import rfc3339
from models.wire import PushTest, encode
from presence.liveness import Facts

SQL: Final = Path(__file__).parent / "sql"
SUBSCRIBE_TRIES_MAX: Final = 3
SUBSCRIPTIONS_MAX: Final = 10
"""Per account; the oldest goes when an eleventh device subscribes."""
TRIAL: Final = "test"
"""The kind of message that somebody asks for, to see whether it arrives."""
TRIAL_MS: Final = 60_000
"""How long one is worth sending; as long as it counts."""
TRIALS_MAX: Final = 3
"""Within that time, of one account."""

LOCK_MECHANIC = Statement(SQL / "lock_mechanic.sql", Named)
FOLLOW_SUBSCRIPTIONS = Statement(SQL / "follow_subscriptions.sql", Facts)
ADD_TRIAL = Statement(SQL / "add_trial.sql", Nothing)


class Subscriptions:
    """Subscriptions of people's browsers. A mechanic who has one is reachable by push."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        bell: Bell,
        outbox: Outbox,
        settings: DispatchSettings,
        trusted: TrustedHosts,
    ) -> None:
        self._database = database
        self._clock = clock
        self._bell = bell
        self._outbox = outbox
        self._trusted = trusted
        self._look_ups = LookUps()
        self._failures = Failures(PushSubscription, database=database, clock=clock, patience=Patience.of(settings))

    # --- what people do -----------------------------------------------------------------------------------------------

    async def of(self, account_id: str) -> list[PushSubscriptionView]:
        """Return the browsers in which an account can be woken, the oldest first; without those that fail for good."""
        async with self._database.read() as session:
            found = await session.exec(_in_use(account_id).order_by(PushSubscription.id))
            return [_view(row) for row in found]

    async def subscribe(self, account_id: str, body: PushSubscribeBody) -> tuple[PushSubscribed, bool] | Refused:
        """Remember a browser; return whether it is new. A known endpoint is updated and may change hands."""
        label = kept(body.label, "label", len_max=LABEL_LEN_MAX) if body.label else None
        if isinstance(label, Refused):
            return label
        if problem := await self._problem_of(body):
            return problem
        for _ in range(SUBSCRIBE_TRIES_MAX):
            try:
                return await self._subscribe(account_id, body, label)
            except IntegrityError:
                # Two tabs of one browser side by side, and the other was faster: now it is known.
                continue
        raise DatabaseUnavailable("The same push endpoint kept appearing and vanishing.")

    async def unsubscribe(self, account_id: str, endpoint: str) -> None:
        """Forget a browser. Idempotent."""
        await self._forget(account_id, col(PushSubscription.endpoint) == endpoint)

    async def unsubscribe_all(self, account_id: str) -> None:
        """Forget all browsers of an account. Idempotent."""
        await self._forget(account_id, true())

    async def unsubscribe_one(self, account_id: str, subscription_id: str) -> Refused | None:
        """Forget a browser by the id that ``of`` names."""
        is_known = await self._forget(account_id, col(PushSubscription.id) == subscription_id)
        return None if is_known else NotFound(detail="You have no such subscription.")

    async def try_out(self, account_id: str, endpoint: str | None) -> Refused | None:
        """Leave a message for the account's browsers, or one of them, that says nothing but that it has arrived."""
        now_ms = self._clock.now_ms()
        async with self._database.write() as session:
            # Locked: of two that ask side by side the second must see the first one's trial.
            await session.exec(select(Account.id).where(Account.id == account_id).with_for_update(key_share=True))
            # The browsers, too: none is to go before its message is there.
            found = (await session.exec(_in_use(account_id).order_by(PushSubscription.id).with_for_update())).all()
            chosen = [row.id for row in found if endpoint is None or row.endpoint == endpoint]
            if not chosen:
                return Refused("no_subscription", "There is no browser of yours that could be woken.")
            ends_at_ms = await _trials_end_at_ms(session, account_id, now_ms=now_ms)
            if len(ends_at_ms) >= TRIALS_MAX:
                wait_s = -(-(min(ends_at_ms) - now_ms) // 1000)
                return TooMany(detail=f"Please try again in {wait_s} s.", retry_after_s=wait_s)
            trial = PushTrial(id=new_id(), account_id=account_id, expires_at_ms=now_ms + TRIAL_MS)
            session.add(trial)
            messages = ADD_TRIAL(
                ids=chosen,
                kind=TRIAL,
                about_id=trial.id,
                payload=encode(PushTest()).decode(),
                at_ms=now_ms,
                expires_at_ms=trial.expires_at_ms,
            )
            await within(session, messages)
        self._bell.ring()
        return None

    # --- what comes of it ---------------------------------------------------------------------------------------------

    async def failed(self, subscription_id: str, account_id: str | None, error: Exception) -> None:
        """Count what is the fault of one subscription, or of its push service; who fails too often is not reachable by it."""
        await self._failures.count(subscription_id, error)
        if account_id is None:
            return
        async with self._database.write() as session:
            messages = await self._facts_after_change(session, account_id)
            await within(session, self._outbox.add(messages))
        self._outbox.post(messages)

    # --- inside -------------------------------------------------------------------------------------------------------

    async def _problem_of(self, body: PushSubscribeBody) -> Refused | None:
        try:
            await judged_by_name(body.endpoint, self._trusted, self._look_ups)
            check_keys(body.keys.p256dh, body.keys.auth)
        except ForbiddenEndpoint as error:
            return Refused("push_endpoint_refused", f"Nothing can be sent to this endpoint: {error}")
        except CannotSeal as error:
            return Refused("push_keys_refused", str(error))
        return None

    async def _subscribe(
        self, account_id: str, body: PushSubscribeBody, label: str | None
    ) -> tuple[PushSubscribed, bool] | Refused:
        async with self._database.write() as session:
            if not await within(session, still_here(account_id)):
                return GONE
            by_endpoint = select(PushSubscription).where(PushSubscription.endpoint == body.endpoint)
            known = (await session.exec(by_endpoint.with_for_update())).first()
            messages: list[Message] = []
            if known is not None and known.account_id != account_id:
                # With all that waits for it, which is about who had it.
                await session.exec(delete(PushSubscription).where(col(PushSubscription.id) == known.id))
                messages += await self._facts_after_change(session, known.account_id)
            if known is not None and known.account_id == account_id:
                row, is_new = known, False
                row.p256dh, row.auth, row.label = body.keys.p256dh, body.keys.auth, label or row.label
                row.failures, row.last_error, row.set_aside_at_ms = 0, None, None
            else:
                is_new = known is None
                row = PushSubscription(
                    id=new_id(),
                    account_id=account_id,
                    endpoint=body.endpoint,
                    place=place_of(body.endpoint),
                    p256dh=body.keys.p256dh,
                    auth=body.keys.auth,
                    label=label,
                    created_at_ms=self._clock.now_ms(),
                )
                session.add(row)
            await session.flush()
            await self._drop_oldest(session, account_id)
            messages += await self._facts_after_change(session, account_id)
            await within(session, self._outbox.add(messages))
        self._outbox.post(messages)
        return PushSubscribed(row.id, row.endpoint), is_new

    async def _forget(self, account_id: str, which: ColumnElement[bool]) -> bool:
        async with self._database.write() as session:
            gone = await session.exec(
                delete(PushSubscription)
                .where(which, col(PushSubscription.account_id) == account_id)
                .returning(col(PushSubscription.id))
            )
            is_known = gone.first() is not None
            messages = await self._facts_after_change(session, account_id)
            await within(session, self._outbox.add(messages))
        self._outbox.post(messages)
        return is_known

    async def _drop_oldest(self, session: AsyncSession, account_id: str) -> None:
        newest = select(PushSubscription.id).where(PushSubscription.account_id == account_id)
        keep = (await session.exec(newest.order_by(col(PushSubscription.id).desc()).limit(SUBSCRIPTIONS_MAX))).all()
        await session.exec(
            delete(PushSubscription).where(
                col(PushSubscription.account_id) == account_id, col(PushSubscription.id).not_in(keep)
            )
        )

    async def _facts_after_change(self, session: AsyncSession, account_id: str) -> list[Message]:
        """Let a mechanic's ``has_push`` follow their subscriptions; return what has to be told. A customer has no facts."""
        # Locked first: of two changes side by side the second must see what the first has left.
        await within(session, LOCK_MECHANIC(mechanic_id=account_id))
        facts = await within(session, FOLLOW_SUBSCRIPTIONS(mechanic_id=account_id))
        return [Message.of(FactsChanged(one.mechanic_id, one)) for one in facts]


def _in_use(account_id: str) -> SelectOfScalar[PushSubscription]:
    is_theirs, is_working = PushSubscription.account_id == account_id, col(PushSubscription.set_aside_at_ms).is_(None)
    return select(PushSubscription).where(is_theirs, is_working)


async def _trials_end_at_ms(session: AsyncSession, account_id: str, *, now_ms: int) -> list[int]:
    """Return until when each trial of an account counts, and forget those that do not any more."""
    is_theirs = col(PushTrial.account_id) == account_id
    await session.exec(delete(PushTrial).where(is_theirs, col(PushTrial.expires_at_ms) <= now_ms))
    return list(await session.exec(select(PushTrial.expires_at_ms).where(is_theirs)))


def _view(row: PushSubscription) -> PushSubscriptionView:
    """Return what its account may see of a subscription: of the endpoint, which is a secret, only what tells it from others."""
    return PushSubscriptionView(
        id=row.id,
        created_at=rfc3339(row.created_at_ms),
        endpoint_host=urlsplit(row.endpoint).hostname or "",
        endpoint_hash=to_base64url(hashlib.sha256(row.endpoint.encode()).digest()),
        last_used_at=UNSET if row.last_used_at_ms is None else rfc3339(row.last_used_at_ms),
        label=row.label or UNSET,
    )
