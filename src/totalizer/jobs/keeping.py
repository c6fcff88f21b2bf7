"""The bodies that keep stored data in order: retention, late events, materialised views, time zones."""

from __future__ import annotations

from typing import Any

from totalizer.errors import OperationError
from totalizer.jobs.job import Context
from totalizer.rollup import late, materialized, retention, zones
from totalizer.store.retention import Policy


def refresh_materialized_views(context: Context) -> dict[str, Any]:
    """Compute the materialised views anew, while they are read with the figures they had."""
    views = materialized.refresh_materialized_views(context.connection, clock=context.clock)
    rows = sum(view["rows"] for view in views.values())
    return {"task": "refresh_materialized_views", "status": "done", "rows": rows, "views": views}


def cleanup_old_data(context: Context) -> dict[str, Any]:
    """Remove what is older than it is to be kept."""
    settings = context.settings
    policy = Policy(raw_days=settings.data_retention_days, partition_days=settings.partition_retention_days)
    done = retention.cleanup_old_data(
        context.connection, _days(context.arguments.get("retention_days")), policy=policy, clock=context.clock
    )
    return {"task": "cleanup_old_data", **done, "rows": done["events_removed"]}


def apply_late(context: Context) -> dict[str, Any]:
    """Add events that came later than their time is kept to the rollups that are."""
    done = late.apply_late(context.connection, "the job apply_late", clock=context.clock)
    return {**done, "rows": done["events"], "changed": done["rows"]}


def check_zones(context: Context) -> dict[str, Any]:
    """Have the days computed again whose bounds the database's time zones have moved."""
    return zones.check_zones(context.connection)


def _days(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:10]) <= 36_500:
        raise OperationError(f"retention_days={text[:80]}: must be a whole number from 1 to 36500")
    return int(text)
