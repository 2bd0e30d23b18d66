"""What ``PITLANE_REDIS_URL`` says when it names a Redis Cluster. Pure."""

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

SCHEMES = ("redis+cluster", "rediss+cluster")
DEFAULT_PORT = 6379

Address = tuple[str, int]


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
