"""Who is calling: tokens, the session cookie, origins and single-use tickets.

A token is checked by its signature and its claims alone, so that a reconnect storm does not reach the database.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal
from urllib.parse import urlsplit

import msgspec
from jwt import PyJWS
from jwt.algorithms import HMACAlgorithm
from jwt.exceptions import PyJWTError

from infra.redis_link import RedisLink
from models.ids import is_id
from models.settings import DoorSettings
from models.words import Role

COOKIE = "pitlane_session"
ALGORITHM = "HS256"
DEFAULT_PORTS = {"http": 80, "https": 443}

Via = Literal["bearer", "cookie", "ticket"]


@dataclass(frozen=True)
class Identity:
    """Somebody who has proved who they are. ``expires_at_s``: seconds since the epoch, when the proof ends."""

    account_id: str
    role: Role
    expires_at_s: int
    via: Via


class _Claims(msgspec.Struct):
    """What a token must say (contract). Strictly typed: a boolean or a text is no instant."""

    sub: str
    role: Role
    iat: float
    exp: float
    nbf: float | None = None


class _HS256(HMACAlgorithm):
    """HS256 without PyJWT's warning at every use of a short key: ``models.settings`` decides what is long enough."""

    def __init__(self) -> None:
        super().__init__(HMACAlgorithm.SHA256)
        self._prepared: dict[str | bytes, bytes] = {}

    def check_key_length(self, key: bytes) -> None:
        return None

    def prepare_key(self, key: str | bytes) -> bytes:
        # Looking through the key for what only other algorithms have costs as much as the signature; ours never changes.
        if key not in self._prepared:
            self._prepared[key] = super().prepare_key(key)
        return self._prepared[key]


class Tokens:
    """Signs and checks tokens: HS256 and nothing else, whatever a token's header asks for."""

    def __init__(self, secret_key: str, lifetime_s: int) -> None:
        self._secret_key = secret_key
        self._lifetime_s = lifetime_s
        self._jws = PyJWS(algorithms=[])
        self._jws.register_algorithm(ALGORITHM, _HS256())
        self._claims = msgspec.json.Decoder(_Claims)

    def issue(self, account_id: str, role: Role, *, now_s: int) -> tuple[str, int]:
        """Return a token and when it expires, in seconds since the epoch."""
        expires_at_s = now_s + self._lifetime_s
        claims = {"sub": account_id, "role": role, "iat": now_s, "exp": expires_at_s}
        token = self._jws.encode(
            msgspec.json.encode(claims), self._secret_key, algorithm=ALGORITHM, headers={"typ": "JWT"}
        )
        return token, expires_at_s

    def verify(self, token: str, *, now_s: int, via: Via) -> Identity | None:
        """Return whose token this is, or ``None`` unless it is ours, complete and not expired. No leeway."""
        try:
            payload = self._jws.decode(token, self._secret_key, algorithms=[ALGORITHM])
            claims = self._claims.decode(payload)
        except (PyJWTError, msgspec.DecodeError, ValueError, RecursionError):
            # ValueError covers bytes that are no text, RecursionError a header of thousands of brackets.
            return None
        if claims.exp <= now_s or (claims.nbf is not None and claims.nbf > now_s) or not is_id(claims.sub):
            return None
        return Identity(claims.sub, claims.role, int(claims.exp), via)


def token_of(scope_headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, Literal["bearer", "cookie"]] | None:
    """Return the token that a request carries and how, or ``None``. A bearer header wins over the cookie, even a bad one.

    ``scope_headers`` as in an ASGI scope, names in lower case. The token is not verified.
    """
    cookie = None
    for name, value in scope_headers:
        if name == b"authorization":
            scheme, _, credentials = value.decode("latin-1").partition(" ")
            if scheme.lower() == "bearer":
                return credentials.strip(), "bearer"
        elif name == b"cookie" and cookie is None:
            cookie = _session_of(value.decode("latin-1"))
    return None if cookie is None else (cookie, "cookie")


def session_cookie(token: str, max_age_s: int, settings: DoorSettings) -> str:
    """Return the ``Set-Cookie`` that keeps ``token`` out of scripts' reach; an empty one for 0 s clears it."""
    secure = "; Secure" if settings.secure_cookie else ""
    return f"{COOKIE}={token}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Lax{secure}"


def origin_is_ours(origin: str | None, settings: DoorSettings) -> bool:
    """Tell whether an ``Origin`` header names this server; a missing one and the opaque ``null`` do not."""
    return origin is not None and _normal_origin(origin) in _normal_origins(settings.own_origins)


class Tickets:
    """Tickets for the socket handshake, for clients that can send neither a header nor the cookie: good once, briefly."""

    def __init__(self, link: RedisLink, lifetime_s: int) -> None:
        self._link = link
        self.lifetime_s = lifetime_s

    async def issue(self, identity: Identity) -> str:
        """Return a fresh ticket for ``identity``. Raises ``RedisUnavailable``."""
        ticket = secrets.token_urlsafe(32)
        await self._link.ask(
            self._key(ticket),
            lambda redis: redis.set(self._key(ticket), msgspec.json.encode(identity), ex=self.lifetime_s),
        )
        return ticket

    async def redeem(self, ticket: str) -> Identity | None:
        """Return whose ticket this was, once; ``None`` for one that is unknown, used or too old.

        The token behind it may have expired meanwhile: ``expires_at_s`` says so. Raises ``RedisUnavailable``.
        """
        if not is_id(ticket):
            return None
        kept = await self._link.ask(self._key(ticket), lambda redis: redis.getdel(self._key(ticket)))
        if kept is None:
            return None
        return replace(msgspec.json.decode(kept, type=Identity), via="ticket")

    def _key(self, ticket: str) -> str:
        return self._link.key("ticket", ticket)


def _session_of(cookies: str) -> str | None:
    for pair in cookies.split(";"):
        name, _, value = pair.partition("=")
        if name.strip() == COOKIE:
            return value.strip().strip('"')
    return None


@cache
def _normal_origins(origins: frozenset[str]) -> frozenset[str]:
    return frozenset(normal for origin in origins if (normal := _normal_origin(origin)) is not None)


def _normal_origin(origin: str) -> str | None:
    """Return the origin as browsers write it (RFC 6454 §6.2), or ``None`` if it is none."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname or parts.path or parts.query or parts.fragment:
        return None
    if port in (None, DEFAULT_PORTS[parts.scheme]):
        return f"{parts.scheme}://{parts.hostname}"
    return f"{parts.scheme}://{parts.hostname}:{port}"
