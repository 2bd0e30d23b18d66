"""Presence in Redis: one method, one script, one round trip per shard (and per batch).

Mechanics are spread over shards by their id; all keys of a shard share a hash tag, so that a Redis Cluster can hold each
shard on another server. Today there is one.

Every method raises ``RedisUnavailable`` when Redis did not answer; repeating any of them is safe.
"""

import zlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from redis.commands.core import AsyncScript
from redis.exceptions import ClusterDownError, OutOfMemoryError, ReadOnlyError, RedisError, ResponseError

from models.errors import RedisUnavailable
from models.redis_link import RedisLink
from models.settings import PresenceSettings
from presence.liveness import Facts, Status

HERE = Path(__file__).parent
SHARDS = 1
"""Fixed for the life of an installation's Redis: another number looks for everything elsewhere."""
BATCH_LEN_MAX = 1_000
"""Mechanics per renewing script: some milliseconds in which Redis does nothing else."""
SLICE_LEN_MAX = 500
"""Mechanics per script that may have to announce each of them."""
NEVER = "-"


def shard_of(mechanic_id: str) -> int:
    """Return the mechanic's shard, the same on every node and in every process."""
    return zlib.crc32(mechanic_id.encode()) % SHARDS


@dataclass(frozen=True)
class Renewed:
    """What one batch of renewals met: was this node unknown to Redis, and who was not held here before?"""

    was_forgotten: bool
    new_ids: list[str]


@dataclass(frozen=True)
class Standing:
    """How a node stands. ``epoch`` differs from the one before when Redis has forgotten everything in between."""

    epoch: tuple[str, ...]
    held: bool
    """Whether the node's lease held without a gap since the last time."""
    lapsed: list["NodeShard"]


@dataclass(frozen=True)
class NodeShard:
    """One node's leases in one shard."""

    shard: int
    node_id: str


@dataclass(frozen=True)
class Swept:
    """Who went offline, with their last heartbeat (``None`` if unknown); and whether there is more to sweep."""

    last_seen_ms: dict[str, int | None]
    is_more: bool


class Leases:
    """One node's view of presence in Redis. ``node_id`` is new with every start of the process."""

    def __init__(self, link: RedisLink, settings: PresenceSettings, node_id: str) -> None:
        self._link = link
        self._settings = settings
        self._node_id = node_id
        self._renew = self._script("status.lua", "renew.lua")
        self._sweep = self._script("status.lua", "sweep.lua")
        self._facts = self._script("status.lua", "facts.lua")
        self._release = self._script("release.lua")
        self._renew_node = self._script("renew_node.lua")
        self._retire_node = self._script("retire_node.lua")

    def channel(self, mechanic_id: str) -> str:
        """Return the channel on which this mechanic's changes are announced, see ``parse``."""
        return self._channels(shard_of(mechanic_id)) + mechanic_id

    async def renew(self, heard_at_ms: Mapping[str, int]) -> AsyncIterator[Renewed]:
        """Renew the leases of those heard, by the instant of their last heartbeat; one result per batch."""
        for shard, ids in _by_shard(heard_at_ms):
            for batch in _batches(ids, BATCH_LEN_MAX):
                arguments: list[str | int] = [
                    self._channels(shard),
                    self._node_id,
                    self._settings.node_lease_ms,
                    self._settings.timeout_ms,
                ]
                by_instant: dict[int, list[str]] = {}
                for mechanic_id in batch:
                    by_instant.setdefault(heard_at_ms[mechanic_id], []).append(mechanic_id)
                # A few long arguments: thousands of short ones would cost more than the renewal itself.
                arguments += [f"{at_ms} {' '.join(together)}" for at_ms, together in by_instant.items()]
                keys = [*self._keys(shard), self._leases_of(shard, self._node_id), self._nodes(shard)]
                with _translated():
                    added, *new_ids = await self._renew(keys=keys, args=arguments)
                yield Renewed(was_forgotten=bool(added), new_ids=new_ids)

    async def release(self, ids: Iterable[str]) -> None:
        """Let the leases of those whose last socket here has closed end after the grace."""
        for shard, theirs in _by_shard(ids):
            for batch in _batches(theirs, BATCH_LEN_MAX):
                with _translated():
                    await self._release(
                        keys=[self._leases_of(shard, self._node_id)], args=[self._settings.grace_ms, *batch]
                    )

    async def renew_node(self) -> Standing:
        """Renew this node's own lease, and see how it and the others stand."""
        epochs, held, lapsed = [], True, []
        for shard in range(SHARDS):
            with _translated():
                epoch, was_held, *node_ids = await self._renew_node(
                    keys=[self._nodes(shard), self._key(shard, "epoch")],
                    args=[self._node_id, self._settings.node_lease_ms],
                )
            epochs.append(epoch)
            held = held and bool(was_held)
            lapsed += [NodeShard(shard, node_id) for node_id in node_ids if node_id != self._node_id]
        return Standing(tuple(epochs), held, lapsed)

    async def retire_node(self) -> None:
        """End this node's own lease after the grace: what it holds lapses with it."""
        for shard in range(SHARDS):
            with _translated():
                await self._retire_node(
                    keys=[self._nodes(shard)], args=[self._node_id, max(1, self._settings.grace_ms)]
                )

    def own(self) -> list[NodeShard]:
        """Return where this node's own leases are."""
        return [NodeShard(shard, self._node_id) for shard in range(SHARDS)]

    async def sweep(self, of: NodeShard) -> Swept:
        """Remove a slice of what has lapsed: of this node single leases, of another one all if its own has ended."""
        whose = "own" if of.node_id == self._node_id else "other"
        keys = [*self._keys(of.shard), self._leases_of(of.shard, of.node_id), self._nodes(of.shard)]
        with _translated():
            more, *pairs = await self._sweep(
                keys=keys, args=[self._channels(of.shard), of.node_id, SLICE_LEN_MAX, whose]
            )
        seen = zip(pairs[::2], pairs[1::2], strict=True)
        return Swept({mechanic_id: _instant_or_none(at_ms) for mechanic_id, at_ms in seen}, is_more=bool(more))

    async def store_facts(self, facts: Sequence[Facts]) -> dict[str, Status]:
        """Take over facts from SQL, unless Redis has newer ones, and return what is true then."""
        by_id = {one.mechanic_id: one for one in facts}
        statuses: dict[str, Status] = {}
        for shard, ids in _by_shard(by_id):
            for batch in _batches(ids, SLICE_LEN_MAX):
                arguments: list[str | int] = [self._channels(shard)]
                for one in map(by_id.__getitem__, batch):
                    last_seen = NEVER if one.last_seen_ms is None else one.last_seen_ms
                    flags = (int(one.on_duty), int(one.is_busy), int(one.has_push))
                    arguments += (one.mechanic_id, one.version, *flags, last_seen)
                with _translated():
                    messages = await self._facts(keys=self._keys(shard), args=arguments)
                statuses |= {status.mechanic_id: status for status in map(parse, messages)}
        return statuses

    async def read(self, ids: Iterable[str], *, as_of_ms: int) -> dict[str, Status]:
        """Return what is true of those whom Redis knows."""
        statuses: dict[str, Status] = {}
        for shard, theirs in _by_shard(ids):
            keys = self._keys(shard)
            with _translated():
                async with self._link.redis.pipeline(transaction=True) as pipeline:
                    pipeline.hmget(keys[0], theirs)
                    pipeline.zmscore(keys[1], theirs)
                    packed, seen = await pipeline.execute()
            for mechanic_id, fields, seen_at in zip(theirs, packed, seen, strict=True):
                if fields is not None:
                    last_seen = NEVER if seen_at is None else str(int(seen_at))
                    statuses[mechanic_id] = parse(f"{mechanic_id} {fields} {last_seen} {as_of_ms}")
        return statuses

    async def available_count(self) -> int:
        """Return how many are online, on duty and not in a session."""
        with _translated():
            return sum([await self._link.redis.scard(self._keys(shard)[2]) for shard in range(SHARDS)])

    def _keys(self, shard: int) -> list[str]:
        return [self._key(shard, name) for name in ("statuses", "seen", "available", "holders")]

    def _leases_of(self, shard: int, node_id: str) -> str:
        return self._key(shard, f"leases:{node_id}")

    def _nodes(self, shard: int) -> str:
        return self._key(shard, "nodes")

    def _channels(self, shard: int) -> str:
        return self._key(shard, "status:")

    def _key(self, shard: int, name: str) -> str:
        return self._link.key(f"presence-{shard}", name)

    def _script(self, *names: str) -> AsyncScript:
        # Not RedisLink.script: what these scripts share stands in front of them, Lua in Redis cannot include a file.
        return self._link.redis.register_script("\n".join((HERE / name).read_text() for name in names))


def parse(message: str) -> Status:
    """Return the status in a message of ``status.lua``: nine fields, see there."""
    mechanic_id, version, online, on_duty, busy, push, facts_version, last_seen, as_of = message.split(" ")
    return Status(
        mechanic_id,
        int(version),
        online == "1",
        on_duty == "1",
        busy == "1",
        push == "1",
        int(facts_version),
        _instant_or_none(last_seen),
        int(as_of),
    )


def _instant_or_none(text: str) -> int | None:
    return None if text == NEVER else int(float(text))


def _by_shard(ids: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    shards: dict[int, list[str]] = {}
    for mechanic_id in ids:
        shards.setdefault(shard_of(mechanic_id), []).append(mechanic_id)
    yield from shards.items()


def _batches(ids: Iterable[str], len_max: int) -> Iterator[list[str]]:
    rest = iter(ids)
    while batch := list(islice(rest, len_max)):
        yield batch


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ResponseError as error:
        # What Redis says of its own state passes; anything else that it refuses is a mistake of ours.
        if isinstance(error, ReadOnlyError | OutOfMemoryError | ClusterDownError) or str(error).startswith("MISCONF"):
            raise RedisUnavailable(str(error)) from error
        raise
    except (RedisError, OSError) as error:
        raise RedisUnavailable(str(error)) from error
