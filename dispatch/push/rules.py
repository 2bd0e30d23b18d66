"""When an offer is pushed, and what the answer of a push service means. Pure: values and ``now_ms`` in, decisions out.

The contract's *Push*: a favourite is woken when no app of theirs has acknowledged the offer within five seconds, when no person can
have seen it within fifteen, and as soon as no socket of theirs is left; once per offer and browser, while its window is open. A
customer is woken when their request is accepted, started, unfilled or refunded and no page of theirs is open.
"""

from dataclasses import dataclass
from typing import Final

ACKNOWLEDGED_WITHIN_MS: Final = 5_000
SEEN_WITHIN_MS: Final = 15_000

NEWS: Final = frozenset({"accepted", "started", "unfilled", "refunded", "refunded_at_stripe"})
"""What a customer is woken for. Whatever else happens to a request replaces what they have been told, and wakes nobody else."""
REMINDER: Final = "reminded"
SESSION_NEWS: Final = frozenset({REMINDER, "no_show", "find_another", "cancelled"})
"""What a mechanic is woken for who has accepted a request, or had it until then."""
PAGE_ANSWERS_WITHIN_MS: Final = 3_000
"""A page that is open has answered by then."""
UPDATE_MS: Final = 3600 * 1000
SETTLED_MS: Final = 12 * 3600 * 1000

RETRY_FIRST_MS: Final = 1_000
RETRY_MAX_MS: Final = 60_000
OVER: Final = (404, 410)
"""The subscription has ended (RFC 8030 §7.3)."""
FORBIDDEN: Final = 403
"""Signed by a key that the subscription was not made for, say; once it may be a mistake of the service's."""
TOO_MANY: Final = 429
"""No fault of the subscription's (RFC 8030 §8.4)."""


@dataclass(frozen=True)
class Unseen:
    """An open priority offer whose favourite has a browser that can be woken; a row of ``unseen_offers``."""

    id: str
    request_id: str
    mechanic_id: str
    opened_at_ms: int
    delivered_at_ms: int | None
    seen_at_ms: int | None


def is_to_be_pushed(offer: Unseen, *, is_online: bool, now_ms: int) -> bool:
    """Whether it is time to wake the favourite."""
    if not is_online:
        return True
    if offer.delivered_at_ms is None:
        return now_ms >= offer.opened_at_ms + ACKNOWLEDGED_WITHIN_MS
    return offer.seen_at_ms is None and now_ms >= offer.opened_at_ms + SEEN_WITHIN_MS


def update_lifetime_ms(*, is_settled: bool) -> int:
    """Return how long it is worth telling a customer where their request stands: while it is open, that is soon another."""
    return SETTLED_MS if is_settled else UPDATE_MS


@dataclass(frozen=True)
class Taken:
    """The push service has the message."""


@dataclass(frozen=True)
class GivenUp:
    """It would come too late to be of use."""


@dataclass(frozen=True)
class Again:
    """Try once more, at ``at_ms``."""

    at_ms: int


@dataclass(frozen=True)
class SubscriptionOver:
    """The browser cannot be woken by this subscription any more."""


@dataclass(frozen=True)
class Rejected:
    """The push service will not take this message, and waiting does not help: counted against the subscription."""

    status: int


Verdict = Taken | GivenUp | Again | SubscriptionOver | Rejected


def judge(
    status: int | None,
    retry_after_s: float | None,
    *,
    attempts: int,
    was_forbidden: bool,
    expires_at_ms: int,
    now_ms: int,
) -> Verdict:
    """Return what to do after the ``attempts``-th try (from 1) was answered with ``status``, or with nothing (``None``).

    ``was_forbidden``: a try before this one was answered 403.
    """
    if status is not None and 200 <= status < 300:
        return Taken()
    if status in OVER or (status == FORBIDDEN and was_forbidden):
        return SubscriptionOver()
    # Redirects are not followed: who sends them is in trouble, like one who answers 500.
    if status is not None and 400 <= status < 500 and status not in (FORBIDDEN, TOO_MANY, 408):
        return Rejected(status)
    wait_ms = min(RETRY_FIRST_MS << min(attempts - 1, 20), RETRY_MAX_MS)
    if retry_after_s is not None:
        wait_ms = max(wait_ms, int(retry_after_s * 1000))
    again_at_ms = now_ms + wait_ms
    return Again(again_at_ms) if again_at_ms < expires_at_ms else GivenUp()
