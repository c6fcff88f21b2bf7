"""The health check: what is measured, what is wrong with it, and the file that says so."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from totalizer.edge.batch import FORMAT_VERSION
from totalizer.edge.daemon.document import document
from totalizer.edge.daemon.findings import Finding
from totalizer.edge.daemon.machine import SystemHealth
from totalizer.edge.folder import Folders, write_file

_HEALTH_FILE = re.compile(r"health-(\d+)\.json").fullmatch
_SEALED_AT = re.compile(r"batch_(\d{12,14})_").match


@dataclass(frozen=True)
class DaemonHealth:
    """How the daemon is.

    Attributes:
        uptime_ms: milliseconds since it was started; 0 if it is not running.
        is_running: True if a daemon runs for the folder, in this or another process.
        scheduled_tasks_executed: runs of its jobs, in this process.
        health_checks_performed: health checks, this one included.
        cleanup_operations: cleanups.
        pid: of the process in which the daemon runs; None if it runs in none.
        failed_batches: files that wait in `recovery/`.
        abandoned_batches: files in `recovery/abandoned/`.
        unreadable_files: files in `recovery/errors/`, and those in `recovery/` that the last scan could not deal with.
        oldest_failed_at: when the oldest waiting batch was sealed, milliseconds since 1970 UTC; None if none waits.
        lag_ms: milliseconds since anything was last done about failed batches; None if not running here.
        health_check_interval_ms: from one health check to the next.
    """

    uptime_ms: float
    is_running: bool
    scheduled_tasks_executed: int
    health_checks_performed: int
    cleanup_operations: int
    pid: int | None = None
    failed_batches: int = 0
    abandoned_batches: int = 0
    unreadable_files: int = 0
    oldest_failed_at: int | None = None
    lag_ms: float | None = None
    health_check_interval_ms: int = 60_000


@dataclass(frozen=True)
class AggregatorHealth:
    """How the aggregators are: the daemon's own, or all whose figures lie in the folder.

    Attributes:
        total_operations: flushes.
        success_rate: flushes that delivered, as a part of all, 0 to 1; 1 before the first.
        average_processing_time_ms: of a flush, milliseconds.
        max_flush_time_ms: of a flush, milliseconds.
        retry_count: repeated attempts.
        failed_flushes: flushes that did not deliver.
    """

    total_operations: int = 0
    success_rate: float = 1.0
    average_processing_time_ms: float = 0.0
    max_flush_time_ms: float = 0.0
    retry_count: int = 0
    failed_flushes: int = 0


@dataclass(frozen=True)
class HealthStatus:
    """What a health check found.

    Attributes:
        timestamp: when, milliseconds since 1970 UTC.
        status: `healthy`, or `unhealthy` if there is any issue.
        severity: `normal`, `warning` or `critical`: that of the worst issue.
        issues: what is wrong, in sentences.
        daemon_health: how the daemon is.
        aggregator_health: how the aggregators are.
        system_health: how the machine is.
        version: of the document's format.
        findings: the issues with their names and severities.
    """

    timestamp: int
    status: str
    severity: str
    issues: tuple[str, ...]
    daemon_health: DaemonHealth
    aggregator_health: AggregatorHealth
    system_health: SystemHealth
    version: str = FORMAT_VERSION
    findings: tuple[Finding, ...] = field(default=(), repr=False)

    @classmethod
    def of(
        cls, timestamp: int, findings: Iterable[Finding], daemon: DaemonHealth, aggregator: AggregatorHealth,
        system: SystemHealth,
    ) -> HealthStatus:  # fmt: skip
        """The status that follows from findings."""
        found = tuple(findings)
        severities = {finding.severity for finding in found}
        severity = next((one for one in ("critical", "warning") if one in severities), "normal")
        return cls(
            timestamp, "unhealthy" if found else "healthy", severity, tuple(one.message for one in found), daemon,
            aggregator, system, findings=found,
        )  # fmt: skip

    def to_document(self) -> dict[str, Any]:
        """As the health file has it."""
        return document(self)


def write_health(status: HealthStatus, folder: Path, files_max: int) -> Path:
    """Write `health-<ms>.json`, whole and durable, and remove the oldest beyond `files_max`.

    Raises:
        OSError: the disk refuses.
    """
    path = folder / f"health-{status.timestamp}.json"
    write_file(path, msgspec.json.format(msgspec.json.encode(status.to_document()), indent=2) + b"\n")
    for surplus in health_files(folder)[:-files_max]:
        surplus.unlink(missing_ok=True)
    return path


def health_files(folder: Path) -> list[Path]:
    """Health files, the oldest first; [] if the folder is missing."""
    try:
        found = [(int(match[1]), name) for name in os.listdir(folder) if (match := _HEALTH_FILE(name))]
    except FileNotFoundError:
        return []
    return [folder / name for _, name in sorted(found)]


@dataclass(frozen=True)
class Waiting:
    """What lies in the recovery folder: counted, not read.

    Attributes:
        failed, abandoned, errors: how many files of each kind.
        oldest_failed_at: when the oldest failed batch was sealed, by its name, or its file last written,
            milliseconds since 1970 UTC; None if none waits.
    """

    failed: int
    abandoned: int
    errors: int
    oldest_failed_at: int | None

    @classmethod
    def in_folders(cls, folders: Folders) -> Waiting:
        """Count. OSError if a folder is there and cannot be listed."""
        failed = _names(folders.recovery, ".failed.json")
        return cls(
            len(failed), len(_names(folders.abandoned, ".abandoned.json")),
            sum(not name.endswith(".reason") for name in _names(folders.errors, "")),
            min((_failed_at(folders.recovery / name) for name in failed), default=None),
        )  # fmt: skip


def _names(folder: Path, ending: str) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if name.endswith(ending) and not name.startswith(".")]
    except FileNotFoundError:
        return []


def _failed_at(path: Path) -> int:
    if found := _SEALED_AT(path.name):
        return int(found[1])
    try:
        return int(os.lstat(path).st_mtime * 1000)
    except OSError:
        return 2**63 - 1  # gone meanwhile
