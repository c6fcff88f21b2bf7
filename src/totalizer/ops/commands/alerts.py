"""`totalizer alerts`: what stands, what was, silence, and whether messages arrive."""

from __future__ import annotations

import json
import re
import socket
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.markup import escape
from rich.table import Table

from totalizer.errors import OperationError, StoreUnavailable
from totalizer.ops.commands.options import Format, FormatOption, HomeOption
from totalizer.ops.connection import own_settings, stack_settings
from totalizer.ops.console import ERR, OUT
from totalizer.ops.lazy import server_part

if TYPE_CHECKING:
    from totalizer.settings import Settings

app = typer.Typer(help="Alerts: what stands, what was, silence, and whether messages arrive.", no_args_is_help=True)

#: Exit code when an alert stands, or a message did not arrive.
NOT_WELL = 1
_COLOURS = {"critical": "bold red", "warning": "yellow", "info": "green"}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@app.command("list")
def list_alerts(form: FormatOption = Format.TEXT, home: HomeOption = None) -> None:
    """Show the alerts that stand, with what to do, and the silences. Exit code 1 if any stands."""
    settings = stack_settings(home)
    shown = server_part("totalizer.alerts.shown")
    source, silences = "database", []
    try:
        with _refresher(settings) as connection:
            standing = shown.rows(connection, shown.STANDING)
            silences = shown.rows(connection, shown.SILENCES)
    except StoreUnavailable:
        folder = settings.home.expanduser().resolve() / "monitor"
        source, standing = "file", shown.standing_in(folder, socket.gethostname())
    if form is Format.JSON:
        OUT.print_json(json.dumps({"alerts": standing, "silences": silences, "source": source}, default=str))
    else:
        _show(standing, silences, source)
    if standing:
        raise typer.Exit(NOT_WELL)


@app.command()
def history(
    rule: Annotated[
        Optional[str],  # noqa: UP045 - Typer reads the annotation at run time
        typer.Argument(metavar="RULE", help="Of which rule; all without.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="How many, newest first.")] = 50,
    form: FormatOption = Format.TEXT,
    home: HomeOption = None,
) -> None:
    """Show what became of alerts, newest first."""
    shown = server_part("totalizer.alerts.shown")
    with _refresher(stack_settings(home)) as connection:
        found = shown.rows(connection, shown.HISTORY, {"rule": rule, "limit": limit})
    if form is Format.JSON:
        OUT.print_json(json.dumps({"history": found}, default=str))
        return
    table = Table("at (UTC)", "what", "severity", "alert", "message")
    for each in found:
        what = each["kind"] + (", silenced" if each["silenced"] else "")
        table.add_row(
            _time(each["at"]), what, _coloured(each["severity"]), escape(each["key"]), escape(each["message"])
        )
    OUT.print(table if found else "no alert is recorded")


@app.command()
def silence(
    rule: Annotated[str, typer.Argument(metavar="RULE", help="Whose alerts; * for all.")],
    length: Annotated[str, typer.Option("--for", metavar="TIME", help="For how long: 90s, 30m, 2h, 1d.")] = "1h",
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="For others who wonder.")] = "",
    end: Annotated[bool, typer.Option("--end", help="End what silences the rule instead.")] = False,
    home: HomeOption = None,
) -> None:
    """Tell nobody of a rule's alerts for a time. They are recorded, and told when it ends if they stand still."""
    settings = stack_settings(home)
    rules = server_part("totalizer.app").health_config(settings).rules
    if rule != "*" and rule not in rules:
        raise OperationError(f"no rule {rule!r}; there are {', '.join(rules)}, and * for all of them")
    shown = server_part("totalizer.alerts.shown")
    with _refresher(settings) as connection:
        if end:
            ended = connection.execute(shown.END_SILENCE, [None, rule]).rowcount
            OUT.print(f"{rule} is not silenced any more" if ended else f"{rule} was not silenced", markup=False)
            return
        [made] = shown.rows(connection, shown.SILENCE, [rule, _seconds(length), reason, _who()])
    OUT.print(f"{rule} is silenced until {_time(made['until'])} UTC", markup=False)


@app.command("test")
def send_test(home: HomeOption = None) -> None:
    """Send a message through every channel, and show which took it. Exit code 1 if one did not, or there is none."""
    settings = own_settings(home)
    channels = server_part("totalizer.jobs.monitor").channels(settings)
    if not channels:
        raise OperationError(
            "no channel: set TOTALIZER_ALERT_URLS, for example to json://localhost:8080/ or slack://…, or declare "
            "channels in the file that TOTALIZER_HEALTH_FILE names"
        )
    alert = server_part("totalizer.edge.daemon.channels").Alert(
        "info", "a test: messages of alerts arrive here", {"host": socket.gethostname(), "sent by": _who()}
    )
    failed = 0
    for channel in channels:
        taken = channel.send(alert)
        failed += not taken
        (OUT if taken else ERR).print(f"{channel.name}: {'sent' if taken else 'NOT sent'}", markup=False)
    if failed:
        raise typer.Exit(NOT_WELL)


def _show(standing: list[dict[str, Any]], silences: list[dict[str, Any]], source: str) -> None:
    if source == "file":
        ERR.print("[yellow]the database cannot be reached: this is what this machine's monitor knows[/]")
    for each in standing:
        OUT.print(f"{_coloured(each['severity'])}  {escape(each['message'])}  (since {_time(each['since'])} UTC)")
        if each.get("remedy"):
            OUT.print(f"    {escape(each['remedy'])}")
    if not standing:
        OUT.print("no alert stands")
    for each in silences:
        why = f": {each['reason']}" if each["reason"] else ""
        OUT.print(
            f"{each['rule']} is silenced until {_time(each['until'])} UTC by {each['made_by']}{why}", markup=False
        )


def _refresher(settings: Settings) -> Any:
    role = server_part("totalizer.store.roles").Role.REFRESHER
    return server_part("totalizer.store.connect").connected(server_part("totalizer.app").dsn_of(settings, role))


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if not found or not int(found[1]):
        raise OperationError(f"--for {text}: write a number and s, m, h or d, as in 30m")
    return int(found[1]) * _SECONDS[found[2]]


def _who() -> str:
    user: str = server_part("totalizer.store.audit").os_user()
    return user


def _coloured(severity: str) -> str:
    return f"[{_COLOURS.get(severity, 'white')}]{severity}[/]"


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"
