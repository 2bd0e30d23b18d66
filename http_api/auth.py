"""Who is calling: tokens, the session cookie, origins and single-use tickets.

A token is checked by its signature, its claims and a list in memory, so that a reconnect storm does not reach the database.
"""

import hashlib
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
from jwt import PyJWS
from jwt.algorithms import HMACAlgorithm
from jwt.exceptions import PyJWTError

from accounts.revocations import Proof
from http_api import cookies
from infra.redis_link import RedisLink
from models.ids import id_at, id_of, instant_of, is_id
from models.settings import DoorSettings
from models.words import Role

ALGORITHM = "HS256"
DEFAULT_PORTS = {"http": 80, "https": 443}
NO_LATER_THAN_S = 253_402_300_799
"""The end of the year 9999, the last that RFC 3339 can write: whoever wants a token to last for ever gets no more than that."""

ADMISSION = "pitlane.admission"
"""The extension of an ASGI scope by which the server's edge is told that a request's sender has proved who they are."""

Via = Literal["bearer", "cookie", "ticket"]


@dataclass(frozen=True)
class Identity:
    """Somebody who has proved who they are. ``expires_at_s``: seconds since the epoch, when the proof ends."""

    account_id: str
    role: Role
    expires_at_s: int
    via: Via
    token_id: str = ""
    """What tells the token from all others. Tickets of an earlier version lack it and what follows; they end in seconds."""
    issued_at_ms: int = 0
    """When its device was signed in: of ours, renewed ones say it of the first. Of those that others make, when it was issued."""
    sign_in_id: str | None = None
    """The device that it was issued to, of tokens that others make one of their own; ``None`` in tickets of an earlier version."""

    @property
    def proof(self) -> Proof:
        """What may be revoked of it."""
        return Proof(self.account_id, self.token_id, self.issued_at_ms, self.expires_at_s * 1000, self.sign_in_id)


class _Claims(msgspec.Struct):
    """What a token must say (contract), and what ours say besides. Strictly typed: a boolean or a text is no instant."""

    sub: str
    role: Role
    iat: float
    exp: float
    nbf: float | None = None
    jti: str | None = None
    sid: str | None = None

    def identity(self, token: str, via: Via) -> Identity:
        """Return who says this; raises ``ValueError`` or ``OverflowError`` for an instant without an end."""
        iat_ms = max(0, min(int(self.iat * 1000), NO_LATER_THAN_S * 1000))
        made_at_ms = instant_of(self.jti) if self.jti else None
        if made_at_ms is not None and made_at_ms // 1000 == int(self.iat):
            # Ours say it to the millisecond; of others it is the beginning of a second.
            iat_ms = made_at_ms
        digest = hashlib.sha256(token.encode())
        signed_in_at_ms = instant_of(self.sid) if self.sid and is_id(self.sid) else None
        return Identity(
            self.sub,
            self.role,
            min(int(self.exp), NO_LATER_THAN_S),
            via,
            # What others write there may be anything; it is to be kept in SQL.
            token_id=self.jti if self.jti and is_id(self.jti) else digest.hexdigest(),
            # Of the device, not of the token: else whoever renews one while it is being revoked would have one that is not.
            issued_at_ms=iat_ms if signed_in_at_ms is None else min(iat_ms, signed_in_at_ms),
            # A token of somebody else's is a device of its own, and so are all that are renewed from it.
            sign_in_id=id_of(iat_ms, digest.digest()) if signed_in_at_ms is None else self.sid,
        )


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


@dataclass(frozen=True)
class Issued:
    """A fresh token. ``sign_in_id``: of the device that has it, the same in all that follow it."""

    token: str
    expires_at_s: int
    sign_in_id: str


class Tokens:
    """Signs and checks tokens: HS256 and nothing else, whatever a token's header asks for."""

    def __init__(
        self, secret_keys: Sequence[str], lifetime_s: int, *, is_revoked: Callable[[Proof], bool] = lambda _: False
    ) -> None:
        """The first of ``secret_keys`` signs, all verify, so that they can be rotated."""
        self._secret_keys = tuple(secret_keys)
        self._lifetime_s = lifetime_s
        self._is_revoked = is_revoked
        self._jws = PyJWS(algorithms=[])
        self._jws.register_algorithm(ALGORITHM, _HS256())
        self._claims = msgspec.json.Decoder(_Claims)

    def issue(self, account_id: str, role: Role, *, now_ms: int, sign_in_id: str | None = None) -> Issued:
        """Return a token; for a device that has none yet if ``sign_in_id`` is ``None``. Such an id is an ``id_at`` its sign-in."""
        jti = id_at(now_ms)
        sid = sign_in_id or jti
        iat = now_ms // 1000
        claims = {"sub": account_id, "role": role, "iat": iat, "exp": iat + self._lifetime_s, "jti": jti, "sid": sid}
        token = self._jws.encode(
            msgspec.json.encode(claims), self._secret_keys[0], algorithm=ALGORITHM, headers={"typ": "JWT"}
        )
        return Issued(token, iat + self._lifetime_s, sid)

    def verify(self, token: str, *, now_s: int, via: Via) -> Identity | None:
        """Return whose token this is, or ``None`` unless it is ours, complete, not expired and not revoked. No leeway."""
        payload = self._signed(token)
        if payload is None:
            return None
        try:
            claims = self._claims.decode(payload)
            if claims.exp <= now_s or (claims.nbf is not None and claims.nbf > now_s) or not is_id(claims.sub):
                return None
            identity = claims.identity(token, via)
        except (msgspec.DecodeError, ValueError, OverflowError, RecursionError):
            # OverflowError is an instant without an end.
            return None
        return None if self._is_revoked(identity.proof) else identity

    def is_revoked(self, identity: Identity) -> bool:
        """Tell whether what was valid once has been revoked since."""
        return self._is_revoked(identity.proof)

    def _signed(self, token: str) -> bytes | None:
        """Return what one of the keys has signed, or ``None``."""
        for key in self._secret_keys:
            try:
                payload: bytes = self._jws.decode(token, key, algorithms=[ALGORITHM])
            except (PyJWTError, ValueError, RecursionError):
                # ValueError covers bytes that are no text, RecursionError a header of thousands of brackets.
                continue
            return payload
        return None


def admit(scope: Mapping[str, Any], account_id: str) -> None:
    """Tell the server's edge that who sends this request is signed in; then strangers cannot take the connection's place.

    ``scope`` is ASGI's. Idempotent; does nothing under another server.
    """
    told = scope.get("extensions", {}).get(ADMISSION)
    if told is not None:
        told(account_id)


def token_of(scope_headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, Literal["bearer", "cookie"]] | None:
    """Return the token that a request carries and how, or ``None``. A bearer header wins over the cookie, even a bad one.

    ``scope_headers`` as in an ASGI scope, names in lower case. The token is not verified.
    """
    sent: list[str] = []
    for name, value in scope_headers:
        if name == b"authorization":
            scheme, _, credentials = value.decode("latin-1").partition(" ")
            if scheme.lower() == "bearer":
                return credentials.strip(), "bearer"
        elif name == b"cookie":
            sent.append(value.decode("latin-1"))
    cookie = cookies.value_of("; ".join(sent), cookies.SESSION)
    return None if cookie is None else (cookie, "cookie")


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
