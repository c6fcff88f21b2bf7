"""`totalizer catalog`: what is declared, and what applying it would do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.syntax import Syntax
from rich.table import Table

from totalizer.errors import OperationError
from totalizer.ops.commands.options import HomeOption
from totalizer.ops.connection import own_settings, stack_settings
from totalizer.ops.console import ERR, OUT
from totalizer.ops.lazy import server_part

if TYPE_CHECKING:
    from totalizer.catalog import Catalog, EventType, Rollup

app = typer.Typer(help="Show the catalog and apply it to the database.", no_args_is_help=True)


@app.command("list")
def list_catalog(home: HomeOption = None) -> None:
    """Show the declared event types and rollups."""
    catalog = _catalog(home)
    table = Table("event type", "title", "rollups", "file")
    for event_type in catalog.event_types.values():
        rollups = ", ".join(rollup.name for rollup in catalog.rollups_of(event_type.name)) or "none"
        table.add_row(event_type.name, event_type.title, rollups, event_type.file)
    OUT.print(table)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Event type or rollup, as `catalog list` shows it.")],
    home: HomeOption = None,
) -> None:
    """Show one event type or rollup in full, as JSON."""
    catalog = _catalog(home)
    found: EventType | Rollup | None = catalog.event_types.get(name) or catalog.rollups.get(name)
    if found is None:
        known = ", ".join((*catalog.event_types, *catalog.rollups))
        raise OperationError(f"the catalog has no {name!r}; it has {known}")
    msgspec_json = server_part("msgspec.json")
    OUT.print(msgspec_json.format(msgspec_json.encode(found), indent=2).decode(), markup=False)


@app.command()
def plan(home: HomeOption = None) -> None:
    """Show what `catalog apply` would do, as SQL; exit code 1 if it would be refused."""
    planned = server_part("totalizer.app").plan(stack_settings(home))
    for note in planned.notes:
        ERR.print(f"note: {note}", markup=False)
    for refusal in planned.refusals:
        ERR.print(f"refused: {refusal}", style="bold red", markup=False)
    if planned.steps:
        OUT.print(Syntax(planned.sql(), "sql", background_color="default") if OUT.is_terminal else planned.sql())
    elif not planned.refusals:
        OUT.print("up to date")
    if planned.refusals:
        raise typer.Exit(1)


@app.command("apply")
def apply_catalog(home: HomeOption = None) -> None:
    """Bring the database's tables to what the catalog declares; nothing stored is destroyed."""
    done = server_part("totalizer.app").apply(stack_settings(home))
    for line in done or ["up to date"]:
        OUT.print(line, markup=False)


def _catalog(home: HomeOption) -> Catalog:
    catalog: Catalog = server_part("totalizer.app").catalog_for(own_settings(home))
    return catalog
