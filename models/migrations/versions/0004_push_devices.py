"""A push subscription has a name, and remembers when it was last of use."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("push_subscriptions", sa.Column("label", sa.String(), nullable=True))
    op.add_column("push_subscriptions", sa.Column("last_used_at_ms", sa.BigInteger(), nullable=True))
