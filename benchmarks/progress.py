"""What a person sees while a benchmark runs: on standard error, so that standard output is JSON alone."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from benchmarks.result import Result

#: Columns of the table where standard error is no terminal.
PIPE_WIDTH = 200
_ERR = Console(stderr=True, soft_wrap=True, highlight=False, width=None if sys.stderr.isatty() else PIPE_WIDTH)


def note(text: str) -> None:
    """Say what was just seen."""
    _ERR.print(text, style="dim", markup=False)


def show(results: Iterable[Result]) -> None:
    """All results as a table."""
    table = Table("case", "unit", "baseline")
    for title in ("value", "baseline value", "ratio"):
        table.add_column(title, justify="right")
    for result in results:
        table.add_row(
            result.case, result.unit, result.baseline, f"{result.value:,g}", f"{result.baseline_value:,g}",
            f"{result.ratio:.2f}",
        )  # fmt: skip
    _ERR.print(table)
