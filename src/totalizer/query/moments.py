"""Moments and zones as requests write them, and the period before a range."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from totalizer.query.filters import wrong
from totalizer.query.windows import Windows, later
from totalizer.window import day_start, zone

#: Years a range may reach to; beyond them a moment may not exist in every time zone.
YEAR_MIN, YEAR_MAX = 1900, 9900
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
#: The shortest time there is.
MOMENT = timedelta(microseconds=1)
#: Months of the longest range that is compared by months.
_MONTHS_MAX = 1200


def time_zone_of(name: str) -> ZoneInfo:
    """The zone a request names.

    Raises:
        Refused: there is none.
    """
    try:
        return zone(name)
    except ValueError as error:
        raise wrong("time_zone", name, str(error)) from None


def moment(name: str, value: str | None, here: ZoneInfo, *, is_end: bool) -> datetime | None:
    """The moment a request writes as a time or a date; None if it writes nothing.

    Raises:
        Refused: it is neither.
    """
    if value is None:
        return None
    try:
        if _DATE.fullmatch(value):
            day = date.fromisoformat(value)
            # A plain end date means that day is still part of the range.
            return _in_range(name, value, day_start(day + timedelta(days=1) if is_end else day, here))
        # An unescaped + in a query string arrives as a space.
        parsed = datetime.fromisoformat(value.replace(" ", "+") if "T" in value else value)
        if parsed.tzinfo is not None:
            return _in_range(name, value, parsed.astimezone(UTC))
    except (ValueError, OverflowError):
        pass
    raise wrong(name, value, "must be a date (2025-09-05) or an RFC 3339 time with its zone (2025-09-05T00:00:00Z)")


def plain_date(name: str, value: str) -> date:
    """A date without a time.

    Raises:
        Refused: it is none.
    """
    try:
        if _DATE.fullmatch(value) and YEAR_MIN <= (day := date.fromisoformat(value)).year <= YEAR_MAX:
            return day
    except ValueError:
        pass
    raise wrong(name, value, f"must be a date such as 2025-01-31, in the years {YEAR_MIN} to {YEAR_MAX}")


def previous(start: datetime, end: datetime, windows: Windows, here: ZoneInfo) -> datetime:
    """Where the period begins that ends with `start` and is as long as the range.

    A range of whole months, and one that is divided by months, is compared with as many months; any other with as many
    hours and days by the zone's clocks, so that a day with a clock change is compared with a whole day.

    Raises:
        Refused: it begins too long ago.
    """
    begins = _before(start, end, windows, here)
    if begins.year < YEAR_MIN:
        raise wrong("compare", "previous", f"the period before begins before {YEAR_MIN}")
    return begins


def _before(start: datetime, end: datetime, windows: Windows, here: ZoneInfo) -> datetime:
    first, last = (each.astimezone(here).replace(tzinfo=None) for each in (start, end))
    by_months = windows.grain is not None and windows.grain.months > 0
    months = (last.year - first.year) * 12 + last.month - first.month
    if by_months and _moved(first, months) < last:
        months += 1
    if 0 < months <= _MONTHS_MAX and (by_months or _moved(first, months) == last):
        before = _moved(first, -months)
    elif windows.days_fit:
        before = first - (last - first)
    else:
        return start - (end - start)
    # An hour that the clock skips may put it behind the start.
    return min(before.replace(tzinfo=here).astimezone(UTC), start - MOMENT)


def _moved(local: datetime, months: int) -> datetime:
    try:
        return datetime.combine(later(local.date(), months), local.time())
    except ValueError:
        return datetime.combine(date(1, 1, 1) if months < 0 else date(9999, 12, 31), local.time())


def _in_range(name: str, value: str, parsed: datetime) -> datetime:
    if not YEAR_MIN <= parsed.year <= YEAR_MAX:
        raise wrong(name, value, f"must lie in the years {YEAR_MIN} to {YEAR_MAX}")
    return parsed
