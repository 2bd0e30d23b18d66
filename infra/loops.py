"""Background loops that outlive their own bugs, and say so.

A loop waits out a broken world by itself, and keeps the failure of one item to that item. What still comes out of it is a bug:
it is logged with its traceback and counted, and the loop starts again. Everything else on the node goes on meanwhile.

One process is one node: as its metrics, what is known of its loops is one for the process.
"""

from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio
import structlog

from infra.metrics import ITEMS_FAILED, LOOPS_DIED
from models.errors import Unavailable

RETRY_FIRST_S = 0.05
RETRY_MAX_S = 1.0
RESTART_FIRST_S = 0.1
RESTART_MAX_S = 5.0
STEADY_AFTER_S = 6.0
"""A loop that has run for this long since it died last has recovered; longer than the longest wait before a start."""

log = structlog.get_logger("loops")

T = TypeVar("T")
Loop = Callable[[], Coroutine[Any, Any, None]]


@dataclass(eq=False)
class _Deaths:
    """How often a loop has died since it last ran steadily, when it was started again last, and whether it runs now.

    Each is itself alone: several loops of one name are told apart by it.
    """

    count: int = 0
    started_at_s: float = 0.0
    is_running: bool = False

    def is_steady(self, now_s: float) -> bool:
        return self.count < 2 or (self.is_running and now_s - self.started_at_s >= STEADY_AFTER_S)


_dying: dict[str, list[_Deaths]] = {}


def dying_loops() -> list[str]:
    """Return the names of the loops that keep dying: at least twice, and not run steadily since. For readiness."""
    now_s = anyio.current_time()
    return sorted(name for name, all_of_it in _dying.items() if not all(one.is_steady(now_s) for one in all_of_it))


@contextmanager
def failing_alone(work: str, **item: Any) -> Iterator[None]:
    """Let a bug in the block cost the item at hand and nothing else: it is logged with its traceback and counted.

    ``work`` is what the metrics call this kind of item, ``item`` what the log says of this one. ``Unavailable`` is
    no bug and passes.
    """
    try:
        yield
    except Unavailable:
        raise
    except Exception as error:  # noqa: BLE001 - noted in full
        note_failure(work, error, **item)


def note_failure(work: str, error: Exception, **item: Any) -> None:
    """Log a failure of one item with its traceback, and count it; see ``failing_alone``."""
    ITEMS_FAILED.labels(work).inc()
    log.error("item_failed", work=work, exc_info=error, **item)


async def in_halves(
    items: Sequence[T],
    act: Callable[[Sequence[T]], Awaitable[None]],
    failed: Callable[[T, Exception], Awaitable[None]],
    *,
    outages_max: int = 0,
) -> None:
    """Act on all items together; when that raises, on each half of them, and so on, until what is to blame stands alone.

    ``failed`` is given each item that fails alone, and its error. What is unavailable for one may be there for another, so up to
    ``outages_max`` times ``Unavailable`` is treated like any failure; the next one is raised, and the items left are not acted on.
    ``act`` must not mind acting twice on the same item.
    """
    waiting = [items] if items else []
    outages = 0
    while waiting:
        together = waiting.pop()
        try:
            await act(together)
        except Exception as error:
            if isinstance(error, Unavailable):
                outages += 1
                if outages > outages_max:
                    raise
            if len(together) == 1:
                await failed(together[0], error)
            else:
                half = len(together) // 2
                waiting += [together[half:], together[:half]]


class Backoff:
    """How long to wait before the next try: twice as long after each failure, up to a bound."""

    def __init__(self, first_s: float = RETRY_FIRST_S, max_s: float = RETRY_MAX_S) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._next_s = first_s

    @property
    def has_waited(self) -> bool:
        """Whether there was a failure since it was last reset."""
        return self._next_s != self._first_s

    async def wait(self) -> None:
        """Wait before the next try."""
        delay_s = self._next_s
        self._next_s = min(delay_s * 2, self._max_s)
        await anyio.sleep(delay_s)

    def reset(self) -> None:
        """Begin anew: it has succeeded."""
        self._next_s = self._first_s


async def keep_on(what: str, step: Callable[[], Awaitable[None]]) -> None:
    """Repeat ``step`` for ever; wait out a world that is broken, saying once that ``what`` waits, and that it goes on."""
    backoff = Backoff()
    while True:
        try:
            await step()
        except Unavailable as error:
            if not backoff.has_waited:
                log.warning(f"{what}_waits", error=str(error))
            await backoff.wait()
            continue
        if backoff.has_waited:
            log.info(f"{what}_goes_on")
            backoff.reset()


async def keep_running(name: str, loop: Loop) -> None:
    """Run ``loop`` until it returns or is cancelled; after a bug in it, again with exponential backoff.

    ``name`` is what logs, metrics and readiness call it.
    """
    deaths, backoff = _Deaths(), Backoff(RESTART_FIRST_S, RESTART_MAX_S)
    _dying.setdefault(name, []).append(deaths)
    try:
        while True:
            deaths.started_at_s, deaths.is_running = anyio.current_time(), True
            try:
                await loop()
                return
            except Exception:
                deaths.is_running = False
                LOOPS_DIED.labels(name).inc()
                log.exception("loop_died", loop=name)
            if anyio.current_time() - deaths.started_at_s >= STEADY_AFTER_S:
                deaths.count = 0
                backoff.reset()
            deaths.count += 1
            await backoff.wait()
    finally:
        _dying[name].remove(deaths)
        if not _dying[name]:
            del _dying[name]
