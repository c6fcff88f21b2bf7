"""How Celery is set up: where its queues are, what goes into which, when beat sends what, what workers are held to."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from celery.schedules import crontab, schedule

from totalizer.errors import OperationError
from totalizer.jobs.job import AGGREGATION, MAINTENANCE, Job
from totalizer.jobs.schedule import Cron, Every, Schedule
from totalizer.jobs.table import jobs
from totalizer.settings import Settings

#: Databases of a Redis that is named by REDIS_URL alone; 0 is the service's own.
BROKER_DATABASE, RESULT_DATABASE = 1, 2
#: Celery's own limits come this much later than ours, seconds: they end what no longer listens, by ending its process.
GRACE_S = 10
#: A message whose worker has not said that it is done is given to another after so long, seconds. One that comes twice
#: is done once, so this may be shorter than a task.
VISIBILITY_S = 600
#: A job that looks for work all the time is sent this often at most.
CONTINUOUS_EVERY = timedelta(seconds=5)
#: A worker's process is replaced after so many tasks.
TASKS_PER_CHILD_MAX = 1000
#: The header of a message that beat or a look sent: run it if the record says that it is due.
DUE_HEADER = "totalizer_due"
#: The header of a message for a run that was asked for: its number.
REQUEST_HEADER = "totalizer_request"
CATCH_UP = "catch_up_task"


def task_name(job: str) -> str:
    """The name of a job's task."""
    return f"{job}_task"


def broker_url(settings: Settings) -> str:
    """Where the queues are.

    Raises:
        OperationError: no Redis is named and none runs.
    """
    return settings.celery_broker_url or _beside(settings, BROKER_DATABASE)


def result_backend(settings: Settings) -> str:
    """Where results are kept.

    Raises:
        OperationError: no Redis is named and none runs.
    """
    return settings.celery_result_backend or _beside(settings, RESULT_DATABASE)


def configuration(settings: Settings) -> dict[str, Any]:
    """Celery's configuration."""
    table = jobs(settings)
    return {
        "broker_url": broker_url(settings),
        "result_backend": result_backend(settings),
        "result_expires": timedelta(days=1),
        "timezone": settings.job_time_zone,
        "task_queues": {name: {"exchange": name, "routing_key": name} for name in (AGGREGATION, MAINTENANCE)},
        "task_default_queue": AGGREGATION,
        "task_routes": {task_name(job.name): {"queue": job.queue} for job in table.values()}
        | {CATCH_UP: {"queue": MAINTENANCE}},
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_track_started": True,
        "task_time_limit": 3600,
        "task_soft_time_limit": 3300,
        "task_send_sent_event": True,
        "worker_send_task_events": True,
        "worker_prefetch_multiplier": 1,
        "worker_max_tasks_per_child": TASKS_PER_CHILD_MAX,
        "worker_redirect_stdouts": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {"visibility_timeout": VISIBILITY_S},
        "beat_schedule": beat_schedule(settings),
    }


def beat_schedule(settings: Settings) -> dict[str, dict[str, Any]]:
    """What beat sends: every job that has a schedule and is not switched off, and the look."""
    look = timedelta(milliseconds=settings.job_look_ms)
    entries = {
        job.name: {
            "task": task_name(job.name), "schedule": _celery_schedule(job),
            "options": {"headers": {DUE_HEADER: True}, "expires": _expires_s(job)},
        }
        for job in jobs(settings).values()
        if job.schedule is not None and job.enabled
    }  # fmt: skip
    entries["catch_up"] = {
        "task": CATCH_UP, "schedule": schedule(look), "options": {"expires": max(look.total_seconds(), 1.0)},
    }  # fmt: skip
    return entries


def _expires_s(job: Job) -> float:
    """A message that waits longer than this in its queue is dropped: the next one is there, or the look sends one."""
    if job.continuous:
        return CONTINUOUS_EVERY.total_seconds()
    return min(job.limit.total_seconds(), 3600.0)


def _celery_schedule(job: Job) -> Any:
    assert job.schedule is not None
    if job.continuous:
        return schedule(max(_length(job.schedule), CONTINUOUS_EVERY))
    if isinstance(job.schedule, Cron):
        cron = job.schedule
        return crontab(
            minute=cron.minute, hour="*" if cron.hour is None else cron.hour,
            day_of_week="*" if cron.weekday is None else (cron.weekday + 1) % 7,
            day_of_month="*" if cron.day is None else cron.day,
        )  # fmt: skip
    return _aligned(_length(job.schedule))


def _aligned(length: timedelta) -> Any:
    """By the clock where the length divides an hour or a day, as our own moments lie."""
    minutes, rest = divmod(int(length.total_seconds()), 60)
    if rest == 0 and minutes and 60 % minutes == 0:
        return crontab(minute=f"*/{minutes}" if minutes < 60 else 0)
    if rest == 0 and minutes and 1440 % minutes == 0 and minutes % 60 == 0:
        return crontab(minute=0, hour=f"*/{minutes // 60}" if minutes < 1440 else 0)
    return schedule(length)


def _length(when: Schedule) -> timedelta:
    assert isinstance(when, Every), f"{when.text} has no length"
    return when.length


def _beside(settings: Settings, database: int) -> str:
    """Another database of the service's Redis."""
    if settings.redis_url is None:
        raise OperationError(
            "no broker for Celery: set CELERY_BROKER_URL and CELERY_RESULT_BACKEND, or REDIS_URL, or start the "
            "embedded one with `totalizer up`"
        )
    parts = urlsplit(settings.redis_url)
    if parts.scheme == "unix":
        return f"redis+socket://{parts.path}?virtual_host={database}"
    return urlunsplit(parts._replace(path=f"/{database}"))
