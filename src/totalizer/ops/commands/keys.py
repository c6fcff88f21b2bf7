"""`totalizer keys`: organisations' API keys."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Optional

import typer
from rich.markup import escape
from rich.table import Column, Table

from totalizer.clock import SYSTEM_CLOCK, utc_datetime
from totalizer.ops.commands.options import HomeOption
from totalizer.ops.connection import stack_settings
from totalizer.ops.console import ERR, OUT
from totalizer.ops.lazy import server_part

app = typer.Typer(help="Create, list, rotate and revoke API keys.", no_args_is_help=True)

#: Organisation and key that a first start makes.
FIRST_ORGANIZATION = "default"
FIRST_KEY = "first key"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@app.command()
def create(
    organization: Annotated[str, typer.Argument(help="Organisation, made if there is none of that name.")],
    name: Annotated[str, typer.Option("--name", help="What the key is for.")] = "key",
    scope: Annotated[
        Optional[list[str]],  # noqa: UP045 - Typer reads the annotation at run time
        typer.Option(
            "--scope",
            help="ingest, query, export, quarantine or admin; may be repeated. Default: ingest and query.",
            show_default=False,
        ),
    ] = None,
    expires: Annotated[
        Optional[str],  # noqa: UP045 - Typer reads the annotation at run time
        typer.Option("--expires", metavar="WHEN", help="When it ends: 90d, or an ISO 8601 time.", show_default=False),
    ] = None,
    time_zone: Annotated[
        Optional[str],  # noqa: UP045 - Typer reads the annotation at run time
        typer.Option("--time-zone", help="IANA zone of a new organisation's days.", show_default=False),
    ] = None,
    home: HomeOption = None,
) -> None:  # fmt: skip
    """Make a key and show it, this once."""
    ends = None if expires is None else _end(expires)
    settings = stack_settings(home)
    keys = server_part("totalizer.store.keys")
    with server_part("totalizer.app").administrator_connection(settings) as connection, connection.transaction():
        organization_id = keys.create_organization(connection, organization, time_zone or settings.default_time_zone)
        scopes = tuple(scope) if scope else keys.DEFAULT_SCOPES
        key = keys.create_key(connection, organization_id, name, scopes, ends)
    OUT.print(key, markup=False)


@app.command("list")
def list_keys(home: HomeOption = None) -> None:
    """Show all keys; what they are is not stored."""
    settings = stack_settings(home)
    with server_part("totalizer.app").administrator_connection(settings) as connection:
        rows = server_part("totalizer.store.keys").list_keys(connection)
    # The id is to be copied, so a narrow terminal must not cut it.
    identity = Column("id", no_wrap=True, min_width=36)
    table = Table(identity, "organisation", "name", "scopes", "created", "last used", "state")
    now = utc_datetime(SYSTEM_CLOCK.now_ns())
    for row in rows:
        table.add_row(
            str(row.id), escape(row.organization), escape(row.name), ", ".join(row.scopes), _minute(row.created_at),
            "never" if row.last_used_at is None else _minute(row.last_used_at), _state(row, now),
        )  # fmt: skip
    OUT.print(table)


@app.command()
def rotate(
    key_id: Annotated[str, typer.Argument(help="Id as `keys list` shows it.")],
    overlap: Annotated[
        str, typer.Option("--overlap", metavar="TIME", help="How long the old key goes on: 24h, 30m, 7d, or 0s.")
    ] = "24h",
    home: HomeOption = None,
) -> None:
    """Make a key in the place of another, and show it, this once."""
    keys = server_part("totalizer.store.keys")
    length = _length(overlap, "--overlap")
    if length > keys.OVERLAP_MAX:
        raise typer.BadParameter(f"--overlap {overlap}: at most {keys.OVERLAP_MAX.days}d")
    settings = stack_settings(home)
    with server_part("totalizer.app").administrator_connection(settings) as connection:
        made = keys.rotate_key(connection, key_id, length)
    OUT.print(made.key, markup=False)
    ERR.print(f"its id is {made.id}; the old key ends at {made.old_expires_at:%Y-%m-%d %H:%M:%S} UTC", markup=False)


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
        key = keys.create_key(connection, organization_id, FIRST_KEY, (*keys.DEFAULT_SCOPES, "export"))
        # Within the transaction: a key that could not be kept is not made.
        server_part("totalizer.ops.record").write_private(path, key + "\n")
    OUT.print(f"the first key is in {path}", markup=False)


def _minute(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M}"


def _state(row: Any, now: datetime) -> str:
    if row.revoked_at is not None:
        return f"revoked {_minute(row.revoked_at)}"
    if row.expires_at is None:
        return "live"
    return f"{'expired' if row.expires_at <= now else 'live until'} {_minute(row.expires_at)}"


def _length(text: str, option: str) -> timedelta:
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if found is None:
        raise typer.BadParameter(f"{option} {text}: write a number and s, m, h or d, such as 24h")
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


def _end(text: str) -> datetime:
    """When a key ends that shall end after a while, or at a time."""
    now = utc_datetime(SYSTEM_CLOCK.now_ns())
    if re.fullmatch(r"[0-9]+[a-z]", text):
        end = now + _length(text, "--expires")
    else:
        try:
            end = datetime.fromisoformat(text)
        except ValueError:
            raise typer.BadParameter(f"--expires {text}: write 90d, 12h, or an ISO 8601 time") from None
        end = end if end.tzinfo else end.replace(tzinfo=UTC)
    if end <= now:
        raise typer.BadParameter(f"--expires {text}: that is over")
    return end
