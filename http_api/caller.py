"""From which address and by which scheme somebody calls, behind trusted proxies or not. Pure; the one place that decides it.

Whoever has opened the connection is believed about nothing but that, unless it is one of ``PITLANE_TRUSTED_PROXIES``. A trusted
proxy is believed about who called it, which may be a trusted proxy in turn: each appends to ``X-Forwarded-For`` whom it heard
from, so that the list is read from its right end for as long as those who wrote it are trusted. What stands left of the first
stranger is whatever that stranger liked to send. ``Forwarded`` (RFC 7239) is not read: a proxy that does not know it passes on
what its client has sent.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from models.networks import Address, Network, address

Scheme = Literal["http", "https"]
SITE_BITS = 64
"""Of an IPv6 address: so much of it is given to one household, which chooses the rest itself (RFC 6177, RFC 8981)."""
_SCHEMES: dict[bytes, Scheme] = {b"http": "http", b"https": "https", b"ws": "http", b"wss": "https"}


@dataclass(frozen=True)
class Caller:
    """``address`` in its usual form; empty where the connection has none, as on a unix socket."""

    address: str
    scheme: Scheme

    @property
    def counted_as(self) -> str:
        """What limits count by: the address, or the network of an IPv6 one, of which one caller has more than can be counted."""
        found = address(self.address)
        if not isinstance(found, ipaddress.IPv6Address):
            return self.address
        return str(ipaddress.IPv6Network((found, SITE_BITS), strict=False))


def caller_of(scope: Any, trusted: Sequence[Network]) -> Caller:
    """Return who calls; ``scope`` is ASGI's, of a request or a socket."""
    host = (scope.get("client") or ("",))[0]
    return caller(host, scope["headers"], trusted)


def caller(peer: str, headers: Iterable[tuple[bytes, bytes]], trusted: Sequence[Network]) -> Caller:
    """Return who calls through a connection from ``peer``; ``headers`` with names in lower case.

    What in the headers is no address ends the reading: the caller is then whoever was believed last.
    """
    nearest = address(peer)
    if nearest is None or not _is_among(nearest, trusted):
        return Caller("" if nearest is None else str(nearest), "http")
    forwarded_for, forwarded_proto = [], []
    for name, value in headers:
        if name == b"x-forwarded-for":
            forwarded_for.append(value)
        elif name == b"x-forwarded-proto":
            forwarded_proto.append(value)
    believed, proxies_count = _furthest(nearest, b",".join(forwarded_for), trusted)
    return Caller(str(believed), _scheme(b",".join(forwarded_proto), proxies_count))


def _furthest(nearest: Address, forwarded_for: bytes, trusted: Sequence[Network]) -> tuple[Address, int]:
    """Return the caller, and how many trusted proxies the call has come through."""
    believed, rest, proxies_count = nearest, forwarded_for, 1
    while rest:
        rest, _, text = rest.rpartition(b",")
        found = _written(text)
        if found is None:
            break
        believed = found
        if not _is_among(found, trusted):
            break
        proxies_count += 1
    return believed, proxies_count


def _scheme(forwarded_proto: bytes, proxies_count: int) -> Scheme:
    """Return what the furthest of the trusted proxies said; where each has appended, that is as far left as there are proxies."""
    said = forwarded_proto.split(b",")
    return _SCHEMES.get(said[max(0, len(said) - proxies_count)].strip().lower(), "http")


def _written(text: bytes) -> Address | None:
    """Return the address in one entry, with or without a port behind it."""
    entry = text.decode("latin-1").strip()
    if entry.startswith("["):
        return address(entry[1:].partition("]")[0])
    if entry.count(":") == 1:
        entry = entry.partition(":")[0]
    return address(entry)


def _is_among(one: Address, trusted: Sequence[Network]) -> bool:
    return any(one in network for network in trusted)
