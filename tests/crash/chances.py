"""How many faults a test tries, and where chance puts them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

#: Of the random faults of a run, how many parts in a thousand are of each kind: the cheaper, the more. Beside each,
#: what one takes on two slow cores.
SHARES = {
    "power": 620,  # 10 ms, on the model of a disk
    "edge power": 150,  # 30 ms, likewise, with batch files
    "writer killed": 100,  # 25 ms, a forked process
    "writer refused": 60,  # 20 ms
    "loader killed": 24,  # 250 ms, with a database
    "connection": 20,  # 250 ms
    "edge killed": 10,  # 800 ms, a process that starts
    "resends": 8,  # 300 ms
    "client": 5,  # 20 ms
    "server": 3,  # 1 s: an immediate stop and a start
}  # fmt: skip


class Chances(NamedTuple):
    """What a test may try.

    Attributes:
        seed: of this run.
        faults: how many random faults the whole run tries, of all kinds together.
        stride: of a slow sweep, try one in so many moments.
    """

    seed: int
    faults: int
    stride: int

    def share(self, kind: str) -> int:
        """How many random faults of a kind: its share of all, rounded up."""
        return -(-self.faults * SHARES[kind] // 1000)

    def of(self, *parts: object) -> random.Random:
        """Chance that is the same for the same seed and parts."""
        return random.Random(":".join(map(str, (self.seed, *parts))))

    def moments(self, first: int, *parts: object) -> Iterator[int]:
        """Moments of a sweep without end: the first, then all of them, or one at random of each stride."""
        chance = self.of(*parts)
        yield first
        for start in count(first + 1, self.stride):
            yield start + chance.randrange(self.stride)
