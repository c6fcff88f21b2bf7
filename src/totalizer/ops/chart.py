"""Charts as PNG or SVG, from Vega-Lite specifications, without a browser."""

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


def answer_chart(rows: list[dict[str, Any]], measure: str, groups: list[str]) -> dict[str, Any]:
    """A Vega-Lite 5 specification: a number by window, a line for each group; bars if there is one window.

    Args:
        rows: of an answer.
        measure: the number to draw.
        groups: its dimensions.
    """
    values = [
        {
            "window": row["window_start"], "group": " · ".join(str(row[name]) for name in groups),
            "value": None if row[measure] is None else float(row[measure]),
        }
        for row in rows
    ]  # fmt: skip
    one_window = len({value["window"] for value in values}) <= 1
    by_time = {"field": "window", "type": "temporal", "title": None}
    by_group = {"field": "group", "type": "nominal", "title": None, "sort": "-y"}
    encoding: dict[str, Any] = {
        "x": by_group if one_window and groups else by_time,
        "y": {"field": "value", "type": "quantitative", "title": measure},
    }
    if groups and not one_window:
        encoding["color"] = {"field": "group", "type": "nominal", "title": ", ".join(groups)}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "width": 860,
        "height": 320,
        "background": "white",
        "data": {"values": values},
        "mark": "bar" if one_window else {"type": "line", "point": True},
        "encoding": encoding,
    }


def write_answer_chart(rows: list[dict[str, Any]], measure: str, groups: list[str], path: Path) -> None:
    """Draw `answer_chart` of some rows into a file, PNG or SVG by its ending."""
    import vl_convert

    specification = answer_chart(rows, measure, groups)
    if path.suffix.lower() == ".svg":
        path.write_text(vl_convert.vegalite_to_svg(specification), "utf-8")
    else:
        path.write_bytes(vl_convert.vegalite_to_png(specification, scale=2))
