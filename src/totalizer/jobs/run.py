"""One run of a job, whoever starts it: lock, look whether it is due, record, hold to its limits, record."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import psycopg
from psycopg import Connection

from totalizer.app import dsn_of
from totalizer.clock import SYSTEM_CLOCK
from totalizer.errors import StoreUnavailable, TotalizerError
from totalizer.jobs.due import ATTEMPTS_MAX, Due, due
from totalizer.jobs.job import Context, Job, PartlyDone
from totalizer.jobs.leash import LimitedRun
from totalizer.metrics import MEASURES
from totalizer.metrics.table import JOBS
from totalizer.settings import Settings
from totalizer.store import audit, runs
from totalizer.store.audit import Actor, Change
from totalizer.store.connect import connect
from totalizer.store.roles import Role
from totalizer.store.runs import Beginning, Ending
from totalizer.telemetry import logger


class Outcome(NamedTuple):
    """What became of an attempt to run a job.

    Attributes:
        state: done, failed or timed_out; lost, its connection to the database ended, so that nothing speaks against
            doing it again; or, if nothing was run: busy, another runs it now; not_due, the record says that it is
            done; disabled, its flag is off.
        run_id: the run's number.
        result: what it did.
        error: why it was not done.
    """

    state: str
    run_id: int | None = None
    result: dict[str, Any] | None = None
    error: str | None = None


def is_unexpected(error: Exception) -> bool:
    """True if only the place where it came from can tell what is wrong."""
    return not isinstance(error, psycopg.Error | TotalizerError)


class Order(NamedTuple):
    """What is asked of a runner: what is due, or a run with arguments. See `Runner.run_now`."""

    arguments: Mapping[str, str] = {}
    request_id: int | None = None
    ticket: str | None = None
    progress: Callable[[int, int], None] | None = None
    by: Actor | None = None
    scheduled: bool = False


class Runner:
    """Runs jobs, each over connections of its own. Several threads may run different jobs at once.

    Args:
        settings: of this process.
        name: what it is, for the record: scheduler, celery, command or lambda.
        time_up: exceptions by which a runner of runners says that the time is up.
    """

    def __init__(self, settings: Settings, name: str, time_up: tuple[type[BaseException], ...] = ()) -> None:
        self.settings, self.name = settings, name
        self._time_up = time_up
        self._under_way: list[LimitedRun] = []
        self._stopping: str | None = None

    def dsn(self, role: Role) -> str:
        """The connection string of a role."""
        return dsn_of(self.settings, role)

    def beginning(self, job: Job) -> Beginning:
        """What is known of any run here."""
        return Beginning(job.name, socket.gethostname(), self.name)

    def stop(self, reason: str) -> None:
        """Tell every run that is under way to stop, and those that begin from now on."""
        self._stopping = reason
        for leash in list(self._under_way):
            leash.stop(reason)

    def run_due(self, job: Job) -> Outcome:
        """Run a job if the record says that it is due."""
        if not job.enabled:
            return Outcome("disabled")
        return self._run(job, Order(scheduled=True))

    def run_now(
        self, job: Job, arguments: Mapping[str, Any] | None = None, *, request_id: int | None = None,
        ticket: str | None = None, progress: Callable[[int, int], None] | None = None, by: Actor | None = None,
    ) -> Outcome:  # fmt: skip
        """Run a job whether it is due or not, also one whose schedule is switched off.

        Args:
            job: which.
            arguments: for its body.
            request_id: the run that was asked for, and is this one.
            ticket: the message that asked for it; it is not done again once it is done, or was lost three times.
            progress: shown how far it is.
            by: who has it run, for the audit trail; None if nobody types it, or if the request is in there.

        Raises:
            OperationError: the arguments are not the job's.
            StoreUnavailable: the database cannot be reached.
        """
        return self._run(job, Order(job.check(arguments or {}), request_id, ticket, progress, by))

    def _run(self, job: Job, order: Order) -> Outcome:
        attempt = _Attempt(self, job, order)
        leash = LimitedRun(self.dsn, job.soft_limit, job.limit, attempt.ended_by_force)
        self._under_way.append(leash)
        try:
            with leash:
                if self._stopping is not None:
                    leash.stop(self._stopping)
                outcome = attempt.make(leash, self._time_up)
            return attempt.recorded_elsewhere(outcome)
        finally:
            self._under_way.remove(leash)


class _Attempt:
    """One attempt to run a job."""

    def __init__(self, runner: Runner, job: Job, order: Order) -> None:
        self._runner, self._job, self._order = runner, job, order
        self._run_id: int | None = None
        self._due: Due | None = None
        self._unrecorded: Ending | None = None

    def make(self, leash: LimitedRun, time_up: tuple[type[BaseException], ...]) -> Outcome:
        connection = leash.open(Role.REFRESHER)
        if not runs.try_lock(connection, self._job.name):
            return Outcome("busy")
        lost = runs.lose(connection, self._job.name)
        if lost:
            logger().warning("job lost: its process or connection ended", job=self._job.name, runs=lost)
        refusal = self._begin(connection)
        if refusal is not None:
            return refusal
        began = SYSTEM_CLOCK.monotonic()
        ending = self._kept(connection, self._body(connection, leash, time_up))
        MEASURES.observe(JOBS, SYSTEM_CLOCK.monotonic() - began, self._job.name, ending.state)
        self._tell(ending)
        return Outcome(ending.state, self._run_id, ending.result, ending.error)

    def _begin(self, connection: Connection[Any]) -> Outcome | None:
        """Record that it begins; what became of it if there is nothing to begin."""
        beginning = self._runner.beginning(self._job)._replace(
            arguments=dict(self._order.arguments) or None, request_id=self._order.request_id, ticket=self._order.ticket
        )
        if self._order.scheduled:
            self._due = due(connection, self._job)
            if self._due is None:
                return Outcome("not_due")
            beginning = beginning._replace(scheduled_for=self._due.scheduled_for, attempt=self._due.attempt)
        elif self._order.ticket is not None:
            lost = runs.lost_for(connection, self._order.ticket)
            if lost >= ATTEMPTS_MAX:  # a run that ends its process or the database would do so for ever
                return Outcome("failed", error=f"its process or its connection ended {lost} times; not tried again")
            beginning = beginning._replace(attempt=lost + 1)
        with connection.transaction():
            self._run_id = runs.begin(connection, beginning)
            if self._run_id is not None and self._order.by is not None:
                after = {"run": self._run_id, "arguments": beginning.arguments}
                audit.note_by(connection, self._order.by, Change("job.run", self._job.name, after=after))
        return Outcome("not_due") if self._run_id is None else None

    def _kept(self, connection: Connection[Any], ending: Ending) -> Ending:
        """Record how it ended. What failed as its connection did is lost: the database was away, the work not wrong."""
        assert self._run_id is not None
        try:
            if not runs.finish(connection, self._run_id, ending):
                logger().warning("job was given up as lost while it ran", job=self._job.name, run=self._run_id)
        except psycopg.Error:
            if ending.state == "failed" and connection.broken:
                ending = ending._replace(state="lost")
            self._unrecorded = ending
        return ending

    def _body(self, connection: Connection[Any], leash: LimitedRun, time_up: tuple[type[BaseException], ...]) -> Ending:
        assert self._run_id is not None
        context = Context(
            connection, leash, self._run_id, self._runner.settings, arguments=self._order.arguments,
            scheduled_for=self._due.scheduled_for if self._due else None,
            done_for=self._due.done_for if self._due else None, progress=self._order.progress,
        )  # fmt: skip
        try:
            result = _plain(self._job.run(context))
        except time_up as error:
            return Ending("timed_out", error=str(error) or "its time was up")
        except PartlyDone as error:
            return Ending("failed", _plain(error.result), str(error), rows=error.result.get("rows"))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is recorded, and other jobs go on
            if leash.stop_reason is not None:
                return Ending("timed_out" if leash.timed_out else "failed", error=leash.stop_reason)
            if is_unexpected(error):
                logger().error("job raised", job=self._job.name, exc_info=error)
            return Ending("failed", error=str(error).strip() or type(error).__name__)
        if leash.ended_by_force:
            return Ending("timed_out", error=leash.stop_reason)
        return Ending("done", result, rows=result.get("rows"))

    def _tell(self, ending: Ending) -> None:
        known = {"job": self._job.name, "run": self._run_id}
        if ending.state == "done":
            logger().info("job done", **known, result=ending.result)
        else:
            logger().error(f"job {ending.state.replace('_', ' ')}", **known, reason=ending.error)

    def ended_by_force(self, reason: str) -> None:
        """Record that the run's connections were ended, for the body may never come back."""
        if self._run_id is not None:
            self._record(Ending("timed_out", error=reason))

    def recorded_elsewhere(self, outcome: Outcome) -> Outcome:
        """Record over a new connection what could not be over the run's own."""
        if self._unrecorded is not None:
            self._record(self._unrecorded)
        return outcome

    def _record(self, ending: Ending) -> None:
        assert self._run_id is not None
        try:
            with connect(self._runner.dsn(Role.REFRESHER), autocommit=True) as connection:
                runs.finish(connection, self._run_id, ending)
        except (psycopg.Error, StoreUnavailable):
            # It stays under way in the record until somebody finds its lock free, and notes it as lost.
            logger().warning("the end of a run could not be recorded", job=self._job.name, run=self._run_id)


def _plain(result: dict[str, Any]) -> dict[str, Any]:
    """What a body returned, as the record can hold it."""
    plain: dict[str, Any] = json.loads(json.dumps(result, default=str))
    return plain
