"""How a number went through a period, as charts take it."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from totalizer.ops.chart import Window
from totalizer.ops.report.gather import Figures
from totalizer.ops.report.words import windows

#: Greatest number that is drawn.
_MOST = 1e300


def course(figures: Figures, section: Mapping[str, Any], name: str) -> list[Window]:
    """The windows of a section's number.

    Args:
        figures: of the report.
        section: one with events.
        name: one of its `shown`.
    """
    series = section["series"]
    # A line at nothing would only hide the axis.
    return [
        Window(window, _drawn(row[name]), _drawn(row["previous"][name]) or None)
        for window, row in zip(windows(series, figures.period.kind), series, strict=True)
    ]


def share(section: Mapping[str, Any], value: Any) -> float:
    """The part that a value of the first number has in its total, from 0 to 1; 0 of what does not add up."""
    name = section["shown"][0]
    total = section["totals"][name]
    if section["kinds"][name] not in ("count", "sum") or not total or not value:
        return 0.0
    return max(0.0, min(1.0, float(Decimal(value) / Decimal(total))))


def _drawn(value: Any) -> float:
    """A number as a chart has it; a sum may have more digits than a float has room for."""
    return float(max(-_MOST, min(_MOST, value or 0)))
