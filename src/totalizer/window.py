"""Windows of time: the base bucket, the grains above it, and local days that stay right across clock changes."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from enum import Enum
from zoneinfo import ZoneInfo

#: Every zone's offset is a multiple of 15 minutes, so buckets of that length divide the days of every zone.
BASE_MINUTES = 15
BASE = timedelta(minutes=BASE_MINUTES)


class Grain(Enum):
    """A length of window that can be asked for. The value is what a query writes."""

    MINUTE = "1m"
    FIVE = "5m"
    BASE = "15m"
    HOUR = "1h"
    DAY = "1d"
    WEEK = "1w"
    MONTH = "1mo"
    QUARTER = "1q"
    YEAR = "1y"

    @property
    def minutes(self) -> int:
        """Minutes of a window that is cut by the clock; 0 of one that is cut by the calendar."""
        return {"1m": 1, "5m": 5, "15m": BASE_MINUTES, "1h": 60}.get(self.value, 0)

    @property
    def months(self) -> int:
        """Months of a window that is so many of them; else 0."""
        return {"1mo": 1, "1q": 3, "1y": 12}.get(self.value, 0)

    @property
    def calendar(self) -> bool:
        """True if the window's edges depend on the calendar of a time zone's days."""
        return not self.minutes


def zone(name: str) -> ZoneInfo:
    """The IANA time zone called `name`.

    Raises:
        ValueError: there is no such zone.
    """
    try:
        return ZoneInfo(name)
    except (OSError, ValueError) as error:  # ZoneInfoNotFoundError is a KeyError, caught below
        raise ValueError(f"unknown time zone {name[:100]!r}; use an IANA name such as 'Europe/Berlin'") from error
    except KeyError:
        raise ValueError(f"unknown time zone {name[:100]!r}; use an IANA name such as 'Europe/Berlin'") from None


def base_bucket(moment: datetime) -> datetime:
    """Start of the 15-minute UTC bucket that holds `moment` (aware)."""
    moment = moment.astimezone(UTC)
    return moment.replace(minute=moment.minute // BASE_MINUTES * BASE_MINUTES, second=0, microsecond=0)


def base_bucket_text(minute: str) -> str:
    """The base bucket of a UTC minute, both as text: `2025-09-05T10:07` → `2025-09-05T10:00Z`."""
    return f"{minute[:14]}{int(minute[14:16]) // BASE_MINUTES * BASE_MINUTES:02d}Z"


def day_start(day: date, zone: ZoneInfo) -> datetime:
    """The moment a local day begins, in UTC, by Python's time zone database.

    Where midnight happens twice it is the later one, where it is skipped the moment the clock jumps over it.
    """
    midnight = datetime.combine(day, time.min, zone)
    return max(midnight.astimezone(UTC), midnight.replace(fold=1).astimezone(UTC))


def ceil_base(moment: datetime) -> datetime:
    """The first base bucket's start that is not before `moment`."""
    start = base_bucket(moment)
    return start if start == moment else start + BASE


def utc_moment(text: str) -> datetime:
    """An ISO 8601 time as people write it: UTC where it names no zone, the beginning of the day where it is a date.

    Raises:
        ValueError: it is none; the message says what would be.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("must be an ISO 8601 date or time, such as 2025-01-09T14:00") from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
