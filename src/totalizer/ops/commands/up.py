"""`totalizer up` and `totalizer down`."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Optional

import typer

from totalizer.errors import ConfigurationError
from totalizer.ops.commands.options import HomeOption
from totalizer.ops.connection import own_settings
from totalizer.ops.console import OUT
from totalizer.ops.lazy import server_part

#: Database connections beside the API's pools: loader, scheduler, commands, people, and what PostgreSQL reserves.
OTHER_CONNECTIONS = 40


def up(
    context: typer.Context,
    home: HomeOption = None,
    port: Annotated[
        Optional[int],  # noqa: UP045 - Typer reads the annotation at run time
        typer.Option("--port", help="TCP port of API and dashboard (PORT, default 3000).", show_default=False),
    ] = None,
) -> None:
    """Start everything on this machine, and stop it with Ctrl-C.

    PostgreSQL and Valkey are started too, unless DATABASE_URL or DB_HOST, and REDIS_URL, name others.
    """
    settings = own_settings(home, port)
    if settings.uds or settings.tls_cert or settings.tls_key:
        raise ConfigurationError(
            "TOTALIZER_UDS, TOTALIZER_TLS_CERT and TOTALIZER_TLS_KEY are for `totalizer serve`; `totalizer up` serves "
            "HTTP on HOST and PORT. Unset them, or run the parts by themselves"
        )
    plan_module = server_part("totalizer.ops.plan")
    plan = plan_module.UpPlan(
        home=str(settings.home.expanduser().resolve()),
        host=settings.host,
        port=settings.port,
        own_database=not settings.database_configured(),
        own_redis=settings.redis_url is None,
        scheduler=settings.job_scheduler,
        max_connections=settings.workers * settings.db_pool_size + OTHER_CONNECTIONS,
        log_level=settings.log_level,
        log_format=settings.log_format,
        log_bytes=settings.log_bytes,
        log_files=settings.log_files,
        debug=bool(context.obj),
    )
    environment = {**os.environ, plan_module.PLAN_VARIABLE: plan.encode()}
    if settings.secret is not None:
        environment["TOTALIZER_SECRET"] = settings.secret  # it may come from a .env file, which only settings read
    sys.stdout.flush()
    sys.stderr.flush()
    # In place of this process, so that the supervisor holds none of what reading the settings needed.
    os.execve(sys.executable, [sys.executable, "-m", "totalizer.ops.up"], environment)


def down(home: HomeOption = None) -> None:
    """Stop what runs on the data folder, also what a killed `totalizer up` left behind."""
    folder = own_settings(home).home.expanduser().resolve()
    stopped = server_part("totalizer.ops.down").bring_down(folder)
    OUT.print("stopped: " + ", ".join(stopped) if stopped else f"nothing runs on {folder}", markup=False)
