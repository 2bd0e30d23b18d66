"""Who is calling: the address and the scheme of a request, through the proxies that we trust.

One function decides, and every scope that comes in is told what it has decided: limits, cookies and logs know nothing of proxies.
``X-Forwarded-For`` is written by each proxy at its end (developer.mozilla.org, "X-Forwarded-For"), so it is read from there: the
right-most address that is no trusted proxy's is the client. ``Forwarded`` (RFC 7239) is not read.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

HOPS_MAX: Final = 50
"""Proxies that are looked through; nobody has more."""
SECURE: Final = {"https": "https", "wss": "https", "http": "http", "ws": "http"}


@dataclass(frozen=True)
class Caller:
    """``address`` as text, empty if there is none (a Unix socket); ``scheme``: ``http`` or ``https``, sockets included."""

    address: str
    scheme: str


def caller_of(peer: str, scheme: str, headers: Iterable[tuple[bytes, bytes]], trusted: Sequence[Network]) -> Caller:
    """Return who calls. ``peer`` and ``scheme`` are the connection's own, ``headers`` as in an ASGI scope.

    What a trusted proxy passes on is believed up to the first thing that is no address: whatever stands before it, anybody may
    have written. A peer without an address is a proxy on this very machine, which is trusted as loopback is.
    """
    scheme = SECURE.get(scheme, "http")
    here = address_of(peer) if peer else LOOPBACK
    if here is None or not _is_among(here, trusted):
        return Caller(str(here) if here is not None else peer, scheme)
    forwarded = _values(headers, b"x-forwarded-for")
    schemes = _values(headers, b"x-forwarded-proto")
    if schemes and schemes[-1].lower() in SECURE:
        scheme = SECURE[schemes[-1].lower()]
    for text in reversed(forwarded[-HOPS_MAX:]):
        said = address_of(text)
        if said is None:
            break
        here = said
        if not _is_among(said, trusted):
            break
    return Caller(str(here), scheme)


LOOPBACK: Final = ipaddress.IPv4Address("127.0.0.1")


def address_of(text: str) -> Address | None:
    """Return the address that a proxy names, with a port or brackets or without; an IPv4 one that is written as IPv6 as itself."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def counted_as(address: str) -> str:
    """Return whom limits count an address as: an IPv4 address alone, of IPv6 the /64 that one customer of a provider has."""
    parsed = address_of(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return address


class Callers:
    """Tells every scope, of a request or of a socket, who its client is and by which scheme it came."""

    def __init__(self, app: ASGIApp, trusted: Sequence[Network]) -> None:
        self._app = app
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            peer, port = scope.get("client") or ("", 0)
            caller = caller_of(peer, scope.get("scheme", "http"), scope["headers"], self._trusted)
            scope["client"] = (caller.address, port)
            is_secure = caller.scheme == "https"
            scope["scheme"] = ("wss" if is_secure else "ws") if scope["type"] == "websocket" else caller.scheme
        await self._app(scope, receive, send)


def _is_among(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def _values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[str]:
    """Return what stands between the commas of all headers of a name, in order."""
    return [
        part.strip()
        for key, value in headers
        if key == name
        for part in value.decode("latin-1").split(",")
        if part.strip()
    ]
