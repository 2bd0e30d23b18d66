"""What a Checkout Session means for us, as a table."""

from dataclasses import replace

import pytest

from dispatch.money.fulfilment import Asked, Expire, Fail, GiveBack, Ignore, PaidSession, Serve, Verdict, Wait, judge
from models.settings import StripeSettings

ASKED = Asked(2999, "usd")


def session(
    status: str | None = "complete",
    payment_status: str | None = "paid",
    amount: int | None = 2999,
    currency: str | None = "usd",
    *,
    mode: str = "payment",
    intent: str | None = "pi_1",
    intent_status: str | None = None,
) -> PaidSession:
    return PaidSession(status, payment_status, mode, amount, currency, intent, intent_status)


@pytest.mark.parametrize(
    ("paid", "verdict"),
    [
        pytest.param(session(), Serve(2999), id="what was asked has been paid"),
        pytest.param(session("open", "unpaid"), Wait(), id="the page is still open"),
        pytest.param(session("complete", "unpaid"), Wait(), id="an asynchronous payment is on its way"),
        pytest.param(
            session("complete", "unpaid", intent_status="processing"), Wait(), id="the bank has not answered yet"
        ),
        pytest.param(
            session("complete", "unpaid", intent_status="requires_payment_method"), Fail(), id="the bank said no"
        ),
        pytest.param(session("complete", "unpaid", intent_status="canceled"), Fail(), id="the payment was called off"),
        pytest.param(
            session("open", "unpaid", intent_status="requires_payment_method"), Wait(), id="a card was declined"
        ),
        pytest.param(session("expired", "unpaid"), Expire(), id="the page has expired unpaid"),
        pytest.param(session("expired", "paid"), Serve(2999), id="who paid is served, also on a page that has expired"),
        pytest.param(session(None, None), Wait(), id="Stripe says nothing at all"),
        pytest.param(session(None, "unpaid"), Wait(), id="Stripe does not say"),
        pytest.param(
            session("complete", "no_payment_required", 0, intent=None), Serve(0), id="a full discount is served"
        ),
        pytest.param(
            session("complete", "no_payment_required", None, intent=None), Serve(0), id="an absent amount is zero"
        ),
        pytest.param(
            session("complete", "no_payment_required", 2999), GiveBack(2999), id="an amount that needs no payment"
        ),
        pytest.param(session(amount=2998), GiveBack(2998), id="a cent too little"),
        pytest.param(session(amount=3000), GiveBack(3000), id="a cent too much"),
        pytest.param(session(currency="eur"), GiveBack(2999), id="another currency"),
        pytest.param(session(currency=None), GiveBack(2999), id="no currency"),
        pytest.param(session(mode="subscription"), GiveBack(2999), id="another kind of Session"),
    ],
)
def test_only_what_was_asked_is_served_and_everything_else_that_was_paid_goes_back(
    paid: PaidSession, verdict: Verdict
) -> None:
    assert judge(ASKED, paid) == verdict


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        (True, True, Serve(2999)),
        (False, False, Serve(2999)),
        (True, False, Ignore()),
        (False, True, Ignore()),
        (None, True, Serve(2999)),
        (True, None, Serve(2999)),
    ],
)
def test_play_money_is_never_served_by_a_live_key_nor_real_money_touched_with_a_test_key(
    ours: bool | None, theirs: bool | None, verdict: Verdict
) -> None:
    assert judge(replace(ASKED, is_live=ours), replace(session(), is_live=theirs)) == verdict
    other_amount = judge(replace(ASKED, is_live=ours), replace(session(amount=1), is_live=theirs))
    assert other_amount == (GiveBack(1) if isinstance(verdict, Serve) else Ignore())


@pytest.mark.parametrize(
    ("key", "is_live"),
    [
        ("sk_live_1", True),
        ("rk_live_1", True),
        ("sk_test_1", False),
        ("rk_test_1", False),
        ("sk_1", None),
        ("pk_live_1", None),
        ("", None),
    ],
)
def test_the_key_tells_whether_it_takes_real_money(key: str, is_live: bool | None) -> None:
    assert StripeSettings(key, ("whsec_1",), None, is_standin=False).is_live is is_live
