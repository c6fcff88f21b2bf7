"""The checks over a real database and real journals, each with the real thing broken."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psycopg
import pytest

from scheduled import environment_of, job, settings_of
from support import wait_until
from totalizer.clock import SYSTEM_CLOCK
from totalizer.edge.folder import Folders
from totalizer.health.check import CheckResult
from totalizer.health.database import DatabaseProbe, facts_of
from totalizer.health.gather import Gatherer, Places
from totalizer.jobs.job import Context
from totalizer.jobs.run import Runner
from totalizer.jobs.table import job_named, jobs
from totalizer.ops.embedded import EmbeddedPostgres, EmbeddedValkey
from totalizer.store import runs
from totalizer.store.roles import LOGIN_ROLES, Role


class Checks:
    """Checks of one database and spool, made anew each time they are asked."""

    def __init__(self, database: Any, spool: Path, **changed: Any) -> None:
        self._database, self._spool, self._changed = database, spool, changed

    def __call__(self, name: str) -> CheckResult:
        home = self._spool.parent
        given: dict[str, Any] = {
            "dsn": lambda: self._database.dsn(Role.APP), "redis_url": None, "home": home, "spool": self._spool,
            "batches": Folders(home / "aggregated"), "quota_bytes": 1 << 30, **self._changed,
        }  # fmt: skip
        gatherer = Gatherer(Places(**given))
        try:
            return gatherer().result(name)
        finally:
            gatherer.close()

    def status(self, name: str) -> str:
        return self(name).status


@pytest.fixture
def checks(feed: Any) -> Checks:
    return Checks(feed.database, feed.spool)


def test_every_role_may_ask_and_learns_of_no_organisation(feed: Any, command: Any) -> None:
    organization = feed.organization("a name that nobody should see")
    feed.send(organization, command_executions=[command()])
    feed.load()
    for role in LOGIN_ROLES:
        with psycopg.connect(feed.database.dsn(role), autocommit=True) as connection:
            [(text,)] = connection.execute("SELECT totalizer.health_facts()::text").fetchall()
            assert facts_of(connection).accepted_hour == 1
        assert "nobody should see" not in text
        assert organization not in text


def test_all_is_well_on_a_database_that_is_looked_after(feed: Any, command: Any, checks: Checks) -> None:
    feed.send(feed.organization(), command_executions=[command() for _ in range(30)])
    feed.load()
    feed.refresh()
    Runner(settings_of(feed.database), "test").run_now(job_named(settings_of(feed.database), "make_partitions"))
    for name in ("database", "loader_lag", "rollup_lag", "success_rate", "ledger", "partitions", "quarantine"):
        assert (checks.status(name), name) == ("ok", name)


def test_a_database_that_was_never_migrated_is_told_apart_from_one_that_is_away(
    empty_database: Any, tmp_path: Path
) -> None:  # fmt: skip
    never = Checks(empty_database, tmp_path / "journal", dsn=lambda: empty_database.url)("database")
    assert (never.status, "totalizer migrate" in never.message) == ("critical", True)
    nowhere = "host=127.0.0.1 port=1 user=somebody password=hush dbname=hidden"
    away = Checks(empty_database, tmp_path / "journal", dsn=lambda: nowhere)("database")
    assert away.message == "the database cannot be reached"


def test_a_frozen_database_holds_nobody_up(tmp_path: Path) -> None:
    """SIGSTOP to every process of the server: connections are taken by the system, and nobody answers."""
    import psutil

    with EmbeddedPostgres(tmp_path / "database", "secret of this test") as server:
        probe = DatabaseProbe(lambda: server.dsn("postgres", "postgres"))
        assert "not migrated" in probe().problem
        postgres = psutil.Process(server.pid)
        family = [*postgres.children(recursive=True), postgres]
        for process in family:
            process.suspend()
        try:
            answer = probe()
            assert answer.facts is None
            assert answer.problem == "cannot be reached"
        finally:
            for process in reversed(family):
                process.resume()
        wait_until(lambda: "not migrated" in probe().problem, "an answer")
        probe.close()


def test_a_clock_that_goes_wrong_is_noticed(feed: Any) -> None:
    class Ahead:
        def now_ns(self) -> int:
            return SYSTEM_CLOCK.now_ns() + 45 * 10**9

        monotonic, sleep = SYSTEM_CLOCK.monotonic, SYSTEM_CLOCK.sleep

    probe = DatabaseProbe(lambda: feed.database.dsn(Role.APP), Ahead())
    skew = probe().skew_s
    probe.close()
    assert skew is not None
    assert 40 < skew < 50


def test_a_journal_that_fills_is_noticed_before_it_is_full(feed: Any) -> None:
    checks = Checks(feed.database, feed.spool, quota_bytes=4 << 20)
    assert checks.status("journal_quota") == "ok"
    organization = feed.organization()
    line = {"user_id": "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11", "command_name": "plan", "execution_time_ms": 1,
            "status": "success", "error_message": "x" * 900}  # fmt: skip
    seen = []
    for _ in range(40):
        feed.send(organization, command_executions=[line] * 100)
        status = checks.status("journal_quota")
        if not seen or seen[-1] != status:
            seen.append(status)
        if status == "critical":
            break
    assert seen == ["ok", "warning", "critical"]
    feed.load()
    feed.loader.drain()
    assert checks.status("journal_quota") == "ok"


def test_what_is_not_loaded_is_told_by_the_age_of_the_oldest(feed: Any, command: Any) -> None:
    """With a clock that is two minutes ahead, the record that was just written is two minutes old."""
    checks = Checks(feed.database, feed.spool)
    organization = feed.organization()
    feed.send(organization, command_executions=[command()])
    feed.load()
    feed.send(organization, command_executions=[command()])
    result = checks("loader_lag")
    assert result.value is not None
    assert 0 <= result.value < 60

    class Ahead:
        def now_ns(self) -> int:
            return SYSTEM_CLOCK.now_ns() + 120 * 10**9

        monotonic, sleep = SYSTEM_CLOCK.monotonic, SYSTEM_CLOCK.sleep

    home = feed.spool.parent
    gatherer = Gatherer(
        Places(lambda: feed.database.dsn(Role.APP), None, home, feed.spool, Folders(home / "aggregated"), 1 << 30),
        clock=Ahead(),
    )
    assert gatherer().result("loader_lag").status == "warning"
    gatherer.close()
    feed.load()
    assert checks("loader_lag").value == 0.0


def test_a_loader_that_is_stopped_is_noticed_and_one_that_goes_on_is_well(feed: Any, command: Any) -> None:
    """SIGSTOP to a real `totalizer load`; the level is lowered to a second."""
    from totalizer.health.check import Levels

    home = feed.spool.parent
    environment = environment_of(feed.database, home)
    with (home / "load.log").open("wb") as log:
        loader = subprocess.Popen([sys.executable, "-m", "totalizer", "load"], env=environment, stdout=log, stderr=log)
    gatherer = Gatherer(
        Places(lambda: feed.database.dsn(Role.APP), None, home, feed.spool, Folders(home / "aggregated"), 1 << 30),
        {"loader_lag": Levels(1, 600)},
    )
    organization = feed.organization()
    try:
        feed.send(organization, command_executions=[command()])
        wait_until(lambda: feed.one("SELECT count(*) FROM events.command_executions") == 1, "loading")
        loader.send_signal(signal.SIGSTOP)
        feed.send(organization, command_executions=[command()])
        wait_until(lambda: gatherer().result("loader_lag").status == "warning", "a warning")
        loader.send_signal(signal.SIGCONT)
        wait_until(lambda: gatherer().result("loader_lag").status == "ok", "its end")
    finally:
        loader.send_signal(signal.SIGCONT)
        loader.terminate()
        loader.wait(30)
        gatherer.close()


def test_marks_that_nobody_takes_are_noticed(feed: Any, command: Any, checks: Checks) -> None:
    feed.send(feed.organization(), command_executions=[command()])
    feed.load()
    feed.administrator.execute("UPDATE totalizer.dirty_marks SET marked_at = now() - interval '2 minutes'")
    assert checks.status("rollup_lag") == "warning"
    feed.administrator.execute("UPDATE totalizer.dirty_marks SET marked_at = now() - interval '20 minutes'")
    assert checks.status("rollup_lag") == "critical"
    feed.administrator.execute("UPDATE totalizer.dirty_marks SET priority = 1")
    assert checks.status("rollup_lag") == "ok", "what is filled in later may take its time"
    feed.administrator.execute("UPDATE totalizer.dirty_marks SET priority = 0")
    feed.refresh()
    assert checks.status("rollup_lag") == "ok"


def test_a_row_of_a_rollup_changed_by_hand_is_found(feed: Any, command: Any, checks: Checks) -> None:
    settings = settings_of(feed.database)
    runner = Runner(settings, "test")
    feed.send(feed.organization(), command_executions=[command()])
    feed.load()
    feed.refresh()
    runs.announce(feed.reader, [each.known(runs.database_now(feed.reader)) for each in jobs(settings).values()])
    assert runner.run_now(job_named(settings, "verify")).state == "done"
    assert checks.status("reconciler") == "ok"
    feed.administrator.execute("UPDATE analytics.command_usage_15m SET executions = executions + 1")
    assert runner.run_now(job_named(settings, "verify")).state == "failed"
    found = checks("reconciler")
    assert (found.status, found.value, "totalizer verify" in found.remedy) == ("critical", 1.0, True)
    assert checks.status("jobs_failed") == "warning"
    feed.administrator.execute("UPDATE analytics.command_usage_15m SET executions = executions - 1")
    assert runner.run_now(job_named(settings, "verify")).state == "done"
    assert checks.status("reconciler") == checks.status("jobs_failed") == "ok"


def test_what_the_reconciler_has_repaired_is_still_told(feed: Any, command: Any, checks: Checks) -> None:
    settings = settings_of(feed.database)
    feed.send(feed.organization(), command_executions=[command()])
    feed.load()
    feed.refresh()
    feed.administrator.execute("UPDATE analytics.command_usage_15m SET executions = executions + 1")
    runs.announce(feed.reader, [each.known(runs.database_now(feed.reader)) for each in jobs(settings).values()])
    found = [Runner(settings, "test").run_now(job_named(settings, "reconcile")).result for _ in range(2)]
    assert [each["mismatched"] > 0 for each in found] == [True, False], "found and repaired, then nothing is left"
    assert checks.status("reconciler") == "critical"


def test_a_job_that_freezes_is_noticed_though_it_ends_nothing(feed: Any, checks: Checks) -> None:
    """Its limit passes while its process is at it: the record says running, and for too long."""
    began, go = Event(), Event()

    def freezes(context: Context) -> dict[str, Any]:
        began.set()
        go.wait(60)
        return {}

    frozen = job(freezes, limit_s=3600.0)
    runs.announce(feed.reader, [frozen.known(runs.database_now(feed.reader))])
    runner = Runner(settings_of(feed.database), "test")
    thread = Thread(target=runner.run_now, args=(frozen,))
    thread.start()
    try:
        began.wait(30)
        assert checks.status("jobs_overdue") == "ok"
        feed.administrator.execute(
            "UPDATE totalizer.job_runs SET started_at = now() - interval '1 hour 5 minutes' WHERE state = 'running'"
        )
        found = checks("jobs_overdue")
        assert (found.status, "probe" in found.message) == ("warning", True)
    finally:
        go.set()
        thread.join()
    assert checks.status("jobs_overdue") == "ok"


def test_a_scheduler_that_stands_still_is_noticed(feed: Any, checks: Checks) -> None:
    settings = settings_of(feed.database)
    now = runs.database_now(feed.reader)
    runs.announce(feed.reader, [each.known(now) for each in jobs(settings).values()])
    assert checks.status("jobs_overdue") == "ok"
    runs.announce(feed.reader, [each.known(now - timedelta(hours=2)) for each in jobs(settings).values()])
    found = checks("jobs_overdue")
    assert (found.status, "compact_ledger" in found.message) == ("critical", True)


def test_dead_letters_and_their_part_of_all_are_noticed(feed: Any, command: Any, checks: Checks) -> None:
    feed.administrator.execute(
        "ALTER TABLE events.command_executions ADD CONSTRAINT no_more CHECK (command_name <> 'refused')"
    )
    organization = feed.organization()
    feed.send(
        organization, command_executions=[command(command_name="refused" if n < 10 else "plan") for n in range(40)]
    )
    feed.load()
    assert (checks.status("quarantine"), checks("quarantine").value) == ("warning", 10.0)
    assert checks.status("success_rate") == "critical"
    assert checks.status("ledger") == "ok"


def test_a_ledger_that_does_not_add_up_is_noticed(feed: Any, command: Any, checks: Checks) -> None:
    feed.send(feed.organization(), command_executions=[command()])
    feed.load()
    feed.administrator.execute("UPDATE totalizer.load_ledger SET loaded = loaded - 1")
    found = checks("ledger")
    assert (found.status, found.value) == ("critical", 1.0)


def test_missing_partitions_are_noticed(feed: Any, checks: Checks) -> None:
    settings = settings_of(feed.database)
    Runner(settings, "test").run_now(job_named(settings, "make_partitions"))
    assert checks.status("partitions") == "ok"
    [(name,)] = feed.administrator.execute(
        "SELECT relname FROM pg_class WHERE relname = 'command_executions_p' || "
        "to_char((now() AT TIME ZONE 'UTC')::date + 2, 'YYYYMMDD')"
    ).fetchall()
    feed.administrator.execute(f'DROP TABLE partitions."{name}"')
    found = checks("partitions")
    assert (found.status, found.value) == ("warning", 1.0)


def test_bytes_that_cannot_be_read_are_noticed(feed: Any, command: Any, checks: Checks) -> None:
    feed.append(b"no batch at all")
    feed.load()
    assert checks.status("journal_damage") == "critical"


def test_redis_away_is_a_warning(feed: Any, tmp_path: Path) -> None:
    home = Path("/tmp") / f"tz-{time.monotonic_ns()}"
    home.mkdir()
    valkey = EmbeddedValkey(home)
    try:
        valkey.start()
        checks = Checks(feed.database, feed.spool, redis_url=valkey.url)
        assert checks.status("redis") == "ok"
        valkey.stop()
        assert checks.status("redis") == "warning"
    finally:
        valkey.stop()
        import shutil

        shutil.rmtree(home)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    import os

    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        from support import unavailable

        unavailable(f"mount is not allowed here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_is_noticed(feed: Any, small_disk: Path) -> None:
    checks = Checks(feed.database, small_disk / "journal", home=small_disk)
    assert checks.status("disk") == "ok"
    (small_disk / "fills").write_bytes(b"x" * int(7.4 * (1 << 20)))
    assert checks.status("disk") == "warning"
    (small_disk / "more").write_bytes(b"x" * (400 << 10))
    assert checks.status("disk") == "critical"


def test_health_check_says_the_documented_things(feed: Any, command: Any) -> None:
    settings = settings_of(feed.database, TOTALIZER_HOME=str(feed.spool.parent))
    runner = Runner(settings, "test")
    feed.send(feed.organization(), command_executions=[command()])
    feed.load()
    feed.refresh()
    runner.run_now(job_named(settings, "make_partitions"))
    result = runner.run_now(job_named(settings, "health_check")).result
    assert result is not None
    assert json.loads(json.dumps(result)) == result
    assert set(result["checks"]) == {"database", "data_freshness", "recent_aggregation", "system"}
    assert {name: check["status"] for name, check in result["checks"].items() if name != "system"} == {
        "database": "healthy", "data_freshness": "healthy", "recent_aggregation": "healthy",
    }  # fmt: skip
    feed.administrator.execute("UPDATE totalizer.load_ledger SET loaded = loaded - 1")
    result = runner.run_now(job_named(settings, "health_check")).result
    assert result is not None
    assert (result["status"], result["checks"]["system"]["status"]) == ("unhealthy", "unhealthy")
    assert any(issue.startswith("ledger:") for issue in result["checks"]["system"]["issues"])
