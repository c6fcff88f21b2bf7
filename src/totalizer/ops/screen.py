"""The one screen that `totalizer up` shows when everything runs."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape

from totalizer.ops.state import State

#: Columns of the names, the gap included.
NAME_WIDTH = 13


def screen(state: State, home: Path, seconds: float) -> str:
    """What runs where, as lines of Rich markup; paths and addresses stay in one piece to be copied.

    Args:
        state: what runs.
        home: data folder.
        seconds: how long the start took.
    """
    head = f"[bold green]Totalizer is ready[/] after {seconds:.1f} s. Ctrl-C stops it."
    return f"{head}\n{lines(rows(state, home))}"


def lines(named: list[tuple[str, str]]) -> str:
    """Names and values as lines of Rich markup, one under the other."""
    return "\n".join(f"  [bold cyan]{name:<{NAME_WIDTH}}[/]{escape(value)}" for name, value in named)


def rows(state: State, home: Path) -> list[tuple[str, str]]:
    """Name and value of each line of the screen."""
    return [
        ("Dashboard", f"{state.url}/"),
        ("API", f"{state.url}/api   described at {state.url}/api/docs"),
        ("API key", _key_text(home)),
        ("PostgreSQL", _database_text(state)),
        ("Valkey", state.redis_url or "the one named by REDIS_URL"),
        ("Data", str(home)),
        ("Logs", str(home / "log")),
        ("Processes", ", ".join(f"{name} {pid}" for name, pid in state.pids.items())),
    ]


def _key_text(home: Path) -> str:
    path = home / "api-key"
    return f"in {path}" if path.exists() else "made with `totalizer keys create`"


def _database_text(state: State) -> str:
    if state.dsn is None:
        return "the one named by DATABASE_URL or DB_HOST"
    return f"{state.dsn}   open it with `totalizer psql`"
