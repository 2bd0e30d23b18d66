"""Who may get a broadcast: the rule itself, and everybody in this process who follows it."""

from itertools import product

import pytest

from dispatch.eligibility import Standing, may_be_asked, may_get_broadcast
from models.session_types import SESSION_TYPES, types_off
from presence import liveness
from presence.liveness import MechanicStatus
from tests.unit.connection_stage import an_offer, stage

SWITCHES = list(product([True, False], repeat=3))
TAKEN = [(), ("text",), ("diagnostic", "video"), SESSION_TYPES]


def test_a_broadcast_is_for_those_on_duty_and_in_no_session_whom_its_request_does_not_exclude():
    got = [
        (on_duty, is_busy, is_excluded)
        for on_duty, is_busy, is_excluded in SWITCHES
        if may_get_broadcast(Standing(on_duty, is_busy), "text", is_excluded=is_excluded)
    ]
    assert got == [(True, False, False)]


@pytest.mark.parametrize("taken", TAKEN)
def test_a_broadcast_is_for_those_who_take_its_kind_of_session_and_of_a_kind_without_a_switch_for_everybody(taken):
    standing = Standing(on_duty=True, is_busy=False, types_off=types_off(taken))
    assert tuple(kind for kind in SESSION_TYPES if may_get_broadcast(standing, kind)) == taken
    assert may_get_broadcast(standing, "phone_call")


@pytest.mark.parametrize(("on_duty", "is_busy", "has_video"), SWITCHES)
def test_somebody_may_be_asked_if_there_can_be_a_broadcast_for_them(on_duty, is_busy, has_video):
    standing = Standing(on_duty, is_busy, types_off=types_off(["video"] if has_video else SESSION_TYPES))
    assert may_be_asked(standing) == any(may_get_broadcast(standing, kind) for kind in SESSION_TYPES)


@pytest.mark.parametrize("kind", [None, *SESSION_TYPES, "phone_call"])
@pytest.mark.parametrize(("is_online", "on_duty", "is_busy"), SWITCHES)
def test_presence_calls_those_available_who_are_online_and_may_get_a_broadcast(is_online, on_duty, is_busy, kind):
    off = types_off(["diagnostic", "video"])
    status = MechanicStatus("mike", 1, is_online, on_duty, is_busy, False, 1, None, 1, off)
    standing = Standing(on_duty, is_busy, types_off=off)
    asked = may_be_asked(standing) if kind is None else may_get_broadcast(standing, kind)
    assert liveness.is_available(status, kind) == (is_online and asked)
    assert (liveness.availability_of(status) == "available") == (is_online and may_be_asked(standing))


@pytest.mark.parametrize("off", ["", "text", "diagnostic,video"])
@pytest.mark.parametrize(("on_duty", "is_busy", "is_excluded"), SWITCHES)
async def test_a_socket_shows_a_broadcast_if_its_mechanic_may_get_it(on_duty, is_busy, is_excluded, off):
    async with stage() as here:
        here.dispatch.standings["mike"] = standing = Standing(on_duty, is_busy, types_off=off)
        phone = await here.mechanic("mike")
        await here.offer(an_offer("o1"), excluded=["mike"] if is_excluded else [])
        expected = may_get_broadcast(standing, "text", is_excluded=is_excluded)
        assert phone.hears_kinds() == ["offer"] * expected
