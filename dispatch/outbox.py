"""Telling whom, after the commit: each transaction leaves messages, which are told right away and swept if a crash came between.

A message is leased to the node that wrote it; when it is still there after the lease, any node tells it. So everything is
told at least once, and handlers must not mind telling twice.

What is told is told together, kind by kind, the most urgent kind first: when much happens at once, one reading serves many
messages. So handlers must not mind either when a message of another kind, written later, is told earlier: each tells the state
as it is when it is told.
"""

from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import structlog
from sqlalchemy import delete, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from infra.clock import Clock
from infra.database import Database, insert_rows
from models.errors import Unavailable
from models.ids import new_id
from models.settings import DispatchSettings
from models.tables import OutboxMessage

TELL_BATCH = 300
"""Messages told together."""


@dataclass(frozen=True)
class Message:
    """``kind`` names the handler; ``payload`` is small and names rows, so that what is told is the state when it is told."""

    id: str
    kind: str
    payload: dict[str, Any]

    @classmethod
    def of(cls, kind: str, **payload: Any) -> "Message":
        """Return a new message."""
        return cls(new_id(), kind, payload)


Handler = Callable[[Sequence[Mapping[str, Any]]], Awaitable[None]]
"""Tells messages of one kind, given their payloads in the order in which they were written."""


class Outbox:
    """Write messages inside a transaction with ``add``, then ``post`` them once it has committed."""

    def __init__(self, database: Database, clock: Clock, settings: DispatchSettings) -> None:
        self._database = database
        self._clock = clock
        self._settings = settings
        self._handlers: dict[str, Handler] = {}
        self._posted: deque[Message] = deque()
        self._arrived = anyio.Event()
        self._idle = anyio.Event()
        self._log = structlog.get_logger("outbox")

    def on(self, kind: str, handler: Handler) -> None:
        """Let ``handler`` tell messages of this kind, after those of the kinds before."""
        self._handlers[kind] = handler

    async def add(self, session: AsyncSession, messages: Iterable[Message]) -> None:
        """Write the messages with the transaction, leased to this node."""
        leased_until_ms = self._clock.now_ms() + self._settings.outbox_lease_ms
        rows = [
            {"id": one.id, "kind": one.kind, "payload": one.payload, "leased_until_ms": leased_until_ms}
            for one in messages
        ]
        await insert_rows(session, OutboxMessage, rows)

    def post(self, messages: Iterable[Message]) -> None:
        """Tell what has been committed, soon and in order; never waits."""
        for message in messages:
            if len(self._posted) >= self._settings.outbox_queue_len_max:
                # Nothing is lost: the row is there, and the sweep takes it when its lease has ended.
                self._log.warning("outbox_queue_full", left_to_sweep=message.id)
                continue
            if self._idle.is_set():
                self._idle = anyio.Event()
            self._posted.append(message)
            self._arrived.set()

    async def drained(self) -> None:
        """Return when everything posted so far has been told."""
        await self._idle.wait()

    @property
    def depth(self) -> int:
        """Messages that this node still has to tell."""
        return len(self._posted)

    async def run(self) -> None:
        """Tell and sweep until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._tell_posted)
            tasks.start_soon(self._sweep)

    async def _tell_posted(self) -> None:
        while True:
            self._arrived = anyio.Event()
            if not self._posted:
                self._idle.set()
                await self._arrived.wait()
            await self._tell([self._posted.popleft() for _ in range(min(len(self._posted), TELL_BATCH))])

    async def _sweep(self) -> None:
        while True:
            await anyio.sleep(self._settings.outbox_lease_ms / 2000)
            try:
                while batch := await self._take_over():
                    self._log.info("outbox_taken_over", messages=len(batch))
                    await self._tell(batch)
            except Unavailable as error:
                self._log.warning("outbox_not_swept", error=str(error))

    async def _take_over(self) -> list[Message]:
        now_ms = self._clock.now_ms()
        async with self._database.read() as session:
            left_behind = select(OutboxMessage.id).where(OutboxMessage.leased_until_ms < now_ms)
            found = (await session.exec(left_behind.order_by(OutboxMessage.id).limit(TELL_BATCH))).all()
        # What this node has not come to yet it need not take from itself; others may, and help.
        posted = {message.id for message in self._posted}
        ids = [message_id for message_id in found if message_id not in posted]
        if not ids:
            return []
        async with self._database.write() as session:
            rows = await session.exec(
                update(OutboxMessage)
                # The lease is checked again: of two nodes that saw the same rows, one takes each.
                .where(col(OutboxMessage.id).in_(ids), col(OutboxMessage.leased_until_ms) < now_ms)
                .values(leased_until_ms=now_ms + self._settings.outbox_lease_ms)
                .returning(col(OutboxMessage.id), col(OutboxMessage.kind), col(OutboxMessage.payload))
            )
            return [Message(*row) for row in sorted(rows)]

    async def _tell(self, batch: Iterable[Message]) -> None:
        by_kind: defaultdict[str, list[Message]] = defaultdict(list)
        for message in batch:
            by_kind[message.kind].append(message)
        told: list[str] = []
        for kind, handler in self._handlers.items():
            messages = by_kind.pop(kind, [])
            if not messages or await self._tell_alike(handler, messages):
                told += (message.id for message in messages)
            elif len(messages) > 1:
                # Perhaps one of them is to blame, whose shard of Redis is away: the others shall not wait for it.
                told += [message.id for message in messages if await self._tell_alike(handler, [message])]
        if by_kind:
            # Written by a newer version during a rolling upgrade: one of its nodes takes them over after the lease.
            self._log.warning("messages_of_another_version", kinds=sorted(by_kind))
        if not told:
            return
        try:
            async with self._database.write() as session:
                await session.exec(delete(OutboxMessage).where(col(OutboxMessage.id).in_(told)))
        except Unavailable as error:
            # They will be told again after their lease; that is what at least once means.
            self._log.warning("outbox_not_cleared", error=str(error))

    async def _tell_alike(self, handler: Handler, messages: Sequence[Message]) -> bool:
        try:
            await handler([message.payload for message in messages])
        except Unavailable as error:
            self._log.warning("not_told_yet", kind=messages[0].kind, messages=len(messages), error=str(error))
            return False
        return True
