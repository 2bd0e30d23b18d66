"""Whatever happens in whatever order: nobody who paid is left without a mechanic or their money back."""

from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dispatch.request import (
    ACCEPT_LEEWAY_MS,
    OPEN,
    AnotherWanted,
    Assign,
    CloseOffer,
    Command,
    Event,
    Exclude,
    Free,
    KeepFrom,
    LimitMissing,
    MechanicAccepted,
    MechanicDeclined,
    MechanicReleased,
    OpenOffer,
    OpenWindow,
    OperatorRefunded,
    OperatorSettled,
    OweRefund,
    PromptFavorite,
    Record,
    Request,
    RequestCancelled,
    SessionCompleted,
    SessionReported,
    SessionStarted,
    Tell,
    WaitSkipped,
    WindowElapsed,
    Windows,
    WithdrawFrom,
    opened,
    step,
)
from models.outcomes import Refused
from models.words import OfferKind, RequestStatus, Settlement

NOW_MS = 1_795_000_000_000
WINDOWS = Windows(priority_ms=600, broadcast_ms=900, start_ms=300, grace_ms=500)
SESSION_MS = 700
MECHANICS = ["favorite", "ada", "bob", "cy"]
mechanics = st.sampled_from(MECHANICS)


class Life(RuleBasedStateMachine):
    """The core, and a little world that does what it says; the world never looks into the core's state to decide."""

    @initialize(is_priority=st.booleans(), paid_cents=st.sampled_from([0, 999, 4999]))
    def pay(self, is_priority: bool, paid_cents: int) -> None:
        self.now_ms = NOW_MS
        self.ids_given = 1
        self.made: list[str] = []
        self.must_start_by_ms = self.must_end_by_ms = 0
        self.open: dict[str, OpenWindow] = {}
        self.closed: dict[str, str] = {}
        self.excluded: set[str] = set()
        self.busy_with: str | None = None
        self.refunds: list[str] = []
        self.prompts: list[str] = []
        self.fallbacks = 0
        self.story: list[str] = []
        self.reminders = 0
        self.completed_at_ms: int | None = None
        self.versions: list[int] = []
        self.request, commands = opened(
            "r",
            paid_cents=paid_cents,
            session_ms=SESSION_MS,
            preferred_mechanic_id="favorite" if is_priority else None,
            is_priority=is_priority,
            offer_id="o1",
            now_ms=self.now_ms,
            windows=WINDOWS,
        )
        self.versions.append(self.request.version)
        self.carry_out(commands)

    # --- rules --------------------------------------------------------------------------------------------------------

    @rule(ms=st.integers(0, 400))
    def time_passes(self, ms: int) -> None:
        self.now_ms += ms

    @rule()
    def time_passes_until_the_deadline(self) -> None:
        for window in self.open.values():
            self.now_ms = max(self.now_ms, window.expires_at_ms)

    @rule()
    def time_passes_until_the_end(self) -> None:
        for window in self.open.values():
            self.now_ms = max(self.now_ms, window.ends_at_ms)

    @rule(early_ms=st.sampled_from([0, 1, WINDOWS.start_ms // 2]))
    def time_passes_until_a_limit(self, early_ms: int) -> None:
        limit_ms = max(self.must_start_by_ms, self.must_end_by_ms) - early_ms
        if self.busy_with is not None:
            self.now_ms = max(self.now_ms, limit_ms)

    @rule()
    def every_timer_fires(self) -> None:
        """Whoever should have started by now has lost it, and what should have ended has."""
        for number in range(1, self.ids_given + 1):
            self.happens(WindowElapsed(f"o{number}"))
        if self.request.status is RequestStatus.ACCEPTED:
            assert self.now_ms < self.must_start_by_ms
        if self.request.status is RequestStatus.IN_PROGRESS:
            assert self.now_ms < self.must_end_by_ms

    @rule(mechanic_id=mechanics, on_its_way_ms=st.integers(1, ACCEPT_LEEWAY_MS - 1))
    def a_timer_fires_while_an_accept_of_the_last_moment_is_on_its_way(
        self, mechanic_id: str, on_its_way_ms: int
    ) -> None:
        """Nobody who may take a broadcast and whose accept reached a server in time loses it to the timer."""
        for window in list(self.open.values()):
            decided_at_ms = window.expires_at_ms - 1 + on_its_way_ms
            if window.kind is OfferKind.BROADCAST and self.now_ms <= decided_at_ms:
                self.now_ms = decided_at_ms
                self.happens(WindowElapsed(window.offer_id))
                self.happens(MechanicAccepted(mechanic_id, window.offer_id, window.expires_at_ms - 1))
                assert self.busy_with == (None if mechanic_id in self.excluded else mechanic_id)

    @rule(number=st.integers(1, 12))
    def a_timer_fires(self, number: int) -> None:
        """For any offer, too early, in time, late, or for the second time."""
        self.happens(WindowElapsed(f"o{number}"))

    @rule(mechanic_id=mechanics, number=st.integers(1, 12), ago_ms=st.integers(0, 100), times=st.integers(1, 2))
    def a_mechanic_accepts(self, mechanic_id: str, number: int, ago_ms: int, times: int) -> None:
        for _ in range(times):
            self.happens(MechanicAccepted(mechanic_id, f"o{number}", self.now_ms - ago_ms))

    @rule(mechanic_id=mechanics)
    def a_mechanic_accepts_what_is_open(self, mechanic_id: str) -> None:
        for offer_id in list(self.open):
            self.happens(MechanicAccepted(mechanic_id, offer_id, self.now_ms))

    @rule(mechanic_id=mechanics, number=st.integers(1, 12), times=st.integers(1, 2))
    def a_mechanic_declines(self, mechanic_id: str, number: int, times: int) -> None:
        for _ in range(times):
            self.happens(MechanicDeclined(mechanic_id, f"o{number}"))

    @rule(mechanic_id=mechanics)
    def a_mechanic_starts(self, mechanic_id: str) -> None:
        self.happens(SessionStarted(mechanic_id))

    @rule(mechanic_id=mechanics)
    def a_mechanic_completes(self, mechanic_id: str) -> None:
        self.happens(SessionCompleted(mechanic_id))

    @rule(mechanic_id=mechanics)
    def a_mechanic_gives_back(self, mechanic_id: str) -> None:
        self.happens(MechanicReleased(mechanic_id))

    @rule()
    def whoever_has_it_gives_it_back(self) -> None:
        if self.busy_with is not None:
            self.happens(MechanicReleased(self.busy_with))

    @rule()
    def the_customer_skips_the_wait(self) -> None:
        self.happens(WaitSkipped())

    @rule()
    def the_customer_cancels(self) -> None:
        self.happens(RequestCancelled())

    @rule()
    def the_customer_asks_for_another(self) -> None:
        self.happens(AnotherWanted())

    @rule(mechanic_id=mechanics)
    def the_customer_asks_for_another_than_somebody_who_may_have_lost_it_by_now(self, mechanic_id: str) -> None:
        self.happens(AnotherWanted(mechanic_id))

    @rule(times=st.integers(1, 2))
    def the_customer_completes(self, times: int) -> None:
        for _ in range(times):
            self.happens(SessionCompleted(None))

    @rule(times=st.integers(1, 2), days=st.sampled_from([0, 7, 8]))
    def the_customer_reports(self, times: int, days: int) -> None:
        self.now_ms += days * 24 * 3600 * 1000
        for _ in range(times):
            self.happens(SessionReported("nobody came"))

    @rule()
    def an_operator_gives_it_back(self) -> None:
        self.happens(OperatorRefunded("asked by phone"))

    @rule(as_=st.sampled_from(["completed", "unfilled"]))
    def an_operator_settles(self, as_: Settlement) -> None:
        self.happens(OperatorSettled(as_))

    @rule()
    def somebody_looks_for_missing_limits(self) -> None:
        version = self.request.version
        self.happens(LimitMissing())
        assert self.request.version == version, "no limit is missing"

    # --- the little world ---------------------------------------------------------------------------------------------

    def happens(self, event: Event) -> None:
        next_id = f"o{self.ids_given + 1}"
        outcome = step(self.request, event, now_ms=self.now_ms, next_id=next_id, windows=WINDOWS)
        if isinstance(outcome, Refused):
            return
        before, (self.request, commands) = self.request, outcome
        self.ids_given += 1
        self.check_the_step(before, event)
        self.carry_out(commands)
        self.request = replace(self.request, has_refund=bool(self.refunds))

    def check_the_step(self, before: Request, event: Event) -> None:
        is_afterwards = isinstance(event, SessionReported | OperatorRefunded)
        assert before.status in OPEN or is_afterwards, "a settled request ignores everything else"
        assert before.excluded <= self.request.excluded, "nobody who is out comes back"
        self.versions.append(self.request.version)
        match event:
            case WindowElapsed(window_id):
                self.check_that_it_is_time(before, window_id)
            case MechanicAccepted(mechanic_id, offer_id, received_at_ms):
                assert mechanic_id not in self.excluded
                (window,) = self.open.values()
                is_late = offer_id == "o1" and window.kind is OfferKind.BROADCAST
                assert offer_id == window.offer_id or (is_late and mechanic_id == "favorite")
                assert window.mechanic_id in (None, mechanic_id)
                assert window.kind is OfferKind.PRIORITY or received_at_ms < window.expires_at_ms
                self.must_start_by_ms, self.must_end_by_ms = self.now_ms + WINDOWS.start_ms, 0
            case SessionStarted(mechanic_id):
                assert mechanic_id == self.busy_with
                self.must_start_by_ms, self.must_end_by_ms = 0, self.now_ms + SESSION_MS + WINDOWS.grace_ms
            case SessionCompleted(mechanic_id):
                assert mechanic_id in (None, self.busy_with)
            case MechanicReleased(mechanic_id):
                assert mechanic_id == self.busy_with
            case AnotherWanted(mechanic_id):
                assert mechanic_id in (None, before.assigned_mechanic_id), "a wish costs only the one whom it means"
            case SessionReported():
                assert self.completed_at_ms is not None
                assert self.now_ms <= self.completed_at_ms + 7 * 24 * 3600 * 1000
        if self.request.status is RequestStatus.COMPLETED and before.status is not RequestStatus.COMPLETED:
            self.completed_at_ms = self.now_ms
        if before.status is RequestStatus.PRIORITY_OFFERED and self.request.status is RequestStatus.BROADCASTING:
            self.fallbacks += 1

    def check_that_it_is_time(self, before: Request, window_id: str) -> None:
        """Nothing ends early, and nobody is reminded who has lost it already, or twice."""
        match before.status, self.request.status:
            case RequestStatus.ACCEPTED, RequestStatus.ACCEPTED:
                assert self.must_start_by_ms - WINDOWS.start_ms // 2 <= self.now_ms < self.must_start_by_ms
            case RequestStatus.ACCEPTED, _:
                assert self.must_start_by_ms <= self.now_ms
            case RequestStatus.IN_PROGRESS, _:
                assert self.must_end_by_ms <= self.now_ms
            case _:
                assert self.open[window_id].ends_at_ms <= self.now_ms, "never early"

    def carry_out(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case OpenOffer(window):
                    assert not self.open, "the one before is closed first"
                    assert window.offer_id not in self.closed
                    assert window.expires_at_ms > self.now_ms
                    self.open[window.offer_id] = window
                    self.made.append(window.offer_id)
                case CloseOffer(offer_id, reason):
                    del self.open[offer_id]
                    assert offer_id not in self.closed
                    self.closed[offer_id] = reason
                case WithdrawFrom(offer_id, mechanic_id):
                    assert offer_id in self.open
                    assert mechanic_id in self.excluded
                case Exclude(mechanic_id, _):
                    self.excluded.add(mechanic_id)
                case Assign(mechanic_id):
                    assert self.busy_with is None
                    assert mechanic_id not in self.excluded
                    self.busy_with, self.reminders = mechanic_id, 0
                case Free(mechanic_id):
                    assert self.busy_with == mechanic_id
                    self.busy_with = None
                case OweRefund(cause, _):
                    self.refunds.append(cause)
                case PromptFavorite(mechanic_id):
                    self.prompts.append(mechanic_id)
                case Record(event, _):
                    self.story.append(event)
                    self.reminders += event == "reminded"
                    assert self.reminders <= 1, "reminded once"
                case Tell() | KeepFrom():
                    pass

    # --- what is always true ------------------------------------------------------------------------------------------

    @invariant()
    def an_offer_is_open_exactly_while_somebody_is_looked_for(self) -> None:
        is_looking = self.request.status in (RequestStatus.PRIORITY_OFFERED, RequestStatus.BROADCASTING)
        assert len(self.open) == (1 if is_looking else 0)
        assert self.request.offer == next(iter(self.open.values()), None)

    @invariant()
    def a_priority_offer_is_for_the_favorite_and_a_broadcast_for_all(self) -> None:
        for window in self.open.values():
            is_priority = self.request.status is RequestStatus.PRIORITY_OFFERED
            assert window.kind is (OfferKind.PRIORITY if is_priority else OfferKind.BROADCAST)
            assert window.mechanic_id == ("favorite" if is_priority else None)

    @invariant()
    def somebody_is_assigned_exactly_while_and_after_they_have_it(self) -> None:
        is_served = self.request.status in (RequestStatus.ACCEPTED, RequestStatus.IN_PROGRESS)
        assert (self.busy_with is not None) == is_served
        if is_served:
            assert self.request.assigned_mechanic_id == self.busy_with
        if self.request.status is RequestStatus.COMPLETED:
            assert self.prompts == [self.request.assigned_mechanic_id]
        elif self.request.status in (RequestStatus.PRIORITY_OFFERED, RequestStatus.BROADCASTING):
            assert self.request.assigned_mechanic_id is None

    @invariant()
    def paid_is_served_or_refunded_once(self) -> None:
        assert len(self.refunds) <= 1, "never twice"
        if self.request.status in (RequestStatus.UNFILLED, RequestStatus.CANCELLED):
            assert self.refunds
        else:
            assert self.refunds in ([], ["operator"])

    @invariant()
    def whoever_has_to_do_something_has_a_time_limit(self) -> None:
        assert (self.request.limit is not None) == (self.busy_with is not None)
        if self.request.limit is not None:
            assert self.request.limit.expires_at_ms == max(self.must_start_by_ms, self.must_end_by_ms)

    @invariant()
    def a_session_is_reported_at_most_once(self) -> None:
        assert self.story.count("reported") <= 1

    @invariant()
    def something_or_somebody_will_end_it(self) -> None:
        if self.request.status in OPEN:
            assert bool(self.open) != (self.busy_with is not None)
            assert self.request.settled_at_ms is None
        else:
            assert not self.open
            assert self.busy_with is None
            assert self.request.settled_at_ms is not None

    @invariant()
    def every_offer_that_was_made_is_open_or_was_closed_once(self) -> None:
        assert self.open.keys() | self.closed.keys() == set(self.made)
        assert not self.open.keys() & self.closed.keys()

    @invariant()
    def the_fallback_happens_at_most_once_and_has_a_reason(self) -> None:
        assert self.fallbacks <= 1
        assert (self.request.fallback is not None) == (self.fallbacks == 1)

    @invariant()
    def whoever_is_out_is_out_in_the_world_too(self) -> None:
        assert self.request.excluded == self.excluded

    @invariant()
    def versions_only_grow(self) -> None:
        assert self.versions == sorted(self.versions)
        assert self.request.version == self.versions[-1]


TestLife = Life.TestCase
