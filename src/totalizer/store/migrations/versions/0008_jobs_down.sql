DROP FUNCTION totalizer.request_job;
DROP TABLE totalizer.jobs;
-- The version before knows only runs that have ended.
DELETE FROM totalizer.job_runs WHERE started_at IS NULL OR finished_at IS NULL;
UPDATE totalizer.job_runs SET error = coalesce(error, state) WHERE state <> 'done';
REVOKE UPDATE, DELETE ON totalizer.job_runs FROM totalizer_refresher;
REVOKE SELECT (id, job, state, scheduled_for, requested_at, started_at, finished_at, rows, runner, attempt, runs)
    ON totalizer.job_runs FROM totalizer_app;
DROP INDEX totalizer.job_runs_once;
DROP INDEX totalizer.job_runs_by_age;
DROP INDEX totalizer.job_runs_by_ticket;
DROP INDEX totalizer.job_runs_by_moment;
DROP INDEX totalizer.job_runs_open;
DROP INDEX totalizer.job_runs_by_job;
ALTER TABLE totalizer.job_runs
    DROP COLUMN state, DROP COLUMN scheduled_for, DROP COLUMN requested_at, DROP COLUMN rows, DROP COLUMN runner,
    DROP COLUMN attempt, DROP COLUMN runs, DROP COLUMN arguments, DROP COLUMN ticket,
    ALTER COLUMN host SET NOT NULL,
    ALTER COLUMN started_at SET NOT NULL,
    ALTER COLUMN finished_at SET NOT NULL;
CREATE INDEX job_runs_by_job ON totalizer.job_runs (job, started_at DESC);
COMMENT ON TABLE totalizer.job_runs IS NULL;
