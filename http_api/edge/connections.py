"""All connections of this process that are not sockets yet: who is late, and who has to go when there are too many.

    guest    nobody has signed in on it      idle · holding (we wait for it, and it costs) · working (it waits for us)
    member   somebody has, with a request

A guest too many, or too much that guests hold, costs the oldest guest: one we wait for before one that waits for us. So what is
sent without a proof can push out nothing but its like. One loop looks at all of them, instead of a timer for each.
"""

import asyncio
from collections import Counter, OrderedDict
from enum import Enum, auto
from itertools import chain
from math import inf
from time import monotonic
from typing import Final, Protocol

from http_api.edge.limits import EdgeLimits
from infra.metrics import CONNECTIONS_REFUSED
from infra.seldom import Seldom
from infra.slices import each_alone

NEVER: Final = inf
MEMBERS_OF_ACCOUNT_MAX: Final = 50
"""A person's browsers have six connections each; whoever has more has no more of them kept than a stranger."""

_seldom = Seldom("edge")


class Stage(Enum):
    """What a guest's connection is doing."""

    IDLE = auto()
    """We wait for it, and it costs us next to nothing."""
    HOLDING = auto()
    """We wait for it, and meanwhile it costs memory."""
    WORKING = auto()
    """It waits for us."""


class Visitor(Protocol):
    """One connection, whatever protocol it speaks just now."""

    deadline_s: float
    """On the monotonic clock; ``NEVER`` while nobody waits for it."""

    def time_out(self, now_s: float) -> None:
        """The deadline has passed: end it, or set another."""

    def cut(self) -> None:
        """End it without a word; there is no room for it."""


class _Place:
    """Where a guest is in the tables."""

    __slots__ = ("cost", "number", "stage")

    def __init__(self, stage: Stage, cost: int, number: int) -> None:
        self.stage = stage
        self.cost = cost
        self.number = number


class Connections:
    """The tables. ``registry``-like sets of uvicorn's know the sockets as well; their number comes with each arrival."""

    def __init__(self, limits: EdgeLimits) -> None:
        self.limits = limits
        self._guests: dict[Visitor, _Place] = {}
        self._by_stage: dict[Stage, OrderedDict[Visitor, _Place]] = {stage: OrderedDict() for stage in Stage}
        self._members: OrderedDict[Visitor, str] = OrderedDict()
        """Each with the account that was the first to sign in on it."""
        self._of_account: Counter[str] = Counter()
        self._cost = 0
        self._arrivals = 0
        self._turning: asyncio.TimerHandle | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Connections without a socket, by kind."""
        return {"guest": len(self._guests), "member": len(self._members)}

    # --- what connections say -----------------------------------------------------------------------------------------

    def arrived(self, one: Visitor, *, in_all: int) -> None:
        """Note a new guest; others go for it if there are too many. ``in_all``: connections and sockets, this one included."""
        self._arrivals += 1
        self._put(one, _Place(Stage.IDLE, 0, self._arrivals))
        if self._turning is None:
            self._turning = asyncio.get_running_loop().call_later(self.limits.tick_s, self._turn)
        if len(self._guests) > self.limits.guests_max:
            self._evict(self._oldest_waiting() or one)
        elif in_all > self.limits.connections_max:
            self._make_room(one)

    def became(self, one: Visitor, other: Visitor) -> None:
        """``other`` speaks for the same connection from now on."""
        if (place := self._guests.pop(one, None)) is not None:
            del self._by_stage[place.stage][one]
            self._cost -= place.cost
            self._put(other, place)
        elif one in self._members:
            self._members[other] = self._members.pop(one)

    def is_at(self, one: Visitor, stage: Stage, cost: int) -> None:
        """Note what a connection is doing, and the bytes that it costs meanwhile."""
        place = self._guests.get(one)
        if place is None:
            if stage is Stage.IDLE and one in self._members:
                # Used last: it goes last.
                self._members.move_to_end(one)
            return
        self._cost += cost - place.cost
        place.cost = cost
        if place.stage is not stage:
            del self._by_stage[place.stage][one]
            place.stage = stage
            self._by_stage[stage][one] = place
        while self._cost > self.limits.guests_len_max:
            costly = self._first(Stage.HOLDING) or self._first(Stage.WORKING)
            if costly is None:
                return
            self._evict(costly)

    def admit(self, one: Visitor, account_id: str) -> None:
        """An account has proved on it who it is; idempotent. Of more than it may have, the connection stays a guest."""
        if one not in self._guests or self._of_account[account_id] >= MEMBERS_OF_ACCOUNT_MAX:
            return
        place = self._guests.pop(one)
        del self._by_stage[place.stage][one]
        self._cost -= place.cost
        self._members[one] = account_id
        self._of_account[account_id] += 1

    def left(self, one: Visitor) -> None:
        """It is over, or a socket; idempotent."""
        if (place := self._guests.pop(one, None)) is not None:
            del self._by_stage[place.stage][one]
            self._cost -= place.cost
        elif (account_id := self._members.pop(one, None)) is not None:
            self._of_account[account_id] -= 1
            if not self._of_account[account_id]:
                del self._of_account[account_id]

    # --- who has to go ------------------------------------------------------------------------------------------------

    def _put(self, one: Visitor, place: _Place) -> None:
        self._guests[one] = place
        self._by_stage[place.stage][one] = place
        self._cost += place.cost

    def _first(self, stage: Stage) -> Visitor | None:
        return next(iter(self._by_stage[stage]), None)

    def _oldest_waiting(self) -> Visitor | None:
        """Return the guest whom we have waited for longest, or the oldest of all if we wait for none."""
        waiting = [one for one in (self._first(Stage.IDLE), self._first(Stage.HOLDING)) if one is not None]
        if waiting:
            return min(waiting, key=lambda one: self._guests[one].number)
        return self._first(Stage.WORKING)

    def _make_room(self, newcomer: Visitor) -> None:
        """Nothing is left: the oldest guest goes, or, if there is none but the newcomer, the member used least recently."""
        oldest = self._oldest_waiting()
        if oldest is newcomer and self._members:
            oldest = next(iter(self._members))
        self._evict(oldest or newcomer)

    def _evict(self, one: Visitor) -> None:
        self.left(one)
        refused("no_room", **self.counts)
        one.cut()

    # --- what time does -----------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Look who is late, and look again after a while, as long as there is anybody."""
        self._turning = None
        now_s = monotonic()
        late = [one for one in chain(self._guests, self._members) if one.deadline_s <= now_s]
        each_alone("connection_time", late, lambda one: one.time_out(now_s))
        if self._guests or self._members:
            self._turning = asyncio.get_running_loop().call_later(self.limits.tick_s, self._turn)


def refused(why: str, **fields: int) -> None:
    """Count a connection or a request that the edge has refused, and say so in the log now and then."""
    CONNECTIONS_REFUSED.labels(why).inc()
    _seldom.warn("connection_refused", why, why=why, **fields)
