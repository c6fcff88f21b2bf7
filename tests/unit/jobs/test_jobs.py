"""The table of jobs, and what runs one when the database is away."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from totalizer.jobs.scheduler import Runner
from totalizer.jobs.table import Job, jobs

NOWHERE = "host=127.0.0.1 port=1 connect_timeout=2"


@pytest.fixture(autouse=True)
def fresh_logs() -> Iterator[None]:
    """Loggers that a test before this one has bound would not be captured."""
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


def never(connection: Any) -> dict[str, Any]:
    raise AssertionError("without a database no job runs")


def test_every_job_has_its_own_name_a_schedule_and_a_limit() -> None:
    table = jobs(timedelta(seconds=0.5), 30)
    assert len({job.name for job in table}) == len(table)
    assert all(job.every > timedelta(0) and job.limit > timedelta(0) and job.run.__doc__ for job in table)
    assert {job.name: job.every for job in table}["refresh_rollups"] == timedelta(seconds=0.5)


def test_a_database_that_is_away_is_logged_once_and_the_runner_goes_on() -> None:
    runner = Runner(Job("idle", never, timedelta(seconds=1), timedelta(seconds=1)), NOWHERE)
    with capture_logs() as logs:
        for _ in range(3):
            runner()
    runner.close()
    assert [entry["log_level"] for entry in logs] == ["error", "warning"]
    assert "PostgreSQL cannot be reached" in logs[0]["reason"]
    assert {entry["job"] for entry in logs} == {"idle"}
