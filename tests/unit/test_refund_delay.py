"""How long an owed refund waits before Stripe is asked again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch.due_work import RETRY_S, TOGETHER_S
from dispatch.money.refunds import patience
from models.settings import DispatchSettings

SETTINGS = DispatchSettings()


def test_the_first_retry_is_within_two_seconds_as_a_look_before_it_tells_when_it_is_due():
    first_ms = patience(SETTINGS).delay_ms(1)
    assert first_ms > RETRY_S * 1000
    assert first_ms + TOGETHER_S * 1000 <= 2_000


def test_each_retry_waits_twice_as_long_up_to_twenty_seconds():
    # The contract allows five minutes; whoever waits for money does not wait that long once Stripe is well again.
    delays = [patience(SETTINGS).delay_ms(attempts) for attempts in range(1, 9)]
    assert delays == [1_000, 2_000, 4_000, 8_000, 16_000, 20_000, 20_000, 20_000]


@given(attempts=st.integers(1, 100_000), first_ms=st.integers(1, 2_000), max_ms=st.integers(2_000, 300_000))
def test_the_delay_never_shrinks_and_never_passes_its_bound(attempts: int, first_ms: int, max_ms: int):
    settings = DispatchSettings(refund_retry_first_ms=first_ms, refund_retry_max_ms=max_ms)
    delay_ms = patience(settings).delay_ms(attempts)
    assert first_ms <= delay_ms <= patience(settings).delay_ms(attempts + 1) <= max_ms


@pytest.mark.parametrize("attempts", [1, 2, 1_000_000])
def test_the_delay_is_a_whole_number_of_milliseconds(attempts: int):
    assert isinstance(patience(SETTINGS).delay_ms(attempts), int)
