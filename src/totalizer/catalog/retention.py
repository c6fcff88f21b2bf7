"""How long events and rollups are kept: days by kind, what they must satisfy, and what follows from one of them."""

from __future__ import annotations

import re

import msgspec

#: Quarter hours must outlast events by this, so that a local day whose buckets are still recomputed has all of them.
BASE_DAYS_BEYOND_RAW = 2
#: Days must outlast the quarter hours by this, so that weeks and months have all their days.
DAY_DAYS_BEYOND_BASE = 32
#: By how much quarter hours outlast the events, unless something else is said.
BASE_DAYS_USUALLY_BEYOND_RAW = 30
#: The ids of events are remembered this much longer than the events, so that a resend is still known.
KEY_DAYS_BEYOND_RAW = 30
#: Longest time that can be said other than for ever.
DAYS_MAX = 36_500
FOR_EVER = "forever"
_DAYS = re.compile(r"([1-9][0-9]{0,5})d?")


class Retention(msgspec.Struct, frozen=True):
    """Days for which something is kept; None for ever.

    Attributes:
        raw_days: events.
        base_days: rollups by the quarter hour.
        hour_days: rollups by the hour.
        day_days: rollups by the day. Weeks and months are kept for ever.
    """

    raw_days: int | None
    base_days: int | None
    hour_days: int | None
    day_days: int | None = None

    def problem(self) -> str | None:
        """What is wrong with these figures taken together, in a sentence; None if nothing is."""
        if _less(self.base_days, _more(self.raw_days, BASE_DAYS_BEYOND_RAW)):
            return (
                f"quarter hours are kept {_shown(self.base_days)} and events {_shown(self.raw_days)}: quarter hours "
                f"must be kept at least {BASE_DAYS_BEYOND_RAW} days longer, so that whole days can be recomputed"
            )
        if _less(self.hour_days, self.base_days):
            return (
                f"hours are kept {_shown(self.hour_days)} and quarter hours {_shown(self.base_days)}: hours must be "
                "kept at least as long"
            )
        if _less(self.day_days, _more(self.base_days, DAY_DAYS_BEYOND_BASE)):
            return (
                f"days are kept {_shown(self.day_days)} and quarter hours {_shown(self.base_days)}: days must be kept "
                f"at least {DAY_DAYS_BEYOND_BASE} days longer, so that whole months can be recomputed"
            )
        return None

    @property
    def key_days(self) -> int | None:
        """Days for which the ids of events are remembered."""
        return _more(self.raw_days, KEY_DAYS_BEYOND_RAW)


#: Stands for a figure that nobody has given.
class Unsaid:
    """Not given; other figures decide."""


UNSAID = Unsaid()
Given = int | None | Unsaid


def complete(raw_days: int | None, *, base: Given = UNSAID, hour: Given = UNSAID, day: Given = UNSAID) -> Retention:
    """A retention of which not every figure was given: quarter hours 30 days more than events, hours twice as long.

    Args:
        raw_days: days for events; None for ever, and then so for everything.
        base, hour, day: the others, where they were given.
    """
    base_days = _more(raw_days, BASE_DAYS_USUALLY_BEYOND_RAW) if isinstance(base, Unsaid) else base
    if isinstance(hour, Unsaid):
        hour = None if raw_days is None or base_days is None else max(2 * raw_days, base_days)
    return Retention(raw_days, base_days, hour, None if isinstance(day, Unsaid) else day)


def capped(retention: Retention, days_max: int | None) -> Retention:
    """The same with events kept no longer than `days_max`; None for no such bound."""
    if days_max is None or not _less(days_max, retention.raw_days):
        return retention
    return Retention(days_max, retention.base_days, retention.hour_days, retention.day_days)


def parse_days(text: str) -> int | None:
    """Days as people write them: `90d`, `90` or `forever`.

    Raises:
        ValueError: it is none of these; the message says what is allowed.
    """
    if text == FOR_EVER:
        return None
    found = _DAYS.fullmatch(text)
    if not found or int(found[1]) > DAYS_MAX:
        raise ValueError(f"{text!r} must be a number of days up to {DAYS_MAX} such as '90d', or '{FOR_EVER}'")
    return int(found[1])


def shown_days(days: int | None) -> str:
    """Days as `parse_days` takes them."""
    return FOR_EVER if days is None else f"{days}d"


def _shown(days: int | None) -> str:
    return "for ever" if days is None else f"{days} days"


def _more(days: int | None, by: int) -> int | None:
    return None if days is None else days + by


def _less(days: int | None, than: int | None) -> bool:
    return days is not None and (than is None or days < than)
