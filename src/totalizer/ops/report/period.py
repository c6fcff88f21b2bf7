"""The period of a report: a local day, week or month, as far as it has gone, and what it is compared with."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from totalizer.errors import OperationError
from totalizer.query.report import Report
from totalizer.query.windows import later
from totalizer.window import Grain, day_start

_GRAINS = {"day": Grain.HOUR, "week": Grain.DAY, "month": Grain.DAY}
PERIODS = tuple(_GRAINS)


class Period(NamedTuple):
    """A period of whole local days.

    Attributes:
        kind: one of PERIODS.
        first, end: its days, the end excluded.
    """

    kind: str
    first: date
    end: date

    @property
    def before(self) -> Period:
        """The one before it."""
        return period_of(self.kind, self.first - timedelta(days=1))

    @property
    def title(self) -> str:
        """What people call it."""
        last = self.end - timedelta(days=1)
        if self.kind == "day":
            return f"{self.first:%A}, {_long(self.first)}"
        if self.kind == "month":
            return f"{self.first:%B} {self.first.year}"
        return f"Week {self.first.isocalendar().week}: {_long(self.first)} to {_long(last)}"


def period_of(kind: str, day: date) -> Period:
    """The period that holds a day; weeks begin on Monday."""
    if kind == "day":
        return Period(kind, day, day + timedelta(days=1))
    if kind == "week":
        monday = day - timedelta(days=day.weekday())
        return Period(kind, monday, monday + timedelta(days=7))
    first = day.replace(day=1)
    return Period(kind, first, later(first, 1))


def chosen(kind: str, day: date | None, now: datetime, here: ZoneInfo) -> Period:
    """The period of a report.

    Args:
        kind: one of PERIODS.
        day: a day in it; None for the last period that is over.
        now: aware.
        here: whose days.

    Raises:
        OperationError: it has not begun yet.
    """
    if day is None:
        return period_of(kind, now.astimezone(here).date()).before
    period = period_of(kind, day)
    if day_start(period.first, here) >= now:
        raise OperationError(f"--date {day}: the {kind} that holds it begins on {period.first}, which is yet to come")
    return period


def question(period: Period, end: datetime, here: ZoneInfo, event_types: tuple[str, ...]) -> Report:
    """What is asked for a report.

    A period that is not over is told up to now, and compared with as much of the one before, by the zone's clock.

    Args:
        period: it has begun.
        end: of what there can be, aware.
        here: whose days.
        event_types: what it is about.
    """
    start, whole = day_start(period.first, here), day_start(period.end, here)
    begins = day_start(period.before.first, here)
    if end >= whole:
        return Report(start, whole, (begins, start), here.key, _GRAINS[period.kind], event_types)
    gone = end.astimezone(here).replace(tzinfo=None) - datetime.combine(period.first, datetime.min.time())
    reached = datetime.combine(period.before.first, datetime.min.time()) + gone
    ends = min(max(reached.replace(tzinfo=here).astimezone(UTC), begins + timedelta(minutes=1)), start)
    return Report(start, end, (begins, ends), here.key, _GRAINS[period.kind], event_types)


def _long(day: date) -> str:
    return f"{day.day} {day:%B} {day.year}"
