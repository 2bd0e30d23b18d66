"""What nodes tell each other's sockets: one channel, heard by every node, each delivering to the sockets it holds.

Delivery is a hint, at least once: a socket that misses one gets a snapshot when it reconnects, and every state that it
carries has a version. Two nodes may tell of the same thing, and the one that has read it first may be the last to tell.
"""

from msgspec import Raw, Struct, json

from infra.redis_link import RedisLink
from models.wire import OfferView
from models.words import WithdrawReason


class Told(Struct):
    """Which request a frame tells of, as of which version, and when the reading of it began: a socket's snapshot may be newer."""

    request_id: str
    version: int
    read_at_ms: int


class FrameToCustomer(Struct, tag="customer"):
    """Send ``frame`` (a ready text frame) to every socket of the customer; ``told`` if it says where a request stands."""

    account_id: str
    frame: Raw
    told: Told | None = None


class FrameToMechanic(Struct, tag="mechanic"):
    """The same to every socket of the mechanic."""

    mechanic_id: str
    frame: Raw
    told: Told | None = None


class OfferTo(Struct, tag="offer"):
    """Offer to one mechanic (priority), whatever their duty, or to everyone on duty and not busy, but the excluded.

    ``offer.expires_in_ms`` is as of the delivery; ``expires_at_ms`` is there to count anew when it is sent again. ``as_of_ms``:
    when it was open to these; 0 from a node of a version that does not say.
    """

    offer: OfferView
    expires_at_ms: int
    mechanic_id: str | None
    excluded: list[str]
    as_of_ms: int = 0


class Withdraw(Struct, tag="withdraw"):
    """The offer is gone: tell every socket that shows it, but not the one that took it.

    ``only_mechanic_id``: just that mechanic's sockets (they declined a broadcast that stays open for others). ``was_for_id``: whom
    alone it was for, so that nobody looks for it on ten thousand other sockets; ``None`` if it was for everybody, or from a node of
    a version that does not say.

    ``by_mechanic_id`` has taken or declined it, on the socket ``by_connection_id`` (``None``: over REST). To their other sockets it
    is their own doing.
    """

    offer_id: str
    reason: WithdrawReason
    except_connection_id: str | None = None
    only_mechanic_id: str | None = None
    was_for_id: str | None = None
    by_mechanic_id: str | None = None
    by_connection_id: str | None = None


class StandingChanged(Struct, tag="facts"):
    """A mechanic's standing has changed; sockets remember it to know whom a broadcast is for."""

    mechanic_id: str
    on_duty: bool
    is_busy: bool
    version: int = 0
    """Of the facts; 0 from a node of a version that does not say."""
    types_off: str | None = None
    """The kinds of session that they do not take; ``None`` from a node of a version that does not say."""
    back_at_ms: int | None = None
    off_after_session: bool = False


class PageWanted(Struct, tag="page_wanted"):
    """Does this customer have a page open? A node on which one is heard answers; see ``dispatch.push.pages``."""

    account_id: str
    question: str


Delivery = FrameToCustomer | FrameToMechanic | OfferTo | Withdraw | StandingChanged | PageWanted

encode = json.Encoder().encode
decode = json.Decoder(Delivery).decode


def channel(link: RedisLink) -> str:
    """The channel that every node of this installation listens to."""
    return link.key("dispatch", "deliveries")
