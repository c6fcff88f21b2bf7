"""The SQL that computes a rollup: written once, for every rollup.

`work` holds (organization_id, bucket) of the base buckets to recompute, `work_days` (organization_id, day, starts,
ends) of the local days they lie in. Buckets are deleted and inserted anew, so a group that has vanished leaves nothing
behind.
"""

from __future__ import annotations

from totalizer.catalog import EventType, Rollup
from totalizer.catalog.quoting import quoted, quoted_list
from totalizer.store.ddl import rollup_states
from totalizer.window import BASE_MINUTES

BASE_INTERVAL = f"interval '{BASE_MINUTES} minutes'"


def base_of(time: str) -> str:
    """SQL for the base bucket of a time expression."""
    return f"date_bin({BASE_INTERVAL}, {time}, 'epoch'::timestamptz)"


def delete_base(rollup: Rollup) -> str:
    """Delete the buckets of `work`."""
    return (
        f"DELETE FROM analytics.{quoted(rollup.base_table)} r USING work w "
        "WHERE r.organization_id = w.organization_id AND r.bucket = w.bucket"
    )


def insert_base(rollup: Rollup, event_type: EventType) -> str:
    """Compute the buckets of `work` from the events."""
    states = rollup_states(rollup, event_type)
    time = f"e.{quoted(event_type.time_field)}"
    dimensions = [f"e.{quoted(name)}" for name in rollup.dimensions]
    keys = ", ".join(["w.organization_id", "w.bucket", *dimensions])
    columns = ["organization_id", "bucket", *rollup.dimensions, *(state.column for state in states)]
    aggregates = ", ".join(state.from_events for state in states)
    return f"""
        INSERT INTO analytics.{quoted(rollup.base_table)} ({quoted_list(columns)})
        SELECT {keys}, {aggregates}
        FROM work w JOIN events.{quoted(event_type.name)} e
          ON e.organization_id = w.organization_id AND {time} >= w.bucket AND {time} < w.bucket + {BASE_INTERVAL}
        GROUP BY {keys} ORDER BY {keys}"""


def delete_days(rollup: Rollup) -> str:
    """Delete the days of `work_days`."""
    return (
        f"DELETE FROM analytics.{quoted(rollup.day_table)} r USING work_days w "
        "WHERE r.organization_id = w.organization_id AND r.day = w.day"
    )


def insert_days(rollup: Rollup, event_type: EventType) -> str:
    """Compute the days of `work_days` from the base buckets."""
    states = rollup_states(rollup, event_type)
    keys = ", ".join(["w.organization_id", "w.day", *(f"b.{quoted(name)}" for name in rollup.dimensions)])
    columns = ["organization_id", "day", *rollup.dimensions, *(state.column for state in states)]
    merged = ", ".join(state.from_states for state in states)
    return f"""
        INSERT INTO analytics.{quoted(rollup.day_table)} ({quoted_list(columns)})
        SELECT {keys}, {merged}
        FROM work_days w JOIN analytics.{quoted(rollup.base_table)} b
          ON b.organization_id = w.organization_id AND b.bucket >= w.starts AND b.bucket < w.ends
        GROUP BY {keys} ORDER BY {keys}"""
