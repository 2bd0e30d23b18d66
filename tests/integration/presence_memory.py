"""What Redis must remember of presence, by the rules of ``liveness.py`` alone: one shard, one method for each script.

Nothing here is clever: who is held is looked up anew each time, and every order is a plain sort. The scripts count holders
and keep indexes instead; ``test_presence_scripts.py`` compares the two step by step.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from models.settings import PresenceSettings
from presence import liveness
from presence.leases import Renewed, Swept
from presence.liveness import Facts, MechanicStatus


@dataclass
class Memory:
    """One shard. ``announced`` gathers the changes until they are taken."""

    settings: PresenceSettings
    leases: dict[str, dict[str, int]] = field(default_factory=dict)
    node_ends_ms: dict[str, int] = field(default_factory=dict)
    seen_ms: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, MechanicStatus] = field(default_factory=dict)
    epoch_ms: int | None = None
    announced: list[MechanicStatus] = field(default_factory=list)

    def renew(self, node_id: str, heard_at_ms: Mapping[str, int], now_ms: int) -> Renewed:
        was_forgotten = node_id not in self.node_ends_ms
        self.node_ends_ms[node_id] = now_ms + self.settings.node_lease_ms
        theirs = self.leases.setdefault(node_id, {})
        new_ids = []
        for mechanic_id, at_ms in heard_at_ms.items():
            self._see(mechanic_id, min(at_ms, now_ms))
            end_ms = liveness.renewed(theirs.get(mechanic_id), at_ms, now_ms, self.settings.timeout_ms)
            if end_ms is None:
                continue
            if mechanic_id not in theirs:
                new_ids.append(mechanic_id)
            theirs[mechanic_id] = end_ms
            self._settle(mechanic_id, now_ms)
        return Renewed(was_forgotten, new_ids)

    def release(self, node_id: str, ids: Collection[str], now_ms: int) -> None:
        theirs = self.leases.get(node_id, {})
        for mechanic_id in ids:
            end_ms = liveness.released(theirs.get(mechanic_id), now_ms, self.settings.grace_ms)
            if end_ms is not None:
                theirs[mechanic_id] = end_ms

    def renew_node(self, node_id: str, now_ms: int) -> tuple[int, bool, int, list[str]]:
        """Return the epoch, whether the lease held until now, how many of its own lapsed, and the other nodes that ended."""
        if self.epoch_ms is None:
            self.epoch_ms = now_ms
        held = liveness.is_live(self.node_ends_ms.get(node_id), now_ms)
        self.node_ends_ms[node_id] = now_ms + self.settings.node_lease_ms
        ended = [(end, node) for node, end in self.node_ends_ms.items() if not liveness.is_live(end, now_ms)]
        lapses = sum(not liveness.is_live(end, now_ms) for end in self.leases.get(node_id, {}).values())
        return self.epoch_ms, held, lapses, [node for _, node in sorted(ended)]

    def retire_node(self, node_id: str, now_ms: int) -> None:
        if node_id in self.node_ends_ms:
            self.node_ends_ms[node_id] = now_ms + self.settings.grace_ms

    def sweep(self, node_id: str, now_ms: int, *, is_own: bool, len_max: int) -> Swept:
        theirs = self.leases.get(node_id, {})
        in_order = [mechanic_id for _, mechanic_id in sorted((end, name) for name, end in theirs.items())]
        if is_own:
            lapsed = [name for name in in_order if not liveness.is_live(theirs[name], now_ms)][:len_max]
        else:
            if node_id not in self.node_ends_ms or liveness.is_live(self.node_ends_ms[node_id], now_ms):
                return Swept({}, has_more=False)
            lapsed = in_order[:len_max]
            if len(lapsed) < len_max:
                del self.node_ends_ms[node_id]
        gone = {}
        for mechanic_id in lapsed:
            del theirs[mechanic_id]
            self._settle(mechanic_id, now_ms)
            if not self._is_held(mechanic_id):
                gone[mechanic_id] = self.seen_ms.get(mechanic_id)
        return Swept(gone, has_more=len(lapsed) == len_max)

    def store_facts(self, facts: Facts, now_ms: int) -> MechanicStatus:
        if facts.last_seen_ms is not None:
            self._see(facts.mechanic_id, facts.last_seen_ms)
        status = self.statuses.get(facts.mechanic_id)
        if status is None:
            told = liveness.first_status(facts, online=self._is_held(facts.mechanic_id), now_ms=now_ms)
        else:
            told = liveness.with_facts(status, facts, now_ms=now_ms)
        self._tell(*told, now_ms)
        return self._as_of(self.statuses[facts.mechanic_id], now_ms)

    def read(self, ids: Collection[str], as_of_ms: int) -> list[MechanicStatus]:
        return [
            self._as_of(self.statuses[mechanic_id], as_of_ms) for mechanic_id in ids if mechanic_id in self.statuses
        ]

    def take_announced(self) -> list[MechanicStatus]:
        announced, self.announced = self.announced, []
        return announced

    def ends_ms(self) -> list[int]:
        """Return when leases end, of mechanics and of nodes."""
        return [*self.node_ends_ms.values(), *(end for theirs in self.leases.values() for end in theirs.values())]

    def available(self, session_type: str | None = None) -> set[str]:
        return {
            mechanic_id for mechanic_id, status in self.statuses.items() if liveness.is_available(status, session_type)
        }

    def holders(self, mechanic_id: str) -> int:
        """Return how many nodes have a lease of theirs; one that has ended counts until it is swept."""
        return sum(mechanic_id in theirs for theirs in self.leases.values())

    def _is_held(self, mechanic_id: str) -> bool:
        return self.holders(mechanic_id) > 0

    def _settle(self, mechanic_id: str, now_ms: int) -> None:
        status = self.statuses.get(mechanic_id)
        if status is not None:
            self._tell(*liveness.with_online(status, online=self._is_held(mechanic_id), now_ms=now_ms), now_ms)

    def _tell(self, status: MechanicStatus, is_change: bool, now_ms: int) -> None:
        self.statuses[status.mechanic_id] = status
        if is_change:
            self.announced.append(self._as_of(status, now_ms))

    def _see(self, mechanic_id: str, at_ms: int) -> None:
        self.seen_ms[mechanic_id] = max(at_ms, self.seen_ms.get(mechanic_id, at_ms))

    def _as_of(self, status: MechanicStatus, now_ms: int) -> MechanicStatus:
        return replace(status, last_seen_ms=self.seen_ms.get(status.mechanic_id), as_of_ms=now_ms)
