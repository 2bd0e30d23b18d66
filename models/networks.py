"""Internet addresses and networks, as settings name them. Pure."""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAPPED_BITS = 96
"""In front of an IPv4 address that is written as an IPv6 one (RFC 4291 §2.5.5.2)."""


def address(text: str) -> Address | None:
    """Return the address, ``None`` if it is none. An IPv4 one is the same however it is written, and a zone does not count."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address):
        return found.ipv4_mapped or ipaddress.IPv6Address(int(found))
    return found


def networks(text: str) -> tuple[Network, ...]:
    """Return the networks of a list with commas in between; an address alone is a network of one.

    Raises ``ValueError`` with half a sentence for what is none, and for one that holds every address.
    """
    return tuple(_network(part.strip()) for part in text.split(",") if part.strip())


def is_loopback(host: str) -> bool:
    """Tell whether nobody but this machine reaches who listens on ``host``."""
    found = address(host.strip("[]"))
    return host == "localhost" if found is None else found.is_loopback


def _network(text: str) -> Network:
    found: Network = ipaddress.ip_network(text)
    if isinstance(found, ipaddress.IPv6Network) and found.prefixlen >= _MAPPED_BITS:
        inner = found.network_address.ipv4_mapped
        if inner is not None:
            found = ipaddress.IPv4Network((inner, found.prefixlen - _MAPPED_BITS))
    if found.prefixlen == 0:
        raise ValueError(f"{text} is everybody, and whoever is not a proxy could then say that they are somebody else")
    return found
