"""What must be true of a request from accept to done, at each commit: time limits, reminders, and who is not asked again."""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from models.settings import DispatchSettings
from tests.simulation.ground import Ground

LIMITED = "whoever has accepted or started has the time limit that was set for it"
NEVER_EARLY = "no window ends early"
ONE_REMINDER = "whoever has accepted is reminded once at most"
NOT_AGAIN = "nobody is asked again for a request that they had and lost"
ONE_WISH = "one wish for another mechanic costs one mechanic"
COMPLETES = "whoever ends a session that has begun is told that it has ended"
BUSY = "a mechanic is busy if and only if exactly one request of theirs is accepted or in progress"
IN_TIME_S = 6.0
"""How long after its time something may happen once the faults are over: a reconciler's round and a claim's lease."""


@dataclass(frozen=True)
class Limit:
    """The time limit of a request, as it is stored: instants in ms."""

    id: str | None
    expires_at_ms: float | None
    rings_at_ms: float | None


class AfterAccept:
    """Follows each request's story, and keeps what SQL must not forget: who had it and lost it."""

    def __init__(
        self,
        ground: Ground,
        connection: sqlite3.Connection,
        settings: DispatchSettings,
        violated: Callable[[str, str], None],
    ) -> None:
        self._ground = ground
        self._sql = connection
        self._settings = settings
        self._violated = violated
        self._limits: dict[str, Limit] = {}
        self._statuses: dict[str, str] = {}
        self._last_line = 0
        self._reminders: Counter[str] = Counter()
        """By request, since it was accepted the last time."""
        self._offers: defaultdict[str, set[str]] = defaultdict(set)
        """Every offer that a request has had, by request."""
        self._lost: dict[tuple[str, str], set[str]] = {}
        """Who had which request and lost it, and the offers that it had had until then."""
        self._wished_away: set[tuple[str, str]] = set()
        """Requests, and those whom their customers did not want to wait for."""

    # --- at each commit -----------------------------------------------------------------------------------------------

    def after_commit(self) -> None:
        """Compare what SQL says now with what it said before."""
        self._look_at_stories()
        self._look_at_limits()
        self._look_at_sessions()
        for request_id, offer_id in self._sql.execute("SELECT request_id, id FROM offers"):
            self._offers[request_id].add(offer_id)

    def _look_at_stories(self) -> None:
        """Judge the new lines by the time limits that their requests had before."""
        query = """
            SELECT id, request_id, event, json_extract(details, '$.mechanic_id'), json_extract(details, '$.by')
            FROM timeline WHERE id > ? ORDER BY id"""
        for line, request_id, event, mechanic_id, by in self._sql.execute(query, (self._last_line,)):
            self._last_line = line
            limit = self._limits.get(request_id, Limit(None, None, None))
            match event:
                case "accepted":
                    self._reminders[request_id] = 0
                    if (request_id, mechanic_id) in self._lost:
                        self._violated(NOT_AGAIN, f"{mechanic_id} has {request_id} again")
                case "reminded":
                    self._reminders[request_id] += 1
                    if self._reminders[request_id] > 1:
                        self._violated(ONE_REMINDER, f"{mechanic_id}, of {request_id}")
                    self._judge_time(request_id, event, limit.rings_at_ms)
                case "no_show":
                    self._judge_time(request_id, event, limit.expires_at_ms)
                case "find_another" if (request_id, mechanic_id) not in self._wished_away:
                    self._violated(ONE_WISH, f"{mechanic_id}, of {request_id}, whom nobody meant")
                case "completed" if by == "time":
                    self._judge_time(request_id, event, limit.expires_at_ms)
            if event in ("no_show", "find_another", "released"):
                self._lost[request_id, mechanic_id] = set(self._offers[request_id])

    def _judge_time(self, request_id: str, event: str, at_ms: float | None) -> None:
        if at_ms is None:
            self._violated(LIMITED, f"{request_id}: {event} without a time limit")
        elif (early_ms := at_ms - self._ground.redis.now_ms()) > 0:
            self._violated(NEVER_EARLY, f"{request_id}: {event} came {early_ms:.3f} ms early")

    def _look_at_limits(self) -> None:
        query = """
            SELECT id, status, duration_min, accepted_at_ms, started_at_ms, limit_id, limit_expires_at_ms, limit_rings_at_ms
            FROM session_requests"""
        start_ms, grace_ms = self._settings.start_window_ms, self._settings.session_grace_ms
        for request_id, status, minutes, accepted_at_ms, started_at_ms, *stored in self._sql.execute(query):
            before, limit = self._limits.get(request_id), Limit(*stored)
            status_before = self._statuses.get(request_id)
            self._limits[request_id], self._statuses[request_id] = limit, status
            # Also where there was no limit and there is none: whoever has just accepted must have one.
            if before is not None and (status_before, before.id) == (status, limit.id):
                continue
            must = {
                "accepted": ((accepted_at_ms or 0) + start_ms, (accepted_at_ms or 0) + start_ms // 2),
                "in_progress": ((started_at_ms or 0) + minutes * 60_000 + grace_ms,) * 2,
            }.get(status, (None, None))
            if (limit.expires_at_ms, limit.rings_at_ms) != must:
                self._violated(LIMITED, f"{request_id} is {status}, until {limit} and not {must}")

    def _look_at_sessions(self) -> None:
        query = """
            SELECT m.id, m.active_request_id, group_concat(r.id)
            FROM mechanics m
            LEFT JOIN session_requests r ON r.assigned_mechanic_id = m.id AND r.status IN ('accepted', 'in_progress')
            GROUP BY m.id HAVING m.active_request_id IS NOT group_concat(r.id)"""
        for mechanic_id, active, serving in self._sql.execute(query):
            self._violated(BUSY, f"{mechanic_id} is in {active}, and serves {serving}")

    # --- at what people are told --------------------------------------------------------------------------------------

    def asked(self, mechanic_id: str, request_id: str, offer_id: str) -> None:
        """Judge an offer that has reached a mechanic; one from before they lost the request may just have been slow."""
        before = self._lost.get((request_id, mechanic_id))
        if before is not None and offer_id not in before:
            self._violated(NOT_AGAIN, f"{mechanic_id} is offered {request_id} again, as {offer_id}")

    def wished_away(self, mechanic_id: str, request_id: str) -> None:
        """Note that a customer does not want to wait for a mechanic."""
        self._wished_away.add((request_id, mechanic_id))

    def has_begun(self, account_id: str, request_id: str) -> bool:
        """Tell whether an account has a session to end, or had one that has ended."""
        query = """
            SELECT 1 FROM session_requests
            WHERE id = ? AND status IN ('in_progress', 'completed') AND ? IN (customer_id, assigned_mechanic_id)"""
        return self._sql.execute(query, (request_id, account_id)).fetchone() is not None

    def end_refused(self, request_id: str, why: str) -> None:
        """Judge what somebody was answered who wanted to end a session that had begun; an operator may have ended it otherwise."""
        query = "SELECT status FROM session_requests WHERE id = ?"
        if self._sql.execute(query, (request_id,)).fetchone() != ("unfilled",):
            self._violated(COMPLETES, f"{request_id}: {why}")

    # --- when the faults are over -------------------------------------------------------------------------------------

    def overdue_limits(self) -> list[str]:
        """Return the time limits of which something should have come by now: a reminder, or their end."""
        return self._overdue(
            "SELECT limit_id, id, limit_rings_at_ms FROM session_requests WHERE status IN ('accepted', 'in_progress')"
        )

    def overdue_offers(self) -> list[str]:
        """Return the offers that should have ended by now."""
        return self._overdue("SELECT id, request_id, expires_at_ms FROM offers WHERE closed_at_ms IS NULL")

    def _overdue(self, query: str) -> list[str]:
        now_ms = self._ground.redis.now_ms()
        calm_ms = now_ms - (self._ground.loop.time() - (self._ground.calm_since_s or 0)) * 1000
        late_s = {
            f"{window_id} of {request_id}": (now_ms - max(at_ms, calm_ms)) / 1000
            for window_id, request_id, at_ms in self._sql.execute(query)
        }
        return [f"{which}: nothing for {late:.3f} s" for which, late in late_s.items() if late > IN_TIME_S]

    def running(self) -> list[str]:
        """Return the time limits that still have to end."""
        query = "SELECT id, status FROM session_requests WHERE status IN ('accepted', 'in_progress')"
        return [f"{request_id} is still {status}" for request_id, status in self._sql.execute(query)]
