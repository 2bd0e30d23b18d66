"""What SQL keeps: the truth about accounts, requests and money. Instants are integers, milliseconds since the epoch.

Uniqueness that a rule depends on is written here as a constraint, so that no code path can break it:
one request per checkout, one open offer per request, one session per mechanic, one refund per checkout.
"""

from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Dialect,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    TypeDecorator,
    false,
    text,
)
from sqlmodel import Field, SQLModel

from models.words import (
    CheckoutStatus,
    ExclusionReason,
    FallbackReason,
    OfferKind,
    ProviderType,
    RefundStatus,
    RequestStatus,
    Role,
    RoutingType,
    WithdrawReason,
)

SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
metadata: MetaData = SQLModel.metadata


def instant(**options: Any) -> Any:
    """A column of milliseconds since the epoch."""
    return Field(sa_type=BigInteger, **options)


class TextOf(TypeDecorator[StrEnum]):
    """A column that keeps words as plain text and reads them back as members.

    A word that there is not, of a later version perhaps, stays text: it must not fail the reading of all rows beside it.
    Whoever decides by it asks for the member (``RequestStatus(row.status)``), and fails alone.
    """

    impl = String
    cache_ok = True

    def __init__(self, words: type[StrEnum]) -> None:
        super().__init__()
        self.words = words

    def process_bind_param(self, value: StrEnum | str | None, dialect: Dialect) -> str | None:
        """Write the text."""
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Read the member, or the text that is none."""
        try:
            return self.words(value) if value is not None else None
        except ValueError:
            return value


def set_aside_index(table: str) -> Index:
    """The few rows of a table that wait for an operator."""
    is_set_aside = text("set_aside_at_ms IS NOT NULL")
    return Index(f"ix_{table}_set_aside", "set_aside_at_ms", sqlite_where=is_set_aside, postgresql_where=is_set_aside)


class MayFail(SQLModel):
    """What a row remembers of handling that failed, where that may happen again and again; see ``dispatch.failures``."""

    id: str = Field(primary_key=True)
    failures: int = Field(default=0, sa_column_kwargs={"server_default": text("0")})
    """The default is the database's, too: an earlier version writes rows without it."""
    last_error: str | None = None
    set_aside_at_ms: int | None = instant(default=None)
    """Since when it waits for an operator."""


IS_DEPARTING = text("departing_since_ms IS NOT NULL")


class Account(SQLModel, table=True):
    """Somebody who may sign in."""

    __tablename__ = "accounts"
    __table_args__ = (
        Index("ix_accounts_departing", "departing_since_ms", sqlite_where=IS_DEPARTING, postgresql_where=IS_DEPARTING),
    )

    id: str = Field(primary_key=True)
    role: Role = Field(sa_type=TextOf(Role))
    email: str = Field(unique=True)
    """Lower-case."""
    name: str
    password_hash: str | None = None
    """Argon2id; ``None`` for an account that only tokens can use."""
    free_session_used: bool = False
    created_at_ms: int = instant()
    disabled_at_ms: int | None = instant(default=None)
    """Since when nobody can use it; ``None``: it can be used."""
    erased_at_ms: int | None = instant(default=None)
    """Since when nothing of its person is kept; it is disabled, too, and stays so."""
    departing_since_ms: int | None = instant(default=None)
    """Since when it is to be let go of by everything that still counts on it; ``None``: there is nothing left to do."""


IS_TOKENS_REVOCATION = text("token_expires_at_ms IS NOT NULL")


class Revocation(SQLModel, table=True):
    """What may not be used any more although its signature is good: one token, or all of an account's up to an instant.

    Of an account there is one row at most. It stays for good, because nobody knows for how long an integrator's tokens are valid.
    """

    __tablename__ = "revocations"
    __table_args__ = (
        Index(
            "ix_revocations_ended",
            "token_expires_at_ms",
            sqlite_where=IS_TOKENS_REVOCATION,
            postgresql_where=IS_TOKENS_REVOCATION,
        ),
    )

    id: str = Field(primary_key=True)
    """``token:`` or ``account:``, and whose id."""
    account_id: str
    up_to_ms: int | None = instant(default=None)
    """Tokens of the account that were issued until then; ``None`` for a single token."""
    is_disabled: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    """All tokens of the account, whenever they are issued."""
    token_expires_at_ms: int | None = instant(default=None)
    """When the single token ends by itself, and nobody has to remember it."""
    changed_at_ms: int = instant(index=True)


class PasswordReset(SQLModel, table=True):
    """A link by which an account's password can be set, once."""

    __tablename__ = "password_resets"

    id: str = Field(primary_key=True)
    """Digest of the token in it."""
    account_id: str = Field(foreign_key="accounts.id", index=True)
    expires_at_ms: int = instant()


class SignIn(SQLModel, table=True):
    """A device that somebody has signed in on, until its token ends."""

    __tablename__ = "sign_ins"

    id: str = Field(primary_key=True)
    """In the device's tokens as ``sid``."""
    account_id: str = Field(foreign_key="accounts.id", index=True)
    user_agent: str | None = None
    created_at_ms: int = instant()
    expires_at_ms: int = instant()


WANTS_BROADCASTS = text("push_broadcasts AND has_push")


class Mechanic(SQLModel, table=True):
    """What is true of a mechanic besides being here: on duty, in a session, reachable by push, which sessions they take.

    ``facts_version`` grows with every change of these, so that a late copy in Redis never overwrites a newer one.
    """

    __tablename__ = "mechanics"
    __table_args__ = (
        Index("ix_mechanics_woken", "id", sqlite_where=WANTS_BROADCASTS, postgresql_where=WANTS_BROADCASTS),
        Index(
            "ix_mechanics_back",
            "back_at_ms",
            sqlite_where=text("back_at_ms IS NOT NULL"),
            postgresql_where=text("back_at_ms IS NOT NULL"),
        ),
    )

    id: str = Field(primary_key=True, foreign_key="accounts.id")
    provider_type: ProviderType = Field(sa_type=String)
    on_duty: bool = True
    is_disabled: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    """Their account is: they get no session any more."""
    active_request_id: str | None = None
    """The one session they are in. Set only by an update that requires it to be empty."""
    has_push: bool = False
    push_broadcasts: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    """Whether open requests may wake them, too."""
    session_types_off: str = Field(default="", sa_column_kwargs={"server_default": ""})
    """The kinds of session that they do not take, see ``models.session_types``."""
    facts_version: int = instant(default=1)
    last_seen_at_ms: int | None = instant(default=None)
    back_at_ms: int | None = instant(default=None)
    """When they go on duty again by themselves; ``None``: not on a break."""
    off_after_request_id: str | None = None
    """The session after which they go off duty. Of one that they are not in any more it says nothing."""


class MechanicResponse(SQLModel, table=True):
    """How a mechanic usually answers priority offers; counted anew whenever one of theirs is over, and once a day."""

    __tablename__ = "mechanic_responses"

    mechanic_id: str = Field(primary_key=True, foreign_key="mechanics.id")
    offers: int
    """Of the last 90 days, that were theirs to answer."""
    accept_percent: int
    answers_within_s: int | None = None
    """The median; ``None`` if they answered none of them."""
    counted_at_ms: int = instant(index=True)


class DutyInterval(SQLModel, table=True):
    """For how long a mechanic was on duty, by their switch: whether they were also connected then is another matter.

    Those of a mechanic never overlap; one that ended over a second ago never changes: hours are paid by it.
    """

    __tablename__ = "duty_intervals"
    __table_args__ = (
        Index(
            "uq_duty_intervals_one_open_per_mechanic",
            "mechanic_id",
            unique=True,
            sqlite_where=text("ended_at_ms IS NULL"),
            postgresql_where=text("ended_at_ms IS NULL"),
        ),
        Index("ix_duty_intervals_mechanic", "mechanic_id", "started_at_ms"),
    )

    id: int | None = Field(default=None, primary_key=True)
    mechanic_id: str = Field(foreign_key="accounts.id")
    started_at_ms: int = instant()
    ended_at_ms: int | None = instant(default=None)


class Plan(SQLModel, table=True):
    """What can be bought; an operator may change it."""

    __tablename__ = "plans"

    id: str = Field(primary_key=True)
    name: str
    price_cents: int
    currency: str
    duration_min: int
    session_type: str
    first_time_only: bool
    position: int


class Favorite(SQLModel, table=True):
    """A customer's mark on a mechanic they trust."""

    __tablename__ = "favorites"

    customer_id: str = Field(primary_key=True, foreign_key="accounts.id")
    mechanic_id: str = Field(primary_key=True, foreign_key="accounts.id")
    created_at_ms: int = instant()


IS_OPEN_CHECKOUT = text("status = 'open'")
"""In these words, and not with a parameter, a statement finds open checkouts by their index."""
IS_DROPPED = text("status IN ('expired', 'failed') AND request_id IS NULL AND payment_intent_id IS NULL")
HAS_SPENT_KEY = text("idempotency_key IS NOT NULL AND status <> 'open'")


class Checkout(SQLModel, table=True):
    """What a customer asked to pay for, as it was when they asked."""

    __tablename__ = "checkouts"
    __table_args__ = (
        Index("uq_checkouts_idempotency", "customer_id", "idempotency_key", unique=True),
        Index(
            "ix_checkouts_payment_intent_id",
            "payment_intent_id",
            sqlite_where=text("payment_intent_id IS NOT NULL"),
            postgresql_where=text("payment_intent_id IS NOT NULL"),
        ),
        Index("ix_checkouts_open", "id", sqlite_where=IS_OPEN_CHECKOUT, postgresql_where=IS_OPEN_CHECKOUT),
        Index("ix_checkouts_customer", "customer_id", "created_at_ms"),
        Index("ix_checkouts_dropped", "created_at_ms", sqlite_where=IS_DROPPED, postgresql_where=IS_DROPPED),
        Index("ix_checkouts_spent_keys", "created_at_ms", sqlite_where=HAS_SPENT_KEY, postgresql_where=HAS_SPENT_KEY),
    )

    id: str = Field(primary_key=True)
    customer_id: str = Field(foreign_key="accounts.id")
    plan_id: str
    price_cents: int
    currency: str
    duration_min: int
    session_type: str
    routing_type: RoutingType = Field(sa_type=String)
    preferred_mechanic_id: str | None = None
    status: CheckoutStatus = Field(default="open", sa_type=String)
    stripe_session_id: str | None = Field(default=None, unique=True)
    url: str | None = None
    expires_at_ms: int | None = instant(default=None, index=True)
    payment_intent_id: str | None = None
    request_id: str | None = None
    idempotency_key: str | None = None
    idempotency_hash: str | None = None
    created_at_ms: int = instant()
    note: str | None = Field(default=None, sa_type=Text)
    """What the customer wrote about it, for the mechanics who may take the request."""


class SessionRequest(MayFail, table=True):
    """A paid request, from the first offer to the end; see ``dispatch.request`` for its life."""

    __tablename__ = "session_requests"
    __table_args__ = (
        set_aside_index("session_requests"),
        Index(
            "uq_session_requests_one_session_per_mechanic",
            "assigned_mechanic_id",
            unique=True,
            sqlite_where=text("status IN ('accepted', 'in_progress')"),
            postgresql_where=text("status IN ('accepted', 'in_progress')"),
        ),
        Index("ix_session_requests_customer", "customer_id", "id"),
        Index("ix_session_requests_assigned", "assigned_mechanic_id", "id"),
        Index(
            "ix_session_requests_worked",
            "assigned_mechanic_id",
            "started_at_ms",
            sqlite_where=text("started_at_ms IS NOT NULL"),
            postgresql_where=text("started_at_ms IS NOT NULL"),
        ),
        Index(
            "uq_session_requests_limit",
            "limit_id",
            unique=True,
            sqlite_where=text("limit_id IS NOT NULL"),
            postgresql_where=text("limit_id IS NOT NULL"),
        ),
        Index("ix_session_requests_customer_settled", "customer_id", "settled_at_ms"),
        Index("ix_session_requests_assigned_settled", "assigned_mechanic_id", "settled_at_ms"),
        Index(
            "ix_session_requests_open",
            "id",
            sqlite_where=text("settled_at_ms IS NULL"),
            postgresql_where=text("settled_at_ms IS NULL"),
        ),
        Index(
            "ix_session_requests_settled",
            "settled_at_ms",
            "status",
            sqlite_where=text("settled_at_ms IS NOT NULL"),
            postgresql_where=text("settled_at_ms IS NOT NULL"),
        ),
    )

    version: int = instant()
    checkout_id: str = Field(unique=True, foreign_key="checkouts.id")
    customer_id: str = Field(foreign_key="accounts.id")
    plan_id: str
    session_type: str
    duration_min: int
    price_cents: int
    currency: str
    routing_type: RoutingType = Field(sa_type=String)
    preferred_mechanic_id: str | None = Field(default=None, foreign_key="accounts.id")
    assigned_mechanic_id: str | None = Field(default=None, foreign_key="accounts.id")
    status: RequestStatus = Field(sa_type=TextOf(RequestStatus), index=True)
    fallback_reason: FallbackReason | None = Field(default=None, sa_type=TextOf(FallbackReason))
    priority_offer_id: str | None = Field(default=None, unique=True)
    """The favourite's offer, also after its window: a late accept of it counts as one of the broadcast."""
    created_at_ms: int = instant()
    accepted_at_ms: int | None = instant(default=None)
    started_at_ms: int | None = instant(default=None)
    completed_at_ms: int | None = instant(default=None)
    settled_at_ms: int | None = instant(default=None)
    limit_id: str | None = None
    """Of the time limit that its mechanic has to start, or that the session has; as an offer's id, on the clock."""
    limit_of_ms: int | None = instant(default=None)
    """When what it limits began: of another acceptance or session, left by a node of an earlier version, it counts for nothing."""
    limit_expires_at_ms: int | None = instant(default=None)
    limit_rings_at_ms: int | None = instant(default=None)
    """When time has to do something next."""
    used_free_session: bool | None = None
    """Whether it has used its customer's right to a free session and has not given it back; ``None`` where a node of an earlier
    version has written it."""


MAY_WAKE = text("may_wake AND pushed_at_ms IS NULL AND closed_at_ms IS NULL")
IS_PUSHED_BROADCAST = text(
    "looked_again_at_ms IS NULL AND closed_at_ms IS NULL AND mechanic_id IS NULL AND pushed_at_ms IS NOT NULL"
)
IS_BROADCAST = text("mechanic_id IS NULL AND pushed_at_ms IS NULL AND closed_at_ms IS NULL")


class Offer(MayFail, table=True):
    """One window in which a request may be taken: by one mechanic (priority) or by any (broadcast)."""

    __tablename__ = "offers"
    __table_args__ = (
        set_aside_index("offers"),
        Index(
            "uq_offers_one_open_per_request",
            "request_id",
            unique=True,
            sqlite_where=text("closed_at_ms IS NULL"),
            postgresql_where=text("closed_at_ms IS NULL"),
        ),
        Index(
            "ix_offers_uncounted",
            "id",
            sqlite_where=text("counted_at_ms IS NULL AND closed_at_ms IS NOT NULL AND mechanic_id IS NOT NULL"),
            postgresql_where=text("counted_at_ms IS NULL AND closed_at_ms IS NOT NULL AND mechanic_id IS NOT NULL"),
        ),
        # Of what is open, only what may wake somebody: at a rush hour thousands of offers are open.
        Index("ix_offers_wakeful", "id", sqlite_where=MAY_WAKE, postgresql_where=MAY_WAKE),
        Index("ix_offers_unpushed_broadcasts", "id", sqlite_where=IS_BROADCAST, postgresql_where=IS_BROADCAST),
        Index(
            "ix_offers_pushed",
            "id",
            sqlite_where=text("pushed_at_ms IS NOT NULL AND unpushed_at_ms IS NULL"),
            postgresql_where=text("pushed_at_ms IS NOT NULL AND unpushed_at_ms IS NULL"),
        ),
        Index(
            "ix_offers_past_priority",
            "mechanic_id",
            "opened_at_ms",
            "id",
            sqlite_where=text("closed_at_ms IS NOT NULL AND mechanic_id IS NOT NULL"),
            postgresql_where=text("closed_at_ms IS NOT NULL AND mechanic_id IS NOT NULL"),
        ),
        Index(
            "ix_offers_past_broadcasts",
            "opened_at_ms",
            "id",
            sqlite_where=text("closed_at_ms IS NOT NULL AND mechanic_id IS NULL"),
            postgresql_where=text("closed_at_ms IS NOT NULL AND mechanic_id IS NULL"),
        ),
        Index(
            "ix_offers_taken_broadcasts",
            "taken_by_id",
            "opened_at_ms",
            "id",
            sqlite_where=text("taken_by_id IS NOT NULL AND mechanic_id IS NULL"),
            postgresql_where=text("taken_by_id IS NOT NULL AND mechanic_id IS NULL"),
        ),
        Index(
            "ix_offers_pushed_broadcasts",
            "pushed_at_ms",
            sqlite_where=IS_PUSHED_BROADCAST,
            postgresql_where=IS_PUSHED_BROADCAST,
        ),
        Index(
            "ix_offers_open_of_mechanic",
            "mechanic_id",
            sqlite_where=text("closed_at_ms IS NULL AND mechanic_id IS NOT NULL"),
            postgresql_where=text("closed_at_ms IS NULL AND mechanic_id IS NOT NULL"),
        ),
        Index(
            "ix_offers_open_broadcasts",
            "expires_at_ms",
            sqlite_where=text("closed_at_ms IS NULL AND mechanic_id IS NULL"),
            postgresql_where=text("closed_at_ms IS NULL AND mechanic_id IS NULL"),
        ),
        Index(
            "ix_offers_open",
            "expires_at_ms",
            sqlite_where=text("closed_at_ms IS NULL"),
            postgresql_where=text("closed_at_ms IS NULL"),
        ),
    )

    request_id: str = Field(foreign_key="session_requests.id", index=True)
    kind: OfferKind = Field(sa_type=TextOf(OfferKind))
    mechanic_id: str | None = None
    """Whom a priority offer is for; ``None`` for a broadcast."""
    opened_at_ms: int = instant()
    expires_at_ms: int = instant()
    mechanic_is_busy: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})
    """Whether the customer has been told that the favourite is in a session with somebody else."""
    counted_at_ms: int | None = instant(default=None)
    """When a priority offer that is over was counted among its mechanic's answers."""
    closed_at_ms: int | None = instant(default=None)
    close_reason: WithdrawReason | None = Field(default=None, sa_type=TextOf(WithdrawReason))
    taken_by_id: str | None = None
    """Who accepted it; also ``None`` where a node of an earlier version has closed it."""
    delivered_at_ms: int | None = instant(default=None)
    """When the favourite's app first acknowledged a priority offer."""
    seen_at_ms: int | None = instant(default=None)
    """When a person could first see it there."""
    may_wake: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    """Whether a priority offer's mechanic has had a browser that can be woken, when it was opened or later."""
    pushed_at_ms: int | None = instant(default=None)
    """Since when browsers are being woken for it."""
    looked_again_at_ms: int | None = instant(default=None)
    """When it was looked, once more, who is to be woken for a broadcast: who had just gone the first time still counted as here."""
    unpushed_at_ms: int | None = instant(default=None)
    """Since when they are being told that it has ended."""


class Exclusion(SQLModel, table=True):
    """A mechanic who will not be asked for this request again: ``because`` says why."""

    __tablename__ = "exclusions"

    request_id: str = Field(primary_key=True, foreign_key="session_requests.id")
    mechanic_id: str = Field(primary_key=True)
    because: ExclusionReason = Field(sa_type=String)
    at_ms: int | None = instant(default=None)
    """Since when; ``None`` where a node of an earlier version has written it."""


class TimelineEntry(SQLModel, table=True):
    """One line of a request's story."""

    __tablename__ = "timeline"
    __table_args__ = (
        Index(
            "ix_timeline_reports",
            "id",
            sqlite_where=text("event = 'reported'"),
            postgresql_where=text("event = 'reported'"),
        ),
    )

    id: int | None = Field(default=None, primary_key=True)
    request_id: str = Field(foreign_key="session_requests.id", index=True)
    at_ms: int = instant()
    event: str
    details: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))


class OutboxMessage(MayFail, table=True):
    """What a committed transaction still has to tell somebody; deleted once told, so told at least once."""

    __tablename__ = "outbox"
    __table_args__ = (set_aside_index("outbox"),)

    kind: str
    payload: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    leased_until_ms: int = instant(index=True)
    """Whose lease this is tells it; after that any node may."""


class StripeEvent(MayFail, table=True):
    """A verified webhook, stored before it is answered and worked on afterwards."""

    __tablename__ = "stripe_events"
    __table_args__ = (
        set_aside_index("stripe_events"),
        # Of what is unfinished alone: nearly all of a year's events are not.
        Index(
            "ix_stripe_events_unfinished",
            "next_attempt_at_ms",
            sqlite_where=text("processed_at_ms IS NULL"),
            postgresql_where=text("processed_at_ms IS NULL"),
        ),
        Index(
            "ix_stripe_events_finished",
            "processed_at_ms",
            sqlite_where=text("processed_at_ms IS NOT NULL"),
            postgresql_where=text("processed_at_ms IS NOT NULL"),
        ),
    )

    type: str
    object_id: str | None = None
    payment_intent_id: str | None = None
    """Of which payment its object is."""
    payload: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    received_at_ms: int = instant()
    processed_at_ms: int | None = instant(default=None)
    attempts: int = 0
    next_attempt_at_ms: int = instant()


class Refund(MayFail, table=True):
    """That all of one checkout's payment is to go back, or has: by us, by others, or by the bank."""

    __tablename__ = "refunds"
    __table_args__ = (
        set_aside_index("refunds"),
        Index(
            "ix_refunds_unfinished",
            "id",
            sqlite_where=text("status <> 'succeeded'"),
            postgresql_where=text("status <> 'succeeded'"),
        ),
        Index(
            "ix_refunds_to_ask",
            "id",
            sqlite_where=text("next_attempt_at_ms IS NOT NULL"),
            postgresql_where=text("next_attempt_at_ms IS NOT NULL"),
        ),
    )

    checkout_id: str = Field(unique=True, foreign_key="checkouts.id")
    request_id: str | None = Field(default=None, foreign_key="session_requests.id", index=True)
    """``None`` for a payment that was never dispatched."""
    payment_intent_id: str
    amount_cents: int
    currency: str
    cause: str
    status: RefundStatus = Field(default="pending", sa_type=String)
    stripe_refund_id: str | None = Field(default=None, unique=True)
    attempts: int = 0
    next_attempt_at_ms: int | None = instant(default=None, index=True)
    """When to ask Stripe, for it or what became of it; ``None`` once that is known."""
    created_at_ms: int = instant()
    settled_at_ms: int | None = instant(default=None)
    key_number: int = Field(default=1, sa_column_kwargs={"server_default": text("1")})
    """Which idempotency key it is asked for under: one that Stripe has answered for good is followed by the next."""
    asked_cents: int | None = instant(default=None)
    """What was asked for under that key; ``None``: it has not been used yet."""
    key_errors: int = Field(default=0, sa_column_kwargs={"server_default": text("0")})
    """How often Stripe has answered that key with an error of its own."""


class PaymentLedger(SQLModel, table=True):
    """What became of a payment's money, as Stripe last said; see ``dispatch.money.ledger``. There from the first move on."""

    __tablename__ = "ledgers"
    __table_args__ = (
        Index(
            "ix_ledgers_unsettled",
            "looked_at_ms",
            sqlite_where=text("is_unsettled"),
            postgresql_where=text("is_unsettled"),
        ),
    )

    payment_intent_id: str = Field(primary_key=True)
    checkout_id: str = Field(unique=True, foreign_key="checkouts.id")
    version: int = instant()
    """Grows with each look at Stripe that is written: one that began before another has ended must not overwrite it."""
    paid_cents: int = instant()
    by_us_cents: int = instant()
    by_others_cents: int = instant()
    on_its_way_cents: int = instant()
    taken_cents: int = instant()
    dispute: str | None = None
    is_unsettled: bool
    """Whether something is on its way, or a dispute open: looked at again also if Stripe tells nothing."""
    looked_at_ms: int = instant()


class LedgerEntry(SQLModel, table=True):
    """A refund or a dispute of a payment, by Stripe's id and in Stripe's words."""

    __tablename__ = "ledger_entries"

    id: str = Field(primary_key=True)
    payment_intent_id: str = Field(foreign_key="ledgers.payment_intent_id", index=True)
    kind: str
    amount_cents: int = instant()
    status: str
    is_ours: bool
    is_refundable: bool


class PushSubscription(MayFail, table=True):
    """Where a browser can be woken (RFC 8030, RFC 8291)."""

    __tablename__ = "push_subscriptions"
    __table_args__ = (set_aside_index("push_subscriptions"),)

    account_id: str = Field(sa_column=Column("mechanic_id", ForeignKey("accounts.id"), index=True, nullable=False))
    """The column is named after mechanics, who alone could subscribe once."""
    endpoint: str = Field(unique=True)
    place: str | None = None
    """The push service that the endpoint is of; ``None`` from a version that does not note it."""
    p256dh: str
    auth: str
    label: str | None = None
    """What its account calls the browser."""
    created_at_ms: int = instant()
    last_used_at_ms: int | None = instant(default=None)
    """When its push service last took a message for it."""


class PushMessage(SQLModel, table=True):
    """One message to one browser, until the push service has it. Its id names what it says to whom, so that there is but one."""

    __tablename__ = "push_messages"
    __table_args__ = (
        Index(
            "ix_push_messages_unsent",
            "place",
            "due_at_ms",
            sqlite_where=text("done_at_ms IS NULL"),
            postgresql_where=text("done_at_ms IS NULL"),
        ),
        Index("ix_push_messages_expiry", "expires_at_ms"),
    )

    id: str = Field(primary_key=True)
    subscription_id: str = Field(
        sa_column=Column(ForeignKey("push_subscriptions.id", ondelete="CASCADE"), index=True, nullable=False)
    )
    place: str
    about_id: str = Field(index=True)
    """An offer, or a request."""
    kind: str
    topic: str
    """A later message of a topic replaces the notification of an earlier one (RFC 8030 §5.4)."""
    payload: str = Field(sa_type=Text)
    due_at_ms: int = instant()
    """When it is to be sent; while it is being sent, when somebody else takes it over."""
    expires_at_ms: int = instant()
    attempts: int
    was_forbidden: bool
    done_at_ms: int | None = instant(default=None)


class PushTrial(SQLModel, table=True):
    """One trial that an account has asked for; its messages go with their subscriptions, and it stays."""

    __tablename__ = "push_trials"

    id: str = Field(primary_key=True)
    """What its messages are about."""
    account_id: str = Field(foreign_key="accounts.id", index=True)
    expires_at_ms: int = instant()
    """Until then it counts."""


class KeptKey(SQLModel, table=True):
    """A key that all nodes share and that stays when others are rotated."""

    __tablename__ = "kept_keys"

    name: str = Field(primary_key=True)
    value: str
    """Base64."""
    created_at_ms: int = instant()
