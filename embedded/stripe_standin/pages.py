"""The hosted payment page and what its buttons do, under ``/pay``. No script needed.

What is played after a payment has a page of its own, ``money_pages.py``.
"""

from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl, quote, urlsplit

from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from embedded.stripe_standin import html, objects, params, store
from embedded.stripe_standin.webhooks import Deliverer

# Stripe holds the customer back for up to ten seconds until the webhook was answered; people are patient for three.
WEBHOOK_WAIT_S = 3.0
FORM_BYTES_MAX = 16 * 1024
HEADERS = {
    "Content-Security-Policy": html.CONTENT_SECURITY_POLICY,
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    # The address is a secret of sorts; but "no-referrer" would also turn a form's Origin into "null".
    "Referrer-Policy": "same-origin",
}
DECLINED = "Your card was declined. Nothing was charged: try again."


class Pages:
    """Pages over one store; ``deliverer`` is told about new events and asked whether they arrived."""

    def __init__(self, engine: AsyncEngine, deliverer: Deliverer, public_url: str) -> None:
        self._engine = engine
        self._deliverer = deliverer
        self._public_url = public_url

    def routes(self) -> list[Route]:
        return [
            Route("/{id}", self.guarded(self._show), methods=["GET"]),
            Route("/{id}", self.guarded(self._end), methods=["POST"]),
            Route("/{id}/settle", self.guarded(self._settle), methods=["POST"]),
            Route("/{id}/events", self.guarded(self._show_events), methods=["GET"]),
            Route("/{id}/events", self.guarded(self._play_events), methods=["POST"]),
        ]

    def guarded(
        self, handler: Callable[[objects.Row, dict[str, str]], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return an endpoint that hands the Session of the path and the posted form on, if it comes from here."""

        async def endpoint(request: Request) -> Response:
            origin = request.headers.get("origin")
            if request.method == "POST" and origin is not None and not same_origin(origin, self._public_url):
                return page(html.message_page("Refused", "This form was sent from another site."), 403)
            async with store.transaction(self._engine) as conn:
                session = await store.one(conn, store.sessions, request.path_params["id"])
            if session is None:
                text = "There is no such payment page. The link may be incomplete."
                return page(html.message_page("Page not found", text), 404)
            return await handler(session, await _form(request))

        return endpoint

    def base(self, session: objects.Row) -> str:
        """Return the address of a Session's page."""
        return f"{self._public_url}/pay/{quote(session['id'])}"

    async def _show(self, session: objects.Row, form: dict[str, str]) -> Response:
        if _is_open(session):
            return page(html.pay_page(session, self.base(session)))
        return await self._show_closed(session["id"])

    async def _show_closed(self, session_id: str, status: int = 200) -> Response:
        async with store.transaction(self._engine) as conn:
            session = await store.one(conn, store.sessions, session_id)
            assert session is not None
            intent_id = session["payment_intent"]
            intent = await store.one(conn, store.payment_intents, intent_id) if intent_id else None
        if session["status"] == "open":  # its time is up, and the sweep that says so has not come by yet
            session = {**session, "status": "expired"}
        is_paid = session["status"] == "complete"
        return_url = _success_url(session) if is_paid else session["params"].get("cancel_url")
        return page(html.closed_page(session, self.base(session), intent, return_url), status)

    async def _end(self, session: objects.Row, form: dict[str, str]) -> Response:
        ending, email = form.get("ending", "pay"), form.get("email", "").strip()
        if not _is_open(session):
            return await self._show_closed(session["id"], 409)
        cancel_url = session["params"].get("cancel_url")
        if ending == "back" and cancel_url is not None:
            return see(cancel_url)
        if ending == "expire":
            return await self._expire(session)
        if ending == "decline":
            return page(html.pay_page(session, self.base(session), error=DECLINED, email=email))
        if ending == "pay" or (ending == "delayed" and "us_bank_account" in objects.payment_methods(session)):
            if email and not params.is_email(email):
                error = "That does not look like an email address."
                return page(html.pay_page(session, self.base(session), error=error, email=email), 422)
            return await self._pay(session, email or None, is_delayed=ending == "delayed")
        return page(html.message_page("Unknown button", "This page has no such ending.", self.base(session)), 422)

    async def _pay(self, session: objects.Row, email: str | None, *, is_delayed: bool) -> Response:
        events: list[str] = []
        intent: objects.Row | None = None
        async with store.transaction(self._engine) as conn:
            now_s = store.now_ms() // 1000
            completed = await store.complete_session(conn, session, delayed=is_delayed, email=email, now_s=now_s)
            if completed is not None:
                session, intent = completed
                snapshot = objects.checkout_session(session, self._public_url)
                happened = [("checkout.session.completed", snapshot)]
                if intent is not None and intent["status"] == "succeeded":
                    happened.insert(0, ("payment_intent.succeeded", objects.payment_intent(intent)))
                events = await store.insert_events(conn, session["id"], happened)
        if completed is None:  # someone was faster: another tab, another node, the clock
            return await self._show_closed(session["id"], 409)
        await self.deliver(events)
        return see(self.base(session) if is_delayed and intent is not None else _success_url(session))

    async def _expire(self, session: objects.Row) -> Response:
        events: list[str] = []
        async with store.transaction(self._engine) as conn:
            expired = await store.expire_session(conn, session["id"])
            if expired is not None:
                snapshot = objects.checkout_session(expired, self._public_url)
                events = await store.insert_events(conn, expired["id"], [("checkout.session.expired", snapshot)])
        if expired is None:
            return await self._show_closed(session["id"], 409)
        await self.deliver(events)
        return see(self.base(session))

    async def _settle(self, session: objects.Row, form: dict[str, str]) -> Response:
        is_success = form.get("outcome") == "succeed"
        events: list[str] = []
        async with store.transaction(self._engine) as conn:
            settled = await store.settle_delayed(conn, session["id"], succeeds=is_success)
            if settled is not None:
                snapshot = objects.checkout_session(settled[0], self._public_url)
                happened = [("checkout.session.async_payment_failed", snapshot)]
                if is_success:
                    happened = [
                        ("payment_intent.succeeded", objects.payment_intent(settled[1])),
                        ("checkout.session.async_payment_succeeded", snapshot),
                    ]
                events = await store.insert_events(conn, session["id"], happened)
        if settled is None:
            return await self._show_closed(session["id"], 409)
        await self.deliver(events)
        return see(self.base(session))

    async def deliver(self, event_ids: list[str]) -> None:
        """Send these events, and wait a little for the answers, so that whoever pressed a button sees what it did."""
        self._deliverer.wake()
        await self._deliverer.answered(event_ids, WEBHOOK_WAIT_S)

    async def _show_events(self, session: objects.Row, form: dict[str, str]) -> Response:
        async with store.transaction(self._engine) as conn:
            events = await store.events_of(conn, session["id"])
        return page(html.events_page(session, self.base(session), events))

    async def _play_events(self, session: objects.Row, form: dict[str, str]) -> Response:
        action = form.get("action")
        async with store.transaction(self._engine) as conn:
            if action == "mode" and form.get("mode") in store.DELIVERY_MODES:
                await store.set_delivery_mode(conn, session["id"], form["mode"])
            elif action == "release":
                await store.release_held(conn, session)
            elif action in ("again", "twin"):
                event = await store.one(conn, store.events, form.get("event", ""))
                if event is not None and event["session"] == session["id"]:
                    await store.send_again(conn, event, as_twin=action == "twin")
        self._deliverer.wake()
        return see(f"{self.base(session)}/events")


def same_origin(origin: str, public_url: str) -> bool:
    """Tell whether a form came from our own pages; the names of this machine count as one."""
    return _origin(origin) == _origin(public_url)


def _origin(url: str) -> tuple[str, str, int | None] | None:
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None
    host = parts.hostname or ""
    return parts.scheme, "localhost" if host in ("127.0.0.1", "::1") else host, port


def _is_open(session: objects.Row) -> bool:
    return bool(session["status"] == "open" and session["expires_at"] > store.now_ms() // 1000)


def _success_url(session: objects.Row) -> str:
    url: str = session["params"]["success_url"]
    return url.replace("{CHECKOUT_SESSION_ID}", session["id"])


async def _form(request: Request) -> dict[str, str]:
    """Return the fields of a posted form; a body that is too long or not text counts as empty."""
    raw = b""
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > FORM_BYTES_MAX:
            return {}
    return dict(parse_qsl(raw.decode(errors="replace"), keep_blank_values=True))


def page(text: str, status: int = 200) -> Response:
    return HTMLResponse(text, status, HEADERS)


def see(url: str) -> Response:
    return RedirectResponse(url, 303, HEADERS)
