"""`totalizer demo`: the main job from end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from totalizer.ops.commands.options import HomeOption
from totalizer.ops.connection import own_settings
from totalizer.ops.lazy import server_part


def demo(
    path: Annotated[Path, typer.Argument(help="A git repository.", exists=True, file_okay=False)] = Path(),
    leave: Annotated[bool, typer.Option("--exit", help="Stop when done instead of serving on.")] = False,
    home: HomeOption = None,
    port: Annotated[
        Optional[int],  # noqa: UP045 - Typer reads the annotation at run time
        typer.Option("--port", help="Port of the API; by default PORT, or a free one if that is taken."),
    ] = None,
) -> None:
    """Start everything, import a repository's history, show its totals, and verify them."""
    folder = own_settings(home).home.expanduser().resolve()
    server_part("totalizer.ops.demo").run_demo(path.resolve(), folder, port, leave=leave)
