"""The jobs under Celery: real workers and beats on a real Valkey and PostgreSQL, killed and cut off."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
import urllib3
from celery import Celery

from scheduled import Process, environment_of, running, runs_of, settings_of
from support import Cluster, Database, free_port, of_each, wait_until
from totalizer.errors import OperationError
from totalizer.jobs.celery_config import task_name
from totalizer.jobs.celery_tasks import make_app
from totalizer.jobs.table import jobs
from totalizer.ops.embedded import EmbeddedValkey
from totalizer.settings import Settings, load_settings
from totalizer.store.roles import Role

HOUR = "2025-01-09T14:00:00"


class Place:
    """A database, a Valkey and the processes on them."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database, self.folder = database, folder
        self.valkey = EmbeddedValkey(folder / "home")
        self.valkey.start()
        self._open = ExitStack()
        self.environment = environment_of(database, folder / "home", REDIS_URL=self.valkey.url)

    @property
    def app(self) -> Celery:
        """As a program that sends tasks has it."""
        settings = settings_of(self.database, REDIS_URL=self.valkey.url)
        app, _ = make_app(lambda: settings)
        self._open.callback(app.close)
        return app

    def send(self, name: str, *arguments: Any, **named: Any) -> Any:
        """Send a task; its result to come."""
        return self.app.tasks[name].apply_async(args=arguments, kwargs=named)

    def celery(self, name: str, *words: str, ready: str = "", **more: str) -> Process:
        """A worker, beat or flower; until the test's end."""
        log = self.folder / f"{name}.log"
        program = ("celery", "-A", "totalizer.celery_app", *words)
        process = self._open.enter_context(running(log, {**self.environment, **more}, *program))
        wait_until(lambda: ready in process.output() or process.process.poll() is not None, f"{name}: {ready}")
        assert process.process.poll() is None, process.output()
        return process

    def worker(self, name: str = "worker", *words: str, **more: str) -> Process:
        """A worker that is ready."""
        options = ("worker", "--hostname", f"{name}@%h", "--concurrency", "2", "--loglevel", "info", *words)
        return self.celery(name, *options, ready=" ready.", **more)

    def beat(self, name: str = "beat") -> Process:
        """A beat."""
        options = ("beat", "--loglevel", "info", "--schedule", str(self.folder / name), "--pidfile=")
        return self.celery(name, *options, ready="beat: Starting")

    def blocked(self) -> Any:
        """A connection that keeps compact_ledger waiting until it is closed."""
        connection = self.database.connect(autocommit=False)
        connection.execute("LOCK TABLE totalizer.load_ledger IN ACCESS EXCLUSIVE MODE")
        return connection

    def states(self, job: str, columns: str = "state") -> list[Any]:
        """Of a job's runs."""
        return [row[0] if len(row) == 1 else row for row in runs_of(self.database, job, columns)]

    def close(self) -> None:
        """End everything."""
        self._open.close()
        self.valkey.stop()


@pytest.fixture
def place(database: Database, tmp_path: Path) -> Iterator[Place]:
    place = Place(database, tmp_path)
    try:
        yield place
    finally:
        place.close()


def test_a_task_returns_what_the_job_did_and_is_recorded(place: Place) -> None:
    place.worker()
    result = place.send("hourly_rollup_task", HOUR).get(timeout=60)
    assert (result["task"], result["status"], result["window_start"]) == ("hourly_rollup", "done", f"{HOUR}+00:00")
    assert place.states("hourly_rollup", "state, runner") == [("done", "celery")]
    given = {"start_date": "2025-01-01T00:00:00", "end_date": "2025-01-03T00:00:00", "granularity": "hourly"}
    assert place.send("backfill_aggregations_task", **given).get(timeout=60)["status"] == "done"
    checked = place.send("health_check_task").get(timeout=60)
    assert (checked["task"], checked["checks"]["database"]["status"]) == ("health_check", "healthy")
    failed = place.send("daily_rollup_task", "soon")
    with pytest.raises(Exception, match="target_date=soon: must be an ISO 8601"):
        failed.get(timeout=60)
    assert failed.state == "FAILURE"


def test_tasks_of_one_job_wait_for_each_other_and_are_all_done(place: Place) -> None:
    place.worker()
    sent = [place.send("hourly_rollup_task", f"2025-01-09T{hour:02d}:00") for hour in range(4)]
    starts = [result.get(timeout=60)["window_start"] for result in sent]
    assert starts == [f"2025-01-09T{hour:02d}:00:00+00:00" for hour in range(4)]
    assert place.states("hourly_rollup") == ["done"] * 4


def test_two_beats_and_two_workers_do_what_is_due_once(place: Place) -> None:
    for number in (1, 2):
        place.worker(f"worker{number}")
        place.beat(f"beat{number}")
    due_at_once = ("make_partitions", "compact_ledger", "forget_fates", "dead_letter_retry", "health_check")
    wait_until(lambda: all("done" in place.states(job) for job in due_at_once), "the first runs")
    wait_until(lambda: place.states("refresh_rollups") != [], "the rollups' refresh")
    for job in due_at_once:
        moments = place.states(job, "scheduled_for")
        assert len(moments) == len(set(moments)), f"{job}: each moment once"
    [request] = place.database.connect(Role.APP).execute("SELECT totalizer.request_job('verify')").fetchall()
    wait_until(lambda: (request[0], "done") in place.states("verify", "id, state"), "the run that was asked for")


def test_a_task_whose_process_is_killed_is_done_by_another_once(place: Place) -> None:
    block = place.blocked()
    worker = place.worker()
    result = place.send("compact_ledger_task")
    wait_until(lambda: place.states("compact_ledger") == ["running"], "its begin")
    pool = psutil.Process(worker.process.pid).children()
    # The process of the pool that runs the task has a thread more, which watches its limits.
    [busy] = [pid for pid, threads in of_each(pool, lambda child: (child.pid, child.num_threads())) if threads > 1]
    os.kill(busy, signal.SIGKILL)
    block.rollback()
    assert result.get(timeout=60)["status"] == "done"
    assert place.states("compact_ledger", "state, attempt") == [("lost", 1), ("done", 2)]


def test_a_worker_that_is_killed_is_replaced_by_the_next_look(place: Place) -> None:
    block = place.blocked()
    first = place.worker("first")
    beat = place.beat()
    wait_until(lambda: place.states("compact_ledger") == ["running"], "its begin")
    first.kill()
    place.worker("second")
    wait_until(lambda: "lost" in place.states("compact_ledger"), "the look that finds it lost")
    block.rollback()
    wait_until(lambda: place.states("compact_ledger", "state, attempt")[-1] == ("done", 2), "the second try")
    assert place.states("compact_ledger") == ["lost", "done"]
    assert beat.process.poll() is None


def test_a_redis_that_is_away_and_comes_back_empty_costs_nothing(place: Place) -> None:
    worker, beat = place.worker(), place.beat()
    wait_until(lambda: "done" in place.states("health_check"), "the first runs")
    block = place.blocked()
    place.database.connect(Role.APP).execute("SELECT totalizer.request_job('compact_ledger')")
    wait_until(lambda: "running" in place.states("compact_ledger"), "a run that outlives Redis")
    place.valkey.stop()
    for file in place.valkey.data.glob("appendonlydir/*"):
        file.unlink()
    place.database.connect(Role.APP).execute("SELECT totalizer.request_job('verify')")
    wait_until(lambda: "onnection" in worker.output(), "the worker's complaint")
    block.rollback()
    wait_until(lambda: "running" not in place.states("compact_ledger"), "the end of the run without Redis")
    place.valkey.start()
    wait_until(lambda: place.states("verify") == ["done"], "what was asked for meanwhile")
    assert place.states("compact_ledger").count("running") == 0
    assert (worker.process.poll(), beat.process.poll()) == (None, None)


def test_postgresql_stopped_under_a_worker_costs_time_only(place: Place, cluster: Cluster) -> None:
    worker, beat = place.worker(), place.beat()
    wait_until(lambda: "done" in place.states("compact_ledger"), "the first runs")
    place.blocked()
    interrupted = place.send("compact_ledger_task")
    wait_until(lambda: "running" in place.states("compact_ledger"), "the begin of what will be interrupted")
    with cluster.stopped():
        unbegun = place.send("monthly_rollup_task", "2025-01-09")
        said = ("job lost", "the end of a run could not be recorded", "jobs cannot be looked after", "Retry in")
        wait_until(lambda: all(words in worker.output() for words in said), "what the worker says of it")
        wait_until(lambda: f"monthly_rollup_task[{unbegun.id}] retry" in worker.output(), "the task that cannot begin")
    assert [task.get(timeout=60)["status"] for task in (interrupted, unbegun)] == ["done", "done"]
    runs = place.states("compact_ledger", "ticket, state, attempt")
    assert [run[1:] for run in runs if run[0] == interrupted.id] == [("lost", 1), ("done", 2)]
    assert place.states("monthly_rollup", "ticket, state, attempt") == [(unbegun.id, "done", 1)]
    wait_until(lambda: "jobs are looked after again" in worker.output(), "the end of it")
    assert (worker.process.poll(), beat.process.poll()) == (None, None)


@pytest.mark.parametrize("words", [("--autoscale", "3,1"), ("-Q", "aggregation"), ("-Q", "maintenance")])
def test_workers_take_the_options_that_are_documented(place: Place, words: tuple[str, ...]) -> None:
    place.celery("other", "worker", "--loglevel", "info", *words, ready=" ready.")
    other = "hourly_rollup_task" if words[1] != "maintenance" else "health_check_task"
    assert place.send(other).get(timeout=60)["task"] in ("hourly_rollup", "health_check")


def test_flower_shows_workers_and_tasks(place: Place, tmp_path: Path) -> None:
    place.worker()
    port = free_port()
    options = (f"--port={port}", "--address=127.0.0.1")
    place.celery("flower", "flower", *options, ready="Connected to", FLOWER_UNAUTHENTICATED_API="1")
    url = f"http://127.0.0.1:{port}"
    http = urllib3.PoolManager(retries=False, timeout=30)

    def seen() -> bool:
        # Events from before Flower listened are not told again, so a task more is sent for each look.
        place.send("hourly_rollup_task", HOUR).get(timeout=60)
        tasks = http.request("GET", f"{url}/api/tasks").json()
        return ("hourly_rollup_task", "SUCCESS") in [(task["name"], task["state"]) for task in tasks.values()]

    wait_until(seen, "the task in Flower")
    workers = http.request("GET", f"{url}/api/workers?refresh=1").json()
    assert [name.split("@")[0] for name in workers] == ["worker"]
    [worker] = workers.values()
    assert {queue["name"] for queue in worker["active_queues"]} == {"aggregation", "maintenance"}
    assert set(worker["registered"]) >= {task_name(name) for name in jobs(load_settings())}
    if os.environ.get("TOTALIZER_TEST_BROWSER"):
        look_at(f"{url}/tasks", tmp_path / "flower.png")


def look_at(url: str, picture: Path) -> None:
    """Flower's page of tasks in a browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ["TOTALIZER_TEST_BROWSER"], args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1400, "height": 700})
        page.goto(url)
        page.get_by_text("hourly_rollup_task").first.wait_for(timeout=30_000)
        page.screenshot(path=str(picture))
        browser.close()


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({}, "Error: no database: nothing runs on "),
        ({"DATABASE_URL": "postgresql://nobody@localhost/none"}, "Error: no broker for Celery: set CELERY_BROKER_URL "),
    ],
)
@pytest.mark.parametrize("part", ["worker", "beat"])
def test_what_is_not_set_is_said_in_one_line(part: str, named: dict[str, str], expected: str, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **named}
    command = [sys.executable, "-m", "celery", "-A", "totalizer.celery_app", part]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(expected)
    assert done.stderr.count("\n") == 1


def test_a_program_that_sends_tasks_gets_the_error_itself() -> None:
    def not_set() -> Settings:
        raise OperationError("no database")

    app, _ = make_app(not_set)
    with pytest.raises(OperationError, match="no database"):
        app.conf.broker_url  # noqa: B018 - asking for it is what is tried
