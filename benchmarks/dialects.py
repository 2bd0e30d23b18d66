"""How a mechanic or a customer says things to each contender, and what the answers mean. Pure: bytes in, values out.

All contenders do the same work under the same words: ``heartbeat`` is answered by ``heartbeat_ack``, ``set_availability`` by
``availability`` and, to those who ``watch``, ``status``.
"""

import json
import struct
from typing import Any, Final, Protocol

from http_api.sockets.frames import TEXT

_NO_MASK: Final = b"\x00\x00\x00\x00"
"""A client must mask; masking with zeros changes nothing, which saves the load generator the work."""


def client_frame(opcode: int, payload: bytes) -> bytes:
    """Return one masked frame (RFC 6455 §5.2)."""
    length = len(payload)
    if length < 126:
        return bytes((0x80 | opcode, 0x80 | length)) + _NO_MASK + payload
    return struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, length) + _NO_MASK + payload


def frames_in(data: bytes) -> tuple[list[tuple[int, bytes]], int]:
    """Return the server's whole frames in ``data`` as (opcode, payload), and where the rest begins."""
    frames: list[tuple[int, bytes]] = []
    start, have = 0, len(data)
    while have - start >= 2:
        length, payload_at = data[start + 1], start + 2
        if length == 126:
            length, payload_at = int.from_bytes(data[start + 2 : start + 4], "big"), start + 4
        elif length == 127:
            length, payload_at = int.from_bytes(data[start + 2 : start + 10], "big"), start + 10
        end = payload_at + length
        if payload_at > have or end > have:
            break
        frames.append((data[start] & 0x0F, data[payload_at:end]))
        start = end
    return frames, start


class Dialect(Protocol):
    """One way to put messages into text frames."""

    def path(self, role: str) -> str:
        """Return where the role's socket is opened."""
        ...

    def say(self, kind: str, **members: Any) -> bytes:
        """Return a message as a whole client frame."""
        ...

    def kind_of(self, payload: bytes) -> str:
        """Return the kind of a message, cheaply."""
        ...

    def members_of(self, payload: bytes) -> dict[str, Any]:
        """Return what a message says besides its kind."""
        ...

    def reply_to(self, kind: str) -> bytes | None:
        """Return the frame that the transport itself wants in answer to a message of this kind, if any."""
        ...


class PlainJson:
    """One JSON object per frame, with its ``type`` first: Pitlane, and the Channels peer."""

    def path(self, role: str) -> str:
        return f"/ws/{role}"

    def say(self, kind: str, **members: Any) -> bytes:
        return client_frame(TEXT, json.dumps({"type": kind, **members}, separators=(",", ":")).encode())

    def kind_of(self, payload: bytes) -> str:
        return payload[9 : payload.index(b'"', 9)].decode()

    def members_of(self, payload: bytes) -> dict[str, Any]:
        members: dict[str, Any] = json.loads(payload)
        return members

    def reply_to(self, kind: str) -> bytes | None:
        return None


class SocketIo:
    """Socket.IO 5 over Engine.IO 4, straight on a WebSocket (github.com/socketio/socket.io-protocol)."""

    _REPLIES: Final = {"engine_open": client_frame(TEXT, b"40"), "engine_ping": client_frame(TEXT, b"3")}
    _PACKETS: Final = {b"0": "engine_open", b"2": "engine_ping"}

    def path(self, role: str) -> str:
        return f"/socket.io/?EIO=4&transport=websocket&role={role}"

    def say(self, kind: str, **members: Any) -> bytes:
        return client_frame(TEXT, b"42" + json.dumps([kind, members], separators=(",", ":")).encode())

    def kind_of(self, payload: bytes) -> str:
        if payload.startswith(b'42["'):
            return payload[4 : payload.index(b'"', 4)].decode()
        return self._PACKETS.get(payload[:1], "connected")

    def members_of(self, payload: bytes) -> dict[str, Any]:
        parts = json.loads(payload[2:])
        return parts[1] if len(parts) > 1 else {}

    def reply_to(self, kind: str) -> bytes | None:
        return self._REPLIES.get(kind)
