"""Counts of an aggregator: adding them over processes, keeping them in a file."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from totalizer.edge.metrics import BUCKETS_MS, Counts, Metrics, from_document, to_document


def filled(*times_ms: float, trigger: str = "size") -> Metrics:
    metrics = Metrics(target_ms=100, max_ms=200)
    for took_ms in times_ms:
        metrics.flushed(trigger, took_ms, delivered=3, failed=1, refused=0, retries=2)
    return metrics


def test_before_the_first_flush_all_is_well() -> None:
    figures = Metrics(100, 200).performance()
    assert (figures.success_rate, figures.total_operations, figures.min_flush_time_ms) == (1.0, 0, 0.0)
    assert figures.p99_flush_time_ms == 0.0


def test_a_time_on_a_bound_belongs_to_it() -> None:
    counts = dict(filled(1, 1.01, 2, 60_000, 60_001).performance().buckets)
    assert (counts[1], counts[2], counts[30_000], counts[60_000], counts[float("inf")]) == (1, 3, 3, 4, 5)


def test_counts_are_added() -> None:
    total = filled(10, 150).counts() + filled(5, 900, trigger="age").counts()
    assert (total.flushes, total.delivered, total.failed, total.retries) == (4, 12, 4, 8)
    assert (total.time_min_ms, total.time_max_ms, total.time_sum_ms) == (5, 900, 1065)
    assert (total.over_target, total.over_max) == (2, 1)
    assert total.triggers == {"size": 2, "age": 2}
    assert sum(total.buckets) == 4
    assert (total + Counts()).time_min_ms == 5


def test_percentiles_of_counts_are_bounds_of_their_buckets() -> None:
    figures = filled(*[3] * 90, *[40] * 10).counts().performance()
    assert (figures.p50_flush_time_ms, figures.p95_flush_time_ms, figures.p99_flush_time_ms) == (5, 40, 40)


def test_counts_survive_a_file() -> None:
    counts = filled(3, 70).counts()
    assert from_document(to_document(counts)) == counts
    assert from_document(to_document(Counts())) == Counts()


@pytest.mark.parametrize(
    "document", [None, [], 7, {}, {"flushes": "x", "buckets": [1]}, {"buckets": ["x"] * (len(BUCKETS_MS) + 1)},
                 {"triggers": 5, "time_min_ms": -1, "added": True, "time_max_ms": None}]
)  # fmt: skip
def test_a_damaged_file_counts_as_nothing(document: Any) -> None:
    assert from_document(document) == Counts()


def test_a_copy_does_not_change() -> None:
    metrics = filled(3)
    before = metrics.counts()
    metrics.flushed("size", 5, delivered=1, failed=0, refused=0, retries=0)
    assert (before.flushes, sum(before.buckets), before.triggers["size"]) == (1, 1, 1)


def test_no_count_is_lost_between_threads() -> None:
    metrics = Metrics(100, 200)

    def work() -> None:
        for _ in range(500):
            metrics.flushed("size", 1, delivered=2, failed=0, refused=0, retries=0)
            metrics.count(rejected=1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = metrics.counts()
    assert (counts.flushes, counts.delivered, counts.rejected) == (4000, 8000, 4000)
