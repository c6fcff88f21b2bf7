"""`totalizer validate`: the integrity of everything the batching library keeps, and of what became of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from totalizer.edge.integrity import Finding, Level, Verdict, verdicts
from totalizer.errors import OperationError, StoreUnavailable
from totalizer.ops.batching.actions import quietly, show_json
from totalizer.ops.batching.place import ConfigOption, DataPathOption, find_place
from totalizer.ops.commands.options import Format, FormatOption, HomeOption
from totalizer.ops.connection import stack_settings
from totalizer.ops.console import FAILED, OUT
from totalizer.ops.lazy import server_part

#: Findings shown to people; `--format json` has all.
SHOWN_MAX = 200


@dataclass
class _Report:
    """All verdicts, and what the database said."""

    verdicts: list[Verdict]
    database: dict[str, Any] = field(default_factory=dict)
    balances: list[tuple[str, Finding]] = field(default_factory=list)

    @property
    def problems(self) -> int:
        wrong = [finding for verdict in self.verdicts for finding in verdict.findings]
        wrong += [finding for _, finding in self.balances]
        return sum(finding.level is Level.PROBLEM for finding in wrong)


def validate(
    full: Annotated[
        bool, typer.Option("--full", help="Also every entry, what waits, and the database if one can be reached.")
    ] = False,
    config: ConfigOption = None,
    data_path: DataPathOption = None,
    home: HomeOption = None,
    form: FormatOption = Format.TEXT,
) -> None:
    """Check every file and journal of the batching library. Exit code 1 if anything is wrong."""
    place = find_place(data_path, config)
    place.require()
    report = _Report(quietly(lambda: list(verdicts(place.folders, full=full))))
    if full:
        _look_up(report, home)
    if form is Format.JSON:
        show_json(_document(report, full))
    else:
        _show(report)
    if report.problems:
        raise typer.Exit(FAILED)


def _look_up(report: _Report, home: Path | None) -> None:
    """Hold the batch files against the database, if there is one."""
    try:
        settings = stack_settings(home)
        roles, app = server_part("totalizer.store.roles"), server_part("totalizer.app")
        dsn = app.dsn_of(settings, roles.Role.REFRESHER)
        connection = server_part("totalizer.store.connect").connect(dsn, autocommit=True)
    except (OperationError, StoreUnavailable) as error:
        report.database = {"reached": False, "reason": str(error)}
        return
    stored = server_part("totalizer.ops.batching.stored")
    tally = stored.Tally()
    with server_part("totalizer.store.connect").in_plain_words(), connection:
        report.verdicts = [
            _with_database(verdict, connection, stored, tally) if verdict.kind == "batch" and verdict.sound else verdict
            for verdict in report.verdicts
        ]
        report.balances = list(stored.balance_findings(connection))
    report.database = {"reached": True, "entries": tally.entries, "stored": tally.stored}


def _with_database(verdict: Verdict, connection: Any, stored: Any, tally: Any) -> Verdict:
    try:
        return replace(
            verdict, findings=(*verdict.findings, *stored.stored_findings(connection, verdict.path, tally))
        )  # fmt: skip
    except FileNotFoundError:  # taken over meanwhile
        return verdict


def _document(report: _Report, full: bool) -> dict[str, Any]:
    return {
        "sound": not report.problems, "problems": report.problems, "full": full, "database": report.database or None,
        "balances": [{"what": what, "text": finding.text} for what, finding in report.balances],
        "files": [verdict.to_document() for verdict in report.verdicts],
    }  # fmt: skip


def _show(report: _Report) -> None:
    found = [(str(verdict.path), finding) for verdict in report.verdicts for finding in verdict.findings]
    found = sorted([*found, *report.balances], key=lambda item: item[1].level is not Level.PROBLEM)
    if found:
        table = Table("where", "finding", show_lines=False)
        for where, finding in found[:SHOWN_MAX]:
            color = "red" if finding.level is Level.PROBLEM else "yellow"
            table.add_row(escape(where), f"[{color}]{escape(finding.text)}[/]")
        OUT.print(table)
    if len(found) > SHOWN_MAX:
        OUT.print(f"… and {len(found) - SHOWN_MAX} more; --format json has all", markup=False)
    for line in _summary(report):
        OUT.print(line)


def _summary(report: _Report) -> list[str]:
    kinds = Counter(verdict.kind for verdict in report.verdicts)
    entries = sum(verdict.entries for verdict in report.verdicts if verdict.kind == "batch")
    counted = ", ".join(f"{kind} {count:,}" for kind, count in kinds.items() if kind != "other")
    lines = [f"checked: {counted}; entries in batch files: {entries:,}"]
    if report.database.get("reached"):
        stored, looked_up = report.database["stored"], report.database["entries"]
        lines.append(f"database: {stored:,} of {looked_up:,} entries stored, {looked_up - stored:,} not imported")
    elif report.database:
        lines.append(f"database: not looked at: {escape(report.database['reason'])}")
    if report.problems:
        return [*lines, f"[bold red]{report.problems:,} problems[/]"]
    return [*lines, "[bold green]no problem[/]"]
