"""Everything that travels over REST, in and out; the published OpenAPI document is generated from these.

A body with an unknown member is refused (contract), so every body forbids unknown fields.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from models.text import LABEL_LEN_MAX, NAME_LEN_MAX, NOTE_LEN_MAX, REASON_LEN_MAX
from models.wire import Id, OfferView, RequestView, StatusView, Timestamp
from models.words import (
    CheckoutStatus,
    OfferKind,
    ProviderType,
    RefundProgress,
    RefundStatus,
    Role,
    RoutingType,
    SessionType,
    Settlement,
)

Email = Annotated[str, Meta(min_length=3, max_length=254, pattern=r"^[^@\s]+@[^@\s]+$(?!\n)")]
Name = Annotated[str, Meta(min_length=1, pattern=r"\S", extra_json_schema={"maxLength": NAME_LEN_MAX})]
PASSWORD_BYTES_MAX = 1024
NewPassword = Annotated[str, Meta(min_length=8, extra_json_schema={"maxLength": PASSWORD_BYTES_MAX})]
"""At most so many bytes in UTF-8; what else it must not be, the server says."""


# --- bodies -----------------------------------------------------------------------------------------------------------


class RegisterBody(Struct, forbid_unknown_fields=True):
    email: Email
    password: NewPassword
    name: Name


class LoginBody(Struct, forbid_unknown_fields=True):
    email: Annotated[str, Meta(max_length=254)]
    password: Annotated[str, Meta(extra_json_schema={"maxLength": PASSWORD_BYTES_MAX})]


class LogoutBody(Struct, forbid_unknown_fields=True):
    """``everywhere``: on all devices, and not on this one alone."""

    everywhere: bool = False


class PasswordBody(Struct, forbid_unknown_fields=True):
    current_password: Annotated[str, Meta(max_length=PASSWORD_BYTES_MAX)]
    new_password: NewPassword


class ForgotBody(Struct, forbid_unknown_fields=True):
    email: Annotated[str, Meta(max_length=254)]


class ResetBody(Struct, forbid_unknown_fields=True):
    """``reset_token``: what stands behind the ``#`` of the link in the mail."""

    reset_token: Annotated[str, Meta(max_length=200)]
    new_password: NewPassword


class EraseBody(Struct, forbid_unknown_fields=True):
    current_password: Annotated[str, Meta(max_length=PASSWORD_BYTES_MAX)]


class NameBody(Struct, forbid_unknown_fields=True):
    name: Name


class CheckoutBody(Struct, forbid_unknown_fields=True):
    """``note``: what it is about, such as the car and its trouble. Mechanics read it before they accept."""

    plan: Annotated[str, Meta(max_length=64)]
    routing_type: RoutingType
    preferred_mechanic_id: Id | None = None
    note: Annotated[str, Meta(extra_json_schema={"maxLength": NOTE_LEN_MAX})] | None = None


class DeclineBody(Struct, forbid_unknown_fields=True):
    reason: Annotated[str, Meta(extra_json_schema={"maxLength": REASON_LEN_MAX})] | None = None


class FindAnotherBody(Struct, forbid_unknown_fields=True):
    """``mechanic_id``: whom not to wait for. Without it whoever has the request, who may be somebody else by then."""

    mechanic_id: Id | None = None


class ReasonBody(Struct, forbid_unknown_fields=True):
    reason: Annotated[str, Meta(min_length=1, extra_json_schema={"maxLength": REASON_LEN_MAX})]


class SettleBody(Struct, forbid_unknown_fields=True, rename={"as_": "as"}):
    """As what a request that is stuck is to end."""

    as_: Settlement


class PreferencesBody(Struct, forbid_unknown_fields=True):
    """At least one kind of session, each once: whoever wants none goes off duty."""

    session_types: Annotated[list[SessionType], Meta(min_length=1, extra_json_schema={"uniqueItems": True})]
    push_broadcasts: bool


class PushKeys(Struct, forbid_unknown_fields=True):
    p256dh: Annotated[str, Meta(min_length=1, max_length=200)]
    auth: Annotated[str, Meta(min_length=1, max_length=100)]


class PushSubscribeBody(Struct, forbid_unknown_fields=True):
    """What ``PushSubscription.toJSON()`` gives in a browser, and a ``label`` to know it by."""

    endpoint: Annotated[str, Meta(max_length=1000, pattern=r"^https?://")]
    keys: PushKeys
    expirationTime: float | None = None
    label: Annotated[str, Meta(extra_json_schema={"maxLength": LABEL_LEN_MAX})] | None = None
    """What the person calls this browser, or we would: ``Chrome on Android``."""


class PushUnsubscribeBody(Struct, forbid_unknown_fields=True):
    endpoint: Annotated[str, Meta(max_length=1000)]


class PushTestBody(Struct, forbid_unknown_fields=True):
    """``endpoint``: of which browser; without it, of all of the account's."""

    endpoint: Annotated[str, Meta(max_length=1000)] | None = None


# --- answers ----------------------------------------------------------------------------------------------------------


class AccountView(Struct):
    """``has_used_free_session`` is there for customers only; of the session only ``/api/me`` tells.

    From ``session_renew_at`` on, half of its life is over and it is worth renewing.
    """

    id: str
    role: Role
    name: str
    email: str
    has_used_free_session: bool | UnsetType = UNSET
    session_expires_at: Timestamp | UnsetType = UNSET
    session_renew_at: Timestamp | UnsetType = UNSET


class DeviceView(Struct):
    """Where an account is signed in. ``user_agent``: what the program there calls itself (RFC 9110 §10.1.5)."""

    id: str
    user_agent: str | None
    signed_in_at: Timestamp
    is_this: bool


class Devices(Struct):
    devices: list[DeviceView]


class SignedIn(Struct):
    account: AccountView
    token: str
    expires_at: Timestamp


class Renewed(Struct):
    """As after signing in; ``token`` is there for those who called with one.

    A browser's stays in its cookie, where no script can read it.
    """

    account: AccountView
    expires_at: Timestamp
    token: str | UnsetType = UNSET


class Ticket(Struct):
    ticket: str
    expires_in_s: int


class Statuses(Struct):
    statuses: list[StatusView]


class AvailableCount(Struct):
    available_count: int


class FavoriteView(Struct):
    """A favourite, and what they have done for the customer: ``services_count`` sessions served, the last at ``last_service_at``.

    ``total_spent_cents`` is what was paid for these and has not gone back, in the currency most used with this mechanic (of two
    the one used last); payments in others are not in it. Without any, the currency is the one that plans are sold in.
    """

    provider_id: str
    provider_name: str
    provider_type: ProviderType
    services_count: int
    total_spent_cents: int
    currency: str
    last_service_at: Timestamp | None
    status: StatusView


class Favorites(Struct):
    favorites: list[FavoriteView]


class FavoriteAdded(Struct):
    favorite: FavoriteView


class PlanView(Struct):
    id: str
    name: str
    price_cents: int
    currency: str
    duration_min: int
    session_type: str
    first_time_only: bool
    eligible: bool


class Plans(Struct):
    plans: list[PlanView]


class StripeCheckout(Struct):
    checkout_id: str
    kind: Literal["stripe"]
    url: str
    expires_at: Timestamp


class FreeCheckout(Struct):
    checkout_id: str
    kind: Literal["free"]
    request: RequestView


class CheckoutState(Struct):
    checkout_id: str
    status: CheckoutStatus
    request_id: str | UnsetType = UNSET


class RequestAnswer(Struct):
    request: RequestView


class Requests(Struct):
    requests: list[RequestView]
    next_cursor: str | None


PastOfferOutcome = Literal[
    "accepted", "declined", "missed", "taken", "cancelled", "skipped", "given_back", "no_show", "find_another"
]
"""``missed``: it ended unanswered; ``taken``: another mechanic was faster; ``given_back``: accepted, and not kept.
``no_show``: accepted, and not started in time; ``find_another``: accepted, and the customer asked for another mechanic."""


class PastOffer(Struct):
    """An offer that is over for a mechanic; ``ended_at``: for them, when they answered it, else when it closed."""

    offer_id: str
    request_id: str
    kind: OfferKind
    customer_name: str
    plan: str
    session_type: str
    duration_min: int
    price_cents: int
    currency: str
    offered_at: Timestamp
    ended_at: Timestamp
    outcome: PastOfferOutcome


class PastOffers(Struct):
    offers: list[PastOffer]
    next_cursor: str | None


class DayHours(Struct):
    """A mechanic's day (UTC). What crosses midnight is cut there, what has not ended yet counts until now.

    ``on_duty_s`` is how long their switch was on, with an app connected or not. ``earned_cents`` is the price of the ``sessions``
    that were completed on that day, whatever their customers paid of it; a session whose payment has gone back in full is counted,
    and earns nothing. A day with sessions of several currencies has an entry for each; the first of them has the day's hours.
    """

    day: Annotated[str, Meta(extra_json_schema={"format": "date"})]
    on_duty_s: int
    in_session_s: int
    sessions: int
    earned_cents: int
    currency: str


class Hours(Struct):
    days: list[DayHours]


class Offers(Struct):
    offers: list[OfferView]


class PreferencesView(Struct):
    """``session_types``: what they take, always in the same order; ``push_broadcasts``: whether open requests may wake them."""

    session_types: list[SessionType]
    push_broadcasts: bool


class PushKey(Struct):
    public_key: str


class PushSubscribed(Struct):
    id: str
    endpoint: str


class PushSubscriptionView(Struct):
    """A browser of the caller's. Its endpoint is a secret of the browser's: ``endpoint_hash`` is the SHA-256 of it (base64url), by
    which a page knows its own. ``last_used_at``: when its push service last took a message for it."""

    id: str
    created_at: Timestamp
    endpoint_host: str
    endpoint_hash: str
    last_used_at: Timestamp | UnsetType = UNSET
    label: str | UnsetType = UNSET


class PushSubscriptions(Struct):
    subscriptions: list[PushSubscriptionView]


class PublicConfig(Struct):
    """What the pages need to say true sentences."""

    priority_window_s: float
    broadcast_window_s: float
    heartbeat_interval_s: float
    demo: bool


class FieldError(Struct):
    field: str
    message: str


class Problem(Struct):
    """RFC 9457; ``code`` is the stable word to switch on."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    errors: list[FieldError] | UnsetType = UNSET


class OwedRefundView(Struct):
    """Money that has not arrived yet; ``request_id`` is ``None`` for a payment that was never dispatched.

    ``left_cents``: what of ``amount_cents`` nobody has moved yet. ``state``: what it waits for. ``last_error``: what the last
    attempt that was refused came to, ``None`` if none was.
    """

    refund_id: str
    request_id: str | None
    status: RefundStatus
    amount_cents: int
    attempts: int
    cause: str
    currency: str
    left_cents: int
    state: RefundProgress
    last_error: str | None


class DisputeView(Struct):
    """A payment that a customer's bank asks for; ``dispute_id``, ``payment_intent_id`` and ``status`` are Stripe's."""

    dispute_id: str
    payment_intent_id: str
    request_id: str | None
    amount_cents: int
    currency: str
    status: str


class AccountState(Struct):
    id: str
    is_disabled: bool


class RefundRetried(Struct):
    """``is_retried``: whether it is asked for once more; all of one that is done is back."""

    refund_id: str
    is_retried: bool


class SetAside(Struct):
    """Background work on one row that failed too often and waits for an operator; ``last_error`` is its kind and first line."""

    work: str
    id: str
    failures: int
    last_error: str
    set_aside_at: Timestamp


class NodeState(Struct):
    """What the node that answers says of itself; ``loops_dying`` names background loops that a bug ends again and again."""

    outbox_depth: int
    loops_dying: list[str]


class OpsSnapshot(Struct):
    """Counts and lists behind the operations page."""

    at: Timestamp
    counts: dict[str, int]
    open_requests: list[RequestView]
    refunds_owed: list[OwedRefundView]
    disputes: list[DisputeView]
    reported_requests: list[RequestView]
    """Of whose sessions their customers say that something was wrong, the newest first."""
    set_aside: list[SetAside]
    node: NodeState
