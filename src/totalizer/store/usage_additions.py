"""Additions to usage counters on their way: what several add at the same time goes in one round trip."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Final, NamedTuple

#: Generations that a process remembers.
GENERATIONS_MAX: Final = 100_000


class Answer(NamedTuple):
    """What became of an addition.

    Attributes:
        value: the counter after it; None if it was not added.
        generation: the counter's, if that is not the one that was known.
        reason: what Redis had against it.
    """

    value: int | None = None
    generation: str | None = None
    reason: str | None = None


@dataclass(slots=True, eq=False)
class Addition:
    """What is added to one counter, for one or for several who add at the same time.

    Attributes:
        key: the counter.
        generation: that was known before any of the events was on disk.
        amount: the sum.
        answer: what became of it; None until that is known.
    """

    key: str
    generation: str
    amount: int = 0
    answer: Answer | None = None


class Gathered:
    """Additions that wait for the one who is sending to be done: then all of them go in one round trip.

    Whoever adds joins, then waits for its turn to send, and finds its addition answered or sends all that wait.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._waiting: dict[tuple[str, str], Addition] = {}

    def join(self, key: str, generation: str, amount: int) -> Addition:
        """Add to the next round; those of one counter and generation become one addition."""
        with self._lock:
            addition = self._waiting.setdefault((key, generation), Addition(key, generation))
            addition.amount += amount
        return addition

    def take(self) -> list[Addition]:
        """All that wait; nobody joins them any more."""
        with self._lock:
            taken, self._waiting = self._waiting, {}
        return list(taken.values())


class Generations:
    """The generations of counters that this process has seen; it may forget the oldest at any time."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, str] = OrderedDict()

    def get(self, key: str) -> str | None:
        """That of a counter."""
        return self._known.get(key)

    def learn(self, key: str, generation: str) -> None:
        """It is this one from now on."""
        self._known[key] = generation
        while len(self._known) > GENERATIONS_MAX:
            self._known.popitem(last=False)

    def unknown(self, keys: Sequence[str]) -> list[str]:
        """Those of the keys whose generation must be asked for."""
        return [key for key in keys if key not in self._known]
