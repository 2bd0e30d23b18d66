"""What must be true of every world: at each commit, at each answer, and once all is quiet."""

import sqlite3
from collections.abc import Sequence

from models.outcomes import OfferGone, Refused
from models.wire import RequestView
from tests.simulation.ground import Ground
from tests.simulation.people import CustomerPage, MechanicApp

ONE_MECHANIC = "never two mechanics on one request"
ONE_REQUEST = "never two requests for one mechanic at a time"
PAID = "whoever paid is exactly one of: served, offered, refunded"
NEVER_EARLY = "no window ends early"
EVERY_WINDOW_ENDS = "every window ends"
ONE_FALLBACK = "the fallback happens at most once"
IN_TIME = "an accept that came in time is not beaten by the clock"
CARDS = "every connected app shows the offers that are open to it"
SESSIONS = "every connected app knows which session its mechanic is in"
NOT_BEFORE = "nobody is told of what has not been committed"
VERSIONS = "every customer has seen the newest version of their requests"
OUTBOX = "everything committed has been told"
DEADLINES = "no deadline is left over"
HOURS = "a mechanic's hours are counted while they are on duty, once"
REFUNDS = "every owed refund succeeds, once at Stripe"
NODES = "no node ends by itself"
BUGS = "no part reports a bug"

SERVED = frozenset({"accepted", "in_progress", "completed"})
CLOCK_ERROR_MS = 250
"""How far a node's idea of Redis' time may be off, because the answer to TIME took long on its way."""


class Watch:
    """Looks at SQL with a connection of its own, which no node knows, and keeps what was found wrong."""

    def __init__(self, ground: Ground, connection: sqlite3.Connection) -> None:
        self.violations: list[tuple[str, str]] = []
        self._ground = ground
        self._apps: Sequence[MechanicApp] = ()
        self._pages: Sequence[CustomerPage] = ()
        self._sql = connection
        self._requests: dict[str, tuple[int, str, str | None]] = {}
        self._closed: set[str] = set()
        self._taps: list[tuple[str, str, int]] = []

    def look_also_at(self, apps: Sequence[MechanicApp], pages: Sequence[CustomerPage]) -> None:
        """Compare also what these show with what SQL says."""
        self._apps, self._pages = apps, pages

    def violated(self, invariant: str, what: str) -> None:
        """Note that something was wrong."""
        self.violations.append((invariant, what))
        self._ground.note("watch", f"VIOLATED: {invariant}: {what}")

    # --- at each commit -----------------------------------------------------------------------------------------------

    def after_commit(self) -> None:
        """Compare what SQL says now with what it said before."""
        self._look_at_requests()
        self._look_at_sessions()
        self._look_at_windows()
        self._look_at_hours()

    def _look_at_requests(self) -> None:
        query = "SELECT id, version, status, assigned_mechanic_id FROM session_requests"
        for request_id, version, status, mechanic_id in self._sql.execute(query):
            before = self._requests.get(request_id)
            now = (version, status, mechanic_id)
            if now == before:
                continue
            self._requests[request_id] = now
            if before is None:
                continue
            if before[0] > version:
                self.violated("versions only grow", f"{request_id}: {before} became {now}")
            if before[1] in SERVED and status in SERVED and before[2] != mechanic_id:
                self.violated(ONE_MECHANIC, f"{request_id}: {before} became {now}")

    def _look_at_sessions(self) -> None:
        query = """
            SELECT m.id, m.active_request_id, r.status, r.assigned_mechanic_id
            FROM mechanics m LEFT JOIN session_requests r ON r.id = m.active_request_id
            WHERE m.active_request_id IS NOT NULL"""
        for mechanic_id, request_id, status, assigned in self._sql.execute(query):
            if assigned != mechanic_id or status not in ("accepted", "in_progress"):
                self.violated(ONE_MECHANIC, f"{mechanic_id} serves {request_id}, which is {status} by {assigned}")
        twice = """
            SELECT assigned_mechanic_id, count(*) FROM session_requests
            WHERE status IN ('accepted', 'in_progress') GROUP BY 1 HAVING count(*) > 1"""
        for mechanic_id, count in self._sql.execute(twice):
            self.violated(ONE_REQUEST, f"{mechanic_id} has {count} sessions")

    def _look_at_windows(self) -> None:
        query = "SELECT id, request_id, expires_at_ms, close_reason FROM offers WHERE closed_at_ms IS NOT NULL"
        for offer_id, request_id, expires_at_ms, reason in self._sql.execute(query):
            if offer_id not in self._closed:
                self._closed.add(offer_id)
                early_ms = expires_at_ms - self._ground.redis.now_ms()
                if reason == "expired" and early_ms > 0:
                    self.violated(NEVER_EARLY, f"{offer_id} of {request_id} ended {early_ms:.3f} ms early")

    def _look_at_hours(self) -> None:
        query = """
            SELECT m.id, m.on_duty, count(d.id)
            FROM mechanics m LEFT JOIN duty_intervals d ON d.mechanic_id = m.id AND d.ended_at_ms IS NULL
            GROUP BY m.id HAVING m.on_duty <> count(d.id)"""
        for mechanic_id, on_duty, count in self._sql.execute(query):
            self.violated(HOURS, f"{mechanic_id}: on duty {on_duty}, with {count} intervals open")
        query = """
            SELECT a.mechanic_id, a.started_at_ms, b.started_at_ms
            FROM duty_intervals a JOIN duty_intervals b ON b.mechanic_id = a.mechanic_id AND b.id > a.id
            WHERE a.ended_at_ms IS NULL OR a.ended_at_ms < a.started_at_ms OR b.started_at_ms < a.ended_at_ms"""
        for overlap in self._sql.execute(query):
            self.violated(HOURS, f"{overlap} overlap")

    # --- at each message about a request ------------------------------------------------------------------------------

    def told(self, request_id: str, version: int) -> None:
        """Judge what somebody has just been told of a request."""
        query = "SELECT version FROM session_requests WHERE id = ?"
        (committed,) = self._sql.execute(query, (request_id,)).fetchone() or (0,)
        if version > committed:
            self.violated(NOT_BEFORE, f"{request_id} is said to be at {version}, and is at {committed}")

    # --- at each answer to an accept ----------------------------------------------------------------------------------

    def accept_arrived(self, mechanic_id: str, offer_id: str, received_at_ms: int) -> None:
        """Note a tap."""
        self._taps.append((mechanic_id, offer_id, received_at_ms))

    def accept_answered(
        self, mechanic_id: str, offer_id: str, received_at_ms: int, outcome: RequestView | Refused
    ) -> None:
        """Judge the answer to a tap."""
        if isinstance(outcome, RequestView):
            self._judge_won(mechanic_id, outcome.id)
        elif isinstance(outcome, OfferGone):
            self._judge_gone(mechanic_id, offer_id, received_at_ms)

    def _judge_won(self, mechanic_id: str, request_id: str) -> None:
        """One of their taps must have come before the broadcast's end; a repeated one is told again that they have it."""
        query = "SELECT id, expires_at_ms FROM offers WHERE request_id = ?"
        offers = dict(self._sql.execute(query, (request_id,)))
        first_ms = min(at_ms for who, offer_id, at_ms in self._taps if who == mechanic_id and offer_id in offers)
        if first_ms > max(offers.values()) + CLOCK_ERROR_MS:
            self.violated(IN_TIME, f"{mechanic_id} got {request_id} although its last window had ended")

    def _judge_gone(self, mechanic_id: str, offer_id: str, received_at_ms: int) -> None:
        """It was refused; so the offer must not be there for them now, unless it came back after a release."""
        query = """
            SELECT r.id FROM offers asked
            JOIN session_requests r ON r.id = asked.request_id
            JOIN offers open ON open.request_id = r.id AND open.closed_at_ms IS NULL
            WHERE asked.id = :offer AND open.expires_at_ms > :received
              AND (asked.id = open.id OR (asked.id = r.priority_offer_id AND r.preferred_mechanic_id = :mechanic))
              AND (open.mechanic_id IS NULL OR open.mechanic_id = :mechanic)
              AND NOT EXISTS (SELECT 1 FROM exclusions e WHERE e.request_id = r.id AND e.mechanic_id = :mechanic)"""
        values = {"offer": offer_id, "received": received_at_ms, "mechanic": mechanic_id}
        for (request_id,) in self._sql.execute(query, values):
            if not self._is_released(request_id):
                self.violated(IN_TIME, f"{mechanic_id} was refused {offer_id} of {request_id}, which is still open")

    def _is_released(self, request_id: str) -> bool:
        query = "SELECT 1 FROM timeline WHERE request_id = ? AND event = 'released'"
        return self._sql.execute(query, (request_id,)).fetchone() is not None

    # --- when the faults are over -------------------------------------------------------------------------------------

    def untrue(self) -> list[tuple[str, str]]:
        """Return what somebody has not been told yet, or is wrong about."""
        wrong = [(OUTBOX, f"{kind} {id_}") for id_, kind in self._sql.execute("SELECT id, kind FROM outbox")]
        versions = dict(self._sql.execute("SELECT id, version FROM session_requests"))
        owners = dict(self._sql.execute("SELECT id, customer_id FROM session_requests"))
        for page in self._pages:
            for request_id, version in versions.items():
                seen = page.seen.get(request_id, (0, "nothing"))
                if owners[request_id] == page.account_id and (seen[0] != version or not page.is_welcome):
                    wrong.append((VERSIONS, f"{page.name} saw {seen} of {request_id}, which is at {version}"))
        for app in self._apps:
            must, may = self._cards_of(app.account_id)
            if not (must <= app.shown <= may and app.is_welcome):
                wrong.append((CARDS, f"{app.name} shows {sorted(app.shown)}, not {sorted(must)}"))
            query = "SELECT active_request_id FROM mechanics WHERE id = ?"
            (active,) = self._sql.execute(query, (app.account_id,)).fetchone()
            if app.session != active:
                wrong.append((SESSIONS, f"{app.name} believes to be in {app.session}, not {active}"))
        return wrong

    def _cards_of(self, mechanic_id: str) -> tuple[set[str], set[str]]:
        """Return the offers that are open to a mechanic, and those that would be if they were free and on duty.

        Cards of the latter are not withdrawn from a mechanic who is busy: they may be free again before the window ends.
        """
        query = """
            SELECT o.id, o.mechanic_id IS NOT NULL OR (m.on_duty AND m.active_request_id IS NULL)
            FROM offers o JOIN mechanics m ON m.id = :mechanic
            WHERE o.closed_at_ms IS NULL AND o.expires_at_ms > :now
              AND (o.mechanic_id = :mechanic OR o.mechanic_id IS NULL AND NOT EXISTS (
                SELECT 1 FROM exclusions e WHERE e.request_id = o.request_id AND e.mechanic_id = :mechanic))"""
        found = list(self._sql.execute(query, {"mechanic": mechanic_id, "now": self._ground.redis.now_ms()}))
        return {offer_id for offer_id, is_theirs in found if is_theirs}, {offer_id for offer_id, _ in found}

    def unsettled(self) -> list[tuple[str, str]]:
        """Return what still has to end: windows, sessions, refunds, deadlines."""
        left = []
        now_ms = self._ground.redis.now_ms()
        for offer_id, expires_at_ms in self._sql.execute(
            "SELECT id, expires_at_ms FROM offers WHERE closed_at_ms IS NULL"
        ):
            left.append((EVERY_WINDOW_ENDS, f"{offer_id} ends {expires_at_ms - now_ms:.0f} ms from now"))
        for (refund_id,) in self._sql.execute("SELECT id FROM refunds WHERE status <> 'succeeded'"):
            left.append((REFUNDS, f"{refund_id} is still owed"))
        for offers in self._ground.redis.store.sorted_sets.values():
            left += [(DEADLINES, offer_id) for offer_id in offers]
        paid = {session.reference for session in self._ground.stripe.sessions.values() if session.is_paid}
        served = {row[0] for row in self._sql.execute("SELECT id FROM checkouts WHERE request_id IS NOT NULL")}
        left += [(PAID, f"checkout {checkout_id} is paid and forgotten") for checkout_id in sorted(paid - served)]
        return left

    def judge_end(self) -> None:
        """Look at every request's whole story, once nothing more is going to happen."""
        query = """
            SELECT r.id, r.status, c.payment_intent_id, count(f.id)
            FROM session_requests r JOIN checkouts c ON c.id = r.checkout_id LEFT JOIN refunds f ON f.checkout_id = c.id
            GROUP BY r.id"""
        at_stripe = self._ground.stripe.refunds_per_payment()
        for request_id, status, intent_id, refunds in self._sql.execute(query):
            ends = [status in SERVED, refunds == 1 and at_stripe[intent_id] == 1]
            if sum(ends) != 1 or (refunds, at_stripe[intent_id]) not in ((0, 0), (1, 1)):
                self.violated(
                    PAID, f"{request_id} is {status}, refunded {refunds} times, {at_stripe[intent_id]} at Stripe"
                )
        requests_per_checkout = "SELECT checkout_id, count(*) FROM session_requests GROUP BY 1 HAVING count(*) > 1"
        for checkout_id, count in self._sql.execute(requests_per_checkout):
            self.violated(PAID, f"checkout {checkout_id} made {count} requests")
        stories = """
            SELECT r.id,
              (SELECT count(*) FROM offers o WHERE o.request_id = r.id AND o.kind = 'priority'),
              (SELECT count(*) FROM offers o WHERE o.request_id = r.id AND o.kind = 'broadcast'),
              (SELECT count(*) FROM timeline t WHERE t.request_id = r.id AND t.event = 'released'),
              (SELECT count(*) FROM timeline t WHERE t.request_id = r.id AND t.event IN ('expired', 'skipped', 'declined'))
            FROM session_requests r"""
        for request_id, priorities, broadcasts, releases, fallbacks in self._sql.execute(stories):
            if priorities > 1 or fallbacks > 1 or broadcasts > releases + 1:
                told = (
                    f"{priorities} priority offers, {broadcasts} broadcasts, {releases} releases, {fallbacks} fallbacks"
                )
                self.violated(ONE_FALLBACK, f"{request_id}: {told}")
