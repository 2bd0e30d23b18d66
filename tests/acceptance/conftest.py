"""One browser for the whole session, if the machine has one."""

import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser

import bootstrap
from tests.acceptance.browser import chromium


@pytest_asyncio.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    if bootstrap.find_browser() is None:
        reason = "there is no Chromium on this machine, and it could not be installed"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    async with chromium() as one:
        yield one
