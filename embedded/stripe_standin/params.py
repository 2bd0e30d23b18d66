"""What Stripe accepts: form bodies turned into typed parameters, everything else refused in Stripe's own words. Pure.

A specification is a tree: a converter for a scalar, a dict for an object, a one-element list for a list, `METADATA`
for a free map. Names Stripe documents but the stand-in does not play are refused too, loudly, rather than silently ignored.
Shapes follow API version 2026-10-28.endive (https://docs.stripe.com/api/checkout/sessions/create).
"""

import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from models.currencies import AMOUNT_MAX, LEAST_CHARGED

ZERO_DECIMAL = frozenset(
    ("bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf")
)
THREE_DECIMAL = frozenset(("bhd", "jod", "kwd", "omr", "tnd"))
"""Their last digit has to be 0: banks know only two decimals of them."""
WHOLE_UNITS = frozenset(("isk", "ugx"))
"""They have no decimals (any more), and are written with two nevertheless, which have to be 00."""
METADATA_KEYS_MAX, METADATA_KEY_LEN_MAX, METADATA_VALUE_LEN_MAX = 50, 40, 500
LINE_ITEMS_MAX = 100
EXPIRES_AFTER_S_MIN, EXPIRES_AFTER_S_MAX = 30 * 60, 24 * 60 * 60
LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX = 10, 100
METADATA = "metadata"
ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
MAILBOX = rf"(?=.{{1,64}}@){ATOM}(?:\.{ATOM})*@{LABEL}(?:\.{LABEL})+"


class StripeError(Exception):
    """A refusal in Stripe's error shape.

    ``executed`` tells whether the request got past validation: only then does Stripe keep the answer under its
    idempotency key (https://docs.stripe.com/api/idempotent_requests).
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        type: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        executed: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.executed = executed
        self.body = {"error": {"type": type, "code": code, "message": message, "param": param}}


def _string(value: str, param: str) -> str:
    return value


def _integer(value: str, param: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,18}", value):
        raise StripeError(f"Invalid integer: {value}", code="parameter_invalid_integer", param=param)
    return int(value)


def _url(value: str, param: str) -> str:
    parts = urlsplit(value) if not re.search(r"[\s<>\\]", value) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.netloc or len(value) > 5000:
        raise StripeError("Not a valid URL", code="url_invalid", param=param)
    return value


def _email(value: str, param: str) -> str:
    if not is_email(value):
        raise StripeError(f"Invalid email address: {value}", code="email_invalid", param=param)
    return value


def is_email(value: str) -> bool:
    """Tell whether Stripe takes this as an address.

    What RFC 5321 §4.1.2 calls a mailbox (here in ASCII, without quotes and address literals, within §4.5.3.1's lengths),
    and its domain has a dot: Stripe answers ``Invalid email address`` to ``x@localhost``.
    """
    return len(value) <= 254 and re.fullmatch(MAILBOX, value) is not None


def _currency(value: str, param: str) -> str:
    if not re.fullmatch(r"[A-Za-z]{3}", value):
        raise StripeError(f"Invalid currency: {value}.", param=param)
    return value.lower()


def _one_of(*allowed: str) -> Callable[[str, str], str]:
    def convert(value: str, param: str) -> str:
        if value not in allowed:
            raise StripeError(f"Invalid {param}: must be one of {', '.join(allowed)}", param=param)
        return value

    return convert


EXPAND = {"expand": [_string]}
PAGE = {"limit": _integer, "starting_after": _string, "ending_before": _string, **EXPAND}
CREATED = {"gt": _integer, "gte": _integer, "lt": _integer, "lte": _integer}

SESSION_CREATE: dict[str, Any] = {
    **EXPAND,
    "mode": _one_of("payment", "setup", "subscription"),
    "ui_mode": _one_of("hosted_page", "embedded_page", "elements", "form"),
    "success_url": _url,
    "cancel_url": _url,
    "client_reference_id": _string,
    "customer_email": _email,
    "currency": _currency,
    "expires_at": _integer,
    "locale": _string,
    "metadata": METADATA,
    "submit_type": _one_of("auto", "book", "donate", "pay", "subscribe"),
    "billing_address_collection": _one_of("auto", "required"),
    "customer_creation": _one_of("always", "if_required"),
    # What else there is would have to be refused on the page.
    "allowed_payment_method_types": [_one_of("card", "us_bank_account")],
    "branding_settings": {"display_name": _string},
    "payment_intent_data": {
        "description": _string,
        "metadata": METADATA,
        "receipt_email": _email,
        "statement_descriptor": _string,
        "statement_descriptor_suffix": _string,
    },
    "line_items": [
        {
            "price": _string,
            "quantity": _integer,
            "metadata": METADATA,
            "price_data": {
                "currency": _currency,
                "unit_amount": _integer,
                "tax_behavior": _one_of("exclusive", "inclusive", "unspecified"),
                "product_data": {"name": _string, "description": _string, "images": [_url], "metadata": METADATA},
            },
        }
    ],
}
# Real parameters that the stand-in does not play. Accepting them would promise a behaviour nobody gets.
SESSION_CREATE_NOT_PLAYED = frozenset(
    (
        "adaptive_pricing",
        "after_expiration",
        "allow_promotion_codes",
        "automatic_tax",
        "consent_collection",
        "custom_fields",
        "custom_text",
        "customer",
        "customer_account",
        "customer_update",
        "discounts",
        "excluded_payment_method_types",
        "integration_identifier",
        "invoice_creation",
        "managed_payments",
        "name_collection",
        "optional_items",
        "origin_context",
        "payment_method_collection",
        "payment_method_configuration",
        "payment_method_data",
        "payment_method_options",
        "permissions",
        "phone_number_collection",
        "redirect_on_completion",
        "return_url",
        "saved_payment_method_options",
        "setup_intent_data",
        "shipping_address_collection",
        "shipping_options",
        "subscription_data",
        "tax_id_collection",
        "wallet_options",
    )
)
SESSION_LIST = {**PAGE, "created": CREATED, "status": _one_of("complete", "expired", "open"), "payment_intent": _string}
REFUND_CREATE: dict[str, Any] = {
    **EXPAND,
    "payment_intent": _string,
    "charge": _string,
    "amount": _integer,
    "metadata": METADATA,
    "reason": _one_of("duplicate", "fraudulent", "requested_by_customer"),
}
REFUND_LIST = {**PAGE, "created": CREATED, "payment_intent": _string, "charge": _string}
DISPUTE_LIST = REFUND_LIST
EVENT_LIST = {**PAGE, "created": CREATED, "type": _string, "types": [_string]}


def nest(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return ``a[b][]=c`` pairs as nested dicts; list positions stay keys ("0", "1"): only a spec knows lists."""
    tree: dict[str, Any] = {}
    for key, value in pairs:
        if not re.fullmatch(r"[^\[\]]+(\[[^\[\]]*\])*", key):
            raise StripeError(f"Invalid parameter name: {key}", param=key)
        path = [part.rstrip("]") for part in key.split("[")]
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise StripeError(f"Invalid object: {key}", param=key)
        node[path[-1] or str(len(node))] = value
    return tree


def shape(tree: dict[str, Any], spec: dict[str, Any], *, not_played: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return typed parameters, lists as lists.

    Raises `StripeError` for the first parameter that Stripe would refuse.
    """
    for name in tree:
        if name in not_played:
            raise StripeError(f"This stand-in for Stripe does not play the parameter {name}.", param=name)
    shaped: dict[str, Any] = _shape(tree, spec, "")
    return shaped


def _shape(value: Any, spec: Any, param: str) -> Any:
    if spec == METADATA:
        return _metadata(value, param)
    if isinstance(spec, dict):
        if not isinstance(value, dict):
            raise StripeError("Invalid object", param=param)
        shaped = {}
        for name, inner in value.items():
            inner_param = f"{param}[{name}]" if param else name
            if name not in spec:
                raise StripeError(
                    f"Received unknown parameter: {inner_param}", code="parameter_unknown", param=inner_param
                )
            shaped[name] = _shape(inner, spec[name], inner_param)
        return shaped
    if isinstance(spec, list):
        if not isinstance(value, dict) or not all(re.fullmatch("[0-9]{1,6}", name) for name in value):
            raise StripeError("Invalid array", param=param)
        return [_shape(value[name], spec[0], f"{param}[{name}]") for name in sorted(value, key=int)]
    if isinstance(value, dict):
        raise StripeError(f"Invalid string: {value}", param=param)
    if value == "":
        raise StripeError(
            f"You passed an empty string for '{param}'. We assume empty values are an attempt to unset a parameter; "
            f"however '{param}' cannot be unset. You should remove '{param}' from your request or supply a non-empty "
            "value.",
            code="parameter_invalid_empty",
            param=param,
        )
    return spec(value, param)


def _metadata(value: Any, param: str) -> dict[str, str]:
    if value == "":
        return {}
    if not isinstance(value, dict) or any(isinstance(inner, dict) for inner in value.values()):
        raise StripeError("Metadata must be a flat map of strings.", param=param)
    if len(value) > METADATA_KEYS_MAX:
        raise StripeError(
            f"Metadata can have at most {METADATA_KEYS_MAX} keys, but you passed {len(value)}.", param=param
        )
    for key, text in value.items():
        if len(key) > METADATA_KEY_LEN_MAX:
            raise StripeError(
                f"Metadata keys can have up to {METADATA_KEY_LEN_MAX} characters, but you passed in a key that is "
                f"{len(key)} characters. Invalid key: {key}",
                param=param,
            )
        if len(text) > METADATA_VALUE_LEN_MAX:
            raise StripeError(
                f"Metadata values can have up to {METADATA_VALUE_LEN_MAX} characters, but you passed in a value that "
                f"is {len(text)} characters. Invalid value: {text}",
                param=f"{param}[{key}]",
            )
    return {key: text for key, text in value.items() if text != ""}


def missing(param: str) -> StripeError:
    return StripeError(f"Missing required param: {param}.", code="parameter_missing", param=param)


def session_create(tree: dict[str, Any], now_s: int) -> dict[str, Any]:
    """Return the parameters of a Checkout Session to create, with mode, currency and expiry filled in.

    ``now_s``: Unix seconds. Raises `StripeError` for whatever Stripe would refuse.
    """
    params = shape(tree, SESSION_CREATE, not_played=SESSION_CREATE_NOT_PLAYED)
    if "mode" not in params:
        raise missing("mode")
    if params["mode"] != "payment":
        raise StripeError("This stand-in for Stripe only plays mode=payment.", param="mode")
    if params.setdefault("ui_mode", "hosted_page") != "hosted_page":
        raise StripeError("This stand-in for Stripe only plays ui_mode=hosted_page.", param="ui_mode")
    if "success_url" not in params:
        raise missing("success_url")
    if "card" not in params.get("allowed_payment_method_types", ["card"]):
        raise StripeError(
            "This stand-in for Stripe only plays Sessions that can be paid by card.",
            param="allowed_payment_method_types",
        )
    if len(params.get("client_reference_id", "")) > 200:
        raise StripeError("client_reference_id can have up to 200 characters.", param="client_reference_id")
    _line_items(params)
    expires_at = params.setdefault("expires_at", now_s + EXPIRES_AFTER_S_MAX)
    if expires_at - now_s < EXPIRES_AFTER_S_MIN:
        raise StripeError(
            "The `expires_at` timestamp must be at least 30 minutes from Checkout Session creation.", param="expires_at"
        )
    if expires_at - now_s > EXPIRES_AFTER_S_MAX:
        raise StripeError(
            "The `expires_at` timestamp must be less than 24 hours from Checkout Session creation.", param="expires_at"
        )
    return params


def _line_items(params: dict[str, Any]) -> None:
    items = params.get("line_items") or []
    if not items:
        raise missing("line_items")
    if len(items) > LINE_ITEMS_MAX:
        raise StripeError(f"You can pass up to {LINE_ITEMS_MAX} line items.", param="line_items")
    total = 0
    for index, item in enumerate(items):
        at = f"line_items[{index}]"
        if "price" in item:
            raise StripeError(
                f"No such price: '{item['price']}'", code="resource_missing", param=f"{at}[price]", status=404
            )
        price = item.get("price_data")
        if price is None:
            raise missing(f"{at}[price_data]")
        for name in ("currency", "unit_amount", "product_data"):
            if name not in price:
                raise missing(f"{at}[price_data][{name}]")
        if "name" not in price["product_data"]:
            raise missing(f"{at}[price_data][product_data][name]")
        if "quantity" not in item:
            raise missing(f"{at}[quantity]")
        if item["quantity"] < 1:
            raise StripeError(
                "This value must be greater than or equal to 1.",
                code="parameter_invalid_integer",
                param=f"{at}[quantity]",
            )
        if price["unit_amount"] < 0:
            raise StripeError(
                "This value must be greater than or equal to 0.",
                code="parameter_invalid_integer",
                param=f"{at}[price_data][unit_amount]",
            )
        if price["currency"] != params.setdefault("currency", price["currency"]):
            raise StripeError("All line items must use the same currency.", param=f"{at}[price_data][currency]")
        _chargeable(price["unit_amount"], price["currency"], f"{at}[price_data][unit_amount]")
        total += price["unit_amount"] * item["quantity"]
    if total > AMOUNT_MAX:
        raise StripeError(
            "The Checkout Session's total amount is more than Stripe accepts.",
            code="amount_too_large",
            param="line_items",
        )
    least = LEAST_CHARGED.get(params["currency"], 0)
    if 0 < total < least:
        raise StripeError(
            f"The Checkout Session's total amount due must add up to at least {money(least, params['currency'])}.",
            code="amount_too_small",
            param="line_items",
        )
    params["amount_total"] = total


def refund_create(tree: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a refund; exactly one of ``payment_intent`` and ``charge`` is present."""
    params = shape(tree, REFUND_CREATE)
    if "payment_intent" in params and "charge" in params:
        raise StripeError("You may only specify one of these parameters: charge, payment_intent.")
    if "payment_intent" not in params and "charge" not in params:
        raise StripeError(
            "One of the following params should be provided for this request: payment_intent or charge.",
            code="parameter_missing",
        )
    if params.get("amount", 1) < 1:
        raise StripeError(
            "This value must be greater than or equal to 1.", code="parameter_invalid_integer", param="amount"
        )
    return params


def page(tree: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a list call, with ``limit`` checked and ``created`` as a range."""
    if isinstance(tree.get("created"), str):
        tree = {**tree, "created": {"gte": tree["created"], "lte": tree["created"]}}
    params = shape(tree, spec)
    if not 1 <= params.setdefault("limit", LIST_LIMIT_DEFAULT) <= LIST_LIMIT_MAX:
        raise StripeError(
            f"Invalid limit: must be between 1 and {LIST_LIMIT_MAX}.", code="parameter_invalid_integer", param="limit"
        )
    if "starting_after" in params and "ending_before" in params:
        raise StripeError("You may only specify one of these parameters: ending_before, starting_after.")
    return params


def _chargeable(amount: int, currency: str, param: str) -> None:
    """Raise `StripeError` for an amount that banks cannot move (https://docs.stripe.com/currencies)."""
    if currency in THREE_DECIMAL and amount % 10:
        raise StripeError(
            f"Invalid amount: {currency.upper()} is a three-decimal currency, whose amounts must be evenly divisible by "
            "10. See https://docs.stripe.com/currencies#three-decimal for more information.",
            code="parameter_invalid_integer",
            param=param,
        )
    if currency in WHOLE_UNITS and amount % 100:
        raise StripeError(
            f"Invalid amount: {currency.upper()} is effectively zero-decimal, and its amounts must be evenly divisible by "
            "100. See https://docs.stripe.com/currencies#special-cases for more information.",
            code="invalid_charge_amount_no_decimal_compatible",
            param=param,
        )


def refund_amount(amount: int, currency: str) -> int:
    """Return an amount that can be refunded in this currency; raises `StripeError` for any other."""
    _chargeable(amount, currency, "amount")
    return amount


def decimals(currency: str) -> int:
    """Return how many decimals of a currency its minor units stand for."""
    return 0 if currency in ZERO_DECIMAL else 3 if currency in THREE_DECIMAL else 2


def plain(amount: int, currency: str) -> str:
    """Return an amount in minor units as it is typed into a form: ``29.99``, ``500``, ``5.120``."""
    places = decimals(currency)
    whole, part = divmod(amount, 10**places)
    return f"{whole}.{part:0{places}}" if places else str(whole)


def minor_units(typed: str, currency: str) -> int | None:
    """Return the minor units of an amount as people type it; ``None`` for what is none in this currency."""
    match = re.fullmatch(r"([0-9]{1,12})(?:\.([0-9]+))?", typed.strip())
    if match is None or len(match[2] or "") > decimals(currency):
        return None
    return int(match[1] + (match[2] or "").ljust(decimals(currency), "0"))


def money(amount: int, currency: str) -> str:
    """Return an amount in minor units as people read it: ``$29.99``, ``¥500``, ``29.99 CHF``, ``5.120 KWD``."""
    whole, point, part = plain(amount, currency).partition(".")
    text = f"{int(whole):,}{point}{part}"
    sign = {"usd": "$", "eur": "€", "gbp": "£", "jpy": "¥"}.get(currency)
    return f"{sign}{text}" if sign else f"{text} {currency.upper()}"
