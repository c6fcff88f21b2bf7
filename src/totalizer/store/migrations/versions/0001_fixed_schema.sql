-- The fixed schema: organisations, keys, offsets, marks, dead letters, ledger, job runs, the applied catalog.
CREATE SCHEMA events;
CREATE SCHEMA partitions;
CREATE SCHEMA analytics;
COMMENT ON SCHEMA events IS 'One table for each event type';
COMMENT ON SCHEMA partitions IS 'Partitions of the event tables; readers have no access here, since row security is the parent''s';
COMMENT ON SCHEMA analytics IS 'Rollups';
GRANT USAGE ON SCHEMA totalizer, events TO totalizer_writer, totalizer_refresher, totalizer_app;
GRANT USAGE ON SCHEMA partitions TO totalizer_writer;
GRANT USAGE ON SCHEMA analytics TO totalizer_refresher, totalizer_app;

-- Policies below compare with the organisation of the transaction. A finished SET LOCAL leaves an empty string, hence
-- nullif; the sub-select has the setting read once a query instead of once a row.

CREATE TABLE totalizer.organizations (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name text NOT NULL UNIQUE CHECK (name <> ''),
    time_zone text NOT NULL DEFAULT 'UTC',
    created_at timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE totalizer.organizations ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_organization ON totalizer.organizations FOR SELECT TO totalizer_app
    USING (id = (SELECT nullif(current_setting('app.current_org_id', true), '')::uuid));
CREATE POLICY all_organizations ON totalizer.organizations FOR SELECT TO totalizer_refresher USING (true);
GRANT SELECT ON totalizer.organizations TO totalizer_app, totalizer_refresher;

CREATE TABLE totalizer.api_keys (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    organization_id uuid NOT NULL REFERENCES totalizer.organizations,
    name text NOT NULL,
    key_hash bytea NOT NULL UNIQUE,
    scopes text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz
);
COMMENT ON COLUMN totalizer.api_keys.key_hash IS 'SHA-256 of the key; the key itself is shown once and never stored';

-- What a key may do, found by its hash: the one question the app role may ask about keys.
CREATE FUNCTION totalizer.authenticate_key(hash bytea)
RETURNS TABLE (key_id uuid, organization_id uuid, scopes text[], expires_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = totalizer, pg_temp
AS $$
    SELECT id, organization_id, scopes, expires_at FROM totalizer.api_keys
    WHERE key_hash = hash AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
$$;
REVOKE ALL ON FUNCTION totalizer.authenticate_key FROM PUBLIC;
GRANT EXECUTE ON FUNCTION totalizer.authenticate_key TO totalizer_app;

CREATE TABLE totalizer.event_types (
    name text PRIMARY KEY,
    time_field text NOT NULL,
    partition text NOT NULL CHECK (partition IN ('day', 'month')),
    definition jsonb NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE totalizer.rollups (
    name text PRIMARY KEY,
    event_type text NOT NULL REFERENCES totalizer.event_types,
    definition jsonb NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT ON totalizer.event_types, totalizer.rollups TO totalizer_writer, totalizer_refresher, totalizer_app;

CREATE TABLE totalizer.journal_offsets (
    journal_id uuid PRIMARY KEY,
    epoch bigint NOT NULL DEFAULT 0,
    segment bigint NOT NULL DEFAULT 0,
    position bigint NOT NULL DEFAULT 0,
    batches bigint NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
COMMENT ON TABLE totalizer.journal_offsets IS 'How far each journal is loaded; advanced in the transaction that stores the events';
COMMENT ON COLUMN totalizer.journal_offsets.epoch IS 'Raised by each loader that takes the journal over; an older loader is fenced off';
GRANT SELECT, INSERT, UPDATE ON totalizer.journal_offsets TO totalizer_writer;
GRANT SELECT ON totalizer.journal_offsets TO totalizer_app, totalizer_refresher;

CREATE TABLE totalizer.dirty_marks (
    organization_id uuid NOT NULL,
    event_type text NOT NULL,
    bucket timestamptz NOT NULL,
    shard smallint NOT NULL GENERATED ALWAYS AS (uuid_hash(organization_id) & 15) STORED,
    marked_at timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000);
COMMENT ON TABLE totalizer.dirty_marks IS 'Append-only: buckets whose rollups are behind their events. One bucket may be marked many times';
CREATE INDEX dirty_marks_by_bucket ON totalizer.dirty_marks (organization_id, event_type, bucket);
ALTER TABLE totalizer.dirty_marks ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_marks ON totalizer.dirty_marks FOR SELECT TO totalizer_app
    USING (organization_id = (SELECT nullif(current_setting('app.current_org_id', true), '')::uuid));
CREATE POLICY add_marks ON totalizer.dirty_marks FOR INSERT TO totalizer_writer WITH CHECK (true);
CREATE POLICY take_marks ON totalizer.dirty_marks FOR ALL TO totalizer_refresher USING (true) WITH CHECK (true);
GRANT SELECT ON totalizer.dirty_marks TO totalizer_app;
GRANT INSERT ON totalizer.dirty_marks TO totalizer_writer;
GRANT SELECT, INSERT, DELETE ON totalizer.dirty_marks TO totalizer_refresher;

CREATE TABLE totalizer.dead_letters (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    organization_id uuid NOT NULL,
    event_type text NOT NULL,
    columns text[] NOT NULL,
    keyed boolean NOT NULL,
    line bytea NOT NULL,
    sqlstate text NOT NULL,
    reason text NOT NULL,
    journal_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE totalizer.dead_letters IS 'Acknowledged events that PostgreSQL refused, with their bytes and the reason';
ALTER TABLE totalizer.dead_letters ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_dead_letters ON totalizer.dead_letters FOR SELECT TO totalizer_app
    USING (organization_id = (SELECT nullif(current_setting('app.current_org_id', true), '')::uuid));
CREATE POLICY add_dead_letters ON totalizer.dead_letters FOR INSERT TO totalizer_writer WITH CHECK (true);
CREATE POLICY see_dead_letters ON totalizer.dead_letters FOR SELECT TO totalizer_refresher USING (true);
GRANT INSERT ON totalizer.dead_letters TO totalizer_writer;
GRANT SELECT ON totalizer.dead_letters TO totalizer_app, totalizer_refresher;

CREATE TABLE totalizer.load_ledger (
    organization_id uuid NOT NULL,
    event_type text NOT NULL,
    loaded bigint NOT NULL,
    duplicate bigint NOT NULL,
    conflict bigint NOT NULL,
    dead_lettered bigint NOT NULL,
    loaded_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE totalizer.load_ledger IS 'Append-only: the fate of every acknowledged event, one row for each transaction, organisation and type';
CREATE INDEX load_ledger_by_organization ON totalizer.load_ledger (organization_id, event_type, loaded_at);
ALTER TABLE totalizer.load_ledger ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_ledger ON totalizer.load_ledger FOR SELECT TO totalizer_app
    USING (organization_id = (SELECT nullif(current_setting('app.current_org_id', true), '')::uuid));
CREATE POLICY add_ledger ON totalizer.load_ledger FOR INSERT TO totalizer_writer WITH CHECK (true);
CREATE POLICY see_ledger ON totalizer.load_ledger FOR SELECT TO totalizer_refresher USING (true);
GRANT INSERT ON totalizer.load_ledger TO totalizer_writer;
GRANT SELECT ON totalizer.load_ledger TO totalizer_app, totalizer_refresher;

CREATE TABLE totalizer.job_runs (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    job text NOT NULL,
    host text NOT NULL,
    started_at timestamptz NOT NULL,
    finished_at timestamptz NOT NULL,
    result jsonb,
    error text
);
CREATE INDEX job_runs_by_job ON totalizer.job_runs (job, started_at DESC);
GRANT SELECT, INSERT ON totalizer.job_runs TO totalizer_refresher;

-- Make the partition of an event type that holds `day` (UTC), if there is none. Attaching, unlike CREATE … PARTITION OF,
-- does not block those who read or write the other partitions.
CREATE FUNCTION totalizer.ensure_partition(type_name text, day date) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
DECLARE
    length text;
    first_day date;
    next_day date;
    partition_name text;
BEGIN
    SELECT partition INTO STRICT length FROM totalizer.event_types WHERE name = type_name;
    first_day := date_trunc(length, day::timestamp)::date;
    next_day := (first_day + ('1 ' || length)::interval)::date;
    partition_name := type_name || '_p' || to_char(first_day, CASE length WHEN 'day' THEN 'YYYYMMDD' ELSE 'YYYYMM' END);
    IF to_regclass(format('partitions.%I', partition_name)) IS NOT NULL THEN
        RETURN partition_name;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('partition ' || type_name));
    IF to_regclass(format('partitions.%I', partition_name)) IS NOT NULL THEN
        RETURN partition_name;
    END IF;
    EXECUTE format('CREATE TABLE partitions.%I (LIKE events.%I INCLUDING ALL)', partition_name, type_name);
    EXECUTE format('GRANT INSERT ON partitions.%I TO totalizer_writer', partition_name);
    EXECUTE format(
        'ALTER TABLE events.%I ATTACH PARTITION partitions.%I FOR VALUES FROM (%L) TO (%L)',
        type_name, partition_name, first_day::timestamptz, next_day::timestamptz
    );
    RETURN partition_name;
END
$$;
REVOKE ALL ON FUNCTION totalizer.ensure_partition FROM PUBLIC;
GRANT EXECUTE ON FUNCTION totalizer.ensure_partition TO totalizer_writer, totalizer_refresher;
