"""What everybody in a world stands on: its time, its dice, the servers outside of the nodes, and the trace of what happens."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskGroup

from tests.simulation.chance import Chance
from tests.simulation.loop import VirtualLoop
from tests.simulation.redis import RedisServer
from tests.simulation.sql import Kind, SqlServer
from tests.simulation.stripe import StripeServer

BELL_S = 0.25


class Ground:
    """Shared by all; knows nobody who stands on it."""

    def __init__(self, seed: int, loop: VirtualLoop, database: Path, kind: Kind | None) -> None:
        self.loop = loop
        self.chance = Chance(seed)
        self.trace: list[str] = []
        self.calm_since_s: float | None = None
        """Since when there have been no more misfortunes, and nobody has begun anything new; ``None``: there still are."""
        self.redis = RedisServer(loop, self.chance)
        self.stripe = StripeServer(self.chance)
        either: Kind = self.chance.one_of(["sqlite", "postgresql"])
        self.sql = SqlServer(database, kind or either)
        self._tasks: TaskGroup | None = None

    @property
    def is_calm(self) -> bool:
        return self.calm_since_s is not None

    async def bell(self) -> None:
        """Wait until the bell rings, give or take a few milliseconds: for those who act together without having agreed on it."""
        await anyio.sleep(BELL_S - self.loop.time() % BELL_S + self.chance.between(0, 0.004))

    def note(self, who: str, what: str) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{self.loop.time():10.6f} {who:<10} {what}")

    def after(self, delay_s: float, act: Callable[[], Any]) -> None:
        """Do something later."""
        self.loop.call_later(delay_s, act)

    def start(self, work: Callable[..., Awaitable[Any]], *arguments: Any) -> None:
        """Do something beside everything else."""
        assert self._tasks is not None
        self._tasks.start_soon(work, *arguments)
