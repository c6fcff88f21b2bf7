"""`totalizer verify`: proves that ledger, events and rollups agree, and repairs rollups that do not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.markup import escape
from rich.table import Table

from totalizer.ops.commands.options import Format, FormatOption, HomeOption, OrganizationOption, RollupOption
from totalizer.ops.connection import stack_settings
from totalizer.ops.console import OUT
from totalizer.ops.lazy import server_part
from totalizer.ops.moment import moment
from totalizer.ops.progress_bar import progress_bar

if TYPE_CHECKING:
    from totalizer.rollup.cell import Cell
    from totalizer.rollup.verify import Balance

#: Exit code when the books do not balance.
NOT_EXACT = 1

Text = Optional[str]  # noqa: UP045 - Typer reads the annotation at run time


def verify(
    organization: OrganizationOption = None,
    event_type: Annotated[
        Text, typer.Option("--event-type", metavar="TYPE", help="Only of these events.", show_default=False)
    ] = None,
    rollup: RollupOption = None,
    since: Annotated[
        Text, typer.Option("--since", metavar="TIME", help="Only rows that begin then or later.", show_default=False)
    ] = None,
    cells: Annotated[int, typer.Option("--cells", min=0, help="How many differing rows to show.")] = 20,
    repair: Annotated[bool, typer.Option("--repair", help="Compute what differs anew, and compare again.")] = False,
    output: FormatOption = Format.TEXT,
    home: HomeOption = None,
) -> None:
    """Compare what was loaded, what is stored and what is rolled up. Exit code 1 if anything differs."""
    settings, desk = stack_settings(home), server_part("totalizer.ops.rollup_desk")
    scope = server_part("totalizer.rollup.verify").Scope(
        organization, event_type, rollup, None if since is None else moment("--since", since)
    )
    with progress_bar("comparing") as progress:
        balances = desk.verify(settings, scope, progress)
    repaired: int | None = None
    found = [cell for balance in balances for cell in balance.cells]
    if repair and found:
        with progress_bar("repairing") as progress:
            repaired = desk.repair_all(settings, balances, progress)
            balances = desk.verify(settings, scope, progress)
    if output is Format.JSON:
        OUT.print_json(json.dumps(_document(balances, found[:cells], repaired), default=str))
    else:
        _show(balances, found[:cells], repaired)
    if any(not balance.exact for balance in balances):
        raise typer.Exit(NOT_EXACT)


def _show(balances: list[Balance], cells: list[Cell], repaired: int | None) -> None:
    OUT.print(_table(balances))
    if cells:
        OUT.print(_cells_table(cells))
    if repaired is not None:
        OUT.print(f"[bold]{repaired:,} rows were wrong and are computed anew[/]; totalizer.repairs has the record")
    wrong = sum(not balance.exact for balance in balances)
    if wrong:
        OUT.print(f"[bold red]{wrong} of {len(balances)} {'does' if wrong == 1 else 'do'} not balance[/]")
    elif balances:
        OUT.print(f"[bold green]{'it balances' if len(balances) == 1 else f'all {len(balances)} balance'}[/]")
    else:
        OUT.print("no events are stored yet")


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


def _cells_table(cells: list[Cell]) -> Table:
    table = Table("organisation", "rollup", "grain", "begins", "dimensions", "column", "should be", "is")
    for cell in cells:
        where = ", ".join(f"{name}={value}" for name, value in cell.dimensions.items())
        for name, (expected, found) in cell.values.items():
            table.add_row(
                escape(cell.organization), cell.rollup, cell.level.suffix, cell.starts.isoformat(), escape(where), name,
                escape(_shown(expected, missing=cell.expected is None)),
                escape(_shown(found, missing=cell.found is None)),
            )  # fmt: skip
    return table


def _shown(value: Any, *, missing: bool) -> str:
    text = "no row" if missing else "null" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _document(balances: list[Balance], cells: list[Cell], repaired: int | None) -> dict[str, Any]:
    return {
        "exact": all(balance.exact for balance in balances),
        "balances": [
            {
                "organization": each.organization, "organization_id": each.organization_id,
                "event_type": each.event_type, "loaded": each.ledger, "stored": each.events,
                "dirty_buckets": each.dirty_buckets, "mismatches": each.mismatches, "exact": each.exact,
            }
            for each in balances
        ],
        "cells": [cell.document() for cell in cells],
        "repaired_rows": repaired,
    }  # fmt: skip
