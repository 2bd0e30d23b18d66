"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("email", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("password_hash", sa.String(), nullable=True),
        sa.Column("free_session_used", sa.Boolean(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
        sa.UniqueConstraint("email", name=op.f("uq_accounts_email")),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("leased_until_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    with op.batch_alter_table("outbox", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_outbox_leased_until_ms"), ["leased_until_ms"], unique=False)

    op.create_table(
        "plans",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("price_cents", sa.Integer(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("duration_min", sa.Integer(), nullable=False),
        sa.Column("session_type", sa.String(), nullable=False),
        sa.Column("first_time_only", sa.Boolean(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plans")),
    )
    op.create_table(
        "stripe_events",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("object_id", sa.String(), nullable=True),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("received_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("processed_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stripe_events")),
    )
    with op.batch_alter_table("stripe_events", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_stripe_events_next_attempt_at_ms"), ["next_attempt_at_ms"], unique=False)

    op.create_table(
        "checkouts",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("customer_id", sa.String(), nullable=False),
        sa.Column("plan_id", sa.String(), nullable=False),
        sa.Column("price_cents", sa.Integer(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("duration_min", sa.Integer(), nullable=False),
        sa.Column("session_type", sa.String(), nullable=False),
        sa.Column("routing_type", sa.String(), nullable=False),
        sa.Column("preferred_mechanic_id", sa.String(), nullable=True),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("stripe_session_id", sa.String(), nullable=True),
        sa.Column("url", sa.String(), nullable=True),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("payment_intent_id", sa.String(), nullable=True),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.Column("idempotency_key", sa.String(), nullable=True),
        sa.Column("idempotency_hash", sa.String(), nullable=True),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["customer_id"], ["accounts.id"], name=op.f("fk_checkouts_customer_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_checkouts")),
        sa.UniqueConstraint("stripe_session_id", name=op.f("uq_checkouts_stripe_session_id")),
    )
    with op.batch_alter_table("checkouts", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_checkouts_expires_at_ms"), ["expires_at_ms"], unique=False)
        batch_op.create_index("uq_checkouts_idempotency", ["customer_id", "idempotency_key"], unique=True)

    op.create_table(
        "favorites",
        sa.Column("customer_id", sa.String(), nullable=False),
        sa.Column("mechanic_id", sa.String(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["customer_id"], ["accounts.id"], name=op.f("fk_favorites_customer_id")),
        sa.ForeignKeyConstraint(["mechanic_id"], ["accounts.id"], name=op.f("fk_favorites_mechanic_id")),
        sa.PrimaryKeyConstraint("customer_id", "mechanic_id", name=op.f("pk_favorites")),
    )
    op.create_table(
        "mechanics",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("provider_type", sa.String(), nullable=False),
        sa.Column("on_duty", sa.Boolean(), nullable=False),
        sa.Column("active_request_id", sa.String(), nullable=True),
        sa.Column("has_push", sa.Boolean(), nullable=False),
        sa.Column("facts_version", sa.BigInteger(), nullable=False),
        sa.Column("last_seen_at_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["id"], ["accounts.id"], name=op.f("fk_mechanics_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mechanics")),
    )
    op.create_table(
        "push_subscriptions",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("mechanic_id", sa.String(), nullable=False),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("p256dh", sa.String(), nullable=False),
        sa.Column("auth", sa.String(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["mechanic_id"], ["accounts.id"], name=op.f("fk_push_subscriptions_mechanic_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_push_subscriptions")),
        sa.UniqueConstraint("endpoint", name=op.f("uq_push_subscriptions_endpoint")),
    )
    with op.batch_alter_table("push_subscriptions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_push_subscriptions_mechanic_id"), ["mechanic_id"], unique=False)

    op.create_table(
        "session_requests",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("checkout_id", sa.String(), nullable=False),
        sa.Column("customer_id", sa.String(), nullable=False),
        sa.Column("plan_id", sa.String(), nullable=False),
        sa.Column("session_type", sa.String(), nullable=False),
        sa.Column("duration_min", sa.Integer(), nullable=False),
        sa.Column("price_cents", sa.Integer(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("routing_type", sa.String(), nullable=False),
        sa.Column("preferred_mechanic_id", sa.String(), nullable=True),
        sa.Column("assigned_mechanic_id", sa.String(), nullable=True),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("fallback_reason", sa.String(), nullable=True),
        sa.Column("priority_offer_id", sa.String(), nullable=True),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("accepted_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("started_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("completed_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("settled_at_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["assigned_mechanic_id"], ["accounts.id"], name=op.f("fk_session_requests_assigned_mechanic_id")
        ),
        sa.ForeignKeyConstraint(["checkout_id"], ["checkouts.id"], name=op.f("fk_session_requests_checkout_id")),
        sa.ForeignKeyConstraint(["customer_id"], ["accounts.id"], name=op.f("fk_session_requests_customer_id")),
        sa.ForeignKeyConstraint(
            ["preferred_mechanic_id"], ["accounts.id"], name=op.f("fk_session_requests_preferred_mechanic_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_session_requests")),
        sa.UniqueConstraint("checkout_id", name=op.f("uq_session_requests_checkout_id")),
        sa.UniqueConstraint("priority_offer_id", name=op.f("uq_session_requests_priority_offer_id")),
    )
    with op.batch_alter_table("session_requests", schema=None) as batch_op:
        batch_op.create_index("ix_session_requests_assigned", ["assigned_mechanic_id", "id"], unique=False)
        batch_op.create_index("ix_session_requests_customer", ["customer_id", "id"], unique=False)
        batch_op.create_index(batch_op.f("ix_session_requests_status"), ["status"], unique=False)
        batch_op.create_index(
            "uq_session_requests_one_session_per_mechanic",
            ["assigned_mechanic_id"],
            unique=True,
            sqlite_where=sa.text("status IN ('accepted', 'in_progress')"),
            postgresql_where=sa.text("status IN ('accepted', 'in_progress')"),
        )

    op.create_table(
        "exclusions",
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("mechanic_id", sa.String(), nullable=False),
        sa.Column("because", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["request_id"], ["session_requests.id"], name=op.f("fk_exclusions_request_id")),
        sa.PrimaryKeyConstraint("request_id", "mechanic_id", name=op.f("pk_exclusions")),
    )
    op.create_table(
        "offers",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("mechanic_id", sa.String(), nullable=True),
        sa.Column("opened_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("closed_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("close_reason", sa.String(), nullable=True),
        sa.Column("delivered_at_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["request_id"], ["session_requests.id"], name=op.f("fk_offers_request_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_offers")),
    )
    with op.batch_alter_table("offers", schema=None) as batch_op:
        batch_op.create_index(
            "ix_offers_open",
            ["expires_at_ms"],
            unique=False,
            sqlite_where=sa.text("closed_at_ms IS NULL"),
            postgresql_where=sa.text("closed_at_ms IS NULL"),
        )
        batch_op.create_index(batch_op.f("ix_offers_request_id"), ["request_id"], unique=False)
        batch_op.create_index(
            "uq_offers_one_open_per_request",
            ["request_id"],
            unique=True,
            sqlite_where=sa.text("closed_at_ms IS NULL"),
            postgresql_where=sa.text("closed_at_ms IS NULL"),
        )

    op.create_table(
        "refunds",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("checkout_id", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.Column("payment_intent_id", sa.String(), nullable=False),
        sa.Column("amount_cents", sa.Integer(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("cause", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("stripe_refund_id", sa.String(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("settled_at_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["checkout_id"], ["checkouts.id"], name=op.f("fk_refunds_checkout_id")),
        sa.ForeignKeyConstraint(["request_id"], ["session_requests.id"], name=op.f("fk_refunds_request_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_refunds")),
        sa.UniqueConstraint("checkout_id", name=op.f("uq_refunds_checkout_id")),
        sa.UniqueConstraint("stripe_refund_id", name=op.f("uq_refunds_stripe_refund_id")),
    )
    with op.batch_alter_table("refunds", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_refunds_next_attempt_at_ms"), ["next_attempt_at_ms"], unique=False)
        batch_op.create_index(batch_op.f("ix_refunds_request_id"), ["request_id"], unique=False)

    op.create_table(
        "timeline",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["request_id"], ["session_requests.id"], name=op.f("fk_timeline_request_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_timeline")),
    )
    with op.batch_alter_table("timeline", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_timeline_request_id"), ["request_id"], unique=False)

    plans = sa.table(
        "plans",
        *(sa.column(name) for name in ("id", "name", "price_cents", "currency", "duration_min", "session_type")),
        *(sa.column(name) for name in ("first_time_only", "position")),
    )
    rows = [
        ("free_diagnostic", "Free Diagnostic", 0, 10, "diagnostic", True),
        ("quick_chat", "Quick Chat", 999, 10, "text", False),
        ("expert_video", "Expert Video", 2999, 30, "video", False),
        ("premium_session", "Premium Session", 4999, 60, "video", False),
    ]
    op.bulk_insert(
        plans,
        [
            {
                "id": plan_id,
                "name": name,
                "price_cents": price_cents,
                "currency": "usd",
                "duration_min": duration_min,
                "session_type": session_type,
                "first_time_only": first_time_only,
                "position": position,
            }
            for position, (plan_id, name, price_cents, duration_min, session_type, first_time_only) in enumerate(rows)
        ],
    )
