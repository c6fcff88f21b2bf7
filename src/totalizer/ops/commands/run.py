"""The long-running parts, each a process: `totalizer serve`, `load`, `scheduler`."""

from __future__ import annotations

from totalizer.ops.commands.options import HomeOption
from totalizer.ops.connection import stack_settings
from totalizer.ops.lazy import server_part


def serve(home: HomeOption = None) -> None:
    """Run the API and the dashboard until SIGTERM."""
    _run("totalizer.serve", "run_api", "api", home)


def load(home: HomeOption = None) -> None:
    """Run the loader, which stores what the API has journalled, until SIGTERM."""
    _run("totalizer.app", "run_loader", "loader", home)


def scheduler(home: HomeOption = None) -> None:
    """Run the scheduler, which keeps the rollups fresh, until SIGTERM."""
    _run("totalizer.jobs.scheduler", "run_scheduler", "scheduler", home)


def _run(module: str, function: str, component: str, home: HomeOption) -> None:
    server_part("totalizer.ops.lifeline").watch_lifeline()
    settings = stack_settings(home)
    server_part("totalizer.telemetry").configure_logging(settings.log_level, component)
    getattr(server_part(module), function)(settings)
