"""`totalizer cleanup`: removes old files of the batching library that nobody needs."""

from __future__ import annotations

import re
from dataclasses import replace
from enum import StrEnum
from typing import Annotated

import typer

from totalizer.edge.daemon import CronRecoveryDaemon
from totalizer.ops.batching.actions import quietly, show_json
from totalizer.ops.batching.place import ConfigOption, DataPathOption, find_place
from totalizer.ops.batching.show import size
from totalizer.ops.commands.options import Format, FormatOption
from totalizer.ops.console import FAILED, OUT

#: Milliseconds of each unit of an age.
UNITS_MS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
#: Files named for people in a dry run; `--format json` names all.
NAMED_MAX = 50

_AGE = re.compile(r"(\d{1,6})([mhdw])").fullmatch


class Batches(StrEnum):
    """Which old batch files go."""

    IMPORTED = "imported"
    NEVER = "never"
    AGED = "aged"


def _checked_age(text: str) -> str:
    found = _AGE(text)
    if not found or not int(found[1]):
        raise typer.BadParameter(f"{text!r} must be a number from 1 on with m, h, d or w, such as 30m, 12h, 7d or 2w")
    return text


def age_ms(text: str) -> int:
    """Milliseconds of an age such as `30m`, `12h`, `7d`, `2w`, which was checked."""
    return int(text[:-1]) * UNITS_MS[text[-1]]


def cleanup(
    age: Annotated[
        str, typer.Option("--age", help="Only what is older: 30m, 12h, 7d, 2w.", callback=_checked_age)
    ] = "7d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    batches: Annotated[
        Batches, typer.Option("--batches", help="Which batch files: those in imported/, none, or all old ones.")
    ] = Batches.IMPORTED,
    config: ConfigOption = None,
    data_path: DataPathOption = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Remove old health files, logs and drafts, and batch files that were taken over. Never what was not delivered."""
    place = find_place(data_path, config)
    place.require()
    daemon = CronRecoveryDaemon(replace(place.daemon, cleanup_batches=batches.value))
    if dry_run:
        files = quietly(lambda: daemon.identify_files_for_cleanup(age_ms(age)))
        _show_files([str(path) for path in files], form)
        return
    done = quietly(lambda: daemon.perform_cleanup(age_ms(age)))
    if form is Format.JSON:
        show_json(done.to_document())
    else:
        OUT.print(f"{done.files_removed} files removed, {size(done.space_freed)} freed", markup=False)
    if done.errors:
        OUT.print(f"{done.errors} files could not be removed; see logs/recovery.log", markup=False)
        raise typer.Exit(FAILED)


def _show_files(files: list[str], form: Format) -> None:
    if form is Format.JSON:
        show_json({"files": files})
        return
    for name in files[:NAMED_MAX]:
        OUT.print(name, markup=False)
    if len(files) > NAMED_MAX:
        OUT.print(f"… and {len(files) - NAMED_MAX} more", markup=False)
    OUT.print(f"{len(files)} files would be removed", markup=False)
