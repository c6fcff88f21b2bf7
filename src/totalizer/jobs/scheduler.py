"""The in-process scheduler: runs the table of jobs until it is told to stop.

Any number of them may run: what each decides follows from the database, and one runs a job at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from typing import Any

import psycopg
from apscheduler.executors.pool import ThreadPoolExecutor as PlannedExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from totalizer import tracing
from totalizer.app import measure, until_stopped
from totalizer.errors import StoreUnavailable
from totalizer.jobs.continuous import ContinuousRunner
from totalizer.jobs.job import Job
from totalizer.jobs.look import Look
from totalizer.jobs.run import Runner
from totalizer.jobs.schedule import Schedule
from totalizer.jobs.table import jobs
from totalizer.settings import Settings
from totalizer.store.roles import Role
from totalizer.telemetry import logger

#: Seconds that runs under way have to end by themselves when the scheduler stops; then they are told to.
STOP_S = 5.0


def run_scheduler(settings: Settings) -> None:
    """Run the jobs until SIGTERM or SIGINT. A run that takes longer than a moment then is stopped, and done again."""
    measure(settings, "scheduler")
    with tracing.traced(settings.traces_endpoint, "scheduler"):
        until_stopped(Scheduler(settings).run)


class Scheduler:
    """Runs what is due, what was missed, and what was asked for.

    Args:
        settings: of this process.
        table: the jobs by name; those of the settings if none are given.
    """

    def __init__(self, settings: Settings, table: Mapping[str, Job] | None = None) -> None:
        self._table = jobs(settings) if table is None else table
        self._runner = Runner(settings, "scheduler")
        self._continuous = [ContinuousRunner(job, self._runner) for job in self._table.values() if job.continuous]
        self._look = Look(lambda: self._runner.dsn(Role.REFRESHER), self._table)
        self._look_s = settings.job_look_ms / 1000
        # What a look finds is not given to the library: it cannot take up a single run while it ends.
        self._found = ThreadPoolExecutor(2 * len(self._table), "found")
        self._under_way: set[str] = set()
        self._scheduler = BackgroundScheduler(
            timezone=UTC, executors={"default": PlannedExecutor(len(self._table))},
            job_defaults={"max_instances": 1, "coalesce": True, "misfire_grace_time": None},
        )  # fmt: skip

    def run(self, stop: Event) -> None:
        """Run until the event is set, and then until every run has ended."""
        for each in self._continuous:
            assert each.job.schedule is not None
            self._add(each, _Trigger(each.job.schedule), each.job.name)
        for job in self._table.values():
            if job.schedule is not None and job.enabled and not job.continuous:
                self._add(self._run, _Trigger(job.schedule), job.name, job)
        # A job that looks each quarter of a second is passed over while it works: no warning.
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        self._scheduler.start()
        logger().info("jobs are run by schedule", jobs=len(self._table))
        try:
            self._catch_up()
            while not stop.wait(self._look_s):
                self._catch_up()
        finally:
            self._end()

    def _add(self, run: Any, trigger: BaseTrigger, name: str, *arguments: Any) -> None:
        self._scheduler.add_job(run, trigger, arguments, id=name, name=name)

    def _catch_up(self) -> None:
        for job, request_id in self._look():
            name = f"{job.name} {'is due' if request_id is None else 'was asked for'}"
            if name not in self._under_way:
                self._under_way.add(name)
                self._found.submit(self._run_found, name, job, request_id)

    def _run_found(self, name: str, job: Job, request_id: int | None) -> None:
        try:
            self._run(job, request_id)
        except Exception as error:  # noqa: BLE001 - nobody else would hear of it
            logger().error("job could not begin", job=job.name, exc_info=error)
        finally:
            self._under_way.discard(name)

    def _run(self, job: Job, request_id: int | None = None) -> None:
        try:
            if request_id is None:
                self._runner.run_due(job)
            else:
                self._runner.run_now(job, request_id=request_id)
        except (psycopg.Error, StoreUnavailable) as error:
            # The next look finds it still due, or asked for.
            logger().warning("job could not begin", job=job.name, reason=str(error).strip())

    def _end(self) -> None:
        ended = Event()
        hurry = Thread(target=self._hurry, args=(ended,), name="hurry", daemon=True)
        hurry.start()
        self._found.shutdown(wait=False, cancel_futures=True)
        self._scheduler.shutdown(wait=True)
        self._found.shutdown()
        ended.set()
        hurry.join()
        for each in self._continuous:
            each.close()
        self._look.close()

    def _hurry(self, ended: Event) -> None:
        if not ended.wait(STOP_S):
            self._runner.stop("the process that ran it was stopped")


class _Trigger(BaseTrigger):  # type: ignore[misc]
    """A schedule of ours, in the form in which the library asks for it."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        """The first moment after the one before; after now, if there was none or it was long ago."""
        after = now if previous is None else max(previous, now - timedelta(milliseconds=1))
        return self._schedule.after(after).astimezone(UTC)
