"""Bringing the rollups of a window of time up to their events now, and marking a window for that."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from typing import Any, NamedTuple

from psycopg import Connection

from totalizer.catalog import Rollup
from totalizer.catalog.quoting import quoted
from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.rollup.refresh import refresh
from totalizer.rollup.statements import base_of
from totalizer.store.plan import Applied, read_applied

#: Seconds to wait for another worker who is at the window's buckets.
PAUSE_S = 0.2


class Brought(NamedTuple):
    """What bringing a window up to date did.

    Attributes:
        buckets: base buckets recomputed; some may be others' than the window's, taken along.
        behind: buckets of the window that were marked before and still are; 0 unless nobody can recompute them.
    """

    buckets: int
    behind: int


def bring_up(
    connection: Connection[Any], start: datetime, end: datetime, check: Callable[[], None], clock: Clock = SYSTEM_CLOCK
) -> Brought:
    """Recompute until no bucket of the window is marked that is marked now.

    What is marked while it works is left to the next: a window that is written to all the time would never be done.

    Args:
        connection: autocommit, as the refresher role.
        start, end: the window, end excluded.
        check: called between two pieces of work; may raise.
        clock: time source.
    """
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    since: datetime = row[0]
    buckets = 0
    while True:
        behind = _behind(connection, start, end, since)
        if not behind:
            return Brought(buckets, 0)
        check()
        done = refresh(connection)
        buckets += done.buckets
        if done.skipped:
            clock.sleep(PAUSE_S)
        elif not done.buckets:
            return Brought(buckets, _behind(connection, start, end, since))


def mark(connection: Connection[Any], start: datetime, end: datetime) -> int:
    """Mark every bucket of a window that has events or rows of a rollup; returns how many marks that are.

    Args:
        connection: as the refresher role.
        start, end: whole buckets, end excluded.
    """
    applied = read_applied(connection)
    return sum(
        _write_marks(connection, name, _buckets_with_something(applied, name), start, end)
        for name in applied.event_types
    )


def rows_of_days(connection: Connection[Any], first: date, end: date) -> int:
    """Rows of all rollups for local days, end excluded."""
    return _rows(connection, "day", first, end, lambda rollup: rollup.day_table)


def rows_of_buckets(connection: Connection[Any], start: datetime, end: datetime) -> int:
    """Rows of all rollups for the base buckets of a window, end excluded."""
    return _rows(connection, "bucket", start, end, lambda rollup: rollup.base_table)


def _behind(connection: Connection[Any], start: datetime, end: datetime, since: datetime) -> int:
    row = connection.execute(
        "SELECT count(*) FROM (SELECT DISTINCT organization_id, event_type, bucket FROM totalizer.dirty_marks "
        "WHERE bucket >= %s AND bucket < %s AND marked_at <= %s) AS marked",
        [start, end, since],
    ).fetchone()
    assert row is not None
    return int(row[0])


def _write_marks(connection: Connection[Any], event_type: str, buckets: str, start: datetime, end: datetime) -> int:
    """The one place that knows what a mark of recomputing old data looks like."""
    return connection.execute(
        "INSERT INTO totalizer.dirty_marks (organization_id, event_type, bucket, priority) "
        f"SELECT organization_id, %(event_type)s, bucket, 1 FROM ({buckets}) AS found",
        {"event_type": event_type, "start": start, "end": end},
    ).rowcount


def _buckets_with_something(applied: Applied, event_type: str) -> str:
    """SQL for the buckets of a window with events, or with rows that may have none any more."""
    time = quoted(applied.event_types[event_type].time_field)
    parts = [
        f"SELECT organization_id, {base_of(time)} AS bucket FROM events.{quoted(event_type)} "
        f"WHERE {time} >= %(start)s AND {time} < %(end)s"
    ]
    parts += [
        f"SELECT organization_id, bucket FROM analytics.{quoted(rollup.base_table)} "
        "WHERE bucket >= %(start)s AND bucket < %(end)s"
        for rollup in applied.rollups.values()
        if rollup.event_type == event_type
    ]
    return " UNION ".join(parts)


def _rows(connection: Connection[Any], column: str, start: Any, end: Any, table: Callable[[Rollup], str]) -> int:
    total = 0
    for rollup in read_applied(connection).rollups.values():
        # By organisation, which the key begins with.
        row = connection.execute(
            "SELECT coalesce(sum(n), 0)::bigint FROM totalizer.organizations o, LATERAL (SELECT count(*) AS n FROM "
            f"analytics.{quoted(table(rollup))} r WHERE r.organization_id = o.id AND r.{column} >= %s "
            f"AND r.{column} < %s) AS counted",
            [start, end],
        ).fetchone()
        assert row is not None
        total += int(row[0])
    return total
