"""One socket of a customer: which mechanics they watch, and what becomes of their requests."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, assert_never

import msgspec

from http_api.auth import Identity
from http_api.sockets.batches import Batches
from http_api.sockets.connection import Connection, NodeParts, log
from models import wire
from models.errors import Unavailable
from models.timestamps import rfc3339
from models.wire import (
    WATCH_MAX,
    CustomerMessage,
    CustomerWelcome,
    ErrorMessage,
    Heartbeat,
    RequestView,
    StatusesKnown,
    StatusView,
    Unwatch,
    Watch,
)
from presence.service import Presence

ASKED_MAX: Final = 20
"""Questions kept for a page that is not heard; it has none too many unless it is not there."""

_TOO_MANY = ErrorMessage("too_many_watched", f"A socket may watch at most {WATCH_MAX} mechanics.")


@dataclass(frozen=True)
class CustomerParts:
    """What customers' sockets need besides what every socket does; one for all of them."""

    presence: Presence
    snapshots: Batches[list[RequestView]]
    status_frame: Callable[[StatusView], bytes]
    """Returns the frame that tells of a status."""
    answer: Callable[[str], Awaitable[None]]
    """Says that a page is open, to whoever asked; may raise ``Unavailable``."""


class CustomerConnection(Connection):
    """What a customer's socket does."""

    __slots__ = ("_asked", "_gathered", "_parts", "_requests", "_sink", "_watched")

    def __init__(self, node: NodeParts, parts: CustomerParts, identity: Identity) -> None:
        super().__init__(node, identity)
        self._parts = parts
        self._asked: list[str] | None = None
        """Who wants to know whether this page is open."""
        self._watched: dict[str, bool] | None = None
        """Whom they watch, and whether a status of them was sent."""
        self._sink: Callable[[StatusView], None] | None = None
        self._gathered: dict[str, StatusView | None] | None = None
        """The mechanics of the watch that is being answered, and what is known of them so far."""
        self._requests: list[RequestView] | None = None

    # --- what the socket calls ----------------------------------------------------------------------------------------

    def on_alive(self) -> None:
        """Answer who wanted to know."""
        super().on_alive()
        if self._asked is not None:
            asked, self._asked = self._asked, None
            self._node.start(partial(self._answer, asked))

    def on_close(self, code: int) -> None:
        """Stop watching."""
        super().on_close(code)
        if self._sink is not None:
            self._parts.presence.drop(self._sink)

    def understand(self, text: str) -> None:
        """Decode a message and do what it asks for."""
        self.handle(wire.customer_decoder.decode(text))

    def handle(self, message: CustomerMessage) -> None:
        """Answer at once what needs nobody else; the rest becomes a job."""
        match message:
            case Heartbeat():
                self.acknowledge_heartbeat()
            case Watch(mechanic_ids):
                self._add(mechanic_ids)
            case Unwatch(mechanic_ids):
                self._remove(mechanic_ids)
            case _:
                assert_never(message)

    def complaint(self, text: str, error: Exception) -> ErrorMessage:
        """Say what is wrong; too many in one message is the same as too many in total."""
        said = super().complaint(text, error)
        if said.code == "invalid_message" and _is_long_watch(text):
            return _TOO_MANY
        return said

    # --- what the hub calls -------------------------------------------------------------------------------------------

    def ask(self, question: str) -> None:
        """Answer when this page is heard next, which is soon: it is pinged."""
        if self._socket is not None:
            self._asked = [*(self._asked or ())[-ASKED_MAX + 1 :], question]
            self._socket.ping()

    # --- jobs ---------------------------------------------------------------------------------------------------------

    async def _answer(self, questions: list[str]) -> None:
        try:
            for question in questions:
                await self._parts.answer(question)
        except Unavailable as error:
            # Then they are woken although they see it: better than the other way about.
            log.warning("page_not_answered", account_id=self.account_id, error=str(error))

    async def read_snapshot(self) -> bool:
        """Read their open requests. Whose token says so is a customer: nothing else of theirs is needed."""
        self._requests = await self._parts.snapshots.get(self.account_id)
        return True

    def greet(self) -> None:
        """Send the snapshot: their open requests."""
        requests, self._requests = self._requests, None
        times = self._node.times
        self.send(
            CustomerWelcome(
                protocol=wire.PROTOCOL,
                account_id=self.account_id,
                server_time=rfc3339(self._node.clock.now_ms()),
                heartbeat_interval_s=times.heartbeat_interval_s,
                presence_timeout_s=times.timeout_s,
                disconnect_grace_s=times.grace_s,
                requests=requests or [],
            )
        )

    async def refresh(self) -> None:
        """Their requests; statuses are healed by ``presence``."""
        await self.send_recent_requests()

    async def _watch(self, mechanic_ids: list[str]) -> None:
        presence = self._parts.presence
        if self.is_closed or self._sink is None or self._watched is None:
            return
        self._gathered = dict.fromkeys(mechanic_ids)
        try:
            await presence.watch(mechanic_ids, self._sink)
        finally:
            self._send_gathered()
        untold = [mechanic_id for mechanic_id in mechanic_ids if self._watched.get(mechanic_id) is False]
        if not untold or self.is_closed:
            return
        try:
            known = await presence.status_of(untold)
        except Unavailable as error:
            # The watch stands, and presence sends the statuses as soon as it can.
            log.warning("watched_not_known_yet", account_id=self.account_id, error=str(error))
            return
        unknown = [mechanic_id for mechanic_id in untold if mechanic_id not in known]
        presence.unwatch(unknown, self._sink)
        for mechanic_id in unknown:
            self._watched.pop(mechanic_id, None)
            self.error("mechanic_not_found", "There is no such mechanic.", mechanic_id)

    async def _unwatch(self, mechanic_ids: list[str]) -> None:
        """A job, although it waits for nobody: the watch that it ends may have to be begun first."""
        if self._sink is not None:
            self._parts.presence.unwatch(mechanic_ids, self._sink)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _add(self, mechanic_ids: list[str]) -> None:
        if self._watched is None:
            self._watched = {}
            # Kept, because presence knows it again by identity; a bound method is a new object each time.
            self._sink = self._send_status
        fresh = [mechanic_id for mechanic_id in dict.fromkeys(mechanic_ids) if mechanic_id not in self._watched]
        if len(self._watched) + len(fresh) > WATCH_MAX:
            self.send(_TOO_MANY)
        elif fresh:
            # Counted from now on, so that many small messages cannot add up to more than one big one may hold.
            self._watched.update(dict.fromkeys(fresh, False))
            self.submit(partial(self._watch, fresh))

    def _remove(self, mechanic_ids: list[str]) -> None:
        watched = [mechanic_id for mechanic_id in mechanic_ids if self._watched and mechanic_id in self._watched]
        if self._watched and watched:
            for mechanic_id in watched:
                self._watched.pop(mechanic_id, None)
            self.submit(partial(self._unwatch, watched))

    def _send_status(self, view: StatusView) -> None:
        if self._watched is None or view.mechanic_id not in self._watched:
            # They have just stopped watching; presence is about to hear of it.
            return
        self._watched[view.mechanic_id] = True
        if self._gathered is not None and view.mechanic_id in self._gathered:
            # Presence gives no older status after a newer one, so the last is what is true.
            self._gathered[view.mechanic_id] = view
        else:
            self.deliver(self._parts.status_frame(view))

    def _send_gathered(self) -> None:
        """Answer the watch: with one frame for several, with the frame that all share for one."""
        gathered, self._gathered = self._gathered or {}, None
        # Of whom they have stopped watching meanwhile they want to hear no more.
        known = [view for one, view in gathered.items() if view is not None and one in (self._watched or {})]
        if len(known) == 1:
            self.deliver(self._parts.status_frame(known[0]))
        elif known:
            self.send(StatusesKnown(known))


def _is_long_watch(text: str) -> bool:
    try:
        raw = msgspec.json.decode(text)
    except RecursionError:
        # Somebody else has a word for that.
        return False
    if not isinstance(raw, dict):
        return False
    ids = raw.get("mechanic_ids")
    return raw.get("type") == "watch" and isinstance(ids, list) and len(ids) > WATCH_MAX
