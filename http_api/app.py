"""All doors as one ASGI app: REST, the sockets, the pages."""

import time
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from http_api import cookies, metrics
from http_api.caller import caller_of
from http_api.pages import serving
from http_api.readiness import Readiness
from http_api.rest import openapi, resource
from http_api.rest.checks import Checks
from http_api.rest.login_limit import LoginLimit
from http_api.rest.operation import Operation
from http_api.rest.problems import failure, on_http_exception
from http_api.rest.rate_limit import RateLimit
from http_api.rest.routes import (
    accounts,
    checkout,
    favorites,
    health,
    hours,
    mechanics,
    offers,
    ops,
    own_account,
    passwords,
    preferences,
    push,
    requests,
    stripe_webhook,
    tickets,
)
from http_api.services import Services
from http_api.sockets import asyncapi
from http_api.sockets.hub import Hub
from http_api.sockets.numbers import SOCKETS
from models.settings import DoorSettings

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    # None of it is used by the pages, and so by nobody who gets a script into them.
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), hid=(), microphone=(), payment=(), serial=(), usb=()",
}
STRICT_TRANSPORT_SECURITY = "max-age=31536000"
"""A year, and this host alone: what its neighbours do is not ours to decide (RFC 6797 §6.1)."""


def create_app(services: Services, hub: Hub, *, mounts: Sequence[BaseRoute] = ()) -> Starlette:
    """Return the app. ``mounts`` are further routes that only ``run.py`` knows of."""
    base_url = services.settings.base_url
    table = operations(services)
    described = openapi.document(table, base_url=base_url)
    SOCKETS.hub = hub
    app = Starlette(
        routes=[
            *resource.routes(Checks(services.clock, services.tokens, services.settings), table),
            *hub.routes,
            *serving.routes(
                described,
                asyncapi.document(base_url=base_url),
                openapi.page(described),
                serving.content_security_policy(services.settings.own_origins),
            ),
            *mounts,
        ],
        middleware=[Middleware(EveryAnswer, services.settings)],
        exception_handlers={HTTPException: on_http_exception},
    )
    # A path with a slash too many is no resource; a redirect would turn a POST's bearer token loose on another path.
    app.router.redirect_slashes = False
    return app


def operations(its: Services) -> list[Operation]:
    """Return the whole table, in the order of the contract."""
    limit = LoginLimit(its.link, its.settings)
    registrations = RateLimit(its.link, "registrations", allowed=30, window_s=600)
    sign_ins_of_account = RateLimit(its.link, "sign_ins_of_account", allowed=100, window_s=600)
    tickets_of_account = RateLimit(its.link, "tickets_of_account", allowed=300, window_s=60)
    links = RateLimit(its.link, "password_links", allowed=20, window_s=600)
    return [
        *accounts.operations(its.accounts, its.revocations, limit, registrations, sign_ins_of_account, its.signing_in),
        *passwords.operations(its.accounts, its.revocations, limit, its.signing_in, its.forgotten, links),
        *own_account.operations(its.accounts, its.revocations, its.sign_ins, limit, its.erasure, its.departures),
        *mechanics.operations(its.presence, its.plans),
        *favorites.operations(its.favorites),
        *checkout.operations(its.plans, its.checkouts, its.reader),
        *stripe_webhook.operations(its.payments),
        *requests.operations(its.dispatch, its.reader),
        *offers.operations(its.dispatch, its.reader, its.past_offers),
        *preferences.operations(its.preferences),
        *hours.operations(its.hours),
        *push.operations(its.subscriptions, its.vapid),
        *tickets.operations(its.tickets, tickets_of_account),
        *ops.operations(its.ops, its.dispatch, its.refunds, its.accounts, its.revocations, its.departures),
        *health.operations(Readiness(its.database, its.link), its.numbers, its.settings.metrics_token),
    ]


class EveryAnswer:
    """What every HTTP answer passes: headers that harden it, a number for operators, and an end to every exception.

    Of sockets only the refusals are HTTP answers.
    """

    def __init__(self, app: ASGIApp, settings: DoorSettings) -> None:
        self._app = app
        self._trusted_proxies = settings.trusted_proxies
        self._is_https_anyway = settings.secure_cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_https = scope["type"] != "lifespan" and caller_of(scope, self._trusted_proxies).scheme == "https"

        async def send_refusal(message: Message) -> None:
            if message["type"] == "websocket.http.response.start":
                self._harden(MutableHeaders(scope=message), is_https=is_https)
            await send(message)

        if scope["type"] != "http":
            await self._app(scope, receive, send_refusal)
            return
        began_s = time.perf_counter()
        status = 0

        async def send_hardened(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._harden(MutableHeaders(scope=message), is_https=is_https)
            await send(message)

        try:
            await self._app(scope, receive, send_hardened)
        except Exception as error:
            if status:
                # Half an answer is out already; only the server can end it, by closing the connection.
                raise
            await failure(error, where=_route_of(scope))(scope, receive, send_hardened)
        finally:
            metrics.answered(scope["method"], _route_of(scope), status, time.perf_counter() - began_s)

    def _harden(self, headers: MutableHeaders, *, is_https: bool) -> None:
        for name, value in HEADERS.items():
            headers.setdefault(name, value)
        if is_https:
            headers.setdefault("Strict-Transport-Security", STRICT_TRANSPORT_SECURITY)
        plain = headers.getlist("set-cookie")
        if plain:
            del headers["set-cookie"]
            for cookie in plain:
                for dressed in cookies.dressed(cookie, is_https=is_https or self._is_https_anyway):
                    headers.append("set-cookie", dressed)


def _route_of(scope: Scope) -> str:
    """Return the template of the route that took the request, for labels and logs: never a path with ids in it."""
    route = scope.get("route")
    return getattr(route, "path", "") or "unmatched"
