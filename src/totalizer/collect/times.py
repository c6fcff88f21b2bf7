"""When an event happened, as senders write it and as it is stored."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

#: Before this, a time is taken for a mistake.
EARLIEST = "1970-01-01T00:00:00.000000Z"
#: How far a sender's clock may be ahead of ours.
FUTURE_TOLERANCE = timedelta(minutes=5)
#: A whole number below this, read as milliseconds, is before 1973: it is far likelier to be seconds.
MILLISECONDS_MIN = 100_000_000_000
#: Characters of a wrong time shown in an error.
SHOWN_MAX = 80
MILLISECONDS_MAX = 253_402_300_799_999  # the end of the year 9999

#: What is taken for a time: RFC 3339, and what ISO 8601 writers leave out of it. datetime alone would take more, and
#: not the same in every version of Python.
_SPELLING = re.compile(
    r"\d{4}-\d\d-\d\d[T ]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d([.,]\d+)?)?(Z|[+-]\d\d(:?\d\d)?)?", re.ASCII | re.IGNORECASE
).fullmatch
_SECONDS = frozenset(f"{second:02d}" for second in range(60))
_MILLISECONDS = frozenset(f"{millisecond:03d}" for millisecond in range(1000))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def canonical_time(value: str | int, latest: str) -> str:
    """A sent time as fixed-width UTC text, `2025-09-05T10:00:00.123456Z`.

    Args:
        value: RFC 3339 text with a zone (digits beyond the microsecond are cut), or whole milliseconds since 1970.
        latest: the latest time that is believed, in the same form as the result.

    Raises:
        ValueError: it is no such time, or lies outside what is believed; the message says which.
    """
    text = _from_milliseconds(value) if isinstance(value, int) else _usual_spelling(value) or _from_text(value)
    if not EARLIEST <= text <= latest:
        raise ValueError(f"{_cut(value)!r} is {'before 1970' if text < EARLIEST else 'in the future'}; check the clock")
    return text


class AgeLimit:
    """Refuses times too long ago.

    Args:
        seconds: how long ago a time may be.
    """

    def __init__(self, seconds: int) -> None:
        self._age = timedelta(seconds=seconds)

    def check(self, time: str, received_at: str) -> None:
        """Check a time against that of receipt, both canonical.

        Raises:
            ValueError: it lies further back.
        """
        earliest = _earliest(received_at[:17], self._age)
        if time < earliest:
            raise ValueError(f"{time!r} is longer ago than this event type takes, {self._age}")


@lru_cache(maxsize=256)
def _earliest(minute: str, age: timedelta) -> str:
    """The time `age` before a minute such as `2025-09-05T10:00:`."""
    moment = datetime.fromisoformat(minute[:16]).replace(tzinfo=UTC)
    # Ages reach back to before the year 1 only by mistake: then any time since 1970 will do.
    return (moment - min(age, moment - _EPOCH)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _usual_spelling(value: str) -> str | None:
    """`2025-09-05T10:00:00Z`, with or without milliseconds or microseconds, completed; None for anything else.

    Nearly every time sent is spelt so, and many share their minute: it is checked once.
    """
    if value[17:19] not in _SECONDS or value[-1] != "Z" or not _is_minute(value[:17]):
        return None
    length = len(value)
    if length == 24 and value[19] == "." and value[20:23] in _MILLISECONDS:
        return f"{value[:23]}000Z"
    if length == 20:
        return f"{value[:19]}.000000Z"
    if length == 27 and value[19] == "." and value[20:23] in _MILLISECONDS and value[23:26] in _MILLISECONDS:
        return value
    return None


@lru_cache(maxsize=4096)
def _is_minute(text: str) -> bool:
    """True for a valid `2025-09-05T10:00:`."""
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:").strftime("%Y-%m-%dT%H:%M:") == text
    except ValueError:
        return False


def _from_text(value: str) -> str:
    try:
        if not _SPELLING(value):
            raise ValueError
        moment = datetime.fromisoformat(value.upper())
    except ValueError:
        raise ValueError(f"{_cut(value)!r} is not an RFC 3339 time such as 2025-09-05T10:00:00Z") from None
    return _normalised(moment, value)


def _normalised(moment: datetime, value: str) -> str:
    if moment.tzinfo is None:
        raise ValueError(f"{_cut(value)!r} names no time zone; end it with Z or an offset such as +02:00")
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{_cut(value)!r} lies outside the years 1 to 9999") from None
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ").zfill(27)


def _cut(value: str | int) -> str | int:
    return value if isinstance(value, int) or len(value) <= SHOWN_MAX else f"{value[:SHOWN_MAX]}…"


def _from_milliseconds(value: int) -> str:
    if not MILLISECONDS_MIN <= value <= MILLISECONDS_MAX:
        shown = str(value) if value.bit_length() < 256 else "a number without end"
        raise ValueError(f"{shown} is not milliseconds since 1970; it looks like seconds or is out of range")
    return (_EPOCH + timedelta(milliseconds=value)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
