"""Charts as PNG, from Vega-Lite specifications, without a browser."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

#: Authors with a colour of their own; the others are drawn together.
AUTHORS_SHOWN_MAX = 8
#: Days up to which each is a bar; above, months are.
DAYS_AS_BARS_MAX = 120
OTHERS = "others"


def commits_chart(days: list[dict[str, Any]]) -> dict[str, Any]:
    """A Vega-Lite 5 specification: commits over time, stacked by author.

    Args:
        days: rows with `window_start`, `author` and `commits`.
    """
    totals: dict[str, int] = defaultdict(int)
    for row in days:
        totals[row["author"]] += row["commits"]
    shown = sorted(totals, key=lambda author: -totals[author])[:AUTHORS_SHOWN_MAX]
    by_month = len({row["window_start"][:10] for row in days}) > DAYS_AS_BARS_MAX
    bars: dict[tuple[str, str], int] = defaultdict(int)
    for row in days:
        day = row["window_start"][:7] + "-01" if by_month else row["window_start"][:10]
        bars[day, row["author"] if row["author"] in shown else OTHERS] += row["commits"]
    unit = "yearmonth" if by_month else "yearmonthdate"
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "title": f"Commits by {'month' if by_month else 'day'} and author",
        "width": 860,
        "height": 320,
        "background": "white",
        "data": {"values": [{"day": day, "author": author, "commits": n} for (day, author), n in bars.items()]},
        "mark": {"type": "bar", "tooltip": True},
        "encoding": {
            "x": {"field": "day", "timeUnit": unit, "type": "temporal", "title": None, "bandPosition": 0.5},
            "y": {"field": "commits", "aggregate": "sum", "type": "quantitative", "title": "commits"},
            "color": {"field": "author", "type": "nominal", "title": None, "sort": [*shown, OTHERS]},
        },
    }


def write_chart(days: list[dict[str, Any]], path: Path) -> None:
    """Draw `commits_chart` of some rows into a PNG file at twice the usual resolution."""
    import vl_convert

    path.write_bytes(vl_convert.vegalite_to_png(commits_chart(days), scale=2))
