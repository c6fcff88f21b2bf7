"""The health check that runs by schedule: database, recent aggregation, freshness, the rest, and all of it."""

from __future__ import annotations

from typing import Any

from totalizer.app import gatherer_of
from totalizer.health.check import CRITICAL, WARNING, CheckResult
from totalizer.health.report import DEGRADED, HEALTHY, UNHEALTHY, Report
from totalizer.jobs.job import Context
from totalizer.store import runs
from totalizer.store.roles import Role

_ORDER = (HEALTHY, DEGRADED, UNHEALTHY)
#: The checks that say whether aggregation is at work.
AGGREGATION = ("jobs_failed", "jobs_overdue", "usage_aggregation", "reconciler")
_NAMED = {"database", "rollup_lag", *AGGREGATION}


def health_check(context: Context) -> dict[str, Any]:
    """Look whether database, rollups, jobs and this machine are well."""
    began = context.clock.monotonic()
    report = _gathered(context)
    checks = {
        "database": _database(report),
        "data_freshness": _freshness(report),
        "recent_aggregation": _aggregation(context, report),
        "system": _system(report),
    }
    overall = max((check["status"] for check in checks.values()), key=_ORDER.index)
    now = runs.database_now(context.connection)
    return {
        "task": "health_check", "status": overall, "checked_at": now.isoformat(), "checks": checks,
        "duration_ms": round((context.clock.monotonic() - began) * 1000),
    }  # fmt: skip


def performance_report(context: Context) -> dict[str, Any]:
    """Keep the figures of the last minute: how much came in, how fast it was answered, what that took."""
    return {"task": "performance_report", **_gathered(context).performance_document()}


def _gathered(context: Context) -> Report:
    gatherer = gatherer_of(context.settings, Role.REFRESHER)
    try:
        return gatherer()
    finally:
        gatherer.close()


def _database(report: Report) -> dict[str, Any]:
    result = report.result("database")
    return {"status": _status(result), "answered_ms": round(report.facts.database.took_ms, 1)}


def _freshness(report: Report) -> dict[str, Any]:
    """How long the oldest mark waits for its bucket to be recomputed."""
    facts = report.facts.database.facts
    marks, waits_s = (0, 0.0) if facts is None else (facts.marks, facts.oldest_mark_s or 0.0)
    return {"status": _status(report.result("rollup_lag")), "marks": marks, "oldest_mark_s": round(waits_s, 1)}


def _aggregation(context: Context, report: Report) -> dict[str, Any]:
    """Which jobs did not end well the last time."""
    facts = report.facts.database.facts
    jobs = [] if facts is None else facts.jobs
    bad = sorted(job.name for job in jobs if job.state in ("failed", "timed_out", "lost"))
    refreshed = runs.last_runs(context.connection, ["refresh_rollups"]).get("refresh_rollups")
    ended = refreshed.finished_at.isoformat() if refreshed and refreshed.finished_at else None
    return {"status": _worst(report, AGGREGATION), "jobs_not_done": bad, "last_refresh_at": ended}


def _system(report: Report) -> dict[str, Any]:
    names = [each.name for each in report.results if each.name not in _NAMED]
    issues = [f"{each.name}: {each.message}" for each in report.bad if each.name in names]
    return {"status": _worst(report, names), "issues": issues}


def _worst(report: Report, names: Any) -> str:
    return max((_status(report.result(name)) for name in names), key=_ORDER.index)


def _status(result: CheckResult) -> str:
    return {WARNING: DEGRADED, CRITICAL: UNHEALTHY}.get(result.status, HEALTHY)
