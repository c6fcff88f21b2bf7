"""The statements of retention and late events that run most, or over most rows, go by their indexes."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from totalizer.catalog.retention import complete
from totalizer.store import removal, retention
from totalizer.store.plan import read_applied

#: Enough rows that reading all of a table is plainly worse.
FILL = """
    INSERT INTO totalizer.organizations (name) SELECT 'organisation ' || n FROM generate_series(1, 500) AS n;
    INSERT INTO analytics.command_usage_15m (organization_id, bucket, executions)
    SELECT id, date_bin('15 minutes', now(), 'epoch') - n * interval '15 minutes', 1
    FROM totalizer.organizations, generate_series(1, 200) AS n;
    INSERT INTO events.command_executions_keys (organization_id, id, event_time)
    SELECT o.id, gen_random_uuid(), now() - n * interval '1 hour'
    FROM generate_series(1, 200) AS n, totalizer.organizations o;
    INSERT INTO events.command_executions (organization_id, executed_at, id, received_at, user_id, command_name,
                                           execution_time_ms, status)
    SELECT o.id, '2026-01-01'::timestamptz + n * interval '1 minute', gen_random_uuid(), now(), gen_random_uuid(), 'x',
           1, 'success' FROM totalizer.organizations o, generate_series(1, 100) AS n;
    INSERT INTO totalizer.late_events (organization_id, event_type, event_time, event_id, columns, line, state,
                                       received_hour, applied_at)
    SELECT gen_random_uuid(), 'command_executions', now(), gen_random_uuid(), '{}', '', 'applied', now(), now()
    FROM generate_series(1, 20000);
    INSERT INTO totalizer.late_events (organization_id, event_type, event_time, event_id, columns, line, state,
                                       received_hour)
    SELECT gen_random_uuid(), 'command_executions', now(), gen_random_uuid(), '{}', '', 'late', now()
    FROM generate_series(1, 50);
    INSERT INTO totalizer.dirty_marks (organization_id, event_type, bucket)
    SELECT o.id, 'command_executions', now() - n * interval '15 minutes'
    FROM totalizer.organizations o, generate_series(1, 20) AS n;
"""


@pytest.fixture
def full(feed: Any) -> Any:
    """A database with many rows, of which few lie below a floor."""
    feed.administrator.execute("SELECT totalizer.ensure_partition('command_executions', '2026-01-01')")
    feed.administrator.execute("SET timezone = 'UTC'")
    feed.administrator.execute(FILL)
    feed.administrator.execute("DELETE FROM totalizer.dirty_marks")
    retention.raise_floors(
        feed.reader, "command_executions", None, complete(90), feed.one("SELECT (now() AT TIME ZONE 'UTC')::date")
    )
    feed.administrator.execute("VACUUM ANALYZE")
    return feed


def plan_of(feed: Any, statement: str, **parameters: Any) -> str:
    cursor = psycopg.ClientCursor(feed.reader)
    return "\n".join(row[0] for row in cursor.execute(f"EXPLAIN {statement}", parameters))


def test_rows_of_a_rollup_are_found_by_organisation_and_bucket(full: Any) -> None:
    statement = removal.rollup_statement("command_usage_15m", "bucket", "base_floor")
    plan = plan_of(full, statement, type="command_executions", limit=10_000)
    assert "Index Scan" in plan
    assert "command_usage_15m_organization_id_bucket" in plan
    assert "(organization_id = o.id) AND (bucket < " in plan
    assert "Tid Scan on command_usage_15m" in plan
    assert "Seq Scan on command_usage_15m" not in plan


def test_events_are_found_by_organisation_and_time_in_one_partition(full: Any) -> None:
    event_type = read_applied(full.reader).event_types["command_executions"]
    plan = plan_of(
        full, removal.events_statement(event_type), type="command_executions", starts="2026-01-01T00:00:00Z",
        ends="2026-01-02T00:00:00Z", own=False, limit=10_000,
    )  # fmt: skip
    assert "Scan using command_executions_p20260101_pkey" in plan
    assert "(organization_id = o.id) AND (executed_at >= " in plan
    assert "Tid Scan on command_executions_p20260101" in plan
    assert "Seq Scan on command_executions" not in plan


def test_ids_are_found_by_their_age(full: Any) -> None:
    event_type = read_applied(full.reader).event_types["command_executions"]
    plan = plan_of(full, removal.ids_statement(event_type), type="command_executions", limit=10_000)
    assert "command_executions_keys_event_time_idx" in plan
    assert "Seq Scan on command_executions_keys" not in plan


def test_what_is_late_is_found_among_all_that_was_added(full: Any) -> None:
    plan = plan_of(
        full,
        "SELECT id, columns, line FROM totalizer.late_events WHERE event_type = 'command_executions' AND shard = 3 "
        "AND state = 'late' ORDER BY id LIMIT 5000 FOR UPDATE",
    )
    assert "late_events_waiting" in plan
    assert "Seq Scan" not in plan
    look = "SELECT DISTINCT event_type, shard FROM totalizer.late_events WHERE state = 'late' ORDER BY 1, 2"
    assert "late_events_waiting" in plan_of(full, look), "the look for work, when there is none"
