"""How many sockets an account may have at a time, over all nodes: each socket takes a place before it is opened.

Each node says in Redis how many sockets each account has here, under a lease: those of a killed node count for nothing soon. All
who come while a script is under way go together with the next one, so a storm of handshakes is few visits. While Redis is away
each node counts its own sockets alone.

Accounts are spread over shards as mechanics are, see ``presence.leases``.
"""

from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Final, Protocol

import anyio
import structlog

from infra.loops import Backoff, Loop, keep_running
from infra.redis_link import RedisLink
from models.errors import RedisUnavailable
from presence.leases import shard_of

HERE: Final = Path(__file__).parent
LEASE_MS: Final = 10_000
"""How long the sockets of a killed node count."""
RENEW_S: Final = 2.0
BATCH_LEN_MAX: Final = 500
"""Accounts per script: a few milliseconds in which Redis does nothing else."""
GATHER_S: Final = 0.02
"""Who comes alone is counted at once; in a storm those of this time go together, at a tenth of the price."""
RETIRE_TIMEOUT_S: Final = 1.0
RETRY_AFTER_S: Final = 10
"""What the refused are told: by then sockets that died with a node are forgotten."""


class Places(Protocol):
    """Who counts sockets."""

    async def take(self, account_id: str) -> bool:
        """Take a place for one more socket; ``False`` if the account has as many as it may have. Never raises ``Unavailable``."""

    def give_back(self, account_id: str) -> None:
        """Give back one that was taken."""

    async def run(self) -> None:
        """Keep counting until cancelled."""


@dataclass(eq=False)
class _Wish:
    """One socket that waits for its place."""

    decided: anyio.Event = field(default_factory=anyio.Event)
    is_granted: bool = False
    is_abandoned: bool = False


class RedisPlaces:
    """``Places`` over all nodes. ``node_id`` is new with every start of the process."""

    def __init__(self, link: RedisLink, node_id: str, per_account_max: int) -> None:
        self._shards = [_Shard(link, node_id, per_account_max, number) for number in range(link.shards)]

    async def take(self, account_id: str) -> bool:
        """See ``Places``."""
        return await self._shard(account_id).take(account_id)

    def give_back(self, account_id: str) -> None:
        """See ``Places``."""
        self._shard(account_id).give_back(account_id)

    async def run(self) -> None:
        """See ``Places``; on the way out this node's sockets stop counting."""
        try:
            async with anyio.create_task_group() as tasks:
                for shard in self._shards:
                    tasks.start_soon(keep_running, "socket_places", shard.run)
        finally:
            with anyio.move_on_after(RETIRE_TIMEOUT_S, shield=True):
                await _side_by_side([shard.retire for shard in self._shards])

    def _shard(self, account_id: str) -> "_Shard":
        return self._shards[shard_of(account_id, len(self._shards))]


class _Shard:
    """A part of the accounts."""

    def __init__(self, link: RedisLink, node_id: str, per_account_max: int, number: int) -> None:
        tag = f"sockets-{number}"
        self._link = link
        self._node_id = node_id
        self._per_account_max = per_account_max
        self._nodes = link.key(tag, "nodes")
        self._prefix = link.key(tag, "held:")
        self._claim = link.script(HERE / "claim_places.lua")
        self._held: dict[str, int] = {}
        """Sockets here, by account."""
        self._waiting: dict[str, list[_Wish]] = {}
        self._undecided: dict[str, int] = {}
        """Sockets that have no place yet: those that wait, and those that Redis is being asked about."""
        self._unsaid: dict[str, None] = {}
        """Accounts of which Redis may not know how many sockets they have here."""
        self._has_news = anyio.Event()
        self._renew_at_s = 0.0
        self._told_at_s = 0.0
        self._is_away = False
        self._log = structlog.get_logger("sockets")

    async def take(self, account_id: str) -> bool:
        """See ``Places``."""
        if self._held.get(account_id, 0) + self._undecided.get(account_id, 0) >= self._per_account_max:
            return False
        if self._is_away:
            self._hold(account_id, 1)
            return True
        wish = _Wish()
        self._waiting.setdefault(account_id, []).append(wish)
        self._undecided[account_id] = self._undecided.get(account_id, 0) + 1
        self._has_news.set()
        try:
            await wish.decided.wait()
        except BaseException:
            wish.is_abandoned = True
            if wish.is_granted:
                self.give_back(account_id)
            raise
        return wish.is_granted

    def give_back(self, account_id: str) -> None:
        """See ``Places``."""
        self._hold(account_id, -1)

    async def run(self) -> None:
        """Tell Redis what changes, and that this node is alive."""
        backoff = Backoff()
        while True:
            with anyio.move_on_after(self._renew_at_s - monotonic()):
                await self._has_news.wait()
                await anyio.sleep(max(0.0, self._told_at_s + GATHER_S - monotonic()))
            self._has_news = anyio.Event()
            self._told_at_s = monotonic()
            try:
                await self._flush()
            except RedisUnavailable as error:
                if not self._is_away:
                    self._log.warning("places_counted_alone", error=str(error))
                self._is_away = True
                await backoff.wait()
                continue
            if self._is_away:
                self._log.info("places_counted_together")
                self._is_away = False
            backoff.reset()

    async def retire(self) -> None:
        """Take this node's sockets off the count: it stops, and who reconnects elsewhere must find their places free."""
        try:
            await self._link.ask(self._nodes, lambda redis: redis.zrem(self._nodes, self._node_id))
            await self._link.ask(self._nodes, lambda redis: redis.delete(self._prefix + self._node_id))
        except RedisUnavailable as error:
            # Then the lease runs out by itself.
            self._log.warning("places_not_given_back", error=str(error))

    # --- inside -------------------------------------------------------------------------------------------------------

    def _hold(self, account_id: str, more: int) -> None:
        count = self._held.get(account_id, 0) + more
        if count > 0:
            self._held[account_id] = count
        else:
            self._held.pop(account_id, None)
        self._unsaid[account_id] = None
        self._has_news.set()

    async def _flush(self) -> None:
        """Say what is unsaid and ask for those who wait, a batch. Raises ``RedisUnavailable``; then this node has decided alone."""
        accounts = list(islice(dict.fromkeys((*self._waiting, *self._unsaid)), BATCH_LEN_MAX))
        claims: list[tuple[str, _Wish | None]] = []
        arguments: list[str | int] = [self._prefix, self._node_id, LEASE_MS, self._per_account_max]
        for account_id in accounts:
            held = self._held.get(account_id, 0)
            wishes = self._waiting.pop(account_id, None)
            self._unsaid.pop(account_id, None)
            for number, wish in enumerate(wishes or (None,)):
                claims.append((account_id, wish))
                arguments += (account_id, held + number + (wish is not None), int(wish is not None))
        # Unless somebody says otherwise: it is no more than this node allows by itself.
        noted = [1] * len(claims)
        try:
            was_unknown, *noted = await self._claim(keys=[self._nodes, self._prefix + self._node_id], args=arguments)
        except BaseException:
            self._unsaid |= dict.fromkeys(accounts)
            raise
        finally:
            self._decide(claims, noted)
        self._renew_at_s = monotonic() + RENEW_S
        if was_unknown:
            # It has never heard of us, or has forgotten; of those just told it knows.
            self._unsaid |= dict.fromkeys(one for one in self._held if one not in accounts)
        if self._waiting or self._unsaid:
            self._has_news.set()

    def _decide(self, claims: list[tuple[str, _Wish | None]], noted: list[int]) -> None:
        for (account_id, wish), is_noted in zip(claims, noted, strict=True):
            if wish is None:
                continue
            self._undecided[account_id] -= 1
            if not self._undecided[account_id]:
                del self._undecided[account_id]
            if is_noted and not wish.is_abandoned:
                wish.is_granted = True
                self._held[account_id] = self._held.get(account_id, 0) + 1
            elif is_noted:
                self._unsaid[account_id] = None
            wish.decided.set()


async def _side_by_side(calls: list[Loop]) -> None:
    async with anyio.create_task_group() as tasks:
        for call in calls:
            tasks.start_soon(call)
