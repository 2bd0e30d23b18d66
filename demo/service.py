"""The demo as one part of a serving process, for ``run.py``."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random

import anyio
import structlog
from starlette.routing import BaseRoute

from demo import banner, cast, doors, room
from demo.mechanics import SimulatedMechanic, Way
from demo.room import Room
from http_api.auth import Tokens
from infra.clock import Clock
from infra.database import Database
from infra.loops import keep_running
from infra.redis_link import RedisLink
from models.settings import DispatchSettings, DoorSettings
from models.words import Role

SEED_BITS = 32

_log = structlog.get_logger("demo")


class Demo:
    """The cast on its stage: ``routes`` for every server process, ``run`` and ``banner`` for one of them."""

    def __init__(
        self,
        database: Database,
        link: RedisLink,
        clock: Clock,
        tokens: Tokens,
        settings: DoorSettings,
        dispatch: DispatchSettings,
        ids: Mapping[str, str],
    ) -> None:
        """``ids``: account ids by slug."""
        self._database = database
        self._clock = clock
        self._tokens = tokens
        self._settings = settings
        self._dispatch = dispatch
        self._ids = ids
        assert dispatch.join_secret is not None, "the demo's settings are furnished with a room"
        rooms = Room(database, link, dispatch.join_secret)
        self.routes: Sequence[BaseRoute] = [*doors.routes(clock, tokens, settings, ids), *rooms.routes]

    @classmethod
    async def prepare(
        cls,
        database: Database,
        link: RedisLink,
        clock: Clock,
        tokens: Tokens,
        settings: DoorSettings,
        dispatch: DispatchSettings,
    ) -> "Demo":
        """Make sure that everybody exists; idempotent, also in several processes side by side.

        Raises ``ConfigurationError`` if the database has somebody else in a member's place.
        """
        ids = await cast.prepare(database, clock.now_ms())
        return cls(database, link, clock, tokens, settings, dispatch, ids)

    async def run(self, say: Callable[[str], None] = banner.say) -> None:
        """Let the simulated mechanics come and go until cancelled; ``say`` tells whoever watches the terminal."""
        seed = secrets.randbits(SEED_BITS)
        _log.debug("demo_mechanics", seed=seed)
        random = Random(seed)
        async with anyio.create_task_group() as tasks:
            for member in cast.MECHANICS:
                if member.character is None:
                    continue
                way = Way(self._settings.loopback_url, partial(self._token, self._ids[member.slug]))
                # Each with dice of their own: what one of them rolls does not depend on who is scheduled first.
                own = Random(random.getrandbits(SEED_BITS))
                simulated = SimulatedMechanic(member.name, member.character, way, own, say)
                tasks.start_soon(keep_running, "demo_mechanic", simulated.run)

    def banner(self, *, stripe_is_standin: bool = True) -> str:
        """Return what to print once the server accepts connections."""
        settings = self._settings
        facts = banner.Facts(
            base_url=settings.base_url,
            second_base_url=doors.second_base_url(settings),
            priority_window_ms=self._dispatch.priority_window_ms,
            broadcast_window_ms=self._dispatch.broadcast_window_ms,
            start_window_ms=self._dispatch.start_window_ms,
            has_own_room=room.address(settings.base_url, self._dispatch.join_url) is not None,
            data_place=_place(self._database),
            stripe_is_standin=stripe_is_standin,
        )
        return banner.text(facts)

    def _token(self, mechanic_id: str) -> str:
        return self._tokens.issue(mechanic_id, Role.MECHANIC, now_ms=self._clock.now_ms()).token


def _place(database: Database) -> str:
    """Say where the data is: a directory, or a server without its password."""
    if database.is_sqlite and database.url.database:
        return f"{Path(database.url.database).parent}"
    return database.url.set(drivername="postgresql").render_as_string(hide_password=True)
