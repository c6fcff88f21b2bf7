"""Durable batching where events arise: take entries, make them safe, deliver them in batches, without any server.

`SmartBatchAggregator` takes entries; a sink takes the batches, `FileSink` or `HttpSink`; `CronRecoveryDaemon` looks
after what could not be delivered. docs/reference/edge.md says what is promised.

Importing this costs little: what a program does not use is not imported. An aggregator brings in what it needs when it
is made, and its journal at the first entry.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from totalizer.edge.aggregator import SmartBatchAggregator
from totalizer.errors import (
    AggregatorClosed,
    BatchFileDamaged,
    BatchVersionUnknown,
    ConfigurationError,
    DaemonError,
    EdgeError,
    FlushError,
    JournalFailed,
    JournalFull,
    RateLimited,
    SinkRefused,
    SinkUnavailable,
    ValidationError,
)

if TYPE_CHECKING:
    from totalizer.edge.batch import Batch, FailedBatch, RefusedEntry
    from totalizer.edge.daemon import CronRecoveryDaemon
    from totalizer.edge.entry import validate_entry
    from totalizer.edge.folder import Folders
    from totalizer.edge.metrics import PerformanceMetrics, Stats
    from totalizer.edge.process import ProcessResult
    from totalizer.edge.sinks.file import FileSink
    from totalizer.edge.sinks.http import HttpSink
    from totalizer.edge.sinks.sink import Delivery, Sink

#: Names by the module they are in, which is imported when they are first used.
_HOMES = {
    "Batch": "batch",
    "CronRecoveryDaemon": "daemon",
    "Delivery": "sinks.sink",
    "FailedBatch": "batch",
    "FileSink": "sinks.file",
    "Folders": "folder",
    "HttpSink": "sinks.http",
    "PerformanceMetrics": "metrics",
    "ProcessResult": "process",
    "RefusedEntry": "batch",
    "Sink": "sinks.sink",
    "Stats": "metrics",
    "validate_entry": "entry",
}

__all__ = [
    "AggregatorClosed", "Batch", "BatchFileDamaged", "BatchVersionUnknown", "ConfigurationError", "CronRecoveryDaemon",
    "DaemonError", "Delivery", "EdgeError", "FailedBatch", "FileSink", "FlushError", "Folders", "HttpSink",
    "JournalFailed", "JournalFull", "PerformanceMetrics", "ProcessResult", "RateLimited", "RefusedEntry", "Sink",
    "SinkRefused", "SinkUnavailable", "SmartBatchAggregator", "Stats", "ValidationError", "validate_entry",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
