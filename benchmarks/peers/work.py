"""The work that the peers do as Pitlane does it: check the token, renew presence in Redis, say what a status is.

They do less than Pitlane: no accounts or offers are read for the ``welcome``, nothing lapses by itself, and a duty is kept in
Redis alone.
"""

import os
import time
from typing import Any

import jwt
from redis.asyncio import Redis

SECRET_KEY = os.environ["PEER_SECRET_KEY"]
REDIS_URL = os.environ["PEER_REDIS_URL"]
TIMEOUT_S = 45


def account_of(authorization: str) -> str:
    """Return whose bearer token this is; raises ``jwt.PyJWTError`` if it is nobody's."""
    return str(jwt.decode(authorization.removeprefix("Bearer "), SECRET_KEY, algorithms=["HS256"])["sub"])


def now() -> str:
    """Return the instant as the messages carry it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())


def welcome(account_id: str) -> dict[str, Any]:
    """Return the snapshot, as far as a peer has one."""
    return {"protocol": 1, "mechanic_id": account_id, "server_time": now(), "heartbeat_interval_s": 20, "offers": []}


class PresenceKeys:
    """Leases in one sorted set, and who is on duty in a hash."""

    def __init__(self) -> None:
        self._redis = Redis.from_url(REDIS_URL, decode_responses=True)

    async def renew(self, account_id: str) -> None:
        """They are here for as long as the time-out."""
        await self._redis.zadd("peer:presence", {account_id: time.time_ns() / 1e9 + TIMEOUT_S})

    async def leave(self, account_id: str) -> None:
        """They are not here any more."""
        await self._redis.zrem("peer:presence", account_id)

    async def set_on_duty(self, account_id: str, on_duty: bool) -> dict[str, Any]:
        """Remember it, and return the status to tell those who watch."""
        await self._redis.hset("peer:on_duty", account_id, int(on_duty))
        return self.status(account_id, on_duty)

    def status(self, account_id: str, on_duty: bool) -> dict[str, Any]:
        """Return the status of somebody who is here."""
        availability = "available" if on_duty else "off_duty"
        return {"mechanic_id": account_id, "is_online": True, "availability": availability, "as_of": now()}
