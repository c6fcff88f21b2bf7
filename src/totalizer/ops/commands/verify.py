"""`totalizer verify`: proves that ledger, events and rollups agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich.markup import escape
from rich.table import Table

from totalizer.ops.commands.options import HomeOption
from totalizer.ops.connection import stack_settings
from totalizer.ops.console import OUT
from totalizer.ops.lazy import server_part

if TYPE_CHECKING:
    from totalizer.rollup.verify import Balance

#: Exit code when the books do not balance.
NOT_EXACT = 1


def verify(home: HomeOption = None) -> None:
    """Compare what was loaded, what is stored and what is rolled up. Exit code 1 if anything differs."""
    settings = stack_settings(home)
    app, roles = server_part("totalizer.app"), server_part("totalizer.store.roles")
    dsn = app.dsn_of(settings, roles.Role.REFRESHER)
    with server_part("totalizer.store.connect").connected(dsn) as connection:
        balances = server_part("totalizer.rollup.verify").verify(connection)
    OUT.print(_table(balances))
    wrong = sum(not balance.exact for balance in balances)
    if wrong:
        OUT.print(f"[bold red]{wrong} of {len(balances)} do not balance[/]")
        raise typer.Exit(NOT_EXACT)
    OUT.print(f"[bold green]all {len(balances)} balance[/]" if balances else "no events are stored yet")


def _table(balances: list[Balance]) -> Table:
    table = Table("organisation", "event type", "loaded", "stored", "behind", "result")
    for balance in balances:
        problems = [f"{rollup}: {rows} rows differ" for rollup, rows in balance.mismatches.items()]
        if balance.events != balance.ledger:
            problems.insert(0, "loaded and stored differ")
        table.add_row(
            escape(balance.organization),
            balance.event_type,
            f"{balance.ledger:,}",
            f"{balance.events:,}",
            f"{balance.dirty_buckets} buckets" if balance.dirty_buckets else "",
            "[red]" + "; ".join(problems) + "[/]" if problems else "[green]exact[/]",
        )
    return table
