"""Bringing rollups up to their events: take marks, recompute what they name, all in one transaction.

The order is what makes it exact. The shard's lock comes before any snapshot, so an older recompute cannot overwrite a
newer one. Marks are taken by one statement and events read by a later one: whatever is committed in between is read
now, and its own mark, not yet taken, only has it read once more.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from psycopg import Connection

from totalizer.catalog import EventType, Rollup
from totalizer.rollup import statements
from totalizer.store.plan import Applied, read_applied

#: Marks taken in one transaction: bounds its length and its locks.
MARKS_MAX = 20_000

_WORK_TABLES = """
    CREATE TEMP TABLE IF NOT EXISTS work (organization_id uuid, bucket timestamptz) ON COMMIT DELETE ROWS;
    CREATE TEMP TABLE IF NOT EXISTS work_days (
        organization_id uuid, day date, starts timestamptz, ends timestamptz
    ) ON COMMIT DELETE ROWS"""

_TAKE_MARKS = """
    WITH taken AS (
        DELETE FROM totalizer.dirty_marks WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM totalizer.dirty_marks WHERE event_type = %s AND shard = %s ORDER BY bucket DESC LIMIT %s
        )) RETURNING organization_id, bucket
    ) INSERT INTO work SELECT DISTINCT organization_id, bucket FROM taken"""

_DAYS_OF_WORK = """
    INSERT INTO work_days
    SELECT DISTINCT organization_id, day, day::timestamp AT TIME ZONE time_zone,
           (day + 1)::timestamp AT TIME ZONE time_zone
    FROM work JOIN totalizer.organizations o ON o.id = organization_id,
         LATERAL (SELECT (bucket AT TIME ZONE o.time_zone)::date AS d) AS local,
         -- Where a day begins after its midnight, the bucket before belongs to the day before: recompute both.
         LATERAL (VALUES (d), (d - 1), (d + 1)) AS near (day)
    WHERE bucket >= day::timestamp AT TIME ZONE time_zone AND bucket < (day + 1)::timestamp AT TIME ZONE time_zone"""


class Refreshed(NamedTuple):
    """What one look for marks did.

    Attributes:
        buckets: base buckets recomputed, once for each event type.
        skipped: shards that another worker had locked.
    """

    buckets: int = 0
    skipped: int = 0


def refresh(connection: Connection[Any]) -> Refreshed:
    """Recompute every bucket that is marked now.

    Args:
        connection: autocommit, as the refresher role.

    Raises:
        psycopg.Error: the database is away; marks of unfinished work are kept.
    """
    shards = connection.execute("SELECT DISTINCT event_type, shard FROM totalizer.dirty_marks ORDER BY 1, 2").fetchall()
    if not shards:
        return Refreshed()
    applied = read_applied(connection)
    connection.execute(_WORK_TABLES)
    buckets = skipped = 0
    for event_type, shard in shards:
        done = refresh_shard(connection, applied, event_type, shard)
        buckets += done or 0
        skipped += done is None
    return Refreshed(buckets, skipped)


def refresh_shard(connection: Connection[Any], applied: Applied, event_type: str, shard: int) -> int | None:
    """Recompute the marked buckets of one event type and shard of organisations, at most MARKS_MAX marks.

    Returns:
        How many buckets; None if another worker is at it.
    """
    with connection.transaction():
        locked = connection.execute(
            "SELECT pg_try_advisory_xact_lock(hashtext('rollup ' || %s), %s)", [event_type, shard]
        ).fetchone()
        if locked != (True,):
            return None
        buckets = connection.execute(_TAKE_MARKS, [event_type, shard, MARKS_MAX]).rowcount
        if buckets:
            connection.execute("ANALYZE work")
            connection.execute(_DAYS_OF_WORK)
            connection.execute("ANALYZE work_days")
            for rollup in applied.rollups.values():
                if rollup.event_type == event_type:
                    _recompute(connection, rollup, applied.event_types[event_type])
        return buckets


def _recompute(connection: Connection[Any], rollup: Rollup, event_type: EventType) -> None:
    connection.execute(statements.delete_base(rollup))
    connection.execute(statements.insert_base(rollup, event_type))
    connection.execute(statements.delete_days(rollup))
    connection.execute(statements.insert_days(rollup, event_type))
