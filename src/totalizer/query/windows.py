"""How a range is divided into windows: by the clock, by local days, by weeks and by cycles of months."""

from __future__ import annotations

import calendar
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

import msgspec

from totalizer.window import Grain

#: One row for the whole range.
TOTAL = "total"
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
#: Where months, quarters and years begin unless an anchor says otherwise.
_JANUARY = date(2000, 1, 1)
_MONDAY = date(2000, 1, 3)
#: Fewest days of a window of the calendar.
_DAYS_MIN = {Grain.DAY: 1, Grain.WEEK: 7, Grain.MONTH: 28, Grain.QUARTER: 89, Grain.YEAR: 365}


class Windows(msgspec.Struct, frozen=True):
    """How a range is divided.

    Attributes:
        grain: length of a window; None for one window over the whole range.
        week_start: the day a week begins with, 0 for Monday.
        anchor: a day that a cycle of months begins with; None for calendar months. In a month that has no such day a
            cycle begins with its last.
        rolling_days: each window is that many days, ending with one of the range's; 0 for windows side by side.
    """

    grain: Grain | None
    week_start: int = 0
    anchor: date | None = None
    rolling_days: int = 0

    @property
    def calendar(self) -> bool:
        """True if the windows begin with local days."""
        return self.grain is not None and self.grain.calendar

    @property
    def days_fit(self) -> bool:
        """True if every window is made of whole local days, but for where the range begins and ends."""
        return self.grain is None or self.grain.calendar

    def count_max(self, start: datetime, end: datetime) -> int:
        """No fewer than the windows of a range."""
        if self.grain is None:
            return 1
        length = timedelta(minutes=self.grain.minutes) or timedelta(days=_DAYS_MIN[self.grain])
        return int((end - start) / length) + 2

    def firsts(self, first: date, last: date) -> list[date]:
        """The days with which windows of the calendar begin: from the window that holds `first` to after `last`."""
        assert self.grain is not None
        if self.grain.months:
            return self._cycles(first, last)
        step = timedelta(days=7 if self.grain is Grain.WEEK else 1)
        anchor = _MONDAY + timedelta(days=self.week_start)
        days = [first - (first - anchor) % step]
        while days[-1] <= last:
            days.append(days[-1] + step)
        return days

    def _cycles(self, first: date, last: date) -> list[date]:
        assert self.grain is not None
        anchor, months = self.anchor or _JANUARY, self.grain.months
        number = ((first.year - anchor.year) * 12 + first.month - anchor.month) // months
        if later(anchor, number * months) > first:
            number -= 1
        days = [later(anchor, number * months)]
        while days[-1] <= last:
            number += 1
            days.append(later(anchor, number * months))
        return days


class Edges(NamedTuple):
    """Windows of the calendar over one range.

    Attributes:
        days: with which windows begin, and the day after the last.
        moments: when these begin.
    """

    days: list[date]
    moments: list[datetime]


def later(anchor: date, months: int) -> date:
    """The day so many months after another, or the last of its month if that is shorter."""
    month = anchor.year * 12 + anchor.month - 1 + months
    year, month = divmod(month, 12)
    return date(year, month + 1, min(anchor.day, calendar.monthrange(year, month + 1)[1]))


def trimmed(edges: Edges, start: datetime, end: datetime) -> Edges:
    """The windows that have a part in a range."""
    kept = [number for number, (begins, ends) in enumerate(pairwise(edges.moments)) if ends > start and begins < end]
    span = slice(kept[0], kept[-1] + 2)
    return Edges(edges.days[span], edges.moments[span])
