-- A version of every organisation's events, by type: what a kept answer is good for.

CREATE TABLE totalizer.data_versions (
    organization_id uuid NOT NULL,
    event_type text NOT NULL,
    slot smallint NOT NULL,
    stamp uuid NOT NULL,
    PRIMARY KEY (organization_id, event_type, slot)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE totalizer.data_versions IS 'Changed in every transaction that changes events, or what is told of them; the version of an organisation''s events of a type are the stamps of all its slots';
COMMENT ON COLUMN totalizer.data_versions.slot IS 'By database session, so that loaders seldom wait for one another';
COMMENT ON COLUMN totalizer.data_versions.stamp IS 'Never the same twice, not even in a database that was restored to an earlier state and went on from there';
ALTER TABLE totalizer.data_versions ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_versions ON totalizer.data_versions FOR SELECT TO totalizer_app
    USING (organization_id = (SELECT nullif(current_setting('app.current_org_id', true), '')::uuid));
GRANT SELECT ON totalizer.data_versions TO totalizer_app;

-- For whoever changes what answers tell without marking a bucket.
CREATE FUNCTION totalizer.data_changed(organizations uuid[], types text[]) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = totalizer, pg_temp
AS $$
    INSERT INTO totalizer.data_versions AS v (organization_id, event_type, slot, stamp)
    SELECT o, t, pg_backend_pid() % 8, gen_random_uuid()
    FROM (SELECT DISTINCT o, t FROM unnest(organizations, types) AS changed (o, t) ORDER BY 1, 2) AS ordered
    ON CONFLICT (organization_id, event_type, slot) DO UPDATE SET stamp = excluded.stamp
$$;
REVOKE ALL ON FUNCTION totalizer.data_changed FROM PUBLIC;
GRANT EXECUTE ON FUNCTION totalizer.data_changed TO totalizer_writer, totalizer_refresher;

-- Every change of events marks its buckets in the same transaction: the loader's, corrections, a change of a zone, a
-- new rollup. So the marks say what has changed.
CREATE FUNCTION totalizer.note_marked() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = totalizer, pg_temp
AS $$
BEGIN
    INSERT INTO totalizer.data_versions AS v (organization_id, event_type, slot, stamp)
    SELECT organization_id, event_type, pg_backend_pid() % 8, gen_random_uuid()
    FROM (SELECT DISTINCT organization_id, event_type FROM marked ORDER BY 1, 2) AS ordered
    ON CONFLICT (organization_id, event_type, slot) DO UPDATE SET stamp = excluded.stamp;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION totalizer.note_marked FROM PUBLIC;
CREATE TRIGGER note_marked AFTER INSERT ON totalizer.dirty_marks
    REFERENCING NEW TABLE AS marked FOR EACH STATEMENT EXECUTE FUNCTION totalizer.note_marked();

-- Late events are added to rollups without a mark, and what is removed is missing in answers.
CREATE FUNCTION totalizer.note_late_applied() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = totalizer, pg_temp
AS $$
BEGIN
    PERFORM totalizer.data_changed(array_agg(organization_id), array_agg(event_type))
    FROM (SELECT DISTINCT organization_id, event_type FROM applied WHERE state = 'applied') AS changed
    HAVING count(*) > 0;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION totalizer.note_late_applied FROM PUBLIC;
CREATE TRIGGER note_late_applied AFTER UPDATE ON totalizer.late_events
    REFERENCING NEW TABLE AS applied FOR EACH STATEMENT EXECUTE FUNCTION totalizer.note_late_applied();

CREATE FUNCTION totalizer.note_floor_raised() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = totalizer, pg_temp
AS $$
BEGIN
    UPDATE totalizer.data_versions SET stamp = gen_random_uuid()
    WHERE event_type = NEW.event_type AND (NEW.organization_id IS NULL OR organization_id = NEW.organization_id);
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION totalizer.note_floor_raised FROM PUBLIC;
CREATE TRIGGER note_floor_raised AFTER INSERT OR UPDATE ON totalizer.retention_floors
    FOR EACH ROW EXECUTE FUNCTION totalizer.note_floor_raised();

-- What is stored already: a dashboard shows the event types that have a version.
INSERT INTO totalizer.data_versions
SELECT organization_id, event_type, 0, gen_random_uuid() FROM totalizer.ledger GROUP BY 1, 2
ON CONFLICT DO NOTHING;
