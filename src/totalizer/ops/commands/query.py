"""`totalizer query` and `totalizer export`: the read side of a running server, in the terminal and into files."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import msgspec
import typer
from rich.markup import escape

from totalizer.client import Answer, Client
from totalizer.errors import OperationError
from totalizer.ops.answers import bar_measure, csv_of, spark, table_of
from totalizer.ops.commands.options import HomeOption, KeyOption, UrlOption
from totalizer.ops.console import ERR, OUT
from totalizer.ops.importers.environment import environment, home_folder
from totalizer.ops.importers.target import find_target
from totalizer.ops.lazy import server_part

#: Windows of a single line of numbers from which it is drawn as a line of blocks as well.
SPARK_WINDOWS_MIN = 2
#: What the end of an export holds that has more to come, as JSON and as Parquet, and how much of the end is looked at.
MORE, END_BYTES = (b'"next_cursor":"', b"totalizer.next_cursor"), 1 << 16


class QueryFormat(StrEnum):
    """How an answer is written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


class ExportFormat(StrEnum):
    """How an export is written."""

    JSON = "json"
    NDJSON = "ndjson"
    CSV = "csv"
    PARQUET = "parquet"


def _conditions(given: list[str] | None) -> dict[str, list[str]]:
    conditions: dict[str, list[str]] = {}
    for each in given or []:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"--filter {each!r} is not like status=error")
        conditions.setdefault(name, []).append(value)
    return conditions


def _chart_path(path: Path | None) -> Path | None:
    if path is not None and path.suffix.lower() not in (".png", ".svg"):
        raise typer.BadParameter(f"{str(path)!r} ends neither in .png nor in .svg")
    return path


TypeOption = Annotated[
    str | None,
    typer.Option("--event-type", help="What to count.", show_default="command_executions"),
]
StartOption = Annotated[str | None, typer.Option("--start", help="RFC 3339 time or date.")]
EndOption = Annotated[
    str | None,
    typer.Option("--end", help="RFC 3339 time, excluded, or date, included."),
]
ZoneOption = Annotated[
    str | None,
    typer.Option("--time-zone", help="IANA zone of days.", show_default="the organisation's"),
]
FilterOption = Annotated[
    list[str] | None,
    typer.Option("--filter", metavar="NAME=VALUE", help="Only these; may be repeated."),
]
GroupOption = Annotated[
    list[str] | None,
    typer.Option("--group-by", help="Dimension to divide by; may be repeated."),
]
WindowOption = Annotated[
    str | None,
    typer.Option("--window", help="1m, 5m, 15m, 1h, 1d, 1w, 1mo, 1q, 1y or total.", show_default="1h"),
]


def query(
    event_type: TypeOption = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="Number to show; may be repeated.", show_default="all of the rollup"),
    ] = None,
    start: StartOption = None,
    end: EndOption = None,
    window: WindowOption = None,
    group_by: GroupOption = None,
    condition: FilterOption = None,
    time_zone: ZoneOption = None,
    order: Annotated[
        list[str] | None,
        typer.Option("--order", help="window or a metric, - before it for the largest first; may be repeated."),
    ] = None,
    fill: Annotated[
        str | None,
        typer.Option("--fill", help="Windows without events: none, zero, null.", show_default="none"),
    ] = None,
    previous: Annotated[bool, typer.Option("--previous", help="The period before beside each row.")] = False,
    limit: Annotated[int, typer.Option("--limit", help="Rows at most.", min=1, max=10_000)] = 1000,
    form: Annotated[QueryFormat, typer.Option("--format", help="table, json or csv.")] = QueryFormat.TABLE,
    chart: Annotated[
        Path | None,
        typer.Option("--chart", metavar="FILE", help="Draw the first number, as PNG or SVG.", callback=_chart_path),
    ] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    home: HomeOption = None,
) -> None:
    """Ask a running server for totals."""
    asked: dict[str, Any] = {
        "metrics": metric, "start_date": start, "end_date": end, "aggregation_window": window, "group_by": group_by,
        "filters": _conditions(condition), "time_zone": time_zone, "order": order, "fill": fill, "limit": limit,
        "compare": "previous" if previous else None,
    }  # fmt: skip
    with _client(url, key, home) as client:
        answer = client.query(event_type, **{name: value for name, value in asked.items() if value})
    if form is QueryFormat.TABLE:
        _show(answer)
    elif form is QueryFormat.CSV:
        sys.stdout.write(csv_of(answer.data))
    else:
        sys.stdout.write(msgspec.json.Encoder(decimal_format="number").encode(answer).decode() + "\n")
    if chart is not None:
        _draw(answer, chart)


def export(
    event_type: TypeOption = None,
    form: Annotated[ExportFormat, typer.Option("--format", help="json, ndjson, csv or parquet.")] = ExportFormat.NDJSON,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="File; NDJSON and CSV go on where they stopped.", show_default="standard output"),
    ] = None,
    totals: Annotated[bool, typer.Option("--totals", help="Totals by window and group in place of events.")] = False,
    start: StartOption = None,
    end: EndOption = None,
    window: WindowOption = None,
    group_by: GroupOption = None,
    condition: FilterOption = None,
    time_zone: ZoneOption = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Events at most.", min=1)] = None,
    cursor_file: Annotated[
        Path | None,
        typer.Option("--cursor-file", help="Only what was stored since the export that wrote it; written anew."),
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="CSV with cells that a spreadsheet may run.")] = False,
    url: UrlOption = None,
    key: KeyOption = None,
    home: HomeOption = None,
) -> None:
    """Take events or totals out of a running server."""
    if totals and (limit or cursor_file):
        raise typer.BadParameter("--totals has every row: --limit and --cursor-file are for events")
    if not totals and (window or group_by):
        raise typer.BadParameter("--window and --group-by divide totals: give --totals with them")
    asked: dict[str, Any] = {
        "event_type": event_type, "start_date": start, "end_date": end, "time_zone": time_zone, "limit": limit,
        "after": _kept(cursor_file), "raw": raw or None, **_conditions(condition),
    }  # fmt: skip
    asked |= {"aggregation_window": window, "group_by": group_by} if totals else {}
    with _client(url, key, home) as client:
        if not totals and form in (ExportFormat.NDJSON, ExportFormat.CSV):
            cursor = _events(client, form, asked, output)
        else:
            cursor = _stream(client, form, "aggregated" if totals else "events", asked, output)
    if cursor_file is not None and cursor is not None:
        # After the rows: who is stopped in between has them twice rather than never.
        _replace(cursor_file, cursor.encode() + b"\n")


def _client(url: str | None, key: str | None, home: Path | None) -> Client:
    target = find_target(url, key, home_folder(home, environment()), environment())
    return Client(target.url, target.key)


def _show(answer: Answer) -> None:
    measures, groups = answer.query["measures"], answer.query["group_by"]
    OUT.print(table_of(answer.data, measures))
    name = bar_measure(answer.data, measures)
    if name is not None and not groups and len(answer.data) >= SPARK_WINDOWS_MIN:
        OUT.print(f"{escape(name)}  {spark([float(row[name] or 0) for row in answer.data])}")
    notes = [f"as of {answer.as_of}", f"from {answer.source}"]
    if not answer.exact:
        notes.append("not exact: a part is behind or removed")
    if answer.next_cursor is not None:
        notes.append("there is more: raise --limit, or use totalizer export --totals")
    ERR.print(f"[dim]{escape('; '.join(notes))}[/]")


def _draw(answer: Answer, path: Path) -> None:
    groups = answer.query["group_by"]
    name = bar_measure(answer.data, answer.query["measures"])
    if name is None:
        raise OperationError("there is nothing to draw: no row has a number above 0")
    server_part("vl_convert")
    server_part("totalizer.ops.chart").write_answer_chart(answer.data, name, groups, path)
    ERR.print(f"drawn into {path}", markup=False)


def _events(client: Client, form: ExportFormat, asked: dict[str, Any], output: Path | None) -> str | None:
    """Into a file that can be gone on with; without one by way of a file of the moment to standard output."""
    if output is not None:
        count, cursor = client.download(output, form.value, told=_progress(), **asked)
        ERR.print(f"{count} events in {output}", markup=False)
        return cursor
    with TemporaryDirectory(prefix="totalizer-export-") as folder:
        path = Path(folder) / "events"
        _, cursor = client.download(path, form.value, **asked)
        with path.open("rb") as file:
            copyfileobj(file, sys.stdout.buffer)
    sys.stdout.buffer.flush()
    return cursor


def _stream(client: Client, form: ExportFormat, what: str, asked: dict[str, Any], output: Path | None) -> str | None:
    part = None if output is None else output.with_name(output.name + ".part")
    end = b""
    with client.export(form.value, what=what, **asked) as export:
        with nullcontext(sys.stdout.buffer) if part is None else part.open("wb") as file:
            for piece in export:
                file.write(piece)
                end = (end + piece)[-END_BYTES:]
            file.flush()
        if asked.get("limit") is None and any(mark in end for mark in MORE):
            raise OperationError(
                f"there are more events than one export of the server has ({export.limit}): take fewer at once with "
                "--start and --end, or NDJSON or CSV, which go on by themselves"
            )
    if part is not None and output is not None:
        part.replace(output)
    return export.cursor


def _kept(cursor_file: Path | None) -> str | None:
    if cursor_file is None or not cursor_file.exists():
        return None
    return cursor_file.read_text("utf-8").strip() or None


def _replace(path: Path, content: bytes) -> None:
    new = path.with_name(path.name + ".new")
    new.write_bytes(content)
    new.replace(path)


def _progress() -> Callable[[int], None]:
    return (lambda count: ERR.print(f"{count} events", end="\r")) if ERR.is_terminal else (lambda _: None)
