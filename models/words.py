"""The words of accounts, requests and money: one definition each for what travels, what SQL keeps and what is decided.

An enum where code decides by the word, a ``Literal`` where it is only passed on.
"""

from enum import StrEnum
from typing import Literal

# --- accounts ---------------------------------------------------------------------------------------------------------


class Role(StrEnum):
    """What an account may do."""

    CUSTOMER = "customer"
    MECHANIC = "mechanic"
    ADMIN = "admin"


ProviderType = Literal["independent", "workshop"]
SessionType = Literal["diagnostic", "text", "video"]
"""The kinds of session that a mechanic may switch off. A plan of an operator's own may name another: everybody takes that."""


# --- requests and their offers ----------------------------------------------------------------------------------------


RoutingType = Literal["priority_broadcast", "broadcast"]
"""What the customer chose: the favourite first, or everyone from the start."""


class RequestStatus(StrEnum):
    """Where a request stands."""

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


class WithdrawReason(StrEnum):
    """Why an offer is no longer open to a mechanic who saw it."""

    TAKEN = "taken"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    DECLINED = "declined"


ExclusionReason = Literal["declined", "released"]
"""Why a mechanic will not be asked for a request again."""


# --- money ------------------------------------------------------------------------------------------------------------


CheckoutStatus = Literal["open", "paid", "expired", "failed"]
RefundStatus = Literal["pending", "succeeded", "failed"]
