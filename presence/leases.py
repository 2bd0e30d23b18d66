"""One shard of presence in Redis: one method, one script, one round trip (per batch).

Mechanics are spread over shards by their id; all keys and channels of a shard share a hash tag, so that a Redis Cluster can
hold each shard on another server. On a single Redis there is one.

Every method raises ``RedisUnavailable`` when Redis did not answer within its bound; repeating any of them is safe.
"""

import re
import zlib
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from infra.redis_link import RedisLink
from models.session_types import SESSION_TYPES
from models.settings import PresenceSettings
from presence.liveness import Facts, MechanicStatus

HERE = Path(__file__).parent
BATCH_LEN_MAX = 1_000
"""Mechanics per renewing script: some milliseconds in which Redis does nothing else."""
SLICE_LEN_MAX = 500
"""Mechanics per script that may have to announce each of them."""
NEVER = "-"
PACKED = re.compile(r"\d{1,18} \d \d \d \d \d{1,18}")
"""A status as Redis keeps it, see ``status.lua``."""
TYPES_OFF = re.compile(r"[A-Za-z_,]+")
"""The same of what somebody has switched off."""


def shard_of(mechanic_id: str, shards: int) -> int:
    """Return the mechanic's shard out of ``shards``, the same on every node and in every process."""
    return zlib.crc32(mechanic_id.encode()) % shards if shards > 1 else 0


@dataclass(frozen=True)
class Renewed:
    """What one batch of renewals met: was this node unknown to Redis, and who was not held here before?"""

    was_forgotten: bool
    new_ids: list[str]


@dataclass(frozen=True)
class NodeRenewed:
    """How a node stands. ``epoch`` differs from the one before when Redis has forgotten everything in between."""

    epoch: str
    held: bool
    """Whether the node's lease held without a gap since the last time."""
    has_lapses: bool
    """Whether there is something of its own to sweep."""
    lapsed_nodes: list[str]
    """The other nodes whose lease has ended."""


@dataclass(frozen=True)
class Swept:
    """Who went offline, with their last heartbeat (``None`` if unknown); and whether there is more to sweep."""

    last_seen_ms: dict[str, int | None]
    has_more: bool


class Leases:
    """One node's view of one shard in Redis. ``node_id`` is new with every start of the process."""

    def __init__(self, link: RedisLink, settings: PresenceSettings, node_id: str, shard: int) -> None:
        self._link = link
        self._settings = settings
        self._node_id = node_id
        self._tag = f"presence-{shard}"
        self._channels = self.key("status:")
        self._keys = [self.key(name) for name in ("statuses", "seen", "available", "holders", "types_off")]
        self._off_keys: dict[str, str] = {kind: self.key(f"off:{kind}") for kind in SESSION_TYPES}
        self._nodes = self.key("nodes")
        self._renew = link.script(HERE / "status.lua", HERE / "renew.lua")
        self._sweep = link.script(HERE / "status.lua", HERE / "sweep.lua")
        self._facts = link.script(HERE / "status.lua", HERE / "facts.lua")
        self._release = link.script(HERE / "release.lua")
        self._renew_node = link.script(HERE / "renew_node.lua")
        self._retire_node = link.script(HERE / "retire_node.lua")

    def key(self, name: str) -> str:
        """Return the name of one of this shard's keys, as the scripts' headers describe them."""
        return self._link.key(self._tag, name)

    def channel(self, mechanic_id: str) -> str:
        """Return the channel on which this mechanic's changes are announced, see ``parse``."""
        return self._channels + mechanic_id

    async def renew(self, heard_at_ms: Mapping[str, int]) -> AsyncIterator[Renewed]:
        """Renew the leases of those heard, by the instant of their last heartbeat; one result per batch."""
        for batch in _batches(heard_at_ms, BATCH_LEN_MAX):
            arguments: list[str | int] = [
                self._channels,
                self._node_id,
                self._settings.node_lease_ms,
                self._settings.timeout_ms,
            ]
            by_instant: dict[int, list[str]] = {}
            for mechanic_id in batch:
                by_instant.setdefault(heard_at_ms[mechanic_id], []).append(mechanic_id)
            # A few long arguments: thousands of short ones would cost more than the renewal itself.
            arguments += [f"{at_ms} {' '.join(together)}" for at_ms, together in by_instant.items()]
            keys = [*self._keys, self._leases_of(self._node_id), self._nodes]
            added, *new_ids = await self._renew(keys=keys, args=arguments)
            yield Renewed(was_forgotten=bool(added), new_ids=new_ids)

    async def release(self, ids: Iterable[str]) -> None:
        """Let the leases of those whose last socket here has closed end after the grace."""
        for batch in _batches(ids, BATCH_LEN_MAX):
            await self._release(keys=[self._leases_of(self._node_id)], args=[self._settings.grace_ms, *batch])

    async def renew_node(self) -> NodeRenewed:
        """Renew this node's own lease, and see how it and the others stand."""
        keys = [self._nodes, self.key("epoch"), self._leases_of(self._node_id)]
        epoch, was_held, lapses, *node_ids = await self._renew_node(
            keys=keys, args=[self._node_id, self._settings.node_lease_ms]
        )
        others = [node_id for node_id in node_ids if node_id != self._node_id]
        return NodeRenewed(epoch, bool(was_held), bool(lapses), others)

    async def retire_node(self) -> None:
        """End this node's own lease after the grace: what it holds lapses with it."""
        await self._retire_node(keys=[self._nodes], args=[self._node_id, max(1, self._settings.grace_ms)])

    async def sweep(self, node_id: str | None = None) -> Swept:
        """Remove a slice of what has lapsed: of this node (``None``) single leases, of another one all if its own has ended."""
        whose = self._node_id if node_id is None else node_id
        keys = [*self._keys, self._leases_of(whose), self._nodes]
        kind = "own" if node_id is None else "other"
        more, *pairs = await self._sweep(keys=keys, args=[self._channels, whose, SLICE_LEN_MAX, kind])
        seen = zip(pairs[::2], pairs[1::2], strict=True)
        return Swept({mechanic_id: _instant_or_none(at_ms) for mechanic_id, at_ms in seen}, has_more=bool(more))

    async def store_facts(self, facts: Iterable[Facts]) -> dict[str, MechanicStatus]:
        """Take over facts from SQL, unless Redis has newer ones, and return what is true then."""
        by_id = {one.mechanic_id: one for one in facts}
        statuses: dict[str, MechanicStatus] = {}
        for batch in _batches(by_id, SLICE_LEN_MAX):
            arguments: list[str | int] = [self._channels, ",".join(self._off_keys)]
            for one in map(by_id.__getitem__, batch):
                last_seen = NEVER if one.last_seen_ms is None else one.last_seen_ms
                flags = (int(one.on_duty), int(one.is_busy), int(one.has_push))
                arguments += (one.mechanic_id, one.version, *flags, last_seen, one.types_off)
            messages = await self._facts(keys=[*self._keys, *self._off_keys.values()], args=arguments)
            statuses |= {status.mechanic_id: status for status in map(parse, messages)}
        return statuses

    async def read(self, ids: Collection[str], *, as_of_ms: int) -> dict[str, MechanicStatus]:
        """Return the status of those of ``ids`` whom Redis knows, as of ``as_of_ms``."""
        theirs = list(ids)

        async def look_up(redis: Redis) -> list[list[Any]]:
            async with redis.pipeline(transaction=True) as pipeline:
                pipeline.hmget(self._keys[0], theirs)
                pipeline.zmscore(self._keys[1], theirs)
                pipeline.hmget(self._keys[4], theirs)
                return await pipeline.execute()

        packed, seen, off = await self._link.ask(self._keys[0], look_up)
        statuses: dict[str, MechanicStatus] = {}
        for mechanic_id, fields, seen_at, types_off in zip(theirs, packed, seen, off, strict=True):
            # What does not look like a status is as good as unknown; ``status.lua`` sees it so, too.
            if fields is not None and PACKED.fullmatch(fields):
                last_seen = NEVER if seen_at is None or not isfinite(seen_at) else str(int(seen_at))
                last = f" {types_off}" if types_off and TYPES_OFF.fullmatch(types_off) else ""
                statuses[mechanic_id] = parse(f"{mechanic_id} {fields} {last_seen} {as_of_ms}{last}")
        return statuses

    async def available_count(self, session_type: str | None = None) -> int:
        """Return how many are online, on duty and not in a session, and have not switched off this kind of session."""
        available = self._keys[2]
        off = self._off_keys.get(session_type or "")
        if off is None:
            return await self._link.ask(available, lambda redis: redis.scard(available))

        async def count(redis: Redis) -> list[int]:
            async with redis.pipeline(transaction=True) as pipeline:
                pipeline.scard(available)
                pipeline.sintercard(2, [available, off])
                return await pipeline.execute()

        all_of_them, without_it = await self._link.ask(available, count)
        return all_of_them - without_it

    def _leases_of(self, node_id: str) -> str:
        return self.key(f"leases:{node_id}")


def parse(message: str) -> MechanicStatus:
    """Return the status in a message of ``status.lua``: nine fields, and a tenth if something is switched off, see there."""
    mechanic_id, version, online, on_duty, busy, push, facts_version, last_seen, as_of, *off = message.split(" ")
    return MechanicStatus(
        mechanic_id,
        int(version),
        online == "1",
        on_duty == "1",
        busy == "1",
        push == "1",
        int(facts_version),
        _instant_or_none(last_seen),
        int(as_of),
        off[0] if off else "",
    )


def is_whole(message: str) -> bool:
    """Tell whether a message says all there is to know: a node of the version before does not know what is switched off."""
    return " +" in message


def _instant_or_none(text: str) -> int | None:
    return None if text == NEVER or not isfinite(float(text)) else int(float(text))


def _batches(ids: Iterable[str], len_max: int) -> Iterator[list[str]]:
    rest = iter(ids)
    while batch := list(islice(rest, len_max)):
        yield batch
