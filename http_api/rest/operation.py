"""What an operation of the REST interface is, and the one wrapper around all of them.

Routes declare their operations as data: who may, what comes in, what goes out, what can go wrong. The wrapper checks what
comes in, in the contract's order, and ``openapi.py`` publishes the same declarations; so the document cannot drift.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import msgspec
import structlog
from msgspec import Struct
from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from http_api.auth import Identity, origin_is_ours, token_of
from http_api.rest.problems import PROBLEMS, failure, problem, refusal
from http_api.services import Services
from models.ids import is_id
from models.outcomes import Refused
from models.rest import FieldError

SAFE_METHODS = frozenset({"GET", "HEAD"})

ANYONE = None
SIGNED_IN = frozenset({"customer", "mechanic", "admin"})
CUSTOMER = frozenset({"customer"})
MECHANIC = frozenset({"mechanic"})
CUSTOMER_OR_MECHANIC = frozenset({"customer", "mechanic"})
ADMIN = frozenset({"admin"})


class NoBody(Struct, forbid_unknown_fields=True):
    """What a write without a body may carry all the same: nothing, ``null`` or ``{}``."""


@dataclass(frozen=True)
class RawBody:
    """A body that the operation wants byte for byte, because somebody has signed it."""

    len_max: int


@dataclass(frozen=True)
class HeaderParameter:
    """An optional request header with a form."""

    name: str
    pattern: str
    description: str


@dataclass(frozen=True)
class Call:
    """One request that has passed every check, as its operation sees it."""

    services: Services
    path: Mapping[str, str]
    query: Any
    headers: Headers
    body: Any
    received_at_ms: int
    client_address: str
    maybe_identity: Identity | None

    @property
    def identity(self) -> Identity:
        """Who calls; only for operations that somebody must be signed in for."""
        assert self.maybe_identity is not None
        return self.maybe_identity

    @property
    def account_id(self) -> str:
        """The id of who calls."""
        return self.identity.account_id


@dataclass(frozen=True)
class Answer:
    """A success that needs more than a value: its own status, headers, or a text instead of JSON."""

    status: int
    value: Struct | bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Call], Awaitable[Struct | Answer | Refused | Response | None]]

Carried = type[Struct] | tuple[type[Struct], ...] | type[str] | None
"""What an answer carries: one kind of object, one of several kinds, a text that is no JSON, or nothing."""


@dataclass(frozen=True)
class Operation:
    """One method of one path.

    ``roles`` ``None``: anyone, without signing in. ``answers``: each status of success with what it carries; a plain value
    is answered with the first. ``problems``: the codes of its own, beyond those that its other members imply.
    """

    method: str
    path: str
    handler: Handler
    roles: frozenset[str] | None
    answers: Mapping[int, Carried]
    body: type[Struct] | RawBody | None = None
    body_is_optional: bool = False
    query: type[Struct] | None = None
    header: HeaderParameter | None = None
    problems: tuple[str, ...] = ()
    unknown_id: str = "not_found"
    """The code for a path whose id cannot be one."""
    media_type: str = "application/json"

    @property
    def name(self) -> str:
        """The operation's id in the published document."""
        return self.handler.__name__

    @property
    def summary(self) -> str:
        """What it does, in one sentence."""
        return (self.handler.__doc__ or self.name).strip().partition("\n")[0]

    @property
    def description(self) -> str:
        """The rest of what there is to say."""
        rest = (self.handler.__doc__ or "").strip().partition("\n")[2]
        return "\n".join(line.strip() for line in rest.strip().splitlines())

    @property
    def path_parameters(self) -> list[str]:
        """The names between braces."""
        return re.findall(r"{(\w+)}", self.path)

    @property
    def is_write(self) -> bool:
        return self.method not in SAFE_METHODS

    @property
    def codes(self) -> list[str]:
        """Every code that it may refuse with."""
        codes = set(self.problems) | {"internal_error"}
        if self.roles is not None:
            codes.add("unauthenticated")
            if self.roles != SIGNED_IN:
                codes.add("wrong_role")
            if self.is_write:
                codes.add("foreign_origin")
        if self.path_parameters:
            codes.add(self.unknown_id)
        if self.body is not None:
            codes.add("body_too_large")
        if isinstance(self.body, type):
            codes |= {"malformed_json", "validation_failed"}
        if self.query is not None or self.header is not None:
            codes.add("validation_failed")
        return sorted(codes)


def operation(
    method: str,
    path: str,
    *,
    roles: frozenset[str] | None,
    answers: Mapping[int, Carried],
    **more: Any,
) -> Callable[[Handler], Operation]:
    """Turn a handler into an ``Operation``; a write that declares no body gets ``NoBody``."""
    if method not in SAFE_METHODS and "body" not in more:
        more |= {"body": NoBody, "body_is_optional": True}

    def declare(handler: Handler) -> Operation:
        return Operation(method, path, handler, roles, answers, **more)

    return declare


class Resource:
    """All operations of one path, as an ASGI app."""

    def __init__(self, services: Services, operations: Sequence[Operation]) -> None:
        self.template = operations[0].path
        self._services = services
        self._operations = {operation.method: operation for operation in operations}
        if "GET" in self._operations:
            self._operations["HEAD"] = self._operations["GET"]
        self._allow = ", ".join(sorted(self._operations))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        called = self._operations.get(scope["method"])
        if called is None:
            detail = f"This resource knows {self._allow}."
            response = problem("method_not_allowed", detail, headers={"Allow": self._allow})
        else:
            try:
                response = await perform(called, self._services, scope, receive)
            except ClientDisconnect:
                return
            except Exception as error:  # noqa: BLE001
                # The outermost edge of an operation: whatever it is, it is logged there and the client gets an answer.
                response = failure(error, where=f"{called.method} {called.path}")
        await response(scope, receive, send)


async def perform(called: Operation, services: Services, scope: Scope, receive: Receive) -> Response:
    """Check, in the contract's order, who asks, whether they may, from where, and only then what; then do it."""
    received_at_ms = services.clock.now_ms()
    headers = Headers(scope=scope)
    identity, refused = _admit(called, services, headers, now_s=received_at_ms // 1000)
    if refused is not None:
        return refused
    path = scope.get("path_params", {})
    if not all(is_id(value) for value in path.values()):
        return problem(called.unknown_id, f"{PROBLEMS[called.unknown_id][1]}.")
    try:
        _check_header(called.header, headers)
        call = Call(
            services=services,
            path=path,
            query=_query(called.query, scope),
            headers=headers,
            body=await _body(called, services, headers, receive),
            received_at_ms=received_at_ms,
            client_address=(scope.get("client") or ("", 0))[0],
            maybe_identity=identity,
        )
    except _Unfit as unfit:
        return unfit.response
    return _answer(called, await called.handler(call))


def _admit(
    called: Operation, services: Services, headers: Headers, *, now_s: int
) -> tuple[Identity | None, Response | None]:
    """Return who calls, if anyone we know, and the refusal if they may not."""
    carried = token_of(headers.raw)
    identity = services.tokens.verify(carried[0], now_s=now_s, via=carried[1]) if carried else None
    if called.roles is None:
        # Whoever has an old cookie must still be able to sign in.
        return identity, None
    if identity is None:
        wanted = "a bearer token or the session cookie" if carried is None else "a token that is valid and not expired"
        return None, problem("unauthenticated", f"Sign in first: this needs {wanted}.")
    if identity.role not in called.roles:
        needed = " or ".join(sorted(called.roles))
        return None, problem("wrong_role", f"This needs an account of the kind {needed}; yours is {identity.role}.")
    origin = headers.get("origin")
    # Browsers always say from which page a write comes; programs that keep cookies need not.
    is_cookie_write = called.is_write and identity.via == "cookie"
    if is_cookie_write and origin is not None and not origin_is_ours(origin, services.settings):
        base_url = services.settings.base_url
        return None, problem("foreign_origin", f"Writes with the session cookie must come from {base_url}.")
    return identity, None


class _Unfit(Exception):
    """What came in cannot be worked on; raised and caught in this module only."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


def _answer(called: Operation, result: Struct | Answer | Refused | Response | None) -> Response:
    if isinstance(result, Response):
        return result
    if isinstance(result, Refused):
        if result.code not in called.codes:
            structlog.get_logger("http").error("undeclared_problem", operation=called.name, code=result.code)
        return refusal(result)
    if not isinstance(result, Answer):
        result = Answer(next(iter(called.answers)), result)
    assert result.status in called.answers, f"{called.name} does not declare {result.status}"
    response = Response(status_code=result.status, media_type=called.media_type)
    if result.value is not None:
        content = result.value if isinstance(result.value, bytes) else msgspec.json.encode(result.value)
        response = Response(content, status_code=result.status, media_type=called.media_type)
    headers = MutableHeaders(raw=response.raw_headers)
    headers["Cache-Control"] = "no-store"
    for name, value in result.headers.items():
        headers[name] = value
    return response


def _check_header(parameter: HeaderParameter | None, headers: Headers) -> None:
    if parameter is None or (value := headers.get(parameter.name)) is None:
        return
    if not re.fullmatch(parameter.pattern, value):
        raise _Unfit(_invalid([FieldError(parameter.name, parameter.description)]))


def _query(expected: type[Struct] | None, scope: Scope) -> Struct | None:
    if expected is None:
        return None
    given = QueryParams(scope["query_string"])
    values: dict[str, Any] = {}
    for name, is_list in _members(expected):
        # An empty one is one that was left out: forms send those.
        if texts := [text for text in given.getlist(name) if text]:
            values[name] = ",".join(texts).split(",") if is_list else texts[-1]
    try:
        return msgspec.convert(values, expected, strict=False)
    except msgspec.ValidationError as error:
        raise _Unfit(_invalid([field_error(str(error))])) from error


@cache
def _members(expected: type[Struct]) -> list[tuple[str, bool]]:
    """Return the name of each query parameter and whether it is a list, written with commas."""
    members = msgspec.structs.fields(expected)
    return [(member.encode_name, msgspec.json.schema(member.type).get("type") == "array") for member in members]


async def _body(called: Operation, services: Services, headers: Headers, receive: Receive) -> Any:
    if called.body is None:
        return None
    is_raw = isinstance(called.body, RawBody)
    raw = await _read(receive, headers, called.body.len_max if is_raw else services.settings.body_len_max)
    if is_raw:
        return raw
    if called.body_is_optional and raw.strip() in (b"", b"null"):
        return called.body()
    try:
        body = msgspec.json.decode(raw, type=called.body)
        if b"\\u0000" in raw:
            # Valid JSON, but PostgreSQL cannot keep it in a text, and nobody means it.
            _refuse_nul(msgspec.to_builtins(body), "$")
    except msgspec.ValidationError as error:
        # The first member that does not fit ends the decoding; what comes after it must be JSON as well.
        raise _Unfit(_invalid([field_error(str(error))]) if _is_json(raw) else _malformed()) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _Unfit(_malformed()) from error
    return body


def _is_json(raw: bytes) -> bool:
    try:
        msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _malformed() -> Response:
    return problem("malformed_json", "The body must be JSON in UTF-8.")


async def _read(receive: Receive, headers: Headers, len_max: int) -> bytes:
    """Return the whole body, of which no more than ``len_max`` bytes are ever kept."""
    too_large = _Unfit(problem("body_too_large", f"A body may have at most {len_max} bytes."))
    if int(headers.get("content-length", "0")) > len_max:
        raise too_large
    chunks, length, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        length += len(chunks[-1])
        if length > len_max:
            raise too_large
        more = message.get("more_body", False)
    return b"".join(chunks)


def _refuse_nul(value: object, where: str) -> None:
    if isinstance(value, str) and "\x00" in value:
        raise msgspec.ValidationError(f"Must not contain the character U+0000 - at `{where}`")
    if isinstance(value, dict):
        for name, member in value.items():
            _refuse_nul(member, f"{where}.{name}")
    if isinstance(value, list):
        for index, member in enumerate(value):
            _refuse_nul(member, f"{where}[{index}]")


def _invalid(errors: list[FieldError]) -> Response:
    detail = " ".join(f"{error.field}: {error.message}" for error in errors)
    return problem("validation_failed", detail, errors=errors)


_PLACE = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<where>[^`]*)`)?", re.DOTALL)
_MEMBER = re.compile(r"Object (?P<verdict>contains unknown|missing required) field `(?P<name>.*)`", re.DOTALL)
_SENTENCES: list[tuple[re.Pattern[str], str]] = [
    (re.compile(r"Expected `str` of length >= 1"), "Must not be empty."),
    (re.compile(r"Expected `str` of length >= (\d+)"), r"Needs at least \1 characters."),
    (re.compile(r"Expected `str` of length <= (\d+)"), r"Takes at most \1 characters."),
    (re.compile(r"Expected `str` matching regex .*", re.DOTALL), "Does not have the right form."),
    (re.compile(r"Expected `array` of length >= (\d+)"), r"Needs at least \1 entries."),
    (re.compile(r"Expected `array` of length <= (\d+)"), r"Takes at most \1 entries."),
    (re.compile(r"Expected `int` >= (\d+)"), r"Must be at least \1."),
    (re.compile(r"Expected `int` <= (\d+)"), r"Must be at most \1."),
    (re.compile(r"Expected `(\w+)(?: \| null)?`, got `(\w+)`"), r"Must be \1, not \2."),
]


def field_error(message: str) -> FieldError:
    """Return which member a message of msgspec is about, as a path without the root (``keys.auth``), and a sentence."""
    place = _PLACE.fullmatch(message)
    assert place is not None
    what, where = place["what"], place["where"] or ""
    if member := _MEMBER.fullmatch(what):
        path = f"{where}.{member['name']}" if where else member["name"]
        is_missing = member["verdict"] == "missing required"
        return FieldError(path, "Is required." if is_missing else "There is no such member.")
    for pattern, sentence in _SENTENCES:
        if matched := pattern.fullmatch(what):
            return FieldError(where or "body", matched.expand(sentence))
    return FieldError(where or "body", f"{what}.")
