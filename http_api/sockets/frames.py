"""WebSocket frames as a server reads and writes them (RFC 6455 §5), without compression. Pure: bytes in, values out."""

import struct
from typing import Final, NamedTuple

try:
    from websockets.speedups import apply_mask
except ImportError:
    # The wheel for this platform came without its C part.
    from websockets.utils import apply_mask

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

PING_FRAME: Final = b"\x89\x00"
"""An empty ping: whoever answers is alive, and which ping they answer does not matter."""

NO_STATUS: Final = 1005
"""Stands for a close frame without a code; never travels itself (§7.4.1)."""
_KNOWN: Final = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})
_CLIENT_CODES: Final = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})
_CONTROL_LEN_MAX: Final = 125


class BadFrame(Exception):
    """The peer broke the protocol; the connection must be closed with ``code``."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Frame(NamedTuple):
    """One frame, unmasked. ``end``: where in the data the next one begins."""

    opcode: int
    is_final: bool
    payload: bytes
    end: int


def parse(data: bytes, start: int, *, len_max: int) -> Frame | None:
    """Return the client's frame that begins at ``start``, or ``None`` while it is incomplete.

    Raises ``BadFrame`` as soon as the header shows that the frame is not allowed; nothing longer than ``len_max`` is
    ever waited for.
    """
    have = len(data) - start
    if have < 2:
        return None
    first, second = data[start], data[start + 1]
    opcode = first & 0x0F
    if first & 0x70:
        raise BadFrame(1002, "reserved bits must be 0")
    if not second & 0x80:
        raise BadFrame(1002, "frames of a client must be masked")
    length = second & 0x7F
    if opcode not in _KNOWN:
        raise BadFrame(1002, "unknown opcode")
    if opcode >= CLOSE and (length > _CONTROL_LEN_MAX or first < 0x80):
        raise BadFrame(1002, "a control frame must be short and whole")
    mask_at = start + 2
    if length == 126:
        if have < 4:
            return None
        length = int.from_bytes(data[mask_at : mask_at + 2], "big")
        mask_at += 2
    elif length == 127:
        if have < 10:
            return None
        length = int.from_bytes(data[mask_at : mask_at + 8], "big")
        mask_at += 8
    if length > len_max:
        raise BadFrame(1009, f"messages are at most {len_max} bytes")
    payload_at = mask_at + 4
    end = payload_at + length
    if len(data) < end:
        return None
    payload = apply_mask(data[payload_at:end], data[mask_at:payload_at]) if length else b""
    return Frame(opcode, first >= 0x80, payload, end)


def frame_text(payload: bytes) -> bytes:
    """Return the bytes of one unmasked text frame, ready to be written to any number of sockets."""
    return _framed(0x80 | TEXT, payload)


def frame_pong(payload: bytes) -> bytes:
    """Return the answer to a ping that carried ``payload`` (§5.5.3)."""
    return _framed(0x80 | PONG, payload)


def frame_close(code: int, reason: str = "") -> bytes:
    """Return a close frame; a reason too long for a control frame is cut."""
    if code == NO_STATUS:
        return _framed(0x80 | CLOSE, b"")
    return _framed(0x80 | CLOSE, struct.pack("!H", code) + _cut(reason.encode(), _CONTROL_LEN_MAX - 2))


def close_code(payload: bytes) -> int:
    """Return the code in the client's close frame; raises ``BadFrame`` for one that must not travel (§7.4)."""
    if not payload:
        return NO_STATUS
    if len(payload) == 1:
        raise BadFrame(1002, "a close code has two bytes")
    code = int.from_bytes(payload[:2], "big")
    if code not in _CLIENT_CODES and not 3000 <= code < 5000:
        raise BadFrame(1002, "invalid close code")
    text(payload[2:])
    return code


def text(payload: bytes) -> str:
    """Return the text of a message; raises ``BadFrame`` if it is not UTF-8 (§8.1)."""
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise BadFrame(1007, "text must be UTF-8") from error


def _framed(first: int, payload: bytes) -> bytes:
    length = len(payload)
    if length < 126:
        return bytes((first, length)) + payload
    if length < 65536:
        return struct.pack("!BBH", first, 126, length) + payload
    return struct.pack("!BBQ", first, 127, length) + payload


def _cut(encoded: bytes, len_max: int) -> bytes:
    return encoded if len(encoded) <= len_max else encoded[:len_max].decode(errors="ignore").encode()
