"""What is open or was settled lately of somebody's requests is found without the years before."""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_index("ix_session_requests_customer_settled", "session_requests", ["customer_id", "settled_at_ms"])
    op.create_index(
        "ix_session_requests_assigned_settled", "session_requests", ["assigned_mechanic_id", "settled_at_ms"]
    )
