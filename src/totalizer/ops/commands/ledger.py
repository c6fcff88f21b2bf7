"""`totalizer ledger`: what every organisation sent by the hour, and what became of it."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.markup import escape
from rich.table import Table

from totalizer.clock import SYSTEM_CLOCK, utc_datetime
from totalizer.ops.commands.options import Format, FormatOption, HomeOption
from totalizer.ops.connection import stack_settings
from totalizer.ops.console import OUT
from totalizer.ops.lazy import server_part

if TYPE_CHECKING:
    from totalizer.store.ledger import Hour, Letters

#: Exit code when the books do not balance.
NOT_EXACT = 1
_FIGURES = ("rejected", "accepted", "loaded", "duplicate", "conflict", "dead_lettered", "dropped")


def ledger(
    organization: Annotated[
        Optional[str],  # noqa: UP045 - Typer reads the annotation at run time
        typer.Option("--organization", metavar="NAME", help="Only this organisation's.", show_default=False),
    ] = None,
    hours: Annotated[int, typer.Option("--hours", min=1, max=24 * 366, help="How many, back from now.")] = 24,
    form: FormatOption = Format.TEXT,
    home: HomeOption = None,
) -> None:
    """Show by the hour what was sent and what became of it. Exit code 1 if an accepted event has no fate, or two."""
    settings = stack_settings(home)
    app, roles = server_part("totalizer.app"), server_part("totalizer.store.roles")
    since = utc_datetime(SYSTEM_CLOCK.now_ns()).replace(minute=0, second=0, microsecond=0) - timedelta(hours=hours - 1)
    journals = server_part("totalizer.query.completeness").LocalJournals(app.spool_of(settings))
    ends = journals.durable_ends()
    with server_part("totalizer.store.connect").connected(app.dsn_of(settings, roles.Role.REFRESHER)) as connection:
        owner = None
        if organization is not None:
            owner = server_part("totalizer.store.dead_letters").organization_id_of(connection, organization)
        found, letters = server_part("totalizer.store.ledger").balance(connection, organization_id=owner, since=since)
        waiting = not journals.all_loaded(ends, _loaded(connection))
    if form is Format.JSON:
        OUT.print_json(json.dumps(_document(found, letters, waiting=waiting), default=str))
    else:
        _show(found, letters, waiting=waiting)
    if letters or any(hour.difference for hour in found):
        raise typer.Exit(NOT_EXACT)


def _loaded(connection: Any) -> dict[str, Any]:
    """How far each journal is loaded, by its id."""
    position = server_part("totalizer.journal").Position
    rows = connection.execute("SELECT journal_id::text, segment, position FROM totalizer.journal_offsets").fetchall()
    return {row[0]: position(row[1], row[2]) for row in rows}


def _document(hours: list[Hour], letters: list[Letters], *, waiting: bool) -> dict[str, Any]:
    return {
        "hours": [{**hour._asdict(), "difference": hour.difference} for hour in hours],
        "dead_letters_that_differ": [each._asdict() for each in letters],
        "all_loaded": not waiting,
    }


def _show(hours: list[Hour], letters: list[Letters], *, waiting: bool) -> None:
    table = Table("organisation", "hour (UTC)", *(name.replace("_", "-") for name in _FIGURES), "result")
    for hour in hours:
        result = f"[red]{hour.difference:+,} without a fate[/]" if hour.difference else "[green]exact[/]"
        figures = (f"{getattr(hour, name):,}" for name in _FIGURES)
        table.add_row(escape(hour.organization or hour.organization_id), f"{hour.hour:%Y-%m-%d %H}h", *figures, result)
    OUT.print(table if hours else "nothing was sent in these hours")
    for each in letters:
        OUT.print(
            f"[bold red]{each.organization_id}: {each.counted:,} dead letters in the ledger, {each.kept:,} are kept[/]"
        )
    if waiting:
        OUT.print("not all that was accepted on this machine is loaded yet; the rest is in its journals")
