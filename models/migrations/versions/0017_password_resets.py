"""Passwords can be set anew by a link in a mail, and accounts erased.

Stripe's events are kept without what they say of people: an earlier version kept some of them whole.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"

PAYLOAD_LEN_MAX = 200


def upgrade() -> None:
    op.add_column("accounts", sa.Column("erased_at_ms", sa.BigInteger(), nullable=True))
    op.create_table(
        "password_resets",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_password_resets_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_password_resets")),
    )
    op.create_index(op.f("ix_password_resets_account_id"), "password_resets", ["account_id"])
    op.execute(f"UPDATE stripe_events SET payload = '{{}}' WHERE length(CAST(payload AS TEXT)) > {PAYLOAD_LEN_MAX}")
