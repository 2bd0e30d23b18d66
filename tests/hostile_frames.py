"""Frames that no client of ours sends, made by chance from a seed: odd messages, and bytes that are no frames at all."""

import json
import random
from collections.abc import Callable
from typing import Final

from benchmarks.dialects import client_frame

ODD_VALUES: Final = (
    "null",
    "true",
    "0",
    "-1",
    "1e999",
    "-0.0",
    "NaN",
    "Infinity",
    "1" * 400,
    "-" + "9" * 4_000,
    "0." + "1" * 400,
    '""',
    '"\\u0000"',
    '"\\ud800"',
    '"\\udfff\\ud800"',
    '"\u202e\u200b\ufeff"',
    '"' + "x" * 5_000 + '"',
    "[]",
    "{}",
    "[" * 500 + "]" * 500,
    "[" * 7_000 + "]" * 7_000,
    "[" * 15_000,
    '{"a":' * 2_000 + "1" + "}" * 2_000,
    '"01KARJ7QWA1E5G9K3N7R2T6V0X"',
    '"01KARJ7QWA1E5G9K3N7R2T6V0X\\n"',
    "[1, null, {}]",
    '["a", "a", "a"]',
    json.dumps(["x"] * 101),
    json.dumps(["m" * 64] * 100),
    "",
    "\ufeff",
    "\ufeff{}",
    "'",
    "//",
)
MEMBERS: Final = (
    "type",
    "offer_id",
    "mechanic_ids",
    "on_duty",
    "reason",
    "seen",
    "back_in_s",
    "off_after_session",
    "",
    "__class__",
)
TYPES: Final = (
    "heartbeat",
    "set_availability",
    "offer_ack",
    "accept",
    "decline",
    "watch",
    "unwatch",
    "welcome",
    "error",
    "teleport",
    "\u0000",
)
LEN_MAX: Final = 16 * 1024


def odd_text(chance: random.Random) -> str:
    """Return the text of one frame, of at most 16 KiB in UTF-8."""
    text = chance.choice(_MAKERS)(chance)
    return text.encode("utf-8", errors="replace")[:LEN_MAX].decode(errors="ignore")


def odd_bytes(chance: random.Random) -> bytes:
    """Return bytes in the place of a few frames."""
    return b"".join(chance.choice(_BYTES)(chance) for _ in range(chance.randint(1, 4)))


def _value(chance: random.Random) -> str:
    return chance.choice(ODD_VALUES)


def _object(chance: random.Random) -> str:
    members = [f"{json.dumps(chance.choice(MEMBERS))}: {_value(chance)}" for _ in range(chance.randint(0, 5))]
    # Twice, sometimes: the last one counts, or the first, but somebody has to decide.
    members += [f'"type": {json.dumps(chance.choice(TYPES))}' for _ in range(chance.choice((0, 1, 1, 1, 2)))]
    chance.shuffle(members)
    return "{" + ", ".join(members) + "}"


def _mutated(chance: random.Random) -> str:
    text = list(_object(chance)[:2_000])
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(text))
        text[at : at + chance.randint(0, 3)] = chance.choice(
            ('"', "\\", "{", "]", ",", "\u0000", "é", "\U0001f697", " ", "\\u12")
        )
    return "".join(text)


def _several(chance: random.Random) -> str:
    return chance.choice(("", " ", "\n", ",")).join(_object(chance)[:200] for _ in range(2))


_MAKERS: Final[tuple[Callable[[random.Random], str], ...]] = (_value, _object, _object, _object, _mutated, _several)


def _frame(chance: random.Random) -> bytes:
    opcode = chance.choice((0, 1, 1, 2, 3, 7, 8, 9, 10, 11, 15))
    payload = chance.randbytes(chance.choice((0, 1, 2, 3, 20, 125, 126, 127, 2_000)))
    frame = client_frame(opcode, payload)
    is_final = chance.random() < 0.7
    return frame if is_final else bytes((frame[0] & 0x7F,)) + frame[1:]


def _close(chance: random.Random) -> bytes:
    code = chance.choice((0, 999, 1000, 1004, 1005, 1006, 1015, 2999, 3000, 4401, 65535))
    return client_frame(8, code.to_bytes(2, "big") + chance.choice((b"", b"why", b"\xff\xfe")))


def _header(chance: random.Random) -> bytes:
    """A header that promises what does not come, or is not masked, or has bits that mean nothing."""
    first = chance.randrange(256)
    return bytes((first, chance.choice((0x7E, 0x7F, 0xFE, 0xFF)))) + chance.randbytes(chance.randint(0, 12))


def _noise(chance: random.Random) -> bytes:
    return chance.randbytes(chance.randint(1, 300))


def _half(chance: random.Random) -> bytes:
    whole = client_frame(1, odd_text(chance).encode())
    return whole[: chance.randint(1, len(whole))]


_BYTES: Final[tuple[Callable[[random.Random], bytes], ...]] = (_frame, _frame, _close, _header, _noise, _half)
