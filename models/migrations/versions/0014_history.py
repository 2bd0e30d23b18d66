"""What is open, and what is old enough to be forgotten, is found by indexes of its own, however much is over.

On PostgreSQL the indexes are built while others write: a million rows take seconds, and nobody waits for them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

INDEXES = (
    ("ix_checkouts_open", "checkouts", ["id"], "status = 'open'"),
    ("ix_checkouts_customer", "checkouts", ["customer_id", "created_at_ms"], None),
    (
        "ix_checkouts_dropped",
        "checkouts",
        ["created_at_ms"],
        "status IN ('expired', 'failed') AND request_id IS NULL AND payment_intent_id IS NULL",
    ),
    ("ix_checkouts_spent_keys", "checkouts", ["created_at_ms"], "idempotency_key IS NOT NULL AND status <> 'open'"),
    ("ix_session_requests_open", "session_requests", ["id"], "settled_at_ms IS NULL"),
    ("ix_session_requests_settled", "session_requests", ["settled_at_ms", "status"], "settled_at_ms IS NOT NULL"),
    ("ix_stripe_events_finished", "stripe_events", ["processed_at_ms"], "processed_at_ms IS NOT NULL"),
    ("ix_refunds_to_ask", "refunds", ["id"], "next_attempt_at_ms IS NOT NULL"),
    *(
        (f"ix_{table}_set_aside", table, ["set_aside_at_ms"], "set_aside_at_ms IS NOT NULL")
        for table in ("outbox", "stripe_events", "refunds", "offers", "session_requests", "push_subscriptions")
    ),
)


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for name, table, columns, condition in INDEXES:
            op.create_index(name, table, columns, sqlite_where=None if condition is None else sa.text(condition))
        return
    # Each commits by itself. One that was broken off is left as an index that is not used: so each is begun anew.
    with op.get_context().autocommit_block():
        for name, table, columns, condition in INDEXES:
            op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)
            where = None if condition is None else sa.text(condition)
            op.create_index(name, table, columns, postgresql_where=where, postgresql_concurrently=True)
