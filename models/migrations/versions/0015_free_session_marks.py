"""Requests say whether they have used their customer's right to a free session, so that it is given back once, and only by those.

Of what is there already, and of what nodes of an earlier version write, it says nothing: such a request that costs nothing has used
the right if its plan is for the first time only, and those that had come to nothing have given it back.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.add_column("session_requests", sa.Column("used_free_session", sa.Boolean(), nullable=True))
