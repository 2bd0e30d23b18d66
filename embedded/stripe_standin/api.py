"""The routes under ``/v1``: who asks, idempotency, and what each call does."""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from embedded.stripe_standin import money, objects, params, store
from embedded.stripe_standin.params import StripeError

BODY_BYTES_MAX = 256 * 1024
SERVER_ERROR = {"error": {"type": "api_error", "code": None, "message": "An unknown error occurred.", "param": None}}
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]

log = structlog.get_logger()


@dataclass(frozen=True)
class Call:
    """One API request, as its handler sees it. ``tree``: nested parameters, not yet checked."""

    conn: AsyncConnection
    path: dict[str, str]
    tree: dict[str, Any]
    request_id: str
    idempotency_key: str | None
    now_s: int

    @property
    def caused(self) -> dict[str, str | None]:
        return {"request_id": self.request_id, "idempotency_key": self.idempotency_key}


Handler = Callable[[Call], Awaitable[objects.JsonObject]]


class Api:
    """Stripe's API as far as Pitlane speaks it. ``on_events`` is called after a call that stored events."""

    def __init__(self, engine: AsyncEngine, *, api_key: str, public_url: str, on_events: Callable[[], None]) -> None:
        self._engine = engine
        self._api_key = api_key
        self._public_url = public_url
        self._on_events = on_events

    def routes(self) -> list[Route]:
        table: list[tuple[str, str, Handler]] = [
            ("POST", "/checkout/sessions", self._create_session),
            ("GET", "/checkout/sessions", self._list_sessions),
            ("GET", "/checkout/sessions/{id}", self._get_session),
            ("POST", "/checkout/sessions/{id}/expire", self._expire_session),
            ("GET", "/checkout/sessions/{id}/line_items", self._list_line_items),
            ("GET", "/payment_intents/{id}", self._get_payment_intent),
            ("GET", "/charges/{id}", self._get_charge),
            ("POST", "/refunds", self._create_refund),
            ("GET", "/refunds", self._list_refunds),
            ("GET", "/refunds/{id}", self._get_refund),
            ("GET", "/disputes", self._list_disputes),
            ("GET", "/disputes/{id}", self._get_dispute),
            ("GET", "/events", self._list_events),
            ("GET", "/events/{id}", self._get_event),
        ]
        routes = [Route(path, self._endpoint(handler), methods=[method]) for method, path, handler in table]
        return [*routes, Route("/{path:path}", self._endpoint(_unknown_route), methods=METHODS)]

    # The way of every request: key, version, parameters, idempotency, handler, answer.

    def _endpoint(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            request_id = objects.new_id("req_")
            headers = {"Request-Id": request_id, "Stripe-Version": objects.API_VERSION}
            key = request.headers.get("idempotency-key") if request.method == "POST" else None
            try:
                self._authenticate(request)
                _check_version(request)
                pairs = await _pairs(request)
                if key is None:
                    status, body = await self._perform(handler, request, pairs, request_id, None)
                else:
                    headers["Idempotency-Key"] = key
                    replay = await self._claim(request, key, pairs, request_id)
                    if replay is not None:
                        headers |= {"Idempotent-Replayed": "true", "Original-Request": replay.request_id}
                        status, body = replay.status, replay.body
                    else:
                        status, body = await self._perform(handler, request, pairs, request_id, key)
            except StripeError as refusal:
                status, body = refusal.status, json.dumps(refusal.body, indent=2)
            except store.TROUBLE as error:
                # Rolled back, and the key is free again (or soon is): Stripe calls this a lock time-out.
                log.warning("stripe_standin.database_unavailable", error=repr(error))
                trouble = StripeError(
                    "This object cannot be accessed right now. Try again.", status=429, code="lock_timeout"
                )
                headers["Stripe-Should-Retry"] = "true"
                status, body = trouble.status, json.dumps(trouble.body, indent=2)
            if status == 500:
                # Asking again would only be told the same.
                headers["Stripe-Should-Retry"] = "false"
            self._on_events()
            return Response(body, status, headers, media_type="application/json")

        return endpoint

    def _authenticate(self, request: Request) -> None:
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        given = credentials.strip() if scheme.lower() == "bearer" else ""
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(credentials, validate=True).decode().partition(":")[0]
            except ValueError:
                given = ""
        if not given:
            raise StripeError(
                "You did not provide an API key. You need to provide your API key in the Authorization header, using "
                "Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
                status=401,
            )
        if not hmac.compare_digest(given.encode(), self._api_key.encode()):
            raise StripeError(f"Invalid API Key provided: {given[:8]}****", status=401, code="api_key_invalid")

    async def _claim(
        self, request: Request, key: str, pairs: list[tuple[str, str]], request_id: str
    ) -> store.Replay | None:
        if not 1 <= len(key) <= 255:
            raise StripeError("Idempotency keys can be up to 255 characters long.", type="idempotency_error")
        what = json.dumps([request.method, request.path_params, request.url.path, sorted(pairs)])
        fingerprint = hashlib.sha256(what.encode()).hexdigest()
        async with store.transaction(self._engine) as conn:
            return await store.claim_key(conn, key, fingerprint, request_id)

    async def _perform(
        self, handler: Handler, request: Request, pairs: list[tuple[str, str]], request_id: str, key: str | None
    ) -> tuple[int, str]:
        """Run the handler and, in the same transaction, keep its answer under the idempotency key.

        Validation failures free the key; what was executed, bugs included, is what a retry will be told again.
        """
        try:
            async with store.transaction(self._engine) as conn:
                path = {**request.path_params, "method": request.method}
                call = Call(conn, path, params.nest(pairs), request_id, key, store.now_ms() // 1000)
                status, answer = await self._answer(handler, call)
                body = json.dumps(answer, indent=2)
                if key is not None and not await store.store_answer(conn, key, request_id, status, body):
                    raise StripeError(
                        "This request took too long and its idempotency key was taken over.",
                        status=409,
                        code="idempotency_key_in_use",
                    )
                return status, body
        except (StripeError, *store.TROUBLE):
            if key is not None:
                async with store.transaction(self._engine) as conn:
                    await store.release_key(conn, key, request_id)
            raise
        except Exception:
            if key is not None:
                async with store.transaction(self._engine) as conn:
                    await store.store_answer(conn, key, request_id, 500, json.dumps(SERVER_ERROR, indent=2))
            raise

    async def _answer(self, handler: Handler, call: Call) -> tuple[int, objects.JsonObject]:
        expand = params.shape({"expand": call.tree.get("expand", {})}, params.EXPAND)["expand"]
        try:
            answer = await handler(call)
        except StripeError as refusal:
            if not refusal.executed:
                raise
            return refusal.status, refusal.body
        for path in expand:
            await self._expand(call.conn, answer, path.split("."), path)
        return 200, answer

    async def _expand(self, conn: AsyncConnection, answer: objects.JsonObject, names: list[str], path: str) -> None:
        """Replace an id by its object, in place; ``names`` is what is left of the dotted ``path``."""
        name, *rest = names
        if answer.get("object") == "list" and name == "data" and rest:
            for item in answer["data"]:
                await self._expand(conn, item, rest, path)
            return
        kind = EXPANDABLE.get((answer.get("object"), name))
        if kind is None:
            raise StripeError(f"This property cannot be expanded ({path}).")
        held = answer["id"] if kind == "line_items" else answer[name]
        if isinstance(held, str):
            answer[name] = await self._expanded(conn, kind, held)
        if rest and answer[name] is not None:
            await self._expand(conn, answer[name], rest, path)

    async def _expanded(self, conn: AsyncConnection, kind: str, id: str) -> objects.JsonObject:
        if kind == "charge":
            row = await money.intent_of_charge(conn, id)
        else:
            row = await store.one(conn, store.sessions if kind == "line_items" else store.payment_intents, id)
        assert row is not None, f"an object names the unknown {id}"
        if kind == "charge":
            return objects.charge(row, self._public_url)
        return objects.line_items(row) if kind == "line_items" else objects.payment_intent(row)

    # Checkout Sessions

    def _session(self, row: objects.Row) -> objects.JsonObject:
        return objects.checkout_session(row, self._public_url)

    async def _create_session(self, call: Call) -> objects.JsonObject:
        wanted = params.session_create(call.tree, call.now_s)
        return self._session(await store.insert_session(call.conn, wanted, call.now_s))

    async def _get_session(self, call: Call) -> objects.JsonObject:
        params.shape(call.tree, params.EXPAND)
        return self._session(await _found(call, store.sessions, "checkout.session", param="session"))

    async def _list_sessions(self, call: Call) -> objects.JsonObject:
        page = params.page(call.tree, params.SESSION_LIST)
        columns = store.sessions.c
        conditions = [columns[name] == page[name] for name in ("status", "payment_intent") if name in page]
        rows, has_more = await store.listed(call.conn, store.sessions, conditions, page)
        return objects.list_object("/v1/checkout/sessions", [self._session(row) for row in rows], has_more)

    async def _list_line_items(self, call: Call) -> objects.JsonObject:
        params.page(call.tree, params.PAGE)
        return objects.line_items(await _found(call, store.sessions, "checkout.session", param="session"))

    async def _expire_session(self, call: Call) -> objects.JsonObject:
        params.shape(call.tree, params.EXPAND)
        expired = await store.expire_session(call.conn, call.path["id"])
        if expired is None:
            seen = await _found(call, store.sessions, "checkout.session", param="session")
            raise StripeError(
                'Only Checkout Sessions with a status in ["open"] can be expired. This Checkout Session has a '
                f"status of `{seen['status']}`.",
                executed=True,
            )
        snapshot = self._session(expired)
        await store.insert_events(call.conn, expired["id"], [("checkout.session.expired", snapshot)], **call.caused)
        return snapshot

    # Payment intents, charges, refunds

    async def _get_payment_intent(self, call: Call) -> objects.JsonObject:
        params.shape(call.tree, params.EXPAND)
        return objects.payment_intent(await _found(call, store.payment_intents, "payment_intent", param="intent"))

    async def _get_charge(self, call: Call) -> objects.JsonObject:
        params.shape(call.tree, params.EXPAND)
        row = await money.intent_of_charge(call.conn, call.path["id"])
        if row is None:
            raise _no_such("charge", call.path["id"], "charge")
        return objects.charge(row, self._public_url)

    async def _create_refund(self, call: Call) -> objects.JsonObject:
        wanted = params.refund_create(call.tree)
        if "charge" in wanted:
            seen, what = await money.intent_of_charge(call.conn, wanted["charge"]), "charge"
        else:
            seen, what = await store.one(call.conn, store.payment_intents, wanted["payment_intent"]), "payment_intent"
        if seen is None:
            raise _no_such(what, wanted[what], what)
        if "amount" in wanted:
            params.refund_amount(wanted["amount"], seen["currency"])
        fault = await money.use_fault(call.conn, seen["id"])
        if fault == "balance_insufficient":
            raise StripeError(
                "Insufficient funds in your Stripe account to refund this amount. Add funds to your balance, or wait "
                "for payments to become available.",
                code="balance_insufficient",
                executed=True,
            )
        if fault == "error":
            raise _server_error()
        status = "pending" if fault == "pending" else "succeeded"
        done = await money.refund(call.conn, seen["id"], wanted, self._public_url, status=status, **call.caused)
        if isinstance(done, str):
            now = await store.one(call.conn, store.payment_intents, seen["id"])
            assert now is not None
            raise _not_refundable(done, now, wanted.get("amount"))
        if fault == "error_after":
            raise _server_error()
        return objects.refund(done[0], is_new=True)

    async def _get_refund(self, call: Call) -> objects.JsonObject:
        params.shape(call.tree, params.EXPAND)
        return objects.refund(await _found(call, store.refunds, "refund", param="id"))

    async def _list_refunds(self, call: Call) -> objects.JsonObject:
        page = params.page(call.tree, params.REFUND_LIST)
        columns = store.refunds.c
        conditions = [columns[name] == page[name] for name in ("payment_intent", "charge") if name in page]
        rows, has_more = await store.listed(call.conn, store.refunds, conditions, page)
        return objects.list_object("/v1/refunds", [objects.refund(row) for row in rows], has_more)

    # Disputes

    async def _get_dispute(self, call: Call) -> objects.JsonObject:
        params.shape(call.tree, params.EXPAND)
        return objects.dispute(await _found(call, store.disputes, "dispute", param="dispute"))

    async def _list_disputes(self, call: Call) -> objects.JsonObject:
        page = params.page(call.tree, params.DISPUTE_LIST)
        columns = store.disputes.c
        conditions = [columns[name] == page[name] for name in ("payment_intent", "charge") if name in page]
        rows, has_more = await store.listed(call.conn, store.disputes, conditions, page)
        return objects.list_object("/v1/disputes", [objects.dispute(row) for row in rows], has_more)

    # Events

    async def _get_event(self, call: Call) -> objects.JsonObject:
        params.shape(call.tree, params.EXPAND)
        event: objects.JsonObject = json.loads((await _found(call, store.events, "event", param="id"))["payload"])
        return event

    async def _list_events(self, call: Call) -> objects.JsonObject:
        page = params.page(call.tree, params.EVENT_LIST)
        types = page.get("types", []) + ([page["type"]] if "type" in page else [])
        conditions = [sa.or_(*(_of_type(type) for type in types))] if types else []
        rows, has_more = await store.listed(call.conn, store.events, conditions, page)
        return objects.list_object("/v1/events", [json.loads(row["payload"]) for row in rows], has_more)


def _of_type(type: str) -> sa.ColumnElement[bool]:
    """Match an event type, in which ``*`` is a wildcard as in ``checkout.session.*``."""
    return store.events.c.type.like(type.replace("*", "%"))


async def _pairs(request: Request) -> list[tuple[str, str]]:
    """Return the parameters of a request, from the query of a GET and the form body of a POST."""
    raw = request.url.query.encode()
    if request.method == "POST":
        raw = b""
        async for chunk in request.stream():
            raw += chunk
            if len(raw) > BODY_BYTES_MAX:
                raise StripeError("Request body too large.", status=413)
    try:
        return parse_qsl(raw.decode(), keep_blank_values=True, errors="strict", max_num_fields=2000)
    except ValueError as error:
        raise StripeError("Invalid request: the parameters are not well-formed.") from error


def _check_version(request: Request) -> None:
    version = request.headers.get("stripe-version", objects.API_VERSION)
    if version != objects.API_VERSION:
        known = re.fullmatch(r"20\d\d-\d\d-\d\d(\.[a-z]+)?", version)
        what = f"This stand-in only speaks {objects.API_VERSION}" if known else "See https://docs.stripe.com/upgrades"
        raise StripeError(f"Invalid Stripe API version: {version}. {what}.")


async def _unknown_route(call: Call) -> objects.JsonObject:
    raise StripeError(
        f"Unrecognized request URL ({call.path['method']}: /v1/{call.path['path']}). If you are trying to list "
        "objects, remove the trailing slash. If you are trying to retrieve an object, make sure you passed a valid (non-empty) "
        "identifier in your code. This stand-in answers only the calls Pitlane makes.",
        status=404,
    )


def _no_such(what: str, id: str, param: str) -> StripeError:
    return StripeError(f"No such {what}: '{id}'", status=404, code="resource_missing", param=param)


async def _found(call: Call, table: sa.Table, what: str, *, param: str) -> objects.Row:
    row = await store.one(call.conn, table, call.path["id"])
    if row is None:
        raise _no_such(what, call.path["id"], param)
    return row


def _server_error() -> StripeError:
    """Return the error that Stripe makes: of its own, and stored under the idempotency key like any other answer."""
    return StripeError("An unknown error occurred.", status=500, type="api_error", executed=True)


def _not_refundable(why: money.Refusal, intent: objects.Row, amount: int | None) -> StripeError:
    charge, currency = intent["charge"], intent["currency"]
    if why == "unpaid":
        message = f"This PaymentIntent ({intent['id']}) does not have a successful charge to refund."
        return StripeError(message, executed=True)
    if why == "disputed":
        message = f"Charge {charge} has been charged back; cannot issue a refund."
        return StripeError(message, code="charge_disputed", executed=True)
    if why == "refunded":
        message = f"Charge {charge} has already been refunded."
        return StripeError(message, code="charge_already_refunded", executed=True)
    assert amount is not None
    asked, left = params.money(amount, currency), params.money(intent["amount"] - intent["amount_refunded"], currency)
    limit = f"unrefunded amount on charge ({left})" if intent["amount_refunded"] else f"charge amount ({left})"
    message = f"Refund amount ({asked}) is greater than {limit}"
    return StripeError(message, code="amount_too_large", param="amount", executed=True)


# What each member that holds an id can be expanded to.
EXPANDABLE: dict[tuple[Any, str], str] = {
    ("checkout.session", "payment_intent"): "payment_intent",
    ("checkout.session", "line_items"): "line_items",
    ("payment_intent", "latest_charge"): "charge",
    ("charge", "payment_intent"): "payment_intent",
    ("refund", "payment_intent"): "payment_intent",
    ("refund", "charge"): "charge",
    ("dispute", "payment_intent"): "payment_intent",
    ("dispute", "charge"): "charge",
}
