"""Every way in which the server says no over HTTP: one table, one shape (RFC 9457)."""

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

from infra.seldom import Seldom
from models.errors import Overloaded, StripeRefused, StripeUnavailable, Unavailable
from models.outcomes import Refused, TooMany
from models.rest import FieldError, Problem

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1
"""What is away is usually back at once: a restart, a failover."""
OVERLOADED_RETRY_AFTER_S = 3
STRIPE_RETRY_AFTER_S = 3
"""By then the SDK's own tries at Stripe are over, and whatever they met may be too."""

PROBLEMS: dict[str, tuple[int, str]] = {
    "bad_signature": (400, "The signature does not match"),
    "bad_reset_token": (400, "The link is not good any more"),
    "malformed_json": (400, "The body is not JSON"),
    "malformed_request": (400, "The request is not HTTP"),
    "bad_credentials": (401, "Wrong e-mail address or password"),
    "unauthenticated": (401, "Not signed in"),
    "foreign_origin": (403, "Asked from a foreign page"),
    "wrong_role": (403, "Not for this kind of account"),
    "mechanic_not_found": (404, "No such mechanic"),
    "not_found": (404, "Not found"),
    "method_not_allowed": (405, "Method not allowed"),
    "request_timeout": (408, "The request took too long to arrive"),
    "already_reported": (409, "Reported already"),
    "already_in_session": (409, "Already in a session"),
    "email_taken": (409, "The e-mail address is taken"),
    "free_session_used": (409, "The free session has been used"),
    "idempotency_key_reused": (409, "The idempotency key was used for something else"),
    "no_subscription": (409, "No browser can be woken"),
    "offer_gone": (409, "The offer is gone"),
    "request_open": (409, "A request is still open"),
    "plan_not_offered": (409, "The mechanic does not take this kind of session"),
    "too_many_favorites": (409, "Too many favourites"),
    "wrong_state": (409, "Not possible in this state"),
    "body_too_large": (413, "The body is too large"),
    "checkout_refused": (422, "Stripe does not take this payment"),
    "push_endpoint_refused": (422, "Nothing can be sent to this push endpoint"),
    "push_keys_refused": (422, "The keys cannot encrypt"),
    "preferred_mechanic_required": (422, "A preferred mechanic is required"),
    "unknown_plan": (422, "No such plan"),
    "validation_failed": (422, "The request is not valid"),
    "too_many_attempts": (429, "Too many attempts"),
    "too_many_requests": (429, "Too many requests"),
    "head_too_large": (431, "The head of the request is too large"),
    "internal_error": (500, "Internal error"),
    "stripe_unavailable": (502, "Stripe did not answer"),
    "unavailable": (503, "Temporarily unavailable"),
}
"""The stable words that clients may switch on, each with its status and title."""

_CODE_OF_STATUS = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
_seldom = Seldom("http")
"""Anybody can ask again and again for what cannot be had."""


def problem(
    code: str, detail: str, *, errors: list[FieldError] | None = None, headers: dict[str, str] | None = None
) -> Response:
    """Return the answer for ``code``; ``detail`` is one sentence for a person and names nothing internal."""
    status, title = PROBLEMS[code]
    body = Problem(f"/problems/{code}", title, status, code, detail, errors if errors else msgspec.UNSET)
    extra = {"Cache-Control": "no-store", **(headers or {})}
    if status == 401:
        # RFC 9110 §15.5.2: a 401 must say how to authenticate.
        extra["WWW-Authenticate"] = "Bearer"
    return Response(msgspec.json.encode(body), status_code=status, media_type=MEDIA_TYPE, headers=extra)


def invalid(errors: list[FieldError]) -> Response:
    """Return the answer to what was sent and does not fit; ``errors`` name the members."""
    detail = " ".join(f"{error.field}: {error.message}" for error in errors)
    return problem("validation_failed", detail, errors=errors)


def refusal(refused: Refused) -> Response:
    """Return the answer for an expected outcome that is not success."""
    errors = None if refused.member is None else [FieldError(refused.member, refused.detail)]
    headers = {"Retry-After": str(refused.retry_after_s)} if isinstance(refused, TooMany) else None
    return problem(refused.code, refused.detail, errors=errors, headers=headers)


def failure(error: Exception, *, where: str) -> Response:
    """Return the answer for an exception and log it: a broken world as what is away, everything else as our fault.

    ``where`` is the route, for the log.
    """
    if isinstance(error, StripeUnavailable | StripeRefused):
        _seldom.error("stripe_failed", where, where=where, error=str(error))
        detail = "The payment service did not answer as it should. Please try again."
        return problem("stripe_unavailable", detail, headers={"Retry-After": str(STRIPE_RETRY_AFTER_S)})
    if isinstance(error, Overloaded):
        return problem(
            "too_many_requests", f"{error} Please try again.", headers={"Retry-After": str(OVERLOADED_RETRY_AFTER_S)}
        )
    if isinstance(error, Unavailable):
        _seldom.error("unavailable", where, where=where, error=f"{type(error).__name__}: {error}")
        detail = "A part of the service is not reachable just now. Please try again."
        return problem("unavailable", detail, headers={"Retry-After": str(RETRY_AFTER_S)})
    # Told apart by what was raised as well: one bug must not hide another.
    _seldom.error("internal_error", f"{where} {type(error).__name__}", where=where, exc_info=error)
    return problem("internal_error", "Something went wrong on our side. It has been logged.")


async def on_http_exception(_request: object, error: Exception) -> Response:
    """Starlette's own refusals (no such route, wrong method) in our shape."""
    assert isinstance(error, HTTPException), "registered for these alone"
    code = _CODE_OF_STATUS.get(error.status_code, "not_found")
    details = {
        "method_not_allowed": "This resource does not know that method; see the Allow header.",
        "body_too_large": "The body is too large.",
    }
    headers = dict(error.headers or {})
    return problem(code, details.get(code, "There is no such resource."), headers=headers)
