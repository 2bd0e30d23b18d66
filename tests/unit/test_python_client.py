"""What the Python client decides without a network, and that it is one file which needs nothing of ours."""

import asyncio
import re
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.python import pitlane_client as client
from clients.python.pitlane_client import (
    Mailbox,
    OfferBook,
    OfferGone,
    OfferMade,
    Problem,
    RequestBook,
    RequestChanged,
    ServerClock,
    StatusBook,
    StatusChanged,
    Then,
    TooSlow,
    after_close,
    backoff_s,
    slices,
)
from http_api.sockets.close_codes import CLOSE_CODES
from models import wire

FILE = Path(client.__file__)
ROOT = FILE.parent.parent.parent
NOW = "2026-11-22T09:30:00.000Z"
NOW_MS = 1_795_339_800_000


def an_offer(offer_id: str = "o1", *, request_id: str = "r1", left_ms: int = 60_000, expires_at: str = NOW) -> Any:
    return {"offer_id": offer_id, "request_id": request_id, "expires_at": expires_at, "expires_in_ms": left_ms}


def a_deadline(*, left_ms: int = 60_000, expires_at: str = NOW) -> Any:
    return {"expires_at": expires_at, "expires_in_ms": left_ms}


def a_request(request_id: str = "r1", *, version: int = 1, status: str = "accepted", **says: Any) -> Any:
    return {"id": request_id, "version": version, "status": status, **says}


def a_status(*, version: int, as_of: str = NOW) -> Any:
    return {"mechanic_id": "m1", "version": version, "as_of": as_of}


# --- the file ---------------------------------------------------------------------------------------------------------


def test_the_file_works_alone_wherever_it_is_copied(tmp_path: Path) -> None:
    shutil.copy(FILE, tmp_path)
    told = "import pitlane_client, sys; print(pitlane_client.MechanicClient, *sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", told], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True
    )
    modules = ran.stdout.split()
    assert "pitlane_client" in modules
    assert not {"models", "infra", "http_api", "msgspec", "clients"} & set(modules)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (client.Offer, wire.OfferView),
        (client.Request, wire.RequestView),
        (client.Status, wire.StatusView),
        (client.Person, wire.Person),
        (client.OfferDeadline, wire.OfferDeadline),
        (client.Deadline, wire.Deadline),
    ],
)
def test_what_the_client_knows_of_an_object_is_what_the_server_sends(ours: Any, theirs: Any) -> None:
    assert ours.__required_keys__ | ours.__optional_keys__ <= set(theirs.__struct_fields__)


# --- after a close ----------------------------------------------------------------------------------------------------


def test_what_follows_a_close_is_what_the_server_publishes() -> None:
    assert {one.code: one.then.name for one in CLOSE_CODES} == {
        code: then.name for code, then in client.THEN_BY_CODE.items()
    }
    assert after_close(None) is after_close(4999) is after_close(1006) is Then.RECONNECT


def test_the_waits_are_those_of_the_pages() -> None:
    (file,) = [*ROOT.glob("http_api/pages/browser/backoff.js"), *ROOT.glob("clients/javascript/backoff.js")]
    text = file.read_text()

    def pace(name: str) -> dict[str, float]:
        (said,) = re.findall(rf"const {name} = {{(.*)}};", text)
        values = {key: float(value.replace("_", "")) for key, value in re.findall(r"(\w+): ([\d_.]+)", said)}
        return pace("QUICK") | values if "...QUICK" in said else values

    for name, ours in (("QUICK", Then.RECONNECT), ("SPREAD", Then.RECONNECT_SPREAD), ("SLOW", Then.RECONNECT_SLOWLY)):
        known = client.PACES[ours]
        assert pace(name) == {
            "base_ms": known.base_s * 1000,
            "cap_ms": known.cap_s * 1000,
            "share_min": known.share_min,
        }


@given(st.integers(0, 10_000), st.sampled_from([one for one in Then if one is not Then.SIGN_IN]), st.floats(0, 1))
def test_a_wait_is_anywhere_up_to_a_bound_that_doubles_to_its_cap(attempt: int, then: Then, chance: float) -> None:
    pace = client.PACES[then]
    bound_s = min(pace.cap_s, pace.base_s * 2 ** min(attempt, 30))
    assert bound_s * pace.share_min <= backoff_s(attempt, then, chance) <= bound_s + 1e-9
    assert backoff_s(attempt, then, 1.0) == bound_s


def waits_s(tries: client.Tries, count: int, *, is_polling: bool) -> list[float]:
    return [tries.wait_s(Then.RECONNECT, 0.0, 1.0, is_polling=is_polling) for _ in range(count)]


def test_where_polling_works_sockets_are_tried_ever_more_seldom_until_something_is_different() -> None:
    tries = client.Tries()
    assert waits_s(tries, 5, is_polling=True) == [15.0, 30.0, 60.0, 120.0, 120.0]
    # REST did not work either, and does again: it may have been the server itself, and two minutes are far too long for that.
    tries.hurry()
    assert waits_s(tries, 2, is_polling=True) == [15.0, 30.0]


def test_waits_double_until_a_connection_has_lived_for_a_while() -> None:
    tries = client.Tries()
    assert waits_s(tries, 4, is_polling=False) == [0.5, 1.0, 2.0, 4.0]
    assert tries.wait_s(Then.RECONNECT, 9.9, 1.0, is_polling=False) == 8.0
    assert tries.wait_s(Then.RECONNECT, 10.0, 1.0, is_polling=False) == 0.5
    waits_s(tries, 3, is_polling=False)
    tries.hurry()
    assert waits_s(tries, 2, is_polling=False) == [1.0, 2.0]


def test_polls_drift_apart_and_back_off_while_nobody_answers() -> None:
    assert [client.poll_in_s(4.0, 0, 0.0, chance) for chance in (0.0, 1.0)] == [3.0, 5.0]
    assert [client.poll_in_s(4.0, failures, 0.0, 0.5) for failures in (1, 3, 5, 500)] == [8.0, 32.0, 60.0, 60.0]
    assert client.poll_in_s(4.0, 0, 30.0, 0.5) == 30.0


@pytest.mark.parametrize(
    ("asked", "understood_s"),
    [
        ("0", 0.0),
        (" 7 ", 7.0),
        ("99999999999", client.RETRY_AFTER_MAX_S),
        *((nothing, None) for nothing in ("", "-5", "nan", "1e9", "Sun, 22 Nov 2026 09:30:00 GMT")),
    ],
)
def test_a_server_may_ask_for_seconds_of_patience_and_for_an_hour_at_most(
    asked: str, understood_s: float | None
) -> None:
    assert client._problem(503, {"retry-after": asked}, b"").retry_after_s == understood_s


# --- offers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "may_retry"), [(0, True), (408, True), (429, True), (503, True), (404, False), (409, False)]
)
def test_the_same_call_may_be_made_again_where_nothing_was_decided(status: int, may_retry: bool) -> None:
    assert Problem(status, "a_word", "A sentence.").may_retry is may_retry


def test_an_offer_is_new_once_and_its_deadline_is_the_earliest_reading() -> None:
    book = OfferBook()
    made = book.take(an_offer(left_ms=60_000), 100.0)
    assert made is not None
    # Held up on the way for seven seconds, although it said that 58 were left.
    assert book.take(an_offer(left_ms=58_000), 109.0) is None
    assert book.open["o1"].deadline_s == 160.0
    assert book.take(an_offer(left_ms=50_000), 101.0) is None
    assert book.open["o1"].deadline_s == 151.0


def test_a_deadline_that_has_changed_counts_as_it_was_said_last_whatever_arrives_last() -> None:
    longer = an_offer(left_ms=119_000, expires_at="2026-11-22T09:31:00.000Z")
    book = OfferBook()
    book.take(an_offer(left_ms=60_000), 100.0)
    book.take(longer, 101.0)
    assert book.open["o1"].deadline_s == 220.0
    book.take(an_offer(left_ms=60_000), 101.1)
    assert (book.open["o1"].deadline_s, book.open["o1"].offer) == (220.0, longer)


def test_a_withdrawn_offer_that_comes_again_is_new_and_an_answered_one_is_not() -> None:
    book = OfferBook()
    book.take(an_offer("o1"), 0.0)
    assert book.withdraw("o1") is not None
    assert book.withdraw("o1") is None
    # Who was busy when it was taken from the table gets it back afterwards.
    assert book.take(an_offer("o1"), 1.0) is not None
    book.answer("o1")
    assert book.take(an_offer("o1"), 2.0) is None
    assert not book.open


def test_a_snapshot_tells_what_came_and_what_went() -> None:
    book = OfferBook()
    book.snapshot([an_offer("o1"), an_offer("o2")], 0.0)
    made, gone = book.snapshot([an_offer("o2"), an_offer("o3", request_id="r9")], 1.0)
    assert [one.offer["offer_id"] for one in made] == ["o3"]
    assert [offer["offer_id"] for offer in gone] == ["o1"]
    assert book.of_request("r9") == ["o3"]


def test_books_are_bounded() -> None:
    offers, requests = OfferBook(), RequestBook()
    for number in range(3_000):
        offers.take(an_offer(f"o{number}"), 0.0)
        requests.take(a_request(f"r{number}", start=a_deadline()), 0.0)
    assert len(offers.open) == client.OFFERS_MAX
    assert "o2999" in offers.open
    assert requests.get("r0") is None
    assert requests.deadline_s("r0") is None
    assert requests.get("r2999") is not None


# --- what is versioned ------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 6), min_size=1), st.randoms(use_true_random=False))
def test_requests_in_any_order_end_at_the_newest_and_never_go_back(versions: list[int], random: Random) -> None:
    book, told = RequestBook(), []
    for version in versions:
        if book.take(a_request(version=version), 0.0):
            told.append(version)
    assert told == sorted(set(told))
    assert told[-1] == max(versions)


def test_what_a_snapshot_no_longer_names_has_ended_unheard() -> None:
    book = RequestBook()
    for request in (a_request("r1"), a_request("r2", status="completed"), a_request("r3", status="broadcasting")):
        book.take(request, 0.0)
    assert book.open_besides([a_request("r1")]) == ["r3"]


def test_a_request_counts_down_to_what_it_waits_for_by_the_earliest_reading() -> None:
    book = RequestBook()
    book.take(a_request(version=1, start=a_deadline(left_ms=300_000)), 100.0)
    assert book.deadline_s("r1") == 400.0
    # Said again with the reminder, and held up on its way.
    book.take(a_request(version=2, start=a_deadline(left_ms=150_000)), 252.0)
    assert book.deadline_s("r1") == 400.0
    ends = a_deadline(left_ms=2_700_000, expires_at="2026-11-22T10:15:00.000Z")
    book.take(a_request(version=3, status="in_progress", start=None, ends=ends), 260.0)
    assert book.deadline_s("r1") == 2_960.0
    book.take(a_request(version=4, status="completed", start=None, ends=None, offer=None), 300.0)
    assert book.deadline_s("r1") is None


def test_of_two_readings_of_one_version_the_later_one_counts() -> None:
    book = StatusBook()
    assert book.take(a_status(version=2, as_of="2026-11-22T09:30:05.000Z"))
    assert not book.take(a_status(version=2, as_of="2026-11-22T09:30:04.000Z"))
    assert not book.take(a_status(version=1, as_of="2026-11-22T09:30:09.000Z"))
    assert book.take(a_status(version=2, as_of="2026-11-22T09:30:06.000Z"))
    assert book.take(a_status(version=3, as_of="2026-11-22T09:30:00.000Z"))


# --- events that wait -------------------------------------------------------------------------------------------------


def put(mailbox: Mailbox, event: Any) -> None:
    match event:
        case OfferMade(offer) | OfferGone(offer):
            mailbox.put(("offer", offer["offer_id"]), event)
        case RequestChanged(request):
            mailbox.put(("request", request["id"]), event)
        case StatusChanged(status):
            mailbox.put(("status", status["mechanic_id"]), event)


def read(mailbox: Mailbox) -> list[Any]:
    mailbox.end(EOFError())

    async def all_of_it() -> list[Any]:
        found = []
        while True:
            try:
                found.append(await mailbox.take())
            except EOFError:
                return found

    return asyncio.run(all_of_it())


def test_who_reads_slowly_gets_the_newest_of_each_thing_in_the_order_in_which_they_first_changed() -> None:
    mailbox = Mailbox()
    for version in (1, 2, 3):
        put(mailbox, RequestChanged(a_request(version=version)))
        put(mailbox, StatusChanged(a_status(version=version)))
    assert read(mailbox) == [RequestChanged(a_request(version=3)), StatusChanged(a_status(version=3))]


def test_an_offer_that_comes_and_goes_unread_is_not_told_and_one_that_goes_and_comes_is_still_there() -> None:
    mailbox = Mailbox()
    made, gone = OfferMade(an_offer(), 9.0), OfferGone(an_offer(), "taken")
    put(mailbox, made)
    put(mailbox, gone)
    assert read(mailbox) == []

    mailbox = Mailbox()
    put(mailbox, gone)
    put(mailbox, made)
    assert read(mailbox) == []

    mailbox = Mailbox()
    for event in (gone, made, gone):
        put(mailbox, event)
    assert read(mailbox) == [gone]


def test_nothing_is_kept_without_a_bound_and_the_reader_is_told() -> None:
    mailbox = Mailbox()
    for number in range(client.EVENTS_MAX + 10):
        put(mailbox, RequestChanged(a_request(f"r{number}")))
    assert isinstance(mailbox.ended_by, TooSlow)


# --- small things -----------------------------------------------------------------------------------------------------


def test_the_servers_clock_goes_on_without_ours_and_what_was_held_up_does_not_set_it_back() -> None:
    clock = ServerClock()
    assert clock.now_ms(5.0) is None
    clock.hear(NOW, 5.0, is_first=True)
    assert clock.now_ms(65.0) == NOW_MS + 60_000
    # Sent at the same instant as the first, it seems, but six seconds longer on its way.
    clock.hear(NOW, 11.0)
    assert clock.now_ms(65.0) == NOW_MS + 60_000
    clock.hear("2026-11-22T09:30:07.000Z", 11.0)
    assert clock.now_ms(65.0) == NOW_MS + 61_000
    clock.hear(NOW, 20.0, is_first=True)
    assert clock.now_ms(20.0) == NOW_MS


def test_slices_keep_the_order_and_leave_nothing_out() -> None:
    ids = [f"m{number}" for number in range(205)]
    assert [len(some) for some in slices(ids)] == [100, 100, 5]
    assert [one for some in slices(ids) for one in some] == ids
    assert list(slices([])) == []
