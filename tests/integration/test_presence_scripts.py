"""The scripts in a real Redis do what the pure rules say: the same steps to both, and after each the same answers.

The scripts run as they are, but for two lines in front of them: ``TIME`` answers what the test says, so that minutes pass
without waiting and an instant can be hit exactly; and what is published is noted, too.
"""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from redis.asyncio import Redis

from infra.redis_link import RedisLink, Script
from models.session_types import SESSION_TYPES
from models.settings import PresenceSettings
from presence import leases
from presence.leases import Leases, NodeRenewed, Renewed, parse
from presence.liveness import Facts, MechanicStatus
from tests.integration.presence_memory import Memory
from tests.services import redis_server

NOW_MS = 1_795_000_000_000
LEN_MAX = 2
"""Of a slice of a sweep; few enough that a handful of mechanics need several."""
SETTINGS = PresenceSettings(timeout_ms=9_000, grace_ms=3_000, node_lease_ms=5_000)
NODES = ("n1", "n2", "n3")
MECHANICS = tuple(f"m{number}" for number in range(5))
CLOCK, HEARD = "test:clock", "test:heard"
STEERED = f"""
local redis = setmetatable({{call = function(name, ...)
  if name == 'TIME' then
    local now_ms = tonumber(redis.call('GET', '{CLOCK}'))
    return {{string.format('%.0f', math.floor(now_ms / 1000)), string.format('%.0f', now_ms % 1000 * 1000)}}
  end
  if name == 'PUBLISH' or name == 'SPUBLISH' then redis.call('RPUSH', '{HEARD}', (select(2, ...))) end
  return redis.call(name, ...)
end}}, {{__index = redis}})
"""

Answer = TypeVar("Answer")


class SteeredLink(RedisLink):
    """Puts what steers the clock in front of every script."""

    def script(self, *paths: Path) -> Script:
        return Script(self, "\n".join([STEERED, *(path.read_text() for path in paths)]))


@dataclass(frozen=True)
class Look:
    """What was published since the last look, all that Redis keeps, and what it answers."""

    published: list[MechanicStatus]
    remembered: dict[str, Any]
    statuses: dict[str, MechanicStatus]
    available_counts: dict[str | None, int]


@dataclass
class Stage:
    """A Redis of our own, and the leases of three nodes in it, driven from outside an event loop."""

    runner: asyncio.Runner
    link: RedisLink
    nodes: dict[str, Leases]

    def now(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return self.runner.run(work)

    async def set_clock(self, now_ms: int) -> None:
        await self.link.ask(CLOCK, lambda redis: redis.set(CLOCK, now_ms))

    async def forget(self, now_ms: int) -> None:
        await self.link.everywhere(lambda redis: redis.flushall())
        await self.set_clock(now_ms)

    async def look(self, as_of_ms: int) -> "Look":
        some = self.nodes[NODES[0]]

        async def take(redis: Redis) -> list[Any]:
            async with redis.pipeline(transaction=True) as pipeline:
                pipeline.lpop(HEARD, 1_000)
                for name in (*(f"leases:{node}" for node in NODES), "nodes", "seen"):
                    pipeline.zrange(some.key(name), 0, -1, withscores=True)
                pipeline.hgetall(some.key("holders"))
                pipeline.smembers(some.key("available"))
                return await pipeline.execute()

        published, *kept = await self.link.ask(HEARD, take)
        return Look(
            [parse(message) for message in published or ()],
            _remembered(kept),
            await some.read(MECHANICS, as_of_ms=as_of_ms),
            {kind: await some.available_count(kind) for kind in (None, *SESSION_TYPES)},
        )

    async def renew(self, node: str, heard_at_ms: dict[str, int]) -> list[Renewed]:
        return [renewed async for renewed in self.nodes[node].renew(heard_at_ms)]


@contextmanager
def stage() -> Iterator[Stage]:
    with redis_server() as server, asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        link = SteeredLink(server.url, prefix="test")
        try:
            yield Stage(runner, link, {node: Leases(link, SETTINGS, node, 0) for node in NODES})
        finally:
            runner.run(link.close())


def _remembered(answers: list[Any]) -> dict[str, Any]:
    *of_nodes, nodes, seen, holders, available = answers
    return {
        "leases": {node: dict(theirs) for node, theirs in zip(NODES, of_nodes, strict=True) if theirs},
        "nodes": dict(nodes),
        "seen": dict(seen),
        "holders": {name: int(count) for name, count in holders.items()},
        "available": available,
    }


class ScriptsAndRules(RuleBasedStateMachine):
    """Three nodes that beat, close, die, freeze, come back and sweep each other; five mechanics; a Redis that forgets."""

    nodes = st.sampled_from(NODES)
    some = st.lists(st.sampled_from(MECHANICS), min_size=1, unique=True)

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage = stage
        self.now_ms = NOW_MS
        self.epochs: dict[int, str] = {}
        self.versions: dict[str, list[int]] = {mechanic: [] for mechanic in MECHANICS}
        self._begin()

    def _begin(self) -> None:
        self.memory = Memory(SETTINGS)
        self.stage.now(self.stage.forget(self.now_ms))

    @rule(ms=st.sampled_from([1, 150, 2_000, 3_000, 4_999, 5_000, 9_000, 20_000, -1, -700]))
    def time_passes(self, ms: int) -> None:
        # Also backwards: another machine's clock, after a failover.
        self.now_ms += ms
        self.stage.now(self.stage.set_clock(self.now_ms))

    @rule(off_ms=st.sampled_from([-1, 0, 0, 1]))
    def time_passes_until_a_lease_ends(self, off_ms: int) -> None:
        ends = [end for end in self.memory.ends_ms() if end > self.now_ms]
        if ends:
            self.time_passes(ms=min(ends) - self.now_ms + off_ms)

    @rule(
        node=nodes,
        ids=some,
        delays_ms=st.lists(st.sampled_from([0, 0, 0, 0, 150, 4_000, 8_999, 9_000, 20_000, -9]), min_size=5, max_size=5),
    )
    def heartbeats_arrive(self, node: str, ids: list[str], delays_ms: list[int]) -> None:
        heard = {mechanic: self.now_ms - delay for mechanic, delay in zip(ids, delays_ms, strict=False)}
        (told,) = self.stage.now(self.stage.renew(node, heard))
        expected = self.memory.renew(node, heard, self.now_ms)
        assert (told.was_forgotten, sorted(told.new_ids)) == (expected.was_forgotten, sorted(expected.new_ids))

    @rule(node=nodes, ids=some)
    def last_sockets_close(self, node: str, ids: list[str]) -> None:
        self.stage.now(self.stage.nodes[node].release(ids))
        self.memory.release(node, ids, self.now_ms)

    @rule(node=nodes)
    def a_node_renews_its_own_lease(self, node: str) -> None:
        self._renew_node(node)

    def _renew_node(self, node: str) -> NodeRenewed:
        told = self.stage.now(self.stage.nodes[node].renew_node())
        epoch_ms, held, lapses, ended = self.memory.renew_node(node, self.now_ms)
        # What an epoch looks like is Redis' own business: the same one as long as nothing was forgotten.
        assert told == NodeRenewed(self.epochs.setdefault(epoch_ms, told.epoch), held, lapses > 0, ended)
        return told

    @rule(node=nodes)
    def a_node_stops_in_good_order(self, node: str) -> None:
        self.stage.now(self.stage.nodes[node].retire_node())
        self.memory.retire_node(node, self.now_ms)

    @rule(sweeper=nodes, of=nodes)
    def a_node_sweeps(self, sweeper: str, of: str) -> None:
        self._sweep(sweeper, of)

    @rule(node=nodes)
    def a_node_tends(self, node: str) -> None:
        # As presence/shard.py does several times a second.
        standing = self._renew_node(node)
        for lapsed in (*([node] if standing.has_lapses else ()), *standing.lapsed_nodes):
            has_more = True
            while has_more:
                has_more = self._sweep(node, lapsed)

    def _sweep(self, sweeper: str, of: str) -> bool:
        told = self.stage.now(self.stage.nodes[sweeper].sweep(None if sweeper == of else of))
        assert told == self.memory.sweep(of, self.now_ms, is_own=sweeper == of, len_max=LEN_MAX)
        return told.has_more

    @rule(
        node=nodes,
        ids=some,
        version=st.integers(1, 6),
        flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
        types_off=st.sampled_from(["", "", "text", "diagnostic,video"]),
        seen_ago_ms=st.sampled_from([None, 0, 10_000, 100_000]),
    )
    def facts_arrive(
        self,
        node: str,
        ids: list[str],
        version: int,
        flags: tuple[bool, bool, bool],
        types_off: str,
        seen_ago_ms: int | None,
    ) -> None:
        last_seen_ms = None if seen_ago_ms is None else self.now_ms - seen_ago_ms
        facts = [Facts(mechanic, version, *flags, last_seen_ms, types_off) for mechanic in ids]
        told = self.stage.now(self.stage.nodes[node].store_facts(facts))
        assert told == {one.mechanic_id: self.memory.store_facts(one, self.now_ms) for one in facts}

    @rule()
    def redis_forgets(self) -> None:
        # A restart takes longer than the milliseconds by which versions can be ahead of the clock.
        self.now_ms = max([self.now_ms, *(version for told in self.versions.values() for version in told)]) + 1
        self._begin()

    @invariant()
    def both_remember_announce_and_answer_the_same(self) -> None:
        look, memory = self.stage.now(self.stage.look(self.now_ms)), self.memory
        assert look.remembered == {
            "leases": {node: theirs for node, theirs in memory.leases.items() if theirs},
            "nodes": memory.node_ends_ms,
            "seen": memory.seen_ms,
            "holders": {mechanic: count for mechanic in MECHANICS if (count := memory.holders(mechanic))},
            "available": memory.available(),
        }
        assert look.statuses == {status.mechanic_id: status for status in memory.read(MECHANICS, self.now_ms)}
        assert look.available_counts == {kind: len(memory.available(kind)) for kind in (None, *SESSION_TYPES)}
        announced = memory.take_announced()
        # Each mechanic's in order; who of several comes first does not matter.
        in_turn = lambda status: status.mechanic_id  # noqa: E731
        assert sorted(look.published, key=in_turn) == sorted(announced, key=in_turn)
        for status in look.published:
            self.versions[status.mechanic_id].append(status.version)

    @invariant()
    def announced_versions_only_grow(self) -> None:
        for versions in self.versions.values():
            assert versions == sorted(set(versions))


def test_scripts_and_rules_agree_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "SLICE_LEN_MAX", LEN_MAX)
    with stage() as one:
        # Hundreds of round trips for each example: fewer of them, and longer ones.
        examples = settings.default.max_examples // 5
        run_state_machine_as_test(
            lambda: ScriptsAndRules(one), settings=settings(max_examples=examples, stateful_step_count=50)
        )
