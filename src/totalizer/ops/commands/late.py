"""`totalizer late`: events that came when their time was not computed from events any more."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.markup import escape
from rich.table import Column, Table

from totalizer.clock import SYSTEM_CLOCK, utc_datetime
from totalizer.ops.commands.options import (
    Format,
    FormatOption,
    HomeOption,
    OrganizationOption,
    TypeOption,
    require_one_way,
)
from totalizer.ops.connection import stack_settings
from totalizer.ops.console import OUT
from totalizer.ops.lazy import server_part

if TYPE_CHECKING:
    from totalizer.store.late import LateEvent, Selection

app = typer.Typer(help="Events older than what is kept: see, count, drop.", no_args_is_help=True)


class State(StrEnum):
    """What is with a late event."""

    LATE = "late"
    HELD = "held"
    APPLIED = "applied"


IdsArgument = Annotated[
    Optional[list[int]],  # noqa: UP045 - Typer reads the annotation at run time
    typer.Argument(help="Numbers, as `late list` shows them.", show_default=False),
]
AllOption = Annotated[bool, typer.Option("--all", help="All that wait.")]


@app.command("list")
def list_late(
    organization: OrganizationOption = None,
    event_type: TypeOption = None,
    state: Annotated[
        Optional[State],  # noqa: UP045 - Typer reads the annotation at run time
        typer.Option("--state", help="Only those in this state.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many to show at most.")] = 50,
    output: FormatOption = Format.TEXT,
    home: HomeOption = None,
) -> None:
    """Show late events, newest first, and how many there are."""
    states = tuple(each.value for each in State) if state is None else (state.value,)
    selection = _selection(states, None, organization, event_type)
    events, counts = server_part("totalizer.ops.late_desk").listed(stack_settings(home), selection, limit)
    if output is Format.JSON:
        OUT.print_json(_json(events, counts))
        return
    if not counts:
        OUT.print("no late events")
        return
    OUT.print(_table(events))
    for (owner, kind, what), number in counts.items():
        OUT.print(f"{number:,} {what}: {kind} of {owner or 'nobody'}", markup=False)


@app.command("apply")
def apply_late(
    ids: IdsArgument = None,
    everything: AllOption = False,
    organization: OrganizationOption = None,
    event_type: TypeOption = None,
    home: HomeOption = None,
) -> None:
    """Count held events, and add all that is late to the rollups."""
    selection = _chosen((State.HELD, State.LATE), ids, everything, organization, event_type)
    settings, desk = stack_settings(home), server_part("totalizer.ops.late_desk")
    released, result = desk.apply(settings, desk.ids_of(settings, selection))
    rows = sum(result["rows"].values())
    OUT.print(f"added {result['events']:,} events, of which {released:,} were held, to {rows:,} rows of rollups")


@app.command()
def drop(
    ids: IdsArgument = None,
    everything: AllOption = False,
    organization: OrganizationOption = None,
    event_type: TypeOption = None,
    to: Annotated[
        Optional[Path],  # noqa: UP045 - Typer reads the annotation at run time
        typer.Option(
            "--to", metavar="FILE", help="New file of JSON lines for them; else one in the data folder.",
            show_default=False,
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    home: HomeOption = None,
) -> None:  # fmt: skip
    """Write held events to a file and remove them from the database: they do not count."""
    selection = _chosen((State.HELD,), ids, everything, organization, event_type)
    settings, desk = stack_settings(home), server_part("totalizer.ops.late_desk")
    chosen = desk.ids_of(settings, selection)
    if not chosen:
        OUT.print("no held events to drop")
        return
    file = to if to is not None else desk.default_file(settings, utc_datetime(SYSTEM_CLOCK.now_ns()))
    if not yes:
        typer.confirm(f"Move {len(chosen)} held events out of the database into {file}?", abort=True, err=True)
    OUT.print(f"dropped {desk.drop(settings, chosen, file)}; they are in {file}", markup=False)


def _chosen(
    states: tuple[State, ...], ids: list[int] | None, everything: bool, organization: str | None, event_type: str | None
) -> Selection:
    require_one_way(ids, everything, organization, event_type)
    return _selection(tuple(state.value for state in states), ids, organization, event_type)


def _selection(
    states: tuple[str, ...], ids: list[int] | None, organization: str | None, event_type: str | None
) -> Selection:
    selection: Selection = server_part("totalizer.store.late").Selection(
        states, tuple(ids) if ids else None, organization, event_type
    )
    return selection


def _table(events: list[LateEvent]) -> Table:
    table = Table(Column("id", no_wrap=True), "happened", "came", "organisation", "event type", "state")
    for event in events:
        times = (f"{time:%Y-%m-%d %H:%M:%S}" for time in (event.event_time, event.stored_at))
        table.add_row(str(event.id), *times, escape(event.organization or ""), event.event_type, event.state)
    return table


def _json(events: list[LateEvent], counts: dict[tuple[str | None, str, str], int]) -> str:
    record = server_part("totalizer.load.late_drop").late_record
    figures = [
        {"organization": owner, "event_type": kind, "state": what, "events": number}
        for (owner, kind, what), number in counts.items()
    ]
    return json.dumps({"late_events": [record(event) for event in events], "counts": figures}, default=str)
