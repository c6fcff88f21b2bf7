"""`totalizer job …`: what a person or a timer runs, on a running stack."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from totalizer.app import usage_tracker
from totalizer.errors import OperationError
from totalizer.settings import load_settings


@pytest.fixture
def tracker(running_stack: Any) -> Any:
    state = json.loads((running_stack.home / "run" / "state.json").read_text())
    settings = load_settings(
        TOTALIZER_HOME=running_stack.home, DATABASE_URL=state["dsn"], REDIS_URL=state["redis_url"],
        TOTALIZER_SECRET=(running_stack.home / "secret").read_text().strip(),
    )  # fmt: skip
    with usage_tracker(settings=settings) as tracker:
        yield tracker
    with pytest.raises(OperationError, match="keys create"):
        usage_tracker("nobody", settings)


def totalizer(running_stack: Any, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "totalizer", "job", *arguments, "--home", str(running_stack.home)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def as_json(running_stack: Any, *arguments: str, code: int = 0) -> Any:
    return json.loads(totalizer(running_stack, *arguments, "--format", "json", code=code))


def test_the_documented_commands(running_stack: Any, tracker: Any) -> None:
    now = datetime.now(UTC)
    yesterday = now - timedelta(days=1)
    tracker.track("commands", "queries", 5, at=yesterday)
    assert isinstance(tracker.track("commands", "queries", 2, at="2025-03-01T00:00:00Z"), int)
    tracker.track("commands", "queries", 3, at="2025-03-02T00:00:00Z")
    running_stack.drain()
    assert as_json(running_stack, "status", "2025-03-01", code=1)["aggregated"] is False
    done = as_json(running_stack, "aggregate")
    assert (done["success"], done["date"]) == (True, str(yesterday.date()))
    assert done["records_aggregated"] >= 1
    assert done["records_settled"] >= 1
    assert as_json(running_stack, "aggregate-merchant", "commands", "2025-03-01")["records_aggregated"] == 1
    assert as_json(running_stack, "aggregate-merchant", "commands")["date"] == str(yesterday.date())
    assert as_json(running_stack, "aggregate-date", "2025-03-01")["records_aggregated"] == 1
    assert as_json(running_stack, "status", "2025-03-01")["aggregated"] is True
    span = as_json(running_stack, "aggregate-range", "2025-03-01", "2025-03-03")
    assert [(day["date"], day["records_settled"]) for day in span["days"]] == [
        ("2025-03-01", 1), ("2025-03-02", 1), ("2025-03-03", 0),
    ]  # fmt: skip
    assert span["alerts"] == ["nothing_aggregated"]
    assert "2025-03-02: aggregated; 1 figures of 1 merchants" in totalizer(running_stack, "status", "2025-03-02")
    assert "nothing aggregated" in totalizer(running_stack, "aggregate-range", "2025-03-01", "2025-03-03")


def test_a_wrong_counter_is_named_and_the_exit_code_tells(running_stack: Any) -> None:
    from redis import Redis

    url = json.loads((running_stack.home / "run" / "state.json").read_text())["redis_url"]
    with Redis.from_url(url) as redis:
        redis.set("usage:[m]:2025-04-01:q", "x")
        shown = totalizer(running_stack, "aggregate-date", "2025-04-01", code=1)
        assert "usage:[m]:2025-04-01:q: it holds 'x', not a count" in shown
        assert as_json(running_stack, "status", "2025-04-01", code=1)["alerts"] == ["errors", "nothing_aggregated"]
        assert "usage:[m]:2025-04-01:q" in totalizer(running_stack, "status", "2025-04-01", code=1)
        redis.delete("usage:[m]:2025-04-01:q")
        today = f"usage:[m]:{datetime.now(UTC).date()}:q"
        redis.set(today, "x")
        scheduled = as_json(running_stack, "run", "usage_aggregation", code=1)
        assert (scheduled["state"], today in scheduled["error"]) == ("failed", True), "as `job aggregate` has it"
        redis.delete(today)
    totalizer(running_stack, "aggregate-date", "2025-04-01")


@pytest.mark.parametrize(
    "arguments",
    [("aggregate-date",), ("aggregate-date", "today"), ("aggregate-range", "2025-01-02", "2025-01-01"),
     ("aggregate-range", "2025-01-02"), ("status", "x"), ("aggregate-merchant",), ("nothing",)],
)  # fmt: skip
def test_wrong_usage(running_stack: Any, arguments: tuple[str, ...]) -> None:
    totalizer(running_stack, *arguments, code=2)


def test_without_a_database_it_says_what_to_do(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "DB_HOST")}
    done = subprocess.run(
        [sys.executable, "-m", "totalizer", "job", "aggregate", "--home", str(tmp_path)],
        capture_output=True, text=True, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert "totalizer up" in done.stderr


def test_a_terminal_sees_progress(running_stack: Any) -> None:
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "totalizer", "job", "aggregate-range", "2025-05-01", "2025-05-05", "--home",
         str(running_stack.home)],
        stdout=follower, stderr=follower, env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"},
    )  # fmt: skip
    os.close(follower)
    shown = b""
    try:
        while piece := os.read(leader, 65536):
            shown += piece
    except OSError:  # how Linux tells that the other end is closed
        assert process.wait() == 0
    os.close(leader)
    process.wait()
    assert b"aggregating" in shown or b"2025-05-0" in shown.split(b"day (UTC)")[0]
    assert b"100%" in shown or b"80%" in shown
