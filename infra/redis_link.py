"""One installation's Redis, a single server or a cluster: connections, scripts, and where a key lives.

Every key carries a hash tag. All keys and channels with the same tag live on the same server, so that one script may touch
them; a cluster spreads the tags. On a single server the same names are used and everything lives in one place.

Each server has clients of its own. The library's client for clusters closes its connections to all servers when one of them
fails, in the middle of other people's commands (redis-py 8.1); here, a server that is away is away for itself alone.

A client keeps one connection and is lent to one command at a time. That is the library's cheaper half: giving a connection to
each command, with a time limit for that, for each write and for each read, takes as long again as the command (redis-py 8.1:
216 µs of CPU against 105). One limit bounds the whole command instead.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import sha1
from pathlib import Path
from typing import Any, TypeVar

import anyio
import structlog
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
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

from infra.slot_map import SlotMap
from models.errors import RedisRefused, RedisUnavailable
from models.redis_url import Address, ClusterUrl, is_cluster

CLIENTS_MAX = 64
"""Of each server. Beyond it callers wait for a free one: a storm queues here instead of opening thousands of connections."""
CLUSTER_SHARDS = 16
"""Parts that presence is kept in, each on one server: several for each server of a usual cluster, so that they spread evenly.
Fixed for the life of a cluster's memory: another number looks for everything elsewhere."""
PROOFS_MAX = 256
"""Keys that are tried until each server of a cluster holds one of them."""
PROOF_KEPT_MS = 10_000
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
        self._lenders: dict[Home, _Lender] = {}
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
            return await self._in_time(self._ask(key, command))

    async def _ask(self, key: str, command: Callable[[Redis], Awaitable[T]]) -> T:
        for _ in range(MOVES_MAX):
            home, found = await self._home_of(key), self._map
            try:
                return await self._lent(home, command)
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
            return [await self._in_time(self._lent(home, command)) for home in await self._homes()]

    async def publish(self, channel: str, message: str | bytes) -> None:
        """Publish on a channel; raises ``RedisUnavailable`` when it may not have been.

        A channel like a key lives on one server (redis.io, "Sharded pub/sub").
        """
        await self.ask(channel, lambda redis: redis.execute_command("SPUBLISH", channel, message))

    async def ping(self) -> None:
        """Raise ``RedisUnavailable`` unless every server answers."""
        await self.everywhere(lambda redis: redis.ping())

    async def prove_writable(self) -> None:
        """Raise ``RedisUnavailable`` unless something can be written on every server that holds a part of ours."""
        keys: dict[Home, str] = {}
        with translated_errors():
            homes = await self._in_time(self._homes())
        for number in range(PROOFS_MAX):
            key = self.key(f"proof{number}", "written")
            keys.setdefault(await self.home_of(key), key)
            if len(keys) == len(homes):
                break
        for key in keys.values():
            await self.ask(key, partial(_write_proof, key))

    def script(self, *paths: Path) -> "Script":
        """Return the Lua files at ``paths`` as one script: what several scripts share stands in front of each.

        Lua in Redis cannot include a file.
        """
        return Script(self, "\n".join(path.read_text() for path in paths))

    async def close(self) -> None:
        """Give all connections back; idempotent."""
        lenders, self._lenders = self._lenders, {}
        for lender in lenders.values():
            await lender.close()

    # --- where things live --------------------------------------------------------------------------------------------

    async def home_of(self, key: str) -> Home:
        """Return where a key lives. Raises ``RedisUnavailable`` when no server of the cluster answers, or none holds it."""
        with translated_errors():
            return await self._in_time(self._home_of(key))

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
                await self._in_time(self._learn(self._map))

    def listener(self, home: Home) -> Redis:
        """Return a client of its own for listening at ``home``; what breaks its connection is raised, never hidden by a retry."""
        return Redis(connection_pool=self._pool(home, Retry(NoBackoff(), 0), socket_timeout=self._timeout_s))

    async def _homes(self) -> Collection[Home]:
        if not self.is_cluster:
            return [None]
        if self._map is None:
            await self._learn(None)
        return set(self._map.addresses if self._map else ())

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
                    answer = await self._lent(address, lambda redis: redis.execute_command("CLUSTER SLOTS"))
                except (RedisError, OSError) as error:
                    failures.append(str(error))
                    continue
                self._map = SlotMap.of(answer, address)
                named = self._cluster.addresses if self._cluster else ()
                self._known = list(dict.fromkeys([address, *self._map.addresses, *named]))
                return
            raise RedisConnectionError("No server of the cluster answers: " + " ".join(failures))

    # --- connections --------------------------------------------------------------------------------------------------

    async def _lent(self, home: Home, command: Callable[[Redis], Awaitable[T]]) -> T:
        """Give ``command`` a client of one server; return what it returns."""
        lender = self._lenders.get(home)
        if lender is None:
            lender = self._lenders[home] = _Lender(lambda: self._new_client(home))
        return await lender.lend(command)

    async def _in_time(self, asking: Awaitable[T]) -> T:
        """Bound what is asked, with all its tries and the wait for a client."""
        try:
            # Half the price of anyio's, and a command is cheap.
            async with asyncio.timeout(self._timeout_s):
                return await asking
        except TimeoutError as error:
            # In a cluster another server may have taken the place of one that does not answer; who asks next is sent there.
            self._map = None
            raise RedisTimeoutError(f"Redis did not answer within {self._timeout_s:g} s.") from error

    def _new_client(self, home: Home) -> Redis:
        # Once more at once: the server may have been started anew since the last command, or have closed an idle connection.
        pool = self._pool(home, Retry(NoBackoff(), retries=1))
        return Redis(connection_pool=pool, single_connection_client=True)

    def _pool(self, home: Home, retry: Retry, *, socket_timeout: float | None = None) -> ConnectionPool:
        options: dict[str, Any] = {
            "retry": retry,
            "retry_on_error": [RedisConnectionError, RedisTimeoutError],
            "socket_timeout": socket_timeout,
            "socket_connect_timeout": self._timeout_s,
            # The newer protocol brings nothing that is used here; the library reads it more slowly.
            "protocol": 2,
            "decode_responses": True,
            # Somebody else's bytes in our keys come back as they were, and are unknown; they must not fail the reading of ours.
            "encoding_errors": "surrogateescape",
            "health_check_interval": 30,
        }
        if home is None or self._cluster is None:
            return ConnectionPool.from_url(self.url, **options)
        options |= {"username": self._cluster.username, "password": self._cluster.password}
        kind = SSLConnection if self._cluster.is_encrypted else Connection
        return ConnectionPool(connection_class=kind, host=home[0], port=home[1], **options)


class _Lender:
    """Clients of one server, each lent to one command at a time."""

    def __init__(self, new_client: Callable[[], Redis]) -> None:
        self._new_client = new_client
        self._idle: list[Redis] = []
        self._room = anyio.Semaphore(CLIENTS_MAX, fast_acquire=True)

    async def lend(self, command: Callable[[Redis], Awaitable[T]]) -> T:
        """Return what ``command`` returns; wait while all are lent."""
        async with self._room:
            # The last one first, so that a storm's others stay idle.
            client = self._idle.pop() if self._idle else self._new_client()
            try:
                return await command(client)
            finally:
                # One whose command failed or was cancelled has closed its connection, and will open another.
                self._idle.append(client)

    async def close(self) -> None:
        """Give all connections back. Nothing may be lent."""
        idle, self._idle = self._idle, []
        for client in idle:
            await client.aclose(close_connection_pool=True)


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


async def _write_proof(key: str, redis: Redis) -> None:
    await redis.set(key, "", px=PROOF_KEPT_MS)


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raise ``RedisUnavailable`` where the client raises what waiting may mend, and ``RedisRefused`` where Redis says no."""
    try:
        yield
    except (ReadOnlyError, OutOfMemoryError, ClusterDownError) as error:
        raise RedisUnavailable(str(error)) from error
    except ResponseError as error:
        if str(error).startswith(("MISCONF", "NOREPLICAS", "BUSY", "LOADING")):
            # It cannot write to its disk or to enough replicas, and so takes no writes (redis.io, "stop-writes-on-bgsave-error",
            # "min-replicas-to-write"); or it is busy with somebody's script, or with starting.
            raise RedisUnavailable(str(error)) from error
        raise RedisRefused(str(error)) from error
    except (RedisError, OSError) as error:
        raise RedisUnavailable(str(error)) from error
