"""Rollups by the hour, day, week and month: each brings its window up to date, and says what is in it.

Rollups are kept fresh all the time; what these jobs find to do is what came late or was marked by hand. Hours are UTC
hours. Days, weeks and months are those of each organisation's zone, so their window reaches from where one begins
first on earth to where it ends last.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, NamedTuple

from totalizer.clock import utc_datetime
from totalizer.errors import OperationError
from totalizer.jobs.job import Context
from totalizer.rollup.window_refresh import bring_up, mark, rows_of_buckets, rows_of_days
from totalizer.window import utc_moment, zone

_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
#: A day begins first 14 hours before it does in UTC, and ends last 12 hours after.
EARLIEST, LATEST = timedelta(hours=14), timedelta(hours=12)
#: Longest range of one backfill.
BACKFILL_DAYS_MAX = 3660


class Period(NamedTuple):
    """A length of the calendar.

    Attributes:
        task: the job's name.
        floor: its first day, of a day in it.
        following: the first day of the next, of its own.
    """

    task: str
    floor: Callable[[date], date]
    following: Callable[[date], date]


def _month_after(first: date) -> date:
    return (first + 31 * _DAY).replace(day=1)


DAY = Period("daily_rollup", lambda day: day, lambda day: day + _DAY)
WEEK = Period("weekly_rollup", lambda day: day - day.weekday() * _DAY, lambda day: day + 7 * _DAY)
MONTH = Period("monthly_rollup", lambda day: day.replace(day=1), _month_after)
GRANULARITIES = ("hourly", "daily", "weekly", "monthly")
_PERIODS = {"daily": DAY, "weekly": WEEK, "monthly": MONTH}


def hourly_rollup(context: Context) -> dict[str, Any]:
    """Bring the rollups of the last full hour up to date, and of those that were missed."""
    given = context.arguments.get("target_hour")
    if given is not None:
        start = _hour_of(moment_of("target_hour", given))
        end = start + _HOUR
    else:
        end = _hour_of(_now(context))
        start = end - _HOUR
        if context.done_for is not None:
            start = min(start, _hour_of(context.done_for))
    began = context.clock.monotonic()
    done = bring_up(context.connection, start, end, context.check, context.clock)
    rows = rows_of_buckets(context.connection, start, end)
    return _result("hourly_rollup", start, end, "UTC", done.buckets, done.behind, rows, context, began)


def daily_rollup(context: Context) -> dict[str, Any]:
    """Bring the rollups of the last full day up to date, and of those that were missed."""
    return _calendar(context, DAY)


def weekly_rollup(context: Context) -> dict[str, Any]:
    """Bring the rollups of the last full week up to date, and of those that were missed."""
    return _calendar(context, WEEK)


def monthly_rollup(context: Context) -> dict[str, Any]:
    """Bring the rollups of the last full month up to date, and of those that were missed."""
    return _calendar(context, MONTH)


def backfill_aggregations(context: Context) -> dict[str, Any]:
    """Recompute the rollups of a range from the events, newest day first."""
    granularity = context.arguments.get("granularity", "hourly")
    start, end = _range(context.arguments, granularity)
    began, buckets, behind, marked = context.clock.monotonic(), 0, 0, 0
    pieces = _pieces(start, end)
    for number, (first, last) in enumerate(pieces):
        context.progress(number, len(pieces))
        marked += mark(context.connection, first, last)
        done = bring_up(context.connection, first, last, context.check, context.clock)
        buckets, behind = buckets + done.buckets, behind + done.behind
    rows = rows_of_buckets(context.connection, start, end)
    result = _result("backfill_aggregations", start, end, "UTC", buckets, behind, rows, context, began)
    context.progress(len(pieces), len(pieces))
    return {**result, "granularity": granularity, "marked": marked}


def moment_of(name: str, text: str) -> datetime:
    """An ISO 8601 time, UTC unless it says otherwise.

    Raises:
        OperationError: it is none.
    """
    try:
        return utc_moment(text)
    except ValueError as error:
        raise OperationError(f"{name}={text[:80]}: {error}") from None


def _calendar(context: Context, period: Period) -> dict[str, Any]:
    given = context.arguments.get("target_date")
    if given is not None:
        first = period.floor(moment_of("target_date", given).date())
        end = period.following(first)
    else:
        local = zone(context.settings.job_time_zone)
        end = period.floor(_now(context).astimezone(local).date())
        first = period.floor(end - _DAY)
        if context.done_for is not None:
            first = min(first, period.floor(context.done_for.astimezone(local).date()))
    began = context.clock.monotonic()
    start, last = _around(first, end)
    done = bring_up(context.connection, start, last, context.check, context.clock)
    rows = rows_of_days(context.connection, first, end)
    return _result(period.task, first, end, "each organisation's", done.buckets, done.behind, rows, context, began)


def _around(first: date, end: date) -> tuple[datetime, datetime]:
    """The moments that belong to these days in some zone."""
    return datetime.combine(first, time(), UTC) - EARLIEST, datetime.combine(end, time(), UTC) + LATEST


def _range(arguments: Any, granularity: str) -> tuple[datetime, datetime]:
    if granularity not in GRANULARITIES:
        raise OperationError(f"granularity={granularity[:80]}: must be one of {', '.join(GRANULARITIES)}")
    start, end = (moment_of(name, arguments[name]) for name in ("start_date", "end_date"))
    if not start < end <= start + BACKFILL_DAYS_MAX * _DAY:
        raise OperationError(
            f"start_date={start:%F %R}, end_date={end:%F %R}: the end must be after the start, and at most "
            f"{BACKFILL_DAYS_MAX} days after it"
        )
    if granularity == "hourly":
        return _hour_of(start), _hour_of(end + _HOUR - timedelta(microseconds=1))
    period = _PERIODS[granularity]
    last = period.floor((end - timedelta(microseconds=1)).date())
    return _around(period.floor(start.date()), period.following(last))


def _pieces(start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    """Days, newest first: what people look at is right first, and little is marked at once."""
    pieces = []
    while end > start:
        first = max(start, end - _DAY)
        pieces.append((first, end))
        end = first
    return pieces


def _hour_of(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def _now(context: Context) -> datetime:
    return context.scheduled_for or utc_datetime(context.clock.now_ns())


def _result(
    task: str, start: date, end: date, whose: str, buckets: int, behind: int, rows: int, context: Context, began: float
) -> dict[str, Any]:
    return {
        "task": task, "status": "behind" if behind else "done", "window_start": start.isoformat(),
        "window_end": end.isoformat(), "zone": whose, "buckets": buckets, "buckets_behind": behind, "rows": rows,
        "duration_ms": round((context.clock.monotonic() - began) * 1000),
    }  # fmt: skip
