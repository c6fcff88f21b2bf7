"""One run of a job as a function of AWS Lambda, started by a schedule of its own or by hand."""

from __future__ import annotations

from typing import Any

from totalizer.errors import OperationError
from totalizer.jobs.once import run_all_due
from totalizer.jobs.run import Outcome, Runner
from totalizer.jobs.table import job_named
from totalizer.settings import load_settings
from totalizer.telemetry import configure_logging

#: States of a run that was not done; and of one that another process runs, which is wrong only where it was asked for.
_WRONG = ("failed", "timed_out", "lost")
_NOT_DONE = (*_WRONG, "busy")


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Run the job that the event names.

    Args:
        event: `job`; perhaps `arguments`, or `due`: true to run it only if the record says that it is due. Without
            `job`, `due` runs all that is due, one after the other.
        context: Lambda's; not used. Its own time limit should be longer than the job's.

    Returns:
        `state`, `run_id`, `result` and `error`; for all that is due, an object of such by the jobs' names.

    Raises:
        OperationError: there is no such job, its arguments are wrong, or it was not done: so that Lambda counts it as
            failed, and tries again if it is set up to.
        StoreUnavailable: the database cannot be reached.
    """
    settings = load_settings()
    configure_logging(settings.log_level, "lambda")
    name, due, arguments = event.get("job"), bool(event.get("due")), event.get("arguments") or {}
    if due and arguments:
        raise OperationError("a run that is due has the arguments of its schedule; leave out `due` or `arguments`")
    if name is None and due:
        return _all_due(Runner(settings, "lambda"))
    if not isinstance(name, str):
        raise OperationError('the event names no job: send {"job": "daily_rollup"}')
    job, runner = job_named(settings, name), Runner(settings, "lambda")
    outcome = runner.run_due(job) if due else runner.run_now(job, arguments)
    if outcome.state in _NOT_DONE:
        raise OperationError(_said(name, outcome))
    return outcome._asdict()


def _all_due(runner: Runner) -> dict[str, Any]:
    outcomes = dict(run_all_due(runner))
    if wrong := [_said(name, each) for name, each in outcomes.items() if each.state in _WRONG]:
        raise OperationError("; ".join(wrong))
    return {name: outcome._asdict() for name, outcome in outcomes.items()}


def _said(name: str, outcome: Outcome) -> str:
    return f"{name} {outcome.state.replace('_', ' ')}: {outcome.error or 'another is running it'}"
