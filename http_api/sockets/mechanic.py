"""One socket of a mechanic: heartbeats, duty, offers and what they answer to them."""

from dataclasses import dataclass, replace
from functools import partial
from time import monotonic
from typing import Final, TypedDict, assert_never

from dispatch.eligibility import Standing, may_be_asked, may_get_broadcast, takes
from dispatch.reading.reader import MechanicSnapshot, Reader, TimedOffer
from dispatch.service import Dispatch
from http_api.auth import Identity
from http_api.sockets import close_codes
from http_api.sockets.batches import Batches
from http_api.sockets.connection import Connection, NodeParts, log
from http_api.sockets.frames import frame_text
from http_api.sockets.protocol import SocketLike
from http_api.sockets.shown_offers import ShownOffer, ShownOffers
from models import wire
from models.errors import Unavailable
from models.ids import new_id
from models.outcomes import NotFound, Refused
from models.timestamps import rfc3339
from models.wire import (
    Accept,
    Availability,
    AvailabilityChanged,
    Decline,
    Heartbeat,
    MechanicMessage,
    MechanicWelcome,
    OfferAccepted,
    OfferAck,
    OfferWithdrawn,
    SetAvailability,
)
from models.words import WithdrawReason
from presence.service import Presence

SHOWN_MAX: Final = 1_000
"""Offers that one socket is remembered to show; beyond it the oldest is forgotten, and its withdrawal not told."""


@dataclass(frozen=True)
class MechanicParts:
    """What mechanics' sockets need besides what every socket does; one for all of them."""

    presence: Presence
    dispatch: Dispatch
    reader: Reader
    snapshots: Batches[MechanicSnapshot]
    offers: ShownOffers["MechanicConnection"]


class MechanicConnection(Connection):
    """What a mechanic's socket does. Until ``prepare`` nobody knows their duty; broadcasts are held until then."""

    __slots__ = (
        "_has_heard_standing",
        "_parts",
        "_shown",
        "_snapshot",
        "_told",
        "_was_eligible",
        "connection_id",
        "standing",
    )

    def __init__(self, node: NodeParts, parts: MechanicParts, identity: Identity) -> None:
        super().__init__(node, identity)
        self._parts = parts
        self.connection_id = new_id()
        self.standing = Standing(on_duty=False, is_busy=False)
        self._has_heard_standing = False
        self._told: Standing | None = None
        self._was_eligible = False
        """Whether all broadcasts that they may get as they stand now have been sent to this socket."""
        self._shown: dict[str, ShownOffer[MechanicConnection]] | None = None
        self._snapshot: MechanicSnapshot | None = None

    # --- what the socket calls ----------------------------------------------------------------------------------------

    def on_open(self, socket: SocketLike) -> None:
        """They are here."""
        self._parts.presence.joined(self.account_id)
        super().on_open(socket)

    def on_alive(self) -> None:
        """Every frame is as good as a heartbeat."""
        super().on_alive()
        self._parts.presence.heard(self.account_id)

    def on_close(self, code: int) -> None:
        """They have left, unless another device of theirs is here."""
        for shown in (self._shown or {}).values():
            shown.unacknowledged.pop(self, None)
        self._shown = None
        super().on_close(code)
        self._parts.presence.left(self.account_id)

    def understand(self, text: str) -> None:
        """Decode a message and do what it asks for."""
        self.handle(wire.mechanic_decoder.decode(text))

    def handle(self, message: MechanicMessage) -> None:
        """Answer at once what needs nobody else; the rest becomes a job."""
        match message:
            case Heartbeat():
                self.acknowledge_heartbeat()
            case OfferAck(offer_id, seen):
                self._acknowledge(offer_id, seen=seen)
            case Accept(offer_id):
                # Stamped here: how long the job waits must not cost them the race.
                received_at_ms = self._node.clock.now_ms()
                self._acknowledge(offer_id)
                self.submit(partial(self._accept, offer_id, received_at_ms), offer_id)
            case Decline(offer_id, reason):
                self._acknowledge(offer_id)
                self.submit(partial(self._decline, offer_id, reason), offer_id)
            case SetAvailability():
                self.submit(partial(self._set_on_duty, message))
            case _:
                assert_never(message)

    # --- what the hub calls -------------------------------------------------------------------------------------------

    @property
    def availability(self) -> Availability:
        """The one word for their standing; a socket is open, so never ``offline``."""
        if self.standing.is_busy:
            return "busy"
        return "available" if self.standing.on_duty else "off_duty"

    def hear_standing(self, standing: Standing, *, is_whole: bool = True) -> None:
        """Their standing has changed, here or anywhere: the next broadcast is judged by it.

        What they are told of it comes in turn with this connection's own changes. ``is_whole``: whether it says what they have
        switched off and planned, which a node of the version before does not know.
        """
        if 0 < standing.version < self.standing.version:
            # Told late, by a node that has taken it over.
            return
        if not is_whole:
            # Of no version, so that SQL is asked, and what is heard of the whole counts as news.
            known = self.standing
            standing = replace(
                standing,
                version=0,
                types_off=known.types_off,
                back_at_ms=known.back_at_ms,
                off_after_session=known.off_after_session,
            )
        is_news = standing != self.standing
        self._offers_were_for(standing)
        self.standing = standing
        self._has_heard_standing = True
        # A job in hand may be about to say what it has read from SQL before this news.
        if (is_news or self.has_jobs) and self.is_open:
            self.enqueue(self._catch_up_standing, key="standing")

    def show(self, shown: ShownOffer["MechanicConnection"], frame: bytes, now_s: float) -> None:
        """Send an offer, unless this socket shows it already."""
        if self.hold(partial(self.show, shown, frame, now_s)):
            return
        if self.is_open and self._remember(shown, now_s):
            self.deliver(frame)

    def show_broadcast(
        self, shown: ShownOffer["MechanicConnection"], frame: bytes, now_s: float, *, is_excluded: bool
    ) -> None:
        """Send a broadcast, if they may get it. Judged after the welcome: while the snapshot is being read, nobody knows."""
        if self.hold(partial(self.show_broadcast, shown, frame, now_s, is_excluded=is_excluded)):
            return
        if may_get_broadcast(self.standing, shown.offer.session_type, is_excluded=is_excluded):
            self.show(shown, frame, now_s)

    def is_asked(self, shown: ShownOffer["MechanicConnection"]) -> bool:
        """Tell whether an offer is for them just now; a broadcast is not while they are off duty or in a session."""
        return shown.is_priority or may_be_asked(self.standing)

    def withdraw(self, offer_id: str, frame: bytes) -> None:
        """Send the withdrawal of an offer, if this socket shows it."""
        if not self.hold(partial(self.withdraw, offer_id, frame)) and self._forget(offer_id):
            self.deliver(frame)

    # --- jobs ---------------------------------------------------------------------------------------------------------

    async def read_snapshot(self) -> bool:
        """Read the snapshot; of what it says of their standing and what is heard meanwhile, the newer one counts.

        What is heard without a version is news.
        """
        self._snapshot = await self._parts.snapshots.get(self.account_id)
        if self._snapshot is not None:
            heard, read = self.standing, self._snapshot.standing
            if not self._has_heard_standing or 0 < heard.version <= read.version:
                self.standing = read
        return self._snapshot is not None

    def greet(self) -> None:
        """Send the snapshot: their duty, the offers open to them, and the request they are busy with."""
        snapshot, self._snapshot = self._snapshot, None
        assert snapshot is not None, "prepare comes first"
        now_s, now_ms = monotonic(), self._node.clock.now_ms()
        fresh = [shown for one in snapshot.offers if (shown := self._entry_of(one)) and self._remember(shown, now_s)]
        times = self._node.times
        self.send(
            MechanicWelcome(
                protocol=wire.PROTOCOL,
                mechanic_id=self.account_id,
                connection_id=self.connection_id,
                server_time=rfc3339(now_ms),
                heartbeat_interval_s=times.heartbeat_interval_s,
                presence_timeout_s=times.timeout_s,
                disconnect_grace_s=times.grace_s,
                on_duty=self.standing.on_duty,
                offers=[shown.view(now_ms) for shown in fresh],
                request=snapshot.request,
                **_planned(self.standing, now_ms),
            )
        )
        self._told = self.standing
        if snapshot.standing == self.standing:
            self._was_eligible = may_be_asked(self.standing)
        else:
            # The offers were chosen by what was true before.
            self.enqueue(self._catch_up_standing, key="standing")

    async def refresh(self) -> None:
        """Their standing, offers that came or went unheard, and sessions that began or ended."""
        before = dict(self._shown or {})
        snapshot = await self._parts.snapshots.get(self.account_id)
        if snapshot is not None and snapshot.standing.version < self.standing.version:
            # Its offers were chosen by what is known to be over: cards would be withdrawn and come again at once. Once more only:
            # a database that has lost its last commits stays behind what was heard.
            snapshot = await self._parts.snapshots.get(self.account_id)
        if snapshot is None:
            self._leave_unknown()
            return
        self._offers_were_for(snapshot.standing)
        is_newly_eligible = self._follow(snapshot.standing, is_answer=False)
        still_open = {one.offer.offer_id for one in snapshot.offers}
        now_ms = self._node.clock.now_ms()
        for offer_id, shown in before.items():
            if offer_id not in still_open:
                self.withdraw(offer_id, frame_text(wire.encode(_missed_withdrawal(shown, snapshot, now_ms))))
        self._show_all(snapshot.offers)
        if is_newly_eligible:
            # What was broadcast while the snapshot was being read was not for them, as far as was known then.
            await self._send_open_offers()
        await self.send_recent_requests()

    async def _accept(self, offer_id: str, received_at_ms: int) -> None:
        outcome = await self._parts.dispatch.accept(
            self.account_id, offer_id, received_at_ms=received_at_ms, connection_id=self.connection_id
        )
        if isinstance(outcome, Refused):
            self._refuse(outcome, offer_id)
        else:
            # No withdrawal comes to this socket, and a node that has read the offer before this may be about to tell it.
            self._parts.offers.withdrawn(offer_id)
            self._forget(offer_id)
            self.send(OfferAccepted(offer_id, outcome))

    async def _decline(self, offer_id: str, reason: str | None) -> None:
        outcome = await self._parts.dispatch.decline(
            self.account_id, offer_id, reason, connection_id=self.connection_id
        )
        if isinstance(outcome, Refused):
            self._refuse(outcome, offer_id)
        elif not outcome:
            # Nothing has changed, so nothing is told that would be this one's answer.
            self._forget(offer_id)
            self.send(OfferWithdrawn(offer_id, WithdrawReason.DECLINED))

    def _refuse(self, refused: Refused, offer_id: str) -> None:
        # To an app, an offer that never was is as gone as one that was: it drops the card and says why.
        code = "offer_gone" if isinstance(refused, NotFound) else refused.code
        if code == "offer_gone":
            self._forget(offer_id)
        self.error(code, refused.detail, offer_id)

    async def _set_on_duty(self, wanted: SetAvailability) -> None:
        standing = await self._parts.dispatch.set_on_duty(
            self.account_id,
            wanted.on_duty,
            back_in_s=wanted.back_in_s,
            off_after_session=wanted.off_after_session,
        )
        if isinstance(standing, Refused):
            self.error(standing.code, standing.detail)
        elif self._follow(standing, is_answer=True):
            await self._send_open_offers()

    async def _catch_up_standing(self) -> None:
        """Follow what was heard of their standing; where it has no version, what SQL says, now or once it can be read."""
        standing: Standing | None = self.standing
        try:
            if not self.standing.version:
                standing = (await self._parts.reader.standings([self.account_id])).get(self.account_id)
            if standing is None:
                self._leave_unknown()
            elif self._follow(standing, is_answer=False):
                await self._send_open_offers()
        except Unavailable as error:
            log.warning("standing_not_read_yet", account_id=self.account_id, error=str(error))
            self._node.mark_stale(self)

    async def _send_open_offers(self) -> None:
        """Send what is open to them by their standing in SQL; where that is news here, catch up with it."""
        snapshot = await self._parts.snapshots.get(self.account_id)
        if snapshot is None:
            self._leave_unknown()
            return
        self._show_all(snapshot.offers)
        self._offers_were_for(snapshot.standing)
        if snapshot.standing.version > self.standing.version:
            # It may be told here only once it is over, or never, if what followed it is told first.
            self.hear_standing(snapshot.standing)

    async def _tell_delivered(self, offer_id: str, seen: bool) -> None:
        try:
            await self._parts.dispatch.acknowledge(self.account_id, offer_id, seen=seen)
        except Unavailable:
            # Nobody has noted it: the offer is sent again, so that the app says it again.
            if (shown := (self._shown or {}).get(offer_id)) is not None:
                shown.is_seen = shown.is_seen and not seen
                self._parts.offers.sent(shown, self, monotonic())
            raise

    # --- inside -------------------------------------------------------------------------------------------------------

    def _follow(self, standing: Standing, *, is_answer: bool) -> bool:
        """Take over what was read, unless something newer was heard meanwhile, and say what has changed.

        ``True`` if the offers that are open are to be sent now.
        """
        if standing.version < self.standing.version:
            standing = self.standing
        has_chosen_anew = standing.types_off != self.standing.types_off
        self.standing = standing
        if is_answer or _duty_of(standing) != _duty_of(self._told):
            self._told = standing
            planned = _planned(standing, self._node.clock.now_ms())
            self.send(AvailabilityChanged(standing.on_duty, self.availability, **planned))
        is_newly_eligible = may_be_asked(standing) and (has_chosen_anew or not self._was_eligible)
        # Noted before the offers are read: a broadcast that opens meanwhile comes by the inbox.
        self._was_eligible = may_be_asked(standing)
        self._withdraw_switched_off()
        return is_newly_eligible

    def _offers_were_for(self, standing: Standing) -> None:
        """Note that offers were chosen by this standing, or are from now on: what only the other one gets, this socket lacks."""
        self._was_eligible &= may_be_asked(standing) and standing.types_off == self.standing.types_off

    def _withdraw_switched_off(self) -> None:
        """Take back the broadcasts of kinds that they do not take any more; a priority offer stays, it is for them alone."""
        for offer_id, shown in list((self._shown or {}).items()):
            if not shown.is_priority and not takes(self.standing.types_off, shown.offer.session_type):
                self.withdraw(offer_id, frame_text(wire.encode(OfferWithdrawn(offer_id, WithdrawReason.DECLINED))))

    def _leave_unknown(self) -> None:
        self.close(close_codes.TOKEN_EXPIRED, "there is no such mechanic any more")

    def _acknowledge(self, offer_id: str, *, seen: bool = False) -> None:
        """Stop sending the offer again; who answers an offer has evidently got it, too."""
        shown = (self._shown or {}).get(offer_id)
        if shown is None:
            return
        is_delivered = shown.unacknowledged.pop(self, None) is not None
        is_seen = seen and not shown.is_seen
        shown.is_seen = shown.is_seen or seen
        if shown.is_priority and (is_delivered or is_seen):
            self.submit(partial(self._tell_delivered, offer_id, is_seen), offer_id)

    def _entry_of(self, timed: TimedOffer) -> ShownOffer["MechanicConnection"] | None:
        return self._parts.offers.entry_of(timed.offer, timed.expires_at_ms)

    def _show_all(self, offers: list[TimedOffer]) -> None:
        now_s, now_ms = monotonic(), self._node.clock.now_ms()
        for offer in offers:
            shown = self._entry_of(offer)
            if shown is not None:
                self.show(shown, shown.frame(now_ms), now_s)

    def _remember(self, shown: ShownOffer["MechanicConnection"], now_s: float) -> bool:
        """Note that this socket shows the offer; ``False`` if it did already, it is gone, or its mechanic does not want it."""
        offers, offer_id = self._parts.offers, shown.offer.offer_id
        # An offer may have gone since its entry was looked up: sockets are told of it in slices.
        if offers.is_gone(offer_id) or offers.is_declined(offer_id, self.account_id):
            return False
        if self._shown is None:
            self._shown = {}
        if offer_id in self._shown:
            return False
        if len(self._shown) >= SHOWN_MAX:
            self._forget(next(iter(self._shown)))
        self._shown[offer_id] = shown
        offers.sent(shown, self, now_s)
        return True

    def _forget(self, offer_id: str) -> bool:
        """Note that this socket does not show the offer any more; ``False`` if it did not."""
        shown = self._shown.pop(offer_id, None) if self._shown else None
        if shown is None:
            return False
        shown.unacknowledged.pop(self, None)
        if not self._shown:
            self._shown = None
        return True


class _Planned(TypedDict, total=False):
    """What is to follow for a mechanic by itself, as they are told."""

    back_at: str
    back_in_ms: int
    off_after_session: bool


def _planned(standing: Standing, now_ms: int) -> _Planned:
    planned: _Planned = {}
    if standing.back_at_ms is not None:
        planned |= {"back_at": rfc3339(standing.back_at_ms), "back_in_ms": max(0, standing.back_at_ms - now_ms)}
    if standing.off_after_session:
        planned["off_after_session"] = True
    return planned


def _duty_of(standing: Standing | None) -> tuple[object, ...]:
    """Return what a mechanic is told of their standing; what they are busy with, they know."""
    return () if standing is None else (standing.on_duty, standing.back_at_ms, standing.off_after_session)


def _missed_withdrawal(
    shown: ShownOffer[MechanicConnection], snapshot: MechanicSnapshot, now_ms: int
) -> OfferWithdrawn:
    """Return what a socket is told of an offer whose withdrawal it may have missed, as far as anybody can still tell."""
    offer = shown.offer
    if snapshot.request is not None and snapshot.request.id == offer.request_id:
        return OfferWithdrawn(offer.offer_id, WithdrawReason.TAKEN, by_you=True)
    # Past its deadline it has expired, else most likely somebody has it.
    is_over = now_ms >= shown.expires_at_ms
    return OfferWithdrawn(offer.offer_id, WithdrawReason.EXPIRED if is_over else WithdrawReason.TAKEN)
