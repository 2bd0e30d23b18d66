"""Doing something with many: what one of them cannot take costs nobody else anything, and no one waits for all of them."""

from collections.abc import Callable, Iterable
from time import monotonic
from typing import Final, TypeVar

from anyio.lowlevel import checkpoint

from infra.loops import failing_alone

T = TypeVar("T")

SLICE_S: Final = 0.005
"""How long one slice may keep the event loop to itself."""
SLICE_LOOK_LEN: Final = 32
"""How many are served between two looks at the clock."""


async def in_slices(work: str, items: Iterable[T], act: Callable[[T], None]) -> None:
    """Call ``act`` with each item, in order, letting everybody else have a turn every few milliseconds.

    A bug that one item meets costs that item: it is logged with its traceback and counted as ``work``.
    ``items`` must stay as they are meanwhile: give a copy of what others change.
    """
    slice_ends_s = monotonic() + SLICE_S
    for index, item in enumerate(items):
        with failing_alone(work, item=item):
            act(item)
        if index % SLICE_LOOK_LEN == 0 and monotonic() > slice_ends_s:
            await checkpoint()
            slice_ends_s = monotonic() + SLICE_S


def each_alone(work: str, items: Iterable[T], act: Callable[[T], None]) -> None:
    """The same for a few, in one go."""
    for item in items:
        with failing_alone(work, item=item):
            act(item)
