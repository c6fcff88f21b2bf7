"""The in-process scheduler: runs the table of jobs until it is told to stop."""

from __future__ import annotations

import json
import socket
from datetime import UTC, timedelta
from threading import Event
from typing import Any

import psycopg
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from psycopg import Connection

from totalizer.app import dsn_of, until_stopped
from totalizer.clock import SYSTEM_CLOCK, Clock, utc_datetime
from totalizer.errors import StoreUnavailable
from totalizer.jobs.table import Job, jobs
from totalizer.settings import Settings
from totalizer.store.connect import connect
from totalizer.store.roles import Role
from totalizer.telemetry import logger

#: A job rests this many times as long as it ran: it takes a fifth of one database connection's time at most, so that
#: recomputing rollups leaves the database to those who load and ask.
REST_FACTOR = 4.0


def run_scheduler(settings: Settings) -> None:
    """Run the jobs until SIGTERM or SIGINT; a job that is running then is finished first."""
    table = jobs(timedelta(milliseconds=settings.refresh_interval_ms), settings.receipt_days)
    runners = [Runner(job, dsn_of(settings, Role.REFRESHER)) for job in table]

    def run(stop: Event) -> None:
        scheduler = BackgroundScheduler(timezone=UTC, executors={"default": ThreadPoolExecutor(len(runners))})
        for runner in runners:
            scheduler.add_job(
                runner, "interval", seconds=runner.job.every.total_seconds(), id=runner.job.name,
                next_run_time=utc_datetime(SYSTEM_CLOCK.now_ns()), max_instances=1, coalesce=True,
                misfire_grace_time=None,
            )  # fmt: skip
        scheduler.start()
        stop.wait()
        scheduler.shutdown(wait=True)
        for runner in runners:
            runner.close()

    until_stopped(run)


class Runner:
    """Runs one job, over a connection of its own that is opened when needed.

    Args:
        job: what to run.
        dsn: as the refresher role.
        clock: for the record of runs.
    """

    def __init__(self, job: Job, dsn: str, clock: Clock = SYSTEM_CLOCK) -> None:
        self.job, self._dsn, self._clock = job, dsn, clock
        self._connection: Connection[Any] | None = None
        self._failing = False
        self._rest_until = float("-inf")

    def __call__(self) -> None:
        """Run the job once; the next run tries again what failed."""
        if self._clock.monotonic() < self._rest_until:
            return
        started, started_ns = self._clock.monotonic(), self._clock.now_ns()
        try:
            result = self.job.run(self._ready())
            if result and self.job.recorded:
                self._record(started_ns, result, None)
                logger().info("job done", job=self.job.name, **result)
            elif result:
                logger().debug("job done", job=self.job.name, **result)
            self._failing = False
        except (psycopg.Error, StoreUnavailable) as error:
            self.close()
            self._failed(started_ns, str(error).strip())
        else:
            now = self._clock.monotonic()
            self._rest_until = now + REST_FACTOR * (now - started)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ready(self) -> Connection[Any]:
        if self._connection is None:
            self._connection = connect(self._dsn, autocommit=True)
            limit_ms = int(self.job.limit.total_seconds() * 1000)
            self._connection.execute(f"SET statement_timeout = {limit_ms}")
        return self._connection

    def _failed(self, started_ns: int, reason: str) -> None:
        if self._failing:  # said once: a database that is away would fill the log
            return
        self._failing = True
        logger().error("job failed; it will be tried again", job=self.job.name, reason=reason)
        try:
            self._record(started_ns, None, reason)
        except (psycopg.Error, StoreUnavailable):
            logger().warning("the failure could not be recorded in the database", job=self.job.name)
            self.close()

    def _record(self, started_ns: int, result: dict[str, Any] | None, error: str | None) -> None:
        self._ready().execute(
            "INSERT INTO totalizer.job_runs (job, host, started_at, finished_at, result, error) "
            "VALUES (%s, %s, %s, %s, %s, %s)",
            [
                self.job.name, socket.gethostname(), utc_datetime(started_ns), utc_datetime(self._clock.now_ns()),
                json.dumps(result) if result is not None else None, error,
            ],
        )  # fmt: skip
