"""`totalizer migrate-v1`: batch files of version 1 become files of version 2.0.0, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import msgspec
import typer
from rich.markup import escape
from rich.table import Table

from totalizer.edge.folder import write_file
from totalizer.edge.migrate_v1 import MigrationReport, Outcome, migrate, rollback
from totalizer.errors import OperationError
from totalizer.ops.batching.actions import show_json
from totalizer.ops.batching.place import DataPathOption, find_place
from totalizer.ops.commands.options import Format, FormatOption
from totalizer.ops.console import FAILED, OUT
from totalizer.window import zone

#: Files named in a report for people; --report has all.
NAMED_MAX = 50


def migrate_v1(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="Folder with batch files of version 1, or one file.")
    ],
    data_path: DataPathOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    undo: Annotated[bool, typer.Option("--rollback", help="Put the originals back and remove the new files.")] = False,
    time_zone: Annotated[
        Optional[str],  # noqa: UP045 - Typer reads the annotation at run time
        typer.Option("--time-zone", help="IANA zone of times that are written without one.", show_default=False),
    ] = None,
    report: Annotated[
        Optional[Path],  # noqa: UP045 - Typer reads the annotation at run time
        typer.Option("--report", help="Also write the report to this file, as JSON.", show_default=False),
    ] = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Convert batch files of version 1. Originals are kept in SOURCE/v1-backup. Exit code 1 if one was left."""
    if undo:
        _roll_back(source, dry_run, form)
        return
    try:
        where = zone(time_zone) if time_zone is not None else None
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    done = migrate(source, find_place(data_path).folders, zone=where, dry_run=dry_run)
    if report is not None:
        _write(report, done)
    if form is Format.JSON:
        show_json(done.to_document())
    else:
        _show(done)
    if done.of(Outcome.LEFT):
        raise typer.Exit(FAILED)


def _roll_back(source: Path, dry_run: bool, form: Format) -> None:
    restored = rollback(source, dry_run=dry_run)
    if form is Format.JSON:
        show_json({"dryRun": dry_run, "restored": restored})
        return
    OUT.print(f"{len(restored)} files {'can be put' if dry_run else 'are'} back where they were", markup=False)


def _write(path: Path, report: MigrationReport) -> None:
    data = msgspec.json.format(msgspec.json.encode(report.to_document()), indent=2) + b"\n"
    try:
        write_file(path, data)
    except OSError as error:
        raise OperationError(f"the report {path} cannot be written: {error.strerror or error}") from error


def _show(report: MigrationReport) -> None:
    table = Table("file", "outcome", "entries", "new file, or reason")
    named = sorted(report.files, key=lambda file: file.outcome is not Outcome.LEFT)
    for file in named[:NAMED_MAX]:
        words = "; ".join([file.reason or file.target or "it is of version 2 already", *file.notes])
        color = "red" if file.outcome is Outcome.LEFT else "green"
        outcome = "would be converted" if report.dry_run and file.target else file.outcome.value
        table.add_row(escape(file.source), f"[{color}]{outcome}[/]", f"{file.entries:,}", escape(words))
    if report.files:
        OUT.print(table)
    if len(named) > NAMED_MAX:
        OUT.print(f"… and {len(named) - NAMED_MAX} more files; --report FILE names all", markup=False)
    converted, left = len(report.of(Outcome.CONVERTED)), len(report.of(Outcome.LEFT))
    would = "would be " if report.dry_run else ""
    OUT.print(f"{converted} files with {report.entries:,} entries {would}converted, {left} left", markup=False)
    if converted and not report.dry_run:
        OUT.print(f"originals are in {report.source}/v1-backup; --rollback puts them back", markup=False)
