"""The pages about money that was paid, as plain functions of what they show. Every value passes `esc`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape as esc

from embedded.stripe_standin import money, objects, params
from embedded.stripe_standin.html import BADGE, document, items, shop_name

NO_FAULT = "none"
"""What a form names to let the next refunds go well."""
REFUND_OUTCOMES = {"succeeded": "Succeeds at once", "pending": "Stays pending for now"}
DISPUTE_KINDS = {"chargeback": "Chargeback", "inquiry": "Inquiry only"}
MOVE_WORDS = {
    "review": "Hand in evidence",
    "win": "Let it be won",
    "lose": "Let it be lost",
    "close": "Close the inquiry",
    "escalate": "Make it a dispute",
}


@dataclass(frozen=True)
class Payment:
    """A paid Session, and what has happened to its money."""

    session: objects.Row
    intent: objects.Row
    refunds: Sequence[objects.Row]
    disputes: Sequence[objects.Row]
    fault: objects.Row | None

    def text(self, amount: int) -> str:
        return esc(params.money(amount, self.intent["currency"]))

    @property
    def is_with_the_bank(self) -> bool:
        return any(dispute["status"] in money.UNREFUNDABLE for dispute in self.disputes)

    @property
    def left(self) -> int:
        """What can be refunded now."""
        return 0 if self.is_with_the_bank else self.intent["amount"] - self.intent["amount_refunded"]


def money_page(payment: Payment, base: str, *, problem: str | None = None, typed: Mapping[str, str] = {}) -> str:
    """Show what has happened to a payment, and what else may. ``typed``: the form that could not be worked on."""
    session = payment.session
    alert = f'<p class="say bad" role="alert">{esc(problem)}</p>' if problem else ""
    body = (
        f'<div class="shop"><h1>Money of this payment</h1>{BADGE}</div>'
        f'<p class="small soft">{esc(session["id"])}<br><a href="{esc(base)}">payment page</a> · '
        f'<a href="{esc(base)}/events">events</a> · '
        f'<a href="{esc(objects.receipt_url(payment.intent, base.rpartition("/pay/")[0]))}">receipt</a> · '
        f'<a href="{esc(base)}/money">refresh</a></p>{alert}'
        f'<section class="card"><h2>Where it stands</h2>{_balance(payment)}</section>'
        f'<section class="card"><h2>Refunds</h2>{_refunds(payment, base)}{_refund_form(payment, base, typed)}</section>'
        f'<section class="card"><h2>Disputes</h2>{_disputes(payment, base)}{_dispute_form(payment, base, typed)}</section>'
        f'<section class="card"><h2>The next refunds by API</h2>{_fault_form(payment, base)}</section>'
    )
    return document("Money of this payment", body, "wide")


def _balance(payment: Payment) -> str:
    def refunded(status: str) -> int:
        return sum(refund["amount"] for refund in payment.refunds if refund["status"] == status)

    taken = [one for one in payment.disputes if one["withdrawn_at"] is not None and one["reinstated_at"] is None]
    lines = [
        ("Paid", payment.intent["amount"], True),
        ("Refunded", refunded("succeeded"), False),
        ("Refunds under way", refunded("pending"), False),
        ("Taken by the bank", sum(dispute["amount"] for dispute in taken), False),
        ("Can be refunded", payment.left, True),
    ]
    return (
        "<dl>"
        + "".join(
            f"<div><dt>{name}</dt><dd>{payment.text(amount)}</dd></div>"
            for name, amount, is_always in lines
            if amount or is_always
        )
        + "</dl>"
    )


def _refunds(payment: Payment, base: str) -> str:
    entries = []
    for refund in payment.refunds:
        facts = [refund["id"], _time(refund["created"]), refund["reason"], refund["failure_reason"]]
        facts += [f"{name}: {value}" for name, value in refund["metadata"].items()]
        buttons = "" if refund["status"] != "pending" else _button("settle", "Let it succeed")
        if refund["status"] != "failed":
            field = f"reason-{refund['id']}"
            reason = _select(field, "failure_reason", "If it fails, because of", _in_words(money.FAILURE_REASONS))
            buttons = f'<div class="grow">{reason}</div>{buttons}{_button("fail", "Let it fail")}'
        entries.append(_entry(payment.text(refund["amount"]), refund["status"], facts, base, "refund", refund, buttons))
    return _entries(entries, "Nothing was refunded yet.")


def _refund_form(payment: Payment, base: str, typed: Mapping[str, str]) -> str:
    if payment.is_with_the_bank:
        return '<p class="soft">The bank has the money: nothing can be refunded unless the dispute is won.</p>'
    if payment.left == 0:
        return ""
    mine = typed if typed.get("action") == "refund" else {}
    rest = params.plain(payment.left, payment.intent["currency"])
    return _form(
        base,
        "Refund in the dashboard",
        f'<div class="grow">{_amount("refund-amount", payment, mine.get("amount", rest))}</div>'
        f'<div class="grow">{_select("outcome", "outcome", "And it", REFUND_OUTCOMES, mine.get("outcome"))}</div>'
        + _button("refund", "Refund"),
    )


def _disputes(payment: Payment, base: str) -> str:
    entries = []
    for dispute in payment.disputes:
        facts = [dispute["id"], _time(dispute["created"]), dispute["reason"]]
        moves = [name for name, move in money.MOVES.items() if dispute["status"] in move.ways]
        buttons = "".join(_button(name, MOVE_WORDS[name]) for name in moves)
        amount = payment.text(dispute["amount"])
        entries.append(_entry(amount, dispute["status"], facts, base, "dispute", dispute, buttons))
    return _entries(entries, "Nobody has disputed this payment.")


def _dispute_form(payment: Payment, base: str, typed: Mapping[str, str]) -> str:
    standing = (*money.UNREFUNDABLE, *money.OPEN_INQUIRIES)
    if any(dispute["status"] in standing for dispute in payment.disputes):
        return ""
    mine = typed if typed.get("action") == "dispute" else {}
    whole = params.plain(payment.intent["amount"], payment.intent["currency"])
    reasons = _in_words(money.DISPUTE_REASONS)
    return _form(
        base,
        "Dispute it, as the customer's bank",
        f'<div class="short">{_select("kind", "kind", "Kind", DISPUTE_KINDS, mine.get("kind"))}</div>'
        f'<div class="short">{_select("reason", "reason", "Reason", reasons, mine.get("reason"))}</div>'
        f'<div class="short">{_amount("dispute-amount", payment, mine.get("amount", whole))}</div>'
        + _button("dispute", "Dispute"),
    )


def _fault_form(payment: Payment, base: str) -> str:
    fault = payment.fault
    now = (
        "They go well."
        if fault is None
        else f"The next {fault['times_left']}: {money.FAULTS[fault['kind']]}."
        if fault["times_left"] > 1
        else f"The next one: {money.FAULTS[fault['kind']]}."
    )
    kinds = {NO_FAULT: "Nothing: they go well", **money.FAULTS}
    return f'<p class="soft">{esc(now)} Those in the dashboard are never concerned.</p>' + _form(
        base,
        None,
        f'<div class="grow">{_select("fault", "fault", "What happens", kinds, None if fault is None else fault["kind"])}</div>'
        '<div><label for="times">How often</label><input id="times" name="times" type="number" min="1" '
        f'max="{money.FAULT_TIMES_MAX}" value="{fault["times_left"] if fault else 1}" required></div>'
        + _button("fault", "Set"),
    )


def _entry(
    amount: str, status: str, facts: Sequence[str | None], base: str, name: str, row: objects.Row, buttons: str
) -> str:
    form = (
        f'<form method="post" action="{esc(base)}/money">'
        f'<div class="inline" role="group" aria-label="{name.capitalize()} of {amount}, {esc(status)}">'
        f'<input type="hidden" name="{name}" value="{esc(row["id"])}">{buttons}</div></form>'
    )
    return (
        f"<li><p><strong>{amount}</strong> <code>{esc(status)}</code></p>"
        f'<p class="small soft">{esc(" · ".join(fact for fact in facts if fact))}</p>{form if buttons else ""}</li>'
    )


def _entries(entries: Sequence[str], nothing: str) -> str:
    return f'<ol class="moves">{"".join(entries)}</ol>' if entries else f'<p class="soft">{nothing}</p>'


def _form(base: str, heading: str | None, fields: str) -> str:
    title = f"<h3>{esc(heading)}</h3>" if heading else ""
    group = f'<div class="inline" role="group" aria-label="{esc(heading)}">' if heading else '<div class="inline">'
    return f'<form method="post" action="{esc(base)}/money">{title}{group}{fields}</div></form>'


def _button(action: str, text: str) -> str:
    return f'<button name="action" value="{action}">{esc(text)}</button>'


def _select(id: str, name: str, label: str, options: Mapping[str, str], chosen: str | None = None) -> str:
    values = "".join(
        f'<option value="{value}"{" selected" * (value == chosen)}>{esc(text)}</option>'
        for value, text in options.items()
    )
    return f'<label for="{esc(id)}">{esc(label)}</label><select id="{esc(id)}" name="{name}">{values}</select>'


def _in_words(names: Sequence[str]) -> dict[str, str]:
    return {name: name.replace("_", " ").capitalize() for name in names}


def _amount(id: str, payment: Payment, value: str) -> str:
    currency = payment.intent["currency"]
    mode = "decimal" if params.decimals(currency) else "numeric"
    return (
        f'<label for="{id}">Amount in {currency.upper()}</label><input id="{id}" name="amount" inputmode="{mode}" '
        f'autocomplete="off" maxlength="16" value="{esc(value)}">'
    )


def _time(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%-d %B %H:%M:%S UTC")


def receipt_page(session: objects.Row, intent: objects.Row, refunds: Sequence[objects.Row]) -> str:
    """Show what a customer has paid, and what of it they got back."""
    currency = intent["currency"]
    back = "".join(
        f"<div><dt>Refund of {_day(refund['created'])}{', under way' * (refund['status'] == 'pending')}</dt>"
        f"<dd>−{esc(params.money(refund['amount'], currency))}</dd></div>"
        for refund in refunds
        if refund["status"] != "failed"
    )
    kept = params.money(intent["amount"] - intent["amount_refunded"], currency)
    name = shop_name(session)
    method = "Test card •••• 4242" if intent["method"] == "card" else "Test bank account •••• 6789"
    body = (
        f'<div class="shop"><p class="soft">{esc(name)}</p>{BADGE}</div>'
        f'<section class="card"><h1>Receipt from {esc(name)}</h1><p class="soft small note">'
        f"Paid on {_day(intent['created'])} · {method} · {esc(intent['email'] or '')}<br>{esc(intent['charge'])}</p>"
        f"<dl>{items(session)}<div><dt>Paid</dt><dd>{esc(params.money(intent['amount'], currency))}</dd></div>"
        + (f"{back}<div><dt>Paid after refunds</dt><dd>{esc(kept)}</dd></div>" if back else "")
        + "</dl></section>"
    )
    return document(f"Receipt from {name}", body, "single")


def _day(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%-d %B %Y")
