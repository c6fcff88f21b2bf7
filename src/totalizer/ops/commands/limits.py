"""`totalizer limits`: how much organisations may send and ask in a window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.markup import escape
from rich.table import Table

from totalizer.ops.commands.options import HomeOption
from totalizer.ops.connection import stack_settings
from totalizer.ops.console import OUT
from totalizer.ops.lazy import server_part

if TYPE_CHECKING:
    from totalizer.settings import Settings

app = typer.Typer(help="Show and set how much organisations may send and ask.", no_args_is_help=True)


@app.command()
def show(
    organization: Annotated[
        Optional[str],  # noqa: UP045 - Typer reads the annotation at run time
        typer.Argument(help="Only this organisation.", show_default=False),
    ] = None,
    home: HomeOption = None,
) -> None:
    """Show the limits of organisations; those that are their own are marked."""
    settings = stack_settings(home)
    with server_part("totalizer.app").administrator_connection(settings) as connection:
        rows = server_part("totalizer.store.limits").list_limits(connection, organization)
    _print(settings, rows)


@app.command("set")
def set_limits(
    organization: Annotated[str, typer.Argument(help="The organisation's name.")],
    requests: Annotated[
        Optional[str],  # noqa: UP045 - Typer reads the annotation at run time
        typer.Option("--requests", metavar="N", help="Requests of single events in a window.", show_default=False),
    ] = None,
    batches: Annotated[
        Optional[str],  # noqa: UP045 - Typer reads the annotation at run time
        typer.Option("--batches", metavar="N", help="Requests of batches in a window.", show_default=False),
    ] = None,
    reads: Annotated[
        Optional[str],  # noqa: UP045 - Typer reads the annotation at run time
        typer.Option("--reads", metavar="N", help="Queries in a window.", show_default=False),
    ] = None,
    size: Annotated[
        Optional[str],  # noqa: UP045 - Typer reads the annotation at run time
        typer.Option("--bytes", metavar="N", help="Bytes of request bodies in a window.", show_default=False),
    ] = None,
    home: HomeOption = None,
) -> None:
    """Give an organisation limits of its own: a number, `none` for no limit, or `usual` for that of the settings."""
    named = {"requests": requests, "batches": batches, "reads": reads, "bytes": size}
    limits = {kind: _limit(kind, text) for kind, text in named.items() if text is not None}
    if not limits:
        raise typer.BadParameter("name a limit: --requests, --batches, --reads or --bytes")
    settings = stack_settings(home)
    store = server_part("totalizer.store.limits")
    with server_part("totalizer.app").administrator_connection(settings) as connection:
        store.set_limits(connection, organization, limits)
        rows = store.list_limits(connection, organization)
    _print(settings, rows)


def _limit(kind: str, text: str) -> int | None:
    if text == "usual":
        return None
    if text == "none":
        return 0
    if not (text.isascii() and text.isdigit() and int(text) < 1 << 53):
        raise typer.BadParameter(f"--{kind} {text}: write a whole number, `none` or `usual`")
    return int(text)


def _print(settings: Settings, rows: list[Any]) -> None:
    usual = server_part("totalizer.app").limits_of(settings)
    table = Table("organisation", "requests", "batches", "reads", "bytes", title_justify="left")
    table.title = f"in {settings.rate_limit_window_ms / 1000:g} s; * is an organisation's own limit"
    for row in rows:
        own = (row.requests, row.batches, row.reads, row.bytes)
        cells = (_cell(value, default) for value, default in zip(own, usual, strict=True))
        table.add_row(escape(row.name), *cells)
    OUT.print(table)


def _cell(own: int | None, usual: int) -> str:
    value = usual if own is None else own
    return f"{value or 'none'}{'' if own is None else ' *'}"
