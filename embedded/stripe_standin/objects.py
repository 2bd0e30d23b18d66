"""Stripe's objects, built from rows of the store. Pure: rows and plain values in, JSON-ready dicts out.

Members follow API version 2026-10-28.endive; what the stand-in has no opinion on is null, as Stripe has it.
"""

import secrets
import string
from collections.abc import Mapping
from typing import Any

from sqlalchemy import RowMapping

API_VERSION = "2026-10-28.endive"
ALPHANUMERIC = string.ascii_letters + string.digits
# Lengths as Stripe has them: whoever stores a Session id must have room for 66 characters.
ID_LENGTHS = {"cs_test_a1": 56, "pi_3": 23, "ch_3": 23, "re_3": 23, "dp_1": 23, "evt_1": 23, "req_": 14, "li_1": 23}

# Members of Stripe's objects that the stand-in never fills.
SESSION_NULLS = """
    adaptive_pricing after_expiration allow_promotion_codes client_secret collected_information consent
    consent_collection currency_conversion customer customer_account integration_identifier invoice
    invoice_creation origin_context payment_link payment_method_configuration_details permissions recovered_from
    saved_payment_method_options setup_intent shipping_address_collection shipping_cost subscription
    wallet_options
"""
INTENT_NULLS = """
    application application_fee_amount automatic_payment_methods canceled_at cancellation_reason client_secret
    customer customer_account next_action on_behalf_of payment_method processing review setup_future_usage
    shipping source transfer_data transfer_group
"""
CHARGE_NULLS = """
    application balance_transaction customer on_behalf_of outcome payment_method receipt_number review
    shipping source transfer_data transfer_group
"""
EVIDENCE_NULLS = """
    access_activity_log appeal billing_address cancellation_policy cancellation_policy_disclosure cancellation_rebuttal
    customer_communication customer_email_address customer_name customer_purchase_ip customer_signature
    duplicate_charge_documentation duplicate_charge_explanation duplicate_charge_id product_description receipt
    refund_policy refund_policy_disclosure refund_refusal_explanation service_date service_documentation
    shipping_address shipping_carrier shipping_date shipping_documentation shipping_tracking_number
    uncategorized_file uncategorized_text
"""
# As long as Stripe gives for a response, and what it takes for a dispute from businesses in the United States.
EVIDENCE_DUE_AFTER_S = 9 * 24 * 3600
DISPUTE_FEE_CENTS = 1500

Row = RowMapping | Mapping[str, Any]
JsonObject = dict[str, Any]


def new_id(prefix: str) -> str:
    """Return an unguessable id such as ``pi_3…``; ``prefix`` is one of `ID_LENGTHS`."""
    return prefix + "".join(secrets.choice(ALPHANUMERIC) for _ in range(ID_LENGTHS[prefix]))


def list_object(url: str, data: list[JsonObject], has_more: bool) -> JsonObject:
    return {"object": "list", "data": data, "has_more": has_more, "url": url}


def payment_methods(session: Row) -> list[str]:
    """Return by what a Session can be paid."""
    allowed: list[str] = session["params"].get("allowed_payment_method_types") or ["card", "us_bank_account"]
    return allowed


def checkout_session(row: Row, public_url: str) -> JsonObject:
    params = row["params"]
    total, currency = params["amount_total"], params["currency"]
    email = row["email"] or params.get("customer_email")
    details = {"address": None, "business_name": None, "email": email, "individual_name": None, "name": None}
    return {
        "id": row["id"],
        "object": "checkout.session",
        **dict.fromkeys(SESSION_NULLS.split()),
        "allowed_payment_method_types": params.get("allowed_payment_method_types"),
        "amount_subtotal": total,
        "amount_total": total,
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
        "billing_address_collection": params.get("billing_address_collection"),
        "branding_settings": params.get("branding_settings"),
        "cancel_url": params.get("cancel_url"),
        "client_reference_id": params.get("client_reference_id"),
        "created": row["created"],
        "currency": currency,
        "custom_fields": [],
        "custom_text": {"after_submit": None, "shipping_address": None, "submit": None},
        "customer_creation": params.get("customer_creation", "if_required"),
        "customer_details": {**details, "phone": None, "tax_exempt": "none", "tax_ids": None} if email else None,
        "customer_email": params.get("customer_email"),
        "discounts": [],
        "expires_at": row["expires_at"],
        "livemode": False,
        "locale": params.get("locale"),
        "metadata": params.get("metadata", {}),
        "mode": params["mode"],
        "payment_intent": row["payment_intent"],
        "payment_method_collection": "if_required",
        "payment_method_options": {},
        "payment_method_types": payment_methods(row),
        "payment_status": row["payment_status"],
        "phone_number_collection": {"enabled": False},
        "shipping_options": [],
        "status": row["status"],
        "submit_type": params.get("submit_type"),
        "success_url": params["success_url"],
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
        "ui_mode": params["ui_mode"],
        "url": f"{public_url}/pay/{row['id']}" if row["status"] == "open" else None,
    }


def line_items(row: Row) -> JsonObject:
    currency = row["params"]["currency"]
    data = []
    for item in row["params"]["line_items"]:
        price, amount = item["price_data"], item["price_data"]["unit_amount"] * item["quantity"]
        data.append(
            {
                "id": item["id"],
                "object": "item",
                "amount_discount": 0,
                "amount_subtotal": amount,
                "amount_tax": 0,
                "amount_total": amount,
                "currency": currency,
                "description": price["product_data"]["name"],
                "metadata": item.get("metadata", {}),
                "price": {
                    "id": f"price_{item['id'].removeprefix('li_')}",
                    "object": "price",
                    "active": False,
                    "billing_scheme": "per_unit",
                    "created": row["created"],
                    "currency": currency,
                    "livemode": False,
                    "metadata": {},
                    "product": f"prod_{item['id'].removeprefix('li_')}",
                    "recurring": None,
                    "tax_behavior": price.get("tax_behavior", "unspecified"),
                    "type": "one_time",
                    "unit_amount": price["unit_amount"],
                    "unit_amount_decimal": str(price["unit_amount"]),
                },
                "quantity": item["quantity"],
            }
        )
    return list_object(f"/v1/checkout/sessions/{row['id']}/line_items", data, has_more=False)


def payment_intent(row: Row) -> JsonObject:
    failed = row["status"] == "requires_payment_method"
    return {
        "id": row["id"],
        "object": "payment_intent",
        **dict.fromkeys(INTENT_NULLS.split()),
        "amount": row["amount"],
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "amount_received": row["amount"] if row["status"] == "succeeded" else 0,
        "capture_method": "automatic_async",
        "confirmation_method": "automatic",
        "created": row["created"],
        "currency": row["currency"],
        "description": row["details"].get("description"),
        "last_payment_error": (
            {
                "charge": row["charge"],
                "code": "payment_intent_payment_attempt_failed",
                "message": "The bank refused the debit.",
                "type": "card_error",
            }
            if failed
            else None
        ),
        "latest_charge": row["charge"],
        "livemode": False,
        "metadata": row["details"].get("metadata", {}),
        "payment_method_options": {},
        "payment_method_types": [row["method"]],
        "receipt_email": row["details"].get("receipt_email"),
        "statement_descriptor": row["details"].get("statement_descriptor"),
        "statement_descriptor_suffix": row["details"].get("statement_descriptor_suffix"),
        "status": row["status"],
    }


def receipt_url(row: Row, public_url: str) -> str:
    """Return where the receipt of an intent's charge is shown."""
    return f"{public_url}/pay/receipts/{row['charge']}"


def charge(row: Row, public_url: str) -> JsonObject:
    """Build the only charge of a payment intent, from the intent's row."""
    status = {"succeeded": "succeeded", "processing": "pending"}.get(row["status"], "failed")
    method = (
        {"type": "card", "card": {"brand": "visa", "last4": "4242", "exp_month": 12, "exp_year": 2034, "country": "US"}}
        if row["method"] == "card"
        else {"type": "us_bank_account", "us_bank_account": {"bank_name": "STRIPE TEST BANK", "last4": "6789"}}
    )
    return {
        "id": row["charge"],
        "object": "charge",
        **dict.fromkeys(CHARGE_NULLS.split()),
        "amount": row["amount"],
        "amount_captured": row["amount"] if status == "succeeded" else 0,
        "amount_refunded": row["amount_refunded"],
        "billing_details": {"address": None, "email": row["email"], "name": None, "phone": None, "tax_id": None},
        "captured": status != "failed",
        "created": row["created"],
        "currency": row["currency"],
        "description": row["details"].get("description"),
        "disputed": bool(row["disputed"]),
        "failure_code": "debit_not_authorized" if status == "failed" else None,
        "failure_message": "The bank refused the debit." if status == "failed" else None,
        "fraud_details": {},
        "livemode": False,
        "metadata": row["details"].get("metadata", {}),
        "paid": status == "succeeded",
        "payment_intent": row["id"],
        "payment_method_details": method,
        "receipt_email": row["details"].get("receipt_email"),
        "receipt_url": receipt_url(row, public_url) if status == "succeeded" else None,
        "refunded": row["amount_refunded"] == row["amount"],
        "statement_descriptor": row["details"].get("statement_descriptor"),
        "statement_descriptor_suffix": row["details"].get("statement_descriptor_suffix"),
        "status": status,
    }


def refund(row: Row, *, is_new: bool = False) -> JsonObject:
    """Build a refund; ``is_new``: the acquirer has not said its reference number yet."""
    has_reference = row["status"] == "succeeded" and not is_new
    failure = {"failure_reason": row["failure_reason"]} if row["status"] == "failed" else {}
    pending = {"pending_reason": "processing"} if row["status"] == "pending" else {}
    return {
        "id": row["id"],
        "object": "refund",
        "amount": row["amount"],
        "balance_transaction": None,
        "charge": row["charge"],
        "created": row["created"],
        "currency": row["currency"],
        "destination_details": {
            "card": {
                **({"reference": "7134"} if has_reference else {}),
                "reference_status": "available" if has_reference else "pending",
                "reference_type": "acquirer_reference_number",
                "type": "refund",
            },
            "type": "card",
        },
        **failure,
        "metadata": row["metadata"],
        "payment_intent": row["payment_intent"],
        **pending,
        "reason": row["reason"],
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": row["status"],
        "transfer_reversal": None,
    }


def dispute(row: Row) -> JsonObject:
    """Build a dispute, or an inquiry: what is not a chargeback yet, and for which no money was taken."""
    is_inquiry = row["status"].startswith("warning_")
    return {
        "id": row["id"],
        "object": "dispute",
        "amount": row["amount"],
        "balance_transactions": _dispute_transactions(row),
        "charge": row["charge"],
        "created": row["created"],
        "currency": row["currency"],
        "enhanced_eligibility_types": [],
        "evidence": {**dict.fromkeys(EVIDENCE_NULLS.split()), "enhanced_evidence": {}},
        "evidence_details": {
            "due_by": row["created"] + EVIDENCE_DUE_AFTER_S,
            "enhanced_eligibility": {},
            "has_evidence": row["submissions"] > 0,
            "past_due": False,
            "submission_count": row["submissions"],
            "submission_method": "manual" if row["submissions"] else "not_submitted",
        },
        "is_charge_refundable": is_inquiry or row["status"] == "won",
        "livemode": False,
        "metadata": {},
        "payment_intent": row["payment_intent"],
        "payment_method_details": {
            "card": {
                "brand": "visa",
                "case_type": "inquiry" if is_inquiry else "chargeback",
                "network": "visa",
                "network_reason_code": None,
            },
            "type": "card",
        },
        "reason": row["reason"],
        "status": row["status"],
    }


def _dispute_transactions(row: Row) -> list[JsonObject]:
    """Build what the bank took, with Stripe's fee, and what it gave back, as far as that has happened."""
    moved = [("withdrawn_at", "Chargeback withdrawal", -row["amount"], DISPUTE_FEE_CENTS)]
    moved += [("reinstated_at", "Chargeback reversal", row["amount"], 0)]
    return [
        {
            "id": f"txn_1{row['id'].removeprefix('dp_1')}{number}",
            "object": "balance_transaction",
            "amount": amount,
            "available_on": row[at],
            "balance_type": "payments",
            "created": row[at],
            "currency": row["currency"],
            "description": f"{what} for {row['charge']}",
            "exchange_rate": None,
            "fee": fee,
            "fee_details": [
                {"amount": fee, "application": None, "currency": row["currency"], "description": "Dispute fee"}
                | {"type": "stripe_fee"}
            ]
            * bool(fee),
            "net": amount - fee,
            "reporting_category": "dispute" if fee else "dispute_reversal",
            "source": row["id"],
            "status": "available",
            "type": "adjustment",
        }
        for number, (at, what, amount, fee) in enumerate(moved)
        if row[at] is not None
    ]


def event(
    type: str, snapshot: JsonObject, created: int, *, request_id: str | None, idempotency_key: str | None
) -> JsonObject:
    """Build an Event around a snapshot; both request members are None for what a customer did on the payment page."""
    return {
        "id": new_id("evt_1"),
        "object": "event",
        "api_version": API_VERSION,
        "created": created,
        "data": {"object": snapshot},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": request_id, "idempotency_key": idempotency_key},
        "type": type,
    }
