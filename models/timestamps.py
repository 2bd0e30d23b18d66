"""Instants: integers of milliseconds since the epoch inside, RFC 3339 UTC text on the wire."""

from datetime import UTC, datetime
from functools import lru_cache

FIRST_MS = -62_135_596_800_000
LAST_MS = 253_402_300_799_999
"""The first and last instant of the years 1 to 9999."""


def rfc3339(at_ms: int) -> str:
    """Return ``at_ms`` as RFC 3339 UTC with milliseconds, e.g. ``2026-11-22T09:30:00.000Z``.

    What lies outside of the years that it can write (RFC 3339 §1: four digits) becomes the first or last instant of them: one row
    whose instant makes no sense must not fail the answer about all others.
    """
    seconds, ms = divmod(min(max(at_ms, FIRST_MS), LAST_MS), 1000)
    return f"{_to_the_second(seconds)}.{ms:03d}Z"


@lru_cache(maxsize=1024)
def _to_the_second(seconds: int) -> str:
    # A request's story and a batch of windows name the same few seconds over and over.
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


def rfc3339_or_none(at_ms: int | None) -> str | None:
    """Return ``at_ms`` as RFC 3339 text, or ``None`` for an instant that has not come."""
    return None if at_ms is None else rfc3339(at_ms)
