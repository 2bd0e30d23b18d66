"""Stripe's objects, built from rows of the store. Pure: rows and plain values in, JSON-ready dicts out.

Members follow API version 2026-10-28.endive; what the stand-in has no opinion on is null, as Stripe has it.
"""

import secrets
import string
from collections.abc import Mapping
from typing import Any

API_VERSION = "2026-10-28.endive"
ALPHANUMERIC = string.ascii_letters + string.digits
# Lengths as Stripe has them: whoever stores a Session id must have room for 66 characters.
ID_LENGTHS = {"cs_test_a1": 56, "pi_3": 23, "ch_3": 23, "re_3": 23, "evt_1": 23, "req_": 14, "li_1": 23}

Row = Mapping[str, Any]
JsonObject = dict[str, Any]


def new_id(prefix: str) -> str:
    """Return an unguessable id such as ``pi_3…``; ``prefix`` is one of `ID_LENGTHS`."""
    return prefix + "".join(secrets.choice(ALPHANUMERIC) for _ in range(ID_LENGTHS[prefix]))


def list_object(url: str, data: list[JsonObject], has_more: bool) -> JsonObject:
    return {"object": "list", "data": data, "has_more": has_more, "url": url}


def checkout_session(row: Row, public_url: str) -> JsonObject:
    params = row["params"]
    total, currency = params["amount_total"], params["currency"]
    is_complete = row["status"] == "complete"
    email = row["email"] or params.get("customer_email")
    details = {"address": None, "business_name": None, "email": email, "individual_name": None, "name": None}
    return {
        "id": row["id"],
        "object": "checkout.session",
        "adaptive_pricing": None,
        "after_expiration": None,
        "allow_promotion_codes": None,
        "allowed_payment_method_types": params.get("allowed_payment_method_types"),
        "amount_subtotal": total,
        "amount_total": total,
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
        "billing_address_collection": params.get("billing_address_collection"),
        "branding_settings": params.get("branding_settings"),
        "cancel_url": params.get("cancel_url"),
        "client_reference_id": params.get("client_reference_id"),
        "client_secret": None,
        "collected_information": None,
        "consent": None,
        "consent_collection": None,
        "created": row["created"],
        "currency": currency,
        "currency_conversion": None,
        "custom_fields": [],
        "custom_text": {"after_submit": None, "shipping_address": None, "submit": None},
        "customer": None,
        "customer_account": None,
        "customer_creation": params.get("customer_creation", "if_required"),
        "customer_details": {**details, "phone": None, "tax_exempt": "none", "tax_ids": None} if email else None,
        "customer_email": params.get("customer_email"),
        "discounts": [],
        "expires_at": row["expires_at"],
        "integration_identifier": None,
        "invoice": None,
        "invoice_creation": None,
        "livemode": False,
        "locale": params.get("locale"),
        "metadata": params.get("metadata", {}),
        "mode": params["mode"],
        "origin_context": None,
        "payment_intent": row["payment_intent"],
        "payment_link": None,
        "payment_method_collection": "if_required",
        "payment_method_configuration_details": None,
        "payment_method_options": {},
        "payment_method_types": ["card", "us_bank_account"],
        "payment_status": row["payment_status"],
        "permissions": None,
        "phone_number_collection": {"enabled": False},
        "recovered_from": None,
        "saved_payment_method_options": None,
        "setup_intent": None,
        "shipping_address_collection": None,
        "shipping_cost": None,
        "shipping_options": [],
        "status": row["status"],
        "submit_type": params.get("submit_type"),
        "subscription": None,
        "success_url": params["success_url"],
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0}
        if total or is_complete
        else None,
        "ui_mode": params["ui_mode"],
        "url": f"{public_url}/pay/{row['id']}" if row["status"] == "open" else None,
        "wallet_options": None,
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
        "amount": row["amount"],
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "amount_received": row["amount"] if row["status"] == "succeeded" else 0,
        "application": None,
        "application_fee_amount": None,
        "automatic_payment_methods": None,
        "canceled_at": None,
        "cancellation_reason": None,
        "capture_method": "automatic_async",
        "client_secret": None,
        "confirmation_method": "automatic",
        "created": row["created"],
        "currency": row["currency"],
        "customer": None,
        "customer_account": None,
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
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": None,
        "payment_method_options": {},
        "payment_method_types": [row["method"]],
        "processing": None,
        "receipt_email": row["details"].get("receipt_email"),
        "review": None,
        "setup_future_usage": None,
        "shipping": None,
        "source": None,
        "statement_descriptor": row["details"].get("statement_descriptor"),
        "statement_descriptor_suffix": row["details"].get("statement_descriptor_suffix"),
        "status": row["status"],
        "transfer_data": None,
        "transfer_group": None,
    }


def charge(row: Row) -> JsonObject:
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
        "amount": row["amount"],
        "amount_captured": row["amount"] if status == "succeeded" else 0,
        "amount_refunded": row["amount_refunded"],
        "application": None,
        "balance_transaction": None,
        "billing_details": {"address": None, "email": row["email"], "name": None, "phone": None, "tax_id": None},
        "captured": status != "failed",
        "created": row["created"],
        "currency": row["currency"],
        "customer": None,
        "description": row["details"].get("description"),
        "disputed": False,
        "failure_code": "debit_not_authorized" if status == "failed" else None,
        "failure_message": "The bank refused the debit." if status == "failed" else None,
        "fraud_details": {},
        "livemode": False,
        "metadata": row["details"].get("metadata", {}),
        "on_behalf_of": None,
        "outcome": None,
        "paid": status == "succeeded",
        "payment_intent": row["id"],
        "payment_method": None,
        "payment_method_details": method,
        "receipt_email": row["details"].get("receipt_email"),
        "receipt_number": None,
        "receipt_url": None,
        "refunded": row["amount_refunded"] == row["amount"],
        "review": None,
        "shipping": None,
        "source": None,
        "statement_descriptor": row["details"].get("statement_descriptor"),
        "statement_descriptor_suffix": row["details"].get("statement_descriptor_suffix"),
        "status": status,
        "transfer_data": None,
        "transfer_group": None,
    }


def refund(row: Row) -> JsonObject:
    return {
        "id": row["id"],
        "object": "refund",
        "amount": row["amount"],
        "balance_transaction": None,
        "charge": row["charge"],
        "created": row["created"],
        "currency": row["currency"],
        "destination_details": {
            "card": {"reference_status": "pending", "reference_type": "acquirer_reference_number", "type": "refund"},
            "type": "card",
        },
        "metadata": row["metadata"],
        "payment_intent": row["payment_intent"],
        "reason": row["reason"],
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": row["status"],
        "transfer_reversal": None,
    }


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
