"""Schedulers as processes: two at once, killed in the middle, without a database for a while, after downtime."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scheduled import LONG_AGO, Process, environment_of, runs_of
from support import Cluster, Database, wait_until
from totalizer.errors import OperationError
from totalizer.jobs.aws_lambda import handler

DUE_AT_ONCE = ("make_partitions", "compact_ledger", "forget_fates", "dead_letter_retry", "health_check")


@pytest.fixture
def start(database: Database, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts a scheduler; killed in the end."""
    started: list[Process] = []

    def start(**more: str) -> Process:
        environment = environment_of(database, tmp_path / "home", **more)
        log = tmp_path / f"scheduler{len(started)}.log"
        started.append(Process(log, environment, "totalizer", "job", "scheduler"))
        return started[-1]

    yield start
    for process in started:
        process.kill()


def done(database: Database, *names: str) -> bool:
    return all(("done",) in runs_of(database, name) for name in names)


def test_two_schedulers_do_what_is_due_once_and_stop_in_order(database: Database, start: Any) -> None:
    schedulers = [start(), start()]
    wait_until(lambda: done(database, *DUE_AT_ONCE, "refresh_rollups"), "the first runs")
    for name in DUE_AT_ONCE:
        moments = runs_of(database, name, "scheduled_for")
        assert len(moments) == len(set(moments)), name
    assert [scheduler.stop() for scheduler in schedulers] == [0, 0]


def test_when_one_is_killed_in_the_middle_the_other_does_its_work_again(database: Database, start: Any) -> None:
    block = database.connect(autocommit=False)
    block.execute("LOCK TABLE totalizer.load_ledger IN ACCESS EXCLUSIVE MODE")
    first = start()
    wait_until(lambda: runs_of(database, "compact_ledger") == [("running",)], "its begin")
    second = start()
    wait_until(lambda: done(database, "health_check"), "the others' runs")
    first.kill()
    wait_until(lambda: ("lost", 1) in runs_of(database, "compact_ledger", "state, attempt"), "that it is found lost")
    block.rollback()
    wait_until(lambda: ("done", 2) in runs_of(database, "compact_ledger", "state, attempt"), "the second try")
    assert len(runs_of(database, "compact_ledger")) == 2
    assert second.stop() == 0
    assert "job lost" in second.output()


def test_what_was_missed_while_nothing_ran_is_made_up_for_once(database: Database, start: Any) -> None:
    administrator = database.connect()
    administrator.execute(
        "INSERT INTO totalizer.jobs (name, description, queue, soft_limit, hard_limit, enabled, requestable, "
        "known_since) SELECT name, 'x', 'aggregation', '1h', '1h', true, true, %s FROM unnest(%s::text[]) AS name",
        [LONG_AGO, ["daily_rollup", "weekly_rollup"]],
    )
    administrator.execute(
        "INSERT INTO totalizer.job_runs (job, state, scheduled_for, started_at, finished_at) VALUES "
        "('hourly_rollup', 'done', %(at)s, %(at)s, %(at)s)",
        {"at": "2026-01-09T14:05:00Z"},
    )
    scheduler = start(DAILY_ROLLUP_ENABLED="false")
    wait_until(lambda: done(database, "weekly_rollup"), "the week's run")
    wait_until(lambda: len(runs_of(database, "hourly_rollup")) == 2, "the hours' run")
    wait_until(lambda: runs_of(database, "hourly_rollup")[1] == ("done",), "its end")
    [_, (result,)] = runs_of(database, "hourly_rollup", "result")
    assert result["window_start"] == "2026-01-09T14:00:00+00:00", "all hours since the last run, in one"
    assert scheduler.stop() == 0
    assert [len(runs_of(database, name)) for name in ("hourly_rollup", "weekly_rollup")] == [2, 1]
    assert runs_of(database, "daily_rollup") == [], "it is switched off"
    assert runs_of(database, "monthly_rollup") == [], "nobody knew of it before"


def test_a_database_that_is_away_for_a_while(cluster: Cluster, database: Database, start: Any) -> None:
    scheduler = start()
    wait_until(lambda: done(database, *DUE_AT_ONCE), "the first runs")
    with cluster.stopped():
        wait_until(lambda: "jobs cannot be looked after" in scheduler.output(), "the complaint")
    wait_until(lambda: "jobs are looked after again" in scheduler.output(), "the end of it")
    database.connect().execute("SELECT totalizer.request_job('verify')")
    wait_until(lambda: done(database, "verify"), "a run after it")
    assert scheduler.output().count("jobs cannot be looked after") == 1, "said once"
    assert scheduler.stop() == 0


def test_one_run_by_a_process_that_knows_nothing_else(database: Database, tmp_path: Path) -> None:
    """As a cron job has it, and a container."""

    def run(*words: str, **more: str) -> tuple[int, Any]:
        ended = subprocess.run(
            [sys.executable, "-m", "totalizer", "job", *words, "--format", "json"],
            env=environment_of(database, tmp_path / "home", **more), cwd=tmp_path, capture_output=True, text=True,
            timeout=100, check=False,
        )  # fmt: skip
        return ended.returncode, json.loads(ended.stdout) if ended.stdout else ended.stderr

    assert run("run", "compact_ledger", "--due")[1]["state"] == "done"
    assert run("run", "compact_ledger", "--due") == (
        0,
        {"state": "not_due", "run_id": None, "result": None, "error": None},
    )
    code, outcomes = run("due")
    assert (code, outcomes["refresh_rollups"]["state"], outcomes["health_check"]["state"]) == (0, "done", "done")
    assert "compact_ledger" not in outcomes
    # At the turn of a minute some others are due again, and then no more.
    wait_until(lambda: set(run("due")[1]) == {"refresh_rollups"}, "what is done not being due")
    code, said = run("run", "verify", DATABASE_URL="postgresql://127.0.0.1:1/none")
    assert code == 1
    assert "PostgreSQL cannot be reached" in said


def test_the_lambda_function_runs_what_its_event_names(
    database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in environment_of(database, tmp_path / "home").items():
        if os.environ.get(name) != value:
            monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    answer = handler({"job": "hourly_rollup", "arguments": {"target_hour": "2025-01-09T14:00"}}, None)
    assert (answer["state"], answer["result"]["window_end"]) == ("done", "2025-01-09T15:00:00+00:00")
    assert handler({"job": "health_check", "due": True}, None)["state"] == "done"
    assert handler({"job": "health_check", "due": True}, None)["state"] == "not_due"
    assert "make_partitions" in handler({"due": True}, None)
    refused: list[tuple[dict[str, Any], str]] = [
        ({}, "names no job"), ({"job": "x"}, "no job 'x'"), ({"job": "verify", "arguments": {"a": 1}}, "argument 'a'"),
        ({"job": "daily_rollup", "due": True, "arguments": {"target_date": "2025-01-09"}}, "leave out `due`"),
    ]  # fmt: skip
    for event, words in refused:
        with pytest.raises(OperationError, match=words):
            handler(event, None)
    assert runs_of(database, "hourly_rollup", "runner, state") == [("lambda", "done")]
