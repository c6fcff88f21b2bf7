"""What an answer is put together from: the grains a rollup is stored at, and its event type's events."""

from __future__ import annotations

from datetime import date, timedelta
from enum import Enum
from typing import NamedTuple

from totalizer.catalog import Rollup
from totalizer.query.spans import Span
from totalizer.query.windows import later


class Source(Enum):
    """A stored grain, or the events; the value is what an answer calls it. In order, coarsest first."""

    MONTH = "1mo"
    WEEK = "1w"
    DAY = "1d"
    HOUR = "1h"
    BASE = "15m"
    MINUTE = "1m"
    EVENTS = "events"

    @property
    def key(self) -> str:
        """The column that says when a row of it is."""
        return {"1mo": "month", "1w": "week", "1d": "day"}.get(self.value, "bucket")

    @property
    def by_day(self) -> bool:
        """True if its rows are local days, weeks or months."""
        return self in (Source.MONTH, Source.WEEK, Source.DAY)

    def table(self, rollup: Rollup) -> str:
        """The rollup's table of this grain."""
        return f"{rollup.name}_{self.value}"


class Days(NamedTuple):
    """Local days from `first` up to, not including, `end`."""

    first: date
    end: date


class Pieces(NamedTuple):
    """The parts of a range by where they are read from. Every moment of the range lies in exactly one.

    Attributes:
        days: for months, weeks and days; a month is its days.
        spans: for everything finer.
    """

    days: dict[Source, list[Days]]
    spans: dict[Source, list[Span]]

    @property
    def sources(self) -> list[Source]:
        """Those that are read, coarsest first."""
        return [source for source in Source if self.days.get(source) or self.spans.get(source)]


def divided(days: Days) -> dict[Source, list[Days]]:
    """Days as whole months, whole weeks and single days."""
    result: dict[Source, list[Days]] = {Source.MONTH: [], Source.WEEK: [], Source.DAY: []}
    first_month = days.first if days.first.day == 1 else later(days.first.replace(day=1), 1)
    last_month = days.end.replace(day=1)
    rest = [days]
    if first_month < last_month:
        result[Source.MONTH].append(Days(first_month, last_month))
        rest = [Days(days.first, first_month), Days(last_month, days.end)]
    for part in rest:
        first_week = part.first + timedelta(days=-part.first.weekday() % 7)
        last_week = part.end - timedelta(days=part.end.weekday())
        if first_week < last_week:
            result[Source.WEEK].append(Days(first_week, last_week))
            result[Source.DAY] += [Days(part.first, first_week), Days(last_week, part.end)]
        else:
            result[Source.DAY].append(part)
    return {source: [part for part in parts if part.first < part.end] for source, parts in result.items()}


def joined(days: list[Days]) -> list[Days]:
    """The same days, adjoining ones together."""
    result: list[Days] = []
    for part in sorted(days):
        if result and result[-1].end == part.first:
            result[-1] = Days(result[-1].first, part.end)
        else:
            result.append(part)
    return result
