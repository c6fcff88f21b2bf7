-- Every run of a job is recorded, whichever process runs it; jobs can be asked for.
CREATE TABLE totalizer.jobs (
    name text PRIMARY KEY,
    description text NOT NULL,
    schedule text,
    queue text NOT NULL,
    soft_limit interval NOT NULL,
    hard_limit interval NOT NULL,
    enabled boolean NOT NULL,
    requestable boolean NOT NULL,
    next_run_at timestamptz,
    known_since timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE totalizer.jobs IS 'The table of jobs as whoever runs them last had it; the program has the truth';
COMMENT ON COLUMN totalizer.jobs.schedule IS 'In words; null: by hand only';
COMMENT ON COLUMN totalizer.jobs.known_since IS 'Runs that were due before are not caught up';
GRANT SELECT ON totalizer.jobs TO totalizer_app;
GRANT SELECT, INSERT, UPDATE ON totalizer.jobs TO totalizer_refresher;

ALTER TABLE totalizer.job_runs
    ALTER COLUMN host DROP NOT NULL,
    ALTER COLUMN started_at DROP NOT NULL,
    ALTER COLUMN finished_at DROP NOT NULL,
    ADD COLUMN state text NOT NULL DEFAULT 'done'
        CHECK (state IN ('requested', 'running', 'done', 'failed', 'timed_out', 'lost')),
    ADD COLUMN scheduled_for timestamptz,
    ADD COLUMN requested_at timestamptz,
    ADD COLUMN rows bigint,
    ADD COLUMN runner text,
    ADD COLUMN attempt integer NOT NULL DEFAULT 1,
    ADD COLUMN runs bigint NOT NULL DEFAULT 1,
    ADD COLUMN arguments jsonb,
    ADD COLUMN ticket text;
UPDATE totalizer.job_runs SET state = 'failed' WHERE error IS NOT NULL;
COMMENT ON TABLE totalizer.job_runs IS 'Every run of a job. Its number grows from run to run of a job';
COMMENT ON COLUMN totalizer.job_runs.state IS 'lost: the process or its connection ended without a word';
COMMENT ON COLUMN totalizer.job_runs.scheduled_for IS 'The moment of the schedule that it is for; null: asked for by hand, or a job that runs all the time';
COMMENT ON COLUMN totalizer.job_runs.attempt IS 'Which try for that moment, from 1';
COMMENT ON COLUMN totalizer.job_runs.runs IS 'How many runs the row stands for: those of a job that runs all the time are summed by the hour';
COMMENT ON COLUMN totalizer.job_runs.ticket IS 'The message that asked for it: delivered again, it is not done again';
DROP INDEX totalizer.job_runs_by_job;
CREATE INDEX job_runs_by_job ON totalizer.job_runs (job, id DESC);
CREATE INDEX job_runs_open ON totalizer.job_runs (job, id) WHERE state IN ('requested', 'running');
CREATE INDEX job_runs_by_moment ON totalizer.job_runs (job, scheduled_for DESC, id DESC) WHERE scheduled_for IS NOT NULL;
CREATE INDEX job_runs_by_age ON totalizer.job_runs (finished_at);
-- The last word on doing what is scheduled once.
CREATE UNIQUE INDEX job_runs_once ON totalizer.job_runs (job, scheduled_for) WHERE state IN ('running', 'done');
CREATE INDEX job_runs_by_ticket ON totalizer.job_runs (ticket) WHERE ticket IS NOT NULL;
GRANT UPDATE, DELETE ON totalizer.job_runs TO totalizer_refresher;
-- What a run said may name organisations: the service's readers see all but that.
GRANT SELECT (id, job, state, scheduled_for, requested_at, started_at, finished_at, rows, runner, attempt, runs)
    ON totalizer.job_runs TO totalizer_app;

-- Ask for a run; of one that is asked for already, its number. Null: there is no such job, or it wants arguments.
CREATE FUNCTION totalizer.request_job(wanted text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found_id bigint;
BEGIN
    PERFORM FROM totalizer.jobs WHERE name = wanted AND requestable FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    SELECT id INTO found_id FROM totalizer.job_runs WHERE job = wanted AND state = 'requested' ORDER BY id LIMIT 1;
    IF found_id IS NULL THEN
        INSERT INTO totalizer.job_runs (job, state, requested_at) VALUES (wanted, 'requested', now())
        RETURNING id INTO found_id;
    END IF;
    RETURN found_id;
END
$$;
REVOKE ALL ON FUNCTION totalizer.request_job FROM PUBLIC;
GRANT EXECUTE ON FUNCTION totalizer.request_job TO totalizer_app;
