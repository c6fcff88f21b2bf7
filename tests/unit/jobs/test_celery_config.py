"""How Celery is set up, from the settings and the table of jobs."""

from __future__ import annotations

from typing import Any

import pytest
from celery.schedules import crontab

from totalizer.errors import OperationError
from totalizer.jobs import tasks
from totalizer.jobs.celery_config import (
    DUE_HEADER,
    GRACE_S,
    beat_schedule,
    broker_url,
    configuration,
    result_backend,
    task_name,
)  # fmt: skip
from totalizer.jobs.celery_tasks import make_app
from totalizer.jobs.table import jobs
from totalizer.settings import load_settings

SETTINGS = load_settings(REDIS_URL="redis://:secret@host:6379/0")


@pytest.mark.parametrize(
    ("redis", "broker", "results"),
    [
        ("redis://host:6379/0", "redis://host:6379/1", "redis://host:6379/2"),
        ("redis://:word@host", "redis://:word@host/1", "redis://:word@host/2"),
        ("rediss://host/0?ssl_cert_reqs=required", "rediss://host/1?ssl_cert_reqs=required", None),
        (
            "unix:///run/v.sock",
            "redis+socket:///run/v.sock?virtual_host=1",
            "redis+socket:///run/v.sock?virtual_host=2",
        ),
    ],
)
def test_queues_and_results_are_beside_the_services_own_data(redis: str, broker: str, results: str | None) -> None:
    settings = load_settings(REDIS_URL=redis)
    assert broker_url(settings) == broker
    assert result_backend(settings) == (results or broker.replace("/1?", "/2?"))


def test_urls_of_their_own_are_taken_as_they_are() -> None:
    settings = load_settings(CELERY_BROKER_URL="redis://b/7", CELERY_RESULT_BACKEND="redis://r/8")
    assert (broker_url(settings), result_backend(settings)) == ("redis://b/7", "redis://r/8")


def test_without_any_redis_the_message_says_what_to_set() -> None:
    with pytest.raises(OperationError, match="set CELERY_BROKER_URL and CELERY_RESULT_BACKEND, or REDIS_URL"):
        broker_url(load_settings())


def test_workers_are_held_to_what_is_documented() -> None:
    found = configuration(SETTINGS)
    assert set(found["task_queues"]) == {"aggregation", "maintenance"}
    assert found["task_acks_late"]
    assert found["task_reject_on_worker_lost"]
    assert (found["worker_max_tasks_per_child"], found["worker_prefetch_multiplier"]) == (1000, 1)
    assert found["timezone"] == "UTC"
    routes = {name: route["queue"] for name, route in found["task_routes"].items()}
    assert routes["hourly_rollup_task"] == "aggregation"
    assert routes["health_check_task"] == routes["catch_up_task"] == "maintenance"


def test_beat_sends_every_job_that_has_a_schedule_and_is_not_switched_off() -> None:
    table = jobs(SETTINGS)
    scheduled = {name for name, job in table.items() if job.schedule is not None}
    assert set(beat_schedule(SETTINGS)) == scheduled | {"catch_up"}
    off = load_settings(REDIS_URL="redis://host", WEEKLY_ROLLUP_ENABLED="false")
    assert set(beat_schedule(off)) == (scheduled - {"weekly_rollup"}) | {"catch_up"}
    assert all(entry["options"]["headers"] == {DUE_HEADER: True} for name, entry in beat_schedule(SETTINGS).items()
               if name != "catch_up")  # fmt: skip


@pytest.mark.parametrize(
    ("name", "moments"),
    [
        ("hourly_rollup", crontab(minute=5)), ("daily_rollup", crontab(minute=0, hour=1)),
        ("weekly_rollup", crontab(minute=0, hour=2, day_of_week="monday")),
        ("monthly_rollup", crontab(minute=30, hour=2, day_of_month=1)), ("health_check", crontab(minute="*/5")),
        ("make_partitions", crontab(minute=0)), ("forget_fates", crontab(minute=0, hour="*/6")),
    ],
)  # fmt: skip
def test_beat_has_the_moments_of_the_table(name: str, moments: Any) -> None:
    assert beat_schedule(SETTINGS)[name]["schedule"] == moments


def test_every_job_is_a_task_by_its_name_with_limits_behind_its_own() -> None:
    _, made = make_app(lambda: SETTINGS)
    for name, job in jobs(SETTINGS).items():
        assert hasattr(tasks, task_name(name)), "importable, without anything being set"
        task = made[task_name(name)]
        assert task.name == f"{name}_task"
        assert task.time_limit == job.limit.total_seconds() + GRACE_S
        assert job.soft_limit.total_seconds() <= task.soft_time_limit < task.time_limit
        assert task.__doc__ == job.run.__doc__
