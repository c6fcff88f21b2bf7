"""The documented tables and materialised views: their figures, and who sees them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import psycopg
import pytest

from totalizer.rollup.materialized import create_materialized_views, refresh_materialized_views
from totalizer.store import views
from totalizer.store.roles import Role

VIEWS = (*views.PLAIN, *(view.name for view in views.MATERIALIZED))


def execution(**fields: Any) -> dict[str, Any]:
    return {"workflow_id": "w", "workspace_id": "s", "user_id": "u", "status": "success", "duration_ms": 100, **fields}


@pytest.fixture
def two(feed: Any) -> tuple[str, str]:
    """Two organisations that have done something, one in a zone of its own."""
    mine, theirs = feed.organization("mine", "Asia/Tokyo"), feed.organization("theirs")
    now = feed.one("SELECT date_trunc('hour', now(), 'UTC')").isoformat()
    feed.send(
        mine,
        executions=[
            execution(started_at=now),
            execution(started_at=now, user_id="v", duration_ms=300),
            execution(started_at=now, status="error", duration_ms=5),
            execution(started_at=now, status="cancelled", workspace_id="t"),
        ],
        user_activity=[
            {"user_id": "u", "workspace_id": "s", "action": "login", "session_id": number, "occurred_at": now}
            for number in "112"
        ],
        credit_consumption=[
            {"workspace_id": "s", "user_id": "u", "credits": "0.1", "resource": "model", "consumed_at": now},
            {"workspace_id": "s", "credits": "0.2", "resource": "model", "consumed_at": now},
        ],
    )  # fmt: skip
    feed.send(theirs, executions=[execution(started_at=now, workspace_id="theirs") for _ in range(7)])
    feed.load()
    feed.refresh()
    refresh_materialized_views(feed.reader)
    return mine, theirs


def seen(database: Any, organization: str | None, query: str) -> list[dict[str, Any]]:
    """Rows of a query as a reader of one organisation."""
    app = database.connect(Role.APP, autocommit=False)
    if organization is not None:
        app.execute("SELECT set_config('app.current_org_id', %s, true)", [organization])
    cursor = app.cursor(row_factory=psycopg.rows.dict_row)
    return cursor.execute(query).fetchall()


def test_the_figures_are_those_of_the_events(feed: Any, database: Any, two: tuple[str, str]) -> None:
    mine, _ = two
    hours = seen(database, mine, "SELECT * FROM analytics.execution_metrics_hourly ORDER BY workspace_id")
    [first, second] = hours
    assert (first["workspace_id"], first["executions"], first["succeeded"], first["failed"]) == ("s", 3, 2, 1)
    assert (first["duration_ms_sum"], first["duration_ms_min"], first["duration_ms_max"]) == (405, 5, 300)
    assert (first["duration_ms_avg"], first["users"], second["cancelled"]) == (135, 2, 1)
    assert abs(first["duration_ms_p50"] - 100) <= 1
    assert abs(first["duration_ms_p99"] - 100) <= 1  # of three, the second: quantiles take the lower neighbour
    [day, _] = seen(database, mine, "SELECT * FROM analytics.execution_metrics_daily ORDER BY workspace_id")
    tokyo = feed.one("SELECT (date_trunc('hour', now(), 'UTC') AT TIME ZONE 'Asia/Tokyo')::date")
    assert (day["day"], day["executions"]) == (tokyo, 3)
    [activity] = seen(database, mine, "SELECT * FROM analytics.user_activity_hourly")
    assert (activity["action"], activity["activities"], activity["sessions"]) == ("login", 3, 2)
    credits = seen(database, mine, "SELECT user_id, credits FROM analytics.credit_consumption_hourly ORDER BY 1")
    assert credits == [{"user_id": "u", "credits": Decimal("0.1")}, {"user_id": None, "credits": Decimal("0.2")}]
    users = seen(
        database, mine,
        "SELECT user_id, executions, succeeded, failed, activities, credits FROM analytics.mv_daily_user_metrics "
        "ORDER BY user_id",
    )  # fmt: skip
    assert [tuple(row.values()) for row in users] == [
        ("u", 3, 1, 1, 3, Decimal("0.1")), ("v", 1, 1, 0, 0, 0), (None, 0, 0, 0, 0, Decimal("0.2")),
    ]  # fmt: skip
    [hour] = seen(database, mine, "SELECT * FROM analytics.mv_hourly_execution_stats")
    assert (hour["executions"], hour["succeeded"], hour["failed"], hour["cancelled"]) == (4, 2, 1, 1)
    assert (hour["workspaces"], hour["workflows"], hour["users"]) == (2, 1, 2)
    summary = seen(database, mine, "SELECT * FROM analytics.mv_workspace_summary ORDER BY workspace_id")
    assert (summary[0]["executions"], summary[0]["success_rate"]) == (3, Decimal("0.666667"))
    assert (summary[0]["activities"], summary[0]["credits"], summary[0]["credits_30d"]) == (
        3, Decimal("0.3"), Decimal("0.3"),
    )  # fmt: skip
    assert summary[0]["executions_30d"] == 3


@pytest.mark.parametrize("name", VIEWS)
def test_a_reader_sees_its_own_organisation(database: Any, two: tuple[str, str], name: str) -> None:
    _, theirs = two
    mine = seen(database, two[0], f"SELECT organization_id::text AS o FROM analytics.{name}")
    assert {row["o"] for row in mine} == {two[0]}
    assert seen(database, None, f"SELECT * FROM analytics.{name}") == []
    # Neither by name, nor by a function that is cheap enough to be called before the filter.
    assert seen(database, two[0], f"SELECT * FROM analytics.{name} WHERE organization_id = '{theirs}'") == []


LEAK = (
    "CREATE FUNCTION pg_temp.leak(x text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 "
    "AS $$ BEGIN RAISE NOTICE '%', x; RETURN true; END $$"
)


@pytest.mark.parametrize("view", views.MATERIALIZED, ids=lambda view: view.name)
def test_a_cheap_function_is_told_nothing_of_others(database: Any, two: tuple[str, str], view: Any) -> None:
    app = database.connect(Role.APP, autocommit=False)
    told: list[str] = []
    app.add_notice_handler(lambda notice: told.append(str(notice.message_primary)))
    app.execute(LEAK)
    app.execute("SELECT set_config('app.current_org_id', %s, true)", [two[0]])
    app.execute(f"SELECT * FROM analytics.{view.name} WHERE pg_temp.leak(organization_id::text)")
    assert set(told) == {two[0]}


@pytest.mark.parametrize("view", views.MATERIALIZED, ids=lambda view: view.name)
@pytest.mark.parametrize("role", [Role.APP, Role.WRITER])
def test_nobody_but_the_refresher_reads_what_has_no_row_security(
    database: Any, two: Any, view: Any, role: Role
) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.connect(role).execute(f"SELECT * FROM materialized.{view.name}")


def test_they_are_refreshed_while_they_are_read(feed: Any, database: Any, two: tuple[str, str]) -> None:
    mine, _ = two
    reader = database.connect(Role.APP, autocommit=False)
    reader.execute("SELECT set_config('app.current_org_id', %s, true)", [mine])
    for view in views.MATERIALIZED:
        reader.execute(f"SELECT * FROM analytics.{view.name}")  # holds it until the transaction ends
    feed.send(mine, executions=[execution(workspace_id="new")])
    feed.load()
    feed.refresh()
    feed.reader.execute("SET lock_timeout = '5s'")
    results = refresh_materialized_views(feed.reader)
    assert results["mv_workspace_summary"]["rows"] == 4
    assert all(result["seconds"] >= 0 for result in results.values())
    assert len(reader.execute("SELECT * FROM analytics.mv_workspace_summary").fetchall()) == 3


def test_missing_ones_are_made(feed: Any, two: tuple[str, str]) -> None:
    assert create_materialized_views(feed.reader) == {view.name: {"created": False} for view in views.MATERIALIZED}
    feed.reader.execute("DROP MATERIALIZED VIEW materialized.mv_workspace_summary CASCADE")
    feed.reader.execute("COMMENT ON MATERIALIZED VIEW materialized.mv_hourly_execution_stats IS 'of another version'")
    results = create_materialized_views(feed.reader)
    assert [name for name, result in results.items() if result["created"]] == [
        "mv_hourly_execution_stats", "mv_workspace_summary",
    ]  # fmt: skip
    assert results["mv_workspace_summary"]["rows"] == 3
