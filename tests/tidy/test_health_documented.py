"""Checks, levels, remedies and rules are in their document as they are in the code."""

from __future__ import annotations

import re
from pathlib import Path

from totalizer.health.config import load_config
from totalizer.health.table import CHECKS


def rows(root: Path, heading: str) -> dict[str, list[str]]:
    """Rows of the first table below a heading, by what stands in backquotes in their first column."""
    text = (root / "docs/reference/health.md").read_text("utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if name := re.fullmatch(r"`([a-z_]+)`", cells[0]):
            found[name[1]] = cells
    return found


def level(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def test_every_check_is_documented_as_it_is_and_no_other(root: Path) -> None:
    shown = rows(root, "Checks")
    assert {name: cells[1:] for name, cells in shown.items()} == {
        check.name: [
            check.title, level(check.levels.warning), level(check.levels.critical), check.unit,
            "this machine" if check.local else "installation", check.remedy,
        ]
        for check in CHECKS
    }  # fmt: skip


def test_every_rule_is_documented_as_it_is_shipped_and_no_other(root: Path) -> None:
    config = load_config(None)
    shown = rows(root, "Rules")
    assert {name: cells[1:] for name, cells in shown.items()} == {
        name: [f"`{rule.check}`", f"{rule.for_s:g}"] for name, rule in config.rules.items()
    }
    assert all((rule.status, rule.severity) == ("warning", None) for rule in config.rules.values())
    assert (config.alerts.repeat_s, config.alerts.escalate_s) == (4 * 3600, 30 * 60)
