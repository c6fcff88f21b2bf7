"""The health check that runs by schedule: database, recent aggregation, freshness, and the three together."""

from __future__ import annotations

from typing import Any

from totalizer.jobs.job import Context
from totalizer.store import runs

#: Milliseconds within which the database answers when it is well.
ANSWER_MS_MAX = 1000.0
#: Seconds that a mark waits at most when rollups are kept fresh; then more until something is wrong.
FRESH_S, STALE_S = 60.0, 900.0
HEALTHY, DEGRADED, UNHEALTHY = "healthy", "degraded", "unhealthy"
_ORDER = (HEALTHY, DEGRADED, UNHEALTHY)


def health_check(context: Context) -> dict[str, Any]:
    """Look whether database, rollups and jobs are well."""
    began = context.clock.monotonic()
    checks = {
        "database": _database(context),
        "data_freshness": _freshness(context),
        "recent_aggregation": _aggregation(context),
    }
    overall = max((check["status"] for check in checks.values()), key=_ORDER.index)
    now = runs.database_now(context.connection)
    return {
        "task": "health_check", "status": overall, "checked_at": now.isoformat(), "checks": checks,
        "duration_ms": round((context.clock.monotonic() - began) * 1000),
    }  # fmt: skip


def _database(context: Context) -> dict[str, Any]:
    began = context.clock.monotonic()
    context.connection.execute("SELECT 1 FROM totalizer.journal_offsets LIMIT 1")
    answered_ms = (context.clock.monotonic() - began) * 1000
    return {"status": HEALTHY if answered_ms <= ANSWER_MS_MAX else DEGRADED, "answered_ms": round(answered_ms, 1)}


def _freshness(context: Context) -> dict[str, Any]:
    """How long the oldest mark waits for its bucket to be recomputed."""
    row = context.connection.execute(
        "SELECT count(*), coalesce(extract(epoch FROM now() - min(marked_at)), 0)::float FROM totalizer.dirty_marks"
    ).fetchone()
    assert row is not None
    marks, waiting_s = int(row[0]), float(row[1])
    status = HEALTHY if waiting_s <= FRESH_S else DEGRADED if waiting_s <= STALE_S else UNHEALTHY
    return {"status": status, "marks": marks, "oldest_mark_s": round(waiting_s, 1)}


def _aggregation(context: Context) -> dict[str, Any]:
    """Which jobs did not end well the last time."""
    names = [row[0] for row in context.connection.execute("SELECT name FROM totalizer.jobs WHERE enabled")]
    last = runs.last_runs(context.connection, names)
    bad = sorted(name for name, run in last.items() if run.state in ("failed", "timed_out", "lost"))
    refreshed = last.get("refresh_rollups")
    ended = refreshed.finished_at.isoformat() if refreshed and refreshed.finished_at else None
    return {"status": DEGRADED if bad else HEALTHY, "jobs_not_done": bad, "last_refresh_at": ended}
