"""`totalizer bridge`: the four actions by which other programs' scripts aggregate."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Optional

import msgspec
import typer

from totalizer.ops.batching.actions import flush_everything, quietly, recover_failed, show_flushed, show_status
from totalizer.ops.batching.entries import read_entries
from totalizer.ops.batching.flushing import add_entries, flush_due
from totalizer.ops.batching.place import ConfigOption, DataPathOption, SinkUrlOption, find_place
from totalizer.ops.commands.options import Format, FormatOption

app = typer.Typer(no_args_is_help=True, help="Batch entries, flush, recover: the actions for scripts.")


class StatusFormat(StrEnum):
    """How the status is written."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


StatusFormatOption = Annotated[
    StatusFormat, typer.Option("--format", help="text for people, json for programs, markdown for pages.")
]
DetailedOption = Annotated[bool, typer.Option("--detailed", help="Also every journal and the spread of flush times.")]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", help="Seconds to wait for living processes.", min=0.0, max=3600.0)
]
BatchIdOption = Annotated[
    Optional[str],  # noqa: UP045 - Typer reads the annotation at run time
    typer.Option("--batch-id", help="Only this failed batch.", show_default=False),
]
MaxAgeOption = Annotated[
    Optional[int],  # noqa: UP045 - Typer reads the annotation at run time
    typer.Option("--max-age", help="Only batches sealed at most so many milliseconds ago.", min=0, show_default=False),
]


def _entry(text: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise typer.BadParameter(f"{text[:80]!r} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise typer.BadParameter(f"{text[:80]!r} is no JSON object")
    return found


@app.command()
def aggregate(
    force: Annotated[
        bool, typer.Option("--force", help="Flush what is not due yet, too, and ask living processes to.")
    ] = False,
    entry: Annotated[
        Optional[list[str]],  # noqa: UP045 - Typer reads the annotation at run time
        typer.Option("--entry", help="An entry to add first, as JSON; may be repeated.", show_default=False),
    ] = None,
    file: Annotated[
        Optional[str],  # noqa: UP045 - Typer reads the annotation at run time
        typer.Option("--file", help="Entries to add first: JSON lines or an array; - for stdin.", show_default=False),
    ] = None,
    config: ConfigOption = None,
    data_path: DataPathOption = None,
    sink_url: SinkUrlOption = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Add entries, and deliver what waits in ended processes and is due by size, threshold or age."""
    given = [_entry(text) for text in entry or []]
    place = find_place(data_path, config, sink_url)
    added = quietly(lambda: add_entries(place, given)) if given else 0
    if file is not None:
        added += quietly(lambda: add_entries(place, read_entries(file)))
    show_flushed(quietly(lambda: flush_due(place, force=force, added=added)), form)


@app.command("aggregate-status")
def aggregate_status(
    form: StatusFormatOption = StatusFormat.TEXT,
    detailed: DetailedOption = False,
    config: ConfigOption = None,
    data_path: DataPathOption = None,
) -> None:
    """Show flushing, what waits in all processes, the recovery daemon, health and the machine."""
    show_status(find_place(data_path, config), form, detailed=detailed)


@app.command("aggregate-force")
def aggregate_force(
    timeout: TimeoutOption = 30.0,
    config: ConfigOption = None,
    data_path: DataPathOption = None,
    sink_url: SinkUrlOption = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Flush what waits in every process, and wait for it. Exit code 1 if something is left."""
    flush_everything(find_place(data_path, config, sink_url), timeout, form)


@app.command("aggregate-recover")
def aggregate_recover(
    batch_id: BatchIdOption = None,
    max_age: MaxAgeOption = None,
    config: ConfigOption = None,
    data_path: DataPathOption = None,
    sink_url: SinkUrlOption = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Try failed batches now. Exit code 1 if one was not delivered."""
    recover_failed(find_place(data_path, config, sink_url), batch_id, max_age, form)
