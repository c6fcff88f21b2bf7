"""The statements of refreshing and comparing that run most, or over most rows, go by their indexes and partitions."""

from __future__ import annotations

import re
from typing import Any

import psycopg
import pytest

from totalizer.catalog.levels import BASE, DAY, HOUR
from totalizer.rollup import comparison
from totalizer.rollup.comparison import Part
from totalizer.rollup.marks import WORK_TABLES
from totalizer.rollup.statements import Form, delete_level, insert_level
from totalizer.store.plan import read_rollups

#: Enough rows that reading all of a table is plainly worse.
FILL = """
    INSERT INTO totalizer.organizations (name) SELECT 'organisation ' || n FROM generate_series(1, 300) AS n;
    INSERT INTO events.command_executions (organization_id, executed_at, id, received_at, user_id, command_name,
                                           execution_time_ms, status)
    SELECT o.id, '2026-01-01'::timestamptz + n * interval '17 minutes', gen_random_uuid(), now(), gen_random_uuid(),
           'x', 1, 'success' FROM totalizer.organizations o, generate_series(1, 160) AS n;
"""
DAYS = "SELECT totalizer.ensure_partition('command_executions', '2026-01-01'::date + n) FROM generate_series(0, 3) AS n"


@pytest.fixture
def full(feed: Any) -> Any:
    """A database with some organisations' events, rolled up."""
    feed.administrator.execute(DAYS)
    feed.administrator.execute(FILL)
    feed.administrator.execute(
        "INSERT INTO totalizer.dirty_marks (organization_id, event_type, bucket) SELECT DISTINCT organization_id, "
        "'command_executions', date_bin('15 minutes', executed_at, 'epoch'::timestamptz) FROM events.command_executions"
    )
    while feed.refresh():
        pass
    feed.administrator.execute("VACUUM ANALYZE")
    return feed


def plan_of(feed: Any, statement: str, parameters: dict[str, Any] | None = None) -> str:
    cursor = psycopg.ClientCursor(feed.reader)
    return "\n".join(row[0] for row in cursor.execute(f"EXPLAIN {statement}".encode(), parameters))


def rollup_of(feed: Any) -> Any:
    event_type, rollups = read_rollups(feed.reader, "command_executions")
    return next(each for each in rollups if each.name == "command_usage"), event_type


def test_a_refresh_of_a_few_buckets_asks_the_index(full: Any) -> None:
    rollup, event_type = rollup_of(full)
    full.reader.execute(WORK_TABLES)
    with full.reader.transaction():
        full.reader.execute(
            "INSERT INTO work SELECT id, '2026-01-02T03:00Z', 'events' FROM totalizer.organizations LIMIT 10"
        )
        full.reader.execute("ANALYZE work")
        span = {"starts": "2026-01-02T03:00Z", "ends": "2026-01-02T03:15Z"}
        insert = plan_of(full, insert_level(rollup, BASE, event_type, Form.SPARSE), span)
        delete = plan_of(full, delete_level(rollup, BASE))
    assert "Seq Scan on partitions" not in insert
    assert "p20260103" not in insert, "other days are not looked at"
    assert "Seq Scan on command_usage_15m" not in delete
    assert "Seq Scan on analytics" not in delete


def test_a_grain_is_found_by_the_index_although_its_source_is_taken_for_empty(full: Any) -> None:
    """As it is when statistics are taken while the rows of a table's first backfill are not committed yet."""
    rollup, event_type = rollup_of(full)
    full.administrator.execute("UPDATE pg_class SET reltuples = 0 WHERE relname ~ '^command_usage_'")
    full.reader.execute(WORK_TABLES)
    with full.reader.transaction():
        full.reader.execute(
            "INSERT INTO work SELECT DISTINCT organization_id, bucket, 'events' FROM analytics.command_usage_15m"
        )
        full.reader.execute("ANALYZE work")
        plan = plan_of(full, insert_level(rollup, HOUR, event_type))
    assert re.search(r"Index Cond: \(\(organization_id = w\w*\.organization_id\) AND \(bucket >= ", plan), plan
    assert "Join Filter" not in plan, "each row of the source would be compared with every hour"


def test_rows_of_one_organisation_are_compared_by_the_index(full: Any) -> None:
    rollup, event_type = rollup_of(full)
    owner = full.one("SELECT id::text FROM totalizer.organizations ORDER BY name LIMIT 1")
    moment = full.one("SELECT '2026-01-02T03:00Z'::timestamptz")
    for level in rollup.kept:
        part = Part((owner,)).at(moment, level)
        parameters = part.parameters() | {"cells_max": 10, "rows_max": 10}
        plan = plan_of(full, comparison.cells(rollup, level, event_type, part), parameters)
        for table in ("command_usage_15m", "command_usage_1h", "command_usage_1d", "command_executions_"):
            assert f"Seq Scan on {table}" not in plan, (level.suffix, plan)


def test_a_piece_of_the_events_reads_its_partitions_alone(full: Any) -> None:
    rollup, event_type = rollup_of(full)
    starts, ends = full.rows("SELECT '2026-01-02'::timestamptz, '2026-01-02T23:30Z'::timestamptz")[0]
    part = Part(None, starts, ends)
    plan = plan_of(full, comparison.sums(rollup, BASE, event_type, part, truth=True), part.parameters())
    assert "p20260102" in plan
    assert not any(f"p2026010{day}" in plan for day in (1, 4))


def test_what_is_marked_is_left_out_by_a_hash(full: Any) -> None:
    """Not by going through all marks for each row."""
    rollup, event_type = rollup_of(full)
    full.administrator.execute(
        "INSERT INTO totalizer.dirty_marks (organization_id, event_type, bucket, rollup) "
        "SELECT organization_id, 'command_executions', bucket, 'command_usage' FROM analytics.command_usage_15m"
    )
    full.administrator.execute("ANALYZE totalizer.dirty_marks")
    for level in (BASE, DAY):
        plan = plan_of(full, comparison.sums(rollup, level, event_type, Part(), truth=False), Part().parameters())
        assert "Hash" in plan.split("CTE Scan on behind")[0], plan
        assert "Anti Join" in plan
        assert "Nested Loop Anti Join" not in plan
