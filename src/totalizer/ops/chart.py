"""Charts as PNG or SVG, from Vega-Lite specifications, without a browser."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

#: Authors with a colour of their own; the others are drawn together.
AUTHORS_SHOWN_MAX = 8
#: Days up to which each is a bar; above, months are.
DAYS_AS_BARS_MAX = 120
OTHERS = "others"
#: Numbers of an axis: 1.5M, and not 500m for a half.
_SHORT = "format(datum.value, abs(datum.value) < 1000 ? '~g' : abs(datum.value) < 1e15 ? '~s' : '~e')"
_SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"


class Palette(NamedTuple):
    """The colours of a course: of bars, of what was before, of text, of lines. Any that CSS knows."""

    bar: str
    before: str
    text: str
    line: str


class Window(NamedTuple):
    """A window of a course: its name, its number, and that of the window it is compared with."""

    name: str
    value: float
    before: float | None


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
        "$schema": _SCHEMA,
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
        "$schema": _SCHEMA,
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
        path.write_text(svg_of(specification), "utf-8")
    else:
        path.write_bytes(vl_convert.vegalite_to_png(specification, scale=2))


def course_chart(windows: Sequence[Window], palette: Palette, width: int, height: int, text_px: int) -> dict[str, Any]:
    """A Vega-Lite 5 specification: a bar for each window, and a line across it where the one before was.

    Args:
        windows: in their order, each with a name of its own.
        palette: the colours.
        width, height: of the whole, in pixels.
        text_px: height of the letters.
    """
    values = [each._asdict() for each in windows]
    numbers = [0.0, *(number for each in windows for number in (each.value, each.before or 0))]
    axis = {"title": None, "labelColor": palette.text, "labelFontSize": text_px, "domainColor": palette.line}
    # Where events are few, there are no marks between whole numbers.
    whole = all(number == int(number) for number in numbers)
    marks = min(4, max(1, int(max(numbers) - min(numbers)))) if whole else 4
    return {
        "$schema": _SCHEMA,
        "width": width,
        "height": height,
        "autosize": {"type": "fit", "contains": "padding"},
        "background": None,
        # Where a browser writes wider letters than these were measured with.
        "padding": {"left": 8, "right": 2, "top": 4, "bottom": 2},
        "data": {"values": values},
        "encoding": {
            "x": {
                "field": "name", "type": "ordinal", "sort": None,
                "axis": {**axis, "labelAngle": 0, "labelOverlap": "greedy", "ticks": False, "labelPadding": 4},
            },
        },
        "layer": [
            {
                "mark": {"type": mark, "color": colour, **more},
                "encoding": {
                    "y": {
                        "field": field, "type": "quantitative",
                        "axis": {**axis, "tickCount": marks, "gridColor": palette.line, "domain": False, "ticks": False,
                                 "labelExpr": _SHORT},
                    },
                },
            }
            for field, mark, colour, more in (
                ("value", "bar", palette.bar, {}),
                ("before", "tick", palette.before, {"thickness": 2, "opacity": 1}),
            )
        ],
        "config": {"view": {"stroke": None}, "aria": False, "scale": {"bandPaddingInner": 0.25}},
    }  # fmt: skip


def svg_of(specification: dict[str, Any]) -> str:
    """A specification, drawn."""
    import vl_convert

    svg: str = vl_convert.vegalite_to_svg(json.dumps(specification))
    return svg
