"""Developer metrics as they are documented: the bodies, the bounds of the fields, and the tables they go to."""

from __future__ import annotations

import json
from typing import Any

import pytest
import urllib3

from totalizer.settings import Settings
from totalizer.store.roles import Role
from totalizer.web.limits import Limits

HTTP = urllib3.PoolManager(retries=False, timeout=30)
USER, TEAM = "7f1f9d9a-55d6-4f4c-8f6a-0e6f0a3b9c11", "0b0d3a5e-0a3c-4d92-9c0e-7d5b8e2f6a44"
#: Table → the column of its time.
TABLES = {
    "command_executions": "executed_at", "agent_interactions": "occurred_at", "productivity_metrics": "recorded_at",
    "user_sessions": "occurred_at",
}  # fmt: skip
COMMAND = {
    "user_id": USER, "command_name": "plan-product", "execution_time_ms": 1500, "status": "success",
    "context": {"session_id": "session-123"},
}  # fmt: skip
AGENT = {
    "user_id": USER, "agent_name": "frontend-developer", "interaction_type": "code_generation",
    "execution_time_ms": 3000, "status": "success", "input_tokens": 500, "output_tokens": 1200,
}  # fmt: skip
FIGURE = {"user_id": USER, "team_id": TEAM, "metric_type": "productivity_score", "metric_value": 87.5}


def send(stack: Any, method: str, path: str, body: Any) -> tuple[int, dict[str, Any]]:
    headers = {"authorization": f"Bearer {stack.key}", "content-type": "application/json"}
    answer = HTTP.request(method, stack.url + path, body=json.dumps(body).encode(), headers=headers)
    return answer.status, json.loads(answer.data)


def test_the_documented_bodies_are_stored_as_they_are(stack: Any) -> None:
    assert send(stack, "POST", "/api/metrics/commands", COMMAND)[0] == 202
    assert send(stack, "POST", "/api/metrics/agents", AGENT)[0] == 202
    assert send(stack, "POST", "/api/metrics/productivity", FIGURE)[0] == 202
    batch = {
        "command_executions": [COMMAND] * 2, "agent_interactions": [AGENT], "productivity_metrics": [FIGURE],
        "timestamp": "2025-09-05T10:00:00Z",
    }  # fmt: skip
    status, answer = send(stack, "POST", "/api/metrics/batch", batch)
    assert (status, answer["accepted"], answer["rejected"]) == (202, 4, 0)
    status, session = send(stack, "POST", "/api/metrics/sessions/start", {"user_id": USER})
    assert status == 201
    assert send(stack, "PUT", f"/api/metrics/sessions/{session['session_id']}", {"commands_executed": 3})[0] == 202
    stack.drain()
    mine = stack.organization_id
    columns = "user_id::text, command_name, execution_time_ms, status, context"
    commands = stack.sql(f"SELECT {columns} FROM events.command_executions WHERE organization_id = %s", mine)
    assert commands == [tuple(COMMAND.values())] * 3
    columns = ", ".join(("user_id::text", *list(AGENT)[1:]))
    agents = stack.sql(f"SELECT {columns} FROM events.agent_interactions WHERE organization_id = %s", mine)
    assert agents == [tuple(AGENT.values())] * 2
    columns = "user_id::text, team_id::text, metric_type, metric_value"
    figures = stack.sql(f"SELECT {columns} FROM events.productivity_metrics WHERE organization_id = %s", mine)
    assert figures == [tuple(FIGURE.values())] * 2
    actions = stack.sql(
        "SELECT action, user_id::text FROM events.user_sessions WHERE organization_id = %s ORDER BY 1", mine
    )
    assert actions == [("start", USER), ("update", USER)]


@pytest.mark.parametrize("status", ["success", "error", "timeout", "cancelled"])
def test_bounds_are_included_and_every_status_is_taken(stack: Any, status: str) -> None:
    for change in (
        {"execution_time_ms": 0}, {"execution_time_ms": 3_600_000}, {"command_name": "x"}, {"command_name": "x" * 255},
        {"command_name": "é" * 255},
    ):  # fmt: skip
        assert send(stack, "POST", "/api/metrics/commands", {**COMMAND, "status": status, **change})[0] == 202
    stack.drain()
    [(stored,)] = stack.sql(
        "SELECT count(*) FROM events.command_executions WHERE organization_id = %s AND status = %s",
        stack.organization_id, status,
    )  # fmt: skip
    assert stored == 5


def test_dangerous_keys_are_not_stored(stack: Any) -> None:
    context = {"__proto__": {"admin": True}, "a": [{"constructor": 1, "b": {"prototype": 2, "c": 3}}]}
    assert send(stack, "POST", "/api/metrics/commands", {**COMMAND, "context": context})[0] == 202
    stack.drain()
    stored = stack.sql(
        "SELECT context FROM events.command_executions WHERE organization_id = %s", stack.organization_id
    )
    assert stored == [({"a": [{"b": {"c": 3}}]},)]


@pytest.mark.parametrize("table", TABLES)
def test_tables_have_uuid_keys_an_owner_and_a_partition_for_each_day(feed: Any, table: str) -> None:
    types = dict(
        feed.rows(
            "SELECT attname::text, format_type(atttypid, NULL) || CASE WHEN attnotnull THEN ' not null' ELSE '' END "
            "FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0", f"events.{table}",
        )
    )  # fmt: skip
    assert types["id"] == types["organization_id"] == "uuid not null"
    assert types[TABLES[table]] == "timestamp with time zone not null"
    assert feed.one("SELECT pg_get_partkeydef(%s::regclass)", f"events.{table}") == f"RANGE ({TABLES[table]})"
    [(name,)] = feed.database.connect(Role.WRITER).execute(
        "SELECT totalizer.ensure_partition(%s, '2025-09-05')", [table]
    ).fetchall()  # fmt: skip
    bounds = feed.one("SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = %s", name)
    assert bounds == "FOR VALUES FROM ('2025-09-05 00:00:00+00') TO ('2025-09-06 00:00:00+00')"


@pytest.mark.parametrize("table", TABLES)
def test_the_latest_of_an_organisation_are_read_by_the_index(feed: Any, table: str) -> None:
    """The primary key, organisation first and then time, serves newest first as well: no second index, no sort."""
    feed.database.connect(Role.WRITER).execute("SELECT totalizer.ensure_partition(%s, '2025-09-05')", [table])
    feed.reader.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
    time, mine = TABLES[table], feed.organization("mine")
    plan = "\n".join(
        row[0] for row in feed.rows(
            f"EXPLAIN SELECT * FROM events.{table} WHERE organization_id = %s AND {time} >= '2025-09-05' "
            f"ORDER BY {time} DESC LIMIT 10", mine,
        )
    )  # fmt: skip
    assert "Index Scan Backward" in plan
    assert "Sort" not in plan


def test_the_documented_limits_are_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    from totalizer.app import limits_of

    for name in ("RATE_LIMIT_MAX_REQUESTS", "RATE_LIMIT_WINDOW_MS", "MAX_BATCH_SIZE"):
        monkeypatch.delenv(name, raising=False)
    settings = Settings(_env_file=None)
    assert (settings.rate_limit_window_ms, settings.batch_events_max) == (60_000, 1000)
    assert limits_of(settings) == Limits(requests=1000, batches=10_000, reads=1000, bytes=0)
