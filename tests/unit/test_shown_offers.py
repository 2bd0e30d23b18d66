"""The offers that a node's sockets show: sent again until acknowledged, and forgotten when they are over."""

from http_api.sockets.shown_offers import LINGER_MS, Newest, ShownOffer, ShownOffers
from models.timestamps import rfc3339
from models.wire import OfferView
from models.words import OfferKind

END_MS = 1_795_000_060_000
EVERY_S = 5.0


def offer(offer_id: str) -> OfferView:
    """Return an offer that was read a minute before its end."""
    kind = OfferKind.BROADCAST
    return OfferView(offer_id, f"r-{offer_id}", kind, "John Doe", "quick_chat", "text", 10, rfc3339(END_MS), 60_000)


def shown_to(*viewers: str, at_s: float = 100.0) -> tuple[ShownOffers[str], ShownOffer[str]]:
    """Return offers of which one is shown, sent to the viewers a second apart."""
    offers: ShownOffers[str] = ShownOffers(EVERY_S)
    shown = offers.entry_of(offer("o1"), END_MS)
    assert shown is not None
    for n, viewer in enumerate(viewers):
        offers.sent(shown, viewer, at_s + n)
    return offers, shown


def due(offers: ShownOffers[str], now_s: float, now_ms: int = END_MS - 1) -> list[tuple[str, list[str]]]:
    return [(shown.offer.offer_id, viewers) for shown, viewers in offers.due(now_s, now_ms)]


def test_an_offer_is_sent_again_an_interval_after_it_was_sent_last_and_to_nobody_sooner():
    offers, _ = shown_to("a", "b")
    assert due(offers, 104.9) == []
    assert due(offers, 105.0) == [("o1", ["a"])]
    assert due(offers, 106.0) == [("o1", ["b"])], "who has just been sent it is not due"
    assert due(offers, 110.9) == [("o1", ["a"])]
    assert due(offers, 200.0) == [("o1", ["b", "a"])], "in the order in which their turn came"


def test_who_has_acknowledged_is_not_sent_it_again():
    offers, shown = shown_to("a", "b")
    del shown.unacknowledged["a"]
    assert due(offers, 200.0) == [("o1", ["b"])]


def test_an_offer_is_not_sent_again_from_its_deadline_on_and_the_time_left_is_never_negative():
    offers, shown = shown_to("a")
    assert shown.view(END_MS - 7).expires_in_ms == 7
    assert (shown.view(END_MS).expires_in_ms, shown.view(END_MS + 9).expires_in_ms) == (0, 0)
    assert due(offers, 200.0, END_MS) == []
    assert shown.unacknowledged == {}, "nobody is kept for an offer that has ended"


def test_an_offer_whose_withdrawal_never_came_is_forgotten_after_a_while_and_does_not_come_back():
    offers, shown = shown_to("a")
    due(offers, 200.0, END_MS + LINGER_MS - 1)
    assert (len(offers), offers.entry_of(offer("o1"), END_MS)) == (1, shown), "its withdrawal may still be on its way"
    due(offers, 200.0, END_MS + LINGER_MS)
    assert (len(offers), offers.entry_of(offer("o1"), END_MS)) == (0, None)


def test_an_offer_that_is_over_holds_up_no_other():
    offers, _ = shown_to("a")
    later = offers.entry_of(offer("o2"), END_MS + 1_000)
    assert later is not None
    offers.sent(later, "b", 100.0)
    assert due(offers, 200.0, END_MS) == [("o2", ["b"])]


def test_a_withdrawn_offer_is_gone_also_if_it_was_never_shown():
    offers, _ = shown_to("a")
    offers.withdrawn("o1")
    offers.withdrawn("o2")
    assert [offers.entry_of(offer(offer_id), END_MS) for offer_id in ("o1", "o2")] == [None, None]
    assert (len(offers), due(offers, 200.0)) == (0, [])


def test_a_decline_is_that_mechanics_alone():
    offers, _ = shown_to("a")
    offers.declined("o1", "m1")
    assert offers.is_declined("o1", "m1")
    assert not offers.is_declined("o1", "m2")
    assert not offers.is_declined("o2", "m1")


def test_of_many_keys_the_newest_are_remembered():
    newest: Newest[int] = Newest(3)
    for key in range(5):
        newest.add(key)
    assert [key in newest for key in range(5)] == [False, False, True, True, True]
