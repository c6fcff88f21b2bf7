"""What a run has done so far."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import date
from typing import Any

from psycopg import Connection

from totalizer.clock import Clock
from totalizer.store import usage_runs
from totalizer.telemetry import logger
from totalizer.usage.result import ERRORS_MAX, AggregationResult, KeyFailure
from totalizer.usage.workers import Page

#: Failures that a run keeps in memory and in the database; any beyond are counted.
FAILURES_MAX = 10_000


class Outcome:
    """A run while it goes on.

    Args:
        day: that it is for.
        clock: time source; the run begins now.

    Attributes:
        result: what the caller gets, as far as it has come.
        epoch: of the run; None if it is not fenced.
        kept: True once it is recorded.
    """

    def __init__(self, day: date, clock: Clock) -> None:
        self._clock, self._began = clock, clock.monotonic()
        self.kept = False
        self.result = AggregationResult(day, success=True)
        self.epoch: int | None = None
        self._failures: dict[str, str] = {}
        self._broken: str | None = None

    def note(self, **figures: Any) -> None:
        """Set figures of the result."""
        self.result = replace(self.result, **figures)

    def fail(self, key: str, reason: str) -> None:
        """Something went wrong: with a counter, or with all of it if there is no key."""
        self.note(success=False, error_count=self.result.error_count + 1)
        if not key:
            self._broken = reason
        elif len(self._failures) < FAILURES_MAX:
            self._failures[key] = reason

    def add_pages(self, pages: Iterable[Page]) -> None:
        """Count what became of pages of counters."""
        for page in pages:
            self.note(records_aggregated=self.result.records_aggregated + page.records)
            for key, reason in page.failures.items():
                self.fail(key, reason)

    def finish(self) -> None:
        """Nothing more is done."""
        duration_ms = round((self._clock.monotonic() - self._began) * 1000)
        listed = [] if self._broken is None else [KeyFailure("", self._broken)]
        listed += [KeyFailure(*failure) for failure in self._failures.items()]
        self.note(duration_ms=duration_ms, errors=tuple(listed[:ERRORS_MAX]))

    def keep(self, connection: Connection[Any]) -> None:
        """Record the run and what failed in it, over a connection that commits by itself."""
        self.finish()
        with connection.transaction():
            self._keep(connection)
        self.kept = True

    def _keep(self, connection: Connection[Any]) -> None:
        done = self.result
        # A merchant's run sees a part of the day only: it mends nothing of the others, and is no run of the day.
        whole = self.epoch is not None and self._broken is None and done.redis == "ok"
        usage_runs.keep_failures(connection, done.date, self._failures, whole=whole)
        if self.epoch is not None:
            figures = {
                "keys_scanned": done.keys_scanned, "records_aggregated": done.records_aggregated,
                "records_settled": done.records_settled, "errors": done.error_count, "duration_ms": done.duration_ms,
                "error": self._broken,
            }  # fmt: skip
            self.note(failures_in_a_row=usage_runs.finish(connection, done.date, self.epoch, figures))

    def log(self, job: str) -> None:
        """Say how it went."""
        done = self.result
        for failure in done.errors:
            logger().error("a counter was not aggregated", job=job, date=str(done.date), key=failure.key,
                           reason=failure.reason)  # fmt: skip
        logger().info(
            "completed", job=job, date=str(done.date), records_aggregated=done.records_aggregated,
            records_settled=done.records_settled, keys_scanned=done.keys_scanned, errors=done.error_count,
            counters_rebuilt=done.counters_rebuilt, duration_ms=done.duration_ms, redis=done.redis,
            alerts=list(done.alerts),
        )  # fmt: skip
