"""What SQL knows of mechanics, as far as presence needs it; and ``last_seen``, which outlives Redis there.

Both raise ``DatabaseUnavailable``; both may be repeated.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

from infra.database import Database
from infra.statements import Nothing, Statement
from presence.liveness import Facts

HERE = Path(__file__).parent
IDS_LEN_MAX = 500
"""Per transaction: nobody else should wait for long."""
SQL_TIMEOUT_S = 3.0


READ_FACTS = Statement(HERE / "read_facts.sql", Facts)
SAVE_LAST_SEEN = Statement(HERE / "save_last_seen.sql", Nothing)


async def read_facts(database: Database, ids: Collection[str]) -> list[Facts]:
    """Return the facts of those of ``ids`` who are mechanics, in no particular order."""
    wanted = list(ids)
    facts: list[Facts] = []
    for start in range(0, len(wanted), IDS_LEN_MAX):
        work = READ_FACTS(ids=wanted[start : start + IDS_LEN_MAX])
        facts += await database.query(work, within_s=SQL_TIMEOUT_S)
    return facts


async def save_last_seen(database: Database, last_seen_ms: Mapping[str, int]) -> None:
    """Write the last heartbeats by mechanic id; one that is newer in SQL stays."""
    rows = [{"mechanic_id": mechanic_id, "seen_at_ms": at_ms} for mechanic_id, at_ms in sorted(last_seen_ms.items())]
    for start in range(0, len(rows), IDS_LEN_MAX):
        work = SAVE_LAST_SEEN.each(rows[start : start + IDS_LEN_MAX])
        await database.commit(work, within_s=SQL_TIMEOUT_S)
