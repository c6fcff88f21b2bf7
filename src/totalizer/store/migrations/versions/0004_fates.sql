-- What became of every event: by journal record for receipts, by the hour of its receipt for the books.

-- A receipt names a record of a journal: it is done when the journal is loaded up to there.
ALTER TABLE totalizer.journal_offsets ADD COLUMN sequence bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN totalizer.journal_offsets.sequence IS 'Number of the last record loaded; 0 in a journal that was loaded by a version that did not note it';

CREATE TABLE totalizer.journal_gaps (
    journal_id uuid NOT NULL,
    first bigint NOT NULL,
    last bigint NOT NULL,
    reason text NOT NULL,
    dead_letter_id bigint,
    found_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE totalizer.journal_gaps IS 'Records that did not reach the loader as batches: damaged on the disk, or not readable by it and kept as a dead letter';
CREATE INDEX journal_gaps_by_record ON totalizer.journal_gaps (journal_id, last);
GRANT SELECT, INSERT, DELETE ON totalizer.journal_gaps TO totalizer_writer;
GRANT SELECT ON totalizer.journal_gaps TO totalizer_app;
GRANT SELECT, DELETE ON totalizer.journal_gaps TO totalizer_refresher;

CREATE TABLE totalizer.event_fates (
    organization_id uuid NOT NULL,
    journal_id uuid NOT NULL,
    sequence bigint NOT NULL,
    event_type text NOT NULL,
    fate text NOT NULL CHECK (fate IN ('duplicate', 'conflict', 'quarantined', 'dropped')),
    places integer[] NOT NULL,
    ids text[] NOT NULL,
    code text,
    reason text,
    dead_letter_id bigint,
    recorded_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE totalizer.event_fates IS 'Acknowledged events that were not stored, by the journal record they came in; all others of a loaded record were';
COMMENT ON COLUMN totalizer.event_fates.places IS 'Where the events stood in the request, in their type''s list';
CREATE INDEX event_fates_by_record ON totalizer.event_fates (journal_id, sequence);
CREATE INDEX event_fates_by_letter ON totalizer.event_fates (dead_letter_id) WHERE dead_letter_id IS NOT NULL;
CREATE INDEX event_fates_by_age ON totalizer.event_fates (recorded_at);
ALTER TABLE totalizer.event_fates ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_fates ON totalizer.event_fates FOR SELECT TO totalizer_app
    USING (organization_id = (SELECT nullif(current_setting('app.current_org_id', true), '')::uuid));
CREATE POLICY note_fates ON totalizer.event_fates FOR ALL TO totalizer_writer USING (true) WITH CHECK (true);
CREATE POLICY tidy_fates ON totalizer.event_fates FOR ALL TO totalizer_refresher USING (true);
GRANT SELECT, INSERT, DELETE, UPDATE (fate, code, reason, dead_letter_id) ON totalizer.event_fates TO totalizer_writer;
GRANT SELECT ON totalizer.event_fates TO totalizer_app;
GRANT SELECT, DELETE ON totalizer.event_fates TO totalizer_refresher;

ALTER TABLE totalizer.dead_letters ADD COLUMN received_hour timestamptz;
COMMENT ON COLUMN totalizer.dead_letters.received_hour IS 'The hour of receipt, under which the ledger counts it; null: the hour of created_at';
CREATE INDEX dead_letters_by_organization ON totalizer.dead_letters (organization_id, id);

-- The books. Accepted is what the journal's records say they hold, the other figures what became of it.
ALTER TABLE totalizer.load_ledger
    ADD COLUMN accepted bigint,
    ADD COLUMN received_hour timestamptz;
COMMENT ON COLUMN totalizer.load_ledger.accepted IS 'How many events the records held; null: written by a version that did not count them, so the sum of their fates';
COMMENT ON COLUMN totalizer.load_ledger.received_hour IS 'The hour in which the events were received; null: that of loaded_at';

CREATE TABLE totalizer.load_ledger_hourly (
    organization_id uuid NOT NULL,
    event_type text NOT NULL,
    received_hour timestamptz NOT NULL,
    accepted bigint NOT NULL,
    loaded bigint NOT NULL,
    duplicate bigint NOT NULL,
    conflict bigint NOT NULL,
    dead_lettered bigint NOT NULL,
    dropped bigint NOT NULL,
    PRIMARY KEY (organization_id, event_type, received_hour)
);
COMMENT ON TABLE totalizer.load_ledger_hourly IS 'What load_ledger had, summed by the hour of receipt and removed there in the same transaction';
ALTER TABLE totalizer.load_ledger_hourly ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_hours ON totalizer.load_ledger_hourly FOR SELECT TO totalizer_app
    USING (organization_id = (SELECT nullif(current_setting('app.current_org_id', true), '')::uuid));
CREATE POLICY sum_up ON totalizer.load_ledger_hourly FOR ALL TO totalizer_refresher USING (true) WITH CHECK (true);
CREATE POLICY take_ledger ON totalizer.load_ledger FOR DELETE TO totalizer_refresher USING (true);
GRANT SELECT ON totalizer.load_ledger_hourly TO totalizer_app;
GRANT SELECT, INSERT, UPDATE ON totalizer.load_ledger_hourly TO totalizer_refresher;
GRANT DELETE ON totalizer.load_ledger TO totalizer_refresher;
CREATE INDEX load_ledger_by_age ON totalizer.load_ledger (loaded_at);

CREATE VIEW totalizer.ledger WITH (security_invoker = true) AS
SELECT organization_id, event_type, coalesce(received_hour, date_trunc('hour', loaded_at, 'UTC')) AS received_hour,
       coalesce(accepted, loaded + duplicate + conflict + dead_lettered + dropped) AS accepted,
       loaded, duplicate, conflict, dead_lettered, dropped
FROM totalizer.load_ledger
UNION ALL
SELECT organization_id, event_type, received_hour, accepted, loaded, duplicate, conflict, dead_lettered, dropped
FROM totalizer.load_ledger_hourly;
COMMENT ON VIEW totalizer.ledger IS 'The whole ledger, summed up or not yet; several rows an hour';
GRANT SELECT ON totalizer.ledger TO totalizer_app, totalizer_refresher;

CREATE TABLE totalizer.rejected_events (
    organization_id uuid NOT NULL,
    hour timestamptz NOT NULL,
    event_type text NOT NULL,
    code text NOT NULL,
    events bigint NOT NULL,
    PRIMARY KEY (organization_id, hour, event_type, code)
);
COMMENT ON TABLE totalizer.rejected_events IS 'Events that were refused, never acknowledged; the last seconds before a kill are not counted';
ALTER TABLE totalizer.rejected_events ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rejected ON totalizer.rejected_events FOR SELECT TO totalizer_app
    USING (organization_id = (SELECT nullif(current_setting('app.current_org_id', true), '')::uuid));
CREATE POLICY see_rejected ON totalizer.rejected_events FOR SELECT TO totalizer_refresher USING (true);
GRANT SELECT ON totalizer.rejected_events TO totalizer_app, totalizer_refresher;

-- The API's processes count and may do no more than add to what is counted.
CREATE FUNCTION totalizer.count_rejected(organizations uuid[], hours timestamptz[], types text[], codes text[], counts bigint[])
RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = totalizer, pg_temp
AS $$
    INSERT INTO totalizer.rejected_events AS r (organization_id, hour, event_type, code, events)
    SELECT o, h, t, c, n FROM unnest(organizations, hours, types, codes, counts) AS new (o, h, t, c, n)
    WHERE n > 0 ORDER BY 1, 2, 3, 4
    ON CONFLICT (organization_id, hour, event_type, code) DO UPDATE SET events = r.events + excluded.events
$$;
REVOKE ALL ON FUNCTION totalizer.count_rejected FROM PUBLIC;
GRANT EXECUTE ON FUNCTION totalizer.count_rejected TO totalizer_app;
