"""The aggregation of usage as a job: put together from the settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from totalizer.app import dsn_of
from totalizer.clock import utc_datetime
from totalizer.jobs.job import Context, PartlyDone
from totalizer.settings import Settings
from totalizer.store.roles import Role
from totalizer.store.usage_counters import connect
from totalizer.usage.job import UsageAggregationJob
from totalizer.usage.result import AggregationResult, RangeResult


@contextmanager
def usage_aggregation_job(settings: Settings, **options: Any) -> Iterator[UsageAggregationJob]:
    """The job, for the length of a with-block; `options` as its class takes them."""
    client = None if settings.redis_url is None else connect(settings.redis_url)
    parallel = settings.usage_aggregation_parallel
    job = UsageAggregationJob(dsn_of(settings, Role.REFRESHER), client, parallel=parallel, **options)
    try:
        yield job
    finally:
        job.close()


def usage_aggregation(context: Context) -> dict[str, Any]:
    """Bring the usage of yesterday and today into `merchant_usage`."""
    today = utc_datetime(context.clock.now_ns()).date()
    held = {"opened": lambda: context.open(Role.REFRESHER), "check": context.check}
    with usage_aggregation_job(context.settings, **held) as job:
        found = job.aggregate_date_range(
            today - timedelta(days=1), today, lambda done, days, _result: context.progress(done, days)
        )
    rows = found.records_aggregated + found.records_settled
    done = {"task": "usage_aggregation", **document(found), "rows": rows}
    if not found.success:
        raise PartlyDone(_what_failed(found), done)
    return done


def document(result: AggregationResult | RangeResult) -> dict[str, Any]:
    """A result as JSON would have it, with its alerts."""
    if isinstance(result, RangeResult):
        alerts = sorted({alert for each in result.results for alert in each.alerts})
        names = ("success", "records_aggregated", "records_settled", "keys_scanned", "error_count", "duration_ms")
        figures = {name: getattr(result, name) for name in names}
        return {**figures, "alerts": alerts, "days": [document(each) for each in result.results]}
    return {**asdict(result), "date": result.date.isoformat(), "alerts": list(result.alerts)}


def _what_failed(found: RangeResult) -> str:
    """The first that went wrong, and where the others are."""
    day, error = next((each.date, error) for each in found.results for error in each.errors)
    what = f"{error.key}: {error.reason}" if error.key else error.reason
    return f"{found.error_count} failed, first of {day}: {what}; `totalizer job status {day}` has more"
