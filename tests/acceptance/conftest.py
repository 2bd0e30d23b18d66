"""One browser for the whole session, if the machine has one; and a database for servers that serve a whole module."""

import os
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser

import bootstrap
from tests.acceptance.browser import chromium
from tests.services import drop_database, fresh_database


@pytest_asyncio.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    if bootstrap.find_browser() is None:
        reason = "there is no Chromium on this machine, and it could not be installed"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    async with chromium() as one:
        yield one


@pytest.fixture(scope="module")
def sql(postgres_template: str) -> Iterator[str]:
    """The URL of a migrated PostgreSQL database for the servers of one module."""
    url = fresh_database(postgres_template.rsplit("/", 1)[0], postgres_template)
    yield url
    drop_database(url)
