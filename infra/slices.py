"""Doing something with many: what one of them cannot take costs nobody else anything, and no one waits for all of them."""

from collections.abc import Callable, Iterable
from itertools import islice
from time import monotonic
from typing import Final, TypeVar

from anyio.lowlevel import checkpoint

from infra.loops import note_failure

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
    rest = iter(items)
    slice_ends_s = monotonic() + SLICE_S
    while few := list(islice(rest, SLICE_LOOK_LEN)):
        each_alone(work, few, act)
        if monotonic() > slice_ends_s:
            await checkpoint()
            slice_ends_s = monotonic() + SLICE_S


def each_alone(work: str, items: Iterable[T], act: Callable[[T], None]) -> None:
    """The same for a few, in one go."""
    for item in items:
        # Not ``failing_alone``: entering its block costs more than most of what is done here, for each of ten thousand sockets.
        try:
            act(item)
        except Exception as error:  # noqa: BLE001 - noted in full
            note_failure(work, error, item=item)
