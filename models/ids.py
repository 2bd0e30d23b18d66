"""Identifiers: ULIDs, 26 URL-safe characters that sort by creation time."""

import re
import secrets

from ulid import ULID

ID_FORM = r"[A-Za-z0-9_-]{1,64}"
ID_PATTERN = rf"^{ID_FORM}$(?!\n)"
"""Means the same in Python, whose ``$`` also matches before a line break at the end, and in JSON Schema, whose does not."""
_ID = re.compile(ID_FORM)


def new_id() -> str:
    """Return a fresh id; within one process each is greater than the one before, also in the same millisecond."""
    return str(ULID())


def first_id_at(at_ms: int) -> str:
    """Return the least id that can be made at an instant: it parts those from before from those since."""
    return str(ULID(at_ms.to_bytes(6, "big") + bytes(10)))


def id_at(at_ms: int) -> str:
    """Return a fresh id of an instant, in ms since the epoch: by a clock that is not this machine's own."""
    return str(ULID(at_ms.to_bytes(6, "big") + secrets.token_bytes(10)))


def id_of(at_ms: int, what: bytes) -> str:
    """Return the id of an instant that ``what``, a digest of ten bytes or more, always has."""
    return str(ULID(at_ms.to_bytes(6, "big") + what[:10]))


def instant_of(text: str) -> int | None:
    """Return the instant that an id of ours was made at, in ms since the epoch; ``None`` for one of anybody else's."""
    try:
        return ULID.from_str(text).milliseconds
    except ValueError:
        return None


def is_id(text: str) -> bool:
    """Tell whether ``text`` has the form of an id of ours or of anybody's: at most 64 URL-safe characters."""
    return _ID.fullmatch(text) is not None
