"""What follows from transitions beside the requests' own rows: offers, exclusions, the story, what is owed, and what is to be told.

It is gathered from many transitions and then written kind by kind. Gathering knows all that will be told: it reads nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

import msgspec
from msgspec.structs import replace

from dispatch.duty import END_DUTY
from dispatch.notices import (
    CustomerToWake,
    FactsChanged,
    FavoriteToPrompt,
    FavoriteTurned,
    MechanicToWake,
    Notice,
    OfferClosed,
    OfferOpened,
    OfferWithdrawnFrom,
    RefundOwed,
    RequestChanged,
    Seen,
    offer_to,
)
from dispatch.outbox import Message
from dispatch.request import (
    Assign,
    CloseOffer,
    Command,
    Details,
    Exclude,
    Free,
    KeepFrom,
    OpenOffer,
    OpenWindow,
    OweRefund,
    PromptFavorite,
    Record,
    Request,
    Tell,
    TimeLimit,
    WithdrawFrom,
)
from dispatch.stored import SQL, Line, StoredRequest
from dispatch.views import names_in
from infra.statements import Nothing, Statement, Transaction
from models.ids import new_id
from models.words import RequestStatus, WithdrawReason
from presence.liveness import Facts


@dataclass(frozen=True, slots=True)
class Freed(Facts):
    """A row of ``free_mechanic``."""

    has_gone_off: bool = False
    is_awaited: bool = False


@dataclass(frozen=True, slots=True)
class Assigned(Facts):
    """A row of ``assign_mechanic``."""

    is_awaited: bool = False


@dataclass(frozen=True)
class FreeAgain:
    """A row of ``clear_free_use``."""

    customer_id: str


CAME_TO_NOTHING = frozenset({RequestStatus.CANCELLED, RequestStatus.UNFILLED})
"""Whatever was to be given back for it has been owed then."""
NOT_WRITTEN_YET = 2**62
"""The id of a line of the story that the database has yet to number: after all others."""

ASSIGN_MECHANIC = Statement(SQL / "assign_mechanic.sql", Assigned)
FREE_MECHANIC = Statement(SQL / "free_mechanic.sql", Freed)
CLOSE_OFFER = Statement(SQL / "close_offer.sql", Nothing)
OPEN_OFFER = Statement(SQL / "open_offer.sql", Nothing)
EXCLUDE_MECHANIC = Statement(SQL / "exclude_mechanic.sql", Nothing)
ADD_TO_STORY = Statement(SQL / "add_to_story.sql", Nothing)
OWE_REFUND = Statement(SQL / "owe_refund.sql", Nothing)
CLEAR_FREE_USE = Statement(SQL / "clear_free_use.sql", FreeAgain)
RETURN_FREE_SESSION = Statement(SQL / "return_free_session.sql", Nothing)


class MechanicBusy(Exception):
    """The mechanic to assign is in another session; roll back."""


@dataclass(frozen=True)
class Cause:
    """Whose doing a transition is, for those who are told."""

    mechanic_id: str | None = None
    """Who accepts or declines; ``None``: anybody else, or time."""
    connection_id: str | None = None
    """The socket that they do so on."""
    offer_id: str | None = None
    """The offer that it has named: the socket that takes it gets the answer directly, and no withdrawal of it. A late tap names
    another than the one that it takes.
    """
    names: Mapping[str, str] = field(default_factory=dict)
    """Of mechanics who have not been named in the request before, by id."""


NOBODYS = Cause()
"""What time does, or somebody whom nothing has to be kept from."""

Values = dict[str, Any]
"""The arguments of one execution of a statement."""


@dataclass
class Effects:
    """What moves change beside the requests' own rows, gathered and then written kind by kind."""

    now_ms: int
    cause: Cause
    messages: list[Message] = field(default_factory=list)
    """What has to be told after the commit."""
    _assigned: list[Values] = field(default_factory=list)
    _freed: list[Values] = field(default_factory=list)
    _closed: list[Values] = field(default_factory=list)
    _opened: list[Values] = field(default_factory=list)
    _excluded: list[Values] = field(default_factory=list)
    _story: list[Values] = field(default_factory=list)
    _owed: list[Values] = field(default_factory=list)
    _free_again: list[Values] = field(default_factory=list)

    def take(
        self, before: StoredRequest, after: Request, commands: Sequence[Command], *, is_news: bool
    ) -> StoredRequest:
        """Take note of what follows for one request; return what is stored of it then.

        ``is_news``: whether its customer can see a difference.
        """
        tell: list[str] = []
        keep_from: list[str] = []
        windows: list[OpenWindow] = []
        stored = before
        names = {**names_in(before), **self.cause.names}
        for command in commands:
            match command:
                case OpenOffer(window):
                    windows.append(window)
                case CloseOffer(offer_id, reason):
                    cause = self.cause
                    is_taken = reason is WithdrawReason.TAKEN
                    is_answer = is_taken and cause.offer_id == offer_id
                    taken_by_id = cause.mechanic_id if is_taken else None
                    self._closed.append(
                        {"id": offer_id, "at_ms": self.now_ms, "reason": reason, "taken_by_id": taken_by_id}
                    )
                    answered_id = cause.connection_id if is_answer else None
                    was_for_id = before.offer_mechanic_id if before.offer_id == offer_id else None
                    self._tell(
                        OfferClosed(offer_id, reason, answered_id, was_for_id, cause.mechanic_id, cause.connection_id)
                    )
                case WithdrawFrom(offer_id, mechanic_id):
                    self._tell(OfferWithdrawnFrom(offer_id, mechanic_id, self.cause.connection_id))
                case Exclude(mechanic_id, because):
                    self._excluded.append(
                        {
                            "request_id": after.id,
                            "mechanic_id": mechanic_id,
                            "because": because,
                            "at_ms": self.now_ms,
                        }
                    )
                case Assign(mechanic_id):
                    self._assigned.append({"mechanic_id": mechanic_id, "request_id": after.id})
                case Free(mechanic_id):
                    self._freed.append({"mechanic_id": mechanic_id, "request_id": after.id})
                case OweRefund(because, reason):
                    stored = self._owe(stored, because, reason)
                case PromptFavorite(mechanic_id):
                    if not before.is_assigned_favorite:
                        self._tell(FavoriteToPrompt(after.id, mechanic_id, before.customer_id, names[mechanic_id]))
                case Tell(mechanic_id):
                    tell.append(mechanic_id)
                case KeepFrom(mechanic_id):
                    keep_from.append(mechanic_id)
                case Record(event, details):
                    stored = self._record(stored, event, details, names)
                case _:
                    assert_never(command)
        stored = stored.moved_to(after, names)
        for window in windows:
            self._open(stored, window)
        if is_news:
            on_clock, off_clock = _on_and_off_the_clock(before.limit, after.limit)
            self._tell(
                RequestChanged(
                    after.id,
                    tuple(tell),
                    Seen.of(stored, now_ms=self.now_ms),
                    on_clock=on_clock,
                    off_clock=off_clock,
                    keep_from=tuple(keep_from),
                )
            )
            events = tuple(one.event for one in commands if isinstance(one, Record))
            if before.customer_has_push:
                self._tell(CustomerToWake(after.id, events))
            # Whoever must start is reminded, or has to be no longer: nothing else is for a phone that sleeps.
            is_start_news = before.status == RequestStatus.ACCEPTED and (
                stored.status != before.status or "reminded" in events
            )
            if is_start_news and before.assigned_has_push and before.assigned_mechanic_id is not None:
                self._tell(MechanicToWake(after.id, before.assigned_mechanic_id, events))
        return stored

    def assign(self) -> Transaction[None]:
        """Give mechanics their sessions: before the requests move, so that a busy one is found here without an error, and not by
        the index, with one. Raises ``MechanicBusy``.
        """
        facts = yield from ASSIGN_MECHANIC.each(sorted(self._assigned, key=_mechanic))
        if len(facts) < len(self._assigned):
            raise MechanicBusy
        self._tell_facts(facts)

    def write(self) -> Transaction[None]:
        """Write the rest, after the requests have moved."""
        yield from CLOSE_OFFER.each(self._closed)
        # After the closing: a request has one open offer at a time.
        yield from OPEN_OFFER.each(self._opened)
        yield from EXCLUDE_MECHANIC.each(self._excluded)
        freed = yield from FREE_MECHANIC.each(sorted(self._freed, key=_mechanic))
        yield from END_DUTY.each(
            {"mechanic_id": one.mechanic_id, "at_ms": self.now_ms} for one in freed if one.has_gone_off
        )
        self._tell_facts(freed)
        yield from ADD_TO_STORY.each(self._story)
        yield from OWE_REFUND.each(self._owed)
        free_again = yield from CLEAR_FREE_USE.each(self._free_again)
        yield from RETURN_FREE_SESSION.each(
            {"customer_id": customer_id} for customer_id in sorted({one.customer_id for one in free_again})
        )

    def _tell(self, notice: Notice) -> None:
        self.messages.append(Message.of(notice))

    def _tell_facts(self, facts: Iterable[Assigned | Freed]) -> None:
        for one in facts:
            self._tell(FactsChanged(one.mechanic_id, one))
            if one.is_awaited:
                self._tell(FavoriteTurned(one.mechanic_id))

    def _record(self, stored: StoredRequest, event: str, details: Details, names: Mapping[str, str]) -> StoredRequest:
        encoded = msgspec.json.encode(details).decode()
        self._story.append({"request_id": stored.id, "at_ms": self.now_ms, "event": event, "details": encoded})
        name = names.get(details.get("mechanic_id", ""))
        return replace(stored, story=[*stored.story, Line(NOT_WRITTEN_YET, self.now_ms, event, dict(details), name)])

    def _open(self, stored: StoredRequest, window: OpenWindow) -> None:
        self._opened.append(
            {
                "id": window.offer_id,
                "request_id": stored.id,
                "kind": window.kind,
                "mechanic_id": window.mechanic_id,
                "opened_at_ms": window.opened_at_ms,
                "expires_at_ms": window.expires_at_ms,
                "mechanic_is_busy": stored.offer_mechanic_is_busy is True,
            }
        )
        self._tell(OfferOpened(window.offer_id, offer_to(stored, window, now_ms=self.now_ms)))

    def _owe(self, stored: StoredRequest, because: str, reason: str | None) -> StoredRequest:
        """Write down that everything paid goes back: money, or the right to the free session."""
        if stored.plan_cents == 0:
            # Also if a node of an earlier version has ended it, which gives the right back and leaves the mark.
            if stored.status not in CAME_TO_NOTHING:
                self._free_again.append({"request_id": stored.id})
            return stored
        if stored.payment_intent_id is None:
            # Nothing was charged: a hundred per cent discount (Stripe: payment_status no_payment_required).
            return stored
        refund_id = new_id()
        left_cents = stored.left_cents
        is_back = not left_cents and not stored.on_its_way_cents
        status = "succeeded" if is_back else "pending"
        self._owed.append(
            {
                "id": refund_id,
                "checkout_id": stored.checkout_id,
                "request_id": stored.id,
                "payment_intent_id": stored.payment_intent_id,
                "amount_cents": stored.paid_cents,
                "currency": stored.currency,
                "cause": because,
                "status": status,
                "next_attempt_at_ms": None if is_back else self.now_ms,
                "settled_at_ms": self.now_ms if is_back else None,
                "at_ms": self.now_ms,
            }
        )
        owed = replace(stored, refund_status=status, refund_cents=stored.paid_cents)
        if not is_back:
            self._tell(RefundOwed(refund_id))
        if not left_cents or because == "refunded_at_stripe":
            # Others have given it back: there is nothing to announce.
            return owed
        details: Details = {"amount_cents": left_cents, "cause": because}
        if reason is not None:
            details["reason"] = reason
        return self._record(owed, "refund_requested", details, {})


def _mechanic(values: Mapping[str, Any]) -> str:
    return str(values["mechanic_id"])


def _on_and_off_the_clock(
    before: TimeLimit | None, after: TimeLimit | None
) -> tuple[tuple[str, int] | None, str | None]:
    """Return which time limit goes on the clock, and when it rings, and which is to go off it."""
    if before is not None and after is not None and before.id == after.id:
        # Whoever has let it ring looks at it again.
        return None, None
    on_clock = None if after is None else (after.id, after.rings_at_ms)
    return on_clock, None if before is None else before.id
