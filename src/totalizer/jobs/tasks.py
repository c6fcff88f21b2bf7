"""The Celery tasks by name, for who sends them: `hourly_rollup_task.apply_async(args=["2025-01-09T14:00"])`."""

from __future__ import annotations

from totalizer.celery_app import TASKS
from totalizer.jobs.celery_config import CATCH_UP

refresh_rollups_task = TASKS["refresh_rollups_task"]
hourly_rollup_task = TASKS["hourly_rollup_task"]
daily_rollup_task = TASKS["daily_rollup_task"]
weekly_rollup_task = TASKS["weekly_rollup_task"]
monthly_rollup_task = TASKS["monthly_rollup_task"]
usage_aggregation_task = TASKS["usage_aggregation_task"]
backfill_aggregations_task = TASKS["backfill_aggregations_task"]
refresh_materialized_views_task = TASKS["refresh_materialized_views_task"]
cleanup_old_data_task = TASKS["cleanup_old_data_task"]
apply_late_task = TASKS["apply_late_task"]
check_zones_task = TASKS["check_zones_task"]
make_partitions_task = TASKS["make_partitions_task"]
compact_ledger_task = TASKS["compact_ledger_task"]
forget_fates_task = TASKS["forget_fates_task"]
dead_letter_retry_task = TASKS["dead_letter_retry_task"]
health_check_task = TASKS["health_check_task"]
performance_report_task = TASKS["performance_report_task"]
reconcile_task = TASKS["reconcile_task"]
clear_minutes_task = TASKS["clear_minutes_task"]
verify_task = TASKS["verify_task"]
forget_runs_task = TASKS["forget_runs_task"]
catch_up_task = TASKS[CATCH_UP]
