"""Every job: its name, what it does, when it is due, how long it may take, and where it runs."""

from __future__ import annotations

from datetime import timedelta

from totalizer.errors import OperationError
from totalizer.jobs import keeping, upkeep, windows
from totalizer.jobs.health import health_check, performance_report
from totalizer.jobs.job import AGGREGATION, Job
from totalizer.jobs.schedule import Cron, Every
from totalizer.jobs.usage import usage_aggregation
from totalizer.settings import Settings
from totalizer.window import zone

_MINUTE, _HOUR = timedelta(minutes=1), timedelta(hours=1)
_DATE = {"target_date": "a day in it, ISO 8601; the last full one by default"}
_RANGE = {
    "start_date": "where the range begins, ISO 8601",
    "end_date": "where it ends, excluded",
    "granularity": "hourly, daily, weekly or monthly: the range is widened to whole ones; hourly by default",
}


def jobs(settings: Settings) -> dict[str, Job]:
    """The table of jobs by name.

    Args:
        settings: the flags, the zone of wall-clock times, the pause of the refresh.
    """
    return {job.name: job for job in (*_rollups(settings), *_upkeep(settings))}


def job_named(settings: Settings, name: str) -> Job:
    """One job.

    Raises:
        OperationError: there is none of that name.
    """
    table = jobs(settings)
    if name not in table:
        raise OperationError(f"no job {name!r}; there are {', '.join(table)}")
    return table[name]


def _rollups(settings: Settings) -> list[Job]:
    clock = zone(settings.job_time_zone)
    pause = Every(timedelta(milliseconds=settings.refresh_interval_ms))
    return [
        Job("refresh_rollups", upkeep.refresh_rollups, _HOUR, pause, AGGREGATION, continuous=True),
        Job(
            "hourly_rollup", windows.hourly_rollup, _HOUR, Cron(5, zone=clock), AGGREGATION, settings.hourly_rollup,
            arguments={"target_hour": "a moment in it, ISO 8601; the last full one by default"},
        ),
        Job(
            "daily_rollup", windows.daily_rollup, 2 * _HOUR, Cron(0, 1, zone=clock), AGGREGATION,
            settings.daily_rollup, arguments=_DATE,
        ),
        Job(
            "weekly_rollup", windows.weekly_rollup, 4 * _HOUR, Cron(0, 2, weekday=0, zone=clock), AGGREGATION,
            settings.weekly_rollup, arguments=_DATE,
        ),
        Job(
            "monthly_rollup", windows.monthly_rollup, 4 * _HOUR, Cron(30, 2, day=1, zone=clock), AGGREGATION,
            settings.monthly_rollup, arguments=_DATE,
        ),
        Job(
            "refresh_materialized_views", keeping.refresh_materialized_views, 15 * _MINUTE, Every(15 * _MINUTE),
            AGGREGATION,
        ),
        Job(
            "usage_aggregation", usage_aggregation, _HOUR,
            Every(timedelta(milliseconds=settings.usage_aggregation_interval_ms)), AGGREGATION,
            settings.usage_aggregation_enabled,
        ),
        Job(
            "backfill_aggregations", windows.backfill_aggregations, 24 * _HOUR, None, AGGREGATION,
            arguments=_RANGE, required=frozenset({"start_date", "end_date"}),
        ),
    ]  # fmt: skip


def _upkeep(settings: Settings) -> list[Job]:
    clock = zone(settings.job_time_zone)
    return [
        Job(
            "cleanup_old_data", keeping.cleanup_old_data, 2 * _HOUR, Cron(0, 3, zone=clock),
            arguments={"retention_days": "days for which events are kept about which nothing is set or declared"},
        ),
        Job("apply_late", keeping.apply_late, 30 * _MINUTE, Every(15 * _MINUTE)),
        Job("check_zones", keeping.check_zones, 30 * _MINUTE, Cron(30, 0, zone=clock)),
        Job("make_partitions", upkeep.make_partitions, 10 * _MINUTE, Every(_HOUR)),
        Job("compact_ledger", upkeep.compact_ledger, 30 * _MINUTE, Every(_HOUR)),
        Job("forget_fates", upkeep.forget_fates, 30 * _MINUTE, Every(6 * _HOUR)),
        Job("dead_letter_retry", upkeep.dead_letter_retry, 30 * _MINUTE, Every(_HOUR)),
        Job("health_check", health_check, 5 * _MINUTE, Every(timedelta(seconds=settings.health_check_interval))),
        Job("performance_report", performance_report, 5 * _MINUTE, Every(_HOUR)),
        Job("reconcile", upkeep.reconcile, 10 * _MINUTE, Every(_MINUTE)),
        Job("clear_minutes", upkeep.clear_minutes, 30 * _MINUTE, Every(_HOUR)),
        Job("verify", upkeep.verify, 2 * _HOUR, Cron(0, 4, zone=clock)),
        Job("forget_runs", upkeep.forget_runs, 10 * _MINUTE, Cron(30, 3, zone=clock)),
    ]  # fmt: skip
