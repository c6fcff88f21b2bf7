"""What the daemon has done since it was made, counted."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from totalizer.edge.daemon.document import document
from totalizer.edge.daemon.health import HealthStatus


@dataclass(frozen=True)
class RecoveryMetrics:
    """What became of failed batches.

    Attributes:
        total_recovery_attempts: attempts to deliver a batch.
        successful_recoveries: attempts after which all of the batch was delivered.
        failed_recoveries: the other attempts.
        abandoned_batches: batches that were given up, whole or in part.
        recovery_success_rate: successful attempts as a part of all, 0 to 1; 1 before the first.
        average_recovery_time_ms: of an attempt, in milliseconds; 0 before the first.
    """

    total_recovery_attempts: int
    successful_recoveries: int
    failed_recoveries: int
    abandoned_batches: int
    recovery_success_rate: float
    average_recovery_time_ms: float

    def to_document(self) -> dict[str, Any]:
        """As JSON has it."""
        return document(self)


@dataclass(frozen=True)
class DaemonMetrics:
    """What the daemon has done.

    Attributes:
        is_running: True between `start` and `stop`.
        uptime_ms: milliseconds since it was started; 0 if it is not running.
        scheduled_tasks_executed: runs of all its jobs.
        health_checks_performed: health checks, asked for by hand included.
        cleanup_operations: cleanups, asked for by hand included.
        recovery: what became of failed batches.
    """

    is_running: bool
    uptime_ms: float
    scheduled_tasks_executed: int
    health_checks_performed: int
    cleanup_operations: int
    recovery: RecoveryMetrics

    def to_document(self) -> dict[str, Any]:
        """As JSON has it."""
        return document(self)


@dataclass(frozen=True)
class ExportedMetrics:
    """Everything for a monitoring system.

    Attributes:
        timestamp: milliseconds since 1970 UTC.
        version: of this program.
        daemon: what the daemon has done.
        recovery: what became of failed batches.
        health: the last health check.
    """

    timestamp: int
    version: str
    daemon: DaemonMetrics
    recovery: RecoveryMetrics
    health: HealthStatus

    def to_document(self) -> dict[str, Any]:
        """As JSON has it."""
        return document(self)


class Counters:
    """The numbers behind the metrics, safe for many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks = self._health_checks = self._cleanups = 0
        self._succeeded = self._failed = self._abandoned = 0
        self._seconds = 0.0

    def task_executed(self) -> None:
        """Count a run of a job."""
        with self._lock:
            self._tasks += 1

    def health_checked(self) -> None:
        """Count a health check."""
        with self._lock:
            self._health_checks += 1

    def cleaned_up(self) -> None:
        """Count a cleanup."""
        with self._lock:
            self._cleanups += 1

    def attempted(self, *, success: bool, abandoned: bool, seconds: float) -> None:
        """Count an attempt to deliver a failed batch, and how long it took."""
        with self._lock:
            self._succeeded += success
            self._failed += not success
            self._abandoned += abandoned
            self._seconds += seconds

    def gave_up(self) -> None:
        """Count a batch that was abandoned without a further attempt."""
        with self._lock:
            self._abandoned += 1

    def recovery(self) -> RecoveryMetrics:
        """The figures of recovery."""
        with self._lock:
            attempts = self._succeeded + self._failed
            return RecoveryMetrics(
                attempts, self._succeeded, self._failed, self._abandoned,
                self._succeeded / attempts if attempts else 1.0, 1000 * self._seconds / attempts if attempts else 0.0,
            )  # fmt: skip

    def daemon(self, *, is_running: bool, uptime_ms: float) -> DaemonMetrics:
        """All figures."""
        recovery = self.recovery()
        with self._lock:
            return DaemonMetrics(is_running, uptime_ms, self._tasks, self._health_checks, self._cleanups, recovery)
