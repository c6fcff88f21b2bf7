"""Health checks: what is measured, the thresholds, the file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from totalizer.edge.daemon import CronRecoveryDaemon
from totalizer.edge.daemon import checker as checker_module
from totalizer.edge.daemon.findings import Finding, findings
from totalizer.edge.daemon.health import AggregatorHealth, DaemonHealth, Waiting, health_files
from totalizer.edge.daemon.lock import DAEMON_LOCK, FileLock
from totalizer.edge.daemon.machine import DiskSpace, MemoryUsage, SystemHealth, container_memory, disk_space
from totalizer.edge.daemon.options import DAY_MS
from totalizer.edge.daemon.performance import Performance, Recent
from totalizer.edge.folder import Folders
from unit.edge.daemon.parts import T0, HandClock, failed, keep

GIB = 1 << 30
WELL = SystemHealth(MemoryUsage(2 * GIB, 10 * GIB, GIB // 10), DiskSpace(900 * GIB, 1000 * GIB))
IDLE, QUIET = DaemonHealth(0, False, 0, 0, 0), Recent(1.0, 0.0)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is well, whatever the one is like that runs the tests."""
    monkeypatch.setattr(checker_module, "system_health", lambda path: WELL)


def found(
    daemon: DaemonHealth = IDLE, recent: Recent = QUIET, system: SystemHealth = WELL, interval: int = 300_000
) -> list[tuple[str, str]]:
    made = findings(daemon, recent, system, now_ms=T0, schedule_interval_ms=interval)
    return [(one.key, one.severity) for one in made]


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (1.0, []), (0.9, []), (0.8999, [("success_rate", "warning")]), (0.8, [("success_rate", "warning")]),
        (0.7999, [("success_rate", "critical")]), (0.0, [("success_rate", "critical")]),
    ],
)  # fmt: skip
def test_success_rate(rate: float, expected: list[tuple[str, str]]) -> None:
    assert found(recent=Recent(rate, 0.0)) == expected


@pytest.mark.parametrize(("ms", "expected"), [(500.0, []), (500.1, [("processing_time", "warning")])])
def test_processing_time(ms: float, expected: list[tuple[str, str]]) -> None:
    assert found(recent=Recent(1.0, ms)) == expected


@pytest.mark.parametrize(("used", "expected"), [(80, []), (81, [("memory", "warning")])])
def test_memory(used: int, expected: list[tuple[str, str]]) -> None:
    assert found(system=replace(WELL, memory_usage=MemoryUsage(used, 100, 1))) == expected


@pytest.mark.parametrize(
    ("free", "total", "expected"),
    [
        (11 * GIB, 1000 * GIB, []), (9 * GIB, 1000 * GIB, [("disk", "warning")]), (9 * GIB, 20 * GIB, []),
        (GIB // 2, 1000 * GIB, [("disk", "critical")]), (0, GIB, [("disk", "critical")]),
    ],
)  # fmt: skip
def test_disk(free: int, total: int, expected: list[tuple[str, str]]) -> None:
    assert found(system=replace(WELL, disk_space=DiskSpace(free, total))) == expected


def test_a_disk_that_is_gone() -> None:
    assert found(system=replace(WELL, disk_space=None)) == [("disk", "critical")]


def test_batches() -> None:
    assert found(replace(IDLE, abandoned_batches=1)) == [("abandoned", "warning")]
    assert found(replace(IDLE, unreadable_files=1)) == [("unreadable", "warning")]
    assert found(replace(IDLE, failed_batches=5, oldest_failed_at=T0 - DAY_MS)) == []
    assert found(replace(IDLE, failed_batches=5, oldest_failed_at=T0 - DAY_MS - 1)) == [("old_failed", "warning")]


def test_a_daemon_that_lags() -> None:
    assert found(replace(IDLE, lag_ms=900_000)) == []
    assert found(replace(IDLE, lag_ms=900_001)) == [("lag", "critical")]
    assert found(replace(IDLE, lag_ms=9_000), interval=100) == []


@dataclass
class Aggregator:
    """Its figures, as `get_performance_metrics` gives them."""

    total_operations: int = 0
    success_rate: float = 1.0
    average_processing_time_ms: float = 0.0
    max_flush_time_ms: float = 0.0
    retry_count: int = 0
    failed_flushes: int = 0

    def get_performance_metrics(self) -> Aggregator:
        return self


def test_all_is_well(make: Callable[..., CronRecoveryDaemon], folders: Folders) -> None:
    aggregator = Aggregator(150, 0.993, 245, 480, 2, 1)
    status = make(aggregator=aggregator).perform_health_check()
    assert (status.timestamp, status.status, status.severity, status.issues) == (T0, "healthy", "normal", ())
    assert status.aggregator_health == AggregatorHealth(150, 0.993, 245, 480, 2, 1)


def test_the_worst_issue_is_the_severity(make: Callable[..., CronRecoveryDaemon]) -> None:
    status = make(aggregator=Aggregator(100, 0.75, 700)).perform_health_check()
    assert (status.status, status.severity) == ("unhealthy", "critical")
    assert status.issues == (
        "success rate of flushes is 75.0%, below 80%", "a flush takes 700 ms on average, more than 500 ms"
    )  # fmt: skip
    assert status.findings[1] == Finding("processing_time", "warning", status.issues[1])
    assert make(aggregator=Aggregator(100, 0.85)).perform_health_check().severity == "warning"


def test_the_file_has_the_documented_keys(make: Callable[..., CronRecoveryDaemon], folders: Folders) -> None:
    make(aggregator=Aggregator(150, 0.993, 245, 480, 2, 1)).perform_health_check()
    [path] = health_files(folders.health)
    assert path.name == f"health-{T0}.json"
    assert path.stat().st_mode & 0o777 == 0o600
    told = json.loads(path.read_bytes())
    documented = {
        "timestamp": T0, "status": "healthy", "severity": "normal", "issues": [],
        "daemonHealth": {
            "uptime": 0, "isRunning": False, "scheduledTasksExecuted": 0, "healthChecksPerformed": 1,
            "cleanupOperations": 0,
        },
        "aggregatorHealth": {
            "totalOperations": 150, "successRate": 0.993, "averageProcessingTime": 245, "maxFlushTime": 480,
            "retryCount": 2,
        },
        "systemHealth": {
            "memoryUsage": {"used": 2 * GIB, "total": 10 * GIB},
            "diskSpace": {"available": 900 * GIB, "total": 1000 * GIB},
        },
    }  # fmt: skip
    assert contains(told, documented)


def contains(told: Any, documented: Any) -> bool:
    if isinstance(documented, dict):
        return all(contains(told[name], value) for name, value in documented.items())
    return bool(told == documented)


def test_old_health_files_go(make: Callable[..., CronRecoveryDaemon], folders: Folders, clock: HandClock) -> None:
    (folders.health / "notes.txt").write_text("mine")
    daemon = make(health_files_max=3)
    for _ in range(5):
        daemon.perform_health_check()
        clock.forward(1000)
    assert [path.name for path in health_files(folders.health)] == [
        f"health-{T0 + ms}.json" for ms in (2000, 3000, 4000)
    ]
    assert (folders.health / "notes.txt").exists()


def test_a_check_that_cannot_be_written_is_made_all_the_same(
    daemon: CronRecoveryDaemon, folders: Folders, caplog: pytest.LogCaptureFixture
) -> None:
    folders.health.rmdir()
    assert daemon.perform_health_check().status == "healthy"
    assert "health_not_written" in caplog.text


def test_what_lies_in_the_recovery_folder(daemon: CronRecoveryDaemon, folders: Folders) -> None:
    for name, timestamp in (("a", T0 - 5000), ("b", T0 - 7000)):
        keep(folders, failed(name, timestamp=timestamp))
    keep(folders, failed("c", abandoned_at=T0))
    for name in ("x.failed.json", "x.failed.json.reason", "y.failed.json"):
        (folders.errors / name).touch()
    health = daemon.perform_health_check().daemon_health
    assert (health.failed_batches, health.abandoned_batches, health.unreadable_files) == (2, 1, 2)
    assert health.oldest_failed_at == T0 - 7000


def test_a_name_that_says_no_time(folders: Folders) -> None:
    path = folders.recovery / "mine.failed.json"
    path.touch()
    os.utime(path, (1000, 1000))
    assert Waiting.in_folders(folders) == Waiting(1, 0, 0, 1_000_000)


def test_a_daemon_in_another_process_counts_as_running(
    daemon: CronRecoveryDaemon, folders: Folders, clock: HandClock
) -> None:
    lock = FileLock(folders.recovery / DAEMON_LOCK, clock)
    assert lock.acquire()
    try:
        health = daemon.perform_health_check().daemon_health
    finally:
        lock.release()
    assert (health.is_running, health.pid) == (True, os.getpid())
    health = daemon.perform_health_check().daemon_health
    assert (health.is_running, health.pid) == (False, None)


def sums(operations: int, failures: int, average_ms: float = 100.0) -> AggregatorHealth:
    rate = 1 - failures / operations if operations else 1.0
    return AggregatorHealth(operations, rate, average_ms, failed_flushes=failures)


def test_an_old_fault_is_forgotten_and_a_new_one_is_not_hidden() -> None:
    performance = Performance()
    assert performance.take(sums(1000, 500)).success_rate == pytest.approx(0.5)
    for check in range(1, 16):
        recent = performance.take(sums(1000 + 10 * check, 500))
    assert recent.success_rate == pytest.approx(1.0), "fifteen checks later it is over"
    recent = performance.take(sums(1170, 520))
    assert recent.success_rate < 0.9, "20 of the last 160"
    assert sums(1170, 520).success_rate < 0.6


def test_a_slow_hour_is_seen_after_a_fast_year() -> None:
    performance = Performance()
    for _ in range(20):
        performance.take(sums(1_000_000, 0, 10.0))
    assert performance.take(sums(1_000_000, 0, 10.0)) == Recent(1.0, 0.0)
    recent = performance.take(replace(sums(1_000_100, 0), average_processing_time_ms=(10_000_000 + 90_000) / 1_000_100))
    assert recent.average_ms == pytest.approx(900.0)


def test_figures_that_begin_anew() -> None:
    performance = Performance()
    performance.take(sums(100, 0))
    assert performance.take(sums(10, 5)).success_rate == pytest.approx(0.5)
    assert performance.take(AggregatorHealth()) == Recent(1.0, 0.0)


def test_a_container_s_memory(tmp_path: Path) -> None:
    assert container_memory(tmp_path) is None
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 150\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert container_memory(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    assert container_memory(tmp_path) == (750, 1000)


def test_the_real_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    system = checker_module.system_health(tmp_path)
    assert 0 < system.memory_usage.process < system.memory_usage.used <= system.memory_usage.total
    assert system.disk_space is not None
    assert 0 < system.disk_space.available <= system.disk_space.total
    assert disk_space(tmp_path / "gone") is None
