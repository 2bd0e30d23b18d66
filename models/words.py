"""The words of a request's life, one definition each for what travels, what SQL keeps and what the core decides."""

from enum import StrEnum


class RequestStatus(StrEnum):
    PRIORITY_OFFERED = "priority_offered"
    BROADCASTING = "broadcasting"
    ACCEPTED = "accepted"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    UNFILLED = "unfilled"
    CANCELLED = "cancelled"


class OfferKind(StrEnum):
    """Whom an offer is for: the favourite alone, or everyone on duty and not in a session."""

    PRIORITY = "priority"
    BROADCAST = "broadcast"


class FallbackReason(StrEnum):
    """Why a priority offer was widened to a broadcast."""

    DECLINED = "declined"
    EXPIRED = "expired"
    SKIPPED = "skipped"
