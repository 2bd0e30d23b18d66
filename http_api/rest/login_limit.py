"""How often a password may be tried: counted in Redis, so that all nodes count together.

Failures are remembered per account and per client address for a minute; attempts that are still being checked count as
well, as long as they last. So attempts that start together cannot slip through, and a crowd of right passwords from one
address waits a moment instead of being refused.
"""

import hashlib
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

from accounts.accounts import normal_email
from infra.redis_link import RedisLink, Script
from models.settings import DoorSettings

BEGIN = Path(__file__).with_name("login_begin.lua")
END = Path(__file__).with_name("login_end.lua")
UNDER_WAY_MAX_MS = 10_000
"""An attempt whose node died no longer counts as under way after this."""
ATTEMPTS_SIDE_BY_SIDE = 4
"""Of this process; the others queue here, where it costs nothing. Fewer than failures are allowed, so that a process
seldom has to ask Redis again, and more than passwords are hashed side by side."""
POLL_INTERVAL_S = 0.02
WAIT_MAX_S = 5.0
GO, WAIT = 0, -1


@dataclass(frozen=True)
class TooMany:
    """Not to be tried now, not even with the right password; ``retry_after_s`` is at least one."""

    retry_after_s: int


@dataclass
class Attempt:
    """One try that is under way. It counts as failed until ``succeeded`` is set."""

    succeeded: bool = False


class LoginLimit:
    """Lets so many failures through for an account or an address within the window, then none until it has passed."""

    def __init__(self, link: RedisLink, settings: DoorSettings) -> None:
        self._link = link
        self._failures_max = settings.login_failures_max
        self._window_ms = settings.login_window_s * 1000
        self._begin = link.script(BEGIN)
        self._end = link.script(END)
        self._side_by_side = anyio.CapacityLimiter(ATTEMPTS_SIDE_BY_SIDE)

    @asynccontextmanager
    async def attempt(self, email: str, address: str) -> AsyncIterator[Attempt | TooMany]:
        """Count one attempt for the length of the block. Raises ``RedisUnavailable``: without counting nobody signs in."""
        async with self._side_by_side, self._counted(email, address) as attempt:
            yield attempt

    @asynccontextmanager
    async def _counted(self, email: str, address: str) -> AsyncIterator[Attempt | TooMany]:
        keys = [
            key for subject in (f"account:{normal_email(email)}", f"address:{address}") for key in self._keys(subject)
        ]
        attempt_id = secrets.token_hex(8)
        refused = await self._wait_for_turn(keys, attempt_id)
        if refused is not None:
            yield refused
            return
        attempt = Attempt()
        has_failed = True
        try:
            yield attempt
            has_failed = not attempt.succeeded
        except Exception:
            # The database is away, say: that is not the fault of who tries.
            has_failed = False
            raise
        finally:
            # Also when it is cancelled, and then it counts: whoever aborts attempts must not get more of them.
            with anyio.CancelScope(shield=True):
                await self._run(self._end, keys, [attempt_id, int(has_failed), self._window_ms])

    async def _wait_for_turn(self, keys: list[str], attempt_id: str) -> TooMany | None:
        """Return ``None`` once the attempt counts as under way."""
        arguments = (attempt_id, self._failures_max, self._window_ms, UNDER_WAY_MAX_MS)
        with anyio.move_on_after(WAIT_MAX_S):
            # The attempts waited for may be another node's, so there is nothing here to be woken by.
            while (verdict := await self._run(self._begin, keys, arguments)) == WAIT:  # noqa: ASYNC110
                await anyio.sleep(POLL_INTERVAL_S)
            return None if verdict == GO else TooMany(max(1, -(-verdict // 1000)))
        return TooMany(1)

    async def _run(self, script: Script, keys: list[str], arguments: Sequence[str | int]) -> int:
        return int(await script(keys=keys, args=arguments))

    def _keys(self, subject: str) -> tuple[str, str]:
        # Whoever reads Redis shall not learn who signs in here.
        digest = hashlib.sha256(subject.encode()).hexdigest()[:32]
        return self._link.key("login", f"failed:{digest}"), self._link.key("login", f"under-way:{digest}")
