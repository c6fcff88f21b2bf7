"""All that is due, once, one after the other: for cron, and for functions that are called now and then."""

from __future__ import annotations

from collections.abc import Iterator

from totalizer.jobs.look import Look
from totalizer.jobs.run import Outcome, Runner
from totalizer.jobs.table import jobs
from totalizer.store.roles import Role


def run_all_due(runner: Runner) -> Iterator[tuple[str, Outcome]]:
    """Run what is due, missed, failed, lost or asked for, and the jobs that look for work, each once.

    Args:
        runner: who runs it.

    Yields:
        A job's name and what became of it, as each ends.

    Raises:
        StoreUnavailable: the database cannot be reached.
    """
    table = jobs(runner.settings)
    look = Look(lambda: runner.dsn(Role.REFRESHER), table)
    try:
        wanted = look.now()
    finally:
        look.close()
    for job in table.values():
        if job.continuous:
            yield job.name, runner.run_now(job)
    for job, request_id in wanted:
        yield job.name, runner.run_due(job) if request_id is None else runner.run_now(job, request_id=request_id)
