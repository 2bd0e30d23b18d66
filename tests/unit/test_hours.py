"""Days of work: cut at midnight, and nothing lost or counted twice."""

from collections import defaultdict
from datetime import date

from hypothesis import given
from hypothesis import strategies as st

from dispatch.hours import DAY_MS, Session, Stretch, add_up, by_day, day_number, hours

HOUR_MS = 3_600_000
DAY = day_number(date(2026, 11, 29))
MIDNIGHT_MS = DAY * DAY_MS


def on_duty(*stretches: Stretch) -> dict[int, int]:
    sums_ms: defaultdict[int, int] = defaultdict(int)
    add_up(sums_ms, stretches, DAY - 20, DAY + 20)
    return sums_ms


def test_a_day_is_called_by_its_date_in_utc():
    (day,) = hours({}, [], first=DAY, last=DAY, currency="usd")
    assert (day.day, day.on_duty_s, day.in_session_s, day.sessions) == ("2026-11-29", 0, 0, 0)
    assert (day.earned_cents, day.currency) == (0, "usd")


def test_what_crosses_midnight_is_cut_there():
    night = Stretch(MIDNIGHT_MS - HOUR_MS, MIDNIGHT_MS + 2 * HOUR_MS)
    found = hours(on_duty(night), [], first=DAY - 1, last=DAY, currency="usd")
    assert [(day.day, day.on_duty_s) for day in found] == [("2026-11-28", 3600), ("2026-11-29", 7200)]


def test_a_session_is_earned_on_the_day_on_which_it_is_completed():
    session = Session(MIDNIGHT_MS - HOUR_MS, MIDNIGHT_MS + HOUR_MS, is_completed=True, earned_cents=999, currency="usd")
    found = hours({}, [session], first=DAY - 1, last=DAY, currency="usd")
    assert [(day.in_session_s, day.sessions, day.earned_cents) for day in found] == [(3600, 0, 0), (3600, 1, 999)]


def test_a_session_that_is_not_completed_takes_time_and_earns_nothing():
    session = Session(MIDNIGHT_MS, MIDNIGHT_MS + HOUR_MS, is_completed=False, earned_cents=999, currency="usd")
    (day,) = hours({}, [session], first=DAY, last=DAY, currency="usd")
    assert (day.in_session_s, day.sessions, day.earned_cents) == (3600, 0, 0)


def test_a_day_of_several_currencies_has_an_entry_for_each_and_its_hours_once():
    sessions = [
        Session(MIDNIGHT_MS + hour * HOUR_MS, MIDNIGHT_MS + (hour + 1) * HOUR_MS, True, cents, currency)
        for hour, (cents, currency) in enumerate([(999, "usd"), (800, "eur"), (0, "usd")])
    ]
    found = hours(
        on_duty(Stretch(MIDNIGHT_MS, MIDNIGHT_MS + 4 * HOUR_MS)), sessions, first=DAY, last=DAY, currency="usd"
    )
    assert [(day.currency, day.sessions, day.earned_cents) for day in found] == [("eur", 1, 800), ("usd", 2, 999)]
    assert [(day.on_duty_s, day.in_session_s) for day in found] == [(4 * 3600, 3 * 3600), (0, 0)]


def test_a_clock_that_is_a_little_behind_makes_no_negative_hours():
    (day,) = hours(on_duty(Stretch(MIDNIGHT_MS + 5, MIDNIGHT_MS)), [], first=DAY, last=DAY, currency="usd")
    assert day.on_duty_s == 0


INSTANTS = st.integers(MIDNIGHT_MS - 5 * DAY_MS, MIDNIGHT_MS + 5 * DAY_MS)


@given(start_ms=INSTANTS, end_ms=INSTANTS, first=st.integers(DAY - 6, DAY + 6), count=st.integers(1, 12))
def test_the_parts_of_a_stretch_are_what_of_it_lies_in_the_days_asked_for(
    start_ms: int, end_ms: int, first: int, count: int
):
    last = first + count - 1
    parts = list(by_day(Stretch(start_ms, end_ms), first, last))
    inside_ms = min(end_ms, (last + 1) * DAY_MS) - max(start_ms, first * DAY_MS)
    assert sum(ms for _, ms in parts) == max(0, inside_ms)
    assert [day for day, _ in parts] == sorted({day for day, _ in parts})
    assert all(first <= day <= last and 0 < ms <= DAY_MS for day, ms in parts)


@given(st.lists(INSTANTS, min_size=2, max_size=20, unique=True), st.integers(0, 20))
def test_cutting_stretches_anywhere_changes_no_day_and_no_day_is_longer_than_it_is(instants: list[int], at: int):
    instants.sort()
    whole = [Stretch(a, b) for a, b in zip(instants[::2], instants[1::2], strict=False)]
    chosen = whole[at % len(whole)]
    middle_ms = (chosen.started_at_ms + chosen.ended_at_ms) // 2
    cut = [Stretch(chosen.started_at_ms, middle_ms), Stretch(middle_ms, chosen.ended_at_ms)]
    pieces = [*(one for one in whole if one is not chosen), *cut]
    first, last = DAY - 6, DAY + 6
    days = hours(on_duty(*whole), [], first=first, last=last, currency="usd")
    assert days == hours(on_duty(*pieces), [], first=first, last=last, currency="usd")
    assert all(0 <= day.on_duty_s <= 24 * 3600 for day in days)
    total_s = sum(one.ended_at_ms - one.started_at_ms for one in whole) / 1000
    # Each day is told in whole seconds.
    assert total_s - len(days) < sum(day.on_duty_s for day in days) <= total_s
