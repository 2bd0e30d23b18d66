"""Telling those concerned what has been committed: sockets on every node, the clock, presence, and push.

These are the outbox's handlers. A notice brings along what is to be told, with its version, so telling it late or twice is
harmless; what an earlier version has left without, and what may have changed since, is read.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Raw

from dispatch import deliveries
from dispatch.deadlines import Deadlines
from dispatch.deliveries import OfferTo
from dispatch.notices import (
    FactsChanged,
    FavoriteToPrompt,
    Notice,
    OfferClosed,
    OfferOpened,
    OfferWithdrawnFrom,
    RequestChanged,
    Seen,
    offer_to,
)
from dispatch.outbox import Outbox
from dispatch.push.planner import Planner
from dispatch.request import ends_at_ms
from dispatch.showing import Showing
from dispatch.stored import READ_REQUESTS, REQUESTS_OF_OFFERS, StoredRequest
from dispatch.views import names_in
from infra.bus import Bus
from infra.clock import RedisClock
from infra.database import Database
from infra.redis_link import RedisLink
from infra.statements import Transaction
from models.wire import FavoritePrompt, Person, RequestUpdate, RequestView, encode
from models.words import WithdrawReason
from presence.facts import read_facts
from presence.liveness import Facts
from presence.service import Presence


class Telling:
    """Registers itself with the outbox for every kind of notice that a transition leaves."""

    def __init__(
        self,
        *,
        database: Database,
        link: RedisLink,
        bus: Bus,
        clock: RedisClock,
        presence: Presence,
        deadlines: Deadlines,
        planner: Planner,
        showing: Showing,
        outbox: Outbox,
    ) -> None:
        self._database = database
        self._showing = showing
        self._bus = bus
        self._clock = clock
        self._presence = presence
        self._deadlines = deadlines
        self._planner = planner
        self._channel = deliveries.channel(link)
        # The most urgent first: a card that is gone, whoever may take the request, and who waits for it.
        outbox.on(self._requests, OfferClosed, OfferWithdrawnFrom, OfferOpened, RequestChanged, FavoriteToPrompt)
        outbox.on(self._facts_changed, FactsChanged)

    async def _publish(self, found: Iterable[deliveries.Delivery]) -> None:
        await self._bus.publish(self._channel, *map(deliveries.encode, found))

    async def _requests(self, notices: Sequence[Notice]) -> None:
        """Tell of offers and requests, all in one visit to the bus."""
        closed = [notice for notice in notices if isinstance(notice, OfferClosed)]
        withdrawn = [notice for notice in notices if isinstance(notice, OfferWithdrawnFrom)]
        offers = await self._offers([notice for notice in notices if isinstance(notice, OfferOpened)])
        changed = [notice for notice in notices if isinstance(notice, RequestChanged)]
        updates = await self._updates(changed)
        prompts = await self._prompts([notice for notice in notices if isinstance(notice, FavoriteToPrompt)])
        # On the clock first: a window that nobody hears of must still end.
        await self._deadlines.schedule(
            *((one.offer.offer_id, ends_at_ms(one.offer.kind, one.expires_at_ms)) for one in offers),
            *(one.on_clock for one in changed if one.on_clock is not None),
        )
        await self._publish(
            [
                *(
                    deliveries.Withdraw(
                        one.offer_id,
                        one.reason,
                        one.except_connection_id,
                        was_for_id=one.mechanic_id,
                        by_mechanic_id=one.by_mechanic_id,
                        by_connection_id=one.by_connection_id,
                    )
                    for one in closed
                ),
                *(
                    deliveries.Withdraw(
                        one.offer_id,
                        WithdrawReason.DECLINED,
                        only_mechanic_id=one.mechanic_id,
                        by_mechanic_id=one.mechanic_id,
                        by_connection_id=one.by_connection_id,
                    )
                    for one in withdrawn
                ),
                *offers,
                *updates,
                *prompts,
            ]
        )
        # What time ended is taken off the clock by the node that had claimed it there.
        self._deadlines.forget(
            *(one.offer_id for one in closed if one.reason is not WithdrawReason.EXPIRED),
            *(one.off_clock for one in changed if one.off_clock is not None),
        )
        if offers:
            self._planner.look_soon()

    async def _offers(self, notices: Sequence[OfferOpened]) -> list[OfferTo]:
        return [
            *(notice.to for notice in notices if notice.to is not None),
            *await self._still_open([notice.offer_id for notice in notices if notice.to is None]),
        ]

    async def _still_open(self, offer_ids: Sequence[str]) -> list[OfferTo]:
        """Return those of the offers that can still be taken, as they are to be told."""
        if not offer_ids:
            return []

        def work() -> Transaction[list[StoredRequest]]:
            found = yield from REQUESTS_OF_OFFERS(offer_ids=list(offer_ids))
            return (yield from READ_REQUESTS(ids=[one.request_id for one in found]))

        rows = await self._database.query(work())
        now_ms = self._clock.now_ms()
        return [
            offer_to(row, window, now_ms=now_ms)
            for row in rows
            if (window := row.offer) is not None and window.offer_id in offer_ids
        ]

    async def _updates(self, notices: Sequence[RequestChanged]) -> list[deliveries.Delivery]:
        newest: dict[str, Seen] = {}
        to_tell: defaultdict[str, set[str]] = defaultdict(set)
        now_ms = self._clock.now_ms()
        rows = await self._stored([notice.request_id for notice in notices if notice.seen is None])
        for notice in notices:
            seen = notice.seen or Seen.of(rows[notice.request_id], now_ms=now_ms)
            to_tell[notice.request_id].update(notice.tell)
            if seen.assigned_mechanic_id is not None and seen.assigned_mechanic_id not in notice.keep_from:
                to_tell[notice.request_id].add(seen.assigned_mechanic_id)
            newest[notice.request_id] = max(seen, newest.get(notice.request_id, seen), key=lambda one: one.view.version)
        online = await self._showing.online(seen.view for seen in newest.values())
        updates: list[deliveries.Delivery] = []
        for request_id, seen in newest.items():
            told = deliveries.Told(request_id, seen.view.version, seen.as_of_ms)
            view = seen.view_at(now_ms)
            frame = self._frame(view, seen.customer_id, seen, online)
            updates.append(deliveries.FrameToCustomer(seen.customer_id, frame, told))
            for mechanic_id in sorted(to_tell[request_id]):
                frame = self._frame(view, mechanic_id, seen, online)
                updates.append(deliveries.FrameToMechanic(mechanic_id, frame, told))
        return updates

    def _frame(self, view: RequestView, account_id: str, seen: Seen, online: Mapping[str, bool]) -> Raw:
        return Raw(encode(RequestUpdate(self._showing.dressed(view, account_id, seen, online=online))))

    async def _facts_changed(self, notices: Sequence[FactsChanged]) -> None:
        newest: dict[str, Facts] = {}
        facts = [notice.facts for notice in notices if notice.facts is not None]
        facts += await read_facts(self._database, {notice.mechanic_id for notice in notices if notice.facts is None})
        for one in facts:
            newest[one.mechanic_id] = max(one, newest.get(one.mechanic_id, one), key=lambda each: each.version)
        await self._presence.take_facts(newest.values())
        await self._publish(
            deliveries.StandingChanged(
                one.mechanic_id,
                one.on_duty,
                one.is_busy,
                one.version,
                one.types_off,
                one.back_at_ms,
                one.off_after_session,
            )
            for one in newest.values()
        )

    async def _prompts(self, notices: Sequence[FavoriteToPrompt]) -> list[deliveries.Delivery]:
        rows = await self._stored([notice.request_id for notice in notices if notice.customer_id is None])
        prompts: list[deliveries.Delivery] = []
        for notice in notices:
            customer_id, name = notice.customer_id, notice.mechanic_name
            if customer_id is None or name is None:
                row = rows[notice.request_id]
                if row.is_assigned_favorite:
                    continue
                customer_id, name = row.customer_id, names_in(row)[notice.mechanic_id]
            prompt = FavoritePrompt(notice.request_id, Person(notice.mechanic_id, name))
            prompts.append(deliveries.FrameToCustomer(customer_id, Raw(encode(prompt))))
        return prompts

    async def _stored(self, request_ids: Sequence[str]) -> dict[str, StoredRequest]:
        """Return requests as they are stored now, by their ids; for what an earlier version has left to be told."""
        if not request_ids:
            return {}
        rows = await self._database.query(READ_REQUESTS(ids=list(request_ids)))
        assert len(rows) == len(set(request_ids)), "requests are never deleted"
        return {row.id: row for row in rows}
