"""What people, banks and Stripe do to money that was paid at the stand-in, played by the forms of its page.

Looked at through the real SDK over real HTTP, and in the events that follow.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import sqlalchemy as sa
import stripe

from embedded.stripe_standin import store
from infra.database import Database
from tests.integration.standin_shop import Shop, now_s, priced, running_shop, until
from tests.integration.stripe_types import assert_declared

# The SDK hands httpx its form body by a parameter that httpx would like to see renamed.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

KINDS: dict[str, type[stripe.StripeObject]] = {
    "refund": stripe.Refund,
    "charge": stripe.Charge,
    "dispute": stripe.Dispute,
    "balance_transaction": stripe.BalanceTransaction,
}


class Paid:
    """A paid Session, and what is done with its money."""

    def __init__(self, shop: Shop, session: stripe.checkout.Session) -> None:
        self.shop, self.session, self.intent = shop, session, session.payment_intent
        self._told: set[str] = set()

    async def play(self, action: str, **fields: str) -> None:
        answer = await self.shop.play(self.session, action, **fields)
        assert answer.status_code == 303, answer.text

    async def refused(self, action: str, **fields: str) -> tuple[int, str]:
        """Press a button that does nothing; return the status and what the page says."""
        answer = await self.shop.play(self.session, action, **fields)
        return answer.status_code, answer.text.partition('role="alert">')[2].partition("</p>")[0]

    async def page(self) -> str:
        answer = await self.shop.customer.get(f"{self.shop.url}/pay/{self.session.id}/money")
        assert answer.status_code == 200
        return answer.text

    async def refund(self, key: str | None = None, **wanted: Any) -> stripe.Refund:
        options: Any = {"idempotency_key": key} if key is not None else None
        return await self.shop.refunds.create_async({"payment_intent": self.intent, **wanted}, options)

    async def not_refunded(self, key: str | None = None, **wanted: Any) -> stripe.StripeError:
        with pytest.raises(stripe.StripeError) as error:
            await self.refund(key, **wanted)
        return error.value

    async def refunds(self) -> list[stripe.Refund]:
        """Return the refunds as Stripe lists them, oldest first."""
        return (await self.shop.refunds.list_async({"payment_intent": self.intent})).data[::-1]

    async def charge(self) -> stripe.Charge:
        intent = await self.shop.stripe.v1.payment_intents.retrieve_async(self.intent, {"expand": ["latest_charge"]})
        assert_declared(intent.latest_charge.to_dict(), stripe.Charge)
        return intent.latest_charge

    async def dispute(self) -> stripe.Dispute:
        (dispute,) = (await self.shop.stripe.v1.disputes.list_async({"payment_intent": self.intent})).data
        return dispute

    async def told(self) -> list[tuple[str, Any]]:
        """Return the events since the last time, with their snapshots, in the order in which they happened."""
        events = (await self.shop.stripe.v1.events.list_async({"limit": 100})).data[::-1]
        news = [event for event in events if event.id not in self._told]
        self._told |= {event.id for event in news}
        for event in news:
            snapshot = event.data.object.to_dict()
            if snapshot["object"] in KINDS:
                assert_declared(snapshot, KINDS[snapshot["object"]])
        await until(lambda: {event.id for event in news} <= {event.id for event in self.shop.receiver.events})
        return [(event.type, event.data.object) for event in news]


@asynccontextmanager
async def paid_session(tmp_path: Path, **changes: Any) -> AsyncIterator[Paid]:
    async with running_shop(tmp_path) as shop:
        paid = Paid(shop, await shop.paid(**changes))
        await paid.told()
        yield paid


# Refunds


async def test_a_refund_in_the_dashboard_is_one_that_nobody_asked_the_api_for(tmp_path: Path) -> None:
    async with paid_session(tmp_path) as paid:
        await paid.play("refund", amount="10.00")
        (part,) = await paid.refunds()
        assert (part.amount, part.status, part.metadata.to_dict(), part.reason) == (1000, "succeeded", {}, None)
        told = await paid.told()
        assert [type for type, _ in told] == [
            "refund.created",
            "charge.refunded",
            "refund.updated",
            "charge.refund.updated",
        ]
        assert [told[0][1].id, told[2][1].id, told[3][1].id] == [part.id] * 3
        assert (told[1][1].amount_refunded, told[1][1].refunded) == (1000, False)
        event = next(event for event in paid.shop.receiver.events if event.type == "refund.created")
        assert (event.request.id, event.request.idempotency_key) == (None, None)
        await paid.play("refund")
        charge = await paid.charge()
        assert (charge.amount_refunded, charge.refunded) == (2999, True)
        assert await paid.refused("refund") == (409, "Everything was refunded already.")
        assert (await paid.not_refunded()).code == "charge_already_refunded"


async def test_a_pending_refund_is_taken_off_what_is_left_and_succeeds_once(tmp_path: Path) -> None:
    async with paid_session(tmp_path) as paid:
        await paid.play("refund", amount="20.00", outcome="pending")
        (pending,) = await paid.refunds()
        assert (pending.status, pending.pending_reason) == ("pending", "processing")
        told = await paid.told()
        assert [type for type, _ in told] == ["refund.created", "charge.refunded"]
        assert (told[0][1].status, told[1][1].amount_refunded) == ("pending", 2000)
        assert (await paid.not_refunded(amount=1000)).code == "amount_too_large"
        await paid.play("settle", refund=pending.id)
        told = await paid.told()
        assert [(type, refund.status) for type, refund in told] == [
            ("refund.updated", "succeeded"),
            ("charge.refund.updated", "succeeded"),
        ]
        assert (await paid.refused("settle", refund=pending.id))[0] == 409
        assert await paid.told() == []
        assert (await paid.refund()).amount == 999


@pytest.mark.parametrize("outcome", ["succeeded", "pending"])
async def test_a_refund_that_fails_later_can_be_refunded_again(tmp_path: Path, outcome: str) -> None:
    async with paid_session(tmp_path) as paid:
        await paid.play("fault", fault="pending" if outcome == "pending" else "none", times="1")
        refund = await paid.refund(metadata={"refund_id": "r1"})
        assert refund.status == outcome
        await paid.told()
        await paid.play("fail", refund=refund.id, failure_reason="lost_or_stolen_card")
        told = await paid.told()
        assert [type for type, _ in told] == ["refund.updated", "charge.refund.updated", "refund.failed"]
        for _, failed in told:
            assert (failed.id, failed.status, failed.failure_reason) == (refund.id, "failed", "lost_or_stolen_card")
            assert failed.metadata.to_dict() == {"refund_id": "r1"}
        charge = await paid.charge()
        assert (charge.amount_refunded, charge.refunded) == (0, False)
        assert await paid.refused("fail", refund=refund.id) == (409, "This refund has failed already.")
        assert await paid.told() == []
        anew = await paid.refund()
        assert (anew.amount, anew.status) == (2999, "succeeded")
        failed = await paid.shop.refunds.retrieve_async(refund.id)
        assert_declared(failed.to_dict(), stripe.Refund)
        assert (failed.status, failed.failure_reason) == ("failed", "lost_or_stolen_card")


async def test_refunds_are_listed_by_when_they_were_made(tmp_path: Path) -> None:
    async with paid_session(tmp_path) as paid:
        refund = await paid.refund()
        for since_s, found in ((now_s() - 60, [refund.id]), (now_s() + 60, [])):
            listed = await paid.shop.refunds.list_async({"created": {"gte": since_s}})
            assert [one.id for one in listed.data] == found


async def test_a_charge_has_a_receipt_that_tells_of_its_refunds(tmp_path: Path) -> None:
    async with paid_session(tmp_path) as paid:
        await paid.refund(amount=1000)
        charge = await paid.charge()
        receipt = await paid.shop.customer.get(charge.receipt_url)
        assert receipt.status_code == 200
        assert "Expert Video &lt;30 min&gt;" in receipt.text
        assert all(amount in receipt.text for amount in ("$29.99", "−$10.00", "$19.99"))
        assert (await paid.shop.customer.get(charge.receipt_url + "x")).status_code == 404


# How the next refunds go wrong


async def test_a_low_balance_is_stored_under_its_key_and_a_new_key_is_served(tmp_path: Path) -> None:
    async with paid_session(tmp_path) as paid:
        await paid.play("fault", fault="balance_insufficient", times="1")
        low = await paid.not_refunded("refund:1")
        assert (type(low), low.http_status, low.code) == (stripe.InvalidRequestError, 400, "balance_insufficient")
        again = await paid.not_refunded("refund:1")
        assert (again.code, again.headers["idempotent-replayed"]) == ("balance_insufficient", "true")
        assert again.headers["original-request"] == low.headers["request-id"]
        other = await paid.not_refunded("refund:1", amount=100)
        assert (type(other), other.http_status) == (stripe.IdempotencyError, 400)
        assert (await paid.refund("refund:2")).amount == 2999


@pytest.mark.parametrize(("fault", "is_done"), [("error", False), ("error_after", True)])
async def test_a_server_error_is_stored_whether_or_not_the_refund_was_made(
    tmp_path: Path, fault: str, is_done: bool
) -> None:
    async with paid_session(tmp_path) as paid:
        await paid.play("fault", fault=fault, times="1")
        for is_replayed in (None, "true"):
            broken = await paid.not_refunded("refund:1")
            assert (type(broken), broken.http_status) == (stripe.APIError, 500)
            assert broken.headers.get("idempotent-replayed") == is_replayed
            assert [one.amount for one in await paid.refunds()] == [2999] * is_done
            # So that the SDK does not ask again for what it would only be told again.
            assert broken.headers["stripe-should-retry"] == "false"
        assert [type for type, _ in await paid.told()][:1] == ["refund.created"] * is_done
        if is_done:
            assert (await paid.not_refunded("refund:2")).code == "charge_already_refunded"
        else:
            assert (await paid.refund("refund:2")).amount == 2999


async def test_a_fault_is_used_up_by_as_many_refunds_of_this_payment_as_were_named(tmp_path: Path) -> None:
    async with paid_session(tmp_path) as paid:
        other = Paid(paid.shop, await paid.shop.paid())
        await paid.play("fault", fault="pending", times="2")
        assert "The next 2: Made, but pending." in await paid.page()
        assert (await other.refund()).status == "succeeded"
        made = [await paid.refund(amount=100) for _ in range(3)]
        assert [one.status for one in made] == ["pending", "pending", "succeeded"]
        assert "They go well." in await paid.page()
        await paid.play("fault", fault="error", times="5")
        await paid.play("fault", fault="none")
        assert (await paid.refund(amount=100)).status == "succeeded"


async def test_an_answer_is_forgotten_with_its_key_after_a_day(tmp_path: Path) -> None:
    async with paid_session(tmp_path) as paid:
        await paid.play("fault", fault="balance_insufficient", times="1")
        assert (await paid.not_refunded("refund:1")).code == "balance_insufficient"
        for hours, is_replayed in ((23, True), (2, False)):
            async with store.transaction(paid.shop.database.writer) as conn:
                keys = store.idempotency_keys
                await conn.execute(keys.update().values(claimed_at_ms=keys.c.claimed_at_ms - hours * 3600 * 1000))
            if is_replayed:
                assert (await paid.not_refunded("refund:1")).headers["idempotent-replayed"] == "true"
        assert (await paid.refund("refund:1", amount=100)).amount == 100


# Disputes


async def test_a_dispute_that_is_won_takes_the_money_and_gives_it_back(tmp_path: Path) -> None:
    async with paid_session(tmp_path) as paid:
        await paid.play("dispute", kind="chargeback", reason="product_not_received")
        dispute = await paid.dispute()
        assert (dispute.status, dispute.reason) == ("needs_response", "product_not_received")
        assert (dispute.amount, dispute.currency, dispute.is_charge_refundable) == (2999, "usd", False)
        told = await paid.told()
        assert [type for type, _ in told] == ["charge.dispute.created", "charge.dispute.funds_withdrawn"]
        assert [[moved.amount for moved in one.balance_transactions] for _, one in told] == [[], [-2999]]
        charge = await paid.charge()
        assert (charge.id, charge.disputed, charge.amount_refunded) == (dispute.charge, True, 0)

        assert (await paid.not_refunded()).code == "charge_disputed"
        assert (await paid.refused("refund"))[0] == 409
        await paid.play("review", dispute=dispute.id)
        ((type, reviewed),) = await paid.told()
        assert (type, reviewed.status) == ("charge.dispute.updated", "under_review")
        assert (reviewed.evidence_details.has_evidence, reviewed.evidence_details.submission_count) == (True, 1)
        assert (await paid.not_refunded()).code == "charge_disputed"

        await paid.play("win", dispute=dispute.id)
        told = await paid.told()
        assert [type for type, _ in told] == ["charge.dispute.closed", "charge.dispute.funds_reinstated"]
        assert [one.status for _, one in told] == ["won", "won"]
        assert [[moved.amount for moved in one.balance_transactions] for _, one in told] == [[-2999], [-2999, 2999]]
        assert (await paid.refused("lose", dispute=dispute.id))[0] == 409
        assert (await paid.refund()).amount == 2999
        expanded = await paid.shop.stripe.v1.disputes.retrieve_async(
            dispute.id, {"expand": ["charge", "payment_intent"]}
        )
        assert (expanded.charge.id, expanded.payment_intent.id) == (dispute.charge, paid.intent)


async def test_what_a_lost_dispute_took_cannot_be_refunded_even_if_it_was_a_part(tmp_path: Path) -> None:
    async with paid_session(tmp_path) as paid:
        await paid.play("refund", amount="5.00")
        await paid.told()
        await paid.play("dispute", amount="12.34")
        dispute = await paid.dispute()
        assert (dispute.amount, dispute.reason) == (1234, "fraudulent")
        assert [type for type, _ in await paid.told()] == ["charge.dispute.created", "charge.dispute.funds_withdrawn"]
        assert (await paid.refused("dispute"))[0] == 409
        await paid.play("lose", dispute=dispute.id)
        ((type, lost),) = await paid.told()
        assert (type, lost.status, lost.is_charge_refundable) == ("charge.dispute.closed", "lost", False)
        assert (await paid.not_refunded(amount=100)).code == "charge_disputed"
        assert (await paid.refused("dispute"))[0] == 409
        # A refund of before may still fail, and cannot be made anew.
        (before,) = await paid.refunds()
        await paid.play("fail", refund=before.id, failure_reason="charge_for_pending_refund_disputed")
        assert (await paid.charge()).amount_refunded == 0
        assert (await paid.not_refunded()).code == "charge_disputed"


async def test_an_inquiry_takes_nothing_and_can_be_refunded(tmp_path: Path) -> None:
    async with paid_session(tmp_path) as paid:
        await paid.play("dispute", kind="inquiry", reason="unrecognized")
        dispute = await paid.dispute()
        ((type, opened),) = await paid.told()
        assert (type, opened.status) == ("charge.dispute.created", "warning_needs_response")
        assert (opened.is_charge_refundable, opened.balance_transactions) == (True, [])
        assert opened.payment_method_details.card.case_type == "inquiry"
        assert (await paid.charge()).disputed is True
        await paid.play("refund", amount="10.00")
        await paid.told()
        await paid.play("review", dispute=dispute.id)
        ((type, reviewed),) = await paid.told()
        assert (type, reviewed.status) == ("charge.dispute.updated", "warning_under_review")
        assert (await paid.refused("win", dispute=dispute.id))[0] == 409
        await paid.play("close", dispute=dispute.id)
        ((type, closed),) = await paid.told()
        assert (type, closed.status) == ("charge.dispute.closed", "warning_closed")
        assert (await paid.refund()).amount == 1999


async def test_an_inquiry_becomes_a_dispute_unless_everything_was_refunded(tmp_path: Path) -> None:
    async with paid_session(tmp_path) as paid:
        await paid.play("dispute", kind="inquiry")
        dispute = await paid.dispute()
        await paid.play("refund")
        assert (await paid.refused("escalate", dispute=dispute.id))[0] == 409
        (refund,) = await paid.refunds()
        await paid.play("fail", refund=refund.id)
        await paid.told()
        await paid.play("escalate", dispute=dispute.id)
        told = await paid.told()
        assert [type for type, _ in told] == ["charge.dispute.updated", "charge.dispute.funds_withdrawn"]
        assert [one.status for _, one in told] == ["needs_response"] * 2
        assert [len(one.balance_transactions) for _, one in told] == [0, 1]
        assert (await paid.not_refunded()).code == "charge_disputed"


async def test_disputes_are_listed_by_payment_charge_and_when_they_were_opened(tmp_path: Path) -> None:
    async with paid_session(tmp_path) as paid:
        other = Paid(paid.shop, await paid.shop.paid())
        for one in (paid, other):
            await one.play("dispute")
        disputes = paid.shop.stripe.v1.disputes
        newest, oldest = (await disputes.list_async()).data
        assert [newest.payment_intent, oldest.payment_intent] == [other.intent, paid.intent]
        for wanted, found in (
            ({"payment_intent": paid.intent}, [oldest.id]),
            ({"charge": newest.charge}, [newest.id]),
            ({"created": {"gte": now_s() + 60}}, []),
            ({"created": {"lte": now_s() + 60}, "starting_after": newest.id}, [oldest.id]),
        ):
            assert [one.id for one in (await disputes.list_async(wanted)).data] == found
        with pytest.raises(stripe.InvalidRequestError, match="No such dispute") as missing:
            await disputes.retrieve_async("dp_nope")
        assert missing.value.http_status == 404


# The page


async def test_the_page_refuses_what_makes_no_sense_and_says_why(tmp_path: Path) -> None:
    async with paid_session(tmp_path) as paid:
        for fields, status, text in (
            ({"action": "refund", "amount": "ten"}, 422, "Type an amount such as 29.99."),
            ({"action": "refund", "amount": "1.999"}, 422, "Type an amount such as 29.99."),
            ({"action": "refund", "amount": "0"}, 422, "Type an amount such as 29.99."),
            ({"action": "refund", "amount": "30"}, 409, "No more than $29.99 can be refunded."),
            ({"action": "refund", "outcome": "lost"}, 422, "There is no such outcome."),
            ({"action": "dispute", "amount": "30"}, 422, "No more was paid than $29.99."),
            ({"action": "dispute", "reason": "bored"}, 422, "There is no such reason."),
            ({"action": "fault", "fault": "flood"}, 422, "There is no such fault."),
            ({"action": "fault", "fault": "error", "times": "0"}, 422, "How often? From 1 to 1000 times."),
            ({"action": "fail", "refund": "re_nope"}, 409, "This refund has failed already."),
            ({"action": "steal"}, 422, "This page has no such button."),
        ):
            assert await paid.refused(**fields) == (status, text)
        assert await paid.told() == []
        page = f"{paid.shop.url}/pay/{paid.session.id}/money"
        foreign = {"Origin": "http://evil.example"}
        assert (await paid.shop.customer.post(page, data={"action": "refund"}, headers=foreign)).status_code == 403
        other = await paid.shop.paid()
        await paid.shop.play(other, "refund")
        (elsewhere,) = (await paid.shop.refunds.list_async({"payment_intent": other.payment_intent})).data
        assert (await paid.refused("fail", refund=elsewhere.id))[0] == 409
        unpaid = await paid.shop.session()
        assert (await paid.shop.play(unpaid, "refund")).status_code == 404
        for link in ("closed", "events"):
            address = f"{paid.shop.url}/pay/{paid.session.id}" + "/events" * (link == "events")
            assert page in (await paid.shop.customer.get(address)).text


@pytest.mark.parametrize(
    ("currency", "paid_amount", "read", "typed", "refunded", "wrong"),
    [("jpy", 5000, "¥5,000", "1500", 1500, "1500.0"), ("kwd", 9990, "9.990 KWD", "4.25", 4250, "4.255")],
)
async def test_amounts_are_typed_and_read_in_the_currencys_own_decimals(
    tmp_path: Path, currency: str, paid_amount: int, read: str, typed: str, refunded: int, wrong: str
) -> None:
    async with paid_session(tmp_path, line_items=priced(paid_amount, currency)) as paid:
        assert f"<dd>{read}</dd>" in await paid.page()
        assert (await paid.refused("refund", amount=wrong))[0] == 422
        await paid.play("refund", amount=typed)
        assert [one.amount for one in await paid.refunds()] == [refunded]
        await paid.play("dispute", amount=typed)
        assert (await paid.dispute()).amount == refunded
        assert read in (await paid.shop.customer.get((await paid.charge()).receipt_url)).text


# Races, and databases


async def test_refunds_failures_and_a_dispute_side_by_side_never_pay_twice(tmp_path: Path, database_url: str) -> None:
    async with running_shop(tmp_path, database_url) as shop:
        paid = Paid(shop, await shop.paid())
        first = await paid.refund(amount=1000)
        refunded: list[int] = []
        disputed: list[int] = []
        failed: list[int] = []

        async def refund() -> None:
            asked = {"payment_intent": paid.intent, "amount": 1500}
            refunded.append((await shop.raw.post("refunds", data=asked)).status_code)

        async def press(answers: list[int], action: str, **fields: str) -> None:
            answers.append((await shop.play(paid.session, action, **fields)).status_code)

        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(refund)
                tasks.start_soon(lambda: press(failed, "fail", refund=first.id))
                tasks.start_soon(lambda: press(disputed, "dispute"))
        assert set(refunded) <= {200, 400}
        assert sorted(failed) == sorted(disputed) == [303, 409, 409, 409]
        standing = [one.amount for one in await paid.refunds() if one.status != "failed"]
        assert (await paid.charge()).amount_refunded == sum(standing) <= 2999
        assert (await paid.not_refunded()).code == "charge_disputed"


async def test_a_database_of_an_older_version_goes_on_with_its_sessions(tmp_path: Path, database_url: str) -> None:
    async with running_shop(tmp_path, database_url) as shop:
        opened, older = await shop.session(), await shop.paid()
        refund = await Paid(shop, older).refund(amount=1000)
        await until(lambda: len(shop.receiver.events) == 6)
    await age(database_url)
    async with running_shop(tmp_path, database_url) as shop:
        async with anyio.create_task_group() as nodes:
            for _ in range(3):
                nodes.start_soon(shop.standin.prepare)
        assert (await shop.end(opened, "pay")).status_code == 303
        paid, newer = Paid(shop, older), Paid(shop, await shop.sessions.retrieve_async(opened.id))
        assert (await paid.charge()).disputed is False
        assert_declared((await shop.refunds.retrieve_async(refund.id)).to_dict(), stripe.Refund)
        await paid.play("fail", refund=refund.id)
        assert (await paid.refund()).amount == 2999
        await newer.play("fault", fault="pending", times="1")
        assert (await newer.refund(amount=500)).status == "pending"
        await newer.play("dispute")
        assert (await newer.charge()).disputed is True


async def age(url: str) -> None:
    """Make the tables what they were before anybody could dispute a payment."""
    database = Database(url)
    async with database.writer.begin() as conn:
        for statement in (
            "DROP TABLE stripe_standin_dispute",
            "DROP TABLE stripe_standin_fault",
            "ALTER TABLE stripe_standin_refund DROP COLUMN failure_reason",
            "ALTER TABLE stripe_standin_payment_intent DROP COLUMN disputed",
        ):
            await conn.execute(sa.text(statement))
    await database.close()
