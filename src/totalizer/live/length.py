"""The lengths of live windows, each divided into slots that leave it one by one."""

from __future__ import annotations

from typing import NamedTuple


class Length(NamedTuple):
    """How long a window is.

    Attributes:
        name: as it is asked for.
        slot_s: seconds in one slot; slots begin at multiples of it since 1970 UTC.
        slots: how many, the present one included.
    """

    name: str
    slot_s: int
    slots: int

    def last(self, now_s: int) -> int:
        """Number of the slot that holds a moment, seconds since 1970."""
        return now_s // self.slot_s

    def span(self, last: int) -> tuple[int, int]:
        """The window whose last slot has this number: from, to (excluded), seconds since 1970."""
        return (last - self.slots + 1) * self.slot_s, (last + 1) * self.slot_s


#: By name. A day's slots are the base buckets, so that most of it is read from the rollup.
LENGTHS = {
    length.name: length
    for length in (
        Length("1m", 1, 60),
        Length("5m", 5, 60),
        Length("15m", 15, 60),
        Length("1h", 60, 60),
        Length("1d", 900, 96),
    )
}
