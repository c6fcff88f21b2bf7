"""Taking marks: what a transaction is to recompute, in temporary tables that live as long as the session.

Marks are first looked at, then as many of them are taken as make a transaction of bounded length, and deleted. The
events are read by later statements, so whatever a deleted mark stood for is seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from psycopg import Connection

from totalizer.catalog import EventType
from totalizer.catalog.quoting import quoted
from totalizer.store.plan import SHARDS
from totalizer.window import BASE, BASE_MINUTES

LIVE, BACKFILL = 0, 1

WORK_TABLES = """
    CREATE TEMP TABLE IF NOT EXISTS work (
        organization_id uuid, _bucket timestamptz, _scope text, _rollup text
    ) ON COMMIT DELETE ROWS;
    CREATE TEMP TABLE IF NOT EXISTS work_days (
        organization_id uuid, _day date, _starts timestamptz, _ends timestamptz, _rollup text,
        _week_later boolean NOT NULL DEFAULT false, _month_later boolean NOT NULL DEFAULT false
    ) ON COMMIT DELETE ROWS"""

# One probe of the index for each event type and shard, however many marks wait.
_TURNS = f"""
    SELECT name, shard, priority FROM totalizer.event_types, generate_series(0, {SHARDS - 1}) AS shard, LATERAL (
        SELECT m.priority FROM totalizer.dirty_marks m
        WHERE m.event_type = name AND m.shard = shard.shard ORDER BY m.priority LIMIT 1
    ) AS first ORDER BY priority, name, shard"""

_NEWEST = """
    SELECT max(newest) FROM unnest(%(shards)s::smallint[]) AS shard, LATERAL (
        SELECT bucket AS newest FROM totalizer.dirty_marks m
        WHERE m.event_type = %(type)s AND m.shard = shard.shard AND m.priority = %(priority)s AND m.bucket < %(before)s
        ORDER BY bucket DESC LIMIT 1
    ) AS first"""

# The newest first. What is marked for all rollups is not kept for one, nor what is computed from events for days only.
_LOOK = """
    WITH once AS MATERIALIZED (
        SELECT DISTINCT organization_id, bucket, scope, rollup FROM unnest(%(shards)s::smallint[]) AS s (n), LATERAL (
            SELECT organization_id, bucket, scope, rollup FROM totalizer.dirty_marks
            WHERE event_type = %(type)s AND shard = s.n AND priority = %(priority)s
              AND bucket BETWEEN %(since)s AND %(until)s
            ORDER BY bucket DESC LIMIT %(limit)s
        ) AS newest
    ) INSERT INTO work SELECT organization_id, bucket, scope, rollup FROM once t
    WHERE NOT EXISTS (
        SELECT FROM once wider
        WHERE wider.organization_id = t.organization_id AND wider.bucket = t.bucket
          AND (wider.rollup IS NULL OR wider.rollup IS NOT DISTINCT FROM t.rollup)
          AND (wider.scope = 'events' OR wider.scope = t.scope)
          AND (wider.rollup IS DISTINCT FROM t.rollup OR wider.scope <> t.scope)
    )"""

# Also what waits further back for the same bucket: it is settled by the same work.
_SETTLE = """
    DELETE FROM totalizer.dirty_marks m USING work w
    WHERE m.event_type = %(type)s AND m.organization_id = w.organization_id AND m.bucket = w._bucket
      AND (w._rollup IS NULL OR w._rollup = m.rollup) AND (w._scope = 'events' OR m.scope = w._scope)"""

# Below the raw floor the events may be gone: such a bucket is not computed from them any more, whoever has marked it.
_SPARE = """
    DELETE FROM work WHERE _scope = 'events'
      AND _bucket < (SELECT max(raw_floor) FROM totalizer.retention_floors WHERE event_type = %(type)s)
      AND _bucket < totalizer.raw_floor(%(type)s, organization_id)"""

# Each moment is looked up once for each zone, not for each organisation.
_DAYS = """
    INSERT INTO work_days (organization_id, _day, _starts, _ends, _rollup)
    WITH buckets AS MATERIALIZED (
        SELECT DISTINCT time_zone, _bucket FROM work JOIN totalizer.organizations o ON o.id = organization_id
    ), days AS MATERIALIZED (
        SELECT time_zone, _bucket, day, day::timestamp AT TIME ZONE time_zone AS starts,
               (day + 1)::timestamp AT TIME ZONE time_zone AS ends
        FROM buckets, LATERAL (SELECT (_bucket AT TIME ZONE time_zone)::date AS d) AS local,
             -- Where a day begins after its midnight, the bucket before belongs to the day before: look at both.
             LATERAL (VALUES (d), (d - 1), (d + 1)) AS near (day)
    )
    SELECT DISTINCT organization_id, day, starts, ends, _rollup
    FROM work JOIN totalizer.organizations o ON o.id = organization_id
    JOIN days ON days.time_zone = o.time_zone AND days._bucket = work._bucket
    WHERE starts <= days._bucket AND days._bucket < ends"""

# A week or month of which more marks wait is computed with the last of them. A mark below the raw floor is no reason to
# wait: it goes without anything being computed.
_LATER = """
    UPDATE work_days d SET _week_later = {week}, _month_later = {month}
    FROM totalizer.organizations o WHERE o.id = d.organization_id""".format(
    **{
        grain: f"""EXISTS (
        SELECT FROM totalizer.dirty_marks m
        WHERE m.organization_id = d.organization_id AND m.event_type = %(type)s
          AND m.bucket >= date_trunc('{grain}', _day::timestamp) AT TIME ZONE time_zone
          AND m.bucket < (date_trunc('{grain}', _day::timestamp) + interval '1 {grain}') AT TIME ZONE time_zone
          AND (m.rollup IS NULL OR m.rollup = d._rollup)
          AND m.bucket >= (SELECT coalesce(max(raw_floor), '-infinity') FROM totalizer.retention_floors
                           WHERE event_type = %(type)s))"""
        for grain in ("week", "month")
    }
)

_SUMMARY = """
    SELECT count(*), count(*) FILTER (WHERE _scope = 'events'),
           count(DISTINCT organization_id) FILTER (WHERE _scope = 'events'),
           min(_bucket) FILTER (WHERE _scope = 'events'), max(_bucket) FILTER (WHERE _scope = 'events'),
           array_agg(DISTINCT _rollup) FROM work"""


class Turn(NamedTuple):
    """Marks that wait: of which event type and shard, and the lowest priority number among them."""

    event_type: str
    shard: int
    priority: int


class Work(NamedTuple):
    """What a transaction has taken.

    Attributes:
        rows: buckets, of any scope, once for each rollup they are named for.
        of_events: those to be computed from events.
        organizations: how many those belong to.
        starts, ends: the span of time they lie in; None if there are none.
        rollups: names of the rollups concerned; None among them stands for all.
    """

    rows: int
    of_events: int
    organizations: int
    starts: datetime | None
    ends: datetime | None
    rollups: list[str | None]


def turns(connection: Connection[Any]) -> list[Turn]:
    """Where marks wait, live ones first."""
    return [Turn(*row) for row in connection.execute(_TURNS).fetchall()]


def newest(
    connection: Connection[Any], event_type: str, shards: Sequence[int], priority: int, before: datetime
) -> datetime | None:
    """The newest marked bucket before a moment."""
    row = connection.execute(
        _NEWEST, {"type": event_type, "shards": list(shards), "priority": priority, "before": before}
    ).fetchone()
    assert row is not None
    bucket: datetime | None = row[0]
    return bucket


def look(
    connection: Connection[Any], event_type: str, shards: Sequence[int], priority: int, limit: int,
    since: datetime | None = None, until: datetime | None = None,
) -> int:  # fmt: skip
    """Put what the newest marks name into `work`; the marks stay.

    Args:
        connection: in a transaction that has the shards' locks.
        event_type, shards, priority: of the marks.
        limit: the most marks of one shard.
        since, until: the oldest and the newest bucket; None for any.

    Returns:
        How many rows `work` has.
    """
    found = connection.execute(
        _LOOK,
        {
            "type": event_type,
            "shards": list(shards),
            "priority": priority,
            "limit": limit,
            "since": since or "-infinity",
            "until": until or "infinity",
        },
    ).rowcount
    if found:
        connection.execute("ANALYZE work")
    return found


def keep_within(connection: Connection[Any], event_type: EventType, events_max: int) -> bool:
    """Leave in `work` the newest buckets that hold so many events together, at least those of the newest moment.

    The index is walked from the newest bucket on and no further than that many events.

    Returns:
        True if older ones were left out.
    """
    time = quoted(event_type.time_field)
    left_out = connection.execute(
        f"""
        WITH over AS MATERIALIZED (
            SELECT _bucket
            FROM (SELECT * FROM work WHERE _scope = 'events' ORDER BY _bucket DESC OFFSET 0) AS w, LATERAL (
                SELECT FROM events.{quoted(event_type.name)} e
                WHERE e.organization_id = w.organization_id
                  AND e.{time} >= w._bucket AND e.{time} < w._bucket + interval '{BASE_MINUTES} minutes' OFFSET 0
            ) AS e OFFSET {events_max} LIMIT 1
        ) DELETE FROM work USING over
        WHERE work._bucket <= over._bucket AND work._bucket < (SELECT max(_bucket) FROM work)""".encode()
    )
    return left_out.rowcount > 0


def settle(connection: Connection[Any], event_type: str, *, more: bool) -> Work:
    """Delete the marks that `work` stands for, and find the days it lies in.

    Args:
        connection: in a transaction that has the shards' locks.
        event_type: of the marks.
        more: True if marks may have been left out: weeks and months that have some are then left to the last of them.
    """
    connection.execute(_SETTLE, {"type": event_type})
    connection.execute(_SPARE, {"type": event_type})
    connection.execute(_DAYS)
    connection.execute("ANALYZE work_days")
    if more:
        connection.execute(_LATER, {"type": event_type})
    row = connection.execute(_SUMMARY).fetchone()
    assert row is not None
    rows, of_events, organizations, starts, last, rollups = row
    return Work(rows, of_events, organizations, starts, last and last + BASE, rollups or [])
