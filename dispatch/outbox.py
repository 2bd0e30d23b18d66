"""Notices that a transaction leaves are told after its commit: by its own node right away, or by any node after a crash.

A message is leased to the node that wrote it. If it is still there after the lease, any node tells it. So everything is told at
least once, and handlers must not mind telling twice.

A node tells many messages together, kind by kind, the most urgent kind first: one reading then serves all of a kind. So a
message may be told before an older one of another kind. Handlers do not mind, because each reads the state when it tells.
A batch that cannot be told is halved until the message to blame stands alone.
"""

from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio
import msgspec
import structlog
from sqlalchemy import Text, cast, delete
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from dispatch.failures import Patience
from dispatch.leased_rows import LeasedRows
from dispatch.notices import Notice
from infra.clock import Clock
from infra.database import Database, insert_rows
from infra.loops import in_halves, keep_running
from models.errors import PitlaneError, RedisRefused, Unavailable
from models.ids import new_id
from models.settings import DispatchSettings
from models.tables import OutboxMessage

TELL_BATCH = 300
"""Messages told together."""
OUTAGES_MAX = 20
"""How often one handler may meet a broken world in one batch. After that, the rest of the batch waits for its lease.

Enough to find the one message to blame by halving."""


class NotUnderstood(PitlaneError):
    """A message of another version, perhaps: in a rolling upgrade one of its nodes tells it."""


@dataclass(frozen=True)
class Message:
    """A notice under the id of its row."""

    id: str
    notice: Notice

    @classmethod
    def of(cls, notice: Notice) -> "Message":
        """Return a new message."""
        return cls(new_id(), notice)


@dataclass(frozen=True)
class Stored:
    """A row of the outbox as it was written, by whatever version."""

    id: str
    kind: str
    payload: str


N = TypeVar("N", bound=Notice)
Handler = Callable[[Sequence[N]], Awaitable[None]]
"""Tells notices of one kind, in the order in which they were written."""


class Outbox:
    """Write messages inside a transaction with ``add``, then ``post`` them once it has committed."""

    def __init__(self, database: Database, clock: Clock, settings: DispatchSettings) -> None:
        self._database = database
        self._clock = clock
        self._settings = settings
        self._kinds: dict[str, tuple[type[Notice], Handler[Any]]] = {}
        self._posted: deque[Message] = deque()
        self._in_hand: set[str] = set()
        """Which of what was posted is being told."""
        self._arrived = anyio.Event()
        self._idle = anyio.Event()
        self._left_behind = LeasedRows(
            OutboxMessage,
            due="leased_until_ms",
            row=Stored,
            # As text: one row that is no JSON must not fail the reading of the others.
            columns=[col(OutboxMessage.id), col(OutboxMessage.kind), cast(OutboxMessage.payload, Text)],
            database=database,
            clock=clock,
            lease_ms=settings.outbox_lease_ms,
            patience=Patience.of(settings),
            counts_attempts=False,
        )
        self._log = structlog.get_logger("outbox")

    def on(self, kind: type[N], handler: Handler[N]) -> None:
        """Let ``handler`` tell notices of this kind, after those of the kinds before."""
        self._kinds[kind.kind] = (kind, handler)

    async def add(self, session: AsyncSession, messages: Iterable[Message]) -> None:
        """Write the messages with the transaction, leased to this node."""
        leased_until_ms = self._clock.now_ms() + self._settings.outbox_lease_ms
        rows = [
            {
                "id": one.id,
                "kind": one.notice.kind,
                "payload": msgspec.to_builtins(one.notice),
                "leased_until_ms": leased_until_ms,
            }
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
            tasks.start_soon(keep_running, "outbox", self._tell_posted)
            tasks.start_soon(keep_running, "outbox_sweep", self._sweep)

    async def _tell_posted(self) -> None:
        while True:
            self._arrived = anyio.Event()
            if not self._posted:
                self._idle.set()
                await self._arrived.wait()
            batch = [self._posted.popleft() for _ in range(min(len(self._posted), TELL_BATCH))]
            self._in_hand = {message.id for message in batch}
            try:
                await self._tell(batch)
            finally:
                self._in_hand = set()

    async def _sweep(self) -> None:
        while True:
            await anyio.sleep(self._settings.outbox_lease_ms / 2000)
            try:
                # Skip what this node has in hand, or in its own queue. Other nodes may take that, and it helps.
                while rows := await self._left_behind.claim(TELL_BATCH, skip=self._own()):
                    self._log.info("outbox_taken_over", messages=len(rows))
                    understood, failures = self._understood(rows)
                    await self._tell(understood)
                    await self._count(failures)
            except Unavailable as error:
                self._log.warning("outbox_not_swept", error=str(error))

    def _own(self) -> set[str]:
        return self._in_hand.union(message.id for message in self._posted)

    def _understood(self, rows: Iterable[Stored]) -> tuple[list[Message], list[tuple[str, Exception]]]:
        """Return the messages that the rows hold, and those rows that are not understood, by their ids."""
        messages: list[Message] = []
        failures: list[tuple[str, Exception]] = []
        for row in rows:
            kind, _ = self._kinds.get(row.kind, (None, None))
            if kind is None:
                error = NotUnderstood(f"There is no notice of kind {row.kind!r} in this version.")
                failures.append((row.id, error))
                continue
            try:
                messages.append(Message(row.id, msgspec.json.decode(row.payload, type=kind)))
            except (msgspec.DecodeError, UnicodeError) as error:
                why = NotUnderstood(f"A notice of kind {row.kind} has another shape here: {error}")
                failures.append((row.id, why))
        return messages, failures

    async def _tell(self, batch: Iterable[Message]) -> None:
        by_kind: defaultdict[str, list[Message]] = defaultdict(list)
        for message in batch:
            by_kind[message.notice.kind].append(message)
        told: list[str] = []
        failures: list[tuple[str, Exception]] = []
        for kind, (_, handler) in self._kinds.items():

            async def tell(together: Sequence[Message], handler: Handler[Any] = handler) -> None:
                await handler([message.notice for message in together])
                told.extend(message.id for message in together)

            async def not_told(message: Message, error: Exception) -> None:
                if isinstance(error, Unavailable | RedisRefused):
                    # Not its own fault: it waits for its lease.
                    self._log.warning("not_told_yet", id=message.id, error=str(error))
                else:
                    failures.append((message.id, error))

            try:
                await in_halves(by_kind[kind], tell, not_told, outages_max=OUTAGES_MAX)
            except Unavailable as error:
                self._log.warning("not_told_yet", kind=kind, error=str(error))
        try:
            if told:
                async with self._database.write() as session:
                    await session.exec(delete(OutboxMessage).where(col(OutboxMessage.id).in_(told)))
        except Unavailable as error:
            # They will be told again after their lease; that is what at least once means.
            self._log.warning("outbox_not_cleared", error=str(error))
        await self._count(failures)

    async def _count(self, failures: Sequence[tuple[str, Exception]]) -> None:
        """Count what is the rows' own fault, together: a crowd of them must not keep the others waiting."""
        if not failures:
            return
        try:
            await self._left_behind.all_failed(failures)
        except Unavailable as error:
            self._log.warning("failures_not_noted", count=len(failures), error=str(error))
