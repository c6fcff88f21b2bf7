"""SQL that removes what lies below the floors, a bounded number of rows in each transaction.

Every statement finds its rows by organisation and time in an index. The floors were raised before, in a transaction of
their own: whoever is killed anywhere here leaves rows that nothing counts from any more, and the next run removes them.
"""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from totalizer.catalog import EventType
from totalizer.catalog.quoting import quoted
from totalizer.store.partitions import Partition

Rows = Connection[Any]

#: Rows removed in one transaction: bounds its length, and how much has to be done again after a kill.
BATCH_ROWS = 10_000
#: Ids forgotten in one transaction. They are found by a coarse index, which leads over those that are gone already.
BATCH_IDS = 50_000


def events_statement(event_type: EventType) -> str:
    """Removes events below their organisation's floor from one partition and notes how many; answers that number.

    Parameters: `type`, `starts` and `ends` of the partition, `own`: only of organisations with a floor of their own,
    `limit`.
    """
    table, time = f"events.{quoted(event_type.name)}", quoted(event_type.time_field)
    return f"""
        WITH gone AS (
            DELETE FROM {table} WHERE {time} >= %(starts)s AND {time} < %(ends)s AND ctid = ANY (ARRAY(
                SELECT e.ctid FROM totalizer.organizations o
                CROSS JOIN LATERAL totalizer.floors_of(%(type)s, o.id) f
                CROSS JOIN LATERAL (
                    SELECT ctid FROM {table}
                    WHERE organization_id = o.id AND {time} >= %(starts)s AND {time} < %(ends)s
                      AND {time} < f.raw_floor
                    LIMIT %(limit)s
                ) e
                WHERE f.raw_floor > %(starts)s AND (f.organization_id IS NOT NULL OR NOT %(own)s)
                LIMIT %(limit)s
            )) RETURNING organization_id
        ), noted AS (
            INSERT INTO totalizer.removed_events (organization_id, event_type, events)
            SELECT organization_id, %(type)s, count(*) FROM gone GROUP BY 1 RETURNING events
        )
        SELECT coalesce(sum(events), 0)::bigint FROM noted"""


def ids_statement(event_type: EventType) -> str:
    """Forgets ids of events below the key floor; parameters: `type`, `limit`."""
    keys = f"events.{quoted(event_type.name + '_keys')}"
    return f"""
        DELETE FROM {keys} WHERE ctid = ANY (ARRAY(
            SELECT k.ctid FROM {keys} k
            LEFT JOIN totalizer.retention_floors own
              ON own.event_type = %(type)s AND own.organization_id = k.organization_id
            WHERE k.event_time < (SELECT max(key_floor) FROM totalizer.retention_floors WHERE event_type = %(type)s)
              AND k.event_time < coalesce(own.key_floor, (
                  SELECT key_floor FROM totalizer.retention_floors
                  WHERE event_type = %(type)s AND organization_id IS NULL
              ))
            LIMIT %(limit)s
        ))"""


def rollup_statement(table: str, key: str, floor: str) -> str:
    """Removes rows of a rollup's table below the organisation's floor; parameters: `type`, `limit`.

    Args:
        table: in schema analytics.
        key: the column that says when.
        floor: the column of the floors that holds for it.
    """
    return f"""
        DELETE FROM analytics.{quoted(table)} WHERE ctid = ANY (ARRAY(
            SELECT r.ctid FROM totalizer.organizations o
            CROSS JOIN LATERAL totalizer.floors_of(%(type)s, o.id) f
            CROSS JOIN LATERAL (
                SELECT ctid FROM analytics.{quoted(table)}
                WHERE organization_id = o.id AND {quoted(key)} < f.{quoted(floor)} LIMIT %(limit)s
            ) r
            LIMIT %(limit)s
        ))"""


def remove_events(connection: Rows, event_type: EventType, partition: Partition, *, own: bool) -> int:
    """Remove up to BATCH_ROWS events of one partition that lie below their organisation's floor; returns how many.

    Args:
        connection: as the refresher, autocommit.
        event_type: of the partition.
        partition: which.
        own: only of organisations that have a floor of their own.
    """
    row = connection.execute(
        events_statement(event_type).encode(),
        {
            "type": event_type.name, "starts": partition.starts, "ends": partition.ends, "own": own,
            "limit": BATCH_ROWS,
        },
    ).fetchone()  # fmt: skip
    assert row is not None
    return int(row[0])


def forget_ids(connection: Rows, event_type: EventType) -> int:
    """Forget up to BATCH_IDS ids of events below the key floor; returns how many."""
    return connection.execute(
        ids_statement(event_type).encode(), {"type": event_type.name, "limit": BATCH_IDS}
    ).rowcount


def remove_rollup_rows(connection: Rows, event_type: str, table: str, key: str, floor: str) -> int:
    """Remove up to BATCH_ROWS rows of a rollup's table below the floor; returns how many."""
    return connection.execute(
        rollup_statement(table, key, floor).encode(), {"type": event_type, "limit": BATCH_ROWS}
    ).rowcount


def remove_applied(connection: Rows, event_type: str, days: int, organization_id: str | None) -> int:
    """Remove up to BATCH_ROWS late events that were added to the rollups so many days ago; returns how many.

    Args:
        connection: as the refresher, autocommit.
        event_type: of which events.
        days: how long they are kept after they were added.
        organization_id: whose; None: of all organisations about which nothing else is set.
    """
    row = connection.execute(
        """
        WITH gone AS (
            DELETE FROM totalizer.late_events WHERE id = ANY (ARRAY(
                SELECT id FROM totalizer.late_events l
                WHERE state = 'applied' AND applied_at < now() - make_interval(days => %(days)s)
                  AND event_type = %(type)s
                  AND CASE WHEN %(organization)s::uuid IS NULL THEN NOT EXISTS (
                      SELECT FROM totalizer.retention r
                      WHERE r.event_type = %(type)s AND r.organization_id = l.organization_id
                  ) ELSE organization_id = %(organization)s::uuid END
                LIMIT %(limit)s
            )) RETURNING organization_id
        ), noted AS (
            INSERT INTO totalizer.removed_events (organization_id, event_type, events)
            SELECT organization_id, %(type)s, count(*) FROM gone GROUP BY 1 RETURNING events
        )
        SELECT coalesce(sum(events), 0)::bigint FROM noted""",
        {"type": event_type, "days": days, "organization": organization_id, "limit": BATCH_ROWS},
    ).fetchone()
    assert row is not None
    return int(row[0])


def sum_up_removed(connection: Rows) -> None:
    """Make one row of each organisation and type out of all that tell how many events were removed."""
    connection.execute(
        "WITH taken AS (DELETE FROM totalizer.removed_events RETURNING *) "
        "INSERT INTO totalizer.removed_events (organization_id, event_type, events, removed_at) "
        "SELECT organization_id, event_type, sum(events)::bigint, max(removed_at) FROM taken GROUP BY 1, 2"
    )
