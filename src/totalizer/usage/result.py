"""What a run of the usage aggregation did, what is known of a day, and what somebody should be told of."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

#: A run that takes longer is told of, milliseconds.
DURATION_ALERT_MS: Final = 5 * 60 * 1000
#: So many runs with errors in a row are told of.
FAILURES_ALERT: Final = 3
#: Failures that a result names; the others are counted, and all of them kept in the database.
ERRORS_MAX: Final = 100


@dataclass(frozen=True)
class KeyFailure:
    """One counter that could not be aggregated.

    Attributes:
        key: its name in Redis, or what stands for it.
        reason: why.
    """

    key: str
    reason: str


@dataclass(frozen=True)
class AggregationResult:
    """What one run for one day did.

    Attributes:
        date: the day, UTC.
        success: True if nothing went wrong, also if another process was at it.
        records_aggregated: counters whose values are in `merchant_usage` now.
        records_settled: sums of events that are in it now.
        keys_scanned: counters found in Redis.
        counters_rebuilt: counters that were behind and were rebuilt.
        error_count: what went wrong.
        errors: the first ERRORS_MAX of it.
        duration_ms: how long it took.
        redis: `ok`, `away` or `not configured`.
        failures_in_a_row: runs with errors, this one included; 0 after one that had none.
        skipped: why nothing was done, where another process was at it.
    """

    date: date
    success: bool
    records_aggregated: int = 0
    records_settled: int = 0
    keys_scanned: int = 0
    counters_rebuilt: int = 0
    error_count: int = 0
    errors: tuple[KeyFailure, ...] = ()
    duration_ms: int = 0
    redis: str = "ok"
    failures_in_a_row: int = 0
    skipped: str | None = None

    @property
    def alerts(self) -> tuple[str, ...]:
        """What somebody should be told of: errors, nothing_aggregated, slow, repeated_failures."""
        if self.skipped is not None:
            return ()
        nothing = self.records_aggregated == 0 and self.records_settled == 0
        return alerts_of(self.error_count, self.duration_ms, self.failures_in_a_row, nothing=nothing)


@dataclass(frozen=True)
class RangeResult:
    """What a backfill did, day by day."""

    results: tuple[AggregationResult, ...]

    @property
    def success(self) -> bool:
        """True if nothing went wrong on any day."""
        return all(result.success for result in self.results)

    @property
    def records_aggregated(self) -> int:
        """Counters of all days."""
        return sum(result.records_aggregated for result in self.results)

    @property
    def records_settled(self) -> int:
        """Sums of events of all days."""
        return sum(result.records_settled for result in self.results)

    @property
    def keys_scanned(self) -> int:
        """Counters found for all days."""
        return sum(result.keys_scanned for result in self.results)

    @property
    def error_count(self) -> int:
        """What went wrong on all days."""
        return sum(result.error_count for result in self.results)

    @property
    def duration_ms(self) -> int:
        """How long all days took."""
        return sum(result.duration_ms for result in self.results)


@dataclass(frozen=True)
class AggregationStatus:
    """What is known of a day.

    Attributes:
        date: the day, UTC.
        aggregated: True if a run has finished and every event that is stored is in `merchant_usage`.
        running: True while a process is at it.
        records, merchants: rows of the day, and of how many merchants.
        behind: sums of events that are not in it yet.
        started_at, finished_at, duration_ms, error_count, failures_in_a_row, error: of the last run.
        failed_keys: counters that the last runs could not aggregate.
    """

    date: date
    aggregated: bool
    running: bool
    records: int
    merchants: int
    behind: int
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration_ms: int | None = None
    error_count: int = 0
    failures_in_a_row: int = 0
    error: str | None = None
    failed_keys: tuple[KeyFailure, ...] = ()

    @property
    def alerts(self) -> tuple[str, ...]:
        """As those of a result; of a day that was never aggregated, none."""
        if self.finished_at is None:
            return ()
        return alerts_of(
            self.error_count, self.duration_ms or 0, self.failures_in_a_row, nothing=self.records == 0
        )  # fmt: skip


def alerts_of(errors: int, duration_ms: int, failures_in_a_row: int, *, nothing: bool) -> tuple[str, ...]:
    """The names of what is wrong with a run."""
    wrong = {
        "errors": errors > 0,
        "nothing_aggregated": nothing,
        "slow": duration_ms > DURATION_ALERT_MS,
        "repeated_failures": failures_in_a_row >= FAILURES_ALERT,
    }
    return tuple(name for name, holds in wrong.items() if holds)
