"""The figures of the batching library under the names by which Prometheus asks for them.

Text format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from totalizer.edge.metrics import Counts, PerformanceMetrics, Stats

if TYPE_CHECKING:
    from totalizer.edge.daemon.health import Waiting
    from totalizer.edge.daemon.metrics import DaemonMetrics
    from totalizer.edge.status import JournalStatus

#: Begins every name.
PREFIX = "totalizer_aggregation_"
#: What begins a flush; each is there from the start, so that a rate over it has no gap.
TRIGGERS = ("size", "threshold", "age", "manual", "shutdown", "resumed", "adopted", "quota")

Sample = tuple[Mapping[str, str], float]


@dataclass(frozen=True)
class Histogram:
    """Durations by length.

    Attributes:
        buckets: (upper bound in seconds, how many up to it), rising, the last bound infinite.
        sum_s: of all, seconds.
    """

    buckets: tuple[tuple[float, int], ...]
    sum_s: float


@dataclass(frozen=True)
class Family:
    """One metric with its samples.

    Attributes:
        name: full name; that of a counter ends in `_total`.
        kind: what Prometheus calls its type.
        help: a sentence on what it is.
        samples: labels and value of each.
        histogram: instead of samples, if it is one.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    samples: tuple[Sample, ...] = ()
    histogram: Histogram | None = None


def aggregator_families(performance: PerformanceMetrics, stats: Stats) -> Iterator[Family]:
    """What aggregators have done, and what waits in them."""
    triggers = {**dict.fromkeys(TRIGGERS, 0), **performance.triggers}
    yield Family(
        f"{PREFIX}operations_total", "counter", "Flushes, by what began them.",
        tuple(({"trigger": name}, count) for name, count in triggers.items()),
    )  # fmt: skip
    yield _one("failed_operations_total", "counter", "Flushes that did not deliver all.", performance.failed_flushes)
    yield _one("retries_total", "counter", "Attempts beyond the first of a flush.", performance.retry_count)
    slow = (("target", performance.over_target), ("max", performance.over_max))
    yield Family(
        f"{PREFIX}slow_operations_total", "counter", "Flushes that took longer than target_time_ms, max_time_ms.",
        tuple(({"limit": name}, count) for name, count in slow),
    )  # fmt: skip
    buckets = tuple((bound / 1000, count) for bound, count in performance.buckets)
    yield Family(
        f"{PREFIX}flush_time_seconds", "histogram", "How long flushes took.",
        histogram=Histogram(buckets, performance.flush_time_sum_ms / 1000),
    )  # fmt: skip
    outcomes = ("added", "processed", "failed", "dropped", "rejected", "lost")
    yield Family(
        f"{PREFIX}entries_total", "counter", "Entries by what became of them.",
        tuple(({"outcome": name}, getattr(stats, name)) for name in outcomes),
    )  # fmt: skip
    yield _one("waiting_entries", "gauge", "Entries that are not delivered yet.", stats.current_batch_size)
    yield _one("oldest_entry_seconds", "gauge", "How long the oldest of them has waited.", stats.batch_age_ms / 1000)


def daemon_families(metrics: DaemonMetrics) -> Iterator[Family]:
    """What a recovery daemon has done."""
    recovery = metrics.recovery
    yield _one("daemon_running", "gauge", "1 while the recovery daemon runs.", int(metrics.is_running))
    yield _one("daemon_uptime_seconds", "gauge", "Since it was started.", metrics.uptime_ms / 1000)
    yield _one("daemon_tasks_total", "counter", "Runs of its jobs.", metrics.scheduled_tasks_executed)
    yield _one("health_checks_total", "counter", "Health checks.", metrics.health_checks_performed)
    yield _one("cleanups_total", "counter", "Cleanups.", metrics.cleanup_operations)
    outcomes = (("succeeded", recovery.successful_recoveries), ("failed", recovery.failed_recoveries))
    yield Family(
        f"{PREFIX}recoveries_total", "counter", "Attempts to deliver a failed batch.",
        tuple(({"outcome": name}, count) for name, count in outcomes),
    )  # fmt: skip
    yield _one("given_up_total", "counter", "Failed batches that were given up.", recovery.abandoned_batches)


def folder_families(
    counts: Counts, journals: Sequence[JournalStatus], backlog: Waiting, now_ms: int
) -> Iterator[Family]:  # fmt: skip
    """What all processes on a folder have done, and what waits in it.

    Args:
        counts: of all processes.
        journals: what waits in them.
        backlog: files in the recovery folder.
        now_ms: milliseconds since 1970 UTC.
    """
    performance = counts.performance()
    oldest_ms = min((each.oldest_ms for each in journals if each.oldest_ms is not None), default=now_ms)
    stats = Stats(
        counts.delivered, counts.failed + counts.refused, performance.average_flush_time_ms,
        sum(each.waiting for each in journals), max(now_ms - oldest_ms, 0), counts.added, counts.dropped,
        counts.rejected, counts.lost,
    )  # fmt: skip
    yield from aggregator_families(performance, stats)
    failed, abandoned = backlog.failed, backlog.abandoned
    yield _one("failed_batches", "gauge", "Failed batches that wait for the recovery daemon.", failed)
    yield _one("abandoned_batches", "gauge", "Failed batches that were given up and wait for somebody.", abandoned)


def text(families: Iterable[Family]) -> str:
    """The families in Prometheus' text format, version 0.0.4."""
    return "".join(f"{line}\n" for family in families for line in _lines(family))


def _one(name: str, kind: Literal["counter", "gauge"], help_: str, value: float) -> Family:
    return Family(f"{PREFIX}{name}", kind, help_, (({}, value),))


def _lines(family: Family) -> Iterator[str]:
    yield f"# HELP {family.name} {family.help}"
    yield f"# TYPE {family.name} {family.kind}"
    for labels, value in family.samples:
        yield f"{family.name}{_labels(labels)} {_number(value)}"
    if family.histogram is not None:
        for bound, count in family.histogram.buckets:
            yield f"{family.name}_bucket{_labels({'le': _bound(bound)})} {count}"
        yield f"{family.name}_sum {_number(family.histogram.sum_s)}"
        yield f"{family.name}_count {family.histogram.buckets[-1][1]}"


def _labels(labels: Mapping[str, str]) -> str:
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n"}
    pairs = (f'{name}="{"".join(escapes.get(one, one) for one in value)}"' for name, value in labels.items())
    return f"{{{','.join(pairs)}}}" if labels else ""


def _bound(bound: float) -> str:
    return "+Inf" if bound == float("inf") else str(bound)


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
