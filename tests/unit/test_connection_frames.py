"""RFC 6455 frames and the token bucket: pure, byte by byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import CLIENT, Protocol

from http_api.sockets import frame_rate, frames
from http_api.sockets.frames import BadFrame, close_code, frame_close, frame_pong, frame_text, parse, text

LEN_MAX = 16 * 1024


def from_client(opcode: int, payload: bytes = b"", *, is_final: bool = True) -> bytes:
    """A frame as a client of another make writes it: masked."""
    return Frame(Opcode(opcode), payload, is_final).serialize(mask=True)


def read_by_a_client(data: bytes) -> list[Frame]:
    client = Protocol(CLIENT)
    client.receive_data(data)
    assert client.parser_exc is None
    return client.events_received()


@given(payload=st.binary(max_size=LEN_MAX), cut=st.integers(min_value=0), before=st.binary(max_size=20))
def test_a_frame_is_read_whole_or_not_at_all_wherever_the_network_cuts_it(payload, cut, before):
    frame = from_client(2, payload)
    data = before + frame
    at = cut % len(frame)
    assert parse(data[: len(before) + at], len(before), len_max=LEN_MAX) is None
    assert parse(data + b"next", len(before), len_max=LEN_MAX) == (2, True, payload, len(data))


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65_535, 65_536])
def test_each_of_the_three_ways_to_write_a_length_is_read_at_every_cut_of_its_header(length):
    payload = bytes(n % 251 for n in range(length))
    frame = from_client(2, payload)
    assert parse(frame, 0, len_max=length) == (2, True, payload, len(frame))
    for cut in (*range(min(len(frame), 16)), len(frame) - 1):
        assert parse(frame[:cut], 0, len_max=length) is None
    if length:
        with pytest.raises(BadFrame) as refused:
            parse(frame, 0, len_max=length - 1)
        assert refused.value.code == 1009
    (read,) = read_by_a_client(frame_text(payload))
    assert bytes(read.data) == payload


@pytest.mark.parametrize("opcode", [8, 9, 10])
def test_a_control_frame_may_be_of_125_bytes_and_must_be_whole(opcode):
    frame = from_client(opcode, b"x" * 125)
    assert parse(frame, 0, len_max=LEN_MAX) == (opcode, True, b"x" * 125, len(frame))
    for forbidden in (bytes((opcode, 0x81)), bytes((0x80 | opcode, 0xFE))):
        with pytest.raises(BadFrame) as refused:
            parse(forbidden, 0, len_max=LEN_MAX)
        assert refused.value.code == 1002


def test_a_message_may_come_in_pieces():
    assert parse(from_client(1, b"he", is_final=False), 0, len_max=LEN_MAX) == (1, False, b"he", 8)
    assert parse(from_client(0, b"llo"), 0, len_max=LEN_MAX) == (0, True, b"llo", 9)


@given(payload=st.binary(max_size=70_000))
def test_another_make_of_client_reads_what_we_write(payload):
    (frame,) = read_by_a_client(frame_text(payload)) if len(payload) < 2**20 else ()
    assert (frame.opcode, frame.fin, bytes(frame.data)) == (Opcode.TEXT, True, payload)


def test_a_pong_carries_what_the_ping_carried():
    (frame,) = read_by_a_client(frame_pong(b"abc"))
    assert (frame.opcode, bytes(frame.data)) == (Opcode.PONG, b"abc")


def test_a_close_frame_has_its_code_and_a_reason_that_fits():
    (frame,) = read_by_a_client(frame_close(4408, "ä" * 200))
    close = Close.parse(bytes(frame.data))
    assert (close.code, close.reason) == (4408, "ä" * 61)
    (frame,) = read_by_a_client(frame_close(frames.NO_STATUS))
    assert bytes(frame.data) == b""


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x05hello", 1002),
        (b"\xc1\x80aaaa", 1002),
        (b"\x83\x80aaaa", 1002),
        (b"\x8b\x80aaaa", 1002),
        (b"\x09\x80aaaa", 1002),
        (b"\x89\xfe\x00\x7e", 1002),
        (b"\x81\xfe\x40\x01", 1009),
        (b"\x81\xff\x00\x00\x00\x01\x00\x00\x00\x00", 1009),
        (b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff", 1009),
    ],
    ids=[
        "unmasked",
        "compressed",
        "unknown opcode",
        "unknown control opcode",
        "fragmented ping",
        "long ping",
        "one byte too long",
        "four gigabytes",
        "negative length",
    ],
)
def test_a_forbidden_frame_is_refused_at_its_header(data, code):
    with pytest.raises(BadFrame) as refused:
        parse(data, 0, len_max=LEN_MAX)
    assert refused.value.code == code


def test_text_that_is_not_utf8_is_refused():
    with pytest.raises(BadFrame) as refused:
        text(b"\xff\xfe")
    assert refused.value.code == 1007


@pytest.mark.parametrize(
    ("payload", "code"), [(b"", 1005), (b"\x03\xe8", 1000), (b"\x03\xe8bye", 1000), (b"\x0f\xa0", 4000)]
)
def test_a_close_code_that_may_travel_is_read(payload, code):
    assert close_code(payload) == code


@pytest.mark.parametrize(
    ("payload", "refused_with"),
    [(b"\x03", 1002), (b"\x03\xed", 1002), (b"\x03\xe7", 1002), (b"\xff\xff", 1002), (b"\x03\xe8\xff", 1007)],
)
def test_a_close_code_that_must_not_travel_is_refused(payload, refused_with):
    with pytest.raises(BadFrame) as refused:
        close_code(payload)
    assert refused.value.code == refused_with


# --- the token bucket -------------------------------------------------------------------------------------------------


@given(start_s=st.floats(0, 1e9), per_s=st.integers(1, 1000), burst=st.integers(1, 1000))
def test_a_full_bucket_gives_exactly_the_burst_and_then_the_rate(start_s, per_s, burst):
    full_at_s: float | None = 0.0
    for _ in range(burst):
        assert full_at_s is not None
        full_at_s = frame_rate.take(full_at_s, start_s, per_s=per_s, burst=burst)
    assert full_at_s is not None
    assert frame_rate.take(full_at_s, start_s, per_s=per_s, burst=burst) is None
    later_s = start_s + 1.01 / per_s
    full_at_s = frame_rate.take(full_at_s, later_s, per_s=per_s, burst=burst)
    assert full_at_s is not None
    assert frame_rate.take(full_at_s, later_s, per_s=per_s, burst=burst) is None


@given(gaps_s=st.lists(st.floats(0, 0.5), max_size=300))
def test_nobody_gets_more_than_the_burst_and_the_rate_together(gaps_s):
    full_at_s, now_s, taken = 0.0, 100.0, 0
    for gap_s in gaps_s:
        now_s += gap_s
        after = frame_rate.take(full_at_s, now_s, per_s=10, burst=5)
        if after is not None:
            full_at_s, taken = after, taken + 1
    assert taken <= 5.5 + 10 * (now_s - 100.0)
