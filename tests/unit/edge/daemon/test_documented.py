"""The daemon's page names every option with its default, every finding and every call."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from totalizer.edge.daemon import CronRecoveryDaemon, DaemonOptions
from totalizer.edge.daemon import findings as findings_module

PAGE = (Path(__file__).parents[4] / "docs/reference/recovery-daemon.md").read_text("utf-8")


def rows() -> dict[str, list[str]]:
    """Rows of the page's tables, by what stands in backquotes in their first column."""
    found = {}
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("| `"):
            found[cells[0].split("`")[1]] = cells
    return found


def test_options() -> None:
    for option in fields(DaemonOptions):
        default = "" if option.default in (None, ()) else f"`{option.default}`"
        assert rows()[option.name][1] == default, option.name
        assert rows()[option.name][2]


def test_findings() -> None:
    source = Path(str(findings_module.__file__)).read_text("utf-8")
    named = set(re.findall(r'Finding\(\s*"(\w+)"', source))
    assert len(named) == 8
    assert named <= rows().keys()


def test_calls() -> None:
    methods = [name for name in vars(CronRecoveryDaemon) if not name.startswith("_")]
    assert len(methods) > 12
    assert [name for name in methods if f"`{name}(" not in PAGE] == []
