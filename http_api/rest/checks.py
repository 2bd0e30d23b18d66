"""What comes in is checked by what its operation declares: who asks, whether they may, from where, and only then what."""

import re
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import msgspec
from msgspec import Struct
from starlette.datastructures import Headers, QueryParams
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope

from http_api.auth import Identity, Tokens, admit, origin_is_ours, token_of
from http_api.caller import caller_of
from http_api.rest.operation import MEANT_FOR, Call, HeaderParameter, Operation, RawBody
from http_api.rest.problems import PROBLEMS, invalid, problem
from infra.clock import Clock
from models.ids import is_id
from models.rest import FieldError
from models.settings import DoorSettings


@dataclass(frozen=True)
class Checks:
    """Lets requests through that may be worked on, in the contract's order of questions."""

    clock: Clock
    tokens: Tokens
    settings: DoorSettings

    async def passed(self, called: Operation, scope: Scope, receive: Receive) -> Call | Response:
        """Return the call, ready to be worked on, or the answer to refuse it with."""
        received_at_ms = self.clock.now_ms()
        headers = Headers(scope=scope)
        try:
            identity = self._admitted(called, headers, now_s=received_at_ms // 1000)
            if identity is not None:
                admit(scope, identity.account_id)
            path = scope.get("path_params", {})
            if not all(is_id(value) for value in path.values()):
                raise _Unfit(problem(called.unknown_id, f"{PROBLEMS[called.unknown_id][1]}."))
            _check_header(called.header, headers)
            return Call(
                path=path,
                query=_query(called.query, scope),
                headers=headers,
                body=await self._body(called, headers, receive),
                received_at_ms=received_at_ms,
                client_address=caller_of(scope, self.settings.trusted_proxies).counted_as,
                maybe_identity=identity,
            )
        except _Unfit as unfit:
            return unfit.response

    def _admitted(self, called: Operation, headers: Headers, *, now_s: int) -> Identity | None:
        """Return who calls, if anyone we know; refuse those who may not."""
        carried = token_of(headers.raw)
        identity = self.tokens.verify(carried[0], now_s=now_s, via=carried[1]) if carried else None
        is_meant = identity is None or headers.get(MEANT_FOR.name, identity.account_id) == identity.account_id
        if called.roles is None:
            # Whoever has an old cookie must still be able to sign in.
            return identity if is_meant else None
        if identity is None:
            wanted = (
                "a bearer token or the session cookie" if carried is None else "a token that is valid and not expired"
            )
            raise _Unfit(problem("unauthenticated", f"Sign in first: this needs {wanted}."))
        if not is_meant:
            # Another tab has signed in somebody else: what was meant by one account must not be done by the other.
            raise _Unfit(problem("unauthenticated", "Sign in again: somebody else is signed in by now."))
        if identity.role not in called.roles:
            needed = " or ".join(sorted(called.roles))
            detail = f"This needs an account of the kind {needed}; yours is {identity.role}."
            raise _Unfit(problem("wrong_role", detail))
        origin = headers.get("origin")
        # Browsers always say from which page a write comes; programs that keep cookies need not.
        is_cookie_write = called.is_write and identity.via == "cookie"
        if is_cookie_write and origin is not None and not origin_is_ours(origin, self.settings):
            detail = f"Writes with the session cookie must come from {self.settings.base_url}."
            raise _Unfit(problem("foreign_origin", detail))
        return identity

    async def _body(self, called: Operation, headers: Headers, receive: Receive) -> Struct | bytes | None:
        if called.body is None:
            return None
        if isinstance(called.body, RawBody):
            return await _read(receive, headers, called.body.len_max)
        raw = await _read(receive, headers, self.settings.body_len_max)
        if called.body_is_optional and raw.strip() in (b"", b"null"):
            return called.body()
        if not raw.strip():
            raise _Unfit(problem("malformed_json", "A body is needed here: one JSON object."))
        return _decoded(raw, called.body)


class _Unfit(Exception):
    """The request cannot be worked on; raised and caught in this module only."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


def _check_header(parameter: HeaderParameter | None, headers: Headers) -> None:
    if parameter is None or (value := headers.get(parameter.name)) is None:
        return
    if not re.fullmatch(parameter.pattern, value):
        raise _Unfit(invalid([FieldError(parameter.name, parameter.description)]))


@dataclass(frozen=True)
class _Parameter:
    """A query parameter: how it is called in the URL and in the struct, and its type without ``None``."""

    name: str
    member: str
    kind: Any
    is_list: bool
    """Written with commas."""
    is_required: bool


def _query(expected: type[Struct] | None, scope: Scope) -> Struct | None:
    if expected is None:
        return None
    given = QueryParams(scope["query_string"])
    values: dict[str, Any] = {}
    for parameter in _parameters(expected):
        # An empty one is one that was left out: forms send those.
        if texts := [text for text in given.getlist(parameter.name) if text]:
            values[parameter.member] = _converted(
                parameter, ",".join(texts).split(",") if parameter.is_list else texts[-1]
            )
        elif parameter.is_required:
            raise _Unfit(invalid([FieldError(parameter.name, "Is required.")]))
    return expected(**values)


def _converted(parameter: _Parameter, text: str | list[str]) -> object:
    # One by one, and as what they are if they are there: asked for ``str | None``, msgspec takes the word null for None.
    try:
        value = msgspec.convert(text, parameter.kind, strict=False)
        _refuse_nul(value, "$")
    except msgspec.ValidationError as error:
        where = field_error(str(error))
        name = parameter.name if where.field == "body" else f"{parameter.name}{where.field}"
        raise _Unfit(invalid([FieldError(name, where.message)])) from error
    return value


@cache
def _parameters(expected: type[Struct]) -> list[_Parameter]:
    return [
        _Parameter(
            member.encode_name,
            member.name,
            _without_none(member.type),
            is_list=msgspec.json.schema(member.type).get("type") == "array",
            is_required=member.required,
        )
        for member in msgspec.structs.fields(expected)
    ]


def _without_none(kind: Any) -> Any:
    """Return the type of what is there: of ``str | None`` the ``str``."""
    kinds = [one for one in get_args(kind) if one is not NoneType] if get_origin(kind) in (Union, UnionType) else [kind]
    assert len(kinds) == 1, f"a query parameter is of one kind: {kind}"
    return kinds[0]


def _decoded(raw: bytes, expected: type[Struct]) -> Struct:
    try:
        body = msgspec.json.decode(raw, type=expected)
        if b"\\u0000" in raw:
            # Valid JSON, but PostgreSQL cannot keep it in a text, and nobody means it.
            _refuse_nul(msgspec.to_builtins(body), "$")
    except msgspec.ValidationError as error:
        # The first member that does not fit ends the decoding; what comes after it must be JSON as well.
        raise _Unfit(invalid([field_error(str(error))]) if _is_json(raw) else _malformed()) from error
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


_PLACE = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<where>[^`]*)`)?", re.DOTALL)
_MEMBER = re.compile(r"Object (?P<verdict>contains unknown|missing required) field `(?P<name>.*)`", re.DOTALL)
_SENTENCES: list[tuple[re.Pattern[str], str]] = [
    (re.compile(r"Expected `str` of length >= 1"), "Must not be empty."),
    (re.compile(r"Expected `str` of length >= (\d+)"), r"Needs at least \1 characters."),
    (re.compile(r"Expected `str` of length <= (\d+)"), r"Takes at most \1 characters."),
    (re.compile(r"Expected `str` matching regex .*", re.DOTALL), "Does not have the right form."),
    (re.compile(r"Expected `array` of length >= 1"), "Must not be empty."),
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
