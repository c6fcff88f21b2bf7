"""The names that programs and documents rely on: calls, fields, error codes; and the page that tells of them."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from totalizer import errors
from totalizer.edge import (
    CronRecoveryDaemon,
    PerformanceMetrics,
    ProcessResult,
    SmartBatchAggregator,
    Stats,
    batch_utils,
)
from totalizer.edge.daemon.metrics import DaemonMetrics, ExportedMetrics, RecoveryMetrics
from totalizer.edge.metric_families import TRIGGERS

PAGE = (Path(__file__).parents[3] / "docs/reference/edge.md").read_text("utf-8")

FIELDS = {
    PerformanceMetrics: """total_operations average_flush_time_ms average_processing_time_ms max_flush_time_ms
        min_flush_time_ms success_rate retry_count failed_flushes total_errors p50_flush_time_ms p95_flush_time_ms
        p99_flush_time_ms triggers""",
    Stats: "processed failed avg_processing_time_ms current_batch_size batch_age_ms",
    ProcessResult: "success entries_processed error",
    RecoveryMetrics: """total_recovery_attempts successful_recoveries failed_recoveries abandoned_batches
        recovery_success_rate average_recovery_time_ms""",
    DaemonMetrics: """is_running uptime_ms scheduled_tasks_executed health_checks_performed cleanup_operations
        recovery""",
    ExportedMetrics: "timestamp version daemon recovery health",
    batch_utils.AggregationSummary: "total_entries unique_users time_range action_counts",
    batch_utils.AggregationResult: "entries metadata summary",
    batch_utils.MergedBatch: "entries metadata",
    batch_utils.PerformanceTimer: "label start_time start_date",
}

CALLS: dict[object, str] = {
    SmartBatchAggregator: """add flush force_flush shutdown stop get_current_batch_size is_empty get_current_batch
        get_batch_age_ms get_performance_metrics get_stats process_batch""",
    CronRecoveryDaemon: """initialize start stop is_running scan_for_failed_batches prioritize_batches reprocess_batch
        reprocess_failed_batches perform_health_check send_alert identify_files_for_cleanup perform_cleanup get_metrics
        get_recovery_metrics export_metrics""",
    batch_utils: """generate_batch_file_name validate_entry format_aggregation_result calculate_batch_size merge_batches
        create_performance_timer get_elapsed_time_ms calculate_percentile""",
}

CODES = {
    "FlushError": "FLUSH_ERROR", "ValidationError": "VALIDATION_ERROR", "DaemonError": "DAEMON_ERROR",
    "RateLimited": "RATE_LIMITED", "AggregatorClosed": "AGGREGATOR_CLOSED", "SinkUnavailable": "SINK_UNAVAILABLE",
    "SinkRefused": "SINK_REFUSED",
}  # fmt: skip


@pytest.mark.parametrize("result", FIELDS, ids=lambda result: str(result.__name__))
def test_results_have_the_documented_fields_and_do_not_change(result: type) -> None:
    names = {field.name for field in fields(result)}  # type: ignore[arg-type]
    assert set(FIELDS[result].split()) <= names
    with pytest.raises(FrozenInstanceError):
        setattr(object.__new__(result), names.pop(), 1)


@pytest.mark.parametrize("owner", CALLS, ids=lambda owner: str(getattr(owner, "__name__", "")))
def test_the_documented_calls_are_there(owner: object) -> None:
    assert [name for name in CALLS[owner].split() if not callable(getattr(owner, name, None))] == []


def test_two_names_are_one_call() -> None:
    assert SmartBatchAggregator.stop is SmartBatchAggregator.shutdown


@pytest.mark.parametrize("name", CODES)
def test_errors_have_the_documented_codes(name: str) -> None:
    assert getattr(errors, name).code == CODES[name]
    assert f"| `{name}` | `{CODES[name]}` |" in PAGE or name == "DaemonError"


def test_the_page_names_every_call_figure_and_trigger() -> None:
    methods = [name for name in vars(SmartBatchAggregator) if not name.startswith("_") and name != "from_config"]
    assert len(methods) > 12
    assert [name for name in methods if f"`{name}(" not in PAGE] == []
    assert [name for name in TRIGGERS if f"**{name}**" not in PAGE] == []
    functions = [name for name in CALLS[batch_utils].split() if f"`{name}(" not in PAGE]
    assert functions == []
    assert [field.name for field in fields(Stats) if f"`{field.name}`" not in PAGE] == []


def test_making_one_sweeps_what_killed_writers_left(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    data = tmp_path / "aggregated"
    SmartBatchAggregator(data_path=data).shutdown()
    drafts = [
        folder / f".batch_x.json.{dead.pid}.abcd.tmp" for folder in (data, data / "recovery", tmp_path / "health")
    ]
    for draft in drafts:
        draft.write_bytes(b"half of a")
    SmartBatchAggregator(data_path=data).shutdown()
    assert [draft.name for draft in drafts if os.path.lexists(draft)] == []
