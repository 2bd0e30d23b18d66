"""All sockets of this node: who opens one, and what time does to it.

handshake ──► tables, one per kind ──► connections ──► sockets
inbox       ──► connections     what the other nodes have to say
clock       ──► _keep_time      silence, token expiry, pings, offers that nobody has acknowledged
a gap       ──► stale           fresh snapshots for everybody
"""

from collections.abc import Callable, Collection, Mapping
from time import monotonic
from typing import Final, Literal

import anyio
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus
from starlette.responses import Response
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from accounts.revocations import Revocations
from dispatch.push.pages import OpenPages
from dispatch.reading.reader import Reader
from dispatch.service import Dispatch
from http_api.auth import Identity, admit
from http_api.edge.connections import refused
from http_api.rest import problems
from http_api.sockets import close_codes
from http_api.sockets.batches import Batches
from http_api.sockets.connection import Connection, NodeParts, SocketTimes
from http_api.sockets.customer import CustomerConnection, CustomerParts
from http_api.sockets.handshake import Handshakes, too_many, unauthenticated, unavailable
from http_api.sockets.inbox import Inbox
from http_api.sockets.jobs import Jobs
from http_api.sockets.mechanic import MechanicConnection, MechanicParts
from http_api.sockets.places import Places
from http_api.sockets.protocol import EXTENSION, SocketCounters, SocketLimits
from http_api.sockets.shared_frames import HeartbeatAcks, StatusFrames
from http_api.sockets.shown_offers import ShownOffer, ShownOffers
from http_api.sockets.stale import Stale
from http_api.sockets.tables import ConnectionTable
from infra.bus import Bus, together
from infra.clock import Clock
from infra.loops import Loop, failing_alone, keep_running
from infra.slices import in_slices
from models.settings import DoorSettings
from presence.service import Presence

TICK_S: Final = 0.25
TICK_MIN_S: Final = 0.01
DRAIN_TIMEOUT_S: Final = 5.0


class Hub:
    """This node's sockets. ``routes`` are for the app, ``run`` for the process."""

    def __init__(
        self,
        *,
        settings: DoorSettings,
        clock: Clock,
        bus: Bus,
        channel: str,
        presence: Presence,
        dispatch: Dispatch,
        reader: Reader,
        handshakes: Handshakes,
        revocations: Revocations,
        pages: OpenPages,
        places: Places,
        resend_interval_ms: int,
    ) -> None:
        """``channel``: where the nodes tell each other's sockets, see ``dispatch.deliveries``."""
        self._clock = clock
        self._bus = bus
        self._channel = channel
        self._handshakes = handshakes
        self._revocations = revocations
        self._places = places
        self.times = SocketTimes(
            heartbeat_interval_s=settings.heartbeat_interval_ms / 1000,
            timeout_s=settings.presence_timeout_ms / 1000,
            grace_s=settings.disconnect_grace_ms / 1000,
        )
        self.limits = SocketLimits.of(settings)
        self.counters = SocketCounters()
        self.mechanics: ConnectionTable[MechanicConnection] = ConnectionTable()
        self.customers: ConnectionTable[CustomerConnection] = ConnectionTable()
        self.offers: ShownOffers[MechanicConnection] = ShownOffers(resend_interval_ms / 1000)
        self._inbox = Inbox(self.mechanics, self.customers, self.offers, clock, on_missed=self._note_gap)
        self._jobs = Jobs()
        self._stale = Stale()
        self._recent_requests = Batches(reader.recent_requests)
        self._mechanic_snapshots = Batches(reader.mechanic_snapshots)
        self._customer_snapshots = Batches(reader.open_requests)
        self._node = NodeParts(
            clock=clock,
            times=self.times,
            jobs_max=settings.jobs_per_connection_max,
            recent_requests=self._recent_requests,
            heartbeat_ack=HeartbeatAcks(clock).frame,
            start=self._jobs.start,
            mark_stale=self._stale.mark,
            remove=self.remove,
        )
        self._mechanic_parts = MechanicParts(presence, dispatch, reader, self._mechanic_snapshots, self.offers)
        self._customer_parts = CustomerParts(presence, self._customer_snapshots, StatusFrames().frame, pages.answer)
        self.routes = [
            WebSocketRoute("/ws/mechanic", self._open_mechanic),
            WebSocketRoute("/ws/customer", self._open_customer),
        ]
        self._loops: Mapping[str, Loop] = {
            "mechanic_snapshots": self._mechanic_snapshots.run,
            "customer_snapshots": self._customer_snapshots.run,
            "recent_requests": self._recent_requests.run,
            "inbox": self._inbox.run,
            "socket_places": places.run,
            "socket_time": self._keep_time,
            "stale_sockets": self._stale.run,
        }
        self._is_running = False
        self._is_draining = False
        # A tenth of the shortest wait, so that nothing is noticeably late.
        shortest_s = min(self.times.timeout_s, self.times.heartbeat_interval_s, resend_interval_ms / 1000)
        self._tick_s = max(TICK_MIN_S, min(TICK_S, shortest_s / 10))
        self._log = structlog.get_logger("hub")

    @property
    def connection_counts(self) -> Mapping[str, int]:
        """Sockets by role."""
        return {"mechanic": len(self.mechanics), "customer": len(self.customers)}

    def mechanic(self, identity: Identity) -> MechanicConnection:
        """Return a connection for a mechanic who is about to open a socket.

        It is in the table before its snapshot is read, so no change is missed.
        """
        connection = MechanicConnection(self._node, self._mechanic_parts, identity)
        self.mechanics.add(connection)
        return connection

    def customer(self, identity: Identity) -> CustomerConnection:
        """The same for a customer."""
        connection = CustomerConnection(self._node, self._customer_parts, identity)
        self.customers.add(connection)
        return connection

    def remove(self, connection: Connection) -> None:
        """Forget a connection; idempotent."""
        self.mechanics.remove(connection)
        self.customers.remove(connection)
        if connection.has_place:
            connection.has_place = False
            self._places.give_back(connection.account_id)

    # --- the life of it -----------------------------------------------------------------------------------------------

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; handshakes are refused before. Reports as started once it hears the other nodes."""
        self._bus.on_gap(self._note_gap)
        self._revocations.on_change(self._close_revoked)
        try:
            async with anyio.create_task_group() as tasks:
                await tasks.start(self._jobs.run)
                await self._bus.subscribe(self._channel, together(self._channel), handler=self._inbox.hear)
                for name, loop in self._loops.items():
                    tasks.start_soon(keep_running, name, loop)
                self._is_running = True
                task_status.started()
        finally:
            self._is_running = False

    async def drain(self) -> None:
        """Refuse new sockets, send 1012 to the open ones, and return when their jobs are done or after some seconds."""
        self._is_draining = True
        await in_slices(
            "drain", self._everybody(), lambda one: one.close(close_codes.RESTARTING, "the server restarts")
        )
        with anyio.move_on_after(DRAIN_TIMEOUT_S):
            await self._jobs.finished()

    def _everybody(self) -> list[Connection]:
        return [*self.mechanics.all(), *self.customers.all()]

    # --- handshakes ---------------------------------------------------------------------------------------------------

    async def _open_mechanic(self, websocket: WebSocket) -> None:
        identity = await self._identified(websocket, "mechanic")
        if identity is not None:
            await self._open(websocket, identity, self.mechanic)

    async def _open_customer(self, websocket: WebSocket) -> None:
        identity = await self._identified(websocket, "customer")
        if identity is not None:
            await self._open(websocket, identity, self.customer)

    async def _identified(self, websocket: WebSocket, role: Literal["mechanic", "customer"]) -> Identity | None:
        """Return who is there, or ``None``: then they have been refused."""
        who = unavailable() if self._is_closed_to_all else await self._handshakes.identify(websocket, role)
        if isinstance(who, Response):
            await self._deny(websocket, who)
            return None
        admit(websocket.scope, who.account_id)
        return who

    async def _open(self, websocket: WebSocket, identity: Identity, make: Callable[[Identity], Connection]) -> None:
        """Take a place, read the snapshot, accept, and hand over."""
        if not await self._places.take(identity.account_id):
            await self._deny(websocket, too_many())
            return
        connection = make(identity)
        connection.has_place = True
        try:
            refusal = await self._refusal(websocket, connection)
            if refusal is not None:
                await self._deny(websocket, refusal)
                return
            await websocket.accept()
            websocket.scope["extensions"][EXTENSION](connection, self.limits, self.counters)
            # Its token may have been revoked while the snapshot was read.
            self._close_revoked({connection.account_id})
        finally:
            if not connection.is_open:
                self.remove(connection)

    async def _deny(self, websocket: WebSocket, answer: Response) -> None:
        refused(f"handshake_{answer.status_code}")
        await websocket.send_denial_response(answer)

    async def _refusal(self, websocket: WebSocket, connection: Connection) -> Response | None:
        """Return why this connection cannot be opened, or ``None``: then its snapshot has been read."""
        try:
            is_known = await connection.prepare()
        except Exception as error:  # noqa: BLE001
            # A broken world or a bug: it is logged there, and the client gets an answer.
            return problems.failure(error, where=websocket.scope["path"])
        if not is_known:
            return unauthenticated()
        # The drain may have begun while we were asking.
        return unavailable() if self._is_closed_to_all else None

    @property
    def _is_closed_to_all(self) -> bool:
        return self._is_draining or not self._is_running

    # --- what time does -----------------------------------------------------------------------------------------------

    async def _keep_time(self) -> None:
        while True:
            await anyio.sleep(self._tick_s)
            now_s, now_ms = monotonic(), self._clock.now_ms()

            def check(connection: Connection, now_s: float = now_s, now_ms: int = now_ms) -> None:
                connection.check_time(now_s, now_ms)

            await in_slices("socket_time", self._everybody(), check)
            for shown, viewers in self.offers.due(now_s, now_ms):
                with failing_alone("offer_again", offer_id=shown.offer.offer_id):
                    frame = shown.frame(now_ms)

                    def send_again(
                        connection: MechanicConnection,
                        frame: bytes = frame,
                        shown: ShownOffer[MechanicConnection] = shown,
                    ) -> None:
                        # It may have been withdrawn or answered since the first slice.
                        if self.offers.is_awaited(shown, connection) and connection.is_asked(shown):
                            connection.deliver(frame)

                    await in_slices("offer_again", viewers, send_again)

    # --- revocations --------------------------------------------------------------------------------------------------

    def _close_revoked(self, account_ids: Collection[str]) -> None:
        """Close the sockets of these accounts whose tokens are not good any more."""
        for account_id in account_ids:
            for connection in (*self.mechanics.of(account_id), *self.customers.of(account_id)):
                if self._revocations.covers(connection.identity.proof):
                    connection.close(close_codes.TOKEN_EXPIRED, "signed out")

    # --- gaps ---------------------------------------------------------------------------------------------------------

    def _note_gap(self) -> None:
        """The bus has been deaf, or what was heard could not be passed on: everybody may have missed something."""
        everybody = self._everybody()
        self._log.warning("sockets_behind", connections=len(everybody))
        self._stale.mark(*everybody)
