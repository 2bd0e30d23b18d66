"""Who may get a broadcast: the rule itself, and everybody in this process who follows it."""

from itertools import product

import pytest

from dispatch.eligibility import Standing, may_get_broadcast
from presence import liveness
from presence.liveness import MechanicStatus
from tests.unit.connection_stage import an_offer, stage

SWITCHES = list(product([True, False], repeat=3))


def test_a_broadcast_is_for_those_on_duty_and_in_no_session_whom_its_request_does_not_exclude():
    got = [
        (on_duty, is_busy, is_excluded)
        for on_duty, is_busy, is_excluded in SWITCHES
        if may_get_broadcast(Standing(on_duty, is_busy), is_excluded=is_excluded)
    ]
    assert got == [(True, False, False)]


@pytest.mark.parametrize(("is_online", "on_duty", "is_busy"), SWITCHES)
def test_presence_calls_those_available_who_are_online_and_may_get_a_broadcast(is_online, on_duty, is_busy):
    status = MechanicStatus("mike", 1, is_online, on_duty, is_busy, False, 1, None, 1)
    expected = is_online and may_get_broadcast(Standing(on_duty, is_busy))
    assert liveness.is_available(status) == expected
    assert (liveness.availability_of(status) == "available") == expected


@pytest.mark.parametrize(("on_duty", "is_busy", "is_excluded"), SWITCHES)
async def test_a_socket_shows_a_broadcast_if_its_mechanic_may_get_it(on_duty, is_busy, is_excluded):
    async with stage() as here:
        phone = await here.mechanic("mike", on_duty=on_duty, is_busy=is_busy)
        await here.offer(an_offer("o1"), excluded=["mike"] if is_excluded else [])
        expected = may_get_broadcast(Standing(on_duty, is_busy), is_excluded=is_excluded)
        assert phone.hears_kinds() == ["offer"] * expected
