"""Partitions of the event tables: made ahead and on demand, dropped when everything in them is to go.

All that knows how events are divided by time is here, in `totalizer.ensure_partition`, `totalizer.drop_partition` and
the view `totalizer.partitions`; docs/adr/0014 says how other kinds of tables would take their place.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

import psycopg
from psycopg import Connection
from psycopg.rows import class_row

from totalizer.catalog.quoting import quoted
from totalizer.clock import SYSTEM_CLOCK, Clock

Rows = Connection[Any]

#: Days for which partitions are made ahead.
DAYS_AHEAD = 7
#: How often a partition is tried to be dropped while somebody holds its table, and the pause between two tries. Each
#: try lets new readers wait for at most the 50 ms of `totalizer.drop_partition`: a tenth of the time.
DROP_TRIES, DROP_PAUSE_S = 20, 0.45


class Partition(NamedTuple):
    """A part of an event table: events from `starts` up to, not including, `ends`."""

    event_type: str
    name: str
    starts: datetime
    ends: datetime


def partition_lengths(connection: Rows) -> dict[str, str]:
    """`day` or `month` for each event type the database knows."""
    return dict(connection.execute("SELECT name, partition FROM totalizer.event_types").fetchall())


def partition_name(event_type: str, day: str, length: str) -> str:
    """The name `ensure_partition` gives the partition of an ISO date."""
    return f"{event_type}_p{day[:4]}{day[5:7]}{day[8:10] if length == 'day' else ''}"


def ensure_partition(connection: Rows, event_type: str, day: str) -> str:
    """Make the partition that holds `day` (ISO date, UTC) if there is none; returns its name."""
    row = connection.execute("SELECT totalizer.ensure_partition(%s, %s::date)", [event_type, day]).fetchone()
    assert row is not None
    return str(row[0])


def make_ahead(connection: Rows, days: int = DAYS_AHEAD) -> int:
    """Make the partitions of today and the coming days, so that none is missing when the first event of a day arrives.

    Returns:
        How many were made.
    """
    row = connection.execute("SELECT (now() AT TIME ZONE 'UTC')::date").fetchone()
    assert row is not None
    today: date = row[0]
    before = len(list_partitions(connection))
    for event_type in partition_lengths(connection):
        for ahead in range(days + 1):
            ensure_partition(connection, event_type, (today + timedelta(days=ahead)).isoformat())
    return len(list_partitions(connection)) - before


def list_partitions(connection: Rows, event_type: str | None = None) -> list[Partition]:
    """The partitions of all event types or of one, oldest first."""
    with connection.cursor(row_factory=class_row(Partition)) as cursor:
        return cursor.execute(
            "SELECT event_type, name, starts, ends FROM totalizer.partitions "
            "WHERE %(type)s::text IS NULL OR event_type = %(type)s ORDER BY event_type, starts",
            {"type": event_type},
        ).fetchall()


def count_rows(connection: Rows, partition: Partition, time_field: str) -> dict[str, int]:
    """How many events each organisation has in a partition."""
    time = quoted(time_field)
    return dict(
        connection.execute(
            f"SELECT organization_id::text, count(*) FROM events.{quoted(partition.event_type)} "
            f"WHERE {time} >= %s AND {time} < %s GROUP BY 1",
            [partition.starts, partition.ends],
        ).fetchall()
    )


def drop_partition(
    connection: Rows, partition: Partition, counted: Mapping[str, int], clock: Clock = SYSTEM_CLOCK
) -> bool:
    """Drop a partition that lies below every floor, and note what was in it.

    Whoever reads or writes the table meanwhile goes on; who holds it for long is not waited for.

    Args:
        connection: as the refresher, autocommit.
        partition: which.
        counted: the events of each organisation in it.
        clock: for the pauses between tries.

    Returns:
        False if somebody held the table at every try; nothing has changed then.

    Raises:
        psycopg.Error: it is not below every floor, or has a marked bucket; or the database is away.
    """
    for tried in range(DROP_TRIES):
        if tried:
            clock.sleep(DROP_PAUSE_S)
        try:
            connection.execute(
                "SELECT totalizer.drop_partition(%s, %s, %s::uuid[], %s::bigint[])",
                [partition.event_type, partition.name, list(counted), list(counted.values())],
            )
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            continue
        return True
    return False
