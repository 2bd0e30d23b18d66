"""What a transition leaves to be told: one type for each kind of message of the outbox.

A notice is small and names rows, so that what is told is the state when it is told. Members that a later version adds have
defaults: rows that an earlier one wrote are told by this one.
"""

from typing import ClassVar

from msgspec import Struct

from models.words import WithdrawReason


class Notice(Struct, frozen=True):
    """Something to tell."""

    kind: ClassVar[str]
    """What its rows are called."""


class OfferOpened(Notice, frozen=True):
    """An offer may be taken: its deadline goes on the clock, and its card to whom it is for."""

    kind: ClassVar[str] = "offer_opened"
    offer_id: str


class OfferClosed(Notice, frozen=True):
    """An offer is gone. ``except_connection_id``: the socket that took it and gets the answer directly."""

    kind: ClassVar[str] = "offer_closed"
    offer_id: str
    reason: WithdrawReason
    except_connection_id: str | None = None


class OfferWithdrawnFrom(Notice, frozen=True):
    """An offer stays open for others, but this mechanic has declined it."""

    kind: ClassVar[str] = "offer_withdrawn"
    offer_id: str
    mechanic_id: str


class RequestChanged(Notice, frozen=True):
    """Its customer and assigned mechanic can see a difference; ``tell`` names mechanics besides."""

    kind: ClassVar[str] = "request_changed"
    request_id: str
    tell: tuple[str, ...] = ()


class FavoriteToPrompt(Notice, frozen=True):
    """The session is completed: its customer may want this mechanic as a favourite."""

    kind: ClassVar[str] = "favorite_prompt"
    request_id: str
    mechanic_id: str


class FactsChanged(Notice, frozen=True):
    """A mechanic's duty, session or push is another."""

    kind: ClassVar[str] = "facts_changed"
    mechanic_id: str


class RefundOwed(Notice, frozen=True):
    """Money is to go back."""

    kind: ClassVar[str] = "refund_owed"
    refund_id: str
