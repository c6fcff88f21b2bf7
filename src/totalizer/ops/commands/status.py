"""`totalizer status`: what runs on a data folder."""

from __future__ import annotations

import typer

from totalizer.ops.commands.options import HomeOption
from totalizer.ops.connection import own_settings
from totalizer.ops.console import OUT
from totalizer.ops.lazy import server_part

#: Exit code when nothing runs, as `systemctl status` has it.
NOT_RUNNING = 3


def status(home: HomeOption = None) -> None:
    """Show what runs, where, and whether the API is ready. Exit code 3 when nothing runs."""
    folder = own_settings(home).home.expanduser().resolve()
    state = server_part("totalizer.ops.state").read_state(folder)
    if state is None:
        OUT.print(f"nothing runs on {folder}", markup=False)
        raise typer.Exit(NOT_RUNNING)
    if not state.running():
        OUT.print(
            f"`totalizer up` (pid {state.pid}) on {folder} was killed; the next `totalizer up` takes over what it left "
            "running, `totalizer down` stops it",
            markup=False,
        )
        raise typer.Exit(NOT_RUNNING)
    screen = server_part("totalizer.ops.screen")
    rows = [
        *screen.rows(state, folder),
        ("Running", f"since {state.started_at} as pid {state.pid}"),
        ("Health", _health_text(state.url)),
    ]
    OUT.print(screen.lines(rows))


def _health_text(url: str) -> str:
    host, _, port = url.removeprefix("http://").rpartition(":")
    code, answer = server_part("totalizer.ops.reach").health(host.strip("[]"), int(port))
    return "ready" if code == 200 else f"not ready ({code or 'no answer'}): {answer}"
