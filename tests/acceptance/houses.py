"""Two servers on a PostgreSQL and a Redis that a test may kill and start again."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

from embedded.redis_child import RedisChild
from infra import migrations
from infra.database import Database
from tests.acceptance.servers import Server, running_servers
from tests.services import PostgresServer, fresh_database, redis_server


@dataclass
class House:
    """Two servers, and what they stand on."""

    postgres: PostgresServer
    database_url: str
    redis: RedisChild
    servers: list[Server]

    async def ready(self) -> None:
        """Wait until both answer that database and Redis are reachable."""
        for server in self.servers:
            await server.ready()


@contextmanager
def running_house(postgres: PostgresServer, folder: Path, **windows: str) -> Iterator[House]:
    """``windows``: settings of the servers."""
    url = fresh_database(postgres.base_url)
    anyio.run(_migrate, url)
    with (
        redis_server() as redis,
        running_servers(folder, 2, DATABASE_URL=url, REDIS_URL=redis.url, **windows) as servers,
    ):
        yield House(postgres, url, redis, servers)


async def _migrate(url: str) -> None:
    database = Database(url)
    await migrations.upgrade(database)
    await database.close()
