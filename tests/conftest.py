"""What all tests share: how hard hypothesis tries, real servers once per session, and a migrated database for each test.

``--hypothesis-profile=deep`` (or the variable) before a release.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TypeVar

import pytest
import structlog
from hypothesis import settings

from infra import logs, migrations
from infra.database import Database
from infra.metrics import ITEMS_FAILED, LOOPS_DIED
from tests.redis_cluster import redis_cluster
from tests.services import (
    PostgresServer,
    ServiceMissing,
    drop_database,
    fresh_database,
    postgres_server,
    redis_server,
    restartable_postgres,
)

Running = TypeVar("Running")

# As the server does in development: the renderer's own tracebacks cost half a second each, and say what nobody asked for.
structlog.configure(processors=[structlog.processors.add_log_level, logs.console_renderer()])

settings.register_profile("fast", max_examples=200, stateful_step_count=30, deadline=None, print_blob=True)
settings.register_profile("deep", max_examples=1_500, stateful_step_count=50, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


@pytest.fixture(autouse=True)
def no_bug_goes_unnoticed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test in whose background something failed that outlived it; ``bugs_planted`` marks those that mean it."""
    before = _bugs()
    yield
    if request.node.get_closest_marker("bugs_planted") is None:
        assert _bugs() == before, "the log says what failed"


def _bugs() -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for metric in (ITEMS_FAILED, LOOPS_DIED)
        for family in metric.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    }


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """One Redis for all tests, which keep apart by their key prefixes."""
    with redis_server() as server:
        yield server.url


@pytest.fixture(scope="session")
def redis_cluster_url() -> Iterator[str]:
    """One Redis Cluster of three servers for all tests that want one."""
    with redis_cluster() as cluster:
        yield cluster.url


@pytest.fixture(params=["server", "cluster"])
def any_redis_url(request: pytest.FixtureRequest) -> str:
    """A single Redis, then a Redis Cluster: for tests of what must not differ between them."""
    return request.getfixturevalue({"server": "redis_url", "cluster": "redis_cluster_url"}[request.param])


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The base URL of one PostgreSQL for all tests; skips where there is none, and fails instead in CI."""
    with ExitStack() as stack:
        yield _entered(stack, postgres_server())


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL for one module's tests alone, which stop and restart it; skips as ``postgres_url`` does."""
    with ExitStack() as stack:
        yield _entered(stack, restartable_postgres())


def _entered(stack: ExitStack, server: AbstractContextManager[Running]) -> Running:
    try:
        return stack.enter_context(server)
    except ServiceMissing as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
async def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    path = tmp_path_factory.mktemp("template") / "pitlane.sqlite3"
    await _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
async def postgres_template(postgres_url: str) -> str:
    """A migrated PostgreSQL database to clone."""
    url = fresh_database(postgres_url)
    await _migrate(url)
    return url


async def _migrate(url: str) -> None:
    database = Database(url)
    await migrations.upgrade(database)
    await database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def database_url(database_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a migrated database that no other test sees."""
    if database_kind == "sqlite":
        path = tmp_path / "pitlane.sqlite3"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    template = request.getfixturevalue("postgres_template")
    url = fresh_database(template.rsplit("/", 1)[0], template)
    yield url
    drop_database(url)


@pytest.fixture
def empty_database_url(
    database_kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[[], str]]:
    """Makes databases without any schema."""
    made = []

    def make() -> str:
        if database_kind == "sqlite":
            made.append(f"sqlite:///{tmp_path / f'empty-{len(made)}.sqlite3'}")
        else:
            made.append(fresh_database(request.getfixturevalue("postgres_url")))
        return made[-1]

    yield make
    for url in made:
        if database_kind == "postgresql":
            drop_database(url)
