"""The table of checks."""

from __future__ import annotations

from totalizer.health import pipeline, services, work
from totalizer.health.check import Check, Levels

#: Every check, in the order in which they are shown. The levels are those that a file may change.
CHECKS: tuple[Check, ...] = (
    Check(
        "database", "PostgreSQL answers", services.database, Levels(1000), "ms",
        "Start PostgreSQL, or mend the way to it: DATABASE_URL, its log, its disk. Events are still taken until the "
        "journals are full, and nothing is lost. A database that is not migrated wants `totalizer migrate`.", True,
    ),
    Check(
        "connections", "PostgreSQL has sessions left", services.connections, Levels(0.80, 0.95), "part",
        "Lower DB_POOL_SIZE or the number of API processes, or raise max_connections of PostgreSQL.", False,
    ),
    Check(
        "redis", "Redis answers, where one is set", services.redis, Levels(), "",
        "Start Redis, or mend REDIS_URL. Counters are rebuilt from what is stored; until then limits are counted by "
        "each process for itself.", True,
    ),
    Check(
        "clock_skew", "this machine and PostgreSQL agree about the time", services.clock_skew, Levels(2, 30), "s",
        "Let both machines keep their clocks by NTP (chronyc tracking, timedatectl).", True,
    ),
    Check(
        "disk", "room on the disk of the data folder", services.disk, Levels(0.10, 0.05), "part",
        "Make room, or move the data folder to a larger disk. When it is full, events are refused with 503.", True,
    ),
    Check(
        "memory", "memory of this machine, or of the container's share", services.memory, Levels(0.80, 0.95), "part",
        "Find who takes it; lower TOTALIZER_WORKERS, MAX_MEMORY_MB or TOTALIZER_LOAD_ROWS_MAX, or give it more.", True,
    ),
    Check(
        "journal_quota", "the fullest journal has room", services.journal_quota, Levels(0.50, 0.80), "part",
        "See to it that a loader runs here and that the database takes what it loads (`totalizer status`), or raise "
        "TOTALIZER_JOURNAL_QUOTA_BYTES. At the quota events are refused with 503.", True,
    ),
    Check(
        "batches", "the batching library on this machine delivers", services.batches, Levels(), "",
        "Look at `totalizer aggregation status` and `totalizer diagnostics`, then at the log of the recovery daemon.",
        True,
    ),
    Check(
        "loader_lag", "what is acknowledged gets into the database", pipeline.loader_lag, Levels(60, 600), "s",
        "See whether the loader runs (`totalizer status`, log/loader.log); start `totalizer load` if it does not.",
        True,
    ),
    Check(
        "rollup_lag", "what is loaded gets into the rollups", pipeline.rollup_lag, Levels(60, 900), "s",
        "See whether a scheduler or a worker runs (`totalizer job list`). Answers stay exact meanwhile, but slower.",
        False,
    ),
    Check(
        "jobs_overdue", "jobs begin when they are due and end within their limit", work.jobs_overdue,
        Levels(120, 900), "s",
        "Look at `totalizer job list` and at what runs them: the scheduler's log, or Celery's workers and beat.", False,
    ),
    Check(
        "jobs_failed", "jobs end well", work.jobs_failed, Levels(0, 2), "runs",
        "`totalizer job history NAME` says why; `totalizer job run NAME` tries it again.", False,
    ),
    Check(
        "usage_aggregation", "usage counters are aggregated, in reasonable time", work.usage_aggregation,
        Levels(300), "s",
        "`totalizer job history usage_aggregation` names the counters that failed; see to Redis and run it again.",
        False,
    ),
    Check(
        "reconciler", "events, rollups and ledger agree", work.reconciler, Levels(None, 0), "rows",
        "`totalizer verify` names what differs. Events are the truth: rollups are computed from them again.", False,
    ),
    Check(
        "success_rate", "the database takes what was acknowledged", pipeline.success_rate, Levels(0.90, 0.80), "part",
        "`totalizer dead-letters list` tells why events are refused; mend that, then `totalizer dead-letters retry`.",
        False,
    ),
    Check(
        "processing_time", "senders get their answers soon", pipeline.processing_time, Levels(500), "ms",
        "Look at the disk of the journals (iostat): each answer waits for it. Then at memory and processors.", True,
    ),
    Check(
        "query_time", "who asks gets answers soon", pipeline.query_time, Levels(1000), "ms",
        "Look at rollup_lag first: what is not rolled up is read from events. Then at PostgreSQL's slow statements.",
        True,
    ),
    Check(
        "quarantine", "no dead letters come in", pipeline.quarantine, Levels(0, 1000), "events",
        "`totalizer dead-letters list` tells why; mend that, then `totalizer dead-letters retry`, or drop them.", False,
    ),
    Check(
        "journal_damage", "journals can be read", pipeline.journal_damage, Levels(None, 0), "places",
        "A disk returned other bytes than were written. Look at the quarantine folders of the journals and at the "
        "disk's own report (smartctl, dmesg).", False,
    ),
    Check(
        "ledger", "every acknowledged event has one fate", pipeline.ledger, Levels(None, 0), "events",
        "`totalizer ledger` shows the hours that do not balance. Keep journals and logs, and report it.", False,
    ),
    Check(
        "partitions", "partitions of the coming days are there", pipeline.partitions, Levels(3, 1), "days",
        "`totalizer job run make_partitions`; then see why the job does not run by itself.", False,
    ),
)  # fmt: skip
BY_NAME = {check.name: check for check in CHECKS}
