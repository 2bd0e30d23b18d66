"""What the statements about history and money read where years of both lie: a page, a day, what is due, and no more."""

import re

import pytest

from dispatch.awaited import TURNED_FAVORITES, TURNED_FAVORITES_OF
from dispatch.elapsing import OPEN_DEADLINES, REQUESTS_WITHOUT_LIMIT
from dispatch.money.bookkeeping import SQL as MONEY_SQL
from dispatch.reading.hours_reader import SESSIONS_WORKED
from dispatch.reading.reader import OPEN_REQUESTS_OF, PAGE_OF, RECENT_REQUESTS_OF
from dispatch.request_store import LOCK_LIMITS
from dispatch.responses import ANSWERS_OF
from dispatch.stored import Named
from infra.statements import Statement
from models.words import Role
from tests.integration.past import OF_ONE, STEP_MS, YEARS, years
from tests.integration.plans import rows_read
from tests.parts import running_world

PAGE_LEN = 20
READ_MAX = 200
"""A page or a day with all that belongs to it, from tables and indexes; far from all that there is."""

LOOKED_THROUGH = re.compile(r"SCAN (?!json_each|\(subquery|answers|found|o USING INDEX ix_offers_open)")
"""Of what SQLite says: all of a table. An index of what is open alone leaves the years out."""

DUE_REFUNDS = Statement(MONEY_SQL / "due_refunds.sql", Named)
DUE_EVENTS = Statement(MONEY_SQL / "due_events.sql", Named)


@pytest.mark.parametrize("is_prepared", [False, True], ids=["planned for these", "planned for any"])
async def test_a_page_or_a_day_of_years_is_read_without_the_rest(database_url, redis_url, is_prepared):
    async with running_world(database_url, redis_url) as world:
        customer_id, mike = await years(world)
        of_page = {"status": "completed", "before": "c5", "limit": PAGE_LEN}
        from_ms = (YEARS - OF_ONE // 2) * STEP_MS
        day = {"from_ms": from_ms, "until_ms": from_ms + 10 * STEP_MS, "now_ms": 2 * from_ms}
        late_ms = (YEARS - 10) * STEP_MS
        for statement, arguments in (
            (PAGE_OF[Role.CUSTOMER], {"account_id": customer_id, **of_page}),
            (PAGE_OF[Role.MECHANIC], {"account_id": mike, **of_page}),
            (SESSIONS_WORKED, {"mechanic_id": mike, **day}),
            (OPEN_REQUESTS_OF, {"customer_ids": [customer_id]}),
            (RECENT_REQUESTS_OF, {"account_ids": [customer_id, mike], "since_ms": late_ms}),
            (DUE_REFUNDS, {"now_ms": late_ms, "limit": PAGE_LEN}),
            (DUE_EVENTS, {"now_ms": late_ms, "limit": PAGE_LEN}),
            (OPEN_DEADLINES, {"limit": 10_000}),
            (REQUESTS_WITHOUT_LIMIT, {"after_id": "c5", "limit": PAGE_LEN}),
            (LOCK_LIMITS, {"limit_ids": ["c1", "c2"]}),
            (TURNED_FAVORITES, {"after_id": "", "limit": PAGE_LEN}),
            (TURNED_FAVORITES_OF, {"mechanic_ids": [mike], "after_id": "", "limit": PAGE_LEN}),
            (ANSWERS_OF, {"mechanic_ids": [mike], "since_ms": late_ms, "each": PAGE_LEN}),
        ):
            read = await rows_read(world, statement, is_prepared=is_prepared, **arguments)
            if isinstance(read, int):
                assert read <= READ_MAX, f"{statement} reads {read} rows"
            else:
                assert not LOOKED_THROUGH.search(read), f"{statement}: {read}"
