"""Measuring for a health check."""

from __future__ import annotations

import os
import threading
from typing import Any

from totalizer.clock import Clock
from totalizer.edge.daemon.findings import findings
from totalizer.edge.daemon.health import AggregatorHealth, DaemonHealth, HealthStatus, Waiting
from totalizer.edge.daemon.lock import DAEMON_LOCK, holder
from totalizer.edge.daemon.machine import system_health
from totalizer.edge.daemon.metrics import DaemonMetrics
from totalizer.edge.daemon.options import DaemonOptions
from totalizer.edge.daemon.performance import Performance, aggregator_health
from totalizer.edge.folder import Folders
from totalizer.edge.status import read_metrics


class Checker:
    """Makes health checks of one data folder.

    Args:
        folders: what is checked.
        options: for the scan interval.
        aggregator: its figures count; None for the sums of all whose figures lie in the folder.
        clock: for times.
    """

    def __init__(self, folders: Folders, options: DaemonOptions, aggregator: Any, clock: Clock) -> None:
        self._folders, self._options, self._aggregator, self._clock = folders, options, aggregator, clock
        self._performance, self._lock = Performance(), threading.Lock()

    def check(self, metrics: DaemonMetrics, left: int, lag_ms: float | None) -> HealthStatus:
        """Measure, and hold the thresholds against it.

        Args:
            metrics: of the daemon.
            left: files in the recovery folder that the last scan could not deal with.
            lag_ms: milliseconds since the daemon last did something about failed batches; None if it is not running.

        Raises:
            ConfigurationError: psutil is not installed.
            OSError: a folder is there and cannot be listed.
        """
        now_ms = self._clock.now_ns() // 1_000_000
        daemon = self._daemon(metrics, left, lag_ms)
        aggregator, system = self._aggregators(), system_health(self._folders.data)
        with self._lock:
            recent = self._performance.take(aggregator)
        found = findings(
            daemon, recent, system, now_ms=now_ms, schedule_interval_ms=self._options.schedule_interval_ms
        )  # fmt: skip
        return HealthStatus.of(now_ms, found, daemon, aggregator, system)

    def _daemon(self, metrics: DaemonMetrics, left: int, lag_ms: float | None) -> DaemonHealth:
        pid = os.getpid() if metrics.is_running else holder(self._folders.recovery / DAEMON_LOCK)
        waiting = Waiting.in_folders(self._folders)
        return DaemonHealth(
            metrics.uptime_ms, pid is not None, metrics.scheduled_tasks_executed, metrics.health_checks_performed,
            metrics.cleanup_operations, pid, waiting.failed, waiting.abandoned, waiting.errors + left,
            waiting.oldest_failed_at, lag_ms, self._options.health_check_interval_ms,
        )  # fmt: skip

    def _aggregators(self) -> AggregatorHealth:
        if self._aggregator is not None:
            return aggregator_health(self._aggregator.get_performance_metrics())
        return aggregator_health(read_metrics(self._folders).performance())
