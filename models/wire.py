"""Everything that travels on the sockets, grouped by direction; parsed once at the socket, typed ever after.

The published AsyncAPI document is generated from these. Unknown members are ignored, both ways (contract).
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec import json as msgspec_json

from models.ids import ID_PATTERN
from models.text import REASON_LEN_MAX
from models.words import (
    CompletedBy,
    FallbackReason,
    OfferKind,
    RefundStatus,
    RequestStatus,
    RoutingType,
    SessionType,
    WithdrawReason,
)

PROTOCOL = 1
WATCH_MAX = 100
BREAK_S_MIN = 60
BREAK_S_MAX = 14_400

Id = Annotated[str, Meta(pattern=ID_PATTERN)]
Timestamp = Annotated[
    str,
    Meta(extra_json_schema={"format": "date-time"}, examples=["2026-11-22T09:30:00.000Z"], description="RFC 3339 UTC"),
]
Availability = Literal["available", "busy", "off_duty", "offline"]
Reachable = Literal["socket", "push", "none"]


# --- shared objects ---------------------------------------------------------------------------------------------------


class Person(Struct):
    """A mechanic as others see them."""

    id: str
    name: str


class OfferDeadline(Struct):
    """The open offer of a request, as its customer sees it."""

    id: str
    kind: OfferKind
    expires_at: Timestamp
    expires_in_ms: int
    preferred_is_busy: bool | UnsetType = UNSET
    """The favourite whom it waits for is in a session with somebody else."""


class Deadline(Struct):
    """Until when something has to have happened."""

    expires_at: Timestamp
    expires_in_ms: int


class RefundState(Struct):
    """Where the money is on its way back."""

    status: RefundStatus
    amount_cents: int
    currency: str | UnsetType = UNSET


class TimelineEntryView(Struct):
    """A line of a request's story; what it says besides depends on ``event``."""

    at: Timestamp
    event: str
    mechanic_id: str | UnsetType = UNSET
    mechanic_name: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    amount_cents: int | UnsetType = UNSET
    cause: str | UnsetType = UNSET
    by: CompletedBy | UnsetType = UNSET
    lasted_s: int | UnsetType = UNSET


class RequestView(Struct):
    """A session request. ``version`` only grows: an older one never overwrites a newer.

    ``note`` is what the customer wrote about it. ``price_cents`` is the price of what was bought, whatever was paid of it.
    ``favorite_prompt``: it is completed, and its mechanic not yet a favourite of the customer's.

    ``start``: while it is accepted, until when the mechanic must start; ``ends``: while it is in progress, when it ends by itself.
    ``assigned_is_online``: whether the mechanic is there, while it is one of the two; ``None`` also when nobody knows just now.
    ``join_url``: where the session takes place, for whoever is shown this; only then. Only what a node of an earlier version has
    told lacks the last members.

    ``refund``: what of the payment goes back, or has gone back, in all, whoever has moved it. ``disputed``: the customer's bank has
    asked for the money (also when that is over).
    """

    id: str
    version: int
    plan: str
    session_type: str
    routing_type: RoutingType
    status: RequestStatus
    customer_name: str
    preferred_mechanic: Person | None
    assigned_mechanic: Person | None
    offer: OfferDeadline | None
    fallback_reason: FallbackReason | None
    created_at: Timestamp
    accepted_at: Timestamp | None
    completed_at: Timestamp | None
    refund: RefundState | None
    timeline: list[TimelineEntryView]
    note: str | None = None
    price_cents: int | UnsetType = UNSET
    currency: str | UnsetType = UNSET
    favorite_prompt: bool | UnsetType = UNSET
    start: Deadline | None = None
    ends: Deadline | None = None
    assigned_is_online: bool | None = None
    join_url: str | None = None
    disputed: bool | UnsetType = UNSET


class OfferView(Struct):
    """An offer as the mechanic sees it; ``offer_id`` is the key, it may arrive more than once.

    ``note`` is what the customer wrote about it; ``price_cents`` the price of what they bought. Only what a node of an earlier
    version has told lacks the price.
    """

    offer_id: str
    request_id: str
    kind: OfferKind
    customer_name: str
    plan: str
    session_type: str
    duration_min: int
    expires_at: Timestamp
    expires_in_ms: int
    note: str | None = None
    price_cents: int | UnsetType = UNSET
    currency: str | UnsetType = UNSET


class ResponseView(Struct):
    """How a mechanic usually answers their priority ``offers`` of the last 90 days: how many of them they accepted, and the median
    time to an answer (``None`` if they answered none).
    """

    accept_percent: int
    answers_within_s: int | None
    offers: int


class StatusView(Struct):
    """What is true of a mechanic at ``as_of``. ``last_seen`` is ``None`` if never seen; ``session_types``: what they take.

    ``response`` is ``None`` while too few offers tell how they answer.
    """

    mechanic_id: str
    is_online: bool
    last_seen: Timestamp | None
    availability: Availability
    reachable: Reachable
    session_types: list[SessionType]
    as_of: Timestamp
    version: int
    response: ResponseView | None = None


# --- mechanic -> server -----------------------------------------------------------------------------------------------


class Heartbeat(Struct, tag_field="type", tag="heartbeat"):
    """I am here. Any other frame and the pong to the server's ping say so, too."""


class SetAvailability(Struct, tag_field="type", tag="set_availability", omit_defaults=True):
    """Go on or off duty; remembered across connections and restarts. What was planned before is off with it.

    ``back_in_s``: a break, off duty now and on duty again by itself then. ``off_after_session``: on duty until the session they are
    in ends. Errors: `invalid_availability` (the message says what does not fit), `not_in_session` (there is none to wait for).
    """

    on_duty: bool
    back_in_s: Annotated[int, Meta(description=f"{BREAK_S_MIN} to {BREAK_S_MAX}")] | None = None
    off_after_session: bool = False


class OfferAck(Struct, tag_field="type", tag="offer_ack"):
    """The offer reached the app; it need not be sent again. ``seen``: a person could see it, on a screen that was on."""

    offer_id: Id
    seen: bool = False


class Accept(Struct, tag_field="type", tag="accept"):
    """Take the request that this offer is for."""

    offer_id: Id


class Decline(Struct, tag_field="type", tag="decline"):
    """Do not offer this request to me again."""

    offer_id: Id
    reason: Annotated[str, Meta(extra_json_schema={"maxLength": REASON_LEN_MAX})] | None = None


MechanicMessage = Heartbeat | SetAvailability | OfferAck | Accept | Decline


# --- server -> mechanic -----------------------------------------------------------------------------------------------


class MechanicWelcome(Struct, tag_field="type", tag="welcome"):
    """The snapshot after every (re)connect.

    Whoever sends nothing for ``presence_timeout_s`` counts as gone; ``disconnect_grace_s`` is how long a lost socket is kept quiet.
    The last three: see ``AvailabilityChanged``.
    """

    protocol: int
    mechanic_id: str
    connection_id: str
    server_time: Timestamp
    heartbeat_interval_s: float
    presence_timeout_s: float
    disconnect_grace_s: float
    on_duty: bool
    offers: list[OfferView]
    request: RequestView | None
    back_at: Timestamp | UnsetType = UNSET
    back_in_ms: int | UnsetType = UNSET
    off_after_session: bool | UnsetType = UNSET


class HeartbeatAck(Struct, tag_field="type", tag="heartbeat_ack"):
    server_time: Timestamp


class AvailabilityChanged(Struct, tag_field="type", tag="availability"):
    """The answer to ``set_availability``, and what is sent whenever this changes otherwise.

    ``back_at`` and ``back_in_ms``: when a break ends; ``off_after_session``: they go off duty with the session they are in. Each is
    there only while it is so.
    """

    on_duty: bool
    availability: Availability
    back_at: Timestamp | UnsetType = UNSET
    back_in_ms: int | UnsetType = UNSET
    off_after_session: bool | UnsetType = UNSET


class OfferMade(Struct, tag_field="type", tag="offer"):
    """Sent again every five seconds until acknowledged, while it is open."""

    offer: OfferView


class OfferAccepted(Struct, tag_field="type", tag="offer_accepted"):
    """You have it."""

    offer_id: str
    request: RequestView


class OfferWithdrawn(Struct, tag_field="type", tag="offer_withdrawn"):
    """The offer is no longer open to you. ``declined``: you said no to it, or have switched off sessions of its kind.

    ``by_you``: you have taken or declined it, on another device.
    """

    offer_id: str
    reason: WithdrawReason
    by_you: bool | UnsetType = UNSET


class RequestUpdate(Struct, tag_field="type", tag="request_update"):
    """A request of yours has changed."""

    request: RequestView


class ErrorMessage(Struct, tag_field="type", tag="error"):
    """Something you sent was not done; ``ref`` is the id it was about."""

    code: str
    message: str
    ref: str | UnsetType = UNSET


ToMechanic = (
    MechanicWelcome
    | HeartbeatAck
    | AvailabilityChanged
    | OfferMade
    | OfferAccepted
    | OfferWithdrawn
    | RequestUpdate
    | ErrorMessage
)


# --- customer -> server -----------------------------------------------------------------------------------------------


class Watch(Struct, tag_field="type", tag="watch"):
    """Tell me about these mechanics: now, and at every change. Adds to what is watched."""

    mechanic_ids: Annotated[list[Id], Meta(max_length=WATCH_MAX)]


class Unwatch(Struct, tag_field="type", tag="unwatch"):
    """No longer about these."""

    mechanic_ids: Annotated[list[Id], Meta(max_length=WATCH_MAX)]


CustomerMessage = Heartbeat | Watch | Unwatch


# --- server -> customer -----------------------------------------------------------------------------------------------


class CustomerWelcome(Struct, tag_field="type", tag="welcome"):
    """The snapshot after every (re)connect; ``requests`` are the open ones, the two times as in the mechanic's."""

    protocol: int
    account_id: str
    server_time: Timestamp
    heartbeat_interval_s: float
    presence_timeout_s: float
    disconnect_grace_s: float
    requests: list[RequestView]


class StatusChanged(Struct, tag_field="type", tag="status"):
    """``StatusView`` as a message: the current one after ``watch``, then every change."""

    mechanic_id: str
    is_online: bool
    last_seen: Timestamp | None
    availability: Availability
    reachable: Reachable
    session_types: list[SessionType]
    as_of: Timestamp
    version: int
    response: ResponseView | None = None


class StatusesKnown(Struct, tag_field="type", tag="statuses"):
    """The answer to a ``watch`` of several: all that is known at once, in one message. A change after that is a ``status``."""

    statuses: list[StatusView]


class FavoritePrompt(Struct, tag_field="type", tag="favorite_prompt"):
    """The session is completed and the mechanic not yet a favourite: would you like them to be?"""

    request_id: str
    mechanic: Person


ToCustomer = (
    CustomerWelcome | HeartbeatAck | StatusChanged | StatusesKnown | RequestUpdate | FavoritePrompt | ErrorMessage
)


class PushTest(Struct, tag_field="type", tag="test"):
    """By push alone: somebody wanted to see whether it arrives."""


_encoder = msgspec_json.Encoder()
mechanic_decoder = msgspec_json.Decoder(MechanicMessage)
customer_decoder = msgspec_json.Decoder(CustomerMessage)


def encode(message: ToMechanic | ToCustomer | PushTest) -> bytes:
    """Return ``message`` as the payload of one text frame, or of a push message."""
    return _encoder.encode(message)
