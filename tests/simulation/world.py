"""One world: a seed's whole history of nodes, people and misfortunes, from the first payment until all is quiet.

``play(seed, template)`` returns what was violated and the trace of every step; the same seed always gives the same trace.
"""

import gc
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import anyio
import structlog

from models.rest import CheckoutBody
from models.settings import DispatchSettings
from tests.simulation import loop as loops
from tests.simulation.clocks import NodeClock, NumberedIds
from tests.simulation.ground import Ground
from tests.simulation.invariants import BUGS, NODES, Watch
from tests.simulation.life import current_life
from tests.simulation.loop import Stalled, VirtualLoop
from tests.simulation.misfortunes import Misfortunes
from tests.simulation.node import Node, Unreachable
from tests.simulation.people import Client, CustomerPage, MechanicApp, Operator
from tests.simulation.sql import Kind, warm_up
from tests.simulation.stripe import SIGNATURE

CHAOS_S = 3.0
"""How long misfortunes happen, in virtual seconds."""
TOLD_WITHIN_S = 12.0
"""After the last of them, how long it may take until everybody knows the truth: leases of the outbox, reconnects, re-sends."""
SETTLED_WITHIN_S = 40.0
"""Beyond the windows: sessions, refunds, and the seconds for which a dead node's attempt at a refund holds."""
LAPS_MAX = 20
"""How often, while everybody is being told, a payment may arrive or a mechanic give a request back: more than there are of them."""
LOOK_S = 0.25
ROOMY = {
    "dispatch.push.planner.POLL_S": 5.0,
    "dispatch.money.refunds.ATTEMPT_LEASE_MS": 6_000,
    "dispatch.money.stripe_events.LEASE_MS": 6_000,
}
"""Bounds that only cost time here: idle looks at SQL are most of what a world costs."""
PLANS = ("quick_chat", "expert_video")


@dataclass(frozen=True)
class Run:
    """What became of a seed."""

    seed: int
    violations: list[tuple[str, str]]
    trace: list[str]

    @property
    def broken(self) -> set[str]:
        """The invariants that did not hold."""
        return {invariant for invariant, _ in self.violations}


def play(seed: int, template: Path, kind: Kind | None = None) -> Run:
    """Play the world of ``seed``; ``template`` is a migrated, empty SQLite database to copy.

    ``kind`` of SQL server: the seed's own choice if ``None``.
    """
    warm_up()
    loop = VirtualLoop()
    with tempfile.TemporaryDirectory(prefix="pitlane-world-") as folder:
        database = Path(folder) / "world.sqlite3"
        shutil.copyfile(template, database)
        world = World(seed, loop, database, kind)
        with world.laws(), _without_collecting():
            try:
                loops.run(world.history(), loop)
            except Stalled as stalled:
                world.watch.violated(NODES, str(stalled))
            finally:
                world.sql.close()
    return Run(seed, world.watch.violations, world.trace)


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Leave the garbage until the world is over: looking for it all the time is a third of what a world costs."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class World(Ground):
    """Everybody on one ground, and their history."""

    def __init__(self, seed: int, loop: VirtualLoop, database: Path, kind: Kind | None) -> None:
        super().__init__(seed, loop, database, kind)
        self.stripe.send_event = lambda payload: self.start(self._deliver_event, payload)
        self.settings = DispatchSettings(
            # Of the long ones some are open when all is calm: then their customers must know how the favourite is.
            priority_window_ms=20_000 if self.chance.happens(0.25) else self.chance.count(300, 2_000),
            broadcast_window_ms=self.chance.one_of([1_000, 2_000, 3_000, 20_000]),
            start_window_ms=self.chance.one_of([self.chance.count(150, 600), self.chance.count(150, 2_000)]),
            session_grace_ms=self.chance.count(100, 1_000),
            refund_retry_max_ms=4_000,
        )
        self.watch = Watch(self, self.sql.take(), self.settings)
        self.sql.on_commit = self.watch.after_commit
        self.nodes: list[Node | None] = [None] * self.chance.one_of([2, 2, 2, 3])
        self.mechanics = [f"mechanic-{number}" for number in range(self.chance.count(2, 3))]
        self.customers = [f"customer-{number}" for number in range(self.chance.count(1, 2))]
        self._settle_down()
        # The first mechanic has two devices.
        names = [*self.mechanics, self.mechanics[0]]
        ground = (self, self.any_node, self.watch)
        self.apps = [MechanicApp(*ground, one, f"app-{place}") for place, one in enumerate(names)]
        self.pages = [CustomerPage(*ground, one, f"page-{place}") for place, one in enumerate(self.customers)]
        self.operator = Operator(self, self.any_node)
        self.watch.look_also_at(self.apps, self.pages)

    def _settle_down(self) -> None:
        raw = self.sql.take()
        everybody = [(one, "mechanic") for one in self.mechanics] + [(one, "customer") for one in self.customers]
        raw.executemany(
            "INSERT INTO accounts (id, role, email, name, free_session_used, created_at_ms) VALUES (?, ?, ?, ?, 0, 1)",
            [(one, role, f"{one}@example.com", one) for one, role in everybody],
        )
        raw.executemany(
            "INSERT INTO mechanics (id, provider_type, on_duty, has_push, facts_version) VALUES (?, 'workshop', 1, 0, 1)",
            [(one,) for one in self.mechanics],
        )
        raw.executemany(
            "INSERT INTO duty_intervals (mechanic_id, started_at_ms) VALUES (?, 0)", [(one,) for one in self.mechanics]
        )
        # Sessions that nobody ends are ended within the world: at once, but for the grace; in a few worlds after a minute.
        long_min = 1 if self.chance.happens(0.1) else 0
        self.sessions_s = long_min * 60
        """How long sessions may go on without anybody's doing, beyond the grace."""
        raw.execute("UPDATE plans SET duration_min = CASE id WHEN ? THEN ? ELSE 0 END", (PLANS[0], long_min))
        self.sql.give_back(raw)

    # --- who is there -------------------------------------------------------------------------------------------------

    def any_node(self) -> Node | None:
        """Return a node that serves, as a load balancer would; ``None`` if there is none."""
        serving = [node for node in self.nodes if node is not None and node.is_serving]
        return self.chance.one_of(serving) if serving else None

    def living(self) -> list[Node]:
        """Return the nodes that have not been killed, whether they serve or not."""
        return [node for node in self.nodes if node is not None and not node.life.is_over]

    def clients(self) -> list[Client]:
        """Return everybody who has a socket."""
        return [*self.apps, *self.pages]

    @contextmanager
    def laws(self) -> Iterator[None]:
        """Give the code inside this world's clocks, ids and log."""
        before = structlog.get_config()
        with ExitStack() as stack:
            stack.enter_context(patch("infra.clock.time", NodeClock(self.loop)))
            stack.enter_context(patch("models.ids.ULID", NumberedIds(self.loop)))
            for constant, value in ROOMY.items():
                stack.enter_context(patch(constant, value))
            for module in ("hub", "inbox", "connection", "mechanic"):
                stack.enter_context(patch(f"http_api.sockets.{module}.monotonic", self.loop.time))
            stack.enter_context(patch("infra.slices.monotonic", self.loop.time))
            structlog.configure(processors=[self._take_log], cache_logger_on_first_use=False)
            stack.callback(structlog.configure, **before)
            yield

    def _take_log(self, _logger: Any, method: str, event: dict[str, Any]) -> Any:
        self.note(current_life.get().name, f"log {event['event']}")
        if method == "exception" or event.get("exc_info"):
            self.watch.violated(BUGS, f"{event['event']}: {event}")
        raise structlog.DropEvent

    # --- its history --------------------------------------------------------------------------------------------------

    async def history(self) -> None:
        """Let it all happen."""
        misfortunes = Misfortunes(self, self.living, self.clients)
        async with anyio.create_task_group() as self._tasks:
            for slot in range(len(self.nodes)):
                self.start(self._keep_running, slot)
            for client in self.clients():
                self.start(client.live)
            self._plan_purchases()
            misfortunes.plan(CHAOS_S)
            self.start(self._banks)
            await anyio.sleep(CHAOS_S)
            self.calm_since_s = self.loop.time()
            misfortunes.end()
            await self._until_nothing(self.watch.untrue, TOLD_WITHIN_S)
            windows_ms = self.settings.priority_window_ms + self.settings.broadcast_window_ms * 2
            windows_s = windows_ms / 1000 + self.sessions_s
            for _ in range(LAPS_MAX):
                await self._until_nothing(self.watch.unsettled, windows_s + SETTLED_WITHIN_S)
                await self._until_nothing(self.watch.untrue, TOLD_WITHIN_S)
                if not self.watch.unsettled():
                    break
            if not self.watch.violations:
                self.watch.judge_end()
            for node in self.nodes:
                if node is not None:
                    node.life.end("end of the world")
            self._tasks.cancel_scope.cancel()

    async def _until_nothing(self, look: Callable[[], list[tuple[str, str]]], within_s: float) -> None:
        """Wait until ``look`` finds nothing any more; what it finds after the bound was violated."""
        ends_s = self.loop.time() + within_s
        while not self.watch.violations and (found := look()):
            self.watch.look_at_lateness()
            if self.loop.time() > ends_s:
                for invariant, what in found:
                    self.watch.violated(invariant, what)
            await anyio.sleep(LOOK_S)

    async def _keep_running(self, slot: int) -> None:
        """Run a node, and another one in its place whenever it has died."""
        count = 0
        while True:
            node = self.nodes[slot] = Node(self, self.watch, f"node-{slot}.{count}", self.settings)
            await node.run()
            self.nodes[slot] = None
            count += 1
            await anyio.sleep(self.chance.between(0.05, 1))

    def _plan_purchases(self) -> None:
        # In some worlds all want the same mechanic, and most have to wait for one who is busy.
        popular = self.mechanics[0] if self.chance.happens(0.3) else None
        for number in range(self.chance.one_of([1, 2, 2, 3])):
            favorite = popular or (self.chance.one_of(self.mechanics) if self.chance.happens(0.5) else None)
            routing = "broadcast" if favorite is None else "priority_broadcast"
            body = CheckoutBody(self.chance.one_of(PLANS), routing, favorite)
            page = self.chance.one_of(self.pages)
            self.after(
                self.chance.between(0.05, 1.2),
                lambda page=page, body=body, key=f"key-{number}": self.start(page.buy, body, key),
            )
        for app in self.apps:
            if self.chance.happens(0.3):
                self.after(self.chance.between(0, 1), lambda app=app: self.start(app.change_duty))
        if self.chance.happens(0.3):
            self.after(self.chance.between(0.5, CHAOS_S), self._operator_intervenes)

    def _operator_intervenes(self) -> None:
        if seen := [request_id for page in self.pages for request_id in page.seen]:
            self.start(self.operator.intervene, self.chance.one_of(seen))

    # --- Stripe's side ------------------------------------------------------------------------------------------------

    async def _deliver_event(self, payload: bytes) -> None:
        """Send a webhook until it is taken: perhaps late, perhaps twice, in no particular order."""
        for _ in range(2 if self.chance.happens(0.3) else 1):
            await anyio.sleep(self.chance.between(0, 1.5) if self.chance.happens(0.3) else self.chance.delay_s())
            is_taken = False
            while not is_taken:
                is_taken = await self._is_taken(payload)
                await anyio.sleep(self.chance.between(0.2, 1))

    async def _is_taken(self, payload: bytes) -> bool:
        node = self.any_node()
        if node is None:
            return False
        try:
            return await node.call(lambda: node.payments.receive_webhook(payload, SIGNATURE)) is None
        except Unreachable:
            return False

    async def _banks(self) -> None:
        while True:
            await anyio.sleep(1)
            self.stripe.settle_refunds(failing=0.0 if self.is_calm else 0.2)
            if self.chance.happens(0.3) or self.is_calm:
                self.stripe.close_disputes()
            if self.is_calm:
                self.start(self.operator.retry_failed)
