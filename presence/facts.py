"""What SQL knows of mechanics, as far as presence needs it; and ``last_seen``, which outlives Redis there.

Both raise ``DatabaseUnavailable``; both may be repeated.
"""

from collections.abc import Collection, Mapping

from sqlalchemy import bindparam, or_, select, update
from sqlmodel import col

from infra.database import Database, rows_of, table_of
from models.tables import Mechanic
from presence.liveness import Facts

IDS_LEN_MAX = 500
"""Per query: SQLite takes 32,766 parameters, but nobody else should wait for long."""
SQL_TIMEOUT_S = 3.0


async def read_facts(database: Database, ids: Collection[str]) -> list[Facts]:
    """Return the facts of those of ``ids`` who are mechanics, in no particular order."""
    wanted = list(ids)
    facts: list[Facts] = []
    for start in range(0, len(wanted), IDS_LEN_MAX):
        query = select(
            col(Mechanic.id),
            col(Mechanic.facts_version),
            col(Mechanic.on_duty),
            col(Mechanic.active_request_id).is_not(None),
            col(Mechanic.has_push),
            col(Mechanic.last_seen_at_ms),
        ).where(col(Mechanic.id).in_(wanted[start : start + IDS_LEN_MAX]))
        async with database.read(within_s=SQL_TIMEOUT_S) as session:
            facts += [Facts(*row) for row in await rows_of(session, query)]
    return facts


async def save_last_seen(database: Database, last_seen_ms: Mapping[str, int]) -> None:
    """Write the last heartbeats by mechanic id; one that is newer in SQL stays."""
    rows = [{"mechanic": mechanic_id, "seen": at_ms} for mechanic_id, at_ms in sorted(last_seen_ms.items())]
    table = table_of(Mechanic)
    later = (
        update(table)
        .where(table.c.id == bindparam("mechanic"))
        .where(or_(table.c.last_seen_at_ms.is_(None), table.c.last_seen_at_ms < bindparam("seen")))
        .values(last_seen_at_ms=bindparam("seen"))
    )
    for start in range(0, len(rows), IDS_LEN_MAX):
        async with database.write(within_s=SQL_TIMEOUT_S) as session:
            connection = await session.connection()
            await connection.execute(later, rows[start : start + IDS_LEN_MAX])
