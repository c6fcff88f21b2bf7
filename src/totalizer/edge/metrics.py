"""What an aggregator counts, and what it tells of it."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

#: Upper bounds of the flush histogram, milliseconds; beyond the last is "+Inf".
BUCKETS_MS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000)
#: Flushes from which percentiles are taken: the last so many.
DURATIONS_KEPT = 1000


@dataclass(frozen=True)
class PerformanceMetrics:
    """How flushing goes, since the aggregator was made. Times are milliseconds; 0 before the first flush.

    Attributes:
        total_operations: flushes: batches that were delivered, or given to recovery, or refused.
        average_flush_time_ms, average_processing_time_ms: mean of all flushes (two names for one figure).
        max_flush_time_ms, min_flush_time_ms: of all flushes.
        success_rate: part of the flushes that delivered the whole batch, 0 to 1; 1 before the first.
        retry_count: attempts beyond the first of a flush.
        failed_flushes, total_errors: flushes that did not deliver the whole batch (two names for one figure).
        p50_flush_time_ms, p95_flush_time_ms, p99_flush_time_ms: percentiles of the last 1000 flushes.
        over_target, over_max: flushes that took longer than `target_time_ms`, than `max_time_ms`.
        triggers: flushes by what began them: size, threshold, age, manual, shutdown, resumed, adopted,
            quota.
        buckets: flushes by time: (upper bound in ms, flushes up to it), rising, the last bound infinite.
        flush_time_sum_ms: of all flushes.
    """

    total_operations: int
    average_flush_time_ms: float
    average_processing_time_ms: float
    max_flush_time_ms: float
    min_flush_time_ms: float
    success_rate: float
    retry_count: int
    failed_flushes: int
    total_errors: int
    p50_flush_time_ms: float
    p95_flush_time_ms: float
    p99_flush_time_ms: float
    over_target: int
    over_max: int
    triggers: dict[str, int]
    buckets: tuple[tuple[float, int], ...]
    flush_time_sum_ms: float


@dataclass(frozen=True)
class Stats:
    """The aggregator in short.

    Attributes:
        processed: entries that a target has taken, counted one by one.
        failed: entries that were given to recovery or refused for good.
        avg_processing_time_ms: mean flush, milliseconds.
        current_batch_size: entries that wait.
        batch_age_ms: how long the oldest of them has waited, milliseconds.
        added: entries taken by `add`.
        dropped: entries given up to make room (`on_full="drop_oldest"`).
        rejected: entries that `add` did not take: invalid, too many, or refused by the disk.
        lost: entries that a disk lost after taking them, as far as can be counted.
    """

    processed: int
    failed: int
    avg_processing_time_ms: float
    current_batch_size: int
    batch_age_ms: int
    added: int
    dropped: int
    rejected: int
    lost: int


@dataclass
class Counts:
    """Sums that can be added over processes, and kept in a file.

    Attributes:
        added, delivered, failed, refused, dropped, rejected, lost: entries.
        flushes, failed_flushes, retries, over_target, over_max: flushes.
        triggers: flushes by what began them.
        time_sum_ms, time_max_ms, time_min_ms: of flushes; the last is None before the first.
        buckets: flushes by BUCKETS_MS, each counted once, and one more for those beyond.
    """

    added: int = 0
    delivered: int = 0
    failed: int = 0
    refused: int = 0
    dropped: int = 0
    rejected: int = 0
    lost: int = 0
    flushes: int = 0
    failed_flushes: int = 0
    retries: int = 0
    over_target: int = 0
    over_max: int = 0
    triggers: Counter[str] = field(default_factory=Counter)
    time_sum_ms: float = 0.0
    time_max_ms: float = 0.0
    time_min_ms: float | None = None
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_MS) + 1))

    @property
    def time_mean_ms(self) -> float:
        """Of a flush; 0 before the first."""
        return self.time_sum_ms / self.flushes if self.flushes else 0.0

    def __add__(self, other: Counts) -> Counts:
        minima = [each for each in (self.time_min_ms, other.time_min_ms) if each is not None]
        sums = {name: getattr(self, name) + getattr(other, name) for name in _SUMMED}
        return Counts(
            **sums, triggers=self.triggers + other.triggers,
            time_max_ms=max(self.time_max_ms, other.time_max_ms), time_min_ms=min(minima, default=None),
            buckets=[mine + others for mine, others in zip(self.buckets, other.buckets, strict=True)],
        )  # fmt: skip

    def performance(self, durations: Sequence[float] = ()) -> PerformanceMetrics:
        """The figures for people; percentiles from `durations` if given, else from the buckets' bounds."""
        mean = self.time_mean_ms
        p50, p95, p99 = (self._percentile(each, durations) for each in (50, 95, 99))
        return PerformanceMetrics(
            self.flushes, mean, mean, self.time_max_ms, self.time_min_ms or 0.0,
            1 - self.failed_flushes / self.flushes if self.flushes else 1.0, self.retries,
            self.failed_flushes, self.failed_flushes, p50, p95, p99, self.over_target, self.over_max,
            dict(self.triggers), self._cumulative(), self.time_sum_ms,
        )  # fmt: skip

    def _cumulative(self) -> tuple[tuple[float, int], ...]:
        bounds = (*map(float, BUCKETS_MS), float("inf"))
        return tuple((bound, sum(self.buckets[: index + 1])) for index, bound in enumerate(bounds))

    def _percentile(self, percentile: float, durations: Sequence[float]) -> float:
        if durations:
            return percentile_of(durations, percentile)
        rank = self.flushes * percentile / 100
        bounds = (bound for bound, count in self._cumulative() if count >= rank and count)
        return min(next(bounds, 0.0), self.time_max_ms)


_SUMMED = (
    "added", "delivered", "failed", "refused", "dropped", "rejected", "lost", "flushes", "failed_flushes",
    "retries", "over_target", "over_max", "time_sum_ms",
)  # fmt: skip


def percentile_of(values: Sequence[float], percentile: float) -> float:
    """The value below or at which `percentile` (0 to 100) of the values lie, between two linearly; 0.0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    rank = (len(ordered) - 1) * percentile / 100
    low = int(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (rank - low)


class Metrics:
    """Counts of one aggregator in one process; for any thread.

    Args:
        target_ms, max_ms: flushes above are counted apart.
    """

    def __init__(self, target_ms: float, max_ms: float) -> None:
        self._target_ms, self._max_ms = target_ms, max_ms
        self._lock = threading.Lock()
        self._counts = Counts()
        self._durations: deque[float] = deque(maxlen=DURATIONS_KEPT)

    def flushed(self, trigger: str, took_ms: float, *, delivered: int, failed: int, refused: int, retries: int) -> None:
        """A flush has ended; entries by what became of them."""
        with self._lock:
            counts = self._counts
            counts.delivered += delivered
            counts.failed += failed
            counts.refused += refused
            counts.retries += retries
            counts.flushes += 1
            counts.failed_flushes += bool(failed or refused)
            counts.triggers[trigger] += 1
            self._time(took_ms)

    def count(self, **members: int) -> None:
        """Add to `rejected`, `dropped`, `delivered` … without a flush."""
        with self._lock:
            for name, number in members.items():
                setattr(self._counts, name, getattr(self._counts, name) + number)

    def counts(self) -> Counts:
        """A copy of the counts."""
        with self._lock:
            return self._counts + Counts()

    def take(self) -> Counts:
        """The counts, which begin anew."""
        with self._lock:
            taken, self._counts = self._counts, Counts()
            return taken

    def performance(self) -> PerformanceMetrics:
        """The figures for people."""
        with self._lock:
            return self._counts.performance(tuple(self._durations))

    def _time(self, took_ms: float) -> None:
        counts = self._counts
        counts.time_sum_ms += took_ms
        counts.time_max_ms = max(counts.time_max_ms, took_ms)
        counts.time_min_ms = took_ms if counts.time_min_ms is None else min(counts.time_min_ms, took_ms)
        counts.over_target += took_ms > self._target_ms
        counts.over_max += took_ms > self._max_ms
        counts.buckets[bisect_left(BUCKETS_MS, took_ms)] += 1
        self._durations.append(took_ms)


def to_document(counts: Counts) -> dict[str, Any]:
    """The counts as JSON can hold them."""
    return {name: getattr(counts, name) for name in (*_SUMMED, "time_max_ms", "time_min_ms", "buckets")} | {
        "triggers": dict(counts.triggers)
    }


def from_document(document: Any) -> Counts:
    """Counts as `to_document` wrote them; what is missing or wrong counts as nothing."""
    if not isinstance(document, dict):
        return Counts()
    known = {name: document[name] for name in _SUMMED if _is_count(document.get(name))}
    counts = Counts(**known, time_max_ms=document["time_max_ms"] if _is_count(document.get("time_max_ms")) else 0.0)
    counts.time_min_ms = document["time_min_ms"] if _is_count(document.get("time_min_ms")) else None
    buckets, triggers = document.get("buckets"), document.get("triggers")
    if isinstance(buckets, list) and len(buckets) == len(counts.buckets) and all(map(_is_count, buckets)):
        counts.buckets = list(buckets)
    if isinstance(triggers, dict):
        counts.triggers = Counter({str(name): number for name, number in triggers.items() if _is_count(number)})
    return counts


def _is_count(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
