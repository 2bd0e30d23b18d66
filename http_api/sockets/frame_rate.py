"""How many frames a socket may send: a token bucket that fits into one number per connection.

Instead of a level and a time, a bucket is the instant at which it will be full again (the "virtual scheduling" form of the
generic cell rate algorithm, ITU-T I.371 Annex A). Pure: the caller brings the clock.
"""


def take(full_at_s: float, now_s: float, *, per_s: float, burst: int) -> float | None:
    """Take one token; return the bucket's new ``full_at_s``, or ``None`` if it is empty (nothing is taken then).

    ``per_s`` tokens drip in per second and ``burst`` of them fit in. A bucket that has never been used is ``0.0``.
    """
    full_at_s = max(full_at_s, now_s) + 1 / per_s
    # Half a token more than fits can never be a whole one, and forgives what floating point loses on a long-running clock.
    return None if full_at_s - now_s > (burst + 0.5) / per_s else full_at_s
