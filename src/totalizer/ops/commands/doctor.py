"""`totalizer doctor`: looks a deployment over."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from totalizer.errors import TotalizerError
from totalizer.ops.commands.options import HomeOption
from totalizer.ops.connection import stack_settings
from totalizer.ops.console import OUT
from totalizer.ops.lazy import server_part

if TYPE_CHECKING:
    from totalizer.ops.doctor.finding import Finding

#: Exit code when something does not work or is not safe.
ILL = 1
_COLOURS = {"ok": "green", "warning": "yellow", "error": "bold red"}


def doctor(
    home: HomeOption = None,
    format_: Annotated[str, typer.Option("--format", help="text or json.")] = "text",
) -> None:
    """Look at settings, connections, roles, row security, partitions, lag, clock and disk, and say what to do."""
    if format_ not in ("text", "json"):
        raise typer.BadParameter(f"{format_}: must be text or json", param_hint="--format")
    findings = []
    for finding in _findings(home):
        findings.append(finding)
        if format_ == "text":
            OUT.print(_line(finding))
    if format_ == "json":
        OUT.print_json(json.dumps([asdict(finding) for finding in findings]))
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(ILL)


def _findings(home: HomeOption) -> list[Finding]:
    finding = server_part("totalizer.ops.doctor.finding").Finding
    try:
        settings = stack_settings(home)
    except TotalizerError as error:
        return [finding("settings", "error", str(error), "correct them; docs/reference/settings.md lists all")]
    return list(server_part("totalizer.ops.doctor.examination").examine(settings))


def _line(finding: Finding) -> str:
    colour = _COLOURS[finding.severity]
    head = f"[{colour}]{finding.severity:<8}[/]{escape(finding.subject)}: {escape(finding.detail)}"
    return f"{head}\n        [bold]→[/] {escape(finding.remedy)}" if finding.remedy else head
