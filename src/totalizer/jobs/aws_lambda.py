"""One run of a job as a function of AWS Lambda, started by a schedule of its own or by hand."""

from __future__ import annotations

from typing import Any

from totalizer.errors import OperationError
from totalizer.jobs.run import Runner
from totalizer.jobs.table import job_named
from totalizer.settings import load_settings
from totalizer.telemetry import configure_logging


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Run the job that the event names.

    Args:
        event: `job`; perhaps `arguments`; `due`: true to run it only if the record says that it is due.
        context: Lambda's; not used. Its own time limit should be longer than the job's.

    Returns:
        `state`, `run_id`, `result` and `error`.

    Raises:
        OperationError: there is no such job, its arguments are wrong, or it was not done: so that Lambda counts it as
            failed, and tries again if it is set up to.
        StoreUnavailable: the database cannot be reached.
    """
    settings = load_settings()
    configure_logging(settings.log_level, "lambda")
    name = event.get("job")
    if not isinstance(name, str):
        raise OperationError('the event names no job: send {"job": "daily_rollup"}')
    job, runner = job_named(settings, name), Runner(settings, "lambda")
    outcome = runner.run_due(job) if event.get("due") else runner.run_now(job, event.get("arguments") or {})
    if outcome.state in ("failed", "timed_out", "busy"):
        raise OperationError(f"{name} {outcome.state.replace('_', ' ')}: {outcome.error or 'another is running it'}")
    return outcome._asdict()
