"""What a run has done so far."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from psycopg import Connection

from totalizer.store import usage_runs
from totalizer.telemetry import logger
from totalizer.usage.result import ERRORS_MAX, AggregationResult, KeyFailure
from totalizer.usage.workers import Page

#: Failures that a run keeps in memory and in the database; any beyond are counted.
FAILURES_MAX = 10_000


@dataclass
class Outcome:
    """The figures of a run while it goes on; those of its result, and its epoch if it is fenced."""

    day: date
    epoch: int | None = None
    records_aggregated: int = 0
    records_settled: int = 0
    keys_scanned: int = 0
    counters_rebuilt: int = 0
    error_count: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    broken: str | None = None
    duration_ms: int = 0
    redis: str = "ok"
    failures_in_a_row: int = 0
    skipped: str | None = None

    def fail(self, key: str, reason: str) -> None:
        """Something went wrong: with a counter, or with all of it if there is no key."""
        self.error_count += 1
        if not key:
            self.broken = reason
        elif len(self.failures) < FAILURES_MAX:
            self.failures[key] = reason

    def add_pages(self, pages: Iterable[Page]) -> None:
        """Count what became of pages of counters."""
        for page in pages:
            self.records_aggregated += page.records
            for key, reason in page.failures.items():
                self.fail(key, reason)

    def keep(self, connection: Connection[Any]) -> None:
        """Record the run and what failed in it; in the connection's transaction."""
        # A merchant's run sees a part of the day only: it mends nothing of the others, and is no run of the day.
        whole = self.epoch is not None and self.broken is None and self.redis == "ok"
        usage_runs.keep_failures(connection, self.day, self.failures, whole=whole)
        if self.epoch is not None:
            figures = {
                "keys_scanned": self.keys_scanned, "records_aggregated": self.records_aggregated,
                "records_settled": self.records_settled, "errors": self.error_count, "duration_ms": self.duration_ms,
                "error": self.broken,
            }  # fmt: skip
            self.failures_in_a_row = usage_runs.finish(connection, self.day, self.epoch, figures)

    def log(self, job: str) -> None:
        """Say how it went."""
        for failure in self._listed():
            logger().error("a counter was not aggregated", job=job, date=str(self.day), key=failure.key,
                           reason=failure.reason)  # fmt: skip
        logger().info(
            "completed", job=job, date=str(self.day), records_aggregated=self.records_aggregated,
            records_settled=self.records_settled, keys_scanned=self.keys_scanned, errors=self.error_count,
            counters_rebuilt=self.counters_rebuilt, duration_ms=self.duration_ms, redis=self.redis,
            alerts=list(self.result().alerts),
        )  # fmt: skip

    def result(self) -> AggregationResult:
        """What the caller gets."""
        return AggregationResult(
            self.day, self.error_count == 0, self.records_aggregated, self.records_settled, self.keys_scanned,
            self.counters_rebuilt, self.error_count, tuple(self._listed()), self.duration_ms, self.redis,
            self.failures_in_a_row, self.skipped,
        )  # fmt: skip

    def _listed(self) -> list[KeyFailure]:
        listed = [] if self.broken is None else [KeyFailure("", self.broken)]
        listed += [KeyFailure(*failure) for failure in self.failures.items()]
        return listed[:ERRORS_MAX]
