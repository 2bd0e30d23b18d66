"""Seconds of what ``python -m tests.fuzz.api SEED MINUTES`` does for minutes."""

from pathlib import Path

from infra.database import Database
from tests.fuzz.api import fuzz
from tests.integration.rest_house import rest_house
from tests.kept_texts import unclean_texts

SEED = 16
FOR_S = 8.0


async def test_nothing_that_anybody_sends_is_our_fault_or_leaves_a_trace_that_cannot_be_seen(tmp_path: Path):
    async with rest_house(tmp_path) as house:
        found = await fuzz(house, SEED, for_s=FOR_S)
        assert found.wrong == []
        assert found.calls > 0
        database = Database(house.settings.resolved_database_url)
        try:
            assert await unclean_texts(database) == []
        finally:
            await database.close()
