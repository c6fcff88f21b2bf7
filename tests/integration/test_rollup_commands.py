"""`totalizer rollup` and `totalizer verify --repair`, as an operator types them; and minutes that are cleared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from integration.rollup_model import catalog_with
from support import SECRET
from totalizer.clock import SYSTEM_CLOCK
from totalizer.collect import Collector
from totalizer.rollup.minutes import clear_minutes
from totalizer.store.plan import apply_plan, plan_catalog


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


@pytest.fixture
def stored(feed: Any, command: Any) -> str:
    """An organisation with events of two days, rolled up."""
    organization: str = feed.organization("acme", "Europe/Berlin")
    times = ["2025-03-29T23:10:00Z", "2025-03-30T10:00:00Z", "2025-03-30T10:14:00Z", "2025-03-31T00:00:00Z"]
    feed.send(organization, command_executions=[command(executed_at=time) for time in times])
    feed.load()
    feed.refresh()
    return organization


def test_a_wrong_number_is_named_repaired_and_recorded(feed: Any, totalizer: Any, stored: str) -> None:
    feed.administrator.execute("UPDATE analytics.command_usage_1d SET executions = 99 WHERE day = '2025-03-30'")
    code, output = totalizer("verify")
    assert (code, "1 of 1 does not balance" in output) == (1, True)
    [row] = [line for line in output.splitlines() if "2025-03-30" in line and "99" in line]
    assert all(word in row for word in ("acme", "command_usage", "1d", "command_name=plan", "executions", "3", "99"))
    assert totalizer("verify", "--organization", "acme", "--since", "2025-04-01")[0] == 0
    code, output = totalizer("verify", "--format", "json")
    [cell] = [each for each in json.loads(output)["cells"] if each["grain"] == "1d"]
    assert cell["measures"] == {"executions": {"expected": 3, "found": 99}}
    assert totalizer("rollup", "explain", "acme", "command_usage", "2025-03-30")[0] == 1
    code, output = totalizer("verify", "--repair")
    assert (code, "1 rows were wrong and are computed anew" in output) == (0, True), output
    assert feed.one("SELECT changes -> 0 -> 'found' ->> 'executions' FROM totalizer.repairs") == "99"
    assert totalizer("verify", "--rollup", "nothing")[0] == 1


def test_what_a_number_is_made_of(feed: Any, totalizer: Any, stored: str, command: Any) -> None:
    code, output = totalizer("rollup", "explain", "acme", "command_usage", "2025-03-30", "--format", "json")
    explained = json.loads(output)
    assert code == 0, output
    assert {layer["name"]: layer["total"] for layer in explained["layers"]} == {"1d": 1, "15m": 2, "events": 3}
    assert explained["starts"] == "2025-03-29 23:00:00+00:00"
    feed.send(stored, command_executions=[command(executed_at="2025-03-30T10:01:00Z")])
    feed.load()
    arguments = ("--grain", "1mo", "--where", "command_name=plan", "--format", "json")
    code, output = totalizer("rollup", "explain", "acme", "command_usage", "2025-03-30T10:00", *arguments)
    explained = json.loads(output)
    assert [(layer["name"], layer["total"]) for layer in explained["layers"]] == [
        ("1mo", 1), ("1d", 2), ("15m", 3), ("events", 5),
    ]  # fmt: skip
    assert [mark["bucket"] for mark in explained["marks"]] == ["2025-03-30 10:00:00+00:00"]
    assert totalizer("rollup", "explain", "acme", "command_usage", "2025-03-30")[0] == 0, "behind is not wrong"
    for wrong in (("nobody", "command_usage"), ("acme", "nothing")):
        assert totalizer("rollup", "explain", *wrong, "2025-03-30")[0] == 1


def test_refresh_backfill_and_status(feed: Any, totalizer: Any, stored: str) -> None:
    before = feed.rows("SELECT t::text FROM analytics.command_usage_15m t ORDER BY 1")
    for name in ("refresh", "backfill"):
        feed.administrator.execute("UPDATE analytics.command_usage_15m SET executions = 7")
        command = ("rollup", name, "--rollup", "command_usage", "--organization", "acme")
        code, output = totalizer(*command, "--from", "2025-03-30T00:00Z", "--to", "2025-03-30T12:00Z")
        assert (code, "computed 1 buckets" in output) == (0, True), output
        code, output = totalizer(*command, "--from", "2025-03-29", "--format", "json")
        assert (code, json.loads(output)) == (0, {"buckets": 3})
        assert feed.rows("SELECT t::text FROM analytics.command_usage_15m t ORDER BY 1") == before
    feed.administrator.execute(
        "INSERT INTO totalizer.dirty_marks (organization_id, event_type, bucket, rollup, priority) "
        "SELECT organization_id, 'command_executions', bucket, 'command_usage', 1 FROM analytics.command_usage_15m"
    )
    code, output = totalizer("rollup", "status", "--format", "json")
    found = {each["rollup"]: each for each in json.loads(output)}["command_usage"]
    assert (found["backfill"], found["live"], found["version"]) == (3, 0, 1)
    assert found["bytes"] > 0
    assert totalizer("rollup", "backfill") == (0, "computed 3 buckets anew\n"), "it goes on with what was begun"
    assert totalizer("rollup", "refresh") == (0, "computed 0 buckets anew\n")
    assert "command_usage" in totalizer("rollup", "status")[1]
    assert totalizer("rollup", "refresh", "--from", "2025-03-30", "--to", "2025-03-29")[0] == 1
    assert totalizer("rollup", "refresh", "--organization", "nobody")[0] == 1


def test_a_backfill_ends_with_its_own_marks_and_not_with_as_many_of_others(
    feed: Any, totalizer: Any, stored: str
) -> None:
    insert = (
        "INSERT INTO totalizer.dirty_marks (organization_id, event_type, bucket, priority) "
        "SELECT %s, 'command_executions', timestamptz '2025-03-01Z' + n * interval '15 min', %s "
        "FROM generate_series(1, %s) AS n"
    )
    feed.administrator.execute(insert, [stored, 1, 3])
    feed.administrator.execute(insert, [stored, 0, 50])
    code, output = totalizer("rollup", "backfill", "--format", "json")
    assert (code, json.loads(output)["buckets"] >= 50) == (0, True)
    assert feed.one("SELECT count(*)::int FROM totalizer.dirty_marks WHERE priority = 1") == 0


def test_old_minutes_are_cleared_and_nothing_else(feed: Any) -> None:
    catalog = catalog_with(("n",))
    apply_plan(feed.administrator, plan_catalog(feed.administrator, catalog))
    feed.collector = Collector(catalog, SYSTEM_CLOCK, batch_events_max=100_000)
    now = datetime.now(UTC)
    ages = [timedelta(hours=1), timedelta(days=30), timedelta(days=33)]
    for organization in (feed.organization("acme"), feed.organization("bits")):
        feed.send(organization, things=[{"at": (now - age).isoformat(), "name": "a"} for age in ages])
    feed.load()
    feed.refresh()
    # Two days pass.
    feed.administrator.execute("UPDATE analytics.by_name_1m SET bucket = bucket - interval '2 days'")
    kept = feed.one("SELECT count(*) FROM analytics.by_name_1m")
    assert kept == 4, "what was older than 31 days was not computed at all"
    assert clear_minutes(feed.reader) == {"rows": 2, "tables": {"by_name_1m": 2}}
    assert feed.one("SELECT min(bucket) > now() - interval '31 days 1 hour' FROM analytics.by_name_1m")
    assert clear_minutes(feed.reader) == {"rows": 0, "tables": {}}
    assert feed.one("SELECT count(*) FROM analytics.by_name_15m") == 6
