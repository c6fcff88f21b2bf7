-- What health checks read of the database, and the record of alerts and silences.
CREATE INDEX load_ledger_hourly_by_hour ON totalizer.load_ledger_hourly (received_hour);

-- Figures of the whole installation, for every role: sums, counts and ages, and no organisation's name or number.
-- Each part looks at a bounded number of rows, or goes by an index.
CREATE FUNCTION totalizer.health_facts() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
WITH marks AS (
    SELECT count(*) AS waiting, min(marked_at) AS oldest
    FROM (SELECT marked_at FROM totalizer.dirty_marks WHERE priority = 0 LIMIT 10000) AS bounded
), fresh AS (
    -- Sums of whole numbers of four bytes take half the time of others; a row is one transaction's.
    SELECT coalesce(sum(accepted::int) FILTER (WHERE loaded_at > now() - interval '1 minute'), 0) AS minute,
           coalesce(sum(accepted::int) FILTER (WHERE loaded_at > now() - interval '1 hour'), 0) AS hour,
           coalesce(sum(dead_lettered::int) FILTER (WHERE loaded_at > now() - interval '1 hour'), 0) AS refused,
           coalesce(sum(abs(accepted - loaded - duplicate - conflict - dead_lettered - dropped)::int), 0) AS unclear
    FROM totalizer.load_ledger WHERE loaded_at > now() - interval '2 days'
), letters AS (
    SELECT count(*) AS waiting, count(*) FILTER (WHERE created_at > now() - interval '1 hour') AS hour
    FROM (SELECT created_at FROM totalizer.dead_letters ORDER BY id DESC LIMIT 10000) AS bounded
), ended AS (
    SELECT j.name, r.* FROM totalizer.jobs j, LATERAL (
        SELECT id, state, started_at, finished_at, result, error FROM totalizer.job_runs
        WHERE job = j.name AND state NOT IN ('requested', 'running') ORDER BY id DESC LIMIT 1
    ) AS r
)
SELECT jsonb_build_object(
    'now_s', extract(epoch FROM clock_timestamp()),
    'marks', (SELECT waiting FROM marks),
    'oldest_mark_s', (SELECT extract(epoch FROM now() - oldest) FROM marks),
    'accepted_minute', (SELECT minute FROM fresh),
    'accepted_hour', (SELECT hour FROM fresh),
    'dead_lettered_hour', (SELECT greatest(refused, 0) FROM fresh),
    'without_fate', (SELECT unclear FROM fresh) + (
        SELECT coalesce(sum(abs(accepted - loaded - duplicate - conflict - dead_lettered - dropped)), 0)
        FROM totalizer.load_ledger_hourly WHERE received_hour > now() - interval '2 days'
    ),
    'letters', (SELECT waiting FROM letters),
    'letters_hour', (SELECT hour FROM letters),
    'gaps_day', (SELECT count(*) FROM totalizer.journal_gaps WHERE found_at > now() - interval '1 day'),
    'partition_days', (
        SELECT coalesce(min(CASE WHEN to_regclass(format('partitions.%I', e.name || '_p' || to_char(
            (now() AT TIME ZONE 'UTC')::date + k, CASE e.partition WHEN 'day' THEN 'YYYYMMDD' ELSE 'YYYYMM' END
        ))) IS NULL THEN k END), 8)
        FROM totalizer.event_types e, generate_series(0, 7) AS k
    ),
    'connections', (
        -- Of other roles' sessions only this much is to be seen.
        SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
    ),
    'connections_max', current_setting('max_connections')::int,
    'offsets', (
        SELECT coalesce(jsonb_object_agg(journal_id, jsonb_build_array(segment, position)), '{}')
        FROM totalizer.journal_offsets
    ),
    'jobs', (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'name', j.name,
            'late_s', extract(epoch FROM now() - j.next_run_at),
            'over_s', (
                SELECT extract(epoch FROM now() - min(started_at) - j.hard_limit) FROM totalizer.job_runs r
                WHERE r.job = j.name AND r.state = 'running'
            ),
            'failures', (
                SELECT count(*) FILTER (WHERE ended.state <> 'done' AND ended.id > coalesce(ended.done, 0)) FROM (
                    SELECT id, state, max(id) FILTER (WHERE state = 'done') OVER () AS done FROM (
                        SELECT id, state FROM totalizer.job_runs r
                        WHERE r.job = j.name AND r.state NOT IN ('requested', 'running') ORDER BY id DESC LIMIT 20
                    ) AS newest
                ) AS ended
            ),
            'state', e.state,
            'ended_s', extract(epoch FROM now() - e.finished_at),
            'took_s', extract(epoch FROM e.finished_at - e.started_at),
            'alerts', CASE WHEN jsonb_typeof(e.result->'alerts') = 'array' THEN e.result->'alerts' ELSE '[]' END
        )), '[]')
        FROM totalizer.jobs j LEFT JOIN ended e ON e.name = j.name WHERE j.enabled
    ),
    'mismatches', (
        SELECT count(*) FROM ended WHERE name = 'verify' AND error LIKE '%not balance%'
    ) + (
        -- It repairs what it finds, so its next run finds nothing: somebody shall see it even so.
        SELECT coalesce(sum((result->>'mismatched')::bigint), 0)::bigint FROM totalizer.job_runs
        WHERE job = 'reconcile' AND started_at > now() - interval '1 hour' AND result->>'mismatched' ~ '^[0-9]{1,18}$'
    ),
    'compared_s', (
        SELECT extract(epoch FROM now() - max(finished_at)) FROM ended WHERE name IN ('verify', 'reconcile')
    ),
    'usage_seen', EXISTS (
        SELECT FROM (
            SELECT result FROM totalizer.job_runs WHERE job = 'usage_aggregation' ORDER BY id DESC LIMIT 200
        ) AS late WHERE result->>'records_aggregated' ~ '^[1-9]'
    )
)
$$;
REVOKE ALL ON FUNCTION totalizer.health_facts FROM PUBLIC;
GRANT EXECUTE ON FUNCTION totalizer.health_facts TO totalizer_app, totalizer_refresher, totalizer_writer;

CREATE TABLE totalizer.alerts (
    host text NOT NULL,
    key text NOT NULL,
    rule text NOT NULL,
    severity text NOT NULL,
    message text NOT NULL,
    remedy text NOT NULL,
    since timestamptz NOT NULL,
    PRIMARY KEY (host, key)
);
COMMENT ON TABLE totalizer.alerts IS 'The alerts that stand, as each monitor last saw them';
GRANT SELECT ON totalizer.alerts TO totalizer_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON totalizer.alerts TO totalizer_refresher;

CREATE TABLE totalizer.alert_history (
    id uuid PRIMARY KEY,
    at timestamptz NOT NULL,
    host text NOT NULL,
    key text NOT NULL,
    rule text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('fired', 'escalated', 'repeated', 'resolved', 'test')),
    severity text NOT NULL,
    message text NOT NULL,
    silenced boolean NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE totalizer.alert_history IS 'What became of alerts. What happened while the database was away is added when it is back';
CREATE INDEX alert_history_by_time ON totalizer.alert_history (at DESC);
GRANT SELECT ON totalizer.alert_history TO totalizer_app;
GRANT SELECT, INSERT, DELETE ON totalizer.alert_history TO totalizer_refresher;

CREATE TABLE totalizer.alert_silences (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rule text NOT NULL CHECK (rule <> ''),
    until timestamptz NOT NULL,
    reason text NOT NULL DEFAULT '',
    made_by text NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE totalizer.alert_silences IS 'Rules whose alerts are told to nobody for a time; * is all of them';
CREATE INDEX alert_silences_by_end ON totalizer.alert_silences (until);
GRANT SELECT, INSERT (rule, until, reason, made_by), UPDATE (until) ON totalizer.alert_silences TO totalizer_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON totalizer.alert_silences TO totalizer_refresher;
