"""`totalizer retention`: how long events and rollups are kept, and removing what is older."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.markup import escape
from rich.table import Table

from totalizer.ops.commands.options import Format, FormatOption, HomeOption
from totalizer.ops.connection import stack_settings
from totalizer.ops.console import OUT
from totalizer.ops.lazy import server_part

if TYPE_CHECKING:
    from totalizer.ops.retention_desk import Kept

app = typer.Typer(help="Show and set how long events and rollups are kept; remove what is older.", no_args_is_help=True)

DaysOption = Optional[str]  # noqa: UP045 - Typer reads the annotation at run time


@app.command()
def show(
    organization: Annotated[
        Optional[str],  # noqa: UP045 - Typer reads the annotation at run time
        typer.Option("--organization", metavar="NAME", help="What holds for this one.", show_default=False),
    ] = None,
    output: FormatOption = Format.TEXT,
    home: HomeOption = None,
) -> None:
    """Show for each event type how long everything is kept, who says so, and what is removed already."""
    kept = server_part("totalizer.ops.retention_desk").kept(stack_settings(home), organization)
    if output is Format.JSON:
        OUT.print_json(json.dumps([each.document() for each in kept], default=str))
    else:
        OUT.print(_table(kept))


@app.command("set")
def set_retention(
    event_type: Annotated[str, typer.Argument(help="The event type.")],
    organization: Annotated[
        Optional[str],  # noqa: UP045 - Typer reads the annotation at run time
        typer.Option("--organization", metavar="NAME", help="For this one only.", show_default=False),
    ] = None,
    raw: Annotated[
        DaysOption, typer.Option("--raw", metavar="DAYS", help="How long events are kept.", show_default=False)
    ] = None,
    base: Annotated[
        DaysOption, typer.Option("--base", metavar="DAYS", help="Quarter hours; 30 days more.", show_default=False)
    ] = None,
    hour: Annotated[
        DaysOption, typer.Option("--hour", metavar="DAYS", help="Hours; twice as long.", show_default=False)
    ] = None,
    day: Annotated[
        DaysOption, typer.Option("--day", metavar="DAYS", help="Days; for ever.", show_default=False)
    ] = None,
    usual: Annotated[bool, typer.Option("--usual", help="Take back what was set.")] = False,
    home: HomeOption = None,
) -> None:
    """Say how long an event type's events and rollups are kept: `90d`, or `forever`."""
    if usual == (raw is not None) or (usual and (base or hour or day)):
        raise typer.BadParameter(
            "name --raw, and --base, --hour and --day if they are not to follow from it; or --usual"
        )
    figures = None if usual else _figures(str(raw), base=base, hour=hour, day=day)
    desk = server_part("totalizer.ops.retention_desk")
    settings = stack_settings(home)
    desk.set_retention(settings, event_type, organization, figures)
    OUT.print(_table([each for each in desk.kept(settings, organization) if each.event_type == event_type]))


@app.command()
def run(
    days: Annotated[
        Optional[int],  # noqa: UP045 - Typer reads the annotation at run time
        typer.Option("--days", metavar="N", min=1, help="In place of DATA_RETENTION_DAYS.", show_default=False),
    ] = None,
    output: FormatOption = Format.TEXT,
    home: HomeOption = None,
) -> None:
    """Remove what is older than it is to be kept, as the daily job does. Exit code 1 if some of it could not be."""
    result = server_part("totalizer.ops.retention_desk").run(stack_settings(home), days)
    if output is Format.JSON:
        OUT.print_json(json.dumps(result))
    else:
        _show_result(result)
    if result["status"] != "done":
        raise typer.Exit(1)


def _figures(raw: str, **others: str | None) -> Any:
    catalog = server_part("totalizer.catalog.retention")
    try:
        given = {name: catalog.parse_days(text) for name, text in others.items() if text is not None}
        return catalog.complete(catalog.parse_days(raw), **given)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _table(kept: list[Kept]) -> Table:
    shown = server_part("totalizer.catalog.retention").shown_days
    table = Table("event type", "organisation", "events", "quarter hours", "hours", "days", "says", "events kept from")
    for each in kept:
        figures = (each.retention.raw_days, each.retention.base_days, each.retention.hour_days, each.retention.day_days)
        floor = "" if each.raw_floor is None else f"{each.raw_floor:%Y-%m-%d}"
        table.add_row(
            each.event_type, escape(each.organization or ""), *(shown(days) for days in figures), each.source, floor
        )
    return table


def _show_result(result: dict[str, Any]) -> None:
    if result["status"] == "running":
        OUT.print("another run is at it; nothing was done")
        return
    rows = sum(result["rollup_rows_removed"].values())
    OUT.print(
        f"removed {result['events_removed']:,} events (partitions dropped: {result['partitions_dropped']}), "
        f"{result['ids_forgotten']:,} ids, {rows:,} rows of rollups, {result['late_events_removed']:,} late events "
        f"in {result['duration_ms'] / 1000:.1f} s"
    )
    for name in result["partitions_in_use"]:
        OUT.print(f"partition {name} was in use all the time; the next run drops it")
