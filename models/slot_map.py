"""Which server of a Redis Cluster holds which key. Pure: what a cluster's URL names, and what ``CLUSTER SLOTS`` answers."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from redis.crc import key_slot

SCHEMES = ("redis+cluster", "rediss+cluster")
DEFAULT_PORT = 6379

Address = tuple[str, int]


@dataclass(frozen=True)
class SlotMap:
    """Ranges of slots, in order, each with the address of the server that serves it."""

    firsts: tuple[int, ...]
    lasts: tuple[int, ...]
    addresses: tuple[Address, ...]

    @classmethod
    def of(cls, answer: Sequence[Sequence[Any]], asked: Address) -> "SlotMap":
        """Read an answer to ``CLUSTER SLOTS`` (redis.io): ``[first, last, [host, port, …], replicas…]`` for each range.

        A server that does not know its own host (empty or null) means the one under which it was ``asked``.
        """
        ranges = sorted((first, last, (primary[0] or asked[0], primary[1])) for first, last, primary, *_ in answer)
        return cls(*(tuple(column) for column in zip(*ranges, strict=True))) if ranges else cls((), (), ())

    def home_of(self, key: str) -> Address | None:
        """Return the address of the server that holds ``key``, or ``None`` while nobody does."""
        slot = key_slot(key.encode())
        place = bisect_right(self.firsts, slot) - 1
        return self.addresses[place] if place >= 0 and slot <= self.lasts[place] else None


def tag_of(key: str) -> str:
    """Return a key's hash tag (redis.io, "Redis cluster specification", hash tags)."""
    tagged = re.search(r"\{(.+?)\}", key)
    assert tagged is not None, f"{key!r} has no hash tag"
    return tagged[1]


@dataclass(frozen=True)
class ClusterUrl:
    """What a cluster's URL says: who to ask first, and as whom. Any server that answers tells of the others."""

    is_encrypted: bool
    username: str | None
    password: str | None
    addresses: tuple[Address, ...]

    @classmethod
    def of(cls, url: str) -> "ClusterUrl":
        """Read ``redis+cluster://[user:password@]host[:port][,host[:port]…]`` (``rediss+…``: with TLS).

        Raises ``ValueError`` when it cannot be read. Not by ``urlsplit`` alone: newer Pythons refuse hosts beside one in brackets.
        """
        scheme, _, rest = url.partition("://")
        credentials, _, hosts = rest.partition("/")[0].rpartition("@")
        username, _, password = credentials.partition(":")
        addresses = []
        for part in hosts.split(","):
            one = urlsplit(f"//{part}")
            if not one.hostname:
                raise ValueError("a host is missing")
            addresses.append((one.hostname, one.port or DEFAULT_PORT))
        is_encrypted = scheme.startswith("rediss")
        return cls(is_encrypted, unquote(username) or None, unquote(password) or None, tuple(addresses))


def is_cluster(url: str) -> bool:
    """Tell whether a URL names a Redis Cluster."""
    return url.partition("://")[0] in SCHEMES
