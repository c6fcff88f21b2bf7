"""What is due: decided from the record of runs and the database's clock, so that every runner decides the same."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from psycopg import Connection

from totalizer.jobs.job import Job
from totalizer.store import runs
from totalizer.store.runs import Run, Standing

#: How often a run that failed or was lost is tried for one moment of its schedule.
ATTEMPTS_MAX = 3
#: Pause before the second try of a run that failed; doubled for each further one.
PAUSE = timedelta(seconds=30)


class Due(NamedTuple):
    """A run that is due.

    Attributes:
        scheduled_for: the moment of the schedule that it is for. Moments before it that were missed are made up for by
            the same run.
        attempt: which try, from 1.
        done_for: the last moment for which the job was done; None if for none.
    """

    scheduled_for: datetime
    attempt: int
    done_for: datetime | None


def due(connection: Connection[Any], job: Job) -> Due | None:
    """The run of a job that is due now; None if none is.

    Args:
        connection: as the refresher.
        job: with a schedule, or none is ever due.
    """
    if job.schedule is None or not job.enabled or job.continuous:
        return None
    standing = runs.standing(connection, job.name)
    moment = job.schedule.before(standing.now)
    latest = standing.latest
    if latest is None or latest.scheduled_for is None or latest.scheduled_for < moment:
        return Due(moment, 1, standing.done_for) if _is_expected(job, standing, moment) else None
    if not _is_to_be_tried_again(latest, standing.now):
        return None
    return Due(latest.scheduled_for, latest.attempt + 1, standing.done_for)


def _is_expected(job: Job, standing: Standing, moment: datetime) -> bool:
    """Of a job that never ran, a moment before anybody knew of the job was not missed; who asks first may run it."""
    assert job.schedule is not None
    if standing.latest is not None or job.schedule.from_the_start:
        return True
    return standing.known_since is None or standing.known_since <= moment


def _is_to_be_tried_again(run: Run, now: datetime) -> bool:
    if run.state not in ("failed", "lost") or run.attempt >= ATTEMPTS_MAX or run.finished_at is None:
        return False
    # Who was lost did nothing wrong, as far as anybody knows.
    pause = timedelta(0) if run.state == "lost" else PAUSE * 2 ** (run.attempt - 1)
    return now >= run.finished_at + pause


def find_lost(connection: Connection[Any]) -> list[str]:
    """Note runs whose process has died as lost; returns the jobs, one for each run.

    Args:
        connection: as the refresher, autocommit; it holds a job's lock for the moment of the look.
    """
    found = []
    for name in runs.jobs_under_way(connection):
        if runs.try_lock(connection, name):
            found += [name] * runs.lose(connection, name)
            runs.unlock(connection, name)
    return found
