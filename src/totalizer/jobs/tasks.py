"""The Celery tasks by name, for who sends them: `hourly_rollup_task.apply_async(args=["2025-01-09T14:00"])`."""

from __future__ import annotations

from totalizer.celery_app import app
from totalizer.jobs.celery_config import CATCH_UP

refresh_rollups_task = app.tasks["refresh_rollups_task"]
hourly_rollup_task = app.tasks["hourly_rollup_task"]
daily_rollup_task = app.tasks["daily_rollup_task"]
weekly_rollup_task = app.tasks["weekly_rollup_task"]
monthly_rollup_task = app.tasks["monthly_rollup_task"]
backfill_aggregations_task = app.tasks["backfill_aggregations_task"]
make_partitions_task = app.tasks["make_partitions_task"]
compact_ledger_task = app.tasks["compact_ledger_task"]
forget_fates_task = app.tasks["forget_fates_task"]
dead_letter_retry_task = app.tasks["dead_letter_retry_task"]
health_check_task = app.tasks["health_check_task"]
verify_task = app.tasks["verify_task"]
forget_runs_task = app.tasks["forget_runs_task"]
catch_up_task = app.tasks[CATCH_UP]
