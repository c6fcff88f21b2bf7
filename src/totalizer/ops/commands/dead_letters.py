"""`totalizer dead-letters`: acknowledged events that PostgreSQL refused, to be seen, tried again or dropped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.progress import track

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
from totalizer.ops.console import ERR, FAILED, OUT
from totalizer.ops.lazy import server_part
from totalizer.ops.moment import moment

if TYPE_CHECKING:
    from totalizer.ops.dead_letter_office import DeadLetterOffice
    from totalizer.store.dead_letters import Selection

app = typer.Typer(help="Acknowledged events that PostgreSQL refused: see, try again, drop.", no_args_is_help=True)

#: Letters that `retry` names with their reason; the others are counted.
REASONS_SHOWN_MAX = 20


IdsArgument = Annotated[
    Optional[list[int]],  # noqa: UP045 - Typer reads the annotation at run time
    typer.Argument(help="Numbers, as `dead-letters list` shows them.", show_default=False),
]
AllOption = Annotated[bool, typer.Option("--all", help="All there are.")]


@app.command("list")
def list_letters(
    organization: OrganizationOption = None,
    event_type: TypeOption = None,
    since: Annotated[
        Optional[str],  # noqa: UP045 - Typer reads the annotation at run time
        typer.Option("--since", metavar="TIME", help="Only those refused since, ISO 8601; UTC.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many to show at most.")] = 50,
    output: FormatOption = Format.TEXT,
    home: HomeOption = None,
) -> None:
    """Show dead letters, newest first, and how many there are for each reason."""
    text = server_part("totalizer.ops.dead_letter_text")
    beginning = None if since is None else moment("--since", since)
    with _office(home) as office:
        selection = office.selection(organization=organization, event_type=event_type, since=beginning)
        letters, reasons = office.list(selection, limit)
    if output is Format.JSON:
        OUT.print(text.list_json(letters, reasons), markup=False)
        return
    for part in text.list_table(letters, reasons):
        OUT.print(part)


@app.command()
def show(
    letter_id: Annotated[int, typer.Argument(help="Its number, as `dead-letters list` shows it.")],
    output: FormatOption = Format.TEXT,
    home: HomeOption = None,
) -> None:
    """Show all of one dead letter: why it was refused, its values and its bytes."""
    text = server_part("totalizer.ops.dead_letter_text")
    with _office(home) as office:
        letter = office.read(letter_id)
    OUT.print(text.letter_json(letter) if output is Format.JSON else text.letter_lines(letter), markup=False)


@app.command()
def retry(
    ids: IdsArgument = None,
    everything: AllOption = False,
    organization: OrganizationOption = None,
    event_type: TypeOption = None,
    home: HomeOption = None,
) -> None:
    """Try to store dead letters again. Exit code 1 if any was refused again; it stays, with the new reason."""
    require_one_way(ids, everything, organization, event_type)
    with _office(home) as office:
        chosen = office.ids(_selection(office, ids, organization, event_type))
        retried = [
            office.retry(letter_id)
            for letter_id in track(chosen, "trying again", console=ERR, disable=not ERR.is_terminal, transient=True)
        ]
    text = server_part("totalizer.ops.dead_letter_text")
    refused = [one for one in retried if one.reason]
    for one in refused[:REASONS_SHOWN_MAX]:
        ERR.print(text.refusal_line(one), markup=False)
    OUT.print(text.retried_line(retried), markup=False)
    if refused:
        raise typer.Exit(FAILED)


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
    """Write dead letters to a file and remove them from the database."""
    require_one_way(ids, everything, organization, event_type)
    with _office(home) as office:
        chosen = office.ids(_selection(office, ids, organization, event_type))
        if not chosen:
            OUT.print("no dead letters to drop")
            return
        file = to if to is not None else office.default_file(utc_datetime(SYSTEM_CLOCK.now_ns()))
        if not yes:
            typer.confirm(f"Move {len(chosen)} dead letters out of the database into {file}?", abort=True, err=True)
        dropped = office.drop(chosen, file)
    OUT.print(f"dropped {dropped}; they are in {file}", markup=False)


def _office(home: Path | None) -> DeadLetterOffice:
    office: DeadLetterOffice = server_part("totalizer.ops.dead_letter_office").DeadLetterOffice(stack_settings(home))
    return office


def _selection(
    office: DeadLetterOffice, ids: list[int] | None, organization: str | None, event_type: str | None
) -> Selection:
    return office.selection(ids=ids or None, organization=organization, event_type=event_type)
