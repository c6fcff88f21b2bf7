"""When a job is due: moments that follow from the clock alone, the same on every machine.

A schedule has no memory. Whether its last moment was kept is in the database.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo

#: Days that are looked through for a moment: a month and two days hold one of every schedule.
DAYS_LOOKED_AT = 33
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_UTC = ZoneInfo("UTC")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)


class Schedule(Protocol):
    """Moments in time, in order. All of them are aware and in UTC."""

    @property
    def text(self) -> str:
        """The schedule in words."""
        ...

    @property
    def from_the_start(self) -> bool:
        """True if a job that never ran is due at once; False if its first moment is still to come."""
        ...

    def before(self, now: datetime) -> datetime:
        """The last moment that is not after `now`."""
        ...

    def after(self, now: datetime) -> datetime:
        """The first moment after `now`."""
        ...


class Every(NamedTuple):
    """The multiples of a length of time since 1970 UTC.

    Attributes:
        length: more than nothing.
    """

    length: timedelta

    @property
    def text(self) -> str:
        seconds = self.length.total_seconds()
        for unit, name in ((86_400, "d"), (3600, "h"), (60, "min")):
            if seconds >= unit and seconds % unit == 0:
                return f"every {seconds / unit:g} {name}"
        return f"every {seconds:g} s"

    @property
    def from_the_start(self) -> bool:
        return True

    def before(self, now: datetime) -> datetime:
        return _EPOCH + (now - _EPOCH) // self.length * self.length

    def after(self, now: datetime) -> datetime:
        return self.before(now) + self.length


class Cron(NamedTuple):
    """Moments of the wall clock of a zone.

    Where clocks go forward over such a moment, it is the same time by the clock as it was before the change; where they
    go back over it, it is the first of the two. An hourly schedule is kept in both.

    Attributes:
        minute: 0 to 59.
        hour: 0 to 23; None for every hour.
        weekday: 0, Monday, to 6; None for every day.
        day: of the month, 1 to 28; None for every day.
        zone: whose clock.
    """

    minute: int
    hour: int | None = None
    weekday: int | None = None
    day: int | None = None
    zone: ZoneInfo = _UTC

    @property
    def text(self) -> str:
        if self.hour is None:
            return f"hourly at :{self.minute:02d}"
        at = f"{self.hour:02d}:{self.minute:02d} {self.zone.key}"
        if self.weekday is not None:
            return f"{WEEKDAYS[self.weekday]} {at}"
        return f"daily {at}" if self.day is None else f"monthly, day {self.day}, {at}"

    @property
    def from_the_start(self) -> bool:
        return False

    def before(self, now: datetime) -> datetime:
        return max(moment for moment in self._around(now, -1) if moment <= now)

    def after(self, now: datetime) -> datetime:
        return min(moment for moment in self._around(now, 1) if moment > now)

    def _around(self, now: datetime, step: int) -> list[datetime]:
        """The moments of the nearest fitting days on this side of `now`, two at least: an edge may lie in the first."""
        today = now.astimezone(self.zone).date()
        found: list[datetime] = []
        fitting = 0
        for number in range(-1, DAYS_LOOKED_AT):
            day = today + number * step * _DAY
            if not self._fits(day):
                continue
            found += self._moments(day)
            fitting += 1
            if fitting >= 3:
                break
        return found

    def _fits(self, day: date) -> bool:
        return self.weekday in (None, day.weekday()) and self.day in (None, day.day)

    def _moments(self, day: date) -> Iterator[datetime]:
        for hour in range(24) if self.hour is None else (self.hour,):
            local = datetime.combine(day, time(hour, self.minute), self.zone)
            yield local.astimezone(UTC)
            if self.hour is None:
                yield local.replace(fold=1).astimezone(UTC)
