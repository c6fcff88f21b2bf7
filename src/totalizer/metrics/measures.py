"""What this process measures: a counter counted, a duration observed, a gauge set. Cheap enough for every request."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from pathlib import Path
from threading import Lock

from totalizer.metrics.slot import NUMBERS_MAX, Key, Slot
from totalizer.metrics.table import LOST, Metric


class Series:
    """One metric with labels, for the hot path: one thread only measures it.

    Args:
        values: where its numbers are.
        place: the first of them.
        bounds: of a histogram.
    """

    __slots__ = ("_bounds", "_place", "_sum", "_values")

    def __init__(self, values: array[float] | memoryview[float], place: int, bounds: tuple[float, ...]) -> None:
        self._values, self._place, self._bounds, self._sum = values, place, bounds, place + len(bounds) + 1

    def add(self, number: float) -> None:
        """Count so many more."""
        self._values[self._place] += number

    def observe(self, seconds: float) -> None:
        """Note a duration."""
        values = self._values
        values[self._place + bisect_left(self._bounds, seconds)] += 1
        values[self._sum] += seconds


class Measures:
    """The numbers of one process. Any thread may measure.

    Before `open`, and where measuring is switched off, they are kept in memory, where nobody asks for them.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._forget()

    def _forget(self) -> None:
        self._slot: Slot | None = None
        self._values: array[float] | memoryview[float] = array("d", bytes(8 * NUMBERS_MAX))
        self._places: dict[Key, int] = {}
        self._used = 0

    def open(self, folder: Path, component: str) -> None:
        """Keep them on disk from now on, where the sum of all processes is made.

        Args:
            folder: of all processes' numbers.
            component: this process' part.

        Raises:
            OSError: the disk refuses.
        """
        slot = Slot(folder, component)
        with self._lock:
            self._slot, self._values, self._places = slot, slot.values, slot.places
            # What has no room is counted there; its own room comes first.
            self._place(LOST, ())

    def close(self) -> None:
        """Give the place on disk to the next process; what is measured from now on is not kept."""
        with self._lock:
            if self._slot is not None:
                self._slot.close()
            self._forget()

    def count(self, metric: Metric, *labels: str, by: float = 1) -> None:
        """Count something.

        Args:
            metric: a counter.
            labels: values of its labels, in their order.
            by: how many.
        """
        with self._lock:
            place = self._place(metric, labels)
            if place is not None:
                self._values[place] += by

    def observe(self, metric: Metric, seconds: float, *labels: str, times: int = 1) -> None:
        """Note a duration.

        Args:
            metric: a histogram.
            seconds: how long it took.
            labels: values of its labels, in their order.
            times: how often.
        """
        with self._lock:
            place = self._place(metric, labels)
            if place is not None:
                values, bounds = self._values, metric.bounds
                values[place + bisect_left(bounds, seconds)] += times
                values[place + len(bounds) + 1] += seconds * times

    def series(self, metric: Metric, *labels: str) -> Series:
        """A metric with labels, to be measured by the calling thread alone, until `open` or `close`."""
        with self._lock:
            place = self._place(metric, labels)
            if place is None:
                return Series(array("d", bytes(8 * metric.size)), 0, metric.bounds)
            return Series(self._values, place, metric.bounds)

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Tell a number of this moment.

        Args:
            metric: a gauge.
            value: what it is now, in this process.
            labels: values of its labels, in their order.
        """
        with self._lock:
            place = self._place(metric, labels)
            if place is not None:
                self._values[place] = float(value)

    def value(self, metric: Metric, *labels: str) -> float:
        """A counter or gauge of this process; of a histogram, how many durations there are."""
        with self._lock:
            place = self._places.get((metric.name, labels))
            if place is None:
                return 0.0
            return float(sum(self._values[place : place + max(1, metric.size - 1)]))

    def _place(self, metric: Metric, labels: tuple[str, ...]) -> int | None:
        """Where the numbers are; None, and counted, if there is no room for them."""
        key = metric.name, labels
        place = self._places.get(key)
        if place is not None:
            return place
        made = self._slot.place(key) if self._slot is not None else self._in_memory(key, metric.size)
        if made is None and (LOST.name, ()) in self._places:
            self._values[self._places[LOST.name, ()]] += 1
        return made

    def _in_memory(self, key: Key, size: int) -> int | None:
        if self._used + size > NUMBERS_MAX:
            return None
        self._places[key] = place = self._used
        self._used += size
        return place


#: Those of this process.
MEASURES = Measures()
