"""A handed-over socket against a transport that records: whatever arrives, it neither breaks nor speaks out of turn."""

import random
from typing import Any, cast

from http_api.sockets.frames import frame_text
from http_api.sockets.protocol import HandedOverSocket, SocketCounters, SocketLike, SocketLimits
from tests.unit.connection_stage import client_frame

LIMITS = SocketLimits(frame_len_max=1024, frames_per_s_max=50, frames_burst_max=200, send_buffer_len_max=4096)


class Transport:
    """Records what is written; reads nothing, unless told to."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.unread = 0
        self.is_aborted = False
        self.is_closed = False
        self.has_sent_eof = False

    def write(self, data: bytes) -> None:
        assert not (self.is_closed or self.is_aborted or self.has_sent_eof), "written after the end"
        self.written.append(data)
        self.unread += len(data)

    def get_write_buffer_size(self) -> int:
        return self.unread

    def is_closing(self) -> bool:
        return self.is_closed or self.is_aborted

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.has_sent_eof = True

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_aborted = True


class Listener:
    """A connection that answers every message, and checks that it is not called once closed."""

    def __init__(self) -> None:
        self.socket: SocketLike | None = None
        self.heard: list[str] = []
        self.closed_with: int | None = None

    def on_open(self, socket: SocketLike) -> None:
        self.socket = socket

    def on_message(self, text: str) -> None:
        assert self.closed_with is None, "a message after the close"
        self.heard.append(text)
        assert self.socket is not None
        self.socket.send(b"heard")

    def on_alive(self) -> None:
        assert self.closed_with is None, "alive after the close"

    def on_close(self, code: int) -> None:
        assert self.closed_with is None, "closed twice"
        self.closed_with = code


def a_socket(limits: SocketLimits = LIMITS) -> tuple[HandedOverSocket, Transport, Listener, set[Any]]:
    transport, listener, registry = Transport(), Listener(), set[Any]()
    socket = HandedOverSocket(cast(Any, transport), listener, limits, SocketCounters(), registry)
    listener.on_open(socket)
    return socket, transport, listener, registry


def noise(chance: random.Random) -> bytes:
    """Frames as they should be and as they should not, with some bytes wrong."""
    data = bytearray()
    for _ in range(chance.randrange(1, 8)):
        payload = chance.randbytes(chance.choice([0, 1, 2, 5, 125, 126, 300, 1025]))
        if chance.random() < 0.6:
            payload = payload.hex().encode()[: len(payload)]
        data += client_frame(chance.randrange(16), payload, is_final=chance.random() < 0.8)
    for _ in range(chance.choice([0, 0, 1, 5])):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


async def test_no_bytes_whatever_break_a_socket():
    for seed in range(2_000):
        chance = random.Random(seed)
        socket, transport, listener, registry = a_socket()
        data = noise(chance)
        while data:
            size = chance.choice([1, 2, 7, len(data)])
            piece, data = data[:size], data[size:]
            if not transport.is_closing():
                socket.data_received(piece)
        socket.connection_lost(None)
        assert listener.closed_with is not None
        assert registry == set()


async def test_a_slow_consumer_is_cut_off_at_the_limit_and_never_written_to_again():
    socket, transport, listener, _ = a_socket()
    frame = frame_text(b"x" * 1_000)
    for _ in range(10):
        socket.send_framed(frame)
    assert transport.is_aborted
    assert len(transport.written) == 5
    assert listener.closed_with == 1006


async def test_after_our_close_only_the_answer_to_it_counts():
    socket, transport, listener, registry = a_socket()
    socket.close(4408, "silent")
    assert listener.closed_with == 4408
    socket.data_received(client_frame(1, b"still talking"))
    assert not transport.is_closed
    socket.data_received(client_frame(8, b"\x11\x38"))
    assert transport.is_closed
    assert listener.heard == []
    assert registry == {socket}, "uvicorn waits until the connection is really over"
    socket.connection_lost(None)
    assert registry == set()


async def test_a_close_in_the_middle_of_a_read_ends_the_deliveries():
    socket, _, listener, _ = a_socket()

    def close_at_once(text: str) -> None:
        listener.heard.append(text)
        socket.close(1008)

    listener.on_message = close_at_once
    socket.data_received(client_frame(1, b"one") + client_frame(1, b"two"))
    assert listener.heard == ["one"]
