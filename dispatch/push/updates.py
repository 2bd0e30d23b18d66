"""Waking customers with what has become of their requests while no page of theirs is open, and mechanics with what becomes of
those that they have accepted.

A transition of a customer who has a browser that can be woken leaves a notice; told, it becomes a message in SQL for each of their
browsers, due as soon as an open page would have answered. An older one that has not been sent is taken back. A mechanic who is to
start is woken in any case: a phone whose screen is off may well hold its socket; nobody is reminded of what is not theirs to start
any more, however late the notice is told or the push service answers.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

import structlog
from msgspec.structs import replace

from dispatch.notices import CustomerToWake, MechanicToWake
from dispatch.outbox import Outbox
from dispatch.push.bell import Bell
from dispatch.push.pages import OpenPages
from dispatch.push.planner import SQL
from dispatch.push.rules import (
    NEWS,
    PAGE_ANSWERS_WITHIN_MS,
    REMINDER,
    SESSION_NEWS,
    UPDATE_MS,
    update_lifetime_ms,
)
from dispatch.push.sealing import TEXT_LEN_MAX
from dispatch.request_store import load
from dispatch.views import request_view, without_reports
from infra.clock import Clock
from infra.database import Database
from infra.statements import Nothing, Statement, Transaction
from models.errors import RedisUnavailable
from models.wire import RequestUpdate, RequestView, encode
from models.words import RequestStatus

UPDATE: Final = "request_update"
SESSION_UPDATE: Final = "session_update"
SPARE_LEN: Final = 100
"""Bytes kept free in a message: what counts down may be written longer when it is sent."""
STORY_LEN_SHORT: Final = 5

ADD_UPDATE = Statement(SQL / "add_update.sql", Nothing)
TAKE_BACK_UPDATES = Statement(SQL / "take_back_updates.sql", Nothing)


class Updates:
    """Registers itself with the outbox for customers and mechanics who may have to be woken."""

    def __init__(self, *, database: Database, clock: Clock, pages: OpenPages, bell: Bell, outbox: Outbox) -> None:
        self._database = database
        self._clock = clock
        self._pages = pages
        self._bell = bell
        self._log = structlog.get_logger("push")
        outbox.on(self._plan_all, CustomerToWake)
        outbox.on(self._plan_for_mechanics, MechanicToWake)

    async def _plan_all(self, notices: Sequence[CustomerToWake]) -> None:
        events: defaultdict[str, set[str]] = defaultdict(set)
        for notice in notices:
            events[notice.request_id].update(notice.events)
        for request_id, happened in events.items():
            planned = await self._database.commit(self._plan(request_id, is_news=bool(happened & NEWS)))
            if planned is None:
                continue
            self._bell.ring()
            customer_id, name = planned
            try:
                await self._pages.ask(customer_id, name)
            except RedisUnavailable as error:
                # Nobody will answer, so they are woken: pages do not hear of anything just now either.
                self._log.warning("pages_not_asked", request_id=request_id, error=str(error))

    async def _plan_for_mechanics(self, notices: Sequence[MechanicToWake]) -> None:
        for notice in notices:
            await self._database.commit(self._plan_for_mechanic(notice))
            self._bell.ring()

    def _plan_for_mechanic(self, notice: MechanicToWake) -> Transaction[None]:
        """Leave the messages, and take back those that are overtaken. Nothing changes when it is repeated."""
        # As it is by now: of two nodes that tell of a request, the one with the older news may come last.
        stored = yield from load(notice.request_id)
        if stored is None:
            return
        now_ms = self._clock.now_ms()
        must_start = stored.status == RequestStatus.ACCEPTED and stored.assigned_mechanic_id == notice.mechanic_id
        news = SESSION_NEWS if must_start else SESSION_NEWS - {REMINDER}
        event = next((one for one in notice.events if one in news), None)
        # Each happens to a mechanic once at most for each request: nobody has it again who has lost it.
        name = f"{SESSION_UPDATE}-{notice.request_id}-{event}"
        if event is not None:
            limit_ms = stored.limit_expires_at_ms if must_start else None
            yield from ADD_UPDATE(
                name=name,
                account_id=notice.mechanic_id,
                request_id=notice.request_id,
                kind=SESSION_UPDATE,
                is_news=True,
                payload=fitting(without_reports(request_view(stored, now_ms=now_ms))).decode(),
                due_at_ms=now_ms,
                # A reminder is of no use after what it reminds of.
                expires_at_ms=now_ms + UPDATE_MS if limit_ms is None else limit_ms,
            )
        if not must_start:
            yield from TAKE_BACK_UPDATES(
                request_id=notice.request_id, kind=SESSION_UPDATE, account_id=notice.mechanic_id, but=name, at_ms=now_ms
            )

    def _plan(self, request_id: str, *, is_news: bool) -> Transaction[tuple[str, str] | None]:
        """Leave the messages; return whose they are and what the question is called. Nothing changes when it is repeated.

        ``is_news``: also who has not been told anything of the request yet is told of this.
        """
        # As it is by now, and locked: of two nodes that tell of a request, the one with the older news may come last.
        stored = yield from load(request_id)
        if stored is None or not stored.customer_has_push:
            return None
        now_ms = self._clock.now_ms()
        name = f"{UPDATE}-{request_id}-{stored.version}"
        due_at_ms = now_ms + PAGE_ANSWERS_WITHIN_MS
        yield from ADD_UPDATE(
            name=name,
            account_id=stored.customer_id,
            request_id=request_id,
            kind=UPDATE,
            is_news=is_news,
            payload=fitting(request_view(stored, now_ms=now_ms)).decode(),
            due_at_ms=due_at_ms,
            expires_at_ms=due_at_ms + update_lifetime_ms(is_settled=stored.settled_at_ms is not None),
        )
        yield from TAKE_BACK_UPDATES(
            request_id=request_id, kind=UPDATE, account_id=stored.customer_id, but=name, at_ms=now_ms
        )
        return stored.customer_id, name


def fitting(view: RequestView) -> bytes:
    """Return what is said of a request, with as much of it as a push message has room for."""
    ways_to_shorten: list[dict[str, Any]] = [
        {"timeline": view.timeline[-STORY_LEN_SHORT:]},
        {"timeline": []},
        {"note": None},
    ]
    said = encode(RequestUpdate(view))
    for shorter in ways_to_shorten:
        if len(said) <= TEXT_LEN_MAX - SPARE_LEN:
            break
        view = replace(view, **shorter)
        said = encode(RequestUpdate(view))
    return said
