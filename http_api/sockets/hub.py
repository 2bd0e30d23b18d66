"""All sockets of this node: who opens one, what the other nodes have to say to it, and what time does to it.

bus ──► _hear ──► queue ──► _deliver (one loop, in order; large fan-outs in slices) ──► connections ──► sockets
clock ──► _keep_time (one loop): silence, token expiry, pings, offers that nobody has acknowledged
gap ──► _heal (one loop): fresh snapshots for everybody
"""

from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from time import monotonic
from typing import Any, Final, Generic, TypeVar

import anyio
import msgspec
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskGroup, TaskStatus
from anyio.lowlevel import checkpoint
from starlette.responses import Response
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from dispatch import deliveries
from dispatch.deliveries import Delivery, Facts, OfferTo, ToCustomer, Told, ToMechanic, Withdraw
from dispatch.snapshots import MechanicSnapshot, Snapshots
from http_api.rest import problems
from http_api.services import Services
from http_api.sockets import close_codes
from http_api.sockets.batches import Batches
from http_api.sockets.connection import UNAVAILABLE, Connection, SocketTimes
from http_api.sockets.customer import CustomerConnection
from http_api.sockets.frames import frame_text
from http_api.sockets.handshake import identify, unauthenticated, unavailable
from http_api.sockets.mechanic import MechanicConnection
from http_api.sockets.open_offers import OpenOffers
from http_api.sockets.protocol import EXTENSION, SocketCounters, SocketLimits
from models import wire
from models.timestamps import rfc3339
from models.wire import HeartbeatAck, OfferWithdrawn, RequestView

SLICE_S: Final = 0.005
"""How long a fan-out may keep the loop to itself."""
SLICE_LOOK_LEN: Final = 32
"""How many sockets are served between two looks at the clock."""
QUEUE_LEN_MAX: Final = 10_000
"""Deliveries waiting; beyond it they are dropped and everybody gets a snapshot instead."""
HEALERS: Final = 100
"""How many connections wait for their snapshots at once after a gap; read together, they are one."""
HEAL_AGAIN_S: Final = 1.0
"""How long to leave the database alone after a snapshot could not be read."""
TICK_S: Final = 0.25
TICK_MIN_S: Final = 0.01
DRAIN_TIMEOUT_S: Final = 5.0

C = TypeVar("C", bound=Connection)


class ConnectionTable(Generic[C]):
    """Connections by account; most accounts have one."""

    def __init__(self) -> None:
        self._by_account: dict[str, tuple[C, ...]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, connection: C) -> None:
        """Add one."""
        self._by_account[connection.account_id] = (*self.of(connection.account_id), connection)
        self._count += 1

    def remove(self, connection: C) -> None:
        """Remove one; idempotent."""
        before = self.of(connection.account_id)
        rest = tuple(other for other in before if other is not connection)
        self._count -= len(before) - len(rest)
        if rest:
            self._by_account[connection.account_id] = rest
        else:
            self._by_account.pop(connection.account_id, None)

    def of(self, account_id: str) -> tuple[C, ...]:
        """Return the connections of one account."""
        return self._by_account.get(account_id, ())

    def all(self) -> list[C]:
        """Return everybody as of now, safe to go through while they come and go."""
        return [connection for connections in self._by_account.values() for connection in connections]


class Hub:
    """This node's sockets. ``routes`` are for the app, ``run`` for the process."""

    def __init__(
        self, services: Services, *, resend_interval_ms: int = 5_000, snapshots: Snapshots | None = None
    ) -> None:
        """``snapshots``: where to read what a welcome needs; those of the services' database if ``None``."""
        snapshots = snapshots or Snapshots(services.database, services.clock)
        self.services = services
        self.mechanic_snapshots: Batches[MechanicSnapshot] = Batches(snapshots.of_mechanics)
        self.customer_snapshots: Batches[list[RequestView]] = Batches(snapshots.of_customers)
        self.recent_requests: Batches[list[RequestView]] = Batches(snapshots.recent_requests_of)
        self.mechanics: ConnectionTable[MechanicConnection] = ConnectionTable()
        self.customers: ConnectionTable[CustomerConnection] = ConnectionTable()
        self.offers: OpenOffers[MechanicConnection] = OpenOffers(resend_interval_ms / 1000)
        self.counters = SocketCounters()
        self.limits = SocketLimits.of(services.settings)
        self.times = SocketTimes(
            services.settings.heartbeat_interval_ms / 1000, services.settings.presence_timeout_ms / 1000
        )
        self.routes = [
            WebSocketRoute("/ws/mechanic", self._open_mechanic),
            WebSocketRoute("/ws/customer", self._open_customer),
        ]
        self.is_draining = False
        # A tenth of the shortest wait, so that nothing is noticeably late.
        shortest_s = min(self.times.timeout_s, self.times.heartbeat_interval_s, resend_interval_ms / 1000)
        self._tick_s = max(TICK_MIN_S, min(TICK_S, shortest_s / 10))
        self._channel = deliveries.channel(services.link)
        self._queue: deque[Delivery] = deque()
        self._has_deliveries = anyio.Event()
        self._stale: dict[Connection, None] = {}
        """Who is to be brought up to date, in order."""
        self._has_stale = anyio.Event()
        self._acked_at_ms = -1
        self._ack = b""
        self._tasks: TaskGroup | None = None
        self._jobs_in_hand = 0
        self._is_idle = anyio.Event()
        self._log = structlog.get_logger("hub").bind(node_id=services.node_id)

    @property
    def connection_counts(self) -> dict[str, int]:
        """Sockets by role."""
        return {"mechanic": len(self.mechanics), "customer": len(self.customers)}

    # --- the life of it -----------------------------------------------------------------------------------------------

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; handshakes are refused before. Reports as started once it hears the other nodes."""
        self.services.bus.on_gap(self._note_gap)
        try:
            async with anyio.create_task_group() as self._tasks:
                await self.services.bus.subscribe(self._channel, handler=self._hear)
                self._tasks.start_soon(self.mechanic_snapshots.run)
                self._tasks.start_soon(self.customer_snapshots.run)
                self._tasks.start_soon(self.recent_requests.run)
                self._tasks.start_soon(self._deliver)
                self._tasks.start_soon(self._keep_time)
                self._tasks.start_soon(self._heal)
                task_status.started()
        finally:
            self._tasks = None

    async def drain(self) -> None:
        """Refuse new sockets, send 1012 to the open ones, and return when their jobs are done or after some seconds."""
        self.is_draining = True
        open_ones = [*self.mechanics.all(), *self.customers.all()]
        await self._in_slices(open_ones, lambda one: one.close(close_codes.RESTARTING, "the server restarts"))
        with anyio.move_on_after(DRAIN_TIMEOUT_S):
            while self._jobs_in_hand:
                await self._is_idle.wait()

    def start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a connection's work; for connections. After the end of ``run`` nothing is worked on any more."""
        if self._tasks is not None:
            self._jobs_in_hand += 1
            if self._is_idle.is_set():
                self._is_idle = anyio.Event()
            self._tasks.start_soon(self._count_work, work)

    def remove(self, connection: Connection) -> None:
        """Forget a connection; idempotent."""
        table: ConnectionTable[Any] = self.mechanics if isinstance(connection, MechanicConnection) else self.customers
        table.remove(connection)

    async def _count_work(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        finally:
            self._jobs_in_hand -= 1
            if not self._jobs_in_hand:
                self._is_idle.set()

    def heartbeat_ack(self) -> bytes:
        """Return the frame that answers a heartbeat now; for connections. Made once for all those of a millisecond."""
        now_ms = self.services.clock.now_ms()
        if now_ms != self._acked_at_ms:
            self._acked_at_ms = now_ms
            self._ack = frame_text(wire.encode(HeartbeatAck(rfc3339(now_ms))))
        return self._ack

    # --- handshakes ---------------------------------------------------------------------------------------------------

    async def _open_mechanic(self, websocket: WebSocket) -> None:
        identity = await self._identified(websocket, "mechanic")
        if identity is not None:
            await self._open(websocket, MechanicConnection(self, identity), self.mechanics)

    async def _open_customer(self, websocket: WebSocket) -> None:
        identity = await self._identified(websocket, "customer")
        if identity is not None:
            await self._open(websocket, CustomerConnection(self, identity), self.customers)

    async def _open(self, websocket: WebSocket, connection: C, table: ConnectionTable[C]) -> None:
        """Read the snapshot, accept, and hand over; known to the hub from the first, so that no change is missed."""
        table.add(connection)
        try:
            refusal = await self._refusal(websocket, connection)
            if refusal is not None:
                await websocket.send_denial_response(refusal)
                return
            await websocket.accept()
            websocket.scope["extensions"][EXTENSION](connection, self.limits, self.counters)
        finally:
            if not connection.is_open:
                table.remove(connection)

    async def _refusal(self, websocket: WebSocket, connection: Connection) -> Response | None:
        """Return why this connection cannot be opened, or ``None``: then its snapshot has been read."""
        try:
            is_known = await connection.prepare()
        except UNAVAILABLE as error:
            return problems.failure(error, where=websocket.scope["path"])
        if not is_known:
            return unauthenticated()
        # The drain may have begun while we were asking.
        return unavailable() if self._is_closed_to_all else None

    async def _identified(self, websocket: WebSocket, role: Any) -> Any:
        who = unavailable() if self._is_closed_to_all else await identify(websocket, role, self.services)
        if isinstance(who, Response):
            await websocket.send_denial_response(who)
            return None
        return who

    @property
    def _is_closed_to_all(self) -> bool:
        return self.is_draining or self._tasks is None

    # --- what other nodes say -----------------------------------------------------------------------------------------

    def _hear(self, message: str) -> None:
        """Queue one delivery; the bus calls this."""
        try:
            delivery = deliveries.decode(message)
        except msgspec.DecodeError as error:
            # A node of another version, perhaps: what it meant reaches our sockets with the next snapshot.
            self._log.error("delivery_not_understood", error=str(error))
            return
        if isinstance(delivery, ToCustomer):
            # Customers get nothing else from here, so it cannot overtake anything by not waiting for its turn.
            self._frame_for(self.customers.of(delivery.account_id), delivery.frame, delivery.told)
            return
        if len(self._queue) >= QUEUE_LEN_MAX:
            self._log.error("deliveries_dropped", count=len(self._queue))
            self._queue.clear()
            self._note_gap()
        self._queue.append(delivery)
        self._has_deliveries.set()

    async def _deliver(self) -> None:
        while True:
            await self._has_deliveries.wait()
            self._has_deliveries = anyio.Event()
            while self._queue:
                await self._deliver_one(self._queue.popleft())

    async def _deliver_one(self, delivery: Delivery) -> None:
        match delivery:
            case OfferTo():
                await self._offer(delivery)
            case Withdraw():
                await self._withdraw(delivery)
            case ToMechanic(mechanic_id, frame, told):
                self._frame_for(self.mechanics.of(mechanic_id), frame, told)
            case Facts(mechanic_id, on_duty, is_busy):
                for connection in self.mechanics.of(mechanic_id):
                    connection.take_facts(on_duty, is_busy)

    def _frame_for(self, connections: Iterable[Connection], payload: msgspec.Raw, told: Told | None) -> None:
        if connections:
            frame = frame_text(bytes(payload))
            for connection in connections:
                connection.tell(frame, told)

    async def _offer(self, delivery: OfferTo) -> None:
        now_s, now_ms = monotonic(), self.services.clock.now_ms()
        if delivery.mechanic_id is not None and not self.mechanics.of(delivery.mechanic_id):
            return
        shown = self.offers.opened(delivery.offer, delivery.expires_at_ms)
        if shown is None or now_ms >= delivery.expires_at_ms:
            return
        frame = shown.frame(now_ms)
        if delivery.mechanic_id is not None:
            for connection in self.mechanics.of(delivery.mechanic_id):
                connection.show(shown, frame, now_s)
            return
        excluded = frozenset(delivery.excluded)

        def show_if_eligible(connection: MechanicConnection) -> None:
            if connection.account_id not in excluded:
                connection.show_if_eligible(shown, frame, now_s)

        await self._in_slices(self.mechanics.all(), show_if_eligible)

    async def _withdraw(self, delivery: Withdraw) -> None:
        offer_id = delivery.offer_id
        frame = frame_text(wire.encode(OfferWithdrawn(offer_id, delivery.reason)))
        if delivery.only_mechanic_id is not None:
            self.offers.declined(offer_id, delivery.only_mechanic_id)
            for connection in self.mechanics.of(delivery.only_mechanic_id):
                connection.withdraw(offer_id, frame)
            return
        self.offers.withdrawn(offer_id)

        def withdraw(connection: MechanicConnection) -> None:
            if connection.connection_id != delivery.except_connection_id:
                connection.withdraw(offer_id, frame)

        await self._in_slices(self.mechanics.all(), withdraw)

    async def _in_slices(self, connections: list[C], act: Callable[[C], None]) -> None:
        """Do something with many sockets, letting everybody else have a turn every few milliseconds."""
        slice_ends_s = monotonic() + SLICE_S
        for index, connection in enumerate(connections):
            act(connection)
            if index % SLICE_LOOK_LEN == 0 and monotonic() > slice_ends_s:
                await checkpoint()
                slice_ends_s = monotonic() + SLICE_S

    # --- what time does -----------------------------------------------------------------------------------------------

    async def _keep_time(self) -> None:
        while True:
            await anyio.sleep(self._tick_s)
            now_s, now_ms = monotonic(), self.services.clock.now_ms()

            def check(connection: Connection, now_s: float = now_s, now_ms: int = now_ms) -> None:
                connection.check_time(now_s, now_ms, self.times)

            await self._in_slices([*self.mechanics.all(), *self.customers.all()], check)
            for shown, viewers in self.offers.due(now_s, now_ms):
                frame = shown.frame(now_ms)

                def send_again(connection: MechanicConnection, frame: bytes = frame) -> None:
                    connection.deliver(frame)

                await self._in_slices(viewers, send_again)

    # --- gaps ---------------------------------------------------------------------------------------------------------

    def refresh_soon(self, connection: Connection) -> None:
        """Bring a socket up to date once SQL can be read: it may have missed something. For connections; never waits."""
        self._stale[connection] = None
        self._has_stale.set()

    def _note_gap(self) -> None:
        """The bus has been deaf, so everybody may have missed something."""
        everybody = (*self.mechanics.all(), *self.customers.all())
        self._log.warning("sockets_behind", connections=len(everybody))
        for connection in everybody:
            self.refresh_soon(connection)

    async def _heal(self) -> None:
        """Give a fresh snapshot to everybody who needs one, a few at a time; again and again to those whose cannot be read."""
        while True:
            await self._has_stale.wait()
            self._has_stale = anyio.Event()
            stale, self._stale = list(self._stale), {}
            unread: list[Connection] = []
            async with anyio.create_task_group() as healers:
                for _ in range(min(HEALERS, len(stale))):
                    healers.start_soon(self._refresh_all, stale, unread)
            if unread:
                await anyio.sleep(HEAL_AGAIN_S)
                for connection in unread:
                    self.refresh_soon(connection)

    async def _refresh_all(self, stale: list[Connection], unread: list[Connection]) -> None:
        while stale:
            connection = stale.pop()
            if not await connection.refresh_in_turn():
                unread.append(connection)
