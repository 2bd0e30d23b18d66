"""Which server of a Redis Cluster holds which key. Pure: what ``CLUSTER SLOTS`` answers."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.crc import key_slot

from models.redis_url import Address


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
