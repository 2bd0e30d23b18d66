"""The Stripe stand-in, asked through the real SDK over real HTTP, mounted under a prefix as in an installation."""

import json
import re
from pathlib import Path
from typing import Any

import anyio
import pytest
import stripe

from embedded.stripe_standin import objects, pages, store, webhooks
from embedded.stripe_standin.standin import StripeStandin
from infra.database import Database
from tests.integration.standin_shop import (
    API_KEY,
    METADATA,
    WEBHOOK_SECRET,
    now_s,
    priced,
    running_shop,
    session_params,
    until,
)

# The SDK hands httpx its form body by a parameter that httpx would like to see renamed.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")


# Creating


async def test_a_new_session_is_open_unpaid_and_carries_what_was_asked(tmp_path: Path) -> None:
    async with running_shop(tmp_path) as shop:
        session = await shop.session()
        assert re.fullmatch(r"cs_test_\w{58}", session.id)
        assert (session.status, session.payment_status, session.payment_intent) == ("open", "unpaid", None)
        assert (session.amount_subtotal, session.amount_total, session.currency) == (2999, 2999, "usd")
        assert (session.livemode, session.mode, session.ui_mode) == (False, "payment", "hosted_page")
        assert session.metadata.to_dict() == METADATA
        assert session.client_reference_id == "checkout-1"
        assert session.url == f"{shop.url}/pay/{session.id}"
        assert abs(session.expires_at - now_s() - 24 * 3600) < 5
        assert session.last_response.headers["request-id"].startswith("req_")
        assert stripe.api_version == objects.API_VERSION  # what the SDK pins is what the stand-in speaks
        assert (await shop.sessions.retrieve_async(session.id)).id == session.id


REFUSED: list[tuple[dict[str, Any], str | None, str]] = [
    ({"line_items": None}, "parameter_missing", "line_items"),
    ({"mode": None}, "parameter_missing", "mode"),
    ({"success_url": None}, "parameter_missing", "success_url"),
    ({"success_url": "javascript:alert(1)"}, "url_invalid", "success_url"),
    ({"success_url": ""}, "parameter_invalid_empty", "success_url"),
    ({"payment_method_types": ["card"]}, "parameter_unknown", "payment_method_types"),
    ({"ui_mode": "hosted"}, None, "ui_mode"),
    ({"locale_": "en"}, "parameter_unknown", "locale_"),
    ({"payment_intent_data": {"colour": "red"}}, "parameter_unknown", "payment_intent_data[colour]"),
    ({"automatic_tax": {"enabled": True}}, None, "automatic_tax"),
    ({"line_items": priced(-1)}, "parameter_invalid_integer", "line_items[0][price_data][unit_amount]"),
    ({"line_items": priced(49)}, "amount_too_small", "line_items"),
    ({"line_items": priced(49, "jpy")}, "amount_too_small", "line_items"),
    ({"line_items": priced(299, "nok")}, "amount_too_small", "line_items"),
    (
        {"line_items": priced(1235, "kwd")},
        "parameter_invalid_integer",
        "line_items[0][price_data][unit_amount]",
    ),
    (
        {"line_items": priced(1250, "isk")},
        "invalid_charge_amount_no_decimal_compatible",
        "line_items[0][price_data][unit_amount]",
    ),
    ({"allowed_payment_method_types": ["sepa_debit"]}, None, "allowed_payment_method_types[0]"),
    ({"allowed_payment_method_types": ["us_bank_account"]}, None, "allowed_payment_method_types"),
    ({"line_items": [{"price": "price_1", "quantity": 1}]}, "resource_missing", "line_items[0][price]"),
    ({"line_items": [{**priced(100)[0], "quantity": 0}]}, "parameter_invalid_integer", "line_items[0][quantity]"),
    ({"customer_email": "jo"}, "email_invalid", "customer_email"),
    ({"customer_email": "jo@localhost"}, "email_invalid", "customer_email"),
    ({"customer_email": "jo..smith@example.com"}, "email_invalid", "customer_email"),
    ({"customer_email": ".jo@example.com"}, "email_invalid", "customer_email"),
    ({"customer_email": "jo@example.com."}, "email_invalid", "customer_email"),
    ({"customer_email": "jo@-example.com"}, "email_invalid", "customer_email"),
    ({"customer_email": " jo@example.com"}, "email_invalid", "customer_email"),
    ({"customer_email": "jö@example.com"}, "email_invalid", "customer_email"),
    ({"customer_email": f"{'j' * 65}@example.com"}, "email_invalid", "customer_email"),
    ({"metadata": {"k" * 41: "v"}}, None, "metadata"),
    ({"metadata": {"k": "v" * 501}}, None, "metadata[k]"),
    ({"metadata": {f"k{n}": "v" for n in range(51)}}, None, "metadata"),
]
"""What is wrong, and the code and the parameter that Stripe names."""


async def test_what_stripe_refuses_is_refused(tmp_path: Path) -> None:
    async with running_shop(tmp_path) as shop:
        for changes, code, param in REFUSED:
            with pytest.raises(stripe.InvalidRequestError) as refused:
                await shop.session(**changes)
            assert (refused.value.code, refused.value.param) == (code, param), changes
            assert refused.value.http_status in (400, 404)


async def test_a_session_lives_between_thirty_minutes_and_a_day(tmp_path: Path) -> None:
    async with running_shop(tmp_path) as shop:
        for minutes in (29, 24 * 60 + 1):
            with pytest.raises(stripe.InvalidRequestError, match="expires_at"):
                await shop.session(expires_at=now_s() + minutes * 60)
        assert (await shop.session(expires_at=now_s() + 31 * 60)).status == "open"


async def test_a_wrong_or_missing_key_an_old_version_and_an_unknown_route_get_stripes_errors(tmp_path: Path) -> None:
    async with running_shop(tmp_path) as shop:
        with pytest.raises(stripe.AuthenticationError, match="Invalid API Key"):
            await shop.client("sk_test_wrong").v1.checkout.sessions.retrieve_async("cs_test_x")
        bare = await shop.customer.get(f"{shop.url}/v1/checkout/sessions")
        assert (bare.status_code, bare.json()["error"]["type"]) == (401, "invalid_request_error")
        with pytest.raises(stripe.InvalidRequestError, match="Invalid Stripe API version"):
            await shop.sessions.retrieve_async("cs_test_x", None, {"stripe_version": "2020-08-27"})
        unknown = await shop.raw.delete("coupons/x")
        assert (unknown.status_code, unknown.json()["error"]["message"][:33]) == (
            404,
            "Unrecognized request URL (DELETE:",
        )
        for lookup in (shop.sessions, shop.stripe.v1.payment_intents, shop.refunds, shop.stripe.v1.events):
            with pytest.raises(stripe.InvalidRequestError, match="No such") as missing:
                await lookup.retrieve_async("nope")
            assert (missing.value.http_status, missing.value.code) == (404, "resource_missing")


# Idempotency


async def test_the_same_key_and_parameters_replay_the_first_answer(tmp_path: Path) -> None:
    async with running_shop(tmp_path) as shop:
        first = await shop.sessions.create_async(session_params(), {"idempotency_key": "k"})
        again = await shop.sessions.create_async(session_params(), {"idempotency_key": "k"})
        assert again.id == first.id
        assert again.last_response.headers["idempotent-replayed"] == "true"
        assert "idempotent-replayed" not in first.last_response.headers
        with pytest.raises(stripe.IdempotencyError):
            await shop.sessions.create_async(session_params(client_reference_id="other"), {"idempotency_key": "k"})
        assert len((await shop.sessions.list_async()).data) == 1


async def test_a_validation_failure_frees_its_key(tmp_path: Path) -> None:
    async with running_shop(tmp_path) as shop:
        with pytest.raises(stripe.InvalidRequestError):
            await shop.sessions.create_async(session_params(mode=None), {"idempotency_key": "k"})
        assert (await shop.sessions.create_async(session_params(), {"idempotency_key": "k"})).status == "open"


async def test_a_key_in_use_conflicts_until_its_first_request_ends(tmp_path: Path) -> None:
    async with running_shop(tmp_path) as shop:
        paid = await shop.paid()
        async with shop.database.writer.connect() as blocker:  # holds the only writing connection: requests queue up
            await store.count_pending(blocker, [])
            statuses: list[int] = []

            async def refund() -> None:
                answer = await shop.raw.post(
                    "refunds", data={"payment_intent": paid.payment_intent}, headers={"Idempotency-Key": "refund"}
                )
                statuses.append(answer.status_code)

            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(refund)
                await blocker.close()
        # Each either came while the first was under way, or replayed its answer: in no case a second refund.
        assert statuses.count(200) >= 1
        assert set(statuses) <= {200, 409}
        assert len((await shop.refunds.list_async({"payment_intent": paid.payment_intent})).data) == 1


async def test_the_request_after_a_claimed_key_is_told_that_it_is_in_use(tmp_path: Path) -> None:
    async with running_shop(tmp_path) as shop:
        first = await shop.raw.post("refunds", data={"charge": "nope"}, headers={"Idempotency-Key": "free again"})
        assert first.status_code == 404
        # What a node leaves behind that was killed between claiming the key and committing its work.
        fingerprints: list[str] = []
        claim_key = store.claim_key

        async def watch(conn: Any, key: str, fingerprint: str, request_id: str) -> store.Replay | None:
            fingerprints.append(fingerprint)
            return await claim_key(conn, key, fingerprint, request_id)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "claim_key", watch)
            await shop.raw.post("refunds", data={"charge": "nope"}, headers={"Idempotency-Key": "k"})
        async with store.transaction(shop.database.writer) as conn:
            await store.claim_key(conn, "k", fingerprints[0], "req_dead")
        conflict = await shop.raw.post("refunds", data={"charge": "nope"}, headers={"Idempotency-Key": "k"})
        assert (conflict.status_code, conflict.json()["error"]["code"]) == (409, "idempotency_key_in_use")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "IDEMPOTENCY_LEASE_MS", -1)
            taken_over = await shop.raw.post("refunds", data={"charge": "nope"}, headers={"Idempotency-Key": "k"})
        assert taken_over.status_code == 404


async def test_a_server_error_is_replayed_under_its_key(tmp_path: Path) -> None:
    async with running_shop(tmp_path) as shop:
        with pytest.MonkeyPatch.context() as patch:
            patch.delattr(objects, "checkout_session")  # a bug, as far as the request can tell
            with pytest.raises(stripe.APIError) as broken:
                await shop.sessions.create_async(session_params(), {"idempotency_key": "k"})
        assert broken.value.http_status == 500
        with pytest.raises(stripe.APIError) as replayed:
            await shop.sessions.create_async(session_params(), {"idempotency_key": "k"})
        assert replayed.value.http_status == 500
        assert replayed.value.headers["idempotent-replayed"] == "true"
        assert (await shop.sessions.list_async()).data == []


# Paying


async def test_paying_completes_the_session_tells_the_shop_first_and_redirects(tmp_path: Path) -> None:
    async with running_shop(tmp_path) as shop:
        session = await shop.session()
        done = await shop.end(session, "pay")
        assert (done.status_code, done.headers["location"]) == (303, f"http://127.0.0.1:9/done?session={session.id}")
        # The redirect waited for the webhook.
        assert sorted(shop.receiver.types) == ["checkout.session.completed", "payment_intent.succeeded"]
        event = next(event for event in shop.receiver.events if event.type == "checkout.session.completed")
        assert event.api_version == objects.API_VERSION
        told = event.data.object
        assert (told.id, told.status, told.payment_status) == (session.id, "complete", "paid")
        assert (await shop.stripe.v1.events.retrieve_async(event.id)).data.object.id == session.id

        paid = await shop.sessions.retrieve_async(
            session.id, {"expand": ["payment_intent.latest_charge", "line_items"]}
        )
        assert (paid.url, paid.customer_details.email) == (None, "jo@example.com")
        assert (paid.payment_intent.status, paid.payment_intent.amount_received) == ("succeeded", 2999)
        assert paid.payment_intent.metadata.to_dict() == {"checkout": "checkout-1"}
        assert (paid.payment_intent.latest_charge.paid, paid.payment_intent.latest_charge.amount) == (True, 2999)
        assert paid.line_items.data[0].description == "Expert Video <30 min>"
        intent = await shop.stripe.v1.payment_intents.retrieve_async(paid.payment_intent.id)
        assert isinstance(intent.latest_charge, str)
        with pytest.raises(stripe.InvalidRequestError, match="cannot be expanded"):
            await shop.sessions.retrieve_async(session.id, {"expand": ["metadata"]})


async def test_ten_payments_side_by_side_make_one_charge(tmp_path: Path) -> None:
    async with running_shop(tmp_path) as shop:
        session = await shop.session()
        answers: list[int] = []

        async def pay() -> None:
            answers.append((await shop.end(session, "pay")).status_code)

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(pay)
        assert sorted(answers) == [303] + [409] * 9
        async with store.transaction(shop.database.writer) as conn:
            charged = (await conn.execute(store.payment_intents.select())).all()
        assert len(charged) == 1
        assert sorted(shop.receiver.types) == ["checkout.session.completed", "payment_intent.succeeded"]


async def test_a_zero_amount_needs_no_payment(tmp_path: Path) -> None:
    async with running_shop(tmp_path) as shop:
        free = await shop.paid(line_items=priced(0))
        assert (free.status, free.payment_status, free.payment_intent) == ("complete", "no_payment_required", None)
        assert shop.receiver.types == ["checkout.session.completed"]


async def test_a_declined_card_leaves_the_session_open(tmp_path: Path) -> None:
    async with running_shop(tmp_path) as shop:
        session = await shop.session()
        declined = await shop.end(session, "decline")
        assert declined.status_code == 200
        assert "declined" in declined.text
        assert (await shop.sessions.retrieve_async(session.id)).status == "open"
        assert (await shop.end(session, "pay")).status_code == 303


@pytest.mark.parametrize(
    ("outcome", "last_event", "payment_status"),
    [
        ("succeed", "checkout.session.async_payment_succeeded", "paid"),
        ("fail", "checkout.session.async_payment_failed", "unpaid"),
    ],
)
async def test_a_delayed_payment_completes_unpaid_and_settles_once(
    tmp_path: Path, outcome: str, last_event: str, payment_status: str
) -> None:
    async with running_shop(tmp_path) as shop:
        session = await shop.session()
        sent = await shop.end(session, "delayed")
        assert (sent.status_code, sent.headers["location"]) == (303, session.url)
        waiting = await shop.sessions.retrieve_async(session.id)
        assert (waiting.status, waiting.payment_status) == ("complete", "unpaid")
        assert shop.receiver.types == ["checkout.session.completed"]
        assert shop.receiver.events[0].data.object.payment_status == "unpaid"
        with pytest.raises(stripe.InvalidRequestError, match="does not have a successful charge"):
            await shop.refunds.create_async({"payment_intent": waiting.payment_intent})

        settle = f"{shop.url}/pay/{session.id}/settle"
        assert (await shop.customer.post(settle, data={"outcome": outcome})).status_code == 303
        assert last_event in shop.receiver.types
        assert (await shop.sessions.retrieve_async(session.id)).payment_status == payment_status
        assert (await shop.customer.post(settle, data={"outcome": "succeed"})).status_code == 409


async def test_a_session_for_cards_alone_offers_no_payment_that_settles_later(tmp_path: Path) -> None:
    async with running_shop(tmp_path) as shop:
        button = 'value="delayed"'
        either, card = await shop.session(), await shop.session(allowed_payment_method_types=["card"])
        assert (either.payment_method_types, card.payment_method_types) == (["card", "us_bank_account"], ["card"])
        assert button in (await shop.customer.get(either.url)).text
        assert button not in (await shop.customer.get(card.url)).text
        assert (await shop.end(card, "delayed")).status_code == 422
        assert (await shop.end(card, "pay")).status_code == 303


@pytest.mark.parametrize(("currency", "amount", "read"), [("jpy", 1500, "¥1,500"), ("bhd", 1500, "1.500 BHD")])
async def test_the_page_reads_amounts_in_the_currencys_own_decimals(
    tmp_path: Path, currency: str, amount: int, read: str
) -> None:
    async with running_shop(tmp_path) as shop:
        session = await shop.session(line_items=priced(amount, currency))
        assert f"Pay {read}" in (await shop.customer.get(session.url)).text
        assert (await shop.end(session, "pay")).status_code == 303
        assert f"{read} was paid" in (await shop.customer.get(f"{shop.url}/pay/{session.id}")).text
        intent = (await shop.sessions.retrieve_async(session.id)).payment_intent
        with pytest.raises(stripe.InvalidRequestError) as refused:
            await shop.refunds.create_async({"payment_intent": intent, "amount": amount + 10})
        assert f"charge amount ({read})" in str(refused.value)
        if currency == "bhd":
            with pytest.raises(stripe.InvalidRequestError, match="three-decimal") as refused:
                await shop.refunds.create_async({"payment_intent": intent, "amount": 1005})
            assert refused.value.param == "amount"


async def test_back_expire_and_unknown_pages_do_what_they_say(tmp_path: Path) -> None:
    async with running_shop(tmp_path) as shop:
        session = await shop.session()
        assert (await shop.end(session, "back")).headers["location"] == "http://127.0.0.1:9/back"
        assert (await shop.end(session, "expire")).status_code == 303
        assert shop.receiver.types == ["checkout.session.expired"]
        late = await shop.end(session, "pay")
        assert (late.status_code, "has expired" in late.text) == (409, True)
        assert (await shop.sessions.retrieve_async(session.id)).payment_intent is None
        assert (await shop.customer.get(f"{shop.url}/pay/cs_test_nope")).status_code == 404


async def test_the_page_escapes_what_it_shows_and_refuses_forms_from_elsewhere(tmp_path: Path) -> None:
    async with running_shop(tmp_path) as shop:
        session = await shop.session(branding_settings={"display_name": "<b>Pit</b>"})
        page = (await shop.customer.get(session.url)).text
        assert "Expert Video &lt;30 min&gt;" in page
        assert "&lt;b&gt;Pit&lt;/b&gt;" in page
        assert "<b>Pit" not in page
        assert "Pay $29.99" in page
        port = shop.url.split(":")[2].split("/")[0]
        for origin, status in (
            ("http://evil.example", 403),
            ("null", 403),
            ("http://127.0.0.1:1", 403),
            (f"http://localhost:{port}", 200),
            (f"http://127.0.0.1:{port}", 200),
        ):
            answer = await shop.customer.post(session.url, data={"ending": "decline"}, headers={"Origin": origin})
            assert answer.status_code == status, origin


async def test_a_session_without_an_email_asks_for_one(tmp_path: Path) -> None:
    async with running_shop(tmp_path) as shop:
        session = await shop.session(customer_email=None)
        assert (await shop.end(session, "pay", email="jo")).status_code == 422
        assert (await shop.end(session, "pay", email="jo@example.com")).status_code == 303
        assert (await shop.sessions.retrieve_async(session.id)).customer_details.email == "jo@example.com"


# Expiring, listing


async def test_only_an_open_session_can_be_expired(tmp_path: Path) -> None:
    async with running_shop(tmp_path) as shop:
        session = await shop.session()
        expired = await shop.sessions.expire_async(session.id)
        assert (expired.status, expired.url) == ("expired", None)
        with pytest.raises(stripe.InvalidRequestError, match="status of `expired`"):
            await shop.sessions.expire_async(session.id)
        await until(lambda: shop.receiver.types == ["checkout.session.expired"])
        assert shop.receiver.events[0].request.id.startswith("req_")


async def test_a_session_whose_time_is_up_expires_by_itself(tmp_path: Path) -> None:
    async with running_shop(tmp_path) as shop:
        session = await shop.session()
        async with store.transaction(shop.database.writer) as conn:
            await conn.execute(store.sessions.update().values(expires_at=now_s() - 1))
        assert (await shop.end(session, "pay")).status_code == 409  # whether or not the sweep was faster
        await until(lambda: shop.receiver.types == ["checkout.session.expired"])
        assert (await shop.sessions.retrieve_async(session.id)).status == "expired"


async def test_lists_are_newest_first_paged_and_filtered(tmp_path: Path) -> None:
    async with running_shop(tmp_path) as shop:
        made = [(await shop.session(client_reference_id=str(number))).id for number in range(5)]
        paid = await shop.paid()
        first = await shop.sessions.list_async({"limit": 2})
        assert ([session.id for session in first.data], first.has_more) == ([paid.id, made[4]], True)
        rest = await shop.sessions.list_async({"limit": 10, "starting_after": made[4]})
        assert ([session.id for session in rest.data], rest.has_more) == (made[3::-1], False)
        before = await shop.sessions.list_async({"limit": 1, "ending_before": made[3]})
        assert ([session.id for session in before.data], before.has_more) == ([made[4]], True)
        every = [session.id async for session in (await shop.sessions.list_async({"limit": 2})).auto_paging_iter()]
        assert every == [paid.id, *reversed(made)]
        found = await shop.sessions.list_async(
            {"payment_intent": paid.payment_intent, "expand": ["data.payment_intent"]}
        )
        assert [session.payment_intent.amount for session in found.data] == [2999]
        assert len((await shop.sessions.list_async({"status": "open"})).data) == 5
        assert (await shop.sessions.list_async({"created": {"gte": now_s() + 60}})).data == []
        with pytest.raises(stripe.InvalidRequestError):
            await shop.sessions.list_async({"limit": 101})
        events = await shop.stripe.v1.events.list_async({"type": "checkout.session.*"})
        assert [event.type for event in events.data] == ["checkout.session.completed"]


# Refunds


async def test_refunds_take_what_is_left_and_no_more(tmp_path: Path) -> None:
    async with running_shop(tmp_path) as shop:
        intent = (await shop.paid()).payment_intent
        with pytest.raises(stripe.InvalidRequestError, match=r"\(\$30.00\) is greater than charge amount \(\$29.99\)"):
            await shop.refunds.create_async({"payment_intent": intent, "amount": 3000})
        part = await shop.refunds.create_async(
            {
                "payment_intent": intent,
                "amount": 1000,
                "reason": "requested_by_customer",
                "metadata": {"request": "r1"},
            },
            {"idempotency_key": "refund:r1"},
        )
        assert (part.status, part.amount, part.metadata.to_dict()) == ("succeeded", 1000, {"request": "r1"})
        with pytest.raises(stripe.InvalidRequestError, match="greater than unrefunded amount"):
            await shop.refunds.create_async({"payment_intent": intent, "amount": 2000})
        rest = await shop.refunds.create_async({"payment_intent": intent})
        assert rest.amount == 1999
        with pytest.raises(stripe.InvalidRequestError) as refused:
            await shop.refunds.create_async({"payment_intent": intent})
        assert refused.value.code == "charge_already_refunded"
        assert (await shop.refunds.retrieve_async(part.id, {"expand": ["charge"]})).charge.refunded is True
        listed = await shop.refunds.list_async({"payment_intent": intent})
        assert [refund.id for refund in listed.data] == [rest.id, part.id]
        await until(lambda: shop.receiver.types.count("charge.refunded") == 2)
        await until(lambda: {"refund.created", "refund.updated"} <= set(shop.receiver.types))


async def test_ten_full_refunds_side_by_side_give_the_money_back_once(tmp_path: Path) -> None:
    async with running_shop(tmp_path) as shop:
        intent = (await shop.paid()).payment_intent
        answers: list[int] = []

        async def refund() -> None:
            answers.append((await shop.raw.post("refunds", data={"payment_intent": intent})).status_code)

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(refund)
        assert sorted(answers) == [200] + [400] * 9


# Webhooks


async def test_a_refused_webhook_is_sent_again_and_the_redirect_does_not_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "WEBHOOK_WAIT_S", 0.3)
    async with running_shop(tmp_path) as shop:
        shop.receiver.answers = [500, 500]
        session = await shop.session()
        assert (await shop.end(session, "pay")).status_code == 303
        await until(lambda: len(shop.receiver.events) == 4)
        ids = [event.id for event in shop.receiver.events]
        assert ids[:2] == ids[2:] or ids[:2] == ids[:1:-1]


def test_retries_back_off_from_a_second_to_a_minute() -> None:
    assert [webhooks.backoff_ms(attempts) for attempts in (1, 2, 3, 6, 7, 50)] == [
        1000,
        2000,
        4000,
        32000,
        60000,
        60000,
    ]


async def test_two_nodes_over_one_database_send_each_event_once(tmp_path: Path) -> None:
    async with running_shop(tmp_path) as shop:
        other_database = Database(f"sqlite:///{tmp_path}/standin.db")
        other = StripeStandin(
            other_database.writer,
            api_key=API_KEY,
            webhook_secret=WEBHOOK_SECRET,
            webhook_url=f"{shop.url.removesuffix('/stripe-standin')}/webhook",
            public_url=shop.url,
        )
        await other.prepare()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other.run)
            for _ in range(5):
                await shop.paid()
            await until(lambda: len(shop.receiver.events) >= 10)
            tasks.cancel_scope.cancel()
        await other_database.close()
        assert len({event.id for event in shop.receiver.events}) == len(shop.receiver.events) == 10


async def test_a_developer_can_hold_reverse_repeat_and_twin_the_webhooks(tmp_path: Path) -> None:
    async with running_shop(tmp_path) as shop:

        async def play(session: stripe.checkout.Session, **fields: str) -> None:
            answer = await shop.customer.post(f"{shop.url}/pay/{session.id}/events", data=fields)
            assert answer.status_code == 303

        held = await shop.session()
        await play(held, action="mode", mode="reversed")
        assert (await shop.end(held, "pay")).status_code == 303
        assert shop.receiver.events == []
        assert "Release 2 held" in (await shop.customer.get(f"{shop.url}/pay/{held.id}/events")).text
        await play(held, action="release")
        await until(lambda: shop.receiver.types == ["checkout.session.completed", "payment_intent.succeeded"])

        event = shop.receiver.events[0]
        await play(held, action="again", event=event.id)
        await until(lambda: [seen.id for seen in shop.receiver.events].count(event.id) == 2)
        await play(held, action="twin", event=event.id)
        await until(lambda: shop.receiver.types.count("checkout.session.completed") == 3)
        assert shop.receiver.events[-1].id != event.id
        assert shop.receiver.events[-1].data.object.id == held.id

        shop.receiver.events.clear()
        doubled = await shop.session(line_items=priced(0))
        await play(doubled, action="mode", mode="duplicated")
        await shop.end(doubled, "pay")
        assert len(shop.receiver.events) == 3
        assert len({seen.id for seen in shop.receiver.events}) == 2


async def test_an_event_is_stored_as_it_is_sent(tmp_path: Path) -> None:
    async with running_shop(tmp_path) as shop:
        await shop.paid()
        sent = next(event for event in shop.receiver.events if event.type == "payment_intent.succeeded")
        stored = (await shop.raw.get(f"events/{sent.id}")).json()
        assert stored == json.loads(str(sent))


@pytest.mark.parametrize("database_kind", ["postgresql"])
async def test_on_postgresql_ten_payments_side_by_side_make_one_charge_while_nodes_start(
    tmp_path: Path, database_url: str
) -> None:
    async with running_shop(tmp_path, database_url) as shop:
        session = await shop.session()
        answers: list[int] = []

        async def pay() -> None:
            answers.append((await shop.end(session, "pay")).status_code)

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(shop.standin.prepare)
                tasks.start_soon(pay)
                tasks.start_soon(pay)
        assert sorted(answers) == [303] + [409] * 9
        intent = (await shop.sessions.retrieve_async(session.id)).payment_intent
        assert (await shop.refunds.create_async({"payment_intent": intent})).amount == 2999
        await until(lambda: "charge.refunded" in shop.receiver.types)
        assert shop.receiver.types.count("checkout.session.completed") == 1
