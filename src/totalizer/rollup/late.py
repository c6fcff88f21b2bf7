"""Late events, added to the rollups: those of buckets that are not computed from events any more.

It is all one transaction under the lock of the organisations' shard, like a refresh: the events are marked as added in
the transaction that adds them, so each is added once whoever is killed when.
"""

from __future__ import annotations

from typing import Any

import msgspec
from psycopg import Connection

from totalizer import failpoint
from totalizer.catalog import EventType, Rollup
from totalizer.clock import SYSTEM_CLOCK, Clock
from totalizer.failpoint import Failpoint
from totalizer.rollup import late_statements
from totalizer.rollup.late_statements import LATE_LEVELS
from totalizer.store import late
from totalizer.store.loading import copy_lines
from totalizer.store.plan import Applied, read_applied

Rows = Connection[Any]

#: Late events added in one transaction: bounds its length and the size of the audit's rows.
EVENTS_MAX = 5_000


def apply_late(connection: Rows, applied_by: str | None = None, *, clock: Clock = SYSTEM_CLOCK) -> dict[str, Any]:
    """Add every event that is late now to all grains of its rollups that are still kept for its time.

    Args:
        connection: autocommit, as the refresher role.
        applied_by: who has it done, for the audit; the database role if None.
        clock: for the duration.

    Returns:
        `events`, how many were added; `rows`, how many rows of each table were changed; `skipped_shards`, that another
        worker had locked; `duration_ms`. Only `duration_ms` and zeros if nothing was late.

    Raises:
        psycopg.Error: the database is away; what was not added yet is late still.
    """
    started = clock.monotonic()
    events = skipped = 0
    rows: dict[str, int] = {}
    shards = connection.execute(
        "SELECT DISTINCT event_type, shard FROM totalizer.late_events WHERE state = 'late' ORDER BY 1, 2"
    ).fetchall()
    applied = read_applied(connection) if shards else Applied({}, {})
    for event_type, shard in shards:
        while (added := _apply_shard(connection, applied, event_type, shard, applied_by, rows)) == EVENTS_MAX:
            events += added
        events += added or 0
        skipped += added is None
    return {
        "events": events, "rows": rows, "skipped_shards": skipped,
        "duration_ms": round(1000 * (clock.monotonic() - started)),
    }  # fmt: skip


def _apply_shard(
    connection: Rows, applied: Applied, event_type: str, shard: int, applied_by: str | None, rows: dict[str, int]
) -> int | None:
    """Add up to EVENTS_MAX late events of one shard; None if another worker is at it."""
    with connection.transaction():
        locked = connection.execute(
            "SELECT pg_try_advisory_xact_lock(hashtext('rollup ' || %s), %s)", [event_type, shard]
        ).fetchone()
        if locked != (True,):
            return None
        late.hold_floors(connection)
        ids = _take(connection, applied.event_types[event_type], shard)
        if failpoint.ARMED:
            failpoint.hit(Failpoint.LATE_TAKEN)
        if ids:
            connection.execute("ANALYZE late_work")
            for rollup in applied.rollups.values():
                if rollup.event_type == event_type:
                    _add(connection, rollup, applied.event_types[event_type], applied_by, rows)
            connection.execute(
                "UPDATE totalizer.late_events SET state = 'applied', applied_at = now() WHERE id = ANY (%s)", [ids]
            )
            if failpoint.ARMED:
                failpoint.hit(Failpoint.LATE_NOTED)
    if failpoint.ARMED:
        failpoint.hit(Failpoint.LATE_APPLIED)
    return len(ids)


def _take(connection: Rows, event_type: EventType, shard: int) -> list[int]:
    """Lock late events and put them into `late_work`; returns their numbers."""
    taken = connection.execute(
        "SELECT id, columns, line FROM totalizer.late_events "
        "WHERE event_type = %s AND shard = %s AND state = 'late' ORDER BY id LIMIT %s FOR UPDATE",
        [event_type.name, shard, EVENTS_MAX],
    ).fetchall()
    if taken:
        connection.execute(late_statements.make_work(event_type))
    by_columns: dict[tuple[str, ...], list[bytes]] = {}
    for _, columns, line in taken:
        by_columns.setdefault(tuple(columns), []).append(line)
    for columns, lines in by_columns.items():
        copy_lines(connection, "pg_temp.late_work", columns, lines)
    return [row[0] for row in taken]


def _add(connection: Rows, rollup: Rollup, event_type: EventType, applied_by: str | None, rows: dict[str, int]) -> None:
    """Add the events of `late_work` to one rollup, and note it."""
    connection.execute(late_statements.make_delta(rollup, event_type))
    changed: dict[str, dict[str, int]] = {}
    for level in LATE_LEVELS:
        if not rollup.keeps(level):
            continue
        for organization_id, count in connection.execute(late_statements.add_delta(rollup, level, event_type)):
            changed.setdefault(organization_id, {})[rollup.table(level)] = count
            rows[rollup.table(level)] = rows.get(rollup.table(level), 0) + count
        if failpoint.ARMED:
            failpoint.hit(Failpoint.LATE_MERGED)
    connection.execute(
        """
        INSERT INTO totalizer.late_applied (applied_by, organization_id, event_type, rollup, events, rows, added)
        SELECT coalesce(%(by)s, session_user), d.organization_id, %(type)s, %(rollup)s,
               (SELECT count(*) FROM late_work w WHERE w.organization_id = d.organization_id),
               coalesce(%(rows)s::jsonb -> d.organization_id::text, '{}'), jsonb_agg(to_jsonb(d) - 'organization_id')
        FROM late_delta d GROUP BY d.organization_id""",
        {
            "by": applied_by, "type": event_type.name, "rollup": rollup.name,
            "rows": msgspec.json.encode(changed).decode(),
        },
    )  # fmt: skip
    connection.execute("DROP TABLE late_delta")
