"""Answers in the terminal: tables with bars, lines of blocks, and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from rich.markup import escape
from rich.table import Table

from totalizer.client.frames import flat_rows

#: Cells of the longest bar.
BAR_CELLS = 24
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_HEIGHTS = "▁▂▃▄▅▆▇█"

Rows = Sequence[dict[str, Any]]


def table_of(rows: Rows, measures: Sequence[str]) -> Table:
    """Rows as a table, with a bar for the first measure that is a number.

    Args:
        rows: of an answer.
        measures: names of its numbers.
    """
    shown = flat_rows(rows)
    bars = bar_measure(shown, measures)
    table = Table()
    names = list(shown[0]) if shown else []
    for name in names:
        table.add_column(escape(name), justify="right" if _is_number(shown, name) else "left")
    if bars is not None:
        table.add_column("")
    top = max((float(row[bars] or 0) for row in shown), default=0.0) if bars is not None else 0.0
    for row, exact in zip(shown, rows, strict=True):
        cells = [escape(_cell(exact.get(name, row[name]))) for name in names]
        table.add_row(*cells, *([bar(float(row[bars] or 0), top)] if bars is not None else []))
    return table


def bar_measure(rows: Rows, measures: Sequence[str]) -> str | None:
    """The first measure of which every value is a number or missing, and some is above 0; None if there is none."""
    for name in measures:
        values = [row[name] for row in rows if row.get(name) is not None]
        if values and all(_numeric(value) for value in values) and min(values) >= 0 and max(values) > 0:
            return name
    return None


def bar(value: float, top: float, cells: int = BAR_CELLS) -> str:
    """A bar as long as the share of a value in the top one."""
    eighths = round(8 * cells * value / top) if top > 0 else 0
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def spark(values: Sequence[float]) -> str:
    """Values as blocks of their height."""
    top = max(values, default=0.0)
    return "".join(_HEIGHTS[round((len(_HEIGHTS) - 1) * value / top)] if top > 0 else _HEIGHTS[0] for value in values)


def csv_of(rows: Rows) -> str:
    """Rows as CSV with a header; cells that a spreadsheet would run begin with an apostrophe."""
    text = io.StringIO(newline="")
    shown = flat_rows(rows)
    if shown:
        writer = csv.writer(text)
        writer.writerow(_safe(name) for name in shown[0])
        for row, exact in zip(shown, rows, strict=True):
            writer.writerow(_safe(exact.get(name, value)) for name, value in row.items())
    return text.getvalue()


def _safe(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return "'" + value
    return "" if value is None else _cell(value)


def _cell(value: Any) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")
    return "" if value is None else str(value)


def _numeric(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _is_number(rows: Rows, name: str) -> bool:
    return all(_numeric(row[name]) or row[name] is None for row in rows)
