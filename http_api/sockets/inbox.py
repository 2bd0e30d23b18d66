"""What the other nodes have to say to this one's sockets: heard at any time, delivered in order.

    bus ──► hear ──► backlog ──► run (one loop; large fan-outs in slices) ──► connections

Customers' messages skip the backlog: they get nothing else from here, so none of theirs overtakes another.
"""

from collections.abc import Callable, Iterable
from time import monotonic
from typing import Final, assert_never

import msgspec
import structlog

from dispatch import deliveries
from dispatch.deliveries import (
    FrameToCustomer,
    FrameToMechanic,
    OfferTo,
    PageWanted,
    StandingChanged,
    Told,
    Withdraw,
)
from dispatch.eligibility import Standing
from http_api.sockets.connection import Connection
from http_api.sockets.customer import CustomerConnection
from http_api.sockets.frames import frame_text
from http_api.sockets.mechanic import MechanicConnection
from http_api.sockets.shown_offers import ShownOffers
from http_api.sockets.tables import ConnectionTable
from infra.backlog import Backlog
from infra.clock import Clock
from infra.loops import failing_alone
from infra.slices import each_alone, in_slices
from models import wire
from models.wire import OfferWithdrawn

ForMechanics = OfferTo | Withdraw | FrameToMechanic | StandingChanged

WORK: Final = "delivery"
"""What operators call it when a delivery, or one socket's part of it, fails."""
LATE_AFTER_MS: Final = 1_500
"""An offer that was on its way for so long is not shown: everybody gets a snapshot instead."""
QUEUE_LEN_MAX: Final = 10_000
"""Deliveries waiting; beyond it they are dropped and everybody gets a snapshot instead."""


class Inbox:
    """Passes on what is heard to the connections that it is for."""

    def __init__(
        self,
        mechanics: ConnectionTable[MechanicConnection],
        customers: ConnectionTable[CustomerConnection],
        offers: ShownOffers[MechanicConnection],
        clock: Clock,
        *,
        on_missed: Callable[[], None],
    ) -> None:
        """``on_missed`` is called when deliveries reached nobody: anybody may have missed something."""
        self._mechanics = mechanics
        self._customers = customers
        self._offers = offers
        self._clock = clock
        self._on_missed = on_missed
        self._backlog: Backlog[ForMechanics] = Backlog(QUEUE_LEN_MAX, on_overflow=self._drop)
        self._log = structlog.get_logger("inbox")

    def hear(self, message: str) -> None:
        """Queue one delivery; the bus calls this."""
        try:
            delivery = deliveries.decode(message)
        except msgspec.DecodeError as error:
            # A node of another version, perhaps. What it meant is in the next snapshot, and nobody is marked stale for it: while
            # an upgrade rolls on, each message of a new kind would have every socket of this node read again.
            self._log.error("delivery_not_understood", error=str(error))
            return
        if isinstance(delivery, FrameToCustomer):
            _frame_for(self._customers.of(delivery.account_id), delivery.frame, delivery.told)
            return
        if isinstance(delivery, PageWanted):
            each_alone(WORK, self._customers.of(delivery.account_id), lambda one: one.ask(delivery.question))
            return
        self._backlog.put(delivery)

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            delivery = await self._backlog.take()
            with failing_alone(WORK, delivery=type(delivery).__name__):
                await self._deliver(delivery)

    def _drop(self, dropped: list[ForMechanics]) -> None:
        self._log.error("deliveries_dropped", count=len(dropped))
        self._on_missed()

    async def _deliver(self, delivery: ForMechanics) -> None:
        match delivery:
            case OfferTo():
                await self._offer(delivery)
            case Withdraw():
                await self._withdraw(delivery)
            case FrameToMechanic(mechanic_id, frame, told):
                _frame_for(self._mechanics.of(mechanic_id), frame, told)
            case StandingChanged(mechanic_id, on_duty, is_busy, version, types_off, back_at_ms, off_after_session):
                standing = Standing(on_duty, is_busy, version, types_off or "", back_at_ms, off_after_session)
                is_whole = types_off is not None

                def hear(connection: MechanicConnection) -> None:
                    connection.hear_standing(standing, is_whole=is_whole)

                each_alone(WORK, self._mechanics.of(mechanic_id), hear)
            case _:
                assert_never(delivery)

    async def _offer(self, delivery: OfferTo) -> None:
        now_s, now_ms = monotonic(), self._clock.now_ms()
        if 0 < delivery.as_of_ms < now_ms - LATE_AFTER_MS:
            # Held up on the way: it may be over, and its withdrawal have been missed in a gap.
            self._log.warning("offer_too_late", offer_id=delivery.offer.offer_id, as_of_ms=delivery.as_of_ms)
            self._on_missed()
            return
        if delivery.mechanic_id is not None and not self._mechanics.of(delivery.mechanic_id):
            return
        shown = self._offers.entry_of(delivery.offer, delivery.expires_at_ms)
        if shown is None or now_ms >= delivery.expires_at_ms:
            return
        frame = shown.frame(now_ms)
        if delivery.mechanic_id is not None:
            each_alone(WORK, self._mechanics.of(delivery.mechanic_id), lambda one: one.show(shown, frame, now_s))
            return
        excluded = frozenset(delivery.excluded)

        def show(connection: MechanicConnection) -> None:
            connection.show_broadcast(shown, frame, now_s, is_excluded=connection.account_id in excluded)

        await in_slices(WORK, self._mechanics.all(), show)

    async def _withdraw(self, delivery: Withdraw) -> None:
        offer_id, reason = delivery.offer_id, delivery.reason
        frame = frame_text(wire.encode(OfferWithdrawn(offer_id, reason)))
        frame_by_you = frame_text(wire.encode(OfferWithdrawn(offer_id, reason, by_you=True)))

        def withdraw(connection: MechanicConnection) -> None:
            if connection.connection_id == delivery.except_connection_id:
                return
            is_by_them = connection.account_id == delivery.by_mechanic_id
            is_by_another = is_by_them and connection.connection_id != delivery.by_connection_id
            connection.withdraw(offer_id, frame_by_you if is_by_another else frame)

        if delivery.only_mechanic_id is not None:
            self._offers.declined(offer_id, delivery.only_mechanic_id)
            each_alone(WORK, self._mechanics.of(delivery.only_mechanic_id), withdraw)
            return
        self._offers.withdrawn(offer_id)
        if delivery.was_for_id is not None:
            each_alone(WORK, self._mechanics.of(delivery.was_for_id), withdraw)
        else:
            await in_slices(WORK, self._mechanics.all(), withdraw)


def _frame_for(connections: Iterable[Connection], payload: msgspec.Raw, told: Told | None) -> None:
    if connections:
        frame = frame_text(bytes(payload))
        each_alone(WORK, connections, lambda one: one.tell(frame, told))
