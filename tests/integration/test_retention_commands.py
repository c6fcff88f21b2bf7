"""`totalizer retention` and `totalizer late`, as an operator types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from support import SECRET


@pytest.fixture
def totalizer(database: Any, tmp_path: Path) -> Any:
    """Runs a command; returns exit code and output."""

    def run(*arguments: str) -> tuple[int, str]:
        environment = {**os.environ, "DATABASE_URL": database.url, "TOTALIZER_SECRET": SECRET, "TERM": "dumb"}
        done = subprocess.run(
            [sys.executable, "-m", "totalizer", *arguments, "--home", str(tmp_path / "home")],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    return run


def test_the_commands(feed: Any, command: Any, totalizer: Any) -> None:
    organization = feed.organization()
    now = feed.one("SELECT now()")

    def send(*ages: int) -> None:
        events = [command(id=f"{age}", executed_at=(now - timedelta(days=age)).isoformat()) for age in ages]
        feed.send(organization, command_executions=events)
        feed.load()

    send(200, 50, 1)
    feed.refresh()
    code, output = totalizer("retention", "set", "command_executions", "--raw", "40d", "--base", "41d")
    assert (code, "at least 2 days longer" in output) == (1, True)
    code, output = totalizer("retention", "set", "command_executions", "--organization", "acme", "--raw", "40d")
    assert code == 0, output
    assert all(word in output for word in ("acme", "40d", "70d", "80d", "forever", "set"))
    code, output = totalizer("retention", "run")
    assert (code, "removed 2 events (partitions dropped: 1)" in output) == (0, True), output
    code, output = totalizer("retention", "show", "--format", "json")
    shown = {(each["event_type"], each["organization"]): each for each in json.loads(output)}
    assert shown["commits", None]["raw"] == "forever"
    assert shown["commits", None]["source"] == "declared"
    assert shown["executions", None]["source"] == "usual"
    kept_from = (now - timedelta(days=40)).date().isoformat()
    assert shown["command_executions", "acme"]["raw_floor"].startswith(kept_from)

    send(60, 201, 202)
    code, output = totalizer("late", "list", "--format", "json")
    counts = {(each["state"], each["events"]) for each in json.loads(output)["counts"]}
    assert (code, counts) == (0, {("late", 1), ("held", 2)})
    held = sorted(each["id"] for each in json.loads(output)["late_events"] if each["state"] == "held")
    code, output = totalizer("late", "drop", str(held[0]), "--yes")
    assert (code, output.startswith("dropped 1; they are in ")) == (0, True), output
    [line] = Path(output.split(" are in ")[1].strip()).read_text().splitlines()
    assert json.loads(line)["values"]["command_name"] == "plan"
    code, output = totalizer("late", "apply", "--organization", "acme")
    assert (code, "added 2 events, of which 1 were held" in output) == (0, True), output
    assert feed.one("SELECT sum(executions)::int FROM analytics.command_usage_1mo") == 5
    assert totalizer("verify")[0] == 0
    assert totalizer("late", "drop", str(held[0]), "--yes")[0] == 1, "it is not there any more"
    assert totalizer("retention", "set", "command_executions", "--organization", "acme", "--usual")[0] == 0
