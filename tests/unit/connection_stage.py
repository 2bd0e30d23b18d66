"""A stage on which connections are played without a network: the hub is real, the socket records, the town is in memory.

async with stage() as here:
    phone = await here.mechanic("mike")
    phone.says("heartbeat")
    assert phone.hears() == [...]
"""

import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import anyio
from anyio import wait_all_tasks_blocked
from anyio.abc import TaskGroup
from msgspec import Raw

from accounts.revocations import Proof, Revocations
from dispatch import deliveries
from dispatch.eligibility import Standing, may_get_broadcast
from dispatch.push.pages import OpenPages
from dispatch.reading.reader import MechanicSnapshot, Reader, TimedOffer
from dispatch.service import Dispatch
from http_api.auth import Identity
from http_api.sockets.connection import Connection
from http_api.sockets.handshake import Handshakes
from http_api.sockets.hub import Hub
from infra.bus import Bus
from models import wire
from models.errors import DatabaseUnavailable
from models.outcomes import OfferGone, Refused
from models.settings import Settings
from models.timestamps import rfc3339
from models.wire import OfferView, RequestUpdate, RequestView, StatusView
from presence.service import Presence

NOW_MS = 1_795_340_000_000
NOW = rfc3339(NOW_MS)
EXPIRES_AT_S = NOW_MS // 1000 + 3600


def an_offer(
    offer_id: str = "o1", kind: str = "broadcast", *, left_ms: int = 60_000, session_type: str = "text"
) -> TimedOffer:
    expires_at_ms = NOW_MS + left_ms
    view = OfferView(
        offer_id, f"r-{offer_id}", kind, "John Doe", "quick_chat", session_type, 10, rfc3339(expires_at_ms), left_ms
    )
    return TimedOffer(view, expires_at_ms)


def a_request(request_id: str = "r-o1", *, version: int = 2) -> RequestView:
    return RequestView(
        id=request_id,
        version=version,
        plan="quick_chat",
        session_type="text",
        routing_type="broadcast",
        status="accepted",
        customer_name="John Doe",
        preferred_mechanic=None,
        assigned_mechanic=None,
        offer=None,
        fallback_reason=None,
        created_at=NOW,
        accepted_at=NOW,
        completed_at=None,
        refund=None,
        timeline=[],
    )


def an_update(request: RequestView | None = None) -> Raw:
    return Raw(wire.encode(RequestUpdate(request or a_request())))


def a_status(mechanic_id: str, *, version: int = 1) -> StatusView:
    return StatusView(mechanic_id, True, NOW, "available", "socket", ["text", "video"], NOW, version)


def client_frame(opcode: int, payload: bytes = b"", *, is_final: bool = True) -> bytes:
    """Return a client's (masked) frame of up to 64 KiB, also one that RFC 6455 forbids."""
    mask = b"abcd"
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return bytes([(0x80 if is_final else 0) | opcode]) + size + mask + masked


class StageClock:
    now = NOW_MS

    def now_ms(self) -> int:
        return self.now


class StageBus:
    """One ear, and a gap on demand."""

    def __init__(self) -> None:
        self.handlers: list[Callable[[str], None]] = []
        self.gap_handlers: list[Callable[[], Any]] = []

    def on_gap(self, handler: Callable[[], Any]) -> None:
        self.gap_handlers.append(handler)

    async def subscribe(self, *_channels: str, handler: Callable[[str], None]) -> None:
        self.handlers.append(handler)

    def miss_something(self) -> None:
        for handler in self.gap_handlers:
            handler()

    def hear(self, delivery: deliveries.Delivery) -> None:
        for handler in self.handlers:
            handler(deliveries.encode(delivery).decode())


class StagePresence:
    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []
        self.known: dict[str, StatusView] = {}
        self.sinks: dict[Any, set[str]] = {}
        self.gate = anyio.Event()
        """Set: all statuses can be read."""
        self.gate.set()

    def joined(self, mechanic_id: str) -> None:
        self.said.append(("joined", mechanic_id))

    def heard(self, mechanic_id: str) -> None:
        self.said.append(("heard", mechanic_id))

    def left(self, mechanic_id: str) -> None:
        self.said.append(("left", mechanic_id))

    async def status_of(self, ids: Iterable[str]) -> dict[str, StatusView]:
        return {one: self.known[one] for one in ids if one in self.known}

    async def watch(self, ids: Iterable[str], sink: Callable[[StatusView], None]) -> None:
        self.sinks.setdefault(sink, set()).update(ids)
        for one in ids:
            if one in self.known:
                sink(self.known[one])
        await self.gate.wait()

    def unwatch(self, ids: Iterable[str], sink: Callable[[StatusView], None]) -> None:
        self.sinks.get(sink, set()).difference_update(ids)

    def drop(self, sink: Callable[[StatusView], None]) -> None:
        self.sinks.pop(sink, None)


class StageDispatch:
    """Duty and open offers per mechanic; the first accept of an offer wins."""

    def __init__(self) -> None:
        self.standings: dict[str, Standing] = {}
        self.offers: list[TimedOffer] = []
        self.requests: list[RequestView] = []
        self.calls: list[tuple[Any, ...]] = []
        self.is_away = False
        self._goes_away_after: str | None = None
        self.is_buggy = False
        self.gate = anyio.Event()
        self.gate.set()
        self.snapshot_gate = anyio.Event()
        self.snapshot_gate.set()

    async def _arrive(self, *call: Any) -> None:
        self.calls.append(call)
        await self.gate.wait()
        if self.is_away:
            raise DatabaseUnavailable("the disk is gone")
        if self.is_buggy:
            raise KeyError("a bug")
        if call[0] == self._goes_away_after:
            self.is_away, self._goes_away_after = True, None

    def goes_away_after(self, name: str) -> None:
        """Answer the next call of this name, and then nothing any more."""
        self._goes_away_after = name

    async def set_on_duty(
        self, mechanic_id: str, on_duty: bool, *, back_in_s: int | None, off_after_session: bool
    ) -> Standing | Refused:
        await self._arrive("set_on_duty", mechanic_id, on_duty)
        if off_after_session and not self.standings[mechanic_id].is_busy:
            return Refused("not_in_session", "There is none.")
        back_at_ms = None if back_in_s is None else NOW_MS + back_in_s * 1000
        planned = {"back_at_ms": back_at_ms, "off_after_session": off_after_session}
        self.standings[mechanic_id] = replace(self.standings[mechanic_id], on_duty=on_duty, **planned)
        return self.standings[mechanic_id]

    async def offers_for(self, mechanic_id: str) -> list[TimedOffer]:
        await self._arrive("offers_for", mechanic_id)
        standing = self.standings[mechanic_id]
        return [one for one in self.offers if may_get_broadcast(standing, one.offer.session_type)]

    async def active_request_of(self, _mechanic_id: str) -> RequestView | None:
        return self.requests[0] if self.requests else None

    async def open_requests_of(self, customer_id: str) -> list[RequestView]:
        await self._arrive("open_requests_of", customer_id)
        return list(self.requests)

    async def accept(
        self, mechanic_id: str, offer_id: str, *, received_at_ms: int, connection_id: str | None
    ) -> RequestView | Refused:
        await self._arrive("accept", mechanic_id, offer_id, received_at_ms)
        for offer in self.offers:
            if offer.offer.offer_id == offer_id:
                self.offers.remove(offer)
                return a_request(offer.offer.request_id)
        return OfferGone(detail="Another mechanic was faster.")

    async def decline(
        self, mechanic_id: str, offer_id: str, reason: str | None, *, connection_id: str
    ) -> Refused | bool:
        await self._arrive("decline", mechanic_id, offer_id, reason)
        if not any(one.offer.offer_id == offer_id for one in self.offers):
            return OfferGone()
        return len([call for call in self.called("decline") if call[1:3] == (mechanic_id, offer_id)]) == 1

    async def acknowledge(self, mechanic_id: str, offer_id: str, *, seen: bool = False) -> None:
        await self._arrive("acknowledge", mechanic_id, offer_id, *(["seen"] if seen else []))

    def called(self, name: str) -> list[tuple[Any, ...]]:
        return [call for call in self.calls if call[0] == name]


class StageReader:
    """Reads what the stage's dispatch knows."""

    def __init__(self, dispatch: StageDispatch) -> None:
        self._dispatch = dispatch

    async def standings(self, ids: Iterable[str]) -> dict[str, Standing]:
        return {one: self._dispatch.standings[one] for one in ids if one in self._dispatch.standings}

    async def mechanic_snapshots(self, ids: Iterable[str]) -> dict[str, MechanicSnapshot]:
        known = [one for one in ids if one in self._dispatch.standings]
        read = {
            one: MechanicSnapshot(
                self._dispatch.standings[one],
                await self._dispatch.offers_for(one),
                await self._dispatch.active_request_of(one),
            )
            for one in known
        }
        # Held back after having been read: what changes meanwhile is not in it.
        await self._dispatch.snapshot_gate.wait()
        return read

    async def open_requests(self, ids: Iterable[str]) -> dict[str, list[RequestView]]:
        read = {one: await self._dispatch.open_requests_of(one) for one in ids}
        await self._dispatch.snapshot_gate.wait()
        return read

    recent_requests = open_requests


class Phone:
    """A recording socket and the connection behind it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.is_refused = False
        self.messages: list[dict[str, Any]] = []
        self.frames: list[bytes] = []
        """Those that came ready made."""
        self.on_frame: Callable[[], None] | None = None
        """What happens in the moment in which a ready frame is sent."""
        self.pings = 0
        self.closed_with: int | None = None

    # what the connection sees

    def send(self, payload: bytes) -> None:
        assert self.closed_with is None, "nothing may be sent after a close"
        self.messages.append(json.loads(payload))

    def send_framed(self, frame: bytes) -> None:
        assert frame[0] == 0x81, "one final text frame"
        self.frames.append(frame)
        short = frame[1] < 126
        self.send(frame[2 if short else 4 :])
        if self.on_frame is not None:
            self.on_frame()

    def ping(self) -> None:
        self.pings += 1

    def close(self, code: int, reason: str = "") -> None:
        assert self.closed_with is None
        self.closed_with = code
        self.connection.on_close(code)

    # what the test does

    def says(self, kind: str, **members: Any) -> None:
        self.connection.on_message(json.dumps({"type": kind, **members}))

    def says_raw(self, text: str) -> None:
        self.connection.on_message(text)

    def hangs_up(self) -> None:
        self.closed_with = 1000
        self.connection.on_close(1000)

    def hears(self) -> list[dict[str, Any]]:
        """What was sent to it since the last time."""
        heard, self.messages = self.messages, []
        return heard

    def hears_kinds(self) -> list[str]:
        return [message["type"] for message in self.hears()]


class StagePages:
    """Keeps what was answered."""

    def __init__(self) -> None:
        self.answered: list[str] = []

    async def answer(self, question: str) -> None:
        self.answered.append(question)


class StageRevocations:
    """Nobody is signed out here, unless a test says so."""

    def __init__(self) -> None:
        self.covered: set[str] = set()
        self.changed: Callable[[set[str]], None] = lambda _: None

    def covers(self, proof: Proof) -> bool:
        return proof.account_id in self.covered

    def on_change(self, handler: Callable[[set[str]], None]) -> None:
        self.changed = handler


class Uncounted:
    """Places for everybody."""

    async def take(self, account_id: str) -> bool:
        return True

    def give_back(self, account_id: str) -> None:
        return None

    async def run(self) -> None:
        await anyio.sleep_forever()


class Stage:
    def __init__(self, *, resend_interval_ms: int = 5_000, **settings: Any) -> None:
        self.clock = StageClock()
        self.bus = StageBus()
        self.presence = StagePresence()
        self.dispatch = StageDispatch()
        self.pages = StagePages()
        self.hub = Hub(
            settings=replace(Settings(secret_key="s" * 40, _env_file=None).doors(), **settings),
            clock=self.clock,
            bus=cast(Bus, self.bus),
            channel="deliveries",
            presence=cast(Presence, self.presence),
            dispatch=cast(Dispatch, self.dispatch),
            reader=cast(Reader, StageReader(self.dispatch)),
            # Nobody comes through the door: connections are made on the stage.
            handshakes=cast(Handshakes, None),
            revocations=cast(Revocations, StageRevocations()),
            pages=cast(OpenPages, self.pages),
            places=Uncounted(),
            resend_interval_ms=resend_interval_ms,
        )
        self.tasks: TaskGroup | None = None

    async def until(self, true: Callable[[], Any]) -> None:
        """Wait for what takes a while; fail after a bounded time."""
        with anyio.fail_after(10):
            while not true():  # noqa: ASYNC110 - the hub waits by the clock here
                await anyio.sleep(0.001)

    async def settled(self) -> None:
        """Wait until everything that could be done has been done."""
        await wait_all_tasks_blocked()

    def open_mechanic(self, mechanic_id: str, *, on_duty: bool = True, is_busy: bool = False) -> Phone:
        """A mechanic's phone that has begun to connect."""
        self.dispatch.standings.setdefault(mechanic_id, Standing(on_duty, is_busy))
        return self._opening(self.hub.mechanic(Identity(mechanic_id, "mechanic", EXPIRES_AT_S, "bearer")))

    def open_customer(self, account_id: str) -> Phone:
        """A customer's page that has begun to connect."""
        return self._opening(self.hub.customer(Identity(account_id, "customer", EXPIRES_AT_S, "bearer")))

    async def mechanic(self, mechanic_id: str, **state: bool) -> Phone:
        """A mechanic's phone past its welcome, which is already heard."""
        phone = self.open_mechanic(mechanic_id, **state)
        await self.settled()
        assert phone.hears_kinds() == ["welcome"]
        return phone

    async def customer(self, account_id: str) -> Phone:
        phone = self.open_customer(account_id)
        await self.settled()
        assert phone.hears_kinds() == ["welcome"]
        return phone

    async def tell(self, delivery: deliveries.Delivery) -> None:
        """Let the bus say something, and wait for what comes of it."""
        self.bus.hear(delivery)
        await self.settled()

    async def offer(self, offer: TimedOffer, *, to: str | None = None, excluded: Iterable[str] = ()) -> None:
        """Let dispatch offer something."""
        self.dispatch.offers.append(offer)
        await self.tell(deliveries.OfferTo(offer.offer, offer.expires_at_ms, to, list(excluded)))

    def _opening(self, connection: Connection) -> Phone:
        phone = Phone(connection)

        async def shake_hands() -> None:
            try:
                await connection.prepare()
            except DatabaseUnavailable:
                phone.is_refused = True
                self.hub.remove(connection)
            else:
                connection.on_open(phone)

        assert self.tasks is not None
        self.tasks.start_soon(shake_hands)
        return phone


@asynccontextmanager
async def stage(**settings: Any) -> AsyncIterator[Stage]:
    here = Stage(**settings)
    async with anyio.create_task_group() as tasks:
        here.tasks = tasks
        await tasks.start(here.hub.run)
        yield here
        tasks.cancel_scope.cancel()
