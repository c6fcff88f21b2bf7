"""`totalizer diagnostics`: what to look at first when batches do not arrive, and what to put into a bug report."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

import typer

from totalizer.edge.metric_families import text
from totalizer.ops.batching.actions import quietly, show_json
from totalizer.ops.batching.document import document_of
from totalizer.ops.batching.overview import overview
from totalizer.ops.batching.place import ConfigOption, DataPathOption, SinkUrlOption, find_place
from totalizer.ops.batching.probe import diagnosis
from totalizer.ops.batching.show import Rows, as_text, sections_table, size
from totalizer.ops.console import OUT


class DiagnosticsFormat(StrEnum):
    """How diagnostics are written."""

    TEXT = "text"
    JSON = "json"
    PROMETHEUS = "prometheus"


def diagnostics(
    metrics: Annotated[bool, typer.Option("--metrics", help="Only the figures of flushing and recovery.")] = False,
    form: Annotated[
        DiagnosticsFormat, typer.Option("--format", help="text, json, or, with --metrics, prometheus.")
    ] = DiagnosticsFormat.TEXT,
    config: ConfigOption = None,
    data_path: DataPathOption = None,
    sink_url: SinkUrlOption = None,
) -> None:
    """Show versions, folders, disk, how fast it syncs, what waits and the last errors. No secret is in it."""
    if form is DiagnosticsFormat.PROMETHEUS and not metrics:
        raise typer.BadParameter("--format prometheus goes with --metrics")
    place = find_place(data_path, config, sink_url)
    place.require()
    found = quietly(lambda: overview(place.folders))
    if form is DiagnosticsFormat.PROMETHEUS:
        OUT.out(text(found.families()), end="")
        return
    document = document_of(found, detailed=True)
    if not metrics:
        document = {**quietly(lambda: diagnosis(place)), **document}
    if form is DiagnosticsFormat.JSON:
        show_json(document)
        return
    if not metrics:
        OUT.print(sections_table(_sections(document)))
    OUT.print(as_text(document))


def _sections(document: dict[str, Any]) -> Iterator[tuple[str, Rows]]:
    versions = document["versions"].items()
    yield "Versions", [(name, version or "not installed") for name, version in versions]
    for title, key in (("Machine", "machine"), ("Environment", "environment"), ("Options", "options")):
        yield title, [(name, str(value)) for name, value in document[key].items()]
    yield "Folders", [(folder["name"], _folder(folder)) for folder in document["folders"]]
    yield "Sync of the disk", [(name, str(value)) for name, value in document["sync"].items()]
    yield "Last errors", [(str(error.get("time")), _error(error)) for error in document["lastErrors"]]


def _folder(folder: dict[str, Any]) -> str:
    if not folder["exists"]:
        return f"{folder['path']}: missing"
    return f"{folder['path']}: mode {folder['mode']}, {folder['files']} files, {size(folder['bytes'])}"


def _error(error: dict[str, Any]) -> str:
    rest = {name: value for name, value in error.items() if name not in ("time", "log", "level", "operation", "pid")}
    words = ", ".join(f"{name}={value}" for name, value in rest.items())
    return f"{error['log']}: {error.get('operation')}: {words}"
