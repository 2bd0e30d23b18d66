"""How a simulated mechanic decides. Pure: no I/O, no clock; randomness arrives as a ``random.Random``.

A character answers offers (``answer``), keeps habits (``spells``) and works at a pace (``pace``).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import cycle
from random import Random

from models.words import OfferKind

Range = tuple[float, float]
"""From, to; seconds. Drawn evenly."""

WINDOW_SHARE_MAX = 0.4
"""No answer and no start takes a greater part of the time that is left: with windows of a few seconds offers are still taken."""
AWAY_AFTER_NO_SHOW_S = 15.0


class Action(StrEnum):
    ACCEPT = "accept"
    DECLINE = "decline"
    IGNORE = "ignore"


class Whereabouts(StrEnum):
    ON_DUTY = "on_duty"
    OFF_DUTY = "off_duty"
    AWAY = "away"
    """Not connected."""


@dataclass(frozen=True)
class Reaction:
    """What somebody does about one kind of offer, and how long they think about it."""

    action: Action
    after_s: Range = (0, 0)
    reason: str | None = None
    """Said when declining."""


@dataclass(frozen=True)
class Phase:
    """A part of somebody's day. ``lasts_s`` ``None``: for good."""

    whereabouts: Whereabouts
    lasts_s: Range | None = None


@dataclass(frozen=True)
class Character:
    """What makes one mechanic different from another. The ``habit`` repeats."""

    on_priority: Reaction
    on_broadcast: Reaction
    habit: tuple[Phase, ...] = (Phase(Whereabouts.ON_DUTY),)
    vanishes: bool = False
    """Hangs up as soon as they have accepted, and never starts: a no-show."""


@dataclass(frozen=True)
class Answer:
    action: Action
    after_s: float
    reason: str | None


@dataclass(frozen=True)
class Spell:
    """One time of being somewhere. ``lasts_s`` ``None``: for good."""

    whereabouts: Whereabouts
    lasts_s: float | None


@dataclass(frozen=True)
class Pace:
    """How long after the accept the session starts, and how long it takes."""

    start_after_s: float
    complete_after_s: float


def answer(character: Character, kind: OfferKind, *, expires_in_s: float, random: Random) -> Answer:
    """Return what the character does about an offer, and when, counted from now."""
    reaction = character.on_priority if kind is OfferKind.PRIORITY else character.on_broadcast
    after_s = min(random.uniform(*reaction.after_s), max(0.0, expires_in_s) * WINDOW_SHARE_MAX)
    return Answer(reaction.action, after_s, reaction.reason)


def spells(character: Character, random: Random) -> Iterator[Spell]:
    """Yield where the character is, one after the other; ends only with a spell that lasts for good."""
    for phase in cycle(character.habit):
        if phase.lasts_s is None:
            yield Spell(phase.whereabouts, None)
            return
        yield Spell(phase.whereabouts, random.uniform(*phase.lasts_s))


def pace(random: Random, *, start_in_s: float) -> Pace:
    """Return how fast the next session goes: slow enough to be watched and joined, over before one loses interest.

    ``start_in_s``: how long they may take to start.
    """
    start_after_s = min(random.uniform(2.5, 3.5), max(0.0, start_in_s) * WINDOW_SHARE_MAX)
    return Pace(start_after_s, complete_after_s=random.uniform(14, 17))


def gone_for_s(start_in_s: float) -> float:
    """Return how long whoever vanishes stays away: until the start window is over, and what follows has been watched."""
    return max(0.0, start_in_s) + AWAY_AFTER_NO_SHOW_S


# --- the characters ---------------------------------------------------------------------------------------------------

_QUICK = (3.0, 8.0)
_UNHURRIED = (8.0, 15.0)
"""A person on a mechanic's page has this long to take a broadcast before anybody simulated does."""

_IGNORE = Reaction(Action.IGNORE)
_COMES_AND_GOES = (Phase(Whereabouts.ON_DUTY, (30, 75)), Phase(Whereabouts.AWAY, (20, 60)))

REGULAR = Character(
    # Leaves the broadcasts to others: whoever takes one is then somebody new, whom the page offers as a favourite.
    on_priority=Reaction(Action.ACCEPT, (3.5, 4.5)),
    on_broadcast=_IGNORE,
)
STEADY = Character(on_priority=Reaction(Action.ACCEPT, _QUICK), on_broadcast=Reaction(Action.ACCEPT, _UNHURRIED))
COMMUTER = Character(STEADY.on_priority, STEADY.on_broadcast, _COMES_AND_GOES)
TAKES_BREAKS = Character(
    STEADY.on_priority,
    STEADY.on_broadcast,
    (Phase(Whereabouts.ON_DUTY, (40, 80)), Phase(Whereabouts.OFF_DUTY, (20, 45))),
)
PICKY = Character(
    on_priority=Reaction(Action.DECLINE, _QUICK, "Booked out today"),
    on_broadcast=Reaction(Action.DECLINE, _QUICK, "Not my kind of job"),
)
ABSENT_MINDED = Character(on_priority=_IGNORE, on_broadcast=_IGNORE)
DRIFTER = Character(_IGNORE, _IGNORE, _COMES_AND_GOES)
VANISHER = Character(on_priority=Reaction(Action.ACCEPT, (3.5, 4.5)), on_broadcast=_IGNORE, vanishes=True)
DAY_OFF = Character(
    on_priority=Reaction(Action.DECLINE, _QUICK, "It is my day off"),
    on_broadcast=_IGNORE,
    habit=(Phase(Whereabouts.OFF_DUTY),),
)
