"""What a mechanic chooses: which sessions they take, and whether open requests may wake them.

A change is told like one of duty: who is asked from now on, the status that customers see, and the open offers on the mechanic's
screens follow it at once, on all nodes.
"""

from collections.abc import Collection
from dataclasses import dataclass

from dispatch.notices import FactsChanged
from dispatch.outbox import Message, Outbox
from dispatch.stored import SQL
from infra.database import Database
from infra.statements import Statement, Transaction
from models.outcomes import NotFound
from models.session_types import types_off
from models.words import SessionType
from presence.liveness import Facts


@dataclass(frozen=True)
class Chosen:
    """A row of ``read_preferences``; ``types_off`` as in ``models.session_types``."""

    types_off: str
    push_broadcasts: bool


READ_PREFERENCES = Statement(SQL / "read_preferences.sql", Chosen)
SET_PREFERENCES = Statement(SQL / "set_preferences.sql", Facts)


class Preferences:
    """Reads and writes them. Raises ``DatabaseUnavailable``; both may be repeated."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def of(self, mechanic_id: str) -> Chosen | NotFound:
        """Return what the mechanic has chosen."""
        found = await self._database.query(READ_PREFERENCES(mechanic_id=mechanic_id))
        return found[0] if found else _nobody()

    async def choose(
        self, mechanic_id: str, session_types: Collection[SessionType], *, push_broadcasts: bool
    ) -> Chosen | NotFound:
        """Note what the mechanic takes from now on; return it."""
        off = types_off(session_types)

        def work() -> Transaction[tuple[list[Chosen], list[Message]]]:
            facts = yield from SET_PREFERENCES(mechanic_id=mechanic_id, types_off=off, push_broadcasts=push_broadcasts)
            messages = [Message.of(FactsChanged(mechanic_id, one)) for one in facts]
            yield from self._outbox.add(messages)
            return (yield from READ_PREFERENCES(mechanic_id=mechanic_id)), messages

        chosen, messages = await self._database.commit(work())
        self._outbox.post(messages)
        return chosen[0] if chosen else _nobody()


def _nobody() -> NotFound:
    return NotFound("unauthenticated", "This account is gone.")
