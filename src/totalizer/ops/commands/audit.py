"""`totalizer audit`: who changed what."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.markup import escape
from rich.table import Column, Table

from totalizer.errors import OperationError
from totalizer.ops.commands.options import Format, FormatOption, HomeOption
from totalizer.ops.connection import stack_settings
from totalizer.ops.console import OUT
from totalizer.ops.lazy import server_part
from totalizer.ops.moment import moment_or_day

if TYPE_CHECKING:
    from totalizer.store.audit import Wanted

Text = Optional[str]  # noqa: UP045 - Typer reads the annotation at run time


def audit(
    organization: Annotated[
        Text, typer.Option("--organization", metavar="NAME", help="Only what is about this one.", show_default=False)
    ] = None,
    actor: Annotated[
        Text,
        typer.Option("--actor", metavar="WHO", help="Only of this kind, id, name or role.", show_default=False),
    ] = None,
    action: Annotated[
        Text,
        typer.Option("--action", metavar="ACTION", help="Only this one: key.revoke, or key for all of keys.",
                     show_default=False),
    ] = None,
    since: Annotated[
        Text, typer.Option("--since", metavar="TIME", help="Only what was done then or later.", show_default=False)
    ] = None,
    until: Annotated[
        Text, typer.Option("--until", metavar="TIME", help="Only what was done before; a date is included.",
                           show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="How many, newest first.")] = 50,
    form: FormatOption = Format.TEXT,
    home: HomeOption = None,
) -> None:  # fmt: skip
    """Show every change that a person or a key made, newest first: who, what, before and after."""
    store = server_part("totalizer.store.audit")
    if action is not None and (why := store.problem(action)):
        raise OperationError(f"--action: {why}")
    wanted: Wanted = store.Wanted(
        limit, None, actor, action, None if since is None else _time(moment_or_day("--since", since), days=0),
        None if until is None else _time(moment_or_day("--until", until), days=1),
    )  # fmt: skip
    settings = stack_settings(home)
    dsn = server_part("totalizer.app").dsn_of(settings, server_part("totalizer.store.roles").Role.REFRESHER)
    with server_part("totalizer.store.connect").connected(dsn) as connection:
        if organization is not None:
            owner = server_part("totalizer.store.dead_letters").organization_id_of(connection, organization)
            wanted = wanted._replace(organization_id=owner)
        found = store.entries(connection, wanted)
    if form is Format.JSON:
        OUT.print_json(json.dumps({"entries": found}, default=_json))
    else:
        OUT.print(_table(found) if found else "no such change is recorded")


def _time(when: datetime | date, *, days: int) -> datetime:
    if isinstance(when, datetime):
        return when
    return datetime.combine(when + timedelta(days=days), time.min, UTC)


def _json(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _table(found: list[dict[str, Any]]) -> Table:
    words = server_part("totalizer.store.audit_words")
    table = Table(Column("at (UTC)", no_wrap=True), "who", "organisation", "action", "of what", "what changed")
    for each in found:
        cells = (
            f"{each['at']:%Y-%m-%d %H:%M:%S}", words.who(each["actor"]), each["organization"] or "", each["action"],
            each["target"], words.what(each["before"], each["after"]),
        )  # fmt: skip
        table.add_row(*map(escape, cells))
    return table
