"""What the two deadline peers share: when the deadlines are, and what is printed about them."""

import json
import os
import time

REDIS_URL = os.environ["PEER_REDIS_URL"]
LEAD_S = 2.0
"""Between the last deadline that is set and the first that ends."""
SET_PER_S = 1_000
"""A rate at which deadlines can certainly be set."""


def now_ms() -> float:
    """Return the instant, ms since the epoch; Redis on this machine has the same clock."""
    return time.time_ns() / 1e6


def deadlines(count: int, within_s: float) -> list[int]:
    """Return ``count`` instants, evenly over ``within_s``, that begin when all of them can have been set."""
    first_ms = now_ms() + (LEAD_S + count / SET_PER_S) * 1000
    return [int(first_ms + number * within_s * 1000 / count) for number in range(count)]


def tell(late_ms: list[float]) -> None:
    """Print how late each one came; those that never came are missing."""
    print(json.dumps(late_ms), flush=True)
