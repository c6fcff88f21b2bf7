"""A job that looks for work all the time: one connection, rests between runs, runs recorded by the hour."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import psycopg
from psycopg import Connection

from totalizer.clock import SYSTEM_CLOCK, Clock, utc_datetime
from totalizer.errors import OperationError, StoreUnavailable
from totalizer.jobs.job import Context, Job
from totalizer.jobs.leash import notice_death
from totalizer.jobs.run import Runner, is_unexpected
from totalizer.store import runs
from totalizer.store.connect import connect
from totalizer.store.roles import Role
from totalizer.store.runs import Ending
from totalizer.telemetry import logger

#: A job rests this many times as long as it ran: it takes a fifth of one database connection's time at most, so that
#: recomputing rollups leaves the database to those who load and ask.
REST_FACTOR = 4.0
#: Seconds between two records of what was done.
RECORD_S = 10.0


class _NoLeash:
    """A continuous job is done in small pieces: the server's time limit for a statement holds it."""

    def check(self) -> None:
        return None

    def open(self, role: Role) -> Connection[Any]:
        raise OperationError(f"a job that runs all the time has one connection, and none as {role.name.lower()}")


class ContinuousRunner:
    """Calls one continuous job, over a connection of its own that is opened when needed.

    Args:
        job: what to run.
        runner: who runs it.
        clock: time source.
    """

    def __init__(self, job: Job, runner: Runner, clock: Clock = SYSTEM_CLOCK) -> None:
        self.job, self._runner, self._clock = job, runner, clock
        self._connection: Connection[Any] | None = None
        self._failing = False
        self._rest_until = float("-inf")
        self._sums = _Sums()

    def __call__(self) -> None:
        """Run the job once, if nobody else does; the next run tries again what failed."""
        if self._clock.monotonic() < self._rest_until:
            return
        started = self._clock.monotonic()
        try:
            connection = self._ready()
            if not runs.try_lock(connection, self.job.name):
                return
            try:
                self._work(connection)
            finally:
                if not connection.closed:
                    runs.unlock(connection, self.job.name)
            self._failing = False
        except Exception as error:  # noqa: BLE001 - whatever it is, it is recorded, and tried again
            self._drop()
            self._failed(error)
        else:
            now = self._clock.monotonic()
            self._rest_until = now + REST_FACTOR * (now - started)

    def close(self) -> None:
        """Record what was done since the last record, and close the connection."""
        if self._connection is not None and self._sums.unrecorded:
            try:
                self._record(self._connection)
            except (psycopg.Error, StoreUnavailable):
                logger().warning("the last runs of a job could not be recorded", job=self.job.name)
        self._drop()

    def _work(self, connection: Connection[Any]) -> None:
        context = Context(
            connection, _NoLeash(), 0, self._runner.settings, arguments={}, scheduled_for=None, done_for=None
        )
        result = self.job.run(context)
        self._sums.add(result)
        if any(result.values()):
            logger().debug("job done", job=self.job.name, result=result)
        if self._clock.monotonic() >= self._sums.recorded_at + RECORD_S:
            self._record(connection)

    def _record(self, connection: Connection[Any]) -> None:
        hour = utc_datetime(self._clock.now_ns()).replace(minute=0, second=0, microsecond=0)
        sums = self._sums
        beginning = self._runner.beginning(self.job)
        sums.run_id = runs.sum_up(connection, sums.run_id, beginning, sums.runs, sums.result)
        sums.unrecorded, sums.recorded_at = False, self._clock.monotonic()
        if sums.hour not in (None, hour):
            self._sums = _Sums(recorded_at=sums.recorded_at)
        self._sums.hour = hour

    def _ready(self) -> Connection[Any]:
        if self._connection is None:
            self._connection = connect(self._runner.dsn(Role.REFRESHER), autocommit=True)
            limit_ms = int(self.job.limit.total_seconds() * 1000)
            self._connection.execute(f"SET statement_timeout = {limit_ms}")
            notice_death(self._connection)
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _failed(self, error: Exception) -> None:
        if self._failing:  # said once: a database that is away would fill the log
            return
        self._failing = True
        reason = str(error).strip() or type(error).__name__
        trace = error if is_unexpected(error) else None
        logger().error("job failed; it will be tried again", job=self.job.name, reason=reason, exc_info=trace)
        try:
            connection = self._ready()
            run_id = runs.begin(connection, self._runner.beginning(self.job))
            assert run_id is not None
            runs.finish(connection, run_id, Ending("failed", error=reason))
        except (psycopg.Error, StoreUnavailable):
            logger().warning("the failure could not be recorded in the database", job=self.job.name)
            self._drop()


class _Sums:
    """What the runs of an hour have done together."""

    def __init__(self, recorded_at: float = float("-inf")) -> None:
        self.runs, self.result = 0, dict[str, Any]()
        self.run_id: int | None = None
        self.hour: datetime | None = None
        self.unrecorded, self.recorded_at = False, recorded_at

    def add(self, result: dict[str, Any]) -> None:
        self.runs += 1
        self.unrecorded = True
        for name, value in result.items():
            self.result[name] = self.result.get(name, 0) + value
