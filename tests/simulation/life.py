"""The life of one node: its steps, one for each thing that it does outside of itself, and its sudden end between any two."""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar

from tests.simulation.chance import Chance
from tests.simulation.loop import VirtualLoop

current_life: ContextVar["Life"] = ContextVar("current_life")
"""Whose code is running; inherited by everything that a node starts."""


class Life:
    """What a node's code waits on when it speaks to SQL, Redis or Stripe.

    A killed node is cut off first: whatever it waits for never comes, its transactions are rolled back, its sockets are gone.
    Only then are its tasks cancelled, to free their memory; what they still do on their way out reaches nobody.
    """

    def __init__(self, name: str, loop: VirtualLoop, chance: Chance, note: Callable[[str, str], None]) -> None:
        self.name = name
        self.loop = loop
        self.sql: object = None
        """Its SQL server; only ``sql.py`` looks into it."""
        self.wall_clock_error_s = chance.between(-600, 600)
        self.clock_rate = 1 + chance.between(-0.0005, 0.0005)
        """The wall clock is wrong, and the monotonic one runs a little fast or slow."""
        self.is_over = False
        self.stalled_until_s = 0.0
        """Until then nothing that it asked for is answered: a paused machine, or a slow network."""
        self.steps_left: int | None = None
        """How many steps it still takes before it is killed; ``None``: as many as it likes."""
        self._chance = chance
        self._note = note
        self._awaited: dict[asyncio.Future[None], None] = {}
        self._last_wishes: dict[Callable[[], None], None] = {}

    def chance(self, probability: float) -> bool:
        """Tell whether something of this probability happens now."""
        return probability > 0 and not self.is_over and self._chance.happens(probability)

    async def step(self, what: str) -> None:
        """Take one step: it may be the last one, and takes a while."""
        self._go_on()
        if self.steps_left is not None:
            self.steps_left -= 1
            if self.steps_left <= 0:
                self.end(f"killed before: {what}")
                self._go_on()
        self._note(self.name, what)
        wait_s = max(self._chance.delay_s(), self.stalled_until_s - self.loop.time())
        passed = self.loop.create_future()
        timer = self.loop.call_later(wait_s, _set, passed)
        try:
            await self.until(passed)
        finally:
            timer.cancel()

    async def until(self, future: "asyncio.Future[None]") -> None:
        """Wait for something from outside; for ever, if the node is killed meanwhile."""
        self._go_on()
        self._awaited[future] = None
        try:
            await future
        finally:
            self._awaited.pop(future, None)
        self._go_on()

    def inside(self, act: Callable[..., None], *arguments: object) -> None:
        """Let something from outside happen on this node, now; nothing happens on one that is over."""
        if not self.is_over:
            token = current_life.set(self)
            try:
                act(*arguments)
            finally:
                current_life.reset(token)

    def on_death(self, wish: Callable[[], None]) -> None:
        """Call ``wish`` when the node is killed, at once if it has been: what the rest of the world sees of it."""
        if self.is_over:
            wish()
        else:
            self._last_wishes[wish] = None

    def no_longer_on_death(self, wish: Callable[[], None]) -> None:
        """Do not."""
        self._last_wishes.pop(wish, None)

    def end(self, how: str) -> None:
        """Kill it; idempotent."""
        if self.is_over:
            return
        self.is_over = True
        self._note(self.name, how)
        # First what it waits for, a lock above all: it must not be handed to one who has just died.
        for future in list(self._awaited):
            future.cancel()
        for wish in list(self._last_wishes):
            wish()

    def _go_on(self) -> None:
        if self.is_over:
            raise asyncio.CancelledError("this node was killed")


def _set(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
