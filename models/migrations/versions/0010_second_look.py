"""Broadcasts are looked at twice; what is open, was taken, or is over is found by indexes of its own."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.create_index("ix_push_messages_expiry", "push_messages", ["expires_at_ms"])
    op.add_column("offers", sa.Column("looked_again_at_ms", sa.BigInteger(), nullable=True))
    for name, columns, condition in (
        (
            "ix_offers_pushed_broadcasts",
            ["pushed_at_ms"],
            "looked_again_at_ms IS NULL AND closed_at_ms IS NULL AND mechanic_id IS NULL AND pushed_at_ms IS NOT NULL",
        ),
        ("ix_offers_open_of_mechanic", ["mechanic_id"], "closed_at_ms IS NULL AND mechanic_id IS NOT NULL"),
        ("ix_offers_open_broadcasts", ["expires_at_ms"], "closed_at_ms IS NULL AND mechanic_id IS NULL"),
        (
            "ix_offers_taken_broadcasts",
            ["taken_by_id", "opened_at_ms", "id"],
            "taken_by_id IS NOT NULL AND mechanic_id IS NULL",
        ),
    ):
        where = sa.text(condition)
        op.create_index(name, "offers", columns, sqlite_where=where, postgresql_where=where)
