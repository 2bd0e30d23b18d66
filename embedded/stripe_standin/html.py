"""The stand-in's HTML, as plain functions of what they show. Nothing unescaped gets in: every value passes `esc`."""

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape as esc
from pathlib import Path

from embedded.stripe_standin import objects, params, store

STYLE = (Path(__file__).parent / "pay.css").read_text(encoding="utf-8")
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; img-src data:; base-uri 'none'; frame-ancestors 'none'; "
    f"style-src 'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'"
)
BADGE = '<p class="badge">Stripe stand-in – no real money</p>'


def document(title: str, main: str, kind: str = "") -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{esc(title)}</title><link rel="icon" href="data:,"><style>{STYLE}</style></head>'
        f'<body><main class="{kind}">{main}</main></body></html>'
    )


def shop_name(session: objects.Row) -> str:
    name: str = session["params"].get("branding_settings", {}).get("display_name", "Pitlane")
    return name


def items(session: objects.Row) -> str:
    """Return what was ordered, as lines of a definition list."""
    currency = session["params"]["currency"]
    lines = []
    for item in session["params"]["line_items"]:
        product, quantity = item["price_data"]["product_data"], item["quantity"]
        times = f" × {quantity}" if quantity > 1 else ""
        price = params.money(item["price_data"]["unit_amount"] * quantity, currency)
        about = f'<br><span class="soft small">{esc(product["description"])}</span>' if "description" in product else ""
        lines.append(f"<div><dt>{esc(product['name'])}{times}{about}</dt><dd>{esc(price)}</dd></div>")
    return "".join(lines)


def _summary(session: objects.Row) -> str:
    names = [item["price_data"]["product_data"]["name"] for item in session["params"]["line_items"]]
    total = esc(params.money(session["params"]["amount_total"], session["params"]["currency"]))
    return (
        f'<section aria-label="Your order"><div class="shop"><h1>{esc(shop_name(session))}</h1>{BADGE}</div>'
        f'<p class="soft note">Pay for {esc(", ".join(names))}</p><p class="total">{total}</p>'
        f"<dl>{items(session)}<div><dt>Total due</dt><dd>{total}</dd></div></dl></section>"
    )


def pay_page(session: objects.Row, base: str, *, error: str | None = None, email: str = "") -> str:
    """Show an open Session. ``base``: the Session's page address; ``email``: what the customer typed before."""
    amount = session["params"]["amount_total"]
    is_free = amount == 0
    pay = "Confirm" if is_free else f"Pay {params.money(amount, session['params']['currency'])}"
    given = session["params"].get("customer_email")
    contact = (
        f'<p class="label">Email</p><p class="field">{esc(given)}</p>'
        if given
        else '<label for="email">Email</label><input id="email" name="email" type="email" autocomplete="email" '
        f'required maxlength="254" placeholder="you@example.com" value="{esc(email)}">'
    )
    method = (
        ""
        if is_free
        else '<div class="row"><p class="label">Payment method</p><p class="field">Test card •••• 4242</p>'
        '<p class="note soft small">Never type a real card here: there is no need, and nowhere to.</p></div>'
    )
    problem = f'<p class="say bad" role="alert">{esc(error)}</p>' if error else ""
    by_bank = "us_bank_account" in objects.payment_methods(session)
    endings = [] if is_free else [("decline", "Decline the card")]
    endings += [("delayed", "Pay by a method that settles later")] * (by_bank and not is_free)
    endings += [("back", "Go back to the shop")] * ("cancel_url" in session["params"])
    endings += [("expire", "Let the Session expire")]
    others = "".join(f'<button name="ending" value="{value}" formnovalidate>{text}</button>' for value, text in endings)
    heading = "Confirm your order" if is_free else "Pay with card"
    form = (
        f'<section class="card" aria-label="Payment"><h2>{heading}</h2>{problem}'
        f'<form method="post" action="{esc(base)}"><div class="row">{contact}</div>{method}'
        f'<button class="primary" name="ending" value="pay">{esc(pay)}</button>'
        f'<details><summary>Play another ending</summary><div class="stack">{others}</div></details></form>'
        f'<details><summary>For developers</summary><p class="small soft">Hold, repeat or reorder the webhooks of this '
        f"Session, before or after paying.</p>"
        f'<p><a href="{esc(base)}/events">Events of this Session</a></p></details></section>'
    )
    title = f"{shop_name(session)} – {pay}"
    return document(title, _summary(session) + form)


def closed_page(session: objects.Row, base: str, intent: objects.Row | None, return_url: str | None) -> str:
    """Show a Session that can no longer be paid; ``return_url``: where the shop wants the customer, if anywhere."""
    way_back = (
        f'<a class="button primary" href="{esc(return_url)}">Return to {esc(shop_name(session))}</a>'
        if return_url
        else ""
    )
    settle = ""
    if session["status"] == "expired":
        title, text = (
            "This payment page has expired",
            "Nothing was charged. Start again from the shop if you still want to pay.",
        )
    elif intent is not None and intent["status"] == "processing":
        title = "Your payment is on its way"
        text = "The order is placed, the money has not arrived yet. At a bank that takes days; here you decide."
        settle = (
            f'<form class="stack" method="post" action="{esc(base)}/settle">'
            '<button name="outcome" value="succeed">Let the payment succeed</button>'
            '<button name="outcome" value="fail">Let the payment fail</button></form>'
        )
    elif intent is not None and intent["status"] != "succeeded":
        title, text = "The payment failed", "The bank refused the debit. Nothing was charged."
    elif intent is not None:
        amount = params.money(intent["amount"], intent["currency"])
        title, text = "Payment complete", f"{amount} was paid, once. Paying again is neither needed nor possible."
        if intent["amount_refunded"]:
            text = f"{amount} was paid, {params.money(intent['amount_refunded'], intent['currency'])} of it refunded."
    else:
        title, text = "All done", "The order was confirmed. There was nothing to pay."
    is_paid = intent is not None and intent["status"] == "succeeded"
    money_link = f'<a href="{esc(base)}/money">Refunds, disputes and faults</a> · ' if is_paid else ""
    body = (
        f'<div class="shop"><p class="soft">{esc(shop_name(session))}</p>{BADGE}</div>'
        f'<section class="card stack"><h1>{title}</h1><p>{esc(text)}</p>{settle}{way_back}</section>'
        f'<p class="small">{money_link}<a href="{esc(base)}/events">Events of this Session</a> '
        '<span class="soft">(for developers)</span></p>'
    )
    return document(f"{shop_name(session)} – {title}", body, "single")


def message_page(title: str, text: str, back: str | None = None) -> str:
    link = f'<p><a href="{esc(back)}">Back to the payment page</a></p>' if back else ""
    return document(
        title, f'{BADGE}<section class="card stack"><h1>{esc(title)}</h1><p>{esc(text)}</p>{link}</section>', "single"
    )


def events_page(session: objects.Row, base: str, events: Sequence[tuple[objects.Row, Sequence[objects.Row]]]) -> str:
    """Show a Session's events, how each was delivered, and the ways to play with that."""
    options = "".join(
        f'<option value="{mode}"{" selected" * (mode == session["delivery"])}>{mode.capitalize()}: {text}</option>'
        for mode, text in store.DELIVERY_MODES.items()
    )
    held = sum(delivery["state"] == "held" for _, sent in events for delivery in sent)
    release = (
        f'<form method="post" action="{esc(base)}/events"><div class="inline">'
        '<button class="primary" name="action" value="release">'
        f"Release {held} held</button></div></form>"
        if held
        else ""
    )
    items = []
    for event, sent in events:
        at = datetime.fromtimestamp(event["created"], UTC).strftime("%H:%M:%S UTC")
        tries = "".join(f"<li>{esc(_delivery_text(delivery))}</li>" for delivery in sent)
        items.append(
            f'<li class="card"><code>{esc(event["type"])}</code><p class="small soft">{esc(event["id"])} · {at}</p>'
            f'<ul class="sent small">{tries}</ul><form method="post" action="{esc(base)}/events"><div class="inline">'
            f'<input type="hidden" name="event" value="{esc(event["id"])}">'
            '<button name="action" value="again">Send again</button>'
            '<button name="action" value="twin">Send as another Event</button></div></form></li>'
        )
    is_paid = session["payment_status"] == "paid"
    money_link = f'<a href="{esc(base)}/money">refunds, disputes and faults</a> · ' if is_paid else ""
    body = (
        f'<div class="shop"><h1>Events of this Session</h1>{BADGE}</div>'
        f'<p class="small soft">{esc(session["id"])}<br>{esc(session["status"])}, {esc(session["payment_status"])} · '
        f'<a href="{esc(base)}">payment page</a> · {money_link}<a href="{esc(base)}/events">refresh</a></p>'
        f'<section class="card"><h2>Delivery</h2><form method="post" action="{esc(base)}/events">'
        '<div class="inline"><div class="grow">'
        f'<label for="mode">Webhooks from now on</label><select id="mode" name="mode">{options}</select></div>'
        f'<button name="action" value="mode">Set</button></div></form>{release}</section>'
        f'<ol class="events">{"".join(items)}</ol>'
        + ("" if items else '<p class="soft">Nothing has happened yet: pay, decline, expire …</p>')
    )
    return document("Events of this Session", body, "wide")


def _delivery_text(delivery: objects.Row) -> str:
    attempts = f", {delivery['attempts']} attempts" if delivery["attempts"] > 1 else ""
    outcome = f" ({delivery['outcome']}{attempts})" if delivery["outcome"] else ""
    return {"pending": "under way", "held": "held", "delivered": "delivered", "abandoned": "given up"}[
        delivery["state"]
    ] + outcome
