"""What is asked about: command executions of many organisations over a month, stored and rolled up."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from benchmarks.progress import note
from totalizer.clock import SYSTEM_CLOCK
from totalizer.errors import OperationError
from totalizer.store.partitions import ensure_partition

EVENT_TYPE = "command_executions"
#: Events happened within so many days before today.
FIRST_DAYS_AGO = 30
#: Events of one transaction.
PIECE = 500_000
#: Seconds that the rollups may take to come up to date.
SETTLE_SECONDS_MAX = 7200.0
_LOOK_SECONDS = 1.0


def organizations(admin: Connection[Any], count: int) -> list[str]:
    """The ids of new organisations."""
    rows = admin.execute(
        "INSERT INTO totalizer.organizations (name) SELECT 'bench ' || number FROM generate_series(1, %s) AS number "
        "RETURNING id::text",
        [count],
    )
    return [row[0] for row in rows]


def fill(admin: Connection[Any], count: int) -> None:
    """Store events as `store` does, and mark their buckets."""
    store(admin, count)
    admin.execute(_MARKS)


def store(admin: Connection[Any], count: int) -> None:
    """Store events.

    Args:
        admin: as the superuser, past row security.
        count: how many, spread over the organisations and days.
    """
    days = admin.execute(
        "SELECT day::date::text FROM generate_series(current_date - %s::int, current_date, '1 day') AS day",
        [FIRST_DAYS_AGO],
    )
    for (day,) in days.fetchall():
        ensure_partition(admin, EVENT_TYPE, day)
    for done in range(0, count, PIECE):
        with admin.transaction():
            admin.execute(_EVENTS, {"count": min(PIECE, count - done), "days": FIRST_DAYS_AGO})
    admin.execute(f"ANALYZE events.{EVENT_TYPE}")


def settle(admin: Connection[Any]) -> None:
    """Wait until the rollups are up to date.

    Raises:
        OperationError: they do not come to it.
    """
    deadline = SYSTEM_CLOCK.monotonic() + SETTLE_SECONDS_MAX
    while (row := admin.execute("SELECT count(*) FROM totalizer.dirty_marks").fetchone()) != (0,):
        if SYSTEM_CLOCK.monotonic() > deadline:
            raise OperationError(f"the rollups are {row} marks behind after {SETTLE_SECONDS_MAX:.0f} s")
        SYSTEM_CLOCK.sleep(_LOOK_SECONDS)
    tables = admin.execute("SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'analytics'").fetchall()
    for (table,) in tables:
        admin.execute(f"VACUUM ANALYZE analytics.{table}".encode())
    note("rollups up to date")


def mark(admin: Connection[Any], organization_ids: list[str], count: int) -> None:
    """Mark buckets of some organisations, so that they are read from events."""
    admin.execute(
        "INSERT INTO totalizer.dirty_marks (organization_id, event_type, bucket) "
        "SELECT id, %s, date_bin('15 minutes', now() - number * interval '30 days' / %s, 'epoch'::timestamptz) "
        "FROM unnest(%s::uuid[]) AS id, generate_series(1, %s) AS number",
        [EVENT_TYPE, count, organization_ids, count],
    )


_EVENTS = f"""
    INSERT INTO events.{EVENT_TYPE}
        (organization_id, executed_at, id, received_at, user_id, command_name, execution_time_ms, status)
    SELECT chosen.ids[1 + (random() * 1e9)::bigint %% cardinality(chosen.ids)],
           date_trunc('day', now(), 'UTC') - random() * %(days)s * interval '1 day', gen_random_uuid(), now(),
           ('00000000-0000-4000-8000-0000000000' || lpad((number %% 20)::text, 2, '0'))::uuid,
           'command ' || number %% 8, number %% 5000, CASE WHEN number %% 20 < 17 THEN 'success' ELSE 'error' END
    FROM (SELECT array_agg(id) AS ids FROM totalizer.organizations WHERE name LIKE 'bench %%') AS chosen,
         generate_series(1, %(count)s) AS number"""
_MARKS = f"""
    INSERT INTO totalizer.dirty_marks (organization_id, event_type, bucket)
    SELECT DISTINCT organization_id, '{EVENT_TYPE}', date_bin('15 minutes', executed_at, 'epoch'::timestamptz)
    FROM events.{EVENT_TYPE}"""
