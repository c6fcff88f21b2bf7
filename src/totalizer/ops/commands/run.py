"""The long-running parts, each a process: `totalizer serve`, `load`, `scheduler`, `monitor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from totalizer.ops.commands.options import HomeOption
from totalizer.ops.connection import stack_settings
from totalizer.ops.lazy import server_part


def serve(
    home: HomeOption = None,
    workers: Annotated[
        Optional[int],  # noqa: UP045 - Typer reads the annotation at run time
        typer.Option("--workers", help="API processes (TOTALIZER_WORKERS, default 1).", show_default=False),
    ] = None,
    uds: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--uds", help="Unix socket to listen on instead of HOST and PORT (TOTALIZER_UDS).", show_default=False
        ),
    ] = None,
) -> None:
    """Run the API and the dashboard until SIGTERM; SIGHUP reloads."""
    _run("totalizer.serve", "run_api", "api", home, TOTALIZER_WORKERS=workers, TOTALIZER_UDS=uds)


def load(home: HomeOption = None) -> None:
    """Run the loader, which stores what the API has journalled, until SIGTERM."""
    _run("totalizer.app", "run_loader", "loader", home)


def scheduler(home: HomeOption = None) -> None:
    """Run the scheduler, which keeps the rollups fresh, until SIGTERM."""
    _run("totalizer.jobs.scheduler", "run_scheduler", "scheduler", home)


def monitor(home: HomeOption = None) -> None:
    """Run the monitor, which checks health and sends alerts, also while the database is away, until SIGTERM."""
    _run("totalizer.jobs.monitor", "run_monitor", "monitor", home)


def _run(module: str, function: str, component: str, home: HomeOption, **overrides: object) -> None:
    server_part("totalizer.ops.lifeline").watch_lifeline()
    settings = stack_settings(home, **overrides)
    server_part("totalizer.telemetry").configure_logging(settings.log_level, component, form=settings.log_format)
    getattr(server_part(module), function)(settings)
