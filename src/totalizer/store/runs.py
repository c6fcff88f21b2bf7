"""SQL of the runs of jobs: the lock that lets one runner in, what was run, what became of it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import psycopg
from psycopg import Connection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

Rows = Connection[Any]

#: The first key of every job's advisory lock; the second is the job's name.
_LOCK = "hashtext('totalizer job'), hashtext(%s)"
_RUN = (
    "SELECT id, job, state, scheduled_for, requested_at, started_at, finished_at, rows, result, error, host, runner, "
    "attempt, runs, arguments FROM totalizer.job_runs"
)


class Run(NamedTuple):
    """One run of a job.

    Attributes:
        id: grows from run to run of a job.
        job: its name.
        state: requested, running, done, failed, timed_out or lost.
        scheduled_for: the moment of its schedule; None if it was asked for, or runs all the time.
        requested_at, started_at, finished_at: when, as far as it has come.
        rows: how many it says it has changed; None if it does not say.
        result: what it did; while it runs, how far it is.
        error: why it was not done.
        host, runner: where it ran, and by what: scheduler, celery, command or lambda.
        attempt: which try for that moment, from 1.
        runs: how many runs the row stands for.
        arguments: what it was given.
    """

    id: int
    job: str
    state: str
    scheduled_for: datetime | None
    requested_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    rows: int | None
    result: dict[str, Any] | None
    error: str | None
    host: str | None
    runner: str | None
    attempt: int
    runs: int
    arguments: dict[str, Any] | None


class Beginning(NamedTuple):
    """What is known of a run when it begins; `ticket` is the message that asked for it, if one did."""

    job: str
    host: str
    runner: str
    scheduled_for: datetime | None = None
    attempt: int = 1
    arguments: dict[str, Any] | None = None
    request_id: int | None = None
    ticket: str | None = None


class Ending(NamedTuple):
    """What became of a run: done, failed, timed_out or lost."""

    state: str
    result: dict[str, Any] | None = None
    error: str | None = None
    rows: int | None = None


class Standing(NamedTuple):
    """What the record says of a job's schedule.

    Attributes:
        now: the database's clock, by which everything is decided.
        known_since: when the job was seen first; None if never.
        latest: the last run for the newest moment that had any; None if none had.
        done_for: the newest moment for which it was done.
    """

    now: datetime
    known_since: datetime | None
    latest: Run | None
    done_for: datetime | None


class Known(NamedTuple):
    """A line of the table of jobs, for those who read the database only."""

    name: str
    description: str
    schedule: str | None
    queue: str
    soft_limit: timedelta
    hard_limit: timedelta
    enabled: bool
    requestable: bool
    next_run_at: datetime | None


def database_now(connection: Rows) -> datetime:
    """The database's clock."""
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    now: datetime = row[0]
    return now


def announce(connection: Rows, jobs: Iterable[Known]) -> None:
    """Write down what jobs there are; nothing is written that is there already."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO totalizer.jobs AS j "
            "(name, description, schedule, queue, soft_limit, hard_limit, enabled, requestable, next_run_at) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (name) DO UPDATE SET "
            "description = excluded.description, schedule = excluded.schedule, queue = excluded.queue, "
            "soft_limit = excluded.soft_limit, hard_limit = excluded.hard_limit, enabled = excluded.enabled, "
            "requestable = excluded.requestable, next_run_at = excluded.next_run_at "
            "WHERE (j.description, j.schedule, j.queue, j.soft_limit, j.hard_limit, j.enabled, j.requestable, "
            "j.next_run_at) IS DISTINCT FROM (excluded.description, excluded.schedule, excluded.queue, "
            "excluded.soft_limit, excluded.hard_limit, excluded.enabled, excluded.requestable, excluded.next_run_at)",
            list(jobs),
        )


def try_lock(connection: Rows, job: str) -> bool:
    """Become the one who runs a job, until `unlock` or the end of the connection; False if somebody is."""
    return connection.execute(f"SELECT pg_try_advisory_lock({_LOCK})", [job]).fetchone() == (True,)


def unlock(connection: Rows, job: str) -> None:
    """Let others run the job."""
    connection.execute(f"SELECT pg_advisory_unlock({_LOCK})", [job])


def lose(connection: Rows, job: str) -> int:
    """Note that the runs of a job that say they are under way are not; returns how many. Call it with the lock."""
    return connection.execute(
        "UPDATE totalizer.job_runs SET state = 'lost', finished_at = now(), "
        "error = 'its process or its connection to the database ended' WHERE job = %s AND state = 'running'",
        [job],
    ).rowcount


def standing(connection: Rows, job: str) -> Standing:
    """What the record says of a job's schedule."""
    with connection.cursor(row_factory=class_row(Run)) as cursor:
        latest = cursor.execute(
            f"{_RUN} WHERE job = %s AND scheduled_for IS NOT NULL ORDER BY scheduled_for DESC, id DESC LIMIT 1", [job]
        ).fetchone()
    row = connection.execute(
        "SELECT clock_timestamp(), (SELECT known_since FROM totalizer.jobs WHERE name = %(job)s), (SELECT "
        "max(scheduled_for) FROM totalizer.job_runs WHERE job = %(job)s AND state = 'done')",
        {"job": job},
    ).fetchone()
    assert row is not None
    return Standing(row[0], row[1], latest, row[2])


def lost_for(connection: Rows, ticket: str) -> int:
    """How many runs for a message were lost."""
    query = "SELECT FROM totalizer.job_runs WHERE ticket = %s AND state = 'lost'"
    return connection.execute(query, [ticket]).rowcount


def begin(connection: Rows, beginning: Beginning) -> int | None:
    """Record that a run begins; returns its number. Call it with the lock.

    Returns:
        None if there is no more to be done: another has run it for that moment or message, or has taken the request.
    """
    values = {
        **beginning._asdict(), "arguments": None if beginning.arguments is None else Jsonb(beginning.arguments),
    }  # fmt: skip
    if beginning.request_id is not None:
        row = connection.execute(
            "UPDATE totalizer.job_runs SET state = 'running', started_at = now(), host = %(host)s, "
            "runner = %(runner)s WHERE id = %(request_id)s AND state = 'requested' RETURNING id",
            values,
        ).fetchone()
    else:
        row = connection.execute(
            "INSERT INTO totalizer.job_runs "
            "(job, host, runner, scheduled_for, attempt, arguments, ticket, state, started_at) "
            "SELECT %(job)s, %(host)s, %(runner)s, %(scheduled_for)s::timestamptz, %(attempt)s, %(arguments)s::jsonb, "
            "%(ticket)s, 'running', now() "
            "WHERE NOT EXISTS (SELECT FROM totalizer.job_runs WHERE ticket = %(ticket)s AND state = 'done') "
            "ON CONFLICT (job, scheduled_for) WHERE state IN ('running', 'done') DO NOTHING RETURNING id",
            values,
        ).fetchone()
    return None if row is None else int(row[0])


def finish(connection: Rows, run_id: int, ending: Ending) -> bool:
    """Record what became of a run; False if it was given up as lost meanwhile, and so perhaps done by another."""
    result = None if ending.result is None else Jsonb(ending.result)
    done = connection.execute(
        "UPDATE totalizer.job_runs SET state = %s, finished_at = clock_timestamp(), result = %s, error = %s, "
        "rows = %s WHERE id = %s AND (state = 'running' OR (state = 'lost' AND %s <> 'done'))",
        [ending.state, result, ending.error, ending.rows, run_id, ending.state],
    )
    return done.rowcount == 1


def note_progress(connection: Rows, run_id: int, done: int, of: int) -> None:
    """Record how far a run is."""
    connection.execute(
        "UPDATE totalizer.job_runs SET result = %s WHERE id = %s AND state = 'running'",
        [Jsonb({"done": done, "of": of}), run_id],
    )


def sum_up(connection: Rows, run_id: int | None, beginning: Beginning, runs: int, result: dict[str, Any]) -> int:
    """Record runs of a job that runs all the time, in a row for many; returns the row's number.

    Args:
        connection: autocommit, as the refresher.
        run_id: the row; None for a new one.
        beginning: of the first of them.
        runs, result: all that the row stands for.
    """
    values = [runs, Jsonb(result), result.get("rows", result.get("buckets"))]
    if run_id is not None:
        connection.execute(
            "UPDATE totalizer.job_runs SET finished_at = clock_timestamp(), runs = %s, result = %s, rows = %s "
            "WHERE id = %s",
            [*values, run_id],
        )
        return run_id
    row = connection.execute(
        "INSERT INTO totalizer.job_runs (runs, result, rows, job, host, runner, state, started_at, finished_at) "
        "VALUES (%s, %s, %s, %s, %s, %s, 'done', clock_timestamp(), clock_timestamp()) RETURNING id",
        [*values, beginning.job, beginning.host, beginning.runner],
    ).fetchone()
    assert row is not None
    return int(row[0])


def requested(connection: Rows) -> list[Run]:
    """Runs that were asked for and have not begun, oldest first."""
    with connection.cursor(row_factory=class_row(Run)) as cursor:
        return cursor.execute(f"{_RUN} WHERE state = 'requested' ORDER BY id").fetchall()


def jobs_under_way(connection: Rows) -> list[str]:
    """Jobs of which a run says that it is under way."""
    return [row[0] for row in connection.execute("SELECT DISTINCT job FROM totalizer.job_runs WHERE state = 'running'")]


def history(connection: Rows, job: str | None = None, limit: int = 50) -> list[Run]:
    """The newest runs, of a job or of all."""
    with connection.cursor(row_factory=class_row(Run)) as cursor:
        return cursor.execute(
            f"{_RUN} WHERE %(job)s::text IS NULL OR job = %(job)s ORDER BY id DESC LIMIT %(limit)s",
            {"job": job, "limit": limit},
        ).fetchall()


def last_runs(connection: Rows, jobs: Iterable[str]) -> dict[str, Run]:
    """The newest run of each job that has any."""
    with connection.cursor(row_factory=class_row(Run)) as cursor:
        found = cursor.execute(
            "SELECT r.* FROM unnest(%s::text[]) AS named (name), "
            f"LATERAL ({_RUN} WHERE job = name ORDER BY id DESC LIMIT 1) AS r",
            [list(jobs)],
        )
        return {run.job: run for run in found}


def forget(connection: Rows, days: int) -> int:
    """Remove the record of runs that ended more than so many days ago; returns how many.

    The newest done run of each schedule stays: what was missed is decided by it.
    """
    return connection.execute(
        "DELETE FROM totalizer.job_runs r WHERE finished_at < now() - make_interval(days => %s) AND (scheduled_for IS "
        "NULL OR EXISTS (SELECT FROM totalizer.job_runs n WHERE n.job = r.job AND n.id > r.id AND n.state = 'done' "
        "AND n.scheduled_for IS NOT NULL))",
        [days],
    ).rowcount


def end_backend(dsn: str, pid: int) -> None:
    """End a connection of the same role from outside.

    Raises:
        psycopg.Error: the database cannot be reached.
    """
    with psycopg.connect(dsn, autocommit=True, connect_timeout=5) as connection:
        connection.execute("SELECT pg_terminate_backend(%s)", [pid])
