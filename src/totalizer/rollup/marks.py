"""Taking marks: what a transaction is to recompute, in temporary tables that live as long as the session."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

WORK_TABLES = """
    CREATE TEMP TABLE IF NOT EXISTS work (
        organization_id uuid, _bucket timestamptz, _scope text, _rollup text
    ) ON COMMIT DELETE ROWS;
    CREATE TEMP TABLE IF NOT EXISTS work_days (
        organization_id uuid, _day date, _starts timestamptz, _ends timestamptz, _rollup text
    ) ON COMMIT DELETE ROWS"""

# Of the lowest priority number that waits, the newest first. What is marked for all rollups is not kept for one, and
# what is computed from events is not kept for days only.
_TAKE = """
    WITH taken AS (
        DELETE FROM totalizer.dirty_marks WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM totalizer.dirty_marks
            WHERE event_type = %(type)s AND shard = %(shard)s AND priority = (
                SELECT min(priority) FROM totalizer.dirty_marks WHERE event_type = %(type)s AND shard = %(shard)s
            ) ORDER BY bucket DESC LIMIT %(limit)s
        )) RETURNING organization_id, bucket, scope, rollup
    ), once AS MATERIALIZED (
        SELECT DISTINCT organization_id, bucket, scope, rollup FROM taken
    ) INSERT INTO work SELECT organization_id, bucket, scope, rollup FROM once t
    WHERE NOT EXISTS (
        SELECT FROM once wider
        WHERE wider.organization_id = t.organization_id AND wider.bucket = t.bucket
          AND (wider.rollup IS NULL OR wider.rollup IS NOT DISTINCT FROM t.rollup)
          AND (wider.scope = 'events' OR wider.scope = t.scope)
          AND (wider.rollup IS DISTINCT FROM t.rollup OR wider.scope <> t.scope)
    )"""

_DAYS = """
    INSERT INTO work_days
    SELECT DISTINCT organization_id, day, day::timestamp AT TIME ZONE time_zone,
           (day + 1)::timestamp AT TIME ZONE time_zone, _rollup
    FROM work JOIN totalizer.organizations o ON o.id = organization_id,
         LATERAL (SELECT (_bucket AT TIME ZONE o.time_zone)::date AS d) AS local,
         -- Where a day begins after its midnight, the bucket before belongs to the day before: look at both.
         LATERAL (VALUES (d), (d - 1), (d + 1)) AS near (day)
    WHERE _bucket >= day::timestamp AT TIME ZONE time_zone AND _bucket < (day + 1)::timestamp AT TIME ZONE time_zone"""


def take_marks(connection: Connection[Any], event_type: str, shard: int, limit: int) -> int:
    """Take marks into `work`, and the days they lie in into `work_days`.

    Args:
        connection: in a transaction that has the shard's lock.
        event_type, shard: of the marks.
        limit: the most marks.

    Returns:
        How many rows `work` has.
    """
    taken = connection.execute(_TAKE, {"type": event_type, "shard": shard, "limit": limit}).rowcount
    if taken:
        connection.execute("ANALYZE work")
        connection.execute(_DAYS)
        connection.execute("ANALYZE work_days")
    return taken
