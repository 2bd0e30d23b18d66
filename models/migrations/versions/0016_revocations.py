"""Tokens can be revoked, accounts disabled, and an account's owner sees where it is signed in.

A node of an earlier version goes on with tokens that a newer one has revoked, until they end: it does not know the list.
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.add_column("accounts", sa.Column("disabled_at_ms", sa.BigInteger(), nullable=True))
    op.add_column("accounts", sa.Column("departing_since_ms", sa.BigInteger(), nullable=True))
    is_departing = sa.text("departing_since_ms IS NOT NULL")
    op.create_index(
        "ix_accounts_departing",
        "accounts",
        ["departing_since_ms"],
        sqlite_where=is_departing,
        postgresql_where=is_departing,
    )
    op.add_column("mechanics", sa.Column("is_disabled", sa.Boolean(), nullable=False, server_default=sa.text("false")))
    op.create_table(
        "revocations",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("up_to_ms", sa.BigInteger(), nullable=True),
        sa.Column("is_disabled", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.Column("token_expires_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("changed_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_revocations")),
    )
    op.create_index(op.f("ix_revocations_changed_at_ms"), "revocations", ["changed_at_ms"])
    is_tokens = sa.text("token_expires_at_ms IS NOT NULL")
    op.create_index(
        "ix_revocations_ended",
        "revocations",
        ["token_expires_at_ms"],
        sqlite_where=is_tokens,
        postgresql_where=is_tokens,
    )
    op.create_table(
        "sign_ins",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("user_agent", sa.String(), nullable=True),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_sign_ins_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sign_ins")),
    )
    op.create_index(op.f("ix_sign_ins_account_id"), "sign_ins", ["account_id"])
