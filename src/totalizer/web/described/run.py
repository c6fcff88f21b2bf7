"""What is answered about the service: health, metrics, jobs, alerts, who changed what."""

from __future__ import annotations

from typing import Final

from litestar.openapi.spec import OpenAPIType, Schema

from totalizer.web.described.forms import (
    ANY,
    Form,
    by_name,
    flag,
    identifier,
    integer,
    moment,
    number,
    or_null,
    record,
    several,
    text,
)
from totalizer.web.schemas import TIME_EXAMPLE, UUID_EXAMPLE

HEALTH_TAG, JOBS_TAG, ALERTS_TAG, AUDIT_TAG = "Health", "Jobs", "Alerts", "Audit"
_MS = 1_757_066_400_000
_REDIS = text("ok, not configured, or what is wrong.")
_VERSION = text("Of the service.")

ALIVE: Final = Form(record({"status": text("", "ok")}), {"status": "ok"})
READY: Final = Form(
    record(
        {
            "status": text("", "ok", "unavailable"), "database": text("ok, or what is wrong."), "redis": _REDIS,
            "missing": several(text(), "What it waits for."), "version": _VERSION,
        }
    ),
    {"status": "ok", "database": "ok", "redis": "ok", "missing": [], "version": "0.1.0"},
)  # fmt: skip
_CHECK = record(
    {"name": text(), "status": text("", "ok", "warning", "critical", "unknown"), "message": text()},
    {
        "value": number("The figure."), "unit": text(), "warning": number("Its level."),
        "critical": number("Its level."),
        "remedy": text("What to do, if it is not ok."),
    },
)  # fmt: skip
HEALTH: Final = Form(
    record(
        {
            "status": text("", "healthy", "degraded", "unhealthy"), "severity": text("", "normal", "warning",
            "critical"),
            "timestamp": integer("Milliseconds since 1970."), "issues": several(text()), "checks": several(_CHECK),
            "database": text("ok, or what is wrong."), "redis": _REDIS, "version": _VERSION,
        }
    ),
    {
        "status": "healthy", "severity": "normal", "timestamp": _MS, "issues": [],
        "checks": [{"name": "disk", "status": "ok", "message": "60 % free", "value": 0.6, "unit": "part",
        "warning": 0.1}],
        "database": "ok", "redis": "ok", "version": "0.1.0",
    },
)  # fmt: skip
AGGREGATION: Final = Form(
    record(
        {
            "status": text("", "healthy", "unhealthy", "unknown"), "severity": text("", "normal", "warning",
            "critical"),
            "timestamp": integer("Milliseconds since 1970."), "uptime": number("Of the daemon, milliseconds."),
            "issues": several(text()),
        }
    ),
    {"status": "unknown", "severity": "normal", "timestamp": _MS, "uptime": 0, "issues": []},
)  # fmt: skip
PERFORMANCE: Final = Form(
    record(
        {
            "ingestion_rate": or_null(number("Events a second.")), "processing_latency_ms": number(),
            "query_response_time_ms": number(), "memory_usage_mb": number(),
            "active_connections": or_null(integer("Sessions of the database.")), "cache_hit_rate": number("0 to 1."),
            "window_s": integer(), "processes": integer("API processes of this machine."),
            "timestamp": integer("Milliseconds since 1970."),
        }
    ),
    {
        "ingestion_rate": 310.5, "processing_latency_ms": 2.1, "query_response_time_ms": 12.4, "memory_usage_mb": 130.2,
        "active_connections": 9, "cache_hit_rate": 0.7, "window_s": 60, "processes": 1, "timestamp": _MS,
    },
)  # fmt: skip
METRICS: Final = Form(
    text("The text format of Prometheus."),
    '# TYPE totalizer_requests_total counter\ntotalizer_requests_total{route="/api/metrics/batch"} 17\n',
    media_type="text/plain",
)

_RUN = record(
    {
        "id": integer(), "job": text(),
        "state": text("", "requested", "running", "done", "failed", "timed_out", "lost"),
        "scheduled_for": or_null(moment("The moment of the schedule.")), "requested_at": or_null(moment()),
        "started_at": or_null(moment()), "finished_at": or_null(moment()), "duration_s": or_null(number()),
        "rows": or_null(integer("Rows that were changed.")), "runner": or_null(text("Who ran it.")),
        "attempt": integer(),
        "runs": integer("For how many it stands."),
    }
)  # fmt: skip
_RUN_EXAMPLE = {
    "id": 17, "job": "health_check", "state": "done", "scheduled_for": "2025-09-05T04:00:00Z", "requested_at": None,
    "started_at": "2025-09-05T04:00:00.2Z", "finished_at": "2025-09-05T04:00:09.7Z", "duration_s": 9.5, "rows": 0,
    "runner": "scheduler", "attempt": 1, "runs": 1,
}  # fmt: skip
JOBS: Final = Form(
    record(
        {
            "jobs": several(
                record(
                    {
                        "name": text(), "description": text(), "schedule": or_null(text()), "queue": text(),
                        "soft_limit_s": number("When it is told to stop."), "hard_limit_s": number("When it is ended."),
                        "enabled": flag(), "next_run_at": or_null(moment()),
                        "last_run": Schema(type=[OpenAPIType.OBJECT, OpenAPIType.NULL], properties=_RUN.properties),
                    }
                )
            )
        }
    ),
    {
        "jobs": [
            {"name": "health_check", "description": "looks whether database, rollups and jobs are well",
             "schedule": "every 5 min", "queue": "maintenance", "soft_limit_s": 275, "hard_limit_s": 300,
             "enabled": True, "next_run_at": "2025-09-05T04:05:00Z", "last_run": _RUN_EXAMPLE}
        ]
    },
)  # fmt: skip
RUNS: Final = Form(record({"runs": several(_RUN, "Newest first.")}), {"runs": [_RUN_EXAMPLE]})
RUN_ASKED: Final = Form(
    record({"id": integer("Of the run."), "job": text(), "state": text("", "requested")}),
    {"id": 18, "job": "health_check", "state": "requested"},
)
JOB_ASKED: Final = {"name": "health_check"}

_STANDING = record(
    {
        "host": or_null(text()), "key": text(), "rule": text(), "severity": text("", "warning", "critical"),
        "message": text(),
        "since": moment(),
    },
    {"remedy": or_null(text("What to do."))},
)  # fmt: skip
_SILENCE = {"id": integer(), "rule": text("`*` is every rule."), "until": moment()}
_SILENCE_EXAMPLE = {"id": 3, "rule": "memory", "until": "2025-09-05T11:00:00Z"}
ALERTS: Final = Form(
    record(
        {
            "alerts": several(_STANDING, "Oldest first."),
            "silences": several(record({**_SILENCE, "reason": text(), "made_by": text(), "made_at": moment()})),
            "source": text("Who tells it.", "database", "file"),
        }
    ),
    {
        "alerts": [
            {"host": "", "key": "loader_behind", "rule": "loader_behind", "severity": "warning",
             "message": "the oldest event that is not loaded is 45 s old", "remedy": "Look at the loader's log.",
             "since": TIME_EXAMPLE}
        ],
        "silences": [{**_SILENCE_EXAMPLE, "reason": "", "made_by": "organisation …", "made_at": TIME_EXAMPLE}],
        "source": "database",
    },
)  # fmt: skip
HISTORY: Final = Form(
    record(
        {
            "history": several(
                record(
                    {
                        "at": moment(), "host": or_null(text()), "key": text(), "rule": text(),
                        "kind": text("fired, escalated, repeated, resolved."), "severity": text(), "message": text(),
                        "silenced": flag(),
                    }
                ),
                "Newest first.",
            )
        }
    ),
    {
        "history": [
            {"at": TIME_EXAMPLE, "host": "", "key": "loader_behind", "rule": "loader_behind", "kind": "fired",
             "severity": "warning", "message": "the oldest event that is not loaded is 45 s old", "silenced": False}
        ]
    },
)  # fmt: skip
SILENCE: Final = Form(
    record(
        {"rule": text("Whose alerts; `*` for all."), "for_s": number("Seconds, up to 30 days.")},
        {"reason": text("For others who wonder.")},
    ),
    {"rule": "memory", "for_s": 3600, "reason": "a planned import"},
)
SILENCED: Final = Form(record(_SILENCE), _SILENCE_EXAMPLE)
SILENCE_ASKED: Final = {"number": 3}

AUDIT: Final = Form(
    record(
        {
            "data": several(
                record(
                    {
                        "id": integer(), "at": moment(),
                        "organization_id": or_null(identifier("Whose; null: of the installation.")),
                        "organization": or_null(text("Its name.")),
                        "actor": record(
                            {"kind": text("", "api_key", "token", "command_line", "database")},
                            {"id": text(), "name": text("The key's."), "role": text("The token's.")},
                        ),
                        "action": text(), "target": text("What it was done to."),
                        "before": or_null(by_name(ANY)), "after": or_null(by_name(ANY)),
                    }
                ),
                "Newest first.",
            ),
            "next_cursor": or_null(text("For the next page; null: there is none.")),
        }
    ),
    {
        "data": [
            {
                "id": 12, "at": TIME_EXAMPLE, "organization_id": UUID_EXAMPLE, "organization": "default",
                "actor": {"kind": "api_key", "id": UUID_EXAMPLE, "name": "operator"}, "action": "job.run",
                "target": "verify", "before": None, "after": {"run": 812},
            }
        ],
        "next_cursor": None,
    },
)  # fmt: skip
