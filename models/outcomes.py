"""Expected outcomes that are not success: values that a caller must look at, each with the word that clients switch on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Refused:
    """Why something was not done. ``code`` is stable (contract); ``detail`` is one sentence for a person.

    ``member``: of what was asked, the one that does not fit.
    """

    code: str
    detail: str
    member: str | None = None


@dataclass(frozen=True)
class OfferGone(Refused):
    """The offer can no longer be taken by this mechanic."""

    code: str = "offer_gone"
    detail: str = "This offer is no longer open."


@dataclass(frozen=True)
class NotFound(Refused):
    """There is no such thing for this caller; what belongs to somebody else looks the same."""

    code: str = "not_found"
    detail: str = "There is no such resource."


@dataclass(frozen=True)
class TooMany(Refused):
    """Not now: the caller has done it too often; ``retry_after_s`` is at least one."""

    code: str = "too_many_requests"
    detail: str = "Please try again later."
    retry_after_s: int = 1
