"""Checkouts carry what their customer wrote about them."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("checkouts", sa.Column("note", sa.Text(), nullable=True))
