"""The offers that this node's sockets show: what to send again to whom, and which are gone. Pure: the caller brings the clocks.

One entry per offer, not per mechanic: a broadcast to ten thousand sockets is kept once, with the ten thousand that have
not acknowledged it in the order in which their turn comes.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Final, Generic, TypeVar

from msgspec.structs import replace

from http_api.sockets.frames import frame_text
from models import wire
from models.wire import OfferMade, OfferView

Key = TypeVar("Key", bound=Hashable)
Viewer = TypeVar("Viewer", bound=Hashable)

GONE_LEN_MAX: Final = 10_000
"""Offers remembered as gone, and declines remembered: a late or repeated delivery must not show a card again."""
LINGER_MS: Final = 60_000
"""An offer whose withdrawal never came is forgotten this long after its deadline."""


class ShownOffer(Generic[Viewer]):
    """One open offer and who has yet to acknowledge it, with the instant (monotonic, s) at which it is sent again."""

    __slots__ = ("expires_at_ms", "is_seen", "offer", "unacknowledged")

    def __init__(self, offer: OfferView, expires_at_ms: int) -> None:
        self.offer = offer
        self.expires_at_ms = expires_at_ms
        self.is_seen = False
        """Whether a person has been able to see it, on any socket of this node."""
        self.unacknowledged: OrderedDict[Viewer, float] = OrderedDict()

    @property
    def is_priority(self) -> bool:
        """Whether it is for one mechanic alone."""
        return self.offer.kind == "priority"

    def view(self, now_ms: int) -> OfferView:
        """The offer with the time that is left counted anew."""
        return replace(self.offer, expires_in_ms=max(0, self.expires_at_ms - now_ms))

    def frame(self, now_ms: int) -> bytes:
        """The offer as a ready frame."""
        return frame_text(wire.encode(OfferMade(self.view(now_ms))))


class Newest(Generic[Key]):
    """The last so many keys that were added."""

    def __init__(self, len_max: int) -> None:
        self._len_max = len_max
        self._keys: OrderedDict[Key, None] = OrderedDict()

    def __contains__(self, key: Key) -> bool:
        return key in self._keys

    def add(self, key: Key) -> None:
        """Add one; the oldest goes if there are too many."""
        self._keys[key] = None
        if len(self._keys) > self._len_max:
            self._keys.popitem(last=False)


class ShownOffers(Generic[Viewer]):
    """All offers shown on this node, by id."""

    def __init__(self, resend_interval_s: float) -> None:
        self._resend_interval_s = resend_interval_s
        self._offers: dict[str, ShownOffer[Viewer]] = {}
        self._gone: Newest[str] = Newest(GONE_LEN_MAX)
        self._declined: Newest[tuple[str, str]] = Newest(GONE_LEN_MAX)

    def __len__(self) -> int:
        return len(self._offers)

    def entry_of(self, offer: OfferView, expires_at_ms: int) -> ShownOffer[Viewer] | None:
        """Return the entry of this offer, made if it is new; ``None`` if it is known to be gone."""
        if offer.offer_id in self._gone:
            return None
        return self._offers.setdefault(offer.offer_id, ShownOffer(offer, expires_at_ms))

    def is_gone(self, offer_id: str) -> bool:
        """Whether the offer is known to be gone."""
        return offer_id in self._gone

    def is_awaited(self, shown: ShownOffer[Viewer], viewer: Viewer) -> bool:
        """Whether ``viewer`` has yet to acknowledge an offer that is not gone."""
        return viewer in shown.unacknowledged and shown.offer.offer_id not in self._gone

    def withdrawn(self, offer_id: str) -> None:
        """Forget the offer, and remember that it is gone."""
        self._offers.pop(offer_id, None)
        self._gone.add(offer_id)

    def declined(self, offer_id: str, mechanic_id: str) -> None:
        """Remember that this mechanic does not want the offer, which stays open for others."""
        self._declined.add((offer_id, mechanic_id))

    def is_declined(self, offer_id: str, mechanic_id: str) -> bool:
        """Whether this mechanic has declined the offer. A node that read the offer before may tell it to them afterwards."""
        return (offer_id, mechanic_id) in self._declined

    def sent(self, shown: ShownOffer[Viewer], viewer: Viewer, now_s: float) -> None:
        """Note that ``viewer`` has just been sent the offer."""
        shown.unacknowledged[viewer] = now_s + self._resend_interval_s
        shown.unacknowledged.move_to_end(viewer)

    def due(self, now_s: float, now_ms: int) -> Iterator[tuple[ShownOffer[Viewer], list[Viewer]]]:
        """Yield whom to send what again now; forget what has been over for long.

        Those yielded count as sent. Whoever lets others have a turn before sending asks ``is_awaited`` again.
        """
        for shown in list(self._offers.values()):
            if now_ms >= shown.expires_at_ms:
                shown.unacknowledged.clear()
                if now_ms >= shown.expires_at_ms + LINGER_MS:
                    self.withdrawn(shown.offer.offer_id)
                continue
            viewers = []
            # In the order in which they were sent to, so the first who is not due ends the search.
            for viewer, at_s in shown.unacknowledged.items():
                if at_s > now_s:
                    break
                viewers.append(viewer)
            for viewer in viewers:
                self.sent(shown, viewer, now_s)
            if viewers:
                yield shown, viewers
