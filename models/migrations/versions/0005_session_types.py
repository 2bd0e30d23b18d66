"""Mechanics may switch off kinds of session; nobody has."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("mechanics", sa.Column("session_types_off", sa.String(), server_default="", nullable=False))
