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

RESTART_FIRST_S = 0.1
RESTART_MAX_S = 5.0
STEADY_AFTER_S = 6.0
"""A loop that has run for this long since it died last has recovered; longer than the longest wait before a start."""

log = structlog.get_logger("loops")

T = TypeVar("T")
Loop = Callable[[], Coroutine[Any, Any, None]]


@dataclass
class _Deaths:
    """How often a loop has died since it last ran steadily, and when it was started again last."""

    count: int = 0
    started_at_s: float = 0.0


_dying: dict[str, list[_Deaths]] = {}


def dying_loops() -> list[str]:
    """Return the names of the loops that keep dying: at least twice, and not run steadily since. For readiness."""
    now_s = anyio.current_time()
    return sorted(
        name
        for name, all_of_it in _dying.items()
        if any(one.count >= 2 and now_s - one.started_at_s < STEADY_AFTER_S for one in all_of_it)
    )


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
    except Exception:
        ITEMS_FAILED.labels(work).inc()
        log.exception("item_failed", work=work, **item)


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


async def keep_running(name: str, loop: Loop) -> None:
    """Run ``loop`` until it returns or is cancelled; after a bug in it, again with exponential backoff.

    ``name`` is what logs, metrics and readiness call it.
    """
    deaths = _Deaths()
    _dying.setdefault(name, []).append(deaths)
    try:
        while True:
            deaths.started_at_s = anyio.current_time()
            try:
                await loop()
                return
            except Exception:
                LOOPS_DIED.labels(name).inc()
                log.exception("loop_died", loop=name)
            if anyio.current_time() - deaths.started_at_s >= STEADY_AFTER_S:
                deaths.count = 0
            deaths.count += 1
            await anyio.sleep(min(RESTART_FIRST_S * 2 ** (deaths.count - 1), RESTART_MAX_S))
    finally:
        _dying[name].remove(deaths)
        if not _dying[name]:
            del _dying[name]
