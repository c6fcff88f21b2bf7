"""The jobs as Celery tasks: each by its name with `_task`, over the same bodies, lock and record as every runner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import click
from celery import Celery, Task
from celery.bin.base import CLIContext
from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import beat_init, worker_init, worker_process_init, worker_process_shutdown

from totalizer import tracing
from totalizer.app import measure
from totalizer.errors import OperationError, StoreUnavailable, TotalizerError
from totalizer.jobs.celery_config import (
    CATCH_UP,
    DUE_HEADER,
    GRACE_S,
    REQUEST_HEADER,
    broker_url,
    configuration,
    task_name,
)
from totalizer.jobs.continuous import ContinuousRunner
from totalizer.jobs.job import Job
from totalizer.jobs.look import Look
from totalizer.jobs.run import Outcome, Runner
from totalizer.jobs.table import job_named, jobs
from totalizer.settings import Settings
from totalizer.store.roles import Role
from totalizer.telemetry import configure_logging, logger

#: Seconds until a task that found its job running is tried again; doubled each time, up to the second.
BUSY_S, BUSY_S_MAX = 1, 30
#: How often that is done, and how often a task is tried while the database is away. A run that had begun is tried
#: again as often as `due.ATTEMPTS_MAX` says.
TRIES_MAX = 1000
_WHY_SKIPPED = {
    "busy": "another process is running it now", "not_due": "it is done already",
    "disabled": "its schedule is switched off",
}  # fmt: skip


def make_app(settings_of: Callable[[], Settings]) -> tuple[Celery, dict[str, Any]]:
    """The Celery application and its tasks by name; it is configured when that is first needed.

    Args:
        settings_of: the settings of this process.
    """
    # A program that sends tasks may have an application of its own, which stays the current one.
    app = Celery("totalizer", set_as_current=False)
    app.add_defaults(lambda: _configured(settings_of))
    worker = _Worker(app, settings_of)
    # The names, limits and queues of jobs are the same whatever is set.
    for job in jobs(Settings.model_construct()).values():
        worker.add(job)
    worker.add_catch_up()
    _listen(settings_of, worker)
    return app, worker.tasks


def _configured(settings_of: Callable[[], Settings]) -> dict[str, Any]:
    """The configuration; under the command `celery`, what is wrong with it is one line and exit code 1.

    Raises:
        TotalizerError: no database or no broker is named, or a setting cannot be used.
        ClickException: the same for the command.
    """
    try:
        return configuration(settings_of())
    except TotalizerError as error:
        command = click.get_current_context(silent=True)
        if command is None or not isinstance(command.find_root().obj, CLIContext):
            raise
        raise click.ClickException(str(error)) from error


class _Worker:
    """Runs tasks in one process, with what it keeps open between them."""

    def __init__(self, app: Celery, settings_of: Callable[[], Settings]) -> None:
        self._app, self._settings_of = app, settings_of
        self.tasks: dict[str, Any] = {}
        self._continuous: dict[str, ContinuousRunner] = {}
        self._look: Look | None = None

    def add(self, job: Job) -> None:
        """Make a job's task."""
        name, parameters = job.name, list(job.arguments)

        def run(task: Task, *arguments: Any, **named: Any) -> dict[str, Any]:
            given = dict(zip(parameters, arguments, strict=False))
            if len(arguments) > len(parameters) or given.keys() & named.keys():
                raise OperationError(f"{task.name} takes {', '.join(parameters) or 'no arguments'}")
            return self.run(task, name, given | named)

        run.__name__, run.__doc__ = task_name(name), job.run.__doc__
        soft_s, hard_s = job.soft_limit.total_seconds(), job.limit.total_seconds()
        self.tasks[task_name(name)] = self._app.task(
            run, bind=True, name=task_name(name), soft_time_limit=int(soft_s) + GRACE_S,
            time_limit=int(hard_s) + GRACE_S, ignore_result=job.continuous, typing=False, shared=False,
        )  # fmt: skip

    def add_catch_up(self) -> None:
        """Make the task that sends what was missed, failed, lost or asked for."""

        def catch_up(_task: Task) -> dict[str, Any]:
            return {"sent": self.catch_up()}

        catch_up.__doc__ = "Send what was missed, failed, lost or asked for."
        self.tasks[CATCH_UP] = self._app.task(
            catch_up, bind=True, name=CATCH_UP, ignore_result=True, soft_time_limit=60, time_limit=70, shared=False
        )

    def run(self, task: Task, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Run a job for a message; what it did.

        Raises:
            OperationError: it was not done.
        """
        settings = self._settings_of()
        job, headers = job_named(settings, name), task.request.headers or {}
        runner = Runner(settings, "celery", (SoftTimeLimitExceeded,))
        if job.continuous and not arguments:
            return self._run_continuous(job, runner)
        if headers.get(DUE_HEADER):
            return _told(name, runner.run_due(job))
        if REQUEST_HEADER in headers:
            return _told(name, runner.run_now(job, request_id=headers[REQUEST_HEADER]))
        try:
            outcome = runner.run_now(job, arguments, ticket=task.request.id)
        except StoreUnavailable as error:
            raise _again(task, error) from error
        if outcome.state == "lost":
            raise _again(task, StoreUnavailable(outcome.error))
        if outcome.state == "busy":  # this one has arguments of its own, so it has its turn
            raise _again(task, None)
        return _told(name, outcome)

    def _run_continuous(self, job: Job, runner: Runner) -> dict[str, Any]:
        if job.name not in self._continuous:
            self._continuous[job.name] = ContinuousRunner(job, runner)
        self._continuous[job.name]()
        return {"task": job.name, "status": "done"}

    def catch_up(self) -> int:
        """Send what shall run now; returns how many."""
        settings = self._settings_of()
        table = jobs(settings)
        if self._look is None:
            self._look = Look(lambda: Runner(settings, "celery").dsn(Role.REFRESHER), table)
        wanted = self._look()
        for job, request_id in wanted:
            header = {DUE_HEADER: True} if request_id is None else {REQUEST_HEADER: request_id}
            # If it waits longer for a worker, the next look sends another.
            self.tasks[task_name(job.name)].apply_async(
                headers=header, expires=max(3 * settings.job_look_ms / 1000, 15)
            )
        return len(wanted)

    def close(self) -> None:
        """Record what is not recorded yet, and close the connections."""
        for each in self._continuous.values():
            each.close()
        self._continuous.clear()
        if self._look is not None:
            self._look.close()
            self._look = None


def _listen(settings_of: Callable[[], Settings], worker: _Worker) -> None:
    """Logs as those of the other parts, in worker, pool process and beat alike."""

    def begin(**_: Any) -> None:
        settings = settings_of()
        configure_logging(settings.log_level, "worker", form=settings.log_format, env=settings.app_env)

    def begin_worker(**_: Any) -> None:
        begin()
        settings = settings_of()
        parts = urlsplit(broker_url(settings))
        if settings.app_env == "production" and parts.hostname and not parts.password:
            logger().warning("the broker has no password: whoever reaches it can have any job run", host=parts.hostname)

    def begin_process(**_: Any) -> None:
        begin()
        measure(settings_of(), "worker")
        tracing.start(settings_of().traces_endpoint, "worker")

    def end(**_: Any) -> None:
        worker.close()
        tracing.stop()

    for signal, receiver in (
        (worker_init, begin_worker), (worker_process_init, begin_process), (beat_init, begin),
        (worker_process_shutdown, end),
    ):  # fmt: skip
        signal.connect(receiver, weak=False)


def _told(name: str, outcome: Outcome) -> dict[str, Any]:
    if outcome.state in _WHY_SKIPPED:
        return {"task": name, "status": "skipped", "reason": _WHY_SKIPPED[outcome.state]}
    if outcome.state != "done":
        raise OperationError(f"{name} {outcome.state.replace('_', ' ')}: {outcome.error} (run {outcome.run_id})")
    return {"task": name, "status": "done", **(outcome.result or {})}


def _again(task: Task, error: StoreUnavailable | None) -> Exception:
    """What has the task tried again after a growing pause."""
    pause = int(min(BUSY_S * 2**task.request.retries, BUSY_S_MAX))
    retry: Exception = task.retry(exc=error, countdown=pause, max_retries=TRIES_MAX, throw=False)
    return retry
