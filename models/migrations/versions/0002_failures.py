"""Rows remember failures that may come again; unfinished Stripe events have an index of their own."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for table in ("outbox", "stripe_events", "refunds", "offers", "push_subscriptions"):
        op.add_column(table, sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False))
        op.add_column(table, sa.Column("last_error", sa.String(), nullable=True))
        op.add_column(table, sa.Column("set_aside_at_ms", sa.BigInteger(), nullable=True))
    op.drop_index("ix_stripe_events_next_attempt_at_ms", table_name="stripe_events")
    unfinished = sa.text("processed_at_ms IS NULL")
    op.create_index(
        "ix_stripe_events_unfinished",
        "stripe_events",
        ["next_attempt_at_ms"],
        sqlite_where=unfinished,
        postgresql_where=unfinished,
    )
