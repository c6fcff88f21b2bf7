"""`totalizer import`: histories, files and logs into a running Totalizer."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from totalizer.ops.commands.options import HomeOption, KeyOption, UrlOption
from totalizer.ops.importers.access_log import AccessLogSource
from totalizer.ops.importers.batch_files import BatchFilesSource
from totalizer.ops.importers.checkpoint import Checkpoint
from totalizer.ops.importers.cloudevents import CloudEventsSource
from totalizer.ops.importers.display import Display
from totalizer.ops.importers.environment import catalog_paths, environment, home_folder
from totalizer.ops.importers.git import GitSource
from totalizer.ops.importers.ndjson import NdjsonSource
from totalizer.ops.importers.quarantine import Quarantine
from totalizer.ops.importers.reading import STDIN
from totalizer.ops.importers.report import Outcome, Report
from totalizer.ops.importers.run import run_import
from totalizer.ops.importers.sender import GIVE_UP_AFTER_S, Sender
from totalizer.ops.importers.source import Source
from totalizer.ops.importers.stop import Stop
from totalizer.ops.importers.target import Target, find_target

app = typer.Typer(
    no_args_is_help=True,
    help="Import git histories, JSON lines, CloudEvents, access logs, batch files. Repeating it changes nothing.",
)

#: Source names longer than this are refused by the server.
SOURCE_LENGTH_MAX = 255


def _input_path(path: str) -> str:
    if path != STDIN and not os.path.exists(path):
        raise typer.BadParameter(f"{path!r} does not exist")
    if path != STDIN and os.path.isdir(path):
        raise typer.BadParameter(f"{path!r} is a folder; name a file, or - for standard input")
    return path


def _batch_paths(paths: list[str]) -> list[str]:
    for path in paths:
        if not os.path.exists(path):
            raise typer.BadParameter(f"{path!r} does not exist")
    return paths


def _repository_path(path: str) -> str:
    if not os.path.isdir(path):
        raise typer.BadParameter(f"{path!r} is no folder")
    return path


def _source_name(name: str | None) -> str | None:
    if name is not None and len(name) > SOURCE_LENGTH_MAX:
        raise typer.BadParameter(f"longer than {SOURCE_LENGTH_MAX} characters")
    return name


FileArgument = Annotated[
    str, typer.Argument(metavar="FILE", help="Plain or gzip; - for standard input.", callback=_input_path)
]
SourceOption = Annotated[
    str | None,
    typer.Option(
        "--source",
        help="Name of the origin: an event's identity is its source and id.",
        callback=_source_name,
    ),
]
TypeOption = Annotated[str | None, typer.Option("--event-type", help="Type of every event in the file.")]
RestartOption = Annotated[bool, typer.Option("--restart", help="Send all again, also what an earlier import has sent.")]
GiveUpOption = Annotated[
    float,
    typer.Option("--give-up-after", help="Seconds without a usable answer after which to fail.", min=0.0),
]


@app.command("git")
def import_git(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="Work tree or bare repository.", callback=_repository_path)
    ],
    branch: Annotated[str | None, typer.Option("--branch", help="Branch, tag or commit.", show_default="HEAD")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All branches, remote branches and tags.")] = False,
    repository: Annotated[
        str | None,
        typer.Option("--repository", help="Name to count it under.", show_default="that of origin or folder"),
    ] = None,
    source: SourceOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    home: HomeOption = None,
    restart: RestartOption = False,
    give_up_after: GiveUpOption = GIVE_UP_AFTER_S,
) -> None:
    """Import the commits of a git repository as `commits` events."""
    if everything and branch is not None:
        raise typer.BadParameter("--all and --branch exclude each other")
    _import(
        lambda: GitSource(path, repository, branch, everything, source),
        url,
        key,
        home,
        restart,
        give_up_after,
    )


@app.command("ndjson")
def import_ndjson(
    file: FileArgument,
    event_type: TypeOption = None,
    source: SourceOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    home: HomeOption = None,
    restart: RestartOption = False,
    give_up_after: GiveUpOption = GIVE_UP_AFTER_S,
) -> None:
    """Import JSON lines; each names its type in `event_type` or `type`, or --event-type does for all."""
    _import(lambda: NdjsonSource(file, event_type, source), url, key, home, restart, give_up_after)


@app.command("cloudevents")
def import_cloudevents(
    file: FileArgument,
    event_type: TypeOption = None,
    catalog: Annotated[
        list[Path] | None,
        typer.Option("--catalog", help="Further catalog file or folder.", show_default="TOTALIZER_CATALOG"),
    ] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    home: HomeOption = None,
    restart: RestartOption = False,
    give_up_after: GiveUpOption = GIVE_UP_AFTER_S,
) -> None:
    """Import CloudEvents 1.0: JSON lines, or one JSON array."""
    from totalizer.catalog import load_catalog

    def source() -> CloudEventsSource:
        return CloudEventsSource(file, load_catalog(catalog_paths(catalog or [], environment())), event_type)

    _import(source, url, key, home, restart, give_up_after)


@app.command("access-log")
def import_access_log(
    file: FileArgument,
    source: SourceOption = None,
    url: UrlOption = None,
    key: KeyOption = None,
    home: HomeOption = None,
    restart: RestartOption = False,
    give_up_after: GiveUpOption = GIVE_UP_AFTER_S,
) -> None:
    """Import a web server's access log (common or combined format) as `http_requests` events."""
    _import(lambda: AccessLogSource(file, source), url, key, home, restart, give_up_after)


@app.command("batch-files")
def import_batch_files(
    path: Annotated[
        list[str],
        typer.Argument(
            help="Files, and folders to look for batch_*.json, *.failed.json and *.abandoned.json in.",
            callback=_batch_paths,
        ),
    ],
    url: UrlOption = None,
    key: KeyOption = None,
    home: HomeOption = None,
    restart: RestartOption = False,
    give_up_after: GiveUpOption = GIVE_UP_AFTER_S,
) -> None:
    """Import batch files of the batching library as `time_entries` events."""
    _import(lambda: BatchFilesSource(path), url, key, home, restart, give_up_after)


def _import(
    make_source: Callable[[], Source],
    url: str | None,
    key: str | None,
    home: Path | None,
    restart: bool,
    give_up_after_s: float,
) -> None:
    """Run one import and exit with its outcome."""
    folder = home_folder(home, environment())
    target = find_target(url, key, folder, environment())
    source, stop = make_source(), Stop()
    checkpoint = Checkpoint(folder, _identity(source, target)) if source.resumable else None
    if restart and checkpoint is not None:
        checkpoint.forget()
    title = f"import {source.kind} {source.scope[0]}"
    with Display(title, Console(stderr=True), Console()) as display, stop.on_signals():
        report = Report(Quarantine(folder, source.name), display)
        sender = Sender(target, stop, report.notice, give_up_after_s=give_up_after_s)
        try:
            run_import(source, sender, checkpoint, report)
        finally:
            sender.close()
    if report.outcome is not Outcome.ALL_ACCEPTED:
        raise typer.Exit(report.outcome.value)


def _identity(source: Source, target: Target) -> list[str]:
    """What makes an import the same as an earlier one: input, way of reading it, and place it goes to."""
    # The key stands for the organisation. It is hashed on its own, then with the rest, and never written.
    organization = hashlib.blake2b(target.key.encode(), digest_size=16).hexdigest()
    return [source.kind, source.name, *source.scope, target.url, organization]
