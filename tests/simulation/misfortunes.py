"""Everything that goes wrong in a world, and how often."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.world import World

KILLED_WITHIN_STEPS = 40
DEAF_UNNOTICED_S = 3.0
"""``infra.bus`` notices by then that its own words do not come back."""


class Misfortunes:
    """Plans them for one world."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._chance = world.chance

    def plan(self, within_s: float) -> None:
        """Let a few things go wrong at their time, and others a little all the time."""
        world, chance = self._world, self._chance
        world.sql.trouble = chance.one_of([0.0, 0.005, 0.02])
        world.stripe.trouble = chance.one_of([0.0, 0.1, 0.4])
        world.redis.repeats = chance.one_of([0.0, 0.1])
        world.redis.reorders = chance.one_of([0.0, 0.1])
        kinds = [self._kill, self._kill, self._stall, self._cut, self._deafen, self._redis_leaves, self._redis_forgets]
        for _ in range(chance.count(2, 8)):
            world.after(chance.between(0.1, within_s), chance.one_of(kinds))

    def end(self) -> None:
        """Let nothing go wrong any more. What was lost stays lost."""
        world = self._world
        world.note("world", "is calm from now on")
        world.sql.trouble = world.stripe.trouble = world.redis.repeats = world.redis.reorders = 0.0
        if world.redis.is_away:
            world.redis.come_back(empty=False)
        for node in world.living():
            node.life.steps_left = None
            node.life.stalled_until_s = 0.0

    def _kill(self) -> None:
        """A node will be killed, a few steps from now: before or after any of them."""
        if living := self._world.living():
            self._chance.one_of(living).life.steps_left = self._chance.count(1, KILLED_WITHIN_STEPS)

    def _stall(self) -> None:
        """A node's machine is paused; claims and leases run out meanwhile."""
        if living := self._world.living():
            life = self._chance.one_of(living).life
            self._world.note(life.name, "stalls")
            life.stalled_until_s = self._world.loop.time() + self._chance.between(0.3, 3)

    def _cut(self) -> None:
        """Some sockets break."""
        for client in self._world.clients():
            if client.line is not None and self._chance.happens(0.4):
                self._world.note(client.name, "is cut off")
                client.line.cut()

    def _deafen(self) -> None:
        """A node's subscription is lost; it takes a while to notice."""
        if living := self._world.living():
            node = self._chance.one_of(living)
            self._world.note(node.life.name, "is deaf")
            node.bus.lose(unnoticed_s=self._chance.between(0, DEAF_UNNOTICED_S))

    def _redis_leaves(self) -> None:
        """Redis restarts, with or without its data."""
        if not self._world.redis.is_away:
            is_empty = self._chance.happens(0.7)
            self._world.note("redis", f"is away; will it forget: {is_empty}")
            self._world.redis.leave()
            self._world.after(self._chance.between(0.05, 2), lambda: self._redis_returns(is_empty))

    def _redis_returns(self, is_empty: bool) -> None:
        if self._world.redis.is_away:
            self._world.note("redis", "is back")
            self._world.redis.come_back(empty=is_empty)

    def _redis_forgets(self) -> None:
        """Somebody says FLUSHALL."""
        self._world.note("redis", "is flushed")
        self._world.redis.store.flush()
