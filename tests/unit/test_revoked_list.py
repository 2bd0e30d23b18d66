"""The list of what is refused although its signature is good."""

import pytest

from accounts.revocations import OVERLAP_MS, POLL_S, Mark, Proof, Revoked, RevokedList

PHONE = Proof("ann", "token-1", issued_at_ms=1_000, expires_at_ms=9_000, sign_in_id="phone")
RENEWED = Proof("ann", "token-2", issued_at_ms=2_000, expires_at_ms=12_000, sign_in_id="phone")
DESK = Proof("ann", "token-3", issued_at_ms=3_000, expires_at_ms=12_000, sign_in_id="desk")
MADE_ELSEWHERE = Proof("ann", "digest", issued_at_ms=2_000, expires_at_ms=50_000)
ALL = (PHONE, RENEWED, DESK, MADE_ELSEWHERE)
SIGNED_OUT = Revoked("token:phone", "ann", None, False, 12_000)


def up_to(at_ms: int, *, is_disabled: bool = False) -> Revoked:
    return Revoked("account:ann", "ann", at_ms, is_disabled, None)


def refused(*rows: Revoked, now_ms: int = 0) -> set[Proof]:
    list_ = RevokedList()
    list_.take_in(rows)
    list_.forget_ended(now_ms)
    return {proof for proof in ALL if list_.covers(proof)}


def test_nothing_is_refused_of_which_nothing_is_said():
    assert refused() == set()
    assert refused(Revoked("account:bob", "bob", 10**15, True, None)) == set()


def test_a_device_that_signs_out_takes_its_renewed_tokens_along_and_no_others():
    assert refused(SIGNED_OUT) == {PHONE, RENEWED}
    assert refused(Revoked("token:digest", "ann", None, False, 50_000)) == {MADE_ELSEWHERE}


@pytest.mark.parametrize(
    ("at_ms", "expected"), [(999, set()), (1_000, {PHONE}), (2_999, {PHONE, RENEWED, MADE_ELSEWHERE}), (3_000, {*ALL})]
)
def test_signing_out_everywhere_refuses_what_was_issued_until_then(at_ms: int, expected: set[Proof]):
    assert refused(up_to(at_ms)) == expected


def test_a_disabled_account_is_refused_whatever_it_shows_until_it_is_enabled():
    assert refused(up_to(0, is_disabled=True)) == {*ALL}
    assert refused(up_to(1_000, is_disabled=True), up_to(1_000)) == {PHONE}


def test_a_token_is_remembered_until_it_ends_by_itself_and_an_account_for_good():
    assert refused(SIGNED_OUT, now_ms=11_999) == {PHONE, RENEWED}
    assert refused(SIGNED_OUT, up_to(1_000), now_ms=12_000) == {PHONE}


def test_what_is_read_again_is_no_news():
    list_ = RevokedList()
    assert list_.take_in([SIGNED_OUT, up_to(1_000)]) == {"ann"}
    assert list_.take_in([SIGNED_OUT, up_to(1_000)]) == set()
    assert list_.take_in([up_to(1_000, is_disabled=True)]) == {"ann"}
    assert list_.take_in([up_to(1_000)]) == {"ann"}


def stamped(*stamps_ms: int) -> list[Revoked]:
    return [Revoked(f"token:{at_ms}", "ann", None, False, 12_000, at_ms) for at_ms in stamps_ms]


def test_what_was_stamped_shortly_before_the_newest_is_read_again_until_nothing_has_come_for_a_while():
    mark = Mark()
    assert mark.since_ms(0.0) == 0
    mark.note(stamped(700_000, 900_000), 1.0)
    assert mark.since_ms(1.0) == 900_000 - OVERLAP_MS
    assert mark.since_ms(1.0 + OVERLAP_MS / 1000) == 900_000 - OVERLAP_MS
    assert mark.since_ms(1.5 + OVERLAP_MS / 1000) == 900_001


def test_what_is_read_again_keeps_nobody_reading():
    mark = Mark()
    mark.note(stamped(900_000), 1.0)
    mark.note(stamped(850_000, 900_000), 100.0)
    mark.note([], 110.0)
    assert mark.since_ms(1.5 + OVERLAP_MS / 1000) == 900_001


def test_a_stamp_from_a_clock_that_is_far_ahead_hides_none_that_follow():
    """They are stamped after it, whatever their own clocks say."""
    mark = Mark()
    mark.note(stamped(10**15), 1.0)
    assert mark.since_ms(10_000.0) == 10**15 + 1
    mark.note(stamped(10**15 + 1), 10_000.0)
    assert mark.since_ms(10_000.0) <= 10**15 + 1


def test_a_node_looks_often_enough_to_hear_of_everything_within_the_five_seconds_of_the_contract():
    assert 2 * POLL_S < 5
