"""What a transition leaves to be told: one type for each kind of message of the outbox.

A notice brings along what the transaction knew, so that telling it right after the commit, or from its row on another node, reads
nothing that cannot have changed. Members that a later version adds have defaults: rows that an earlier one wrote name what is to be
told, and that is read then.
"""

from typing import ClassVar, Self

from msgspec import Struct
from msgspec.structs import replace

from dispatch.deliveries import OfferTo
from dispatch.request import OpenWindow
from dispatch.stored import StoredRequest
from dispatch.views import offer_view, request_view
from models.wire import RequestView
from models.words import WithdrawReason
from presence.liveness import Facts


class Notice(Struct, frozen=True):
    """Something to tell."""

    kind: ClassVar[str]
    """What its rows are called."""

    def told_late(self) -> Self:
        """Return it as it is to be told some time after the commit, by this node or another: without what may have changed."""
        return self


def offer_to(row: StoredRequest, window: OpenWindow, *, now_ms: int) -> OfferTo:
    """Return an offer of the request for whom it is for."""
    offer = offer_view(row, window, now_ms=now_ms)
    return OfferTo(offer, window.expires_at_ms, window.mechanic_id, row.excluded, now_ms)


class OfferOpened(Notice, frozen=True):
    """An offer may be taken: its deadline goes on the clock, and its card to whom it is for."""

    kind: ClassVar[str] = "offer_opened"
    offer_id: str
    to: OfferTo | None = None

    def told_late(self) -> Self:
        """Return it without whom it is for: it may have been taken since, or declined."""
        return replace(self, to=None)


class OfferClosed(Notice, frozen=True):
    """An offer is gone. ``except_connection_id``: the socket that took it and gets the answer directly.

    ``mechanic_id``: whom alone it was for; ``None`` if it was for everybody, or from a version that does not say. The last two: see
    ``deliveries.Withdraw``.
    """

    kind: ClassVar[str] = "offer_closed"
    offer_id: str
    reason: WithdrawReason
    except_connection_id: str | None = None
    mechanic_id: str | None = None
    by_mechanic_id: str | None = None
    by_connection_id: str | None = None


class OfferWithdrawnFrom(Notice, frozen=True):
    """An offer stays open for others, but this mechanic has declined it, on the socket ``by_connection_id`` if on any."""

    kind: ClassVar[str] = "offer_withdrawn"
    offer_id: str
    mechanic_id: str
    by_connection_id: str | None = None


class Seen(Struct, frozen=True):
    """How a request stood at ``as_of_ms``, and whose it was then; ``expires_at_ms``: of its open offer or its time limit."""

    view: RequestView
    customer_id: str
    assigned_mechanic_id: str | None
    expires_at_ms: int | None
    as_of_ms: int
    session_until_ms: int | None = None
    """See ``StoredRequest``."""

    @classmethod
    def of(cls, row: StoredRequest, *, now_ms: int) -> Self:
        """Return how the request stands, as it is stored ``now_ms``."""
        view = request_view(row, now_ms=now_ms)
        expires_at_ms = row.limit_expires_at_ms if row.offer_expires_at_ms is None else row.offer_expires_at_ms
        return cls(view, row.customer_id, row.assigned_mechanic_id, expires_at_ms, now_ms, row.session_until_ms)

    def view_at(self, now_ms: int) -> RequestView:
        """Return the view with the time that is left counted anew: a notice may be told long after it was written."""
        view, left_ms = self.view, max(0, (self.expires_at_ms or 0) - now_ms)
        if self.expires_at_ms is None:
            return view
        if view.offer is not None:
            return replace(view, offer=replace(view.offer, expires_in_ms=left_ms))
        if view.start is not None:
            return replace(view, start=replace(view.start, expires_in_ms=left_ms))
        return view if view.ends is None else replace(view, ends=replace(view.ends, expires_in_ms=left_ms))


class RequestChanged(Notice, frozen=True):
    """Its customer and assigned mechanic can see a difference; ``tell`` names mechanics besides, ``keep_from`` whom it is not for.

    ``on_clock``: a time limit that it has got, and when that rings, in ms; ``off_clock``: one that it had.
    """

    kind: ClassVar[str] = "request_changed"
    request_id: str
    tell: tuple[str, ...] = ()
    seen: Seen | None = None
    on_clock: tuple[str, int] | None = None
    off_clock: str | None = None
    keep_from: tuple[str, ...] = ()

    def told_late(self) -> Self:
        """Return it without how the request stood, if that says that its mechanic is no favourite: they may be one by now."""
        return replace(self, seen=None) if self.seen is not None and self.seen.view.favorite_prompt is True else self


class CustomerToWake(Notice, frozen=True):
    """Something has happened to a request whose customer has a browser that can be woken; ``events`` as in its story."""

    kind: ClassVar[str] = "customer_to_wake"
    request_id: str
    events: tuple[str, ...]


class MechanicToWake(Notice, frozen=True):
    """A mechanic who has a browser that can be woken is to start what they have accepted, or has to start it no longer."""

    kind: ClassVar[str] = "mechanic_to_wake"
    request_id: str
    mechanic_id: str
    events: tuple[str, ...]


class FavoriteTurned(Notice, frozen=True):
    """A mechanic whom customers wait for has become busy, or free."""

    kind: ClassVar[str] = "favorite_turned"
    mechanic_id: str


class FavoriteToPrompt(Notice, frozen=True):
    """The session is completed, and the mechanic not yet a favourite: the customer may want them to be."""

    kind: ClassVar[str] = "favorite_prompt"
    request_id: str
    mechanic_id: str
    customer_id: str | None = None
    mechanic_name: str | None = None

    def told_late(self) -> Self:
        """Return it without whom to ask: the mechanic may have become a favourite since."""
        return replace(self, customer_id=None, mechanic_name=None)


class FactsChanged(Notice, frozen=True):
    """A mechanic's duty, session or push is another."""

    kind: ClassVar[str] = "facts_changed"
    mechanic_id: str
    facts: Facts | None = None

    def told_late(self) -> Self:
        """Return it without the facts: others may have followed."""
        return replace(self, facts=None)


class RefundOwed(Notice, frozen=True):
    """Money is to go back."""

    kind: ClassVar[str] = "refund_owed"
    refund_id: str
