"""`totalizer rollup`: how far rollups are, having them computed anew, and what a number is made of."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.markup import escape
from rich.table import Table

from totalizer.errors import OperationError
from totalizer.ops.commands.options import Format, FormatOption, HomeOption, OrganizationOption, RollupOption
from totalizer.ops.connection import stack_settings
from totalizer.ops.console import OUT
from totalizer.ops.lazy import server_part
from totalizer.ops.moment import moment, moment_or_day
from totalizer.ops.progress_bar import progress_bar

if TYPE_CHECKING:
    from totalizer.rollup.explain import Explained, Layer
    from totalizer.rollup.parts import Portion

app = typer.Typer(
    help="Rollups: how far they are, computing them anew, what a number is made of.", no_args_is_help=True
)

Text = Optional[str]  # noqa: UP045 - Typer reads the annotation at run time
FromOption = Annotated[
    Text, typer.Option("--from", metavar="TIME", help="Only what begins then or later.", show_default=False)
]
ToOption = Annotated[Text, typer.Option("--to", metavar="TIME", help="Only what begins before.", show_default=False)]


@app.command()
def refresh(
    rollup: RollupOption = None,
    organization: OrganizationOption = None,
    from_: FromOption = None,
    to: ToOption = None,
    output: FormatOption = Format.TEXT,
    home: HomeOption = None,
) -> None:
    """Compute a part of the rollups anew, now; without options, all that is behind."""
    portion = _portion(organization, rollup, from_, to)
    _recompute(None if portion.whole else portion, live=True, output=output, home=home)


@app.command()
def backfill(
    rollup: RollupOption = None,
    organization: OrganizationOption = None,
    from_: FromOption = None,
    to: ToOption = None,
    output: FormatOption = Format.TEXT,
    home: HomeOption = None,
) -> None:
    """Compute a part of the rollups anew, after all that is live; without options, go on with what was begun."""
    portion = _portion(organization, rollup, from_, to)
    _recompute(None if portion.whole else portion, live=False, output=output, home=home)


@app.command()
def status(output: FormatOption = Format.TEXT, home: HomeOption = None) -> None:
    """Show for each rollup what waits to be computed, for how long, and how large it is."""
    standings = server_part("totalizer.ops.rollup_desk").standings(stack_settings(home))
    if output is Format.JSON:
        OUT.print_json(json.dumps([each._asdict() for each in standings]))
        return
    table = Table("rollup", "event type", "version", "behind", "backfill", "days", "lag", "rows", "size")
    for each in standings:
        table.add_row(
            each.rollup, each.event_type, str(each.version), f"{each.live:,}", f"{each.backfill:,}", f"{each.days:,}",
            f"{each.lag_s:,.1f} s" if each.lag_s else "", f"{each.rows:,}", f"{each.bytes / 1e6:,.1f} MB",
        )  # fmt: skip
    OUT.print(table)


@app.command()
def explain(
    organization: Annotated[str, typer.Argument(help="Whose.")],
    rollup: Annotated[str, typer.Argument(help="Of which rollup.")],
    at: Annotated[str, typer.Argument(help="A time in it; a date is that day in the organisation's zone.")],
    grain: Annotated[str, typer.Option("--grain", help="1m, 15m, 1h, 1d, 1w or 1mo.")] = "1d",
    where: Annotated[
        Optional[list[str]],  # noqa: UP045 - Typer reads the annotation at run time
        typer.Option("--where", metavar="DIMENSION=VALUE", help="May be repeated.", show_default=False),
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="How many rows of each grain to show.")] = 20,
    output: FormatOption = Format.TEXT,
    home: HomeOption = None,
) -> None:
    """Show what makes up a number: the rows of each finer grain, down to the events. Exit code 1 if it is wrong."""
    asked = server_part("totalizer.rollup.explain").Asked(
        organization, rollup, grain, moment_or_day("AT", at), dict(_pair(text) for text in where or ())
    )
    explained: Explained = server_part("totalizer.ops.rollup_desk").explain(stack_settings(home), asked, rows)
    if output is Format.JSON:
        OUT.print_json(json.dumps(_document(explained), default=str))
    else:
        _show(explained)
    if explained.wrong:
        raise typer.Exit(1)


def _portion(organization: str | None, rollup: str | None, from_: str | None, to: str | None) -> Portion:
    starts = None if from_ is None else moment("--from", from_)
    ends = None if to is None else moment("--to", to)
    if starts is not None and ends is not None and starts >= ends:
        raise OperationError(f"--from {from_} --to {to}: the end must be after the start")
    portion: Portion = server_part("totalizer.rollup.parts").Portion(organization, rollup, starts, ends)
    return portion


def _recompute(portion: Portion | None, *, live: bool, output: Format, home: Any) -> None:
    desk, settings = server_part("totalizer.ops.rollup_desk"), stack_settings(home)
    with progress_bar("computing") as progress:
        buckets = desk.recompute(settings, portion, live=live, progress=progress)
    if output is Format.JSON:
        OUT.print_json(json.dumps({"buckets": buckets}))
    else:
        OUT.print(f"computed {buckets:,} buckets anew")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise OperationError(f"--where {text}: must be DIMENSION=VALUE")
    return name, value


def _show(explained: Explained) -> None:
    OUT.print(f"from {explained.starts.isoformat()} to {explained.ends.isoformat()}")
    for layer in explained.layers:
        OUT.print(f"[bold]{layer.name}[/]: {layer.total:,} {'events' if layer.name == 'events' else 'rows'}")
        if layer.rows:
            OUT.print(_table(layer))
    for mark in explained.marks:
        whose = mark["rollup"] or "all rollups"
        OUT.print(f"behind: {mark['bucket'].isoformat()} of {whose} ({mark['scope']}), to be computed anew")
    for cell in explained.wrong:
        named = ", ".join(f"{name} is {found}, should be {wanted}" for name, (wanted, found) in cell.values.items())
        OUT.print(f"[red]wrong: {cell.level.suffix} {cell.starts.isoformat()}: {escape(named)}[/]")


def _table(layer: Layer) -> Table:
    table = Table(*layer.rows[0])
    for row in layer.rows:
        table.add_row(*(escape("" if value is None else str(value)[:60]) for value in row.values()))
    return table


def _document(explained: Explained) -> dict[str, Any]:
    return {
        "starts": explained.starts, "ends": explained.ends,
        "layers": [layer._asdict() for layer in explained.layers],
        "marks": explained.marks, "wrong": [cell.document() for cell in explained.wrong],
    }  # fmt: skip
