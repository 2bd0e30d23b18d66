"""Connections that may have missed a change: each gets a fresh snapshot, again and again until it could be read."""

from collections import deque
from typing import Final, Protocol

import anyio

from infra.loops import failing_alone

READERS: Final = 100
"""How many connections wait for their snapshots side by side; read together, they are one."""
REFRESH_WAIT_S: Final = 5.0
"""How long one connection may keep the others waiting, because its earlier jobs take long; then it is counted as unread."""
AGAIN_AFTER_S: Final = 1.0
"""How long to leave the database alone after a snapshot could not be read."""


class Refreshable(Protocol):
    """What can be brought up to date; a connection."""

    async def refresh_in_turn(self) -> bool:
        """Read and send what may have been missed; ``False`` if it could not be read."""


class Stale:
    """The connections that are to be brought up to date, in the order in which that was noticed."""

    def __init__(self) -> None:
        self._marked: dict[Refreshable, None] = {}
        self._has_marked = anyio.Event()

    def mark(self, *connections: Refreshable) -> None:
        """Bring them up to date soon, as each of them may have missed a change; never waits."""
        self._marked.update(dict.fromkeys(connections))
        self._has_marked.set()

    async def run(self) -> None:
        """Bring them up to date, a few side by side, until cancelled."""
        while True:
            if not self._marked:
                self._has_marked = anyio.Event()
                await self._has_marked.wait()
            unread, self._marked = self._marked, {}
            marked = deque(unread)
            try:
                async with anyio.create_task_group() as readers:
                    for _ in range(min(READERS, len(marked))):
                        readers.start_soon(self._refresh, marked, unread)
                if unread:
                    await anyio.sleep(AGAIN_AFTER_S)
            finally:
                self.mark(*unread)

    async def _refresh(self, marked: deque[Refreshable], unread: dict[Refreshable, None]) -> None:
        while marked:
            connection = marked.popleft()
            # A bug is no reason to try for ever.
            is_read = True
            with failing_alone("refresh", connection=connection):
                is_read = await _is_refreshed(connection)
            if is_read:
                del unread[connection]


async def _is_refreshed(connection: Refreshable) -> bool:
    with anyio.move_on_after(REFRESH_WAIT_S):
        return await connection.refresh_in_turn()
    return False
