"""Runs of the usage aggregation: one at a time for a day, the older one fenced off, what went wrong kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date, datetime
from typing import Any, NamedTuple

import psycopg
from psycopg import Connection
from psycopg.rows import class_row

Rows = Connection[Any]

#: First half of the advisory locks' names.
_LOCK = "hashtext('usage aggregation')"


class Run(NamedTuple):
    """The last run for a day.

    Attributes:
        date: the day, UTC.
        epoch: counts its runs.
        host: where it ran.
        started_at, finished_at: not finished while it runs, or if its process was killed.
        keys_scanned: counters found.
        records_aggregated: counters whose values are in the table.
        records_settled: sums of events that are in the table.
        errors: what could not be aggregated.
        failures_in_a_row: runs with errors, the last ones without one that had none.
        duration_ms: how long it took.
        error: what ended it early.
    """

    date: date
    epoch: int
    host: str
    started_at: datetime
    finished_at: datetime | None
    keys_scanned: int
    records_aggregated: int
    records_settled: int
    errors: int
    failures_in_a_row: int
    duration_ms: int | None
    error: str | None


@contextmanager
def claimed(connection: Rows, day: date, host: str) -> Iterator[int | None]:
    """Be the only run for a day within the block; gives its epoch, None if another process is at it.

    The lock is the connection's: it ends with the process, however that ends. If the connection is lost while the
    process goes on, another run may begin; its epoch fences this one off.

    Args:
        connection: as the refresher, autocommit, kept open for the length of the block.
        day: UTC.
        host: for the record.
    """
    number = day.toordinal()
    if connection.execute(f"SELECT pg_try_advisory_lock({_LOCK}, %s)".encode(), [number]).fetchone() != (True,):
        yield None
        return
    try:
        row = connection.execute(
            "INSERT INTO totalizer.usage_aggregations AS a (date, host) VALUES (%s, %s) ON CONFLICT (date) DO UPDATE "
            "SET epoch = a.epoch + 1, host = excluded.host, started_at = clock_timestamp(), finished_at = NULL, "
            "error = NULL RETURNING epoch",
            [day, host],
        ).fetchone()
        assert row is not None
        yield int(row[0])
    finally:
        with suppress(psycopg.OperationalError):  # a connection that is lost holds no lock
            connection.execute(f"SELECT pg_advisory_unlock({_LOCK}, %s)".encode(), [number])


def still_ours(connection: Rows, day: date, epoch: int) -> bool:
    """True if no later run has begun; then none begins until the transaction has ended."""
    row = connection.execute(
        "SELECT 1 FROM totalizer.usage_aggregations WHERE date = %s AND epoch = %s FOR SHARE", [day, epoch]
    ).fetchone()
    return row is not None


def finish(connection: Rows, day: date, epoch: int, figures: Mapping[str, Any]) -> int:
    """Record the end of a run; returns how many runs in a row had errors, this one included.

    Args:
        connection: as the refresher.
        day, epoch: of the run.
        figures: keys_scanned, records_aggregated, records_settled, errors, duration_ms and error.
    """
    row = connection.execute(
        "UPDATE totalizer.usage_aggregations SET finished_at = clock_timestamp(), keys_scanned = %(keys_scanned)s, "
        "records_aggregated = %(records_aggregated)s, records_settled = %(records_settled)s, errors = %(errors)s, "
        "failures_in_a_row = CASE WHEN %(errors)s = 0 AND %(error)s::text IS NULL THEN 0 ELSE failures_in_a_row + 1 "
        "END, duration_ms = %(duration_ms)s, error = %(error)s WHERE date = %(date)s AND epoch = %(epoch)s "
        "RETURNING failures_in_a_row",
        {**figures, "date": day, "epoch": epoch},
    ).fetchone()
    return 0 if row is None else int(row[0])


def last_run(connection: Rows, day: date) -> Run | None:
    """The last run for a day; None if there was none."""
    with connection.cursor(row_factory=class_row(Run)) as cursor:
        return cursor.execute("SELECT * FROM totalizer.usage_aggregations WHERE date = %s", [day]).fetchone()


def running(connection: Rows, day: date) -> bool:
    """True while a process aggregates a day."""
    row = connection.execute(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted AND "
        "database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND "
        f"classid::bigint = {_LOCK}::bigint & 4294967295 AND objid::bigint = %s".encode(),
        [day.toordinal()],
    ).fetchone()
    return row != (0,)


def keep_failures(connection: Rows, day: date, failures: Mapping[str, str], *, whole: bool) -> None:
    """Keep the counters that failed, with their reasons, and forget those of the day that did not fail this time.

    Args:
        connection: as the refresher.
        day: UTC.
        failures: reasons by the counters' names.
        whole: True if all of the day's counters were seen: one that is not among the failures is mended or gone.
    """
    names = [name.replace("\0", "\\0") for name in failures]
    if whole:
        connection.execute(
            "DELETE FROM totalizer.usage_failures WHERE date = %s AND key <> ALL (%s::text[])", [day, names]
        )
    if failures:
        connection.execute(
            "INSERT INTO totalizer.usage_failures AS f (key, date, reason) SELECT k, %s, r "
            "FROM unnest(%s::text[], %s::text[]) AS new (k, r) ON CONFLICT (key) DO UPDATE "
            "SET reason = excluded.reason, attempts = f.attempts + 1, last_failed_at = now()",
            [day, names, list(failures.values())],
        )


def failures_of(connection: Rows, day: date) -> list[tuple[str, str]]:
    """The day's counters that could not be aggregated, with their reasons; the first thousand by name."""
    return connection.execute(
        "SELECT key, reason FROM totalizer.usage_failures WHERE date = %s ORDER BY key LIMIT 1000", [day]
    ).fetchall()
