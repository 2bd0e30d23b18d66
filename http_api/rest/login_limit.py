"""How often a password may be tried: counted in Redis, so that all nodes count together.

Failures are remembered for a minute: those from one address for one account, and all from one address. A browser that has
signed in to the account before has its own to spend instead, so that nobody elsewhere can keep its owner out. Attempts that
are still being checked count as well, as long as they last. So attempts that start together cannot slip through, and a crowd
of right passwords from one address waits a moment instead of being refused.
"""

import secrets
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

from accounts.accounts import normal_email
from http_api.rest.rate_limit import digest
from infra.redis_link import RedisLink, Script
from models.errors import Overloaded
from models.settings import DoorSettings

BEGIN = Path(__file__).with_name("login_begin.lua")
END = Path(__file__).with_name("login_end.lua")
UNDER_WAY_MAX_MS = 10_000
"""An attempt whose node died no longer counts as under way after this."""
ATTEMPTS_SIDE_BY_SIDE = 4
"""Of this process; the others queue here, where it costs nothing. Fewer than failures are allowed, so that a process
seldom has to ask Redis again, and more than passwords are hashed side by side."""
WAITING_MAX = 200
"""Of those who are known, and of strangers: some five seconds' worth."""
HERE_MAX = 40
"""Of one address, so that one alone, with the right password even, fills no lane."""
POLL_INTERVAL_S = 0.02
WAIT_MAX_S = 5.0
GO, WAIT = 0, -1


@dataclass(frozen=True)
class TooMany:
    """Not to be tried now, not even with the right password; ``retry_after_s`` is at least one."""

    retry_after_s: int

    @property
    def detail(self) -> str:
        """One sentence for a person."""
        return f"Too many attempts have failed. Please try again in {self.retry_after_s} s."


@dataclass
class Attempt:
    """One try that is under way. It counts as failed until ``succeeded`` is set."""

    succeeded: bool = False


class LoginLimit:
    """Lets so many failures through within the window, then no attempt until it has passed."""

    def __init__(self, link: RedisLink, settings: DoorSettings) -> None:
        self._link = link
        self._failures_max = settings.login_failures_max
        self._failures_of_address_max = settings.login_failures_of_address_max
        self._window_ms = settings.login_window_s * 1000
        self._begin = link.script(BEGIN)
        self._end = link.script(END)
        # Of their own: a crowd of strangers keeps whoever is known waiting for no longer than a few passwords take.
        self._strangers = anyio.CapacityLimiter(ATTEMPTS_SIDE_BY_SIDE)
        self._known = anyio.CapacityLimiter(ATTEMPTS_SIDE_BY_SIDE)
        self._here: Counter[str] = Counter()
        """Attempts that wait or are under way, by address."""

    @asynccontextmanager
    async def attempt(
        self, email: str, address: str, *, device_id: str | None = None
    ) -> AsyncIterator[Attempt | TooMany]:
        """Count one attempt for the length of the block. Raises ``RedisUnavailable``: without counting nobody signs in.

        ``device_id``: of a browser that is known for this account. Raises ``Overloaded`` if too many wait for their turn.
        """
        turns = self._strangers if device_id is None else self._known
        if turns.statistics().tasks_waiting >= WAITING_MAX or self._here[address] >= HERE_MAX:
            raise Overloaded("Too many people are signing in just now.")
        self._here[address] += 1
        try:
            async with turns, self._counted(self._subjects(email, address, device_id)) as attempt:
                yield attempt
        finally:
            self._here[address] -= 1
            if not self._here[address]:
                del self._here[address]

    def _subjects(self, email: str, address: str, device_id: str | None) -> dict[str, int]:
        """Return what an attempt counts for, each with the failures that are let through."""
        account = normal_email(email)
        if device_id is not None:
            return {f"device:{device_id}:{account}": self._failures_max}
        return {f"both:{address}:{account}": self._failures_max, f"address:{address}": self._failures_of_address_max}

    @asynccontextmanager
    async def _counted(self, subjects: Mapping[str, int]) -> AsyncIterator[Attempt | TooMany]:
        keys = [key for subject in subjects for key in self._keys(subject)]
        attempt_id = secrets.token_hex(8)
        refused = await self._wait_for_turn(keys, attempt_id, subjects.values())
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

    async def _wait_for_turn(self, keys: list[str], attempt_id: str, allowed: Iterable[int]) -> TooMany | None:
        """Return ``None`` once the attempt counts as under way."""
        arguments: list[str | int] = [attempt_id, self._window_ms, UNDER_WAY_MAX_MS, *allowed]
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
        key = digest(subject)
        return self._link.key("login", f"failed:{key}"), self._link.key("login", f"under-way:{key}")
