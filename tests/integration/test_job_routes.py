"""Jobs over HTTP, on a running stack: listed, looked at, asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import urllib3

from support import RunningStack, Stack, new_organization, wait_until
from totalizer.store.keys import create_key

HTTP = urllib3.PoolManager(retries=False, timeout=30)


@pytest.fixture
def ask(running_stack: RunningStack) -> Any:
    """Asks as an administrator of an organisation; status and answer."""
    organization = new_organization(running_stack).organization_id
    with running_stack.connect(None) as connection:
        key = create_key(connection, organization, "admin", scopes=("admin",))

    def ask(method: str, path: str) -> tuple[int, Any]:
        answer = HTTP.request(method, running_stack.url + path, headers={"authorization": f"Bearer {key}"})
        return answer.status, answer.json()

    return ask


def test_jobs_are_listed_with_schedule_next_and_last_run(ask: Any) -> None:
    wait_until(lambda: all(job["last_run"] for job in ask("GET", "/api/jobs")[1]["jobs"]
                           if job["name"] in ("make_partitions", "health_check")), "the first runs")  # fmt: skip
    listed = {job["name"]: job for job in ask("GET", "/api/jobs")[1]["jobs"]}
    daily, health = listed["daily_rollup"], listed["health_check"]
    assert (daily["schedule"], daily["soft_limit_s"], daily["hard_limit_s"]) == ("daily 01:00 UTC", 6600, 7200)
    assert daily["next_run_at"].endswith("T01:00:00Z")
    assert daily["last_run"] is None or daily["last_run"]["job"] == "daily_rollup", "others may have run it by hand"
    assert (health["enabled"], health["queue"]) == (True, "maintenance")
    assert set(health["last_run"]) == {
        "id", "job", "state", "scheduled_for", "requested_at", "started_at", "finished_at", "duration_s", "rows",
        "runner", "attempt", "runs",
    }  # fmt: skip


def test_a_run_that_is_asked_for_is_run_by_the_scheduler(ask: Any) -> None:
    status, answer = ask("POST", "/api/jobs/compact_ledger/run")
    assert (status, answer["state"]) == (202, "requested")

    def run() -> dict[str, Any]:
        return next(run for run in ask("GET", "/api/jobs/compact_ledger/runs")[1]["runs"] if run["id"] == answer["id"])

    wait_until(lambda: run()["state"] == "done", "the run")
    assert run()["runner"] == "scheduler"
    assert run()["scheduled_for"] is None


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/jobs/nonsense/runs", 404, "not_found"), ("POST", "/api/jobs/nonsense/run", 404, "not_found"),
        ("POST", "/api/jobs/a%00b/run", 404, "not_found"), ("GET", "/api/jobs/a%00b/runs", 404, "not_found"),
        ("POST", "/api/jobs/backfill_aggregations/run", 404, "not_found"),
        ("GET", "/api/jobs/verify/runs?limit=0", 422, "invalid_query"),
    ],
)  # fmt: skip
def test_refusals(ask: Any, method: str, path: str, status: int, code: str) -> None:
    answered, answer = ask(method, path)
    assert answer["code"] == code
    assert answered == answer["status"] == status


def command(stack: Stack, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "totalizer", "job", *words, "--home", str(stack.home)],
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_commands_list_run_and_tell_of_runs(stack: Stack) -> None:
    code, shown = command(stack, "run", "hourly_rollup", "--arg", "target_hour=2025-01-09T14:00", "--format", "json")
    outcome = json.loads(shown)
    assert (code, outcome["state"], outcome["result"]["window_start"]) == (0, "done", "2025-01-09T14:00:00+00:00")
    code, shown = command(stack, "history", "hourly_rollup", "--format", "json")
    [run] = [run for run in json.loads(shown)["runs"] if run["id"] == outcome["run_id"]]
    assert (code, run["runner"], run["arguments"]) == (0, "command", {"target_hour": "2025-01-09T14:00"})
    code, shown = command(stack, "list")
    assert code == 0
    assert "hourly at :05" in shown
    code, shown = command(stack, "run", "health_check", "--due")
    assert (code, "nothing is due" in shown or "done" in shown) == (0, True)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("run", "nonsense"), 1, "no job 'nonsense'; there are refresh_rollups, "),
        (("run", "verify", "--arg", "day"), 1, "write NAME=VALUE"),
        (("run", "verify", "--arg", "day=1"), 1, "takes no argument 'day'; it takes none"),
        (("run", "daily_rollup", "--arg", "target_date=soon"), 1, "target_date=soon: must be an ISO 8601"),
        (("history", "nonsense"), 1, "no job 'nonsense'"),
    ],
)
def test_commands_say_what_is_wrong(stack: Stack, words: tuple[str, ...], code: int, said: str) -> None:
    ended, shown = command(stack, *words)
    assert said in shown
    assert ended == code
