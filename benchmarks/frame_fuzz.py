"""Odd frames on both sockets, by chance and for minutes: whether anything fails on the server's side, or grows."""

import asyncio
import json
import random
from asyncio import IncompleteReadError, StreamReader, StreamWriter
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Final

import anyio

from benchmarks.contenders import Pitlane, ground, listening, nodes
from benchmarks.cores import Cores
from benchmarks.dialects import client_frame
from benchmarks.meters import rss_len
from benchmarks.options import Options
from benchmarks.report import Report, Table, progress
from benchmarks.seeds import Sqlite, prepared
from http_api.sockets.frames import CLOSE, PONG, TEXT
from tests.acceptance.clients import token_for
from tests.hostile_frames import odd_bytes, odd_text

FRAMES_AT_ONCE: Final = 10
INTERVAL_S: Final = 0.25
"""Between two handfuls of one socket: fewer than fifty frames a second."""
BYTES_SHARE: Final = 5
"""One in so many sockets says what is no frame, and comes again."""
ANSWER_TIMEOUT_S: Final = 30.0
WARM_UP_S: Final = 5.0
MB: Final = 2**20


@dataclass
class Heard:
    """What came back."""

    kinds: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    closes: Counter[int] = field(default_factory=Counter)
    frames: int = 0
    faults: list[str] = field(default_factory=list)
    """What must not be: an internal error, a socket that ends without a reason."""


async def measure(options: Options, cores: Cores, folder: Path) -> Report:
    """Send them, and look at the answers, the log and the memory; raises ``RuntimeError`` for what must not be."""
    count = options.pick(options.connections, 200, 20)
    lasts_s = options.pick(options.duration_s, 180.0, 3.0)
    cores.pin_load(0)
    database_url, people = prepared(folder / "import", Sqlite(folder / "sqlite"), mechanics=count, customers=count)
    heard = Heard()
    with ground(folder / "run", cores, database_url=database_url) as on, nodes(Pitlane(), on) as [node]:
        await listening([node])
        everybody = [("mechanic", one) for one in people.mechanics] + [("customer", one) for one in people.customers]
        await _all_of_them(node.port, everybody, Heard(), min(WARM_UP_S, lasts_s))
        before = rss_len(node.pid)
        progress(f"{len(everybody)} sockets for {lasts_s:g} s")
        await _all_of_them(node.port, everybody, heard, lasts_s)
        growth_mb = (rss_len(node.pid) - before) / MB
        log = node.log_path.read_text()
        versions = {"Redis": on.redis.version()}
    heard.faults += [
        line for line in log.splitlines() if "Traceback" in line or "[error" in line or line.startswith("ERROR")
    ]
    if heard.faults:
        raise RuntimeError(f"{len(heard.faults)} faults, the first: {heard.faults[0]}")
    return Report("frames", [_table(heard, len(everybody), lasts_s, growth_mb)], versions)


async def _all_of_them(port: int, everybody: list[tuple[str, str]], heard: Heard, lasts_s: float) -> None:
    ends_at_s = monotonic() + lasts_s
    async with anyio.create_task_group() as tasks:
        for number, (role, account_id) in enumerate(everybody):
            talk = _noise if number % BYTES_SHARE == 0 else _talk
            tasks.start_soon(talk, port, role, account_id, random.Random(number), heard, ends_at_s)


async def _talk(port: int, role: str, account_id: str, chance: random.Random, heard: Heard, ends_at_s: float) -> None:
    """Send odd messages, and hear what comes, with an answer to each ping."""
    while monotonic() < ends_at_s:
        reader, writer = await _shaken(port, role, account_id)
        try:
            while monotonic() < ends_at_s:
                for _ in range(FRAMES_AT_ONCE):
                    writer.write(client_frame(TEXT, odd_text(chance).encode()))
                writer.write(client_frame(9, b"last"))
                heard.frames += FRAMES_AT_ONCE
                if not await _heard_until_pong(reader, heard):
                    break
                await anyio.sleep(INTERVAL_S)
        except (IncompleteReadError, ConnectionError) as error:
            heard.faults.append(f"{role}: {error!r}")
        finally:
            writer.transport.abort()


async def _noise(port: int, role: str, account_id: str, chance: random.Random, heard: Heard, ends_at_s: float) -> None:
    """Send what is no frame, again and again, each time on a socket of its own."""
    while monotonic() < ends_at_s:
        reader, writer = await _shaken(port, role, account_id)
        try:
            writer.write(odd_bytes(chance))
            writer.write_eof()
            heard.frames += 1
            while await _heard_until_pong(reader, heard):
                pass
        except (IncompleteReadError, ConnectionError):
            # It waited for the rest of a frame, of which there is none.
            heard.closes[0] += 1
        finally:
            writer.transport.abort()
        await anyio.sleep(INTERVAL_S)


async def _shaken(port: int, role: str, account_id: str) -> tuple[StreamReader, StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"GET /ws/{role} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        f"Authorization: Bearer {token_for(account_id, role)}\r\n\r\n".encode()
    )
    with anyio.fail_after(ANSWER_TIMEOUT_S):
        head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 101"):
        raise RuntimeError(f"the socket was refused: {head[:40]!r}")
    return reader, writer


async def _heard_until_pong(reader: StreamReader, heard: Heard) -> bool:
    """Read up to the answer to our ping; ``False`` if the socket is closed instead."""
    with anyio.fail_after(ANSWER_TIMEOUT_S):
        while True:
            first, length = await reader.readexactly(2)
            if length == 126:
                length = int.from_bytes(await reader.readexactly(2), "big")
            elif length == 127:
                length = int.from_bytes(await reader.readexactly(8), "big")
            payload = await reader.readexactly(length)
            opcode = first & 0x0F
            if opcode == PONG:
                return True
            if opcode == CLOSE:
                heard.closes[int.from_bytes(payload[:2], "big")] += 1
                return False
            if opcode == TEXT:
                message = json.loads(payload)
                heard.kinds[message["type"]] += 1
                if message["type"] == "error":
                    heard.codes[message["code"]] += 1
                if message.get("code") == "internal_error":
                    heard.faults.append(str(message))


def _table(heard: Heard, sockets: int, lasts_s: float, growth_mb: float) -> Table:
    table = Table(f"Odd frames on {sockets} sockets of both kinds for {lasts_s:g} s", ["", "count"])
    table.add("frames and noises sent", heard.frames)
    for code, count in sorted(heard.codes.items()):
        table.add(f"error `{code}`", count)
    for close, count in sorted(heard.closes.items()):
        table.add(f"closed with {close}" if close else "closed without a code, in the middle of a frame", count)
    table.add("server's memory more than before, MB", growth_mb)
    table.notes.append("No traceback, no error in the log, no `internal_error`.")
    return table
