"""What must be true of every world: at each commit, at each answer, and once all is quiet."""

import sqlite3
from collections.abc import Awaitable, Iterator, Sequence

from models.outcomes import OfferGone, Refused
from models.settings import DispatchSettings
from models.wire import RequestView
from models.words import OfferKind
from tests.simulation.after_accept import NEVER_EARLY, AfterAccept
from tests.simulation.ground import Ground
from tests.simulation.people import CustomerPage, MechanicApp

ONE_MECHANIC = "never two mechanics on one request"
PAID = "whoever paid is exactly one of: served, offered, refunded"
ONE_REFUND = "money goes back once at most"
ONE_REPORT = "a session is reported once at most"
EVERY_WINDOW_ENDS = "every window ends"
EVERY_LIMIT_ENDS = "nobody has accepted, or is in a session, for longer than its time limit"
ONE_FALLBACK = "the fallback happens at most once"
IN_TIME = "an accept that came in time is not beaten by the clock"
FAVORITES = "whoever waits for a favourite knows whether they are in another session"
CARDS = "every connected app shows the offers that are open to it"
SESSIONS = "every connected app knows which session its mechanic is in"
NOT_BEFORE = "nobody is told of what has not been committed"
VERSIONS = "every customer has seen the newest version of their requests"
OUTBOX = "everything committed has been told"
DEADLINES = "no deadline is left over"
HOURS = "a mechanic's hours are counted while they are on duty, once"
LEDGER = "the ledger says what Stripe says"
REFUNDS = "every owed refund succeeds, once at Stripe"
NODES = "no node ends by itself"
BUGS = "no part reports a bug"

SERVED = frozenset({"accepted", "in_progress", "completed"})
LOSSES = "('released', 'no_show', 'find_another')"
"""What is told, in SQL's words, when a mechanic has had a request and has it no more."""
CLOCK_ERROR_MS = 250
"""How far a node's idea of Redis' time may be off, because the answer to TIME took long on its way."""


class Watch:
    """Looks at SQL with a connection of its own, which no node knows, and keeps what was found wrong."""

    def __init__(self, ground: Ground, connection: sqlite3.Connection, settings: DispatchSettings) -> None:
        self.violations: list[tuple[str, str]] = []
        self._ground = ground
        self._apps: Sequence[MechanicApp] = ()
        self._pages: Sequence[CustomerPage] = ()
        self._sql = connection
        self._requests: dict[str, tuple[int, str, str | None]] = {}
        self._closed: set[str] = set()
        self._taps: list[tuple[str, str, int]] = []
        self._after_accept = AfterAccept(ground, connection, settings, self.violated)
        self.asked = self._after_accept.asked
        self.wished_away = self._after_accept.wished_away

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
        self._after_accept.after_commit()
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
        """One of their taps must have come before the broadcast's end; a repeated one is told again that they have it.

        A priority offer that nobody has ended yet, with Redis away, is theirs also after its deadline: the tap would have
        counted in the broadcast.
        """
        query = "SELECT id, kind, expires_at_ms FROM offers WHERE request_id = ? ORDER BY opened_at_ms, id"
        offers = self._sql.execute(query, (request_id,)).fetchall()
        ids = {offer_id for offer_id, _, _ in offers}
        first_ms = min(at_ms for who, offer_id, at_ms in self._taps if who == mechanic_id and offer_id in ids)
        _, last_kind, last_ms = offers[-1]
        if last_kind == OfferKind.BROADCAST and first_ms > last_ms + CLOCK_ERROR_MS:
            self.violated(IN_TIME, f"{mechanic_id} got {request_id} although its last window had ended")

    def _judge_gone(self, mechanic_id: str, offer_id: str, received_at_ms: int) -> None:
        """It was refused; so the offer must not be there for them now, unless it came back after somebody had lost the request."""
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
            if not self._came_back(request_id, received_at_ms):
                self.violated(IN_TIME, f"{mechanic_id} was refused {offer_id} of {request_id}, which is still open")

    def _came_back(self, request_id: str, since_ms: int) -> bool:
        query = f"SELECT 1 FROM timeline WHERE request_id = ? AND event IN {LOSSES} AND at_ms > ?"
        return self._sql.execute(query, (request_id, since_ms - CLOCK_ERROR_MS)).fetchone() is not None

    # --- at each answer to whoever ends a session ---------------------------------------------------------------------

    async def ending(
        self, account_id: str, request_id: str, end: Awaitable[RequestView | Refused]
    ) -> RequestView | Refused:
        """Let somebody end a session, and judge what they are answered."""
        has_begun = self._after_accept.has_begun(account_id, request_id)
        outcome = await end
        if has_begun and not (isinstance(outcome, RequestView) and outcome.status == "completed"):
            self._after_accept.end_refused(request_id, str(outcome))
        return outcome

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
            wrong += [
                (FAVORITES, f"{page.name} does not know of the favourite of {request_id}: are they busy? {is_busy}")
                for request_id, is_busy in self._waiting(page.account_id)
                if page.favorite_is_busy.get(request_id) != is_busy
            ]
        for app in self._apps:
            must, may = self._cards_of(app.account_id)
            if not (must <= app.shown <= may and app.is_welcome):
                wrong.append((CARDS, f"{app.name} shows {sorted(app.shown)}, not {sorted(must)}"))
            query = "SELECT active_request_id FROM mechanics WHERE id = ?"
            (active,) = self._sql.execute(query, (app.account_id,)).fetchone()
            if app.session != active:
                wrong.append((SESSIONS, f"{app.name} believes to be in {app.session}, not {active}"))
        return wrong

    def _waiting(self, customer_id: str) -> list[tuple[str, bool]]:
        """Return the requests of a customer that wait for a favourite, and whether that mechanic is in a session."""
        query = """
            SELECT o.request_id, m.active_request_id IS NOT NULL
            FROM offers o
            JOIN session_requests r ON r.id = o.request_id
            JOIN mechanics m ON m.id = o.mechanic_id
            WHERE o.closed_at_ms IS NULL AND r.customer_id = ?"""
        return [(request_id, bool(is_busy)) for request_id, is_busy in self._sql.execute(query, (customer_id,))]

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

    def look_at_lateness(self) -> None:
        """Judge how late everything is that should have come of time."""
        for what in self._after_accept.overdue_offers():
            self.violated(EVERY_WINDOW_ENDS, what)
        for what in self._after_accept.overdue_limits():
            self.violated(EVERY_LIMIT_ENDS, what)

    def unsettled(self) -> list[tuple[str, str]]:
        """Return what still has to end: windows, sessions, refunds, deadlines."""
        left = [(EVERY_LIMIT_ENDS, what) for what in self._after_accept.running()]
        now_ms = self._ground.redis.now_ms()
        for offer_id, expires_at_ms in self._sql.execute(
            "SELECT id, expires_at_ms FROM offers WHERE closed_at_ms IS NULL"
        ):
            left.append((EVERY_WINDOW_ENDS, f"{offer_id} ends {expires_at_ms - now_ms:.0f} ms from now"))
        for (refund_id,) in self._sql.execute("SELECT id FROM refunds WHERE status <> 'succeeded'"):
            left.append((REFUNDS, f"{refund_id} is still owed"))
        left += [(LEDGER, what) for what in self._wrong_ledgers()]
        for offers in self._ground.redis.store.sorted_sets.values():
            left += [(DEADLINES, offer_id) for offer_id in offers]
        paid = {session.reference for session in self._ground.stripe.sessions.values() if session.is_paid}
        served = {row[0] for row in self._sql.execute("SELECT id FROM checkouts WHERE request_id IS NOT NULL")}
        left += [(PAID, f"checkout {checkout_id} is paid and forgotten") for checkout_id in sorted(paid - served)]
        return left

    def judge_end(self) -> None:
        """Look at every request's whole story, once nothing more is going to happen."""
        query = """
            SELECT r.id, r.status, c.payment_intent_id, count(f.id), max(coalesce(f.cause, '') = 'operator')
            FROM session_requests r JOIN checkouts c ON c.id = r.checkout_id LEFT JOIN refunds f ON f.checkout_id = c.id
            GROUP BY r.id"""
        for request_id, status, intent_id, refunds, by_operator in self._sql.execute(query):
            self._judge_money(request_id, status, intent_id, is_owed=bool(refunds), by_operator=bool(by_operator))
        requests_per_checkout = "SELECT checkout_id, count(*) FROM session_requests GROUP BY 1 HAVING count(*) > 1"
        for checkout_id, count in self._sql.execute(requests_per_checkout):
            self.violated(PAID, f"checkout {checkout_id} made {count} requests")
        stories = f"""
            SELECT r.id,
              (SELECT count(*) FROM offers o WHERE o.request_id = r.id AND o.kind = 'priority'),
              (SELECT count(*) FROM offers o WHERE o.request_id = r.id AND o.kind = 'broadcast'),
              (SELECT count(*) FROM timeline t WHERE t.request_id = r.id AND t.event IN {LOSSES}),
              (SELECT count(*) FROM timeline t WHERE t.request_id = r.id AND t.event IN ('expired', 'skipped', 'declined')),
              (SELECT count(*) FROM timeline t WHERE t.request_id = r.id AND t.event = 'reported')
            FROM session_requests r"""
        for request_id, priorities, broadcasts, losses, fallbacks, reports in self._sql.execute(stories):
            if priorities > 1 or fallbacks > 1 or broadcasts > losses + 1:
                told = (
                    f"{priorities} priority offers, {broadcasts} broadcasts, lost {losses} times, {fallbacks} fallbacks"
                )
                self.violated(ONE_FALLBACK, f"{request_id}: {told}")
            if reports > 1:
                self.violated(ONE_REPORT, f"{request_id}: {reports} times")

    def _judge_money(self, request_id: str, status: str, intent_id: str, *, is_owed: bool, by_operator: bool) -> None:
        """Add up a payment: paid = served + given back + taken by the bank."""
        stripe = self._ground.stripe
        by_us, by_others = (stripe.given_back_cents(intent_id, by_us=by_us) for by_us in (True, False))
        paid, taken, left = stripe.paid_cents(intent_id), stripe.taken_cents(intent_id), stripe.left_cents(intent_id)
        told = f"{request_id} is {status}: {paid} paid, {by_us} back by us, {by_others} by others, {taken} by the bank"
        if left < 0:
            self.violated(ONE_REFUND, told)
        is_served = status == "completed"
        if left > 0 and (is_owed or not is_served):
            self.violated(PAID, told)
        # An operator may be generous to whoever has been served; so may others, in the dashboard.
        if by_us and is_served and not by_operator:
            self.violated(ONE_REFUND, told)

    def _wrong_ledgers(self) -> Iterator[str]:
        """Tell the ledgers that do not say what Stripe says, or that something is still going on."""
        stripe = self._ground.stripe
        query = """
            SELECT c.payment_intent_id, l.by_us_cents, l.by_others_cents, l.taken_cents, l.is_unsettled
            FROM checkouts c LEFT JOIN ledgers l ON l.payment_intent_id = c.payment_intent_id
            WHERE c.payment_intent_id IS NOT NULL"""
        for intent_id, *sums in self._sql.execute(query):
            by_us, by_others = (stripe.given_back_cents(intent_id, by_us=by_us) for by_us in (True, False))
            here, there = [each or 0 for each in sums], [by_us, by_others, stripe.taken_cents(intent_id), 0]
            if here != there:
                yield f"{intent_id}: {here}, and {there} at Stripe"
