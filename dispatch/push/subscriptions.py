"""The browsers in which people can be woken: who has subscribed where, and what has come of it."""

from sqlalchemy import delete, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from dispatch.failures import Failures, Patience
from dispatch.notices import FactsChanged
from dispatch.outbox import Message, Outbox
from dispatch.push.road import ForbiddenEndpoint, TrustedHosts, judged_by_name, place_of
from dispatch.push.sealing import CannotSeal, check_keys
from infra.clock import Clock
from infra.database import Database, within
from models.errors import DatabaseUnavailable
from models.ids import new_id
from models.outcomes import Refused
from models.rest import PushSubscribeBody
from models.settings import DispatchSettings
from models.tables import Mechanic, PushSubscription

SUBSCRIBE_TRIES_MAX = 3
SUBSCRIPTIONS_MAX = 10
"""Per mechanic; the oldest goes when an eleventh device subscribes."""


class Subscriptions:
    """Subscriptions of people's browsers. A mechanic who has one is reachable by push."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        outbox: Outbox,
        settings: DispatchSettings,
        trusted: TrustedHosts,
    ) -> None:
        self._database = database
        self._clock = clock
        self._outbox = outbox
        self._trusted = trusted
        self._failures = Failures(PushSubscription, database=database, clock=clock, patience=Patience.of(settings))

    async def subscribe(self, account_id: str, body: PushSubscribeBody) -> bool | Refused:
        """Remember a browser; return whether it is new. A known endpoint is updated and may change hands."""
        if problem := await self._problem_of(body):
            return problem
        for _ in range(SUBSCRIBE_TRIES_MAX):
            try:
                return await self._subscribe(account_id, body)
            except IntegrityError:
                # Two tabs of one browser side by side, and the other was faster: now it is known.
                continue
        raise DatabaseUnavailable("The same push endpoint kept appearing and vanishing.")

    async def _problem_of(self, body: PushSubscribeBody) -> Refused | None:
        try:
            await judged_by_name(body.endpoint, self._trusted)
            check_keys(body.keys.p256dh, body.keys.auth)
        except ForbiddenEndpoint as error:
            return Refused("push_endpoint_refused", f"Nothing can be sent to this endpoint: {error}")
        except CannotSeal as error:
            return Refused("push_keys_refused", str(error))
        return None

    async def _subscribe(self, account_id: str, body: PushSubscribeBody) -> bool:
        async with self._database.write() as session:
            by_endpoint = select(PushSubscription).where(PushSubscription.endpoint == body.endpoint)
            known = (await session.exec(by_endpoint)).first()
            messages = []
            if known is None:
                session.add(
                    PushSubscription(
                        id=new_id(),
                        account_id=account_id,
                        endpoint=body.endpoint,
                        place=place_of(body.endpoint),
                        p256dh=body.keys.p256dh,
                        auth=body.keys.auth,
                        created_at_ms=self._clock.now_ms(),
                    )
                )
            else:
                former = known.account_id
                known.account_id, known.p256dh, known.auth = account_id, body.keys.p256dh, body.keys.auth
                known.failures, known.last_error, known.set_aside_at_ms = 0, None, None
                if former != account_id:
                    await session.flush()
                    messages += await self._facts_after_change(session, former)
            await session.flush()
            await self._drop_oldest(session, account_id)
            messages += await self._facts_after_change(session, account_id)
            await within(session, self._outbox.add(messages))
        self._outbox.post(messages)
        return known is None

    async def unsubscribe(self, account_id: str, endpoint: str) -> None:
        """Forget a browser. Idempotent."""
        async with self._database.write() as session:
            await session.exec(
                delete(PushSubscription).where(
                    col(PushSubscription.endpoint) == endpoint, col(PushSubscription.account_id) == account_id
                )
            )
            messages = await self._facts_after_change(session, account_id)
            await within(session, self._outbox.add(messages))
        self._outbox.post(messages)

    async def failed(self, subscription_id: str, account_id: str | None, error: Exception) -> None:
        """Count what is the fault of one subscription, or of its push service; who fails too often is not reachable by it."""
        await self._failures.count(subscription_id, error)
        if account_id is None:
            return
        async with self._database.write() as session:
            messages = await self._facts_after_change(session, account_id)
            await within(session, self._outbox.add(messages))
        self._outbox.post(messages)

    async def _drop_oldest(self, session: AsyncSession, account_id: str) -> None:
        newest = select(PushSubscription.id).where(PushSubscription.account_id == account_id)
        keep = (await session.exec(newest.order_by(col(PushSubscription.id).desc()).limit(SUBSCRIPTIONS_MAX))).all()
        await session.exec(
            delete(PushSubscription).where(
                col(PushSubscription.account_id) == account_id, col(PushSubscription.id).not_in(keep)
            )
        )

    async def _facts_after_change(self, session: AsyncSession, mechanic_id: str) -> list[Message]:
        """Let ``has_push`` follow the subscriptions; return what has to be told."""
        # Locked first: of two changes side by side the second must see what the first has left.
        await session.exec(select(Mechanic.id).where(Mechanic.id == mechanic_id).with_for_update())
        in_use = (PushSubscription.account_id == mechanic_id, col(PushSubscription.set_aside_at_ms).is_(None))
        has_any = select(PushSubscription.id).where(*in_use).exists()
        changed = await session.exec(
            update(Mechanic)
            .where(col(Mechanic.id) == mechanic_id, col(Mechanic.has_push) != has_any)
            .values(has_push=~col(Mechanic.has_push), facts_version=Mechanic.facts_version + 1)
            .returning(col(Mechanic.id))
        )
        return [] if changed.first() is None else [Message.of(FactsChanged(mechanic_id))]
