"""How long mechanics were on duty is kept; breaks end by themselves; what they have done and missed is found by when that was."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("mechanics", sa.Column("back_at_ms", sa.BigInteger(), nullable=True))
    op.add_column("mechanics", sa.Column("off_after_request_id", sa.String(), nullable=True))
    on_a_break = sa.text("back_at_ms IS NOT NULL")
    op.create_index(
        "ix_mechanics_back", "mechanics", ["back_at_ms"], sqlite_where=on_a_break, postgresql_where=on_a_break
    )
    op.create_table(
        "duty_intervals",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("mechanic_id", sa.String(), sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("started_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("ended_at_ms", sa.BigInteger(), nullable=True),
    )
    is_open = sa.text("ended_at_ms IS NULL")
    op.create_index(
        "uq_duty_intervals_one_open_per_mechanic",
        "duty_intervals",
        ["mechanic_id"],
        unique=True,
        sqlite_where=is_open,
        postgresql_where=is_open,
    )
    op.create_index("ix_duty_intervals_mechanic", "duty_intervals", ["mechanic_id", "started_at_ms"])
    has_begun = sa.text("started_at_ms IS NOT NULL")
    op.create_index(
        "ix_session_requests_worked",
        "session_requests",
        ["assigned_mechanic_id", "started_at_ms"],
        sqlite_where=has_begun,
        postgresql_where=has_begun,
    )
    op.add_column("offers", sa.Column("taken_by_id", sa.String(), nullable=True))
    op.add_column("exclusions", sa.Column("at_ms", sa.BigInteger(), nullable=True))
    for name, columns, condition in (
        ("ix_offers_past_priority", ["mechanic_id", "opened_at_ms", "id"], "mechanic_id IS NOT NULL"),
        ("ix_offers_past_broadcasts", ["opened_at_ms", "id"], "mechanic_id IS NULL"),
    ):
        where = sa.text(f"closed_at_ms IS NOT NULL AND {condition}")
        op.create_index(name, "offers", columns, sqlite_where=where, postgresql_where=where)
    # Nobody knows since when those are on duty who are now: their hours are counted from here on.
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    now_ms = (
        "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"
        if is_sqlite
        else "CAST(extract(epoch FROM now()) * 1000 AS bigint)"
    )
    op.execute(
        f"INSERT INTO duty_intervals (mechanic_id, started_at_ms) SELECT id, {now_ms} FROM mechanics WHERE on_duty"
    )
