"""What became of a payment's money, whoever moved it at Stripe; and refunds that are asked for under more than one key.

A payment has a ledger from the first time on that anything of it moves. A node of an earlier version knows nothing of ledgers and
asks for refunds under their first key; the columns that it does not know keep defaults.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.create_table(
        "ledgers",
        sa.Column("payment_intent_id", sa.String(), nullable=False),
        sa.Column("checkout_id", sa.String(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("paid_cents", sa.BigInteger(), nullable=False),
        sa.Column("by_us_cents", sa.BigInteger(), nullable=False),
        sa.Column("by_others_cents", sa.BigInteger(), nullable=False),
        sa.Column("on_its_way_cents", sa.BigInteger(), nullable=False),
        sa.Column("taken_cents", sa.BigInteger(), nullable=False),
        sa.Column("dispute", sa.String(), nullable=True),
        sa.Column("is_unsettled", sa.Boolean(), nullable=False),
        sa.Column("looked_at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["checkout_id"], ["checkouts.id"], name=op.f("fk_ledgers_checkout_id")),
        sa.PrimaryKeyConstraint("payment_intent_id", name=op.f("pk_ledgers")),
        sa.UniqueConstraint("checkout_id", name=op.f("uq_ledgers_checkout_id")),
    )
    is_unsettled = sa.text("is_unsettled")
    op.create_index(
        "ix_ledgers_unsettled", "ledgers", ["looked_at_ms"], sqlite_where=is_unsettled, postgresql_where=is_unsettled
    )
    op.create_table(
        "ledger_entries",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("payment_intent_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("amount_cents", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("is_ours", sa.Boolean(), nullable=False),
        sa.Column("is_refundable", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["payment_intent_id"], ["ledgers.payment_intent_id"], name=op.f("fk_ledger_entries_payment_intent_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_entries")),
    )
    op.create_index("ix_ledger_entries_payment_intent_id", "ledger_entries", ["payment_intent_id"])
    is_paid = sa.text("payment_intent_id IS NOT NULL")
    op.create_index(
        "ix_checkouts_payment_intent_id",
        "checkouts",
        ["payment_intent_id"],
        sqlite_where=is_paid,
        postgresql_where=is_paid,
    )
    is_unfinished = sa.text("status <> 'succeeded'")
    op.create_index(
        "ix_refunds_unfinished", "refunds", ["id"], sqlite_where=is_unfinished, postgresql_where=is_unfinished
    )
    op.add_column("stripe_events", sa.Column("payment_intent_id", sa.String(), nullable=True))
    op.add_column("refunds", sa.Column("key_number", sa.Integer(), nullable=False, server_default=sa.text("1")))
    op.add_column("refunds", sa.Column("asked_cents", sa.BigInteger(), nullable=True))
    op.add_column("refunds", sa.Column("key_errors", sa.Integer(), nullable=False, server_default=sa.text("0")))
