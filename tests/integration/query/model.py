"""What an answer must be, counted by hand: no rollup, no SQL, windows from their definitions."""

from __future__ import annotations

import random
from calendar import monthrange
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


class Event(NamedTuple):
    """What is known of a command execution."""

    at: datetime
    name: str
    status: str
    team: str | None
    took: int


Key = tuple[Any, ...]
Counted = dict[Key, dict[str, Any]]


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """When a local day begins."""
    naive = datetime(day.year, day.month, day.day)
    return max(naive.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))


def add_months(anchor: date, months: int) -> date:
    """So many months on, or the last day of that month."""
    year, month = anchor.year + (anchor.month - 1 + months) // 12, (anchor.month - 1 + months) % 12 + 1
    return date(year, month, min(anchor.day, monthrange(year, month)[1]))


def first_day(day: date, body: dict[str, Any]) -> date:
    """The first day of the calendar window that holds a day."""
    return _first_day(day, tuple(sorted(body.items())))


@lru_cache(maxsize=100_000)
def _first_day(day: date, items: tuple[tuple[str, Any], ...]) -> date:
    body = dict(items)
    window = body["aggregation_window"]
    if window == "1d":
        return day
    if window == "1w":
        while day.weekday() != WEEKDAYS.index(body.get("week_start", "monday")):
            day -= timedelta(days=1)
        return day
    months = {"1mo": 1, "1q": 3, "1y": 12}[window]
    fiscal = body.get("fiscal_start")
    anchor = date.fromisoformat(body.get("anchor") or (f"2001-{fiscal}" if fiscal else "2001-01-01"))
    number = -40 * 12 // months
    while add_months(anchor, (number + 1) * months) <= day:
        number += 1
    return add_months(anchor, number * months)


def window_of(moment: datetime, body: dict[str, Any], zone: ZoneInfo, start: datetime) -> datetime:
    """The start of the window that holds a moment."""
    window = body["aggregation_window"]
    if window == "total":
        return start
    if window in ("1m", "5m", "15m", "1h"):
        length = {"1m": 1, "5m": 5, "15m": 15, "1h": 60}[window]
        local = moment.astimezone(zone)
        past = timedelta(minutes=local.minute % length, seconds=local.second, microseconds=local.microsecond)
        return moment - past
    return midnight(first_day(moment.astimezone(zone).date(), body), zone)


def windows_in(body: dict[str, Any], zone: ZoneInfo, start: datetime, end: datetime) -> list[datetime]:
    """The start of every window that has a part in a range."""
    step = timedelta(minutes=1) if body["aggregation_window"] in ("1m", "5m") else timedelta(minutes=15)
    found, moment = [], start
    while moment < end:
        window = window_of(moment, body, zone, start)
        if not found or found[-1] != window:
            found.append(window)
        # The next moment at which a window may begin.
        moment = datetime.fromtimestamp((moment.timestamp() // step.total_seconds() + 1) * step.total_seconds(), UTC)
    return found


def counted(
    events: Iterable[Event], body: dict[str, Any], zone: ZoneInfo, start: datetime, end: datetime,
    group: Callable[[Event], Key],
) -> Counted:  # fmt: skip
    """Numbers by window and group."""
    rolling = int(body["rolling"][:-1]) if "rolling" in body else 0
    found: Counted = {}
    days = windows_in({"aggregation_window": "1d"}, zone, start, end) if rolling else []
    for event in events:
        if rolling:
            day = event.at.astimezone(zone).date()
            windows = [
                window
                for window in days
                if event.at < end and 0 <= (window.astimezone(zone).date() - day).days < rolling
            ]
        else:
            windows = [window_of(event.at, body, zone, start)] if start <= event.at < end else []
        for window in windows:
            row = found.setdefault((window, *group(event)), {"executions": 0, "sum": 0, "min": event.took, "max": 0})
            row["executions"] += 1
            row["sum"] += event.took
            row["min"], row["max"] = min(row["min"], event.took), max(row["max"], event.took)
    return found


def random_windows(rng: random.Random) -> dict[str, Any]:
    """Any way to divide a range."""
    kind = rng.choice(["1m", "5m", "15m", "1h", "1h", "1d", "1d", "1w", "1mo", "1q", "1y", "total", "rolling"])
    if kind == "rolling":
        return {"rolling": f"{rng.choice([1, 2, 7, 30])}d"}
    body: dict[str, Any] = {"aggregation_window": kind}
    if kind == "1w" and rng.random() < 0.7:
        body["week_start"] = rng.choice(WEEKDAYS)
    if kind in ("1mo", "1q", "1y"):
        which = rng.choice(["", "anchor", "fiscal_start"])
        if which == "anchor":
            body["anchor"] = rng.choice(["2025-01-31", "2024-02-29", "2025-03-15", "2030-12-30", "1999-06-01"])
        elif which:
            body["fiscal_start"] = rng.choice(["04-06", "07-01", "01-31", "10-01"])
    return body
