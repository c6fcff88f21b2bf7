"""The main job from end to end: a stack, a repository's history through it, its totals, and the proof."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import urllib3
from rich.markup import escape
from rich.table import Table

from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.errors import OperationError
from totalizer.ops.console import OUT
from totalizer.ops.importers.environment import environment
from totalizer.ops.importers.target import Target, find_target
from totalizer.ops.reach import health

#: Seconds the stack may take to start, the first time on a slow machine.
START_S_MAX = 120.0
#: Seconds within which what was imported must be in the totals.
SETTLE_S_MAX = 600.0
#: Pause between two questions.
PAUSE_S = 0.1
#: Seconds the stack may take to stop.
STOP_S_MAX = 60.0
#: Rows of days shown; totals by author are of all.
DAY_ROWS_MAX = 25
AUTHOR_ROWS_MAX = 15
#: Query parameters of the totals: all time.
ALL_TIME = {"event_type": "commits", "start_date": "1970-01-02", "limit": "10000"}


def run_demo(path: Path, home: Path, port: int | None, *, leave: bool, clock: Clock = SYSTEM_CLOCK) -> None:
    """Start everything, import `path`, show its totals, verify; then serve until Ctrl-C.

    Args:
        path: a git repository.
        home: data folder; a stack that runs there already is used, and left running.
        port: of the API; None for the usual one, or a free one if that is taken.
        leave: stop when done instead of serving on.
        clock: time source.

    Raises:
        OperationError: a step failed; its own output says why.
    """
    stack = None if _running(home) else _start(home, port, clock)
    try:
        target = find_target(None, None, home, environment())
        _step(home, "import", "git", str(path))
        _settle(target, clock)
        _show(target, home / "totals.png")
        _step(home, "verify", "--home", str(home))
        OUT.print(f"\nThe same numbers, live: [bold]{target.url}/[/]   the key for it is in {home / 'api-key'}")
        if stack is not None and not leave:
            OUT.print("Ctrl-C stops everything.")
            stack.wait()
    except KeyboardInterrupt:
        OUT.print("stopping")
    finally:
        if stack is not None:
            _stop(stack)


def _running(home: Path) -> bool:
    from totalizer.ops.state import read_state

    state = read_state(home)
    return state is not None and state.running()


def _start(home: Path, port: int | None, clock: Clock) -> subprocess.Popen[bytes]:
    port = port or _usable_port()
    command = [sys.executable, "-m", "totalizer", "up", "--home", str(home), "--port", str(port)]
    # In a session of its own: Ctrl-C reaches the demo, which stops the stack in order.
    stack = subprocess.Popen(command, start_new_session=True)
    deadline = clock.monotonic() + START_S_MAX
    try:
        while health("127.0.0.1", port)[0] != 200:
            if stack.poll() is not None:
                raise OperationError("the stack did not start; what it said is above")
            if clock.monotonic() > deadline:
                raise OperationError(f"the stack was not ready within {START_S_MAX:.0f} s; its logs are in {home}/log")
            clock.sleep(PAUSE_S)
        # The key file is written before the API starts, the state file with it.
        while not _running(home):
            clock.sleep(PAUSE_S)
    except BaseException:
        _stop(stack)
        raise
    return stack


def _usable_port() -> int:
    """The port the settings name, or a free one if somebody else listens there."""
    from totalizer.settings import load_settings

    port = load_settings().port
    for wanted in (port, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", wanted))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    return port


def _stop(stack: subprocess.Popen[bytes]) -> None:
    if stack.poll() is None:
        stack.send_signal(signal.SIGTERM)
    try:
        stack.wait(STOP_S_MAX)
    except subprocess.TimeoutExpired:
        os.killpg(stack.pid, signal.SIGKILL)
        stack.wait()


def _step(home: Path, *arguments: str) -> None:
    """Run one of our commands as a user would, with its output on this terminal."""
    result = subprocess.run(
        [sys.executable, "-m", "totalizer", *arguments], env={**environment(), "TOTALIZER_HOME": str(home)}
    )
    if result.returncode != 0:
        raise OperationError(f"totalizer {' '.join(arguments)} ended with {result.returncode}")


def _settle(target: Target, clock: Clock) -> None:
    """Wait until all that was acknowledged is stored and rolled up."""
    deadline = clock.monotonic() + SETTLE_S_MAX
    while True:
        answer = _ask(target, {**ALL_TIME, "aggregation_window": "total"})
        if answer["complete"] and not answer["dirty_buckets"]:
            return
        if clock.monotonic() > deadline:
            raise OperationError(f"not all was loaded and rolled up within {SETTLE_S_MAX:.0f} s")
        clock.sleep(PAUSE_S)


def _ask(target: Target, parameters: dict[str, str]) -> Any:
    answer = urllib3.request(
        "GET",
        f"{target.url}/api/metrics/aggregated?{urlencode(parameters)}",
        headers={"authorization": f"Bearer {target.key}"},
        timeout=30,
        retries=False,
    )
    body = msgspec.json.decode(answer.data)
    if answer.status != 200:
        raise OperationError(f"the query was refused with {answer.status}: {body.get('detail')}")
    return body


def _rows(target: Target, parameters: dict[str, str]) -> list[dict[str, Any]]:
    """All rows of a query, page by page."""
    rows: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        answer = _ask(target, {**ALL_TIME, **parameters, **cursor})
        rows += answer["data"]
        if answer["next_cursor"] is None:
            return rows
        cursor = {"cursor": answer["next_cursor"]}


def _show(target: Target, chart: Path) -> None:
    from totalizer.ops.chart import write_chart

    days = _rows(target, {"aggregation_window": "1d", "group_by": "author"})
    if not days:
        OUT.print("No commits, so no totals.")
        return
    OUT.print(_day_table(days))
    OUT.print(_author_table(_rows(target, {"aggregation_window": "total", "group_by": "author"})))
    write_chart(days, chart)
    OUT.print(f"chart: {chart}")


def _day_table(days: list[dict[str, Any]]) -> Table:
    title = "Commits by day and author"
    if len(days) > DAY_ROWS_MAX:
        title += f" (the last {DAY_ROWS_MAX} of {len(days)} rows)"
    table = _table(title, "day", "author")
    for row in days[-DAY_ROWS_MAX:]:
        table.add_row(row["window_start"][:10], escape(row["author"]), *_numbers(row))
    return table


def _author_table(authors: list[dict[str, Any]]) -> Table:
    authors = sorted(authors, key=lambda row: -row["commits"])
    title = "All commits by author"
    if len(authors) > AUTHOR_ROWS_MAX:
        title += f" (the first {AUTHOR_ROWS_MAX} of {len(authors)})"
    table = _table(title, "author")
    for row in authors[:AUTHOR_ROWS_MAX]:
        table.add_row(escape(row["author"]), *_numbers(row))
    total: dict[str, int] = defaultdict(int)
    for row in authors:
        for name in _MEASURES:
            total[name] += row[name]
    table.add_section()
    table.add_row("everyone", *_numbers(total), style="bold")
    return table


_MEASURES = ("commits", "files_changed", "lines_added", "lines_removed")


def _table(title: str, *keys: str) -> Table:
    table = Table(*keys, title=title, title_justify="left")
    for name in ("commits", "files", "lines added", "lines removed"):
        table.add_column(name, justify="right")
    return table


def _numbers(row: dict[str, Any]) -> list[str]:
    return [f"{row[name]:,}" for name in _MEASURES]
