"""Instants: integers of milliseconds since the epoch inside, RFC 3339 UTC text on the wire."""

from datetime import UTC, datetime


def rfc3339(at_ms: int) -> str:
    """Return ``at_ms`` as RFC 3339 UTC with milliseconds, e.g. ``2026-11-22T09:30:00.000Z``."""
    seconds, ms = divmod(at_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat()[:19]}.{ms:03d}Z"


def rfc3339_or_none(at_ms: int | None) -> str | None:
    """Return ``at_ms`` as RFC 3339 text, or ``None`` for an instant that has not come."""
    return None if at_ms is None else rfc3339(at_ms)
