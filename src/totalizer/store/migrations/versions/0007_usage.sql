-- Usage for billing: what each merchant used on each day, how the aggregation of a day went, counters that could not be read.
CREATE TABLE totalizer.merchant_usage (
    organization_id uuid NOT NULL,
    merchant_id text NOT NULL,
    date date NOT NULL,
    metric_type text NOT NULL,
    metric_value bigint NOT NULL CHECK (metric_value >= 0),
    updated_at timestamptz NOT NULL DEFAULT now(),
    -- Day before merchant: a run writes one day, and so one part of the index.
    PRIMARY KEY (organization_id, date, merchant_id, metric_type)
);
COMMENT ON TABLE totalizer.merchant_usage IS 'What a merchant used of a metric on a UTC day; never lowered';
ALTER TABLE totalizer.merchant_usage ENABLE ROW LEVEL SECURITY;
ALTER TABLE totalizer.merchant_usage FORCE ROW LEVEL SECURITY;
CREATE POLICY own_usage ON totalizer.merchant_usage FOR SELECT TO totalizer_app
    USING (organization_id = (SELECT nullif(current_setting('app.current_org_id', true), '')::uuid));
CREATE POLICY aggregate_usage ON totalizer.merchant_usage FOR ALL TO totalizer_refresher USING (true) WITH CHECK (true);
GRANT SELECT ON totalizer.merchant_usage TO totalizer_app;
GRANT SELECT, INSERT, UPDATE ON totalizer.merchant_usage TO totalizer_refresher;

CREATE TABLE totalizer.usage_aggregations (
    date date PRIMARY KEY,
    epoch bigint NOT NULL DEFAULT 1,
    host text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    keys_scanned bigint NOT NULL DEFAULT 0,
    records_aggregated bigint NOT NULL DEFAULT 0,
    records_settled bigint NOT NULL DEFAULT 0,
    errors bigint NOT NULL DEFAULT 0,
    failures_in_a_row integer NOT NULL DEFAULT 0,
    duration_ms bigint,
    error text
);
COMMENT ON TABLE totalizer.usage_aggregations IS 'The last run for each day';
COMMENT ON COLUMN totalizer.usage_aggregations.epoch IS 'Raised by each run; what an older run would still write is refused';
GRANT SELECT, INSERT, UPDATE ON totalizer.usage_aggregations TO totalizer_refresher;

CREATE TABLE totalizer.usage_failures (
    key text PRIMARY KEY,
    date date NOT NULL,
    reason text NOT NULL,
    attempts integer NOT NULL DEFAULT 1,
    first_failed_at timestamptz NOT NULL DEFAULT now(),
    last_failed_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE totalizer.usage_failures IS 'Counters that could not be aggregated, until a run succeeds with them or finds them gone';
CREATE INDEX usage_failures_by_date ON totalizer.usage_failures (date);
GRANT SELECT, INSERT, UPDATE, DELETE ON totalizer.usage_failures TO totalizer_refresher;

-- Whose counters have the plain names. The app role sees its own organisation alone.
CREATE FUNCTION totalizer.default_organization() RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = totalizer, pg_temp
AS $$ SELECT id FROM totalizer.organizations WHERE name = 'default' $$;
REVOKE ALL ON FUNCTION totalizer.default_organization FROM PUBLIC;
GRANT EXECUTE ON FUNCTION totalizer.default_organization TO totalizer_app, totalizer_refresher;
