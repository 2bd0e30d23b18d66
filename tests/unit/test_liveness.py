"""The rules of presence, as values."""

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from presence import liveness
from presence.leases import parse, shard_of
from presence.liveness import Facts, MechanicStatus

TIMEOUT_MS = 45_000
GRACE_MS = 3_000
NODE_LEASE_MS = 5_000
NOW_MS = 1_795_000_000_000


def facts(
    version: int = 1, *, on_duty: bool = True, is_busy: bool = False, has_push: bool = False, types_off: str = ""
) -> Facts:
    return Facts("m", version, on_duty, is_busy, has_push, None, types_off)


def status(*, online: bool = True, of: Facts | None = None) -> MechanicStatus:
    return liveness.first_status(of or facts(), online=online, now_ms=NOW_MS)[0]


def test_a_lease_holds_until_its_end_and_not_at_it():
    assert liveness.is_live(NOW_MS + 1, NOW_MS)
    assert not liveness.is_live(NOW_MS, NOW_MS)
    assert not liveness.is_live(None, NOW_MS)


def test_a_delayed_heartbeat_never_shortens_a_newer_lease():
    newer = liveness.renewed(None, NOW_MS, NOW_MS, TIMEOUT_MS)
    assert liveness.renewed(newer, NOW_MS - 20_000, NOW_MS + 5, TIMEOUT_MS) == newer
    assert liveness.renewed(newer, NOW_MS - TIMEOUT_MS, NOW_MS + 5, TIMEOUT_MS) == newer


def test_a_heartbeat_from_a_clock_that_runs_ahead_gives_no_longer_lease():
    assert liveness.renewed(None, NOW_MS + 600_000, NOW_MS, TIMEOUT_MS) == NOW_MS + TIMEOUT_MS


def test_a_heartbeat_older_than_the_timeout_brings_nobody_online():
    assert liveness.renewed(None, NOW_MS - TIMEOUT_MS, NOW_MS, TIMEOUT_MS) is None


def test_the_grace_shortens_a_lease_and_never_lengthens_it():
    assert liveness.released(NOW_MS + TIMEOUT_MS, NOW_MS, GRACE_MS) == NOW_MS + GRACE_MS
    assert liveness.released(NOW_MS + 10, NOW_MS, GRACE_MS) == NOW_MS + 10
    assert liveness.released(None, NOW_MS, GRACE_MS) is None


def test_a_late_close_on_one_node_does_not_override_a_lease_on_another():
    leases = {"old": NOW_MS + GRACE_MS, "new": NOW_MS + TIMEOUT_MS}
    nodes = {"old": NOW_MS + TIMEOUT_MS, "new": NOW_MS + TIMEOUT_MS}
    assert liveness.is_online(leases, nodes, NOW_MS + GRACE_MS)


def test_the_leases_of_a_dead_node_count_for_nothing():
    assert not liveness.is_online({"dead": NOW_MS + TIMEOUT_MS}, {"dead": NOW_MS}, NOW_MS)
    assert not liveness.is_online({"forgotten": NOW_MS + TIMEOUT_MS}, {}, NOW_MS)


def test_versions_grow_even_when_the_clock_steps_back_or_redis_forgot_the_last_one():
    assert liveness.next_version(NOW_MS, NOW_MS - 1_000) == NOW_MS + 1
    assert liveness.next_version(None, NOW_MS + 1) > NOW_MS


def test_going_online_twice_is_one_change():
    online, changed = liveness.with_online(status(online=False), online=True, now_ms=NOW_MS)
    assert changed and online.version > NOW_MS
    assert liveness.with_online(online, online=True, now_ms=NOW_MS + 5) == (online, False)


def test_a_change_is_true_as_of_now_and_says_all_that_is_known():
    online, _ = liveness.with_online(status(online=False), online=True, now_ms=NOW_MS + 5)
    assert (online.is_online, online.as_of_ms) == (True, NOW_MS + 5)
    news = facts(2, on_duty=False, is_busy=True, has_push=True, types_off="text")
    told, changed = liveness.with_facts(online, news, now_ms=NOW_MS + 9)
    assert (told.on_duty, told.is_busy, told.has_push, told.as_of_ms, changed) == (False, True, True, NOW_MS + 9, True)
    assert told.types_off == "text"
    # What of an earlier instant is kept: who they are, and that they are here.
    assert (told.mechanic_id, told.is_online) == (online.mechanic_id, True)


def test_older_facts_never_overwrite_newer_ones():
    newer, _ = liveness.with_facts(status(), facts(3, is_busy=True), now_ms=NOW_MS)
    assert liveness.with_facts(newer, facts(2), now_ms=NOW_MS + 5) == (newer, False)


def test_facts_that_say_the_same_are_kept_but_not_announced():
    kept, changed = liveness.with_facts(status(), facts(2), now_ms=NOW_MS + 5)
    assert (kept.facts_version, kept.version, changed) == (2, NOW_MS, False)


def test_facts_that_a_node_of_the_version_before_has_brought_without_what_is_switched_off_are_made_whole():
    half, _ = liveness.with_facts(status(), facts(2), now_ms=NOW_MS)
    whole, changed = liveness.with_facts(half, facts(2, types_off="text"), now_ms=NOW_MS + 5)
    assert (whole.types_off, changed) == ("text", True)
    assert liveness.with_facts(whole, facts(2, types_off="text"), now_ms=NOW_MS + 6) == (whole, False)
    assert liveness.with_facts(whole, facts(1, types_off="video"), now_ms=NOW_MS + 6) == (whole, False)


@pytest.mark.parametrize(
    ("off", "shown"),
    [
        ("", ["diagnostic", "text", "video"]),
        ("text", ["diagnostic", "video"]),
        ("video,diagnostic", ["text"]),
        ("phone_call", ["diagnostic", "text", "video"]),
    ],
)
def test_a_status_shows_which_sessions_are_taken_always_in_the_same_order(off, shown):
    assert liveness.view(status(of=facts(types_off=off))).session_types == shown


def test_being_seen_again_is_no_change_and_never_goes_back():
    seen = liveness.with_seen(status(), NOW_MS)
    assert (seen.last_seen_ms, seen.version) == (NOW_MS, NOW_MS)
    assert liveness.with_seen(seen, NOW_MS - 1) == seen


def test_somebody_offline_whom_redis_did_not_know_is_not_announced():
    assert liveness.first_status(facts(), online=False, now_ms=NOW_MS)[1] is False
    assert liveness.first_status(facts(), online=True, now_ms=NOW_MS)[1] is True


@pytest.mark.parametrize(
    ("online", "on_duty", "is_busy", "has_push", "availability", "reachable"),
    [
        (True, True, False, False, "available", "socket"),
        (True, True, True, False, "busy", "socket"),
        (True, False, True, False, "busy", "socket"),
        (True, False, False, True, "off_duty", "socket"),
        (False, True, False, False, "offline", "none"),
        (False, True, False, True, "offline", "push"),
        (False, False, True, True, "offline", "push"),
    ],
)
def test_the_four_facts_show_as_the_words_of_the_contract(online, on_duty, is_busy, has_push, availability, reachable):
    told = status(online=online, of=facts(on_duty=on_duty, is_busy=is_busy, has_push=has_push))
    shown = liveness.view(told)
    assert (shown.availability, shown.reachable, shown.is_online) == (availability, reachable, online)
    assert liveness.is_available(told) == (availability == "available")


def test_never_seen_is_null_and_instants_are_rfc_3339():
    shown = liveness.view(status(online=False))
    assert shown.last_seen is None
    assert shown.as_of == "2026-11-18T11:06:40.000Z"


def test_a_message_from_redis_is_read_as_it_was_written():
    read = parse("01ABC 1795000000001 1 0 1 1 7 1795000000000 1795000000002")
    assert read == MechanicStatus("01ABC", NOW_MS + 1, True, False, True, True, 7, NOW_MS, NOW_MS + 2)
    assert parse("01ABC 5 0 1 0 0 1 - 6").last_seen_ms is None


def test_a_message_says_what_is_switched_off_last_and_one_of_the_version_before_that_nothing_is():
    assert parse("01ABC 5 0 1 0 0 1 - 6 text,video").types_off == "text,video"
    assert parse("01ABC 5 0 1 0 0 1 - 6").types_off == ""


def test_a_mechanics_shard_is_the_same_in_every_process():
    # Written down, because another number after an upgrade would look for everybody elsewhere.
    assert shard_of("01M81ZH3B7SQFG03AJM1SEHMZJ", 16) == 3
    assert {shard_of(f"m{number}", 16) for number in range(1_000)} == set(range(16))
    assert {shard_of(f"m{number}", 1) for number in range(100)} == {0}


@dataclass
class Told:
    """The simple model's memory of one node: everything that ever happened on it, in order, and nothing else."""

    happened: list[tuple[str, int, int]] = field(default_factory=list)
    """What, to which device's socket, and until when it matters at most."""
    alive_until_ms: int = 0

    def sockets(self, until: int | None = None) -> set[int]:
        """Return the devices with an open socket, after the first so many events (``None``: after all)."""
        devices = set()
        for what, device, _ in self.happened[:until]:
            (devices.discard if what == "closed" else devices.add)(device)
        return devices

    def forget(self) -> None:
        """Sockets stay open, but what was heard of them counts no more: Redis has forgotten it, or swept it."""
        self.happened = [("opened", device, 0) for device in self.sockets()]

    def holds(self, now_ms: int) -> bool:
        """By brute force: is there a sign of life that neither the time-out nor an empty node has ended since?"""
        if now_ms >= self.alive_until_ms:
            return False
        for position, (what, _, ends_ms) in enumerate(self.happened):
            emptied = [
                self.happened[later][2]
                for later in range(position + 1, len(self.happened))
                if self.happened[later][0] == "closed" and not self.sockets(later + 1)
            ]
            if what != "closed" and min([ends_ms, *emptied]) > now_ms:
                return True
        return False


class OneMechanicOnManyNodes(RuleBasedStateMachine):
    """Devices that come, beat (also late) and go, on nodes that die, freeze and return; sweeps, facts in any order, and a
    Redis that forgets. A watcher keeps the newest of what it is told.
    """

    nodes = st.sampled_from(["a", "b", "c"])

    @initialize()
    def begin(self) -> None:
        self.now_ms = NOW_MS
        self.told = {node: Told() for node in "abc"}
        self.asleep: set[str] = set()
        self.devices = 0
        self.open: list[tuple[str, int]] = []
        self.leases: dict[str, int] = {}
        self.node_ends: dict[str, int] = {}
        self.newest_facts = facts()
        self.status: MechanicStatus | None = None
        self.watched: MechanicStatus | None = None
        self.announced: list[int] = []

    @rule(ms=st.sampled_from([1, 200, 2_999, 3_000, 4_999, 5_000, 20_000, 45_000]), is_swept=st.booleans())
    def time_passes(self, ms: int, is_swept: bool) -> None:
        self.now_ms += ms
        for node in self.told.keys() - self.asleep:
            self._renew(node)
        if is_swept:
            self.somebody_sweeps()

    @rule(
        of=st.sampled_from(["mechanic", "mechanic", "node"]),
        off_ms=st.sampled_from([-1, 0, 0, 1]),
        is_swept=st.booleans(),
    )
    def time_passes_until_a_lease_ends(self, of: str, off_ms: int, is_swept: bool) -> None:
        ends = (self.leases if of == "mechanic" else self.node_ends).values()
        if later := [end for end in ends if end > self.now_ms + 1]:
            self.time_passes(min(later) - self.now_ms + off_ms, is_swept)

    @rule(node=nodes)
    def a_node_dies_or_freezes(self, node: str) -> None:
        # To the others there is no difference.
        self.asleep.add(node)

    @rule(node=nodes)
    def a_node_renews_its_own_lease(self, node: str) -> None:
        self.asleep.discard(node)
        self._renew(node)

    def _renew(self, node: str) -> None:
        self.node_ends[node] = self.told[node].alive_until_ms = self.now_ms + NODE_LEASE_MS

    @rule(node=nodes)
    def a_device_connects(self, node: str) -> None:
        self.devices += 1
        self.open.append((node, self.devices))
        self._hear(node, "opened", self.devices, self.now_ms)

    @precondition(lambda self: self.open)
    @rule(pick=st.integers(0, 3), delay_ms=st.sampled_from([-10_000, 0, 150, 44_999, 45_000]))
    def a_heartbeat_arrives(self, pick: int, delay_ms: int) -> None:
        node, device = self.open[pick % len(self.open)]
        self._hear(node, "heard", device, self.now_ms - delay_ms)

    def _hear(self, node: str, what: str, device: int, heard_at_ms: int) -> None:
        end = liveness.renewed(self.leases.get(node), heard_at_ms, self.now_ms, TIMEOUT_MS)
        if end is not None:
            self.leases[node] = end
        self.told[node].happened.append((what, device, min(heard_at_ms, self.now_ms) + TIMEOUT_MS))

    @precondition(lambda self: self.open)
    @rule(pick=st.integers(0, 3))
    def a_socket_closes(self, pick: int) -> None:
        node, device = self.open.pop(pick % len(self.open))
        if node not in {other for other, _ in self.open}:
            end = liveness.released(self.leases.get(node), self.now_ms, GRACE_MS)
            if end is not None:
                self.leases[node] = end
        self.told[node].happened.append(("closed", device, self.now_ms + GRACE_MS))

    @rule(version=st.integers(1, 6), on_duty=st.booleans(), is_busy=st.booleans())
    def facts_arrive(self, version: int, on_duty: bool, is_busy: bool) -> None:
        arrived = facts(version, on_duty=on_duty, is_busy=is_busy)
        if self.status is not None:
            if arrived.version > self.newest_facts.version:
                self.newest_facts = arrived
            self._tell(*liveness.with_facts(self.status, arrived, now_ms=self.now_ms))

    @rule()
    def somebody_sweeps(self) -> None:
        self.leases = {
            node: end
            for node, end in self.leases.items()
            if liveness.is_live(end, self.now_ms) and liveness.is_live(self.node_ends.get(node), self.now_ms)
        }
        for node, told in self.told.items():
            if node not in self.leases:
                told.forget()
        self._settle()

    @rule()
    def redis_forgets(self) -> None:
        # A restart takes longer than the milliseconds by which versions can be ahead of the clock.
        self.now_ms = max([self.now_ms, *self.announced]) + 1
        self.status = None
        self.leases, self.node_ends = {}, {}
        for told in self.told.values():
            told.forget()
            told.alive_until_ms = 0
        self._settle()
        # Whoever watches reads again then: nobody announces that somebody is not there any more.
        assert self.status is not None
        if self.watched is not None:
            assert self.status.version > self.watched.version
        self.watched = self.status

    def _settle(self) -> None:
        online = liveness.is_online(self.leases, self.node_ends, self.now_ms)
        if self.status is None:
            self._tell(*liveness.first_status(self.newest_facts, online=online, now_ms=self.now_ms))
        else:
            self._tell(*liveness.with_online(self.status, online=online, now_ms=self.now_ms))
        assert self.status is not None and self.status.is_online == online

    def _tell(self, status: MechanicStatus, is_change: bool) -> None:
        self.status = status
        if is_change:
            self.announced.append(status.version)
            if self.watched is None or status.version > self.watched.version:
                self.watched = status

    @invariant()
    def online_is_what_the_brute_force_says(self) -> None:
        expected = any(told.holds(self.now_ms) for told in self.told.values())
        assert liveness.is_online(self.leases, self.node_ends, self.now_ms) == expected

    @invariant()
    def announced_versions_only_grow(self) -> None:
        assert self.announced == sorted(set(self.announced))

    @invariant()
    def what_was_announced_is_all_that_a_watcher_needs(self) -> None:
        if self.watched is not None and self.status is not None:
            shown, true = liveness.view(self.watched), liveness.view(self.status)
            assert (shown.version, shown.availability, shown.reachable) == (
                true.version,
                true.availability,
                true.reachable,
            )

    @invariant()
    def the_newest_facts_are_in_the_status(self) -> None:
        if self.status is not None:
            newest = self.newest_facts
            assert (self.status.on_duty, self.status.is_busy) == (newest.on_duty, newest.is_busy)
            assert self.status.facts_version == newest.version


TestOneMechanicOnManyNodes = OneMechanicOnManyNodes.TestCase
# Its brute force makes it slower than others.
TestOneMechanicOnManyNodes.settings = settings(max_examples=settings.default.max_examples // 2)
