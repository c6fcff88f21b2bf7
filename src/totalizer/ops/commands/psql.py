"""`totalizer psql`: PostgreSQL's terminal on the stack's database."""

from __future__ import annotations

import os
from enum import Enum
from typing import Annotated

import typer

from totalizer.ops.commands.options import HomeOption
from totalizer.ops.connection import stack_settings
from totalizer.ops.lazy import server_part


class PsqlRole(str, Enum):  # noqa: UP042 - Typer shows a str enum's values
    """Whom to be in the database."""

    APP = "app"
    WRITER = "writer"
    REFRESHER = "refresher"
    OWNER = "owner"
    POSTGRES = "postgres"


def psql(
    context: typer.Context,
    home: HomeOption = None,
    role: Annotated[
        PsqlRole, typer.Option("--role", help="Role to act as. app: reads, under row-level security.")
    ] = PsqlRole.APP,
) -> None:
    """Open psql on the database; further arguments go to psql, for example `totalizer psql -c 'select 1'`."""
    settings = stack_settings(home)
    access = server_part("totalizer.ops.access")
    environment = {**os.environ, **access.libpq_environment(settings, role.value)}
    program = server_part("totalizer.ops.embedded.binaries").find_psql()
    os.execve(program, [program, *context.args], environment)
