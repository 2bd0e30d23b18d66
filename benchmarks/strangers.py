"""Hostile connections of many kinds towards one server, as a process of its own: what they cost is not to slow the measuring.

    python -m benchmarks.strangers PORT COUNT SECONDS         account ids of customers on standard input, one a line
    ► {"opened": …, "ended": …, "by_kind": {…}}               on standard output, at the end

Each comes again, a moment after it was thrown out.
"""

import asyncio
import json
import os
import random
import socket
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Final, cast

import anyio

from benchmarks.cores import raise_open_files_limit
from benchmarks.dialects import client_frame
from benchmarks.sockets import IP_BIND_ADDRESS_NO_PORT, PORTS_PER_ADDRESS
from tests.acceptance.clients import token_for
from tests.hostile_frames import odd_text

HOST: Final = "127.0.0.1"
PIECE_INTERVAL_S: Final = 0.5
"""Between two pieces of those who send for ever."""
AGAIN_S: Final = (0.2, 1.0)
"""How soon somebody who was thrown out comes again: at random in between."""
FRAMES_AT_ONCE: Final = 300
OPENED_AT_ONCE: Final = 256

_HEAD: Final = b"GET /api/plans HTTP/1.1\r\nHost: h\r\n"
_POST: Final = (
    b"POST /api/auth/login HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 4000\r\n\r\n{"
)
_UPGRADE: Final = (
    b"GET /ws/mechanic HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)


@dataclass(frozen=True)
class Kind:
    """What one of them does: ``first`` on connecting, ``then`` again and again."""

    name: str
    first: Callable[["Siege"], bytes]
    then: Callable[["Siege"], bytes] | None = None
    reads: bool = True
    comes_again_at_once: bool = False


@dataclass
class Siege:
    """All of them."""

    port: int
    customers: Sequence[str]
    chance: random.Random
    ends_at_s: float
    opened: Counter[str] = field(default_factory=Counter)
    ended: int = 0
    _sources: int = 0

    def flood(self) -> bytes:
        """Return the handshake of a customer who is signed in, and more frames than anybody has to send."""
        token = token_for(self.chance.choice(self.customers), "customer").encode()
        frames = b"".join(client_frame(1, odd_text(self.chance)[:200].encode()) for _ in range(FRAMES_AT_ONCE))
        return _UPGRADE.replace(b"mechanic", b"customer") + b"Authorization: Bearer " + token + b"\r\n\r\n" + frames

    def source(self) -> str:
        """Return a loopback address to come from: each has only so many ports."""
        self._sources += 1
        return f"127.0.0.{1 + self._sources // PORTS_PER_ADDRESS % 250}"


KINDS: Final = (
    Kind("silent", lambda siege: b""),
    Kind("half a head", lambda siege: _HEAD),
    Kind("half a body", lambda siege: _POST),
    Kind("a body that drips", lambda siege: _POST, lambda siege: b"x"),
    Kind("half an upgrade", lambda siege: _UPGRADE),
    Kind("an endless head", lambda siege: _HEAD + b"X: ", lambda siege: b"x" * 4096),
    Kind("many headers", lambda siege: _HEAD, lambda siege: b"X: y\r\n" * 100),
    Kind("an answer unread", lambda siege: b"GET /openapi.json HTTP/1.1\r\nHost: h\r\n\r\n" * 4, reads=False),
    Kind("refused handshakes", lambda siege: _UPGRADE + b"\r\n", comes_again_at_once=True),
    Kind("a flood of frames", lambda siege: siege.flood()),
)
STEADY: Final = tuple(kind for kind in KINDS if kind.name not in {"refused handshakes", "a flood of frames"})
FLOODS_SHARE: Final = 20
"""One in so many is of each kind that costs the server work whenever it comes; the others share the rest."""


def kind_of(number: int) -> Kind:
    """Return the kind of the ``number``-th."""
    match number % FLOODS_SHARE:
        case 0:
            return KINDS[-1]
        case 1:
            return KINDS[-2]
        case rest:
            return STEADY[(number // FLOODS_SHARE + rest) % len(STEADY)]


class _Stranger(asyncio.Protocol):
    """One connection."""

    def __init__(self, siege: Siege, kind: Kind) -> None:
        self._siege = siege
        self._kind = kind
        self._transport: asyncio.Transport | None = None
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not checked: uvloop's are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._siege.opened[self._kind.name] += 1
        if not self._kind.reads:
            self._transport.pause_reading()
        self._transport.write(self._kind.first(self._siege))

    def eof_received(self) -> bool:
        # Whoever can stay stays.
        return self._kind.then is not None

    def go_on(self) -> None:
        """Send the next piece, if there is one."""
        if self._transport is not None and self._kind.then is not None:
            self._transport.write(self._kind.then(self._siege))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._siege.ended += 1
        if not self.gone.done():
            self.gone.set_result(None)

    def leave(self) -> None:
        """Go."""
        if self._transport is not None:
            self._transport.abort()


async def besiege(siege: Siege, count: int) -> None:
    """Keep ``count`` of them coming until the end."""
    opening = anyio.Semaphore(OPENED_AT_ONCE)
    async with anyio.create_task_group() as tasks:
        for number in range(count):
            tasks.start_soon(_keep_coming, siege, kind_of(number), opening)


async def _keep_coming(siege: Siege, kind: Kind, opening: anyio.Semaphore) -> None:
    while monotonic() < siege.ends_at_s:
        one = _Stranger(siege, kind)
        road = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        road.setblocking(False)
        try:
            async with opening:
                road.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
                road.bind((siege.source(), 0))
                loop = asyncio.get_running_loop()
                with anyio.fail_after(5):
                    await loop.sock_connect(road, (HOST, siege.port))
                    await loop.create_connection(lambda one=one: one, sock=road)  # type: ignore[misc]
        except (OSError, TimeoutError):
            road.close()
        else:
            while not one.gone.done() and monotonic() < siege.ends_at_s:
                with anyio.move_on_after(min(PIECE_INTERVAL_S, max(0.01, siege.ends_at_s - monotonic()))):
                    await asyncio.shield(one.gone)
                one.go_on()
            one.leave()
        await anyio.sleep(0.05 if kind.comes_again_at_once else siege.chance.uniform(*AGAIN_S))


def main() -> None:
    """Run one siege, and say what it was."""
    raise_open_files_limit()
    # Whoever measures goes first.
    os.nice(10)
    port, count, lasts_s = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    customers = sys.stdin.read().split()
    siege = Siege(port, customers, random.Random(1), monotonic() + lasts_s)
    anyio.run(besiege, siege, count, backend_options={"use_uvloop": True})
    print(json.dumps({"opened": siege.opened.total(), "ended": siege.ended, "by_kind": siege.opened}))


if __name__ == "__main__":
    main()
