"""Pushes are rows until they are sent; offers remember when a person could see them; mechanics say what may wake them."""

from urllib.parse import urlsplit

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    for column in ("seen_at_ms", "pushed_at_ms", "unpushed_at_ms"):
        op.add_column("offers", sa.Column(column, sa.BigInteger(), nullable=True))
    for name, column, condition in (
        ("ix_offers_unpushed", "id", "pushed_at_ms IS NULL AND closed_at_ms IS NULL"),
        ("ix_offers_pushed", "id", "pushed_at_ms IS NOT NULL AND unpushed_at_ms IS NULL"),
    ):
        where = sa.text(condition)
        op.create_index(name, "offers", [column], sqlite_where=where, postgresql_where=where)
    op.add_column("mechanics", sa.Column("push_broadcasts", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("push_subscriptions", sa.Column("place", sa.String(), nullable=True))
    subscriptions = sa.table("push_subscriptions", sa.column("id"), sa.column("endpoint"), sa.column("place"))
    for row_id, endpoint in op.get_bind().execute(sa.select(subscriptions.c.id, subscriptions.c.endpoint)).all():
        place = urlsplit(endpoint).netloc.lower()
        op.execute(subscriptions.update().where(subscriptions.c.id == row_id).values(place=place))
    op.create_table(
        "push_messages",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column(
            "subscription_id", sa.String(), sa.ForeignKey("push_subscriptions.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("place", sa.String(), nullable=False),
        sa.Column("about_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("topic", sa.String(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("due_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("was_forbidden", sa.Boolean(), nullable=False),
        sa.Column("done_at_ms", sa.BigInteger(), nullable=True),
    )
    unsent = sa.text("done_at_ms IS NULL")
    op.create_index(
        "ix_push_messages_unsent", "push_messages", ["place", "due_at_ms"], sqlite_where=unsent, postgresql_where=unsent
    )
    op.create_index("ix_push_messages_about_id", "push_messages", ["about_id"])
    op.create_index("ix_push_messages_subscription_id", "push_messages", ["subscription_id"])
    op.create_table(
        "kept_keys",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("value", sa.String(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
    )
