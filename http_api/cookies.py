"""Cookies: the session's, and the one by which a browser is known again.

Over https they have the prefix ``__Host-`` (RFC 6265bis §4.1.3.2): no other host of the domain can set them, and nothing over
http. A session that began without the prefix goes on, and loses the old cookie with the next one that is set.
"""

from typing import Final

SESSION: Final = "pitlane_session"
DEVICE: Final = "pitlane_device"
OURS: Final = frozenset({SESSION, DEVICE})
HOST_PREFIX: Final = "__Host-"


def setting(name: str, value: str, max_age_s: int) -> str:
    """Return the ``Set-Cookie`` value that keeps ``value`` out of scripts' reach; with 0 s it clears it."""
    return f"{name}={value}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Lax"


def dressed(set_cookie: str, *, is_https: bool) -> list[str]:
    """Return a ``Set-Cookie`` value as it goes out by this scheme; one that is not ours comes back as it is.

    By https ours has the name that is safe there, and the plain one, which an earlier version has left, is cleared; so whoever
    signs out is signed out of both.
    """
    name, _, rest = set_cookie.partition("=")
    if not is_https or name not in OURS:
        return [set_cookie]
    return [f"{HOST_PREFIX}{name}={rest}; Secure", f"{setting(name, '', 0)}; Secure"]


def value_of(cookies: str, name: str) -> str | None:
    """Return what a ``Cookie`` header says of a name; the one with the prefix goes first, whatever the order. ``None``: nothing."""
    found: dict[str, str] = {}
    for pair in cookies.split(";"):
        key, _, value = pair.partition("=")
        found.setdefault(key.strip(), value.strip().strip('"'))
    return found.get(f"{HOST_PREFIX}{name}", found.get(name))
