"""`totalizer organizations`: who there is, and in which time zone their days lie."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from totalizer.ops.commands.options import HomeOption
from totalizer.ops.connection import stack_settings
from totalizer.ops.console import OUT
from totalizer.ops.lazy import server_part

app = typer.Typer(help="List organisations, and set the time zones of their days.", no_args_is_help=True)


@app.command("list")
def list_organizations(home: HomeOption = None) -> None:
    """Show all organisations with their time zones."""
    settings = stack_settings(home)
    with server_part("totalizer.app").administrator_connection(settings) as connection:
        rows = server_part("totalizer.store.keys").list_organizations(connection)
    table = Table("name", "time zone", "created", "id")
    for row in rows:
        table.add_row(escape(row.name), row.time_zone, f"{row.created_at:%Y-%m-%d %H:%M}", str(row.id))
    OUT.print(table)


@app.command("set-zone")
def set_zone(
    organization: Annotated[str, typer.Argument(help="The organisation's name.")],
    zone: Annotated[str, typer.Argument(help="IANA name of the zone, such as Europe/Berlin.")],
    home: HomeOption = None,
) -> None:
    """Let an organisation's days, weeks and months be those of another time zone. What is stored is computed again."""
    settings = stack_settings(home)
    with server_part("totalizer.app").administrator_connection(settings) as connection:
        change = server_part("totalizer.rollup.zones").set_zone(connection, organization, zone)
    OUT.print(f"{organization}: {change.before} → {change.after}; {change.days} days are computed again", markup=False)
    if change.kept_until:
        OUT.print(f"days up to {change.kept_until} stay as they are: their quarters are not kept any more")
