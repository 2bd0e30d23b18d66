"""Notices that a transaction leaves are told after its commit: by its own node right away, or by any node after a crash.

A message is leased to the node that wrote it. If it is still there after the lease, any node tells it. So everything is told at
least once, and handlers must not mind telling twice.

Kinds that have to do with each other have one handler, and no handler waits for another. A node tells what has gathered for a
handler together: one visit to Redis then serves all. So a message may be told before an older one of another kind. Handlers do not
mind: what they tell has a version, or is the end of something.
A batch that cannot be told is halved until the message to blame stands alone.
"""

from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import msgspec
import structlog
from sqlalchemy import Text, cast
from sqlmodel import col

from dispatch.failures import Patience
from dispatch.leased_rows import LeasedRows
from dispatch.notices import Notice
from dispatch.stored import SQL, Named
from infra.clock import Clock
from infra.database import Database
from infra.loops import in_halves, keep_running
from infra.statements import Nothing, Statement, Transaction
from models.errors import PitlaneError, RedisRefused, Unavailable
from models.ids import new_id
from models.settings import DispatchSettings
from models.tables import OutboxMessage

LEAVE_TO_TELL = Statement(SQL / "leave_to_tell.sql", Nothing)
DUE_TO_TELL = Statement(SQL / "due_to_tell.sql", Named)
FORGET_TOLD = Statement(SQL / "forget_told.sql", Nothing)

TELL_BATCH = 300
"""Messages told together."""
FORGET_AFTER_S = 0.2
"""How long what was told may gather until one transaction forgets it; if the node dies meanwhile, it is told once more."""
FRESH_S = 0.5
"""How long after its commit a message is told as it was then; afterwards, what may have changed is read."""
OUTAGES_MAX = 20
"""How often a handler may meet a broken world in one batch. After that, the rest of the batch waits for its lease.

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


Handler = Callable[[Sequence[Any]], Awaitable[None]]
"""Tells notices of its kinds, which come in the order in which they were written."""


class _Lane:
    """What waits to be told by one handler."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self._posted: deque[tuple[float, Message]] = deque()
        self._arrived = anyio.Event()

    def put(self, message: Message) -> None:
        """Let a message be told after those before."""
        self._posted.append((anyio.current_time(), message))
        self._arrived.set()

    async def take(self, count_max: int) -> list[tuple[float, Message]]:
        """Wait until there is something; return what has gathered, within the bound, each with when it came (monotonic, s)."""
        while not self._posted:
            self._arrived = anyio.Event()
            await self._arrived.wait()
        return [self._posted.popleft() for _ in range(min(len(self._posted), count_max))]


class Outbox:
    """Write messages inside a transaction with ``add``, then ``post`` them once it has committed."""

    def __init__(self, database: Database, clock: Clock, settings: DispatchSettings) -> None:
        self._database = database
        self._clock = clock
        self._settings = settings
        self._kinds: dict[str, type[Notice]] = {}
        self._lanes: dict[str, _Lane] = {}
        """By the names of their kinds."""
        self._own: set[str] = set()
        """What was posted here and has not come to its end."""
        self._told: list[str] = []
        self._has_told = anyio.Event()
        self._hurry = anyio.Event()
        """Somebody waits until all is forgotten."""
        self._idle = anyio.Event()
        self._idle.set()
        self._left_behind = LeasedRows(
            OutboxMessage,
            look=DUE_TO_TELL,
            due="leased_until_ms",
            row=Stored,
            # As text: one row that is no JSON must not fail the reading of the others.
            columns=[col(OutboxMessage.id), col(OutboxMessage.kind), cast(OutboxMessage.payload, Text)],
            database=database,
            clock=clock,
            lease_ms=settings.outbox_lease_ms,
            patience=Patience.of(settings),
            counts_attempts=False,
            looks_ahead=False,
        )
        self._log = structlog.get_logger("outbox")

    def on(self, handler: Handler, *kinds: type[Notice]) -> None:
        """Let ``handler`` tell notices of these kinds."""
        lane = _Lane(handler)
        self._kinds |= {kind.kind: kind for kind in kinds}
        self._lanes |= {kind.kind: lane for kind in kinds}

    def add(self, messages: Iterable[Message]) -> Transaction[None]:
        """Write the messages with the transaction, leased to this node."""
        leased_until_ms = self._clock.now_ms() + self._settings.outbox_lease_ms
        yield from LEAVE_TO_TELL.each(
            {
                "id": one.id,
                "kind": one.notice.kind,
                "payload": msgspec.json.encode(one.notice).decode(),
                "leased_until_ms": leased_until_ms,
            }
            for one in messages
        )

    def post(self, messages: Iterable[Message]) -> None:
        """Tell what has been committed, soon and in order; never waits."""
        for message in messages:
            if len(self._own) >= self._settings.outbox_queue_len_max:
                # Nothing is lost: the row is there, and the sweep takes it when its lease has ended.
                self._log.warning("outbox_queue_full", left_to_sweep=message.id)
                continue
            lane = self._lanes.get(message.notice.kind)
            if lane is None:
                # A command tells nobody; a serving node does.
                continue
            if not self._own:
                self._idle = anyio.Event()
            self._own.add(message.id)
            lane.put(message)

    async def drained(self) -> None:
        """Return when everything posted so far has been told and forgotten, or left to its lease."""
        self._hurry.set()
        await self._idle.wait()
        self._hurry = anyio.Event()

    @property
    def depth(self) -> int:
        """Messages that this node still has to tell."""
        return len(self._own)

    async def run(self) -> None:
        """Tell and sweep until cancelled."""
        async with anyio.create_task_group() as tasks:
            for lane in dict.fromkeys(self._lanes.values()):
                tasks.start_soon(keep_running, "outbox", partial(self._tell_posted, lane))
            tasks.start_soon(keep_running, "outbox_forget", self._forget_told)
            tasks.start_soon(keep_running, "outbox_sweep", self._sweep)

    async def _tell_posted(self, lane: _Lane) -> None:
        while True:
            waited = await lane.take(TELL_BATCH)
            posted_at_s = min(at_s for at_s, _ in waited)
            batch = [message for _, message in waited]
            told: list[str] = []
            try:
                told = await self._tell(lane, batch, fresh_until_s=posted_at_s + FRESH_S)
            finally:
                self._end_of({message.id for message in batch}.difference(told))
            self._told += told
            self._has_told.set()

    async def _forget_told(self) -> None:
        """Forget in SQL what was told; beside the telling, which waits for no lock."""
        while True:
            if not self._told:
                self._has_told = anyio.Event()
                await self._has_told.wait()
            with anyio.move_on_after(FORGET_AFTER_S):
                await self._hurry.wait()
            told, self._told = self._told, []
            try:
                await self._forget(told)
            finally:
                self._end_of(told)

    def _end_of(self, message_ids: Collection[str]) -> None:
        self._own.difference_update(message_ids)
        if not self._own:
            self._idle.set()

    async def _sweep(self) -> None:
        while True:
            await anyio.sleep(self._settings.outbox_lease_ms / 2000)
            try:
                # Skip what this node has in hand, or in its own queue. Other nodes may take that, and it helps.
                while rows := await self._left_behind.claim(TELL_BATCH, skip=frozenset(self._own)):
                    self._log.info("outbox_taken_over", messages=len(rows))
                    understood, failures = self._understood(rows)
                    for lane, together in self._by_lane(understood):
                        await self._forget(await self._tell(lane, together))
                    await self._count(failures)
            except Unavailable as error:
                self._log.warning("outbox_not_swept", error=str(error))

    def _understood(self, rows: Iterable[Stored]) -> tuple[list[Message], list[tuple[str, Exception]]]:
        """Return the messages that the rows hold, and those rows that are not understood, by their ids."""
        messages: list[Message] = []
        failures: list[tuple[str, Exception]] = []
        for row in rows:
            kind = self._kinds.get(row.kind)
            if kind is None:
                error = NotUnderstood(f"There is no notice of kind {row.kind!r} in this version.")
                failures.append((row.id, error))
                continue
            try:
                notice = msgspec.json.decode(row.payload, type=kind)
                messages.append(Message(row.id, notice))
            except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                why = NotUnderstood(f"A notice of kind {row.kind} has another shape here: {error}")
                failures.append((row.id, why))
        return messages, failures

    def _by_lane(self, messages: Iterable[Message]) -> Iterable[tuple[_Lane, list[Message]]]:
        by_lane: defaultdict[_Lane, list[Message]] = defaultdict(list)
        for message in messages:
            by_lane[self._lanes[message.notice.kind]].append(message)
        return by_lane.items()

    async def _tell(self, lane: _Lane, batch: Sequence[Message], *, fresh_until_s: float = 0.0) -> list[str]:
        """Tell messages of one lane; return the ids of those that have been told.

        Until ``fresh_until_s`` (monotonic) they are told as they were at their commit; afterwards, what may have changed is read.
        """
        told: list[str] = []
        failures: list[tuple[str, Exception]] = []

        async def tell(together: Sequence[Message]) -> None:
            is_fresh = anyio.current_time() < fresh_until_s
            await lane.handler([one.notice if is_fresh else one.notice.told_late() for one in together])
            told.extend(message.id for message in together)

        async def not_told(message: Message, error: Exception) -> None:
            if isinstance(error, Unavailable | RedisRefused):
                # Not its own fault: it waits for its lease.
                self._log.warning("not_told_yet", id=message.id, error=str(error))
            else:
                failures.append((message.id, error))

        try:
            await in_halves(batch, tell, not_told, outages_max=OUTAGES_MAX)
        except Unavailable as error:
            self._log.warning("not_told_yet", error=str(error))
        await self._count(failures)
        return told

    async def _forget(self, told: list[str]) -> None:
        try:
            if told:
                await self._database.commit(FORGET_TOLD(ids=told))
        except Unavailable as error:
            # They will be told again after their lease; that is what at least once means.
            self._log.warning("outbox_not_cleared", error=str(error))

    async def _count(self, failures: Sequence[tuple[str, Exception]]) -> None:
        """Count what is the rows' own fault, together: a crowd of them must not keep the others waiting."""
        if not failures:
            return
        try:
            await self._left_behind.all_failed(failures)
        except Unavailable as error:
            self._log.warning("failures_not_noted", count=len(failures), error=str(error))
