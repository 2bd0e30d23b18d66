"""What people, banks and Stripe itself do to money that was paid, each by a form on ``/pay/{session}/money``."""

from collections.abc import Awaitable, Callable, Collection

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from embedded.stripe_standin import html, money, money_html, objects, params, store
from embedded.stripe_standin.pages import Pages, page, see

Form = dict[str, str]


class Unplayable(Exception):
    """A form that cannot be worked on: what to say about it, and the status of the answer."""

    def __init__(self, text: str, status: int = 422) -> None:
        super().__init__(text)
        self.text = text
        self.status = status


class MoneyPages:
    """The page of money and the receipt, beside the other ``pages`` of a Session."""

    def __init__(self, engine: AsyncEngine, pages: Pages, public_url: str) -> None:
        self._engine = engine
        self._pages = pages
        self._public_url = public_url

    def routes(self) -> list[Route]:
        return [
            Route("/receipts/{charge}", self._show_receipt, methods=["GET"]),
            Route("/{id}/money", self._pages.guarded(self._show), methods=["GET"]),
            Route("/{id}/money", self._pages.guarded(self._play), methods=["POST"]),
        ]

    async def _show_receipt(self, request: Request) -> Response:
        async with store.transaction(self._engine) as conn:
            intent = await money.intent_of_charge(conn, request.path_params["charge"])
            if intent is None or intent["status"] != "succeeded":
                text = "There is no such receipt. The link may be incomplete."
                return page(html.message_page("Page not found", text), 404)
            session = await store.one(conn, store.sessions, intent["session"])
            assert session is not None
            refunds = await money.refunds_of(conn, intent["id"])
        return page(money_html.receipt_page(session, intent, refunds))

    async def _show(self, session: objects.Row, form: Form) -> Response:
        return await self._page(session)

    async def _page(
        self, session: objects.Row, problem: Unplayable | None = None, typed: Form | None = None
    ) -> Response:
        base = self._pages.base(session)
        async with store.transaction(self._engine) as conn:
            intent = await _paid(conn, session)
            if intent is None:
                text = "Nothing was paid with this Session, or the money is still on its way."
                return page(html.message_page("There is no money here", text, base), 404)
            payment = money_html.Payment(
                session,
                intent,
                await money.refunds_of(conn, intent["id"]),
                await money.disputes_of(conn, intent["id"]),
                await money.fault_of(conn, intent["id"]),
            )
        if problem is None:
            return page(money_html.money_page(payment, base))
        return page(money_html.money_page(payment, base, problem=problem.text, typed=typed or {}), problem.status)

    async def _play(self, session: objects.Row, form: Form) -> Response:
        """Do what the posted form says, and wait a little for the webhooks to be answered.

        A form has an ``action``, and its fields (those in brackets may be left out):

        ============ ========================================================================================
        refund       [amount] such as ``10.00``, in the currency's own decimals, else all that is left;
                     [outcome] ``succeeded`` or ``pending``. As by a person in the dashboard: without metadata
        settle       refund: a pending one succeeds
        fail         refund: a pending or succeeded one fails; [failure_reason] one of `money.FAILURE_REASONS`
        dispute      [kind] ``chargeback`` or ``inquiry``; [reason] one of `money.DISPUTE_REASONS`; [amount], else
                     the whole payment
        review       dispute: evidence was handed in, of a dispute or an inquiry
        win, lose    dispute: it is closed like that
        close        dispute: an inquiry is closed
        escalate     dispute: an inquiry becomes a dispute
        fault        fault: ``none`` or one of `money.FAULTS`; [times] the next refunds by API that it happens to
        ============ ========================================================================================

        Answers 303 to the page, 422 to what makes no sense, 409 to what cannot happen (any more), and 404 where
        nothing was paid.
        """
        try:
            async with store.transaction(self._engine) as conn:
                intent = await _paid(conn, session)
                events = [] if intent is None else await self._move(conn, intent, form)
        except Unplayable as problem:
            return await self._page(session, problem, form)
        if intent is None:
            return await self._page(session)
        await self._pages.deliver(events)
        return see(f"{self._pages.base(session)}/money")

    async def _move(self, conn: AsyncConnection, intent: objects.Row, form: Form) -> list[str]:
        """Return the ids of the events of what a form says; raises `Unplayable`."""
        action = form.get("action", "")
        moves: dict[str, Callable[[AsyncConnection, objects.Row, Form], Awaitable[list[str]]]] = {
            "refund": self._refund,
            "settle": _settle,
            "fail": _fail,
            "dispute": _dispute,
            "fault": _fault,
            **dict.fromkeys(money.MOVES, _move_dispute),
        }
        if action not in moves:
            raise Unplayable("This page has no such button.")
        return await moves[action](conn, intent, form)

    async def _refund(self, conn: AsyncConnection, intent: objects.Row, form: Form) -> list[str]:
        amount = _amount(form, intent)
        wanted = {} if amount is None else {"amount": amount}
        outcome = _one_of(form, "outcome", money_html.REFUND_OUTCOMES)
        done = await money.refund(conn, intent["id"], wanted, self._public_url, status=outcome)
        if isinstance(done, str):
            left = params.money(intent["amount"] - intent["amount_refunded"], intent["currency"])
            text = {
                "unpaid": "Nothing was paid.",
                "disputed": "The bank has the money: a dispute of this payment is open or lost.",
                "refunded": "Everything was refunded already.",
                "too_much": f"No more than {left} can be refunded.",
            }
            raise Unplayable(text[done], 409)
        return done[1]


async def _settle(conn: AsyncConnection, intent: objects.Row, form: Form) -> list[str]:
    events = await money.settle_refund(conn, intent, form.get("refund", ""))
    if events is None:
        raise Unplayable("This refund is not pending (any more).", 409)
    return events


async def _fail(conn: AsyncConnection, intent: objects.Row, form: Form) -> list[str]:
    reason = _one_of(form, "failure_reason", money.FAILURE_REASONS)
    events = await money.fail_refund(conn, intent, form.get("refund", ""), reason)
    if events is None:
        raise Unplayable("This refund has failed already.", 409)
    return events


async def _dispute(conn: AsyncConnection, intent: objects.Row, form: Form) -> list[str]:
    amount = _amount(form, intent) or intent["amount"]
    if amount > intent["amount"]:
        raise Unplayable(f"No more was paid than {params.money(intent['amount'], intent['currency'])}.")
    is_inquiry = _one_of(form, "kind", money_html.DISPUTE_KINDS) == "inquiry"
    reason = _one_of(form, "reason", money.DISPUTE_REASONS)
    events = await money.open_dispute(conn, intent["id"], reason, amount, is_inquiry=is_inquiry)
    if events is None:
        raise Unplayable("There is a dispute already that is open or lost.", 409)
    return events


async def _move_dispute(conn: AsyncConnection, intent: objects.Row, form: Form) -> list[str]:
    events = await money.move_dispute(conn, intent, form.get("dispute", ""), money.MOVES[form["action"]])
    if events is None:
        raise Unplayable("That cannot happen to this dispute (any more).", 409)
    return events


async def _fault(conn: AsyncConnection, intent: objects.Row, form: Form) -> list[str]:
    kind = _one_of(form, "fault", (money_html.NO_FAULT, *money.FAULTS))
    times = form.get("times", "1").strip()
    if not times.isascii() or not times.isdecimal() or not 1 <= int(times[:9]) <= money.FAULT_TIMES_MAX:
        raise Unplayable(f"How often? From 1 to {money.FAULT_TIMES_MAX} times.")
    if kind == money_html.NO_FAULT:
        await money.set_fault(conn, intent["id"], kind, 0)
    else:
        await money.set_fault(conn, intent["id"], kind, int(times))
    return []


async def _paid(conn: AsyncConnection, session: objects.Row) -> objects.Row | None:
    """Return the payment intent of a Session if its money has arrived."""
    intent = await store.one(conn, store.payment_intents, session["payment_intent"] or "")
    return intent if intent is not None and intent["status"] == "succeeded" else None


def _amount(form: Form, intent: objects.Row) -> int | None:
    """Return the amount that somebody typed, in minor units; ``None`` when the field was left empty."""
    typed, currency = form.get("amount", "").strip(), intent["currency"]
    if not typed:
        return None
    amount = params.minor_units(typed, currency)
    if not amount:
        raise Unplayable(f"Type an amount such as {params.plain(intent['amount'], currency)}.")
    try:
        return params.refund_amount(amount, currency)
    except params.StripeError as refusal:
        raise Unplayable(str(refusal)) from refusal


def _one_of(form: Form, name: str, choices: Collection[str]) -> str:
    """Return what was chosen, the first of ``choices`` if nothing was."""
    first, *_ = choices
    chosen = form.get(name, first)
    if chosen not in choices:
        raise Unplayable(f"There is no such {name.replace('_', ' ')}.")
    return chosen
