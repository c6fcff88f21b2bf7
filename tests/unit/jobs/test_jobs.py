"""The table of jobs, and what runs one when the database is away."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from totalizer.errors import ConfigurationError, OperationError
from totalizer.jobs.continuous import ContinuousRunner
from totalizer.jobs.job import AGGREGATION, MAINTENANCE, Job
from totalizer.jobs.look import Look
from totalizer.jobs.run import Runner
from totalizer.jobs.schedule import Every
from totalizer.jobs.table import job_named, jobs
from totalizer.settings import load_settings

NOWHERE = load_settings(DATABASE_URL="postgresql://127.0.0.1:1/none?connect_timeout=2", TOTALIZER_SECRET="s" * 32)
#: As documented: when, and the hard limit in seconds.
DOCUMENTED = {
    "hourly_rollup": ("hourly at :05", 3600), "daily_rollup": ("daily 01:00 UTC", 7200),
    "weekly_rollup": ("Monday 02:00 UTC", 14400), "health_check": ("every 5 min", 300),
}  # fmt: skip


def never(context: Any) -> dict[str, Any]:
    raise AssertionError("without a database no job runs")


def test_every_job_has_a_description_a_limit_and_a_queue() -> None:
    table = jobs(NOWHERE)
    assert all(name == job.name for name, job in table.items())
    assert all(timedelta(0) < job.soft_limit < job.limit for job in table.values())
    assert all(job.description.endswith(".") and job.queue in (AGGREGATION, MAINTENANCE) for job in table.values())
    assert table["refresh_rollups"].schedule == Every(timedelta(seconds=0.5))
    assert [job.name for job in table.values() if job.schedule is None] == ["backfill_aggregations"]


@pytest.mark.parametrize("name", DOCUMENTED)
def test_schedules_and_limits_are_as_documented(name: str) -> None:
    job = job_named(NOWHERE, name)
    assert job.schedule is not None
    assert (job.schedule.text, job.limit.total_seconds()) == DOCUMENTED[name]


@pytest.mark.parametrize("name", ["hourly", "daily", "weekly", "monthly"])
def test_a_flag_switches_its_rollup_off(name: str) -> None:
    settings = load_settings(**{f"{name.upper()}_ROLLUP_ENABLED": "false"})
    assert [job.name for job in jobs(settings).values() if not job.enabled] == [f"{name}_rollup"]


def test_wall_clock_times_are_of_the_zone_that_is_set() -> None:
    schedule = job_named(load_settings(TOTALIZER_JOB_TIME_ZONE="Asia/Tokyo"), "daily_rollup").schedule
    assert schedule is not None
    assert schedule.text == "daily 01:00 Asia/Tokyo"
    with pytest.raises(ConfigurationError, match="TOTALIZER_JOB_TIME_ZONE"):
        load_settings(TOTALIZER_JOB_TIME_ZONE="Mars/Olympus")


def test_a_job_says_which_arguments_it_takes() -> None:
    with pytest.raises(OperationError, match="no argument 'hour'; it takes target_hour"):
        job_named(NOWHERE, "hourly_rollup").check({"hour": "x"})
    with pytest.raises(OperationError, match="needs the argument 'end_date'"):
        job_named(NOWHERE, "backfill_aggregations").check({"start_date": "2026-01-01"})
    with pytest.raises(OperationError, match="no job 'hourly'; there are refresh_rollups, "):
        job_named(NOWHERE, "hourly")


def test_a_database_that_is_away_is_logged_once_and_the_runner_goes_on() -> None:
    idle = Job("idle", never, timedelta(seconds=1), Every(timedelta(seconds=1)), continuous=True)
    runner = ContinuousRunner(idle, Runner(NOWHERE, "test"))
    with capture_logs() as logs:
        for _ in range(3):
            runner()
    runner.close()
    assert [entry["log_level"] for entry in logs] == ["error", "warning"]
    assert "PostgreSQL cannot be reached" in logs[0]["reason"]
    assert {entry["job"] for entry in logs} == {"idle"}


def test_a_look_without_a_database_finds_nothing_and_says_so_once() -> None:
    look = Look(lambda: "host=127.0.0.1 port=1 connect_timeout=2", {})
    with capture_logs() as logs:
        assert [look() for _ in range(3)] == [[], [], []]
    assert [entry["log_level"] for entry in logs] == ["error"]
