"""The load generator for REST calls: ready-made requests over kept connections, to a timetable."""

import asyncio
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Final, cast

import anyio

CONNECTIONS_MAX: Final = 256
ANSWER_TIMEOUT_S: Final = 60.0

_LENGTH: Final = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@dataclass
class Answers:
    """How long each call took, from when it was due; and how many were answered with each status."""

    after_ms: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)


class _Caller(asyncio.Protocol):
    """One kept connection, with one call under way at most."""

    def __init__(self, load: "_Load") -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._due_s = 0.0
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def call(self, request: bytes, due_s: float) -> None:
        """Send a call that was due at ``due_s``."""
        assert self._transport is not None
        self._due_s = due_s
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, found, body = self._got.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if found and length and len(body) >= int(length[1]):
            self._got = b""
            self._load.answered(self, int(head[9:12]), (monotonic() - self._due_s) * 1000)

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()


class _Load:
    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: deque[_Caller] = deque()
        self._all: list[_Caller] = []
        self.answers = Answers()

    def answered(self, caller: _Caller, status: int, after_ms: float) -> None:
        self.answers.after_ms.append(after_ms)
        self.answers.statuses[status] = self.answers.statuses.get(status, 0) + 1
        self._idle.append(caller)

    async def call(self, request: bytes, due_s: float) -> None:
        while not self._idle:
            if len(self._all) < CONNECTIONS_MAX:
                loop = asyncio.get_running_loop()
                _, caller = await loop.create_connection(lambda: _Caller(self), "127.0.0.1", self._port)
                self._all.append(caller)
                self._idle.append(caller)
            else:
                await anyio.sleep(0.001)
        self._idle.popleft().call(request, due_s)

    async def close(self, expected: int) -> None:
        with anyio.fail_after(ANSWER_TIMEOUT_S):
            while len(self.answers.after_ms) < expected:  # noqa: ASYNC110 - an event per answer would cost more
                await anyio.sleep(0.01)
        for caller in self._all:
            caller.close()


async def call_all(port: int, requests: Sequence[bytes], *, per_s: float) -> Answers:
    """Make the calls, evenly spread; a call that has to wait for its turn counts from when it was due."""
    load = _Load(port)
    started_s = monotonic()
    for number, request in enumerate(requests):
        due_s = started_s + number / per_s
        if (wait_s := due_s - monotonic()) > 0:
            await anyio.sleep(wait_s)
        await load.call(request, due_s)
    await load.close(len(requests))
    return load.answers


def post(path: str, body: bytes, **headers: str) -> bytes:
    """Return a whole POST request; header names are given with ``_`` for ``-``."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body
