"""An overview as a JSON document, with keys that programs may rely on; times and durations are milliseconds."""

from __future__ import annotations

from typing import Any

import msgspec

from totalizer.edge.status import JournalStatus
from totalizer.ops.batching.overview import NAMED_MAX, Overview, newest_health_check


def document_of(found: Overview, *, detailed: bool) -> dict[str, Any]:
    """The overview.

    Args:
        found: what was found.
        detailed: also every journal, the buckets of the flush times, failed batches and the whole last health check.
    """
    document = {
        "timestamp": found.now_ms, "dataPath": str(found.folders.data), "aggregator": _aggregator(found),
        "entries": _entries(found), "waiting": _waiting(found), "recovery": _recovery(found),
        "health": found.health, "system": msgspec.to_builtins(found.system),
    }  # fmt: skip
    if detailed:
        document["journals"] = [_journal(journal) for journal in found.journals]
        document["aggregator"]["buckets"] = [
            {"upTo": None if bound == float("inf") else bound, "count": count}
            for bound, count in found.performance.buckets
        ]
        document["failedFiles"] = [path.name for path in found.folders.failed_files()[:NAMED_MAX]]
        document["healthCheck"] = newest_health_check(found.folders)
    return document


def _aggregator(found: Overview) -> dict[str, Any]:
    figures = found.performance
    return {
        "totalOperations": figures.total_operations, "averageFlushTime": round(figures.average_flush_time_ms, 3),
        "averageProcessingTime": round(figures.average_processing_time_ms, 3),
        "maxFlushTime": round(figures.max_flush_time_ms, 3), "minFlushTime": round(figures.min_flush_time_ms, 3),
        "p50FlushTime": round(figures.p50_flush_time_ms, 3), "p95FlushTime": round(figures.p95_flush_time_ms, 3),
        "p99FlushTime": round(figures.p99_flush_time_ms, 3), "successRate": round(figures.success_rate, 6),
        "retryCount": figures.retry_count, "failedFlushes": figures.failed_flushes,
        "totalErrors": figures.total_errors, "overTarget": figures.over_target, "overMax": figures.over_max,
        "triggers": figures.triggers,
    }  # fmt: skip


def _entries(found: Overview) -> dict[str, int]:
    names = ("added", "delivered", "failed", "refused", "dropped", "rejected", "lost")
    return {name: getattr(found.counts, name) for name in names}


def _waiting(found: Overview) -> dict[str, Any]:
    return {
        "entries": found.waiting, "oldestAge": found.oldest_age_ms, "journals": len(found.journals),
        "processes": sum(journal.owner_pid is not None for journal in found.journals),
        "unreadable": sum(journal.error is not None for journal in found.journals),
    }  # fmt: skip


def _recovery(found: Overview) -> dict[str, Any]:
    backlog = found.backlog
    return {
        "isRunning": found.daemon_pid is not None, "pid": found.daemon_pid, "failedBatches": backlog.failed,
        "abandonedBatches": backlog.abandoned, "unreadableFiles": backlog.errors,
        "oldestFailedAt": backlog.oldest_failed_at,
    }  # fmt: skip


def _journal(journal: JournalStatus) -> dict[str, Any]:
    return {
        "name": journal.folder.name, "pid": journal.owner_pid, "waiting": journal.waiting, "sealed": journal.sealed,
        "sealedBatch": journal.sealed_batch, "oldestAt": journal.oldest_ms, "error": journal.error,
    }  # fmt: skip
