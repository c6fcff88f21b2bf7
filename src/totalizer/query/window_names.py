"""How requests write windows: `1d`, `1w` from a weekday, months from an anchor, rolling days."""

from __future__ import annotations

import re
from datetime import date

import msgspec

from totalizer.query.filters import wrong
from totalizer.query.moments import plain_date
from totalizer.query.windows import TOTAL, WEEKDAYS, Windows
from totalizer.window import Grain

#: Days of the longest rolling window.
ROLLING_DAYS_MAX = 366
_FISCAL = re.compile(r"(\d\d)-(\d\d)", re.ASCII)
_ROLLING = re.compile(r"(\d{1,3})d", re.ASCII)


class WindowsBody(msgspec.Struct, frozen=True):
    """The members of a query that say how its range is divided."""

    aggregation_window: str | None = None
    week_start: str | None = None
    fiscal_start: str | None = None
    anchor: str | None = None
    rolling: str | None = None


def read_windows(body: WindowsBody) -> Windows:
    """How the range of a query is divided.

    Raises:
        Refused: a member cannot be used, or not with the others.
    """
    if body.rolling is not None:
        return _rolling(body)
    grain = _grain(body.aggregation_window)
    if body.week_start is not None:
        _only_with("week_start", body.week_start, grain is Grain.WEEK, "aggregation_window=1w")
        if body.week_start.lower() not in WEEKDAYS:
            raise wrong("week_start", body.week_start, f"use one of {', '.join(WEEKDAYS)}")
        return Windows(grain, week_start=WEEKDAYS.index(body.week_start.lower()))
    for name, value in (("anchor", body.anchor), ("fiscal_start", body.fiscal_start)):
        months = grain is not None and grain.months > 0
        _only_with(name, value, value is None or months, "aggregation_window=1mo, 1q or 1y")
    if body.anchor is not None and body.fiscal_start is not None:
        raise wrong("anchor", body.anchor, "give it or fiscal_start, not both")
    if body.fiscal_start is not None:
        return Windows(grain, anchor=_fiscal(body.fiscal_start))
    return Windows(grain, anchor=None if body.anchor is None else plain_date("anchor", body.anchor))


def written(windows: Windows) -> dict[str, object]:
    """The windows as an answer repeats them."""
    shown: dict[str, object] = {"aggregation_window": windows.grain.value if windows.grain else TOTAL}
    if windows.grain is Grain.WEEK:
        shown["week_start"] = WEEKDAYS[windows.week_start]
    if windows.anchor is not None:
        shown["anchor"] = windows.anchor.isoformat()
    if windows.rolling_days:
        shown["rolling"] = f"{windows.rolling_days}d"
    return shown


def _only_with(name: str, value: object, fits: bool, what: str) -> None:
    if not fits:
        raise wrong(name, value, f"goes with {what} only")


def _grain(value: str | None) -> Grain | None:
    if value == TOTAL:
        return None
    try:
        return Grain(value or "1h")
    except ValueError:
        allowed = ", ".join([*(grain.value for grain in Grain), TOTAL])
        raise wrong("aggregation_window", value, f"use one of {allowed}") from None


def _rolling(body: WindowsBody) -> Windows:
    assert body.rolling is not None
    found = _ROLLING.fullmatch(body.rolling)
    if not found or not 1 <= int(found[1]) <= ROLLING_DAYS_MAX:
        raise wrong("rolling", body.rolling, f"must be a number of days from 1d to {ROLLING_DAYS_MAX}d")
    _only_with("rolling", body.rolling, body.aggregation_window in (None, "1d"), "aggregation_window=1d")
    for name, value in (("week_start", body.week_start), ("anchor", body.anchor), ("fiscal_start", body.fiscal_start)):
        if value is not None:
            raise wrong(name, value, "does not go with rolling")
    return Windows(Grain.DAY, rolling_days=int(found[1]))


def _fiscal(value: str) -> date:
    found = _FISCAL.fullmatch(value)
    try:
        if found:
            # Not a leap year: a fiscal year begins on a day that every year has.
            return date(2001, int(found[1]), int(found[2]))
    except ValueError:
        pass
    raise wrong("fiscal_start", value, "must be a month and a day that every year has, such as 04-06")
