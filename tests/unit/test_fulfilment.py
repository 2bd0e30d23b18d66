"""What a Checkout Session means for us, as a table."""

import pytest

from dispatch.fulfilment import Asked, Expire, Fail, GiveBack, PaidSession, Serve, Verdict, Wait, judge

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
