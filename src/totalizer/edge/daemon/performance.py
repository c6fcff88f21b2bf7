"""How the aggregators did lately: sums since the start of a process hide a new fault, and keep an old one."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from totalizer.edge.daemon.health import AggregatorHealth

#: Health checks that "lately" reaches back.
WINDOW_CHECKS = 15


@dataclass(frozen=True)
class Recent:
    """Flushes of the last health checks' time.

    Attributes:
        success_rate: those that delivered, as a part of all, 0 to 1; 1 if there was none.
        average_ms: of a flush, milliseconds; 0 if there was none.
    """

    success_rate: float
    average_ms: float


class Performance:
    """Keeps the sums of the last checks, and gives what came in between."""

    def __init__(self) -> None:
        self._sums: deque[tuple[int, float, float]] = deque([(0, 0.0, 0.0)], maxlen=WINDOW_CHECKS + 1)

    def take(self, health: AggregatorHealth) -> Recent:
        """Take in the sums of now; what was done since the oldest kept ones."""
        operations = health.total_operations
        now = (operations, operations * health.success_rate, operations * health.average_processing_time_ms)
        if operations < self._sums[-1][0]:  # they began anew with a new process
            self._sums.clear()
            self._sums.append((0, 0.0, 0.0))
        self._sums.append(now)
        count, good, spent = (late - early for late, early in zip(now, self._sums[0], strict=True))
        if not count:
            # Without a count the figures stand for themselves.
            return Recent(1.0, 0.0) if operations else Recent(health.success_rate, health.average_processing_time_ms)
        return Recent(min(1.0, max(0.0, good / count)), max(0.0, spent / count))


def aggregator_health(metrics: Any) -> AggregatorHealth:
    """The figures of an aggregator's `get_performance_metrics()`, or of the sums of many."""
    return AggregatorHealth(
        metrics.total_operations, metrics.success_rate, metrics.average_processing_time_ms, metrics.max_flush_time_ms,
        metrics.retry_count, metrics.failed_flushes,
    )  # fmt: skip
