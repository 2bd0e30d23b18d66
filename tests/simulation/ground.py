"""What everybody in a world stands on: its time, its dice, the servers outside of the nodes, and the trace of what happens."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from anyio.abc import TaskGroup

from tests.simulation.chance import Chance
from tests.simulation.loop import VirtualLoop
from tests.simulation.redis import RedisServer
from tests.simulation.sql import Kind, SqlServer
from tests.simulation.stripe import StripeServer


class Ground:
    """Shared by all; knows nobody who stands on it."""

    def __init__(self, seed: int, loop: VirtualLoop, database: Path, kind: Kind | None) -> None:
        self.loop = loop
        self.chance = Chance(seed)
        self.trace: list[str] = []
        self.is_calm = False
        """No more misfortunes, and nobody begins anything new."""
        self.redis = RedisServer(loop, self.chance)
        self.stripe = StripeServer(self.chance)
        either: Kind = self.chance.one_of(["sqlite", "postgresql"])
        self.sql = SqlServer(database, kind or either)
        self._tasks: TaskGroup | None = None

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
