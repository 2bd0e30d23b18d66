"""What the sockets of mechanics and of customers have in common: one synchronous object each, no task of its own.

A connection lives in the hub's tables from before its snapshot is read until its socket has closed. What arrives for it
before its ``welcome`` is held and follows it, so that nothing falls between the snapshot and the changes.

    (registered) ──prepare──► (snapshot read) ──on_open──► welcome, what was held ──► … ──on_close──► (forgotten)
"""

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from time import monotonic
from typing import Final

import anyio
import msgspec
import structlog

from dispatch.deliveries import Told
from http_api.auth import Identity
from http_api.sockets import close_codes
from http_api.sockets.batches import Batches
from http_api.sockets.jobs import Job, Work
from http_api.sockets.protocol import SocketLike
from infra.clock import Clock
from infra.metrics import ITEMS_FAILED
from models import wire
from models.errors import Unavailable
from models.wire import ErrorMessage, RequestUpdate, RequestView

HELD_MAX: Final = 200
"""Deliveries kept while the snapshot is being read; whoever misses more is sent away to connect again."""

PING_AFTER: Final = 1.1
"""In heartbeat intervals. Who beats on time need not be pinged: a tenth covers what the road takes."""

CLOCKS_APART_MS: Final = 250
"""How far two nodes' ideas of Redis' time may differ, because its answer took long on its way to one of them."""

OWN_JOBS_MAX: Final = 32
"""Jobs that we have caused and that wait on one connection; one that has more to catch up with than that is refreshed instead."""

_EXAMPLE: Final = '{"type": "heartbeat"}'
_KINDS: Final = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
}
"""What JSON can be besides an object."""

log = structlog.get_logger("sockets")


@dataclass(frozen=True)
class SocketTimes:
    """How long silence lasts until something happens, in seconds."""

    heartbeat_interval_s: float
    timeout_s: float
    grace_s: float
    """How long a socket that is gone is kept quiet, for the one that replaces it."""

    @property
    def ping_after_s(self) -> float:
        """After this much silence the server asks; browsers answer that even where they hold back timers."""
        return self.heartbeat_interval_s * PING_AFTER


@dataclass(frozen=True)
class NodeParts:
    """What a connection sees of its node; one for all of them."""

    clock: Clock
    times: SocketTimes
    jobs_max: int
    """How many jobs of one client may be in hand or wait."""
    recent_requests: Batches[list[RequestView]]
    """By account, see ``Reader``."""
    heartbeat_ack: Callable[[], bytes]
    """Returns the frame that answers a heartbeat now."""
    start: Callable[[Work], None]
    """Runs what takes a while; never waits."""
    mark_stale: Callable[["Connection"], None]
    """Has a connection brought up to date once SQL can be read: it may have missed a change. Never waits."""
    remove: Callable[["Connection"], None]
    """Forgets a connection; idempotent."""


@dataclass(eq=False, slots=True)
class _Refresh:
    """One reading of what a connection may have missed; several may wait for it."""

    ended: anyio.Event = field(default_factory=anyio.Event)
    has_begun: bool = False
    is_read: bool = True


class Connection:
    """One socket of one account: decodes what arrives, keeps jobs in order, knows when it was last heard."""

    __slots__ = (
        "_held",
        "_jobs",
        "_node",
        "_pinged_at_s",
        "_refreshing",
        "_snapshot_at_ms",
        "_socket",
        "account_id",
        "has_place",
        "heard_at_s",
        "identity",
        "is_closed",
    )

    def __init__(self, node: NodeParts, identity: Identity) -> None:
        self.account_id = identity.account_id
        self.identity = identity
        self.has_place = False
        """Whether it counts among the sockets that its account may have."""
        self.heard_at_s = monotonic()
        self.is_closed = False
        self._snapshot_at_ms = 0
        """When the welcome's snapshot had been read."""
        self._pinged_at_s = self.heard_at_s
        self._node = node
        self._socket: SocketLike | None = None
        self._jobs: deque[Job] | None = None
        self._refreshing: _Refresh | None = None
        self._held: list[Callable[[], None]] | None = []

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.account_id}>"

    # --- for the two kinds to fill in ---------------------------------------------------------------------------------

    def understand(self, text: str) -> None:
        """Decode a message and do what it asks for; raises ``msgspec.DecodeError`` for what is none."""
        raise NotImplementedError

    async def read_snapshot(self) -> bool:
        """Read what ``greet`` sends; ``False`` if there is no such account. May raise ``Unavailable``."""
        raise NotImplementedError

    def greet(self) -> None:
        """Send ``welcome`` with the snapshot."""
        raise NotImplementedError

    async def refresh(self) -> None:
        """Read the snapshot again and send what may have been missed; may raise ``Unavailable``."""
        raise NotImplementedError

    # --- what the socket calls ----------------------------------------------------------------------------------------

    def on_open(self, socket: SocketLike) -> None:
        """Start talking: first the welcome, then what has happened since its snapshot was read."""
        self._socket = socket
        self.heard_at_s = self._pinged_at_s = monotonic()
        held, self._held = self._held, None
        if held is not None and len(held) >= HELD_MAX:
            self.close(close_codes.TRY_LATER, "too much has happened meanwhile")
            return
        try:
            self.greet()
            for delivery in held or ():
                delivery()
        except Exception:
            # A bug in one snapshot must not leave behind a socket that never says a word.
            log.exception("welcome_failed", account_id=self.account_id)
            self.close(close_codes.BUG, "something went wrong on our side")

    def on_message(self, text: str) -> None:
        """Take one text frame. Whatever is wrong with it is answered with ``error``; the socket stays open."""
        self.on_alive()
        try:
            try:
                self.understand(text)
            except (msgspec.DecodeError, RecursionError) as error:
                self.send(self.complaint(text, error))
        except Exception:
            # A bug in one message, or in what is said about it, must not cut off everybody whose frames share this read.
            log.exception("message_failed", account_id=self.account_id)
            self.error("internal_error", "Something went wrong on our side.")

    def on_alive(self) -> None:
        """Note that somebody is there: any frame, also the answer to our ping."""
        self.heard_at_s = monotonic()

    def on_close(self, code: int) -> None:
        """Leave the tables; jobs in hand are still finished."""
        self.is_closed = True
        self._socket = None
        self._held = None
        self._node.remove(self)
        log.debug("socket_closed", account_id=self.account_id, code=code)

    # --- what the hub calls -------------------------------------------------------------------------------------------

    async def prepare(self) -> bool:
        """Get ready for the welcome; ``False`` if there is no such account. May raise ``Unavailable``."""
        is_known = await self.read_snapshot()
        self._snapshot_at_ms = self._node.clock.now_ms()
        return is_known

    @property
    def is_open(self) -> bool:
        """Whether there is a socket now: neither still in its handshake nor closed."""
        return self._socket is not None

    def deliver(self, frame: bytes) -> None:
        """Write a ready frame, after the welcome."""
        if not self.hold(partial(self.deliver, frame)) and self._socket is not None:
            self._socket.send_framed(frame)

    def tell(self, frame: bytes, told: Told | None) -> None:
        """Write a ready frame with what was read from SQL, after the welcome.

        A slow node may have read the frame's content before this socket's welcome, and tell it only now. A client drops old
        frames by their version. It cannot if the welcome did not name the request, because that was over. So a frame that may
        have been read before the welcome is followed by the state of its request, if there is a newer one.
        """
        if self.hold(partial(self.tell, frame, told)):
            return
        self.deliver(frame)
        if told is not None and told.read_at_ms <= self._snapshot_at_ms + CLOCKS_APART_MS and self.is_open:
            self.enqueue(partial(self._follow_up, told), key=(told.request_id, told.version))

    def close(self, code: int, reason: str) -> None:
        """Close the socket, if there is one."""
        if self._socket is not None:
            self._socket.close(code, reason)

    def check_time(self, now_s: float, now_ms: int) -> None:
        """Close what has been silent for too long or whose token has expired; ping what is silent.

        ``now_s`` is on the monotonic clock, ``now_ms`` on the clock that tokens are judged by.
        """
        if self._socket is None:
            return
        times = self._node.times
        silent_s = now_s - self.heard_at_s
        if silent_s >= times.timeout_s:
            self._socket.close(close_codes.SILENT, "nothing was heard for too long")
        elif now_ms >= self.identity.expires_at_s * 1000:
            self._socket.close(close_codes.TOKEN_EXPIRED, "the token has expired")
        elif silent_s >= times.ping_after_s and now_s - self._pinged_at_s >= times.ping_after_s:
            self._pinged_at_s = now_s
            self._socket.ping()

    async def send_recent_requests(self) -> None:
        """Say where the requests that concern them stand, also those that have ended unheard."""
        for request in await self._node.recent_requests.get(self.account_id) or ():
            self.send(RequestUpdate(request))

    async def _follow_up(self, told: Told) -> None:
        """Say where a request stands, if that is newer than what was told; now, or once SQL can be read."""
        try:
            for request in await self._node.recent_requests.get(self.account_id) or ():
                if request.id == told.request_id and request.version > told.version:
                    self.send(RequestUpdate(request))
        except Unavailable as error:
            log.warning("not_followed_up_yet", account_id=self.account_id, error=str(error))
            self._node.mark_stale(self)

    # --- sending ------------------------------------------------------------------------------------------------------

    def send(self, message: wire.ToMechanic | wire.ToCustomer) -> None:
        """Send one message of ``models.wire``; nothing happens once closed."""
        if self._socket is not None:
            self._socket.send(wire.encode(message))

    def error(self, code: str, message: str, ref: str | None = None) -> None:
        """Say what was not done and why; ``ref`` is the id it was about."""
        self.send(ErrorMessage(code, message, msgspec.UNSET if ref is None else ref))

    def acknowledge_heartbeat(self) -> None:
        """Answer a heartbeat."""
        if self._socket is not None:
            self._socket.send_framed(self._node.heartbeat_ack())

    def hold(self, delivery: Callable[[], None]) -> bool:
        """Keep ``delivery`` for after the welcome; ``False`` if that has been sent, so that it is to be made now."""
        if self._held is None:
            return False
        if len(self._held) < HELD_MAX:
            self._held.append(delivery)
        return True

    def complaint(self, text: str, error: Exception) -> ErrorMessage:
        """Say in one sentence what is wrong with a message that could not be decoded."""
        if isinstance(error, RecursionError):
            return _too_deep(text)
        if not isinstance(error, msgspec.ValidationError):
            return ErrorMessage("malformed_json", f"{error}.")
        try:
            raw = msgspec.json.decode(text)
        except RecursionError:
            return _too_deep(text)
        except msgspec.DecodeError:
            # Valid as far as it was looked at, malformed after that.
            return ErrorMessage("malformed_json", "The message is not valid JSON.")
        if not isinstance(raw, dict):
            sentence = f"A message is one JSON object with a `type`, such as {_EXAMPLE}; this was {_KINDS[type(raw)]}."
            return ErrorMessage("invalid_message", sentence)
        ref = raw.get("offer_id")
        known_ref = ref if isinstance(ref, str) and len(ref) <= 64 else msgspec.UNSET
        sentence, _, where = str(error).partition(" - at `$")
        member = where.rstrip("`").lstrip(".")
        if member == "type" and isinstance(raw.get("type"), str):
            return ErrorMessage("unknown_type", f"There is no message of type `{raw['type'][:64]}` here.", known_ref)
        return ErrorMessage("invalid_message", f"`{member}`: {sentence}." if member else f"{sentence}.", known_ref)

    # --- jobs: what a message causes that has to wait for somebody ----------------------------------------------------

    def submit(self, job: Work, ref: str | None = None) -> None:
        """Run ``job`` after this connection's earlier ones. ``ref`` is named when it fails.

        A client that asks for more than is sane before the first of it is done is closed with 1008.
        """
        if sum(not other.is_ours for other in self._jobs or ()) >= self._node.jobs_max:
            self.close(close_codes.TOO_MANY, "too many things in hand")
            return
        self._append(Job(job, ref))

    def enqueue(self, job: Work, *, key: Hashable) -> None:
        """As ``submit``, for what is caused by us: while a job waits, another one of the same ``key`` is not added.

        A connection on which too many wait is brought up to date by reading everything again, instead of by this job.
        """
        # The first one is being run: what it has read may be old by now.
        waiting = [other.key for other in islice(self._jobs or (), 1, None) if other.is_ours]
        if key in waiting:
            return
        if len(waiting) >= OWN_JOBS_MAX:
            if not self._waits_for_refresh:
                log.warning("too_much_to_catch_up", account_id=self.account_id)
                self._node.mark_stale(self)
            return
        self._append(Job(job, key=key))

    def _append(self, job: Job) -> None:
        if self._jobs is None:
            self._jobs = deque((job,))
            self._node.start(self._work)
        else:
            self._jobs.append(job)

    @property
    def has_jobs(self) -> bool:
        """Whether a job is being run, or waits."""
        return self._jobs is not None

    async def _work(self) -> None:
        try:
            while self._jobs:
                await self._run(self._jobs[0])
                self._jobs.popleft()
        finally:
            self._jobs = self._refreshing = None

    async def _run(self, job: Job) -> None:
        try:
            await job.work()
        except Unavailable as error:
            log.warning("job_unavailable", account_id=self.account_id, job=_name_of(job.work), error=str(error))
            self.error("unavailable", "The server cannot reach its database just now; please try again.", job.ref)
            # It may have happened nevertheless, or half of it.
            self._node.mark_stale(self)
        except Exception:
            # A bug: loud in the log, and in the client that met it, but no reason to end everybody else's connection.
            ITEMS_FAILED.labels("socket_job").inc()
            log.exception("job_failed", account_id=self.account_id, job=_name_of(job.work))
            if job.is_ours:
                # They asked for nothing, so they would not know what to ask for again: they come back for a snapshot.
                self.close(close_codes.BUG, "something went wrong on our side")
            else:
                self.error("internal_error", "Something went wrong on our side.", job.ref)

    async def refresh_in_turn(self) -> bool:
        """Have ``refresh`` run after this connection's earlier jobs; ``False``, once that is known, if it could not be.

        Before the welcome it is put off until then; after the close there is nothing to do.
        """
        if self.hold(partial(self._node.mark_stale, self)) or not self.is_open:
            return True
        refreshing = self._refreshing
        if refreshing is None or not self._waits_for_refresh:
            # What is being read may be old by now. At most one waits, so there is always room for it.
            refreshing = self._refreshing = _Refresh()
            self._append(Job(partial(self._refresh, refreshing), key="refresh"))
        await refreshing.ended.wait()
        return refreshing.is_read

    @property
    def _waits_for_refresh(self) -> bool:
        return self._refreshing is not None and not self._refreshing.has_begun

    async def _refresh(self, refreshing: _Refresh) -> None:
        refreshing.has_begun = True
        try:
            if self.is_open:
                await self.refresh()
        except Unavailable as error:
            refreshing.is_read = False
            log.warning("not_refreshed_yet", account_id=self.account_id, error=str(error))
        finally:
            refreshing.ended.set()


def _too_deep(text: str) -> ErrorMessage:
    # Nobody has read it to its end, but an object begins as one.
    code = "malformed_json" if text.lstrip().startswith("{") else "invalid_message"
    return ErrorMessage(code, "The message is nested too deeply.")


def _name_of(work: Work) -> str:
    inner = work.func if isinstance(work, partial) else work
    return getattr(inner, "__name__", repr(inner))
