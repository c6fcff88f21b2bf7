"""Jobs against a database: what they do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from scheduled import runs_of, settings_of
from totalizer.errors import OperationError
from totalizer.jobs.continuous import ContinuousRunner
from totalizer.jobs.job import Context, Job
from totalizer.jobs.run import Outcome, Runner
from totalizer.jobs.schedule import Every
from totalizer.jobs.table import job_named
from totalizer.store.roles import Role


@pytest.fixture
def run(database: Any, tmp_path: Any) -> Any:
    """Runs a job of the table, as a command does."""
    settings = settings_of(database, TOTALIZER_HOME=str(tmp_path))

    def run(name: str, **arguments: Any) -> Outcome:
        return Runner(settings, "test").run_now(job_named(settings, name), arguments)

    return run


@pytest.fixture
def refreshing(database: Any) -> Any:
    """The job that runs all the time."""
    settings = settings_of(database)
    runner = ContinuousRunner(job_named(settings, "refresh_rollups"), Runner(settings, "test"))
    yield runner
    runner.close()


def executed_at(*times: str) -> list[dict[str, Any]]:
    user = "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11"
    return [
        {"user_id": user, "command_name": "plan", "execution_time_ms": 5, "status": "success", "executed_at": time}
        for time in times
    ]


def test_partitions_of_the_coming_days_are_made_once(run: Any) -> None:
    # Twelve types by day for today and seven days on; commits by month, which is one or two.
    assert run("make_partitions").result["made"] - 8 * 12 in (1, 2)
    assert run("make_partitions").result == {"made": 0}


def test_refreshing_rolls_up_and_keeps_one_record_for_many_runs(
    database: Any, feed: Any, command: Any, refreshing: Any
) -> None:
    organization = feed.organization()
    for _ in range(3):
        feed.send(organization, command_executions=[command()])
        feed.load()
        refreshing._rest_until = float("-inf")
        refreshing()
    assert feed.one("SELECT sum(executions)::int FROM analytics.command_usage_1d") == 3
    refreshing.close()
    [(state, runs, result)] = runs_of(database, "refresh_rollups", "state, runs, result")
    assert (state, runs) == ("done", 3)
    assert result["buckets"] >= 3


def test_a_failing_job_is_recorded_once_and_goes_on_when_it_can(
    database: Any, feed: Any, command: Any, refreshing: Any
) -> None:
    organization = feed.organization()
    feed.send(organization, command_executions=[command()])
    feed.load()
    feed.administrator.execute("ALTER TABLE analytics.command_usage_1d RENAME TO away")
    for _ in range(3):
        refreshing()
    [(state, error)] = runs_of(database, "refresh_rollups", "state, error")
    assert state == "failed"
    assert "command_usage_1d" in error
    feed.administrator.execute("ALTER TABLE analytics.away RENAME TO command_usage_1d")
    refreshing()
    assert feed.one("SELECT sum(executions)::int FROM analytics.command_usage_1d") == 1


def test_what_a_failing_job_did_not_expect_is_told_with_its_place(database: Any, feed: Any) -> None:
    def looks_up(_context: Context) -> dict[str, Any]:
        return {"found": {}["missing"]}

    def opens_another(context: Context) -> dict[str, Any]:
        return {"found": context.open(Role.WRITER)}

    for body in (looks_up, opens_another):
        job = Job(body.__name__, body, timedelta(seconds=1), Every(timedelta(seconds=1)), continuous=True)
        runner = ContinuousRunner(job, Runner(settings_of(database), "test"))
        with capture_logs() as logs:
            runner()
        runner.close()
        [entry] = logs
        assert (entry["log_level"], isinstance(entry["exc_info"], KeyError)) == ("error", body is looks_up)
        assert runs_of(database, job.name, "state, error") == [("failed", entry["reason"])]
    assert entry["reason"] == "a job that runs all the time has one connection, and none as writer"


def test_an_hour_is_brought_up_to_date_and_told(feed: Any, run: Any) -> None:
    organization = feed.organization()
    feed.send(organization, command_executions=executed_at("2026-01-09T14:10:00Z", "2026-01-09T14:40:00Z"))
    feed.load()
    result = run("hourly_rollup", target_hour="2026-01-09T14:00:00").result
    duration = result.pop("duration_ms")
    assert duration >= 0
    assert result.pop("rows") >= 2
    assert result.pop("buckets") >= 2
    assert result == {
        "task": "hourly_rollup", "status": "done", "window_start": "2026-01-09T14:00:00+00:00",
        "window_end": "2026-01-09T15:00:00+00:00", "zone": "UTC", "buckets_behind": 0,
    }  # fmt: skip
    assert feed.one("SELECT sum(executions)::int FROM analytics.command_usage_1d") == 2


@pytest.mark.parametrize(
    ("name", "date", "window"),
    [
        ("daily_rollup", "2026-01-09", ("2026-01-09", "2026-01-10")),
        ("weekly_rollup", "2026-01-09T23:00:00", ("2026-01-05", "2026-01-12")),
        ("monthly_rollup", "2026-12-09", ("2026-12-01", "2027-01-01")),
    ],
)
def test_windows_of_the_calendar(run: Any, name: str, date: str, window: tuple[str, str]) -> None:
    result = run(name, target_date=date).result
    assert (result["window_start"], result["window_end"]) == window
    assert (result["task"], result["status"]) == (name, "done")


def test_a_day_holds_the_local_days_of_zones_on_both_ends_of_the_earth(feed: Any, run: Any) -> None:
    #  9 January 2026 on Kiritimati (+14) and on Niue (−11), in UTC:
    #  8th 10:00 ├──────── Kiritimati ────────┤ 9th 10:00
    #                 9th 11:00 ├──────── Niue ────────┤ 10th 11:00
    east, west = feed.organization("east", "Pacific/Kiritimati"), feed.organization("west", "Pacific/Niue")
    feed.send(east, command_executions=executed_at("2026-01-08T10:00:00Z"))
    feed.send(west, command_executions=executed_at("2026-01-10T10:59:00Z"))
    feed.load()
    run("daily_rollup", target_date="2026-01-09")
    days = feed.rows("SELECT DISTINCT day::text, organization_id::text FROM analytics.command_usage_1d ORDER BY 2")
    assert sorted(days) == sorted([("2026-01-09", east), ("2026-01-09", west)])
    assert feed.one("SELECT count(*) FROM totalizer.dirty_marks") == 0


def test_backfill_recomputes_what_no_mark_tells_of(feed: Any, run: Any) -> None:
    organization = feed.organization()
    feed.send(organization, command_executions=executed_at("2026-01-08T10:00:00Z", "2026-01-09T10:00:00Z"))
    feed.load()
    feed.refresh()
    feed.administrator.execute("UPDATE analytics.command_usage_15m SET executions = executions + 40")
    given = {"start_date": "2026-01-09T00:00:00", "end_date": "2026-01-10", "granularity": "hourly"}
    result = run("backfill_aggregations", **given).result
    assert (result["status"], result["granularity"], result["buckets_behind"]) == ("done", "hourly", 0)
    counted = feed.rows(
        "SELECT bucket::date::text, sum(executions)::int FROM analytics.command_usage_15m GROUP BY 1 ORDER BY 1"
    )
    assert counted == [("2026-01-08", 41), ("2026-01-09", 1)], "the range was recomputed, and nothing else"


def test_backfill_refuses_what_is_no_range(run: Any) -> None:
    for given, words in (
        ({"start_date": "2026-01-09", "end_date": "2026-01-09"}, "the end must be after the start"),
        ({"start_date": "9 January", "end_date": "2026-01-09"}, "start_date=9 January: must be an ISO 8601"),
        ({"start_date": "2026-01-01", "end_date": "2026-01-09", "granularity": "yearly"}, "granularity=yearly"),
    ):
        outcome = run("backfill_aggregations", **given)
        assert outcome.state == "failed"
        assert words in outcome.error


def test_dead_letters_are_tried_again_once_the_reason_is_gone(feed: Any, run: Any, command: Any) -> None:
    organization = feed.organization()
    feed.administrator.execute(
        "ALTER TABLE events.command_executions ADD CONSTRAINT narrow CHECK (command_name <> 'plan') NOT VALID"
    )
    feed.send(organization, command_executions=[command()])
    feed.load()
    assert run("dead_letter_retry").result == {"tried": 1, "rows": 0, "refused_again": 1}
    feed.administrator.execute("ALTER TABLE events.command_executions DROP CONSTRAINT narrow")
    assert run("dead_letter_retry").result == {"tried": 1, "rows": 1, "refused_again": 0}
    assert feed.one("SELECT count(*) FROM events.command_executions") == 1


def test_verify_fails_when_the_books_do_not_balance(feed: Any, run: Any, command: Any) -> None:
    organization = feed.organization()
    feed.send(organization, command_executions=[command()])
    feed.load()
    feed.refresh()
    assert run("verify").result == {"balances": 1, "events": 1, "late_usage_rows": 0}
    feed.administrator.execute("UPDATE analytics.command_usage_1d SET executions = executions + 1")
    outcome = run("verify")
    assert outcome.state == "failed"
    assert "acme/command_executions" in outcome.error


def test_health_tells_of_marks_that_wait_and_of_jobs_that_failed(feed: Any, database: Any, run: Any) -> None:
    run("make_partitions")
    healthy = run("health_check").result
    assert {name: check["status"] for name, check in healthy["checks"].items()} == {
        "database": "healthy", "data_freshness": "healthy", "recent_aggregation": "healthy", "system": "healthy",
    }, healthy  # fmt: skip
    assert healthy["status"] == "healthy"
    organization = feed.organization()
    feed.reader.execute(
        "INSERT INTO totalizer.dirty_marks (organization_id, event_type, bucket, marked_at) "
        "VALUES (%s, 'command_executions', '2026-01-01', now() - interval '20 minutes')",
        [organization],
    )
    ill = run("health_check").result
    assert (ill["status"], ill["checks"]["data_freshness"]["marks"]) == ("unhealthy", 1)
    feed.refresh()
    database.connect().execute(
        "INSERT INTO totalizer.jobs (name, description, queue, soft_limit, hard_limit, enabled, requestable) "
        "VALUES ('verify', 'x', 'maintenance', '1h', '1h', true, true)"
    )
    database.connect().execute(
        "INSERT INTO totalizer.job_runs (job, state, started_at, finished_at) VALUES ('verify', 'failed', now(), now())"
    )
    checked = run("health_check").result
    assert (checked["status"], checked["checks"]["recent_aggregation"]["jobs_not_done"]) == ("degraded", ["verify"])


def test_the_record_of_old_runs_is_removed_but_not_what_decides_what_was_missed(database: Any, run: Any) -> None:
    connection = database.connect()
    old = datetime.now(UTC) - timedelta(days=100)
    for scheduled in (old - timedelta(days=1), old, None):
        connection.execute(
            "INSERT INTO totalizer.job_runs (job, state, scheduled_for, started_at, finished_at) "
            "VALUES ('verify', 'done', %s, %s, %s)",
            [scheduled, old, old],
        )
    assert run("forget_runs").result == {"rows": 2}
    assert runs_of(database, "verify", "scheduled_for") == [(old,)]


def test_stored_data_are_kept_in_order(feed: Any, run: Any, command: Any) -> None:
    """The bodies are tested where they are; here, that the jobs reach them and give them their arguments."""
    feed.send(feed.organization(), command_executions=[command()])
    feed.load()
    views = run("refresh_materialized_views").result
    assert views["status"] == "done"
    assert {"mv_daily_user_metrics", "mv_hourly_execution_stats", "mv_workspace_summary"} <= views["views"].keys()
    cleaned = run("cleanup_old_data", retention_days="400").result
    assert (cleaned["status"], cleaned["retention_days"], cleaned["rows"]) == ("done", 400, 0)
    assert run("apply_late").result["rows"] == 0
    assert run("check_zones").state == "done"
    refused = run("cleanup_old_data", retention_days="0")
    assert "retention_days=0: must be a whole number" in refused.error


def test_arguments_are_checked_before_anything_is_recorded(database: Any, run: Any) -> None:
    with pytest.raises(OperationError, match="takes no argument 'day'"):
        run("daily_rollup", day="2026-01-01")
    assert runs_of(database, "daily_rollup") == []


def test_the_figures_of_the_last_minute_are_kept(feed: Any, run: Any, command: Any) -> None:
    feed.send(feed.organization(), command_executions=[command() for _ in range(6)])
    feed.load()
    report = run("performance_report").result
    assert report["ingestion_rate"] == 0.1
    assert report["active_connections"] >= 1
    # No API process runs here.
    assert (report["processes"], report["memory_usage_mb"], report["cache_hit_rate"]) == (0, 0.0, 0.0)


def test_usage_of_today_is_aggregated(feed: Any, run: Any) -> None:
    feed.send(feed.organization(), usage_records=[{"merchant_id": "m1", "metric_type": "calls", "amount": 3}])
    feed.load()
    result = run("usage_aggregation").result
    assert (result["success"], result["rows"]) == (True, 1)
    assert feed.one("SELECT metric_value::int FROM totalizer.merchant_usage WHERE merchant_id = 'm1'") == 3


def test_the_aggregation_of_usage_tells_how_far_it_is_and_may_be_stopped_between_its_days(database: Any) -> None:
    settings, seen = settings_of(database), list[tuple[int, int]]()
    runner = Runner(settings, "test")

    def stop(done: int, of: int) -> None:
        seen.append((done, of))
        runner.stop("enough")

    outcome = runner.run_now(job_named(settings, "usage_aggregation"), progress=lambda *far: seen.append(far))
    assert (outcome.state, seen) == ("done", [(1, 2), (2, 2)])
    seen.clear()
    outcome = runner.run_now(job_named(settings, "usage_aggregation"), progress=stop)
    assert (outcome.state, outcome.error, seen) == ("failed", "enough", [(1, 2)])


def test_the_aggregation_of_usage_is_held_to_its_limit_over_all_its_connections(database: Any) -> None:
    settings = settings_of(database)
    database.connect(autocommit=False).execute("LOCK TABLE totalizer.merchant_usage IN ACCESS EXCLUSIVE MODE")
    limited = job_named(settings, "usage_aggregation")._replace(limit=timedelta(seconds=1.2))
    outcome = Runner(settings, "test").run_now(limited)
    assert (outcome.state, outcome.error) == ("timed_out", "it took longer than 1.1 s")
    reader = database.connect(Role.REFRESHER)
    assert reader.execute("SELECT error FROM totalizer.usage_aggregations").fetchall() == [(outcome.error,)]
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    assert reader.execute(others).fetchone() == (0,), "nothing waits on"
