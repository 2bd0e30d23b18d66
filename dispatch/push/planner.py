"""What is to be pushed becomes messages in SQL, one for each browser: by any node, once, and whatever dies afterwards.

Looks every second, and at once when offers are opened here. An offer is taken by one conditional update in the transaction that
leaves its messages; so is one that has ended, whose notifications are to be replaced.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
import msgspec
import structlog

from dispatch.push.bell import Bell
from dispatch.push.rules import Unseen, is_to_be_pushed
from dispatch.stored import READ_REQUESTS, Named
from dispatch.views import offer_view, word
from infra.clock import Clock
from infra.database import Database
from infra.loops import failing_alone
from infra.statements import Nothing, Statement, Transaction
from models.errors import RedisUnavailable, Unavailable
from models.wire import OfferMade, OfferWithdrawn
from models.words import WithdrawReason
from presence.service import Presence

SQL: Final = Path(__file__).parent / "sql"
POLL_S: Final = 1.0
PAUSE_S: Final = 0.2
"""At least between two looks: at a rush hour offers are opened all the time, and each look goes through those that may have to be
pushed."""
LOOK_LEN: Final = 500
"""Offers looked at together; of more, the rest has its turn at the next look, after a pause."""
TIDY_S: Final = 10.0
"""Between two looks for what was overlooked, and for what may be forgotten."""
CANDIDATES_PER_PUSH: Final = 5
"""Mechanics looked at for each who may be woken for a broadcast: who has a socket is not woken."""
KEEP_MS: Final = 24 * 3600 * 1000
FORGET_LEN: Final = 500
FORGET_TIMES_MAX: Final = 20
"""In one go: more than ever comes of one round's broadcasts, and then others have their turn."""
WITHDRAWAL_MS: Final = 10 * 60_000
"""How long it is worth telling a browser that an offer has ended."""
WORK: Final = "push"
"""What operators call it when an offer cannot be pushed."""
OFFER: Final = "offer"
WITHDRAWN: Final = "withdrawn"


@dataclass(frozen=True)
class Unpushed:
    """A row of ``unpushed_broadcasts``."""

    id: str
    request_id: str


@dataclass(frozen=True)
class Ended:
    """A row of ``ended_offers``."""

    id: str
    request_id: str
    reason: str


@dataclass(frozen=True)
class Found:
    """What there may be to do."""

    unseen: Sequence[Unseen]
    broadcasts: Sequence[Unpushed]
    again: Sequence[Unpushed]
    ended: Sequence[Ended]


OVERLOOKED_OFFERS = Statement(SQL / "overlooked_offers.sql", Named)
MARK_WAKEFUL = Statement(SQL / "mark_wakeful.sql", Nothing)
UNSEEN_OFFERS = Statement(SQL / "unseen_offers.sql", Unseen, leaves_out="push")
UNPUSHED_BROADCASTS = Statement(SQL / "unpushed_broadcasts.sql", Unpushed)
BROADCASTS_TO_LOOK_AT_AGAIN = Statement(SQL / "broadcasts_to_look_at_again.sql", Unpushed)
WOKEN_FOR = Statement(SQL / "woken_for.sql", Named)
WAKEABLE_MECHANICS = Statement(SQL / "wakeable_mechanics.sql", Named)
ENDED_OFFERS = Statement(SQL / "ended_offers.sql", Ended)
MARK_PUSHED = Statement(SQL / "mark_pushed.sql", Named)
MARK_LOOKED_AGAIN = Statement(SQL / "mark_looked_again.sql", Named)
MARK_UNPUSHED = Statement(SQL / "mark_unpushed.sql", Named)
ADD_MESSAGES = Statement(SQL / "add_messages.sql", Nothing)
TAKE_BACK_MESSAGES = Statement(SQL / "take_back_messages.sql", Nothing)
REPLACE_MESSAGES = Statement(SQL / "replace_messages.sql", Nothing)
FORGET_MESSAGES = Statement(SQL / "forget_messages.sql", Named)


class Planner:
    """Decides what is pushed to whom."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        presence: Presence,
        bell: Bell,
        broadcast_push_max: int,
    ) -> None:
        self._bell = bell
        self._database = database
        self._clock = clock
        self._presence = presence
        self._broadcast_push_max = broadcast_push_max
        self._after_id = ""
        """The last offer that was looked at, if there are more than one look takes."""
        self._sooner = anyio.Event()
        self._log = structlog.get_logger("push")

    def look_soon(self) -> None:
        """Offers have been opened: somebody may have to be woken at once."""
        self._sooner.set()

    async def run(self) -> None:
        """Plan until cancelled."""
        tidied_at_s = -TIDY_S
        while True:
            self._sooner = anyio.Event()
            try:
                if anyio.current_time() >= tidied_at_s + TIDY_S:
                    tidied_at_s = anyio.current_time()
                    await self._tidy()
                found = await self._database.query(self._look())
                await self._wake_favorites(found.unseen)
                await self._wake_others(found.broadcasts, MARK_PUSHED)
                # Who had gone without a word still counted as here: phones that fall asleep say nothing.
                await self._wake_others(found.again, MARK_LOOKED_AGAIN)
                await self._tell_of_ended(found.ended)
            except Unavailable as error:
                self._log.warning("push_not_planned", error=str(error))
            await anyio.sleep(PAUSE_S)
            if not self._after_id:
                with anyio.move_on_after(POLL_S - PAUSE_S):
                    await self._sooner.wait()

    async def _tidy(self) -> None:
        """Find offers whose mechanics have become reachable since they were opened; forget messages that are no use any more."""
        overlooked = await self._database.query(OVERLOOKED_OFFERS(limit=LOOK_LEN))
        if overlooked:
            await self._database.commit(MARK_WAKEFUL(ids=[one.id for one in overlooked]))
        before_ms = self._clock.now_ms() - KEEP_MS
        for _ in range(FORGET_TIMES_MAX):
            if len(await self._database.commit(FORGET_MESSAGES(before_ms=before_ms, limit=FORGET_LEN))) < FORGET_LEN:
                break

    def _look(self) -> Transaction[Found]:
        now_ms = self._clock.now_ms()
        unseen = yield from UNSEEN_OFFERS(now_ms=now_ms, after_id=self._after_id, limit=LOOK_LEN)
        broadcasts = yield from UNPUSHED_BROADCASTS(now_ms=now_ms, limit=LOOK_LEN)
        again = yield from BROADCASTS_TO_LOOK_AT_AGAIN(
            before_ms=now_ms - self._presence.unnoticed_ms, now_ms=now_ms, limit=LOOK_LEN
        )
        return Found(unseen, broadcasts, again, (yield from ENDED_OFFERS(limit=LOOK_LEN)))

    async def _wake_favorites(self, offers: Sequence[Unseen]) -> None:
        self._after_id = offers[-1].id if len(offers) == LOOK_LEN else ""
        if not offers:
            return
        online = await self._online({offer.mechanic_id for offer in offers})
        for offer in offers:
            # While nobody knows, what was acknowledged and seen decides.
            is_online = online is None or offer.mechanic_id in online
            if is_to_be_pushed(offer, is_online=is_online, now_ms=self._clock.now_ms()):
                with failing_alone(WORK, offer_id=offer.id):
                    await self._push(offer.id, offer.request_id, [offer.mechanic_id], MARK_PUSHED)

    async def _wake_others(self, offers: Sequence[Unpushed], mark: Statement[Named]) -> None:
        for offer in offers:
            found = await self._database.query(
                WAKEABLE_MECHANICS(request_id=offer.request_id, limit=self._broadcast_push_max * CANDIDATES_PER_PUSH)
            )
            # While nobody knows, sockets do not hear of it either.
            online = await self._online({one.id for one in found}) or frozenset()
            woken = {one.id for one in await self._database.query(WOKEN_FOR(about_id=offer.id, kind=OFFER))}
            absent = [one.id for one in found if one.id not in online and one.id not in woken]
            with failing_alone(WORK, offer_id=offer.id):
                await self._push(
                    offer.id, offer.request_id, absent[: max(0, self._broadcast_push_max - len(woken))], mark
                )

    async def _online(self, mechanic_ids: Collection[str]) -> Collection[str] | None:
        """Return who of them has a socket, or ``None`` while Redis is away and nobody knows."""
        try:
            statuses = await self._presence.status_of(mechanic_ids)
        except RedisUnavailable as error:
            self._log.warning("presence_not_known", error=str(error))
            return None
        return {mechanic_id for mechanic_id, status in statuses.items() if status.is_online}

    async def _push(self, offer_id: str, request_id: str, account_ids: Sequence[str], mark: Statement[Named]) -> None:
        now_ms = self._clock.now_ms()

        def work() -> Transaction[bool]:
            if not (yield from mark(offer_id=offer_id, at_ms=now_ms)) or not account_ids:
                return False
            [row] = yield from READ_REQUESTS(ids=[request_id])
            window = row.offer
            if window is None or window.offer_id != offer_id:
                return False
            yield from ADD_MESSAGES(
                account_ids=account_ids,
                kind=OFFER,
                about_id=offer_id,
                topic=request_id,
                payload=msgspec.json.encode(OfferMade(offer_view(row, window, now_ms=now_ms))).decode(),
                due_at_ms=now_ms,
                expires_at_ms=window.expires_at_ms,
            )
            return True

        if await self._database.commit(work()):
            self._bell.ring()

    async def _tell_of_ended(self, offers: Sequence[Ended]) -> None:
        for offer in offers:
            now_ms = self._clock.now_ms()
            withdrawn = OfferWithdrawn(offer.id, word(WithdrawReason, offer.reason))

            def work(
                offer: Ended = offer, withdrawn: OfferWithdrawn = withdrawn, now_ms: int = now_ms
            ) -> Transaction[None]:
                if (yield from MARK_UNPUSHED(offer_id=offer.id, at_ms=now_ms)):
                    yield from TAKE_BACK_MESSAGES(about_id=offer.id, kind=OFFER, at_ms=now_ms)
                    yield from REPLACE_MESSAGES(
                        about_id=offer.id,
                        replaced=OFFER,
                        kind=WITHDRAWN,
                        payload=msgspec.json.encode(withdrawn).decode(),
                        due_at_ms=now_ms,
                        expires_at_ms=now_ms + WITHDRAWAL_MS,
                    )

            with failing_alone(WORK, offer_id=offer.id):
                await self._database.commit(work())
                self._bell.ring()
