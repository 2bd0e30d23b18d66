"""All that is left to chance in a world comes from here, so that a seed is a whole history."""

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Chance:
    """Seeded. ``seed`` alone decides every answer, given the same questions in the same order."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        # Some worlds are hasty, some are slow: the same race is not won by the same side in all of them.
        self._usual_s = self._random.choice([0.0002, 0.001, 0.004])
        self._slow = self._random.choice([0.0, 0.02, 0.08])

    def happens(self, probability: float) -> bool:
        """Tell whether something of this probability happens."""
        return self._random.random() < probability

    def between(self, low: float, high: float) -> float:
        """Return a number from a range, all equally likely."""
        return self._random.uniform(low, high)

    def count(self, low: int, high: int) -> int:
        """Return a whole number, ``high`` included."""
        return self._random.randint(low, high)

    def one_of(self, things: Sequence[T]) -> T:
        """Return one of several things."""
        return things[self._random.randrange(len(things))]

    def delay_s(self) -> float:
        """Return how long one step to the outside takes: mostly next to nothing, sometimes much longer."""
        if self.happens(self._slow):
            return self._random.expovariate(1 / 0.05)
        return self._random.expovariate(1 / self._usual_s)
