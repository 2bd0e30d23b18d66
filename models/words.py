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


Loss = Literal["released", "no_show", "find_another"]
"""How a mechanic who has accepted comes to lose the request: given back, not started in time, or the customer asks for another."""
ExclusionReason = Literal["declined", Loss]
"""Why a mechanic will not be asked for a request again."""
CompletedBy = Literal["mechanic", "customer", "time", "operator"]
Settlement = Literal["completed", "unfilled"]
"""As what an operator ends a request that is stuck."""


# --- money ------------------------------------------------------------------------------------------------------------


CheckoutStatus = Literal["open", "paid", "expired", "failed"]
RefundStatus = Literal["pending", "succeeded", "failed"]
RefundProgress = Literal["owed", "held", "on_its_way", "failed"]
"""What money that is to go back waits for: to be asked for, the end of a dispute, the customer's bank, or an operator."""
