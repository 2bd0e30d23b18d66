"""Frames that say the same to many sockets, made once for all of them."""

from http_api.sockets.frames import frame_text
from infra.clock import Clock
from models import wire
from models.timestamps import rfc3339
from models.wire import HeartbeatAck, StatusChanged, StatusView


class HeartbeatAcks:
    """The answer to heartbeats: one frame for all those of a millisecond."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._made_at_ms = -1
        self._frame = b""

    def frame(self) -> bytes:
        """Return the frame that answers a heartbeat now."""
        now_ms = self._clock.now_ms()
        if now_ms != self._made_at_ms:
            self._made_at_ms = now_ms
            self._frame = frame_text(wire.encode(HeartbeatAck(rfc3339(now_ms))))
        return self._frame


class StatusFrames:
    """A mechanic's status: one frame for all who are told of it, which happens one status after the other."""

    def __init__(self) -> None:
        self._made_of: StatusView | None = None
        self._frame = b""

    def frame(self, view: StatusView) -> bytes:
        """Return the frame that tells of ``view``; made anew only if that is another object than the last time."""
        if view is not self._made_of:
            self._made_of = view
            changed = StatusChanged(
                view.mechanic_id,
                view.is_online,
                view.last_seen,
                view.availability,
                view.reachable,
                view.session_types,
                view.as_of,
                view.version,
                view.response,
            )
            self._frame = frame_text(wire.encode(changed))
        return self._frame
