"""The screen: a bar on a terminal, elsewhere a line now and then, and a table at the end."""

from __future__ import annotations

import re

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.ops.importers.source import Progress as Position

#: Seconds between two states of the bar, and between two lines where there is no terminal.
BAR_INTERVAL_S, LINE_INTERVAL_S = 0.1, 5.0
#: What a terminal might obey instead of showing; names and lines come from outside.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Display:
    """Shows one import: progress and sentences on `progress`, the table on `result`.

    Use as a context manager: on leaving the bar is taken down, whatever happened.

    Args:
        title: what is imported.
        progress: console for progress, usually standard error.
        result: console for the table, usually standard output.
        clock: for the pace.
    """

    def __init__(self, title: str, progress: Console, result: Console, clock: Clock = SYSTEM_CLOCK) -> None:
        self._title = _printable(title)
        self._console, self._result, self._clock = progress, result, clock
        self._interval_s = BAR_INTERVAL_S if progress.is_terminal else LINE_INTERVAL_S
        self._shown_at = clock.monotonic() if not progress.is_terminal else 0.0
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Display:
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False), BarColumn(),
                TextColumn("{task.fields[state]}", markup=False), TimeRemainingColumn(),
                console=self._console, transient=True,
            )  # fmt: skip
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=None, state="")
        return self

    def __exit__(self, *_: object) -> None:
        self._take_down()

    def due(self) -> bool:
        """True if enough time has passed to show the next state."""
        return self._clock.monotonic() - self._shown_at >= self._interval_s

    def show(self, position: Position, accepted: int, events_per_s: float, rejected: int) -> None:
        """Show how far it is."""
        self._shown_at = self._clock.monotonic()
        state = f"{_amount(position)} · {accepted:,} events · {events_per_s:,.0f}/s · {rejected:,} rejected"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=position.done, total=position.total, state=state)
        else:
            self.say(state)

    def say(self, sentence: str) -> None:
        """Show one sentence, whatever it contains. May be called from any thread."""
        self._console.print(Text(f"{self._title}: {_printable(sentence)}"), soft_wrap=True)

    def summary(self, rows: list[tuple[str, str]], note: str | None) -> None:
        """Show the sums, and below them a sentence that may be long and is to be copied in one piece."""
        self._take_down()
        table = Table(show_header=False)
        table.add_column()
        table.add_column(justify="right", overflow="fold")
        for name, value in rows:
            table.add_row(Text(_printable(name)), Text(_printable(value)))
        self._result.print(Text(self._title), soft_wrap=True)
        self._result.print(table)
        if note is not None:
            self._result.print(Text(_printable(note)), soft_wrap=True)

    def _take_down(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _amount(position: Position) -> str:
    """`12.0 of 80.5 MB`, `1,200 of 9,000 commits`, or without a total."""
    if position.unit == "bytes":
        total = "" if position.total is None else f" of {position.total / 1e6:,.1f}"
        return f"{position.done / 1e6:,.1f}{total} MB"
    total = "" if position.total is None else f" of {position.total:,}"
    return f"{position.done:,}{total} {position.unit}"


def _printable(text: str) -> str:
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
