"""The SQL that adds late events to rollups: written once, for every rollup and grain.

`late_work` holds the events, with the columns of their event table; `late_delta` what they come to by quarter hour:
rows as in the base table. A grain's rows that are touched are taken out, merged with what is added and put back, so
that every kind of measure is added by the same merge that makes a day out of its quarter hours.
"""

from __future__ import annotations

from totalizer.catalog import EventType, Rollup
from totalizer.catalog.levels import BASE, DAY, HOUR, MONTH, WEEK, Level
from totalizer.catalog.quoting import quoted, quoted_list
from totalizer.rollup.comparison import local_day
from totalizer.rollup.statements import base_of
from totalizer.store.ddl import rollup_states

#: Grains that late events are added to: the base first, minutes not, since they are kept for hours only.
LATE_LEVELS = (BASE, HOUR, DAY, WEEK, MONTH)
_FLOOR = {BASE: "base_floor", HOUR: "hour_floor", DAY: "day_floor"}
_WINDOW = {
    BASE: "d.bucket",
    HOUR: "date_trunc('hour', d.bucket, 'UTC')",
    DAY: "local.day",
    WEEK: "date_trunc('week', local.day::timestamp)::date",
    MONTH: "date_trunc('month', local.day::timestamp)::date",
}
#: The local day of a bucket: where clocks change at midnight, a day's bounds decide and not the bucket's local date.
_LOCAL_DAY = "JOIN totalizer.organizations o ON o.id = d.organization_id CROSS JOIN " + local_day(
    "d.bucket", "o.time_zone"
)


def make_work(event_type: EventType) -> str:
    """Make the table of the events, for this transaction."""
    return f"CREATE TEMP TABLE late_work (LIKE events.{quoted(event_type.name)} INCLUDING DEFAULTS) ON COMMIT DROP"


def make_delta(rollup: Rollup, event_type: EventType) -> str:
    """Compute what the events come to, by quarter hour, for this transaction."""
    bucket = base_of(quoted(event_type.time_field))
    dimensions = "".join(f", {quoted(name)}" for name in rollup.dimensions)
    states = ", ".join(f"{state.from_events} AS {quoted(state.column)}" for state in rollup_states(rollup, event_type))
    return f"""
        CREATE TEMP TABLE late_delta ON COMMIT DROP AS
        SELECT organization_id, {bucket} AS bucket{dimensions}, {states}
        FROM late_work GROUP BY organization_id, {bucket}{dimensions}"""


def add_delta(rollup: Rollup, level: Level, event_type: EventType) -> str:
    """Add the delta to one grain where it is still kept; answers how many rows each organisation has changed there."""
    states = rollup_states(rollup, event_type)
    keys = ["organization_id", level.key, *rollup.dimensions]
    columns = quoted_list([*keys, *(state.column for state in states)])
    dimensions = "".join(f", d.{quoted(name)}" for name in rollup.dimensions)
    merged = ", ".join(f"{state.from_states} AS {quoted(state.column)}" for state in states)
    same = " AND ".join(f"r.{quoted(key)} IS NOT DISTINCT FROM a.{quoted(key)}" for key in rollup.dimensions)
    window, floor = _WINDOW[level], _FLOOR.get(level)
    kept = f"WHERE {window} >= coalesce(f.{floor}, '-infinity')" if floor else ""
    table = f"analytics.{quoted(rollup.table(level))}"
    return f"""
        WITH added AS (
            SELECT d.organization_id, {window} AS {quoted(level.key)}{dimensions}, {merged}
            FROM late_delta d LEFT JOIN LATERAL totalizer.floors_of('{event_type.name}', d.organization_id) f ON true
            {_LOCAL_DAY if level in (DAY, WEEK, MONTH) else ""} {kept}
            GROUP BY d.organization_id, {window}{dimensions}
        ), taken AS (
            DELETE FROM {table} r USING added a
            WHERE r.organization_id = a.organization_id AND r.{quoted(level.key)} = a.{quoted(level.key)}
              {f"AND {same}" if same else ""}
            RETURNING r.*
        ), put AS (
            INSERT INTO {table} ({columns})
            SELECT {quoted_list(keys)}, {merged}
            FROM (SELECT {columns} FROM added UNION ALL SELECT {columns} FROM taken) AS both_sides
            GROUP BY {quoted_list(keys)} ORDER BY {quoted_list(keys)}
            RETURNING organization_id
        )
        SELECT organization_id::text, count(*) FROM put GROUP BY 1"""
