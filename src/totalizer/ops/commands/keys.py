"""`totalizer keys`: organisations' API keys."""

from __future__ import annotations

from typing import Annotated, Optional

import typer
from rich.markup import escape
from rich.table import Column, Table

from totalizer.ops.commands.options import HomeOption
from totalizer.ops.connection import stack_settings
from totalizer.ops.console import OUT
from totalizer.ops.lazy import server_part

app = typer.Typer(help="Create, list and revoke API keys.", no_args_is_help=True)

#: Organisation and key that a first start makes.
FIRST_ORGANIZATION = "default"
FIRST_KEY = "first key"


@app.command()
def create(
    organization: Annotated[str, typer.Argument(help="Organisation, made if there is none of that name.")],
    name: Annotated[str, typer.Option("--name", help="What the key is for.")] = "key",
    scope: Annotated[
        Optional[list[str]],  # noqa: UP045 - Typer reads the annotation at run time
        typer.Option("--scope", help="ingest or query; may be repeated. Default: both.", show_default=False),
    ] = None,
    time_zone: Annotated[
        Optional[str],  # noqa: UP045 - Typer reads the annotation at run time
        typer.Option("--time-zone", help="IANA zone of a new organisation's days.", show_default=False),
    ] = None,
    home: HomeOption = None,
) -> None:
    """Make a key and show it, this once."""
    settings = stack_settings(home)
    keys = server_part("totalizer.store.keys")
    with server_part("totalizer.app").administrator_connection(settings) as connection, connection.transaction():
        organization_id = keys.create_organization(connection, organization, time_zone or settings.default_time_zone)
        key = keys.create_key(connection, organization_id, name, tuple(scope) if scope else keys.DEFAULT_SCOPES)
    OUT.print(key, markup=False)


@app.command("list")
def list_keys(home: HomeOption = None) -> None:
    """Show all keys; what they are is not stored."""
    settings = stack_settings(home)
    with server_part("totalizer.app").administrator_connection(settings) as connection:
        rows = server_part("totalizer.store.keys").list_keys(connection)
    # The id is to be copied, so a narrow terminal must not cut it.
    table = Table(Column("id", no_wrap=True, min_width=36), "organisation", "name", "scopes", "created", "state")
    for row in rows:
        state = "live" if row.revoked_at is None else f"revoked {row.revoked_at:%Y-%m-%d %H:%M}"
        created = f"{row.created_at:%Y-%m-%d %H:%M}"
        table.add_row(str(row.id), escape(row.organization), escape(row.name), ", ".join(row.scopes), created, state)
    OUT.print(table)


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(help="Id as `keys list` shows it.")], home: HomeOption = None) -> None:
    """End a key."""
    settings = stack_settings(home)
    with server_part("totalizer.app").administrator_connection(settings) as connection:
        server_part("totalizer.store.keys").revoke_key(connection, key_id)
    OUT.print(f"revoked {key_id}", markup=False)


@app.command()
def bootstrap(home: HomeOption = None) -> None:
    """Make a first organisation and key if the data folder has none, and keep the key in its file `api-key`."""
    settings = stack_settings(home)
    path = settings.home.expanduser().resolve() / "api-key"
    if path.exists():
        OUT.print(f"the first key is in {path}", markup=False)
        return
    keys = server_part("totalizer.store.keys")
    with server_part("totalizer.app").administrator_connection(settings) as connection, connection.transaction():
        organization_id = keys.create_organization(connection, FIRST_ORGANIZATION, settings.default_time_zone)
        key = keys.create_key(connection, organization_id, FIRST_KEY)
        # Within the transaction: a key that could not be kept is not made.
        server_part("totalizer.ops.record").write_private(path, key + "\n")
    OUT.print(f"the first key is in {path}", markup=False)
