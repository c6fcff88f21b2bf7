"""How long a server asks to be left alone: the Retry-After header (RFC 9110 §10.2.3)."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from totalizer.clock import utc_datetime

#: Longest time that is believed, seconds: beyond a day a header is a mistake, not a wish.
RETRY_AFTER_S_MAX = 86_400.0


def retry_after_s(value: str | None, date: str | None, now_ns: int) -> float | None:
    """Seconds to wait, 0 to RETRY_AFTER_S_MAX; None if the header is missing or makes no sense.

    Args:
        value: the Retry-After header: seconds, or an HTTP date.
        date: the Date header of the same answer, by which a date is counted, so that clocks need not agree.
        now_ns: the time here, for an answer without one.
    """
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        # Of a number with thousands of digits its length says enough.
        return RETRY_AFTER_S_MAX if len(text) > 9 else min(float(text), RETRY_AFTER_S_MAX)
    until = _http_date(text)
    if until is None:
        return None
    seconds = (until - (_http_date(date or "") or utc_datetime(now_ns))).total_seconds()
    return min(max(seconds, 0.0), RETRY_AFTER_S_MAX)


def _http_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
        # A date with the zone -0000 is in UTC, and comes without a zone.
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
