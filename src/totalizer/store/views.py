"""Views of fixed names over the rollups of executions, user activity and credit consumption.

The four by the hour and the day are plain views with the reader's own rights: row security is that of the rollups'
tables. The materialised ones know no row security: they are the refresher's alone, in a schema that readers have no
access to, and readers get a view of the same name in `analytics` that shows them their organisation's rows
(`totalizer.publish`).
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

from psycopg import Connection, sql

from totalizer.store.roles import Role

Rows = Connection[Any]

#: How far back the daily and the hourly materialised view reach; the summary's recent figures are of so many days.
USER_METRICS_DAYS, EXECUTION_STATS_DAYS, RECENT_DAYS = 400, 30, 30


class Materialized(NamedTuple):
    """A materialised view: its name, its query, and the columns of its unique key."""

    name: str
    query: str
    key: tuple[str, ...]


def _execution_metrics(level: str, key: str, shown_key: str) -> str:
    def count(condition: str) -> str:
        return f"coalesce(sum(executions) FILTER (WHERE {condition}), 0)::bigint"

    durations = "totalizer.merge_quantiles(string_agg(duration_ms_quantiles, ' '))"
    quantiles = f"totalizer.quantile_values({durations}, '{{0.5,0.95,0.99}}'::double precision[])"
    return f"""
        SELECT organization_id, {key} AS {shown_key}, workspace_id, workflow_id,
               sum(executions)::bigint AS executions,
               {count("status = 'success'")} AS succeeded,
               {count("status IN ('error', 'timeout')")} AS failed,
               {count("status = 'cancelled'")} AS cancelled,
               sum(duration_ms_sum) AS duration_ms_sum,
               sum(duration_ms_avg__sum) / nullif(sum(duration_ms_avg__count), 0) AS duration_ms_avg,
               min(duration_ms_min) AS duration_ms_min,
               max(duration_ms_max) AS duration_ms_max,
               ({quantiles} ->> 'p50')::double precision AS duration_ms_p50,
               ({quantiles} ->> 'p95')::double precision AS duration_ms_p95,
               ({quantiles} ->> 'p99')::double precision AS duration_ms_p99,
               totalizer.unique_count(totalizer.merge_unique(string_agg(users, ' '))) AS users
        FROM analytics.execution_metrics_{level}
        GROUP BY organization_id, {key}, workspace_id, workflow_id"""


#: The views of one rollup's grain each, by name.
PLAIN = {
    "execution_metrics_hourly": _execution_metrics("1h", "bucket", "hour"),
    "execution_metrics_daily": _execution_metrics("1d", "day", "day"),
    "user_activity_hourly": """
        SELECT organization_id, bucket AS hour, workspace_id, user_id, action, activities,
               totalizer.unique_count(sessions) AS sessions
        FROM analytics.user_activity_1h""",
    "credit_consumption_hourly": """
        SELECT organization_id, bucket AS hour, workspace_id, user_id, resource, consumptions, credits, credits_max
        FROM analytics.credit_consumption_1h""",
}

_USER_METRICS = f"""
    SELECT organization_id, day, user_id,
           sum(executions)::bigint AS executions, sum(succeeded)::bigint AS succeeded, sum(failed)::bigint AS failed,
           sum(duration_ms) AS duration_ms_sum, sum(activities)::bigint AS activities, sum(credits) AS credits
    FROM (
        SELECT organization_id, day, user_id, executions,
               CASE WHEN status = 'success' THEN executions ELSE 0 END AS succeeded,
               CASE WHEN status IN ('error', 'timeout') THEN executions ELSE 0 END AS failed,
               duration_ms_sum AS duration_ms, 0 AS activities, 0::numeric AS credits
        FROM analytics.execution_users_1d
        UNION ALL
        SELECT organization_id, day, user_id, 0, 0, 0, 0, activities, 0 FROM analytics.user_activity_1d
        UNION ALL
        SELECT organization_id, day, user_id, 0, 0, 0, 0, 0, credits FROM analytics.credit_consumption_1d
    ) AS everything
    WHERE day >= (now() AT TIME ZONE 'UTC')::date - {USER_METRICS_DAYS}
    GROUP BY organization_id, day, user_id"""

_EXECUTION_STATS = f"""
    SELECT organization_id, bucket AS hour,
           sum(executions)::bigint AS executions,
           coalesce(sum(executions) FILTER (WHERE status = 'success'), 0)::bigint AS succeeded,
           coalesce(sum(executions) FILTER (WHERE status IN ('error', 'timeout')), 0)::bigint AS failed,
           coalesce(sum(executions) FILTER (WHERE status = 'cancelled'), 0)::bigint AS cancelled,
           count(DISTINCT workflow_id) AS workflows, count(DISTINCT workspace_id) AS workspaces,
           totalizer.unique_count(totalizer.merge_unique(string_agg(users, ' '))) AS users,
           sum(duration_ms_avg__sum) / nullif(sum(duration_ms_avg__count), 0) AS duration_ms_avg,
           max(duration_ms_max) AS duration_ms_max,
           (totalizer.quantile_values(totalizer.merge_quantiles(string_agg(duration_ms_quantiles, ' ')),
                                      '{{0.95}}'::double precision[]) ->> 'p95')::double precision AS duration_ms_p95
    FROM analytics.execution_metrics_1h
    WHERE bucket >= date_trunc('hour', now(), 'UTC') - interval '{EXECUTION_STATS_DAYS} days'
    GROUP BY organization_id, bucket"""

_WORKSPACE_SUMMARY = f"""
    SELECT organization_id, workspace_id,
           min(month) AS first_month, max(month) AS last_month,
           sum(executions)::bigint AS executions, sum(succeeded)::bigint AS succeeded,
           round(sum(succeeded) / nullif(sum(executions), 0), 6) AS success_rate,
           sum(duration_ms) AS duration_ms_sum,
           totalizer.unique_count(totalizer.merge_unique(string_agg(users, ' '))) AS execution_users,
           sum(activities)::bigint AS activities, sum(credits) AS credits,
           sum(recent_executions)::bigint AS executions_{RECENT_DAYS}d, sum(recent_credits) AS credits_{RECENT_DAYS}d
    FROM (
        SELECT organization_id, workspace_id, month, executions,
               CASE WHEN status = 'success' THEN executions ELSE 0 END AS succeeded, duration_ms_sum AS duration_ms,
               users, 0 AS activities, 0::numeric AS credits, 0 AS recent_executions, 0::numeric AS recent_credits
        FROM analytics.execution_metrics_1mo
        UNION ALL
        SELECT organization_id, workspace_id, month, 0, 0, 0, NULL, activities, 0, 0, 0
        FROM analytics.user_activity_1mo
        UNION ALL
        SELECT organization_id, workspace_id, month, 0, 0, 0, NULL, 0, credits, 0, 0
        FROM analytics.credit_consumption_1mo
        UNION ALL
        SELECT organization_id, workspace_id, NULL, 0, 0, 0, NULL, 0, 0, executions, 0
        FROM analytics.execution_metrics_1d WHERE day > (now() AT TIME ZONE 'UTC')::date - {RECENT_DAYS}
        UNION ALL
        SELECT organization_id, workspace_id, NULL, 0, 0, 0, NULL, 0, 0, 0, credits
        FROM analytics.credit_consumption_1d WHERE day > (now() AT TIME ZONE 'UTC')::date - {RECENT_DAYS}
    ) AS everything
    GROUP BY organization_id, workspace_id"""

MATERIALIZED = (
    Materialized("mv_daily_user_metrics", _USER_METRICS, ("organization_id", "day", "user_id")),
    Materialized("mv_hourly_execution_stats", _EXECUTION_STATS, ("organization_id", "hour")),
    Materialized("mv_workspace_summary", _WORKSPACE_SUMMARY, ("organization_id", "workspace_id")),
)
#: The rollups they are made of; without these, as in a catalog of one's own, there are no views.
ROLLUPS = ("execution_metrics", "execution_users", "user_activity", "credit_consumption")


def create_plain(connection: Rows) -> list[str]:
    """Make the plain views that are missing, or were made by another version; returns the names of those made.

    Args:
        connection: as the administrator, autocommit. The rollups are there.
    """
    made = []
    for name, query in PLAIN.items():
        if _comment(connection, "analytics", name) == _mark(query):
            continue
        with connection.transaction():
            connection.execute(f"SET LOCAL ROLE {Role.OWNER.value}")
            view = sql.Identifier("analytics", name)
            connection.execute(sql.SQL("DROP VIEW IF EXISTS {}").format(view))
            connection.execute(
                sql.SQL("CREATE VIEW {} WITH (security_invoker = true) AS {}").format(view, sql.SQL(query))
            )
            connection.execute(sql.SQL("COMMENT ON VIEW {} IS {}").format(view, sql.Literal(_mark(query))))
            connection.execute(
                sql.SQL("GRANT SELECT ON {} TO {}, {}").format(
                    view, sql.Identifier(Role.APP.value), sql.Identifier(Role.REFRESHER.value)
                )
            )
        made.append(name)
    return made


def create_materialized(connection: Rows, view: Materialized) -> bool:
    """Make a materialised view, without rows, and the view of it that readers get; False if it is there already.

    One that was made by another version is made anew.

    Args:
        connection: as the refresher, autocommit.
        view: which.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('totalizer materialized'))")
        if _comment(connection, "materialized", view.name) == _mark(view.query):
            return False
        name = sql.Identifier("materialized", view.name)
        # With what depends on it, which is the readers' view.
        connection.execute(sql.SQL("DROP MATERIALIZED VIEW IF EXISTS {} CASCADE").format(name))
        connection.execute(sql.SQL("CREATE MATERIALIZED VIEW {} AS {} WITH NO DATA").format(name, sql.SQL(view.query)))
        # On plain columns and all rows: else it could not be refreshed while it is read.
        connection.execute(
            sql.SQL("CREATE UNIQUE INDEX ON {} ({}) NULLS NOT DISTINCT").format(
                name, sql.SQL(", ").join(map(sql.Identifier, view.key))
            )
        )
        connection.execute(
            sql.SQL("COMMENT ON MATERIALIZED VIEW {} IS {}").format(name, sql.Literal(_mark(view.query)))
        )
        connection.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(name, sql.Identifier(Role.OWNER.value)))
        connection.execute("SELECT totalizer.publish(%s)", [view.name])
    return True


def refresh_materialized(connection: Rows, view: Materialized) -> int:
    """Compute a materialised view anew, while it is read if it has ever been computed; returns how many rows it has.

    Args:
        connection: as the refresher, autocommit.
        view: which; it is there.
    """
    name = sql.Identifier("materialized", view.name)
    row = connection.execute(
        "SELECT ispopulated FROM pg_matviews WHERE schemaname = 'materialized' AND matviewname = %s", [view.name]
    ).fetchone()
    concurrently = sql.SQL("CONCURRENTLY " if row == (True,) else "")
    connection.execute(sql.SQL("REFRESH MATERIALIZED VIEW {}{}").format(concurrently, name))
    counted = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(name)).fetchone()
    assert counted is not None
    return int(counted[0])


def _mark(query: str) -> str:
    return f"Made by the service; definition {hashlib.sha256(query.encode()).hexdigest()[:16]}"


def _comment(connection: Rows, schema: str, name: str) -> str | None:
    row = connection.execute(
        "SELECT obj_description(to_regclass(format('%%I.%%I', %s::text, %s::text)), 'pg_class')", [schema, name]
    ).fetchone()
    return None if row is None else row[0]
