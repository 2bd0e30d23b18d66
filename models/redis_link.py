"""One Redis connection pool for a node, with its key prefix and its Lua scripts."""

from pathlib import Path
from typing import Any

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.backoff import ExponentialBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

CONNECTIONS_MAX = 64
"""Beyond it callers wait for a free connection: a storm queues here instead of opening thousands."""


class RedisLink:
    """Commands, scripts and key names of one Pitlane installation in one Redis."""

    def __init__(self, url: str, *, prefix: str, timeout_s: float = 2.0) -> None:
        """``url`` as the contract's ``PITLANE_REDIS_URL``; ``prefix`` keeps installations apart in one Redis."""
        self.url = url
        self.prefix = prefix
        self.log = structlog.get_logger("redis")
        self._timeout_s = timeout_s
        self.redis: Redis = self._connect()

    def _connect(self) -> Redis:
        retry = Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=2)
        shared: dict[str, Any] = {
            "socket_timeout": self._timeout_s,
            "socket_connect_timeout": self._timeout_s,
            "decode_responses": True,
            "health_check_interval": 30,
        }
        pool = BlockingConnectionPool.from_url(
            self.url,
            max_connections=CONNECTIONS_MAX,
            timeout=self._timeout_s,
            retry=retry,
            retry_on_error=[RedisConnectionError, RedisTimeoutError],
            **shared,
        )
        return Redis(connection_pool=pool)

    def key(self, tag: str, name: str) -> str:
        """Return a key; all keys with the same ``tag`` share a hash slot, so that one script may touch them."""
        return f"{self.prefix}:{{{tag}}}:{name}"

    def script(self, path: Path) -> AsyncScript:
        """Register the Lua file at ``path``; the returned object is called with ``keys`` and ``args``."""
        return self.redis.register_script(path.read_text())

    async def close(self) -> None:
        """Give all connections back; idempotent."""
        await self.redis.aclose(close_connection_pool=True)
