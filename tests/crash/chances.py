"""How many faults a test tries, and where chance puts them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count
from typing import NamedTuple


class Chances(NamedTuple):
    """What a test may try.

    Attributes:
        seed: of this run.
        faults: how many random faults.
        stride: of a slow sweep, try one in so many moments.
    """

    seed: int
    faults: int
    stride: int

    def of(self, *parts: object) -> random.Random:
        """Chance that is the same for the same seed and parts."""
        return random.Random(":".join(map(str, (self.seed, *parts))))

    def moments(self, first: int, *parts: object) -> Iterator[int]:
        """Moments of a sweep without end: the first, then all of them, or one at random of each stride."""
        chance = self.of(*parts)
        yield first
        for start in count(first + 1, self.stride):
            yield start + chance.randrange(self.stride)
