"""One installation's Redis, a single server or a cluster: connections, scripts, and where a key lives.

Every key carries a hash tag. All keys and channels with the same tag live on the same server, so that one script may touch
them; a cluster spreads the tags. On a single server the same names are used and everything lives in one place.

Each server has a client of its own. The library's client for clusters closes its connections to all servers when one of them
fails, in the middle of other people's commands (redis-py 8.1); here, a server that is away is away for itself alone.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha1
from pathlib import Path
from typing import Any, TypeVar

import anyio
import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import Connection, SSLConnection
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from infra.slot_map import SlotMap
from models.errors import RedisRefused, RedisUnavailable
from models.redis_url import Address, ClusterUrl, is_cluster

CONNECTIONS_MAX = 64
"""To each server. Beyond it callers wait for a free connection: a storm queues here instead of opening thousands."""
CLUSTER_SHARDS = 16
"""Parts that presence is kept in, each on one server: several for each server of a usual cluster, so that they spread evenly.
Fixed for the life of a cluster's memory: another number looks for everything elsewhere."""
MOVES_MAX = 5
MOVE_WAIT_S = 0.05
"""For a slot that is just moving."""

Home = Address | None
"""Which server holds a key: its address in a cluster, ``None`` for the one server that there is."""
T = TypeVar("T")


class RedisLink:
    """Commands, scripts and key names of one Pitlane installation in one Redis."""

    def __init__(self, url: str, *, prefix: str, timeout_s: float = 2.0) -> None:
        """``url`` as the contract's ``PITLANE_REDIS_URL``; ``prefix`` keeps installations apart in one Redis."""
        self.url = url
        self.prefix = prefix
        self.log = structlog.get_logger("redis")
        self._cluster = ClusterUrl.of(url) if is_cluster(url) else None
        self.is_cluster = self._cluster is not None
        self.shards = CLUSTER_SHARDS if self.is_cluster else 1
        self._timeout_s = timeout_s
        self._clients: dict[Home, Redis] = {}
        self._known = list(self._cluster.addresses) if self._cluster else []
        """Servers to ask who holds what; who answered last comes first."""
        self._map: SlotMap | None = None
        self._learning = anyio.Lock()

    # --- names --------------------------------------------------------------------------------------------------------

    def key(self, tag: str, name: str) -> str:
        """Return a key or channel; all with the same ``tag`` live together, so that one script may touch them."""
        return f"{self.prefix}:{{{tag}}}:{name}"

    # --- commands -----------------------------------------------------------------------------------------------------

    async def ask(self, key: str, command: Callable[[Redis], Awaitable[T]]) -> T:
        """Give ``command`` a client of the server that holds ``key`` and everything of its tag; return what it returns.

        Raises ``RedisUnavailable``. In a cluster, ``command`` is repeated where a key has moved to: nothing was done
        where it was before.
        """
        with translated_errors():
            return await self._ask(key, command)

    async def _ask(self, key: str, command: Callable[[Redis], Awaitable[T]]) -> T:
        for _ in range(MOVES_MAX):
            home, found = await self._home_of(key), self._map
            try:
                return await command(self._client(home))
            except MovedError:
                await self._learn(found)
            except (AskError, TryAgainError):
                await anyio.sleep(MOVE_WAIT_S)
            except (RedisConnectionError, RedisTimeoutError):
                if self.is_cluster:
                    # Another server may have taken its place; who asks next is sent there.
                    await self._learn(found)
                raise
        raise RedisConnectionError(f"{key} kept moving from server to server")

    async def everywhere(self, command: Callable[[Redis], Awaitable[T]]) -> list[T]:
        """Give ``command`` a client of each server in turn; raises ``RedisUnavailable`` as soon as one of them does not answer."""
        with translated_errors():
            return [await command(self._client(home)) for home in await self._homes()]

    async def publish(self, channel: str, *payloads: str | bytes) -> None:
        """Publish on a channel, in order and in one round trip; raises ``RedisUnavailable`` when some may not have been.

        A channel like a key lives on one server (redis.io, "Sharded pub/sub").
        """

        async def say(redis: Redis) -> None:
            pipeline = redis.pipeline(transaction=False)
            for payload in payloads:
                pipeline.spublish(channel, payload)
            await pipeline.execute()

        if payloads:
            await self.ask(channel, say)

    async def ping(self) -> None:
        """Raise ``RedisUnavailable`` unless every server answers."""
        await self.everywhere(lambda redis: redis.ping())

    def script(self, *paths: Path) -> "Script":
        """Return the Lua files at ``paths`` as one script: what several scripts share stands in front of each.

        Lua in Redis cannot include a file.
        """
        return Script(self, "\n".join(path.read_text() for path in paths))

    async def close(self) -> None:
        """Give all connections back; idempotent."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose(close_connection_pool=True)

    # --- where things live --------------------------------------------------------------------------------------------

    async def home_of(self, key: str) -> Home:
        """Return where a key lives. Raises ``RedisUnavailable`` when no server of the cluster answers, or none holds it."""
        with translated_errors():
            return await self._home_of(key)

    async def _home_of(self, key: str) -> Home:
        if not self.is_cluster:
            return None
        if self._map is None:
            await self._learn(None)
        assert self._map is not None, "it was learnt a moment ago"
        home = self._map.home_of(key)
        if home is None:
            await self._learn(self._map)
            raise RedisConnectionError(f"No server of the cluster holds {key}.")
        return home

    async def look_again(self) -> None:
        """Ask the cluster where things live, because what we know has proved wrong. Raises as ``home_of``."""
        if self.is_cluster:
            with translated_errors():
                await self._learn(self._map)

    def listener(self, home: Home) -> Redis:
        """Return a client of its own for listening at ``home``; what breaks its connection is raised, never hidden by a retry."""
        return Redis.from_pool(self._pool(home, Retry(NoBackoff(), 0)))

    async def _homes(self) -> Iterable[Home]:
        if not self.is_cluster:
            return [None]
        if self._map is None:
            await self._learn(None)
        return dict.fromkeys(self._map.addresses if self._map else ())

    async def _learn(self, outdated: SlotMap | None) -> None:
        """Ask any server who holds what, unless somebody else has while we waited for our turn."""
        async with self._learning:
            if self._map is not None and self._map is not outdated:
                return
            failures: list[str] = []
            for address in tuple(self._known):
                # To the end of the row before it is asked: if we are cancelled while it does not answer, another is next.
                self._known.append(self._known.pop(0))
                try:
                    answer = await self._client(address).execute_command("CLUSTER SLOTS")
                except (RedisError, OSError) as error:
                    failures.append(str(error))
                    continue
                self._map = SlotMap.of(answer, address)
                named = self._cluster.addresses if self._cluster else ()
                self._known = list(dict.fromkeys([address, *self._map.addresses, *named]))
                return
            raise RedisConnectionError("No server of the cluster answers: " + " ".join(failures))

    # --- connections --------------------------------------------------------------------------------------------------

    def _client(self, home: Home) -> Redis:
        client = self._clients.get(home)
        if client is None:
            client = self._clients[home] = Redis(
                connection_pool=self._pool(home, Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=2))
            )
        return client

    def _pool(self, home: Home, retry: Retry) -> BlockingConnectionPool:
        options: dict[str, Any] = {
            "max_connections": CONNECTIONS_MAX,
            "timeout": self._timeout_s,
            "retry": retry,
            "retry_on_error": [RedisConnectionError, RedisTimeoutError],
            "socket_timeout": self._timeout_s,
            "socket_connect_timeout": self._timeout_s,
            "decode_responses": True,
            # Somebody else's bytes in our keys come back as they were, and are unknown; they must not fail the reading of ours.
            "encoding_errors": "surrogateescape",
            "health_check_interval": 30,
        }
        if home is None or self._cluster is None:
            return BlockingConnectionPool.from_url(self.url, **options)
        options |= {"username": self._cluster.username, "password": self._cluster.password}
        kind = SSLConnection if self._cluster.is_encrypted else Connection
        return BlockingConnectionPool(connection_class=kind, host=home[0], port=home[1], **options)


class Script:
    """A Lua script; called with its ``keys``, all of one tag, and its ``args``."""

    def __init__(self, link: RedisLink, text: str) -> None:
        self._link = link
        self._text = text
        self._sha = sha1(text.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, *, keys: Sequence[str], args: Iterable[Any] = ()) -> Any:
        """Run it where its keys live; return its reply. Raises as ``RedisLink.ask``."""
        arguments = (len(keys), *keys, *args)

        async def run(redis: Redis) -> Any:
            try:
                return await redis.evalsha(self._sha, *arguments)
            except NoScriptError:
                # A server that has just started; it remembers the script from now on.
                return await redis.eval(self._text, *arguments)

        return await self._link.ask(keys[0], run)


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raise ``RedisUnavailable`` where the client raises what waiting may mend, and ``RedisRefused`` where Redis says no."""
    try:
        yield
    except (ReadOnlyError, OutOfMemoryError, ClusterDownError) as error:
        raise RedisUnavailable(str(error)) from error
    except ResponseError as error:
        if str(error).startswith("MISCONF"):
            # It cannot write to its disk, and so takes no writes (redis.io, "stop-writes-on-bgsave-error").
            raise RedisUnavailable(str(error)) from error
        raise RedisRefused(str(error)) from error
    except (RedisError, OSError) as error:
        raise RedisUnavailable(str(error)) from error
