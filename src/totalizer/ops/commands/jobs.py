"""`totalizer job`: scheduled work, run once by hand."""

from __future__ import annotations

import typer

from totalizer.ops.commands import usage_jobs

app = typer.Typer(help="Jobs: run once by hand, and how they went.", no_args_is_help=True)
usage_jobs.register(app)
