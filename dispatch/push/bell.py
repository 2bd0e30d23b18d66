"""Messages have been left on this node: whoever sends them looks at once."""

import anyio


class Bell:
    """Rung by whoever leaves messages, after the commit. What another node leaves, that node sends."""

    def __init__(self) -> None:
        self._rung = anyio.Event()

    def ring(self) -> None:
        """There are new messages; never waits."""
        self._rung.set()

    async def rung(self) -> None:
        """Return as soon as it has been rung since the last time. For one who waits."""
        await self._rung.wait()
        self._rung = anyio.Event()
