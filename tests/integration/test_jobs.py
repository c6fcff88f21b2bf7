"""Jobs against a database: what they do, and what is kept of their runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from totalizer.jobs.scheduler import Runner
from totalizer.jobs.table import jobs
from totalizer.store.roles import Role


@pytest.fixture
def runners(database: Any) -> Any:
    """A runner for each job, by name; closed in the end."""
    runners = {job.name: Runner(job, database.dsn(Role.REFRESHER)) for job in jobs(timedelta(milliseconds=10), 30)}
    yield runners
    for runner in runners.values():
        runner.close()


def recorded(feed: Any) -> list[tuple[Any, ...]]:
    return feed.rows("SELECT job, result, error IS NOT NULL FROM totalizer.job_runs ORDER BY id")  # type: ignore[no-any-return]


def test_partitions_of_the_coming_days_are_made_once(feed: Any, runners: Any) -> None:
    runners["make_partitions"]()
    [(job, result, failed)] = recorded(feed)
    assert (job, failed) == ("make_partitions", False)
    # Eleven types by day for today and seven days on; commits by month, which is one or two.
    assert result["made"] - 11 * 8 in (1, 2)
    runners["make_partitions"]._rest_until = float("-inf")
    runners["make_partitions"]()
    assert len(recorded(feed)) == 1, "with nothing to do nothing is recorded"


def test_refreshing_rolls_up_and_fills_no_table(feed: Any, command: Any, runners: Any) -> None:
    organization = feed.organization()
    feed.send(organization, command_executions=[command()])
    feed.load()
    runners["refresh_rollups"]()
    assert feed.one("SELECT sum(executions)::int FROM analytics.command_usage_1d") == 1
    assert recorded(feed) == []


def test_a_failing_job_is_recorded_once_and_goes_on_when_it_can(feed: Any, command: Any, runners: Any) -> None:
    organization = feed.organization()
    feed.send(organization, command_executions=[command()])
    feed.load()
    feed.administrator.execute("ALTER TABLE analytics.command_usage_1d RENAME TO away")
    for _ in range(3):
        runners["refresh_rollups"]()
    assert recorded(feed) == [("refresh_rollups", None, True)]
    feed.administrator.execute("ALTER TABLE analytics.away RENAME TO command_usage_1d")
    runners["refresh_rollups"]()
    assert feed.one("SELECT sum(executions)::int FROM analytics.command_usage_1d") == 1
