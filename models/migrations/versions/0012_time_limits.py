"""Who has accepted must start, and what was started ends by itself; customers hear when their favourite becomes busy, and how they
usually answer.

Requests that are accepted or in progress by now get their limits from a node of this version: with the migration they would run out
while none is there to say so. A node of an earlier version goes on without them; its columns that it does not know keep defaults.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    for column in (
        sa.Column("limit_id", sa.String(), nullable=True),
        sa.Column("limit_of_ms", sa.BigInteger(), nullable=True),
        sa.Column("limit_expires_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("limit_rings_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.Column("set_aside_at_ms", sa.BigInteger(), nullable=True),
    ):
        op.add_column("session_requests", column)
    has_limit = sa.text("limit_id IS NOT NULL")
    op.create_index(
        "uq_session_requests_limit",
        "session_requests",
        ["limit_id"],
        unique=True,
        sqlite_where=has_limit,
        postgresql_where=has_limit,
    )
    is_report = sa.text("event = 'reported'")
    op.create_index("ix_timeline_reports", "timeline", ["id"], sqlite_where=is_report, postgresql_where=is_report)
    op.create_table(
        "mechanic_responses",
        sa.Column("mechanic_id", sa.String(), nullable=False),
        sa.Column("offers", sa.Integer(), nullable=False),
        sa.Column("accept_percent", sa.Integer(), nullable=False),
        sa.Column("answers_within_s", sa.Integer(), nullable=True),
        sa.Column("counted_at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["mechanic_id"], ["mechanics.id"], name=op.f("fk_mechanic_responses_mechanic_id_mechanics")
        ),
        sa.PrimaryKeyConstraint("mechanic_id", name=op.f("pk_mechanic_responses")),
    )
    op.create_index("ix_mechanic_responses_counted_at_ms", "mechanic_responses", ["counted_at_ms"])
    op.add_column("offers", sa.Column("counted_at_ms", sa.BigInteger(), nullable=True))
    is_uncounted = sa.text("counted_at_ms IS NULL AND closed_at_ms IS NOT NULL AND mechanic_id IS NOT NULL")
    op.create_index("ix_offers_uncounted", "offers", ["id"], sqlite_where=is_uncounted, postgresql_where=is_uncounted)
    op.add_column(
        "offers", sa.Column("mechanic_is_busy", sa.Boolean(), nullable=False, server_default=sa.text("false"))
    )
