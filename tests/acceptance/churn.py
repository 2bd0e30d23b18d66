"""Churn: what each device of each mechanic does is planned from a seed; what was promised is judged afterwards. Pure.

A *stay* is a time in which a device was surely here, by the client's own clock: from the server's welcome to the moment in
which it began to close, break off or freeze. From the stays follows when nobody may have seen the mechanic offline.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from random import Random

DEVICES_MAX = 3
MARGIN_MS = 300
"""What lies this close to a boundary is not judged: flushes, sweeps and two processes' turns lie in between."""


class Ending(StrEnum):
    CLOSE = "close"
    RESET = "reset"
    FREEZE = "freeze"
    """Half-open until the app gives the socket up and opens another."""
    DOZE = "doze"
    """Half-open until the network is back; then the same socket goes on, if the server still has it."""


@dataclass(frozen=True)
class Spell:
    """One visit of a device to a node. ``gap_s`` until it is back; ``None``: never. No ``ending``: it stays for good."""

    node: int
    stays_s: float
    ending: Ending | None
    gap_s: float | None


@dataclass
class Stay:
    """``hold_ms``: how long after its end the mechanic must still be shown online."""

    since_ms: float
    until_ms: float = inf
    hold_ms: float = 0


def plan(seed: int, *, mechanics: int, nodes: int, lasts_s: float) -> list[list[list[Spell]]]:
    """Return for each mechanic, for each of their devices, what it does until ``lasts_s`` have passed and after that."""
    dice = Random(seed)
    return [
        [list(_spells(dice, nodes, lasts_s)) for _ in range(dice.randint(1, DEVICES_MAX))] for _ in range(mechanics)
    ]


def _spells(dice: Random, nodes: int, lasts_s: float) -> Iterator[Spell]:
    passed_s = 0.0
    while True:
        stays_s = dice.uniform(0.3, 4)
        ending = dice.choices(list(Ending), [4, 3, 1, 1])[0]
        # Most come back within a grace of a second, or thaw within a time-out of two and a half; some just after.
        gap_s = dice.choices([dice.uniform(0.02, 0.6), dice.uniform(0.6, 1.4), dice.uniform(1.4, 3.5)], [5, 2, 2])[0]
        passed_s += stays_s + gap_s
        node = dice.randrange(nodes)
        if passed_s > lasts_s:
            yield Spell(node, stays_s, dice.choice([None, None, ending]), None)
            return
        yield Spell(node, stays_s, ending, gap_s)


def promises(stays: Iterable[Stay]) -> list[tuple[float, float]]:
    """Return the times, ms, in which nobody may have seen them offline; in order, apart from each other."""
    merged: list[tuple[float, float]] = []
    for stay in sorted(stays, key=lambda stay: stay.since_ms):
        ends_ms = stay.until_ms + stay.hold_ms - MARGIN_MS
        if merged and stay.since_ms < merged[-1][1]:
            # Back in good time: there is no gap to see.
            merged[-1] = (merged[-1][0], max(merged[-1][1], ends_ms))
        elif stay.since_ms + MARGIN_MS < ends_ms:
            merged.append((stay.since_ms + MARGIN_MS, ends_ms))
    return merged


def is_within(at_ms: float, spans: Iterable[tuple[float, float]]) -> bool:
    """Tell whether an instant lies in one of the spans, ms."""
    return any(since_ms <= at_ms <= until_ms for since_ms, until_ms in spans)
