-- The fixed schema at present, for reading; migrations/ makes it and a test compares the two.
-- After a new migration: UPDATE_SCHEMA=1 script/test tests/migration
CREATE SCHEMA totalizer;

CREATE FUNCTION totalizer.authenticate_key(hash bytea) RETURNS TABLE(key_id uuid, organization_id uuid, scopes text[], expires_at timestamp with time zone, last_used_at timestamp with time zone, limits bigint[])
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'totalizer', 'pg_temp'
    AS $$
    SELECT k.id, k.organization_id, k.scopes, k.expires_at, k.last_used_at, ARRAY[l.requests, l.batches, l.reads, l.bytes]
    FROM totalizer.api_keys k LEFT JOIN totalizer.organization_limits l ON l.organization_id = k.organization_id
    WHERE k.key_hash = hash AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
$$;

CREATE FUNCTION totalizer.count_rejected(organizations uuid[], hours timestamp with time zone[], types text[], codes text[], counts bigint[]) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'totalizer', 'pg_temp'
    AS $$
    INSERT INTO totalizer.rejected_events AS r (organization_id, hour, event_type, code, events)
    SELECT o, h, t, c, n FROM unnest(organizations, hours, types, codes, counts) AS new (o, h, t, c, n)
    WHERE n > 0 ORDER BY 1, 2, 3, 4
    ON CONFLICT (organization_id, hour, event_type, code) DO UPDATE SET events = r.events + excluded.events
$$;

CREATE FUNCTION totalizer.default_organization() RETURNS uuid
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'totalizer', 'pg_temp'
    AS $$ SELECT id FROM totalizer.organizations WHERE name = 'default' $$;

CREATE FUNCTION totalizer.ensure_partition(type_name text, day date) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
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

CREATE FUNCTION totalizer.find_organization(wanted uuid) RETURNS TABLE(organization_id uuid, limits bigint[])
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'totalizer', 'pg_temp'
    AS $$
    SELECT o.id, ARRAY[l.requests, l.batches, l.reads, l.bytes]
    FROM totalizer.organizations o LEFT JOIN totalizer.organization_limits l ON l.organization_id = o.id
    WHERE o.id = wanted
$$;

CREATE FUNCTION totalizer.note_key_used(used uuid) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'totalizer', 'pg_temp'
    AS $$
    UPDATE totalizer.api_keys SET last_used_at = now()
    WHERE id = (
        SELECT id FROM totalizer.api_keys
        WHERE id = used AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
        FOR UPDATE SKIP LOCKED
    )
$$;

CREATE TABLE totalizer.api_keys (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    organization_id uuid NOT NULL,
    name text NOT NULL,
    key_hash bytea NOT NULL,
    scopes text[] NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone,
    revoked_at timestamp with time zone,
    last_used_at timestamp with time zone,
    replaced_by uuid
);

COMMENT ON COLUMN totalizer.api_keys.key_hash IS 'SHA-256 of the key; the key itself is shown once and never stored';

COMMENT ON COLUMN totalizer.api_keys.last_used_at IS 'When it was used last; written at most once a minute';

COMMENT ON COLUMN totalizer.api_keys.replaced_by IS 'The key that took its place when it was rotated';

CREATE TABLE totalizer.dead_letters (
    id bigint NOT NULL,
    organization_id uuid NOT NULL,
    event_type text NOT NULL,
    columns text[] NOT NULL,
    keyed boolean NOT NULL,
    line bytea NOT NULL,
    sqlstate text NOT NULL,
    reason text NOT NULL,
    journal_id uuid NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    retries integer DEFAULT 0 NOT NULL,
    retried_at timestamp with time zone,
    received_hour timestamp with time zone
);

COMMENT ON TABLE totalizer.dead_letters IS 'Acknowledged events that PostgreSQL refused, with their bytes and the reason';

COMMENT ON COLUMN totalizer.dead_letters.retries IS 'How often it was tried again and refused again';

COMMENT ON COLUMN totalizer.dead_letters.received_hour IS 'The hour of receipt, under which the ledger counts it; null: the hour of created_at';

ALTER TABLE totalizer.dead_letters ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME totalizer.dead_letters_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE totalizer.dirty_marks (
    organization_id uuid NOT NULL,
    event_type text NOT NULL,
    bucket timestamp with time zone NOT NULL,
    shard smallint GENERATED ALWAYS AS ((uuid_hash(organization_id) & 15)) STORED NOT NULL,
    marked_at timestamp with time zone DEFAULT now() NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0.0', autovacuum_vacuum_threshold='5000');

COMMENT ON TABLE totalizer.dirty_marks IS 'Append-only: buckets whose rollups are behind their events. One bucket may be marked many times';

CREATE TABLE totalizer.event_fates (
    organization_id uuid NOT NULL,
    journal_id uuid NOT NULL,
    sequence bigint NOT NULL,
    event_type text NOT NULL,
    fate text NOT NULL,
    places integer[] NOT NULL,
    ids text[] NOT NULL,
    code text,
    reason text,
    dead_letter_id bigint,
    recorded_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT event_fates_fate_check CHECK ((fate = ANY (ARRAY['duplicate'::text, 'conflict'::text, 'quarantined'::text, 'dropped'::text])))
);

COMMENT ON TABLE totalizer.event_fates IS 'Acknowledged events that were not stored, by the journal record they came in; all others of a loaded record were';

COMMENT ON COLUMN totalizer.event_fates.places IS 'Where the events stood in the request, in their type''s list';

CREATE TABLE totalizer.event_types (
    name text NOT NULL,
    time_field text NOT NULL,
    partition text NOT NULL,
    definition jsonb NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT event_types_partition_check CHECK ((partition = ANY (ARRAY['day'::text, 'month'::text])))
);

CREATE TABLE totalizer.job_runs (
    id bigint NOT NULL,
    job text NOT NULL,
    host text NOT NULL,
    started_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone NOT NULL,
    result jsonb,
    error text
);

ALTER TABLE totalizer.job_runs ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME totalizer.job_runs_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE totalizer.journal_gaps (
    journal_id uuid NOT NULL,
    first bigint NOT NULL,
    last bigint NOT NULL,
    reason text NOT NULL,
    dead_letter_id bigint,
    found_at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE totalizer.journal_gaps IS 'Records that did not reach the loader as batches: damaged on the disk, or not readable by it and kept as a dead letter';

CREATE TABLE totalizer.journal_offsets (
    journal_id uuid NOT NULL,
    epoch bigint DEFAULT 0 NOT NULL,
    segment bigint DEFAULT 0 NOT NULL,
    "position" bigint DEFAULT 0 NOT NULL,
    batches bigint DEFAULT 0 NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    sequence bigint DEFAULT 0 NOT NULL
)
WITH (fillfactor='50');

COMMENT ON TABLE totalizer.journal_offsets IS 'How far each journal is loaded; advanced in the transaction that stores the events';

COMMENT ON COLUMN totalizer.journal_offsets.epoch IS 'Raised by each loader that takes the journal over; an older loader is fenced off';

COMMENT ON COLUMN totalizer.journal_offsets.sequence IS 'Number of the last record loaded; 0 in a journal that was loaded by a version that did not note it';

CREATE TABLE totalizer.load_ledger (
    organization_id uuid NOT NULL,
    event_type text NOT NULL,
    loaded bigint NOT NULL,
    duplicate bigint NOT NULL,
    conflict bigint NOT NULL,
    dead_lettered bigint NOT NULL,
    loaded_at timestamp with time zone DEFAULT now() NOT NULL,
    dropped bigint DEFAULT 0 NOT NULL,
    accepted bigint,
    received_hour timestamp with time zone
);

COMMENT ON TABLE totalizer.load_ledger IS 'Append-only: the fate of every acknowledged event, summed by transaction, organisation and type. A dead letter that is loaded or dropped later takes one from dead_lettered and adds one elsewhere';

COMMENT ON COLUMN totalizer.load_ledger.accepted IS 'How many events the records held; null: written by a version that did not count them, so the sum of their fates';

COMMENT ON COLUMN totalizer.load_ledger.received_hour IS 'The hour in which the events were received; null: that of loaded_at';

CREATE TABLE totalizer.load_ledger_hourly (
    organization_id uuid NOT NULL,
    event_type text NOT NULL,
    received_hour timestamp with time zone NOT NULL,
    accepted bigint NOT NULL,
    loaded bigint NOT NULL,
    duplicate bigint NOT NULL,
    conflict bigint NOT NULL,
    dead_lettered bigint NOT NULL,
    dropped bigint NOT NULL
);

COMMENT ON TABLE totalizer.load_ledger_hourly IS 'What load_ledger had, summed by the hour of receipt and removed there in the same transaction';

CREATE VIEW totalizer.ledger WITH (security_invoker='true') AS
 SELECT load_ledger.organization_id,
    load_ledger.event_type,
    COALESCE(load_ledger.received_hour, date_trunc('hour'::text, load_ledger.loaded_at, 'UTC'::text)) AS received_hour,
    COALESCE(load_ledger.accepted, ((((load_ledger.loaded + load_ledger.duplicate) + load_ledger.conflict) + load_ledger.dead_lettered) + load_ledger.dropped)) AS accepted,
    load_ledger.loaded,
    load_ledger.duplicate,
    load_ledger.conflict,
    load_ledger.dead_lettered,
    load_ledger.dropped
   FROM totalizer.load_ledger
UNION ALL
 SELECT load_ledger_hourly.organization_id,
    load_ledger_hourly.event_type,
    load_ledger_hourly.received_hour,
    load_ledger_hourly.accepted,
    load_ledger_hourly.loaded,
    load_ledger_hourly.duplicate,
    load_ledger_hourly.conflict,
    load_ledger_hourly.dead_lettered,
    load_ledger_hourly.dropped
   FROM totalizer.load_ledger_hourly;

COMMENT ON VIEW totalizer.ledger IS 'The whole ledger, summed up or not yet; several rows an hour';

CREATE TABLE totalizer.merchant_usage (
    organization_id uuid NOT NULL,
    merchant_id text NOT NULL,
    date date NOT NULL,
    metric_type text NOT NULL,
    metric_value bigint NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT merchant_usage_metric_value_check CHECK ((metric_value >= 0))
);

ALTER TABLE ONLY totalizer.merchant_usage FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE totalizer.merchant_usage IS 'What a merchant used of a metric on a UTC day; never lowered';

CREATE TABLE totalizer.organization_limits (
    organization_id uuid NOT NULL,
    requests bigint,
    batches bigint,
    reads bigint,
    bytes bigint,
    CONSTRAINT organization_limits_batches_check CHECK ((batches >= 0)),
    CONSTRAINT organization_limits_bytes_check CHECK ((bytes >= 0)),
    CONSTRAINT organization_limits_reads_check CHECK ((reads >= 0)),
    CONSTRAINT organization_limits_requests_check CHECK ((requests >= 0))
);

COMMENT ON TABLE totalizer.organization_limits IS 'How much an organisation may send and ask in a window; null: as the settings say, 0: no limit';

CREATE TABLE totalizer.organizations (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    name text NOT NULL,
    time_zone text DEFAULT 'UTC'::text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT organizations_name_check CHECK ((name <> ''::text))
);

CREATE TABLE totalizer.rejected_events (
    organization_id uuid NOT NULL,
    hour timestamp with time zone NOT NULL,
    event_type text NOT NULL,
    code text NOT NULL,
    events bigint NOT NULL
);

COMMENT ON TABLE totalizer.rejected_events IS 'Events that were refused, never acknowledged; the last seconds before a kill are not counted';

CREATE TABLE totalizer.rollups (
    name text NOT NULL,
    event_type text NOT NULL,
    definition jsonb NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE totalizer.schema_version (
    version_num character varying(32) NOT NULL
);

CREATE TABLE totalizer.usage_aggregations (
    date date NOT NULL,
    epoch bigint DEFAULT 1 NOT NULL,
    host text NOT NULL,
    started_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    finished_at timestamp with time zone,
    keys_scanned bigint DEFAULT 0 NOT NULL,
    records_aggregated bigint DEFAULT 0 NOT NULL,
    records_settled bigint DEFAULT 0 NOT NULL,
    errors bigint DEFAULT 0 NOT NULL,
    failures_in_a_row integer DEFAULT 0 NOT NULL,
    duration_ms bigint,
    error text
);

COMMENT ON TABLE totalizer.usage_aggregations IS 'The last run for each day';

COMMENT ON COLUMN totalizer.usage_aggregations.epoch IS 'Raised by each run; what an older run would still write is refused';

CREATE TABLE totalizer.usage_failures (
    key text NOT NULL,
    date date NOT NULL,
    reason text NOT NULL,
    attempts integer DEFAULT 1 NOT NULL,
    first_failed_at timestamp with time zone DEFAULT now() NOT NULL,
    last_failed_at timestamp with time zone DEFAULT now() NOT NULL
);

COMMENT ON TABLE totalizer.usage_failures IS 'Counters that could not be aggregated, until a run succeeds with them or finds them gone';

ALTER TABLE ONLY totalizer.api_keys
    ADD CONSTRAINT api_keys_key_hash_key UNIQUE (key_hash);

ALTER TABLE ONLY totalizer.api_keys
    ADD CONSTRAINT api_keys_pkey PRIMARY KEY (id);

ALTER TABLE ONLY totalizer.dead_letters
    ADD CONSTRAINT dead_letters_pkey PRIMARY KEY (id);

ALTER TABLE ONLY totalizer.event_types
    ADD CONSTRAINT event_types_pkey PRIMARY KEY (name);

ALTER TABLE ONLY totalizer.job_runs
    ADD CONSTRAINT job_runs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY totalizer.journal_offsets
    ADD CONSTRAINT journal_offsets_pkey PRIMARY KEY (journal_id);

ALTER TABLE ONLY totalizer.load_ledger_hourly
    ADD CONSTRAINT load_ledger_hourly_pkey PRIMARY KEY (organization_id, event_type, received_hour);

ALTER TABLE ONLY totalizer.merchant_usage
    ADD CONSTRAINT merchant_usage_pkey PRIMARY KEY (organization_id, date, merchant_id, metric_type);

ALTER TABLE ONLY totalizer.organization_limits
    ADD CONSTRAINT organization_limits_pkey PRIMARY KEY (organization_id);

ALTER TABLE ONLY totalizer.organizations
    ADD CONSTRAINT organizations_name_key UNIQUE (name);

ALTER TABLE ONLY totalizer.organizations
    ADD CONSTRAINT organizations_pkey PRIMARY KEY (id);

ALTER TABLE ONLY totalizer.rejected_events
    ADD CONSTRAINT rejected_events_pkey PRIMARY KEY (organization_id, hour, event_type, code);

ALTER TABLE ONLY totalizer.rollups
    ADD CONSTRAINT rollups_pkey PRIMARY KEY (name);

ALTER TABLE ONLY totalizer.schema_version
    ADD CONSTRAINT schema_version_pkc PRIMARY KEY (version_num);

ALTER TABLE ONLY totalizer.usage_aggregations
    ADD CONSTRAINT usage_aggregations_pkey PRIMARY KEY (date);

ALTER TABLE ONLY totalizer.usage_failures
    ADD CONSTRAINT usage_failures_pkey PRIMARY KEY (key);

CREATE INDEX api_keys_by_organization ON totalizer.api_keys USING btree (organization_id, created_at);

CREATE INDEX dead_letters_by_organization ON totalizer.dead_letters USING btree (organization_id, id);

CREATE INDEX dirty_marks_by_bucket ON totalizer.dirty_marks USING btree (organization_id, event_type, bucket);

CREATE INDEX event_fates_by_age ON totalizer.event_fates USING btree (recorded_at);

CREATE INDEX event_fates_by_letter ON totalizer.event_fates USING btree (dead_letter_id) WHERE (dead_letter_id IS NOT NULL);

CREATE INDEX event_fates_by_record ON totalizer.event_fates USING btree (journal_id, sequence);

CREATE INDEX job_runs_by_job ON totalizer.job_runs USING btree (job, started_at DESC);

CREATE INDEX journal_gaps_by_record ON totalizer.journal_gaps USING btree (journal_id, last);

CREATE INDEX load_ledger_by_age ON totalizer.load_ledger USING btree (loaded_at);

CREATE INDEX load_ledger_by_organization ON totalizer.load_ledger USING btree (organization_id, event_type, loaded_at);

CREATE INDEX usage_failures_by_date ON totalizer.usage_failures USING btree (date);

ALTER TABLE ONLY totalizer.api_keys
    ADD CONSTRAINT api_keys_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES totalizer.organizations(id);

ALTER TABLE ONLY totalizer.api_keys
    ADD CONSTRAINT api_keys_replaced_by_fkey FOREIGN KEY (replaced_by) REFERENCES totalizer.api_keys(id);

ALTER TABLE ONLY totalizer.organization_limits
    ADD CONSTRAINT organization_limits_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES totalizer.organizations(id);

ALTER TABLE ONLY totalizer.rollups
    ADD CONSTRAINT rollups_event_type_fkey FOREIGN KEY (event_type) REFERENCES totalizer.event_types(name);

CREATE POLICY add_ledger ON totalizer.load_ledger FOR INSERT TO totalizer_writer WITH CHECK (true);

CREATE POLICY add_marks ON totalizer.dirty_marks FOR INSERT TO totalizer_writer WITH CHECK (true);

CREATE POLICY aggregate_usage ON totalizer.merchant_usage TO totalizer_refresher USING (true) WITH CHECK (true);

CREATE POLICY all_organizations ON totalizer.organizations FOR SELECT TO totalizer_refresher USING (true);

ALTER TABLE totalizer.api_keys ENABLE ROW LEVEL SECURITY;

ALTER TABLE totalizer.dead_letters ENABLE ROW LEVEL SECURITY;

ALTER TABLE totalizer.dirty_marks ENABLE ROW LEVEL SECURITY;

ALTER TABLE totalizer.event_fates ENABLE ROW LEVEL SECURITY;

ALTER TABLE totalizer.load_ledger ENABLE ROW LEVEL SECURITY;

ALTER TABLE totalizer.load_ledger_hourly ENABLE ROW LEVEL SECURITY;

ALTER TABLE totalizer.merchant_usage ENABLE ROW LEVEL SECURITY;

CREATE POLICY note_fates ON totalizer.event_fates TO totalizer_writer USING (true) WITH CHECK (true);

ALTER TABLE totalizer.organization_limits ENABLE ROW LEVEL SECURITY;

ALTER TABLE totalizer.organizations ENABLE ROW LEVEL SECURITY;

CREATE POLICY own_dead_letters ON totalizer.dead_letters FOR SELECT TO totalizer_app USING ((organization_id = ( SELECT (NULLIF(current_setting('app.current_org_id'::text, true), ''::text))::uuid AS "nullif")));

CREATE POLICY own_fates ON totalizer.event_fates FOR SELECT TO totalizer_app USING ((organization_id = ( SELECT (NULLIF(current_setting('app.current_org_id'::text, true), ''::text))::uuid AS "nullif")));

CREATE POLICY own_hours ON totalizer.load_ledger_hourly FOR SELECT TO totalizer_app USING ((organization_id = ( SELECT (NULLIF(current_setting('app.current_org_id'::text, true), ''::text))::uuid AS "nullif")));

CREATE POLICY own_keys ON totalizer.api_keys TO totalizer_app USING ((organization_id = ( SELECT (NULLIF(current_setting('app.current_org_id'::text, true), ''::text))::uuid AS "nullif"))) WITH CHECK ((organization_id = ( SELECT (NULLIF(current_setting('app.current_org_id'::text, true), ''::text))::uuid AS "nullif")));

CREATE POLICY own_ledger ON totalizer.load_ledger FOR SELECT TO totalizer_app USING ((organization_id = ( SELECT (NULLIF(current_setting('app.current_org_id'::text, true), ''::text))::uuid AS "nullif")));

CREATE POLICY own_limits ON totalizer.organization_limits FOR SELECT TO totalizer_app USING ((organization_id = ( SELECT (NULLIF(current_setting('app.current_org_id'::text, true), ''::text))::uuid AS "nullif")));

CREATE POLICY own_marks ON totalizer.dirty_marks FOR SELECT TO totalizer_app USING ((organization_id = ( SELECT (NULLIF(current_setting('app.current_org_id'::text, true), ''::text))::uuid AS "nullif")));

CREATE POLICY own_organization ON totalizer.organizations FOR SELECT TO totalizer_app USING ((id = ( SELECT (NULLIF(current_setting('app.current_org_id'::text, true), ''::text))::uuid AS "nullif")));

CREATE POLICY own_rejected ON totalizer.rejected_events FOR SELECT TO totalizer_app USING ((organization_id = ( SELECT (NULLIF(current_setting('app.current_org_id'::text, true), ''::text))::uuid AS "nullif")));

CREATE POLICY own_usage ON totalizer.merchant_usage FOR SELECT TO totalizer_app USING ((organization_id = ( SELECT (NULLIF(current_setting('app.current_org_id'::text, true), ''::text))::uuid AS "nullif")));

ALTER TABLE totalizer.rejected_events ENABLE ROW LEVEL SECURITY;

CREATE POLICY see_dead_letters ON totalizer.dead_letters FOR SELECT TO totalizer_refresher USING (true);

CREATE POLICY see_ledger ON totalizer.load_ledger FOR SELECT TO totalizer_refresher USING (true);

CREATE POLICY see_rejected ON totalizer.rejected_events FOR SELECT TO totalizer_refresher USING (true);

CREATE POLICY sum_up ON totalizer.load_ledger_hourly TO totalizer_refresher USING (true) WITH CHECK (true);

CREATE POLICY take_ledger ON totalizer.load_ledger FOR DELETE TO totalizer_refresher USING (true);

CREATE POLICY take_marks ON totalizer.dirty_marks TO totalizer_refresher USING (true) WITH CHECK (true);

CREATE POLICY tidy_fates ON totalizer.event_fates TO totalizer_refresher USING (true);

CREATE POLICY work_off_dead_letters ON totalizer.dead_letters TO totalizer_writer USING (true) WITH CHECK (true);

GRANT USAGE ON SCHEMA totalizer TO totalizer_writer;
GRANT USAGE ON SCHEMA totalizer TO totalizer_refresher;
GRANT USAGE ON SCHEMA totalizer TO totalizer_app;

REVOKE ALL ON FUNCTION totalizer.authenticate_key(hash bytea) FROM PUBLIC;
GRANT ALL ON FUNCTION totalizer.authenticate_key(hash bytea) TO totalizer_app;

REVOKE ALL ON FUNCTION totalizer.count_rejected(organizations uuid[], hours timestamp with time zone[], types text[], codes text[], counts bigint[]) FROM PUBLIC;
GRANT ALL ON FUNCTION totalizer.count_rejected(organizations uuid[], hours timestamp with time zone[], types text[], codes text[], counts bigint[]) TO totalizer_app;

REVOKE ALL ON FUNCTION totalizer.default_organization() FROM PUBLIC;
GRANT ALL ON FUNCTION totalizer.default_organization() TO totalizer_app;
GRANT ALL ON FUNCTION totalizer.default_organization() TO totalizer_refresher;

REVOKE ALL ON FUNCTION totalizer.ensure_partition(type_name text, day date) FROM PUBLIC;
GRANT ALL ON FUNCTION totalizer.ensure_partition(type_name text, day date) TO totalizer_writer;
GRANT ALL ON FUNCTION totalizer.ensure_partition(type_name text, day date) TO totalizer_refresher;

REVOKE ALL ON FUNCTION totalizer.find_organization(wanted uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION totalizer.find_organization(wanted uuid) TO totalizer_app;

REVOKE ALL ON FUNCTION totalizer.note_key_used(used uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION totalizer.note_key_used(used uuid) TO totalizer_app;

GRANT SELECT(id) ON TABLE totalizer.api_keys TO totalizer_app;

GRANT SELECT(organization_id),INSERT(organization_id) ON TABLE totalizer.api_keys TO totalizer_app;

GRANT SELECT(name),INSERT(name) ON TABLE totalizer.api_keys TO totalizer_app;

GRANT INSERT(key_hash) ON TABLE totalizer.api_keys TO totalizer_app;

GRANT SELECT(scopes),INSERT(scopes) ON TABLE totalizer.api_keys TO totalizer_app;

GRANT SELECT(created_at) ON TABLE totalizer.api_keys TO totalizer_app;

GRANT SELECT(expires_at),INSERT(expires_at),UPDATE(expires_at) ON TABLE totalizer.api_keys TO totalizer_app;

GRANT SELECT(revoked_at),UPDATE(revoked_at) ON TABLE totalizer.api_keys TO totalizer_app;

GRANT SELECT(last_used_at) ON TABLE totalizer.api_keys TO totalizer_app;

GRANT SELECT(replaced_by),UPDATE(replaced_by) ON TABLE totalizer.api_keys TO totalizer_app;

GRANT SELECT,INSERT,DELETE ON TABLE totalizer.dead_letters TO totalizer_writer;
GRANT SELECT ON TABLE totalizer.dead_letters TO totalizer_app;
GRANT SELECT ON TABLE totalizer.dead_letters TO totalizer_refresher;

GRANT UPDATE(sqlstate) ON TABLE totalizer.dead_letters TO totalizer_writer;

GRANT UPDATE(reason) ON TABLE totalizer.dead_letters TO totalizer_writer;

GRANT UPDATE(retries) ON TABLE totalizer.dead_letters TO totalizer_writer;

GRANT UPDATE(retried_at) ON TABLE totalizer.dead_letters TO totalizer_writer;

GRANT SELECT ON TABLE totalizer.dirty_marks TO totalizer_app;
GRANT INSERT ON TABLE totalizer.dirty_marks TO totalizer_writer;
GRANT SELECT,INSERT,DELETE ON TABLE totalizer.dirty_marks TO totalizer_refresher;

GRANT SELECT,INSERT,DELETE ON TABLE totalizer.event_fates TO totalizer_writer;
GRANT SELECT ON TABLE totalizer.event_fates TO totalizer_app;
GRANT SELECT,DELETE ON TABLE totalizer.event_fates TO totalizer_refresher;

GRANT UPDATE(fate) ON TABLE totalizer.event_fates TO totalizer_writer;

GRANT UPDATE(code) ON TABLE totalizer.event_fates TO totalizer_writer;

GRANT UPDATE(reason) ON TABLE totalizer.event_fates TO totalizer_writer;

GRANT UPDATE(dead_letter_id) ON TABLE totalizer.event_fates TO totalizer_writer;

GRANT SELECT ON TABLE totalizer.event_types TO totalizer_writer;
GRANT SELECT ON TABLE totalizer.event_types TO totalizer_refresher;
GRANT SELECT ON TABLE totalizer.event_types TO totalizer_app;

GRANT SELECT,INSERT ON TABLE totalizer.job_runs TO totalizer_refresher;

GRANT SELECT,INSERT,DELETE ON TABLE totalizer.journal_gaps TO totalizer_writer;
GRANT SELECT ON TABLE totalizer.journal_gaps TO totalizer_app;
GRANT SELECT,DELETE ON TABLE totalizer.journal_gaps TO totalizer_refresher;

GRANT SELECT,INSERT,UPDATE ON TABLE totalizer.journal_offsets TO totalizer_writer;
GRANT SELECT ON TABLE totalizer.journal_offsets TO totalizer_app;
GRANT SELECT ON TABLE totalizer.journal_offsets TO totalizer_refresher;

GRANT INSERT ON TABLE totalizer.load_ledger TO totalizer_writer;
GRANT SELECT ON TABLE totalizer.load_ledger TO totalizer_app;
GRANT SELECT,DELETE ON TABLE totalizer.load_ledger TO totalizer_refresher;

GRANT SELECT ON TABLE totalizer.load_ledger_hourly TO totalizer_app;
GRANT SELECT,INSERT,UPDATE ON TABLE totalizer.load_ledger_hourly TO totalizer_refresher;

GRANT SELECT ON TABLE totalizer.ledger TO totalizer_app;
GRANT SELECT ON TABLE totalizer.ledger TO totalizer_refresher;

GRANT SELECT ON TABLE totalizer.merchant_usage TO totalizer_app;
GRANT SELECT,INSERT,UPDATE ON TABLE totalizer.merchant_usage TO totalizer_refresher;

GRANT SELECT ON TABLE totalizer.organization_limits TO totalizer_app;

GRANT SELECT ON TABLE totalizer.organizations TO totalizer_app;
GRANT SELECT ON TABLE totalizer.organizations TO totalizer_refresher;

GRANT SELECT ON TABLE totalizer.rejected_events TO totalizer_app;
GRANT SELECT ON TABLE totalizer.rejected_events TO totalizer_refresher;

GRANT SELECT ON TABLE totalizer.rollups TO totalizer_writer;
GRANT SELECT ON TABLE totalizer.rollups TO totalizer_refresher;
GRANT SELECT ON TABLE totalizer.rollups TO totalizer_app;

GRANT SELECT,INSERT,UPDATE ON TABLE totalizer.usage_aggregations TO totalizer_refresher;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE totalizer.usage_failures TO totalizer_refresher;
