"""Cookies: the session's, and the one by which a browser is known again.

Over https they have the prefix ``__Host-`` (RFC 6265bis §4.1.3.2): no other host of the domain can set them, and nothing over http.
A session that began without the prefix goes on, and loses the old cookie with the next one that is set.
"""

from typing import Final

SESSION: Final = "pitlane_session"
DEVICE: Final = "pitlane_device"
HOST_PREFIX: Final = "__Host-"


def setting(name: str, value: str, max_age_s: int, *, is_secure: bool) -> list[str]:
    """Return the ``Set-Cookie`` values that keep ``value`` out of scripts' reach; with 0 s they clear it, under either name."""
    kept = f"{value}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Lax"
    if not is_secure:
        return [f"{name}={kept}"]
    return [f"{HOST_PREFIX}{name}={kept}; Secure", f"{name}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax; Secure"]


def value_of(cookies: str, name: str) -> str | None:
    """Return what a ``Cookie`` header says of a name, the one with the prefix first; ``None`` if nothing."""
    found = None
    for pair in cookies.split(";"):
        key, _, value = pair.partition("=")
        key, value = key.strip(), value.strip().strip('"')
        if key == f"{HOST_PREFIX}{name}":
            return value
        if key == name and found is None:
            found = value
    return found
