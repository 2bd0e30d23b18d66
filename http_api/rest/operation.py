"""What an operation of the REST interface is: who may, what comes in, what goes out, what can go wrong.

Routes declare their operations as data. ``checks.py`` checks what comes in by it, in the contract's order, and ``openapi.py``
publishes the same declarations; so the document cannot drift.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from msgspec import Struct
from starlette.datastructures import Headers
from starlette.responses import Response

from http_api.auth import Identity
from models.ids import ID_FORM
from models.outcomes import Refused
from models.words import Role

SAFE_METHODS = frozenset({"GET", "HEAD"})

ANYONE = None
SIGNED_IN = frozenset(Role)
CUSTOMER = frozenset({Role.CUSTOMER})
MECHANIC = frozenset({Role.MECHANIC})
CUSTOMER_OR_MECHANIC = frozenset({Role.CUSTOMER, Role.MECHANIC})
ADMIN = frozenset({Role.ADMIN})

Kind = TypeVar("Kind", bound=Struct | bytes)


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


MEANT_FOR = HeaderParameter(
    "Pitlane-Account",
    ID_FORM,
    "Whose call this is. Refused with 401 where somebody else is signed in: a browser's tabs share one cookie",
)
"""For every operation that somebody must be signed in for."""


@dataclass(frozen=True)
class Call:
    """One request that has passed every check, as its operation sees it."""

    path: Mapping[str, str]
    query: Struct | None
    headers: Headers
    body: Struct | bytes | None
    received_at_ms: int
    client_address: str
    """Where it comes from, as limits count: an address, or the network of an IPv6 one; empty where there is none."""
    maybe_identity: Identity | None

    def query_as(self, kind: type[Kind]) -> Kind:
        """Return the query, which is of the kind that the operation has declared."""
        assert isinstance(self.query, kind)
        return self.query

    def body_as(self, kind: type[Kind]) -> Kind:
        """Return the body, which is of the kind that the operation has declared; ``bytes`` for a ``RawBody``."""
        assert isinstance(self.body, kind)
        return self.body

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
    cookies: Sequence[str] = ()
    """Values of ``Set-Cookie``."""


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
    roles: frozenset[Role] | None
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
    roles: frozenset[Role] | None,
    answers: Mapping[int, Carried],
    body: type[Struct] | RawBody | None = None,
    body_is_optional: bool = False,
    query: type[Struct] | None = None,
    header: HeaderParameter | None = None,
    problems: tuple[str, ...] = (),
    unknown_id: str = "not_found",
    media_type: str = "application/json",
) -> Callable[[Handler], Operation]:
    """Turn a handler into an ``Operation``; a write that declares no body gets ``NoBody``."""
    if method not in SAFE_METHODS and body is None:
        body, body_is_optional = NoBody, True

    def declare(handler: Handler) -> Operation:
        return Operation(
            method,
            path,
            handler,
            roles,
            answers,
            body=body,
            body_is_optional=body_is_optional,
            query=query,
            header=header,
            problems=problems,
            unknown_id=unknown_id,
            media_type=media_type,
        )

    return declare
