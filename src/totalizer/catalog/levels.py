"""The grains that rollups keep, one table each, and what each is made from."""

from __future__ import annotations

from typing import NamedTuple


class Level(NamedTuple):
    """A stored grain.

    Attributes:
        suffix: of its tables' names; also what a query calls it.
        key: the column that says when: a moment, or the first day of a span of local days.
        key_type: its PostgreSQL type.
        source: suffix of the grain it is merged from; None if it is computed from events.
    """

    suffix: str
    key: str
    key_type: str
    source: str | None

    @property
    def local(self) -> bool:
        """True if its spans are those of the organisation's time zone."""
        return self.key_type == "date"


MINUTE = Level("1m", "bucket", "timestamptz", None)
BASE = Level("15m", "bucket", "timestamptz", None)
#: UTC hours: they serve every zone whose offset is whole hours; other zones' hours are put together from the base.
HOUR = Level("1h", "bucket", "timestamptz", "15m")
#: Days, weeks (from Monday) and months of the organisation's own time zone.
DAY = Level("1d", "day", "date", "15m")
WEEK = Level("1w", "week", "date", "1d")
MONTH = Level("1mo", "month", "date", "1d")
#: Each after what it is made from.
LEVELS = (MINUTE, BASE, HOUR, DAY, WEEK, MONTH)
