"""`totalizer status`: what runs on a data folder."""

from __future__ import annotations

import typer
from rich.markup import escape
from rich.table import Table

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
    if state is None or not state.running():
        OUT.print(f"nothing runs on {folder}", markup=False)
        raise typer.Exit(NOT_RUNNING)
    table = Table.grid(padding=(0, 2))
    for name, value in server_part("totalizer.ops.screen").rows(state, folder):
        table.add_row(f"[bold cyan]{name}[/]", escape(value))
    table.add_row("[bold cyan]Running[/]", f"since {state.started_at} as pid {state.pid}")
    table.add_row("[bold cyan]Health[/]", escape(_health_text(state.url)))
    OUT.print(table)


def _health_text(url: str) -> str:
    host, _, port = url.removeprefix("http://").rpartition(":")
    code, answer = server_part("totalizer.ops.reach").health(host.strip("[]"), int(port))
    return "ready" if code == 200 else f"not ready ({code or 'no answer'}): {answer}"
