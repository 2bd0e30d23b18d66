"""An operator can change what is sold, to anything that can be sold."""

import re
from typing import Any

import pytest

from dispatch.money.plans import POSITION_MAX, PlanChange, changed
from models.currencies import why_not_charged
from models.outcomes import Refused
from models.tables import Plan

CHAT: dict[str, Any] = {
    "id": "quick_chat",
    "name": "Quick Chat",
    "price_cents": 999,
    "currency": "usd",
    "duration_min": 10,
    "session_type": "text",
    "first_time_only": False,
    "position": 1,
}


def as_dict(plan: Plan | Refused) -> dict[str, Any]:
    assert isinstance(plan, Plan), plan
    return {name: getattr(plan, name) for name in Plan.model_fields}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"price_cents": 1_299},
        {"price_cents": 0},
        {"price_cents": 50},
        {"currency": "eur", "price_cents": 1_000},
        {"currency": "jpy", "price_cents": 500},
        {"name": "Chat", "duration_min": 15, "session_type": "video", "first_time_only": True, "position": 9},
    ],
)
def test_what_is_said_is_changed_and_nothing_else(change: dict[str, Any]) -> None:
    assert as_dict(changed(Plan(**CHAT), "quick_chat", PlanChange(**change))) == CHAT | change


def test_texts_are_kept_as_all_texts_are() -> None:
    found = as_dict(changed(Plan(**CHAT), "quick_chat", PlanChange(name=" Cha\u202et\n ", currency="EUR")))
    assert (found["name"], found["currency"]) == ("Chat", "eur")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"price_cents": 49}, r"\$0.50"),
        ({"price_cents": -1}, r"\$0.50"),
        ({"price_cents": 100_000_000}, r"\$999,999.99"),
        ({"currency": "gbp", "price_cents": 29}, "£0.30"),
        ({"currency": "isk", "price_cents": 5_050}, "steps of 100"),
        ({"currency": "kwd", "price_cents": 9_995}, "steps of 10"),
        ({"currency": "dollars"}, "currency"),
        ({"currency": "us"}, "currency"),
        ({"name": "\u200b"}, "name"),
        ({"name": "x" * 101}, "100"),
        ({"duration_min": 0}, "minutes"),
        ({"duration_min": 1_441}, "minutes"),
        ({"session_type": "telepathy"}, "video"),
        ({"position": -1}, "position"),
    ],
)
def test_what_cannot_be_sold_is_refused_with_what_can(change: dict[str, Any], words: str) -> None:
    refused = changed(Plan(**CHAT), "quick_chat", PlanChange(**change))
    assert isinstance(refused, Refused)
    assert re.search(words, refused.detail), refused.detail


def test_a_new_plan_says_all_that_a_plan_has_to() -> None:
    refused = changed(None, "tow", PlanChange(name="Tow", price_cents=5_000))
    assert isinstance(refused, Refused)
    assert "--duration-min, --session-type" in refused.detail
    whole = PlanChange(name="Tow", price_cents=5_000, duration_min=60, session_type="video")
    assert as_dict(changed(None, "tow", whole)) == {
        "id": "tow",
        "name": "Tow",
        "price_cents": 5_000,
        "currency": "usd",
        "duration_min": 60,
        "session_type": "video",
        "first_time_only": False,
        "position": POSITION_MAX,
    }
    assert isinstance(changed(None, "no id!", whole), Refused)


def test_nothing_at_all_is_free_in_every_currency() -> None:
    assert why_not_charged(0, "usd") is None
    assert why_not_charged(0, "kwd") is None
    assert why_not_charged(1, "usd") is not None
