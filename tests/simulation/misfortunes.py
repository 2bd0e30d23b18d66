"""Everything that goes wrong in a world, and how often."""

from collections.abc import Callable, Sequence
from contextlib import suppress

from models.errors import StripeRefused
from tests.simulation.ground import Ground
from tests.simulation.node import Node
from tests.simulation.people import Client

KILLED_WITHIN_STEPS = 40
DEAF_UNNOTICED_S = 3.0
"""``infra.bus`` notices by then that its own words do not come back."""


class Misfortunes:
    """Plans them for one ground."""

    def __init__(
        self, ground: Ground, living: Callable[[], list[Node]], clients: Callable[[], Sequence[Client]]
    ) -> None:
        """``living``: the nodes that have not been killed; ``clients``: everybody who has a socket."""
        self._ground = ground
        self._chance = ground.chance
        self._living = living
        self._clients = clients

    def plan(self, within_s: float) -> None:
        """Let a few things go wrong at their time, and others a little all the time."""
        ground, chance = self._ground, self._chance
        ground.sql.trouble = chance.one_of([0.0, 0.005, 0.02])
        ground.stripe.trouble = chance.one_of([0.0, 0.1, 0.4])
        ground.redis.repeats = chance.one_of([0.0, 0.1])
        ground.redis.reorders = chance.one_of([0.0, 0.1])
        kinds = [self._kill, self._kill, self._stall, self._cut, self._deafen, self._redis_leaves, self._redis_forgets]
        kinds += [self._others_give_back, self._bank_asks, self._stripe_is_broke]
        for _ in range(chance.count(2, 8)):
            ground.after(chance.between(0.1, within_s), chance.one_of(kinds))

    def end(self) -> None:
        """Let nothing go wrong any more. What was lost stays lost."""
        ground = self._ground
        ground.note("world", "is calm from now on")
        ground.sql.trouble = ground.stripe.trouble = ground.redis.repeats = ground.redis.reorders = 0.0
        ground.stripe.is_broke = False
        if ground.redis.is_away:
            ground.redis.come_back(empty=False)
        for node in self._living():
            node.life.steps_left = None
            node.life.stalled_until_s = 0.0

    def _others_give_back(self) -> None:
        """Somebody gives money back in Stripe's dashboard: a part, or what is left."""
        stripe = self._ground.stripe
        for intent_id in self._some_payment():
            left_cents = stripe.left_cents(intent_id)
            amount_cents = left_cents if self._chance.happens(0.5) else left_cents // 3
            if amount_cents:
                self._ground.note("dashboard", f"gives back {amount_cents} of {intent_id}")
                with suppress(StripeRefused):
                    stripe.give_back(intent_id, amount_cents)

    def _bank_asks(self) -> None:
        """A customer disputes a payment."""
        for intent_id in self._some_payment():
            self._ground.note("bank", f"disputes {intent_id}")
            self._ground.stripe.dispute(intent_id)

    def _some_payment(self) -> list[str]:
        paid = [one.intent_id for one in self._ground.stripe.sessions.values() if one.is_paid]
        return [self._chance.one_of(paid)] if paid else []

    def _stripe_is_broke(self) -> None:
        """There is no money to give back, for a while."""
        self._ground.note("stripe", "is broke")
        self._ground.stripe.is_broke = True

    def _kill(self) -> None:
        """A node will be killed, a few steps from now: before or after any of them."""
        if living := self._living():
            self._chance.one_of(living).life.steps_left = self._chance.count(1, KILLED_WITHIN_STEPS)

    def _stall(self) -> None:
        """A node's machine is paused; claims and leases run out meanwhile."""
        if living := self._living():
            life = self._chance.one_of(living).life
            self._ground.note(life.name, "stalls")
            life.stalled_until_s = self._ground.loop.time() + self._chance.between(0.3, 3)

    def _cut(self) -> None:
        """Some sockets break."""
        for client in self._clients():
            if client.line is not None and self._chance.happens(0.4):
                self._ground.note(client.name, "is cut off")
                client.line.cut()

    def _deafen(self) -> None:
        """A node's subscription is lost; it takes a while to notice."""
        if living := self._living():
            node = self._chance.one_of(living)
            self._ground.note(node.life.name, "is deaf")
            node.bus.lose(unnoticed_s=self._chance.between(0, DEAF_UNNOTICED_S))

    def _redis_leaves(self) -> None:
        """Redis restarts, with or without its data."""
        if not self._ground.redis.is_away:
            is_empty = self._chance.happens(0.7)
            self._ground.note("redis", f"is away; will it forget: {is_empty}")
            self._ground.redis.leave()
            self._ground.after(self._chance.between(0.05, 2), lambda: self._redis_returns(is_empty))

    def _redis_returns(self, is_empty: bool) -> None:
        if self._ground.redis.is_away:
            self._ground.note("redis", "is back")
            self._ground.redis.come_back(empty=is_empty)

    def _redis_forgets(self) -> None:
        """Somebody says FLUSHALL."""
        self._ground.note("redis", "is flushed")
        self._ground.redis.store.flush()
