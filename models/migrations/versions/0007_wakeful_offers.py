"""Offers know whether they may wake somebody, so that looking for these does not go through all that are open."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    # What is open already, and what nodes of the version before open, is found by the look for what was overlooked.
    op.add_column("offers", sa.Column("may_wake", sa.Boolean(), server_default=sa.false(), nullable=False))
    for name, table, condition in (
        ("ix_offers_wakeful", "offers", "may_wake AND pushed_at_ms IS NULL AND closed_at_ms IS NULL"),
        (
            "ix_offers_unpushed_broadcasts",
            "offers",
            "mechanic_id IS NULL AND pushed_at_ms IS NULL AND closed_at_ms IS NULL",
        ),
        ("ix_mechanics_woken", "mechanics", "push_broadcasts AND has_push"),
    ):
        where = sa.text(condition)
        op.create_index(name, table, ["id"], sqlite_where=where, postgresql_where=where)
    op.drop_index("ix_offers_unpushed", "offers")
