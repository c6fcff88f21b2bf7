"""Which jobs run by schedule, and by what."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import field_validator
from pydantic_settings import BaseSettings

from totalizer.settings.named import named
from totalizer.window import zone


class JobSettings(BaseSettings):
    """Which jobs run by schedule, and by what."""

    job_scheduler: Annotated[
        bool,
        named("ENABLE_JOB_SCHEDULER", "False if `totalizer up` shall run no scheduler: Celery or cron runs the jobs."),
    ] = True
    job_time_zone: Annotated[
        str, named("TOTALIZER_JOB_TIME_ZONE", "IANA time zone of the times at which jobs are due.")
    ] = "UTC"
    job_look_ms: Annotated[
        int,
        named(
            "TOTALIZER_JOB_LOOK_MS",
            "Pause between two looks for runs that were missed, failed, lost or asked for.",
            ge=100,
            le=3_600_000,
        ),
    ] = 5000
    job_history_days: Annotated[
        int, named("TOTALIZER_JOB_HISTORY_DAYS", "Days for which runs of jobs are kept.", ge=1, le=3650)
    ] = 90
    hourly_rollup: Annotated[bool, named("HOURLY_ROLLUP_ENABLED", "False to leave out hourly_rollup.")] = True
    daily_rollup: Annotated[bool, named("DAILY_ROLLUP_ENABLED", "False to leave out daily_rollup.")] = True
    weekly_rollup: Annotated[bool, named("WEEKLY_ROLLUP_ENABLED", "False to leave out weekly_rollup.")] = True
    monthly_rollup: Annotated[bool, named("MONTHLY_ROLLUP_ENABLED", "False to leave out monthly_rollup.")] = True
    celery_broker_url: Annotated[
        str | None, named("CELERY_BROKER_URL", "Where Celery's queues are; database 1 of REDIS_URL.")
    ] = None
    celery_result_backend: Annotated[
        str | None, named("CELERY_RESULT_BACKEND", "Where Celery keeps results; database 2 of REDIS_URL.")
    ] = None
    app_env: Annotated[
        Literal["development", "staging", "production"],
        named("APP_ENV", "Named in the log lines of workers; in production they warn of a broker without a password."),
    ] = "development"

    @field_validator("job_time_zone")
    @classmethod
    def _known_job_zone(cls, name: str) -> str:
        return zone(name).key
